/* SPDX-License-Identifier: MIT */
#ifndef MOVED_H
#define MOVED_H

/* Of tests in which a VM goes on as another: its memory, and a vCPU that is in the last EPT just then. */
#include "vmm.h"

#define DATA	0x5000ull

/* Which EPTs its vCPUs are in. */
static const uint32_t where[] = { 5, 511 };
static void *memory[2];

static void give_memory(struct vm *vm)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (!memory[i])
			memory[i] = huge_aligned_memory(4 * MiB);
		REQUIRE(!vm_memslot(vm, i, 0, i * GiB, 4 * MiB, memory[i]));
	}
}

static void guest_second(void)
{
	vmfunc(511);
	write64(alias(511, DATA), 511);
	guest_sync(1);
	GUEST_EQ(current_ept(), 511);
	GUEST_EQ(read64(alias(511, DATA)), 511);
	GUEST_EQ(read64(at(GiB + DATA)), 511);
	vmfunc(0);
	GUEST_EQ(try_read(alias(511, DATA)), DOMAIN_FAULT(0));
}

#endif /* MOVED_H */
