// SPDX-License-Identifier: GPL-2.0
/*
 * Revocation: a right to a place must not outlive its domain's being there.
 *
 * Of a thread only its PKRU is about places.  When places are taken away, each registered
 * thread that has a key of one open gets the same right by the domain's ID in its record
 * instead (record.c), or loses it; once, and before the places are given to others.  That is
 * a batch.  Threads that run do it in an interrupt.  Who does not run is met by a walk along
 * the context's list, or does it when it is switched in, whichever comes first:
 * threads_lock says which.  After the interrupts nobody is half switched out, as the
 * context switch has interrupts off from the probe to its end.  A thread that is not
 * registered loses its EPT with the CPU, and is no holder of domains.
 *
 * No batch passes a thread by, so one number says whether it has met the last.
 */
#include <linux/smp.h>

#include "module.h"

static void revoke_cpu(void *ctx)
{
	epk_thread_revoke(ctx);
}

static void retract_cpu(void *ctx)
{
	epk_thread_retract(ctx);
}

/* Threads at a time that the lock is held for. */
#define WALK_STEP	64

/* The first of a list meet the batch, and go to the end of another. */
static void walk_step(struct epk_context *ctx, struct list_head *todo)
{
	struct epk_thread *thread;
	struct thread_struct *saved;
	unsigned int n = 0;
	LIST_HEAD(done);

	list_for_each_entry(thread, todo, node) {
		if (n++ == WALK_STEP)
			break;
		if (thread->seen == ctx->batch)
			continue;
		saved = &thread->task->thread;
		saved->pkru = epk_record_meet(thread, saved->pkru, thread->ept, false);
		/* Last: see epk_revoke_waiting(). */
		smp_store_release(&thread->seen, ctx->batch);
	}
	/* Up to the one before. */
	list_cut_before(&done, todo, &thread->node);
	list_splice_tail(&done, &ctx->threads);
}

/* All that do not run. */
static void walk(struct epk_context *ctx)
{
	LIST_HEAD(todo);

	raw_spin_lock_irq(&ctx->threads_lock);
	list_splice_init(&ctx->threads, &todo);
	while (!list_empty(&todo)) {
		walk_step(ctx, &todo);
		raw_spin_unlock_irq(&ctx->threads_lock);
		cond_resched();
		raw_spin_lock_irq(&ctx->threads_lock);
	}
	raw_spin_unlock_irq(&ctx->threads_lock);
}

/* Nobody has a right to these places any more. */
static void places_clear(struct epk_context *ctx)
{
	unsigned int ept, pkey;

	for_each_set_bit(ept, ctx->vacated_epts, KVM_EPK_MAX_EPTS) {
		for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
			if (ctx->vacated[ept] & BIT(pkey))
				WRITE_ONCE(ctx->place_ids[ept][pkey], 0);
		}
		ctx->vacated[ept] = 0;
		/* Who sees that none leaves sees that nothing is there: see key_in(). */
		smp_store_release(&ctx->leaving[ept], 0);
	}
	bitmap_zero(ctx->vacated_epts, KVM_EPK_MAX_EPTS);
	ctx->revoke_due = false;
}

/**
 * epk_revoke() - make all vacated places of a context fit for new domains
 * @ctx: the context, locked; the table shows no domain at any of these places
 *
 * Context: process, interrupts on.
 */
void epk_revoke(struct epk_context *ctx)
{
	unsigned int ept;

	lockdep_assert_held(&ctx->lock);
	lockdep_assert_irqs_enabled();

	for_each_set_bit(ept, ctx->vacated_epts, KVM_EPK_MAX_EPTS)
		WRITE_ONCE(ctx->leaving[ept], ctx->vacated[ept]);
	ctx->arrive_due = false;
	epk_dawdle();
	/* Pairs with the acquire in epk_thread_switch(). */
	smp_store_release(&ctx->batch, ctx->batch + 1);
	/* Pairs with the barrier in epk_context_note_cpu(). */
	smp_mb();
	epk_dawdle();
	/*
	 * Not mm_cpumask(): a CPU that is about to switch to a thread of this context has
	 * perhaps looked at the number already, but not changed its page tables yet.
	 */
	on_each_cpu_mask(&ctx->cpus, revoke_cpu, ctx, true);
	walk(ctx);
	places_clear(ctx);
}

/**
 * epk_retract() - have no thread go on with a common right
 * @ctx: the context, locked; no access gives the right any more
 * @ept: the EPT where the domain is, or EPK_EPT_ALL
 * @keys: its key there, as a bit; none: there it is nowhere
 *
 * Threads that do not run meet it when they are switched in, and lose all their common rights: so it is the
 * same work however many there are.  Nobody else gets the place for this, so nobody has to be waited for.
 *
 * Context: process, interrupts on.
 */
void epk_retract(struct epk_context *ctx, u32 ept, u16 keys)
{
	lockdep_assert_held(&ctx->lock);
	lockdep_assert_irqs_enabled();

	ctx->retract_ept = ept;
	ctx->retract_keys = keys;
	epk_dawdle();
	/* Pairs with the acquires in epk_thread_switch() and epk_common_open(). */
	smp_store_release(&ctx->retractions, ctx->retractions + 1);
	/* Pairs with the barrier in epk_context_note_cpu(). */
	smp_mb();
	epk_dawdle();
	on_each_cpu_mask(&ctx->cpus, retract_cpu, ctx, true);
}
