// SPDX-License-Identifier: GPL-2.0
/*
 * Contexts: one for each open of /dev/epk, one initialised context for each
 * address space.
 */
#include <linux/hashtable.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/smp.h>

#include "epk.h"
#include "guard.h"
#include "hook.h"

/* Initialised contexts by mm, so that one mm never has two; guards look here often. */
static DEFINE_HASHTABLE(contexts, 10);
static DEFINE_SPINLOCK(contexts_lock);
static atomic_t nr_contexts = ATOMIC_INIT(0);

static struct epk_context *context_find(const struct mm_struct *mm)
{
	struct epk_context *ctx;

	hash_for_each_possible_rcu(contexts, ctx, node, (unsigned long)mm,
				   lockdep_is_held(&contexts_lock)) {
		if (ctx->mm == mm)
			return ctx;
	}
	return NULL;
}

/**
 * epk_context_exists() - has an address space a context that is, or comes, into use
 * @mm: the address space
 *
 * Context: any.
 */
bool epk_context_exists(const struct mm_struct *mm)
{
	bool exists;

	if (!atomic_read(&nr_contexts))
		return false;
	rcu_read_lock();
	exists = context_find(mm);
	rcu_read_unlock();
	return exists;
}

/**
 * epk_context_pkru_deny() - what a thread must not have that is not registered
 * @mm: the thread's address space, or NULL
 *
 * Context: any.
 * Return: the access-disable bits of all keys that carry domains in @mm.
 */
u32 epk_context_pkru_deny(const struct mm_struct *mm)
{
	struct epk_context *ctx;
	u32 deny = 0;

	if (!atomic_read(&nr_contexts))
		return 0;

	rcu_read_lock();
	ctx = context_find(mm);
	if (ctx)
		deny = READ_ONCE(ctx->pkru_deny);
	rcu_read_unlock();
	return deny;
}

/**
 * epk_context_pkru_closed() - what PKRU is in a thread that is not registered
 * @mm: the thread's address space, or NULL
 *
 * Marked, so that it asks the module before it opens anything.
 *
 * Context: any.
 * Return: both bits of all keys that carry domains in @mm.
 */
u32 epk_context_pkru_closed(const struct mm_struct *mm)
{
	return epk_context_pkru_deny(mm) * 3;
}

/**
 * epk_context_enter() - the same, for a thread that this CPU is about to run
 * @mm: the thread's address space, or NULL
 *
 * Context: interrupts off, until the thread runs.
 * Return: as epk_context_pkru_closed().
 */
u32 epk_context_enter(const struct mm_struct *mm)
{
	struct epk_context *ctx;
	u32 deny = 0;

	if (!atomic_read(&nr_contexts))
		return 0;

	rcu_read_lock();
	ctx = context_find(mm);
	if (ctx) {
		epk_context_note_cpu(ctx);
		deny = READ_ONCE(ctx->pkru_deny);
	}
	rcu_read_unlock();
	return deny * 3;
}

/**
 * epk_context_pkeys() - which keys an address space may not free
 * @mm: the address space
 * @starting: set if they may turn out not to be the context's; epk_guard_key_decided() follows
 *
 * Context: any.
 * Return: the keys that its context was given, as a bitmap.
 */
u32 epk_context_pkeys(const struct mm_struct *mm, bool *starting)
{
	struct epk_context *ctx;
	u32 pkeys = 0;

	*starting = false;
	rcu_read_lock();
	ctx = context_find(mm);
	if (ctx) {
		pkeys = READ_ONCE(ctx->pkeys);
		*starting = !READ_ONCE(ctx->pkru_deny);
	}
	rcu_read_unlock();
	return pkeys;
}

/**
 * epk_contexts_show() - a line for each process that has domains
 * @m: where to
 */
void epk_contexts_show(struct seq_file *m)
{
	struct epk_context *ctx;
	int bucket;

	seq_puts(m, "pid comm domains evicted epts pages mapped moves faults revocations\n");
	rcu_read_lock();
	hash_for_each_rcu(contexts, bucket, ctx, node) {
		unsigned int domains = READ_ONCE(ctx->nr_domains);

		if (!epk_context_is_ready(ctx))
			continue;
		seq_printf(m, "%d %s %u %u %u %ld %ld %ld %ld %ld\n", ctx->pid, ctx->comm, domains,
			   domains - min(domains, READ_ONCE(ctx->nr_placed)),
			   READ_ONCE(ctx->nr_epts), atomic_long_read(&ctx->pages),
			   atomic_long_read(&ctx->mapped), atomic_long_read(&ctx->moves),
			   atomic_long_read(&ctx->page_faults),
			   atomic_long_read(&ctx->revocations));
	}
	rcu_read_unlock();
}

/* Reserve the place of @ctx as its mm's only initialised context. */
static int context_publish(struct epk_context *ctx)
{
	int ret = 0;

	spin_lock(&contexts_lock);
	if (context_find(ctx->mm)) {
		ret = -EBUSY;
	} else {
		hash_add_rcu(contexts, &ctx->node, (unsigned long)ctx->mm);
		atomic_inc(&nr_contexts);
	}
	spin_unlock(&contexts_lock);
	return ret;
}

static void context_withdraw(struct epk_context *ctx)
{
	spin_lock(&contexts_lock);
	if (hash_hashed(&ctx->node)) {
		hash_del_rcu(&ctx->node);
		atomic_dec(&nr_contexts);
	}
	spin_unlock(&contexts_lock);
}

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
	context_withdraw(ctx);
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

/* All threads of the process have a mark when they next leave their CPU. */
static int context_mark(struct epk_context *ctx)
{
	int ret = epk_mark_all(ctx->mm);

	if (ret || atomic_read(&ctx->mm->mm_users) == 1)
		return ret;
	/* One that was being switched to and had no mark yet runs when this returns. */
	synchronize_rcu();
	/* Nobody is in the middle of loading a virtual CPU any more, and may have lost its mark. */
	return epk_mark_all(ctx->mm);
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
	ret = context_mark(ctx);
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
	if (ctx->state != EPK_NEW) {
		ret = -EBUSY;
		goto unlock;
	}
	ctx->pkeys = pkeys;
	ret = context_publish(ctx);
	if (ret)
		ctx->pkeys = 0;
	else
		ctx->state = EPK_STARTING;
	/* Each CPU that runs none of its threads will say so. */
	cpumask_setall(&ctx->cpus);
unlock:
	mutex_unlock(&ctx->lock);
	return ret;
}

/* As it was before context_claim(). */
static void context_renounce(struct epk_context *ctx)
{
	context_withdraw(ctx);
	/* It may be published again. */
	synchronize_rcu();
	mutex_lock(&ctx->lock);
	ctx->pkeys = 0;
	ctx->state = EPK_NEW;
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
		smp_store_release(&ctx->state, EPK_READY);
	}
	epk_guard_key_decided(ctx->mm);
	return ret;
}
