// SPDX-License-Identifier: GPL-2.0
/*
 * Guards on memory, against callers that know nothing of domains:
 *
 * - What unmaps domain memory or maps over it: munmap(), mmap(MAP_FIXED), mremap(), brk(),
 *   shmat(SHM_REMAP), remap_file_pages().  Only who owns the domain may, by EPK_IOC_UNMAP.
 * - A mmap() of this module's that is to replace something is checked before that goes.
 * - Who writes with page faults off, and fails, asks for the page and tries again, futexes
 *   above all.  The kernel knows keys and no EPTs: it would say yes for ever.  For futexes
 *   an access is made instead.
 * - Who takes page frames out of page tables finds aliases, which no key protects.
 * - mbind() looks for a struct page where there is none.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagewalk.h>
#include <linux/ptrace.h>
#include <linux/sched.h>

#include <asm/futex.h>

#include "module.h"
#include "file.h"
#include "guard.h"
#include "hook.h"
#include "mapping.h"

/* Does something lie there that domains need: their memory, what says where they are? */
static bool is_kept(const struct vm_area_struct *vma)
{
	const struct epk_mapping *mapping = vma->vm_private_data;
	const struct epk_context *ctx;

	if (vma_has_mapping(vma))
		return !mapping->dead && vma_in_place(vma);
	/* See epk_vma_mremap(). */
	if (!epk_vma_is_table_mapping(vma) || vma->vm_private_data)
		return false;
	ctx = vma->vm_file->private_data;
	return READ_ONCE(ctx->nr_domains);
}

/* Who asks by EPK_IOC_UNMAP; not for where a private domain lies, nor for what says that. */
static bool is_owned(const struct vm_area_struct *vma)
{
	const struct epk_mapping *mapping = vma->vm_private_data;
	const struct epk_context *ctx;

	if (vma_has_mapping(vma))
		return mapping->dead || epk_rights_may_shape(mapping->ctx, mapping->id);
	if (!epk_vma_is_table_mapping(vma))
		return false;
	ctx = vma->vm_file->private_data;
	return !READ_ONCE(ctx->nr_private);
}

/* The mmap lock is held for writing. */
static notrace bool may_unmap(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	bool owner = epk_is_unmapper(current);
	struct vm_area_struct *vma;
	unsigned long addr;

	for (addr = start; addr < end; addr = vma->vm_end) {
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start >= end)
			return true;
		if (owner ? !is_owned(vma) : is_kept(vma))
			return false;
	}
	return true;
}

/* do_*_align_munmap(?, ?, mm, start, end, ...) */
static void notrace before_munmap(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	const struct pt_regs *args = epk_hook_regs(fregs);
	struct mm_struct *mm = (struct mm_struct *)args->dx;

	if (epk_context_exists(mm) && !may_unmap(mm, args->cx, args->r8))
		epk_hook_return(fregs, -EPERM);
}

static unsigned long guarded_mmap_region(struct file *file, unsigned long addr,
					 unsigned long len, unsigned long vm_flags,
					 unsigned long pgoff, struct list_head *uf);

static void notrace before_mmap_region(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	const struct pt_regs *args = epk_hook_regs(fregs);
	struct mm_struct *mm = current->mm;
	struct file *file = (struct file *)args->di;
	struct vm_area_struct *vma;

	if (!(file && epk_file_is_device(file)) && !epk_context_exists(mm))
		return;
	vma = find_vma(mm, args->si);
	if (!vma || vma->vm_start >= args->si + args->dx)
		return;
	if (!may_unmap(mm, args->si, args->si + args->dx))
		epk_hook_return(fregs, -EPERM);
	else if (file && file->f_op->owner == THIS_MODULE)
		epk_hook_divert(fregs, guarded_mmap_region);
}

/* Interrupts off. */
static notrace bool may_fault(const struct vm_area_struct *vma, bool write)
{
	const struct epk_mapping *mapping = vma->vm_private_data;
	struct epk_thread *thread = epk_thread_find(current);

	/* By the EPT that the thread is in; its keys are looked at by the original. */
	if (epk_is_in(READ_ONCE(mapping->ept), epk_current_ept()))
		return true;
	return thread && thread->follows && thread->ctx == mapping->ctx &&
	       mapping->ept != EPK_EPT_NONE &&
	       epk_rights_reach(thread, mapping->id, mapping->ept, vma_pkey((void *)vma), write);
}

/*
 * fixup_user_fault(mm, address, flags, ...): the mmap lock is held, and not kept by who calls for
 * another process.
 */
static void notrace before_user_fault(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	const struct pt_regs *args = epk_hook_regs(fregs);
	struct mm_struct *mm = (struct mm_struct *)args->di;
	struct vm_area_struct *vma;
	unsigned long flags;
	bool may;

	if (!epk_context_exists(mm))
		return;
	vma = find_vma(mm, args->si);
	if (!vma || vma->vm_start > args->si || !vma_has_mapping(vma))
		return;
	local_irq_save(flags);
	may = mm == current->mm && may_fault(vma, args->dx & FAULT_FLAG_WRITE);
	local_irq_restore(flags);
	if (!may)
		epk_hook_return(fregs, -EFAULT);
}

static int guarded_futex_fault(u32 __user *word);

static void notrace before_futex_fault(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	if (current->mm && epk_context_exists(current->mm))
		epk_hook_divert(fregs, guarded_futex_fault);
}

#ifdef EPK_HAVE_FOLLOW_PFNMAP

static void notrace before_follow(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	const struct follow_pfnmap_args *args = (const void *)epk_hook_regs(fregs)->di;

	if (vma_has_mapping(args->vma))
		epk_hook_return(fregs, -EFAULT);
}

#else

/* follow_pte(mm, address, ...), the mmap lock held */
static void notrace before_follow(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	const struct pt_regs *args = epk_hook_regs(fregs);
	struct mm_struct *mm = (struct mm_struct *)args->di;
	struct vm_area_struct *vma;

	if (!epk_context_exists(mm))
		return;
	vma = find_vma(mm, args->si);
	if (vma && vma->vm_start <= args->si && vma_has_mapping(vma))
		epk_hook_return(fregs, -EFAULT);
}

#endif

#ifdef CONFIG_NUMA

static int guarded_test_walk(unsigned long start, unsigned long end, struct mm_walk *walk);

static void notrace before_test_walk(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	const struct mm_walk *walk = (const struct mm_walk *)epk_hook_regs(fregs)->dx;

	if (walk->vma->vm_ops == &epk_domain_vm_ops)
		epk_hook_divert(fregs, guarded_test_walk);
}

#endif

enum guard { MMAP, MUNMAP, FAULT, FUTEX, FOLLOW, TEST_WALK };

static struct epk_hook memory_hooks[] = {
	[MMAP] = { .symbol = "mmap_region", .before = before_mmap_region },
#ifdef EPK_HAVE_VMA_ITERATOR_MUNMAP
	[MUNMAP] = { .symbol = "do_vmi_align_munmap", .before = before_munmap },
#else
	[MUNMAP] = { .symbol = "do_mas_align_munmap", .before = before_munmap },
#endif
	[FAULT] = { .symbol = "fixup_user_fault", .before = before_user_fault },
	[FUTEX] = { .symbol = "fault_in_user_writeable", .before = before_futex_fault },
#ifdef EPK_HAVE_FOLLOW_PFNMAP
	[FOLLOW] = { .symbol = "follow_pfnmap_start", .before = before_follow },
#else
	[FOLLOW] = { .symbol = "follow_pte", .before = before_follow },
#endif
#ifdef CONFIG_NUMA
	[TEST_WALK] = { .symbol = "queue_pages_test_walk", .before = before_test_walk },
#endif
};

/* What lies there goes as soon as the original runs. */
static unsigned long guarded_mmap_region(struct file *file, unsigned long addr,
					 unsigned long len, unsigned long vm_flags,
					 unsigned long pgoff, struct list_head *uf)
{
	unsigned long ret;

	epk_hook_enter();
	if (epk_file_is_device(file))
		ret = epk_mmap_prepare(file, addr, len, vm_flags, pgoff);
	else
		ret = epk_file_prepare(file);
	if (!ret) {
		ret = epk_hook_original(&memory_hooks[MMAP], typeof(&guarded_mmap_region))(
			file, addr, len, vm_flags, pgoff, uf);
		if (epk_file_is_device(file))
			epk_mmap_unprepare(file, len);
	}
	epk_hook_leave();
	return ret;
}

/*
 * The original asks what would be allowed, and cannot bring a domain that has no place.  An access
 * comes to guard_fault.c, which can, and sees what is asked for in turns.
 */
static int guarded_futex_fault(u32 __user *word)
{
	u32 value;
	int ret;

	epk_hook_enter();
	ret = futex_atomic_cmpxchg_inatomic(&value, word, 0, 0);
	epk_hook_leave();
	return ret;
}

#ifdef CONFIG_NUMA

/*
 * Of all walkers of page tables only mbind() with MPOL_MF_STRICT asks for the node
 * of what a PMD maps although VM_PFNMAP says that there is no struct page.  So
 * there is no PMD when it does: the pages come back by faults.
 */
static int guarded_test_walk(unsigned long start, unsigned long end, struct mm_walk *walk)
{
	int ret;

	epk_hook_enter();
	zap_vma_ptes(walk->vma, start, end - start);
	ret = epk_hook_original(&memory_hooks[TEST_WALK], typeof(&guarded_test_walk))(start, end,
										 walk);
	epk_hook_leave();
	return ret;
}

#endif

int __init epk_guard_memory_init(void)
{
	return epk_hooks_add(memory_hooks, ARRAY_SIZE(memory_hooks));
}
