/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Extended Protection Keys: the hypercall interface between KVM and a guest,
 * and the ioctl interface between KVM and a VMM.
 *
 * The KVM series adds this very file to the kernel; tests/hygiene compares the
 * two copies.
 */
#ifndef _UAPI_ASM_X86_KVM_EPK_H
#define _UAPI_ASM_X86_KVM_EPK_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * One hypercall number; a0 selects the operation.  64-bit guests at CPL 0 only.
 * Every operation returns a value >= 0 or a negated error number:
 *
 *   -KVM_ENOSYS	EPK is not available to this VM, or the operation is unknown
 *   -EINVAL		an argument is out of range, or an unused one is not zero
 *   -EPERM		EPK is not enabled yet, or the vCPU is in system management mode
 *   -EEXIST		EPK is enabled already; the EPT exists; the slot is full
 *   -ENOENT		the EPT does not exist; the slot is empty
 *   -EBUSY		a memslot or a device lies where the guest wants windows
 *   -EFAULT		the place to save the state at is not memory
 *   -EDOM		a vCPU's MAXPHYADDR does not reach all windows and the identity page
 *   -ENOMEM		the host has no memory for the VM's page tables
 *
 * An operation on a range of EPTs or slots checks the whole range first: an
 * operation that fails has no effect, except that one that runs out of host
 * memory takes back what it did.
 */
#define KVM_HC_EPK			0x4550

/*
 * A bit of eax of the CPUID leaf KVM_CPUID_FEATURES: the hypercall is there.  KVM
 * sets it by itself in the CPUID of vCPUs of a VM that is offered EPK, whatever
 * KVM_SET_CPUID2 says, and KVM_GET_SUPPORTED_CPUID does not tell of it.
 */
#define KVM_FEATURE_EPK			27

#define KVM_EPK_QUERY			0	/* a1: enum kvm_epk_query */
/* a1: KVM_EPK_VERSION, a2: KVM_EPK_WINDOWS(), a3: address of the identity page */
#define KVM_EPK_ENABLE			1
#define KVM_EPK_CREATE			2	/* a1: first EPT, a2: count */
#define KVM_EPK_FILL			3	/* a1: first EPT, a2: count, a3: KVM_EPK_RUN() */
#define KVM_EPK_EMPTY			4	/* a1: first EPT, a2: count, a3: KVM_EPK_RUN() */
#define KVM_EPK_DESTROY			5	/* a1: first EPT, a2: count */
/* a1: address of the first of KVM_EPK_SAVED_BYTES(), a multiple of 4096; 0: nowhere */
#define KVM_EPK_SAVE_AT			6

#define KVM_EPK_VERSION			3

/* The EPTP list that VMFUNC leaf 0 indexes is one page of 8-byte entries. */
#define KVM_EPK_MAX_EPTS		512

/* A slot aliases one naturally aligned block of guest-physical memory. */
#define KVM_EPK_BLOCK_SHIFT		30

/* The slots of a window: a power of two, up to this. */
#define KVM_EPK_MAX_SLOTS		512

/*
 * Where the guest has room: the windows of @epts EPTs, of @slots slots each, lie side
 * by side from block @block on, a multiple of @slots.  They and the block of the
 * identity page lie between KVM_EPK_FIRST_BLOCK, below which much has a fixed place, and
 * 1 << KVM_EPK_QUERY_PHYS_BITS, overlap neither each other nor any memslot or device of
 * KVM's, and stay free of these for the life of the VM.
 */
#define KVM_EPK_FIRST_BLOCK		4

#define KVM_EPK_WINDOWS(block, epts, slots)				\
	((__u64)(block) | (__u64)(epts) << 24 | (__u64)(slots) << 40)
#define KVM_EPK_WINDOWS_BLOCK(windows)	((windows) & 0xffffff)
#define KVM_EPK_WINDOWS_EPTS(windows)	((windows) >> 24 & 0xffff)
#define KVM_EPK_WINDOWS_SLOTS(windows)	((windows) >> 40)

/*
 * A run of slots: slot + n aliases block + n, for n below count.  A block is
 * named by its guest-physical address >> KVM_EPK_BLOCK_SHIFT.  KVM_EPK_EMPTY
 * wants block 0.
 */
#define KVM_EPK_RUN(slot, block, count)					\
	((__u64)(slot) | (__u64)(block) << 16 | (__u64)(count) << 40)
#define KVM_EPK_RUN_SLOT(run)		((run) & 0xffff)
#define KVM_EPK_RUN_BLOCK(run)		((run) >> 16 & 0xffffff)
#define KVM_EPK_RUN_COUNT(run)		((run) >> 40)

/**
 * enum kvm_epk_query - what KVM_EPK_QUERY can answer, enabled or not
 * @KVM_EPK_QUERY_VERSION: the highest version that the host speaks
 * @KVM_EPK_QUERY_NR_EPTS: EPT indices run from 0 to this minus 1, as the guest has
 *	enabled EPK, or at most; EPT 0 is the one that every vCPU starts in and
 *	exists while EPK is enabled
 * @KVM_EPK_QUERY_PHYS_BITS: windows lie below 1 << this, for this vCPU
 * @KVM_EPK_QUERY_WINDOW_BASE: guest-physical address of EPT 0's window; the
 *	window of EPT i starts i * slots blocks above it.  Window i is mapped in
 *	EPT i alone.  0 until the guest has enabled EPK, as the next two
 * @KVM_EPK_QUERY_WINDOW_SLOTS: slots in each window
 * @KVM_EPK_QUERY_IDENTITY_GPA: guest-physical address of the identity page,
 *	a read-only struct kvm_epk_identity that differs in each EPT
 * @KVM_EPK_QUERY_EPTS: EPTs that exist now, EPT 0 included
 * @KVM_EPK_QUERY_STAT_EXITS: VM exits that EPK has caused in this VM: EPT
 *	violations that linked a shared table into an EPT, domain faults and
 *	refused VMFUNCs; hypercalls are not counted
 * @KVM_EPK_QUERY_STAT_LINKS: of those, the ones that linked a table
 * @KVM_EPK_QUERY_STAT_FAULTS: of those, the ones that raised a domain fault
 */
enum kvm_epk_query {
	KVM_EPK_QUERY_VERSION,
	KVM_EPK_QUERY_NR_EPTS,
	KVM_EPK_QUERY_PHYS_BITS,
	KVM_EPK_QUERY_WINDOW_BASE,
	KVM_EPK_QUERY_WINDOW_SLOTS,
	KVM_EPK_QUERY_IDENTITY_GPA,
	KVM_EPK_QUERY_EPTS,
	KVM_EPK_QUERY_STAT_EXITS,
	KVM_EPK_QUERY_STAT_LINKS,
	KVM_EPK_QUERY_STAT_FAULTS,
};

/**
 * struct kvm_epk_identity - the start of the identity page
 * @ept: index of the EPT through which this page is seen
 * @version: KVM_EPK_VERSION as enabled
 *
 * The rest of the page reads as zero.
 */
struct kvm_epk_identity {
	__u32 ept;
	__u32 version;
};

/*
 * KVM_CHECK_EXTENSION of this capability returns how many EPTs a VM can have,
 * 0 where EPK is off.  KVM_ENABLE_CAP on the VM, before its first vCPU, lets the
 * guest use EPK: args[0] is the greatest number of EPTs, from 1 to what
 * KVM_CHECK_EXTENSION returned, or 0 to keep the guest from it.  The number
 * lies outside the range that KVM gives out.
 */
#define KVM_CAP_EPK			0x45504b

/**
 * struct kvm_epk_run - a run of slots that are filled alike in a range of EPTs
 * @first: first EPT
 * @count: number of EPTs
 * @run: KVM_EPK_RUN() of the slots
 */
struct kvm_epk_run {
	__u32 first;
	__u32 count;
	__u64 run;
};

/**
 * struct kvm_epk_state - what a VM's guest has set up, for a VMM to save
 * @version: KVM_EPK_VERSION as the guest enabled it, 0 where it did not
 * @window_slots: slots in each window
 * @window_base: guest-physical address of EPT 0's window
 * @epts: bit i % 64 of word i / 64 is set if EPT i exists
 * @nr_epts: EPT indices run from 0 to this minus 1
 * @nr_runs: elements of @runs
 * @identity: guest-physical address of the identity page
 * @reserved: zero
 * @runs: the filled slots
 */
struct kvm_epk_state {
	__u32 version;
	__u32 window_slots;
	__u64 window_base;
	__u64 epts[KVM_EPK_MAX_EPTS / 64];
	__u32 nr_epts;
	__u32 nr_runs;
	__u64 identity;
	__u64 reserved;
	struct kvm_epk_run runs[];
};

/**
 * struct kvm_epk_vcpu - where a vCPU is
 * @ept: the EPT in which it runs next
 * @reserved: zero
 */
struct kvm_epk_vcpu {
	__u32 ept;
	__u32 reserved[3];
};

/*
 * On the VM, with no vCPU running.  KVM_GET_EPK_STATE takes the room for runs
 * in nr_runs and returns how many there are; with too little room it fails with
 * E2BIG, sets nr_runs, and leaves the runs undefined.  KVM_SET_EPK_STATE wants a VM with the same
 * memory and KVM_CAP_EPK, whose guest has not enabled EPK yet.
 */
#define KVM_GET_EPK_STATE		_IOWR(0xAE, 0xf0, struct kvm_epk_state)
#define KVM_SET_EPK_STATE		_IOW(0xAE, 0xf1, struct kvm_epk_state)

/* On a vCPU; to be set after the VM's state. */
#define KVM_GET_EPK_VCPU		_IOR(0xAE, 0xf2, struct kvm_epk_vcpu)
#define KVM_SET_EPK_VCPU		_IOW(0xAE, 0xf3, struct kvm_epk_vcpu)

/**
 * struct kvm_epk_saved - what KVM keeps where KVM_EPK_SAVE_AT says, as it changes
 * @magic: KVM_EPK_SAVED_MAGIC
 * @state: as KVM_GET_EPK_STATE tells it, with no runs
 *
 * At KVM_EPK_SAVED_SLOTS follows a __u32 for each slot of EPT 0, then of EPT 1 and so
 * on: the number of the block that it aliases + 1, or 0.  So what the guest has set up
 * is in its own memory, and goes with that to another host.
 */
struct kvm_epk_saved {
	__u64 magic;
	struct kvm_epk_state state;
};

#define KVM_EPK_SAVED_MAGIC		0x6465766173206b70ULL
#define KVM_EPK_SAVED_SLOTS		4096
#define KVM_EPK_SAVED_BYTES(epts, slots)	(KVM_EPK_SAVED_SLOTS + 4ULL * (epts) * (slots))

/*
 * MSR_KVM_POLL_CONTROL as a VMM reads and writes it that has not enabled KVM_CAP_EPK;
 * the guest sees nothing of it.  Where KVM_EPK_MSR_SET is set the guest has enabled
 * EPK, its state is saved at that address, and the vCPU is in that EPT.  No KVM
 * takes a value without an address, which is that of a guest whose state is nowhere.
 */
#define KVM_EPK_MSR_SET			0x8000000000000000ULL
#define KVM_EPK_MSR_SAVED_AT		0x0000fffffffff000ULL
#define KVM_EPK_MSR_EPT(msr)		((msr) >> 48 & 0x7fff)

#endif /* _UAPI_ASM_X86_KVM_EPK_H */
