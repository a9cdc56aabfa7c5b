// SPDX-License-Identifier: GPL-2.0
/*
 * The child of vfork(), and of what posix_spawn() makes of it, is another process that runs in the
 * memory of its parent, which waits: with its parent's arguments, and often on its stack.  So it may
 * access what the thread holds that waits for it, and gets it when it first wants it.
 *
 * While the thread waits, all that it holds is in its record, by the domains' IDs.
 */
#include <linux/file.h>
#include <linux/ptrace.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>

#include <asm/pkru.h>

#include "epk.h"
#include "guard.h"
#include "hook.h"

static pid_t guarded_clone(struct kernel_clone_args *args);

static void notrace before_clone(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	const struct kernel_clone_args *args = (const void *)epk_hook_regs(fregs)->di;

	if ((args->flags & (CLONE_VM | CLONE_VFORK)) != (CLONE_VM | CLONE_VFORK))
		return;
	if (current->mm && epk_context_exists(current->mm))
		epk_hook_divert(fregs, guarded_clone);
}

static struct epk_hook clone_hooks[] = {
	{ .symbol = "kernel_clone", .before = before_clone },
};

/* The record of current, which lends; NULL if that has none, or does not follow. */
static struct epk_thread *lend_begin(void)
{
	struct epk_thread *thread;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (thread && thread->follows) {
		thread->stack = task_pt_regs(current)->sp;
		write_pkru(epk_record_stash(thread, read_pkru(), epk_current_ept()));
		raw_spin_lock(&thread->ctx->threads_lock);
		list_add(&thread->lends, &thread->ctx->lenders);
		raw_spin_unlock(&thread->ctx->threads_lock);
	} else {
		thread = NULL;
	}
	local_irq_enable();
	return thread;
}

/* A debugger that has written its registers meanwhile has taken them out of the record again. */
static void lend_end(struct epk_thread *thread)
{
	u32 pkru;

	local_irq_disable();
	raw_spin_lock(&thread->ctx->threads_lock);
	list_del(&thread->lends);
	if (thread->stashed) {
		pkru = read_pkru() | thread->ctx->pkru_deny;
		write_pkru(epk_record_unstash(thread, pkru, epk_current_ept()));
	}
	raw_spin_unlock(&thread->ctx->threads_lock);
	local_irq_enable();
}

/* The original waits until the child executes a program, or is gone, or this thread is killed. */
static pid_t guarded_clone(struct kernel_clone_args *args)
{
	struct epk_thread *thread;
	pid_t ret;

	epk_hook_enter();
	thread = lend_begin();
	ret = epk_hook_original(&clone_hooks[0], typeof(&guarded_clone))(args);
	if (thread)
		lend_end(thread);
	epk_hook_leave();
	return ret;
}

/*
 * Is current the child that a thread waits for?  What it waits for lies on its stack in the kernel,
 * until it does so no longer; and it is no sister's, nor a thread's.
 */
static bool waits_for_current(struct task_struct *task)
{
	unsigned long done = (unsigned long)READ_ONCE(current->vfork_done);

	return rcu_access_pointer(current->real_parent) == task &&
	       done - (unsigned long)task_stack_page(task) < THREAD_SIZE;
}

/**
 * epk_vfork_lends() - may current access a domain because it is the child of vfork()
 * @ctx: the context of current->mm
 * @id: the domain
 * @read_only: set if not to write
 * @file: if not NULL, what the parent was registered with; it has to be put
 *
 * Context: interrupts off.
 */
bool epk_vfork_lends(struct epk_context *ctx, int id, bool *read_only, struct file **file)
{
	struct epk_thread *thread;
	bool found = false;
	unsigned int n;

	if (!READ_ONCE(current->vfork_done))
		return false;
	raw_spin_lock(&ctx->threads_lock);
	list_for_each_entry(thread, &ctx->lenders, lends) {
		if (!waits_for_current(thread->task))
			continue;
		for (n = thread->base; n < thread->nr_rights && !found; n++) {
			found = thread->rights[n].id == id;
			*read_only = thread->rights[n].read_only;
		}
		if (found && file)
			*file = get_file(thread->file);
		break;
	}
	raw_spin_unlock(&ctx->threads_lock);
	return found;
}

int __init epk_guard_vfork_init(void)
{
	return epk_hooks_add(clone_hooks, ARRAY_SIZE(clone_hooks));
}
