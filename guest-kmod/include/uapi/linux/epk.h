/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Extended Protection Keys: the interface between /dev/epk and a process.
 *
 * Opening /dev/epk gives a context that belongs to the opener's address space.
 * Calls from any other address space (a forked child's, say) fail with EPERM.
 */
#ifndef _UAPI_LINUX_EPK_H
#define _UAPI_LINUX_EPK_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define EPK_DEVICE		"/dev/epk"
#define EPK_ABI_VERSION		1

/*
 * A domain ID is a positive int: an index into the domain table in the low
 * bits, a generation (1 upwards) above it, so that a freed ID is never taken
 * for the domain that reuses its index.
 */
#define EPK_ID_INDEX_BITS	17
#define EPK_ID_INDEX(id)	((__u32)(id) & ((1u << EPK_ID_INDEX_BITS) - 1))

/**
 * struct epk_entry - one domain in the read-only domain table
 * @id: the domain's ID, or 0 while this index is free
 * @ept: the EPT that maps the domain's window
 * @pkey: the protection key of the domain's pages in that EPT
 * @rsvd: zero
 *
 * Written by the module as one aligned 8-byte store; read it as one load.
 */
struct epk_entry {
	__s32 id;
	__u16 ept;
	__u8 pkey;
	__u8 rsvd;
};

/**
 * struct epk_init - argument of EPK_IOC_INIT, once for each context
 * @version: in: EPK_ABI_VERSION
 * @pkeys: in: bit k set: pkey k (1-15) was allocated by the caller with
 *	pkey_alloc() and is the module's to place domains on from now on
 * @max_domains: out: entries of the domain table, and domains at a time
 * @nr_epts: out: EPTs at a time
 * @table_bytes: out: size of the domain table's mapping
 * @rsvd: in: zero
 */
struct epk_init {
	__u32 version;
	__u32 pkeys;
	__u32 max_domains;
	__u32 nr_epts;
	__u32 table_bytes;
	__u32 rsvd;
};

/**
 * struct epk_domains - argument of EPK_IOC_ALLOC and EPK_IOC_FREE
 * @num: in: number of IDs, at least 1
 * @flags: in: zero
 * @ids: pointer to @num IDs of type __s32; out for EPK_IOC_ALLOC, in for
 *	EPK_IOC_FREE.  All or none
 */
struct epk_domains {
	__u32 num;
	__u32 flags;
	__u64 ids;
};

/**
 * struct epk_stats - answer of EPK_IOC_STATS
 * @domains: domains of this context
 * @epts: EPTs that hold at least one domain of this context
 * @pages: domain pages of this context, 4 KiB each
 * @vm_domains: domains in the whole guest
 * @vm_epts: EPTs that exist in the VM, EPT 0 included
 * @vm_pages: domain pages in the whole guest
 * @vm_exits: VM exits that EPK has caused, as the host counts them
 * @vm_faults: of those, the ones that raised a domain fault
 * @rescues: times that a thread left the CPU in an EPT and had to be brought
 *	back to EPT 0 (and, if registered, into its EPT when it came back)
 * @rsvd: zero
 */
struct epk_stats {
	__u64 domains;
	__u64 epts;
	__u64 pages;
	__u64 vm_domains;
	__u64 vm_epts;
	__u64 vm_pages;
	__u64 vm_exits;
	__u64 vm_faults;
	__u64 rescues;
	__u64 rsvd[7];
};

#define EPK_IOC_INIT		_IOWR('E', 0xe0, struct epk_init)
#define EPK_IOC_ALLOC		_IOWR('E', 0xe1, struct epk_domains)
#define EPK_IOC_FREE		_IOW('E', 0xe2, struct epk_domains)
/* Registers the calling thread, so that its EPT survives a context switch. */
#define EPK_IOC_THREAD		_IO('E', 0xe3)
#define EPK_IOC_STATS		_IOR('E', 0xe4, struct epk_stats)

/*
 * Offsets for mmap(MAP_SHARED) of the device.  The table and the identity
 * page (struct kvm_epk_identity in <asm/kvm_epk.h>) map with PROT_READ only.
 * Domain memory takes PROT_READ and PROT_WRITE; its pages are zero at first.
 */
#define EPK_MMAP_TABLE		0ull
#define EPK_MMAP_IDENTITY	(1ull << 32)
#define EPK_MMAP_DOMAIN(id)	(1ull << 60 | (__u64)EPK_ID_INDEX(id) << 40)

#endif /* _UAPI_LINUX_EPK_H */
