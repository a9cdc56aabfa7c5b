// SPDX-License-Identifier: GPL-2.0
/*
 * Contexts: one for each open of /dev/epk, one initialised context for each
 * address space; how they begin and end.
 */
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/smp.h>

#include "module.h"
#include "guard.h"
#include "hook.h"

/**
 * epk_context_create() - a context for current's address space
 *
 * Return: the context, -ENOMEM, -EDQUOT.
 */
struct epk_context *epk_context_create(void)
{
	struct epk_user *user = epk_user_open();
	struct epk_context *ctx;

	if (IS_ERR(user))
		return ERR_CAST(user);
	ctx = kvzalloc(sizeof(*ctx), GFP_KERNEL_ACCOUNT);
	if (!ctx) {
		epk_user_close(user);
		return ERR_PTR(-ENOMEM);
	}
	ctx->user = user;
	ctx->epts = epk_user_epts(epk_host.nr_epts);
	mutex_init(&ctx->lock);
	raw_spin_lock_init(&ctx->threads_lock);
	INIT_LIST_HEAD(&ctx->threads);
	ctx->mm = current->mm;
	mmgrab(ctx->mm);
	ctx->pid = task_tgid_nr(current);
	get_task_comm(ctx->comm, current);
	atomic_long_inc(&epk_counters.contexts);
	return ctx;
}

/**
 * epk_context_destroy() - end a context
 * @ctx: nobody else's any more: VMAs and thread records hold the file
 */
void epk_context_destroy(struct epk_context *ctx)
{
	epk_context_withdraw(ctx);
	epk_domains_exit(ctx);
	epk_user_close(ctx->user);
	mmdrop(ctx->mm);
	atomic_long_dec(&epk_counters.contexts);
	kvfree_rcu(ctx, rcu);
}

static bool pkeys_allocated(struct mm_struct *mm, u32 pkeys)
{
	unsigned int pkey;
	bool ret = true;

	mmap_read_lock(mm);
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		if (pkeys & BIT(pkey) && !mm_pkey_is_allocated(mm, pkey))
			ret = false;
	}
	mmap_read_unlock(mm);
	return ret;
}

static void close_cpu(void *ctx)
{
	epk_thread_close(ctx);
}

/* All threads of the process are known as unregistered when they next leave their CPU. */
static int context_add_unregistered(struct epk_context *ctx)
{
	int ret = epk_unregistered_add_all(ctx->mm);

	if (ret || atomic_read(&ctx->mm->mm_users) == 1)
		return ret;
	/* One that was being switched to, and was not yet known, runs when this returns. */
	synchronize_rcu();
	/* Nobody is in the middle of loading a virtual CPU any more, and may have lost the node. */
	return epk_unregistered_add_all(ctx->mm);
}

/* Its keys are the context's from when it is published, so none can be freed any more. */
static int context_prepare(struct epk_context *ctx, u32 generation)
{
	int ret = epk_guard_key_settle(ctx->mm);

	if (ret)
		return ret;
	epk_dawdle();
	if (!pkeys_allocated(ctx->mm, ctx->pkeys))
		return -EINVAL;
	mutex_lock(&ctx->lock);
	ret = epk_domains_init(ctx, generation);
	mutex_unlock(&ctx->lock);
	if (ret)
		return ret;
	ret = context_add_unregistered(ctx);
	if (ret)
		epk_domains_cancel(ctx);
	return ret;
}

/* From now on threads lose its keys wherever they are asked for them, and those that run, too. */
static void context_close(struct epk_context *ctx)
{
	unsigned int pkey;
	u32 deny = 0;

	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		if (ctx->pkeys & BIT(pkey))
			deny |= epk_pkru_deny(pkey);
	}
	WRITE_ONCE(ctx->pkru_deny, deny);
	epk_dawdle();
	if (atomic_read(&ctx->mm->mm_users) > 1) {
		/* Not mm_cpumask(), as in epk_revoke(). */
		on_each_cpu_mask(&ctx->cpus, close_cpu, ctx, true);
	} else {
		local_irq_disable();
		epk_thread_close(ctx);
		local_irq_enable();
	}
}

static int context_claim(struct epk_context *ctx, u32 pkeys)
{
	int ret;

	mutex_lock(&ctx->lock);
	if (ctx->phase != EPK_NEW) {
		ret = -EBUSY;
		goto unlock;
	}
	ctx->pkeys = pkeys;
	ret = epk_context_publish(ctx);
	if (ret)
		ctx->pkeys = 0;
	else
		ctx->phase = EPK_STARTING;
	/* Each CPU that runs none of its threads will say so. */
	cpumask_setall(&ctx->cpus);
unlock:
	mutex_unlock(&ctx->lock);
	return ret;
}

/* As it was before context_claim(). */
static void context_renounce(struct epk_context *ctx)
{
	epk_context_withdraw(ctx);
	/* It may be published again. */
	synchronize_rcu();
	mutex_lock(&ctx->lock);
	ctx->pkeys = 0;
	ctx->phase = EPK_NEW;
	mutex_unlock(&ctx->lock);
}

/**
 * epk_context_start() - get a context ready to hold domains
 * @ctx: the context of current->mm
 * @pkeys: the keys it may use
 * @generation: behind which those of its IDs begin
 *
 * All keys are closed in all threads of the process when it returns 0; nothing has changed
 * when it fails.
 *
 * Return: 0, -EBUSY if it or another of this address space has begun already, or
 * a thread runs a virtual CPU; -EINVAL if a key is not allocated; -ENODEV if the kernel
 * has lost its hooks; -ENOMEM, -EINTR.
 */
int epk_context_start(struct epk_context *ctx, u32 pkeys, u32 generation)
{
	int ret;

	if (!epk_hooks_alive())
		return -ENODEV;
	/* Asked again when they are guarded; here for who would see a claim that fails. */
	if (!pkeys_allocated(ctx->mm, pkeys))
		return -EINVAL;
	ret = context_claim(ctx, pkeys);
	if (ret)
		return ret;
	ret = context_prepare(ctx, generation);
	if (ret) {
		context_renounce(ctx);
	} else {
		context_close(ctx);
		/* Pairs with epk_context_is_ready(). */
		smp_store_release(&ctx->phase, EPK_READY);
	}
	epk_guard_key_decided(ctx->mm);
	return ret;
}
