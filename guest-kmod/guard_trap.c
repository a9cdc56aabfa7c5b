// SPDX-License-Identifier: GPL-2.0
/*
 * Faults in private domains: what an instruction does there that raises a signal otherwise has
 * the thread go on where the process has said, which leaves the domain.  What page faults do comes
 * here from guard_fault.c; but for SIGBUS, which passes where the signals of other exceptions do.
 *
 * There is no end to it only if what leaves the domain faults: that is known by where it lies.
 *
 * Elsewhere it goes on where who has called it waits, if that was by EPK_IOC_CATCH.
 */
#include <linux/mman.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>

#include <asm/trap_pf.h>
#include <asm/trapnr.h>

#include "module.h"
#include "guard.h"
#include "hook.h"

/* Interrupts are off. */
static bool may_leave(const struct epk_thread *thread, const struct pt_regs *regs)
{
	if (!thread || thread->stashed || current->mm != thread->ctx->mm ||
	    !user_64bit_mode((struct pt_regs *)regs))
		return false;
	return !epk_gates_have(thread->ctx, regs->ip);
}

/* Where to.  It is set before the gates are, and once. */
static unsigned long fault_of(const struct epk_thread *thread)
{
	/* Pairs with epk_gates_set(). */
	return smp_load_acquire(&thread->ctx->nr_gates) ? thread->ctx->fault : 0;
}

static bool leave_private(const struct epk_thread *thread, struct pt_regs *regs)
{
	unsigned long to = fault_of(thread);

	if (to)
		regs->ip = to;
	return to;
}

/**
 * epk_trap_prot() - what a page fault was about
 * @error_code: the CPU's
 */
unsigned int epk_trap_prot(unsigned long error_code)
{
	if (error_code & X86_PF_INSTR)
		return PROT_EXEC;
	return error_code & X86_PF_WRITE ? PROT_WRITE : PROT_READ;
}

/**
 * epk_trap_leave() - let current leave the private domain, or the call, in which it has faulted
 * @regs: its registers, of user mode
 * @trap: what it has done; a private domain's is its own affair
 *
 * Return: false if it is in none, or the process has not said where to go.
 */
bool epk_trap_leave(struct pt_regs *regs, const struct epk_trap *trap)
{
	struct epk_thread *thread;
	unsigned long flags;
	bool left = false;

	if (!user_mode(regs))
		return false;
	local_irq_save(flags);
	thread = epk_thread_find(current);
	if (may_leave(thread, regs))
		left = epk_record_has_private(thread) ? leave_private(thread, regs) :
							epk_rights_catch(thread, regs, trap);
	if (left) {
		regs->flags &= ~(X86_EFLAGS_TF | X86_EFLAGS_DF | X86_EFLAGS_AC);
		/* The next signal is not for this. */
		current->thread.trap_nr = 0;
	}
	local_irq_restore(flags);
	return left;
}

/*
 * Has the instruction of user mode done it, for which a signal is sent now?  The kernel notes which
 * exception it is before it sends one for it; it also sends some, of other kinds, for what
 * it could not do on the way to user mode.
 */
static bool is_exception(int sig)
{
	if (task_pt_regs(current)->orig_ax != -1ul)
		return false;
	switch (current->thread.trap_nr) {
	case X86_TRAP_DE:
	case X86_TRAP_MF:
	case X86_TRAP_XF:
		return sig == SIGFPE;
	case X86_TRAP_UD:
		return sig == SIGILL;
	case X86_TRAP_OF:
	case X86_TRAP_BR:
	case X86_TRAP_GP:
		return sig == SIGSEGV;
	case X86_TRAP_NP:
	case X86_TRAP_SS:
	case X86_TRAP_AC:
		return sig == SIGBUS;
	default:
		return false;
	}
}

static void notrace leave(struct ftrace_regs *fregs, const struct epk_trap *trap)
{
	if (epk_trap_leave(task_pt_regs(current), trap))
		epk_hook_return(fregs, 0);
}

/* force_sig(sig) */
static void notrace before_force_sig(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	struct epk_trap trap = { .sig = (int)epk_hook_regs(fregs)->di, .code = SI_KERNEL };

	if (current->mm && epk_context_exists(current->mm) && is_exception(trap.sig))
		leave(fregs, &trap);
}

/* force_sig_fault(sig, code, addr), also of page faults, and of instructions that the kernel emulates */
static void notrace before_force_sig_fault(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	const struct pt_regs *args = epk_hook_regs(fregs);
	struct epk_trap trap = { .sig = (int)args->di, .code = (int)args->si, .addr = args->dx };

	if (!current->mm || !epk_context_exists(current->mm))
		return;
	if (current->thread.trap_nr == X86_TRAP_PF && (trap.sig == SIGSEGV || trap.sig == SIGBUS))
		trap.prot = epk_trap_prot(current->thread.error_code);
	if (trap.prot || is_exception(trap.sig))
		leave(fregs, &trap);
}

static struct epk_hook trap_hooks[] = {
	{ .symbol = "force_sig_fault", .before = before_force_sig_fault },
	{ .symbol = "force_sig", .before = before_force_sig },
};

int __init epk_guard_trap_init(void)
{
	return epk_hooks_add(trap_hooks, ARRAY_SIZE(trap_hooks));
}
