// SPDX-License-Identifier: GPL-2.0
/*
 * The VM's EPTs: made when a context first puts a domain there, destroyed when
 * the last context that did so goes.  A context keeps its EPTs even while they
 * are empty: making one anew costs the VM exits that link its tables.
 *
 * The window of each EPT is filled with all of the guest's RAM when the EPT is
 * made.  Where it does not reach, it stays empty, and each slot is filled when
 * domain memory first comes from another block.
 *
 * A module that is alone has EPT 0 and no window: see host.c.
 */
#include <linux/ioport.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/smp.h>

#include "module.h"

/**
 * struct epk_ept - one EPT of the VM
 * @users: contexts that hold it
 * @nr_slots: slots of its window in use, all from slot 0 upwards
 * @slots: block number -> slot, as an xarray value
 */
struct epk_ept {
	unsigned int users;
	unsigned int nr_slots;
	struct xarray slots;
};

static struct epk_ept *epts;
static DEFINE_MUTEX(epts_lock);
/* Blocks that had RAM when the module was loaded. */
static unsigned int ram_blocks;

/* Fill the next free slots of @index with @count blocks from @block upwards. */
static int ept_fill(unsigned int index, unsigned long block, unsigned int count)
{
	struct epk_ept *ept = &epts[index];
	unsigned int i;
	int ret;

	lockdep_assert_held(&epts_lock);

	for (i = 0; i < count; i++) {
		ret = xa_err(xa_store(&ept->slots, block + i, xa_mk_value(ept->nr_slots + i),
				      GFP_KERNEL));
		if (ret)
			goto forget;
	}

	ret = epk_hc_fill(index, KVM_EPK_RUN(ept->nr_slots, block, count));
	if (ret)
		goto forget;

	ept->nr_slots += count;
	return 0;

forget:
	while (i--)
		xa_erase(&ept->slots, block + i);
	return ret;
}

/* One range of RAM: fill the blocks it touches that are not there yet. */
static int ept_fill_range(struct resource *res, void *arg)
{
	unsigned int index = (unsigned int)(unsigned long)arg;
	struct epk_ept *ept = &epts[index];
	u64 block = res->start >> KVM_EPK_BLOCK_SHIFT;
	u64 last = res->end >> KVM_EPK_BLOCK_SHIFT;

	while (block <= last && xa_load(&ept->slots, block))
		block++;
	last = min(last + 1, block + epk_host.slots - ept->nr_slots);
	if (block >= last)
		return 0;
	return ept_fill(index, block, last - block);
}

/* In ascending order. */
static int walk_ram(void *arg, int (*func)(struct resource *res, void *arg))
{
	return walk_iomem_res_desc(IORES_DESC_NONE, IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY,
				   0, -1, arg, func);
}

/* @arg: the first block that is not counted yet. */
static int __init count_range(struct resource *res, void *arg)
{
	u64 *next = arg;
	u64 block = max_t(u64, res->start >> KVM_EPK_BLOCK_SHIFT, *next);
	u64 last = res->end >> KVM_EPK_BLOCK_SHIFT;

	if (block <= last) {
		ram_blocks += last - block + 1;
		*next = last + 1;
	}
	return 0;
}

static int ept_fill_ram(unsigned int index)
{
	int ret;

	/* Let the memory that domains get decide which blocks they are. */
	if (ram_blocks > epk_host.slots)
		return 0;
	ret = walk_ram((void *)(unsigned long)index, ept_fill_range);

	/* -EINVAL is the walk's word for having found nothing. */
	return ret == -EINVAL && epts[index].nr_slots ? 0 : ret;
}

static int ept_create(unsigned int index)
{
	int ret;

	lockdep_assert_held(&epts_lock);

	ret = epk_hc_create(index);
	if (ret)
		return ret;

	ret = ept_fill_ram(index);
	if (ret)
		epk_hc_destroy(index, 1);
	return ret;
}

static void ept_forget(unsigned int index)
{
	xa_destroy(&epts[index].slots);
	epts[index].nr_slots = 0;
}

static int ept_get(struct epk_user *user, unsigned int index)
{
	int ret;

	lockdep_assert_held(&epts_lock);

	if (!epk_user_may_hold(user, index))
		return -ENOSPC;
	/* EPT 0 is always there, held by the module. */
	if (!epts[index].users) {
		ret = ept_create(index);
		if (ret) {
			ept_forget(index);
			return ret;
		}
		epk_user_made_ept(user);
	}
	epts[index].users++;
	if (!user->holds[index]++)
		user->nr_epts++;
	return 0;
}

/**
 * epk_ept_get() - hold an EPT, and make it if nobody did
 * @user: the user of the context that is to hold it
 * @ept: index below epk_host.nr_epts
 *
 * Context: process; takes the EPT mutex.
 * Return: 0, -ENOSPC if the user has as many as it may, or -ENOMEM where guest or host have
 * no memory.
 */
int epk_ept_get(struct epk_user *user, unsigned int ept)
{
	int ret;

	mutex_lock(&epts_lock);
	ret = ept_get(user, ept);
	mutex_unlock(&epts_lock);
	return ret;
}

static void ept_leave(void *dying)
{
	u32 ept = epk_current_ept();

	if (ept && test_bit(ept, dying))
		epk_vmfunc(0);
}

/**
 * epk_epts_put() - undo epk_ept_get() for a set of EPTs
 * @ctx: the context that holds them
 * @held: bitmap of KVM_EPK_MAX_EPTS
 *
 * What nobody holds any more is destroyed, after every CPU has left it that runs the
 * context's threads.  A rogue thread may be there or come again; the host brings it back.
 *
 * Context: process; takes the EPT mutex.
 */
void epk_epts_put(struct epk_context *ctx, const unsigned long *held)
{
	DECLARE_BITMAP(dying, KVM_EPK_MAX_EPTS);
	unsigned int ept, end;

	bitmap_zero(dying, KVM_EPK_MAX_EPTS);

	mutex_lock(&epts_lock);
	for_each_set_bit(ept, held, epk_host.nr_epts) {
		if (!--ctx->user->holds[ept])
			ctx->user->nr_epts--;
		if (!--epts[ept].users)
			__set_bit(ept, dying);
	}
	if (bitmap_empty(dying, KVM_EPK_MAX_EPTS))
		goto out;

	on_each_cpu_mask(&ctx->cpus, ept_leave, dying, true);
	/* In one hypercall where they lie side by side: each stops all CPUs. */
	for_each_set_bitrange(ept, end, dying, epk_host.nr_epts) {
		epk_hc_destroy(ept, end - ept);
		while (ept < end)
			ept_forget(ept++);
		cond_resched();
	}
out:
	mutex_unlock(&epts_lock);
}

static unsigned long slot_alias(unsigned int ept, void *slot, unsigned long pfn)
{
	return epk_host.window_pfn +
	       (((unsigned long)ept * epk_host.slots + xa_to_value(slot)) << EPK_BLOCK_PFN_BITS) +
	       (pfn & EPK_BLOCK_PFN_MASK);
}

/**
 * epk_ept_alias_known() - where an EPT's window shows a page, if it does already
 * @ept: index of an EPT that the caller's context holds, or EPK_EPT_ALL: where each shows it
 * @pfn: page frame of RAM
 * @alias: the page frame in the window, for a PTE
 *
 * Context: any.
 * Return: 0, -ENOENT.
 */
int epk_ept_alias_known(unsigned int ept, unsigned long pfn, unsigned long *alias)
{
	void *slot;

	if (epk_host.alone || ept == EPK_EPT_ALL) {
		*alias = pfn;
		return 0;
	}
	slot = xa_load(&epts[ept].slots, pfn >> EPK_BLOCK_PFN_BITS);
	if (!slot)
		return -ENOENT;
	*alias = slot_alias(ept, slot, pfn);
	return 0;
}

/**
 * epk_ept_alias() - where an EPT's window shows a page
 * @ept: index of an EPT that the caller's context holds, or EPK_EPT_ALL
 * @pfn: page frame of RAM
 * @alias: the page frame in the window, for a PTE
 *
 * Context: process; may take the EPT mutex.
 * Return: 0, -ENOSPC if every slot of the window aliases another block,
 * -ENOMEM.
 */
int epk_ept_alias(unsigned int ept, unsigned long pfn, unsigned long *alias)
{
	unsigned long block = pfn >> EPK_BLOCK_PFN_BITS;
	int ret = 0;

	if (!epk_ept_alias_known(ept, pfn, alias))
		return 0;

	mutex_lock(&epts_lock);
	if (!xa_load(&epts[ept].slots, block)) {
		if (epts[ept].nr_slots == epk_host.slots)
			ret = -ENOSPC;
		else
			ret = ept_fill(ept, block, 1);
	}
	mutex_unlock(&epts_lock);
	return ret ?: epk_ept_alias_known(ept, pfn, alias);
}

/* EPK outlives a reboot or a kexec, and with it what the kernel before had. */
static void __init epts_clear(void)
{
	unsigned int i;

	for (i = 1; i < epk_host.nr_epts && epk_hc_query(KVM_EPK_QUERY_EPTS) > 1; i++)
		epk_hc_destroy(i, 1);
	for (i = 0; i < epk_host.slots; i++)
		epk_hc_empty(0, KVM_EPK_RUN(i, 0, 1));
}

/**
 * epk_epts_init() - fill the window of EPT 0, which exists already
 *
 * Return: 0, -ENOMEM.
 */
int __init epk_epts_init(void)
{
	u64 next = 0;
	unsigned int i;
	int ret;

	walk_ram(&next, count_range);
	epts = kvcalloc(epk_host.nr_epts, sizeof(*epts), GFP_KERNEL);
	if (!epts)
		return -ENOMEM;
	for (i = 0; i < epk_host.nr_epts; i++)
		xa_init(&epts[i].slots);

	epts[0].users = 1;
	if (epk_host.alone)
		return 0;

	epts_clear();
	mutex_lock(&epts_lock);
	ret = ept_fill_ram(0);
	mutex_unlock(&epts_lock);
	if (ret)
		epk_epts_exit();
	return ret;
}

/**
 * epk_epts_exit() - empty the window of EPT 0; no context is left
 */
void epk_epts_exit(void)
{
	if (epts[0].nr_slots)
		epk_hc_empty(0, KVM_EPK_RUN(0, 0, epts[0].nr_slots));
	ept_forget(0);
	kvfree(epts);
}
