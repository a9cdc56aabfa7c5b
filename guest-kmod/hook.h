/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hooks on functions of the kernel, for the files that guard with them.
 */
#ifndef EPK_HOOK_H
#define EPK_HOOK_H

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/ftrace.h>

/**
 * struct epk_hook - a function of the kernel that does not run unseen
 * @symbol: its name
 * @before: called as it is entered, not where this module calls it.  May be in any
 *	context, NMI included, and must neither sleep nor be traced: notrace
 * @late: it is not armed with the others, and not yet
 * @entry: its first instruction
 */
struct epk_hook {
	const char *symbol;
	void (*before)(struct epk_hook *hook, struct ftrace_regs *fregs);
	bool late;
	unsigned long entry;
};

int epk_hooks_add(struct epk_hook *hooks, unsigned int num);
int epk_hooks_arm(void);
int epk_hook_arm_late(struct epk_hook *hook);
void epk_hooks_disarm(void);
bool epk_hooks_alive(void);

/* Where a function that is not to run goes instead: back to its caller. */
void epk_hook_go_back(void);

#ifdef ftrace_regs_set_instruction_pointer
#define epk_hook_regs(fregs)	(&arch_ftrace_regs(fregs)->regs)
#define epk_hook_divert(fregs, func)						\
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)(func))
#else
#define epk_hook_regs(fregs)	(&(fregs)->regs)
#define epk_hook_divert(fregs, func)						\
	ftrace_instruction_pointer_set(fregs, (unsigned long)(func))
#endif

/* The function does not run, and its caller gets @value. */
static __always_inline void epk_hook_return(struct ftrace_regs *fregs, long value)
{
	epk_hook_regs(fregs)->ax = value;
	epk_hook_divert(fregs, epk_hook_go_back);
}

/*
 * What a function is diverted to holds the module's text from its first statement to its
 * last, and calls the original in between.
 */
extern atomic_t epk_hooks_inside;

static __always_inline void epk_hook_enter(void)
{
	atomic_inc(&epk_hooks_inside);
}

static __always_inline void epk_hook_leave(void)
{
	/* No tail call: the original tells by its return address that it was called from here. */
	barrier();
	atomic_dec(&epk_hooks_inside);
}

#define epk_hook_original(hook, type)	((type)(hook)->entry)

#endif /* EPK_HOOK_H */
