// SPDX-License-Identifier: MIT
/*
 * A balanced tree by address (tsearch(3)) finds the mapping of a byte; a list
 * per domain finds the mappings of a domain.  A fault in a signal handler may look
 * for one whatever was interrupted, so changes are made with signals blocked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "mapping.h"
#include "registry.h"
#include "state.h"

static void *root;

/* Mappings do not overlap, so that those that do count as equal. */
static int compare(const void *a, const void *b)
{
	const struct epk_mapping *left = a, *right = b;

	if (left->end <= right->start)
		return -1;
	return left->start >= right->end;
}

static struct epk_mapping *find(uintptr_t addr)
{
	struct epk_mapping key = { .start = addr, .end = addr + 1 };
	struct epk_mapping **node = tfind(&key, &root, compare);

	return node ? *node : NULL;
}

/* The domain at @addr, or 0. */
int epk_mapping_at(uintptr_t addr)
{
	struct epk_mapping *map = find(addr);

	return map ? map->id : 0;
}

/* Does @id have one mapping for all that? */
bool epk_mapping_covers(int id, uintptr_t start, uintptr_t end)
{
	struct epk_mapping *map = find(start);

	return map && map->id == id && end <= map->end && start < end;
}

static int insert(struct epk_mapping *map)
{
	struct epk_domain *dom = epk_registry_at(EPK_ID_INDEX(map->id));

	if (!tsearch(map, &root, compare))
		return -ENOMEM;
	map->next = dom->mappings;
	map->link = &dom->mappings;
	if (map->next)
		map->next->link = &map->next;
	dom->mappings = map;
	return 0;
}

int epk_mapping_insert(struct epk_mapping *map)
{
	sigset_t old;
	int err;

	epk_signals_block(&old);
	err = insert(map);
	epk_signals_restore(&old);
	return err;
}

/* Frees @map. */
static void delete(struct epk_mapping *map)
{
	tdelete(map, &root, compare);
	*map->link = map->next;
	if (map->next)
		map->next->link = map->link;
	free(map);
}

/* Makes @at a border between mappings.  1: it was none before. */
static int split(uintptr_t at)
{
	struct epk_mapping *left = find(at), *right;

	if (!left || left->start == at)
		return 0;
	right = malloc(sizeof(*right));
	if (!right)
		return -ENOMEM;
	*right = *left;
	right->start = at;
	left->end = at;
	if (insert(right)) {
		left->end = right->end;
		free(right);
		return -ENOMEM;
	}
	return 1;
}

static void join(uintptr_t at)
{
	struct epk_mapping *left = find(at - 1), *right = find(at);
	uintptr_t end = right->end;

	delete(right);
	left->end = end;
}

static bool covered(uintptr_t start, uintptr_t end)
{
	struct epk_mapping *map;

	for (; start < end; start = map->end) {
		map = find(start);
		if (!map)
			return false;
	}
	return true;
}

static int unmap_range(uintptr_t start, uintptr_t end, int (*unmap)(void *addr, size_t len))
{
	int first, last, err;

	if (!covered(start, end))
		return -EINVAL;
	first = split(start);
	if (first < 0)
		return first;
	last = split(end);
	if (last < 0) {
		err = last;
		goto join_first;
	}
	err = unmap((void *)start, end - start);
	if (err)
		goto join_last;
	while (start < end) {
		struct epk_mapping *map = find(start);

		start = map->end;
		delete(map);
	}
	return 0;

join_last:
	if (last)
		join(end);
join_first:
	if (first)
		join(start);
	return err;
}

int epk_mapping_unmap(uintptr_t start, uintptr_t end, int (*unmap)(void *addr, size_t len))
{
	sigset_t old;
	int err;

	epk_signals_block(&old);
	err = unmap_range(start, end, unmap);
	epk_signals_restore(&old);
	return err;
}

int epk_mapping_unmap_domain(int id, int (*unmap)(void *addr, size_t len))
{
	struct epk_domain *dom = epk_registry_at(EPK_ID_INDEX(id));
	struct epk_mapping *map;
	sigset_t old;
	int err = 0;

	if (!dom->mappings)
		return 0;
	epk_signals_block(&old);
	while (!err && (map = dom->mappings)) {
		err = unmap((void *)map->start, map->end - map->start);
		if (!err)
			delete(map);
	}
	epk_signals_restore(&old);
	return err;
}

/* Whoever holds the domain, nobody can access the first @len bytes of the mapping at @start. */
int epk_mapping_forbid(uintptr_t start, size_t len)
{
	sigset_t old;
	int err;

	epk_signals_block(&old);
	err = split(start + len);
	if (err >= 0) {
		find(start)->prot = PROT_NONE;
		err = mprotect((void *)start, len, PROT_NONE) ? -errno : 0;
	}
	epk_signals_restore(&old);
	return err;
}

/* In a forked child, which has none of the memory. */
void epk_mapping_forget(void)
{
	tdestroy(root, free);
	root = NULL;
}
