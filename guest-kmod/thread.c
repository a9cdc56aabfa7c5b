// SPDX-License-Identifier: GPL-2.0
/*
 * Threads: no thread ever runs user code in an EPT that it did not enter.
 *
 * A CPU's EPT belongs to the thread that runs there.  At each context switch the
 * sched_switch probe notes where the old thread was, if that has a record, and
 * takes the CPU to where the new one was; a thread without a record comes back
 * in EPT 0, with no key of its process's context.  The kernel itself runs in any
 * EPT: all its memory is mapped alike in each.
 *
 * The records are in the threads' lists of preempt notifiers, for want of a better
 * place.  Nobody calls them there: that would cost every thread more.  A record is
 * reached only by its own thread, or for it by the CPU that switches to or from it
 * with interrupts off.  It dies in the thread's own exit or exec.  It holds the
 * file, and so the module.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include <asm/fsgsbase.h>
#include <asm/pkru.h>

#include "module.h"

DEFINE_PER_CPU(unsigned long, epk_rescues);

/* If KVM in this guest calls notifiers: there is nothing to do. */
static void thread_sched_in(struct preempt_notifier *notifier, int cpu)
{
}

static void thread_sched_out(struct preempt_notifier *notifier, struct task_struct *next)
{
}

struct preempt_ops epk_thread_ops = {
	.sched_in = thread_sched_in,
	.sched_out = thread_sched_out,
};

/* If not, this CPU is not asked again until it switches to one. */
static bool runs_thread_of(struct epk_context *ctx)
{
	if (current->mm == ctx->mm)
		return true;
	cpumask_clear_cpu(smp_processor_id(), &ctx->cpus);
	return false;
}

/* The access-disable bits of keys. */
static u32 places_deny(u16 keys)
{
	u32 deny = 0;

	for (; keys; keys &= keys - 1)
		deny |= epk_pkru_deny(__ffs(keys));
	return deny;
}

/**
 * epk_thread_revoke() - let current meet a batch of @ctx
 * @ctx: a context, in the middle of epk_revoke()
 *
 * Context: interrupts off.
 */
void epk_thread_revoke(struct epk_context *ctx)
{
	u32 ept = epk_current_ept(), pkru = read_pkru(), deny, now;
	struct epk_thread *thread;
	bool later;

	lockdep_assert_irqs_disabled();

	if (!runs_thread_of(ctx))
		return;
	thread = epk_thread_find(current);
	if (!thread) {
		deny = places_deny(ctx->leaving[ept]);
		/* As in levels_end(). */
		if (ctx->ending && ~pkru & deny)
			deny = ctx->pkru_deny;
		write_pkru(pkru | deny);
		epk_gates_restart(ctx, current);
		return;
	}
	raw_spin_lock(&ctx->threads_lock);
	if (thread->seen != ctx->batch) {
		later = epk_thread_runs_vcpu(current);
		now = epk_record_meet(thread, pkru, ept, later);
		if (later)
			thread->undone |= now & ~pkru;
		write_pkru(now);
		/* Last: see epk_revoke_waiting(). */
		smp_store_release(&thread->seen, ctx->batch);
	}
	raw_spin_unlock(&ctx->threads_lock);
}

/**
 * epk_revoke_waiting() - let a thread meet the batch that does not run
 * @thread: its record
 *
 * Context: interrupts off; no thread of its context runs user code on this CPU until it
 * has, if it is about to be switched in.
 */
void epk_revoke_waiting(struct epk_thread *thread)
{
	struct epk_context *ctx = thread->ctx;
	struct thread_struct *saved = &thread->task->thread;

	raw_spin_lock(&ctx->threads_lock);
	if (thread->seen != ctx->batch) {
		saved->pkru = epk_record_meet(thread, saved->pkru, thread->ept, false);
		epk_dawdle();
		/* Last: who sees it at the switch does not take the lock. */
		smp_store_release(&thread->seen, ctx->batch);
	}
	raw_spin_unlock(&ctx->threads_lock);
}

/**
 * epk_thread_retract() - let current lose a common right
 * @ctx: a context, in the middle of epk_retract()
 *
 * Context: interrupts off.
 */
void epk_thread_retract(struct epk_context *ctx)
{
	u32 pkru = read_pkru(), now;
	struct epk_thread *thread;

	lockdep_assert_irqs_disabled();

	if (!runs_thread_of(ctx))
		return;
	thread = epk_thread_find(current);
	if (!thread || thread->ctx != ctx)
		return;
	/* Against epk_revoke_waiting() of a debugger's, and the like. */
	raw_spin_lock(&ctx->threads_lock);
	if (epk_is_in(ctx->retract_ept, thread->commons_ept)) {
		now = epk_record_uncommon(thread, pkru, epk_current_ept(), ctx->retract_keys);
		if (epk_thread_runs_vcpu(current))
			thread->undone |= now & ~pkru;
		write_pkru(now);
	}
	thread->retracted = ctx->retractions;
	raw_spin_unlock(&ctx->threads_lock);
	/* It may have read what PKRU was, to write it back. */
	epk_gates_restart(ctx, current);
}

/* The same for a thread that is about to be switched in: all of them, since nobody knows which. */
static noinline void retract_waiting(struct epk_thread *thread)
{
	struct epk_context *ctx = thread->ctx;
	struct thread_struct *saved = &thread->task->thread;
	u64 now;

	raw_spin_lock(&ctx->threads_lock);
	/* Pairs with epk_retract(). */
	now = smp_load_acquire(&ctx->retractions);
	saved->pkru = epk_record_uncommon(thread, saved->pkru, thread->ept, ~0);
	thread->retracted = now;
	epk_gates_restart(ctx, thread->task);
	raw_spin_unlock(&ctx->threads_lock);
}

/**
 * epk_thread_close() - close all keys of a context in current
 * @ctx: a context that is about to begin
 *
 * Context: interrupts off.
 */
void epk_thread_close(struct epk_context *ctx)
{
	lockdep_assert_irqs_disabled();

	if (runs_thread_of(ctx))
		write_pkru(read_pkru() | ctx->pkru_deny * 3);
}

/**
 * epk_thread_switch() - a context switch from or to an EPT
 * @identity: the identity page
 * @preempt: unused, as are more arguments: they are those of the probe
 * @prev: the thread that leaves the CPU
 * @next: the thread that comes
 *
 * Context: the run queue locked, interrupts off.
 */
void epk_thread_switch(const struct kvm_epk_identity *identity, bool preempt,
		       struct task_struct *prev, struct task_struct *next)
{
	u32 ept = READ_ONCE(identity->ept), target = 0;
	struct epk_thread *thread;
	u64 seen, batch;

	if (ept) {
		this_cpu_inc(epk_rescues);
		thread = epk_thread_find(prev);
		if (thread)
			thread->ept = ept;
	}
	thread = epk_thread_find(next);
	if (thread) {
		epk_context_note_cpu(thread->ctx);
		/* Its PKRU is loaded after this.  Pairs with the releases in epk_revoke_waiting() and walk(). */
		seen = smp_load_acquire(&thread->seen);
		/* And with that in epk_revoke(). */
		batch = smp_load_acquire(&thread->ctx->batch);
		if (unlikely(seen != batch))
			epk_revoke_waiting(thread);
		if (unlikely(thread->commons)) {
			/* Before its PKRU, too.  Pairs with the release in epk_retract(). */
			batch = smp_load_acquire(&thread->ctx->retractions);
			if (thread->retracted != batch)
				retract_waiting(thread);
		}
		target = thread->ept;
		thread->ept = 0;
	} else {
		/* See unregistered.c. */
		next->thread.pkru |= epk_context_enter(next->mm);
		epk_context_restart_gate(next);
	}
	/* If its EPT was destroyed meanwhile, it goes on in EPT 0, where its keys mean others. */
	if (target != ept && !epk_vmfunc(target)) {
		next->thread.pkru |= epk_context_pkru_deny(next->mm);
		epk_vmfunc(0);
	}
}

/**
 * epk_thread_drop() - current is about to be no thread of its context any more
 */
void epk_thread_drop(void)
{
	struct epk_thread *thread;

	preempt_disable();
	if (epk_current_ept())
		epk_vmfunc(0);
	local_irq_disable();
	thread = epk_thread_find(current);
	if (thread) {
		hlist_del(&thread->notifier.link);
		raw_spin_lock(&thread->ctx->threads_lock);
		list_del(&thread->node);
		raw_spin_unlock(&thread->ctx->threads_lock);
	}
	epk_unregistered_drop(current);
	local_irq_enable();
	preempt_enable();

	if (thread) {
		atomic_long_dec(&epk_counters.threads);
		/* Deferred to the return to user mode, or to the end of exit. */
		fput(thread->file);
		kfree(thread);
	}
}

/**
 * epk_thread_register() - let the EPT of current survive context switches
 * @file: an open /dev/epk of current's address space
 * @flags: EPK_THREAD_SIGNALS, EPK_THREAD_FOLLOWS, EPK_THREAD_JOINS
 *
 * Registering twice is fine.  A thread becomes a holder of domains with all keys closed: one
 * that it opened before may be in the middle of being revoked, or have been while the
 * thread was none that this is done for.
 *
 * Return: 0, -ENOMEM.
 */
int epk_thread_register(struct file *file, unsigned long flags)
{
	struct epk_thread *thread, *old;

	thread = kzalloc(sizeof(*thread), GFP_KERNEL_ACCOUNT);
	if (!thread)
		return -ENOMEM;
	preempt_notifier_init(&thread->notifier, &epk_thread_ops);

	/* Against epk_thread_revoke(), which walks the same list. */
	preempt_disable();
	local_irq_disable();
	old = epk_thread_find(current);
	if (!old) {
		thread->signals = flags & EPK_THREAD_SIGNALS;
		thread->follows = flags & EPK_THREAD_FOLLOWS;
		thread->joined = flags & EPK_THREAD_JOINS;
		thread->file = get_file(file);
		thread->ctx = file->private_data;
		thread->task = current;
		thread->fs = x86_fsbase_read_cpu();
		/* Without held bits from now on, unless its first begin is to come here. */
		write_pkru((read_pkru() & ~(thread->ctx->pkru_deny * 3)) |
			   thread->ctx->pkru_deny * (thread->joined ? 3 : 1));
		raw_spin_lock(&thread->ctx->threads_lock);
		thread->seen = thread->ctx->batch;
		list_add_tail(&thread->node, &thread->ctx->threads);
		raw_spin_unlock(&thread->ctx->threads_lock);
		hlist_add_head(&thread->notifier.link, &current->preempt_notifiers);
	} else {
		/* Whoever is confined has another. */
		if (!(read_pkru() & EPK_KEY0))
			old->fs = x86_fsbase_read_cpu();
		old->signals |= flags & EPK_THREAD_SIGNALS;
		if (!(flags & EPK_THREAD_JOINS))
			old->joined = false;
		if (flags & EPK_THREAD_FOLLOWS) {
			old->follows = true;
			write_pkru(epk_record_settle(old, read_pkru(), epk_current_ept()));
		}
	}
	local_irq_enable();
	preempt_enable();

	if (old)
		kfree(thread);
	else
		atomic_long_inc(&epk_counters.threads);
	return 0;
}

/**
 * epk_thread_rescues() - how often a thread was switched out in another than EPT 0
 */
unsigned long epk_thread_rescues(void)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu(epk_rescues, cpu);
	return sum;
}
