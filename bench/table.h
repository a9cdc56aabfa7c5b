/* SPDX-License-Identifier: MIT */
/*
 * Benchmarks are tables of cases.  In the emulator the time stamp counter counts instructions, the
 * kernel's and the hypervisor's own included; the least of several batches is free of interrupts.
 * Each batch does the same: what a case does depends on its number in the batch alone.
 */
#ifndef BENCH_TABLE_H
#define BENCH_TABLE_H

#include "events.h"

/**
 * struct bench_case - a row
 * @name: what is measured
 * @baseline: the row that it is compared with, or "-"
 * @run: does it once; ends the program if it fails
 * @without: the same without what is measured; NULL: an empty function
 * @without_more: instructions of what @without has in place of the calls that are measured
 * @within: as of struct bench_key
 */
struct bench_case {
	const char *name;
	const char *baseline;
	void (*run)(int i);
	void (*without)(int i);
	int without_more;
	int within;
};

/**
 * struct bench_at - where a table is measured
 * @table: its name
 * @domains: as of struct bench_key
 * @bytes: likewise
 * @threads: likewise
 * @batch: how often a case runs in a batch; 0: 100
 * @batches: of which the least counts; 0: 20
 * @steps: how many of a batch are stepped through; 0: 20
 */
struct bench_at {
	const char *table;
	long domains;
	long bytes;
	long threads;
	int batch;
	int batches;
	int steps;
};

/* What one time takes. */
double bench_measure(const struct bench_case *row, const struct bench_at *at);

/* Measures a row, counts its events and prints its figure; in a child of bench_traced(). */
void bench_row(const struct bench_case *row, const struct bench_at *at);

/* That a row cannot be had there. */
void bench_no_row(const struct bench_case *row, const struct bench_at *at, const char *why);

#endif /* BENCH_TABLE_H */
