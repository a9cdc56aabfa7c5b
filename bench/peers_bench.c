// SPDX-License-Identifier: MIT
/*
 * What the papers of VDom (ASPLOS'23) and libmpk (ATC'19) measure, written anew from what they and
 * VDom's artifact say of it, on the library: the same programs without any protection, with each
 * backend, and with libmpk's algorithm.
 *
 * peers_bench [quick|some]: as of micro_bench
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <epk.h>

#include "libmpk_like.h"
#include "peers.h"
#include "program.h"
#include "table.h"

/**
 * struct pattern - a table
 * @name: its
 * @numbers: of keys, threads, objects or pages: where it is measured; 0 ends them
 * @quick: how many of these a quick run has
 * @make: what there has to be; false if there is no place for so many
 * @run: does it once
 * @batch: how often at a time, but each once at least
 * @bytes: of files, one after the other; 0 ends them
 */
static const struct pattern {
	const char *name;
	int numbers[6];
	int quick;
	bool (*make)(int nr);
	void (*run)(int i);
	int batch;
	long bytes[3];
} patterns[] = {
	{ "vdom httpd", { 4, 48 }, 1, keys_make, keys_serve, 16, { 1 << 10, 128 << 10 } },
	{ "vdom mysql", { 4, 12, 48 }, 1, sql_make, sql_transaction, 48, { 0 } },
	{ "vdom objects", { 64 }, 0, objects_make, objects_replace, 640, { 0 } },
	{ "libmpk openssl", { 1, 15, 16, 128 }, 0, keys_make, keys_sign, 32, { 0 } },
	{ "libmpk jit", { 1, 15, 16, 128, 512 }, 3, code_make, code_write, 512, { 0 } },
};
#define NR_PATTERNS	(sizeof(patterns) / sizeof(*patterns))

static const struct pattern *pattern;

/* Where memory lies, and so what of it the kernel merges, and what is signed differ in each run. */
#define WITHIN		3

static void row_at(int number, long bytes, bool has_place)
{
	struct bench_case row = {
		.name = peers_how, .baseline = peers_bare ? "-" : "no protection", .run = pattern->run,
		.within = WITHIN,
	};
	struct bench_at at = {
		.table = pattern->name, .domains = number, .bytes = bytes,
		.batch = number > pattern->batch ? number : pattern->batch, .batches = 1, .steps = 12,
	};

	keys_bytes = bytes;
	if (has_place)
		bench_row(&row, &at);
	else
		bench_no_row(&row, &at, "no place for so many");
}

static void start(void)
{
	int i;

	if (peers_bare)
		return;
	if (peers_libmpk) {
		for (i = 0; i < 15; i++)
			if (pkey_alloc(0, PKEY_DISABLE_ACCESS) <= 0) {
				peers_need(some, "pkey_alloc");
				exit(0);
			}
		libmpk_keys(1, 15);
		return;
	}
	init_by(peers_how, 0);
}

static void measure(void)
{
	int nr = 0, i;
	bool has_place;

	start();
	for (; pattern->numbers[nr] && (!quick || nr < pattern->quick); nr++) {
		has_place = pattern->make(pattern->numbers[nr]);
		for (i = 0; !i || pattern->bytes[i]; i++)
			row_at(pattern->numbers[nr], pattern->bytes[i], has_place);
	}
}

int main(int argc, char **argv)
{
	static const char *const means[] = {
		"no protection", "none", "epk", "vmfunc", "mpk", "mprotect", "libmpk",
	};
	bool failed = false;
	size_t i, j;

	bench_extent(argc, argv, NULL);
	keys_init();
	for (i = 0; i < NR_PATTERNS; i++)
		for (j = 0; j < sizeof(means) / sizeof(*means); j++) {
			pattern = &patterns[i];
			peers_choose(means[j]);
			if (quick && !peers_bare && strcmp(peers_how, "epk"))
				continue;
			failed |= bench_traced(measure) != 0;
		}
	return failed;
}
