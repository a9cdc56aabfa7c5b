// SPDX-License-Identifier: GPL-2.0
/*
 * Signals, for threads that ask for it: what a signal interrupts is remembered
 * in the kernel when the signal is delivered, and given back when its handler
 * returns, so that neither the handler nor who writes to its frame can change
 * what the interrupted code holds.
 *
 * A handler may never return.  What it interrupted is forgotten when a later
 * signal finds the stack above it; until then the entry does no harm, since only
 * a return to that very stack pointer uses it.
 */
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>

#include <asm/pkru.h>

#include "epk.h"

/* Both bits of each of the context's keys. */
static u32 keys_mask(const struct epk_context *ctx)
{
	return ctx->pkru_deny * 3;
}

/* The frame of the handler that interrupted @sp lay below it, and is gone. */
static bool is_stale(unsigned long sp, unsigned long now)
{
	return sp <= now && on_sig_stack(sp) == on_sig_stack(now);
}

/**
 * epk_signal_deliver() - a handler of current is about to start
 * @thread: the record of current
 *
 * Linux closes the keys itself when it sets the handler up.
 *
 * Context: preemption disabled.
 */
void epk_signal_deliver(struct epk_thread *thread)
{
	unsigned long sp = task_pt_regs(current)->sp;
	unsigned int n = thread->nr_interrupted;

	while (n && is_stale(thread->interrupted[n - 1].sp, sp))
		n--;
	if (n == EPK_SIGNALS) {
		memmove(thread->interrupted, thread->interrupted + 1,
			sizeof(thread->interrupted) - sizeof(*thread->interrupted));
		n--;
	}
	thread->interrupted[n] = (struct epk_interrupted) {
		.sp = sp, .ept = epk_current_ept(), .pkru = read_pkru(), .seen = thread->seen,
	};
	thread->nr_interrupted = n + 1;
	if (epk_current_ept())
		epk_vmfunc(0);
}

/**
 * epk_signal_return() - current returns from a handler; its frame is restored
 * @thread: the record of current
 *
 * Context: interrupts off.
 */
void epk_signal_return(struct epk_thread *thread)
{
	unsigned long sp = task_pt_regs(current)->sp;
	u32 mask = keys_mask(thread->ctx);
	const struct epk_interrupted *from;
	unsigned int n = thread->nr_interrupted;

	while (n && thread->interrupted[n - 1].sp != sp)
		n--;
	if (!n) {
		write_pkru(read_pkru() | thread->ctx->pkru_deny);
		if (epk_current_ept())
			epk_vmfunc(0);
		return;
	}

	from = &thread->interrupted[n - 1];
	thread->nr_interrupted = n - 1;
	write_pkru((read_pkru() & ~mask) | (from->pkru & mask));
	if (epk_current_ept() != from->ept && !epk_vmfunc(from->ept))
		write_pkru(read_pkru() | thread->ctx->pkru_deny);
	write_pkru(read_pkru() |
		   epk_revoked_keys(thread->ctx, read_pkru(), epk_current_ept(), from->seen));
}

/**
 * epk_signal_resume() - change what the innermost signal interrupted
 * @resume: what it is to go on with
 *
 * Return: 0, -ENOENT, -EINVAL.
 */
int epk_signal_resume(const struct epk_resume *resume)
{
	struct epk_interrupted *top;
	struct epk_thread *thread;
	int ret = -ENOENT;

	if (resume->ept >= epk_host.nr_epts)
		return -EINVAL;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (thread && thread->nr_interrupted) {
		top = &thread->interrupted[thread->nr_interrupted - 1];
		top->ept = resume->ept;
		top->pkru = resume->pkru;
		top->seen = thread->seen;
		ret = 0;
	}
	local_irq_enable();
	return ret;
}
