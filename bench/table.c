// SPDX-License-Identifier: MIT
#include <stdint.h>
#include <stdio.h>
#include <x86intrin.h>

#include "table.h"

#define BATCH	100
#define BATCHES	20
#define STEPS	20

static void nothing(int i)
{
	asm volatile("" : : "r"(i) : "memory");
}

static uint64_t least(void (*run)(int i), int batch, int batches)
{
	uint64_t best = UINT64_MAX, start, took;
	int i;

	while (batches--) {
		start = __rdtsc();
		for (i = 0; i < batch; i++)
			run(i);
		took = __rdtsc() - start;
		if (took < best)
			best = took;
	}
	return best;
}

double bench_measure(const struct bench_case *row, const struct bench_at *at)
{
	int batch = at->batch ? at->batch : BATCH, batches = at->batches ? at->batches : BATCHES;
	uint64_t without, with;

	without = least(row->without ? row->without : nothing, batch, BATCHES);
	/* One batch more, to get warm. */
	with = least(row->run, batch, batches + 1);
	return ((double)with - (double)without) / batch + row->without_more;
}

static struct bench_key key_of(const struct bench_case *row, const struct bench_at *at)
{
	return (struct bench_key) {
		.table = at->table, .name = row->name, .baseline = row->baseline,
		.domains = at->domains, .bytes = at->bytes, .threads = at->threads,
		.within = row->within,
	};
}

void bench_row(const struct bench_case *row, const struct bench_at *at)
{
	struct bench_key key = key_of(row, at);
	struct bench_events events;
	double count = bench_measure(row, at);

	bench_count(row->run, at->steps ? at->steps : STEPS, &events);
	bench_figure(&key, count, &events);
	fflush(stdout);
}

void bench_no_row(const struct bench_case *row, const struct bench_at *at, const char *why)
{
	struct bench_key key = key_of(row, at);

	bench_impossible(&key, why);
	fflush(stdout);
}
