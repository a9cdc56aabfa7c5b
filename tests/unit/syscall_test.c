// SPDX-License-Identifier: MIT
/* How many system calls a call makes: counted from outside, by ptrace(2). */
#define _GNU_SOURCE
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include "unit.h"

#define BATCH	1000
#define GROUP	15

/* What the child says between two things that it does. */
static void mark(void)
{
	syscall(SYS_getppid);
}

/**
 * struct counted - something that the child does
 * @name: for messages
 * @run: does it
 * @most: system calls that it may make
 * @least: and that it has to, under "epk"
 */
struct counted {
	const char *name;
	void (*run)(void);
	int most;
	int least;
};

static int ids[BATCH];

static void alloc_group(void)
{
	REQUIRE(!alloc_domains(GROUP, ids));
}

static void free_group(void)
{
	REQUIRE(!free_domains(GROUP, ids));
}

static void alloc_batch(void)
{
	REQUIRE(!alloc_domains(BATCH, ids));
}

static void free_batch(void)
{
	REQUIRE(!free_domains(BATCH, ids));
}

static void alloc_mapped(void)
{
	int i;

	REQUIRE(!alloc_domains(GROUP, ids));
	for (i = 0; i < GROUP; i++)
		REQUIRE(domain_mmap(ids[i], NULL, PAGE, RW, 0) != MAP_FAILED);
}

static void begin_and_end(void)
{
	int i;

	for (i = 0; i < 100; i++)
		REQUIRE(!domain_begin(ids[i % 2], RW) && !domain_end(ids[i % 2]));
}

static void hold_two(void)
{
	int i;

	REQUIRE(!domain_begin(ids[0], RW));
	for (i = 0; i < 100; i++)
		REQUIRE(!domain_begin(ids[1], RW) && !domain_end(ids[1]));
	REQUIRE(!domain_end(ids[0]));
}

static const struct counted all[] = {
	{ "alloc_domains of 15", alloc_group, 1, 1 },
	/* And one to see whether the caller holds any. */
	{ "free_domains of 15", free_group, 2, 1 },
	{ "alloc_domains of 1000", alloc_batch, 1, 1 },
	{ "free_domains of 1000", free_batch, 2, 1 },
	/* A mapping takes one, a few where no module does it, and the library's own care. */
	{ "15 domains with memory", alloc_mapped, 1 + 6 * GROUP, 1 + GROUP },
	{ "begin and end", begin_and_end, 0, 0 },
	{ "the same beside another", hold_two, 0, 0 },
	{ "free_domains of 15 with memory", free_group, 2 + 3 * GROUP, 1 + GROUP },
};

#define NR	(sizeof(all) / sizeof(all[0]))

static void child(void)
{
	int two[2];
	size_t i;

	/* What is done once: initialisation, the thread, memory of the C library. */
	REQUIRE(!alloc_domains(2, two));
	REQUIRE(domain_mmap(two[0], NULL, PAGE, RW, 0) != MAP_FAILED);
	REQUIRE(!domain_begin(two[0], RW) && !domain_begin(two[1], RW));
	REQUIRE(!domain_end(two[0]) && !domain_end(two[1]));
	free(malloc(65536));
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(2);
	raise(SIGSTOP);
	for (i = 0; i < NR; i++) {
		mark();
		all[i].run();
	}
	mark();
	_exit(0);
}

/* The calls before the next mark, or -1 at the end. */
static int count_to_mark(pid_t pid)
{
	struct user_regs_struct regs;
	int status, nr = 0;
	bool entry = false;

	for (;;) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) || waitpid(pid, &status, 0) != pid ||
		    !WIFSTOPPED(status))
			return -1;
		entry = !entry;
		if (!entry)
			continue;
		if (ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return -1;
		if (regs.orig_rax != SYS_getppid) {
			nr++;
			continue;
		}
		/* Its end. */
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) || waitpid(pid, &status, 0) != pid)
			return -1;
		return nr;
	}
}

/* Pages change hands by system calls: when a domain gets its key, or each time. */
static int extra(const struct counted *counted)
{
	if (counted->most)
		return 0;
	return backend_is("mpk") ? 2 : backend_is("mprotect") ? 202 : 0;
}

static void counts(void **state)
{
	bool wrong = false;
	int status, nr;
	size_t i;
	pid_t pid;

	(void)state;
	fflush(NULL);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		child();
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFSTOPPED(status));
	/* From the stop to the first mark. */
	REQUIRE(count_to_mark(pid) >= 0);
	for (i = 0; i < NR; i++) {
		nr = count_to_mark(pid);
		print_message("%s: %d system calls\n", all[i].name, nr);
		wrong |= nr < 0 || nr > all[i].most + extra(&all[i]) ||
			 (backend_is("epk") && nr < all[i].least);
	}
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	REQUIRE(!wrong);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
