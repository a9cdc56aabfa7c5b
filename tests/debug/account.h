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
/* True if they have come back to what they were before; says so. */
bool account_clean(uint64_t before);

#endif
