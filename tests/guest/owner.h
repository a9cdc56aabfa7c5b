/* SPDX-License-Identifier: MIT */
#ifndef OWNER_H
#define OWNER_H

#include "epk_test.h"

#include <sys/wait.h>

/* Another process, which alone has domains in an EPT: without it there is none. */
struct owner {
	pid_t pid;
	int end[2];
};

/* Returns when it has them. */
static inline void owner_start(struct owner *owner, uint32_t ept)
{
	int ready[2];
	char c;

	REQUIRE(pipe(owner->end) == 0 && pipe(ready) == 0);
	owner->pid = fork();
	if (!owner->pid) {
		struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_AT(ept) };
		struct epk_device own;
		int id;

		arg.ids = (uintptr_t)&id;
		epk_device_open(&own);
		if (ioctl(own.fd, EPK_IOC_ALLOC, &arg) || write(ready[1], "", 1) != 1)
			_exit(1);
		_exit(read(owner->end[0], &c, 1) != 1);
	}
	close(ready[1]);
	CHECK_EQ(read(ready[0], &c, 1), 1);
}

static inline void owner_ends(struct owner *owner)
{
	int status;

	CHECK_EQ(write(owner->end[1], "", 1), 1);
	CHECK(waitpid(owner->pid, &status, 0) == owner->pid && !status);
}

#endif /* OWNER_H */
