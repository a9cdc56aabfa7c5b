/* SPDX-License-Identifier: MIT */
/*
 * VMFUNC leaf 0, EPTP switching.  Intel SDM volume 3C, 26.5.6.3.  The
 * instruction stands nowhere else.
 */
#ifndef EPK_VMFUNC_H
#define EPK_VMFUNC_H

#include <stdint.h>

/* An index without an EPT, or a CPU without VMFUNC, raises SIGILL. */
static inline void vmfunc_switch(uint32_t ept)
{
	asm volatile("vmfunc" : : "a" (0), "c" (ept) : "memory");
}

#endif /* EPK_VMFUNC_H */
