// SPDX-License-Identifier: MIT
/*
 * The domain table of the backends that have no kernel module: the same entries,
 * kept by the library in memory of the process, with EPT 0 throughout.
 *
 * Everybody reads it at one address; it is written at another, under "mpk" only with
 * the key state.table_pkey.  All that decides which entry is whose lies with it.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "backend.h"
#include "registry.h"

/* As with the module, index 0 is no domain's. */
#define SOFT_MAX_DOMAINS	(EPK_INDICES - 1)

/**
 * struct soft_table - the table, and what goes with it
 * @entries: the table
 * @owners: the domain that has each key, or 0
 * @used: no index beyond this one was ever used
 * @live: live domains
 * @first_free: a free index that was used before, or 0
 * @next_free: by index: the next such index, or 0
 */
struct soft_table {
	struct epk_entry entries[EPK_INDICES];
	int owners[EPK_NR_PKEYS];
	uint32_t used;
	uint32_t live;
	uint32_t first_free;
	uint32_t next_free[EPK_INDICES];
};
_Static_assert(offsetof(struct soft_table, entries) == 0, "it is mapped from its start");

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

/* A child has nothing of it but what it can read. */
int soft_table_init(struct epk_state *state)
{
	int pkey = state->table_pkey ? state->table_pkey : -1;
	struct soft_table *soft;

	soft = mmap(NULL, sizeof(*soft), PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (soft == MAP_FAILED)
		return -ENOMEM;
	/* Of length 0, so that it stays where it is as well. */
	if (mremap(soft, 0, EPK_TABLE_ROOM, MREMAP_MAYMOVE | MREMAP_FIXED,
		   (void *)state->table) == MAP_FAILED ||
	    pkey_mprotect(soft, sizeof(*soft), PROT_READ | PROT_WRITE, pkey) ||
	    madvise(soft, sizeof(*soft), MADV_DONTFORK)) {
		munmap(soft, sizeof(*soft));
		return -ENOMEM;
	}
	state->soft = soft;
	return 0;
}

/* Undoes it.  What everybody reads goes with the region that it lies in. */
void soft_table_exit(const struct epk_state *state)
{
	munmap(state->soft, sizeof(*state->soft));
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

int soft_table_free(int num, const int *ids)
{
	struct soft_table *soft = epk_now.soft;
	uint32_t index, pkru = unseal();
	int i;

	for (i = 0; i < num; i++) {
		index = EPK_ID_INDEX(ids[i]);
		soft->owners[soft->entries[index].pkey] = 0;
		entry_store(index, (struct epk_entry){ 0 });
		soft->next_free[index] = soft->first_free;
		soft->first_free = index;
	}
	soft->live -= num;
	seal(pkru);
	return 0;
}

void soft_table_set_pkey(int id, uint8_t pkey)
{
	uint32_t pkru = unseal();

	entry_store(EPK_ID_INDEX(id), (struct epk_entry){ .id = id, .pkey = pkey });
	seal(pkru);
}

void soft_table_owners(int owners[EPK_NR_PKEYS])
{
	uint32_t pkru = unseal();
	int pkey;

	for (pkey = 0; pkey < EPK_NR_PKEYS; pkey++)
		owners[pkey] = epk_now.soft->owners[pkey];
	seal(pkru);
}

void soft_table_set_owner(unsigned int pkey, int id)
{
	uint32_t pkru = unseal();

	epk_now.soft->owners[pkey] = id;
	seal(pkru);
}
