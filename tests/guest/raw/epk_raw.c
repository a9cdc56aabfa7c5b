// SPDX-License-Identifier: GPL-2.0
/*
 * For tests only: lets a program play a hostile guest kernel by making any
 * hypercall it likes at CPL 0, see the entries of its page tables, and play the
 * firmware that puts a machine to sleep.
 */
#include <linux/fs.h>
#include <linux/kvm_para.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/suspend.h>
#include <linux/uaccess.h>

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
	default:
		return -ENOTTY;
	}
}

static const struct file_operations raw_fops = {
	.owner = THIS_MODULE,
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
