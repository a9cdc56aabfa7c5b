// SPDX-License-Identifier: GPL-2.0
/*
 * Taking the pages of a domain out of the page tables, and mapping them again at
 * another place.  The mmap lock is held for writing, so that no fault maps one
 * meanwhile.
 */
#include <linux/sched.h>
#include <linux/smp.h>

#include <asm/tlbflush.h>

#include "module.h"
#include "mapping.h"
#include "walk.h"

/* The VMAs that are left of a mapping, in order; NULL after the last. */
static struct vm_area_struct *mapping_vma(const struct epk_mapping *mapping, unsigned long addr)
{
	struct vm_area_struct *vma;

	for (; addr < mapping->end; addr = vma->vm_end) {
		vma = find_vma(mapping->ctx->mm, addr);
		if (!vma || vma->vm_start >= mapping->end)
			break;
		if (vma_has_mapping(vma) && vma->vm_private_data == mapping)
			return vma;
	}
	return NULL;
}

#define for_each_mapping_vma(vma, mapping)					\
	for (vma = mapping_vma(mapping, (mapping)->start); vma;			\
	     vma = mapping_vma(mapping, vma->vm_end))

static void mapping_zap(struct epk_mapping *mapping)
{
	struct vm_area_struct *vma;

	if (xa_empty(&mapping->pages))
		return;
	for_each_mapping_vma(vma, mapping) {
		zap_vma_ptes(vma, vma->vm_start, vma->vm_end - vma->vm_start);
		cond_resched();
	}
}

/**
 * epk_domain_unmap() - take a domain that is about to go out of the page tables
 * @ctx: the context, locked, and its mm locked for writing
 * @domain: one of its domains
 */
void epk_domain_unmap(struct epk_context *ctx, struct epk_domain *domain)
{
	struct epk_mapping *mapping, *next;

	lockdep_assert_held_write(&ctx->mm->mmap_lock);
	lockdep_assert_held(&ctx->lock);

	list_for_each_entry_safe(mapping, next, &domain->mappings, node) {
		mapping->dead = true;
		list_del_init(&mapping->node);
		mapping_zap(mapping);
	}
}

/**
 * epk_domain_zap() - take a domain that moves out of the page tables
 * @ctx: the context, locked, and its mm locked for writing
 * @domain: one of its domains
 *
 * No TLB knows its pages any more when this returns.
 */
void epk_domain_zap(struct epk_context *ctx, struct epk_domain *domain)
{
	struct epk_mapping *mapping;

	lockdep_assert_held_write(&ctx->mm->mmap_lock);
	lockdep_assert_held(&ctx->lock);

	list_for_each_entry(mapping, &domain->mappings, node)
		mapping_zap(mapping);
}

/**
 * epk_domain_fits() - can the window of an EPT show all pages of a domain
 * @domain: the domain, its context locked and its mm locked for writing
 * @ept: index of an EPT that the context holds
 *
 * Slots of the window that are free are filled for it.
 */
bool epk_domain_fits(struct epk_domain *domain, unsigned int ept)
{
	struct epk_mapping *mapping;
	unsigned long index, alias;
	void *entry;

	list_for_each_entry(mapping, &domain->mappings, node) {
		if (mapping->block == EPK_NO_BLOCK)
			continue;
		if (mapping->block != EPK_MANY_BLOCKS) {
			if (epk_ept_alias(ept, mapping->block << EPK_BLOCK_PFN_BITS, &alias))
				return false;
			continue;
		}
		xa_for_each(&mapping->pages, index, entry) {
			struct page *page = mapping_entry_page(entry, 0);

			if (epk_ept_alias(ept, page_to_pfn(page), &alias))
				return false;
			cond_resched();
		}
	}
	return true;
}

/* A PMD or PTEs may map what lies up to here. */
static unsigned long map_unit_end(const struct epk_mapping *mapping, unsigned long addr,
				  unsigned long end)
{
	return mapping->huge ? pmd_addr_end(addr, end) : end;
}

struct remap {
	struct epk_mapping *mapping;
	struct mm_struct *mm;
	pgprot_t prot;
};

static int pte_remap(pte_t *pte, unsigned long addr, void *data)
{
	struct remap *remap = data;
	struct epk_mapping *mapping = remap->mapping;
	struct page *page = mapping_page(mapping, (addr - mapping->start) >> PAGE_SHIFT);
	unsigned long alias;

	/* What does not get mapped here is mapped when it is touched. */
	if (page && pte_none(*pte) &&
	    !epk_ept_alias_known(mapping->ept, page_to_pfn(page), &alias))
		set_pte_at(remap->mm, addr, pte, pte_mkspecial(pfn_pte(alias, remap->prot)));
	return 0;
}

static pgprot_t vma_prot(const struct vm_area_struct *vma)
{
	const struct epk_mapping *mapping = vma->vm_private_data;

	return mapping->file ? vma->vm_page_prot : mapping_prot(vma);
}

/**
 * epk_mapping_map() - map the pages that a mapping has, unless nobody may access them
 * @vma: one of its VMAs
 * @start: first address in it
 * @end: the address behind the last
 *
 * Return: 0, -ENOMEM.
 */
int epk_mapping_map(struct vm_area_struct *vma, unsigned long start, unsigned long end)
{
	struct remap remap = {
		.mapping = vma->vm_private_data, .mm = vma->vm_mm, .prot = vma_prot(vma),
	};
	unsigned long next;
	int ret = 0;

	if (!(vma->vm_flags & VM_ACCESS_FLAGS))
		return 0;
	for (; start < end && !ret; start = next) {
		next = map_unit_end(remap.mapping, start, end);
		if (!epk_huge_remap(vma, start))
			ret = apply_to_page_range(vma->vm_mm, start, next - start, pte_remap,
						  &remap);
	}
	return ret;
}

/* The pages of a VMA, a run of neighbours at a time, which is no longer than a page table. */
static void vma_map(struct vm_area_struct *vma)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	unsigned long index, end, last = vma_first_page(vma) + vma_pages(vma) - 1;
	void *entry;

	xa_for_each_range(&mapping->pages, index, entry, vma_first_page(vma), last) {
		for (end = index + 1; end <= last && end % PTRS_PER_PTE; end++) {
			if (!xa_load(&mapping->pages, end))
				break;
		}
		/* What fails for want of memory is mapped when it is touched. */
		epk_mapping_map(vma, mapping->start + (index << PAGE_SHIFT),
				mapping->start + (end << PAGE_SHIFT));
		index = end - 1;
		cond_resched();
	}
}

/* What PTEs of present pages in the same slot have in common. */
#define PTE_SLOT	((PTE_PFN_MASK & GENMASK_ULL(63, KVM_EPK_BLOCK_SHIFT)) | _PAGE_PRESENT)

/**
 * struct rewrite - how to get from the old PTEs of a VMA to the new ones
 * @mapping: the VMA's mapping, in its new EPT
 * @mm: its address space
 * @prot: its new protection
 * @slot: the PTE_SLOT bits of the page for which the next two were found out
 * @distance: bytes from the old slot to the new one
 * @key: the bits in which the keys differ
 */
struct rewrite {
	struct epk_mapping *mapping;
	struct mm_struct *mm;
	pgprot_t prot;
	pteval_t slot;
	pteval_t distance;
	pteval_t key;
};

/* The first page of a slot. */
static noinline void pte_rewrite_slow(pte_t *pte, unsigned long addr, struct rewrite *rewrite)
{
	struct epk_mapping *mapping = rewrite->mapping;
	struct page *page = mapping_page(mapping, (addr - mapping->start) >> PAGE_SHIFT);
	unsigned long pfn = pte_pfn(*pte), alias;
	pteval_t old = pte_val(*pte);

	if (WARN_ON_ONCE(!page) ||
	    WARN_ON_ONCE(epk_ept_alias_known(mapping->ept, page_to_pfn(page), &alias))) {
		pte_clear(rewrite->mm, addr, pte);
		return;
	}
	if (old & _PAGE_PRESENT) {
		rewrite->slot = old & PTE_SLOT;
		rewrite->distance = (pteval_t)(alias - pfn) << PAGE_SHIFT;
		rewrite->key = (old ^ pgprot_val(rewrite->prot)) & _PAGE_PKEY_MASK;
	}
	set_pte_at(rewrite->mm, addr, pte, pte_mkspecial(pfn_pte(alias, rewrite->prot)));
}

static void pte_rewrite(pte_t *pte, unsigned long addr, void *data)
{
	struct rewrite *rewrite = data;
	pteval_t old = pte_val(*pte);

	if (unlikely((old & PTE_SLOT) != rewrite->slot))
		pte_rewrite_slow(pte, addr, rewrite);
	else
		set_pte_at(rewrite->mm, addr, pte,
			   __pte((old + rewrite->distance) ^ rewrite->key));
}

static void vma_rewrite(struct vm_area_struct *vma)
{
	struct rewrite rewrite = {
		.mapping = vma->vm_private_data, .mm = vma->vm_mm, .prot = vma_prot(vma),
	};
	unsigned long addr, next;
	pmd_t *pmd;

	for (addr = vma->vm_start; addr < vma->vm_end; addr = next) {
		pmd = walk_pmd(rewrite.mm, addr, vma->vm_end, &next);
		cond_resched();
		if (!pmd || (rewrite.mapping->huge && epk_huge_rewrite(vma, pmd, addr)))
			continue;
		walk_ptes(rewrite.mm, pmd, addr, next, pte_rewrite, &rewrite);
	}
}

static void vma_set_pkey(struct vm_area_struct *vma, u8 pkey)
{
	unsigned long key = (unsigned long)pkey << VM_PKEY_SHIFT;

	epk_vm_flags_clear(vma, ARCH_VM_PKEY_FLAGS);
	epk_vm_flags_set(vma, key);
	/* The rest of it may be mprotect()'s. */
	pgprot_val(vma->vm_page_prot) &= ~_PAGE_PKEY_MASK;
	pgprot_val(vma->vm_page_prot) |= pgprot_val(vm_get_page_prot(key)) & _PAGE_PKEY_MASK;
}

/* What a domain has is at its new place from now on, and @show makes the page tables say so. */
static void domain_show(struct epk_context *ctx, struct epk_domain *domain,
			void (*show)(struct vm_area_struct *vma))
{
	struct epk_mapping *mapping;
	struct vm_area_struct *vma;

	lockdep_assert_held_write(&ctx->mm->mmap_lock);
	lockdep_assert_held(&ctx->lock);

	list_for_each_entry(mapping, &domain->mappings, node) {
		mapping->ept = domain->ept;
		for_each_mapping_vma(vma, mapping) {
			vma_set_pkey(vma, domain->pkey);
			if (domain->pkey && !xa_empty(&mapping->pages))
				show(vma);
			cond_resched();
		}
	}
}

/**
 * epk_domain_map() - map the pages of a domain at its new place
 * @ctx: the context, locked, and its mm locked for writing
 * @domain: one of its domains, not in the page tables, its new place set
 */
void epk_domain_map(struct epk_context *ctx, struct epk_domain *domain)
{
	domain_show(ctx, domain, vma_map);
}

/**
 * epk_domain_rewrite() - let the page tables say the new place of a domain
 * @ctx: the context, locked, and its mm locked for writing
 * @domain: one of its domains, its new place set; nobody has a right to that yet
 *
 * epk_flush() is due afterwards.
 */
void epk_domain_rewrite(struct epk_context *ctx, struct epk_domain *domain)
{
	domain_show(ctx, domain, vma_rewrite);
}

static void flush_cpu(void *unused)
{
	__flush_tlb_all();
}

/**
 * epk_flush() - make all CPUs forget PTEs that were overwritten
 * @mm: the address space; interrupts are on
 *
 * The kernel exports no flush of one address space.  A CPU that runs in @mm is in
 * the mask and flushes now; one that is not sees from the generation that it has to
 * when it comes back to @mm.  It enters the mask before it looks at that.
 */
void epk_flush(struct mm_struct *mm)
{
	atomic64_inc(&mm->context.tlb_gen);
	/* Pairs with cpumask_set_cpu() in switch_mm_irqs_off(). */
	smp_mb__after_atomic();
	on_each_cpu_mask(mm_cpumask(mm), flush_cpu, NULL, true);
}
