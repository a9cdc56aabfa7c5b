// SPDX-License-Identifier: GPL-2.0
/*
 * Places for domains that have none, when all are taken: one that nobody holds goes, or else
 * one that nobody has open.
 */
#include <linux/string.h>

#include "module.h"

#define TRIES	20

/* Have all threads say what they hold. */
static void ask(struct epk_context *ctx)
{
	memset(ctx->asked_open, 0, sizeof(ctx->asked_open));
	ctx->asking = true;
	epk_revoke(ctx);
	ctx->asking = false;
}

/* 0: nobody holds it; 1: somebody does; 2: it is open. */
static unsigned int rank(const struct epk_context *ctx, const struct epk_domain *domain)
{
	if (ctx->asked_open[domain->ept] & BIT(domain->pkey))
		return 2;
	return domain->asked == ctx->batch;
}

/* The domain that is to go, in @ept or anywhere, but not @except; 0 if there is none. */
static int victim(struct epk_context *ctx, int except, u32 ept)
{
	unsigned int places = ctx->epts * EPK_NR_PKEYS, n, best_rank = 3;
	struct epk_domain *domain;
	int best = 0;

	mutex_lock(&ctx->lock);
	ask(ctx);
	for (n = 0; n < places && best_rank; n++) {
		unsigned int at = ctx->hand++ % places;
		int id = ctx->place_ids[at / EPK_NR_PKEYS][at % EPK_NR_PKEYS];

		domain = epk_domain_find(ctx, id);
		if (!domain || id == except || (ept != EPK_EPT_ANY && domain->ept != ept))
			continue;
		if (rank(ctx, domain) < best_rank) {
			best_rank = rank(ctx, domain);
			best = id;
		}
	}
	mutex_unlock(&ctx->lock);
	return best;
}

/**
 * epk_admit() - give a domain a place
 * @ctx: the context of current->mm
 * @id: the domain
 * @ept: where, or EPK_EPT_ANY
 *
 * If none is free there, another domain makes room: it goes where @id was.
 *
 * Return: 0, or see struct epk_moves.
 */
int epk_admit(struct epk_context *ctx, int id, u32 ept)
{
	struct epk_move moves[2];
	int ret, tries, other;

	for (tries = 0; tries < TRIES; tries++) {
		struct epk_entry entry = epk_table_read(ctx, EPK_ID_INDEX(id));

		moves[0] = (struct epk_move) { .id = id, .ept = ept };
		ret = epk_domains_move(ctx, 1, moves);
		if (ret != -ENOSPC)
			return ret;
		other = victim(ctx, id, ept);
		if (!other)
			return -ENOSPC;
		moves[0] = (struct epk_move) {
			.id = other, .ept = entry.pkey ? entry.ept : EPK_EPT_NONE,
		};
		moves[1] = (struct epk_move) { .id = id, .ept = ept };
		ret = epk_domains_move(ctx, 2, moves);
		/* It was freed, or the places are others by now. */
		if (ret != -ENOENT && ret != -ENOSPC)
			return ret;
	}
	return ret;
}
