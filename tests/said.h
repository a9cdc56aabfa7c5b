/* SPDX-License-Identifier: MIT */
#ifndef EPK_SAID_H
#define EPK_SAID_H

#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a child has written to the pipe @from when it ends, as far as there is room; its exit status, or -1. */
static inline int said_by(pid_t child, int from, char *said, size_t size)
{
	int status = -1;
	size_t n = 0;
	ssize_t got;

	while (n < size - 1 && (got = read(from, said + n, size - 1 - n)) > 0)
		n += got;
	said[n] = 0;
	close(from);
	return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#endif /* EPK_SAID_H */
