// SPDX-License-Identifier: MIT
/* libmpk's calls: a page group is a domain, and its virtual key a number that the program has chosen. */
#define _GNU_SOURCE
#include <errno.h>

#include <epk.h>
#include <epk_heap.h>

#include "groups.h"
#include "libmpk.h"

#define PROT_RW		(PROT_READ | PROT_WRITE)
#define PAGE		4096ul

static int answer(int err)
{
	if (!err)
		return 0;
	errno = -err;
	return -1;
}

int mpk_init(double evict_rate)
{
	int err = epk_init(NULL);

	(void)evict_rate;
	return answer(err == -EALREADY ? 0 : err);
}

int mpk_begin(int vkey, int prot)
{
	int id = mpk_group_find(vkey), before, err;

	if (id < 0)
		return answer(id);
	if (!mpk_begins_have_room())
		return answer(-EMFILE);
	before = epk_held_prot(id);
	if (before < 0)
		return answer(before);
	err = domain_begin(id, prot);
	if (err && err != -EALREADY)
		return answer(err);
	mpk_begins_add(id, before);
	return 0;
}

int mpk_end(int vkey)
{
	int id = mpk_group_find(vkey);

	return answer(id < 0 ? id : mpk_begins_end(id));
}

static void *map(int id, void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (flags & MAP_ANONYMOUS)
		return domain_mmap(id, addr, len, prot, flags);
	/* A copy of the file's pages is what no domain has. */
	if (!(flags & MAP_SHARED)) {
		errno = EOPNOTSUPP;
		return MAP_FAILED;
	}
	return epk_mmap_file(id, addr, len, prot, flags, fd, offset);
}

/* Under the lock.  The domain of a group, which is made if there is none. */
static int get_domain(int vkey, bool *fresh)
{
	int id = mpk_group_find(vkey);

	*fresh = id == -ENOENT;
	if (*fresh)
		id = alloc_domains(1, &id) ?: id;
	return id;
}

static void note(int vkey, uintptr_t start, size_t len, int prot)
{
	if (prot != PROT_RW)
		mpk_narrow_add(vkey, start, start + ((len + PAGE - 1) & -PAGE), prot);
}

/* What is to be mapped is, unless there is @err; a group that has come to be for it is one, or is no more. */
static int settle(int vkey, int id, bool fresh, int err)
{
	if (fresh && !err)
		mpk_group_add(vkey, id);
	else if (fresh && id > 0)
		free_domains(1, &id);
	if (err)
		errno = -err;
	return err;
}

static void *map_locked(int vkey, void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *mem = MAP_FAILED;
	bool fresh;
	int id = get_domain(vkey, &fresh), err = id < 0 ? id : mpk_groups_room(fresh,
									       prot != PROT_RW);

	if (!err) {
		mem = map(id, addr, len, prot, flags, fd, offset);
		err = mem == MAP_FAILED ? -errno : 0;
	}
	if (settle(vkey, id, fresh, err))
		return MAP_FAILED;
	note(vkey, (uintptr_t)mem, len, prot);
	return mem;
}

/* It is not noted: what is done with it, epk_mprotect() says alone. */
static void *map_code_locked(int vkey, size_t len, int prot, void **run)
{
	void *mem = MAP_FAILED;
	bool fresh;
	int id = get_domain(vkey, &fresh), err = id < 0 ? id : mpk_groups_room(fresh, false);

	if (!err) {
		mem = epk_mmap_code(id, len, prot, run);
		err = mem == MAP_FAILED ? -errno : 0;
	}
	return settle(vkey, id, fresh, err) ? MAP_FAILED : mem;
}

void *mpk_mmap(int vkey, void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *mem;
	int err = vkey < 0 ? -EINVAL : prot & PROT_EXEC ? -EOPNOTSUPP : mpk_groups_lock();

	if (err) {
		errno = -err;
		return MAP_FAILED;
	}
	if (prot & PROT_WRITE)
		prot |= PROT_READ;
	mem = map_locked(vkey, addr, len, prot, flags, fd, offset);
	err = errno;
	mpk_groups_unlock();
	if (mem == MAP_FAILED)
		errno = err;
	return mem;
}

void *mpk_mmap_code(int vkey, size_t len, int prot, void **run)
{
	int err = vkey < 0 ? -EINVAL : mpk_groups_lock();
	void *mem;

	if (err) {
		errno = -err;
		return MAP_FAILED;
	}
	mem = map_code_locked(vkey, len, prot, run);
	err = errno;
	mpk_groups_unlock();
	errno = err;
	return mem;
}

/* Under the lock: what cannot be freed stays a group, perhaps without some of its memory. */
static int unmap_locked(int vkey)
{
	int id = mpk_group_find(vkey), err;

	if (id < 0)
		return id;
	err = free_domains(1, &id);
	if (!err || err == -ENOENT)
		mpk_group_remove(vkey);
	else
		mpk_narrow_forget(vkey, id);
	return err;
}

int mpk_munmap(int vkey)
{
	int err = vkey < 0 ? -EINVAL : mpk_groups_lock();

	if (err)
		return answer(err);
	err = unmap_locked(vkey);
	mpk_groups_unlock();
	return answer(err);
}

static int set_prot(const struct narrow *narrow, int prot)
{
	return epk_mprotect((void *)narrow->start, narrow->end - narrow->start, prot);
}

/* All before @end has again what is noted. */
static void take_back(int vkey, int prot, const struct narrow *end)
{
	const struct narrow *at;

	for (at = mpk_narrow_first(vkey); at && at != end; at = mpk_narrow_next(at))
		if (prot & ~at->prot)
			set_prot(at, at->prot);
}

/* All of it or nothing.  It is noted when the rest is done. */
static int widen(int vkey, int id, int prot)
{
	const struct narrow *at = mpk_narrow_first(vkey);
	int err = 0;

	while (at && !(prot & ~at->prot))
		at = mpk_narrow_next(at);
	/* Where nobody can do it, nothing is opened even for a moment. */
	if (at)
		err = epk_protect(id, mpk_group_common(vkey));
	if (err)
		return err;
	for (; at; at = mpk_narrow_next(at)) {
		err = prot & ~at->prot ? set_prot(at, at->prot | prot) : 0;
		if (err) {
			take_back(vkey, prot, at);
			return err;
		}
	}
	return 0;
}

/*
 * Under the lock, so that the group is this one until it is done.  As mprotect() would, it gives what mpk_mmap() was
 * not asked for; to who has begun it first, and to all when nothing can fail any more.
 */
static int protect_locked(int vkey, int prot)
{
	int id = mpk_group_find(vkey), err = id < 0 ? id : widen(vkey, id, prot);

	if (err)
		return err;
	err = epk_protect(id, prot);
	if (err)
		take_back(vkey, prot, NULL);
	else
		mpk_group_set_common(vkey, prot);
	return err;
}

int mpk_mprotect(int vkey, int prot)
{
	int err;

	if (vkey < 0 || prot & ~(PROT_RW | PROT_EXEC))
		return answer(-EINVAL);
	if (prot & PROT_EXEC)
		return answer(-EOPNOTSUPP);
	if (prot & PROT_WRITE)
		prot |= PROT_READ;
	err = mpk_groups_lock();
	if (err)
		return answer(err);
	err = protect_locked(vkey, prot);
	mpk_groups_unlock();
	return answer(err);
}

void *mpk_malloc(int vkey, size_t size)
{
	int id = mpk_group_find(vkey);

	if (id > 0)
		return epk_malloc(id, size);
	errno = -id;
	return NULL;
}

int mpk_free(void *ptr)
{
	int id = ptr ? epk_domain_at(ptr) : 0;

	if (!ptr)
		return 0;
	return answer(id > 0 ? epk_free(id, ptr) : id ? id : -EINVAL);
}
