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

#include "epk.h"

struct epk_host epk_host __ro_after_init;

static struct resource *windows;

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
		pr_err("the host speaks EPK version %ld, this module %d\n", version,
		       KVM_EPK_VERSION);
		return -ENODEV;
	}
	return 0;
}

static int __init host_layout(void)
{
	long nr_epts = epk_hc_query(KVM_EPK_QUERY_NR_EPTS);
	long slots = epk_hc_query(KVM_EPK_QUERY_WINDOW_SLOTS);
	long base = epk_hc_query(KVM_EPK_QUERY_WINDOW_BASE);
	long identity = epk_hc_query(KVM_EPK_QUERY_IDENTITY_GPA);

	if (nr_epts < 1 || nr_epts > KVM_EPK_MAX_EPTS || slots < 1 || slots > U16_MAX ||
	    base <= 0 || base & (BIT(KVM_EPK_BLOCK_SHIFT) - 1) ||
	    identity <= 0 || offset_in_page(identity)) {
		pr_err("the host's EPK makes no sense: %ld EPTs, %ld slots from %lx, identity at %lx\n",
		       nr_epts, slots, base, identity);
		return -ENODEV;
	}
	epk_host.nr_epts = nr_epts;
	epk_host.slots = slots;
	epk_host.window_pfn = base >> PAGE_SHIFT;
	epk_host.identity_pfn = identity >> PAGE_SHIFT;
	return 0;
}

/*
 * Once EPK is enabled, the windows are nothing else any more.  Refuse if a
 * device is there, and let no device be put there.
 */
static int __init windows_reserve(void)
{
	u64 start = PFN_PHYS(epk_host.window_pfn);
	u64 size = (u64)epk_host.nr_epts * epk_host.slots << KVM_EPK_BLOCK_SHIFT;

	if (region_intersects(start, size, IORESOURCE_MEM, IORES_DESC_NONE) ==
	    REGION_DISJOINT)
		windows = request_mem_region(start, size, "EPK windows");
	if (windows)
		return 0;

	pr_err("device memory lies at or above %#llx, where EPK's windows have to be: see /proc/iomem\n",
	       start);
	return -EBUSY;
}

static void windows_release(void)
{
	release_mem_region(windows->start, resource_size(windows));
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

static int __init host_enable(void)
{
	int ret = host_check_version() ?: host_layout();

	if (ret)
		return ret;
	ret = windows_reserve();
	if (ret)
		return ret;

	ret = epk_hc_enable();
	/* An earlier load, or the kernel before a reboot, may have left it enabled. */
	if (ret && ret != -EEXIST)
		pr_err("the host cannot enable EPK for this VM (%d)\n", ret);
	else
		ret = identity_map();
	if (ret)
		windows_release();
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
 * Return: 0, -ENODEV, -EBUSY or -ENOMEM, with a line in the log.
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
	memunmap((void *)epk_host.identity);
	windows_release();
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
