// SPDX-License-Identifier: GPL-2.0
/*
 * Processes with domains: which context an address space has, and what becomes of keys there.
 * Guards ask it of every process, and so does the context switch.
 */
#include <linux/hashtable.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "module.h"

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

/* Inline, as each switch comes by. */
static __always_inline u32 context_deny(const struct mm_struct *mm, bool runs_here)
{
	struct epk_context *ctx;
	u32 deny = 0;

	if (!atomic_read(&nr_contexts))
		return 0;

	rcu_read_lock();
	ctx = context_find(mm);
	if (ctx) {
		/* Before what follows is read: who changes it looks for the CPU afterwards. */
		if (runs_here)
			epk_context_note_cpu(ctx);
		deny = READ_ONCE(ctx->pkru_deny);
	}
	rcu_read_unlock();
	return deny;
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
	return context_deny(mm, false);
}

/**
 * epk_context_pkru_closed() - what PKRU is in a thread that is not registered
 * @mm: the thread's address space, or NULL
 *
 * With the held bits, so that it asks the module before it opens anything.
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
	return context_deny(mm, true) * 3;
}

/**
 * epk_context_restart_gate() - what a thread that is not registered has read may be old by now
 * @task: current, or the thread that this CPU is about to run
 *
 * It is to open nothing by itself; but who writes to its memory can have it try.
 *
 * Context: any.
 */
void epk_context_restart_gate(struct task_struct *task)
{
	struct epk_context *ctx;

	if (!atomic_read(&nr_contexts) || task->flags & PF_KTHREAD)
		return;
	rcu_read_lock();
	ctx = context_find(task->mm);
	if (ctx)
		epk_gates_restart(ctx, task);
	rcu_read_unlock();
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

/**
 * epk_context_publish() - make a context its address space's only initialised one
 * @ctx: the context
 *
 * Return: 0, -EBUSY.
 */
int epk_context_publish(struct epk_context *ctx)
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

/**
 * epk_context_withdraw() - undo it, if it was done
 * @ctx: the context; who finds it may still look at it until RCU says not
 */
void epk_context_withdraw(struct epk_context *ctx)
{
	spin_lock(&contexts_lock);
	if (hash_hashed(&ctx->node)) {
		hash_del_rcu(&ctx->node);
		atomic_dec(&nr_contexts);
	}
	spin_unlock(&contexts_lock);
}
