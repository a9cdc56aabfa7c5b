// SPDX-License-Identifier: GPL-2.0
/*
 * The hypercalls, one function each.  <asm/kvm_epk.h> describes them.
 */
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/kvm_para.h>

#include "module.h"

/* The host's errors are Linux's own numbers, except KVM_ENOSYS. */
static long epk_hc(unsigned long op, unsigned long a1, unsigned long a2, unsigned long a3)
{
	long ret = kvm_hypercall4(KVM_HC_EPK, op, a1, a2, a3);

	if (ret >= 0)
		return ret;
	if (ret == -KVM_ENOSYS)
		return -EOPNOTSUPP;
	return IS_ERR_VALUE(ret) ? ret : -EIO;
}

/**
 * epk_hc_query() - ask the host one thing
 * @what: see enum kvm_epk_query
 *
 * Return: the answer, -EOPNOTSUPP where the host has no EPK for this VM or does
 * not know @what.
 */
long epk_hc_query(enum kvm_epk_query what)
{
	return epk_hc(KVM_EPK_QUERY, what, 0, 0);
}

/**
 * epk_hc_enable() - switch EPK on for the whole VM
 * @windows: KVM_EPK_WINDOWS() of a layout that is free
 * @identity: address of the identity page
 *
 * Return: 0, -EEXIST if it was on already, -EDOM if the address width of a virtual CPU does
 * not reach to the windows' end, -EBUSY if the host has memory or a device there, -ENOMEM if
 * it has no memory.
 */
int epk_hc_enable(u64 windows, u64 identity)
{
	return epk_hc(KVM_EPK_ENABLE, KVM_EPK_VERSION, windows, identity);
}

/**
 * epk_hc_save_at() - give the host memory to keep the VM's EPTs in
 * @addr: physical address of KVM_EPK_SAVED_BYTES(), which are the host's from then on; or
 *	0 to have them back
 *
 * Return: 0, -EINVAL if nothing can be kept there, -EFAULT if it is no memory.
 */
int epk_hc_save_at(u64 addr)
{
	return epk_hc(KVM_EPK_SAVE_AT, addr, 0, 0);
}

/**
 * epk_hc_create() - make an EPT, its window empty
 * @ept: index, not 0
 *
 * Return: 0, -EEXIST, -ENOMEM.
 */
int epk_hc_create(unsigned int ept)
{
	return epk_hc(KVM_EPK_CREATE, ept, 1, 0);
}

/**
 * epk_hc_destroy() - take EPTs out of existence, with what their windows hold
 * @ept: index of the first, not 0
 * @count: how many
 *
 * Return: 0, -ENOENT if one of them does not exist.
 */
int epk_hc_destroy(unsigned int ept, unsigned int count)
{
	return epk_hc(KVM_EPK_DESTROY, ept, count, 0);
}

/**
 * epk_hc_fill() - let slots of an EPT's window alias blocks of RAM
 * @ept: index
 * @run: KVM_EPK_RUN() of slots and blocks
 *
 * Return: 0, -EEXIST if one of the slots is full, -ENOENT if there is no such
 * EPT, -ENOMEM.
 */
int epk_hc_fill(unsigned int ept, u64 run)
{
	return epk_hc(KVM_EPK_FILL, ept, 1, run);
}

/**
 * epk_hc_empty() - undo epk_hc_fill()
 * @ept: index
 * @run: KVM_EPK_RUN() of slots, block 0
 *
 * Return: 0, -ENOENT if one of the slots is empty.
 */
int epk_hc_empty(unsigned int ept, u64 run)
{
	return epk_hc(KVM_EPK_EMPTY, ept, 1, run);
}
