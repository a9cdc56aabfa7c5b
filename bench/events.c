// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "events.h"
#include "program.h"

#define INT3		0xcc
#define SYSCALL_STOP	(SIGTRAP | 0x80)
#define MOST_PLACES	256

enum { WRPKRU, VMFUNC, VMCALL, NR_INSTRUCTIONS };

/* The third byte of those that count, after 0f 01. */
static const unsigned char third_byte[] = {
	[WRPKRU] = 0xef, [VMFUNC] = 0xd4, [VMCALL] = 0xc1,
};

/* What the tracer has seen since the last mark. */
static struct seen {
	unsigned long instructions[NR_INSTRUCTIONS];
	unsigned long syscalls, flushes;
} *seen;

/* Where these instructions stand in the program's text, which child and tracer have alike. */
static struct place {
	uintptr_t at;
	int instruction;
} places[MOST_PLACES];
static int nr_places;

/* The program is static.  What is no instruction looks like one once in 16 million bytes. */
static void find_places(void)
{
	extern const unsigned char __executable_start[], etext[];
	const unsigned char *at;
	int i;

	if (nr_places)
		return;
	for (at = __executable_start; at + 3 < etext; at++)
		for (i = 0; i < NR_INSTRUCTIONS; i++)
			if (at[0] == 0x0f && at[1] == 0x01 && at[2] == third_byte[i]) {
				need(nr_places < MOST_PLACES, "places");
				places[nr_places++] = (struct place) { (uintptr_t)at, i };
			}
	need(nr_places, "no places");
}

static inline void mark(void)
{
	asm volatile("int3" : : : "memory");
}

/* Calls that take rights to mapped memory away, after which no CPU may go by what it has cached. */
static bool flushes(unsigned long nr)
{
	return nr == SYS_mprotect || nr == SYS_pkey_mprotect || nr == SYS_munmap ||
	       nr == SYS_madvise || nr == SYS_mremap;
}

/* Lets the child go on, by @how, until it stops or ends: its status. */
static int go(pid_t child, int how, int signal)
{
	int status;

	need(!ptrace(how, child, 0, signal), "ptrace");
	need(waitpid(child, &status, 0) == child, "waitpid");
	return status;
}

static bool is_int3(pid_t child, int status)
{
	siginfo_t info;

	return WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP &&
	       !ptrace(PTRACE_GETSIGINFO, child, 0, &info) && info.si_code == SI_KERNEL;
}

static void plant(pid_t child, const struct place *place, bool breakpoint)
{
	unsigned long word = ptrace(PTRACE_PEEKTEXT, child, place->at, 0);

	/* Another may begin within the word. */
	word = (word & ~0xfful) | (breakpoint ? INT3 : *(const unsigned char *)place->at);
	need(!ptrace(PTRACE_POKETEXT, child, place->at, word), "PTRACE_POKETEXT");
}

static void plant_all(pid_t child, bool breakpoint)
{
	int i;

	for (i = 0; i < nr_places; i++)
		plant(child, &places[i], breakpoint);
}

static unsigned long reg(pid_t child, size_t which)
{
	return ptrace(PTRACE_PEEKUSER, child, which, 0);
}

/* The child has stopped: at a breakpoint, it counts and goes over it.  False if at none of these. */
static bool step_over(pid_t child)
{
	size_t rip = offsetof(struct user, regs.rip);
	uintptr_t at = reg(child, rip) - 1;
	int i;

	for (i = 0; i < nr_places && places[i].at != at; i++)
		;
	if (i == nr_places)
		return false;
	seen->instructions[places[i].instruction]++;
	plant(child, &places[i], false);
	need(!ptrace(PTRACE_POKEUSER, child, rip, at), "PTRACE_POKEUSER");
	need(WSTOPSIG(go(child, PTRACE_SINGLESTEP, 0)) == SIGTRAP, "PTRACE_SINGLESTEP");
	plant(child, &places[i], true);
	return true;
}

/* From a mark to the next. */
static int watch(pid_t child)
{
	bool entered = false;
	int status;

	memset(seen, 0, sizeof(*seen));
	plant_all(child, true);
	for (;;) {
		status = go(child, PTRACE_SYSCALL, 0);
		if (WIFSTOPPED(status) && WSTOPSIG(status) == SYSCALL_STOP) {
			entered = !entered;
			seen->syscalls += entered;
			seen->flushes += entered && flushes(reg(child, offsetof(struct user,
										regs.orig_rax)));
		} else if (!is_int3(child, status) || !step_over(child)) {
			break;
		}
	}
	if (WIFSTOPPED(status))
		plant_all(child, false);
	return status;
}

int bench_traced(void (*body)(void))
{
	int status, signal;
	pid_t child;

	find_places();
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(seen != MAP_FAILED, "mmap");
	fflush(NULL);
	child = fork();
	need(child >= 0, "fork");
	if (!child) {
		need(!ptrace(PTRACE_TRACEME, 0, 0, 0), "ptrace");
		raise(SIGSTOP);
		body();
		exit(0);
	}
	need(waitpid(child, &status, 0) == child, "waitpid");
	need(!ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL),
	     "PTRACE_SETOPTIONS");
	while (WIFSTOPPED(status)) {
		if (is_int3(child, status))
			status = watch(child);
		if (!WIFSTOPPED(status))
			break;
		/* What is no mark is the child's own affair. */
		signal = WSTOPSIG(status);
		signal = signal == SIGSTOP || is_int3(child, status) ? 0 : signal;
		status = go(child, PTRACE_CONT, signal);
	}
	munmap(seen, sizeof(*seen));
	return status;
}

/**
 * struct exits - what the host counts for EPK in this VM
 * @exits: VM exits
 * @links: of these, as of struct bench_events
 * @faults: likewise
 */
struct exits {
	unsigned long exits, links, faults;
};

/* Of the module, to root; nothing where there is none. */
static struct exits exits(void)
{
	struct exits now = { 0 };
	unsigned long value;
	char name[16];
	FILE *stats = fopen("/sys/kernel/debug/epk/stats", "r");

	if (!stats)
		return now;
	while (fscanf(stats, "%15s %lu", name, &value) == 2) {
		if (!strcmp(name, "exits"))
			now.exits = value;
		else if (!strcmp(name, "links"))
			now.links = value;
		else if (!strcmp(name, "faults"))
			now.faults = value;
	}
	fclose(stats);
	return now;
}

static void count_exits(struct bench_events *events, const struct exits *before, int nr)
{
	struct exits now = exits();

	events->exits = (double)(now.exits - before->exits) / nr;
	events->links = (double)(now.links - before->links) / nr;
	events->domain_faults = (double)(now.faults - before->faults) / nr;
	events->refused = events->exits - events->links - events->domain_faults;
}

static unsigned long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

void bench_count(void (*run)(int i), int nr, struct bench_events *events)
{
	struct exits exits_before;
	unsigned long faults_before;
	int i;

	need(seen, "not traced");
	exits_before = exits();
	faults_before = faults();
	for (i = 0; i < nr; i++)
		run(i);
	events->faults = (double)(faults() - faults_before) / nr;
	count_exits(events, &exits_before, nr);
	/* Others than these, which may have become cheaper by it. */
	mark();
	for (i = nr; i < 2 * nr; i++)
		run(i);
	mark();
	events->wrpkru = (double)seen->instructions[WRPKRU] / nr;
	events->vmfunc = (double)seen->instructions[VMFUNC] / nr;
	events->hypercalls = (double)seen->instructions[VMCALL] / nr;
	events->exits += events->hypercalls;
	events->syscalls = (double)seen->syscalls / nr;
	events->flushes = (double)seen->flushes / nr;
}
