// SPDX-License-Identifier: GPL-2.0
/*
 * Guards on keys and rights: pkey_free() of a key that carries domains, after which
 * pkey_alloc() would hand it to anybody; PKRU as a debugger sets it, as KVM in this guest
 * gives it back to a thread that has run a virtual CPU, as pkey_alloc() and execute-only
 * memory change it for another key, and as a thread of the kernel has it that comes to use the
 * memory of a process.
 */
#include <linux/hashtable.h>
#include <linux/kthread.h>
#include <linux/ptrace.h>
#include <linux/regset.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/wait_bit.h>

#include <asm/pkru.h>

#include "module.h"
#include "guard.h"
#include "hook.h"

/**
 * struct freeing - a pkey_free() under way
 * @node: in freeings
 * @mm: whose key it is
 */
struct freeing {
	struct hlist_node node;
	struct mm_struct *mm;
};

/* By address space, so that who has many threads here does not hold others up. */
static DEFINE_HASHTABLE(freeings, 8);
static DEFINE_SPINLOCK(freeing_lock);

/* -EPERM for a key that is a context's, -EAGAIN while EPK_IOC_INIT may make it one. */
static int freeing_begin(struct freeing *freeing, u32 pkey)
{
	bool starting;
	int ret = 0;

	freeing->mm = current->mm;
	spin_lock(&freeing_lock);
	if (pkey < EPK_NR_PKEYS && epk_context_pkeys(current->mm, &starting) & BIT(pkey))
		ret = starting ? -EAGAIN : -EPERM;
	else
		hash_add(freeings, &freeing->node, (unsigned long)freeing->mm);
	spin_unlock(&freeing_lock);
	return ret;
}

static void freeing_end(struct freeing *freeing)
{
	spin_lock(&freeing_lock);
	hash_del(&freeing->node);
	spin_unlock(&freeing_lock);
	epk_guard_key_decided(freeing->mm);
}

static bool is_freeing(struct mm_struct *mm)
{
	struct freeing *freeing;
	bool found = false;

	spin_lock(&freeing_lock);
	hash_for_each_possible(freeings, freeing, node, (unsigned long)mm)
		found |= freeing->mm == mm;
	spin_unlock(&freeing_lock);
	return found;
}

/**
 * epk_guard_key_settle() - wait for each pkey_free() that began too early to be refused
 * @mm: an address space whose context has its keys
 *
 * Return: 0, -EINTR.
 */
int epk_guard_key_settle(struct mm_struct *mm)
{
	return wait_var_event_killable(mm, !is_freeing(mm)) ? -EINTR : 0;
}

/**
 * epk_guard_key_decided() - who waits for others' use of keys may look again
 * @mm: in this address space; waiters of others stay asleep, but for the few by the same hash
 */
void epk_guard_key_decided(struct mm_struct *mm)
{
	/* Before wake_up_var() looks whether somebody waits. */
	smp_mb();
	wake_up_var(mm);
}

typedef long (*syscall_fn)(const struct pt_regs *regs);

/* The argument of a system call's entry is the registers of user mode. */
static long guarded_pkey_free(struct epk_hook *hook, const struct pt_regs *regs, u32 pkey)
{
	struct freeing freeing;
	long ret = 0;
	int killed;

	epk_hook_enter();
	killed = wait_var_event_killable(current->mm,
					 (ret = freeing_begin(&freeing, pkey)) != -EAGAIN);
	if (killed)
		ret = -EINTR;
	if (!ret) {
		epk_dawdle();
		ret = epk_hook_original(hook, syscall_fn)(regs);
		freeing_end(&freeing);
	}
	epk_hook_leave();
	return ret;
}

static long pkey_free_64(const struct pt_regs *regs);
static long __maybe_unused pkey_free_32(const struct pt_regs *regs);
static int guarded_xstate(struct task_struct *target, const struct user_regset *regset,
			  unsigned int pos, unsigned int count, const void *kbuf,
			  const void __user *ubuf);

static void notrace before_pkey_free_64(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	epk_hook_divert(fregs, pkey_free_64);
}

static void __maybe_unused notrace before_pkey_free_32(struct epk_hook *hook,
						       struct ftrace_regs *fregs)
{
	epk_hook_divert(fregs, pkey_free_32);
}

static int guarded_set_access(struct task_struct *task, int pkey, unsigned long rights);

static void notrace before_set_access(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	epk_hook_divert(fregs, guarded_set_access);
}

static void guarded_use_mm(struct mm_struct *mm);

static void notrace before_use_mm(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	epk_hook_divert(fregs, guarded_use_mm);
}

static void notrace before_xstate(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	epk_hook_divert(fregs, guarded_xstate);
}

/*
 * KVM remembers PKRU when it loads a virtual CPU, and at each exit writes what it remembers.  It
 * is about to put the virtual CPU: nothing writes any more.
 */
static void notrace before_vcpu_put(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	struct epk_thread *thread;
	unsigned long flags;
	u32 deny;

	if (!current->mm || !epk_context_exists(current->mm))
		return;
	local_irq_save(flags);
	thread = epk_thread_find(current);
	deny = thread ? thread->undone : epk_context_pkru_closed(current->mm);
	if (thread)
		thread->undone = 0;
	write_pkru(read_pkru() | deny);
	/* What came meanwhile. */
	if (thread)
		write_pkru(epk_record_settle(thread, read_pkru(), epk_current_ept()));
	local_irq_restore(flags);
}

enum guard { VCPU_PUT, FREE_64, SET_ACCESS, USE_MM, XSTATE, FREE_32 };

static struct epk_hook key_hooks[] = {
	[VCPU_PUT] = { .symbol = "preempt_notifier_unregister", .before = before_vcpu_put },
	[FREE_64] = { .symbol = "__x64_sys_pkey_free", .before = before_pkey_free_64 },
	[SET_ACCESS] = { .symbol = "arch_set_user_pkey_access", .before = before_set_access },
	[USE_MM] = { .symbol = "kthread_use_mm", .before = before_use_mm },
	[XSTATE] = { .symbol = "xstateregs_set", .before = before_xstate },
#ifdef CONFIG_IA32_EMULATION
	[FREE_32] = { .symbol = "__ia32_sys_pkey_free", .before = before_pkey_free_32 },
#endif
};

static long pkey_free_64(const struct pt_regs *regs)
{
	return guarded_pkey_free(&key_hooks[FREE_64], regs, regs->di);
}

static long __maybe_unused pkey_free_32(const struct pt_regs *regs)
{
	return guarded_pkey_free(&key_hooks[FREE_32], regs, regs->bx);
}

/*
 * The original reads PKRU, changes a key's bits and writes it.  What is revoked in between, by
 * an interrupt or while the thread is not running, would be open again.
 */
static int guarded_set_access(struct task_struct *task, int pkey, unsigned long rights)
{
	unsigned long flags;
	int ret;

	epk_hook_enter();
	local_irq_save(flags);
	ret = epk_hook_original(&key_hooks[SET_ACCESS], typeof(&guarded_set_access))(task, pkey,
										     rights);
	local_irq_restore(flags);
	epk_hook_leave();
	return ret;
}

/* @target does not run; its record may meet a batch all the same. */
static void target_stash(struct task_struct *target, bool away)
{
	struct thread_struct *saved = &target->thread;
	struct epk_thread *thread;
	unsigned long flags;

	preempt_disable();
	thread = epk_thread_find(target);
	if (thread) {
		raw_spin_lock_irqsave(&thread->ctx->threads_lock, flags);
		if (away)
			saved->pkru = epk_record_stash(thread, saved->pkru, thread->ept);
		else
			saved->pkru = epk_record_unstash(thread, saved->pkru |
							 thread->ctx->pkru_deny, thread->ept);
		raw_spin_unlock_irqrestore(&thread->ctx->threads_lock, flags);
	} else {
		saved->pkru |= epk_context_pkru_closed(target->mm);
	}
	preempt_enable();
}

/*
 * A thread of the kernel comes to a process by no switch and no birth, and has the keys that
 * programs start with: all, where root says so.  The original has a full barrier behind the
 * store to current->mm, so epk_unregistered_add_all() sees it, or this here the context.
 */
static void guarded_use_mm(struct mm_struct *mm)
{
	u32 deny;

	epk_hook_enter();
	epk_hook_original(&key_hooks[USE_MM], typeof(&guarded_use_mm))(mm);
	local_irq_disable();
	deny = epk_context_enter(mm);
	/* They stay closed, so only who comes before EPK_IOC_INIT is through has to lose them. */
	if (!deny && epk_context_exists(mm))
		epk_unregistered_add(current);
	write_pkru(read_pkru() | deny);
	local_irq_enable();
	epk_hook_leave();
}

/*
 * PTRACE_SETREGSET writes PKRU with all other state.  What @target has of its context's
 * keys stays as it is.
 */
static int guarded_xstate(struct task_struct *target, const struct user_regset *regset,
			  unsigned int pos, unsigned int count, const void *kbuf,
			  const void __user *ubuf)
{
	bool guarded = epk_context_exists(target->mm);
	int ret;

	epk_hook_enter();
	if (guarded)
		target_stash(target, true);
	ret = epk_hook_original(&key_hooks[XSTATE], typeof(&guarded_xstate))(target, regset, pos,
									     count, kbuf, ubuf);
	if (guarded)
		target_stash(target, false);
	epk_hook_leave();
	return ret;
}

int __init epk_guard_key_init(void)
{
	return epk_hooks_add(key_hooks, ARRAY_SIZE(key_hooks));
}
