// SPDX-License-Identifier: GPL-2.0
/*
 * For tests only: lets a program play a hostile guest kernel by making any
 * hypercall it likes at CPL 0, see the entries of its page tables, have the kernel's
 * own threads reach for its memory, and play the firmware that puts a machine to sleep.
 */
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/kvm_para.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/stacktrace.h>
#include <linux/suspend.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include <asm/asm.h>
#include <asm/pkru.h>

#include "epk_raw.h"

static long raw_call(void __user *uarg)
{
	struct epk_raw raw;

	if (copy_from_user(&raw, uarg, sizeof(raw)))
		return -EFAULT;
	/* kvm_hypercall4() would cut the number to 32 bits. */
	asm volatile(KVM_HYPERCALL
		     : "=a" (raw.result)
		     : "a" (raw.nr), "b" (raw.args[0]), "c" (raw.args[1]),
		       "d" (raw.args[2]), "S" (raw.args[3])
		     : "memory");
	return copy_to_user(uarg, &raw, sizeof(raw)) ? -EFAULT : 0;
}

static void find_entry(struct mm_struct *mm, struct epk_raw_entry *req)
{
	pgd_t *pgd = pgd_offset(mm, req->addr);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd;

	if (pgd_none(*pgd))
		return;
	p4d = p4d_offset(pgd, req->addr);
	if (p4d_none(*p4d))
		return;
	pud = pud_offset(p4d, req->addr);
	if (pud_none(*pud) || pud_leaf(*pud))
		return;
	pmd = pmd_offset(pud, req->addr);
	if (pmd_none(*pmd))
		return;
	req->level = pmd_leaf(*pmd) ? 2 : 1;
	req->entry = req->level == 2 ? pmd_val(*pmd) :
				       pte_val(*pte_offset_kernel(pmd, req->addr));
}

static long raw_entry(void __user *uarg)
{
	struct epk_raw_entry req;

	if (copy_from_user(&req, uarg, sizeof(req)))
		return -EFAULT;
	if (req.addr >= TASK_SIZE_MAX)
		return -EINVAL;
	req.entry = 0;
	req.level = 0;
	mmap_read_lock(current->mm);
	find_entry(current->mm, &req);
	mmap_read_unlock(current->mm);
	return copy_to_user(uarg, &req, sizeof(req)) ? -EFAULT : 0;
}

struct copy {
	struct epk_raw_copy req;
	struct mm_struct *mm;
	struct work_struct work;
	struct tasklet_struct tasklet;
	struct completion done;
	unsigned long left;
};

/* What is to be copied is mapped, or is not to be had. */
static void copy_word(struct copy *copy)
{
	void __user *addr = u64_to_user_ptr(copy->req.addr);

	pagefault_disable();
	if (copy->req.write)
		copy->left = copy_to_user(addr, &copy->req.value, sizeof(u64));
	else
		copy->left = copy_from_user(&copy->req.value, addr, sizeof(u64));
	pagefault_enable();
	complete(&copy->done);
}

static void copy_with_mm(struct copy *copy)
{
	kthread_use_mm(copy->mm);
	copy_word(copy);
	kthread_unuse_mm(copy->mm);
}

static int copy_thread_main(void *copy)
{
	copy_with_mm(copy);
	return 0;
}

static void copy_work(struct work_struct *work)
{
	copy_with_mm(container_of(work, struct copy, work));
}

/* A kernel thread as vhost has one, from its first use to the end of the open file. */
struct keeper {
	struct kthread_worker *worker;
	struct mm_struct *mm;
};

struct keeper_work {
	struct kthread_work work;
	struct keeper *keeper;
	struct copy *copy;
};

static void keeper_come(struct kthread_work *work)
{
	kthread_use_mm(container_of(work, struct keeper_work, work)->keeper->mm);
}

static void keeper_go(struct kthread_work *work)
{
	kthread_unuse_mm(container_of(work, struct keeper_work, work)->keeper->mm);
}

static void keeper_copy(struct kthread_work *work)
{
	copy_word(container_of(work, struct keeper_work, work)->copy);
}

static void keeper_run(struct keeper *keeper, kthread_work_func_t func, struct copy *copy)
{
	struct keeper_work work = { .keeper = keeper, .copy = copy };

	kthread_init_work(&work.work, func);
	kthread_queue_work(keeper->worker, &work.work);
	kthread_flush_work(&work.work);
}

static int keeper_start(struct keeper *keeper)
{
	struct kthread_worker *worker;

	if (keeper->worker)
		return 0;
	worker = kthread_create_worker_on_cpu(raw_smp_processor_id(), 0, "epk_raw");
	if (IS_ERR(worker))
		return PTR_ERR(worker);
	keeper->worker = worker;
	keeper->mm = get_task_mm(current);
	keeper_run(keeper, keeper_come, NULL);
	return 0;
}

static void keeper_stop(struct keeper *keeper)
{
	if (!keeper->worker)
		return;
	keeper_run(keeper, keeper_go, NULL);
	kthread_destroy_worker(keeper->worker);
	mmput(keeper->mm);
}

static void copy_softirq(struct tasklet_struct *tasklet)
{
	copy_word(container_of(tasklet, struct copy, tasklet));
}

static int copy_start(struct keeper *keeper, struct copy *copy)
{
	struct task_struct *task;
	int ret;

	switch (copy->req.who) {
	case EPK_RAW_KTHREAD:
		task = kthread_create(copy_thread_main, copy, "epk_raw");
		if (IS_ERR(task))
			return PTR_ERR(task);
		get_task_struct(task);
		kthread_bind(task, raw_smp_processor_id());
		wake_up_process(task);
		wait_for_completion(&copy->done);
		kthread_stop(task);
		put_task_struct(task);
		return 0;
	case EPK_RAW_WORK:
		INIT_WORK(&copy->work, copy_work);
		schedule_work_on(raw_smp_processor_id(), &copy->work);
		flush_work(&copy->work);
		return 0;
	case EPK_RAW_SOFTIRQ:
		tasklet_setup(&copy->tasklet, copy_softirq);
		/* Runs at the second of these, on top of this thread. */
		local_bh_disable();
		tasklet_schedule(&copy->tasklet);
		local_bh_enable();
		tasklet_kill(&copy->tasklet);
		return 0;
	case EPK_RAW_KEEPER:
		ret = keeper_start(keeper);
		if (!ret)
			keeper_run(keeper, keeper_copy, copy);
		return ret;
	default:
		return -EINVAL;
	}
}

static long raw_copy(struct keeper *keeper, void __user *uarg)
{
	struct copy *copy = kzalloc(sizeof(*copy), GFP_KERNEL);
	long ret = -EFAULT;

	if (!copy)
		return -ENOMEM;
	if (copy_from_user(&copy->req, uarg, sizeof(copy->req)))
		goto out;
	copy->mm = current->mm;
	init_completion(&copy->done);
	ret = copy_start(keeper, copy);
	if (!ret && (copy->left || copy_to_user(uarg, &copy->req, sizeof(copy->req))))
		ret = -EFAULT;
out:
	kfree(copy);
	return ret;
}

/* What no module may call has an address all the same. */
static void *function(const char *name)
{
	struct kprobe probe = { .symbol_name = name, .flags = KPROBE_FLAG_DISABLED };
	void *addr;

	if (register_kprobe(&probe))
		return NULL;
	addr = probe.addr;
	unregister_kprobe(&probe);
	return addr;
}

struct walk {
	unsigned int steps;
	u64 value;
};

/* Of two steps the first is where the thread itself is. */
static bool walk_step(void *walk, unsigned long addr)
{
	((struct walk *)walk)->value = addr;
	return ++((struct walk *)walk)->steps < 2;
}

static long look_stack(struct epk_raw_look *req)
{
	void (*walk_user)(stack_trace_consume_fn consume, void *cookie,
			  const struct pt_regs *regs) = function("arch_stack_walk_user");
	struct pt_regs regs = { .bp = req->addr, .sp = req->addr };
	struct walk walk = {};

	if (!walk_user)
		return -ENOENT;
	walk_user(walk_step, &walk, &regs);
	req->value = walk.value;
	return walk.steps == 2 ? 0 : -EFAULT;
}

/* Where memory has the address by which the page tables have it: there is one EPT. */
static long look_by_kernel(struct epk_raw_look *req)
{
	struct epk_raw_entry entry = { .addr = req->addr };

	mmap_read_lock(current->mm);
	find_entry(current->mm, &entry);
	mmap_read_unlock(current->mm);
	if (entry.level != 1 || !(entry.entry & _PAGE_PRESENT))
		return -EFAULT;
	memcpy(&req->value, __va(entry.entry & PTE_PFN_MASK) + offset_in_page(req->addr),
	       sizeof(req->value));
	return 0;
}

static long look(struct epk_raw_look *req)
{
	const void __user *addr = u64_to_user_ptr(req->addr);
	long (*string)(char *to, const void __user *from, long count);
	long (*length)(const void __user *from, long count);
	long ret;

	switch (req->how) {
	case EPK_RAW_WORD:
		return copy_from_user_nofault(&req->value, addr, sizeof(req->value));
	case EPK_RAW_STRING:
		string = function("strncpy_from_user_nofault");
		ret = string ? string((char *)&req->value, addr, sizeof(req->value)) : -ENOENT;
		return min(ret, 0L);
	case EPK_RAW_LENGTH:
		length = function("strnlen_user_nofault");
		req->value = length ? length(addr, 100) : 0;
		return req->value ? 0 : -EFAULT;
	case EPK_RAW_STACK:
		return look_stack(req);
	case EPK_RAW_KERNEL:
		return look_by_kernel(req);
	default:
		return -EINVAL;
	}
}

static long raw_look(void __user *uarg)
{
	struct epk_raw_look req;
	long ret;

	if (copy_from_user(&req, uarg, sizeof(req)))
		return -EFAULT;
	req.value = 0;
	ret = look(&req);
	return ret ?: copy_to_user(uarg, &req, sizeof(req)) ? -EFAULT : 0;
}

#ifdef CONFIG_SUSPEND

static int sleeps;

/* A machine that wakes up again has its CPU reset: EPT 0, all keys open. */
static int raw_sleep(suspend_state_t state)
{
	asm goto("1:	.byte 0x0f, 0x01, 0xd4\n"	/* vmfunc */
		 _ASM_EXTABLE(1b, %l[disabled])
		 : : "a" (0), "c" (0) : "memory" : disabled);
disabled:
	write_pkru(0);
	sleeps++;
	return 0;
}

static const struct platform_suspend_ops raw_sleep_ops = {
	.valid = suspend_valid_only_mem,
	.enter = raw_sleep,
};

static long raw_sleeps(void)
{
	suspend_set_ops(&raw_sleep_ops);
	return sleeps;
}

static void raw_exit(void)
{
	suspend_set_ops(NULL);
}

#else

static long raw_sleeps(void)
{
	return -EOPNOTSUPP;
}

static void raw_exit(void)
{
}

#endif

#ifdef EPK_HAVE_FOLLOW_PFNMAP

static int follow(struct vm_area_struct *vma, struct epk_raw_follow *req)
{
	struct follow_pfnmap_args args = { .vma = vma, .address = req->addr };
	int ret = follow_pfnmap_start(&args);

	if (ret)
		return ret;
	req->pfn = args.pfn;
	follow_pfnmap_end(&args);
	return 0;
}

#else

static int follow(struct vm_area_struct *vma, struct epk_raw_follow *req)
{
	spinlock_t *lock;
	pte_t *pte;
	int ret = follow_pte(vma->vm_mm, req->addr, &pte, &lock);

	if (ret)
		return ret;
	req->pfn = pte_pfn(*pte);
	pte_unmap_unlock(pte, lock);
	return 0;
}

#endif

static long raw_follow(void __user *uarg)
{
	struct vm_area_struct *vma;
	struct epk_raw_follow req;
	int ret = -EFAULT;

	if (copy_from_user(&req, uarg, sizeof(req)))
		return -EFAULT;
	mmap_read_lock(current->mm);
	vma = find_vma(current->mm, req.addr);
	if (vma && vma->vm_start <= req.addr)
		ret = follow(vma, &req);
	mmap_read_unlock(current->mm);
	return ret ?: copy_to_user(uarg, &req, sizeof(req)) ? -EFAULT : 0;
}

struct vcpu {
	struct preempt_notifier notifier;
	u32 host_pkru;
};

static void vcpu_in(struct preempt_notifier *notifier, int cpu)
{
	container_of(notifier, struct vcpu, notifier)->host_pkru = read_pkru();
}

static void vcpu_out(struct preempt_notifier *notifier, struct task_struct *next)
{
}

static struct preempt_ops vcpu_ops = { .sched_in = vcpu_in, .sched_out = vcpu_out };

/* As kvm_arch_vcpu_load(), kvm_load_host_xsave_state() after an exit, and vcpu_put(). */
static long raw_vcpu(void __user *uarg)
{
	struct epk_raw_vcpu req;
	struct vcpu vcpu;
	u32 __user *flags;
	u32 stop = 0;
	long ret = 0;

	if (copy_from_user(&req, uarg, sizeof(req)))
		return -EFAULT;
	flags = u64_to_user_ptr(req.flags);
	preempt_notifier_inc();
	preempt_notifier_init(&vcpu.notifier, &vcpu_ops);
	preempt_disable();
	preempt_notifier_register(&vcpu.notifier);
	vcpu.host_pkru = read_pkru();
	preempt_enable();
	if (put_user(1, flags))
		ret = -EFAULT;
	while (!ret && !stop && !fatal_signal_pending(current)) {
		if (get_user(stop, flags + 1))
			ret = -EFAULT;
		cond_resched();
	}
	preempt_disable();
	write_pkru(vcpu.host_pkru);
	preempt_notifier_unregister(&vcpu.notifier);
	preempt_enable();
	preempt_notifier_dec();
	return ret;
}

static long raw_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *uarg = (void __user *)arg;

	switch (cmd) {
	case EPK_RAW_CALL:
		return raw_call(uarg);
	case EPK_RAW_ENTRY:
		return raw_entry(uarg);
	case EPK_RAW_SLEEPS:
		return raw_sleeps();
	case EPK_RAW_COPY:
		return raw_copy(file->private_data, uarg);
	case EPK_RAW_LOOK:
		return raw_look(uarg);
	case EPK_RAW_FOLLOW:
		return raw_follow(uarg);
	case EPK_RAW_VCPU:
		return raw_vcpu(uarg);
	default:
		return -ENOTTY;
	}
}

static int raw_open(struct inode *inode, struct file *file)
{
	file->private_data = kzalloc(sizeof(struct keeper), GFP_KERNEL);
	return file->private_data ? 0 : -ENOMEM;
}

static int raw_release(struct inode *inode, struct file *file)
{
	keeper_stop(file->private_data);
	kfree(file->private_data);
	return 0;
}

static const struct file_operations raw_fops = {
	.owner = THIS_MODULE,
	.open = raw_open,
	.release = raw_release,
	.unlocked_ioctl = raw_ioctl,
};

static struct miscdevice raw_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "epk-raw",
	.fops = &raw_fops,
};

static int __init raw_init(void)
{
	return misc_register(&raw_misc);
}

static void __exit raw_cleanup(void)
{
	misc_deregister(&raw_misc);
	raw_exit();
}

module_init(raw_init);
module_exit(raw_cleanup);

MODULE_DESCRIPTION("Raw hypercalls for the tests of EPK");
MODULE_LICENSE("GPL");
