// SPDX-License-Identifier: GPL-2.0
/*
 * Placement: which (EPT, pkey) the next domain of a context gets.
 *
 * EPT indices are the VM's, but the keys in each are the process's own: only
 * the owner's page tables hold aliases.  So each context fills EPT 0 to the
 * last by itself.  EPTs are kept in one bitmap for each number of free keys,
 * which makes best fit a search of at most 15 short bitmaps.
 *
 * A domain that is everywhere has its key in every EPT, whether that exists or not.
 *
 * A place that a domain has left is vacated: threads may still have its key
 * open.  It is given out last, and then epk_revoke() is due before the new
 * domain has any page there.
 */
#include <linux/bitops.h>

#include "module.h"

/**
 * epk_place_init() - all keys of all EPTs are free
 * @ctx: the context, its keys set
 */
void epk_place_init(struct epk_context *ctx)
{
	bitmap_set(ctx->by_free[ctx->nr_pkeys], 0, ctx->epts);
}

/**
 * epk_place_exit() - undo epk_place_init(); no domain has been placed since
 * @ctx: the context, locked
 */
void epk_place_exit(struct epk_context *ctx)
{
	bitmap_zero(ctx->by_free[ctx->nr_pkeys], epk_host.nr_epts);
}

/**
 * epk_place_free() - how many keys are free in an EPT
 * @ctx: the context, locked
 * @ept: index
 */
unsigned int epk_place_free(struct epk_context *ctx, unsigned int ept)
{
	lockdep_assert_held(&ctx->lock);
	return ctx->nr_pkeys - hweight16(ctx->used[ept]);
}

/**
 * epk_place_is_free() - can a domain have this very key
 * @ctx: the context, locked
 * @ept: index
 * @pkey: one of the context's keys
 */
bool epk_place_is_free(struct epk_context *ctx, unsigned int ept, u8 pkey)
{
	lockdep_assert_held(&ctx->lock);
	return !(ctx->used[ept] & BIT(pkey));
}

/* Of the EPTs in @from, or of all. */
static int place_pick(struct epk_context *ctx, unsigned int want, const unsigned long *from)
{
	unsigned int free, tries, ept;

	lockdep_assert_held(&ctx->lock);

	for (tries = 0; tries < ctx->nr_pkeys; tries++) {
		/* From what is wanted upwards, then downwards. */
		free = want + tries <= ctx->nr_pkeys ? want + tries : ctx->nr_pkeys - tries;
		if (from)
			ept = find_first_and_bit(ctx->by_free[free], from, ctx->epts);
		else
			ept = find_first_bit(ctx->by_free[free], ctx->epts);
		if (ept < ctx->epts)
			return ept;
	}
	return -ENOSPC;
}

/**
 * epk_place_pick() - choose the EPT for domains that want to be together
 * @ctx: the context, locked
 * @want: how many, at most ctx->nr_pkeys
 *
 * Best fit, so that groups that come later find room; if no EPT has room for
 * all, the one that takes most.
 *
 * Return: the EPT's index, -ENOSPC if every key of every EPT is taken.
 */
int epk_place_pick(struct epk_context *ctx, unsigned int want)
{
	return place_pick(ctx, want, NULL);
}

/**
 * epk_place_pick_held() - the same of those that the context holds
 * @ctx: the context, locked
 * @want: how many, at most ctx->nr_pkeys
 */
int epk_place_pick_held(struct epk_context *ctx, unsigned int want)
{
	return place_pick(ctx, want, ctx->held);
}

static void pkey_take(struct epk_context *ctx, unsigned int ept, u8 pkey)
{
	unsigned int free = epk_place_free(ctx, ept);

	ctx->used[ept] |= BIT(pkey);
	__clear_bit(ept, ctx->by_free[free]);
	__set_bit(ept, ctx->by_free[free - 1]);
	if (ctx->vacated[ept] & BIT(pkey))
		ctx->revoke_due = true;
}

static void pkey_put(struct epk_context *ctx, unsigned int ept, u8 pkey)
{
	unsigned int free = epk_place_free(ctx, ept);

	ctx->used[ept] &= ~BIT(pkey);
	__clear_bit(ept, ctx->by_free[free]);
	__set_bit(ept, ctx->by_free[free + 1]);
}

/**
 * epk_place_take_key() - take one free key of an EPT
 * @ctx: the context, locked
 * @ept: index
 * @pkey: a key for which epk_place_is_free()
 */
void epk_place_take_key(struct epk_context *ctx, unsigned int ept, u8 pkey)
{
	if (!(ctx->used[ept] & ~ctx->everywhere))
		ctx->nr_epts++;
	ctx->nr_placed++;
	pkey_take(ctx, ept, pkey);
}

/**
 * epk_place_take() - take a free key of an EPT
 * @ctx: the context, locked
 * @ept: index of an EPT with a free key
 *
 * Return: the key.
 */
u8 epk_place_take(struct epk_context *ctx, unsigned int ept)
{
	u16 free = ctx->pkeys & ~ctx->used[ept];
	u16 clean = free & ~ctx->vacated[ept];
	u8 pkey = __ffs(clean ?: free);

	epk_place_take_key(ctx, ept, pkey);
	return pkey;
}

/* In how many EPTs is a domain that has this key. */
static unsigned int pkey_users(const struct epk_context *ctx, u8 pkey)
{
	unsigned int ept, users = 0;

	for (ept = 0; ept < ctx->epts; ept++)
		users += !!(ctx->used[ept] & BIT(pkey));
	return users;
}

/**
 * epk_place_spare_keys() - how many more domains can be everywhere
 * @ctx: the context, locked
 */
unsigned int epk_place_spare_keys(const struct epk_context *ctx)
{
	unsigned int keys = hweight16(ctx->pkeys & ~ctx->everywhere);

	lockdep_assert_held(&ctx->lock);
	return keys - min(keys, EPK_PKEYS_ELSEWHERE);
}

/**
 * epk_place_left() - how many places are free, if there is each EPT that the context may have
 * @ctx: the context, locked
 */
unsigned int epk_place_left(const struct epk_context *ctx)
{
	unsigned int everywhere = hweight16(ctx->everywhere);

	lockdep_assert_held(&ctx->lock);
	return ctx->epts * (ctx->nr_pkeys - everywhere) - (ctx->nr_placed - everywhere);
}

/**
 * epk_place_pick_key() - choose the key for a domain that is to be everywhere
 * @ctx: the context, locked
 *
 * Return: the one that fewest domains have to leave; 0 if too few would be left for others.
 */
u8 epk_place_pick_key(struct epk_context *ctx)
{
	unsigned int fewest = ~0u, users;
	u16 keys = ctx->pkeys & ~ctx->everywhere;
	u8 best = 0;

	lockdep_assert_held(&ctx->lock);
	if (!epk_place_spare_keys(ctx))
		return 0;
	for (; keys; keys &= keys - 1) {
		users = pkey_users(ctx, __ffs(keys));
		if (users < fewest) {
			fewest = users;
			best = __ffs(keys);
		}
	}
	return best;
}

/**
 * epk_place_take_everywhere() - take a key of all EPTs
 * @ctx: the context, locked
 * @pkey: a key for which epk_place_is_free() in each
 */
void epk_place_take_everywhere(struct epk_context *ctx, u8 pkey)
{
	unsigned int ept;

	lockdep_assert_held(&ctx->lock);
	ctx->nr_placed++;
	ctx->everywhere |= BIT(pkey);
	for (ept = 0; ept < ctx->epts; ept++)
		pkey_take(ctx, ept, pkey);
}

/**
 * epk_place_vacate() - threads may have a free key of an EPT open
 * @ctx: the context, locked
 * @ept: index, or EPK_EPT_ALL
 * @pkey: the key
 */
void epk_place_vacate(struct epk_context *ctx, unsigned int ept, u8 pkey)
{
	unsigned int end = ept + 1;

	lockdep_assert_held(&ctx->lock);
	if (ept == EPK_EPT_ALL) {
		ept = 0;
		end = epk_host.nr_epts;
	}
	for (; ept < end; ept++) {
		ctx->vacated[ept] |= BIT(pkey);
		__set_bit(ept, ctx->vacated_epts);
	}
}

static void put_everywhere(struct epk_context *ctx, u8 pkey)
{
	unsigned int ept;

	ctx->everywhere &= ~BIT(pkey);
	for (ept = 0; ept < ctx->epts; ept++)
		pkey_put(ctx, ept, pkey);
}

/**
 * epk_place_put() - give a key back
 * @ctx: the context, locked
 * @ept: index, or EPK_EPT_ALL
 * @pkey: a key that epk_place_take() gave, or epk_place_take_everywhere() took
 */
void epk_place_put(struct epk_context *ctx, unsigned int ept, u8 pkey)
{
	ctx->nr_placed--;
	epk_place_vacate(ctx, ept, pkey);
	if (ept == EPK_EPT_ALL) {
		put_everywhere(ctx, pkey);
		return;
	}
	pkey_put(ctx, ept, pkey);
	if (!(ctx->used[ept] & ~ctx->everywhere))
		ctx->nr_epts--;
}

/**
 * epk_place_take_back() - undo epk_place_put(), for the same domain
 * @ctx: the context, locked since then
 * @ept: index
 * @pkey: the key
 */
void epk_place_take_back(struct epk_context *ctx, unsigned int ept, u8 pkey)
{
	ctx->vacated[ept] &= ~BIT(pkey);
	epk_place_take_key(ctx, ept, pkey);
}

/*
 * What an open key there is a right to.  What is everywhere is in EPTs, too, that the context may not have: others
 * make those, and nothing keeps a thread from going there.
 */
static void right_write(struct epk_context *ctx, const struct epk_domain *domain, int id)
{
	unsigned int ept;

	lockdep_assert_held(&ctx->lock);
	if (domain->ept != EPK_EPT_ALL)
		WRITE_ONCE(ctx->place_ids[domain->ept][domain->pkey], id);
	for (ept = 0; domain->ept == EPK_EPT_ALL && ept < epk_host.nr_epts; ept++)
		WRITE_ONCE(ctx->place_ids[ept][domain->pkey], id);
}

/**
 * epk_place_show() - have an open key at its place be a right to a domain
 * @ctx: the context, locked
 * @domain: the domain; nobody has a key of its place open but who has a right to it
 */
void epk_place_show(struct epk_context *ctx, const struct epk_domain *domain)
{
	if (domain->pkey)
		right_write(ctx, domain, domain->id);
}

/**
 * epk_place_hide() - have an open key at its place be a right to nothing
 * @ctx: the context, locked
 * @domain: the domain
 */
void epk_place_hide(struct epk_context *ctx, const struct epk_domain *domain)
{
	if (domain->pkey)
		right_write(ctx, domain, 0);
}
