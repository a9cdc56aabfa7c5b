// SPDX-License-Identifier: GPL-2.0
/*
 * Stacks of which the process can tell, by a load, that nothing more of them was used.
 *
 * Memory like any other private mapping, zero at first, of ordinary pages that are the process's
 * own; but before its first page, which is for reading, stands how many pages have come to the
 * rest.  So who wipes a stack knows when it need not ask the system for the pages far down.
 *
 * The mapping has a file of its own: a forked child that inherits it must not keep its parent's
 * open of the device.
 */
#include <linux/anon_inodes.h>
#include <linux/atomic.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "epk.h"

#define FIRST	(EPK_MMAP_STACK >> PAGE_SHIFT)

/**
 * struct stack - what is behind such a mapping and its copies in forked children
 * @count: the page with the count
 * @zero: the page that others start as
 */
struct stack {
	struct page *count;
	struct page *zero;
};

static void stack_free(struct stack *stack)
{
	if (stack->count)
		__free_page(stack->count);
	if (stack->zero)
		__free_page(stack->zero);
	kfree(stack);
}

static struct stack *stack_alloc(void)
{
	struct stack *stack = kzalloc(sizeof(*stack), GFP_KERNEL_ACCOUNT);

	if (!stack)
		return NULL;
	stack->count = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	stack->zero = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (stack->count && stack->zero)
		return stack;
	stack_free(stack);
	return NULL;
}

/* The first touch of a page since it was last given back; what is written then is a copy. */
static vm_fault_t stack_fault(struct vm_fault *vmf)
{
	struct stack *stack = vmf->vma->vm_file->private_data;

	if (vmf->pgoff == FIRST) {
		vmf->page = stack->count;
	} else {
		/* Before the thread can go on: it sees that it has used the page. */
		atomic64_inc((atomic64_t *)page_address(stack->count));
		vmf->page = stack->zero;
	}
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct stack_vm_ops = {
	.fault = stack_fault,
	.mremap = epk_vma_mremap,
};

static int stack_release(struct inode *inode, struct file *file)
{
	stack_free(file->private_data);
	return 0;
}

static const struct file_operations stack_fops = {
	.owner = THIS_MODULE,
	.release = stack_release,
};

/**
 * epk_stack_mmap() - map a stack
 * @vma: the new VMA, private
 *
 * Return: 0, -ENOMEM, or what making a file fails with.
 */
int epk_stack_mmap(struct vm_area_struct *vma)
{
	struct stack *stack = stack_alloc();
	struct file *file;

	if (!stack)
		return -ENOMEM;
	file = anon_inode_getfile("[epk_stack]", &stack_fops, stack, O_RDWR);
	if (IS_ERR(file)) {
		stack_free(stack);
		return PTR_ERR(file);
	}
	vma_set_file(vma, file);
	fput(file);
	vma->vm_ops = &stack_vm_ops;
	epk_vm_flags_set(vma, VM_DONTEXPAND);
	epk_vm_flags_clear(vma, VM_MAYEXEC);
	return 0;
}
