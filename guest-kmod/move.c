// SPDX-License-Identifier: GPL-2.0
/*
 * Moving domains: to another (EPT, pkey), out of any, and back into one.
 *
 * All of it happens with the mmap lock held for writing.  First the new places are
 * chosen; until then everything can be undone.  From then on the table shows the domains as
 * evicted, so that nobody opens an old place.  As a rule nobody has a right to a
 * new place, once keys that threads may still have open there are closed.  So the
 * PTEs are overwritten, TLBs flushed, rights to the old places taken away, and
 * then the table shows the new places.
 *
 * If a domain gets the place that another leaves in the same call, its new PTEs
 * must not meet rights to the other, nor rights to it the other's old PTEs.  Then
 * their pages leave the page tables first; accesses fault, and wait for the lock.
 *
 * What a thread holds goes along, see revoke.c: rights to a domain that leaves become rights by
 * its ID, and keys again where it arrives.
 */
#include <linux/mmu_notifier.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "module.h"
#include "trace.h"

/**
 * struct mover - one domain on its way
 * @domain: the domain
 * @old_ept: where it comes from, EPK_EPT_NONE if from nowhere
 * @old_pkey: with which key
 */
struct mover {
	struct epk_domain *domain;
	u16 old_ept;
	u8 old_pkey;
};

static int move_check(struct epk_context *ctx, const struct epk_move *move)
{
	bool special = move->ept == EPK_EPT_NONE || move->ept == EPK_EPT_ANY;

	if (move->rsvd || (!special && move->ept >= ctx->epts))
		return -EINVAL;
	if (move->pkey &&
	    (special || move->pkey >= EPK_NR_PKEYS || !(ctx->pkeys & BIT(move->pkey))))
		return -EINVAL;
	return 0;
}

/* What is everywhere cannot go anywhere. */
static bool move_is_wrong(const struct epk_move *move, const struct epk_domain *domain)
{
	return domain->ept == EPK_EPT_ALL &&
	       (move->ept == EPK_EPT_NONE || (move->pkey && move->pkey != domain->pkey));
}

/* Does it go anywhere at all? */
static bool move_is_needed(const struct epk_move *move, const struct epk_domain *domain)
{
	if (domain->ept == EPK_EPT_ALL)
		return false;
	if (move->ept == EPK_EPT_ANY)
		return !domain->pkey;
	return move->ept != domain->ept || (move->pkey && move->pkey != domain->pkey);
}

/* Did one of them leave this place? */
static bool is_left(const struct mover *movers, unsigned int num, unsigned int ept, u8 pkey)
{
	unsigned int n;

	for (n = 0; n < num; n++) {
		if (movers[n].domain && movers[n].old_ept == ept && movers[n].old_pkey == pkey)
			return true;
	}
	return false;
}

/* Check the list; the domains that do go somewhere become the movers. */
static int movers_find(struct epk_context *ctx, unsigned int num, const struct epk_move *moves,
		       struct mover *movers)
{
	unsigned int n, i;
	int ret = 0;

	for (n = 0; n < num; n++) {
		struct epk_domain *domain = epk_domain_find(ctx, moves[n].id);

		ret = domain ? move_check(ctx, &moves[n]) : -ENOENT;
		if (!ret && (domain->chosen || move_is_wrong(&moves[n], domain)))
			ret = -EINVAL;
		if (ret)
			break;
		domain->chosen = true;
		movers[n].old_ept = domain->ept;
		movers[n].old_pkey = domain->pkey;
		if (move_is_needed(&moves[n], domain))
			movers[n].domain = domain;
	}
	for (i = 0; i < n; i++)
		epk_domain_find(ctx, moves[i].id)->chosen = false;
	return ret;
}

/* Make an EPT and its window ready for a domain. */
static int ept_prepare(struct epk_context *ctx, struct epk_domain *domain, unsigned int ept,
		       unsigned long *fresh)
{
	int ret = epk_domains_hold_ept(ctx, ept, fresh);

	if (ret)
		return ret;
	return epk_domain_fits(domain, ept) ? 0 : -ENOSPC;
}

/*
 * The EPT that domains go to first, unless its window has no slot for the RAM of
 * this one: then the first that has.
 */
static int ept_pick(struct epk_context *ctx, struct epk_domain *domain, unsigned long *fresh)
{
	int ept = epk_place_pick(ctx, 1), ret;
	unsigned int i;

	if (ept < 0)
		return ept;
	ret = ept_prepare(ctx, domain, ept, fresh);
	for (i = 0; ret == -ENOSPC && i < ctx->epts; i++) {
		ept = i;
		if (epk_place_free(ctx, ept))
			ret = ept_prepare(ctx, domain, ept, fresh);
	}
	return ret ?: ept;
}

static int domain_place(struct epk_context *ctx, struct epk_domain *domain,
			const struct epk_move *move, unsigned long *fresh)
{
	int ept = move->ept, ret;

	domain->ept = EPK_EPT_NONE;
	domain->pkey = 0;
	if (ept == EPK_EPT_NONE)
		return 0;

	if (ept == EPK_EPT_ANY)
		ept = ept_pick(ctx, domain, fresh);
	if (ept < 0)
		return ept;
	if (!epk_place_free(ctx, ept))
		return -ENOSPC;
	if (move->pkey && !epk_place_is_free(ctx, ept, move->pkey))
		return -EBUSY;
	ret = ept_prepare(ctx, domain, ept, fresh);
	if (ret)
		return ret;

	domain->ept = ept;
	domain->pkey = move->pkey;
	if (move->pkey)
		epk_place_take_key(ctx, ept, move->pkey);
	else
		domain->pkey = epk_place_take(ctx, ept);
	return 0;
}

/* On failure everything is as it was. */
static int movers_place(struct epk_context *ctx, unsigned int num, const struct epk_move *moves,
			struct mover *movers, unsigned long *fresh)
{
	unsigned int n, i;
	int ret = 0;

	for (n = 0; n < num; n++) {
		if (movers[n].domain && movers[n].old_pkey)
			epk_place_put(ctx, movers[n].old_ept, movers[n].old_pkey);
	}
	for (n = 0; n < num && !ret; n++) {
		if (movers[n].domain)
			ret = domain_place(ctx, movers[n].domain, &moves[n], fresh);
	}
	if (!ret)
		return 0;

	for (i = 0; i < n; i++) {
		if (movers[i].domain && movers[i].domain->pkey)
			epk_place_put(ctx, movers[i].domain->ept, movers[i].domain->pkey);
	}
	for (i = 0; i < num; i++) {
		if (!movers[i].domain)
			continue;
		movers[i].domain->ept = movers[i].old_ept;
		movers[i].domain->pkey = movers[i].old_pkey;
		if (movers[i].old_pkey)
			epk_place_take_back(ctx, movers[i].old_ept, movers[i].old_pkey);
	}
	ctx->revoke_due = false;
	return ret;
}

/* Does one get the place that another leaves? */
static bool movers_meet(struct epk_context *ctx, unsigned int num, const struct mover *movers)
{
	unsigned int n;

	/* Only a vacated place can be one of those. */
	for (n = 0; ctx->revoke_due && n < num; n++) {
		const struct epk_domain *domain = movers[n].domain;

		if (domain && domain->pkey && is_left(movers, num, domain->ept, domain->pkey))
			return true;
	}
	return false;
}

/* True if a flush is due. */
static bool mover_go(struct epk_context *ctx, const struct mover *mover)
{
	if (mover->old_pkey && mover->domain->pkey) {
		epk_domain_rewrite(ctx, mover->domain);
		return true;
	}
	if (!mover->domain->pkey)
		epk_domain_zap(ctx, mover->domain);
	epk_domain_map(ctx, mover->domain);
	return false;
}

static void movers_unlist(struct epk_context *ctx, unsigned int num, const struct mover *movers,
			  bool zap)
{
	unsigned int n;

	for (n = 0; n < num; n++) {
		if (!movers[n].domain)
			continue;
		movers[n].domain->moves = true;
		epk_table_unlist(ctx, movers[n].domain);
		epk_dawdle();
		if (zap)
			epk_domain_zap(ctx, movers[n].domain);
	}
}

static void movers_map(struct epk_context *ctx, unsigned int num, const struct mover *movers,
		       bool apart)
{
	bool flush = false;
	unsigned int n;

	for (n = 0; n < num; n++) {
		if (!movers[n].domain)
			continue;
		epk_place_show(ctx, movers[n].domain);
		if (apart)
			epk_domain_map(ctx, movers[n].domain);
		else
			flush |= mover_go(ctx, &movers[n]);
	}
	if (flush)
		epk_flush(ctx->mm);
}

/* Nothing fails any more. */
static void movers_go(struct epk_context *ctx, unsigned int num, const struct mover *movers)
{
	/* Other page tables that follow this one's only hear of what is zapped. */
	bool apart = movers_meet(ctx, num, movers) || mm_has_notifiers(ctx->mm);
	bool first = apart || ctx->revoke_due;
	unsigned int n;

	movers_unlist(ctx, num, movers, apart);
	/* Somebody may have a key of a new place open. */
	if (first)
		epk_revoke(ctx);
	epk_dawdle();
	movers_map(ctx, num, movers, apart);
	/* Who holds one has to have it before a gate can open it a second time. */
	if (!first || ctx->arrive_due)
		epk_revoke(ctx);
	for (n = 0; n < num; n++) {
		if (movers[n].domain)
			movers[n].domain->moves = false;
	}
}

static bool movers_exist(unsigned int num, const struct mover *movers)
{
	while (num--) {
		if (movers[num].domain)
			return true;
	}
	return false;
}

/* Where each is now. */
static void movers_show(struct epk_context *ctx, unsigned int num, struct epk_move *moves,
			const struct mover *movers)
{
	unsigned int n;

	for (n = 0; n < num; n++) {
		struct epk_domain *domain = epk_domain_find(ctx, moves[n].id);

		moves[n].ept = domain->ept;
		moves[n].pkey = domain->pkey;
		if (!movers[n].domain)
			continue;
		trace_epk_place(domain->id, domain->ept, domain->pkey);
		epk_table_write(ctx, domain);
		atomic_long_inc(&ctx->moves);
	}
}

/**
 * epk_domains_lock() - have nobody else move domains, or map any
 * @ctx: the context of current->mm
 *
 * Return: 0, -EINTR.
 */
int epk_domains_lock(struct epk_context *ctx)
{
	int ret = epk_user_wait(ctx->user) ?: mmap_write_lock_killable(ctx->mm);

	if (!ret)
		mutex_lock(&ctx->lock);
	return ret;
}

/**
 * epk_domains_unlock() - undo epk_domains_lock()
 * @ctx: the context
 */
void epk_domains_unlock(struct epk_context *ctx)
{
	mutex_unlock(&ctx->lock);
	mmap_write_unlock(ctx->mm);
}

/**
 * epk_domains_move_locked() - let domains change places
 * @ctx: the context of current->mm, with epk_domains_lock()
 * @num: how many, at least 1
 * @moves: where each goes; on success, where each is
 *
 * All or none.
 *
 * Return: see struct epk_moves.
 */
int epk_domains_move_locked(struct epk_context *ctx, unsigned int num, struct epk_move *moves)
{
	DECLARE_BITMAP(fresh, KVM_EPK_MAX_EPTS);
	struct mover few[EPK_MOVES_FEW] = { }, *movers = few;
	int ret;

	if (num > EPK_MOVES_FEW)
		movers = kvcalloc(num, sizeof(*movers), GFP_KERNEL_ACCOUNT);
	if (!movers)
		return -ENOMEM;
	bitmap_zero(fresh, KVM_EPK_MAX_EPTS);

	ret = movers_find(ctx, num, moves, movers);
	if (!ret) {
		ret = movers_place(ctx, num, moves, movers, fresh);
		if (ret)
			epk_domains_drop_epts(ctx, fresh);
	}
	if (!ret) {
		if (movers_exist(num, movers))
			movers_go(ctx, num, movers);
		movers_show(ctx, num, moves, movers);
	}
	if (movers != few)
		kvfree(movers);
	return ret;
}

/**
 * epk_domains_move() - the same by who has not locked anything
 * @ctx: the context of current->mm
 * @num: how many, at least 1
 * @moves: where each goes; on success, where each is
 *
 * Return: see struct epk_moves.
 */
int epk_domains_move(struct epk_context *ctx, unsigned int num, struct epk_move *moves)
{
	int ret = epk_domains_lock(ctx);

	if (ret)
		return ret;
	ret = epk_domains_move_locked(ctx, num, moves);
	epk_domains_unlock(ctx);
	return ret;
}
