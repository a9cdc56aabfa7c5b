/* SPDX-License-Identifier: MIT */
#ifndef LEAK_REPORT_H
#define LEAK_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* One cipher context's memory. */
struct target {
	int dom;
	char *addr;
	size_t len;
};

/**
 * struct leak_result - what the over-reads got
 * @targets: one for each domain; leak_run() leaves those that have a key
 * @nr: their number
 * @error: why the test could not be finished, or 0
 * @bare_read: keys read with no domain held
 * @bare_bytes: bytes of them that were not zero
 * @own_read: keys read while their own domain was held
 * @pairs: pairs of a held domain and another key
 * @pairs_read: of those, the ones where the other key could be read
 * @faults_pkey: over-reads stopped by protection key or EPT
 * @faults_other: over-reads stopped by anything else
 */
struct leak_result {
	struct target *targets;
	size_t nr;
	int error;
	size_t bare_read;
	size_t bare_bytes;
	size_t own_read;
	size_t pairs;
	size_t pairs_read;
	unsigned long faults_pkey;
	unsigned long faults_other;
};

/* Finds the targets; false, with @error set, if that fails. */
bool leak_collect(struct leak_result *r);

/* Async-signal-safe: runs in the thread that serves the sessions. */
void leak_run(struct leak_result *r);

void leak_print(const struct leak_result *r, FILE *to);

/* How many domains are not all zeros. */
void keyed_print(FILE *to);
bool counts_print(FILE *to);

#endif /* LEAK_REPORT_H */
