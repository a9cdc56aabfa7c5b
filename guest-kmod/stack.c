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

#include "module.h"

#define FIRST	(EPK_MMAP_STACK >> PAGE_SHIFT)

/**
 * struct stack - what is behind such a mapping and its copies in forked children
 * @count: the page with the count, or NULL
 * @zero: the page that others start as, or NULL
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

/* Not before somebody has a page in use: a mapping alone costs what any mapping costs. */
static struct page *page_of(struct page **slot)
{
	struct page *page = READ_ONCE(*slot), *fresh;

	if (page)
		return page;
	fresh = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!fresh)
		return NULL;
	page = cmpxchg(slot, NULL, fresh);
	if (!page)
		return fresh;
	__free_page(fresh);
	return page;
}

/* The first touch of a page since it was last given back; what is written then is a copy. */
static vm_fault_t stack_fault(struct vm_fault *vmf)
{
	struct stack *stack = vmf->vma->vm_file->private_data;
	struct page *count, *page;

	/* A core dump asks for each page, there or not: it does without, and nobody has touched it. */
	if (current->flags & PF_DUMPCORE)
		return VM_FAULT_SIGBUS;
	count = page_of(&stack->count);
	page = vmf->pgoff == FIRST ? count : page_of(&stack->zero);
	if (!count || !page)
		return VM_FAULT_OOM;
	/* Before the thread can go on: it sees that it has used the page. */
	if (page != count)
		atomic64_inc((atomic64_t *)page_address(count));
	vmf->page = page;
	get_page(page);
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
	struct stack *stack = kzalloc(sizeof(*stack), GFP_KERNEL_ACCOUNT);
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
