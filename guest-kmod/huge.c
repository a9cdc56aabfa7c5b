// SPDX-License-Identifier: GPL-2.0
/*
 * Domain memory by 2 MiB.
 *
 * Where a mapping has all of an aligned range of 2 MiB and no page in it yet, the
 * first touch gives it 512 pages that lie side by side, and one PMD maps them.
 * They are one entry of the mapping.  Before a VMA is cut inside such a range the
 * entry becomes as many as there are pages, each freed by itself; the kernel drops
 * the PMD, and the pages come back by PTEs.  Nothing fails for want of 2 MiB.
 *
 * A range has no page, or the one entry, or some of its pages, and does not get from
 * one of the last two to the other but under the mmap lock, held for writing.  So
 * whoever has seen a page there knows whether a PMD or PTEs are to map it, and
 * nobody makes a page table where another thread sets the PMD.
 *
 * Kernels have ways of their own to tell a PMD without struct page from others, and
 * there are walkers of page tables that know none of them: see guard_memory.c.
 */
#include <linux/mm.h>
#include <linux/mempolicy.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>
#include <linux/sched/coredump.h>
#include <linux/string.h>

#include "module.h"
#include "mapping.h"
#include "walk.h"

#ifdef EPK_HUGE

/* At once or not at all: 4 KiB will do.  Zeroed and charged as those are. */
#define HUGE_GFP	((GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOMEMALLOC | __GFP_NOWARN) & \
			 ~__GFP_RECLAIM)

enum huge_policy { HUGE_ALWAYS, HUGE_MADVISE, HUGE_NEVER };

static const char *const policies[] = { "always", "madvise", "never" };
static int policy = HUGE_ALWAYS;

static int policy_set(const char *value, const struct kernel_param *kp)
{
	int ret = sysfs_match_string(policies, value);

	if (ret < 0)
		return ret;
	WRITE_ONCE(policy, ret);
	return 0;
}

static int policy_get(char *buffer, const struct kernel_param *kp)
{
	return sprintf(buffer, "%s\n", policies[policy]);
}

static const struct kernel_param_ops policy_ops = {
	.set = policy_set,
	.get = policy_get,
};
/* No module can read the switch of that name below /sys/kernel/mm. */
module_param_cb(transparent_hugepage, &policy_ops, NULL, 0644);
MODULE_PARM_DESC(transparent_hugepage,
		 "domain memory by 2 MiB: always (default), madvise, never; MADV_NOHUGEPAGE and PR_SET_THP_DISABLE count as well");

/**
 * epk_huge_may() - may a new mapping have its memory by 2 MiB at all
 * @vma: its VMA
 */
bool epk_huge_may(struct vm_area_struct *vma)
{
	return IS_ALIGNED(vma->vm_start, PMD_SIZE) && vma_pages(vma) >= MAPPING_HUGE_PAGES &&
	       boot_cpu_has(X86_FEATURE_PSE);
}

/* Is it wanted here?  What mbind() was called on takes its pages one by one. */
static bool is_wanted(struct vm_area_struct *vma)
{
	int now = READ_ONCE(policy);

	if (now == HUGE_NEVER || (now == HUGE_MADVISE && !(vma->vm_flags & VM_HUGEPAGE)))
		return false;
	return !(vma->vm_flags & VM_NOHUGEPAGE) && !vma_policy(vma) &&
	       !test_bit(MMF_DISABLE_THP, &vma->vm_mm->flags);
}

/* Does the VMA have all of the 2 MiB around an address? */
static bool has_range(const struct vm_area_struct *vma, unsigned long addr)
{
	unsigned long start = addr & PMD_MASK;

	return start >= vma->vm_start && vma->vm_end - start >= PMD_SIZE;
}

static pgoff_t first_index(const struct epk_mapping *mapping, unsigned long addr)
{
	return ((addr & PMD_MASK) - mapping->start) >> PAGE_SHIFT;
}

/* Only if the range has no page. */
static bool huge_store(struct epk_mapping *mapping, pgoff_t first, struct page *page)
{
	XA_STATE_ORDER(xas, &mapping->pages, first, MAPPING_HUGE_ORDER);
	bool stored;

	do {
		xas_lock(&xas);
		stored = !xas_find_conflict(&xas);
		if (stored)
			xas_store(&xas, mapping_huge_entry(page));
		xas_unlock(&xas);
	} while (xas_nomem(&xas, GFP_KERNEL_ACCOUNT));
	return stored && !xas_error(&xas);
}

/**
 * epk_huge_fill() - give the 2 MiB around an address their pages at once
 * @vma: a VMA of a domain, in place; the mmap lock is held
 * @addr: an address in it
 *
 * Return: false if that is not possible or not wanted.
 */
bool epk_huge_fill(struct vm_area_struct *vma, unsigned long addr)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	pgoff_t first = first_index(mapping, addr), index = first;
	unsigned long alias;
	struct page *page;

	if (!mapping->huge || !has_range(vma, addr) || !is_wanted(vma) ||
	    xa_find(&mapping->pages, &index, first + MAPPING_HUGE_PAGES - 1, XA_PRESENT))
		return false;
	page = alloc_pages(HUGE_GFP, MAPPING_HUGE_ORDER);
	if (!page)
		return false;
	if (epk_ept_alias(mapping->ept, page_to_pfn(page), &alias))
		goto free;
	mapping_note_block(mapping, page);
	if (!huge_store(mapping, first, page))
		goto free;
	mapping_count_pages(mapping, MM_SHMEMPAGES, MAPPING_HUGE_PAGES);
	return true;
free:
	__free_pages(page, MAPPING_HUGE_ORDER);
	return false;
}

/* Is a PMD to map this address?  There is a page. */
static bool is_huge(struct vm_area_struct *vma, unsigned long addr)
{
	struct epk_mapping *mapping = vma->vm_private_data;

	return mapping_is_huge(xa_load(&mapping->pages, first_index(mapping, addr)));
}

/**
 * epk_huge_may_split() - a VMA is about to be cut
 * @vma: a VMA of a domain; the mmap lock is held for writing
 * @addr: where
 *
 * Return: 0, -ENOMEM.
 */
int epk_huge_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	pgoff_t first = first_index(mapping, addr);
	XA_STATE(xas, &mapping->pages, first);
	struct page *page;
	unsigned int i;

	if (!mapping->huge || IS_ALIGNED(addr, PMD_SIZE) || !vma_in_place(vma) ||
	    !is_huge(vma, addr))
		return 0;
	page = mapping_page(mapping, first);
	xas_split_alloc(&xas, page, MAPPING_HUGE_ORDER, GFP_KERNEL_ACCOUNT);
	if (xas_error(&xas))
		return xas_error(&xas);

	split_page(page, MAPPING_HUGE_ORDER);
	xas_lock(&xas);
	xas_split(&xas, page, MAPPING_HUGE_ORDER);
	for (i = 0; i < MAPPING_HUGE_PAGES; i++) {
		xas_set(&xas, first + i);
		xas_store(&xas, page + i);
	}
	xas_unlock(&xas);
	return 0;
}

/* @alias: of any page of the range */
static pmd_t huge_pmd(const struct vm_area_struct *vma, unsigned long alias)
{
	pmd_t pmd = pmd_mkhuge(pfn_pmd(ALIGN_DOWN(alias, MAPPING_HUGE_PAGES), mapping_prot(vma)));

#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
	return pmd_mkspecial(pmd);
#else
	/* With this get_user_pages_fast() looks for a pagemap first, and finds none. */
	return pmd_mkdevmap(pmd);
#endif
}

/**
 * epk_huge_map() - map 2 MiB at a fault
 * @vma: a VMA of a domain, in place; the mmap lock is held
 * @addr: an address in it for which there is a page
 * @pmd: its entry in the page tables
 * @alias: where the EPT's window shows that page
 *
 * Return: false if PTEs are to map it.
 */
bool epk_huge_map(struct vm_area_struct *vma, unsigned long addr, pmd_t *pmd,
		  unsigned long alias)
{
	spinlock_t *lock;
	bool mapped;

	if (!is_huge(vma, addr))
		return false;
	lock = pmd_lock(vma->vm_mm, pmd);
	if (pmd_none(*pmd))
		set_pmd_at(vma->vm_mm, addr & PMD_MASK, pmd, huge_pmd(vma, alias));
	/* Else a page table has been left here. */
	mapped = pmd_leaf(*pmd);
	spin_unlock(lock);
	return mapped;
}

static struct page *first_page(struct epk_mapping *mapping, unsigned long addr)
{
	return mapping_page(mapping, first_index(mapping, addr));
}

/**
 * epk_huge_remap() - map 2 MiB outside a fault, as far as the page tables reach
 * @vma: a VMA of a domain, in place; the mmap lock is held
 * @addr: an address in it for which there is a page, or no other thread
 *
 * Return: false if PTEs are to map it; else it is mapped now, or when it is touched.
 */
bool epk_huge_remap(struct vm_area_struct *vma, unsigned long addr)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	unsigned long alias, next;
	pmd_t *pmd = walk_pmd(vma->vm_mm, addr, addr + 1, &next);

	/* Also where a cut was about to be made that was not. */
	if (pmd && pmd_leaf(*pmd))
		return true;
	if (!is_huge(vma, addr))
		return false;
	if (!pmd || epk_ept_alias_known(mapping->ept, page_to_pfn(first_page(mapping, addr)),
					&alias))
		return true;
	return epk_huge_map(vma, addr, pmd, alias);
}

/**
 * epk_huge_rewrite() - let a PMD say the new place of its pages
 * @vma: a VMA of a domain, in place; the mmap lock is held for writing
 * @pmd: the PMD
 * @addr: an address in the VMA that it is for
 *
 * Return: false if it maps none itself.
 */
bool epk_huge_rewrite(struct vm_area_struct *vma, pmd_t *pmd, unsigned long addr)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	unsigned long alias;
	spinlock_t *lock;
	bool mapped;

	lock = pmd_lock(vma->vm_mm, pmd);
	mapped = pmd_leaf(*pmd);
	if (mapped && !WARN_ON_ONCE(epk_ept_alias_known(mapping->ept,
							page_to_pfn(first_page(mapping, addr)),
							&alias)))
		set_pmd_at(vma->vm_mm, addr & PMD_MASK, pmd, huge_pmd(vma, alias));
	else if (mapped)
		pmd_clear(pmd);
	spin_unlock(lock);
	return mapped;
}

#endif /* EPK_HUGE */
