// SPDX-License-Identifier: MIT
/*
 * Domains of plain protection keys, one each while it has one.  A domain gets
 * its key at domain_begin().  When there is no free one, a domain that no thread
 * holds gives up its own, in the order in which they got them: its memory
 * becomes PROT_NONE under key 0.
 *
 * What a thread holds, its PKRU says.  Nobody else can read that, so each thread counts the keys
 * that it opens, "pins" them, in memory; see gate_pin.S.  A signal handler starts with all keys
 * closed and with the pins of what it interrupted, to which that comes back.
 *
 * Everything but a begin or an end in the gates happens under epk_lock.  One key keeps the
 * domain table, and which domain has which key, from writes by all else.
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>

#include "backend.h"
#include "pkru.h"
#include "registry.h"

/* The key that was given out last, and all that ever were. */
static unsigned int last_key;
static uint32_t given;

static int protect(const struct epk_mapping *map, unsigned int pkey)
{
	int prot = pkey ? map->prot : PROT_NONE;

	return epk_pkey_mprotect((void *)map->start, map->end - map->start, prot, pkey);
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

/* Some thread has it open, or will have again. */
static bool is_pinned(unsigned int pkey)
{
	return epk_threads_pin(pkey) || epk_soft_table_aside(pkey);
}

/* Takes @pkey from the domain @id, if there is one.  -EBUSY: a thread has the key open. */
static int evict(unsigned int pkey, int id)
{
	int err;

	if (is_pinned(pkey))
		return -EBUSY;
	if (!id)
		return 0;
	epk_soft_table_set_pkey(id, 0);
	err = epk_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	if (!err && is_pinned(pkey))
		err = -EBUSY;
	if (!err)
		err = protect_all(id, pkey, 0);
	if (err)
		epk_soft_table_set_pkey(id, pkey);
	else
		epk_soft_table_set_owner(pkey, 0);
	return err;
}

/* Makes a key free and returns it, or an error. */
static int take_key(void)
{
	uint32_t pkeys = epk_now.pkeys & ~(1u << epk_now.table_pkey);
	unsigned int tries, pkey;
	int owners[EPK_NR_PKEYS];
	int err;

	if (pkeys & ~given)
		return __builtin_ctz(pkeys & ~given);
	/* Of a domain that was freed, the last begin may be under way. */
	err = epk_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	if (err)
		return err;
	epk_soft_table_owners(owners);
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++)
		if (pkeys & 1u << pkey && !owners[pkey] && !is_pinned(pkey))
			return pkey;
	pkey = last_key;
	for (tries = 0; tries < EPK_NR_PKEYS; tries++) {
		pkey = (pkey + 1) % EPK_NR_PKEYS;
		if (!(pkeys & 1u << pkey))
			continue;
		err = evict(pkey, owners[pkey]);
		if (err != -EBUSY)
			return err ? err : (int)pkey;
	}
	return -EAGAIN;
}

/* Sees to it that @id has a key: the key or an error. */
static int assign(int id)
{
	struct epk_entry entry;
	int pkey, err;

	err = epk_lookup(id, &entry);
	if (err || entry.pkey)
		return err ? err : entry.pkey;
	pkey = take_key();
	if (pkey < 0)
		return pkey;
	err = protect_all(id, 0, pkey);
	if (err)
		return err;
	epk_soft_table_set_owner(pkey, id);
	last_key = pkey;
	given |= 1u << pkey;
	epk_soft_table_set_pkey(id, pkey);
	return pkey;
}

static int open_prot(unsigned int pkey)
{
	return pkru_prot(rdpkru(), pkey);
}

/* The key of @id, or 0: also while another thread's evict() looks whether it can take it. */
static unsigned int key_of(int id)
{
	int owners[EPK_NR_PKEYS], pkey;
	struct epk_entry entry;

	if (!epk_entry_find(id, &entry))
		return 0;
	if (entry.pkey)
		return entry.pkey;
	epk_soft_table_owners(owners);
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++)
		if (owners[pkey] == id)
			return pkey;
	return 0;
}

/* None is taken away that a handler has taken away, by a fork. */
static void unpin(unsigned int pkey)
{
	uint32_t *pins = &epk_own_slot()->pins[pkey], nr = *pins;

	while (nr && !__atomic_compare_exchange_n(pins, &nr, nr - 1, false, __ATOMIC_RELAXED,
						  __ATOMIC_RELAXED))
		;
}

/* Rights to what was freed while it was begun, and those that no begin of this thread's stands for. */
static void close_strays(void)
{
	int owners[EPK_NR_PKEYS], pkey;

	epk_soft_table_owners(owners);
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		if (!(epk_now.pkeys & 1u << pkey) || !open_prot(pkey) ||
		    (owners[pkey] && epk_own_slot()->pins[pkey]))
			continue;
		epk_pkru_set(pkru_close(rdpkru(), pkey));
		unpin(pkey);
	}
}

static int mpk_held_prot(int id)
{
	unsigned int pkey = epk_word.follows ? key_of(id) : 0;

	return pkey && epk_own_slot()->pins[pkey] ? open_prot(pkey) : 0;
}

/* Under epk_lock, without which a key that is pinned changes hands for nobody. */
static int begin(int id, int prot)
{
	int pkey;

	epk_word.follows = 1;
	close_strays();
	pkey = assign(id);
	if (pkey < 0)
		return pkey;
	epk_own_slot()->pins[pkey]++;
	epk_barrier();
	epk_pkru_set(pkru_open(rdpkru(), pkey, prot));
	return 0;
}

/* No other thread's pin is in the way. */
static bool holds_all(void)
{
	uint32_t pkeys = epk_now.pkeys & ~(1u << epk_now.table_pkey);
	unsigned int pkey;

	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++)
		if (pkeys & 1u << pkey && !epk_own_slot()->pins[pkey])
			return false;
	return true;
}

static int mpk_take(int id, int prot)
{
	int saved_errno = errno, held = mpk_held_prot(id), err;
	unsigned int tries = 0;

	/* What is open and pinned needs no lock. */
	if (held && !(prot & ~held))
		return -EALREADY;
	if (held) {
		epk_pkru_set(pkru_open(rdpkru(), key_of(id), prot));
		return 0;
	}
	do {
		err = -pthread_mutex_lock(&epk_lock);
		if (err)
			break;
		err = begin(id, prot);
		pthread_mutex_unlock(&epk_lock);
	} while (err == -EAGAIN && !holds_all() && epk_wait_for_pins(tries++));
	errno = saved_errno;
	return err;
}

/*
 * A pin without an open key is of what a signal interrupted, or was held when a handler was left by
 * siglongjmp(): then this is how its key becomes free.
 */
static int mpk_drop(int id)
{
	unsigned int pkey = key_of(id);

	if (!pkey || (!epk_own_slot()->pins[pkey] && !open_prot(pkey)))
		return -EACCES;
	/* Whatever the thread has counted. */
	epk_pkru_set(pkru_close(rdpkru(), pkey));
	epk_barrier();
	/* It was its creator's. */
	if (!epk_word.follows)
		return -EACCES;
	unpin(pkey);
	return 0;
}

/* What is open in @pkru, and pinned. */
static int list_open(struct epk_held *list, int max, uint32_t pkru)
{
	int owners[EPK_NR_PKEYS], pkey, prot, nr = 0;

	if (!epk_word.follows)
		return 0;
	epk_soft_table_owners(owners);
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		prot = owners[pkey] && epk_own_slot()->pins[pkey] ? pkru_prot(pkru, pkey) : 0;
		if (prot && nr++ < max)
			list[nr - 1] = (struct epk_held) { .id = owners[pkey], .prot = prot };
	}
	return nr;
}

static int mpk_held(struct epk_held *list, int max)
{
	return list_open(list, max, rdpkru());
}

/* The kernel has closed all keys for the handler; what was open is in its frame. */
static int mpk_interrupted(struct epk_held *list, int max, const void *context)
{
	return list_open(list, max, epk_frame_pkru(context));
}

static void close_all(void)
{
	epk_pkru_set(rdpkru() | epk_now.closed);
}

static int locked(int (*act)(int id, uintptr_t sp), int id, uintptr_t sp)
{
	int err = -pthread_mutex_lock(&epk_lock);

	if (err)
		return err;
	err = act(id, sp);
	pthread_mutex_unlock(&epk_lock);
	return err;
}

/* With no @sp what it put aside last, with one that it never had all. */
static int forget(int id, uintptr_t sp)
{
	uint32_t pkru, pins[EPK_NR_PKEYS];

	(void)id;
	epk_soft_table_pop(sp, &pkru, pins);
	return 0;
}

/* Under epk_lock. */
static int mpk_thread_start(struct epk_thread *t)
{
	(void)t;
	/* What a new thread has open is its creator's, and what it has aside is of one that is gone. */
	close_all();
	return forget(0, 1);
}

static void mpk_thread_stop(struct epk_thread *t)
{
	(void)t;
	close_all();
	locked(forget, 0, 1);
}

/* One key after the other, as they were begun. */
static void open_as(uint32_t pkru)
{
	unsigned int pkey;

	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++)
		if (epk_now.pkeys & 1u << pkey && pkru_prot(pkru, pkey))
			epk_pkru_set(pkru_open(rdpkru(), pkey, pkru_prot(pkru, pkey)));
}

static int take_back(uintptr_t sp)
{
	uint32_t pkru, pins[EPK_NR_PKEYS] = { 0 };
	int err;

	close_all();
	epk_barrier();
	err = epk_soft_table_pop(sp, &pkru, pins);
	memcpy(epk_own_slot()->pins, pins, sizeof(pins));
	epk_barrier();
	if (!err)
		open_as(pkru);
	return err;
}

static int put_aside(int id, uintptr_t sp)
{
	int err;

	close_strays();
	err = epk_soft_table_push(sp, rdpkru(), epk_own_slot()->pins);
	if (err)
		return err;
	close_all();
	epk_barrier();
	memset(epk_own_slot()->pins, 0, sizeof(epk_own_slot()->pins));
	err = id ? begin(id, PROT_READ | PROT_WRITE) : 0;
	if (err)
		take_back(sp);
	return err;
}

static int mpk_put_aside(int id, uintptr_t sp)
{
	int err = epk_self ? 0 : epk_thread_start();

	return err ? err : locked(put_aside, id, sp);
}

static int take_back_locked(int id, uintptr_t sp)
{
	(void)id;
	return take_back(sp);
}

static void mpk_forget_aside(void)
{
	locked(forget, 0, 0);
}

static int mpk_take_back(uintptr_t sp)
{
	return locked(take_back_locked, 0, sp);
}

/* A thread holds it, or code that a signal has interrupted does. */
static int mpk_pinned(int id)
{
	struct epk_entry entry;

	int err = 0;

	if (!epk_entry_find(id, &entry) || !entry.pkey)
		return 0;
	if (epk_own_slot()->pins[entry.pkey] || epk_soft_table_aside(entry.pkey))
		err = -EBUSY;
	else if (epk_threads_pin(entry.pkey))
		err = -EAGAIN;
	return err;
}

static int mpk_init(struct epk_state *state)
{
	uint32_t pkeys;
	int err;

	if (!epk_pkeys_usable() || epk_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
		return -ENODEV;
	pkeys = epk_pkeys_take();
	/* One for the table, one for domains. */
	err = pkeys & (pkeys - 1) ? 0 : -ENOSPC;
	if (err)
		goto give_pkeys;
	epk_pkeys_state(state, pkeys);
	state->nothing = state->closed;
	state->gates = true;
	state->table_pkey = 31 - __builtin_clz(pkeys);
	err = epk_soft_table_init(state);
	if (err)
		goto give_pkeys;
	last_key = 0;
	given = 0;
	/* In a forked child, what the parent had open. */
	epk_pkru_set(rdpkru() | state->closed);
	return 0;

give_pkeys:
	epk_pkeys_give(pkeys);
	return err;
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

	err = epk_anon_mmap(map, &addr, flags & MAP_POPULATE ? map->prot : PROT_NONE, flags);
	if (err)
		return err;
	map->start = (uintptr_t)addr;
	map->end = map->start + len;
	err = protect(map, entry.pkey);
	if (err)
		epk_anon_undo(addr, len, flags);
	return err;
}

static int mpk_protect(const struct epk_mapping *map, int prot)
{
	struct epk_mapping wanted = *map;

	wanted.prot = prot;
	return protect(&wanted, epk_entry_load(EPK_ID_INDEX(map->id)).pkey);
}

static void mpk_forget(const struct epk_state *old)
{
	epk_pkeys_inherit(old->pkeys);
}

const struct epk_backend epk_backend_mpk = {
	.name = "mpk",
	.init = mpk_init,
	.alloc = epk_soft_table_alloc,
	.free = epk_soft_table_free,
	.mmap = mpk_mmap,
	.munmap = epk_anon_munmap,
	.reserve = epk_anon_reserve,
	.fill = epk_anon_fill,
	.protect = mpk_protect,
	.note = epk_soft_table_note,
	.thread_start = mpk_thread_start,
	.thread_stop = mpk_thread_stop,
	.take = mpk_take,
	.drop = mpk_drop,
	.held = mpk_held,
	.interrupted = mpk_interrupted,
	.held_prot = mpk_held_prot,
	.pinned = mpk_pinned,
	.put_aside = mpk_put_aside,
	.take_back = mpk_take_back,
	.forget_aside = mpk_forget_aside,
	.forget = mpk_forget,
};
