/* SPDX-License-Identifier: MIT */
/* What both benchmarks share. */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <epk.h>

#include "libmpk_like.h"

/* Any of the library's keys will do for what touches no memory. */
#define GLIBC_KEY	15

/* The most that a pair may take beside what is held, and beside keys of the program's. */
#define HELD_LIMIT	60

/* [BACKEND [limits]]: are the limits asked for?  Ends the program on anything else. */
static inline bool bench_limits(int argc, char **argv)
{
	bool help = argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"));
	bool limits = argc == 3 && !strcmp(argv[2], "limits");

	if (!help && argc <= 3 && (argc < 3 || limits) && (argc < 2 || *argv[1] != '-'))
		return limits;
	fprintf(help ? stdout : stderr, "usage: %s [BACKEND [limits]]\n",
		program_invocation_short_name);
	exit(help ? 0 : 2);
}

/* What is measured: each does it once, and ends the program if it fails. */
static inline void libepk_pair(int id)
{
	if (domain_begin(id, PROT_READ | PROT_WRITE) || domain_end(id))
		abort();
}

/* In place of the calls that are measured: their callers have as much to do for these. */
static __attribute__((noipa, unused)) int no_call(int id)
{
	(void)id;
	return 0;
}

/* What two of them take: CALL, XOR and RET. */
#define NO_CALLS	6

/* As libepk_pair(), without the calls. */
static inline void no_pair(int id)
{
	if (no_call(id) || no_call(id))
		abort();
}

static inline void glibc_pair(int i)
{
	(void)i;
	if (pkey_set(GLIBC_KEY, 0) || pkey_set(GLIBC_KEY, PKEY_DISABLE_ACCESS))
		abort();
}

static inline void libmpk_pair(int i)
{
	(void)i;
	if (libmpk_begin(1, PROT_READ | PROT_WRITE) || libmpk_end(1))
		abort();
}

static inline void alloc_one(int i)
{
	int id;

	(void)i;
	if (alloc_domains(1, &id) || free_domains(1, &id))
		abort();
}

#endif /* BENCH_H */
