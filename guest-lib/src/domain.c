// SPDX-License-Identifier: MIT
/* The six calls: check every argument, keep the books, leave the rest to the backend. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aside.h"
#include "backend.h"
#include "pkru.h"
#include "registry.h"

#define PROT_RW		(PROT_READ | PROT_WRITE)
#define MMAP_FLAGS	(MAP_ANONYMOUS | MAP_PRIVATE | MAP_SHARED | MAP_POPULATE | \
			 MAP_FIXED_NOREPLACE)

/* Up to so many IDs, allocation needs no memory of its own. */
#define NR_COPIED	1024

/* Under epk_lock. */
static int alloc_locked(int num, int *ids, int beside)
{
	struct epk_entry entry;
	int err;

	err = epk_ensure_init();
	if (!err && beside)
		err = epk_lookup(beside, &entry);
	if (!err)
		err = epk_ops()->alloc(num, ids, beside);
	if (!err)
		epk_registry_add(num, ids);
	return err;
}

/* The caller's array changes on success only. */
static int alloc(const char *call, int num, int dom_ids[], int beside)
{
	int few[NR_COPIED], *ids = few;
	int saved_errno = errno;
	struct epk_aside aside;
	int err;

	if (num <= 0 || !dom_ids)
		return epk_explain(call, num, -EINVAL);
	if (num > NR_COPIED)
		ids = malloc(num * sizeof(*ids));
	err = ids ? epk_notes_lock(&aside) : -ENOMEM;
	if (!err) {
		err = alloc_locked(num, ids, beside);
		epk_notes_unlock(&aside);
	}
	if (!err)
		memcpy(dom_ids, ids, num * sizeof(*ids));
	if (ids != few)
		free(ids);
	errno = saved_errno;
	return epk_explain(call, num, err);
}

int alloc_domains(int num, int dom_ids[])
{
	return alloc("alloc_domains", num, dom_ids, 0);
}

int epk_alloc_beside(int num, int dom_ids[], int beside)
{
	if (beside <= 0)
		return epk_explain("epk_alloc_beside", beside, -EINVAL);
	return alloc("epk_alloc_beside", num, dom_ids, beside);
}

/*
 * Where the kernel keeps who holds what, it takes a domain that is freed from all others.  @own is
 * what the caller holds then.
 */
static int check_held(int id, const struct epk_held *own, int nr)
{
	int err;

	if (!epk_now.ops->held)
		return epk_threads_hold(id) ? -EBUSY : 0;
	err = epk_now.ops->pinned ? epk_now.ops->pinned(id) : 0;
	if (err)
		return err;
	while (nr--)
		if (own[nr].id == id)
			return -EBUSY;
	return 0;
}

/* -EAGAIN: another thread holds one, or seems to. */
static int check_free(int num, const int *ids, const struct epk_held *own, int nr)
{
	struct epk_entry entry;
	int i, err = 0, marked;

	for (marked = 0; marked < num; marked++) {
		struct epk_domain *dom;

		err = epk_lookup(ids[marked], &entry);
		if (err)
			break;
		dom = epk_registry_at(EPK_ID_INDEX(ids[marked]));
		if (dom->marked) {
			err = -EINVAL;
			break;
		}
		err = check_held(ids[marked], own, nr);
		if (err)
			break;
		dom->marked = true;
	}
	for (i = 0; i < marked; i++)
		epk_registry_at(EPK_ID_INDEX(ids[i]))->marked = false;
	return err;
}

/* Under epk_lock. */
static int free_locked(int num, const int *ids, const struct epk_held *own, int nr)
{
	const struct epk_backend *ops = epk_ops();
	int i, err = check_free(num, ids, own, nr);

	/* The module gives its memory back to anybody when the domain is no more. */
	if (!err && ops->in_module)
		err = ops->free(num, ids);
	for (i = 0; i < num && !err; i++)
		err = epk_mapping_unmap_domain(ids[i], ops->munmap, ops->in_module);
	if (!err && !ops->in_module)
		err = ops->free(num, ids);
	if (!err)
		epk_registry_remove(num, ids);
	return err;
}

static int free_all(int num, const int *ids)
{
	const struct epk_backend *ops = epk_ops();
	struct epk_held own[2 * EPK_MAX_HELD];
	unsigned int tries = 0;
	struct epk_aside aside;
	int err, nr;

	nr = ops && ops->held ? ops->held(own, 2 * EPK_MAX_HELD) : 0;
	if (nr < 0)
		return nr;
	/* The gates do not count: the thread can hold more than it can begin otherwise. */
	if (nr > 2 * EPK_MAX_HELD)
		nr = 2 * EPK_MAX_HELD;
	do {
		err = epk_notes_lock(&aside);
		if (err)
			return err;
		err = free_locked(num, ids, own, nr);
		epk_notes_unlock(&aside);
	} while (err == -EAGAIN && epk_wait_for_pins(tries++));
	return err == -EAGAIN ? -EBUSY : err;
}

int free_domains(int num, int dom_ids[])
{
	int few[NR_COPIED], *ids = few, err = -ENOMEM;
	int saved_errno = errno;

	if (num <= 0 || !dom_ids)
		return epk_explain("free_domains", num, -EINVAL);
	if (num > NR_COPIED)
		ids = malloc(num * sizeof(*ids));
	if (ids) {
		memcpy(ids, dom_ids, num * sizeof(*ids));
		err = free_all(num, ids);
	}
	if (ids != few)
		free(ids);
	errno = saved_errno;
	return epk_explain("free_domains", num == 1 ? dom_ids[0] : num, err);
}

/* Rounds up to whole pages. */
static int page_len(size_t *len)
{
	if (!*len)
		return -EINVAL;
	if (*len > SIZE_MAX - EPK_PAGE_SIZE + 1)
		return -EOVERFLOW;
	*len = (*len + EPK_PAGE_SIZE - 1) & ~(EPK_PAGE_SIZE - 1);
	return 0;
}

static int check_mmap(void *addr, size_t *len, int *prot, int flags)
{
	if (*prot & ~PROT_RW || flags & ~MMAP_FLAGS)
		return -EINVAL;
	if (flags & MAP_PRIVATE && flags & MAP_SHARED)
		return -EINVAL;
	if (flags & MAP_FIXED_NOREPLACE && (uintptr_t)addr % EPK_PAGE_SIZE)
		return -EINVAL;
	if (*prot & PROT_WRITE)
		*prot = PROT_RW;
	return page_len(len);
}

static int map_locked(const struct epk_mapping *what, void *addr, int flags, void **got)
{
	struct epk_mapping *map;
	struct epk_entry entry;
	int err;

	err = epk_lookup(what->id, &entry);
	if (err)
		return err;
	map = epk_mapping_new(what);
	if (!map)
		return -ENOMEM;
	err = epk_ops()->mmap(map, addr, flags);
	if (err) {
		epk_mapping_cancel(map);
		return err;
	}
	epk_mapping_insert(map);
	*got = (void *)map->start;
	return 0;
}

/* Of @what: what is to be mapped, the length in @end. */
static void *map_memory(const char *call, const struct epk_mapping *what, void *addr, int flags)
{
	int saved_errno = errno;
	struct epk_aside aside;
	void *got = NULL;
	int err;

	err = epk_notes_lock(&aside);
	if (!err) {
		err = map_locked(what, addr, flags, &got);
		epk_notes_unlock(&aside);
	}
	errno = err ? -epk_explain(call, what->id, err) : saved_errno;
	return err ? MAP_FAILED : got;
}

void *domain_mmap(int dom_id, void *addr, size_t len, int prot, int flags)
{
	int err = check_mmap(addr, &len, &prot, flags);
	struct epk_mapping what = { .end = len, .id = dom_id, .prot = prot, .fd = -1 };

	if (err) {
		errno = -epk_explain("domain_mmap", dom_id, err);
		return MAP_FAILED;
	}
	return map_memory("domain_mmap", &what, addr, flags);
}

/* What a backend that maps later, or nothing but PROT_NONE, would not find. */
static int check_file(int fd, int prot, int flags, uint64_t offset)
{
	int mode = fcntl(fd, F_GETFL);

	if (mode < 0)
		return -errno;
	if (flags & ~(MAP_SHARED | MAP_FIXED_NOREPLACE) || offset % EPK_PAGE_SIZE)
		return -EINVAL;
	if ((mode & O_ACCMODE) == O_WRONLY ||
	    (prot & PROT_WRITE && (mode & O_ACCMODE) != O_RDWR))
		return -EACCES;
	return 0;
}

void *epk_mmap_file(int dom_id, void *addr, size_t len, int prot, int flags, int fd,
		    uint64_t offset)
{
	int saved_errno = errno;
	int err = check_mmap(addr, &len, &prot, flags);
	struct epk_mapping what = {
		.end = len, .id = dom_id, .prot = prot, .fd = fd, .offset = offset,
	};

	if (!err)
		err = check_file(fd, prot, flags, offset);
	if (err) {
		errno = -epk_explain("epk_mmap_file", dom_id, err);
		return MAP_FAILED;
	}
	errno = saved_errno;
	return map_memory("epk_mmap_file", &what, addr, flags);
}

int domain_munmap(void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;
	int saved_errno = errno;
	struct epk_aside aside;
	int err;

	err = start % EPK_PAGE_SIZE ? -EINVAL : page_len(&len);
	if (!err && start + len < start)
		err = -EOVERFLOW;
	if (err)
		return epk_explain("domain_munmap", (long)addr, err);
	err = epk_notes_lock(&aside);
	if (!err) {
		err = epk_ops() ? epk_mapping_unmap(start, start + len, epk_ops()->munmap) : -EINVAL;
		epk_notes_unlock(&aside);
	}
	errno = saved_errno;
	return epk_explain("domain_munmap", (long)addr, err);
}

/* A thread's first begin.  Kept apart, so that the others stay short. */
static __attribute__((noinline)) int first_begin(void)
{
	int saved_errno = errno;
	int err = epk_thread_ready();

	errno = saved_errno;
	return err;
}

/* What was held to be read only can be written to. */
static int widen(struct epk_held *held, int prot)
{
	struct epk_held old = *held;
	int err;

	held->prot = prot;
	err = epk_now.ops->widen ? epk_now.ops->widen(&old) : 0;
	if (err)
		held->prot = old.prot;
	return err;
}

/* What goes wrong changes neither list nor rights. */
static int begin(struct epk_thread *t, int id, int prot)
{
	int err, slot = epk_held_find(t, id);
	struct epk_held *held;

	if (slot >= 0)
		return prot & ~t->held[slot].prot ? widen(&t->held[slot], prot) : -EALREADY;
	if (t->nr >= EPK_MAX_HELD)
		return -EMFILE;
	held = epk_held_push(t, (struct epk_held){ .id = id, .prot = prot });
	err = epk_now.ops->begin ? epk_now.ops->begin(t, held) : 0;
	if (err)
		epk_held_remove(t, held - t->held);
	return err;
}

static int settle(struct epk_thread *t)
{
	return epk_now.ops->settle ? epk_now.ops->settle(t) : 0;
}

static int end_slow(int id)
{
	struct epk_thread *t = epk_self;
	struct epk_entry entry;
	int slot, settled, err = 0;

	/* Whatever the thread's memory says: what is open is closed. */
	if (id > 0 && epk_now.ops && epk_now.ops->drop) {
		err = epk_now.ops->drop(id);
		settled = err ? epk_lookup(id, &entry) : 0;
		return settled ? settled : err;
	}
	if (!t || id <= 0) {
		err = epk_lookup(id, &entry);
		return err ? err : -EACCES;
	}
	slot = epk_held_find(t, id);
	if (slot >= 0) {
		err = epk_now.ops->end(t, slot);
	} else {
		err = epk_lookup(id, &entry);
		if (!err)
			err = -EACCES;
	}
	settled = settle(t);
	return err ? err : settled;
}

static int begin_slow(int id, int prot)
{
	struct epk_entry entry;
	struct epk_thread *t;
	int err, settled;

	if (!prot || prot & ~PROT_RW)
		return -EINVAL;
	if (prot & PROT_WRITE)
		prot = PROT_RW;
	err = epk_lookup(id, &entry);
	if (err)
		return err;
	if (!epk_self) {
		err = first_begin();
		if (err)
			return err;
	}
	if (epk_now.ops->take)
		return epk_now.ops->take(id, prot);
	t = epk_self;
	err = begin(t, id, prot);
	settled = settle(t);
	if (err || !settled)
		return err;
	/* No right without the EPT that it belongs to. */
	end_slow(id);
	return settled;
}

int epk_begin_slow(int id, int prot)
{
	return epk_explain("domain_begin", id, begin_slow(id, prot));
}

int epk_end_slow(int id)
{
	return epk_explain("domain_end", id, end_slow(id));
}
