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
 * struct groups - the table
 * @slots: by a hash of the number, and the next that is free
 * @prots: by slot
 * @nr: groups
 */
struct groups {
	union group slots[SLOTS];
	struct group_prots prots[SLOTS];
	unsigned int nr;
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

int group_find(int vkey)
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
	begins_forget();
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

int groups_lock(void)
{
	int err = -pthread_mutex_lock(&lock);

	if (!err && !groups)
		err = make();
	if (err)
		pthread_mutex_unlock(&lock);
	return err;
}

void groups_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

static void slot_write(unsigned int at, union group group)
{
	__atomic_store_n(&groups->slots[at].raw, group.raw, __ATOMIC_RELEASE);
}

int group_add(int vkey, int id, int prot)
{
	const union group group = { .vkey = vkey, .id = id };
	unsigned int at = hash(vkey);

	if (groups->nr == MPK_GROUPS_MAX)
		return -ENOSPC;
	while (groups->slots[at].id)
		at = (at + 1) % SLOTS;
	protect(PROT_READ | PROT_WRITE);
	groups->prots[at] = (struct group_prots) { .pages = prot };
	groups->nr++;
	slot_write(at, group);
	protect(PROT_READ);
	return 0;
}

void group_remove(int vkey)
{
	unsigned int at = find(groups, vkey);

	protect(PROT_READ | PROT_WRITE);
	groups->nr--;
	slot_write(at, gone);
	/* What is searched ends here again, if nothing follows. */
	while (!groups->slots[(at + 1) % SLOTS].raw && groups->slots[at].raw == gone.raw) {
		slot_write(at, (union group){ .raw = 0 });
		at = (at + SLOTS - 1) % SLOTS;
	}
	protect(PROT_READ);
}

struct group_prots group_prots(int vkey)
{
	return groups->prots[find(groups, vkey)];
}

void group_set_prots(int vkey, struct group_prots prots)
{
	struct group_prots *now = &groups->prots[find(groups, vkey)];

	if (now->pages == prots.pages && now->common == prots.common)
		return;
	protect(PROT_READ | PROT_WRITE);
	*now = prots;
	protect(PROT_READ);
}
