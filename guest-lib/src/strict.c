// SPDX-License-Identifier: MIT
/*
 * What the kernel module refuses and plain memory does not, for who tries a program without the
 * module and wants to know.
 */
#define _GNU_SOURCE
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "backend.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC	0x58465342
#endif

/* As file.c of the module has it. */
static int check_file(int fd)
{
	struct statfs system;
	struct stat file;

	if (fstat(fd, &file) || fstatfs(fd, &system))
		return -errno;
	if (!S_ISREG(file.st_mode))
		return -EOPNOTSUPP;
	switch (system.f_type) {
	case EXT4_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case XFS_SUPER_MAGIC:
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* Under epk_lock. */
int epk_strict_map(const struct epk_mapping *map)
{
	if (map->fd >= 0)
		return check_file(map->fd);
	if (epk_memlock_reached(map->end - map->start, epk_mapping_bytes()))
		return epk_because(EPK_CAUSE_MEMLOCK);
	return 0;
}
