// SPDX-License-Identifier: MIT
/*
 * What the papers of VDom (ASPLOS'23) and libmpk (ATC'19) measure, written anew from what they and
 * VDom's artifact say of it, on the library: the same programs without any protection, with each
 * backend, and with libmpk's algorithm.
 *
 * peers_bench [quick|some]: as of micro_bench
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <epk.h>

#include "libmpk_like.h"
#include "peers.h"
#include "pkru.h"
#include "table.h"

static bool quick, some;
/* "no protection", "libmpk", or a backend. */
static const char *how;
static bool bare, libmpk;

struct peers_group peers_groups[MOST_GROUPS];
int peers_nr;

void peers_need(bool well, const char *what)
{
	if (well)
		return;
	fprintf(stderr, "peers_bench: %s: %s: %s\n", how, what, strerror(errno));
	exit(1);
}

/* In place of glibc's for libmpk: in the program's own text, where it is counted. */
int pkey_set(int pkey, unsigned int rights)
{
	uint32_t pkru = (rdpkru() & ~PKRU_BITS(pkey)) | rights << (2 * pkey);

	asm volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
	return 0;
}

static bool give(struct peers_group *group)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	if (bare || libmpk) {
		group->id = peers_nr + 1;
		group->mem = mmap(NULL, group->len, RW, flags, -1, 0);
	} else {
		if (alloc_domains(1, &group->id))
			return false;
		group->mem = domain_mmap(group->id, NULL, group->len, RW, 0);
	}
	peers_need(group->mem != MAP_FAILED, "mmap");
	madvise(group->mem, group->len, MADV_NOHUGEPAGE);
	return !libmpk || !libmpk_add(group->id, group->mem, group->len);
}

bool peers_make(size_t len)
{
	struct peers_group *group = &peers_groups[peers_nr];

	peers_need(peers_nr < MOST_GROUPS, "groups");
	group->len = len;
	if (!give(group))
		return false;
	peers_open(peers_nr++, RW);
	memset(group->mem, 1, len);
	return true;
}

void peers_open(int group, int prot)
{
	if (bare)
		return;
	if (libmpk ? libmpk_begin(peers_groups[group].id, prot) :
		     domain_begin(peers_groups[group].id, prot))
		abort();
}

void peers_close(int group)
{
	if (bare)
		return;
	if (libmpk ? libmpk_end(peers_groups[group].id) : domain_end(peers_groups[group].id))
		abort();
}

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
#define WITHIN		10

static void row_at(int number, long bytes, bool has_place)
{
	struct bench_case row = {
		.name = how, .baseline = bare ? "-" : "no protection", .run = pattern->run,
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
	struct epk_options options = { .size = sizeof(options), .backend = how };
	int err, i;

	if (bare)
		return;
	if (libmpk) {
		for (i = 0; i < 15; i++)
			if (pkey_alloc(0, PKEY_DISABLE_ACCESS) <= 0) {
				peers_need(some, "pkey_alloc");
				exit(0);
			}
		libmpk_keys(1, 15);
		return;
	}
	err = epk_init(&options);
	if (err && some)
		exit(0);
	if (err)
		fprintf(stderr, "peers_bench: %s\n", epk_strerror(err));
	peers_need(!err, "epk_init");
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

	quick = argc == 2 && !strcmp(argv[1], "quick");
	some = argc == 2 && !strcmp(argv[1], "some");
	if (argc > 2 || (argc == 2 && !quick && !some)) {
		fprintf(stderr, "usage: peers_bench [quick|some]\n");
		return 2;
	}
	how = "keys";
	keys_init();
	for (i = 0; i < NR_PATTERNS; i++)
		for (j = 0; j < sizeof(means) / sizeof(*means); j++) {
			pattern = &patterns[i];
			how = means[j];
			bare = !strcmp(how, "no protection");
			libmpk = !strcmp(how, "libmpk");
			if (quick && !bare && strcmp(how, "epk"))
				continue;
			failed |= bench_traced(measure) != 0;
		}
	return failed;
}
