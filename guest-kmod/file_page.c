// SPDX-License-Identifier: GPL-2.0
/*
 * The pages of domains over a file.
 *
 * The kernel finds the mappings of a page by its inode, but not the PTEs that hold
 * an alias.  So it is told by the page's map count that there are any, tells in turn
 * which addresses are about to lose the page or to be written back, through the MMU
 * notifier, and the PTEs go then.  A mapping has a page, its reference and its
 * map count exactly as long as it has a PTE for it.
 */
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/vmstat.h>
#include <linux/writeback.h>

#include "module.h"
#include "file.h"
#include "map_count.h"
#include "trace.h"
#include "walk.h"

static void pte_zap(pte_t *pte, unsigned long addr, void *data)
{
	ptep_get_and_clear(data, addr, pte);
}

static void page_zap(struct mm_struct *mm, unsigned long addr)
{
	unsigned long next;
	pmd_t *pmd = walk_pmd(mm, addr, addr + PAGE_SIZE, &next);

	if (pmd)
		walk_ptes(mm, pmd, addr, next, pte_zap, mm);
}

/* As mm_counter_file() has it. */
static int page_counter(struct page *page)
{
	return folio_test_swapbacked(page_folio(page)) ? MM_SHMEMPAGES : MM_FILEPAGES;
}

static void page_drop(struct epk_mapping *mapping, unsigned long index)
{
	struct page *page;

	/* Who finds the page gone must find its count lowered. */
	xa_lock(&mapping->pages);
	page = __xa_erase(&mapping->pages, index);
	if (page)
		page_map_count_dec(page);
	xa_unlock(&mapping->pages);
	if (!page)
		return;
	mapping_count_pages(mapping, page_counter(page), -1);
	put_page(page);
}

/*
 * What was mapped is mapped again when it is touched.  Page tables stay while this
 * runs: the caller holds the mmap lock or the lock of the file's mappings, and no
 * mapping has a page where it has no VMA any more.
 */
static bool file_invalidate(struct mmu_interval_notifier *notifier,
			    const struct mmu_notifier_range *range, unsigned long seq)
{
	struct epk_mapping *mapping =
		&container_of(notifier, struct epk_file_mapping, notifier)->mapping;
	unsigned long start = max(range->start, mapping->start);
	unsigned long last = min(range->end, mapping->end) - 1;
	pgoff_t from = (start - mapping->start) >> PAGE_SHIFT;
	pgoff_t to = (last - mapping->start) >> PAGE_SHIFT;
	unsigned long index;
	struct page *page;
	bool found = false;

	/* A fault that does not see this here has its page in the mapping before it goes on. */
	xa_lock(&mapping->pages);
	mmu_interval_set_seq(notifier, seq);
	xa_unlock(&mapping->pages);
	epk_dawdle();

	xa_for_each_range(&mapping->pages, index, page, from, to) {
		page_zap(range->mm, mapping->start + (index << PAGE_SHIFT));
		found = true;
	}
	if (!found)
		return true;
	epk_flush(range->mm);
	xa_for_each_range(&mapping->pages, index, page, from, to)
		page_drop(mapping, index);
	return true;
}

const struct mmu_interval_notifier_ops epk_file_notifier_ops = {
	.invalidate = file_invalidate,
};

struct establish {
	struct epk_file_mapping *file;
	struct page *page;
	pgoff_t index;
	pte_t pte;
	unsigned long seq;
};

/*
 * Does nothing if something happened to the page: asked under the lock that file_invalidate()
 * takes to say so, and not left before the page is where that looks for it.  There is room;
 * if it is gone again, this may fail.
 */
static bool page_store(const struct establish *e)
{
	struct epk_mapping *mapping = &e->file->mapping;
	bool stored;

	xa_lock(&mapping->pages);
	stored = !mmu_interval_read_retry(&e->file->notifier, e->seq);
	epk_dawdle();
	if (stored)
		stored = !xa_err(__xa_store(&mapping->pages, e->index, e->page, GFP_NOWAIT));
	if (stored) {
		get_page(e->page);
		page_map_count_inc(e->page);
	}
	xa_unlock(&mapping->pages);
	return stored;
}

/* Under the page table lock, which file_invalidate() takes if it finds the page. */
static int pte_establish(pte_t *pte, unsigned long addr, void *data)
{
	const struct establish *e = data;
	struct epk_mapping *mapping = &e->file->mapping;

	if (!pte_none(*pte)) {
		/* The mapping has this page, so who makes it go comes by here. */
		if (pte_pfn(*pte) == pte_pfn(e->pte) && !pte_write(*pte) &&
		    !mmu_interval_read_retry(&e->file->notifier, e->seq))
			set_pte_at(mapping->ctx->mm, addr, pte, e->pte);
		return 0;
	}
	if (!page_store(e))
		return 0;
	epk_dawdle();
	mapping_count_pages(mapping, page_counter(e->page), 1);
	set_pte_at(mapping->ctx->mm, addr, pte, e->pte);
	return 0;
}

static int pte_nothing(pte_t *pte, unsigned long addr, void *data)
{
	return 0;
}

/*
 * Ask the filesystem for a page that can be written to: blocks reserved, no
 * write-back on its way.  VM_FAULT_LOCKED: it can, and is locked.
 */
static vm_fault_t page_mkwrite(struct vm_fault *vmf, struct page *page)
{
	const struct vm_operations_struct *lower = vma_file_mapping(vmf->vma)->lower;
	const struct epk_backing *backing = vmf->vma->vm_file->private_data;
	struct address_space *space = vmf->vma->vm_file->f_mapping;
	unsigned int flags = vmf->flags;
	vm_fault_t ret;

	if (IS_SWAPFILE(space->host))
		return VM_FAULT_SIGBUS;
	/* By our file, whose path is the device's, it would be up to the mount of that. */
	sb_start_pagefault(space->host->i_sb);
	file_update_time(backing->lower);
	sb_end_pagefault(space->host->i_sb);
	if (!lower->page_mkwrite)
		return 0;
	vmf->page = page;
	vmf->flags = FAULT_FLAG_WRITE | FAULT_FLAG_MKWRITE;
	ret = lower->page_mkwrite(vmf);
	vmf->flags = flags;
	vmf->page = NULL;
	return ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_LOCKED);
}

/* The page is locked, and the file's. */
static void page_establish(struct vm_fault *vmf, struct page *page, unsigned long alias,
			   unsigned long seq, bool write)
{
	struct vm_area_struct *vma = vmf->vma;
	struct epk_file_mapping *file = vma_file_mapping(vma);
	struct establish e = {
		.file = file, .page = page, .seq = seq,
		.index = (vmf->address - file->mapping.start) >> PAGE_SHIFT,
		.pte = pte_mkspecial(pfn_pte(alias, vma->vm_page_prot)),
	};

	if (write)
		e.pte = pte_mkdirty(pte_mkspecial(pfn_pte(alias, vm_get_page_prot(vma->vm_flags))));
	apply_to_page_range(vma->vm_mm, vmf->address & PAGE_MASK, PAGE_SIZE, pte_establish, &e);
}

/* Nothing sleeps for memory while the page is locked: reclaim may wait for it. */
static vm_fault_t page_prepare(struct vm_fault *vmf, struct page *page, unsigned long *alias)
{
	struct epk_mapping *mapping = vmf->vma->vm_private_data;
	pgoff_t index = (vmf->address - mapping->start) >> PAGE_SHIFT;

	/* Where the window has no room for its block, the page cannot be another. */
	if (epk_ept_alias(mapping->ept, page_to_pfn(page), alias))
		return VM_FAULT_SIGBUS;
	mapping_note_block(mapping, page);
	if (xa_reserve(&mapping->pages, index, GFP_KERNEL_ACCOUNT) ||
	    apply_to_page_range(vmf->vma->vm_mm, vmf->address & PAGE_MASK, PAGE_SIZE, pte_nothing,
				NULL))
		return VM_FAULT_OOM;
	return 0;
}

static vm_fault_t page_map(struct vm_fault *vmf, struct page *page, bool write)
{
	struct epk_file_mapping *file = vma_file_mapping(vmf->vma);
	struct address_space *space = vmf->vma->vm_file->f_mapping;
	unsigned long alias, seq;
	vm_fault_t ret = page_prepare(vmf, page, &alias);
	bool dirtied = false;

	if (ret)
		return ret;
	/* From here on, what happens to the page undoes this. */
	seq = mmu_interval_read_begin(&file->notifier);
	if (write)
		ret = page_mkwrite(vmf, page);
	if (ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE))
		return ret;
	if (!(ret & VM_FAULT_LOCKED))
		lock_page(page);
	/* If it is not the file's any more, the next fault finds another. */
	if (page_folio(page)->mapping == space) {
		page_establish(vmf, page, alias, seq, write);
		dirtied = write && set_page_dirty(page);
		trace_epk_fault(vmf->address, file->mapping.ept, alias);
		atomic_long_inc(&file->mapping.ctx->page_faults);
	}
	unlock_page(page);

	if (dirtied || (write && file->lower->page_mkwrite))
		balance_dirty_pages_ratelimited(space);
	return VM_FAULT_NOPAGE;
}

/**
 * epk_file_fault() - map a page of a file into its domain
 * @vmf: of a VMA of an epk_file_mapping
 */
vm_fault_t epk_file_fault(struct vm_fault *vmf)
{
	struct epk_file_mapping *file = vma_file_mapping(vmf->vma);
	bool write = vmf->flags & FAULT_FLAG_WRITE;
	struct page *page;
	vm_fault_t ret, mapped;

	if (file->mapping.dead || !vma_in_place(vmf->vma))
		return VM_FAULT_SIGBUS;
	if (file->mapping.ept == EPK_EPT_NONE)
		return VM_FAULT_SIGSEGV;

	ret = file->lower->fault(vmf);
	if (ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY))
		return ret;
	page = vmf->page;
	vmf->page = NULL;
	if (ret & VM_FAULT_LOCKED)
		unlock_page(page);
	mapped = PageHWPoison(page) ? VM_FAULT_HWPOISON : page_map(vmf, page, write);
	put_page(page);
	return (ret & VM_FAULT_MAJOR) | mapped;
}

/**
 * epk_file_mkwrite() - let a page be written to that is mapped read-only
 * @vmf: of a VMA of an epk_file_mapping
 */
vm_fault_t epk_file_mkwrite(struct vm_fault *vmf)
{
	/* Its caller goes on with the mmap lock. */
	vmf->flags &= ~FAULT_FLAG_ALLOW_RETRY;
	return epk_file_fault(vmf);
}
