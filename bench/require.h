/* SPDX-License-Identifier: MIT */
/* What tests beside the benchmarks say of what stops them; it ends a child, too. */
#ifndef BENCH_REQUIRE_H
#define BENCH_REQUIRE_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REQUIRE(condition)	require(condition, #condition, __FILE__, __LINE__)

static inline void require(bool well, const char *what, const char *file, int line)
{
	if (well)
		return;
	fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, strerror(errno));
	_exit(1);
}

#endif /* BENCH_REQUIRE_H */
