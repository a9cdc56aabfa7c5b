// SPDX-License-Identifier: GPL-2.0
/*
 * Uprobes: root's probes in the text of a program.  Their handlers fetch what they are told to by
 * ordinary copies, on the way to user mode of the thread that has come there, and could bring in
 * domains that it holds elsewhere.  Meanwhile it holds nothing, and no access is resolved; but where
 * the kernel does in its name what the instruction would have done, or changes where it returns to.
 */
#include <linux/sched.h>
#include <linux/uaccess.h>
#include <linux/uprobes.h>

#include <asm/pkru.h>

#include "module.h"
#include "guard.h"
#include "hook.h"

#ifdef CONFIG_UPROBES

static long guarded_resume(unsigned long a, unsigned long b);
static long guarded_trampoline(unsigned long a, unsigned long b);
static long guarded_emulate(unsigned long a, unsigned long b);
static long guarded_hijack(unsigned long a, unsigned long b);

/* The second half of a probe has no handlers. */
static void notrace before_resume(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (epk_context_exists(current->mm) && !(current->utask && current->utask->active_uprobe))
		epk_hook_divert(fregs, guarded_resume);
}

static void notrace __maybe_unused before_trampoline(struct epk_hook *hook,
						     struct ftrace_regs *fregs)
{
	if (epk_context_exists(current->mm))
		epk_hook_divert(fregs, guarded_trampoline);
}

static void notrace before_emulate(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (epk_context_exists(current->mm))
		epk_hook_divert(fregs, guarded_emulate);
}

static void notrace before_hijack(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (epk_context_exists(current->mm))
		epk_hook_divert(fregs, guarded_hijack);
}

enum guard { RESUME, EMULATE, HIJACK, TRAMPOLINE };

static struct epk_hook uprobe_hooks[] = {
	[RESUME] = { .symbol = "uprobe_notify_resume", .before = before_resume },
	[EMULATE] = { .symbol = "arch_uprobe_skip_sstep", .before = before_emulate },
	[HIJACK] = { .symbol = "arch_uretprobe_hijack_return_addr", .before = before_hijack },
#ifdef EPK_HAVE_URETPROBE_CALL
	[TRAMPOLINE] = { .symbol = "uprobe_handle_trampoline", .before = before_trampoline },
#endif
};

/* False if there is nothing to put aside, or that is done. */
static bool put_aside(void)
{
	struct epk_thread *thread;
	bool done = false;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (!thread) {
		write_pkru(read_pkru() | epk_context_pkru_closed(current->mm));
	} else if (!thread->stashed) {
		write_pkru(epk_record_stash(thread, read_pkru(), epk_current_ept()));
		done = true;
	}
	local_irq_enable();
	if (done)
		pagefault_disable();
	return done;
}

/* False if nothing is put aside. */
static bool take_back(void)
{
	struct epk_thread *thread;
	bool done = false;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (thread && thread->stashed) {
		write_pkru(epk_record_unstash(thread, read_pkru() | thread->ctx->pkru_deny,
					      epk_current_ept()));
		done = true;
	}
	local_irq_enable();
	if (done)
		pagefault_enable();
	return done;
}

typedef long (*uprobe_fn)(unsigned long a, unsigned long b);

static long handled(enum guard which, unsigned long a, unsigned long b)
{
	bool aside;
	long ret;

	epk_hook_enter();
	aside = put_aside();
	ret = epk_hook_original(&uprobe_hooks[which], uprobe_fn)(a, b);
	if (aside)
		take_back();
	epk_hook_leave();
	return ret;
}

static long in_its_name(enum guard which, unsigned long a, unsigned long b)
{
	bool back;
	long ret;

	epk_hook_enter();
	back = take_back();
	ret = epk_hook_original(&uprobe_hooks[which], uprobe_fn)(a, b);
	if (back)
		put_aside();
	epk_hook_leave();
	return ret;
}

static long guarded_resume(unsigned long a, unsigned long b)
{
	return handled(RESUME, a, b);
}

static long __maybe_unused guarded_trampoline(unsigned long a, unsigned long b)
{
	return handled(TRAMPOLINE, a, b);
}

static long guarded_emulate(unsigned long a, unsigned long b)
{
	return in_its_name(EMULATE, a, b);
}

static long guarded_hijack(unsigned long a, unsigned long b)
{
	return in_its_name(HIJACK, a, b);
}

int __init epk_guard_uprobe_init(void)
{
	return epk_hooks_add(uprobe_hooks, ARRAY_SIZE(uprobe_hooks));
}

#else

int __init epk_guard_uprobe_init(void)
{
	return 0;
}

#endif
