// SPDX-License-Identifier: GPL-2.0
/*
 * Domain memory.
 *
 * It is ordinary pages behind PTEs that hold their alias in the
 * EPT's window and the domain's key.  These are special, and no struct page stands behind an
 * alias unless the module is alone, or the domain everywhere: get_user_pages() refuses it, and with
 * it ptrace, /proc/PID/mem, process_vm_readv(), O_DIRECT and io_uring's fixed buffers; their second
 * way, vm_ops.access, is closed unless root opens it for debugging.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "module.h"
#include "mapping.h"
#include "trace.h"

/* Pages in a row that may turn out to lie in a block without a slot. */
#define ALIAS_TRIES		8

/* What a domain's page offset has above the page in the mapping and the index. */
#define DOMAIN_TAG_SHIFT	(MAPPING_PAGE_BITS + EPK_ID_INDEX_BITS)
#define DOMAIN_TAG		(EPK_MMAP_DOMAIN(0) >> PAGE_SHIFT >> DOMAIN_TAG_SHIFT)

static unsigned long max_pages;
module_param(max_pages, ulong, 0644);
MODULE_PARM_DESC(max_pages, "most domain memory of the whole guest, in pages of 4 KiB (0: no limit)");

static unsigned long max_process_pages;
module_param(max_process_pages, ulong, 0644);
MODULE_PARM_DESC(max_process_pages, "most domain memory of one process, likewise");

static bool is_over(unsigned long pages, unsigned long limit)
{
	return limit && pages > limit;
}

static void unaccount(struct epk_context *ctx, unsigned long pages)
{
	atomic64_sub(pages, &ctx->mm->pinned_vm);
	atomic_long_sub(pages, &ctx->mapped);
	atomic_long_sub(pages, &epk_counters.mapped);
	epk_user_sub_pages(ctx->user, pages);
}

/*
 * Domain pages cannot be swapped or moved, so they count as pinned memory
 * does.  Not in locked_vm: munmap() calls domain_close() with the mmap lock
 * held for reading only, and pinned_vm is atomic.  Of what is there, @going are about to go.
 */
static int account(struct epk_context *ctx, unsigned long pages, unsigned long going)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	unsigned long process, all, pinned;

	if (!epk_user_add_pages(ctx->user, pages, going))
		return -ENOMEM;
	process = atomic_long_add_return(pages, &ctx->mapped);
	all = atomic_long_add_return(pages, &epk_counters.mapped);
	pinned = atomic64_add_return(pages, &ctx->mm->pinned_vm);
	if (!is_over(process - going, READ_ONCE(max_process_pages)) &&
	    !is_over(all - going, READ_ONCE(max_pages)) &&
	    (pinned + ctx->mm->locked_vm - going <= limit || capable(CAP_IPC_LOCK)))
		return 0;
	unaccount(ctx, pages);
	return -ENOMEM;
}

static void mapping_release(struct kref *ref)
{
	struct epk_mapping *mapping = container_of(ref, struct epk_mapping, ref);

	epk_mapping_leave(mapping);
	kfree(mapping);
}

/* The PTEs are gone and flushed: nothing refers to the pages any more. */
static void domain_close(struct vm_area_struct *vma)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	unsigned long index, freed = 0;
	void *entry;

	/* A split that failed leaves an empty VMA to close. */
	if (vma->vm_start == vma->vm_end || !vma_in_place(vma))
		goto out;

	xa_for_each_range(&mapping->pages, index, entry, vma_first_page(vma),
			  vma_first_page(vma) + vma_pages(vma) - 1) {
		unsigned int order = mapping_is_huge(entry) ? MAPPING_HUGE_ORDER : 0;

		xa_erase(&mapping->pages, index);
		__free_pages(mapping_entry_page(entry, 0), order);
		freed += 1ul << order;
		cond_resched();
	}
	mapping_count_pages(mapping, MM_SHMEMPAGES, -(long)freed);
	unaccount(mapping->ctx, vma_pages(vma));
out:
	kref_put(&mapping->ref, mapping_release);
}

/* A zeroed page that the EPT's window can show, from where mbind() says. */
static struct page *page_alloc(struct vm_area_struct *vma, unsigned long addr,
			       unsigned long *alias)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	struct page *page = NULL, *reject, *next;
	struct folio *folio;
	LIST_HEAD(rejects);
	int ret, tries;

	for (tries = 0; tries < ALIAS_TRIES; tries++) {
		folio = vma_alloc_folio(GFP_KERNEL_ACCOUNT | __GFP_ZERO, 0, vma, addr, false);
		if (!folio)
			break;
		page = folio_page(folio, 0);
		ret = epk_ept_alias(mapping->ept, page_to_pfn(page), alias);
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

/* Under the mmap lock.  The mapping has a page at @addr when this returns 0. */
static int page_get(struct vm_area_struct *vma, unsigned long addr, unsigned long *alias)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	pgoff_t index = (addr - mapping->start) >> PAGE_SHIFT;
	struct page *page = mapping_page(mapping, index);
	void *old;

	if (!page && mapping->huge && epk_huge_fill(vma, addr))
		page = mapping_page(mapping, index);
	if (page)
		return epk_ept_alias(mapping->ept, page_to_pfn(page), alias);

	page = page_alloc(vma, addr, alias);
	if (!page)
		return -ENOMEM;
	mapping_note_block(mapping, page);
	old = xa_cmpxchg(&mapping->pages, index, NULL, page, GFP_KERNEL_ACCOUNT);
	if (!old) {
		mapping_count_pages(mapping, MM_SHMEMPAGES, 1);
		return 0;
	}
	__free_page(page);
	/* Another thread was faster. */
	return xa_err(old) ?: epk_ept_alias(mapping->ept,
					    page_to_pfn(mapping_entry_page(old, index)), alias);
}

static vm_fault_t domain_fault(struct vm_fault *vmf)
{
	struct epk_mapping *mapping = vmf->vma->vm_private_data;
	unsigned long alias;

	if (mapping->dead || !vma_in_place(vmf->vma))
		return VM_FAULT_SIGBUS;
	if (mapping->ept == EPK_EPT_NONE)
		return VM_FAULT_SIGSEGV;

	if (page_get(vmf->vma, vmf->address & PAGE_MASK, &alias))
		return VM_FAULT_SIGBUS;
	epk_dawdle();
	if (mapping->huge && epk_huge_map(vmf->vma, vmf->address, vmf->pmd, alias))
		atomic_long_inc(&mapping->ctx->huge_faults);
	else if (epk_vma_insert_pfn(vmf->vma, vmf->address, alias, mapping_prot(vmf->vma)))
		return VM_FAULT_OOM;
	trace_epk_fault(vmf->address, mapping->ept, alias);
	atomic_long_inc(&mapping->ctx->page_faults);
	return VM_FAULT_NOPAGE;
}

/* Give the part of a VMA from @start to @end its pages. */
static int vma_populate(struct vm_area_struct *vma, unsigned long start, unsigned long end)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	unsigned long addr, alias;
	int ret;

	if (vma->vm_ops != &epk_domain_vm_ops || mapping->dead || !vma_in_place(vma) ||
	    mapping->ept == EPK_EPT_NONE)
		return -EINVAL;
	for (addr = start; addr < end; addr += PAGE_SIZE) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = page_get(vma, addr, &alias);
		if (ret)
			return ret;
		cond_resched();
	}
	return epk_mapping_map(vma, start, end);
}

/**
 * epk_populate() - give domain memory all its pages
 * @mm: the context's address space
 * @addr: first byte, on a page boundary
 * @len: bytes, whole pages
 *
 * Return: 0, or see struct epk_range.
 */
int epk_populate(struct mm_struct *mm, u64 addr, u64 len)
{
	struct vm_area_struct *vma;
	unsigned long end;
	int ret = 0;

	if (!len || offset_in_page(addr | len) || addr + len < addr || addr + len > TASK_SIZE)
		return -EINVAL;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for (; len && !ret; len -= end - addr, addr = end) {
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start > addr) {
			ret = -ENOMEM;
			break;
		}
		end = min_t(u64, vma->vm_end, addr + len);
		ret = vma_populate(vma, addr, end);
	}
	mmap_read_unlock(mm);
	return ret;
}

static bool holds_to_write(const struct epk_mapping *mapping)
{
	const struct epk_thread *thread;
	unsigned long flags;
	bool holds;

	local_irq_save(flags);
	thread = epk_thread_find(current);
	holds = thread && thread->ctx == mapping->ctx && epk_rights_hold(thread, mapping->id, true);
	local_irq_restore(flags);
	return holds;
}

/**
 * epk_fill() - write a page of domain memory, whatever its mapping allows
 * @mm: the context's address space, locked for reading
 * @addr: the page
 * @from: what to write
 * @id: the domain, if it has no place
 *
 * Return: 0, -EAGAIN if it has no place, or see struct epk_fill.
 */
int epk_fill(struct mm_struct *mm, unsigned long addr, const void *from, int *id)
{
	struct vm_area_struct *vma = find_vma(mm, addr);
	struct epk_mapping *mapping;
	unsigned long alias;
	int ret;

	if (!vma || vma->vm_start > addr || vma->vm_ops != &epk_domain_vm_ops)
		return -EINVAL;
	mapping = vma->vm_private_data;
	if (mapping->dead || !vma_in_place(vma))
		return -EINVAL;
	if (!holds_to_write(mapping))
		return -EACCES;
	*id = mapping->id;
	if (mapping->ept == EPK_EPT_NONE)
		return -EAGAIN;
	ret = page_get(vma, addr, &alias);
	if (ret)
		return ret;
	memcpy(page_address(mapping_page(mapping, (addr - mapping->start) >> PAGE_SHIFT)), from, PAGE_SIZE);
	return 0;
}

/* For debuggers: root opens it, and the log tells. */
static bool debug_access;

static int debug_access_set(const char *value, const struct kernel_param *kp)
{
	int ret = param_set_bool(value, kp);

	if (!ret)
		pr_warn("debug_access: ptrace and /proc/PID/mem %s domain memory\n",
			debug_access ? "reach" : "do not reach");
	return ret;
}

static const struct kernel_param_ops debug_access_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = debug_access_set,
	.get = param_get_bool,
};
module_param_cb(debug_access, &debug_access_ops, &debug_access, 0600);
MODULE_PARM_DESC(debug_access, "let ptrace and /proc/PID/mem reach domain memory (default: no)");

/* The mmap lock is held, so the VMA keeps its pages. */
static int domain_access(struct vm_area_struct *vma, unsigned long addr, void *buf, int len,
			 int write)
{
	struct epk_mapping *mapping = vma->vm_private_data;
	unsigned int offset = offset_in_page(addr);
	struct page *page;

	if (!READ_ONCE(debug_access) || mapping->dead || !vma_in_place(vma))
		return -EIO;
	page = mapping_page(mapping, (addr - mapping->start) >> PAGE_SHIFT);
	if (!page)
		return -EIO;

	pr_warn_ratelimited("debug_access: %s[%d] %s domain memory\n", current->comm,
			    task_pid_nr(current), write ? "writes" : "reads");
	len = min_t(int, len, PAGE_SIZE - offset);
	if (write)
		memcpy(page_address(page) + offset, buf, len);
	else
		memcpy(buf, page_address(page) + offset, len);
	return len;
}

const struct vm_operations_struct epk_domain_vm_ops = {
	.access = domain_access,
	.open = epk_mapping_open,
	.close = domain_close,
	.fault = domain_fault,
	.may_split = epk_huge_may_split,
	.mprotect = epk_mapping_mprotect,
	.mremap = epk_vma_mremap,
};

/* Where a domain's memory begins; NULL if there is none. */
static struct epk_domain *domain_of(struct epk_context *ctx, unsigned long pgoff)
{
	return epk_domain_at(ctx, (pgoff >> MAPPING_PAGE_BITS) & (BIT(EPK_ID_INDEX_BITS) - 1));
}

static bool is_domain(unsigned long pgoff)
{
	return pgoff >> DOMAIN_TAG_SHIFT == DOMAIN_TAG;
}

static bool is_stack(unsigned long pgoff)
{
	return pgoff == EPK_MMAP_STACK >> PAGE_SHIFT;
}

static int stack_check(unsigned long pages, unsigned long flags)
{
	/* What is shared, and cannot be written to by its file, is VM_MAYSHARE alone. */
	if (flags & (VM_SHARED | VM_MAYSHARE) || pages > EPK_STACK_BYTES_MAX >> PAGE_SHIFT)
		return -EINVAL;
	return flags & VM_EXEC ? -EACCES : 0;
}

static int domain_check(unsigned long pgoff, unsigned long pages, unsigned long flags)
{
	if (pgoff & MAPPING_PAGE_MASK || pages > MAPPING_PAGES)
		return -EINVAL;
	return flags & VM_EXEC ? -EACCES : 0;
}

static int table_mapping_check(unsigned long pgoff, unsigned long pages, unsigned long flags)
{
	unsigned long want;

	if (pgoff == EPK_MMAP_TABLE >> PAGE_SHIFT || pgoff == EPK_MMAP_NOTES >> PAGE_SHIFT)
		want = EPK_CHUNKS;
	else if (pgoff == EPK_MMAP_IDENTITY >> PAGE_SHIFT)
		want = 1;
	else
		return -EINVAL;
	if (pages != want)
		return -EINVAL;
	return flags & (VM_WRITE | VM_EXEC) ? -EACCES : 0;
}

/* All that a mmap() can be refused for, but want of memory and a domain that is not there. */
static int mmap_check(const struct file *file, const struct mm_struct *mm, unsigned long pages,
		      unsigned long flags, unsigned long pgoff)
{
	const struct epk_context *ctx = file->private_data;

	if (mm != ctx->mm)
		return -EPERM;
	if (!epk_context_is_ready(ctx))
		return -ENXIO;
	if (is_stack(pgoff))
		return stack_check(pages, flags);
	if (!(flags & VM_SHARED))
		return -EINVAL;
	return is_domain(pgoff) ? domain_check(pgoff, pages, flags) :
				  table_mapping_check(pgoff, pages, flags);
}

/* A mapping for so much memory of a domain, accounted: see account(). */
static struct epk_mapping *mapping_create(struct epk_context *ctx, unsigned long pages,
					  unsigned long going)
{
	struct epk_mapping *mapping = kzalloc(sizeof(*mapping), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!mapping)
		return ERR_PTR(-ENOMEM);
	ret = account(ctx, pages, going);
	if (ret) {
		kfree(mapping);
		return ERR_PTR(ret);
	}
	return mapping;
}

static void mapping_discard(struct epk_context *ctx, struct epk_mapping *mapping,
			    unsigned long pages)
{
	unaccount(ctx, pages);
	kfree(mapping);
}

static int domain_mmap(struct epk_context *ctx, struct vm_area_struct *vma)
{
	struct epk_mapping *mapping = ctx->prepared;
	struct epk_domain *domain;
	int ret;

	ctx->prepared = NULL;
	if (!mapping)
		mapping = mapping_create(ctx, vma_pages(vma), 0);
	if (IS_ERR(mapping))
		return PTR_ERR(mapping);
	epk_mapping_init(mapping, ctx, vma);
	mapping->huge = epk_huge_may(vma);

	mutex_lock(&ctx->lock);
	domain = domain_of(ctx, vma->vm_pgoff);
	ret = epk_mapping_may_join(ctx, domain);
	if (!ret)
		epk_mapping_join(mapping, domain, vma);
	mutex_unlock(&ctx->lock);
	if (ret) {
		mapping_discard(ctx, mapping, vma_pages(vma));
		return ret;
	}

	vma->vm_ops = &epk_domain_vm_ops;
	return 0;
}

static void table_mapping_mmap(struct vm_area_struct *vma)
{
	if (vma->vm_pgoff == EPK_MMAP_TABLE >> PAGE_SHIFT)
		epk_table_mmap(vma);
	else if (vma->vm_pgoff == EPK_MMAP_NOTES >> PAGE_SHIFT)
		epk_notes_mmap(vma);
	else
		epk_identity_mmap(vma);
	epk_vm_flags_set(vma, VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	epk_vm_flags_clear(vma, VM_MAYWRITE | VM_MAYEXEC);
}

/**
 * epk_mmap() - mmap() of /dev/epk
 * @file: an open file, its private_data the context
 * @vma: the new VMA
 *
 * The context is that of current->mm and cannot change, so the VMA's reference
 * to the file is all that keeps it.
 *
 * Return: 0, -EPERM from another address space, -ENXIO before EPK_IOC_INIT,
 * -EINVAL for an unknown offset, a wrong length, or if it has to be shared or private, -EACCES for
 * a protection that the offset does not take, -ENOENT if there is no such
 * domain, -EPERM if it is private and not held, -ENOMEM beyond RLIMIT_MEMLOCK.
 */
int epk_mmap(struct file *file, struct vm_area_struct *vma)
{
	int ret = mmap_check(file, vma->vm_mm, vma_pages(vma), vma->vm_flags, vma->vm_pgoff);

	if (ret)
		return ret;
	if (is_domain(vma->vm_pgoff))
		return domain_mmap(file->private_data, vma);
	if (is_stack(vma->vm_pgoff))
		return epk_stack_mmap(vma);
	table_mapping_mmap(vma);
	return 0;
}

/**
 * epk_file_is_device() - is it an open of the device, its private_data a context
 * @file: any file
 */
bool epk_file_is_device(const struct file *file)
{
	return file->f_op->mmap == epk_mmap;
}

/* How much of what lies there counts as domain memory. */
static unsigned long pages_accounted(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct vm_area_struct *vma;
	unsigned long addr, pages = 0;

	for (addr = start; addr < end; addr = vma->vm_end) {
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start >= end)
			break;
		if (vma->vm_ops == &epk_domain_vm_ops && vma_in_place(vma))
			pages += (min(vma->vm_end, end) - max(vma->vm_start, start)) >> PAGE_SHIFT;
	}
	return pages;
}

/**
 * epk_mmap_prepare() - find out whether epk_mmap() will succeed
 * @file: an open file of the device
 * @addr: where, on a page boundary
 * @len: bytes, whole pages
 * @flags: those that the VMA will have
 * @pgoff: its page offset
 *
 * Before what lies there is unmapped for it.  Nothing can change before epk_mmap(), or
 * epk_mmap_unprepare() if it does not come to that: the mmap lock is held for writing.
 *
 * Return: see epk_mmap().
 */
int epk_mmap_prepare(struct file *file, unsigned long addr, unsigned long len,
		     unsigned long flags, unsigned long pgoff)
{
	struct epk_context *ctx = file->private_data;
	int ret = mmap_check(file, current->mm, len >> PAGE_SHIFT, flags, pgoff);
	struct epk_mapping *mapping;

	if (ret || !is_domain(pgoff))
		return ret;
	mutex_lock(&ctx->lock);
	ret = epk_mapping_may_join(ctx, domain_of(ctx, pgoff));
	mutex_unlock(&ctx->lock);
	if (ret)
		return ret;
	mapping = mapping_create(ctx, len >> PAGE_SHIFT,
				 pages_accounted(ctx->mm, addr, addr + len));
	if (IS_ERR(mapping))
		return PTR_ERR(mapping);
	ctx->prepared = mapping;
	return 0;
}

/**
 * epk_mmap_unprepare() - forget what epk_mmap_prepare() made, unless epk_mmap() has taken it
 * @file: an open file of the device
 * @len: as before
 */
void epk_mmap_unprepare(struct file *file, unsigned long len)
{
	struct epk_context *ctx = file->private_data;

	/* Only of one's own address space, whose lock is held, is there anything to forget. */
	if (current->mm != ctx->mm || !ctx->prepared)
		return;
	mapping_discard(ctx, ctx->prepared, len >> PAGE_SHIFT);
	ctx->prepared = NULL;
}
