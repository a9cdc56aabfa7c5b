// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "aside.h"
#include "backend.h"
#include "registry.h"

/* What of domain memory at *@at, and a little more of it, has memory, as the kernel tells.  -ENOENT: none is behind. */
static int count_some(uintptr_t *at, uint64_t *pages)
{
	unsigned char there[4096];
	struct epk_aside aside;
	struct epk_mapping map;
	size_t i, nr = 0;
	int err;

	err = epk_notes_lock(&aside);
	if (err)
		return err;
	if (epk_mapping_next(*at, &map)) {
		*at = map.start > *at ? map.start : *at;
		nr = (map.end - *at) / EPK_PAGE_SIZE;
		nr = nr < sizeof(there) ? nr : sizeof(there);
		if (mincore((void *)*at, nr * EPK_PAGE_SIZE, there))
			memset(there, 0, nr);
	}
	epk_notes_unlock(&aside);
	for (i = 0; i < nr; i++)
		*pages += there[i] & 1;
	*at += nr * EPK_PAGE_SIZE;
	return nr ? 0 : -ENOENT;
}

/* In steps: nobody waits for the lock until terabytes are looked through. */
static int count_pages(uint64_t *pages)
{
	uintptr_t at = 0;
	int err;

	do
		err = count_some(&at, pages);
	while (!err);
	return err == -ENOENT ? 0 : err;
}

/* Under epk_lock. */
static int counts_locked(struct epk_counts *counts)
{
	const struct epk_backend *ops = epk_ops();
	int err = 0;

	if (!ops)
		return 0;
	if (ops->counts)
		err = ops->counts(counts);
	counts->domains = epk_registry_live();
	counts->ept_switches = epk_threads_switches();
	return err;
}

/* The caller's may be shorter, or longer: then the rest is zero. */
static void give(struct epk_counts *counts, size_t size, struct epk_counts *now)
{
	size_t known = size < sizeof(*now) ? size : sizeof(*now);

	now->size = size;
	memcpy(counts, now, known);
	memset((char *)counts + known, 0, size - known);
}

int epk_counts(struct epk_counts *counts)
{
	struct epk_counts now = { 0 };
	int saved_errno = errno;
	struct epk_aside aside;
	size_t size;
	int err;

	if (!counts)
		return epk_explain("epk_counts", 0, epk_because(EPK_CAUSE_COUNTS));
	size = counts->size;
	if (!size || size % sizeof(uint64_t) || size > EPK_SIZE_MAX)
		return epk_explain("epk_counts", size, epk_because(EPK_CAUSE_COUNTS));
	err = epk_notes_lock(&aside);
	if (!err) {
		err = counts_locked(&now);
		epk_notes_unlock(&aside);
	}
	if (!err && epk_ops() && !epk_ops()->counts)
		err = count_pages(&now.pages);
	if (!err)
		give(counts, size, &now);
	errno = saved_errno;
	return epk_explain("epk_counts", size, err);
}

int epk_domain_place(int dom_id, int *ept, int *pkey)
{
	struct epk_entry entry;
	int err = epk_lookup(dom_id, &entry);

	if (err)
		return epk_fails(err);
	if (ept && entry.ept == EPK_EPT_ALL)
		*ept = EPK_EVERYWHERE;
	else if (ept)
		*ept = entry.ept == EPK_EPT_NONE ? -1 : entry.ept;
	if (pkey)
		*pkey = entry.pkey;
	return 0;
}

/* Copies of all mappings, for the caller to free; their number in @nr. */
static struct epk_mapping *snapshot(size_t *nr)
{
	const struct epk_mapping *map;
	struct epk_mapping *copy;
	uint32_t index;
	size_t i = 0;

	*nr = 0;
	for (index = 0; index < epk_registry_high(); index++)
		for (map = epk_registry_at(index)->mappings; map; map = map->next)
			++*nr;
	copy = calloc(*nr + 1, sizeof(*copy));
	if (!copy)
		return NULL;
	for (index = 0; index < epk_registry_high(); index++)
		for (map = epk_registry_at(index)->mappings; map; map = map->next)
			copy[i++] = *map;
	return copy;
}

int epk_for_each_mapping(int (*visit)(int dom_id, void *addr, size_t len, void *arg),
			 void *arg)
{
	struct epk_mapping *maps = NULL;
	struct epk_aside aside;
	size_t nr, i;
	bool ready;
	int err;

	if (!visit)
		return epk_explain("epk_for_each_mapping", 0, epk_because(EPK_CAUSE_VISIT));
	err = epk_notes_lock(&aside);
	if (err)
		return epk_fails(err);
	ready = epk_ops();
	if (ready)
		maps = snapshot(&nr);
	epk_notes_unlock(&aside);
	if (!ready)
		return 0;
	if (!maps)
		return epk_fails(-ENOMEM);
	for (i = 0; i < nr && !err; i++)
		err = visit(maps[i].id, (void *)maps[i].start, maps[i].end - maps[i].start, arg);
	free(maps);
	return err;
}

unsigned int epk_version(void)
{
	return EPK_VERSION_MAJOR << 16 | EPK_VERSION_MINOR;
}

int epk_domain_at(const void *addr)
{
	struct epk_aside aside;
	int id;

	id = epk_notes_lock(&aside);
	if (id)
		return epk_fails(id);
	id = epk_mapping_at((uintptr_t)addr);
	epk_notes_unlock(&aside);
	return id;
}

/* Nobody has to hold it for that. */
static bool is_common(int id, int prot)
{
	const struct epk_backend *ops = epk_ops();
	int common = ops->common ? ops->common_prot(id) : 0;

	return common > 0 && !(prot & ~common);
}

/* What @list has of the mapping, or what all may do, allows all of @prot. */
static bool allows(const struct epk_mapping *map, const struct epk_held *list, int nr, int prot)
{
	int i;

	if (prot & ~map->prot)
		return false;
	for (i = 0; i < nr; i++)
		if (list[i].id == map->id)
			return !(prot & ~list[i].prot);
	return is_common(map->id, prot);
}

static int list_all(struct epk_held *list, int max)
{
	const struct epk_backend *ops = epk_ops();
	int nr;

	if (ops && ops->held) {
		nr = ops->held(list, max);
		return nr < max ? nr : max;
	}
	for (nr = 0; epk_self && nr < (int)epk_held_nr(epk_self) && nr < max; nr++)
		list[nr] = epk_self->held[nr];
	return nr;
}

static int may_access(uintptr_t start, uintptr_t end, int prot)
{
	struct epk_held list[2 * EPK_MAX_HELD];
	struct epk_aside aside;
	struct epk_mapping map;
	int err, nr;

	/* Before it is put aside. */
	nr = list_all(list, 2 * EPK_MAX_HELD);
	if (nr < 0)
		return nr;
	err = epk_notes_lock(&aside);
	if (err)
		return err;
	while (!err && start < end && epk_mapping_next(start, &map) && map.start < end) {
		err = allows(&map, list, nr, prot) ? 0 : -EACCES;
		start = map.end;
	}
	epk_notes_unlock(&aside);
	return err;
}

int epk_may_access(const void *addr, size_t len, int prot)
{
	uintptr_t start = (uintptr_t)addr;
	int err;

	if (!prot || prot & ~(PROT_READ | PROT_WRITE))
		return epk_explain("epk_may_access", (long)addr, epk_because(EPK_CAUSE_PROT));
	if (prot & PROT_WRITE)
		prot |= PROT_READ;
	err = start + len < start ? -EOVERFLOW : may_access(start, start + len, prot);
	/* An answer, not a failure. */
	return err == -EACCES ? epk_fails(err) : epk_explain("epk_may_access", (long)addr, err);
}

/* Kept apart: who asks may be on a short stack, and calls others. */
static __attribute__((noinline)) int list_held(int dom_ids[], int max)
{
	struct epk_held list[2 * EPK_MAX_HELD];
	int i, nr = epk_ops()->held(list, 2 * EPK_MAX_HELD);

	for (i = 0; i < nr && i < max && i < 2 * EPK_MAX_HELD; i++)
		dom_ids[i] = list[i].id;
	return nr;
}

int epk_held(int dom_ids[], int max)
{
	const struct epk_backend *ops = epk_ops();
	int i, nr = epk_self ? (int)epk_held_nr(epk_self) : 0;

	if (max < 0 || (max && !dom_ids))
		return epk_fails(-EINVAL);
	if (ops && ops->held)
		return list_held(dom_ids, max);
	for (i = 0; i < nr && i < max; i++)
		dom_ids[i] = epk_self->held[i].id;
	return nr;
}

int epk_held_prot(int dom_id)
{
	int i, err, nr = epk_self ? (int)epk_held_nr(epk_self) : 0;
	struct epk_entry entry;

	err = epk_lookup(dom_id, &entry);
	if (err)
		return epk_fails(err);
	if (epk_now.ops->held_prot)
		return epk_now.ops->held_prot(dom_id);
	for (i = 0; i < nr; i++)
		if (epk_self->held[i].id == dom_id)
			return epk_self->held[i].prot;
	return 0;
}
