// SPDX-License-Identifier: MIT
/*
 * The table area, one piece of address space, holds the domain table, in the two pages before it
 * the identity page and the gates' PKRU values, and behind it the domains' notes: gate.S then
 * needs one address.  It is reserved read-only; a backend maps its own things over it.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "pkru.h"
#include "state_page.h"

#define AREA_BYTES	(EPK_GATE_BEFORE + EPK_TABLE_ROOM + EPK_NOTES_ROOM)

/* No domain at any index: what the gates see before the library is ready. */
const struct epk_entry epk_no_table[EPK_INDICES] __attribute__((section(".bss.epk_no_table")));

static void fill_gates(uint32_t *values)
{
	unsigned int pkey;

	for (pkey = 0; pkey < EPK_NR_PKEYS; pkey++) {
		uint32_t bits = pkey ? PKRU_BITS(pkey) : 0, ad = pkey ? PKRU_AD(pkey) : 0;

		values[EPK_GATE_RW / 4 + pkey] = EPK_PKRU_ACCESS & ~bits;
		values[EPK_GATE_RO / 4 + pkey] = (EPK_PKRU_ACCESS & ~bits) | (bits & ~ad);
		values[EPK_GATE_AD / 4 + pkey] = ad;
		values[EPK_GATE_WD / 4 + pkey] = bits & ~ad;
		values[EPK_GATE_BITS / 4 + pkey] = bits;
		values[EPK_GATE_MASK / 4 + pkey] = ~bits;
		values[EPK_GATE_ONLY / 4 + pkey] = pkey ? EPK_PKRU_ACCESS & ~bits : ~0u;
	}
}

/* A parent's, if it was no module's. */
static const struct epk_entry *inherited;

/* NULL without address space. */
const struct epk_entry *epk_table_area_reserve(void)
{
	const struct epk_entry *table = inherited;
	char *area;

	if (table) {
		inherited = NULL;
		return table;
	}
	area = mmap(NULL, AREA_BYTES, PROT_READ,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return NULL;
	if (mprotect(area, EPK_PAGE_SIZE, PROT_READ | PROT_WRITE))
		goto unmap;
	fill_gates((uint32_t *)area);
	if (mprotect(area, EPK_PAGE_SIZE, PROT_READ))
		goto unmap;
	return (const struct epk_entry *)(area + EPK_GATE_BEFORE);

unmap:
	munmap(area, AREA_BYTES);
	return NULL;
}

/* Lets go of what was mapped over it, or not; in any case nobody else's memory comes there. */
bool epk_table_area_clear(const struct epk_entry *table)
{
	return mmap((char *)table - EPK_GATE_BEFORE, AREA_BYTES, PROT_READ,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

/*
 * In a forked child.  Where the module's pages were, something else may be by now; and the module
 * has who is in a gate start again.  Without it, one that a handler interrupted and forked in goes on
 * and finds an empty table, that of the child's own domains later.
 */
void epk_table_area_forget(const struct epk_state *old)
{
	if (old->fd < 0 &&
	    mmap((void *)old->table, EPK_TABLE_ROOM + EPK_NOTES_ROOM, PROT_READ,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
		inherited = old->table;
	else if (old->fd < 0)
		epk_table_area_release(old->table);
	else
		munmap((char *)old->table - EPK_GATE_BEFORE, EPK_GATE_BEFORE - EPK_GATE_IDENTITY);
}

void epk_table_area_release(const struct epk_entry *table)
{
	munmap((char *)table - EPK_GATE_BEFORE, AREA_BYTES);
}
