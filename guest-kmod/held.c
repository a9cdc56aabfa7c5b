// SPDX-License-Identifier: GPL-2.0
/*
 * What current holds, and what that is enough for: in its PKRU, or by its record.
 */
#include <linux/mman.h>
#include <linux/sched.h>

#include <asm/pkru.h>

#include "module.h"

/**
 * epk_held_prot() - what current holds of a domain
 * @thread: its record, not stashed
 * @id: the domain
 *
 * Context: interrupts off.
 * Return: PROT_READ, perhaps with PROT_WRITE; or 0.
 */
int epk_held_prot(const struct epk_thread *thread, int id)
{
	unsigned int pkey = epk_record_open_key(thread, id);

	if (pkey)
		return epk_pkru_allows(read_pkru(), pkey, true) ? PROT_READ | PROT_WRITE : PROT_READ;
	return epk_record_prot(thread, id);
}

/**
 * epk_rights_list() - what current holds
 * @ctx: the context of current->mm
 * @list: room
 * @max: for so many
 *
 * Return: how many it holds.
 */
unsigned int epk_rights_list(struct epk_context *ctx, struct epk_grant *list, unsigned int max)
{
	const struct epk_thread *thread;
	unsigned int n, nr = 0, pkey;
	int id;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (!thread || thread->ctx != ctx || !thread->follows)
		goto out;
	for (n = thread->base; n < thread->nr_rights; n++) {
		id = thread->rights[n].id;
		if (epk_table_read(ctx, EPK_ID_INDEX(id)).id == id && nr++ < max)
			list[nr - 1] = (struct epk_grant) { id, epk_held_prot(thread, id) };
	}
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		id = READ_ONCE(ctx->place_ids[epk_current_ept()][pkey]);
		if (id && ctx->pkeys & BIT(pkey) && epk_record_open_key(thread, id) == pkey && nr++ < max)
			list[nr - 1] = (struct epk_grant) { id, epk_held_prot(thread, id) };
	}
out:
	local_irq_enable();
	return nr;
}

/**
 * epk_rights_list_interrupted() - what the code holds that a signal interrupted
 * @ctx: the context of current->mm
 * @list: room
 * @max: for so many
 *
 * Return: how many, for who is not in a handler 0.
 */
unsigned int epk_rights_list_interrupted(struct epk_context *ctx, struct epk_grant *list, unsigned int max)
{
	const struct epk_interrupted *from;
	const struct epk_thread *thread;
	unsigned int n, nr = 0;

	local_irq_disable();
	thread = epk_thread_find(current);
	from = thread && thread->ctx == ctx ? epk_record_handled(thread) : NULL;
	for (n = from ? from->base : 0; from && n < thread->base; n++) {
		const struct epk_right *right = &thread->rights[n];

		if (epk_table_read(ctx, EPK_ID_INDEX(right->id)).id == right->id && nr++ < max)
			list[nr - 1] = (struct epk_grant) {
				right->id, right->read_only ? PROT_READ : PROT_READ | PROT_WRITE,
			};
	}
	local_irq_enable();
	return nr;
}

/**
 * epk_rights_hold() - does current hold enough for an access
 * @thread: its record
 * @id: the domain
 * @write: to write, else to read
 *
 * Context: interrupts off.
 */
bool epk_rights_hold(const struct epk_thread *thread, int id, bool write)
{
	int n;

	if (!thread->stashed)
		return epk_held_prot(thread, id) & (write ? PROT_WRITE : PROT_READ);
	n = epk_record_find(thread, id);
	return n >= 0 && epk_record_allows(thread, n, write);
}

/**
 * epk_rights_may_shape() - may current change what memory a domain has
 * @ctx: the context of current->mm
 * @id: the domain
 */
bool epk_rights_may_shape(const struct epk_context *ctx, int id)
{
	const struct epk_thread *thread;
	unsigned long flags;
	bool holds;

	if (!epk_table_is_private(ctx, id))
		return true;
	local_irq_save(flags);
	thread = epk_thread_find(current);
	holds = thread && thread->ctx == ctx && epk_rights_hold(thread, id, true);
	local_irq_restore(flags);
	return holds;
}
