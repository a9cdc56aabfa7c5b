// SPDX-License-Identifier: GPL-2.0
/*
 * Notes: where the page lies of each domain that says what its memory is used for, in a table that
 * only the module writes.  What a process keeps in such a page is as safe as the domain; that it is
 * this page, and no forged one, is what the note is for.
 */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "epk.h"
#include "region.h"

/* As many to a page as entries of the domain table. */
static_assert(PAGE_SIZE / sizeof(u64) == EPK_CHUNK_ENTRIES);

/* The page that has the note of @index; NULL without memory. */
static u64 *notes_get(struct epk_context *ctx, u32 index)
{
	struct epk_chunk *chunk = epk_chunk_get(ctx, index);

	if (chunk && !chunk->notes)
		chunk->notes = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	return chunk ? chunk->notes : NULL;
}

/* The mmap lock is held, so it stays that. */
static bool is_own_page(struct epk_context *ctx, int id, unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(ctx->mm, addr);
	const struct epk_region *region;

	if (!vma || vma->vm_start > addr || vma->vm_ops != &epk_domain_vm_ops)
		return false;
	region = vma->vm_private_data;
	return region->id == id && !region->dead && vma_in_place(vma);
}

static int note_write(struct epk_context *ctx, int id, unsigned long addr)
{
	u32 slot = EPK_ID_INDEX(id) % EPK_CHUNK_ENTRIES;
	u64 *notes;

	if (!epk_domain_find(ctx, id))
		return -ENOENT;
	if (!is_own_page(ctx, id, addr))
		return -EINVAL;
	notes = notes_get(ctx, EPK_ID_INDEX(id));
	if (!notes)
		return -ENOMEM;
	if (notes[slot])
		return -EBUSY;
	WRITE_ONCE(notes[slot], addr);
	return 0;
}

/**
 * epk_note_set() - say where a domain's page lies
 * @ctx: the context of current->mm
 * @id: the domain
 * @addr: the page
 *
 * Return: see struct epk_note.
 */
int epk_note_set(struct epk_context *ctx, int id, u64 addr)
{
	int ret;

	if (offset_in_page(addr) || addr >= TASK_SIZE)
		return -EINVAL;
	if (mmap_read_lock_killable(ctx->mm))
		return -EINTR;
	mutex_lock(&ctx->lock);
	ret = note_write(ctx, id, addr);
	mutex_unlock(&ctx->lock);
	mmap_read_unlock(ctx->mm);
	return ret;
}

/**
 * epk_note_clear() - a domain goes, and its note with it
 * @ctx: the context, locked
 * @index: the domain's, which no other has yet
 */
void epk_note_clear(struct epk_context *ctx, u32 index)
{
	struct epk_chunk *chunk = ctx->chunks[index / EPK_CHUNK_ENTRIES];

	lockdep_assert_held(&ctx->lock);
	if (chunk->notes)
		WRITE_ONCE(chunk->notes[index % EPK_CHUNK_ENTRIES], 0);
}

static vm_fault_t notes_fault(struct vm_fault *vmf)
{
	struct epk_context *ctx = vmf->vma->vm_file->private_data;
	u64 *notes;

	mutex_lock(&ctx->lock);
	notes = notes_get(ctx, (vmf->pgoff - (EPK_MMAP_NOTES >> PAGE_SHIFT)) * EPK_CHUNK_ENTRIES);
	mutex_unlock(&ctx->lock);
	if (!notes)
		return VM_FAULT_OOM;

	vmf->page = virt_to_page(notes);
	get_page(vmf->page);
	return 0;
}

const struct vm_operations_struct epk_notes_vm_ops = {
	.fault = notes_fault,
	.mremap = epk_vma_mremap,
};
