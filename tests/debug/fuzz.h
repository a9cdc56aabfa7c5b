/* SPDX-License-Identifier: MIT */
/* What the fuzzers have in common: a seed, and a process for each VM. */
#ifndef EPK_DEBUG_FUZZ_H
#define EPK_DEBUG_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void fuzz_vm_fn(uint64_t seed, unsigned int number, unsigned int sequences);

/*
 * Print the seed, a random one if @seed is NULL or "0"; make the VMs' RAM.  Returns
 * @size zero bytes that the processes of the VMs share.
 */
void *fuzz_begin(const char *seed, size_t size);
/* Run one VM in a process of its own; false if it failed, and it says so. */
bool fuzz_vm(unsigned int number, unsigned int sequences, fuzz_vm_fn *run);
/* Run VMs until one fails; false then, or if they left something in the host. */
bool fuzz_vms(unsigned int vms, unsigned int sequences, fuzz_vm_fn *run);

#endif
