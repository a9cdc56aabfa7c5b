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
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include <epk.h>

#include "publish.h"
#include "secrets.h"

/* Twice what the hashes' code was seen to use. */
#define STACK_BYTES	4096

/*
 * Published when K is in it, and not before: a fork() by another thread meanwhile would
 * hand on a K of zeros.
 */
static struct vault *vault;
static int vault_dom;
static unsigned int vault_generation;
/* Why there is none, for who asks. */
static int vault_error = -ENOENT;
static const char *vault_call = "start";
/* This process should have got its parent's K, and has not: it never has another. */
static bool is_lost;

static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;

/* By bits: which works are taken. */
static uint32_t works_taken;

_Static_assert(NR_WORKS <= 32, "a bit for each");

static struct vault *current(void)
{
	return __atomic_load_n(&vault, __ATOMIC_ACQUIRE);
}

static int failed(const char *call, int err)
{
	vault_call = call;
	vault_error = err;
	return err;
}

static const char *why_failed(void)
{
	if (vault_error == -EFAULT)
		return "the stack is too small or not known";
	return vault_error == -EBADMSG ? "not what was written" : epk_strerror(vault_error);
}

/* A domain with memory for a vault, that nobody else knows yet. */
struct room {
	struct vault *mem;
	int dom;
};

/* Beside each box, whose key crosses from here: else most are in another EPT, to which the module leads. */
static int make_domain(int *dom)
{
	int err = epk_alloc_everywhere(1, dom);

	/* The program has taken most of the protection keys. */
	return err == -ENOSPC ? alloc_domains(1, dom) : err;
}

static int make_room(struct room *room)
{
	int err = make_domain(&room->dom);

	if (err)
		return failed("alloc_domains", err);
	room->mem = domain_mmap(room->dom, NULL, sizeof(*room->mem), PROT_READ | PROT_WRITE, 0);
	if (room->mem == MAP_FAILED) {
		err = -errno;
		free_domains(1, &room->dom);
		return failed("domain_mmap", err);
	}
	return 0;
}

static void publish(const struct room *room)
{
	vault_dom = room->dom;
	vault_generation = epkp_box_generation();
	works_taken = 0;
	__atomic_store_n(&vault, room->mem, __ATOMIC_RELEASE);
}

/* What K makes of zeros, by which who gets K knows that it is whole. */
static void make_check(struct vault *v, uint8_t check[CHECK_LEN])
{
	struct opened o = { .vault = v, .work = &v->works[0], .low = epkp_watch(STACK_BYTES) };
	const uint8_t tweak[8] = { SECRET_CHECK };

	memset(check, 0, CHECK_LEN);
	epkp_mix(&o, tweak, NULL, 0, check, CHECK_LEN);
	explicit_bzero(o.work, sizeof(*o.work));
	epkp_scrub(o.low);
}

/*
 * Calls that the kernel makes in the vault, so that K is in no other memory.  The vault begins
 * with K and its check.
 */
static ssize_t draw(int fd, struct vault *v)
{
	ssize_t done = getrandom(v->key, sizeof(v->key), 0);

	(void)fd;
	if (done != sizeof(v->key))
		return done;
	make_check(v, v->check);
	return KEY_AND_CHECK;
}

static ssize_t send_away(int fd, struct vault *v)
{
	return write(fd, v, KEY_AND_CHECK);
}

static ssize_t receive(int fd, struct vault *v)
{
	ssize_t done = read(fd, v, KEY_AND_CHECK);
	uint8_t check[CHECK_LEN];

	if (done != KEY_AND_CHECK)
		return done;
	make_check(v, check);
	return CRYPTO_memcmp(check, v->check, CHECK_LEN) ? 0 : done;
}

static int with_key(ssize_t (*call)(int fd, struct vault *v), int fd, const struct room *room)
{
	int err = domain_begin(room->dom, PROT_READ | PROT_WRITE), cancels;
	ssize_t done;

	if (err)
		return err;
	cancels = epkp_cancel_later();
	done = call(fd, room->mem);
	err = done == KEY_AND_CHECK ? 0 : done < 0 ? -errno : -EBADMSG;
	if (domain_end(room->dom))
		err = -EIO;
	epkp_cancel_as(cancels);
	return err;
}

/* @call fills it. */
static int fill_room(const char *name, ssize_t (*call)(int fd, struct vault *v), int fd)
{
	struct room room;
	int err;

	if (!epkp_stack_has(STACK_BYTES))
		return failed(name, -EFAULT);
	err = make_room(&room);
	if (err)
		return err;
	err = with_key(call, fd, &room);
	if (err) {
		free_domains(1, &room.dom);
		return failed(name, err);
	}
	publish(&room);
	return 0;
}

/* No signal handler is to fork meanwhile: its child would go on without the room. */
bool epkp_vault_start(struct provider *prov)
{
	sigset_t before;

	epkp_block_signals(&before);
	pthread_mutex_lock(&start_lock);
	if (!current() && !is_lost)
		fill_room("getrandom", draw, -1);
	pthread_mutex_unlock(&start_lock);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return current() ||
	       raise(prov, EPK_R_NO_KEY, "%s: %s", vault_call, why_failed());
}

/* ---- fork: with the lock of box.c, so that no two happen at a time, and no signals */

static int fds[2] = { -1, -1 };
/* Why there is no pipe. */
static int pipe_error;
static const char *pipe_call;

static void close_pipe(void)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static int no_pipe(const char *call, int err)
{
	close_pipe();
	pipe_call = call;
	pipe_error = err;
	return err;
}

/* Not where others write without having opened anything, in a process that has closed those. */
static int make_pipe(void)
{
	int i, fd;

	if (pipe2(fds, O_CLOEXEC)) {
		fds[0] = fds[1] = -1;
		return no_pipe("pipe2", -errno);
	}
	for (i = 0; i < 2; i++) {
		if (fds[i] > STDERR_FILENO)
			continue;
		fd = fcntl(fds[i], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		if (fd < 0)
			return no_pipe("fcntl", -errno);
		close(fds[i]);
		fds[i] = fd;
	}
	return 0;
}

void epkp_vault_before_fork(void)
{
	struct room room = { current(), vault_dom };
	int err;

	if (!room.mem || vault_generation != epkp_box_generation()) {
		no_pipe("fork", -ENOENT);
		return;
	}
	if (make_pipe())
		return;
	/* It fits: nobody has to read it first. */
	err = with_key(send_away, fds[1], &room);
	if (err)
		no_pipe("write", err);
}

void epkp_vault_after_fork(void)
{
	close_pipe();
}

/* Nobody but the operator can help, and a child that serves nothing is to be seen at once. */
static void say_lost(void)
{
	char line[256];
	int len = snprintf(line, sizeof(line),
			   "epk provider: process %d has no key to wrap secrets with: %s: %s\n",
			   (int)getpid(), vault_call, why_failed());

	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

/*
 * The parent's memory is not there.  Nothing that fails here is silent, and it is final: see
 * epkp_vault_start() and epkp_vault_open().
 */
void epkp_vault_in_child(int err)
{
	bool had = current();

	/* Another thread may have had it, which is not here. */
	pthread_mutex_init(&start_lock, NULL);
	if (had) {
		vault = NULL;
		epkp_handles_in_child();
		if (err)
			failed("epk_init", err);
		else if (fds[0] < 0)
			err = failed(pipe_call, pipe_error);
		else
			err = fill_room("read", receive, fds[0]);
		is_lost = err;
		epkp_published.key_lost = is_lost;
	}
	close_pipe();
	if (had && is_lost)
		say_lost();
}

/* ---- */

static bool try_work(unsigned int *slot)
{
	uint32_t all = __atomic_load_n(&works_taken, __ATOMIC_RELAXED);
	int i;

	while ((i = __builtin_ffs(~all) - 1) >= 0 && i < NR_WORKS)
		if (__atomic_compare_exchange_n(&works_taken, &all, all | 1u << i, false,
						__ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			*slot = i;
			return true;
		}
	return false;
}

bool epkp_vault_try_reserve(struct opened *o)
{
	return try_work(&o->slot);
}

/* Before any domain is opened, as it may have to wait: others compute for microseconds. */
void epkp_vault_reserve(struct opened *o)
{
	while (!try_work(&o->slot))
		sched_yield();
}

/* What has not been entered. */
void epkp_vault_leave(struct opened *o)
{
	__atomic_fetch_and(&works_taken, ~(1u << o->slot), __ATOMIC_RELEASE);
}

static bool can_enter(struct provider *prov)
{
	if (!current())
		return raise(prov, EPK_R_NO_KEY, "%s: %s", vault_call, why_failed());
	return vault_generation == epkp_box_generation() ||
	       raise(prov, EPK_R_NO_KEY, "it did not come through a fork");
}

/*
 * Where a slot is reserved, which is left by epkp_vault_close(), or if there is an error.
 * @watched: how far down the stack is watched already, by who needs more of it; NULL: it is not.
 *	Marks that
 * were made anew would hide what a signal has left among those.
 */
bool epkp_vault_enter(struct provider *prov, struct opened *o, char *watched)
{
	int err;

	if (!can_enter(prov)) {
		epkp_vault_leave(o);
		return false;
	}
	epkp_errors_hold_back();
	err = domain_begin(vault_dom, PROT_READ | PROT_WRITE);
	if (err) {
		epkp_vault_leave(o);
		epkp_errors_tell(prov);
		return raise(prov, EPK_R_DOMAIN_BEGIN, "domain %#x: %s", vault_dom,
			     epk_strerror(err));
	}
	o->vault = vault;
	o->work = &vault->works[o->slot];
	o->wiped = false;
	o->low = watched ? watched : epkp_watch(STACK_BYTES);
	return true;
}

bool epkp_vault_open(struct provider *prov, struct opened *o)
{
	if (!epkp_stack_suffices(prov, STACK_BYTES))
		return false;
	epkp_vault_reserve(o);
	return epkp_vault_enter(prov, o, NULL);
}

void epkp_vault_wipe(struct opened *o)
{
	if (!o->wiped)
		explicit_bzero(o->work, sizeof(*o->work));
	o->wiped = true;
}

bool epkp_vault_close(struct provider *prov, struct opened *o)
{
	int err;

	epkp_vault_wipe(o);
	epkp_scrub(o->low);
	err = domain_end(vault_dom);
	epkp_vault_leave(o);
	epkp_errors_tell(prov);
	return !err || raise(prov, EPK_R_DOMAIN_END, "domain %#x: %s", vault_dom, epk_strerror(err));
}
