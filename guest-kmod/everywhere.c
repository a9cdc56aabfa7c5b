// SPDX-License-Identifier: GPL-2.0
/*
 * Domains that are everywhere: one key in all EPTs, so that each is reached beside whatever else is
 * held.
 *
 * A window shows its pages in one EPT only, and so theirs are mapped as they are, which every EPT maps: what
 * keeps others out is the key, which nobody else has in any EPT.  It stays for the domain's life, so
 * that no thread has to be asked.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "module.h"

/* What has the key in some EPT goes nowhere, all at once, and to another key when it is wanted again. */
static int clear_pkey(struct epk_context *ctx, u8 pkey, struct epk_move *moves)
{
	unsigned int ept, num = 0;

	for (ept = 0; ept < ctx->epts; ept++) {
		if (!epk_place_is_free(ctx, ept, pkey))
			moves[num++] = (struct epk_move) {
				.id = ctx->place_ids[ept][pkey], .ept = EPK_EPT_NONE,
			};
	}
	return num ? epk_domains_move_locked(ctx, num, moves) : 0;
}

static int place(struct epk_context *ctx, struct epk_domain *domain, struct epk_move *moves)
{
	u8 pkey = epk_place_pick_key(ctx);
	int ret;

	if (!pkey)
		return -ENOSPC;
	ret = clear_pkey(ctx, pkey, moves);
	if (ret)
		return ret;
	epk_place_take_everywhere(ctx, pkey);
	domain->ept = EPK_EPT_ALL;
	domain->pkey = pkey;
	if (ctx->revoke_due)
		epk_revoke(ctx);
	epk_domain_show(ctx, domain);
	return 0;
}

/**
 * epk_domains_alloc_everywhere() - make domains that are everywhere
 * @ctx: the context of current->mm
 * @num: how many, at least 1
 * @ids: their IDs, @num of them
 *
 * All or none.  Domains that have left their places come to others when they are wanted.
 *
 * Return: 0, or see struct epk_domains and EPK_ALLOC_EVERYWHERE.
 */
int epk_domains_alloc_everywhere(struct epk_context *ctx, unsigned int num, int *ids)
{
	struct epk_move *moves = kvcalloc(ctx->epts, sizeof(*moves), GFP_KERNEL_ACCOUNT);
	unsigned int i;
	int ret = moves ? epk_domains_lock(ctx) : -ENOMEM;

	if (ret)
		goto free;
	/* Before anything else leaves its place. */
	ret = num > epk_place_spare_keys(ctx) ? -ENOSPC : 0;
	if (!ret)
		ret = epk_domains_create(ctx, num, EPK_ALLOC_EVERYWHERE, ids);
	for (i = 0; !ret && i < num; i++) {
		ret = fatal_signal_pending(current) ? -EINTR :
						      place(ctx, epk_domain_find(ctx, ids[i]), moves);
		if (ret)
			epk_domains_destroy(ctx, num, ids);
	}
	epk_domains_unlock(ctx);
free:
	kvfree(moves);
	return ret;
}
