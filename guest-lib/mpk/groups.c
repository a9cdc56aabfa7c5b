// SPDX-License-Identifier: MIT
/*
 * Which virtual key is which domain, in a table that is read-only but while it changes: else a stray write
 * could have one group opened in place of another.
 *
 * A forked child has none of its parent's domains, so it begins with an empty table.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <epk.h>

#include "groups.h"
#include "libmpk.h"

/* More than groups, so that a search soon meets a free one; a power of two. */
#define SLOTS	(2 * MPK_GROUPS_MAX)
#define PROT_RW	(PROT_READ | PROT_WRITE)

/**
 * union group - a slot
 * @vkey: its number
 * @id: the domain; 0 where no group is
 * @raw: both, read and written at once; 0 where none ever was
 */
union group {
	struct {
		int vkey;
		int id;
	};
	uint64_t raw;
};

/**
 * struct more - what only changes ask for
 * @first: of the group's memory that is noted: its index and 1; 0 for none
 * @common: what may be done by who has not begun it
 */
struct more {
	uint32_t first;
	int common;
};

/**
 * struct groups - the table
 * @slots: by a hash of the number, and the next that is free
 * @more: by slot
 * @nr: groups
 * @nr_narrow: of @narrow, those that ever were in use
 * @free: those that are no more: index and 1; 0 for none
 * @narrow: memory
 */
struct groups {
	union group slots[SLOTS];
	struct more more[SLOTS];
	unsigned int nr;
	uint32_t nr_narrow;
	uint32_t free;
	struct narrow narrow[MPK_NARROW_MAX];
};

#define BYTES	((sizeof(struct groups) + 4095) & ~4095ul)

static struct groups *groups;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* A group was here, and searches go on. */
static const union group gone = { .vkey = -1 };

/* Whoever cannot close it again goes no further. */
static void protect(int prot)
{
	if (mprotect(groups, BYTES, prot))
		abort();
}

static unsigned int hash(int vkey)
{
	return (uint32_t)vkey * 2654435769u % SLOTS;
}

/* The slot of a number, or SLOTS. */
static unsigned int find(const struct groups *in, int vkey)
{
	unsigned int at = hash(vkey), n;
	union group group;

	for (n = 0; n < SLOTS; n++, at = (at + 1) % SLOTS) {
		group.raw = __atomic_load_n(&in->slots[at].raw, __ATOMIC_ACQUIRE);
		if (!group.raw)
			break;
		if (group.id && group.vkey == vkey)
			return at;
	}
	return SLOTS;
}

int mpk_group_find(int vkey)
{
	const struct groups *in = __atomic_load_n(&groups, __ATOMIC_ACQUIRE);
	unsigned int at = in && vkey >= 0 ? find(in, vkey) : SLOTS;
	union group group;

	if (vkey < 0)
		return -EINVAL;
	if (at == SLOTS)
		return -ENOENT;
	/* Another may be there by now. */
	group.raw = __atomic_load_n(&in->slots[at].raw, __ATOMIC_ACQUIRE);
	return group.id && group.vkey == vkey ? group.id : -ENOENT;
}

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

/* Pages that were never touched cost nothing, here and there. */
static void in_child(void)
{
	if (groups && munmap(groups, BYTES))
		abort();
	groups = NULL;
	mpk_begins_forget();
	pthread_mutex_unlock(&lock);
}

static int make(void)
{
	static bool forks_known;
	int err = epk_init(NULL);
	void *got;

	/* Its handlers of forks come first, so that its locks are taken after ours, as they are here. */
	if (err && err != -EALREADY)
		return err;
	if (!forks_known && pthread_atfork(before_fork, after_fork, in_child))
		return -ENOMEM;
	forks_known = true;
	got = mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (got == MAP_FAILED)
		return -ENOMEM;
	__atomic_store_n(&groups, got, __ATOMIC_RELEASE);
	return 0;
}

int mpk_groups_lock(void)
{
	int err = -pthread_mutex_lock(&lock);

	if (!err && !groups)
		err = make();
	if (err)
		pthread_mutex_unlock(&lock);
	return err;
}

void mpk_groups_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

static void slot_write(unsigned int at, union group group)
{
	__atomic_store_n(&groups->slots[at].raw, group.raw, __ATOMIC_RELEASE);
}

/* Asked before anything is mapped: what MAP_FIXED takes the place of does not come back. */
int mpk_groups_room(bool fresh, bool narrow)
{
	if (fresh && groups->nr == MPK_GROUPS_MAX)
		return -ENOSPC;
	return narrow && !groups->free && groups->nr_narrow == MPK_NARROW_MAX ? -ENOSPC : 0;
}

void mpk_group_add(int vkey, int id)
{
	const union group group = { .vkey = vkey, .id = id };
	unsigned int at = hash(vkey);

	while (groups->slots[at].id)
		at = (at + 1) % SLOTS;
	protect(PROT_RW);
	groups->more[at] = (struct more) { 0 };
	groups->nr++;
	slot_write(at, group);
	protect(PROT_READ);
}

/* Takes what @link points to off its list. */
static void drop(uint32_t *link)
{
	uint32_t index = *link;
	struct narrow *narrow = &groups->narrow[index - 1];

	*link = narrow->next;
	narrow->next = groups->free;
	groups->free = index;
}

void mpk_group_remove(int vkey)
{
	unsigned int at = find(groups, vkey);

	protect(PROT_RW);
	while (groups->more[at].first)
		drop(&groups->more[at].first);
	groups->nr--;
	slot_write(at, gone);
	/* What is searched ends here again, if nothing follows. */
	while (!groups->slots[(at + 1) % SLOTS].raw && groups->slots[at].raw == gone.raw) {
		slot_write(at, (union group){ .raw = 0 });
		at = (at + SLOTS - 1) % SLOTS;
	}
	protect(PROT_READ);
}

static struct more *more_of(int vkey)
{
	return &groups->more[find(groups, vkey)];
}

int mpk_group_common(int vkey)
{
	return more_of(vkey)->common;
}

static const struct narrow *narrow_at(uint32_t index)
{
	return index ? &groups->narrow[index - 1] : NULL;
}

const struct narrow *mpk_narrow_first(int vkey)
{
	return narrow_at(more_of(vkey)->first);
}

const struct narrow *mpk_narrow_next(const struct narrow *narrow)
{
	return narrow_at(narrow->next);
}

void mpk_narrow_add(int vkey, uintptr_t start, uintptr_t end, int prot)
{
	struct more *more = more_of(vkey);
	uint32_t index;

	protect(PROT_RW);
	index = groups->free;
	if (index)
		groups->free = groups->narrow[index - 1].next;
	else
		index = ++groups->nr_narrow;
	groups->narrow[index - 1] = (struct narrow) {
		.start = start, .end = end, .next = more->first, .prot = prot,
	};
	more->first = index;
	protect(PROT_READ);
}

void mpk_narrow_forget(int vkey, int id)
{
	uint32_t *link = &more_of(vkey)->first;

	protect(PROT_RW);
	while (*link) {
		struct narrow *narrow = &groups->narrow[*link - 1];

		if (epk_domain_at((void *)narrow->start) != id)
			drop(link);
		else
			link = &narrow->next;
	}
	protect(PROT_READ);
}

void mpk_group_set_common(int vkey, int prot)
{
	struct more *more = more_of(vkey);
	uint32_t *link = &more->first;

	if (more->common == prot && !*link)
		return;
	protect(PROT_RW);
	more->common = prot;
	while (*link) {
		struct narrow *narrow = &groups->narrow[*link - 1];

		narrow->prot |= prot;
		if (narrow->prot == PROT_RW)
			drop(link);
		else
			link = &narrow->next;
	}
	protect(PROT_READ);
}
