// SPDX-License-Identifier: GPL-2.0
/*
 * Have KVM leave out one kind of invalidation, to see that kvm.epk_debug=1
 * notices.  For tests only: what runs meanwhile may use stale mappings.
 */
#include <linux/kprobes.h>
#include <linux/module.h>

static int why = -1;
module_param(why, int, 0444);
MODULE_PARM_DESC(why, "The enum kvm_epk_invalidation to leave out; -1: none");

static noinline notrace void do_nothing(void)
{
	barrier();
}

/* void kvm_epk_invalidate(struct kvm *kvm, enum kvm_epk_invalidation why) */
static int omit(struct kprobe *probe, struct pt_regs *regs)
{
	if ((int)regs->si != why)
		return 0;

	/*
	 * Run another function instead, which returns to the caller.  The stack
	 * pointer is not for a probe to change where it is called by ftrace.
	 */
	regs->ip = (unsigned long)do_nothing;
	return 1;
}

static struct kprobe probe = {
	.symbol_name = "kvm_epk_invalidate",
	.pre_handler = omit,
};

static int __init epk_omit_init(void)
{
	return register_kprobe(&probe);
}

static void __exit epk_omit_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(epk_omit_init);
module_exit(epk_omit_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Leave out invalidations of EPK");
