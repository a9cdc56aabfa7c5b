// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h>

#include "watch.h"

#define INT3		0xcc
#define SYSCALL_STOP	(SIGTRAP | 0x80)
#define MOST_PLACES	64

/* Where such an instruction stands in the process, and its first byte. */
static struct place {
	uintptr_t at;
	bool vmfunc;
} places[MOST_PLACES];
static int nr_places;

static struct shared {
	struct watched watched;
	bool complete;
} *shared;
static pid_t tracer;

static bool fail(const char *what)
{
	fprintf(stderr, "watch: %s: %s\n", what, strerror(errno));
	return false;
}

static bool find_in(const unsigned char *text, size_t len, uintptr_t start)
{
	size_t i;

	for (i = 0; i + 3 <= len; i++) {
		if (text[i] != 0x0f || text[i + 1] != 0x01 || (text[i + 2] != 0xef && text[i + 2] != 0xd4))
			continue;
		if (nr_places == MOST_PLACES)
			return false;
		places[nr_places++] = (struct place) { start + i, text[i + 2] == 0xd4 };
	}
	return true;
}

/* In the library's code: what is no instruction looks like one in other code. */
static bool find_places(pid_t pid)
{
	char path[64], line[512];
	unsigned long start, end;
	unsigned char *text;
	bool ok = true;
	FILE *maps;
	int mem;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	while (ok && maps && fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "r-xp") || !strstr(line, "/libepk.so") ||
		    sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		text = malloc(end - start);
		ok = text && pread(mem, text, end - start, start) == (ssize_t)(end - start) &&
		     find_in(text, end - start, start);
		free(text);
	}
	if (maps)
		fclose(maps);
	close(mem);
	return maps && ok;
}

static bool plant(pid_t pid, const struct place *place, bool breakpoint)
{
	unsigned long word = ptrace(PTRACE_PEEKTEXT, pid, place->at, 0);

	word = (word & ~0xfful) | (breakpoint ? INT3 : 0x0f);
	return !ptrace(PTRACE_POKETEXT, pid, place->at, word);
}

static bool plant_all(pid_t pid, bool breakpoint)
{
	int i;

	for (i = 0; i < nr_places; i++)
		if (!plant(pid, &places[i], breakpoint))
			return false;
	return true;
}

/* Stopped at a breakpoint, it counts and goes over it. */
static bool step_over(pid_t pid)
{
	size_t rip = offsetof(struct user, regs.rip);
	uintptr_t at = ptrace(PTRACE_PEEKUSER, pid, rip, 0) - 1;
	int i, status;

	for (i = 0; i < nr_places && places[i].at != at; i++)
		;
	if (i == nr_places)
		return false;
	shared->watched.vmfunc += places[i].vmfunc;
	shared->watched.wrpkru += !places[i].vmfunc;
	return plant(pid, &places[i], false) && !ptrace(PTRACE_POKEUSER, pid, rip, at) &&
	       !ptrace(PTRACE_SINGLESTEP, pid, 0, 0) && waitpid(pid, &status, __WALL) == pid &&
	       WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP && plant(pid, &places[i], true);
}

static bool count_syscall(pid_t pid)
{
	struct ptrace_syscall_info info;
	unsigned long nr;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) <= 0)
		return false;
	if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
		return true;
	nr = info.entry.nr;
	shared->watched.syscalls++;
	shared->watched.flushes += nr == SYS_mprotect || nr == SYS_pkey_mprotect ||
				   nr == SYS_munmap || nr == SYS_madvise || nr == SYS_mremap;
	return true;
}

/* What a stop was for: the signal that the process is to have with it, or -1 if it has not stopped. */
static int take_stop(pid_t pid, int status)
{
	if (!WIFSTOPPED(status))
		return -1;
	if (WSTOPSIG(status) == SYSCALL_STOP)
		return count_syscall(pid) ? 0 : -1;
	if (status >> 16)
		return 0;
	if (WSTOPSIG(status) == SIGTRAP)
		return step_over(pid) ? 0 : -1;
	return WSTOPSIG(status);
}

/* Until SIGUSR1 comes. */
static bool trace(pid_t pid, const sigset_t *signals)
{
	int status, signal, why;

	do {
		why = sigwaitinfo(signals, NULL);
		while (waitpid(pid, &status, WNOHANG | __WALL) == pid) {
			signal = take_stop(pid, status);
			if (signal < 0 || ptrace(PTRACE_SYSCALL, pid, 0, signal))
				return fail("the process does not go on");
		}
	} while (why != SIGUSR1);
	return true;
}

/* Any stop that comes first does.  The signal of it, or -1. */
static int stop(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) || waitpid(pid, &status, __WALL) != pid)
		return -1;
	return take_stop(pid, status);
}

static void run_tracer(pid_t pid, const sigset_t *signals, int ready)
{
	int signal;

	if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD)) {
		fail("PTRACE_SEIZE");
		_exit(1);
	}
	signal = stop(pid);
	if (signal < 0 || !find_places(pid) || !plant_all(pid, true) ||
	    ptrace(PTRACE_SYSCALL, pid, 0, signal)) {
		fail("breakpoints");
		_exit(1);
	}
	shared->watched = (struct watched) { 0 };
	if (write(ready, "", 1) != 1 || !trace(pid, signals))
		_exit(1);
	signal = stop(pid);
	shared->complete = signal >= 0 && plant_all(pid, false) &&
			   !ptrace(PTRACE_DETACH, pid, 0, signal);
	_exit(!shared->complete);
}

bool watch_begin(pid_t pid)
{
	sigset_t signals, old;
	int ready[2];
	char byte;
	bool ok;

	if (!shared)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || pipe2(ready, O_CLOEXEC))
		return fail("mmap");
	*shared = (struct shared) { 0 };
	nr_places = 0;
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, &old);
	fflush(NULL);
	tracer = fork();
	if (!tracer)
		run_tracer(pid, &signals, ready[1]);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(ready[1]);
	ok = read(ready[0], &byte, 1) == 1;
	close(ready[0]);
	return ok;
}

bool watch_end(struct watched *watched)
{
	int status;

	kill(tracer, SIGUSR1);
	if (waitpid(tracer, &status, 0) != tracer || status || !shared->complete)
		return false;
	*watched = shared->watched;
	return true;
}
