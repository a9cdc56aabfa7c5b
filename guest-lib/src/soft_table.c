// SPDX-License-Identifier: MIT
/*
 * The domain table of the backends that have no kernel module: the same entries,
 * kept by the library in memory of the process, with EPT 0 throughout.
 *
 * Under "mpk" it is sealed: everybody reads it at one address, and only the key
 * state.vault_pkey lets the library write it at another.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "registry.h"

/* As with the module, index 0 is no domain's. */
#define SOFT_MAX_DOMAINS	(EPK_INDICES - 1)
#define SOFT_NEXT_BYTES		(EPK_INDICES * sizeof(uint32_t))

/*
 * @table: where it is written
 * @owners: behind it, if it is sealed: the domain that has each key, or 0
 * @next_free: the next free index that was used before, or 0
 */
static struct {
	struct epk_entry *table;
	int *owners;
	uint32_t *next_free;
	uint32_t first_free;
	uint32_t high;
	uint32_t live;
} soft;

#define SEALED_BYTES	(EPK_TABLE_ROOM + EPK_PAGE_SIZE)

/* Lets the calling thread write the table; returns what seal() wants back. */
static uint32_t unseal(void)
{
	uint32_t pkru;

	if (!epk_now.vault_pkey)
		return 0;
	pkru = rdpkru();
	/* What a new thread has open is its creator's. */
	if (!epk_self)
		pkru |= epk_now.closed;
	epk_pkru_set(pkru_open(pkru | epk_now.closed, epk_now.vault_pkey,
			       PROT_READ | PROT_WRITE));
	return pkru;
}

static void seal(uint32_t pkru)
{
	if (epk_now.vault_pkey)
		epk_pkru_set(pkru);
}

static void entry_store(struct epk_entry entry)
{
	union {
		struct epk_entry entry;
		epk_raw_entry raw;
	} u = { .entry = entry };

	__atomic_store_n((epk_raw_entry *)&soft.table[EPK_ID_INDEX(entry.id)], u.raw,
			 __ATOMIC_RELEASE);
}

static int init_open(const struct epk_state *state)
{
	soft.table = (struct epk_entry *)state->table;
	soft.owners = NULL;
	return mprotect(soft.table, EPK_TABLE_ROOM, PROT_READ | PROT_WRITE) ? -ENOMEM : 0;
}

static int init_sealed(const struct epk_state *state)
{
	int fd = memfd_create("epk", MFD_CLOEXEC);
	void *writable = MAP_FAILED;

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, SEALED_BYTES))
		writable = mmap(NULL, SEALED_BYTES, PROT_NONE, MAP_SHARED, fd, 0);
	if (writable == MAP_FAILED)
		goto close_fd;
	if (pkey_mprotect(writable, SEALED_BYTES, PROT_READ | PROT_WRITE, state->vault_pkey) ||
	    madvise(writable, SEALED_BYTES, MADV_DONTFORK) ||
	    mmap((void *)state->table, EPK_TABLE_ROOM, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
		 0) == MAP_FAILED)
		goto unmap;
	close(fd);
	soft.table = writable;
	soft.owners = (int *)((char *)writable + EPK_TABLE_ROOM);
	return 0;

unmap:
	munmap(writable, SEALED_BYTES);
close_fd:
	close(fd);
	return -ENOMEM;
}

int soft_table_init(struct epk_state *state)
{
	void *next_free = mmap(NULL, SOFT_NEXT_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int err;

	if (next_free == MAP_FAILED)
		return -ENOMEM;
	err = state->vault_pkey ? init_sealed(state) : init_open(state);
	if (err) {
		munmap(next_free, SOFT_NEXT_BYTES);
		return err;
	}
	soft.next_free = next_free;
	soft.first_free = 0;
	soft.high = 1;
	soft.live = 0;
	return 0;
}

/* The table goes with the region that it lies in; what is sealed is not inherited. */
void soft_table_exit(void)
{
	if (soft.owners)
		munmap(soft.table, SEALED_BYTES);
	munmap(soft.next_free, SOFT_NEXT_BYTES);
}

static int next_id(uint32_t index)
{
	int generation = epk_registry_last_id(index) >> EPK_ID_INDEX_BITS;

	generation = generation % (int)EPK_GENERATION_MAX + 1;
	return generation << EPK_ID_INDEX_BITS | (int)index;
}

/* Nothing is nearer than anything else. */
int soft_table_alloc(int num, int *ids, int beside)
{
	uint32_t index, pkru;
	int i;

	(void)beside;
	if ((uint32_t)num > SOFT_MAX_DOMAINS - soft.live)
		return -ENOSPC;
	pkru = unseal();
	for (i = 0; i < num; i++) {
		if (soft.first_free) {
			index = soft.first_free;
			soft.first_free = soft.next_free[index];
		} else {
			index = soft.high++;
		}
		ids[i] = next_id(index);
		entry_store((struct epk_entry){ .id = ids[i] });
	}
	seal(pkru);
	soft.live += num;
	return 0;
}

void soft_table_free(int num, const int *ids)
{
	uint32_t index, pkru = unseal();
	int i;

	for (i = 0; i < num; i++) {
		index = EPK_ID_INDEX(ids[i]);
		__atomic_store_n((epk_raw_entry *)&soft.table[index], 0, __ATOMIC_RELEASE);
		soft.next_free[index] = soft.first_free;
		soft.first_free = index;
	}
	seal(pkru);
	soft.live -= num;
}

void soft_table_set_pkey(int id, uint8_t pkey)
{
	uint32_t pkru = unseal();

	entry_store((struct epk_entry){ .id = id, .pkey = pkey });
	seal(pkru);
}

void soft_table_owners(int owners[EPK_NR_PKEYS])
{
	uint32_t pkru = unseal();
	int pkey;

	for (pkey = 0; pkey < EPK_NR_PKEYS; pkey++)
		owners[pkey] = soft.owners[pkey];
	seal(pkru);
}

void soft_table_set_owner(unsigned int pkey, int id)
{
	uint32_t pkru = unseal();

	soft.owners[pkey] = id;
	seal(pkru);
}
