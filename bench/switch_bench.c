// SPDX-License-Identifier: MIT
/*
 * What domain_begin() + domain_end() take: instructions, EPT switches, VM exits.
 *
 * In the emulator the time stamp counter counts instructions, the kernel's and
 * the hypervisor's own included; the least of many batches is free of
 * interrupts and exact.  Anywhere else the figures are cycles of that machine.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include <epk.h>

#include "pkru.h"

#define BATCH	100
#define BATCHES	50

static int ids[2];

static void fail(const char *what, int err)
{
	fprintf(stderr, "switch_bench: %s: %s\n", what, epk_strerror(err));
	exit(1);
}

static void nothing(int i)
{
	asm volatile("" : : "r"(i) : "memory");
}

/* The least that opening and closing a key can take. */
static void bare_wrpkru(int i)
{
	uint32_t pkru = rdpkru();

	wrpkru(pkru);
	wrpkru(pkru);
	nothing(i);
}

static void same(int i)
{
	(void)i;
	if (domain_begin(ids[0], PROT_READ | PROT_WRITE) || domain_end(ids[0]))
		abort();
}

static void other(int i)
{
	if (domain_begin(ids[i & 1], PROT_READ | PROT_WRITE) || domain_end(ids[i & 1]))
		abort();
}

static double measure(void (*what)(int))
{
	uint64_t least = UINT64_MAX, start, took;
	int batch, i;

	for (batch = 0; batch < BATCHES; batch++) {
		start = __rdtsc();
		for (i = 0; i < BATCH; i++)
			what(i);
		took = __rdtsc() - start;
		if (took < least)
			least = took;
	}
	return (double)least / BATCH;
}

static void row(const char *name, void (*what)(int), double overhead)
{
	struct epk_counts before, after;
	double took, pairs = BATCH * BATCHES;

	measure(what);		/* warm */
	epk_counts(&before);
	took = measure(what);
	epk_counts(&after);
	printf("%-34s %8.1f %14.2f %10llu\n", name, took - overhead,
	       (after.ept_switches - before.ept_switches) / pairs,
	       (unsigned long long)(after.vm_exits - before.vm_exits));
}

int main(int argc, char **argv)
{
	struct epk_options options = { .size = sizeof(options) };
	int group[15], epts[2], err;
	double overhead;

	if (argc > 2 || (argc == 2 && !strcmp(argv[1], "--help"))) {
		printf("usage: switch_bench [BACKEND]\n");
		return argc > 2;
	}
	options.backend = argv[1];
	err = epk_init(&options);
	if (err)
		fail("epk_init", err);
	err = alloc_domains(1, &ids[0]);
	if (!err)
		err = alloc_domains(15, group);
	if (err)
		fail("alloc_domains", err);
	ids[1] = group[0];
	epk_domain_place(ids[0], &epts[0], NULL);
	epk_domain_place(ids[1], &epts[1], NULL);

	overhead = measure(nothing);
	printf("backend %s; a loop round of %.1f is taken off\n", epk_backend(), overhead);
	printf("%-34s %8s %14s %10s\n", "", "TSC", "EPT switches", "VM exits");
	if (strcmp(epk_backend(), "none"))
		row("RDPKRU + two WRPKRU", bare_wrpkru, overhead);
	row("begin + end, same domain", same, overhead);
	if (epts[0] != epts[1])
		row("begin + end, another EPT each time", other, overhead);
	return 0;
}
