// SPDX-License-Identifier: GPL-2.0
/*
 * Suspend and hibernation.
 *
 * User threads are frozen in the kernel, switched out: their EPTs are in their
 * records.  One is not, the thread that asked for it.  It runs on the boot CPU to
 * the end, and a suspend to RAM takes EPT and PKRU away under it: the CPU
 * comes back reset, in EPT 0 with all keys open.  The other CPUs are unplugged
 * first and come back with no thread of anybody.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/notifier.h>
#include <linux/suspend.h>

#include <asm/pkru.h>

#include "module.h"

static struct {
	u32 ept;
	u32 pkru;
} asleep;

/* On the boot CPU, all others off, interrupts too. */
static int power_suspend(EPK_SYSCORE_ARG)
{
	asleep.ept = epk_current_ept();
	asleep.pkru = read_pkru();
	return 0;
}

/* Likewise.  Rights come after the EPT that they were held in. */
static void power_resume(EPK_SYSCORE_ARG)
{
	epk_host_resumed();
	if (epk_current_ept() != asleep.ept && !epk_vmfunc(asleep.ept))
		epk_vmfunc(0);
	write_pkru(asleep.pkru);
}

static struct syscore_ops power_ops = {
	.suspend = power_suspend,
	.resume = power_resume,
};

static struct syscore power_syscore = {
	.ops = &power_ops,
};

/*
 * An image of this guest would be loaded into a new VM: the domains' PTEs would
 * be there, and no EPT behind their addresses.
 */
static int power_notify(struct notifier_block *notifier, unsigned long event, void *unused)
{
	if (event != PM_HIBERNATION_PREPARE)
		return NOTIFY_DONE;
	pr_err("hibernation is refused while this module is loaded: an image cannot hold EPTs\n");
	return notifier_from_errno(-EBUSY);
}

static struct notifier_block power_notifier = {
	.notifier_call = power_notify,
};

/**
 * epk_power_init() - take part in suspend, refuse hibernation
 *
 * Return: 0, or what register_pm_notifier() says.
 */
int __init epk_power_init(void)
{
	int ret = register_pm_notifier(&power_notifier);

	if (!ret)
		register_syscore(&power_syscore);
	return ret;
}

/**
 * epk_power_exit() - undo it
 */
void epk_power_exit(void)
{
	unregister_syscore(&power_syscore);
	unregister_pm_notifier(&power_notifier);
}
