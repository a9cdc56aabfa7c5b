// SPDX-License-Identifier: MIT
/*
 * Allocators as programs and libraries know them, which say nothing of a domain: it is the one that
 * the thread holds to be written, or has chosen.
 */
#define _GNU_SOURCE
#include <string.h>

#include "backend.h"

/* Of the thread; 0: whichever it holds. */
static __thread int chosen;

/* The only one that is held to be written. */
static int held_one(void)
{
	int ids[2 * EPK_MAX_HELD], i, nr = epk_held(ids, 2 * EPK_MAX_HELD), found = 0;

	for (i = 0; i < nr && i < 2 * EPK_MAX_HELD; i++) {
		if (epk_held_prot(ids[i]) != (PROT_READ | PROT_WRITE))
			continue;
		if (found)
			return 0;
		found = ids[i];
	}
	return found;
}

/* Else 0, with errno set. */
static int here(void)
{
	int id;

	/* What the parent's thread chose is none of the child's. */
	if (chosen && epk_id_inherited(chosen))
		chosen = 0;
	id = chosen ? chosen : held_one();

	if (!id)
		errno = -epk_explain("an allocation here", 0, epk_because(EPK_CAUSE_HEAP));
	return id;
}

int epk_heap_choose(int dom_id)
{
	int before = chosen, err = 0;
	struct epk_entry entry;

	if (dom_id < 0)
		err = epk_because(EPK_CAUSE_ID);
	else if (dom_id)
		err = epk_lookup(dom_id, &entry);
	if (err)
		return epk_explain("epk_heap_choose", dom_id, err);
	chosen = dom_id;
	return before;
}

void *epk_malloc_here(size_t size)
{
	int id = here();

	return id ? epk_malloc(id, size) : NULL;
}

void *epk_calloc_here(size_t nr, size_t size)
{
	int id = here();

	return id ? epk_calloc(id, nr, size) : NULL;
}

/* The domain that @ptr lies in, whoever holds it; 0 with errno set. */
static int owner_of(const void *ptr)
{
	int id = epk_domain_at(ptr);

	if (id <= 0)
		errno = -epk_explain("an allocation here", (long)ptr,
				     id ? id : epk_because(EPK_CAUSE_POINTER));
	return id > 0 ? id : 0;
}

void *epk_realloc_here(void *ptr, size_t size)
{
	int id;

	if (!ptr)
		return epk_malloc_here(size);
	id = owner_of(ptr);
	return id ? epk_realloc(id, ptr, size) : NULL;
}

void epk_free_here(void *ptr)
{
	int id = ptr ? owner_of(ptr) : 0, err;

	err = id ? epk_free(id, ptr) : 0;
	if (err)
		errno = -err;
}

size_t epk_usable_size_here(void *ptr)
{
	int id = ptr ? owner_of(ptr) : 0;

	return id ? epk_usable_size(id, ptr) : 0;
}
