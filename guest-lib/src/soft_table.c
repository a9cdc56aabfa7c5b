// SPDX-License-Identifier: MIT
/*
 * The domain table of the backends that have no kernel module: the same entries,
 * kept by the library in memory of the process, with EPT 0 throughout.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "backend.h"
#include "registry.h"

/* As with the module, index 0 is no domain's. */
#define SOFT_MAX_DOMAINS	(EPK_INDICES - 1)
#define SOFT_NEXT_BYTES		(EPK_INDICES * sizeof(uint32_t))
/* What is left of a positive int above the index. */
#define SOFT_MAX_GENERATION	((1 << (31 - EPK_ID_INDEX_BITS)) - 1)

/* @next_free: the next free index that was used before, or 0. */
static struct {
	struct epk_entry *table;
	uint32_t *next_free;
	uint32_t first_free;
	uint32_t high;
	uint32_t live;
} soft;

static void entry_store(struct epk_entry entry)
{
	union {
		struct epk_entry entry;
		epk_raw_entry raw;
	} u = { .entry = entry };

	__atomic_store_n((epk_raw_entry *)&soft.table[EPK_ID_INDEX(entry.id)], u.raw,
			 __ATOMIC_RELEASE);
}

int soft_table_init(struct epk_state *state)
{
	void *next_free = mmap(NULL, SOFT_NEXT_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (next_free == MAP_FAILED)
		return -ENOMEM;
	if (mprotect((void *)state->table, EPK_TABLE_ROOM, PROT_READ | PROT_WRITE)) {
		munmap(next_free, SOFT_NEXT_BYTES);
		return -ENOMEM;
	}
	soft.table = (struct epk_entry *)state->table;
	soft.next_free = next_free;
	soft.first_free = 0;
	soft.high = 1;
	soft.live = 0;
	return 0;
}

/* The table goes with the region that it lies in. */
void soft_table_exit(void)
{
	munmap(soft.next_free, SOFT_NEXT_BYTES);
}

static int next_id(uint32_t index)
{
	int generation = epk_registry_last_id(index) >> EPK_ID_INDEX_BITS;

	generation = generation % SOFT_MAX_GENERATION + 1;
	return generation << EPK_ID_INDEX_BITS | (int)index;
}

/* Nothing is nearer than anything else. */
int soft_table_alloc(int num, int *ids, int beside)
{
	uint32_t index;
	int i;

	(void)beside;
	if ((uint32_t)num > SOFT_MAX_DOMAINS - soft.live)
		return -ENOSPC;
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
	soft.live += num;
	return 0;
}

void soft_table_free(int num, const int *ids)
{
	uint32_t index;
	int i;

	for (i = 0; i < num; i++) {
		index = EPK_ID_INDEX(ids[i]);
		__atomic_store_n((epk_raw_entry *)&soft.table[index], 0, __ATOMIC_RELEASE);
		soft.next_free[index] = soft.first_free;
		soft.first_free = index;
	}
	soft.live -= num;
}

void soft_table_set_pkey(int id, uint8_t pkey)
{
	entry_store((struct epk_entry){ .id = id, .pkey = pkey });
}
