// SPDX-License-Identifier: GPL-2.0
/*
 * Hooks on functions of the kernel, by livepatch's own means: ftrace, with the right to
 * change where a function goes, and permanent.  While they are there the kernel
 * refuses kernel.ftrace_enabled=0, and refuses these functions to others who want to
 * change them.  Nothing else switches them off.
 *
 * They are armed before there is a device, all of them or none, and stay until the
 * module goes.  Some are on a way that each program takes all the time: these wait until they are wanted.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/linkage.h>
#include <linux/lockdep.h>
#include <linux/mm_types.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/uaccess.h>

#include <asm/ibt.h>

#include "hook.h"

#define HOOKS_MAX	48

static struct epk_hook *hooks[HOOKS_MAX];
static unsigned int nr_hooks;

atomic_t epk_hooks_inside;

asm(
	".pushsection .text\n"
	".globl epk_hook_go_back\n"
	".type epk_hook_go_back, @function\n"
	"epk_hook_go_back:\n"
	ASM_ENDBR
	ASM_RET
	".size epk_hook_go_back, . - epk_hook_go_back\n"
	".popsection\n"
);

/* See epk_hooks_alive(). */
static DEFINE_MUTEX(sign_lock);
static unsigned long sign_of_life;

static void notrace hook_entered(unsigned long ip, unsigned long parent_ip,
				 struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	unsigned int i;

	if (unlikely(epk_hook_regs(fregs)->di == (unsigned long)&sign_of_life)) {
		WRITE_ONCE(sign_of_life, 1);
		return;
	}
	if (within_module(parent_ip, THIS_MODULE))
		return;
	for (i = 0; i < nr_hooks; i++) {
		/* The call to ftrace may lie behind the ENDBR that indirect calls want. */
		if (ip - hooks[i]->entry <= ENDBR_INSN_SIZE) {
			hooks[i]->before(hooks[i], fregs);
			return;
		}
	}
}

static struct ftrace_ops hook_ops = {
	.func = hook_entered,
	.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT
#ifndef CONFIG_HAVE_DYNAMIC_FTRACE_WITH_ARGS
		| FTRACE_OPS_FL_SAVE_REGS
#endif
};

/**
 * epk_hooks_add() - hooks to be armed
 * @table: the hooks; they stay
 * @num: how many
 *
 * Those that come first are found fastest.
 *
 * Return: 0, -ENOSPC.
 */
int __init epk_hooks_add(struct epk_hook *table, unsigned int num)
{
	unsigned int i;

	if (WARN_ON_ONCE(num > HOOKS_MAX - nr_hooks))
		return -ENOSPC;
	for (i = 0; i < num; i++)
		hooks[nr_hooks++] = &table[i];
	return 0;
}

/* The one way by which a module may ask for an address is a probe, never armed. */
static int __init hooks_find(void)
{
	struct kprobe *probes = kcalloc(nr_hooks, sizeof(*probes), GFP_KERNEL);
	struct kprobe **list = kcalloc(nr_hooks, sizeof(*list), GFP_KERNEL);
	unsigned int i;
	int ret = probes && list ? 0 : -ENOMEM;

	for (i = 0; !ret && i < nr_hooks; i++) {
		list[i] = &probes[i];
		probes[i].symbol_name = hooks[i]->symbol;
		probes[i].flags = KPROBE_FLAG_DISABLED;
		ret = register_kprobe(&probes[i]);
		if (ret) {
			pr_err("this kernel has no %s() to guard (%d): was it built with an unusual configuration?\n",
			       hooks[i]->symbol, ret);
			break;
		}
		hooks[i]->entry = (unsigned long)probes[i].addr;
		if (is_endbr(*(u32 *)(hooks[i]->entry - ENDBR_INSN_SIZE)))
			hooks[i]->entry -= ENDBR_INSN_SIZE;
	}
	if (i)
		unregister_kprobes(list, i);
	kfree(list);
	kfree(probes);
	return ret;
}

/*
 * Returns only if nothing calls a hook any more.  Where the kernel's tracing has run into a
 * defect of its own, it stops for good, with what is armed, and says so to who asks next.  Then
 * the module's text has to stay: neither a load that fails nor an unload ends.
 */
static void hooks_settle(int ret)
{
	if (ret != -ENODEV && ftrace_set_filter_ip(&hook_ops, hooks[0]->entry, 1, 0) != -ENODEV)
		return;
	pr_err("the kernel's tracing is broken, and may call hooks: the module stays until a reboot\n");
	for (;;)
		schedule_timeout_idle(MAX_SCHEDULE_TIMEOUT);
}

static void hooks_unregister(void)
{
	hooks_settle(unregister_ftrace_function(&hook_ops));
}

/**
 * epk_hooks_arm() - arm all hooks that were added, or none
 *
 * Return: 0, or an error; the log says what the kernel lacks.
 */
int __init epk_hooks_arm(void)
{
	unsigned int i;
	int ret = hooks_find();

	for (i = 0; !ret && i < nr_hooks; i++) {
		if (hooks[i]->late)
			continue;
		ret = ftrace_set_filter_ip(&hook_ops, hooks[i]->entry, 0, 0);
		if (ret)
			pr_err("%s() cannot be hooked (%d): the kernel does not trace it\n",
			       hooks[i]->symbol, ret);
	}
	if (!ret) {
		ret = register_ftrace_function(&hook_ops);
		if (ret)
			hooks_settle(ret);
		if (ret == -EBUSY)
			pr_err("a live patch has hold of a function to guard, or kernel.ftrace_enabled is 0\n");
		else if (ret)
			pr_err("the kernel refuses hooks (%d)\n", ret);
	}
	if (!ret && !epk_hooks_alive()) {
		pr_err("hooks have no effect: set kernel.ftrace_enabled to 1\n");
		hooks_unregister();
		ret = -ENODEV;
	}
	if (ret)
		ftrace_free_filter(&hook_ops);
	return ret;
}

/**
 * epk_hook_arm_late() - arm a hook that was left out, if it is not armed yet
 * @hook: the hook
 *
 * The kernel's tracing has locks in which it waits for CPUs to come and go, and who keeps these may wait
 * for an mmap lock: cpusets do.
 *
 * Context: no mmap lock.
 * Return: 0, or an error, and nothing has changed.
 */
int epk_hook_arm_late(struct epk_hook *hook)
{
	int ret = 0;

	lockdep_assert_not_held(&current->mm->mmap_lock);
	mutex_lock(&sign_lock);
	if (hook->late)
		ret = ftrace_set_filter_ip(&hook_ops, hook->entry, 0, 0);
	if (!ret)
		hook->late = false;
	mutex_unlock(&sign_lock);
	return ret;
}

/**
 * epk_hooks_disarm() - undo epk_hooks_arm(); no task is in the module's text afterwards
 */
void epk_hooks_disarm(void)
{
	hooks_unregister();
	ftrace_free_filter(&hook_ops);
	/*
	 * Who was diverted before has counted itself by now: that waits for preempted tasks.  One that
	 * an oops has ended in the middle stays counted, and the module with it, until a reboot.
	 */
	while (atomic_read(&epk_hooks_inside))
		msleep(20);
	/* Those may be preempted behind their last statement, or on the way back. */
	synchronize_rcu_tasks();
}

/**
 * epk_hooks_alive() - do hooks have an effect
 *
 * They cannot be switched off, but a defect of the kernel's tracing can stop all of it.
 */
bool epk_hooks_alive(void)
{
	bool alive;

	mutex_lock(&sign_lock);
	WRITE_ONCE(sign_of_life, 0);
	/* This function is hooked, see guard_trace.c, and reads nothing here. */
	if (copy_from_user_nofault(&sign_of_life, NULL, 0))
		WRITE_ONCE(sign_of_life, 0);
	alive = READ_ONCE(sign_of_life);
	mutex_unlock(&sign_lock);
	return alive;
}

/* Those that are armed, in a line; an empty one if they have no effect any more. */
static int hooks_get(char *buffer, const struct kernel_param *param)
{
	unsigned int i;
	int len = 0;

	if (!epk_hooks_alive())
		return scnprintf(buffer, PAGE_SIZE, "\n");
	for (i = 0; i < nr_hooks; i++) {
		if (!hooks[i]->late)
			len += scnprintf(buffer + len, PAGE_SIZE - 1 - len, "%s%s", len ? "," : "",
					 hooks[i]->symbol);
	}
	return len + scnprintf(buffer + len, PAGE_SIZE - len, "\n");
}

static int hooks_set(const char *value, const struct kernel_param *param)
{
	return -EPERM;
}

static const struct kernel_param_ops hooks_ops = { .get = hooks_get, .set = hooks_set };
module_param_cb(hooks, &hooks_ops, NULL, 0444);
MODULE_PARM_DESC(hooks, "to be read: functions of the kernel that the module guards at");
