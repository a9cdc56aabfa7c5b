// SPDX-License-Identifier: MIT
/* A new thread may do what its creator may, as the CPU's own keys have it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "pkeys.h"

/**
 * struct start - what a new thread begins with
 * @run: its function
 * @arg: and the argument
 * @nr: of @held, those in use
 * @held: what it may do
 */
struct start {
	void *(*run)(void *arg);
	void *arg;
	int nr;
	struct {
		int id;
		int prot;
	} held[EPK_MAX_HELD];
};

static void *begin(void *arg)
{
	struct start start = *(struct start *)arg;
	int n;

	free(arg);
	for (n = 0; n < start.nr; n++)
		pkeys_rights_set(start.held[n].id, start.held[n].prot);
	return start.run(start.arg);
}

/* Domains that are no keys are not inherited. */
static int list(struct start *start)
{
	int ids[EPK_MAX_HELD], n, nr = epk_backend() ? epk_held(ids, EPK_MAX_HELD) : 0;

	for (n = 0; n < nr && n < EPK_MAX_HELD; n++) {
		if (!pkeys_key_slot_of(ids[n]))
			continue;
		start->held[start->nr].id = ids[n];
		start->held[start->nr++].prot = epk_held_prot(ids[n]);
	}
	return start->nr;
}

__attribute__((visibility("default"))) int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
							  void *(*run)(void *arg), void *arg)
{
	int (*create)(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *arg), void *arg);
	struct start *start = NULL;
	int err;

	create = pkeys_books ? pkeys_books->pthread_create : NULL;
	if (!create)
		create = dlsym(RTLD_NEXT, "pthread_create");
	if (pkeys_books && pkeys_books->nr_slots)
		start = calloc(1, sizeof(*start));
	if (pkeys_books && pkeys_books->nr_slots && !start)
		return EAGAIN;
	if (!start || !list(start)) {
		free(start);
		return create(thread, attr, run, arg);
	}
	start->run = run;
	start->arg = arg;
	err = create(thread, attr, begin, start);
	if (err)
		free(start);
	return err;
}
