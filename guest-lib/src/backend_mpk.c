// SPDX-License-Identifier: MIT
/*
 * Domains of plain protection keys, one each while it has one.  A domain gets
 * its key at domain_begin().  When there is no free one, the domain that no
 * thread holds and whose begin is longest ago gives up its own: its memory
 * becomes PROT_NONE under key 0.
 *
 * A key is pinned while a thread holds its domain.  Pinning takes no lock:
 *
 *   begin: pin the key of the entry, then look at the entry again;
 *   evict: claim the key, which succeeds only at zero pins, then clear the entry.
 *
 * Both are atomic read-modify-writes of the same counter, so that one of the
 * two sees the other.  Everything else happens under epk_lock.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <x86intrin.h>

#include "backend.h"
#include "pkru.h"
#include "registry.h"

/* Added to the pins of a key that is being taken from its domain. */
#define CLAIMED		(-(1 << 30))

/* @id: the domain that has the key, or 0.  @used: when it last began, by TSC. */
static struct mpk_key {
	int pins;
	int id;
	uint64_t used;
} __attribute__((aligned(64))) keys[EPK_NR_PKEYS];

static bool pin(unsigned int pkey)
{
	if (__atomic_fetch_add(&keys[pkey].pins, 1, __ATOMIC_SEQ_CST) >= 0)
		return true;
	__atomic_fetch_sub(&keys[pkey].pins, 1, __ATOMIC_SEQ_CST);
	return false;
}

static void unpin(unsigned int pkey)
{
	__atomic_fetch_sub(&keys[pkey].pins, 1, __ATOMIC_SEQ_CST);
}

static bool claim(unsigned int pkey)
{
	int none = 0;

	return __atomic_compare_exchange_n(&keys[pkey].pins, &none, CLAIMED, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Ends a claim, leaving @pins.  Others may pin and unpin in vain meanwhile. */
static void unclaim(unsigned int pkey, int pins)
{
	__atomic_fetch_add(&keys[pkey].pins, pins - CLAIMED, __ATOMIC_SEQ_CST);
}

static int protect(const struct epk_mapping *map, unsigned int pkey)
{
	int prot = pkey ? map->prot : PROT_NONE;

	return pkey_mprotect((void *)map->start, map->end - map->start, prot, pkey) ? -errno : 0;
}

/* All memory of @id from key @from to key @to; key 0 is no access.  All or none. */
static int protect_all(int id, unsigned int from, unsigned int to)
{
	const struct epk_mapping *first = epk_registry_at(EPK_ID_INDEX(id))->mappings;
	const struct epk_mapping *map, *undo;
	int err;

	for (map = first; map; map = map->next) {
		err = protect(map, to);
		if (err)
			goto take_back;
	}
	return 0;

take_back:
	/* What failed may have been done in part. */
	for (undo = first; undo != map->next; undo = undo->next)
		protect(undo, from);
	return err;
}

/* Takes the key of the domain that has it.  Claimed and under epk_lock. */
static int evict(unsigned int pkey)
{
	int id = keys[pkey].id;
	int err;

	if (!id)
		return 0;
	soft_table_set_pkey(id, 0);
	err = protect_all(id, pkey, 0);
	if (err) {
		soft_table_set_pkey(id, pkey);
		return err;
	}
	keys[pkey].id = 0;
	return 0;
}

/* Claims a free key, or the one longest unused.  0: all are held. */
static unsigned int claim_key(void)
{
	unsigned int pkey, best;

	do {
		best = 0;
		for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
			if (!(epk_now.pkeys & 1u << pkey) ||
			    __atomic_load_n(&keys[pkey].pins, __ATOMIC_RELAXED))
				continue;
			if (!best || keys[pkey].used < keys[best].used)
				best = pkey;
		}
	} while (best && !claim(best));
	return best;
}

/* Gives @id a key, pinned.  Under epk_lock.  The key or an error. */
static int assign(int id)
{
	unsigned int pkey = claim_key();
	int err;

	if (!pkey)
		return -EAGAIN;
	err = evict(pkey);
	if (!err)
		err = protect_all(id, 0, pkey);
	if (err) {
		unclaim(pkey, 0);
		return err;
	}
	keys[pkey].id = id;
	soft_table_set_pkey(id, pkey);
	unclaim(pkey, 1);
	return pkey;
}

static int pin_slow(int id)
{
	struct epk_entry entry;
	int saved_errno = errno;
	int pkey;

	pthread_mutex_lock(&epk_lock);
	pkey = epk_lookup(id, &entry);
	if (!pkey) {
		pkey = entry.pkey;
		if (!pkey)
			pkey = assign(id);
		else
			pin(pkey);
	}
	pthread_mutex_unlock(&epk_lock);
	errno = saved_errno;
	return pkey;
}

static int mpk_begin(struct epk_thread *t, struct epk_held *held)
{
	uint32_t index = EPK_ID_INDEX(held->id);
	struct epk_entry entry = epk_entry_load(index);
	int pkey = entry.pkey;

	(void)t;
	if (likely(pkey && pin(pkey))) {
		entry = epk_entry_load(index);
		if (unlikely(entry.id != held->id || entry.pkey != pkey)) {
			unpin(pkey);
			pkey = pin_slow(held->id);
		}
	} else {
		pkey = pin_slow(held->id);
	}
	if (unlikely(pkey < 0))
		return pkey;
	__atomic_store_n(&keys[pkey].used, __rdtsc(), __ATOMIC_RELAXED);
	held->pkey = pkey;
	wrpkru(pkru_open(rdpkru(), pkey, held->prot));
	return 0;
}

static int mpk_end(struct epk_thread *t, unsigned int slot)
{
	unsigned int pkey = t->held[slot].pkey;

	wrpkru(pkru_close(rdpkru(), pkey));
	epk_held_remove(t, slot);
	unpin(pkey);
	return 0;
}

static int mpk_thread_start(struct epk_thread *t)
{
	(void)t;
	wrpkru(rdpkru() | epk_now.closed);
	return 0;
}

static void mpk_thread_stop(struct epk_thread *t)
{
	wrpkru(rdpkru() | epk_now.closed);
	while (t->nr) {
		unpin(t->held[t->nr - 1].pkey);
		epk_held_remove(t, t->nr - 1);
	}
}

static int mpk_init(struct epk_state *state)
{
	int pkey, err;

	if (!epk_pkeys_usable())
		return -ENODEV;
	state->pkeys = epk_pkeys_take();
	if (!state->pkeys)
		return -ENOSPC;
	err = soft_table_init(state);
	if (err) {
		epk_pkeys_give(state->pkeys);
		return err;
	}
	state->closed = epk_pkeys_closed(state->pkeys);
	for (pkey = 0; pkey < EPK_NR_PKEYS; pkey++)
		keys[pkey] = (struct mpk_key){ 0 };
	return 0;
}

/*
 * The key of a freed domain is free when its pins are gone: a thread that pinned
 * it just now looks at the entry again, and unpins.
 */
static int mpk_free(int num, const int *ids)
{
	struct epk_entry entry;
	int i;

	for (i = 0; i < num; i++) {
		entry = epk_entry_load(EPK_ID_INDEX(ids[i]));
		if (!entry.pkey)
			continue;
		keys[entry.pkey].id = 0;
		keys[entry.pkey].used = 0;
	}
	soft_table_free(num, ids);
	return 0;
}

/*
 * The memory is inaccessible until it has its key, except where MAP_POPULATE
 * needs access to do its work.
 */
static int mpk_mmap(struct epk_mapping *map, void *addr, int flags)
{
	struct epk_entry entry = epk_entry_load(EPK_ID_INDEX(map->id));
	size_t len = map->end - map->start;
	int err;

	err = epk_anon_mmap(&addr, len, flags & MAP_POPULATE ? map->prot : PROT_NONE, flags);
	if (err)
		return err;
	map->start = (uintptr_t)addr;
	map->end = map->start + len;
	err = protect(map, entry.pkey);
	if (err)
		epk_anon_munmap(addr, len);
	return err;
}

static void mpk_forget(const struct epk_state *old)
{
	epk_pkeys_inherit(old->pkeys);
	soft_table_exit();
}

const struct epk_backend epk_backend_mpk = {
	.name = "mpk",
	.init = mpk_init,
	.alloc = soft_table_alloc,
	.free = mpk_free,
	.mmap = mpk_mmap,
	.munmap = epk_anon_munmap,
	.populates = true,
	.thread_start = mpk_thread_start,
	.thread_stop = mpk_thread_stop,
	.begin = mpk_begin,
	.end = mpk_end,
	.forget = mpk_forget,
};
