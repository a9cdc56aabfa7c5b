// SPDX-License-Identifier: MIT
/* A handler forks between any two instructions of the gates, and the child goes on. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <ucontext.h>

#include "unit.h"
#include "step.h"
#include "traced.h"

/* So many that can be held at a time. */
#define KEYS	(backend_is("mpk") ? MPK_PLACES : 15)

static int ids[2];
static char *mem, ignored;
static pid_t pid;
static bool beside, anew_in_handler;

/* As many keys as the parent had, each for one domain. */
static void use_all_keys(void)
{
	int own[16], i, j;
	char *own_mem[16];

	REQUIRE(!alloc_domains(KEYS, own));
	for (i = 0; i < KEYS; i++) {
		own_mem[i] = domain_mmap(own[i], NULL, PAGE, RW, 0);
		REQUIRE(own_mem[i] != MAP_FAILED);
	}
	for (i = 0; i < KEYS; i++) {
		REQUIRE(!domain_begin(own[i], RW));
		own_mem[i][0] = i;
		for (j = i + 1; j < KEYS; j++)
			REQUIRE(!try_read(own_mem[j], &ignored));
	}
	for (i = 0; i < KEYS; i++) {
		REQUIRE(!domain_end(own[i]));
		REQUIRE(!try_read(own_mem[i], &ignored));
	}
	REQUIRE(!free_domains(KEYS, own));
	REQUIRE(!epk_held(NULL, 0));
}

static void fork_here(int sig)
{
	(void)sig;
	pid = fork();
	if (pid)
		return;
	signal(SIGSEGV, SIG_DFL);
	REQUIRE(domain_begin(ids[0], RW) == -EPERM);
	REQUIRE(domain_end(ids[0]) == -EPERM);
	if (anew_in_handler)
		use_all_keys();
}

/* Before and behind the calls; no system call, with which Bochs's steps do not go well. */
static inline void mark(void)
{
	asm volatile("int3" : : : "memory");
}

/* What comes of the two calls, here and in a child that is born in one of them. */
static void begin_and_end(void)
{
	int began, ended, status;

	pid = -1;
	mark();
	began = domain_begin(ids[0], RW);
	if (pid)
		REQUIRE(!began && *(volatile char *)mem == 7);
	ended = domain_end(ids[0]);
	if (pid) {
		mark();
	} else {
		REQUIRE(!began || began == -EPERM);
		REQUIRE(!ended || ended == -EPERM);
		REQUIRE(!epk_held(NULL, 0));
		REQUIRE(domain_begin(ids[0], RW) == -EPERM);
		REQUIRE(domain_end(ids[0]) == -EPERM);
		use_all_keys();
		_exit(0);
	}
	REQUIRE(!ended && !try_read(mem, &ignored));
	REQUIRE(pid < 0 || (waitpid(pid, &status, 0) == pid && !status));
}

/* Who is stepped through: as long as there is a step to fork at. */
static void stepped(void)
{
	signal(SIGSEGV, SIG_DFL);
	signal(SIGUSR1, fork_here);
	REQUIRE(!alloc_domains(2, ids));
	mem = domain_mmap(ids[0], NULL, PAGE, RW, 0);
	REQUIRE(mem != MAP_FAILED);
	REQUIRE(!domain_begin(ids[0], RW));
	*mem = 7;
	REQUIRE(!domain_end(ids[0]));
	if (beside)
		REQUIRE(!domain_begin(ids[1], RW));
	REQUIRE(!ptrace(PTRACE_TRACEME, 0, 0, 0));
	do
		begin_and_end();
	while (pid > 0);
	_exit(0);
}

/* One round: a signal at the @chosen-th instruction in the gates.  How many there were until then. */
static int step_to(pid_t child, int chosen)
{
	int steps = 0;

	REQUIRE(marked(child));
	while (steps < chosen) {
		REQUIRE_EQ(ptrace(PTRACE_SINGLESTEP, child, 0, 0), 0);
		if (marked(child))
			break;
		steps += is_gate((const char *)ptrace(PTRACE_PEEKUSER, child,
						      offsetof(struct user, regs.rip), 0));
	}
	if (steps == chosen) {
		REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, SIGUSR1), 0);
		REQUIRE(marked(child));
	}
	REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, 0), 0);
	return steps;
}

/* Not by the trap flag: the module has a gate start again that a signal interrupts. */
static void fork_at_each_step(void)
{
	int chosen = 0;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (!child)
		stepped();
	do
		chosen++;
	while (step_to(child, chosen) == chosen);
	REQUIRE_EQ(wait_for(child), 0);
	print_message("%d instructions\n", chosen - 1);
	REQUIRE(chosen > 20);
}

static void fork_and_go_on(void **state)
{
	(void)state;
	beside = anew_in_handler = false;
	fork_at_each_step();
}

static void fork_and_start_anew(void **state)
{
	(void)state;
	beside = false;
	anew_in_handler = true;
	fork_at_each_step();
}

/* Beside a domain that is held, which the gates of "epk" have another way for. */
static void fork_beside(void **state)
{
	(void)state;
	beside = true;
	anew_in_handler = false;
	fork_at_each_step();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fork_and_go_on),
		cmocka_unit_test(fork_beside),
		cmocka_unit_test(fork_and_start_anew),
	};

	need_backend();
	skip_if(!backend_is("mpk") && !backend_is("epk"), "has no gates");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
