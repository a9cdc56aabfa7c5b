/* SPDX-License-Identifier: MIT */
/* What a signal handler can see and change of the code that it interrupted. */
#ifndef EPK_FAULT_H
#define EPK_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/**
 * struct epk_fault - an access that the CPU refused
 * @addr: where to
 * @rip: the instruction
 * @state: a hash of all registers, which two accesses share only if the thread has
 *	made no progress in between
 * @pkru: PKRU of the interrupted code, in its signal frame
 * @write: it was a write
 */
struct epk_fault {
	uintptr_t addr;
	uintptr_t rip;
	uint64_t state;
	uint32_t *pkru;
	bool write;
};

int epk_fault_setup(void);
void epk_fault_arm(void);

#endif /* EPK_FAULT_H */
