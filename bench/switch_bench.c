// SPDX-License-Identifier: MIT
/*
 * What domain_begin() + domain_end() take: instructions, EPT switches, VM exits.
 *
 * In the emulator the time stamp counter counts instructions, the kernel's and
 * the hypervisor's own included; the least of many batches is free of
 * interrupts and exact.  Anywhere else the figures are cycles of that machine.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include <epk.h>

#include "pkru.h"

#define BATCH	100
#define BATCHES	50
#define MOST	(512 * 15 - 16)

static int ids[2], beside, inner;

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

	asm volatile("xor %%ecx, %%ecx\n\t"
		     "xor %%edx, %%edx\n\t"
		     "wrpkru\n\t"
		     "wrpkru" : : "a" (pkru) : "rcx", "rdx", "memory");
	nothing(i);
}

/* What a caller does for a call whose argument and result it has to move and check. */
static inline int no_call(int id)
{
	int result;

	asm volatile("xor %0, %0" : "=a"(result) : "D"(id) : "rcx", "rdx", "rsi", "r8", "r9",
		     "r10", "r11", "memory");
	return result;
}

static void same(int i)
{
	(void)i;
	if (domain_begin(ids[0], PROT_READ | PROT_WRITE) || domain_end(ids[0]))
		abort();
}

static void same_no_call(int i)
{
	(void)i;
	if (no_call(ids[0]) || no_call(ids[0]))
		abort();
}

static void other(int i)
{
	if (domain_begin(ids[i & 1], PROT_READ | PROT_WRITE) || domain_end(ids[i & 1]))
		abort();
}

static void other_no_call(int i)
{
	if (no_call(ids[i & 1]) || no_call(ids[i & 1]))
		abort();
}

static void inner_pair(int i)
{
	(void)i;
	if (domain_begin(inner, PROT_READ | PROT_WRITE) || domain_end(inner))
		abort();
}

static void inner_no_call(int i)
{
	(void)i;
	if (no_call(inner) || no_call(inner))
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

/* @nothing: the same without what is to be measured, but for @more instructions. */
static void row(const char *name, void (*what)(int), void (*nothing)(int), int more)
{
	double overhead = measure(nothing) - more, took, pairs = BATCH * BATCHES;
	struct epk_counts before, after;

	measure(what);		/* warm */
	epk_counts(&before);
	took = measure(what);
	epk_counts(&after);
	printf("%-34s %8.1f %14.2f %10llu\n", name, took - overhead,
	       (after.ept_switches - before.ept_switches) / pairs,
	       (unsigned long long)(after.vm_exits - before.vm_exits));
}

static void rows(void)
{
	int epts[2];

	epk_domain_place(ids[0], &epts[0], NULL);
	epk_domain_place(ids[1], &epts[1], NULL);
	row("begin + end, same domain", same, same_no_call, 2);
	if (epts[0] != epts[1])
		row("begin + end, another EPT each time", other, other_no_call, 2);
	/* With @beside held, which lies in the EPT of ids[1]. */
	if (domain_begin(beside, PROT_READ | PROT_WRITE))
		abort();
	inner = ids[1];
	row("the same, one held, same EPT", inner_pair, inner_no_call, 2);
	inner = ids[0];
	if (epts[0] != epts[1])
		row("the same, one held in another EPT", inner_pair, inner_no_call, 2);
	if (domain_end(beside))
		abort();
}

int main(int argc, char **argv)
{
	struct epk_options options = { .size = sizeof(options) };
	int group[15], *more, nr = 0, err;

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
	beside = group[1];

	printf("backend %s; the calls from call to return, without loop and arguments\n",
	       epk_backend());
	printf("%-34s %8s %14s %10s\n", "", "TSC", "EPT switches", "VM exits");
	if (strcmp(epk_backend(), "none"))
		row("RDPKRU + two WRPKRU", bare_wrpkru, nothing, 0);
	rows();
	/* The same beside as many domains as there can be. */
	more = malloc(MOST * sizeof(*more));
	if (!more)
		fail("malloc", -ENOMEM);
	while (nr < MOST && !alloc_domains(1, &more[nr]))
		nr++;
	printf("of %d domains:\n", nr + 16);
	rows();
	free(more);
	return 0;
}
