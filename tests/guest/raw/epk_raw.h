/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef EPK_RAW_H
#define EPK_RAW_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct epk_raw - one hypercall, with arguments that no module would pass
 * @nr: hypercall number
 * @args: a0 to a3
 * @result: out: what the host returned
 */
struct epk_raw {
	__u64 nr;
	__u64 args[4];
	__s64 result;
};

/**
 * struct epk_raw_entry - what maps an address of the caller
 * @addr: the address
 * @entry: out: the entry of the page tables that maps it, 0 if none does
 * @level: out: 1 for a page of 4 KiB, 2 for one of 2 MiB
 * @rsvd: not looked at
 */
struct epk_raw_entry {
	__u64 addr;
	__u64 entry;
	__u32 level;
	__u32 rsvd;
};

/* Who copies a word on behalf of the caller. */
enum epk_raw_who {
	EPK_RAW_KTHREAD, EPK_RAW_WORK, EPK_RAW_SOFTIRQ, EPK_RAW_KEEPER, EPK_RAW_NR_WHO
};

/**
 * struct epk_raw_copy - have the kernel read or write a word of the caller's memory
 * @addr: where
 * @value: the word
 * @who: enum epk_raw_who: a kernel thread or a work item that uses the caller's address
 *	space, both on the caller's CPU, a softirq that interrupts the caller, or a kernel thread
 *	that does so from the first time on that it is named, until the device is closed
 * @write: write it
 */
struct epk_raw_copy {
	__u64 addr;
	__u64 value;
	__u32 who;
	__u32 write;
};

/* By what the kernel reads memory of whom it interrupts; what it has of it then. */
enum epk_raw_how {
	EPK_RAW_WORD,		/* copy_from_user_nofault(): the word */
	EPK_RAW_STRING,		/* strncpy_from_user_nofault(): its first seven bytes */
	EPK_RAW_LENGTH,		/* strnlen_user_nofault(): how long a string it is */
	EPK_RAW_STACK,		/* arch_stack_walk_user(): the word behind, a return address */
	EPK_RAW_NR_HOW,
	EPK_RAW_KERNEL = EPK_RAW_NR_HOW	/* by the kernel's own address of it: the word */
};

/**
 * struct epk_raw_look - have the kernel look at memory, as tracers and BPF programs have it
 * @addr: where, in memory of the caller
 * @value: out: what it says
 * @how: enum epk_raw_how
 * @rsvd: not looked at
 */
struct epk_raw_look {
	__u64 addr;
	__u64 value;
	__u32 how;
	__u32 rsvd;
};

/**
 * struct epk_raw_follow - ask the kernel for the page frame behind an address, as KVM does for
 * a memslot and VFIO for DMA
 * @addr: an address of the caller
 * @pfn: out: what it says
 */
struct epk_raw_follow {
	__u64 addr;
	__u64 pfn;
};

/**
 * struct epk_raw_vcpu - play KVM with a virtual CPU loaded
 * @flags: address of two words of 32 bits: the first becomes 1 when it is loaded; it is put when
 *	the second is not 0
 */
struct epk_raw_vcpu {
	__u64 flags;
};

#define EPK_RAW_DEVICE	"/dev/epk-raw"
#define EPK_RAW_CALL	_IOWR('E', 0xf0, struct epk_raw)
#define EPK_RAW_ENTRY	_IOWR('E', 0xf1, struct epk_raw_entry)
/* Let "mem" in /sys/power/state be a sleep that resets the CPU; how often it was so far. */
#define EPK_RAW_SLEEPS	_IO('E', 0xf2)
/* EFAULT if it could not. */
#define EPK_RAW_COPY	_IOWR('E', 0xf3, struct epk_raw_copy)
#define EPK_RAW_FOLLOW	_IOWR('E', 0xf4, struct epk_raw_follow)
#define EPK_RAW_VCPU	_IOW('E', 0xf5, struct epk_raw_vcpu)

/* EFAULT if it sees nothing. */
#define EPK_RAW_LOOK	_IOWR('E', 0xf6, struct epk_raw_look)

#endif /* EPK_RAW_H */
