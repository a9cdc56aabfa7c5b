/* SPDX-License-Identifier: MIT */
/* What a process that dies leaves in a file. */
#ifndef CORE_DUMP_H
#define CORE_DUMP_H

#include "epk_test.h"

#define CORE_PATTERN	"/proc/sys/kernel/core_pattern"

/* @inverted, so that who looks for it does not have it. */
static inline bool core_has(const char *path, uint64_t inverted)
{
	static uint64_t words[8192];
	int fd = open(path, O_RDONLY);
	bool has = false;
	ssize_t n, i;

	REQUIRE(fd >= 0);
	while ((n = read(fd, words, sizeof(words))) > 0) {
		for (i = 0; i < n / 8; i++)
			has |= words[i] == ~inverted;
	}
	close(fd);
	return has;
}

#endif /* CORE_DUMP_H */
