// SPDX-License-Identifier: GPL-2.0
/*
 * Threads: no thread ever runs user code in an EPT that it did not enter.
 *
 * A CPU's EPT belongs to the thread that runs there.  A thread that is switched
 * out in another than EPT 0 leaves it in the sched_switch probe; if it has a
 * record, its EPT is noted there and entered again when it is switched in.  A
 * thread without a record comes back in EPT 0.  The kernel itself runs in any
 * EPT: all its memory is mapped alike in each.
 *
 * A record is reached only by its own thread, or for it on its CPU with
 * interrupts off: through the thread's preempt notifiers.  It dies in the
 * thread's own exit or exec.  It holds the file, and so the module.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/tracepoint.h>

#include <asm/asm.h>
#include <asm/pkru.h>

#include "epk.h"

/**
 * struct epk_thread - the record of a registered thread
 * @notifier: in the thread's list
 * @file: what it was registered with, referenced
 * @ctx: the file's context
 * @ept: the EPT to enter again when it is switched in, or 0
 * @seen: the last epoch of @ctx whose revocations it has met
 */
struct epk_thread {
	struct preempt_notifier notifier;
	struct file *file;
	struct epk_context *ctx;
	u32 ept;
	u32 seen;
};

DEFINE_PER_CPU(unsigned long, epk_rescues);

/**
 * epk_vmfunc() - enter an EPT
 * @ept: its index
 *
 * Context: preemption disabled.
 * Return: false if there is no such EPT any more: #UD, and the CPU stays where
 * it was.
 */
bool epk_vmfunc(unsigned int ept)
{
	asm goto("1:	.byte 0x0f, 0x01, 0xd4\n"	/* vmfunc */
		 _ASM_EXTABLE(1b, %l[invalid])
		 : : "a" (0), "c" (ept) : "memory" : invalid);
	return true;
invalid:
	return false;
}

/* Interrupts are off: epk_thread_revoke() may come by one. */
static void thread_meet_revocations(struct epk_thread *thread)
{
	/* Pairs with the release in epk_revoke(). */
	u32 epoch = smp_load_acquire(&thread->ctx->epoch);

	if (likely(thread->seen == epoch))
		return;
	epk_revoke_current(thread->ctx, thread->ept ?: epk_current_ept(), thread->seen);
	thread->seen = epoch;
}

static void thread_sched_in(struct preempt_notifier *notifier, int cpu)
{
	struct epk_thread *thread = container_of(notifier, struct epk_thread, notifier);
	unsigned long flags;

	if (unlikely(thread->seen != READ_ONCE(thread->ctx->epoch))) {
		local_irq_save(flags);
		thread_meet_revocations(thread);
		local_irq_restore(flags);
	}
	if (!thread->ept)
		return;
	/* If its EPT was destroyed meanwhile, it goes on in EPT 0. */
	epk_vmfunc(thread->ept);
	thread->ept = 0;
}

/* Too late for a switched-out thread: another already waits.  See the probe. */
static void thread_sched_out(struct preempt_notifier *notifier, struct task_struct *next)
{
}

static struct preempt_ops thread_ops = {
	.sched_in = thread_sched_in,
	.sched_out = thread_sched_out,
};

/* For current, or for the thread that this CPU is about to switch out. */
static struct epk_thread *thread_find(struct task_struct *task)
{
	struct preempt_notifier *notifier;

	lockdep_assert_preemption_disabled();
	hlist_for_each_entry(notifier, &task->preempt_notifiers, link) {
		if (notifier->ops == &thread_ops)
			return container_of(notifier, struct epk_thread, notifier);
	}
	return NULL;
}

/**
 * epk_thread_revoke() - close the keys of current that @ctx has revoked
 * @ctx: a context, in the middle of epk_revoke()
 *
 * Context: interrupts off.
 */
void epk_thread_revoke(struct epk_context *ctx)
{
	struct epk_thread *thread;

	lockdep_assert_irqs_disabled();

	if (current->mm != ctx->mm)
		return;
	thread = thread_find(current);
	if (thread)
		thread_meet_revocations(thread);
	else
		epk_revoke_current(ctx, epk_current_ept(), READ_ONCE(ctx->epoch) - 1);
}

static noinline void thread_rescue(struct task_struct *prev, u32 ept)
{
	struct epk_thread *thread = thread_find(prev);

	if (thread)
		thread->ept = ept;
	epk_vmfunc(0);
	this_cpu_inc(epk_rescues);
}

/* On prev's stack, the run queue locked: every context switch pays for this. */
static void probe_switch(void *data, bool preempt, struct task_struct *prev,
			 struct task_struct *next, unsigned int prev_state)
{
	u32 ept = epk_current_ept();

	if (unlikely(ept))
		thread_rescue(prev, ept);
}

/* Current is about to be no thread of its context any more. */
static void thread_drop(void)
{
	struct epk_thread *thread;

	preempt_disable();
	if (epk_current_ept())
		epk_vmfunc(0);
	local_irq_disable();
	thread = thread_find(current);
	if (thread)
		preempt_notifier_unregister(&thread->notifier);
	local_irq_enable();
	preempt_enable();

	if (thread) {
		atomic_long_dec(&epk_counters.threads);
		/* Deferred to the return to user mode, or to the end of exit. */
		fput(thread->file);
		kfree(thread);
	}
}

static void probe_exit(void *data, struct task_struct *task)
{
	thread_drop();
}

static void probe_exec(void *data, struct task_struct *task, pid_t old_pid,
		       struct linux_binprm *bprm)
{
	thread_drop();
}

/*
 * A thread must not start with the rights that its creator happens to hold.
 * This event, unlike sched_process_fork, comes for io_uring's workers too; the
 * new thread does not run yet.
 */
static void probe_newtask(void *data, struct task_struct *task, unsigned long clone_flags)
{
	if (task->mm && task->mm == current->mm)
		task->thread.pkru |= epk_context_pkru_deny(task->mm);
}

static struct probe {
	const char *name;
	void *func;
	struct tracepoint *tp;
	bool registered;
} probes[] = {
	{ .name = "sched_switch", .func = probe_switch },
	{ .name = "sched_process_exit", .func = probe_exit },
	{ .name = "sched_process_exec", .func = probe_exec },
	{ .name = "task_newtask", .func = probe_newtask },
};

static void probe_find(struct tracepoint *tp, void *data)
{
	struct probe *probe = data;

	if (!strcmp(tp->name, probe->name))
		probe->tp = tp;
}

/**
 * epk_thread_register() - let the EPT of current survive context switches
 * @file: an open /dev/epk of current's address space
 *
 * Registering twice is fine.
 *
 * Return: 0, -ENOMEM.
 */
int epk_thread_register(struct file *file)
{
	struct epk_thread *thread, *old;

	thread = kzalloc(sizeof(*thread), GFP_KERNEL_ACCOUNT);
	if (!thread)
		return -ENOMEM;
	preempt_notifier_init(&thread->notifier, &thread_ops);

	/* Against epk_thread_revoke(), which walks the same list. */
	preempt_disable();
	local_irq_disable();
	old = thread_find(current);
	if (!old) {
		thread->file = get_file(file);
		thread->ctx = file->private_data;
		thread->seen = READ_ONCE(thread->ctx->epoch);
		preempt_notifier_register(&thread->notifier);
	}
	local_irq_enable();
	preempt_enable();

	if (old)
		kfree(thread);
	else
		atomic_long_inc(&epk_counters.threads);
	return 0;
}

/**
 * epk_thread_rescues() - how often a thread was switched out in another than EPT 0
 */
unsigned long epk_thread_rescues(void)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu(epk_rescues, cpu);
	return sum;
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

	preempt_notifier_inc();
	for (probe = probes; probe < probes + ARRAY_SIZE(probes); probe++) {
		for_each_kernel_tracepoint(probe_find, probe);
		ret = probe->tp ? tracepoint_probe_register(probe->tp, probe->func, NULL) :
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
			tracepoint_probe_unregister(probe->tp, probe->func, NULL);
		probe->registered = false;
	}
	tracepoint_synchronize_unregister();
	preempt_notifier_dec();
}
