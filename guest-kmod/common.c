// SPDX-License-Identifier: GPL-2.0
/*
 * Common rights: what every thread of the process may do with a domain while it does not hold it.
 *
 * A thread gets one when it first wants it, by an access that PKRU refuses: see guard_fault.c.  Then
 * the domain's key is open in its PKRU and noted in its record as common: that is no holding, and is
 * forgotten wherever what is held would be put into the record, since the next access gives it again.
 * So to give a right to all threads is one store.
 *
 * To take it away is one interrupt for the CPUs that run threads of the process, wherever the domain's
 * key may be open; all others lose their common rights when they are switched in.
 *
 * While a domain has a common right the table unlists its place, so that no gate opens or closes
 * the key: what is noted as common stays true.
 */
#include <linux/mman.h>
#include <linux/sched.h>

#include <asm/pkru.h>

#include "module.h"

#define PROT_RW	(PROT_READ | PROT_WRITE)

static void unlist(struct epk_context *ctx, struct epk_domain *domain, bool unlisted)
{
	if (domain->unlisted == unlisted)
		return;
	domain->unlisted = unlisted;
	epk_table_write(ctx, domain);
}

static void change(struct epk_context *ctx, struct epk_domain *domain, int prot)
{
	int less = domain->common & ~prot;

	/* Before somebody has it open, and until nobody has. */
	if (prot)
		unlist(ctx, domain, true);
	epk_dawdle();
	WRITE_ONCE(domain->common, prot);
	if (less)
		epk_retract(ctx, domain->ept, domain->pkey ? BIT(domain->pkey) : 0);
	if (!prot)
		unlist(ctx, domain, false);
}

/*
 * Who is confined changes nothing that others see, and what is given here they see.  Another component
 * is not confined: it writes where it likes, and begins what it likes, so that this gives it nothing.
 */
static bool may_change(void)
{
	return !(read_pkru() & EPK_KEY0);
}

/**
 * epk_common_set() - say what all threads may do with a domain that they do not hold
 * @ctx: the context of current->mm
 * @id: the domain
 * @prot: 0; PROT_READ, perhaps with PROT_WRITE; or EPK_PROTECT_ASK
 *
 * Return: see EPK_IOC_PROTECT.
 */
int epk_common_set(struct epk_context *ctx, int id, int prot)
{
	bool ask = prot == (int)EPK_PROTECT_ASK;
	struct epk_domain *domain;
	int ret = 0;

	if (!ask && prot & ~PROT_RW)
		return -EINVAL;
	if (prot & PROT_WRITE)
		prot |= PROT_READ;
	if (id <= 0)
		return -ENOENT;
	if (!ask && !may_change())
		return -EPERM;
	mutex_lock(&ctx->lock);
	domain = epk_domain_find(ctx, id);
	if (!domain)
		ret = -ENOENT;
	else if (ask)
		ret = domain->common;
	else if (domain->private)
		ret = -EPERM;
	else if (!epk_unlisted_get(ctx, EPK_ID_INDEX(id)))
		ret = -ENOMEM;
	else
		change(ctx, domain, prot);
	mutex_unlock(&ctx->lock);
	return ret;
}

/**
 * epk_common_prot() - what current may do with a domain if it does not hold it
 * @ctx: the context of current->mm
 * @id: a domain that is not freed meanwhile: the mmap lock is held, and a mapping of it not dead
 *
 * Who is confined changes nothing that others see.
 *
 * Context: interrupts off, until the right is used: so epk_retract() waits.
 * Return: 0; PROT_READ, perhaps with PROT_WRITE.
 */
int epk_common_prot(struct epk_context *ctx, int id)
{
	const struct epk_domain *domain = epk_domain_peek(ctx, id);
	int prot = domain ? READ_ONCE(domain->common) : 0;

	return read_pkru() & EPK_KEY0 ? prot & ~PROT_WRITE : prot;
}

/**
 * epk_common_open() - let current use a common right
 * @thread: its record
 * @id: the domain, which it does not hold
 * @ept: where that is
 * @pkey: its key there
 * @prot: see epk_common_prot()
 *
 * Not where PKRU is not current's: while a signal is delivered, and while KVM keeps it.
 *
 * Context: interrupts off.
 * Return: false if it cannot, and nothing is open that was not.
 */
bool epk_common_open(struct epk_thread *thread, int id, u32 ept, u8 pkey, int prot)
{
	const struct epk_context *ctx = thread->ctx;
	u32 pkru;

	/* A batch that takes the place away waits for this CPU. */
	if (thread->stashed || epk_thread_runs_vcpu(current) || READ_ONCE(ctx->place_ids[ept][pkey]) != id ||
	    READ_ONCE(ctx->leaving[ept]) & BIT(pkey))
		return false;
	if (ept != epk_current_ept() && epk_rights_go(thread, ept))
		return false;
	if (thread->commons_ept != ept)
		thread->commons = 0;
	if (!thread->commons)
		/* Pairs with epk_retract(), whose interrupt comes if this is too new. */
		thread->retracted = smp_load_acquire(&ctx->retractions);
	thread->commons_ept = ept;
	thread->commons |= BIT(pkey);
	pkru = read_pkru() & ~(3u << 2 * pkey);
	write_pkru(prot & PROT_WRITE ? pkru : pkru | 2u << 2 * pkey);
	return true;
}
