// SPDX-License-Identifier: GPL-2.0
/*
 * Guards on who looks on: perf's copies of stacks and its call chains, BPF programs and the
 * probes of ftrace read user memory as the thread that they interrupt, into buffers that
 * are anybody's.  They meet all domains closed.
 */
#include <linux/ftrace.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/stacktrace.h>

#include <asm/pkru.h>

#include "epk.h"
#include "guard.h"
#include "hook.h"

/**
 * struct closed - what a thread gets back
 * @flags: interrupts are off, so that nothing is revoked meanwhile
 * @pkru: what it had
 */
struct closed {
	unsigned long flags;
	u32 pkru;
};

static void domains_close(struct closed *closed)
{
	epk_hook_enter();
	local_irq_save(closed->flags);
	closed->pkru = read_pkru();
	write_pkru(closed->pkru | epk_context_pkru_deny(current->mm));
}

static void domains_open(const struct closed *closed)
{
	write_pkru(closed->pkru);
	local_irq_restore(closed->flags);
	epk_hook_leave();
}

#define LOOK(n, ret_type, name, params, args)					\
static ret_type guarded_##name params						\
{										\
	typedef ret_type (*look_fn) params;					\
	struct closed closed;							\
	ret_type ret;								\
										\
	domains_close(&closed);							\
	ret = epk_hook_original(&trace_hooks[n], look_fn) args;			\
	domains_open(&closed);							\
	return ret;								\
}										\
										\
static void notrace before_##name(struct epk_hook *hook, struct ftrace_regs *fregs) \
{										\
	if (current->mm && epk_context_exists(current->mm))			\
		epk_hook_divert(fregs, guarded_##name);				\
}

#define LOOK_VOID(n, name, params, args)					\
static void guarded_##name params						\
{										\
	typedef void (*look_fn) params;						\
	struct closed closed;							\
										\
	domains_close(&closed);							\
	epk_hook_original(&trace_hooks[n], look_fn) args;			\
	domains_open(&closed);							\
}										\
										\
static void notrace before_##name(struct epk_hook *hook, struct ftrace_regs *fregs) \
{										\
	if (current->mm && epk_context_exists(current->mm))			\
		epk_hook_divert(fregs, guarded_##name);				\
}

enum look { NMI, NOFAULT, NOFAULT_STRING, NOFAULT_LENGTH, CALLCHAIN, WALK };

static struct epk_hook trace_hooks[];

LOOK(NMI, unsigned long, copy_from_user_nmi,
     (void *to, const void __user *from, unsigned long n), (to, from, n))
LOOK(NOFAULT, long, copy_from_user_nofault,
     (void *to, const void __user *from, size_t n), (to, from, n))
LOOK(NOFAULT_STRING, long, strncpy_from_user_nofault,
     (char *to, const void __user *from, long n), (to, from, n))
LOOK(NOFAULT_LENGTH, long, strnlen_user_nofault,
     (const void __user *from, long n), (from, n))
LOOK_VOID(CALLCHAIN, perf_callchain_user,
	  (struct perf_callchain_entry_ctx *entry, struct pt_regs *regs), (entry, regs))
LOOK_VOID(WALK, arch_stack_walk_user,
	  (stack_trace_consume_fn consume, void *cookie, const struct pt_regs *regs),
	  (consume, cookie, regs))

#define HOOK(name)	{ .symbol = #name, .before = before_##name }

static struct epk_hook trace_hooks[] = {
	[NMI] = HOOK(copy_from_user_nmi),
	[NOFAULT] = HOOK(copy_from_user_nofault),
	[NOFAULT_STRING] = HOOK(strncpy_from_user_nofault),
	[NOFAULT_LENGTH] = HOOK(strnlen_user_nofault),
	[CALLCHAIN] = HOOK(perf_callchain_user),
	[WALK] = HOOK(arch_stack_walk_user),
};

int __init epk_guard_trace_init(void)
{
	return epk_hooks_add(trace_hooks, ARRAY_SIZE(trace_hooks));
}
