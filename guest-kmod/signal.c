// SPDX-License-Identifier: GPL-2.0
/*
 * Signals: what one interrupts goes into the record when its handler gets a
 * frame, and comes back when the handler returns, so that neither the handler nor who
 * writes to its frame can change what the interrupted code holds.
 *
 * A return is recognised by where the frame is, which the code that returns says by
 * its stack pointer; and by the stack that it goes on with, which has to be the one that was
 * interrupted.  A handler may never return.  What it interrupted stays until another frame
 * lies there or room is wanted; the order of stacks is not that of time, so nothing is
 * concluded from it.  But a return to another stack says that somebody has written to
 * frames: it gives nothing back, and nothing that was interrupted before comes back either.
 */
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include <asm/fsgsbase.h>
#include <asm/pkru.h>

#include "module.h"
#include "guard.h"
#include "hook.h"
#include "mapping.h"

/* Of the 64-bit ABI. */
#define RED_ZONE	128

/* All rights of current are in the record from now on, and it has no key. */
static void rights_stash(struct epk_thread *thread)
{
	write_pkru(epk_record_stash(thread, read_pkru(), epk_current_ept()));
}

/* Have of the context's keys what the record says, of domains in this EPT. */
static void rights_unstash(struct epk_thread *thread)
{
	u32 pkru = read_pkru() | thread->ctx->pkru_deny;

	write_pkru(epk_record_unstash(thread, pkru, epk_current_ept()));
}

/**
 * epk_signal_deliver() - a handler of current is about to get its frame
 * @thread: the record of current
 *
 * Context: preemption disabled.
 */
void epk_signal_deliver(struct epk_thread *thread)
{
	unsigned long flags;

	local_irq_save(flags);
	thread->arriving = (struct epk_interrupted) {
		.ept = epk_current_ept(),
		.key0 = read_pkru() & EPK_KEY0,
	};
	if (thread->arriving.key0) {
		thread->arriving.fs = x86_fsbase_read_cpu();
		x86_fsbase_write_cpu(thread->fs);
	}
	thread->arrives = true;
	thread->stack = task_pt_regs(current)->sp;
	if (thread->follows)
		epk_gates_restart(thread->ctx, current);
	rights_stash(thread);
	thread->arriving_pkru = read_pkru();
	local_irq_restore(flags);
}

/* Make room for one more, if that is wanted.  Calls have room of their own. */
static void interrupted_drop(struct epk_thread *thread, unsigned long frame)
{
	unsigned int n, signals = 0, first = 0, gone = ~0u;

	for (n = thread->nr_interrupted; n--; ) {
		if (thread->interrupted[n].call)
			continue;
		signals++;
		first = n;
		if (thread->interrupted[n].frame < frame)
			gone = n;
	}
	/* Of handlers that have not returned, those that look as if they never will go first. */
	if (signals == EPK_SIGNALS)
		epk_record_forget(thread, gone == ~0u ? first : gone);
}

static void interrupted_push(struct epk_thread *thread, unsigned long frame)
{
	unsigned int n;

	for (n = thread->nr_interrupted; n--; ) {
		if (!thread->interrupted[n].call && thread->interrupted[n].frame == frame)
			epk_record_forget(thread, n);
	}
	interrupted_drop(thread, frame);
	thread->arriving.frame = frame;
	epk_record_interrupt(thread, &thread->arriving);
}

/* The handler has its frame, or could not have it: then nothing has changed. */
static void signal_start(struct epk_thread *thread, bool failed)
{
	if (!thread->arrives)
		return;
	thread->arrives = false;
	if (failed) {
		write_pkru((read_pkru() & ~EPK_KEY0) | thread->arriving.key0);
		if (thread->arriving.key0)
			x86_fsbase_write_cpu(thread->arriving.fs);
		rights_unstash(thread);
		return;
	}
	interrupted_push(thread, task_pt_regs(current)->sp);
	/* Before the EPT changes, and whatever the kernel starts handlers with. */
	rights_unstash(thread);
	if (thread->signals && epk_current_ept())
		epk_vmfunc(0);
}

/* The frame's registers are current's by now.  Handlers may skip an instruction. */
static bool goes_on(const struct epk_interrupted *from)
{
	return task_pt_regs(current)->sp == from->sp;
}

static bool has_frame(const struct epk_interrupted *from, unsigned long frame)
{
	return !from->call && from->frame == frame;
}

static void signal_return(struct epk_thread *thread, unsigned long frame)
{
	int n = thread->nr_interrupted - 1;

	while (n >= 0 && !has_frame(&thread->interrupted[n], frame))
		n--;
	if (n >= 0 && (!goes_on(&thread->interrupted[n]) || epk_rights_confined(thread, n)))
		n = -1;
	/* What is above it was in a handler that this return has left behind. */
	epk_rights_resume(thread, n);
}

/*
 * Is no frame to go where the interrupted code has its stack pointer?  Nothing is written to a
 * private domain, nor by who is confined, whose stack pointer may be anything.  Then its record, which stays.
 */
static struct epk_thread *has_no_stack(void)
{
	struct epk_thread *thread;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (thread && (!thread->arrives ||
		       !(thread->arriving.key0 || epk_record_has_private(thread))))
		thread = NULL;
	local_irq_enable();
	return thread;
}

/* To the alternate stack it goes only from elsewhere. */
static bool goes_to_alternate(unsigned long sp)
{
	return current->sas_ss_size && sp == current->sas_ss_sp + current->sas_ss_size &&
	       sp != task_pt_regs(current)->sp - RED_ZONE;
}

static bool lies_in_private(const struct epk_context *ctx, unsigned long addr)
{
	int id;

	if (mmap_read_lock_killable(current->mm))
		return false;
	id = epk_mapping_id_at(current->mm, addr);
	mmap_read_unlock(current->mm);
	return epk_table_is_private(ctx, id);
}

/*
 * The ordinary code that waits says where the frame goes instead, in ordinary memory, and it is
 * written with ordinary rights.  That code may be a handler on the alternate stack.
 */
static unsigned long frame_below(unsigned long sp)
{
	struct epk_thread *thread = has_no_stack();
	const struct epk_context *ctx;
	unsigned long outside = 0;
	bool to_alternate;

	if (!thread || !user_64bit_mode(task_pt_regs(current)))
		return sp;
	ctx = thread->ctx;
	/* Pairs with epk_gates_set().  The FS base is the thread's own by now. */
	if (smp_load_acquire(&ctx->nr_gates) && ctx->stack &&
	    get_user(outside, (unsigned long __user *)(x86_fsbase_read_cpu() + ctx->stack)))
		outside = 0;
	to_alternate = goes_to_alternate(sp);
	if (to_alternate && outside - current->sas_ss_sp - 1 >= current->sas_ss_size)
		outside = sp;
	else if (!to_alternate && !thread->arriving.key0 && !lies_in_private(ctx, sp - 1))
		return sp;
	if (!outside)
		return sp;
	thread->arriving.own_stack = true;
	return outside;
}

typedef unsigned long (*mathframe_fn)(unsigned long sp, int ia32, unsigned long *buf,
				      unsigned long *size);

static unsigned long mathframe(unsigned long sp, int ia32, unsigned long *buf,
			       unsigned long *size);

/* The first that the kernel puts below the stack pointer that it has chosen. */
static void notrace before_mathframe(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (epk_context_exists(current->mm))
		epk_hook_divert(fregs, mathframe);
}

/*
 * Linux 6.12 opens all keys to write a frame, and leaves them so if it cannot.  Nothing of
 * a domain is written that the interrupted code could not write itself, nor of ordinary memory by
 * who is confined.
 */
static void notrace before_frame(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	struct epk_thread *thread;
	unsigned long flags;
	u32 pkru, mask;

	if (!epk_context_exists(current->mm))
		return;
	local_irq_save(flags);
	thread = epk_thread_find(current);
	if (!thread) {
		write_pkru(read_pkru() | epk_context_pkru_closed(current->mm));
	} else if (thread->arrives) {
		thread->arriving.sp = task_pt_regs(current)->sp;
		mask = thread->ctx->pkru_deny * 3 | EPK_KEY0;
		pkru = (read_pkru() & ~mask) | (thread->arriving_pkru & mask);
		pkru = epk_record_lend(thread, pkru, epk_current_ept());
		if (thread->arriving.own_stack)
			pkru &= ~EPK_KEY0;
		write_pkru(pkru);
		/* What Linux 6.12 puts into the frame, for the program to see; no argument before. */
		epk_hook_regs(fregs)->cx = pkru;
	}
	local_irq_restore(flags);
}

/* signal_setup_done(failed, ...): user mode is next. */
static void notrace before_handler(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	struct epk_thread *thread;
	unsigned long flags;

	if (!epk_context_exists(current->mm))
		return;
	local_irq_save(flags);
	thread = epk_thread_find(current);
	/* The frame has it; what is sent from now on is not for that: see guard_trap.c. */
	current->thread.trap_nr = 0;
	if (!thread)
		write_pkru(read_pkru() | epk_context_pkru_closed(current->mm));
	else
		signal_start(thread, (int)epk_hook_regs(fregs)->di);
	local_irq_restore(flags);
}

/*
 * What is left to read of a frame whose PKRU is loaded.  It opens nothing to the kernel either: by
 * now, another page can be where the frame was.
 */
static void notrace before_altstack(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	unsigned long flags;

	local_irq_save(flags);
	write_pkru(read_pkru() | epk_context_pkru_deny(current->mm));
	local_irq_restore(flags);
}

/* Where the stack pointer is above a frame whose handler returns, in each ABI. */
enum sigreturn { RT_64, RT_X32, RT_IA32, OLD_IA32 };

static long rt_64(const struct pt_regs *regs);
static long rt_x32(const struct pt_regs *regs);
static long rt_ia32(const struct pt_regs *regs);
static long old_ia32(const struct pt_regs *regs);

/* Alone and without a context, a thread cannot get one meanwhile. */
static void notrace divert_sigreturn(struct ftrace_regs *fregs, void *to)
{
	if (epk_context_exists(current->mm) || atomic_read(&current->mm->mm_users) > 1)
		epk_hook_divert(fregs, to);
}

static void notrace before_rt_64(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	divert_sigreturn(fregs, rt_64);
}

static void __maybe_unused notrace before_rt_x32(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	divert_sigreturn(fregs, rt_x32);
}

static void __maybe_unused notrace before_rt_ia32(struct epk_hook *hook,
						  struct ftrace_regs *fregs)
{
	divert_sigreturn(fregs, rt_ia32);
}

static void __maybe_unused notrace before_old_ia32(struct epk_hook *hook,
						   struct ftrace_regs *fregs)
{
	divert_sigreturn(fregs, old_ia32);
}

static struct epk_hook sigreturn_hooks[] = {
	[RT_64] = { .symbol = "__x64_sys_rt_sigreturn", .before = before_rt_64 },
#ifdef CONFIG_X86_X32_ABI
	[RT_X32] = { .symbol = "__x64_compat_sys_x32_rt_sigreturn", .before = before_rt_x32 },
#endif
#ifdef CONFIG_IA32_EMULATION
	[RT_IA32] = { .symbol = "__ia32_compat_sys_rt_sigreturn", .before = before_rt_ia32 },
	[OLD_IA32] = { .symbol = "__ia32_compat_sys_sigreturn", .before = before_old_ia32 },
#endif
};

enum { MATHFRAME };

static struct epk_hook frame_hooks[] = {
	[MATHFRAME] = { .symbol = "fpu__alloc_mathframe", .before = before_mathframe },
	{ .symbol = "copy_fpstate_to_sigframe", .before = before_frame },
	{ .symbol = "signal_setup_done", .before = before_handler },
	{ .symbol = "restore_altstack", .before = before_altstack },
#ifdef CONFIG_COMPAT
	{ .symbol = "compat_restore_altstack", .before = before_altstack },
#endif
};

static unsigned long mathframe(unsigned long sp, int ia32, unsigned long *buf,
			       unsigned long *size)
{
	epk_hook_enter();
	sp = epk_hook_original(&frame_hooks[MATHFRAME], mathframe_fn)(frame_below(sp), ia32, buf, size);
	epk_hook_leave();
	return sp;
}

/* The handler's, which reads its frame with them; then they are lost. */
static void rights_lend(struct epk_thread *thread, unsigned long frame)
{
	thread->stack = frame;
	/* They are not worth those of what was interrupted: they stay open, unless their places go. */
	if (!epk_record_has_room(thread, read_pkru(), epk_current_ept())) {
		thread->stashed = true;
		return;
	}
	rights_stash(thread);
	write_pkru(epk_record_lend(thread, read_pkru(), epk_current_ept()));
}

/* The original takes all registers from the frame, PKRU too; but for altstack, user mode is next. */
static long guarded_sigreturn(enum sigreturn which, const struct pt_regs *regs,
			      unsigned int above)
{
	typedef long (*sigreturn_fn)(const struct pt_regs *regs);
	unsigned long frame = current_pt_regs()->sp - above;
	struct epk_thread *thread;
	u32 key0;
	long ret;

	epk_hook_enter();
	local_irq_disable();
	thread = epk_thread_find(current);
	key0 = read_pkru() & EPK_KEY0;
	if (thread)
		rights_lend(thread, frame);
	local_irq_enable();
	ret = epk_hook_original(&sigreturn_hooks[which], sigreturn_fn)(regs);
	local_irq_disable();
	thread = epk_thread_find(current);
	/* Not what the frame says, if it is none. */
	if (thread)
		write_pkru((read_pkru() & ~EPK_KEY0) | key0);
	if (thread)
		signal_return(thread, frame);
	else
		write_pkru(read_pkru() | epk_context_pkru_closed(current->mm));
	local_irq_enable();
	epk_hook_leave();
	return ret;
}

/* The return address has been taken off the stack; the old one's trampoline takes the number. */
static long rt_64(const struct pt_regs *regs)
{
	return guarded_sigreturn(RT_64, regs, 8);
}

static long __maybe_unused rt_x32(const struct pt_regs *regs)
{
	return guarded_sigreturn(RT_X32, regs, 8);
}

static long __maybe_unused rt_ia32(const struct pt_regs *regs)
{
	return guarded_sigreturn(RT_IA32, regs, 4);
}

static long __maybe_unused old_ia32(const struct pt_regs *regs)
{
	return guarded_sigreturn(OLD_IA32, regs, 8);
}

int __init epk_guard_signal_init(void)
{
	unsigned int i;
	int ret = epk_hooks_add(frame_hooks, ARRAY_SIZE(frame_hooks));

	for (i = 0; !ret && i < ARRAY_SIZE(sigreturn_hooks); i++) {
		if (sigreturn_hooks[i].symbol)
			ret = epk_hooks_add(&sigreturn_hooks[i], 1);
	}
	return ret;
}
