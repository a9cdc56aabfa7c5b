// SPDX-License-Identifier: GPL-2.0
/*
 * Guards on who looks on: perf's copies of stacks and its call chains, BPF programs and the
 * probes of ftrace read user memory as the thread that they interrupt, into buffers that
 * are anybody's.  While a thread has a domain open, they read nothing of it.  Of files behind domains
 * perf hears nothing.
 */
#include <linux/perf_event.h>
#include <linux/sched.h>

#include <asm/pkru.h>

#include "module.h"
#include "guard.h"
#include "hook.h"
#include "mapping.h"

static notrace bool holds_domain(void)
{
	u32 deny;

	if (!current->mm)
		return false;
	deny = epk_context_pkru_deny(current->mm);
	return ~read_pkru() & deny;
}

/* copy_from_user_nmi(to, from, n): all is left. */
static void notrace before_copy(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (holds_domain())
		epk_hook_return(fregs, epk_hook_regs(fregs)->dx);
}

static void notrace before_nofault(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (holds_domain())
		epk_hook_return(fregs, -EFAULT);
}

/* Its error is a length of 0; what else is hooked here returns nothing. */
static void notrace before_nothing(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (holds_domain())
		epk_hook_return(fregs, 0);
}

/*
 * perf_event_mmap(vma): with the mapping of a file goes what it says that it is, some bytes of it; and
 * again each time that its protection changes.
 */
static void notrace before_mapping(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (vma_has_mapping((const struct vm_area_struct *)epk_hook_regs(fregs)->di))
		epk_hook_return(fregs, 0);
}

static struct epk_hook trace_hooks[] = {
	{ .symbol = "copy_from_user_nmi", .before = before_copy },
	{ .symbol = "perf_callchain_user", .before = before_nothing },
	{ .symbol = "arch_stack_walk_user", .before = before_nothing },
	{ .symbol = "perf_event_mmap", .before = before_mapping },
	{ .symbol = "copy_from_user_nofault", .before = before_nofault },
	{ .symbol = "strncpy_from_user_nofault", .before = before_nofault },
	{ .symbol = "strnlen_user_nofault", .before = before_nothing },
};

int __init epk_guard_trace_init(void)
{
	return epk_hooks_add(trace_hooks, ARRAY_SIZE(trace_hooks));
}
