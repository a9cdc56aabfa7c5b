/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What later kernels name otherwise.  The base is Linux 6.1; Kbuild looks for
 * the rest in the kernel's headers.
 */
#ifndef EPK_COMPAT_H
#define EPK_COMPAT_H

#include <linux/mm.h>
#include <linux/percpu_counter.h>
#include <linux/syscore_ops.h>

#ifndef EPK_HAVE_VM_FLAGS_SET

static inline void epk_vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}

static inline void epk_vm_flags_clear(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags &= ~flags;
}

#else

static inline void epk_vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vm_flags_set(vma, flags);
}

static inline void epk_vm_flags_clear(struct vm_area_struct *vma, unsigned long flags)
{
	vm_flags_clear(vma, flags);
}

#endif

/* add_mm_counter(), whose tracepoint no module reaches. */
static inline void epk_add_mm_counter(struct mm_struct *mm, int member, long pages)
{
#ifdef EPK_HAVE_MM_RSS_STAT
	atomic_long_add(pages, &mm->rss_stat.count[member]);
#else
	percpu_counter_add(&mm->rss_stat[member], pages);
#endif
}

/* Threads of the kernel's own in a process, before and since they are not only io_uring's. */
#ifdef PF_USER_WORKER
#define EPK_PF_USER_WORKER	PF_USER_WORKER
#else
#define EPK_PF_USER_WORKER	0
#endif

#ifdef EPK_HAVE_REGISTER_SYSCORE

#define EPK_SYSCORE_ARG	void *data

#else

#define EPK_SYSCORE_ARG	void

struct syscore {
	struct syscore_ops *ops;
};

static inline void register_syscore(struct syscore *syscore)
{
	register_syscore_ops(syscore->ops);
}

static inline void unregister_syscore(struct syscore *syscore)
{
	unregister_syscore_ops(syscore->ops);
}

#endif

#endif /* EPK_COMPAT_H */
