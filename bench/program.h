/* SPDX-License-Identifier: MIT */
/* What benchmarks have alike as programs: how much of a table they measure, and their end where something is missing. */
#ifndef BENCH_PROGRAM_H
#define BENCH_PROGRAM_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <epk.h>

/* What it measures at the moment: a backend, or what stands beside those; or NULL. */
__attribute__((unused)) static const char *how;

/* Of the sizes the few that are looked at most; of all rows those that there are. */
__attribute__((unused)) static bool quick, some;

/* Ends the program, with errno's reason. */
__attribute__((unused)) static void need(bool well, const char *what)
{
	if (well)
		return;
	fprintf(stderr, "%s: %s%s%s: %s\n", program_invocation_short_name, how ? how : "", how ? ": " : "",
		what, strerror(errno));
	exit(1);
}

/* The library, by @backend.  Ends a child without it, by this status where some rows will do. */
static inline void init_by(const char *backend, int missing)
{
	struct epk_options options = { .size = sizeof(options), .backend = backend };
	int err = epk_init(&options);

	if (!err)
		return;
	if (some)
		exit(missing);
	fprintf(stderr, "%s: no backend %s: %s\n", program_invocation_short_name, backend, epk_strerror(err));
	exit(1);
}

/* [quick|some], or @other; ends the program on anything else.  Return: whether it is @other. */
static inline bool bench_extent(int argc, char **argv, const char *other)
{
	bool is_other = argc == 2 && other && !strcmp(argv[1], other);

	quick = argc == 2 && !strcmp(argv[1], "quick");
	some = argc == 2 && !strcmp(argv[1], "some");
	if (argc < 2 || quick || some || is_other)
		return is_other;
	fprintf(stderr, "usage: %s [quick|some%s%s]\n", program_invocation_short_name, other ? "|" : "",
		other ? other : "");
	exit(2);
}

#endif /* BENCH_PROGRAM_H */
