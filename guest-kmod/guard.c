// SPDX-License-Identifier: GPL-2.0
/*
 * Guards on system calls that know nothing of domains, by kprobes: pkey_free() of
 * a key that carries domains, after which pkey_alloc() would hand the key to
 * anybody; sigreturn, which takes PKRU from user memory; and mbind(), which looks
 * for a struct page where there is none.
 *
 * They are armed while a context is in use, and cost other programs nothing
 * before.  A kernel without kprobes has none; the log says so.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/linkage.h>
#include <linux/mutex.h>
#include <linux/pagewalk.h>
#include <linux/ptrace.h>

#include <asm/ibt.h>
#include <asm/pkru.h>

#include "epk.h"
#include "region.h"

#ifdef CONFIG_KPROBES

/* Where a function that is not to run goes instead: back to its caller. */
void epk_guard_return(void);
asm(
	".pushsection .text\n"
	".type epk_guard_return, @function\n"
	"epk_guard_return:\n"
	ASM_ENDBR
	ASM_RET
	".size epk_guard_return, . - epk_guard_return\n"
	".popsection\n"
);

static int refuse_pkey_free(struct pt_regs *regs, unsigned long pkey)
{
	if (pkey >= EPK_NR_PKEYS || !(epk_context_pkeys(current->mm) & BIT(pkey)))
		return 0;
	regs_set_return_value(regs, -EPERM);
	regs->ip = (unsigned long)epk_guard_return;
	return 1;
}

/* The argument of a system call's entry is the registers of user mode. */
static int pkey_free_64(struct kprobe *probe, struct pt_regs *regs)
{
	const struct pt_regs *user = (const struct pt_regs *)regs->di;

	return refuse_pkey_free(regs, (u32)user->di);
}

static int pkey_free_32(struct kprobe *probe, struct pt_regs *regs)
{
	const struct pt_regs *user = (const struct pt_regs *)regs->di;

	return refuse_pkey_free(regs, (u32)user->bx);
}

/* All ways of sigreturn come here once PKRU and the registers are restored. */
static int sigreturn(struct kprobe *probe, struct pt_regs *regs)
{
	struct epk_thread *thread;
	unsigned long flags;

	local_irq_save(flags);
	thread = epk_thread_find(current);
	if (!thread)
		write_pkru(read_pkru() | epk_context_pkru_deny(current->mm));
	else if (thread->signals)
		epk_signal_return(thread);
	local_irq_restore(flags);
	return 0;
}

/* A probe that has this one is not optimised, and so may change the path. */
static void after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

#ifdef CONFIG_NUMA

typedef int (*test_walk_fn)(unsigned long start, unsigned long end, struct mm_walk *walk);

/* Marks a walk that numa_test_walk() has seen to, in a field that it does not use. */
#define WALK_SEEN		((pgd_t *)&numa_test_walk)

static test_walk_fn walk_entry;

/*
 * Of all walkers of page tables only mbind() with MPOL_MF_STRICT asks for the node
 * of what a PMD maps although VM_PFNMAP says that there is no struct page.  So
 * there is no PMD when it does: the pages come back by faults.
 */
static int numa_test_walk(unsigned long start, unsigned long end, struct mm_walk *walk)
{
	struct mm_walk seen = *walk;

	zap_vma_ptes(walk->vma, start, end - start);
	seen.pgd = WALK_SEEN;
	return walk_entry(start, end, &seen);
}

static int numa_walk(struct kprobe *probe, struct pt_regs *regs)
{
	const struct mm_walk *walk = (const struct mm_walk *)regs->dx;
	unsigned long addr = (unsigned long)probe->addr;

	if (walk->vma->vm_ops != &epk_domain_vm_ops || walk->pgd == WALK_SEEN)
		return 0;
	/* The probe may lie behind the ENDBR that indirect calls want. */
	if (is_endbr(*(u32 *)(addr - ENDBR_INSN_SIZE)))
		addr -= ENDBR_INSN_SIZE;
	walk_entry = (test_walk_fn)addr;
	regs->ip = (unsigned long)numa_test_walk;
	return 1;
}

#endif

static struct guard {
	struct kprobe probe;
	const char *what;
	bool registered;
	bool armed;
} guards[] = {
	{ .probe = { .symbol_name = "restore_altstack", .pre_handler = sigreturn },
	  .what = "sigreturn" },
	{ .probe = { .symbol_name = "__x64_sys_pkey_free", .pre_handler = pkey_free_64,
		     .post_handler = after }, .what = "pkey_free" },
	{ .probe = { .symbol_name = "__ia32_sys_pkey_free", .pre_handler = pkey_free_32,
		     .post_handler = after } },
	{ .probe = { .symbol_name = "compat_restore_altstack", .pre_handler = sigreturn } },
#ifdef CONFIG_NUMA
	{ .probe = { .symbol_name = "queue_pages_test_walk", .pre_handler = numa_walk,
		     .post_handler = after }, .what = "mbind" },
#endif
};

static DEFINE_MUTEX(guards_lock);
static unsigned int guards_users;

/**
 * epk_guards_init() - find out which guards there can be
 */
void epk_guards_init(void)
{
	struct guard *guard;
	int ret;

	for (guard = guards; guard < guards + ARRAY_SIZE(guards); guard++) {
		guard->probe.flags = KPROBE_FLAG_DISABLED;
		ret = register_kprobe(&guard->probe);
		guard->registered = !ret;
		/* A kernel without 32-bit programs lacks what they call. */
		if (ret && guard->what)
			pr_notice("%s is not guarded (%d)\n", guard->what, ret);
	}
}

/**
 * epk_guards_exit() - undo it; no context is in use
 */
void epk_guards_exit(void)
{
	struct guard *guard;

	for (guard = guards; guard < guards + ARRAY_SIZE(guards); guard++) {
		if (guard->registered)
			unregister_kprobe(&guard->probe);
	}
}

/**
 * epk_guards_get() - a context comes into use
 */
void epk_guards_get(void)
{
	struct guard *guard;

	mutex_lock(&guards_lock);
	if (!guards_users++) {
		for (guard = guards; guard < guards + ARRAY_SIZE(guards); guard++) {
			guard->armed = guard->registered && !enable_kprobe(&guard->probe);
			if (guard->registered && !guard->armed)
				pr_warn("%s stays unguarded\n", guard->probe.symbol_name);
		}
	}
	mutex_unlock(&guards_lock);
}

/**
 * epk_guards_put() - a context goes out of use
 */
void epk_guards_put(void)
{
	struct guard *guard;

	mutex_lock(&guards_lock);
	if (!--guards_users) {
		for (guard = guards; guard < guards + ARRAY_SIZE(guards); guard++) {
			if (guard->registered)
				disable_kprobe(&guard->probe);
		}
	}
	mutex_unlock(&guards_lock);
}

/**
 * epk_guards_signals() - is sigreturn guarded
 */
bool epk_guards_signals(void)
{
	return guards[0].registered;
}

/**
 * epk_guards_walks() - can all walkers of page tables bear PMDs of domains
 */
bool epk_guards_walks(void)
{
#ifdef CONFIG_NUMA
	return READ_ONCE(guards[ARRAY_SIZE(guards) - 1].armed);
#else
	return true;
#endif
}

#else /* !CONFIG_KPROBES */

void epk_guards_init(void)
{
	pr_notice("pkey_free and sigreturn are not guarded: the kernel has no kprobes\n");
}

void epk_guards_exit(void)
{
}

void epk_guards_get(void)
{
}

void epk_guards_put(void)
{
}

bool epk_guards_signals(void)
{
	return false;
}

bool epk_guards_walks(void)
{
	return !IS_ENABLED(CONFIG_NUMA);
}

#endif /* CONFIG_KPROBES */
