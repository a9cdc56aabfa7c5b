// SPDX-License-Identifier: MIT
/*
 * The domain table of the backends that have no kernel module: the same entries,
 * kept by the library in memory of the process, with EPT 0 throughout.
 *
 * Everybody reads it at one address; it is written at another, under "mpk" only with
 * the key state.table_pkey.  All that decides which entry is whose lies with it.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "registry.h"

/* As with the module, index 0 is no domain's. */
#define SOFT_MAX_DOMAINS	(EPK_INDICES - 1)

/* Of all threads. */
#define SOFT_LEVELS		1024

/**
 * struct soft_level - rights that a thread has put aside
 * @sp: its stack pointer, which is no other thread's; 0 while this is free
 * @pkru: the rights
 * @pins: how often it has begun each
 * @tid: the thread
 * @seq: which of a thread's came first
 */
struct soft_level {
	uintptr_t sp;
	uint32_t pkru;
	uint32_t pins[EPK_NR_PKEYS];
	int tid;
	uint64_t seq;
};

/**
 * struct soft_table - the table, and what goes with it
 * @entries: the table
 * @notes: by index: the domain's note
 * @owners: the domain that has each key, or 0
 * @levels: rights that threads have put aside
 * @nr_levels: none from here on is in use
 * @seq: counts them
 * @used: no index beyond this one was ever used
 * @live: live domains
 * @first_free: a free index that was used before, or 0
 * @next_free: by index: the next such index, or 0
 */
struct soft_table {
	struct epk_entry entries[EPK_INDICES];
	uint64_t notes[EPK_INDICES];
	int owners[EPK_NR_PKEYS];
	struct soft_level levels[SOFT_LEVELS];
	uint32_t nr_levels;
	uint64_t seq;
	uint32_t used;
	uint32_t live;
	uint32_t first_free;
	uint32_t next_free[EPK_INDICES];
};
_Static_assert(offsetof(struct soft_table, entries) == 0 &&
	       offsetof(struct soft_table, notes) == EPK_TABLE_ROOM, "it is mapped from its start");

/* Lets the calling thread write the table; returns what seal() wants back. */
static uint32_t unseal(void)
{
	uint32_t pkru;

	if (!epk_now.table_pkey)
		return 0;
	pkru = rdpkru();
	/* What a new thread has open is its creator's. */
	if (!epk_word.follows)
		pkru |= epk_now.closed;
	epk_pkru_set(pkru_open(pkru, epk_now.table_pkey, PROT_READ | PROT_WRITE));
	return pkru;
}

static void seal(uint32_t pkru)
{
	if (epk_now.table_pkey)
		epk_pkru_set(pkru);
}

static void entry_store(uint32_t index, struct epk_entry entry)
{
	union {
		struct epk_entry entry;
		epk_raw_entry raw;
	} u = { .entry = entry };

	__atomic_store_n((epk_raw_entry *)&epk_now.soft->entries[index], u.raw,
			 __ATOMIC_RELEASE);
}

#define SHOWN_BYTES	(EPK_TABLE_ROOM + EPK_NOTES_ROOM)

/* A length of 0, so that it stays where it is as well. */
static struct soft_table *map_and_show(void *table)
{
	struct soft_table *soft = mmap(NULL, sizeof(*soft), PROT_READ, MAP_SHARED | MAP_ANONYMOUS,
				       -1, 0);

	if (soft == MAP_FAILED)
		return NULL;
	if (mremap(soft, 0, SHOWN_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, table) != MAP_FAILED)
		return soft;
	munmap(soft, sizeof(*soft));
	return NULL;
}

/* Valgrind knows no such length.  But a file counts against RLIMIT_FSIZE, and needs a descriptor. */
static struct soft_table *map_file_and_show(void *table)
{
	struct soft_table *soft = MAP_FAILED;
	int fd = memfd_create("libepk-table", MFD_CLOEXEC);

	if (fd < 0)
		return NULL;
	if (!ftruncate(fd, sizeof(*soft)) &&
	    mmap(table, SHOWN_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED)
		soft = mmap(NULL, sizeof(*soft), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	return soft == MAP_FAILED ? NULL : soft;
}

/* A child has nothing of it but what it can read. */
int epk_soft_table_init(struct epk_state *state)
{
	int pkey = state->table_pkey ? state->table_pkey : -1;
	struct soft_table *soft = map_and_show((void *)state->table);

	if (!soft)
		soft = map_file_and_show((void *)state->table);
	if (!soft)
		return -ENOMEM;
	if (epk_pkey_mprotect(soft, sizeof(*soft), PROT_READ | PROT_WRITE, pkey) ||
	    madvise(soft, sizeof(*soft), MADV_DONTFORK)) {
		munmap(soft, sizeof(*soft));
		return -ENOMEM;
	}
	state->soft = soft;
	return 0;
}

static int next_id(uint32_t index)
{
	int generation = epk_registry_last_id(index) >> EPK_ID_INDEX_BITS;

	generation = generation % (int)EPK_GENERATION_MAX + 1;
	return generation << EPK_ID_INDEX_BITS | (int)index;
}

/* Nothing is nearer than anything else. */
int epk_soft_table_alloc(int num, int *ids, int beside)
{
	struct soft_table *soft = epk_now.soft;
	uint32_t index, pkru = unseal();
	int i, err = 0;

	(void)beside;
	if ((uint32_t)num > SOFT_MAX_DOMAINS - soft->live) {
		err = -ENOSPC;
		goto seal;
	}
	for (i = 0; i < num; i++) {
		index = soft->first_free;
		if (index)
			soft->first_free = soft->next_free[index];
		else
			index = ++soft->used;
		ids[i] = next_id(index);
		entry_store(index, (struct epk_entry){ .id = ids[i] });
	}
	soft->live += num;
seal:
	seal(pkru);
	return err;
}

int epk_soft_table_free(int num, const int *ids)
{
	struct soft_table *soft = epk_now.soft;
	uint32_t index, pkru = unseal();
	int i;

	for (i = 0; i < num; i++) {
		index = EPK_ID_INDEX(ids[i]);
		soft->owners[soft->entries[index].pkey] = 0;
		entry_store(index, (struct epk_entry){ 0 });
		soft->notes[index] = 0;
		soft->next_free[index] = soft->first_free;
		soft->first_free = index;
	}
	soft->live -= num;
	seal(pkru);
	return 0;
}

int epk_soft_table_note(int id, uint64_t addr)
{
	uint64_t *note = &epk_now.soft->notes[EPK_ID_INDEX(id)];
	uint32_t pkru = unseal();
	uint64_t none = 0;
	bool set;

	set = __atomic_compare_exchange_n(note, &none, addr, false, __ATOMIC_ACQ_REL,
					  __ATOMIC_ACQUIRE);
	seal(pkru);
	return set ? 0 : -EBUSY;
}

void epk_soft_table_set_pkey(int id, uint8_t pkey)
{
	uint32_t pkru = unseal();

	entry_store(EPK_ID_INDEX(id), (struct epk_entry){ .id = id, .pkey = pkey });
	seal(pkru);
}

void epk_soft_table_owners(int owners[EPK_NR_PKEYS])
{
	uint32_t pkru = unseal();
	int pkey;

	for (pkey = 0; pkey < EPK_NR_PKEYS; pkey++)
		owners[pkey] = epk_now.soft->owners[pkey];
	seal(pkru);
}

void epk_soft_table_set_owner(unsigned int pkey, int id)
{
	uint32_t pkru = unseal();

	epk_now.soft->owners[pkey] = id;
	seal(pkru);
}

/* The level under @sp or, if there is none, a free one. */
static struct soft_level *find_level(struct soft_table *soft, uintptr_t sp)
{
	struct soft_level *level, *found = NULL;

	for (level = soft->levels; level < soft->levels + soft->nr_levels; level++)
		if (level->sp == sp || (!level->sp && !found))
			found = level;
	if (!found && soft->nr_levels < SOFT_LEVELS)
		found = &soft->levels[soft->nr_levels++];
	return found;
}

static void forget_those_gone(struct soft_table *soft)
{
	struct soft_level *level;

	for (level = soft->levels; level < soft->levels + soft->nr_levels; level++)
		if (level->sp && epk_thread_is_gone(level->tid))
			level->sp = 0;
}

/* Under epk_lock, as the next.  What a thread that is gone has left under its stack pointer goes. */
int epk_soft_table_push(uintptr_t sp, uint32_t pkru, const uint32_t pins[EPK_NR_PKEYS])
{
	struct soft_table *soft = epk_now.soft;
	uint32_t mine = unseal();
	struct soft_level *found = find_level(soft, sp);

	if (!found) {
		forget_those_gone(soft);
		found = find_level(soft, sp);
	}
	if (found) {
		*found = (struct soft_level) {
			.sp = sp, .pkru = pkru, .tid = gettid(), .seq = ++soft->seq,
		};
		memcpy(found->pins, pins, sizeof(found->pins));
	}
	seal(mine);
	return found ? 0 : -EMFILE;
}

/*
 * What the thread has put aside since is forgotten; all of it, if there is none under @sp.  For an
 * @sp of 0 what it put aside last.
 */
int epk_soft_table_pop(uintptr_t sp, uint32_t *pkru, uint32_t pins[EPK_NR_PKEYS])
{
	struct soft_table *soft = epk_now.soft;
	struct soft_level *level;
	uint32_t mine = unseal();
	int tid = gettid();
	uint64_t seq = 0;

	for (level = soft->levels; level < soft->levels + soft->nr_levels; level++) {
		if (level->sp && level->tid == tid && (level->sp == sp || (!sp && level->seq > seq))) {
			seq = level->seq;
			*pkru = level->pkru;
			memcpy(pins, level->pins, sizeof(level->pins));
		}
	}
	for (level = soft->levels; level < soft->levels + soft->nr_levels; level++)
		if (level->tid == tid && level->seq >= seq)
			level->sp = 0;
	while (soft->nr_levels && !soft->levels[soft->nr_levels - 1].sp)
		soft->nr_levels--;
	seal(mine);
	return seq ? 0 : -EACCES;
}

/* Somebody has put aside what has this key. */
bool epk_soft_table_aside(unsigned int pkey)
{
	struct soft_table *soft = epk_now.soft;
	uint32_t mine = unseal();
	bool found = false;
	uint32_t n;

	for (n = 0; n < soft->nr_levels && !found; n++)
		found = soft->levels[n].sp && soft->levels[n].pins[pkey] &&
			!epk_thread_is_gone(soft->levels[n].tid);
	seal(mine);
	return found;
}
