// SPDX-License-Identifier: MIT
/* libmpk's calls: a page group is a domain, and its virtual key a number that the program has chosen. */
#define _GNU_SOURCE
#include <errno.h>

#include <epk.h>
#include <epk_heap.h>

#include "groups.h"
#include "libmpk.h"

#define PROT_RW		(PROT_READ | PROT_WRITE)

static int answer(int err)
{
	if (!err)
		return 0;
	errno = -err;
	return -1;
}

/**
 * struct begun - a begin that has not ended
 * @id: the domain
 * @before: what the thread held of it before
 *
 * No right rests on these: what is written there can have an end come too early, or not at all, as a
 * program that leaves it out.
 */
struct begun {
	int id;
	int before;
};

static __thread struct begun begun[MPK_BEGINS_MAX];
static __thread unsigned int nr_begun;

void begins_forget(void)
{
	nr_begun = 0;
}

int mpk_init(double evict_rate)
{
	int err = epk_init(NULL);

	(void)evict_rate;
	return answer(err == -EALREADY ? 0 : err);
}

int mpk_begin(int vkey, int prot)
{
	int id = group_find(vkey), before, err;

	if (id < 0)
		return answer(id);
	if (nr_begun >= MPK_BEGINS_MAX)
		return answer(-EMFILE);
	before = epk_held_prot(id);
	if (before < 0)
		return answer(before);
	err = domain_begin(id, prot);
	if (err && err != -EALREADY)
		return answer(err);
	begun[nr_begun++] = (struct begun) { .id = id, .before = before };
	return 0;
}

/* The last begin of the domain, off the list. */
static int take(int id)
{
	unsigned int n = nr_begun < MPK_BEGINS_MAX ? nr_begun : MPK_BEGINS_MAX, i;
	int before;

	for (i = n; i--;) {
		if (begun[i].id != id)
			continue;
		before = begun[i].before;
		for (n--; i < n; i++)
			begun[i] = begun[i + 1];
		nr_begun = n;
		return before;
	}
	return -EACCES;
}

int mpk_end(int vkey)
{
	int id = group_find(vkey), before, err;

	if (id < 0)
		return answer(id);
	before = take(id);
	if (before < 0)
		return answer(before);
	/* What was held outside stays, no more of it. */
	if (before && epk_held_prot(id) == before)
		return 0;
	err = domain_end(id);
	return answer(err || !before ? err : domain_begin(id, before));
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
	int id = group_find(vkey);

	*fresh = id == -ENOENT;
	if (*fresh)
		id = alloc_domains(1, &id) ?: id;
	return id;
}

static void note_pages(int vkey, int prot)
{
	struct group_prots prots = group_prots(vkey);

	prots.pages &= prot;
	group_set_prots(vkey, prots);
}

static void *map_locked(int vkey, void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *mem = MAP_FAILED;
	bool fresh;
	int id = get_domain(vkey, &fresh), err = id < 0 ? id : 0;

	if (!err) {
		mem = map(id, addr, len, prot, flags, fd, offset);
		err = mem == MAP_FAILED ? -errno : 0;
	}
	if (!err && fresh)
		err = group_add(vkey, id, prot);
	else if (!err)
		note_pages(vkey, prot);
	if (!err)
		return mem;
	if (fresh && id > 0)
		free_domains(1, &id);
	errno = -err;
	return MAP_FAILED;
}

void *mpk_mmap(int vkey, void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *mem;
	int err = vkey < 0 ? -EINVAL : prot & PROT_EXEC ? -EOPNOTSUPP : groups_lock();

	if (err) {
		errno = -err;
		return MAP_FAILED;
	}
	if (prot & PROT_WRITE)
		prot |= PROT_READ;
	mem = map_locked(vkey, addr, len, prot, flags, fd, offset);
	err = errno;
	groups_unlock();
	if (mem == MAP_FAILED)
		errno = err;
	return mem;
}

/* Under the lock: what it was stays what it was, if it cannot be freed. */
static int unmap_locked(int vkey)
{
	int id = group_find(vkey), err;

	if (id < 0)
		return id;
	err = free_domains(1, &id);
	if (!err || err == -ENOENT)
		group_remove(vkey);
	return err;
}

int mpk_munmap(int vkey)
{
	int err = vkey < 0 ? -EINVAL : groups_lock();

	if (err)
		return answer(err);
	err = unmap_locked(vkey);
	groups_unlock();
	return answer(err);
}

struct widening {
	int id;
	int prot;
	int err;
};

static int widen_mapping(int id, void *addr, size_t len, void *arg)
{
	struct widening *to = arg;

	if (id == to->id)
		to->err = epk_mprotect(addr, len, to->prot);
	return to->err;
}

/* As mprotect() would, it gives what mpk_mmap() was not asked for. */
static int widen(int id, int prot, struct group_prots *prots)
{
	struct widening to = { .id = id, .prot = prot | prots->pages };
	int err = to.prot == prots->pages ? 0 : epk_for_each_mapping(widen_mapping, &to);

	if (!err)
		prots->pages = to.prot;
	return err;
}

/* Under the lock, so that the group is this one until it is done. */
static int protect_locked(int vkey, int prot)
{
	int id = group_find(vkey), err = id < 0 ? id : epk_protect(id, prot);
	struct group_prots prots;

	if (err)
		return err;
	prots = group_prots(vkey);
	err = widen(id, prot, &prots);
	if (err)
		epk_protect(id, prots.common);
	else
		prots.common = prot;
	group_set_prots(vkey, prots);
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
	err = groups_lock();
	if (err)
		return answer(err);
	err = protect_locked(vkey, prot);
	groups_unlock();
	return answer(err);
}

void *mpk_malloc(int vkey, size_t size)
{
	int id = group_find(vkey);

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
