// SPDX-License-Identifier: MIT
/*
 * Persistent tables in domains: a stray write from outside damages nothing, and a process that is
 * killed loses nothing that it has acknowledged.
 *
 * store_test BACKEND stray|kill|steps
 *	stray	writes to each page of tables that the thread does not hold
 *	kill	a hundred times, whenever it happens
 *	steps	before each instruction of a put
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "require.h"
#include "store.h"
#include "../tests/try.h"

#define RW		(PROT_READ | PROT_WRITE)
#define PAGE		4096
#define TABLES		20	/* more than one EPT's */
#define RECORDS		256
#define BYTES		(RECORDS * sizeof(struct store_record))
#define KEYS		100
#define KILLS		100

static const char *backend;

static void init_by(const char *name)
{
	struct epk_options options = { .size = sizeof(options), .backend = name };
	int err = epk_init(&options);

	if (err == -ENODEV) {
		printf("the CPU or the kernel has no %s\n", backend);
		exit(77);
	}
	REQUIRE(!err);
}

static void init(void)
{
	init_by(backend);
}

static int new_file(void)
{
	char path[] = "/tmp/storeXXXXXX";
	int fd = mkstemp(path);

	REQUIRE(fd >= 0 && !unlink(path) && !ftruncate(fd, BYTES));
	return fd;
}

static void open_store(struct store *store, int fd)
{
	int domain;

	REQUIRE(!alloc_domains(1, &domain));
	REQUIRE(!store_open(store, domain, fd, 0, RECORDS));
}

static uint64_t get(struct store *store, uint64_t key)
{
	uint64_t value = 0;
	int err;

	REQUIRE(!domain_begin(store->domain, RW));
	err = store_get(store, key, &value);
	REQUIRE(!err || err == -ENOENT);
	REQUIRE(!domain_end(store->domain));
	return value;
}

static void put(struct store *store, uint64_t key, uint64_t value)
{
	REQUIRE(!domain_begin(store->domain, RW));
	REQUIRE(!store_put(store, key, value));
	REQUIRE(!domain_end(store->domain));
}

/* Stray writes. */

/* To each page of each table but @held's; each has to be refused. */
static void stray_writes(struct store *stores, int held)
{
	int i;

	for (i = 0; i < TABLES; i++)
		for (size_t at = 0; at < BYTES && i != held; at += PAGE)
			REQUIRE(!try_write((char *)stores[i].records + at, 1));
}

static void stray(void)
{
	static char before[BYTES], after[BYTES];
	struct store stores[TABLES];
	int fds[TABLES], i, held;
	uint64_t key;

	init();
	for (i = 0; i < TABLES; i++) {
		fds[i] = new_file();
		open_store(&stores[i], fds[i]);
		for (key = 0; key < KEYS; key++)
			put(&stores[i], key, key + i);
	}
	stray_writes(stores, -1);
	for (held = 0; held < TABLES; held++) {
		REQUIRE(!domain_begin(stores[held].domain, RW));
		stray_writes(stores, held);
		/* The test itself can see a write. */
		REQUIRE(try_write((char *)stores[held].records + BYTES - 1, 0));
		REQUIRE(!domain_end(stores[held].domain));
	}
	for (i = 0; i < TABLES; i++) {
		REQUIRE(pread(fds[i], before, BYTES, 0) == BYTES);
		for (key = 0; key < KEYS; key++)
			REQUIRE(get(&stores[i], key) == key + i);
		REQUIRE(pread(fds[i], after, BYTES, 0) == BYTES && !memcmp(before, after, BYTES));
	}
}

/* Kills.  Put number n sets key n % KEYS to n; the writer says which it has done. */

static volatile uint64_t *acknowledged;

static void write_on(int fd, uint64_t n, bool marked)
{
	struct store store;

	init();
	open_store(&store, fd);
	for (;; n++) {
		if (marked)
			asm volatile("int3" : : : "memory");
		put(&store, n % KEYS, n);
		*acknowledged = n;
	}
}

/* The last put of @key with a number of at most @n; 0 if there is none. */
static uint64_t last_of(uint64_t key, uint64_t n)
{
	uint64_t last = n - (n + KEYS - key) % KEYS;

	return last <= n ? last : 0;
}

/*
 * In a process that comes after: all that was acknowledged is there, and at most one put more.  What
 * the file says does not depend on the backend, and "none" is soon there.
 */
static void look(int fd)
{
	uint64_t n = *acknowledged, key;
	struct store store;

	init_by("none");
	open_store(&store, fd);
	for (key = 0; key < KEYS; key++) {
		uint64_t value = get(&store, key);

		if (value != last_of(key, n) && value != last_of(key, n + 1)) {
			fprintf(stderr, "store_test: key %lu is %lu after put %lu\n", key, value, n);
			_exit(1);
		}
	}
	_exit(0);
}

static pid_t start(void (*what)(int), int fd)
{
	pid_t child;

	fflush(NULL);
	child = fork();
	REQUIRE(child >= 0);
	if (child)
		return child;
	what(fd);
	_exit(1);
}

static void look_after(int fd)
{
	pid_t child = start(look, fd);
	int status;

	REQUIRE(waitpid(child, &status, 0) == child);
	REQUIRE(WIFEXITED(status) && !WEXITSTATUS(status));
}

static void share(void)
{
	acknowledged = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(acknowledged != MAP_FAILED);
}

static uint64_t prepared;

static void write_some(int fd)
{
	struct store store;
	uint64_t n;

	init_by("none");
	open_store(&store, fd);
	for (n = 1; n <= prepared; n++)
		put(&store, n % KEYS, n);
	*acknowledged = prepared;
	_exit(0);
}

/* A file to which so many puts have been done. */
static int prepare(uint64_t puts)
{
	int fd = new_file(), status;
	pid_t child;

	prepared = puts;
	child = start(write_some, fd);
	REQUIRE(waitpid(child, &status, 0) == child);
	REQUIRE(WIFEXITED(status) && !WEXITSTATUS(status));
	return fd;
}

static void go_on_writing(int fd)
{
	write_on(fd, *acknowledged + 1, false);
}

static void kills(void)
{
	int fd, i, status;
	unsigned int seed = 1;
	uint64_t from;
	pid_t child;

	share();
	fd = prepare(0);
	for (i = 0; i < KILLS; i++) {
		from = *acknowledged;
		child = start(go_on_writing, fd);
		while (*acknowledged < from + 10 + rand_r(&seed) % 200 &&
		       waitpid(child, &status, WNOHANG) == 0)
			usleep(rand_r(&seed) % 500);
		kill(child, SIGKILL);
		REQUIRE(waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
			WTERMSIG(status) == SIGKILL);
		look_after(fd);
	}
	printf("%d kills, %lu puts\n", KILLS, *acknowledged);
}

/* The writer is stepped through its put, and killed after @steps of it: false if it was through. */
static void write_marked(int fd)
{
	REQUIRE(!ptrace(PTRACE_TRACEME, 0, 0, 0));
	write_on(fd, *acknowledged + 1, true);
}

static bool kill_after(int fd, int steps)
{
	siginfo_t info = { .si_code = 0 };
	pid_t child = start(write_marked, fd);
	bool through = false;
	int status;

	REQUIRE(waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	while (steps-- && !through) {
		REQUIRE(!ptrace(PTRACE_SINGLESTEP, child, 0, 0));
		REQUIRE(waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
			WSTOPSIG(status) == SIGTRAP);
		REQUIRE(!ptrace(PTRACE_GETSIGINFO, child, 0, &info));
		through = info.si_code == SI_KERNEL;
	}
	kill(child, SIGKILL);
	REQUIRE(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
	return !through;
}

/* Of a put of a new key, and of one of a key that is there: those after all keys have been put. */
static void steps(void)
{
	static const uint64_t done[] = { 1, KEYS + 5 };
	static char before[BYTES];
	int i, fd, nr;
	bool killed;

	share();
	for (i = 0; i < 2; i++) {
		nr = 0;
		fd = prepare(done[i]);
		REQUIRE(pread(fd, before, BYTES, 0) == BYTES);
		do {
			*acknowledged = done[i];
			REQUIRE(pwrite(fd, before, BYTES, 0) == BYTES);
			killed = kill_after(fd, ++nr);
			look_after(fd);
		} while (killed);
		close(fd);
		printf("killed before each of %d instructions\n", nr - 1);
		REQUIRE(nr > 50);
	}
}

static void try_backend(int fd)
{
	(void)fd;
	init();
	exit(0);
}

/* In a child, as each process of the tests is to begin without. */
static void need_backend(void)
{
	pid_t child = start(try_backend, -1);
	int status;

	REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status));
	if (WEXITSTATUS(status))
		exit(WEXITSTATUS(status));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = { { "stray", stray }, { "kill", kills }, { "steps", steps } };
	size_t i;

	for (i = 0; i < 3 && argc == 3; i++)
		if (!strcmp(argv[2], cases[i].name)) {
			backend = argv[1];
			need_backend();
			cases[i].run();
			return 0;
		}
	fprintf(stderr, "usage: store_test BACKEND stray|kill|steps\n");
	return 2;
}
