// SPDX-License-Identifier: MIT
/*
 * A box: a page of memory in a domain of its own.
 *
 * Boxes are used again, so that a server that has had as many sessions as it will
 * makes no system call for one.  A box that waits is zeroed.
 *
 * It has two halves, for the two directions of one connection.  Who gets a box has the first, or all
 * of it; the other goes to a key of the same lineage (lineage.c), and to nobody else.
 *
 * A box belongs to the process that made it.  Domain memory does not cross
 * fork(), and a child's library may give out the same domain IDs anew, so each
 * box remembers how often its process was forked before it was made.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <epk.h>

#include "publish.h"
#include "secrets.h"

/* More than these that wait go back to the system: 4 MiB. */
#define WAITING_MAX	1024

static unsigned int fork_generation;
static unsigned int ready_generation = ~0u;
/* That of the process in which the provider was loaded. */
static const char *backend;

static struct box *waiting;
static unsigned int nr_waiting;
static unsigned int nr_boxes;

/* By lineage: boxes with a half that the connection's other direction may have. */
#define NR_CHAINS	1024

static struct box *offered[NR_CHAINS];

/* Of all of these. */
#define LOCK_INITIALIZER	PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP
static pthread_mutex_t boxes_lock = LOCK_INITIALIZER;

/* Forks in signal handlers that interrupted this thread with the lock. */
static unsigned int nested;

/* In the child of such a one: what was interrupted may go on with any box of before. */
static bool was_interrupted;

static int init_library(const char *name);

/* A handler that does more than fork must not go on: two would get one box. */
static void lock(void)
{
	if (pthread_mutex_lock(&boxes_lock))
		abort();
}

/* Of a child of such a handler it is not: see in_child(). */
static void unlock(void)
{
	pthread_mutex_unlock(&boxes_lock);
}

void epkp_block_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

/*
 * Before calls of the kernel's: a thread that is to be cancelled, and has a lock or a domain open,
 * goes on until it has neither.  Whoever cleans up after it would have what is open, too.
 */
int epkp_cancel_later(void)
{
	int cancels;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancels);
	return cancels;
}

void epkp_cancel_as(int cancels)
{
	pthread_setcancelstate(cancels, NULL);
}

/* Of the thread that forks, and with the lock. */
static sigset_t mask_before;
static int cancels_before;

/* From here to the end no signal handler forks, whose child would keep the pipe with K. */
static void before_fork(void)
{
	sigset_t before;

	epkp_block_signals(&before);
	if (!pthread_mutex_lock(&boxes_lock)) {
		mask_before = before;
		cancels_before = epkp_cancel_later();
		epkp_vault_before_fork();
		return;
	}
	nested++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void after_fork(void)
{
	sigset_t before;
	int cancels;

	if (nested) {
		nested--;
		return;
	}
	epkp_vault_after_fork();
	before = mask_before;
	cancels = cancels_before;
	unlock();
	epkp_cancel_as(cancels);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void in_child(void)
{
	bool interrupted = nested;
	struct box *box;
	int err = 0;

	fork_generation++;
	nr_boxes = 0;
	nested = 0;
	/* Its owner has another thread ID now. */
	boxes_lock = (pthread_mutex_t)LOCK_INITIALIZER;
	/* What was interrupted may go on, and epkp_box_get() takes no box from before. */
	if (interrupted) {
		was_interrupted = true;
		epkp_publish_in_child(false);
		return;
	}
	while ((box = waiting)) {
		waiting = box->next;
		free(box);
	}
	nr_waiting = 0;
	/* A worker gives up its rights and its root directory next. */
	if (backend)
		err = init_library(backend);
	if (backend && !err)
		ready_generation = fork_generation;
	epkp_publish_in_child(backend && !err);
	epkp_vault_in_child(err);
	epkp_cancel_as(cancels_before);
	pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
}

int epkp_box_setup(void)
{
	static bool registered;
	int err = 0;

	lock();
	if (!registered) {
		err = pthread_atfork(before_fork, after_fork, in_child);
		registered = !err;
	}
	unlock();
	return err;
}

/* Someone else in the process was first: fine, if it is what is wanted. */
static int init_library(const char *name)
{
	struct epk_options options = {
		.size = sizeof(options),
		.backend = name,
	};
	int err = epk_init(&options);

	if (err == -EALREADY && !strcmp(name, epk_backend()))
		err = 0;
	return err;
}

/*
 * "auto" is EPK or nothing: who has not said so does not run without protection.
 * Never what the library itself would choose, as that asks the environment.
 *
 * "none" is for machines that have no protection keys, not for who is short of them.
 */
static int init_wanted(const char *wanted)
{
	int err;

	if (!strcmp(wanted, "auto"))
		return init_library("epk");
	if (strcmp(wanted, "auto-insecure"))
		return init_library(wanted);
	err = init_library("epk");
	if (err)
		err = init_library("mpk");
	if (err == -ENODEV || err == -EALREADY)
		err = init_library("none");
	return err;
}

/* Whatever asked for it: not what this is for. */
static void say_if_weak(void)
{
	static bool said;

	if (!said && strcmp(backend, "epk"))
		fprintf(stderr, "epk provider: backend \"%s\" protects %s\n", backend,
			strcmp(backend, "none") ? "less than \"epk\"" : "nothing");
	said = true;
}

/*
 * When the provider is loaded, and so before a server gives up the rights and the root
 * directory that it takes to open /dev/epk, and while it can still refuse to start.
 */
bool epkp_box_start(struct provider *prov, const char *wanted)
{
	int err;

	/* A thread can reach what it began last there, and keys go from one domain to another. */
	if (!strcmp(wanted, "vmfunc"))
		return raise(prov, EPK_R_NO_DOMAIN, "backend vmfunc: it opens one domain at a time, "
			     "which does not do for keys");
	lock();
	err = init_wanted(wanted);
	if (!err) {
		ready_generation = fork_generation;
		backend = epk_backend();
		epkp_publish_started(backend);
		say_if_weak();
	}
	unlock();
	return !err || raise(prov, EPK_R_NO_DOMAIN, "backend %s: %s%s", wanted, epk_strerror(err),
			     strcmp(wanted, "auto") ? "" :
			     "; \"auto-insecure\" would do without protection");
}

/* In a forked child, if what it tried at once has failed. */
static bool library_ready(struct provider *prov)
{
	int err = 0;

	lock();
	if (ready_generation != fork_generation) {
		err = init_library(backend);
		if (!err)
			ready_generation = fork_generation;
		epkp_published.started = !err;
	}
	unlock();
	return !err || raise(prov, EPK_R_NO_DOMAIN, "backend %s after fork(): %s", backend,
			     epk_strerror(err));
}

/* ---- what an administrator can change */

/* While a session begins: one more box, for the key exchange and then for its ticket. */
#define BEGINNING	1
/*
 * One, as a rule; but who has keys updated, or handshakes made, often enough sees to it that what
 * tells which two belong together is forgotten (lineage.c).
 */
#define OF_A_SESSION	2
#define MANY		10000

static int add_len(int dom, void *addr, size_t len, void *arg)
{
	(void)dom;
	(void)addr;
	*(uint64_t *)arg += len;
	return 0;
}

/* Bytes that count, but for the boxes of sessions. */
static uint64_t other_bytes(unsigned int boxes)
{
	uint64_t all = 0;

	epk_for_each_mapping(add_len, &all);
	return all + BEGINNING * BOX_LEN - (uint64_t)boxes * BOX_LEN;
}

/* Only the module counts, and not for who may lock what it likes: then there is more than that. */
static bool is_at_limit(uint64_t bytes, const struct rlimit *limit)
{
	return !strcmp(backend, "epk") && limit->rlim_cur != RLIM_INFINITY &&
	       bytes <= limit->rlim_cur && bytes + BOX_LEN > limit->rlim_cur;
}

static void raise_used_up(struct provider *prov, const char *call, int err)
{
	unsigned int boxes = __atomic_load_n(&nr_boxes, __ATOMIC_RELAXED);
	uint64_t other = other_bytes(boxes), each = OF_A_SESSION * BOX_LEN;
	struct rlimit limit = { .rlim_cur = 0 };
	unsigned long long kib;

	epkp_publish_add(&epkp_published.no_domain, 1);
	getrlimit(RLIMIT_MEMLOCK, &limit);
	kib = limit.rlim_cur / 1024;
	if (err == -ENOMEM &&
	    is_at_limit(other + (boxes - (uint64_t)BEGINNING) * BOX_LEN, &limit))
		raise(prov, EPK_R_NO_DOMAIN, "%s: RLIMIT_MEMLOCK, %llu KiB, has room for at least %llu "
		      "sessions of this process: %llu KiB, and %llu for each; for %d make it %llu KiB "
		      "(LimitMEMLOCK= of systemd, ulimit -l)", call, kib,
		      limit.rlim_cur > other ? (limit.rlim_cur - other) / each : 0ull,
		      (unsigned long long)other / 1024, (unsigned long long)each / 1024, MANY,
		      (unsigned long long)(other + MANY * each) / 1024);
	else
		raise(prov, EPK_R_NO_DOMAIN, "%s: %s; %u in use, each of %d KiB", call,
		      epk_strerror(err), boxes, BOX_LEN / 1024);
}

/* ---- */

static struct box *box_new(struct provider *prov)
{
	struct box *box = calloc(1, sizeof(*box));
	int err;

	if (!box) {
		raise(prov, EPK_R_MEMORY, "%zu bytes", sizeof(*box));
		return NULL;
	}
	err = alloc_domains(1, &box->dom);
	if (err) {
		raise_used_up(prov, "alloc_domains", err);
		goto free_box;
	}
	box->mem = domain_mmap(box->dom, NULL, BOX_LEN, PROT_READ | PROT_WRITE, 0);
	if (box->mem == MAP_FAILED) {
		raise_used_up(prov, "domain_mmap", -errno);
		goto free_domain;
	}
	box->generation = fork_generation;
	__atomic_add_fetch(&nr_boxes, 1, __ATOMIC_RELAXED);
	return box;

free_domain:
	free_domains(1, &box->dom);
free_box:
	free(box);
	return NULL;
}

static void box_free(struct provider *prov, struct box *box)
{
	int err = free_domains(1, &box->dom);

	if (err)
		raise(prov, EPK_R_DOMAIN_FREE, "free_domains: %s", epk_strerror(err));
	__atomic_sub_fetch(&nr_boxes, 1, __ATOMIC_RELAXED);
	free(box);
}

/* This process's: made by it, and not before it was forked. */
bool epkp_box_is_ours(const struct box *box)
{
	return box->generation == fork_generation;
}

unsigned int epkp_box_generation(void)
{
	return fork_generation;
}

struct box *epkp_box_get(struct provider *prov)
{
	struct box *box;

	if (!library_ready(prov))
		return NULL;
	lock();
	do {
		box = waiting;
		if (box) {
			waiting = box->next;
			nr_waiting--;
		}
	} while (box && !epkp_box_is_ours(box));
	unlock();
	if (!box)
		box = box_new(prov);
	if (box)
		box->taken = 1;
	return box;
}

bool epkp_box_open(struct provider *prov, const struct box *box)
{
	int err;

	if (!epkp_box_is_ours(box))
		return raise(prov, EPK_R_FORKED, "made before fork()");
	err = domain_begin(box->dom, PROT_READ | PROT_WRITE);
	if (err)
		return raise(prov, EPK_R_DOMAIN_BEGIN, "domain %#x: %s", box->dom,
			     epk_strerror(err));
	return true;
}

bool epkp_box_close(struct provider *prov, const struct box *box)
{
	int err = domain_end(box->dom);

	if (err)
		return raise(prov, EPK_R_DOMAIN_END, "domain %#x: %s", box->dom,
			     epk_strerror(err));
	return true;
}

/* ---- halves; these are called with the lock */

static struct box **chain_of(const struct lineage *of)
{
	return &offered[of->id[0] % NR_CHAINS];
}

/* The link to the first of ours: a child's chains have its parent's until they are freed. */
static struct box **find_offered(const struct lineage *of)
{
	struct box **at = chain_of(of);

	while (*at && (!lineage_is(&(*at)->of, of) || !epkp_box_is_ours(*at)))
		at = &(*at)->next;
	return at;
}

static void withdraw(struct box *box)
{
	struct box **at = chain_of(&box->of);

	while (*at && *at != box)
		at = &(*at)->next;
	if (*at)
		*at = box->next;
}

static void offer_new(struct box *box)
{
	struct box **chain = chain_of(&box->of);

	box->next = *chain;
	*chain = box;
}

/*
 * After all newer ones: from OpenSSL 3.2 on an old key goes when the new one is there, and the new
 * one's box is to get the other new key, so that the old one's empties.
 */
static void offer_rest(struct box *box)
{
	struct box **at = chain_of(&box->of);

	while (*at)
		at = &(*at)->next;
	box->next = NULL;
	*at = box;
}

static bool has_rest(const struct box *box)
{
	return lineage_is_some(&box->of) && !box->spoilt && box->taken &&
	       box->taken != (1 << NR_HALVES) - 1;
}

/* Returns whether the box is to be freed. */
static bool give_half_back(struct box *box, unsigned int half)
{
	if (has_rest(box))
		withdraw(box);
	box->taken &= ~(1u << half);
	if (box->taken) {
		if (has_rest(box))
			offer_rest(box);
		return false;
	}
	memset(&box->of, 0, sizeof(box->of));
	if (!epkp_box_is_ours(box))
		return !was_interrupted;
	if (box->spoilt || nr_waiting >= WAITING_MAX)
		return true;
	box->next = waiting;
	waiting = box;
	nr_waiting++;
	return false;
}

/* ---- */

/* The free half of a box that has this connection's other key, or NULL. */
struct box *epkp_box_join(const struct lineage *of, unsigned int *half)
{
	struct box **at, *box;

	lock();
	at = find_offered(of);
	box = *at;
	if (box) {
		*at = box->next;
		*half = __builtin_ctz(~box->taken);
		box->taken |= 1u << *half;
	}
	unlock();
	return box;
}

/* Its first half has a key of this connection, and nobody has the other. */
void epkp_box_offer(struct box *box, const struct lineage *of)
{
	lock();
	box->of = *of;
	if (has_rest(box))
		offer_new(box);
	unlock();
}

/* One that cannot be zeroed must not be used again. */
static bool box_zero(struct provider *prov, struct box *box, unsigned int half, size_t used)
{
	if (!used)
		return true;
	if (!epkp_box_open(prov, box))
		return false;
	explicit_bzero(box->mem + half * HALF_LEN, used);
	return epkp_box_close(prov, box);
}

/* A half, and all of it if it has not been offered. */
void epkp_box_put(struct provider *prov, struct box *box, unsigned int half, size_t used)
{
	/* A forked child has neither the memory nor the domain. */
	bool zeroed = !epkp_box_is_ours(box) || box_zero(prov, box, half, used), gone;

	lock();
	if (!zeroed) {
		if (has_rest(box))
			withdraw(box);
		box->spoilt = true;
	}
	gone = give_half_back(box, half);
	unlock();
	if (gone && epkp_box_is_ours(box))
		box_free(prov, box);
	else if (gone)
		free(box);
}
