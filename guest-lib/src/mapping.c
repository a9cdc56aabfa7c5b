// SPDX-License-Identifier: MIT
/*
 * A balanced tree by address finds the mapping of a byte; a list per domain finds the mappings of
 * a domain.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "mapping.h"
#include "pool.h"
#include "registry.h"
#include "state_page.h"

/* Mappings do not overlap, so that those that do count as equal. */
static int compare(const struct epk_mapping *left, const struct epk_mapping *right)
{
	if (left->end <= right->start)
		return -1;
	return left->start >= right->end;
}

static RB_HEAD(epk_mappings, epk_mapping) root;
RB_GENERATE_INTERNAL(epk_mappings, epk_mapping, node, compare, static __attribute__((unused)))

static struct epk_pool pool = { .size = sizeof(struct epk_mapping) };

static struct epk_mapping *find(uintptr_t addr)
{
	struct epk_mapping key = { .start = addr, .end = addr + 1 };

	return RB_FIND(epk_mappings, &root, &key);
}

/* Bytes of memory that is no file's. */
static size_t plain_bytes;

size_t epk_mapping_bytes(void)
{
	return plain_bytes;
}

static size_t number;

size_t epk_mapping_nr(void)
{
	return number;
}

static void count(const struct epk_mapping *map, long sign)
{
	if (map->fd < 0)
		plain_bytes += sign * (long)(map->end - map->start);
}

static void set_end(struct epk_mapping *map, uintptr_t end)
{
	count(map, -1);
	map->end = end;
	count(map, 1);
}

/* The domain at @addr, or 0. */
int epk_mapping_at(uintptr_t addr)
{
	struct epk_mapping *map = find(addr);

	return map ? map->id : 0;
}

/* A copy of the mapping that @addr is in: no pointer outlives the lock. */
bool epk_mapping_find(uintptr_t addr, struct epk_mapping *copy)
{
	const struct epk_mapping *map = find(addr);

	if (map)
		*copy = *map;
	return map;
}

/* A copy of the first one that has memory at @addr or behind it. */
bool epk_mapping_next(uintptr_t addr, struct epk_mapping *copy)
{
	struct epk_mapping key = { .start = addr, .end = addr + 1 };
	const struct epk_mapping *map = RB_NFIND(epk_mappings, &root, &key);

	if (map)
		*copy = *map;
	return map;
}

/* A copy of @what, to be inserted or cancelled; NULL without memory. */
struct epk_mapping *epk_mapping_new(const struct epk_mapping *what)
{
	struct epk_mapping *map = epk_pool_get(&pool);

	if (map)
		*map = *what;
	return map;
}

void epk_mapping_cancel(struct epk_mapping *map)
{
	epk_pool_put(&pool, map);
}

/* Over nothing that is there: whose memory it is could not be said any more. */
void epk_mapping_insert(struct epk_mapping *map)
{
	struct epk_domain *dom = epk_registry_at(EPK_ID_INDEX(map->id));

	if (RB_INSERT(epk_mappings, &root, map))
		__builtin_trap();
	count(map, 1);
	number++;
	map->next = dom->mappings;
	map->link = &dom->mappings;
	if (map->next)
		map->next->link = &map->next;
	dom->mappings = map;
}

/* Frees @map. */
static void delete(struct epk_mapping *map)
{
	RB_REMOVE(epk_mappings, &root, map);
	count(map, -1);
	number--;
	*map->link = map->next;
	if (map->next)
		map->next->link = map->link;
	epk_mapping_cancel(map);
}

/* Makes @at a border between mappings.  1: it was none before. */
static int split(uintptr_t at)
{
	struct epk_mapping *left = find(at), *right;

	if (!left || left->start == at)
		return 0;
	right = epk_mapping_new(left);
	if (!right)
		return -ENOMEM;
	right->start = at;
	set_end(left, at);
	epk_mapping_insert(right);
	return 1;
}

static void join(uintptr_t at)
{
	struct epk_mapping *left = find(at - 1), *right = find(at);
	uintptr_t end = right->end;

	delete(right);
	set_end(left, end);
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

/* Borders at both ends of a range of domain memory; which of them were none before: rejoin(). */
static int cut(uintptr_t start, uintptr_t end, bool made[2])
{
	int err;

	if (!covered(start, end))
		return epk_because(EPK_CAUSE_MEMORY);
	err = split(start);
	made[0] = err > 0;
	if (err < 0)
		return err;
	err = split(end);
	made[1] = err > 0;
	if (err < 0 && made[0])
		join(start);
	return err < 0 ? err : 0;
}

static void rejoin(uintptr_t start, uintptr_t end, const bool made[2])
{
	if (made[1])
		join(end);
	if (made[0])
		join(start);
}

int epk_mapping_unmap(uintptr_t start, uintptr_t end, int (*unmap)(void *addr, size_t len))
{
	bool made[2];
	int err;

	err = cut(start, end, made);
	if (err)
		return err;
	err = unmap((void *)start, end - start);
	if (err) {
		rejoin(start, end, made);
		return err;
	}
	while (start < end) {
		struct epk_mapping *map = find(start);

		start = map->end;
		delete(map);
	}
	return 0;
}

/* All of it or nothing. */
int epk_mapping_protect(uintptr_t start, uintptr_t end, int prot,
			int (*protect)(const struct epk_mapping *map, int prot))
{
	struct epk_mapping *map;
	uintptr_t at, failed;
	bool made[2];
	int err;

	err = cut(start, end, made);
	if (err)
		return err;
	for (at = start; at < end; at = map->end) {
		map = find(at);
		err = protect(map, prot);
		if (err)
			goto take_back;
	}
	for (at = start; at < end; at = map->end) {
		map = find(at);
		map->prot = prot;
	}
	return 0;

take_back:
	/* What failed may have been done in part. */
	failed = map->end;
	for (at = start; at < failed; at = map->end) {
		map = find(at);
		protect(map, map->prot);
	}
	rejoin(start, end, made);
	return err;
}

/* @gone: the domain is no more, and so what cannot be unmapped is nobody's. */
int epk_mapping_unmap_domain(int id, int (*unmap)(void *addr, size_t len), bool gone)
{
	struct epk_domain *dom = epk_registry_at(EPK_ID_INDEX(id));
	struct epk_mapping *map;
	int err = 0;

	while (!err && (map = dom->mappings)) {
		err = unmap((void *)map->start, map->end - map->start);
		if (gone)
			err = 0;
		if (!err)
			delete(map);
	}
	return err;
}

/* In a forked child, which has none of the memory. */
void epk_mapping_forget(void)
{
	struct epk_mapping *map;

	while ((map = RB_ROOT(&root)))
		delete(map);
}
