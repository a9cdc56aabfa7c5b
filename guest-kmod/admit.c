// SPDX-License-Identifier: GPL-2.0
/*
 * Places for domains that have none, when all are taken: one that nobody holds goes, or else
 * one that nobody has open.
 */
#include <linux/string.h>

#include "module.h"

/* Of domains that could make room, so that nobody is held up by how many there are. */
#define TRIES	20

#define RANKS	3

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

/* What is at the next place, if it may go from there for a domain that is to be in @ept; else NULL. */
static struct epk_domain *next(struct epk_context *ctx, int except, u32 ept)
{
	unsigned int at = ctx->hand++ % (ctx->epts * EPK_NR_PKEYS);
	int id = ctx->place_ids[at / EPK_NR_PKEYS][at % EPK_NR_PKEYS];
	struct epk_domain *domain = epk_domain_find(ctx, id);

	if (!domain || id == except || domain->ept == EPK_EPT_ALL ||
	    (ept != EPK_EPT_ANY && domain->ept != ept))
		return NULL;
	return domain;
}

/* @id goes where another is, and that where @id was. */
static int exchange(struct epk_context *ctx, int id, u32 ept, const struct epk_domain *other)
{
	const struct epk_domain *domain = epk_domain_find(ctx, id);
	struct epk_move moves[] = {
		{ .id = other->id, .ept = domain ? domain->ept : EPK_EPT_NONE },
		{ .id = id, .ept = ept },
	};

	return epk_domains_move_locked(ctx, ARRAY_SIZE(moves), moves);
}

static int make_room(struct epk_context *ctx, int id, u32 ept)
{
	unsigned int places = ctx->epts * EPK_NR_PKEYS, wanted, n, tries = 0;
	int ret = -ENOSPC;

	ask(ctx);
	for (wanted = 0; wanted < RANKS; wanted++) {
		for (n = 0; n < places; n++) {
			const struct epk_domain *other = next(ctx, id, ept);

			if (!other || rank(ctx, other) != wanted)
				continue;
			ret = exchange(ctx, id, ept, other);
			/* Perhaps the window there has no slot for the memory of this one. */
			if (ret != -ENOSPC || ++tries == TRIES)
				return ret;
		}
	}
	return ret;
}

/**
 * epk_admit() - give a domain a place
 * @ctx: the context of current->mm
 * @id: the domain
 * @ept: where, or EPK_EPT_ANY
 *
 * If none is free there, another domain makes room: it goes where @id was.  Who goes is chosen with
 * everything locked, so that no other thread that wants a place has it first.
 *
 * Return: 0, or see struct epk_moves.
 */
int epk_admit(struct epk_context *ctx, int id, u32 ept)
{
	struct epk_move move = { .id = id, .ept = ept };
	int ret = epk_domains_lock(ctx);

	if (ret)
		return ret;
	ret = epk_domains_move_locked(ctx, 1, &move);
	if (ret == -ENOSPC)
		ret = make_room(ctx, id, ept);
	epk_domains_unlock(ctx);
	return ret;
}
