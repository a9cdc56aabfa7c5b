// SPDX-License-Identifier: MIT
/*
 * The leak test: which keys does an over-read get?
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <epk.h>

#include "overread.h"
#include "report.h"

#define PAGE	4096ul

static char loot[PAGE];

static int add_target(int dom, void *addr, size_t len, void *arg)
{
	struct leak_result *r = arg;
	struct target *more = reallocarray(r->targets, r->nr + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	r->targets = more;
	r->targets[r->nr++] = (struct target){ .dom = dom, .addr = addr, .len = len };
	return 0;
}

bool leak_collect(struct leak_result *r)
{
	r->error = epk_for_each_mapping(add_target, r);
	return !r->error;
}

/* Tries each page by itself; returns how many bytes could be read. */
static size_t try_target(const struct target *t, size_t *nonzero)
{
	size_t at, i, got, read = 0;

	for (at = 0; at < t->len; at += PAGE) {
		got = overread(loot, t->addr + at, PAGE);
		read += got;
		for (i = 0; nonzero && i < got; i++)
			*nonzero += loot[i] != 0;
	}
	return read;
}

/* One that waits for its next session is all zeros, and no target. */
static bool is_keyed(const struct target *t, int *error)
{
	bool keyed = false;
	size_t i;

	*error = domain_begin(t->dom, PROT_READ);
	if (*error)
		return false;
	for (i = 0; i < t->len && !keyed; i++)
		keyed = t->addr[i];
	*error = domain_end(t->dom);
	return keyed;
}

static void drop_unkeyed(struct leak_result *r)
{
	size_t i, kept = 0;

	for (i = 0; i < r->nr && !r->error; i++)
		if (is_keyed(&r->targets[i], &r->error))
			r->targets[kept++] = r->targets[i];
	r->nr = kept;
}

static void try_others(struct leak_result *r, size_t held)
{
	size_t i;

	for (i = 0; i < r->nr; i++) {
		if (r->targets[i].dom == r->targets[held].dom)
			continue;
		r->pairs++;
		r->pairs_read += try_target(&r->targets[i], NULL) > 0;
	}
}

void leak_run(struct leak_result *r)
{
	size_t i;

	drop_unkeyed(r);
	if (r->error)
		return;
	if (overread_start()) {
		r->error = -errno;
		return;
	}
	for (i = 0; i < r->nr; i++)
		r->bare_read += try_target(&r->targets[i], &r->bare_bytes) > 0;
	for (i = 0; i < r->nr && !r->error; i++) {
		r->error = domain_begin(r->targets[i].dom, PROT_READ);
		if (r->error)
			break;
		/* A control: the test must be able to read what it may read. */
		r->own_read += try_target(&r->targets[i], NULL) == r->targets[i].len;
		try_others(r, i);
		r->error = domain_end(r->targets[i].dom);
	}
	r->faults_pkey = overread_faults.pkey;
	r->faults_other = overread_faults.other;
	if (overread_stop() && !r->error)
		r->error = -errno;
}

void leak_print(const struct leak_result *r, FILE *to)
{
	if (r->error) {
		fprintf(to, "fail: %s\n", epk_strerror(r->error));
		return;
	}
	fprintf(to, "keys=%zu\n", r->nr);
	fprintf(to, "bare_read=%zu\n", r->bare_read);
	fprintf(to, "bare_nonzero_bytes=%zu\n", r->bare_bytes);
	fprintf(to, "own_read=%zu\n", r->own_read);
	fprintf(to, "pairs=%zu\n", r->pairs);
	fprintf(to, "pairs_read=%zu\n", r->pairs_read);
	fprintf(to, "faults_pkey=%lu\n", r->faults_pkey);
	fprintf(to, "faults_other=%lu\n", r->faults_other);
	fprintf(to, "ok\n");
}

void keyed_print(FILE *to)
{
	struct leak_result r = { 0 };

	if (leak_collect(&r))
		drop_unkeyed(&r);
	if (r.error)
		fprintf(to, "fail: %s\n", epk_strerror(r.error));
	else
		fprintf(to, "keyed=%zu\nok\n", r.nr);
	free(r.targets);
}

bool counts_print(FILE *to)
{
	struct epk_counts c = { .size = sizeof(c) };
	int err = epk_counts(&c);
	const char *backend = epk_backend();

	if (err) {
		fprintf(to, "fail: epk_counts: %s\n", epk_strerror(err));
		return false;
	}
	fprintf(to, "backend=%s\n", backend ? backend : "not started");
	fprintf(to, "domains=%" PRIu64 "\n", c.domains);
	fprintf(to, "epts=%" PRIu64 "\n", c.epts);
	fprintf(to, "pages=%" PRIu64 "\n", c.pages);
	fprintf(to, "ept_switches=%" PRIu64 "\n", c.ept_switches);
	fprintf(to, "vm_domains=%" PRIu64 "\n", c.vm_domains);
	fprintf(to, "vm_epts=%" PRIu64 "\n", c.vm_epts);
	fprintf(to, "vm_exits=%" PRIu64 "\n", c.vm_exits);
	fprintf(to, "vm_faults=%" PRIu64 "\n", c.vm_faults);
	fprintf(to, "ok\n");
	return true;
}
