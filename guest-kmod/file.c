// SPDX-License-Identifier: GPL-2.0
/*
 * Domains over a file: its pages, from the page cache, mapped through the
 * domain's window.
 *
 * Such a mapping has a file of ours, opened on the inode of the one that the caller
 * gave.  So it is among the mappings of that inode, and all that happens to the
 * file reaches it: truncation, hole punching, write-back, direct writes, reclaim.
 * file_page.c answers.  What the filesystem does at a fault, it does here too.
 */
#include <linux/cred.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "module.h"
#include "file.h"

static void file_mapping_release(struct kref *ref)
{
	struct epk_mapping *mapping = container_of(ref, struct epk_mapping, ref);
	struct epk_file_mapping *file = container_of(mapping, struct epk_file_mapping, mapping);

	epk_mapping_leave(mapping);
	mmu_interval_notifier_remove(&file->notifier);
	kfree(file);
}

/* The notifier has heard of the end of each page already. */
static void file_close(struct vm_area_struct *vma)
{
	struct epk_mapping *mapping = vma->vm_private_data;

	kref_put(&mapping->ref, file_mapping_release);
}

#ifdef CONFIG_NUMA

/* Where the filesystem takes pages from as mbind() says, it is told. */
static int file_set_policy(struct vm_area_struct *vma, struct mempolicy *policy)
{
	const struct vm_operations_struct *lower = vma_file_mapping(vma)->lower;

	return lower->set_policy ? lower->set_policy(vma, policy) : 0;
}

#endif

/* With pfn_mkwrite, PTEs start read-only, and the filesystem hears of the first write. */
static const struct vm_operations_struct file_vm_ops = {
	.open = epk_mapping_open,
	.close = file_close,
	.fault = epk_file_fault,
	.pfn_mkwrite = epk_file_mkwrite,
	.mprotect = epk_mapping_mprotect,
	.mremap = epk_vma_mremap,
#ifdef CONFIG_NUMA
	.set_policy = file_set_policy,
#endif
};

/* Under the mmap lock, held for writing. */
static int mapping_make(struct epk_context *ctx, int id, struct vm_area_struct *vma)
{
	struct epk_file_mapping *file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	struct epk_mapping *mapping = &file->mapping;
	struct epk_domain *domain;
	int ret;

	if (!file)
		return -ENOMEM;
	epk_mapping_init(mapping, ctx, vma);
	mapping->file = true;
	file->lower = vma->vm_ops;
	ret = mmu_interval_notifier_insert_locked(&file->notifier, ctx->mm, mapping->start,
						  mapping->end - mapping->start,
						  &epk_file_notifier_ops);
	if (ret)
		goto free;

	mutex_lock(&ctx->lock);
	domain = epk_domain_find(ctx, id);
	ret = epk_mapping_may_join(ctx, domain);
	if (!ret)
		epk_mapping_join(mapping, domain, vma);
	mutex_unlock(&ctx->lock);
	if (ret) {
		mmu_interval_notifier_remove(&file->notifier);
		goto free;
	}
	return 0;

free:
	kfree(file);
	return ret;
}

static int backing_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct epk_backing *backing = file->private_data;
	struct epk_context *ctx = backing->dev->private_data;
	int ret;

	if (vma->vm_mm != ctx->mm)
		return -EPERM;
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EACCES;
	/* Seals, and whatever else the filesystem minds. */
	ret = call_mmap(backing->lower, vma);
	if (ret)
		return ret;
	if (!vma->vm_ops || !vma->vm_ops->fault)
		return -EOPNOTSUPP;
	ret = mapping_make(ctx, backing->id, vma);
	if (ret)
		return ret;

	vma->vm_ops = &file_vm_ops;
	return 0;
}

static const struct file_operations backing_fops;

/**
 * epk_file_device() - the open device that a mapping of a domain belongs to
 * @file: the mapping's file
 */
struct file *epk_file_device(struct file *file)
{
	const struct epk_backing *backing = file->private_data;

	return file->f_op == &backing_fops ? backing->dev : file;
}

/**
 * epk_file_prepare() - is the domain of a mapping that is to replace something there
 * @file: any file
 *
 * The mmap lock is held for writing, so the answer holds until the mapping is made.
 *
 * Return: 0, -ENOENT, -EPERM.
 */
int epk_file_prepare(const struct file *file)
{
	const struct epk_backing *backing = file->private_data;
	struct epk_context *ctx;
	int ret;

	if (file->f_op != &backing_fops)
		return 0;
	ctx = backing->dev->private_data;
	mutex_lock(&ctx->lock);
	ret = epk_mapping_may_join(ctx, epk_domain_find(ctx, backing->id));
	mutex_unlock(&ctx->lock);
	return ret;
}

/* For msync(): the error of a failed write-back is told once, as for the caller's file. */
static int backing_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct epk_backing *backing = file->private_data;

	return vfs_fsync_range(backing->lower, start, end, datasync);
}

static int backing_release(struct inode *inode, struct file *file)
{
	struct epk_backing *backing = file->private_data;

	/* Whoever ends the file has taken note of the path that it puts. */
	file->f_path = backing->path;
	path_put(&backing->path);
	file->private_data = backing->lower_private;
	if (backing->lower->f_op->release)
		backing->lower->f_op->release(inode, file);
	fput(backing->lower);
	fput(backing->dev);
	kfree(backing);
	return 0;
}

static const struct file_operations backing_fops = {
	.owner = THIS_MODULE,
	.llseek = noop_llseek,
	.mmap = backing_mmap,
	.fsync = backing_fsync,
	.release = backing_release,
};

/*
 * Filesystems whose faults want nothing of the VMA but its file and its flags, and
 * nothing of a regular file's private data.
 */
static int lower_check(const struct file *file)
{
	const struct inode *inode = file_inode(file);

	if (!S_ISREG(inode->i_mode) || IS_DAX(inode) || !file->f_op->mmap ||
	    file->f_mapping != inode->i_mapping)
		return -EOPNOTSUPP;
	switch (inode->i_sb->s_magic) {
	case EXT4_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case XFS_SUPER_MAGIC:
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/*
 * A file of ours on the inode of @lower, with the same rights.  By its path it is the device:
 * who follows that, in /proc/PID/map_files, is not to come to the file.
 */
static struct file *backing_open(struct file *dev, struct file *lower, int id)
{
	struct epk_backing *backing = kmalloc(sizeof(*backing), GFP_KERNEL_ACCOUNT);
	struct file *file;

	if (!backing)
		return ERR_PTR(-ENOMEM);
	file = dentry_open(&lower->f_path, lower->f_flags & (O_ACCMODE | O_LARGEFILE | O_NOATIME),
			   current_cred());
	if (IS_ERR(file)) {
		kfree(backing);
		return file;
	}
	backing->dev = get_file(dev);
	backing->lower = get_file(lower);
	backing->lower_private = file->private_data;
	backing->id = id;
	file->private_data = backing;
	/* The open itself is counted by the old path, which @lower keeps. */
	backing->path = file->f_path;
	path_get(&dev->f_path);
	file->f_path = dev->f_path;
	__module_get(THIS_MODULE);
	replace_fops(file, &backing_fops);
	return file;
}

/*
 * What lies at a fixed address goes before the mapping is made, and whether that will succeed
 * only making it tells: so it is made elsewhere first.
 */
static int file_try(struct file *file, const struct epk_file *req)
{
	unsigned long addr = vm_mmap(file, 0, req->len, req->prot, MAP_SHARED, req->offset);

	if (IS_ERR_VALUE(addr))
		return addr;
	return epk_unmap(current->mm, addr, PAGE_ALIGN(req->len), false);
}

/**
 * epk_file_map() - map a file into a domain
 * @dev: the open /dev/epk of current->mm
 * @req: what and where; on success, @req->addr tells where
 *
 * Return: 0, or see struct epk_file.
 */
int epk_file_map(struct file *dev, struct epk_file *req)
{
	struct file *lower, *file;
	unsigned long addr;
	int ret;

	if (req->flags & ~(MAP_FIXED | MAP_FIXED_NOREPLACE) ||
	    req->prot & ~(PROT_READ | PROT_WRITE))
		return -EINVAL;
	lower = fget(req->fd);
	if (!lower)
		return -EBADF;
	ret = lower_check(lower);
	if (ret)
		goto out;
	file = backing_open(dev, lower, req->id);
	if (IS_ERR(file)) {
		ret = PTR_ERR(file);
		goto out;
	}
	if (req->flags & MAP_FIXED)
		ret = file_try(file, req);
	if (ret)
		goto put;
	addr = vm_mmap(file, req->addr, req->len, req->prot, MAP_SHARED | req->flags, req->offset);
	if (IS_ERR_VALUE(addr))
		ret = addr;
	else
		req->addr = addr;
put:
	fput(file);
out:
	fput(lower);
	return ret;
}
