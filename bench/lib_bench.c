// SPDX-License-Identifier: MIT
/*
 * What libepk costs on this machine, against what there is without it.
 *
 * Each round measures the baseline, two bare WRPKRU, and every case right after
 * another, and takes the ratio; the median of the rounds is the result.  So neither
 * the frequency nor a neighbour matters much.
 *
 * lib_bench [BACKEND [limits]], "mpk" if it is not given.  Exits with 77 if the
 * machine has no such backend; with 1 if a limit is asked for and broken, or nothing
 * can be measured that has one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <x86intrin.h>

#include <epk.h>

#include "bench.h"
#include "pkru.h"

#define ROUNDS	201
#define PAIRS	500
#define MANY	7680
#define WRPKRU_LIMIT	1.5

static int one, many[MANY], nr_many;

static inline void wrpkru(uint32_t pkru)
{
	asm volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
}

static void bare(int i)
{
	static uint32_t pkru;

	if (!pkru)
		pkru = rdpkru();
	wrpkru(pkru);
	wrpkru(pkru);
	(void)i;
}

static void libepk_same(int i)
{
	(void)i;
	libepk_pair(one);
}

/* The same domain, with thousands beside it. */
static void libepk_same_of_many(int i)
{
	(void)i;
	libepk_pair(many[nr_many / 2]);
}

enum { BARE, SAME, SAME_OF_MANY, GLIBC, LIBMPK, ALLOC };

/**
 * struct bench_case - a row of the table
 * @name: what is measured
 * @run: does it once
 * @pkeys: needs protection keys
 * @ratios: to the baseline of the same round
 * @cycles: that it took, by the time stamp counter
 */
static struct bench_case {
	const char *name;
	void (*run)(int i);
	int pkeys;
	double ratios[ROUNDS];
	double cycles[ROUNDS];
} cases[] = {
	[BARE] = { .name = "two WRPKRU", .run = bare, .pkeys = 1 },
	[SAME] = { .name = "domain_begin + domain_end", .run = libepk_same },
	[SAME_OF_MANY] = { .name = "the same, one of many domains", .run = libepk_same_of_many },
	[GLIBC] = { .name = "glibc pkey_set, twice", .run = glibc_pair, .pkeys = 1 },
	[LIBMPK] = { .name = "libmpk's begin + end, a hit", .run = libmpk_pair, .pkeys = 1 },
	[ALLOC] = { .name = "alloc_domains + free_domains", .run = alloc_one },
};

#define NR_CASES	(sizeof(cases) / sizeof(cases[0]))

static double measure(void (*run)(int i))
{
	unsigned int aux;
	uint64_t start;
	int i;

	start = __rdtscp(&aux);
	for (i = 0; i < PAIRS; i++)
		run(i);
	return (double)(__rdtscp(&aux) - start) / PAIRS;
}

static int by_value(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(*values), by_value);
	return values[ROUNDS / 2];
}

static void fail(const char *what, int err)
{
	fprintf(stderr, "lib_bench: %s: %s\n", what, epk_strerror(err));
	if (err == -ENODEV && !strcmp(what, "mpk"))
		fprintf(stderr, "lib_bench: this CPU, or its kernel, has no protection keys "
			"(/proc/cpuinfo: ospke).\n"
			"lib_bench: No figure for two WRPKRU, glibc's pkey_set, libmpk or the "
			"library's switch can be measured here.\n");
	exit(err == -ENODEV ? 77 : 1);
}

static int set_up(const char *backend)
{
	struct epk_options options = { .size = sizeof(options), .backend = backend };
	int err, pkeys;

	pkeys = !strcmp(backend, "mpk") || !strcmp(backend, "epk");
	err = epk_init(&options);
	if (err)
		fail(backend, err);
	if (pkeys)
		libmpk_init(GLIBC_KEY - 1);
	err = alloc_domains(1, &one);
	if (err)
		fail("alloc_domains", err);
	while (nr_many < MANY && !alloc_domains(1, &many[nr_many]))
		nr_many++;
	return pkeys;
}

static void run_rounds(int pkeys)
{
	double base = 1;
	unsigned int c;
	int round;

	for (round = -1; round < ROUNDS; round++) {
		for (c = 0; c < NR_CASES; c++) {
			double took;

			if (cases[c].pkeys && !pkeys)
				continue;
			took = measure(cases[c].run);
			if (c == (pkeys ? 0 : 1))
				base = took;
			if (round < 0)
				continue;
			cases[c].cycles[round] = took;
			cases[c].ratios[round] = took / base;
		}
	}
}

static const char *cpu_model(void)
{
	static char line[256];
	FILE *file = fopen("/proc/cpuinfo", "re");
	char *colon;

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "model name", 10))
			continue;
		fclose(file);
		line[strcspn(line, "\n")] = 0;
		colon = strchr(line, ':');
		return colon ? colon + 2 : line;
	}
	return "unknown";
}

/* The medians of the ratios to two WRPKRU, or to the pair itself. */
static int check(const double *ratios, int pkeys)
{
	int broken = 0;

	if (!pkeys)
		broken = fprintf(stderr, "limit: all limits are for backends with keys\n");
	if (pkeys && ratios[SAME] > WRPKRU_LIMIT)
		broken = fprintf(stderr, "limit: over %.1f of two WRPKRU\n", WRPKRU_LIMIT);
	if (pkeys && ratios[SAME] >= ratios[GLIBC])
		broken = fprintf(stderr, "limit: not faster than glibc's pkey_set\n");
	if (pkeys && ratios[SAME] >= ratios[LIBMPK])
		broken = fprintf(stderr, "limit: not faster than libmpk\n");
	if (pkeys && (ratios[SAME_OF_MANY] > ratios[SAME] * 1.02 ||
		      ratios[SAME_OF_MANY] < ratios[SAME] / 1.02))
		broken = fprintf(stderr, "limit: thousands of domains change the pair\n");
	return broken != 0;
}

int main(int argc, char **argv)
{
	const char *backend = argc > 1 ? argv[1] : "mpk";
	bool limits = bench_limits(argc, argv);
	double ratios[NR_CASES] = { 0 };
	struct utsname name;
	unsigned int c;
	int pkeys;

	uname(&name);
	pkeys = set_up(backend);
	run_rounds(pkeys);
	printf("{\n \"cpu\": \"%s\",\n \"kernel\": \"%s\",\n \"backend\": \"%s\",\n"
	       " \"domains\": %d,\n \"baseline\": \"%s\",\n \"cases\": [\n", cpu_model(),
	       name.release, epk_backend(), nr_many + 1, cases[pkeys ? 0 : 1].name);
	for (c = 0; c < NR_CASES; c++) {
		if (cases[c].pkeys && !pkeys)
			continue;
		ratios[c] = median(cases[c].ratios);
		printf("  { \"name\": \"%s\", \"cycles\": %.1f, \"ratio\": %.3f }%s\n",
		       cases[c].name, median(cases[c].cycles), ratios[c],
		       c + 1 < NR_CASES ? "," : "");
	}
	printf(" ]\n}\n");
	if (fflush(stdout))
		return 1;
	return limits ? check(ratios, pkeys) : 0;
}
