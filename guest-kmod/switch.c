// SPDX-License-Identifier: GPL-2.0
/*
 * The probe that every context switch of the guest pays for, apart from the rest
 * so that it is compiled without a frame: see Kbuild.
 */
#include <linux/sched.h>

#include "module.h"

/**
 * epk_probe_switch() - a context switch
 * @identity: the identity page
 * @preempt: unused
 * @prev: the thread that leaves the CPU
 * @next: the thread that comes
 * @prev_state: unused
 *
 * Context: on prev's stack, the run queue locked, interrupts off.
 */
void epk_probe_switch(void *identity, bool preempt, struct task_struct *prev,
		      struct task_struct *next, unsigned int prev_state)
{
	u32 ept = READ_ONCE(((const struct kvm_epk_identity *)identity)->ept);

	if (unlikely(ept | (unsigned long)next->preempt_notifiers.first))
		epk_thread_switch(identity, preempt, prev, next);
}
