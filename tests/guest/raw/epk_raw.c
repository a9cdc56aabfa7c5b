// SPDX-License-Identifier: GPL-2.0
/*
 * For tests only: lets a program play a hostile guest kernel by making any
 * hypercall it likes at CPL 0.
 */
#include <linux/fs.h>
#include <linux/kvm_para.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "epk_raw.h"

static long raw_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *uarg = (void __user *)arg;
	struct epk_raw raw;

	if (cmd != EPK_RAW_CALL)
		return -ENOTTY;
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

static const struct file_operations raw_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = raw_ioctl,
};

static struct miscdevice raw_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "epk-raw",
	.fops = &raw_fops,
};
module_misc_device(raw_misc);

MODULE_DESCRIPTION("Raw hypercalls for the tests of EPK");
MODULE_LICENSE("GPL");
