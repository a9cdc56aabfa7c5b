// SPDX-License-Identifier: GPL-2.0
/*
 * Extended Protection Keys: load, unload, statistics.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include "module.h"
#include "guard.h"
#include "hook.h"

static struct dentry *debugfs_dir;

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
		seq_printf(m, "%s %ld\n", host[i].name, epk_host_query(host[i].what));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int processes_show(struct seq_file *m, void *unused)
{
	epk_contexts_show(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(processes);

/* In the order of how often they are called. */
static int __init guards_init(void)
{
	/* In the order of how much it matters that they are found fast. */
	return epk_guard_fault_init() ?: epk_guard_confined_init() ?: epk_guard_trap_init() ?:
	       epk_guard_signal_init() ?: epk_guard_memory_init() ?: epk_guard_trace_init() ?:
	       epk_guard_key_init() ?: epk_guard_uprobe_init() ?: epk_hooks_arm();
}

static int __init epk_init(void)
{
	int ret;

	ret = epk_host_init();
	if (ret)
		return ret;
	epk_users_init();
	ret = epk_epts_init();
	if (ret) {
		pr_err("cannot fill the window of EPT 0 (%d)\n", ret);
		goto host;
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
	if (epk_host.alone)
		pr_info("no EPTs from the host: 15 domains of a process have a place at once\n");
	else
		pr_info("%u EPTs, windows of %u GiB at %#llx\n", epk_host.nr_epts, epk_host.slots,
			(u64)PFN_PHYS(epk_host.window_pfn));
	return 0;

guards:
	epk_hooks_disarm();
power:
	epk_power_exit();
threads:
	epk_threads_exit();
epts:
	epk_epts_exit();
host:
	epk_host_exit();
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
	epk_host_exit();
}

module_init(epk_init);
module_exit(epk_exit);
MODULE_DESCRIPTION("Extended Protection Keys in a KVM guest");
MODULE_LICENSE("GPL");
