/* SPDX-License-Identifier: MIT */
/* Instructions that fault. */
#ifndef EPK_FAULTS_H
#define EPK_FAULTS_H

#include <stdint.h>

static volatile long zero;
/* Where no memory is. */
static volatile uintptr_t nowhere = 16;

static __attribute__((noinline)) long too_deep(long n)
{
	volatile char frame[512];

	frame[n & 255] = 1;
	return n ? too_deep(n + 1) + frame[n & 255] : 0;
}

/* Of five kinds; and any other: the stack ends. */
static inline long fault(long kind)
{
	switch (kind) {
	case 0:
		*(volatile int *)nowhere = 1;
		break;
	case 1:
		__builtin_trap();
	case 2:
		return 100 / zero;
	case 3:
		((void (*)(void))(1ul << 63))();
		break;
	case 4:
		((void (*)(void))nowhere)();
		break;
	default:
		return too_deep(kind);
	}
	return 0;
}

#endif /* EPK_FAULTS_H */
