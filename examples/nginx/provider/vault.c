// SPDX-License-Identifier: MIT
/*
 * The vault: the domain of K, under which secrets are wrapped, and of all that is computed
 * with secrets but the ciphers and the key exchanges.
 *
 * It is open while a secret is wrapped, unwrapped or derived, and at no other time: never
 * while what a peer has sent is parsed.
 *
 * K is drawn once, and each forked child gets it, so that a session of one worker is good
 * for all.  Domain memory does not cross fork(), so K goes through a pipe that exists for
 * the fork alone, and the kernel copies it from the parent's vault and into the child's: it
 * never stands in ordinary memory.  Nor is there a file, a descriptor or a mapping from
 * which it could be got afterwards, as there would be with a memfd; one is closed by
 * daemons that close all that they do not know, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <epk.h>

#include "secrets.h"

/* Twice what the hashes' code was seen to use. */
#define STACK_BYTES	4096

static struct vault *vault;
static int vault_dom;
static unsigned int vault_generation;
/* Why there is none, for who asks. */
static int vault_error = -ENOENT;
static const char *vault_call = "start";

static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;

/* By bits: which works are taken. */
static uint32_t works_taken;

_Static_assert(NR_WORKS <= 32, "a bit for each");

static int fds[2] = { -1, -1 };

static int failed(const char *call, int err)
{
	vault_call = call;
	vault_error = err;
	vault = NULL;
	return err;
}

/* A domain with room for a vault; nothing in it. */
static int make_room(void)
{
	struct vault *room;
	int err = alloc_domains(1, &vault_dom);

	if (err)
		return failed("alloc_domains", err);
	room = domain_mmap(vault_dom, NULL, sizeof(*room), PROT_READ | PROT_WRITE, 0);
	if (room == MAP_FAILED) {
		err = -errno;
		free_domains(1, &vault_dom);
		return failed("domain_mmap", err);
	}
	vault = room;
	vault_generation = box_generation();
	works_taken = 0;
	return 0;
}

static void drop_room(const char *call, int err)
{
	free_domains(1, &vault_dom);
	failed(call, err);
}

/* Calls that the kernel makes in the vault, so that K is in no other memory. */
static ssize_t draw(int fd, void *to, size_t len)
{
	(void)fd;
	return getrandom(to, len, 0);
}

static ssize_t send_away(int fd, void *from, size_t len)
{
	return write(fd, from, len);
}

static int with_key(ssize_t (*call)(int fd, void *key, size_t len), int fd)
{
	int err = domain_begin(vault_dom, PROT_READ | PROT_WRITE);
	ssize_t done;

	if (err)
		return err;
	done = call(fd, vault->key, sizeof(vault->key));
	err = done == sizeof(vault->key) ? 0 : done < 0 ? -errno : -EIO;
	return domain_end(vault_dom) ? -EIO : err;
}

bool vault_start(struct provider *prov)
{
	int err;

	pthread_mutex_lock(&start_lock);
	if (!vault && !make_room()) {
		err = with_key(draw, -1);
		if (err)
			drop_room("getrandom", err);
	}
	pthread_mutex_unlock(&start_lock);
	return vault || raise(prov, EPK_R_NO_KEY, "%s: %s", vault_call, epk_strerror(vault_error));
}

int vault_domain(void)
{
	return vault_dom;
}

/* ---- fork: with the lock of box.c, so that no two happen at a time */

static void close_pipe(void)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

void vault_before_fork(void)
{
	int err;

	if (!vault || vault_generation != box_generation())
		return;
	if (pipe2(fds, O_CLOEXEC)) {
		fds[0] = fds[1] = -1;
		return;
	}
	/* It fits: nobody has to read it first. */
	err = with_key(send_away, fds[1]);
	if (err)
		close_pipe();
}

void vault_after_fork(void)
{
	close_pipe();
}

/* The parent's memory is not there.  Nothing that fails here is silent: see vault_open(). */
void vault_in_child(void)
{
	int err;

	if (!vault)
		return;
	vault = NULL;
	pthread_mutex_init(&start_lock, NULL);
	handles_in_child();
	if (fds[0] < 0) {
		failed("pipe2", -EMFILE);
		return;
	}
	if (!make_room()) {
		err = with_key(read, fds[0]);
		if (err)
			drop_room("read", err);
	}
	close_pipe();
}

/* ---- */

static int take_work(void)
{
	uint32_t taken = __atomic_load_n(&works_taken, __ATOMIC_RELAXED);
	int i;

	for (;;) {
		i = __builtin_ffs(~taken) - 1;
		if (i < 0 || i >= NR_WORKS) {
			/* Others compute for microseconds. */
			sched_yield();
			taken = __atomic_load_n(&works_taken, __ATOMIC_RELAXED);
		} else if (__atomic_compare_exchange_n(&works_taken, &taken, taken | 1u << i, false,
						       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			return i;
		}
	}
}

static void leave_work(const struct opened *o)
{
	uint32_t bit = 1u << (o->work - o->vault->works);

	__atomic_fetch_and(&works_taken, ~bit, __ATOMIC_RELEASE);
}

bool vault_open(struct provider *prov, struct opened *o)
{
	int err;

	if (!vault)
		return raise(prov, EPK_R_NO_KEY, "%s: %s", vault_call,
			     epk_strerror(vault_error));
	if (vault_generation != box_generation())
		return raise(prov, EPK_R_NO_KEY, "it did not come through a fork");
	err = domain_begin(vault_dom, PROT_READ | PROT_WRITE);
	if (err)
		return raise(prov, EPK_R_DOMAIN_BEGIN, "domain %#x: %s", vault_dom,
			     epk_strerror(err));
	o->vault = vault;
	o->work = &vault->works[take_work()];
	o->low = watch(STACK_BYTES);
	return true;
}

bool vault_close(struct provider *prov, struct opened *o)
{
	int err;

	explicit_bzero(o->work, sizeof(*o->work));
	scrub(o->low);
	leave_work(o);
	err = domain_end(vault_dom);
	return !err || raise(prov, EPK_R_DOMAIN_END, "domain %#x: %s", vault_dom, epk_strerror(err));
}
