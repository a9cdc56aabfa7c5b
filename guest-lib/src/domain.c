// SPDX-License-Identifier: MIT
/*
 * Domains come and go: this checks every argument and keeps the books, and leaves the rest to the
 * backend.
 */
#include <stdlib.h>
#include <string.h>

#include "aside.h"
#include "backend.h"
#include "code.h"
#include "registry.h"

/* Up to so many IDs, allocation needs no memory of its own. */
#define NR_COPIED	1024

static int alloc_by(const struct epk_backend *ops, int num, int *ids, int beside)
{
	if (beside != EPK_EVERYWHERE)
		return ops->alloc(num, ids, beside);
	return ops->alloc_everywhere ? ops->alloc_everywhere(num, ids) : ops->alloc(num, ids, 0);
}

/* Under epk_lock.  @beside may be EPK_EVERYWHERE. */
static int alloc_locked(int num, int *ids, int beside)
{
	struct epk_entry entry;
	int err;

	err = epk_ensure_init();
	if (!err && beside && beside != EPK_EVERYWHERE)
		err = epk_lookup(beside, &entry);
	if (!err)
		err = epk_strict();
	if (!err)
		err = alloc_by(epk_ops(), num, ids, beside);
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
		return epk_explain(call, num, epk_because(EPK_CAUSE_NUM));
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
		return epk_explain("epk_alloc_beside", beside, epk_because(EPK_CAUSE_ID));
	return alloc("epk_alloc_beside", num, dom_ids, beside);
}

int epk_alloc_everywhere(int num, int dom_ids[])
{
	return alloc("epk_alloc_everywhere", num, dom_ids, EPK_EVERYWHERE);
}

/* Each is live, and once there: undone by unsee() of as many as it has seen. */
static int see(int num, const int *ids, int *seen)
{
	struct epk_entry entry;
	struct epk_domain *dom;
	int err;

	for (*seen = 0; *seen < num; ++*seen) {
		err = epk_lookup(ids[*seen], &entry);
		if (err)
			return err;
		dom = epk_registry_at(EPK_ID_INDEX(ids[*seen]));
		if (dom->seen)
			return epk_because(EPK_CAUSE_TWICE);
		dom->seen = true;
	}
	return 0;
}

static void unsee(int seen, const int *ids)
{
	while (seen--)
		epk_registry_at(EPK_ID_INDEX(ids[seen]))->seen = false;
}

/* Under epk_lock. */
static int gather_locked(int num, const int *ids)
{
	int seen, err = see(num, ids, &seen);

	unsee(seen, ids);
	if (err || !epk_ops()->gather)
		return err;
	return epk_ops()->gather(num, ids);
}

int epk_gather(int num, const int dom_ids[])
{
	int few[EPK_MAX_HELD], saved_errno = errno, err;
	struct epk_aside aside;

	if (num <= 0 || !dom_ids)
		return epk_explain("epk_gather", num, epk_because(EPK_CAUSE_NUM));
	if (num > EPK_MAX_HELD)
		return epk_explain("epk_gather", num, epk_because(EPK_CAUSE_GATHER));
	memcpy(few, dom_ids, num * sizeof(*few));
	err = epk_notes_lock(&aside);
	if (!err) {
		err = gather_locked(num, few);
		epk_notes_unlock(&aside);
	}
	errno = saved_errno;
	return epk_explain("epk_gather", num, err);
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
	int i, seen, err = see(num, ids, &seen);

	unsee(seen, ids);
	for (i = 0; i < num && !err; i++)
		err = check_held(ids[i], own, nr);
	return err;
}

/* Under epk_lock. */
static int free_locked(int num, const int *ids, const struct epk_held *own, int nr)
{
	const struct epk_backend *ops = epk_ops();
	int i, err = check_free(num, ids, own, nr);

	if (!err)
		err = epk_strict();
	/* The module gives its memory back to anybody when the domain is no more. */
	if (!err && ops->in_module)
		err = ops->free(num, ids);
	for (i = 0; i < num && !err; i++)
		err = epk_mapping_unmap_domain(ids[i], epk_code_munmap, ops->in_module);
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
		return epk_explain("free_domains", num, epk_because(EPK_CAUSE_NUM));
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
