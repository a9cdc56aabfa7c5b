// SPDX-License-Identifier: GPL-2.0
/*
 * Domains over a memfd: its pages, from the page cache, mapped through the
 * domain's window.
 *
 * The page cache does not know of these mappings, so the file must not lose a
 * page that has one.  Seals see to that, and a reference on each page to the rest:
 * pages with references are neither reclaimed nor moved.
 */
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>

#include "epk.h"
#include "region.h"

#define WANTED_SEALS	(F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE)

/* Seals are only ever added. */
static int file_check(struct file *file)
{
	unsigned int seals;

	if ((file->f_mode & (FMODE_READ | FMODE_WRITE)) != (FMODE_READ | FMODE_WRITE))
		return -EACCES;
	if (!shmem_mapping(file->f_mapping))
		return -EOPNOTSUPP;
	seals = READ_ONCE(SHMEM_I(file_inode(file))->seals);
	if ((seals & WANTED_SEALS) != WANTED_SEALS || seals & F_SEAL_WRITE)
		return -EPERM;
	return 0;
}

static int region_check(struct vm_area_struct *vma, const struct epk_attach *req,
			struct file *file)
{
	struct epk_region *region;
	u64 size = i_size_read(file_inode(file));

	if (!vma || vma->vm_start != req->addr || vma->vm_ops != &epk_domain_vm_ops)
		return -EINVAL;
	region = vma->vm_private_data;
	if (region->dead || region->ept == EPK_EPT_NONE || vma->vm_start != region->start ||
	    vma->vm_end != region->end)
		return -EINVAL;
	if (req->offset > size || region->end - region->start > size - req->offset)
		return -EINVAL;
	return region->file || !xa_empty(&region->pages) ? -EBUSY : 0;
}

static int page_attach(struct epk_region *region, pgoff_t index, struct file *file, pgoff_t from)
{
	struct page *page = shmem_read_mapping_page(file->f_mapping, from + index);
	unsigned long alias;
	int ret;

	if (IS_ERR(page))
		return PTR_ERR(page);
	/* What is written through the window sets no dirty bit that anybody looks at. */
	set_page_dirty_lock(page);
	region_note_block(region, page);
	ret = epk_ept_alias(region->ept, page_to_pfn(page), &alias);
	if (!ret)
		ret = xa_err(xa_store(&region->pages, index, page, GFP_KERNEL_ACCOUNT));
	if (ret)
		put_page(page);
	return ret;
}

static int pages_attach(struct epk_region *region, struct file *file, pgoff_t from)
{
	pgoff_t count = (region->end - region->start) >> PAGE_SHIFT, index;
	int ret;

	for (index = 0; index < count; index++) {
		ret = fatal_signal_pending(current) ? -EINTR :
						      page_attach(region, index, file, from);
		if (ret)
			goto undo;
		cond_resched();
	}
	atomic_long_add(count, &region->ctx->pages);
	atomic_long_add(count, &epk_counters.pages);
	return 0;

undo:
	while (index--)
		put_page(xa_erase(&region->pages, index));
	return ret;
}

/**
 * epk_attach() - show a file in a mapping of a domain
 * @ctx: the context of current->mm
 * @req: what and where
 *
 * Return: 0, or see struct epk_attach.
 */
int epk_attach(struct epk_context *ctx, const struct epk_attach *req)
{
	struct vm_area_struct *vma;
	struct epk_region *region;
	struct file *file;
	int ret;

	if (req->flags || offset_in_page(req->offset))
		return -EINVAL;
	file = fget(req->fd);
	if (!file)
		return -EBADF;
	ret = file_check(file);
	if (ret)
		goto out;
	if (mmap_write_lock_killable(ctx->mm)) {
		ret = -EINTR;
		goto out;
	}
	vma = find_vma(ctx->mm, req->addr);
	ret = region_check(vma, req, file);
	if (!ret) {
		region = vma->vm_private_data;
		ret = pages_attach(region, file, req->offset >> PAGE_SHIFT);
		if (!ret)
			region->file = get_file(file);
	}
	mmap_write_unlock(ctx->mm);
out:
	fput(file);
	return ret;
}
