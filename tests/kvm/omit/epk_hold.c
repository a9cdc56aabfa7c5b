// SPDX-License-Identifier: GPL-2.0
/*
 * Have whoever calls a function of KVM's wait at its start until it is released, and
 * another function, or the same after that, do nothing.  So tests see what happens in
 * the middle of what else is over before they can look.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sched/signal.h>

static char *hold = "";
module_param(hold, charp, 0444);
MODULE_PARM_DESC(hold, "The function at whose start to wait");

static char *skip = "";
module_param(skip, charp, 0444);
MODULE_PARM_DESC(skip, "The function to return from at once");

static bool held;
module_param(held, bool, 0444);
MODULE_PARM_DESC(held, "Somebody has come to wait");

static bool released;
module_param(released, bool, 0644);
MODULE_PARM_DESC(released, "Nobody waits any more");


static struct kprobe hold_probe, skip_probe;

/* A probe's handler can't sleep; this is what its function is instead. */
static noinline notrace long wait_first(unsigned long a, unsigned long b, unsigned long c)
{
	long (*function)(unsigned long a, unsigned long b, unsigned long c);

	function = (void *)hold_probe.addr;
	WRITE_ONCE(held, true);
	while (!READ_ONCE(released) && !fatal_signal_pending(current))
		msleep(20);
	WRITE_ONCE(released, true);
	return function(a, b, c);
}

static noinline notrace long do_nothing(void)
{
	barrier();
	return 0;
}

static int on_hold(struct kprobe *probe, struct pt_regs *regs)
{
	if (READ_ONCE(released))
		return 0;

	regs->ip = (unsigned long)wait_first;
	return 1;
}

static int on_skip(struct kprobe *probe, struct pt_regs *regs)
{
	/* The probe to hold is there, too, and comes first. */
	if (!strcmp(hold, skip) && !READ_ONCE(released))
		return 0;

	regs->ip = (unsigned long)do_nothing;
	return 1;
}

static int place(struct kprobe *probe, char *function, kprobe_pre_handler_t handler)
{
	if (!*function)
		return 0;

	probe->symbol_name = function;
	probe->pre_handler = handler;
	return register_kprobe(probe);
}

static void take_away(struct kprobe *probe)
{
	if (probe->symbol_name)
		unregister_kprobe(probe);
}

static int __init epk_hold_init(void)
{
	int r = place(&hold_probe, hold, on_hold);

	if (r)
		return r;

	r = place(&skip_probe, skip, on_skip);
	if (r)
		take_away(&hold_probe);
	return r;
}

static void __exit epk_hold_exit(void)
{
	take_away(&skip_probe);
	take_away(&hold_probe);
}

module_init(epk_hold_init);
module_exit(epk_hold_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Hold threads at a function of KVM's");
