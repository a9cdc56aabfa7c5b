// SPDX-License-Identifier: MIT
/* System calls that nobody can take for the program's, and what the library has to say by them. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pkeys.h"

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
