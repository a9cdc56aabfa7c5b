/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The mappings of a domain, for the files that deal with them.
 */
#ifndef EPK_MAPPING_H
#define EPK_MAPPING_H

#include <linux/kref.h>
#include <linux/mm.h>
#include <linux/xarray.h>

#include "module.h"

/* A domain's offsets are 2^40 bytes apart. */
#define MAPPING_PAGE_BITS	(40 - PAGE_SHIFT)
#define MAPPING_PAGES		BIT(MAPPING_PAGE_BITS)
#define MAPPING_PAGE_MASK	(MAPPING_PAGES - 1)

/**
 * struct epk_mapping - the memory of one mmap() of a domain
 * @ref: one for each VMA that it was split into
 * @node: in the domain's list, under the context's lock
 * @ctx: the context, kept by each VMA's file
 * @start: first address; VMAs do not move, see vma_in_place()
 * @end: the address behind it
 * @pgoff: page offset of @start, in the device's numbers or in the file
 * @id: the domain
 * @ept: the domain's EPT or EPK_EPT_NONE; changes under the mmap lock, held for
 *	writing
 * @dead: the domain was freed; changes likewise
 * @file: its pages are a file's, mapped with the protection that the VMA has
 * @huge: it may have memory by 2 MiB
 * @block: the one block of RAM that all its pages lie in, or one of the two below
 * @pages: page index from @start -> page, or the first of 2 MiB, see mapping_page()
 */
struct epk_mapping {
	struct kref ref;
	struct list_head node;
	struct epk_context *ctx;
	unsigned long start;
	unsigned long end;
	pgoff_t pgoff;
	int id;
	u16 ept;
	bool dead;
	bool file;
	bool huge;
	unsigned long block;
	struct xarray pages;
};

/* Values of epk_mapping.block for no page, and for pages of several blocks. */
#define EPK_NO_BLOCK		(~0UL)
#define EPK_MANY_BLOCKS		(~1UL)

/* A page comes into a mapping: before its PTE does, under the mmap lock. */
static inline void mapping_note_block(struct epk_mapping *mapping, const struct page *page)
{
	unsigned long block = page_to_pfn(page) >> EPK_BLOCK_PFN_BITS;
	unsigned long old = READ_ONCE(mapping->block);

	if (old == EPK_NO_BLOCK)
		old = cmpxchg(&mapping->block, EPK_NO_BLOCK, block);
	if (old != EPK_NO_BLOCK && old != block)
		WRITE_ONCE(mapping->block, EPK_MANY_BLOCKS);
}

/* As many pages as a PMD maps, side by side: the entry of them all is the first, tagged. */
#define MAPPING_HUGE_ORDER	(PMD_SHIFT - PAGE_SHIFT)
#define MAPPING_HUGE_PAGES	BIT(MAPPING_HUGE_ORDER)
#define MAPPING_HUGE_TAG	1

static inline void *mapping_huge_entry(struct page *first)
{
	return xa_tag_pointer(first, MAPPING_HUGE_TAG);
}

static inline bool mapping_is_huge(const void *entry)
{
	return xa_pointer_tag((void *)entry) == MAPPING_HUGE_TAG;
}

/* The page that an entry of a mapping has for an index. */
static inline struct page *mapping_entry_page(void *entry, pgoff_t index)
{
	if (!mapping_is_huge(entry))
		return entry;
	return (struct page *)xa_untag_pointer(entry) + (index & (MAPPING_HUGE_PAGES - 1));
}

static inline struct page *mapping_page(struct epk_mapping *mapping, pgoff_t index)
{
	return mapping_entry_page(xa_load(&mapping->pages, index), index);
}

static inline pgoff_t vma_first_page(const struct vm_area_struct *vma)
{
	const struct epk_mapping *mapping = vma->vm_private_data;

	return vma->vm_pgoff - mapping->pgoff;
}

/*
 * The VMAs of a mapping share its range between them: each owns the pages at
 * its addresses.  A VMA elsewhere is one that mremap() made and is about to
 * take back; its pages are not its own.
 */
static inline bool vma_in_place(const struct vm_area_struct *vma)
{
	const struct epk_mapping *mapping = vma->vm_private_data;

	return vma->vm_start - mapping->start == vma_first_page(vma) << PAGE_SHIFT;
}

/**
 * mapping_count_pages() - a mapping gets pages, or loses some
 * @mapping: the mapping
 * @member: the counter of its address space, by which the OOM killer knows who has them
 * @pages: how many more
 */
static inline void mapping_count_pages(struct epk_mapping *mapping, int member, long pages)
{
	atomic_long_add(pages, &mapping->ctx->pages);
	atomic_long_add(pages, &epk_counters.pages);
	epk_add_mm_counter(mapping->ctx->mm, member, pages);
}

/*
 * With what protection memory that is not a file's is mapped.  In the VMA's own nothing is
 * writable while soft-dirty bits are counted, and a PMD would not become so by a write.
 */
static inline pgprot_t mapping_prot(const struct vm_area_struct *vma)
{
	return vm_get_page_prot(vma->vm_flags);
}

/* mapping.c */
void epk_mapping_init(struct epk_mapping *mapping, struct epk_context *ctx,
		      const struct vm_area_struct *vma);
void epk_mapping_join(struct epk_mapping *mapping, struct epk_domain *domain,
		      struct vm_area_struct *vma);
void epk_mapping_leave(struct epk_mapping *mapping);
void epk_mapping_open(struct vm_area_struct *vma);
int epk_mapping_id_at(struct mm_struct *mm, unsigned long addr);
int epk_mapping_may_join(struct epk_context *ctx, const struct epk_domain *domain);
int epk_mapping_mprotect(struct vm_area_struct *vma, unsigned long start, unsigned long end,
			 unsigned long newflags);
bool epk_is_unmapper(const struct task_struct *task);
int epk_unmap(struct mm_struct *mm, u64 addr, u64 len, bool keep);

/* remap.c */
int epk_mapping_map(struct vm_area_struct *vma, unsigned long start, unsigned long end);

/* memory.c */
extern const struct vm_operations_struct epk_domain_vm_ops;

/* Does it belong to a mapping, whatever is behind it?  No others are opened like that. */
static inline bool vma_has_mapping(const struct vm_area_struct *vma)
{
	return vma->vm_ops && vma->vm_ops->open == epk_mapping_open;
}

/*
 * A PMD without struct page behind it needs one of these bits, and taking the entry of
 * 2 MiB apart nodes that are not the small ones: xas_split() goes down two of them.
 */
#if defined(CONFIG_TRANSPARENT_HUGEPAGE) &&					\
	(defined(CONFIG_ARCH_HAS_PTE_DEVMAP) || defined(CONFIG_ARCH_SUPPORTS_PMD_PFNMAP)) && \
	2 * XA_CHUNK_SHIFT >= MAPPING_HUGE_ORDER
#define EPK_HUGE
#endif

/* huge.c */
#ifdef EPK_HUGE
bool epk_huge_may(struct vm_area_struct *vma);
int epk_huge_may_split(struct vm_area_struct *vma, unsigned long addr);
bool epk_huge_fill(struct vm_area_struct *vma, unsigned long addr);
bool epk_huge_map(struct vm_area_struct *vma, unsigned long addr, pmd_t *pmd,
		  unsigned long alias);
bool epk_huge_remap(struct vm_area_struct *vma, unsigned long addr);
bool epk_huge_rewrite(struct vm_area_struct *vma, pmd_t *pmd, unsigned long addr);
#else
static inline bool epk_huge_may(struct vm_area_struct *vma)
{
	return false;
}

static inline int epk_huge_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	return 0;
}

static inline bool epk_huge_fill(struct vm_area_struct *vma, unsigned long addr)
{
	return false;
}

static inline bool epk_huge_map(struct vm_area_struct *vma, unsigned long addr, pmd_t *pmd,
				unsigned long alias)
{
	return false;
}

static inline bool epk_huge_remap(struct vm_area_struct *vma, unsigned long addr)
{
	return false;
}

static inline bool epk_huge_rewrite(struct vm_area_struct *vma, pmd_t *pmd, unsigned long addr)
{
	return false;
}
#endif

#endif /* EPK_MAPPING_H */
