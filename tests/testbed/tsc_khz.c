// SPDX-License-Identifier: MIT
/*
 * Prints how many thousands of times a second this machine's time stamp counter counts.  An
 * emulated machine shows this counter to its guest, which may fail to measure it: its kernel
 * then has a clock that stands still for as long as one CPU is busy.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#define NSEC_PER_SEC	1000000000ull
#define NEAR		5000	/* ns between two looks at the clock, the counter read between them */

struct instant {
	uint64_t ns;
	uint64_t tsc;
};

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* The best of some tries: something may come between the clock and the counter. */
static struct instant look(void)
{
	struct instant best = { 0 };
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 1000 && least > NEAR; i++) {
		uint64_t before = now(), tsc = __rdtsc(), took = now() - before;

		if (took < least) {
			least = took;
			best = (struct instant){ before + took / 2, tsc };
		}
	}
	return best;
}

int main(void)
{
	struct timespec wait = { .tv_nsec = NSEC_PER_SEC / 10 };
	struct instant from = look(), to;

	nanosleep(&wait, NULL);
	to = look();
	printf("%llu\n", (unsigned long long)((to.tsc - from.tsc) * (NSEC_PER_SEC / 1000) /
					      (to.ns - from.ns)));
	return 0;
}
