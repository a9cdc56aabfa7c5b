// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dirty.h"

static int parse(const char *line, struct epk_map *map)
{
	unsigned long inode;
	char shared;

	if (sscanf(line, "%lx-%lx %*3c%c %*s %*s %lu", &map->start, &map->end, &shared, &inode) != 4)
		return -EIO;
	map->anonymous = shared == 'p' && !inode;
	return 0;
}

/* Of each line the beginning is of interest, not the name.  Nothing is allocated: that could change the maps. */
int epk_dirty_maps(int (*visit)(const struct epk_map *map, void *arg), void *arg)
{
	int fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC), err = 0;
	char text[4096], line[120];
	struct epk_map map;
	size_t used = 0;
	ssize_t got = 0, i;

	if (fd < 0)
		return -errno;
	while (!err && (got = syscall(SYS_read, fd, text, sizeof(text))) > 0) {
		for (i = 0; !err && i < got; i++) {
			if (used < sizeof(line) - 1)
				line[used++] = text[i];
			if (text[i] != '\n')
				continue;
			line[used] = '\0';
			used = 0;
			err = parse(line, &map) ?: visit(&map, arg);
		}
	}
	if (!err && got < 0)
		err = -errno;
	syscall(SYS_close, fd);
	return err;
}
