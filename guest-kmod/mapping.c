// SPDX-License-Identifier: GPL-2.0
/* What mappings of a domain have in common, whatever is behind them. */
#include <linux/hashtable.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "module.h"
#include "mapping.h"

/**
 * epk_mapping_init() - prepare a new mapping
 * @mapping: zeroed
 * @ctx: the context, which the VMA's file keeps
 * @vma: its VMA
 */
void epk_mapping_init(struct epk_mapping *mapping, struct epk_context *ctx,
		      const struct vm_area_struct *vma)
{
	kref_init(&mapping->ref);
	xa_init(&mapping->pages);
	mapping->ctx = ctx;
	mapping->block = EPK_NO_BLOCK;
	mapping->start = vma->vm_start;
	mapping->end = vma->vm_end;
	mapping->pgoff = vma->vm_pgoff;
}

/**
 * epk_mapping_id_at() - which domain has an address
 * @mm: the address space, locked
 * @addr: the address
 *
 * Return: the domain's ID, or 0.
 */
int epk_mapping_id_at(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(mm, addr);
	const struct epk_mapping *mapping;

	if (!vma || vma->vm_start > addr || !vma_has_mapping(vma))
		return 0;
	mapping = vma->vm_private_data;
	return mapping->dead ? 0 : mapping->id;
}

/**
 * epk_mapping_may_join() - may current map more memory of a domain
 * @ctx: the context of current->mm, locked
 * @domain: one of its domains, or NULL
 *
 * Return: 0, -ENOENT, -EPERM.
 */
int epk_mapping_may_join(struct epk_context *ctx, const struct epk_domain *domain)
{
	lockdep_assert_held(&ctx->lock);
	if (!domain)
		return -ENOENT;
	return epk_rights_may_shape(ctx, domain->id) ? 0 : -EPERM;
}

/**
 * epk_mapping_join() - make a mapping one of a domain
 * @mapping: the mapping
 * @domain: the domain, its context locked
 * @vma: its VMA
 */
void epk_mapping_join(struct epk_mapping *mapping, struct epk_domain *domain,
		      struct vm_area_struct *vma)
{
	lockdep_assert_held(&mapping->ctx->lock);

	mapping->id = domain->id;
	mapping->ept = domain->ept;
	list_add(&mapping->node, &domain->mappings);
	/* VM_IO too: without it MADV_DOFORK would take VM_DONTCOPY away. */
	epk_vm_flags_set(vma, (unsigned long)domain->pkey << VM_PKEY_SHIFT | VM_PFNMAP | VM_IO |
			 VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	epk_vm_flags_clear(vma, VM_MAYEXEC);
	vma->vm_private_data = mapping;
}

/**
 * epk_mapping_leave() - the last VMA of a mapping goes
 * @mapping: without pages
 */
void epk_mapping_leave(struct epk_mapping *mapping)
{
	mutex_lock(&mapping->ctx->lock);
	list_del(&mapping->node);
	mutex_unlock(&mapping->ctx->lock);
	xa_destroy(&mapping->pages);
}

void epk_mapping_open(struct vm_area_struct *vma)
{
	struct epk_mapping *mapping = vma->vm_private_data;

	kref_get(&mapping->ref);
}

/*
 * What nobody may access has no PTEs: on CPUs with L1TF the kernel refuses to make those of
 * an alias inaccessible, as no RAM is known to lie there.  Faults bring them back.
 */
int epk_mapping_mprotect(struct vm_area_struct *vma, unsigned long start, unsigned long end,
			 unsigned long newflags)
{
	const struct epk_mapping *mapping = vma->vm_private_data;

	if ((newflags ^ vma->vm_flags) & ARCH_VM_PKEY_FLAGS)
		return -EACCES;
	if (!mapping->dead && !epk_rights_may_shape(mapping->ctx, mapping->id))
		return -EPERM;
	if (!(newflags & VM_ACCESS_FLAGS))
		zap_vma_ptes(vma, start, end - start);
	return 0;
}

/**
 * struct unmapper - a thread in EPK_IOC_UNMAP or EPK_IOC_RESERVE
 * @node: in unmappers
 * @task: the thread
 */
struct unmapper {
	struct hlist_node node;
	struct task_struct *task;
};

/* By task, so that who has many threads here does not hold others up. */
static DEFINE_HASHTABLE(unmappers, 8);
static DEFINE_RAW_SPINLOCK(unmappers_lock);

/**
 * epk_is_unmapper() - is a thread in epk_unmap()
 * @task: the thread
 */
bool epk_is_unmapper(const struct task_struct *task)
{
	struct unmapper *unmapper;
	unsigned long flags;
	bool found = false;

	raw_spin_lock_irqsave(&unmappers_lock, flags);
	hash_for_each_possible(unmappers, unmapper, node, (unsigned long)task)
		found |= unmapper->task == task;
	raw_spin_unlock_irqrestore(&unmappers_lock, flags);
	return found;
}

/* What comes there can be no other's before who asked for it maps something else over it. */
static int reserve(u64 addr, u64 len)
{
	unsigned long ret = vm_mmap(NULL, addr, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
				    MAP_NORESERVE | MAP_FIXED, 0);

	return IS_ERR_VALUE(ret) ? (int)ret : 0;
}

/**
 * epk_unmap() - unmap domain memory for its owner
 * @mm: that of current, and of its context
 * @addr: first byte, on a page boundary
 * @len: bytes, whole pages
 * @keep: have memory that nobody can access there instead
 *
 * Return: 0, -EINVAL, -EPERM if something else lies there, and what munmap() or mmap() says.
 */
int epk_unmap(struct mm_struct *mm, u64 addr, u64 len, bool keep)
{
	struct unmapper unmapper = { .task = current };
	int ret;

	if (!len || offset_in_page(addr | len) || addr + len < addr || addr + len > TASK_SIZE)
		return -EINVAL;
	raw_spin_lock_irq(&unmappers_lock);
	hash_add(unmappers, &unmapper.node, (unsigned long)current);
	raw_spin_unlock_irq(&unmappers_lock);
	ret = keep ? reserve(addr, len) : vm_munmap(addr, len);
	raw_spin_lock_irq(&unmappers_lock);
	hash_del(&unmapper.node);
	raw_spin_unlock_irq(&unmappers_lock);
	return ret;
}
