// SPDX-License-Identifier: MIT
/* RLIMIT_MEMLOCK, against which domain memory counts as pinned memory does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend.h"

/* What /proc/self/status says; 0 if it does not. */
struct status {
	uint64_t capabilities, pinned, locked;
};

static void take_line(struct status *status, const char *line)
{
	if (!strncmp(line, "CapEff:", 7))
		status->capabilities = strtoull(line + 7, NULL, 16);
	else if (!strncmp(line, "VmPin:", 6))
		status->pinned = strtoull(line + 6, NULL, 10) * 1024;
	else if (!strncmp(line, "VmLck:", 6))
		status->locked = strtoull(line + 6, NULL, 10) * 1024;
}

/* Of lines the beginning: that of the groups has as many as the user is in, 65,536 at most. */
static void take_lines(struct status *status, int fd)
{
	char text[1024], line[64];
	size_t len = 0;
	ssize_t got, i;

	while ((got = read(fd, text, sizeof(text))) > 0) {
		for (i = 0; i < got; i++) {
			if (text[i] != '\n') {
				if (len < sizeof(line) - 1)
					line[len++] = text[i];
				continue;
			}
			line[len] = 0;
			take_line(status, line);
			len = 0;
		}
	}
}

#define CAP_IPC_LOCK	14

/*
 * May more than @limit be locked?  It takes the capability in the machine's own user namespace, and what
 * /proc tells is of the process's; so it is tried, where there are no pages that could be locked.
 */
static bool may_pass(const struct status *status, rlim_t limit)
{
	size_t len = (limit | (EPK_PAGE_SIZE - 1)) + 1 + EPK_PAGE_SIZE;
	void *room;
	bool may;

	if (!(status->capabilities >> CAP_IPC_LOCK & 1) || len < limit)
		return false;
	/* Whose memory is all to be locked is told here already, by MAP_FAILED. */
	room = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		return false;
	may = !syscall(SYS_mlock2, room, len, MLOCK_ONFAULT);
	munmap(room, len);
	return may;
}

/* Under locks, which nobody is to be cancelled with. */
bool epk_memlock_reached(size_t more, size_t own)
{
	struct status status = { 0, 0, 0 };
	int saved_errno = errno, cancel, fd;
	struct rlimit limit;
	bool reached;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		take_lines(&status, fd);
		close(fd);
	}
	pthread_setcancelstate(cancel, NULL);
	reached = !getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur != RLIM_INFINITY &&
		  status.pinned + status.locked + own + more > limit.rlim_cur &&
		  !may_pass(&status, limit.rlim_cur);
	errno = saved_errno;
	return reached;
}
