// SPDX-License-Identifier: MIT
/* What changes books or memory does so alone, and with no signal's handler in between. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pkeys.h"

static pthread_mutex_t changes = PTHREAD_MUTEX_INITIALIZER;
static uint64_t fork_signals;
__thread bool pkeys_inside;

/* Those of the C library as well, by which a thread may be cancelled at once. */
static void block(uint64_t *old)
{
	uint64_t all = ~0ull;

	pkeys_raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)old, sizeof(all), 0, 0);
}

static void restore(const uint64_t *old)
{
	pkeys_raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)old, 0, sizeof(*old), 0, 0);
}

void pkeys_lock(struct pkeys_guard *guard)
{
	block(&guard->signals);
	pthread_mutex_lock(&changes);
	pkeys_inside = true;
	if (!pkeys_books && !books_make()) {
		pkeys_say("there is no memory for its books");
		abort();
	}
	books_open();
}

void pkeys_unlock(struct pkeys_guard *guard)
{
	books_close();
	pkeys_inside = false;
	pthread_mutex_unlock(&changes);
	restore(&guard->signals);
}

/* Across a fork; the parent and the child both give it up. */
void pkeys_fork_lock(void)
{
	uint64_t signals;

	block(&signals);
	pthread_mutex_lock(&changes);
	fork_signals = signals;
}

void pkeys_fork_unlock(void)
{
	uint64_t signals = fork_signals;

	pthread_mutex_unlock(&changes);
	restore(&signals);
}

/* What could not be written to a file, and is blocked. */
void pkeys_too_large(void)
{
	const uint64_t signals = 1ull << (SIGXFSZ - 1);
	const struct timespec now = { 0 };

	pkeys_raw(SYS_rt_sigtimedwait, (long)&signals, 0, (long)&now, sizeof(signals), 0, 0);
}

void pkeys_say(const char *format, ...)
{
	char line[512] = "libepk-pkeys: ";
	size_t used = strlen(line);
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
	va_end(args);
	if (len < 0)
		return;
	used += (size_t)len < sizeof(line) - used - 1 ? (size_t)len : sizeof(line) - used - 2;
	line[used++] = '\n';
	if (pkeys_raw(SYS_write, STDERR_FILENO, (long)line, used, 0, 0, 0) == -EFBIG)
		pkeys_too_large();
}

/* A system call that nobody can take for the program's; what the kernel says. */
long pkeys_raw(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = f;
	long ret;

	asm volatile("syscall"
		     : "=a"(ret)
		     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return ret;
}
