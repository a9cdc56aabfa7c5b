/* SPDX-License-Identifier: MIT */
/* Counts what another process does, by a tracer beside it: see events.h for a child of one's own. */
#ifndef BENCH_WATCH_H
#define BENCH_WATCH_H

#include <stdbool.h>
#include <sys/types.h>

/* Since watch_begin(): WRPKRU and VMFUNC of the library, and system calls. */
struct watched {
	unsigned long wrpkru;
	unsigned long vmfunc;
	unsigned long syscalls;
	unsigned long flushes;
};

/* Of a process of one thread. */
bool watch_begin(pid_t pid);
bool watch_end(struct watched *watched);

#endif /* BENCH_WATCH_H */
