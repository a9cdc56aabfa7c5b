// SPDX-License-Identifier: MIT
/*
 * Domains of plain protection keys, one each while it has one.  A domain gets
 * its key at domain_begin().  When there is no free one, a domain that no thread
 * holds gives up its own, in the order in which they got them: its memory
 * becomes PROT_NONE under key 0.
 *
 * A thread that begins a domain writes down that it holds it, then looks whether
 * the domain has its key still.  Who takes a key away clears the entry, then
 * looks whether a thread holds the domain.  membarrier(2) in between stands for
 * the barrier that the first would need each time.  Everything else happens under
 * epk_lock.
 *
 * One key is the vault's: it keeps the rights of threads that hold several domains,
 * the domain table, and which domain has which key, from writes by all else.
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <sys/mman.h>

#include "backend.h"
#include "pkru.h"
#include "registry.h"
#include "rights.h"
#include "vault.h"

/* The key that was given out last. */
static unsigned int last_key;

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

/* Takes @pkey from the domain @id, if there is one.  -EBUSY: a thread holds that. */
static int evict(unsigned int pkey, int id)
{
	int err;

	if (!id)
		return 0;
	if (epk_threads_hold(id))
		return -EBUSY;
	soft_table_set_pkey(id, 0);
	err = epk_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	if (!err && epk_threads_hold(id))
		err = -EBUSY;
	if (!err)
		err = protect_all(id, pkey, 0);
	if (err)
		soft_table_set_pkey(id, pkey);
	else
		soft_table_set_owner(pkey, 0);
	return err;
}

/* Makes a key free and returns it, or an error. */
static int take_key(void)
{
	uint32_t pkeys = epk_now.pkeys & ~(1u << epk_now.vault_pkey);
	unsigned int tries, pkey;
	int owners[EPK_NR_PKEYS];
	int err;

	soft_table_owners(owners);
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++)
		if (pkeys & 1u << pkey && !owners[pkey])
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
	soft_table_set_owner(pkey, id);
	last_key = pkey;
	soft_table_set_pkey(id, pkey);
	return pkey;
}

/* @held is on the list: once the domain has a key, it keeps it. */
static int mpk_begin(struct epk_thread *t, struct epk_held *held)
{
	int saved_errno = errno;
	struct epk_entry entry;
	int pkey;

	epk_barrier();
	entry = epk_entry_load(EPK_ID_INDEX(held->id));
	pkey = entry.pkey;
	if (entry.id != held->id || !pkey) {
		pkey = -pthread_mutex_lock(&epk_lock);
		if (!pkey) {
			pkey = assign(held->id);
			pthread_mutex_unlock(&epk_lock);
		}
		errno = saved_errno;
		if (pkey < 0)
			return pkey;
	}
	held->pkey = pkey;
	rights_note(t, held->id, held->prot);
	return 0;
}

static int mpk_thread_start(struct epk_thread *t)
{
	rights_close_all();
	return vault_claim(t);
}

static void mpk_thread_stop(struct epk_thread *t)
{
	rights_close_all();
	vault_release(t);
}

static int mpk_init(struct epk_state *state)
{
	uint32_t pkeys;
	int err;

	if (!epk_pkeys_usable() || epk_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
		return -ENODEV;
	pkeys = epk_pkeys_take();
	/* One for the vault, one for domains. */
	err = pkeys & (pkeys - 1) ? 0 : -ENOSPC;
	if (err)
		goto give_pkeys;
	epk_pkeys_state(state, pkeys);
	/* They know of no other key in PKRU but key 0. */
	state->gates = state->access == EPK_PKRU_ACCESS && epk_gates_run();
	state->vault_pkey = 31 - __builtin_clz(pkeys);
	err = soft_table_init(state);
	if (err)
		goto give_pkeys;
	err = vault_init(state);
	if (err)
		goto exit_table;
	last_key = 0;
	return 0;

exit_table:
	soft_table_exit(state);
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
		epk_anon_munmap(addr, len);
	return err;
}

static void mpk_forget(const struct epk_state *old)
{
	epk_pkeys_inherit(old->pkeys);
	vault_forget(old);
}

const struct epk_backend epk_backend_mpk = {
	.name = "mpk",
	.init = mpk_init,
	.alloc = soft_table_alloc,
	.free = soft_table_free,
	.mmap = mpk_mmap,
	.munmap = epk_anon_munmap,
	.thread_start = mpk_thread_start,
	.thread_stop = mpk_thread_stop,
	.begin = mpk_begin,
	.adopt = rights_adopt,
	.end = rights_end,
	.settle = rights_settle,
	.forget = mpk_forget,
};
