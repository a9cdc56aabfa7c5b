/* SPDX-License-Identifier: MIT */
/* What VMs leave behind in the host. */
#ifndef EPK_DEBUG_ACCOUNT_H
#define EPK_DEBUG_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

/* Put this process and what it forks into a memory cgroup of their own. */
void account_begin(void);
/* Bytes of kernel memory that are charged to it, after an RCU grace period. */
uint64_t account_kernel_bytes(void);
/*
 * True if nothing of KVM is left, by the cgroup (@before: kernel bytes to come
 * back to), by kmemleak and by page_owner where the kernel has them.  Says what
 * it looked at.
 */
bool account_clean(uint64_t before);

#endif
