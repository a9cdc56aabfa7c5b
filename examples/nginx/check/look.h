/* SPDX-License-Identifier: MIT */
#ifndef LOOK_H
#define LOOK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../provider/published.h"

/**
 * struct object - a file whose code is mapped
 * @is_tls: it has an implementation of TLS
 * @offset: what of it is mapped first
 * @copies: how often it is
 */
struct object {
	char path[PATH_MAX];
	bool is_tls;
	uint64_t offset;
	size_t copies;
};

#define OBJECTS_MAX	512

/**
 * struct process - what is seen of one, from outside
 * @tid: the thread by which its memory was seen
 * @comm: its name
 * @objects: of interest: libssl, libcrypto, the provider, and what else has TLS
 * @more: there are more of these than could be kept
 * @providers: how many copies of the provider are mapped
 * @provider: the path of the first
 * @known: @published is what that says of this process
 */
struct process {
	pid_t pid, tid;
	char comm[32];
	struct object objects[OBJECTS_MAX];
	size_t nr_objects;
	bool more;
	size_t providers;
	char provider[PATH_MAX];
	bool known;
	struct published published;
};

/* 0, or a negative errno: -ESRCH for who is not there any more, or is of the kernel. */
int look_at(struct process *p, pid_t pid);
const char *base_name(const char *path);

#endif /* LOOK_H */
