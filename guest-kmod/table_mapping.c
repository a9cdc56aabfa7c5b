// SPDX-License-Identifier: GPL-2.0
/*
 * Table mappings, the read-only things that a process can map: its domain table, the table of its
 * domains' notes, and the identity page; and what all mappings of the device have in common.
 */
#include <linux/fs.h>
#include <linux/sched.h>

#include "module.h"

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
 * @prot: protection
 *
 * Not vmf_insert_pfn(): it asks the memtype tree, which calls everything
 * that is not RAM uncached.  Aliases are RAM, and write-back.
 *
 * Return: 0, -ENOMEM.
 */
int epk_vma_insert_pfn(struct vm_area_struct *vma, unsigned long addr, unsigned long pfn,
		       pgprot_t prot)
{
	struct pte_insert insert = {
		.mm = vma->vm_mm,
		.pte = pte_mkspecial(pfn_pte(pfn, prot)),
	};

	return apply_to_page_range(vma->vm_mm, addr & PAGE_MASK, PAGE_SIZE, pte_insert, &insert);
}

static vm_fault_t table_fault(struct vm_fault *vmf)
{
	struct epk_context *ctx = vmf->vma->vm_file->private_data;
	struct epk_chunk *chunk;

	mutex_lock(&ctx->lock);
	chunk = epk_chunk_get(ctx, vmf->pgoff * EPK_CHUNK_ENTRIES);
	mutex_unlock(&ctx->lock);
	if (!chunk)
		return VM_FAULT_OOM;

	vmf->page = virt_to_page(chunk->table);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct table_vm_ops = {
	.fault = table_fault,
	.mremap = epk_vma_mremap,
};

/**
 * epk_table_mmap() - let a process read its domain table
 * @vma: the new VMA; epk_mmap() does the rest
 */
void epk_table_mmap(struct vm_area_struct *vma)
{
	vma->vm_ops = &table_vm_ops;
}

static vm_fault_t notes_fault(struct vm_fault *vmf)
{
	struct epk_context *ctx = vmf->vma->vm_file->private_data;
	u64 *notes;

	mutex_lock(&ctx->lock);
	notes = epk_notes_get(ctx, (vmf->pgoff - (EPK_MMAP_NOTES >> PAGE_SHIFT)) *
				   EPK_CHUNK_ENTRIES);
	mutex_unlock(&ctx->lock);
	if (!notes)
		return VM_FAULT_OOM;

	vmf->page = virt_to_page(notes);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct notes_vm_ops = {
	.fault = notes_fault,
	.mremap = epk_vma_mremap,
};

/**
 * epk_notes_mmap() - let a process read the notes of its domains
 * @vma: the new VMA; epk_mmap() does the rest
 */
void epk_notes_mmap(struct vm_area_struct *vma)
{
	vma->vm_ops = &notes_vm_ops;
}

static vm_fault_t identity_fault(struct vm_fault *vmf)
{
	if (epk_vma_insert_pfn(vmf->vma, vmf->address, epk_host.identity_pfn,
			       vmf->vma->vm_page_prot))
		return VM_FAULT_OOM;
	return VM_FAULT_NOPAGE;
}

static const struct vm_operations_struct identity_vm_ops = {
	.fault = identity_fault,
	.mremap = epk_vma_mremap,
};

/**
 * epk_identity_mmap() - let a process see in which EPT it is
 * @vma: the new VMA; epk_mmap() does the rest
 */
void epk_identity_mmap(struct vm_area_struct *vma)
{
	epk_vm_flags_set(vma, VM_PFNMAP);
	vma->vm_ops = &identity_vm_ops;
}

/**
 * epk_vma_is_table_mapping() - does it show a table or the identity page
 * @vma: any VMA
 */
bool epk_vma_is_table_mapping(const struct vm_area_struct *vma)
{
	return vma->vm_ops == &table_vm_ops || vma->vm_ops == &identity_vm_ops ||
	       vma->vm_ops == &notes_vm_ops;
}

/* No VMA of this device moves: @vma is at the new place, and about to be unmapped again. */
int epk_vma_mremap(struct vm_area_struct *vma)
{
	if (epk_vma_is_table_mapping(vma))
		vma->vm_private_data = vma;
	return -EINVAL;
}
