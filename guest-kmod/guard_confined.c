// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel writes to ordinary memory in the name of a thread that is confined, and has to
 * be written: where a restartable sequence would find its CPU, as the thread goes on after a
 * switch.  The kernel kills who has that out of reach.  The address is the kernel's own: what a thread has
 * registered, not what it says by now.
 *
 * It is on the way of each switch in each program, so it is hooked when the first domain is to be confined.
 */
#include <linux/sched.h>

#include <asm/pkru.h>

#include "module.h"
#include "guard.h"
#include "hook.h"

#ifdef CONFIG_RSEQ

struct ksignal;

static void guarded_rseq(struct ksignal *ksig, struct pt_regs *regs);

static void notrace before_rseq(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (epk_context_exists(current->mm) && read_pkru() & EPK_KEY0)
		epk_hook_divert(fregs, guarded_rseq);
}

static struct epk_hook rseq_hook = {
	.symbol = "__rseq_handle_notify_resume", .before = before_rseq, .late = true,
};

/* It may fault and sleep, and batches may come: they are about other keys. */
static void guarded_rseq(struct ksignal *ksig, struct pt_regs *regs)
{
	unsigned long flags;
	u32 key0;

	epk_hook_enter();
	local_irq_save(flags);
	key0 = read_pkru() & EPK_KEY0;
	write_pkru(read_pkru() & ~EPK_KEY0);
	local_irq_restore(flags);
	epk_hook_original(&rseq_hook, typeof(&guarded_rseq))(ksig, regs);
	local_irq_save(flags);
	write_pkru(read_pkru() | key0);
	local_irq_restore(flags);
	epk_hook_leave();
}

int __init epk_guard_confined_init(void)
{
	return epk_hooks_add(&rseq_hook, 1);
}

/**
 * epk_guard_confined_arm() - from now on threads can be confined
 *
 * Return: 0, or an error of the kernel's tracing.
 */
int epk_guard_confined_arm(void)
{
	return epk_hook_arm_late(&rseq_hook);
}

#else

int __init epk_guard_confined_init(void)
{
	return 0;
}

int epk_guard_confined_arm(void)
{
	return 0;
}

#endif
