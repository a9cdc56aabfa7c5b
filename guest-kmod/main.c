// SPDX-License-Identifier: GPL-2.0
/*
 * Extended Protection Keys: load, unload, statistics.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpufeature.h>
#include <linux/debugfs.h>
#include <linux/io.h>
#include <linux/kvm_para.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include <asm/processor.h>

#include "epk.h"
#include "guard.h"
#include "hook.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

struct epk_host epk_host __ro_after_init;
struct epk_counters epk_counters;

static struct dentry *debugfs_dir;
static struct resource *windows;

static int stats_show(struct seq_file *m, void *unused)
{
	static const struct {
		const char *name;
		enum kvm_epk_query what;
	} host[] = {
		{ "epts", KVM_EPK_QUERY_EPTS },
		{ "exits", KVM_EPK_QUERY_STAT_EXITS },
		{ "links", KVM_EPK_QUERY_STAT_LINKS },
		{ "faults", KVM_EPK_QUERY_STAT_FAULTS },
	};
	int i;

	seq_printf(m, "domains %ld\n", atomic_long_read(&epk_counters.domains));
	seq_printf(m, "pages %ld\n", atomic_long_read(&epk_counters.pages));
	seq_printf(m, "mapped %ld\n", atomic_long_read(&epk_counters.mapped));
	seq_printf(m, "contexts %ld\n", atomic_long_read(&epk_counters.contexts));
	seq_printf(m, "threads %ld\n", atomic_long_read(&epk_counters.threads));
	seq_printf(m, "rescues %lu\n", epk_thread_rescues());
	for (i = 0; i < ARRAY_SIZE(host); i++)
		seq_printf(m, "%s %ld\n", host[i].name, epk_hc_query(host[i].what));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int processes_show(struct seq_file *m, void *unused)
{
	epk_contexts_show(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(processes);

/* For debuggers: root opens it, and the log tells. */
bool epk_debug_access;

static int debug_access_set(const char *value, const struct kernel_param *kp)
{
	int ret = param_set_bool(value, kp);

	if (!ret)
		pr_warn("debug_access: ptrace and /proc/PID/mem %s domain memory\n",
			epk_debug_access ? "reach" : "do not reach");
	return ret;
}

static const struct kernel_param_ops debug_access_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = debug_access_set,
	.get = param_get_bool,
};
module_param_cb(debug_access, &debug_access_ops, &epk_debug_access, 0600);
MODULE_PARM_DESC(debug_access, "let ptrace and /proc/PID/mem reach domain memory (default: no)");

/* Everything that can be known without changing anything. */
static int __init host_probe(void)
{
	long version;
	u32 base;

	base = boot_cpu_has(X86_FEATURE_HYPERVISOR) ?
	       hypervisor_cpuid_base("KVMKVMKVM\0\0\0", 0) : 0;
	if (!base) {
		pr_err("this machine is not a KVM guest\n");
		return -ENODEV;
	}
	if (!boot_cpu_has(X86_FEATURE_OSPKE)) {
		pr_err("this virtual CPU has no protection keys (PKU)\n");
		return -ENODEV;
	}

	if (!(cpuid_eax(base | KVM_CPUID_FEATURES) & BIT(KVM_FEATURE_EPK))) {
		pr_err("the host offers no EPK to this VM\n");
		return -ENODEV;
	}
	version = epk_hc_query(KVM_EPK_QUERY_VERSION);
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
	int ret = host_layout();

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

/* In the order of how often they are called. */
static int __init guards_init(void)
{
	return epk_guard_memory_init() ?: epk_guard_signal_init() ?: epk_guard_trace_init() ?:
	       epk_guard_key_init() ?: epk_hooks_arm();
}

static int __init epk_init(void)
{
	int ret;

	ret = host_probe();
	if (ret)
		return ret;
	ret = host_enable();
	if (ret)
		return ret;
	epk_users_init();
	ret = epk_epts_init();
	if (ret) {
		pr_err("cannot fill the window of EPT 0 (%d)\n", ret);
		goto unmap;
	}
	ret = epk_threads_init();
	if (ret) {
		pr_err("cannot watch context switches (%d)\n", ret);
		goto epts;
	}
	ret = epk_power_init();
	if (ret) {
		pr_err("cannot take part in suspend (%d)\n", ret);
		goto threads;
	}
	ret = guards_init();
	if (ret) {
		pr_err("nothing can be protected without guards (%d)\n", ret);
		goto power;
	}
	/* Last, so that nobody is there who is not guarded. */
	ret = epk_device_init();
	if (ret) {
		pr_err("cannot make " EPK_DEVICE " (%d)\n", ret);
		goto guards;
	}

	debugfs_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("stats", 0400, debugfs_dir, NULL, &stats_fops);
	debugfs_create_file("processes", 0400, debugfs_dir, NULL, &processes_fops);
	pr_info("%u EPTs, windows of %u GiB\n", epk_host.nr_epts, epk_host.slots);
	return 0;

guards:
	epk_hooks_disarm();
power:
	epk_power_exit();
threads:
	epk_threads_exit();
epts:
	epk_epts_exit();
unmap:
	memunmap((void *)epk_host.identity);
	windows_release();
	return ret;
}

static void __exit epk_exit(void)
{
	debugfs_remove(debugfs_dir);
	epk_device_exit();
	epk_hooks_disarm();
	epk_power_exit();
	epk_threads_exit();
	epk_epts_exit();
	epk_users_exit();
	memunmap((void *)epk_host.identity);
	windows_release();
}

module_init(epk_init);
module_exit(epk_exit);
MODULE_DESCRIPTION("Extended Protection Keys in a KVM guest");
MODULE_LICENSE("GPL");
