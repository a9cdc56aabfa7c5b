// SPDX-License-Identifier: GPL-2.0
/*
 * Threads of a process with domains that never registered.
 *
 * They hold no domain, but may have opened a key all the same.  Like its EPT, such
 * a thread loses it with the CPU: by the time that it comes back another domain may
 * have the place.  (What runs meanwhile is reached by epk_revoke()'s interrupt.)
 *
 * So that all other threads pay nothing for it, these have one node, the
 * same for all, at the end of their lists of preempt notifiers, where the probe of
 * each context switch sees that there is something to do.  The threads that a
 * process has get it when a context of it comes into use, later ones at birth.  Threads of
 * the kernel that use its memory then count among them.
 */
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/stop_machine.h>

#include "module.h"

/* If KVM in this guest calls notifiers: there is nothing to do. */
static void node_sched_in(struct preempt_notifier *notifier, int cpu)
{
}

static void node_sched_out(struct preempt_notifier *notifier, struct task_struct *next)
{
}

static struct preempt_ops node_ops = {
	.sched_in = node_sched_in,
	.sched_out = node_sched_out,
};

/* Being in many lists at once, it has no predecessor: nothing may look at @pprev. */
struct preempt_notifier epk_unregistered_node = { .ops = &node_ops };
static bool added;

/* Where it is in a thread's list, or where it would be. */
static struct hlist_node **node_find(struct task_struct *task)
{
	struct hlist_node **link = &task->preempt_notifiers.first;

	while (*link && *link != &epk_unregistered_node.link)
		link = &(*link)->next;
	return link;
}

/**
 * epk_unregistered_add() - a thread is not registered
 * @task: current, with interrupts off, or a thread that does not run
 */
void epk_unregistered_add(struct task_struct *task)
{
	*node_find(task) = &epk_unregistered_node.link;
}

/**
 * epk_unregistered_drop() - take the node away, if it is there
 * @task: as for epk_unregistered_add()
 */
void epk_unregistered_drop(struct task_struct *task)
{
	*node_find(task) = NULL;
}

/*
 * Add the node to a thread that may run on another CPU.  It has no record: that is to come.
 * What else is in its list cannot be looked at from here.
 */
static bool add_other(struct task_struct *task)
{
	struct hlist_node *first = cmpxchg(&task->preempt_notifiers.first, NULL, &epk_unregistered_node.link);

	return !first || first == &epk_unregistered_node.link;
}

/**
 * epk_unregistered_add_all() - no thread that an address space has is registered
 * @mm: that of current; new threads of it have it from birth already
 *
 * A thread that is being switched to meanwhile may miss it until it leaves the CPU.
 *
 * Return: 0, -EBUSY if one of them runs a virtual CPU just now.
 */
int epk_unregistered_add_all(struct mm_struct *mm)
{
	struct task_struct *process, *task;
	bool done = true;

	WRITE_ONCE(added, true);
	local_irq_disable();
	epk_unregistered_add(current);
	local_irq_enable();
	if (atomic_read(&mm->mm_users) == 1)
		return 0;

	rcu_read_lock();
	for_each_process_thread(process, task) {
		if (task != current && READ_ONCE(task->mm) == mm)
			done &= add_other(task);
	}
	rcu_read_unlock();
	return done ? 0 : -EBUSY;
}

/* All other CPUs wait, so no thread runs. */
static int drop_threads(void *unused)
{
	struct task_struct *process, *task;

	rcu_read_lock();
	for_each_process_thread(process, task)
		epk_unregistered_drop(task);
	rcu_read_unlock();
	return 0;
}

/**
 * epk_unregistered_exit() - no thread has the node after this, nor gets one
 */
void epk_unregistered_exit(void)
{
	if (added)
		stop_machine(drop_threads, NULL, NULL);
}
