/* SPDX-License-Identifier: MIT */
/* Two users of the device, and what they ask of it. */
#ifndef NEIGHBOUR_TEST_H
#define NEIGHBOUR_TEST_H

#include "epk_test.h"

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define USER		1000
#define OTHER		1001
#define PARAMETERS	"/sys/module/epk/parameters/"

static struct epk_device dev;

static inline void parameter(const char *name, const char *value)
{
	char path[96];

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	CHECK(put(path, value));
}

static inline void finish(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static inline void become(uid_t uid)
{
	if (uid != getuid())
		REQUIRE(!setgroups(0, NULL) && !setgid(uid) && !setuid(uid));
}

static inline int open_device(void)
{
	int fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static inline int alloc(unsigned int num, uint32_t flags, int *ids)
{
	struct epk_domains arg = { .num = num, .flags = flags, .ids = (uintptr_t)ids };

	return ioctl(dev.fd, EPK_IOC_ALLOC, &arg) ? -errno : 0;
}

static inline double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

#endif /* NEIGHBOUR_TEST_H */
