// SPDX-License-Identifier: GPL-2.0
/*
 * Domains: IDs, the read-only table, allocation and freeing.
 */
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "epk.h"

#define GENERATION_MAX	((1u << (31 - EPK_ID_INDEX_BITS)) - 1)

static_assert(EPK_TABLE_ENTRIES <= 1u << EPK_ID_INDEX_BITS);
static_assert(KVM_EPK_MAX_EPTS * (EPK_NR_PKEYS - 1) < EPK_TABLE_ENTRIES);
static_assert(sizeof(struct epk_entry) == sizeof(u64));

/* One store, so that a reader sees the old entry or the new one. */
static void table_write(struct epk_context *ctx, u32 index, struct epk_entry entry)
{
	union {
		struct epk_entry entry;
		u64 word;
	} u = { .entry = entry };

	WRITE_ONCE(*(u64 *)&ctx->table[index], u.word);
}

/**
 * epk_domains_init() - get a context ready to hold domains
 * @ctx: the context, locked or not yet seen by others
 * @pkeys: the keys it may use
 *
 * Return: 0, -ENOMEM.
 */
int epk_domains_init(struct epk_context *ctx, u32 pkeys)
{
	unsigned int pkey;

	ctx->table = vmalloc_user(EPK_TABLE_BYTES);
	ctx->generations = kvcalloc(EPK_TABLE_ENTRIES, sizeof(*ctx->generations),
				    GFP_KERNEL_ACCOUNT);
	ctx->domains = kvcalloc(EPK_TABLE_ENTRIES, sizeof(*ctx->domains), GFP_KERNEL_ACCOUNT);
	if (!ctx->table || !ctx->generations || !ctx->domains) {
		epk_domains_exit(ctx);
		return -ENOMEM;
	}

	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		if (pkeys & BIT(pkey))
			ctx->pkru_deny |= 1u << (pkey * 2);
	}
	ctx->nr_pkeys = hweight32(pkeys);
	__set_bit(0, ctx->indices);
	ctx->next_index = 1;
	epk_place_init(ctx);
	/* Pairs with the acquire in table_mmap(), which has no use for the lock. */
	smp_store_release(&ctx->pkeys, pkeys);
	return 0;
}

/**
 * epk_domain_at() - find a live domain
 * @ctx: the context, locked
 * @index: EPK_ID_INDEX() of its ID
 *
 * Return: the domain or NULL.
 */
struct epk_domain *epk_domain_at(struct epk_context *ctx, u32 index)
{
	lockdep_assert_held(&ctx->lock);
	return ctx->domains && index < EPK_TABLE_ENTRIES ? ctx->domains[index] : NULL;
}

static struct epk_domain *domain_find(struct epk_context *ctx, int id)
{
	struct epk_domain *domain = epk_domain_at(ctx, EPK_ID_INDEX(id));

	return domain && domain->id == id ? domain : NULL;
}

/*
 * Give the index out that was free for longest, or nearly so: a stale ID then
 * meets an index that is free, not just another generation.
 */
static u32 index_take(struct epk_context *ctx)
{
	u32 index = find_next_zero_bit(ctx->indices, EPK_TABLE_ENTRIES, ctx->next_index);

	if (index >= EPK_TABLE_ENTRIES)
		index = find_first_zero_bit(ctx->indices, EPK_TABLE_ENTRIES);
	__set_bit(index, ctx->indices);
	ctx->next_index = index + 1;
	return index;
}

static struct epk_domain *domain_create(struct epk_context *ctx, unsigned int ept)
{
	struct epk_domain *domain;
	u32 index;

	lockdep_assert_held(&ctx->lock);

	domain = kzalloc(sizeof(*domain), GFP_KERNEL_ACCOUNT);
	if (!domain)
		return NULL;

	index = index_take(ctx);
	if (++ctx->generations[index] > GENERATION_MAX)
		ctx->generations[index] = 1;

	INIT_LIST_HEAD(&domain->regions);
	domain->id = (int)index | ctx->generations[index] << EPK_ID_INDEX_BITS;
	domain->ept = ept;
	domain->pkey = epk_place_take(ctx, ept);
	ctx->domains[index] = domain;
	ctx->nr_domains++;
	atomic_long_inc(&epk_counters.domains);

	table_write(ctx, index, (struct epk_entry) {
		.id = domain->id, .ept = domain->ept, .pkey = domain->pkey,
	});
	return domain;
}

static void domain_destroy(struct epk_context *ctx, struct epk_domain *domain)
{
	u32 index = EPK_ID_INDEX(domain->id);

	lockdep_assert_held(&ctx->lock);

	table_write(ctx, index, (struct epk_entry) { .id = 0 });
	epk_place_put(ctx, domain->ept, domain->pkey);
	ctx->domains[index] = NULL;
	__clear_bit(index, ctx->indices);
	ctx->nr_domains--;
	atomic_long_dec(&epk_counters.domains);
	kfree(domain);
}

/* Choose an EPT for up to @want domains and make sure that it exists. */
static int ept_hold(struct epk_context *ctx, unsigned int want, unsigned long *fresh)
{
	int ept = epk_place_pick(ctx, want);
	int ret;

	if (ept < 0 || test_bit(ept, ctx->held))
		return ept;

	ret = epk_ept_get(ept);
	if (ret)
		return ret;
	__set_bit(ept, ctx->held);
	__set_bit(ept, fresh);
	return ept;
}

/**
 * epk_domains_alloc() - make domains, in one EPT where they fit
 * @ctx: the context
 * @num: how many, at least 1
 * @ids: their IDs, @num of them
 *
 * All or none.
 *
 * Return: 0, -ENXIO before EPK_IOC_INIT, -ENOSPC, -ENOMEM.
 */
int epk_domains_alloc(struct epk_context *ctx, unsigned int num, int *ids)
{
	DECLARE_BITMAP(fresh, KVM_EPK_MAX_EPTS);
	struct epk_domain *domain;
	unsigned int done = 0, n;
	int ept, ret = 0;

	bitmap_zero(fresh, KVM_EPK_MAX_EPTS);

	mutex_lock(&ctx->lock);
	if (!ctx->pkeys)
		ret = -ENXIO;
	else if (num > epk_host.nr_epts * ctx->nr_pkeys - ctx->nr_domains)
		ret = -ENOSPC;

	while (!ret && done < num) {
		ept = ept_hold(ctx, min(num - done, ctx->nr_pkeys), fresh);
		if (ept < 0) {
			ret = ept;
			break;
		}
		for (n = min(num - done, epk_place_free(ctx, ept)); n; n--) {
			domain = domain_create(ctx, ept);
			if (!domain) {
				ret = -ENOMEM;
				break;
			}
			ids[done++] = domain->id;
		}
		cond_resched();
	}

	if (ret) {
		while (done--)
			domain_destroy(ctx, domain_find(ctx, ids[done]));
		bitmap_andnot(ctx->held, ctx->held, fresh, KVM_EPK_MAX_EPTS);
		epk_epts_put(fresh);
	}
	mutex_unlock(&ctx->lock);
	return ret;
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
		domain = domain_find(ctx, ids[i]);
		if (!domain || domain->dying) {
			ret = domain ? -EINVAL : -ENOENT;
			break;
		}
		domain->dying = true;
	}
	if (ret) {
		while (i--)
			domain_find(ctx, ids[i])->dying = false;
		goto out;
	}

	for (i = 0; i < num; i++) {
		domain = domain_find(ctx, ids[i]);
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

	if (ctx->pkeys) {
		mutex_lock(&ctx->lock);
		__clear_bit(0, ctx->indices);
		for_each_set_bit(index, ctx->indices, EPK_TABLE_ENTRIES) {
			domain_destroy(ctx, ctx->domains[index]);
			cond_resched();
		}
		mutex_unlock(&ctx->lock);
		epk_epts_put(ctx->held);
	}
	kvfree(ctx->domains);
	kvfree(ctx->generations);
	vfree(ctx->table);
	ctx->domains = NULL;
	ctx->generations = NULL;
	ctx->table = NULL;
}
