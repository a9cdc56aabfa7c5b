// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
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

#include <epk.h>

#include "events.h"

/* What the tracer has seen since the last mark. */
static struct seen {
	unsigned long wrpkru, vmfunc, vmcall, syscalls, flushes;
} *seen;

static void need(bool well, const char *what)
{
	if (well)
		return;
	fprintf(stderr, "events: %s: %s\n", what, strerror(errno));
	exit(1);
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

/* Of the instruction that comes next; the program's text is the tracer's, too. */
static void look(pid_t child, bool *is_syscall)
{
	const unsigned char *ip = (const unsigned char *)
		ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, regs.rip), 0);

	*is_syscall = ip[0] == 0x0f && ip[1] == 0x05;
	if (*is_syscall) {
		seen->syscalls++;
		seen->flushes += flushes(ptrace(PTRACE_PEEKUSER, child,
						offsetof(struct user, regs.rax), 0));
	}
	if (ip[0] != 0x0f || ip[1] != 0x01)
		return;
	seen->wrpkru += ip[2] == 0xef;
	seen->vmfunc += ip[2] == 0xd4;
	seen->vmcall += ip[2] == 0xc1;
}

/* Lets the child go on, by @how, until it stops or ends: its status. */
static int go(pid_t child, int how, int signal)
{
	int status;

	need(!ptrace(how, child, 0, signal), "ptrace");
	need(waitpid(child, &status, 0) == child, "waitpid");
	return status;
}

static bool is_mark(pid_t child, int status)
{
	siginfo_t info;

	return WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP &&
	       !ptrace(PTRACE_GETSIGINFO, child, 0, &info) && info.si_code == SI_KERNEL;
}

/* From a mark to the next. */
static int step(pid_t child)
{
	bool is_syscall = false;
	int status;

	memset(seen, 0, sizeof(*seen));
	do {
		look(child, &is_syscall);
		/* A step does not go well with a system call in Bochs. */
		if (is_syscall)
			go(child, PTRACE_SYSCALL, 0);
		status = go(child, is_syscall ? PTRACE_SYSCALL : PTRACE_SINGLESTEP, 0);
	} while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP && !is_mark(child, status));
	return status;
}

int bench_traced(void (*body)(void))
{
	int status, signal = 0;
	pid_t child;

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
	while (WIFSTOPPED(status)) {
		if (is_mark(child, status))
			status = step(child);
		/* What is no mark is the child's own affair. */
		signal = is_mark(child, status) || WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
		status = go(child, PTRACE_CONT, signal);
	}
	munmap(seen, sizeof(*seen));
	return status;
}

static unsigned long exits(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	return epk_counts(&counts) ? 0 : counts.vm_exits;
}

static unsigned long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

void bench_count(void (*run)(int i), int nr, struct bench_events *events)
{
	unsigned long exits_before, faults_before;
	int i;

	need(seen, "not traced");
	exits_before = exits();
	faults_before = faults();
	for (i = 0; i < nr; i++)
		run(i);
	events->faults = (double)(faults() - faults_before) / nr;
	events->exits = (double)(exits() - exits_before) / nr;
	mark();
	for (i = 0; i < nr; i++)
		run(i);
	mark();
	events->wrpkru = (double)seen->wrpkru / nr;
	events->vmfunc = (double)seen->vmfunc / nr;
	events->syscalls = (double)seen->syscalls / nr;
	events->flushes = (double)seen->flushes / nr;
	events->exits += (double)seen->vmcall / nr;
}
