// SPDX-License-Identifier: GPL-2.0
/*
 * Notes: where the page lies of each domain that says what its memory is used for, in a table that
 * only the module writes.  What a process keeps in such a page is as safe as the domain; that it is
 * this page, and no forged one, is what the note is for.
 *
 * A private domain's note is also the only place where the process finds its key.
 */
#include <linux/mm.h>
#include <linux/sched.h>

#include "module.h"
#include "mapping.h"

/* The mmap lock is held, so it stays that. */
static bool is_own_page(struct epk_context *ctx, int id, unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(ctx->mm, addr);
	const struct epk_mapping *mapping;

	if (!vma || vma->vm_start > addr || vma->vm_ops != &epk_domain_vm_ops)
		return false;
	mapping = vma->vm_private_data;
	return mapping->id == id && !mapping->dead && vma_in_place(vma);
}

/*
 * Who begins it from now on finds that it is private, or is through before the batch; and what was
 * begun before, in a record or by a gate that has read the table, ends with the batch.
 */
static void make_private(struct epk_context *ctx, struct epk_domain *domain, bool confined)
{
	domain->private = true;
	domain->confined = confined;
	WRITE_ONCE(ctx->nr_private, ctx->nr_private + 1);
	epk_table_unlist(ctx, domain);
	epk_dawdle();
	domain->leaves = true;
	if (domain->pkey)
		epk_place_vacate(ctx, domain->ept, domain->pkey);
	epk_revoke(ctx);
	domain->leaves = false;
	epk_place_show(ctx, domain);
	epk_table_write(ctx, domain);
}

/* Positive: it can be set, once what confined threads need is armed. */
static int note_write(struct epk_context *ctx, int id, unsigned long addr, u32 flags, bool armed)
{
	struct epk_domain *domain = epk_domain_find(ctx, id);
	u32 slot = EPK_ID_INDEX(id) % EPK_CHUNK_ENTRIES;
	u64 *notes;

	if (!domain)
		return -ENOENT;
	if (!epk_rights_may_shape(ctx, id))
		return -EPERM;
	if (!is_own_page(ctx, id, addr))
		return -EINVAL;
	if (flags & EPK_NOTE_PRIVATE && domain->common)
		return -EBUSY;
	/* Gates go to the EPT that a private one is in. */
	if (flags & EPK_NOTE_PRIVATE && domain->ept == EPK_EPT_ALL)
		return -EINVAL;
	/* An empty page of notes, made now, changes nothing that anybody sees. */
	notes = epk_notes_get(ctx, EPK_ID_INDEX(id));
	if (!notes)
		return -ENOMEM;
	if (notes[slot])
		return -EBUSY;
	if (flags & EPK_NOTE_CONFINED && !armed)
		return 1;
	WRITE_ONCE(notes[slot], addr);
	if (flags & EPK_NOTE_PRIVATE)
		make_private(ctx, domain, flags & EPK_NOTE_CONFINED);
	return 0;
}

static int note_set(struct epk_context *ctx, int id, unsigned long addr, u32 flags, bool armed)
{
	int ret;

	if (mmap_read_lock_killable(ctx->mm))
		return -EINTR;
	mutex_lock(&ctx->lock);
	ret = note_write(ctx, id, addr, flags, armed);
	mutex_unlock(&ctx->lock);
	mmap_read_unlock(ctx->mm);
	return ret;
}

/**
 * epk_note_set() - say where a domain's page lies
 * @ctx: the context of current->mm
 * @id: the domain
 * @addr: the page
 * @flags: EPK_NOTE_PRIVATE, EPK_NOTE_CONFINED
 * @arm: makes threads that are confined possible; asked without locks, when nothing else fails
 *
 * What is armed stays armed, on a way that each program takes: nothing is for a note that is
 * refused, unless the process changes what it is about at the same time.
 *
 * Return: see struct epk_note.
 */
int epk_note_set(struct epk_context *ctx, int id, u64 addr, u32 flags, int (*arm)(void))
{
	int ret;

	/* With page tables of five levels TASK_SIZE is beyond what a note has room for. */
	if (addr != EPK_NOTE_ADDR(addr) || addr >= TASK_SIZE)
		return -EINVAL;
	ret = note_set(ctx, id, addr, flags, false);
	if (ret <= 0)
		return ret;
	ret = arm();
	return ret ? ret : note_set(ctx, id, addr, flags, true);
}
