// SPDX-License-Identifier: GPL-2.0
/*
 * What the host offers: EPTs, with windows that alias the guest's RAM, and an identity page
 * that tells in which of them a CPU is.
 *
 * Where it offers none, on a stock hypervisor or on bare metal, the module is alone.  It has
 * EPT 0 by itself: that is all of physical memory, so a page is its own alias, and the
 * identity page is one of the module's.  All else is the same, but that only the domains of
 * one EPT have a place at a time.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpufeature.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kvm_para.h>
#include <linux/moduleparam.h>

#include <asm/processor.h>

#include "module.h"
#include "room.h"

struct epk_host epk_host __ro_after_init;

/* Where the host keeps what EPTs there are and what is in them. */
static void *saved __ro_after_init;

static bool alone;
module_param(alone, bool, 0444);
MODULE_PARM_DESC(alone, "use no EPT but the first, whatever the host offers (default: no)");

static bool __init host_offers_epk(void)
{
	u32 base = boot_cpu_has(X86_FEATURE_HYPERVISOR) ?
		   hypervisor_cpuid_base("KVMKVMKVM\0\0\0", 0) : 0;

	return base && cpuid_eax(base | KVM_CPUID_FEATURES) & BIT(KVM_FEATURE_EPK);
}

static int __init host_check_version(void)
{
	long version = epk_hc_query(KVM_EPK_QUERY_VERSION);

	if (version < KVM_EPK_VERSION) {
		pr_err("the host speaks EPK version %ld, this module %d: update the host\n",
		       version, KVM_EPK_VERSION);
		return -ENODEV;
	}
	return 0;
}

/* An earlier load, or the kernel before a reboot or a kexec, may have left EPK enabled. */
static int __init host_adopt(unsigned int phys_bits, struct epk_layout *layout)
{
	long slots = epk_hc_query(KVM_EPK_QUERY_WINDOW_SLOTS);
	long identity = epk_hc_query(KVM_EPK_QUERY_IDENTITY_GPA);

	/* What is no such number is none that epk_room_keep() takes. */
	layout->slots = clamp(slots, 0L, (long)UINT_MAX);
	layout->identity = max(identity, 0L);
	return epk_room_keep(phys_bits, layout);
}

static int __init host_choose(unsigned int phys_bits, struct epk_layout *layout)
{
	int ret = epk_room_find(phys_bits, layout->epts, layout);

	if (ret)
		return ret;
	ret = epk_hc_enable(KVM_EPK_WINDOWS(layout->base >> KVM_EPK_BLOCK_SHIFT, layout->epts,
					    layout->slots), layout->identity);
	if (!ret)
		return 0;

	if (ret == -EBUSY)
		pr_err("the host has memory or a device where this kernel knows of none (mem= hides memory), in the windows of %u EPTs, of %u GiB each, at %#llx, or in the GiB of the identity page at %#llx: give another base (base=); or memory from 48 bits on, where no EPT reaches: give the VM fewer address bits (phys-bits=48)\n",
		       layout->epts, layout->slots, layout->base, layout->identity);
	else if (ret == -EDOM)
		pr_err("a virtual CPU has fewer address bits than this one: give all of them the same\n");
	else
		pr_err("the host cannot enable EPK for this VM (%d)\n", ret);
	epk_room_release();
	return ret == -EBUSY || ret == -ENOMEM ? ret : -ENODEV;
}

static int __init host_place(void)
{
	long epts = epk_hc_query(KVM_EPK_QUERY_NR_EPTS);
	long phys_bits = epk_hc_query(KVM_EPK_QUERY_PHYS_BITS);
	long base = epk_hc_query(KVM_EPK_QUERY_WINDOW_BASE);
	struct epk_layout layout = { .base = base, .epts = epts };
	int ret;

	if (epts < 1 || epts > KVM_EPK_MAX_EPTS || phys_bits <= KVM_EPK_BLOCK_SHIFT ||
	    phys_bits > 52 || base < 0) {
		pr_err("the host's EPK makes no sense: %ld EPTs, %ld address bits, windows at %#lx\n",
		       epts, phys_bits, base);
		return -ENODEV;
	}
	ret = base ? host_adopt(phys_bits, &layout) : host_choose(phys_bits, &layout);
	if (ret)
		return ret;

	epk_host.nr_epts = layout.epts;
	epk_host.slots = layout.slots;
	epk_host.window_pfn = PHYS_PFN(layout.base);
	epk_host.identity_pfn = PHYS_PFN(layout.identity);
	return 0;
}

static int __init identity_map(void)
{
	epk_host.identity = memremap((u64)epk_host.identity_pfn << PAGE_SHIFT, PAGE_SIZE,
				     MEMREMAP_WB);
	if (!epk_host.identity) {
		pr_err("no memory to map the identity page\n");
		return -ENOMEM;
	}
	if (epk_host.identity->version == KVM_EPK_VERSION)
		return 0;

	pr_err("the identity page shows version %u, not %d\n", epk_host.identity->version,
	       KVM_EPK_VERSION);
	memunmap((void *)epk_host.identity);
	return -ENODEV;
}

static size_t saved_bytes(void)
{
	return KVM_EPK_SAVED_BYTES(epk_host.nr_epts, epk_host.slots);
}

/*
 * It goes with the guest to another host.  Before anything is changed: what an earlier
 * kernel gave may be somebody's memory now, and the host would write there.
 */
static int __init saved_give(void)
{
	int ret;

	saved = alloc_pages_exact(saved_bytes(), GFP_KERNEL | __GFP_ZERO);
	if (!saved) {
		pr_err("no memory for the host to keep EPTs in: %zu bytes in one piece\n",
		       saved_bytes());
		return -ENOMEM;
	}
	ret = epk_hc_save_at(virt_to_phys(saved));
	if (ret) {
		pr_err("the host cannot keep EPTs at %#llx (%d)\n", (u64)virt_to_phys(saved), ret);
		free_pages_exact(saved, saved_bytes());
	}
	return ret;
}

static void saved_take_back(void)
{
	/* Never freed while the host may write to it. */
	if (!WARN_ON(epk_hc_save_at(0)))
		free_pages_exact(saved, saved_bytes());
}

static int __init host_enable(void)
{
	int ret = host_check_version() ?: host_place();

	if (ret)
		return ret;
	ret = identity_map();
	if (ret)
		goto room;
	ret = saved_give();
	if (!ret)
		return 0;

	memunmap((void *)epk_host.identity);
room:
	epk_room_release();
	return ret;
}

static int __init host_do_without(void)
{
	struct kvm_epk_identity *identity = (void *)get_zeroed_page(GFP_KERNEL);

	if (!identity)
		return -ENOMEM;
	identity->version = KVM_EPK_VERSION;
	epk_host.alone = true;
	epk_host.nr_epts = 1;
	epk_host.identity_pfn = page_to_pfn(virt_to_page(identity));
	epk_host.identity = identity;
	return 0;
}

/**
 * epk_host_init() - find out what there is, and switch EPK on
 *
 * Return: 0, -ENODEV, -EINVAL, -EBUSY or -ENOMEM, with a line in the log.
 */
int __init epk_host_init(void)
{
	if (!boot_cpu_has(X86_FEATURE_OSPKE)) {
		pr_err("this CPU has no protection keys (PKU), or the kernel does not use them\n");
		return -ENODEV;
	}
	return host_offers_epk() && !alone ? host_enable() : host_do_without();
}

/**
 * epk_host_exit() - give back what the module reserved; EPK stays on
 */
void epk_host_exit(void)
{
	if (epk_host.alone) {
		free_page((unsigned long)epk_host.identity);
		return;
	}
	saved_take_back();
	memunmap((void *)epk_host.identity);
	epk_room_release();
}

/**
 * epk_host_resumed() - tell the host that this is no other kernel
 *
 * A VMM resets virtual CPUs for a wake-up as it does for a reboot.
 */
void epk_host_resumed(void)
{
	if (!epk_host.alone)
		WARN_ON(epk_hc_save_at(virt_to_phys(saved)));
}

/**
 * epk_host_query() - a count of the host's
 * @what: one of KVM_EPK_QUERY_EPTS and the statistics
 *
 * Return: the count, or a negative number where the host does not know it.
 */
long epk_host_query(enum kvm_epk_query what)
{
	if (epk_host.alone)
		return what == KVM_EPK_QUERY_EPTS;
	return epk_hc_query(what);
}
