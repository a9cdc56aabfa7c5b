// SPDX-License-Identifier: GPL-2.0
/*
 * What tracepoints of the kernel tell of threads: each context switch, their births, their ends, and
 * the signals that they handle.
 */
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/tracepoint.h>

#include "module.h"

static void probe_exit(void *data, struct task_struct *task)
{
	epk_thread_drop();
}

static void probe_exec(void *data, struct task_struct *task, pid_t old_pid,
		       struct linux_binprm *bprm)
{
	/* Batches meet it still, and its registers are the new program's. */
	epk_dawdle();
	epk_thread_drop();
}

/*
 * A thread must not start with the rights that its creator happens to hold.
 * This event, unlike sched_process_fork, comes for io_uring's workers too; the
 * new thread does not run yet, and loses them when it does.
 */
static void probe_newtask(void *data, struct task_struct *task, unsigned long clone_flags)
{
	if (task->mm && task->mm == current->mm && epk_context_exists(task->mm))
		epk_unregistered_add(task);
}

static void probe_signal(void *data, int sig, struct kernel_siginfo *info, struct k_sigaction *ka)
{
	struct epk_thread *thread;

	if (ka->sa.sa_handler == SIG_DFL || ka->sa.sa_handler == SIG_IGN)
		return;
	thread = epk_thread_find(current);
	if (thread)
		epk_signal_deliver(thread);
	else
		epk_context_restart_gate(current);
}

static struct probe {
	const char *name;
	void *func;
	void *data;
	struct tracepoint *tp;
	bool registered;
} probes[] = {
	{ .name = "sched_switch", .func = epk_probe_switch },
	{ .name = "sched_process_exit", .func = probe_exit },
	{ .name = "sched_process_exec", .func = probe_exec },
	{ .name = "task_newtask", .func = probe_newtask },
	{ .name = "signal_deliver", .func = probe_signal },
};

static void probe_find(struct tracepoint *tp, void *data)
{
	struct probe *probe = data;

	if (!strcmp(tp->name, probe->name))
		probe->tp = tp;
}

/**
 * epk_threads_init() - start to watch context switches
 *
 * Return: 0, -ENODEV if the kernel lacks one of the tracepoints.
 */
int epk_threads_init(void)
{
	struct probe *probe;
	int ret;

	/* Handed over, so that the probe of each context switch need not look for it. */
	probes[0].data = (void *)epk_host.identity;
	for (probe = probes; probe < probes + ARRAY_SIZE(probes); probe++) {
		for_each_kernel_tracepoint(probe_find, probe);
		ret = probe->tp ? tracepoint_probe_register(probe->tp, probe->func, probe->data) :
				  -ENODEV;
		if (ret) {
			epk_threads_exit();
			return ret;
		}
		probe->registered = true;
	}
	return 0;
}

/**
 * epk_threads_exit() - stop watching; no thread has a record
 */
void epk_threads_exit(void)
{
	struct probe *probe;

	for (probe = probes; probe < probes + ARRAY_SIZE(probes); probe++) {
		if (probe->registered)
			tracepoint_probe_unregister(probe->tp, probe->func, probe->data);
		probe->registered = false;
	}
	tracepoint_synchronize_unregister();
	epk_unregistered_exit();
}
