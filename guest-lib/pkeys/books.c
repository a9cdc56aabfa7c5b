// SPDX-License-Identifier: MIT
/* Which number is which domain, and which memory has which key. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "pkeys.h"

struct books *pkeys_books;

/* Whoever cannot close them again goes no further. */
static void protect(int prot)
{
	if (pkeys_raw(SYS_mprotect, (long)pkeys_books, sizeof(*pkeys_books), prot, 0, 0, 0) < 0)
		abort();
}

bool pkeys_books_make(void)
{
	long got = pkeys_raw(SYS_mmap, 0, sizeof(*pkeys_books), PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (got < 0 && got > -4096)
		return false;
	pkeys_books = (struct books *)got;
	return true;
}

void pkeys_books_open(void)
{
	protect(RW);
}

void pkeys_books_close(void)
{
	protect(PROT_READ);
}

/* Odd while the list changes, to the end of the change: who looks without the lock looks again. */
static void moving(void)
{
	__atomic_add_fetch(&pkeys_books->changes, 1, __ATOMIC_SEQ_CST);
}

/* The first region that ends behind @addr, by its index. */
static unsigned int index_of(uintptr_t addr)
{
	unsigned int low = 0, high = pkeys_books->nr_regions;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (pkeys_books->regions[middle].end > addr)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* The first region that has a part in the range. */
bool pkeys_region_find(uintptr_t start, uintptr_t end, struct region *first)
{
	unsigned int at = index_of(start);

	if (at == pkeys_books->nr_regions || pkeys_books->regions[at].start >= end)
		return false;
	*first = pkeys_books->regions[at];
	return true;
}

static void insert(unsigned int at, const struct region *region)
{
	struct region *regions = pkeys_books->regions;

	memmove(regions + at + 1, regions + at, (pkeys_books->nr_regions - at) * sizeof(*regions));
	regions[at] = *region;
	pkeys_books->nr_regions++;
}

static void remove_at(unsigned int at)
{
	struct region *regions = pkeys_books->regions;

	pkeys_books->nr_regions--;
	memmove(regions + at, regions + at + 1, (pkeys_books->nr_regions - at) * sizeof(*regions));
}

/* Nothing is known where it lies. */
static void add(const struct region *region)
{
	unsigned int at = index_of(region->start);
	struct region *before = pkeys_books->regions + at - 1;

	pkeys_books->bytes[region->slot] += region->end - region->start;
	if (at && before->end == region->start && before->slot == region->slot &&
	    before->prot == region->prot) {
		before->end = region->end;
		return;
	}
	insert(at, region);
}

/* Is there room for what one piece of memory makes of one region: two at most, and itself? */
bool pkeys_regions_have_room(void)
{
	return pkeys_books->nr_regions + 3 < REGIONS_MOST;
}

/* Nothing is known of the range from then on. */
static void cut(uintptr_t start, uintptr_t end)
{
	struct region region, rest;
	unsigned int at;

	while (pkeys_region_find(start, end, &region)) {
		at = index_of(start);
		remove_at(at);
		pkeys_books->bytes[region.slot] -= region.end - region.start;
		rest = region;
		if (region.end > end) {
			rest.start = end;
			pkeys_books->bytes[rest.slot] += rest.end - rest.start;
			insert(at, &rest);
		}
		rest = region;
		if (region.start < start) {
			rest.end = start;
			pkeys_books->bytes[rest.slot] += rest.end - rest.start;
			insert(at, &rest);
		}
	}
}

/* The range has this key from then on, or none.  There is room for it. */
void pkeys_region_note(uintptr_t start, uintptr_t end, int prot, unsigned int slot)
{
	const struct region region = { .start = start, .end = end, .slot = slot, .prot = prot };

	moving();
	cut(start, end);
	if (slot)
		add(&region);
	moving();
}

/*
 * pkeys_region_find() without the lock, in handlers of signals, too: who has it may wait for one of an allocator,
 * whose owner looks.
 */
bool pkeys_region_look(uintptr_t start, uintptr_t end, struct region *first)
{
	unsigned int before;
	bool found;

	if (!pkeys_books)
		return false;
	do {
		before = __atomic_load_n(&pkeys_books->changes, __ATOMIC_SEQ_CST);
		found = pkeys_region_find(start, end, first);
		atomic_thread_fence(memory_order_seq_cst);
	} while (before % 2 || __atomic_load_n(&pkeys_books->changes, __ATOMIC_SEQ_CST) != before);
	return found;
}

/* The key with this value; its value is 0 if there is none.  Without any lock, in handlers of signals, too. */
union key pkeys_key_find(int value)
{
	union key key = { .raw = 0 };

	if (value <= 0 || !pkeys_books)
		return key;
	key.raw = __atomic_load_n(&pkeys_books->keys[(unsigned int)value % SLOTS].raw, __ATOMIC_ACQUIRE);
	if (key.value != value)
		key.raw = 0;
	return key;
}

void pkeys_key_write(unsigned int slot, int value, int id)
{
	union key key = { .value = value, .id = id };

	__atomic_store_n(&pkeys_books->keys[slot].raw, key.raw, __ATOMIC_RELEASE);
}

unsigned int pkeys_key_slot_of(int id)
{
	unsigned int slot = pkeys_books->slot_of[(unsigned int)id % INDICES];

	return pkeys_books->keys[slot].id == id ? slot : NO_SLOT;
}
