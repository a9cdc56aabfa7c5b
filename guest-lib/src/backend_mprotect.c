// SPDX-License-Identifier: MIT
/*
 * Page protections, for comparison and for machines that have nothing better.
 * They are the process's: while one thread holds a domain, all can access it, and
 * so can signal handlers.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "backend.h"
#include "registry.h"

static int wanted(const struct epk_domain *dom)
{
	if (dom->writers)
		return PROT_READ | PROT_WRITE;
	return (dom->readers ? PROT_READ : PROT_NONE) | dom->common;
}

static int protect_all(const struct epk_domain *dom, int prot)
{
	const struct epk_mapping *map;

	for (map = dom->mappings; map; map = map->next)
		if (mprotect((void *)map->start, map->end - map->start, map->prot & prot))
			return -errno;
	return 0;
}

/* One thread more, or fewer, that may do @prot.  Under epk_lock. */
static int count(int id, int prot, int change)
{
	struct epk_domain *dom = epk_registry_at(EPK_ID_INDEX(id));
	unsigned int *counter = prot & PROT_WRITE ? &dom->writers : &dom->readers;
	int before = wanted(dom), err;

	*counter += change;
	if (wanted(dom) == before)
		return 0;
	err = protect_all(dom, wanted(dom));
	if (err) {
		*counter -= change;
		protect_all(dom, before);
	}
	return err;
}

/* Under epk_lock. */
static int set_common(int id, int prot)
{
	struct epk_domain *dom = epk_registry_at(EPK_ID_INDEX(id));
	int before = wanted(dom), was = dom->common, err = 0;
	struct epk_entry entry;

	err = epk_lookup(id, &entry);
	if (err)
		return err;
	dom->common = prot;
	if (wanted(dom) != before)
		err = protect_all(dom, wanted(dom));
	if (err) {
		dom->common = was;
		protect_all(dom, before);
	}
	return err;
}

static int mprotect_common(int id, int prot)
{
	int err = -pthread_mutex_lock(&epk_lock);

	if (err)
		return err;
	err = set_common(id, prot);
	pthread_mutex_unlock(&epk_lock);
	return err;
}

static int mprotect_begin(struct epk_thread *t, struct epk_held *held)
{
	int saved_errno = errno, err;
	struct epk_entry entry;

	(void)t;
	err = -pthread_mutex_lock(&epk_lock);
	if (err)
		return err;
	err = epk_lookup(held->id, &entry);
	if (!err)
		err = count(held->id, held->prot, 1);
	pthread_mutex_unlock(&epk_lock);
	errno = saved_errno;
	return err;
}

static int mprotect_widen(const struct epk_held *old)
{
	int saved_errno = errno, err;

	err = -pthread_mutex_lock(&epk_lock);
	if (err)
		return err;
	err = count(old->id, PROT_READ | PROT_WRITE, 1);
	if (!err)
		count(old->id, old->prot, -1);
	pthread_mutex_unlock(&epk_lock);
	errno = saved_errno;
	return err;
}

static int mprotect_end(struct epk_thread *t, unsigned int slot)
{
	struct epk_held held = t->held[slot];
	int saved_errno = errno, err;

	err = -pthread_mutex_lock(&epk_lock);
	if (err)
		return err;
	err = count(held.id, held.prot, -1);
	if (!err)
		epk_held_remove(t, slot);
	pthread_mutex_unlock(&epk_lock);
	errno = saved_errno;
	return err;
}

/* What stays open here stays open for good: nobody else ends it. */
static void mprotect_thread_stop(struct epk_thread *t)
{
	unsigned int slot;

	for (slot = epk_held_nr(t); slot--;)
		mprotect_end(t, slot);
	/* For what could not be closed there may be room now. */
	for (slot = epk_held_nr(t); slot--;)
		if (mprotect_end(t, slot))
			__builtin_trap();
}

static int mprotect_mmap(struct epk_mapping *map, void *addr, int flags)
{
	int prot = map->prot & wanted(epk_registry_at(EPK_ID_INDEX(map->id)));
	size_t len = map->end - map->start;
	int err;

	err = epk_anon_mmap(map, &addr, flags & MAP_POPULATE ? map->prot : prot, flags);
	if (err)
		return err;
	if (flags & MAP_POPULATE && mprotect(addr, len, prot)) {
		err = -errno;
		epk_anon_undo(addr, len, flags);
		return err;
	}
	map->start = (uintptr_t)addr;
	map->end = map->start + len;
	return 0;
}

static int mprotect_protect(const struct epk_mapping *map, int prot)
{
	int now = prot & wanted(epk_registry_at(EPK_ID_INDEX(map->id)));

	return mprotect((void *)map->start, map->end - map->start, now) ? -errno : 0;
}

const struct epk_backend epk_backend_mprotect = {
	.name = "mprotect",
	.init = epk_soft_table_init,
	.alloc = epk_soft_table_alloc,
	.free = epk_soft_table_free,
	.mmap = mprotect_mmap,
	.munmap = epk_anon_munmap,
	.reserve = epk_anon_reserve,
	.fill = epk_anon_fill,
	.protect = mprotect_protect,
	.note = epk_soft_table_note,
	.thread_stop = mprotect_thread_stop,
	.begin = mprotect_begin,
	.widen = mprotect_widen,
	.end = mprotect_end,
	.common = mprotect_common,
	.common_prot = epk_anon_common_prot,
};
