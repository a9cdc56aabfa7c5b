// SPDX-License-Identifier: MIT
/* RLIMIT_MEMLOCK, against which domain memory counts as pinned memory does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "backend.h"

/* A line of /proc/self/status, 0 if it is not there. */
static uint64_t number(const char *text, const char *name, int base)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, base) : 0;
}

#define CAP_IPC_LOCK	14

bool epk_memlock_reached(size_t more, size_t own)
{
	int saved_errno = errno, fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	struct rlimit limit;
	char text[4096];
	uint64_t pinned;
	ssize_t got;

	got = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = 0;
	errno = saved_errno;
	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY ||
	    number(text, "\nCapEff:", 16) >> CAP_IPC_LOCK & 1)
		return false;
	pinned = (number(text, "\nVmPin:", 10) + number(text, "\nVmLck:", 10)) * 1024 + own;
	return pinned + more > limit.rlim_cur;
}
