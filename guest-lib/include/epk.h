/* SPDX-License-Identifier: MIT */
/*
 * libepk: thousands of memory domains in one process.
 *
 * A domain is memory that a thread can touch only between its own
 * domain_begin() and domain_end().  epk(7) explains the concepts; each call
 * has a man page of its own.
 */
#ifndef EPK_H
#define EPK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EPK_VERSION_MAJOR 0
#define EPK_VERSION_MINOR 1

/* The six calls of the EPK paper (USENIX ATC'22). */
int alloc_domains(int num, int dom_ids[]);
int free_domains(int num, int dom_ids[]);
void *domain_mmap(int dom_id, void *addr, size_t len, int prot, int flags);
int domain_munmap(void *addr, size_t len);
int domain_begin(int dom_id, int prot);
int domain_end(int dom_id);

/**
 * struct epk_options - what epk_init() can be told; zero means default
 * @size: sizeof(struct epk_options), so that later versions can add fields
 * @backend: "epk", "mpk", "none", or NULL: EPK_BACKEND, or what the machine has
 */
struct epk_options {
	size_t size;
	const char *backend;
};

/**
 * struct epk_counts - what the library counts for this process
 * @domains: live domains
 * @epts: EPTs that hold at least one of them (0 unless the backend is "epk")
 * @pages: domain pages that are backed by memory now, 4 KiB each, where the
 *	backend knows it
 * @ept_switches: VMFUNCs that domain_begin() executed, all threads
 * @vm_domains: live domains in the whole guest
 * @vm_epts: EPTs that exist in the VM
 * @vm_pages: domain pages in the whole guest
 * @vm_exits: VM exits that EPK has caused in the VM so far
 * @vm_faults: domain faults in the VM so far
 */
struct epk_counts {
	uint64_t domains;
	uint64_t epts;
	uint64_t pages;
	uint64_t ept_switches;
	uint64_t vm_domains;
	uint64_t vm_epts;
	uint64_t vm_pages;
	uint64_t vm_exits;
	uint64_t vm_faults;
};

int epk_init(const struct epk_options *options);
const char *epk_backend(void);
const char *epk_strerror(int error);
int epk_counts(struct epk_counts *counts);

/* Where a domain lies: EPT index and pkey, or -errno.  Either may be NULL. */
int epk_domain_place(int dom_id, int *ept, int *pkey);

/*
 * Calls @visit for each live mapping until it returns non-zero, and returns
 * that.  The list is a snapshot: @visit may call the library.
 */
int epk_for_each_mapping(int (*visit)(int dom_id, void *addr, size_t len, void *arg),
			 void *arg);

#ifdef __cplusplus
}
#endif

#endif /* EPK_H */
