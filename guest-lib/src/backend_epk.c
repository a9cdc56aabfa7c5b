// SPDX-License-Identifier: MIT
/*
 * Domains of the kernel module: (EPT, pkey) pairs.
 *
 * What a thread holds is in its PKRU and in the record that the module keeps of it.  The gates
 * open and close keys of the EPT that the thread is in; here is what the module has to be asked
 * for.  Where domains are, and which of them have a place, is the module's affair.
 */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <unistd.h>

#include "backend.h"
#include "pkru.h"
#include "tls.h"

static int epk_init_backend(struct epk_state *state)
{
	uint32_t pkeys = 0;
	int err;

	err = epk_module_open(state, &pkeys);
	if (err)
		return err;
	epk_pkeys_state(state, pkeys);
	state->nothing = state->access;
	state->tls_below = epk_tls_below();
	if (!epk_gates_run())
		return 0;
	err = epk_module_gates(state);
	if (err)
		epk_module_close(state, pkeys);
	else
		state->index_mask = EPK_INDICES - 1;
	return err;
}

static int epk_alloc(int num, int *ids, int beside)
{
	struct epk_entry entry;
	uint32_t flags = EPK_ALLOC_SPILL;

	if (beside && epk_entry_find(beside, &entry) && entry.pkey && entry.ept != EPK_EPT_ALL)
		flags |= EPK_ALLOC_AT(entry.ept);
	return epk_module_alloc(num, ids, flags);
}

static int epk_alloc_all(int num, int *ids)
{
	int err = epk_module_alloc(num, ids, EPK_ALLOC_EVERYWHERE);

	return err == -ENOSPC ? epk_because(EPK_CAUSE_EVERYWHERE) : err;
}

/* Widened, or begun: it is held. */
static int epk_take(int id, int prot)
{
	int saved_errno = errno, err;

	err = ioctl(epk_now.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, prot)) < 0 ? -errno : 0;
	errno = saved_errno;
	if (!err)
		epk_word.follows = 1;
	return err;
}

static int epk_drop(int id)
{
	int saved_errno = errno, err;

	err = ioctl(epk_now.fd, EPK_IOC_END, (long)id) ? -errno : 0;
	errno = saved_errno;
	return err;
}

static int grants(struct epk_grant *list, int max, uint32_t flags)
{
	struct epk_grants arg = { .num = max, .flags = flags, .list = (uintptr_t)list };
	int saved_errno = errno, err;

	err = ioctl(epk_now.fd, EPK_IOC_HELD, &arg) ? -errno : (int)arg.num;
	errno = saved_errno;
	return err;
}

_Static_assert(EPK_HELD_MAX == EPK_MAX_HELD, "the module's limit is the library's");

/* The gates do not count what they open: room for more than EPK_HELD_MAX. */
#define MOST	(2 * EPK_HELD_MAX)

static int epk_list_held(struct epk_held *list, int max)
{
	struct epk_grant all[MOST];
	int i, nr = grants(all, MOST, 0);

	for (i = 0; i < nr && i < max && i < MOST; i++)
		list[i] = (struct epk_held) { .id = all[i].id, .prot = all[i].prot };
	return nr;
}

_Static_assert(sizeof(struct epk_grant) == sizeof(struct epk_held) &&
	       offsetof(struct epk_grant, id) == offsetof(struct epk_held, id) &&
	       offsetof(struct epk_grant, prot) == offsetof(struct epk_held, prot),
	       "a handler, whose stack may be small, has no room for both");

/* The module has put it aside. */
static int epk_list_interrupted(struct epk_held *list, int max, const void *context)
{
	(void)context;
	return grants((struct epk_grant *)list, max, EPK_HELD_INTERRUPTED);
}

static bool is_here(const struct epk_entry *entry)
{
	return entry->pkey && (entry->ept == EPK_EPT_ALL || entry->ept == epk_current_ept());
}

/* Of a domain in the thread's EPT PKRU says it all, unless one of them changed meanwhile. */
static int epk_prot_held(int id)
{
	struct epk_entry entry, again;
	struct epk_held list[MOST];
	int i, nr, prot;

	if (epk_entry_find(id, &entry) && is_here(&entry)) {
		prot = pkru_prot(rdpkru(), entry.pkey);
		if (epk_entry_find(id, &again) && again.ept == entry.ept &&
		    again.pkey == entry.pkey && is_here(&again))
			return prot;
	}
	nr = epk_list_held(list, MOST);
	for (i = 0; i < nr && i < MOST; i++)
		if (list[i].id == id)
			return list[i].prot;
	return 0;
}

/* It registers when it begins its first domain. */
static void epk_thread_stop(struct epk_thread *t)
{
	struct epk_held list[MOST];
	int i, nr = epk_list_held(list, MOST);

	(void)t;
	for (i = 0; i < nr && i < MOST; i++)
		epk_drop(list[i].id);
}

const struct epk_backend epk_backend_epk = {
	.name = "epk",
	.in_module = true,
	.init = epk_init_backend,
	.alloc = epk_alloc,
	.alloc_everywhere = epk_alloc_all,
	.free = epk_module_free,
	.gather = epk_module_gather,
	.mmap = epk_module_mmap,
	.munmap = epk_module_munmap,
	.reserve = epk_module_reserve,
	.fill = epk_module_fill,
	.protect = epk_module_protect,
	.note = epk_module_note,
	.thread_stop = epk_thread_stop,
	.take = epk_take,
	.drop = epk_drop,
	.held = epk_list_held,
	.interrupted = epk_list_interrupted,
	.held_prot = epk_prot_held,
	.common = epk_module_common,
	.common_prot = epk_module_common_prot,
	.counts = epk_module_counts,
	.forget = epk_module_forget,
};
