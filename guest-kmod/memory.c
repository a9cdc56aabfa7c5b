// SPDX-License-Identifier: GPL-2.0
/*
 * Domain memory.
 *
 * It is ordinary pages behind PTEs that hold their alias in the
 * EPT's window and the domain's key.  No struct page stands behind an alias,
 * so get_user_pages() refuses it, and with it ptrace, /proc/PID/mem,
 * process_vm_readv(), O_DIRECT and io_uring's fixed buffers; vm_ops without
 * .access leave them no second way.
 */
#include <linux/fs.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "epk.h"

/* A domain's offsets are 2^40 bytes apart. */
#define REGION_PAGE_BITS	(40 - PAGE_SHIFT)
#define REGION_PAGES		BIT(REGION_PAGE_BITS)
#define REGION_PAGE_MASK	(REGION_PAGES - 1)

/* Pages in a row that may turn out to lie in a block without a slot. */
#define ALIAS_TRIES		8

/* What a domain's page offset has above the page in the region and the index. */
#define DOMAIN_TAG_SHIFT	(REGION_PAGE_BITS + EPK_ID_INDEX_BITS)
#define DOMAIN_TAG		(EPK_MMAP_DOMAIN(0) >> PAGE_SHIFT >> DOMAIN_TAG_SHIFT)

/**
 * struct epk_region - the memory of one mmap() of a domain
 * @ref: one for each VMA that it was split into
 * @node: in the domain's list, under the context's lock
 * @ctx: the context, kept by each VMA's file
 * @start: first address; VMAs do not move, see vma_in_place()
 * @end: the address behind it
 * @ept: the domain's EPT or EPK_EPT_NONE; changes under the mmap lock, held for
 *	writing
 * @dead: the domain was freed; changes likewise
 * @pages: page index from @start -> page
 */
struct epk_region {
	struct kref ref;
	struct list_head node;
	struct epk_context *ctx;
	unsigned long start;
	unsigned long end;
	u16 ept;
	bool dead;
	struct xarray pages;
};

struct pte_insert {
	struct mm_struct *mm;
	pte_t pte;
};

static int pte_insert(pte_t *pte, unsigned long addr, void *data)
{
	struct pte_insert *insert = data;

	/* Another thread may have been here first, with the same page. */
	if (pte_none(*pte))
		set_pte_at(insert->mm, addr, pte, insert->pte);
	return 0;
}

/**
 * epk_vma_insert_pfn() - map a page frame
 * @vma: a VM_PFNMAP VMA
 * @addr: address in it
 * @pfn: page frame
 *
 * Not vmf_insert_pfn(): it asks the memtype tree, which calls everything
 * that is not RAM uncached.  Aliases are RAM, and write-back.
 *
 * Return: 0, -ENOMEM.
 */
int epk_vma_insert_pfn(struct vm_area_struct *vma, unsigned long addr, unsigned long pfn)
{
	struct pte_insert insert = {
		.mm = vma->vm_mm,
		.pte = pte_mkspecial(pfn_pte(pfn, vma->vm_page_prot)),
	};

	return apply_to_page_range(vma->vm_mm, addr & PAGE_MASK, PAGE_SIZE, pte_insert, &insert);
}

static pgoff_t vma_first_page(const struct vm_area_struct *vma)
{
	return vma->vm_pgoff & REGION_PAGE_MASK;
}

/*
 * The VMAs of a region share its range between them: each owns the pages at
 * its addresses.  A VMA elsewhere is one that mremap() made and is about to
 * take back; its pages are not its own.
 */
static bool vma_in_place(const struct vm_area_struct *vma)
{
	const struct epk_region *region = vma->vm_private_data;

	return vma->vm_start - region->start == vma_first_page(vma) << PAGE_SHIFT;
}

static void region_release(struct kref *ref)
{
	struct epk_region *region = container_of(ref, struct epk_region, ref);

	mutex_lock(&region->ctx->lock);
	list_del(&region->node);
	mutex_unlock(&region->ctx->lock);
	xa_destroy(&region->pages);
	kfree(region);
}

static void domain_open(struct vm_area_struct *vma)
{
	struct epk_region *region = vma->vm_private_data;

	kref_get(&region->ref);
}

/* The PTEs are gone and flushed: nothing refers to the pages any more. */
static void domain_close(struct vm_area_struct *vma)
{
	struct epk_region *region = vma->vm_private_data;
	unsigned long index, freed = 0;
	struct page *page;

	/* A split that failed leaves an empty VMA to close. */
	if (vma->vm_start == vma->vm_end || !vma_in_place(vma))
		goto out;

	xa_for_each_range(&region->pages, index, page, vma_first_page(vma),
			  vma_first_page(vma) + vma_pages(vma) - 1) {
		xa_erase(&region->pages, index);
		__free_page(page);
		freed++;
		cond_resched();
	}
	atomic_long_sub(freed, &region->ctx->pages);
	atomic_long_sub(freed, &epk_counters.pages);
	atomic64_sub(vma_pages(vma), &vma->vm_mm->pinned_vm);
out:
	kref_put(&region->ref, region_release);
}

static int domain_mprotect(struct vm_area_struct *vma, unsigned long start, unsigned long end,
			   unsigned long newflags)
{
	return (newflags ^ vma->vm_flags) & ARCH_VM_PKEY_FLAGS ? -EACCES : 0;
}

/* No VMA of this device moves. */
int epk_vma_mremap(struct vm_area_struct *vma)
{
	return -EINVAL;
}

/* A zeroed page that the EPT's window can show. */
static struct page *page_alloc(unsigned int ept, unsigned long *alias)
{
	struct page *page, *reject, *next;
	LIST_HEAD(rejects);
	int ret, tries;

	for (tries = 0; tries < ALIAS_TRIES; tries++) {
		page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!page)
			break;
		ret = epk_ept_alias(ept, page_to_pfn(page), alias);
		if (!ret)
			break;
		/* Kept for now, so that the next one is another. */
		list_add(&page->lru, &rejects);
		page = NULL;
		if (ret != -ENOSPC)
			break;
	}

	list_for_each_entry_safe(reject, next, &rejects, lru)
		__free_page(reject);
	return page;
}

static vm_fault_t domain_fault(struct vm_fault *vmf)
{
	struct epk_region *region = vmf->vma->vm_private_data;
	pgoff_t index = vmf->pgoff & REGION_PAGE_MASK;
	unsigned long alias;
	struct page *page, *old;

	if (region->dead || !vma_in_place(vmf->vma))
		return VM_FAULT_SIGBUS;
	if (region->ept == EPK_EPT_NONE)
		return VM_FAULT_SIGSEGV;

	page = xa_load(&region->pages, index);
	if (page) {
		if (epk_ept_alias(region->ept, page_to_pfn(page), &alias))
			return VM_FAULT_SIGBUS;
	} else {
		page = page_alloc(region->ept, &alias);
		if (!page)
			return VM_FAULT_SIGBUS;
		old = xa_cmpxchg(&region->pages, index, NULL, page, GFP_KERNEL_ACCOUNT);
		if (old) {
			__free_page(page);
			/* The thread that was faster maps it; touch it again. */
			return xa_is_err(old) ? VM_FAULT_SIGBUS : VM_FAULT_NOPAGE;
		}
		atomic_long_inc(&region->ctx->pages);
		atomic_long_inc(&epk_counters.pages);
	}

	if (epk_vma_insert_pfn(vmf->vma, vmf->address, alias))
		return VM_FAULT_OOM;
	atomic_long_inc(&region->ctx->page_faults);
	return VM_FAULT_NOPAGE;
}

static const struct vm_operations_struct domain_vm_ops = {
	.open = domain_open,
	.close = domain_close,
	.fault = domain_fault,
	.mprotect = domain_mprotect,
	.mremap = epk_vma_mremap,
};

/* The VMAs that are left of a region, in order; NULL after the last. */
static struct vm_area_struct *region_vma(const struct epk_region *region, unsigned long addr)
{
	struct vm_area_struct *vma;

	for (; addr < region->end; addr = vma->vm_end) {
		vma = find_vma(region->ctx->mm, addr);
		if (!vma || vma->vm_start >= region->end)
			break;
		if (vma->vm_ops == &domain_vm_ops && vma->vm_private_data == region)
			return vma;
	}
	return NULL;
}

#define for_each_region_vma(vma, region)					\
	for (vma = region_vma(region, (region)->start); vma;			\
	     vma = region_vma(region, vma->vm_end))

static void region_zap(struct epk_region *region)
{
	struct vm_area_struct *vma;

	if (xa_empty(&region->pages))
		return;
	for_each_region_vma(vma, region) {
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
	struct epk_region *region, *next;

	lockdep_assert_held_write(&ctx->mm->mmap_lock);
	lockdep_assert_held(&ctx->lock);

	list_for_each_entry_safe(region, next, &domain->regions, node) {
		region->dead = true;
		list_del_init(&region->node);
		region_zap(region);
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
	struct epk_region *region;

	lockdep_assert_held_write(&ctx->mm->mmap_lock);
	lockdep_assert_held(&ctx->lock);

	list_for_each_entry(region, &domain->regions, node)
		region_zap(region);
}

/**
 * epk_domain_fits() - can the window of an EPT show all pages of a domain
 * @domain: the domain, its context locked
 * @ept: index of an EPT that the context holds
 *
 * Slots of the window that are free are filled for it.
 */
bool epk_domain_fits(struct epk_domain *domain, unsigned int ept)
{
	struct epk_region *region;
	unsigned long index, alias;
	struct page *page;

	list_for_each_entry(region, &domain->regions, node) {
		xa_for_each(&region->pages, index, page) {
			if (epk_ept_alias(ept, page_to_pfn(page), &alias))
				return false;
		}
	}
	return true;
}

struct remap {
	struct epk_region *region;
	struct mm_struct *mm;
	pgprot_t prot;
};

static int pte_remap(pte_t *pte, unsigned long addr, void *data)
{
	struct remap *remap = data;
	struct epk_region *region = remap->region;
	struct page *page = xa_load(&region->pages, (addr - region->start) >> PAGE_SHIFT);
	unsigned long alias;

	/* What does not get mapped here is mapped when it is touched. */
	if (page && pte_none(*pte) &&
	    !epk_ept_alias_known(region->ept, page_to_pfn(page), &alias))
		set_pte_at(remap->mm, addr, pte, pte_mkspecial(pfn_pte(alias, remap->prot)));
	return 0;
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

/**
 * epk_domain_map() - map the pages of a domain at its new place
 * @ctx: the context, locked, and its mm locked for writing
 * @domain: one of its domains, after epk_domain_zap(), its new place set
 */
void epk_domain_map(struct epk_context *ctx, struct epk_domain *domain)
{
	struct epk_region *region;
	struct vm_area_struct *vma;

	lockdep_assert_held_write(&ctx->mm->mmap_lock);
	lockdep_assert_held(&ctx->lock);

	list_for_each_entry(region, &domain->regions, node) {
		region->ept = domain->ept;
		for_each_region_vma(vma, region) {
			struct remap remap = { .region = region, .mm = ctx->mm };

			vma_set_pkey(vma, domain->pkey);
			remap.prot = vma->vm_page_prot;
			if (domain->pkey && !xa_empty(&region->pages))
				apply_to_existing_page_range(ctx->mm, vma->vm_start,
							     vma->vm_end - vma->vm_start,
							     pte_remap, &remap);
			cond_resched();
		}
	}
}

/*
 * Domain pages cannot be swapped or moved, so they count as pinned memory
 * does.  Not in locked_vm: munmap() calls domain_close() with the mmap lock
 * held for reading only, and pinned_vm is atomic.
 */
static int account(struct mm_struct *mm, unsigned long pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	if (atomic64_add_return(pages, &mm->pinned_vm) + mm->locked_vm <= limit ||
	    capable(CAP_IPC_LOCK))
		return 0;
	atomic64_sub(pages, &mm->pinned_vm);
	return -ENOMEM;
}

static int domain_mmap(struct epk_context *ctx, struct vm_area_struct *vma)
{
	u32 index = (vma->vm_pgoff >> REGION_PAGE_BITS) & (BIT(EPK_ID_INDEX_BITS) - 1);
	struct epk_domain *domain;
	struct epk_region *region;
	int ret;

	if (vma_first_page(vma) || vma_pages(vma) > REGION_PAGES)
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EACCES;

	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return -ENOMEM;
	ret = account(vma->vm_mm, vma_pages(vma));
	if (ret)
		goto free;

	kref_init(&region->ref);
	xa_init(&region->pages);
	region->ctx = ctx;
	region->start = vma->vm_start;
	region->end = vma->vm_end;

	mutex_lock(&ctx->lock);
	domain = epk_domain_at(ctx, index);
	if (domain) {
		region->ept = domain->ept;
		list_add(&region->node, &domain->regions);
		epk_vm_flags_set(vma, (unsigned long)domain->pkey << VM_PKEY_SHIFT);
	}
	mutex_unlock(&ctx->lock);
	if (!domain) {
		ret = -ENOENT;
		goto unaccount;
	}

	/* VM_IO too: without it MADV_DOFORK would take VM_DONTCOPY away. */
	epk_vm_flags_set(vma, VM_PFNMAP | VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	epk_vm_flags_clear(vma, VM_MAYEXEC);
	vma->vm_private_data = region;
	vma->vm_ops = &domain_vm_ops;
	return 0;

unaccount:
	atomic64_sub(vma_pages(vma), &vma->vm_mm->pinned_vm);
free:
	kfree(region);
	return ret;
}

/**
 * epk_mmap() - mmap() of /dev/epk
 * @file: an open file, its private_data the context
 * @vma: the new VMA
 *
 * The context is that of current->mm and cannot change, so the VMA's reference
 * to the file is all that keeps it.
 *
 * Return: 0, -EPERM from another address space, -EINVAL for an unknown offset,
 * a wrong length or a private mapping, -EACCES for a protection that the offset
 * does not take, -ENXIO before EPK_IOC_INIT, -ENOENT if there is no such
 * domain, -ENOMEM beyond RLIMIT_MEMLOCK.
 */
int epk_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct epk_context *ctx = file->private_data;
	int ret;

	if (vma->vm_mm != ctx->mm)
		return -EPERM;
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (vma->vm_pgoff >> DOMAIN_TAG_SHIFT == DOMAIN_TAG)
		return domain_mmap(ctx, vma);

	if (vma->vm_pgoff == EPK_MMAP_TABLE >> PAGE_SHIFT)
		ret = epk_table_mmap(ctx, vma);
	else if (vma->vm_pgoff == EPK_MMAP_IDENTITY >> PAGE_SHIFT)
		ret = epk_identity_mmap(vma);
	else
		ret = -EINVAL;
	if (!ret && vma->vm_flags & (VM_WRITE | VM_EXEC))
		ret = -EACCES;
	if (ret)
		return ret;

	epk_vm_flags_set(vma, VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	epk_vm_flags_clear(vma, VM_MAYWRITE | VM_MAYEXEC);
	return 0;
}
