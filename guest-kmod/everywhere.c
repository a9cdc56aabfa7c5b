// SPDX-License-Identifier: GPL-2.0
/*
 * Domains that are everywhere: one key in all EPTs, so that each is reached beside whatever else is
 * held.
 *
 * A window shows its pages in one EPT only, and so theirs are mapped as they are, which every EPT maps: what
 * keeps others out is the key, which nobody else has in any EPT.  It stays for the domain's life, so
 * that no thread has to be asked.
 */
#include "module.h"

/* What has the key in some EPT goes nowhere, and to another key when it is wanted again. */
static int clear_pkey(struct epk_context *ctx, u8 pkey)
{
	unsigned int ept;
	int ret = 0;

	for (ept = 0; !ret && ept < ctx->epts; ept++) {
		struct epk_move move = { .id = ctx->place_ids[ept][pkey], .ept = EPK_EPT_NONE };

		if (!epk_place_is_free(ctx, ept, pkey))
			ret = epk_domains_move_locked(ctx, 1, &move);
	}
	return ret;
}

static int place(struct epk_context *ctx, struct epk_domain *domain)
{
	u8 pkey = epk_place_pick_key(ctx);
	int ret;

	if (!pkey)
		return -ENOSPC;
	ret = clear_pkey(ctx, pkey);
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
	unsigned int i;
	int ret = epk_domains_lock(ctx);

	if (ret)
		return ret;
	ret = epk_domains_create(ctx, num, EPK_ALLOC_EVERYWHERE, ids);
	for (i = 0; !ret && i < num; i++) {
		ret = place(ctx, epk_domain_find(ctx, ids[i]));
		if (ret)
			epk_domains_destroy(ctx, num, ids);
	}
	epk_domains_unlock(ctx);
	return ret;
}
