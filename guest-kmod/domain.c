// SPDX-License-Identifier: GPL-2.0
/*
 * Domains: IDs, the read-only table, allocation and freeing.
 */
#include <linux/sched.h>
#include <linux/slab.h>

#include "module.h"
#include "trace.h"

/* Indices go round in so many entries, or in twice as many as are in use. */
#define INDEX_ROUND_MIN	8192u

static_assert(KVM_EPK_MAX_EPTS * (EPK_NR_PKEYS - 1) < INDEX_ROUND_MIN);

/**
 * epk_domains_init() - get a context ready to hold domains
 * @ctx: the context, locked, its keys set
 * @generation: behind which those of its IDs begin
 *
 * Return: 0, -ENOMEM.
 */
int epk_domains_init(struct epk_context *ctx, u32 generation)
{
	ctx->generation = generation;
	ctx->place_ids = kvcalloc(epk_host.nr_epts, sizeof(*ctx->place_ids), GFP_KERNEL_ACCOUNT);
	if (!ctx->place_ids)
		return -ENOMEM;
	if (epk_table_init(ctx)) {
		kvfree(ctx->place_ids);
		ctx->place_ids = NULL;
		return -ENOMEM;
	}

	ctx->nr_pkeys = hweight32(ctx->pkeys);
	__set_bit(0, ctx->indices);
	ctx->next_index = 1;
	epk_place_init(ctx);
	return 0;
}

/**
 * epk_domains_cancel() - undo epk_domains_init() before there was a domain
 * @ctx: the context
 */
void epk_domains_cancel(struct epk_context *ctx)
{
	mutex_lock(&ctx->lock);
	epk_table_exit(ctx);
	kvfree(ctx->place_ids);
	ctx->place_ids = NULL;
	bitmap_zero(ctx->indices, EPK_TABLE_ENTRIES);
	epk_place_exit(ctx);
	mutex_unlock(&ctx->lock);
}

/*
 * Give the index out that was free for longest, or nearly so: a stale ID then
 * meets an index that is free, not just another generation.
 */
static u32 index_find(struct epk_context *ctx)
{
	unsigned int round = max(INDEX_ROUND_MIN, roundup_pow_of_two(ctx->nr_domains * 2));
	u32 index;

	round = min(round, EPK_TABLE_ENTRIES);
	index = find_next_zero_bit(ctx->indices, round, ctx->next_index);
	if (index >= round)
		index = find_first_zero_bit(ctx->indices, EPK_TABLE_ENTRIES);
	return index;
}

/* With no place: it is nowhere yet. */
static struct epk_domain *domain_create(struct epk_context *ctx)
{
	u32 index = index_find(ctx), slot = index % EPK_CHUNK_ENTRIES;
	struct epk_chunk *chunk = epk_chunk_get(ctx, index);
	struct epk_domain *domain;

	lockdep_assert_held(&ctx->lock);

	domain = chunk ? kzalloc(sizeof(*domain), GFP_KERNEL_ACCOUNT) : NULL;
	if (!domain)
		return NULL;

	__set_bit(index, ctx->indices);
	ctx->next_index = index + 1;
	if (++chunk->generations[slot] > EPK_GENERATION_MAX)
		chunk->generations[slot] = 1;

	INIT_LIST_HEAD(&domain->mappings);
	domain->id = (int)index | chunk->generations[slot] << EPK_ID_INDEX_BITS;
	domain->ept = EPK_EPT_NONE;
	chunk->domains[slot] = domain;
	ctx->nr_domains++;
	atomic_long_inc(&epk_counters.domains);
	return domain;
}

/**
 * epk_domain_show() - let rights to a domain be had
 * @ctx: the context, locked
 * @domain: the domain; to its place nobody has a right
 */
void epk_domain_show(struct epk_context *ctx, const struct epk_domain *domain)
{
	epk_place_show(ctx, domain);
	epk_table_write(ctx, domain);
	trace_epk_place(domain->id, domain->ept, domain->pkey);
}

static void domain_destroy(struct epk_context *ctx, struct epk_domain *domain)
{
	u32 index = EPK_ID_INDEX(domain->id);

	lockdep_assert_held(&ctx->lock);

	trace_epk_free(domain->id);
	epk_table_clear(ctx, index);
	epk_place_hide(ctx, domain);
	if (domain->pkey)
		epk_place_put(ctx, domain->ept, domain->pkey);
	epk_note_clear(ctx, index);
	WRITE_ONCE(ctx->nr_private, ctx->nr_private - domain->private);
	ctx->chunks[index / EPK_CHUNK_ENTRIES]->domains[index % EPK_CHUNK_ENTRIES] = NULL;
	__clear_bit(index, ctx->indices);
	ctx->nr_domains--;
	atomic_long_dec(&epk_counters.domains);
	epk_user_sub_domains(ctx->user, 1);
	/* Who still holds one of this index that is gone must not hold those that come. */
	if (domain->id >> EPK_ID_INDEX_BITS == EPK_GENERATION_MAX)
		epk_revoke(ctx);
	kfree(domain);
}

/**
 * epk_domains_hold_ept() - make sure that an EPT exists
 * @ctx: the context, locked
 * @ept: index
 * @fresh: its bit is set if the context did not hold it before
 *
 * Return: 0, -ENOSPC if its user may not have it, -ENOMEM.
 */
int epk_domains_hold_ept(struct epk_context *ctx, unsigned int ept, unsigned long *fresh)
{
	int ret;

	if (test_bit(ept, ctx->held))
		return 0;
	ret = epk_ept_get(ctx->user, ept);
	if (ret)
		return ret;
	__set_bit(ept, ctx->held);
	__set_bit(ept, fresh);
	return 0;
}

/**
 * epk_domains_drop_epts() - undo epk_domains_hold_ept() in a call that failed
 * @ctx: the context, locked
 * @fresh: what it set
 */
void epk_domains_drop_epts(struct epk_context *ctx, const unsigned long *fresh)
{
	bitmap_andnot(ctx->held, ctx->held, fresh, KVM_EPK_MAX_EPTS);
	epk_epts_put(ctx, fresh);
}

/*
 * Choose an EPT for up to @want domains and make sure that it exists; @hint
 * comes first while it has room.  EPK_EPT_NONE where no EPT has.
 */
static int ept_choose(struct epk_context *ctx, unsigned int want, u32 hint, unsigned long *fresh)
{
	int ept, ret;

	if (hint != EPK_EPT_NONE && epk_place_free(ctx, hint))
		ept = hint;
	else
		ept = epk_place_pick(ctx, want);
	if (ept < 0)
		return EPK_EPT_NONE;
	ret = epk_domains_hold_ept(ctx, ept, fresh);
	/* As many as its user may have: then what is left in those. */
	if (ret == -ENOSPC) {
		ept = epk_place_pick_held(ctx, want);
		return ept < 0 ? EPK_EPT_NONE : ept;
	}
	return ret ?: ept;
}

static int domains_create(struct epk_context *ctx, unsigned int num, u32 flags, int *ids,
			  unsigned int *done, unsigned long *fresh)
{
	u32 hint = flags >> 16 ? (flags >> 16) - 1 : EPK_EPT_NONE;
	bool nowhere = flags & EPK_ALLOC_EVERYWHERE;
	struct epk_domain *domain;
	unsigned int n;
	int ept;

	while (*done < num) {
		ept = nowhere ? EPK_EPT_NONE :
				ept_choose(ctx, min(num - *done, ctx->nr_pkeys), hint, fresh);
		if (ept < 0)
			return ept;
		if (ept == EPK_EPT_NONE && !nowhere && !(flags & EPK_ALLOC_SPILL))
			return -ENOSPC;
		n = num - *done;
		if (ept != EPK_EPT_NONE)
			n = min(n, epk_place_free(ctx, ept));
		for (; n; n--) {
			domain = domain_create(ctx);
			if (!domain)
				return -ENOMEM;
			if (ept != EPK_EPT_NONE) {
				domain->ept = ept;
				domain->pkey = epk_place_take(ctx, ept);
			}
			ids[(*done)++] = domain->id;
			cond_resched();
		}
	}
	return 0;
}

static int alloc_check(struct epk_context *ctx, unsigned int num, u32 flags)
{
	/* Entry 0 is none, and one more stays free for the search to end. */
	if (num > EPK_TABLE_ENTRIES - 2 - ctx->nr_domains)
		return -ENOSPC;
	if (!(flags & (EPK_ALLOC_SPILL | EPK_ALLOC_EVERYWHERE)) &&
	    num > epk_place_left(ctx))
		return -ENOSPC;
	return 0;
}

/**
 * epk_domains_create() - epk_domains_alloc() by who has locked the context
 * @ctx: the context, locked
 * @num: how many, at least 1
 * @flags: see epk_domains_alloc(); with EPK_ALLOC_EVERYWHERE they have no place yet
 * @ids: their IDs, @num of them
 *
 * Return: 0, or see struct epk_domains.
 */
int epk_domains_create(struct epk_context *ctx, unsigned int num, u32 flags, int *ids)
{
	DECLARE_BITMAP(fresh, KVM_EPK_MAX_EPTS);
	unsigned int done = 0, i;
	int ret;

	lockdep_assert_held(&ctx->lock);
	bitmap_zero(fresh, KVM_EPK_MAX_EPTS);
	ret = epk_user_add_domains(ctx->user, num);
	if (ret)
		return ret;
	ret = alloc_check(ctx, num, flags);
	if (!ret)
		ret = domains_create(ctx, num, flags, ids, &done, fresh);
	if (ret) {
		epk_user_sub_domains(ctx->user, num - done);
		epk_domains_destroy(ctx, done, ids);
		epk_domains_drop_epts(ctx, fresh);
	}
	if (ctx->revoke_due)
		epk_revoke(ctx);
	for (i = 0; !ret && i < num; i++)
		epk_domain_show(ctx, epk_domain_find(ctx, ids[i]));
	return ret;
}

/**
 * epk_domains_destroy() - undo epk_domains_create()
 * @ctx: the context, locked since then
 * @num: how many
 * @ids: their IDs
 */
void epk_domains_destroy(struct epk_context *ctx, unsigned int num, const int *ids)
{
	while (num--)
		domain_destroy(ctx, epk_domain_find(ctx, ids[num]));
}

/**
 * epk_domains_alloc() - make domains, in one EPT where they fit
 * @ctx: the context
 * @num: how many, at least 1
 * @flags: see EPK_ALLOC_SPILL, EPK_ALLOC_AT()
 * @ids: their IDs, @num of them
 *
 * All or none.
 *
 * Return: 0, or see struct epk_domains.
 */
int epk_domains_alloc(struct epk_context *ctx, unsigned int num, u32 flags, int *ids)
{
	u32 hint = flags >> 16 ? (flags >> 16) - 1 : EPK_EPT_NONE;
	int ret;

	if (flags & 0xffff & ~EPK_ALLOC_SPILL)
		return -EINVAL;
	if (hint != EPK_EPT_NONE && hint >= ctx->epts)
		return -EINVAL;
	ret = epk_user_wait(ctx->user);
	if (ret)
		return ret;
	mutex_lock(&ctx->lock);
	ret = epk_domains_create(ctx, num, flags, ids);
	mutex_unlock(&ctx->lock);
	return ret;
}

/* Nobody runs on a stack in one of these with any right, before something else lies there. */
static void privates_end(struct epk_context *ctx, unsigned int num, const int *ids)
{
	struct epk_domain *domain;
	bool ending = false;

	while (num--) {
		domain = epk_domain_find(ctx, ids[num]);
		if (!domain->private)
			continue;
		ending = true;
		domain->leaves = true;
		epk_table_unlist(ctx, domain);
		if (domain->pkey)
			epk_place_vacate(ctx, domain->ept, domain->pkey);
	}
	if (!ending)
		return;
	epk_dawdle();
	ctx->ending = true;
	epk_revoke(ctx);
	ctx->ending = false;
}

/**
 * epk_domains_free() - free domains
 * @ctx: the context of current->mm
 * @num: how many, at least 1
 * @ids: their IDs, each once
 *
 * All or none.  What is still mapped of them raises SIGBUS from now on and
 * keeps its pages until it is unmapped.  Under the mmap lock, held for
 * writing, no fault can map a page between the check and the end.
 *
 * Return: 0, -ENOENT if an ID is not that of a live domain, -EINVAL if one is
 * given twice, -EINTR.
 */
int epk_domains_free(struct epk_context *ctx, unsigned int num, const int *ids)
{
	struct epk_domain *domain;
	unsigned int i;
	int ret = 0;

	if (mmap_write_lock_killable(ctx->mm))
		return -EINTR;
	mutex_lock(&ctx->lock);

	for (i = 0; i < num; i++) {
		domain = epk_domain_find(ctx, ids[i]);
		if (!domain || domain->chosen) {
			ret = domain ? -EINVAL : -ENOENT;
			break;
		}
		domain->chosen = true;
	}
	if (ret) {
		while (i--)
			epk_domain_find(ctx, ids[i])->chosen = false;
		goto out;
	}

	if (ctx->nr_private)
		privates_end(ctx, num, ids);
	for (i = 0; i < num; i++) {
		domain = epk_domain_find(ctx, ids[i]);
		epk_domain_unmap(ctx, domain);
		domain_destroy(ctx, domain);
		cond_resched();
	}
out:
	mutex_unlock(&ctx->lock);
	mmap_write_unlock(ctx->mm);
	return ret;
}

/**
 * epk_domains_exit() - free all that epk_domains_init() and later calls got
 * @ctx: the context, nobody else's any more; nothing is mapped
 */
void epk_domains_exit(struct epk_context *ctx)
{
	unsigned int index;

	if (ctx->phase == EPK_READY) {
		mutex_lock(&ctx->lock);
		__clear_bit(0, ctx->indices);
		for_each_set_bit(index, ctx->indices, EPK_TABLE_ENTRIES) {
			domain_destroy(ctx, epk_domain_at(ctx, index));
			cond_resched();
		}
		mutex_unlock(&ctx->lock);
		epk_epts_put(ctx, ctx->held);
	}
	epk_table_exit(ctx);
	kvfree(ctx->place_ids);
}
