// SPDX-License-Identifier: MIT
/*
 * What the kernel module refuses and plain memory does not, for who tries a program without the
 * module and wants to know.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

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

/* In place of /dev/epk: who closes all descriptors has none of the module's any more. */
static struct {
	int fd;
	pid_t pid;
	dev_t dev;
	ino_t ino;
} own = { .fd = -1 };

static bool own_is_open(void)
{
	struct stat file;

	return own.fd >= 0 && !fstat(own.fd, &file) && file.st_dev == own.dev && file.st_ino == own.ino;
}

/* In a child, too, which opens the device anew. */
static int own_open(void)
{
	struct stat file;

	if (own_is_open())
		close(own.fd);
	own.fd = memfd_create("libepk-strict", MFD_CLOEXEC);
	if (own.fd < 0)
		return -errno;
	if (fstat(own.fd, &file))
		return -errno;
	own.dev = file.st_dev;
	own.ino = file.st_ino;
	own.pid = epk_now.pid;
	return 0;
}

/* Under epk_lock: has the module any say any more? */
int epk_strict_check(void)
{
	int saved_errno = errno, cancel, err = 0;

	/* It refuses by itself. */
	if (!epk_now.soft)
		return 0;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	if (own.pid != epk_now.pid)
		err = own_open();
	else if (!own_is_open())
		err = epk_because(EPK_CAUSE_CLOSED);
	pthread_setcancelstate(cancel, NULL);
	errno = saved_errno;
	return err;
}

/*
 * Are there as many as the kernel allows of domains' alone?  Those of the module are never joined, and plain
 * memory side by side is.
 */
static bool mappings_reached(void)
{
	int saved_errno = errno, cancel, fd;
	char text[32];
	ssize_t len = -1;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		len = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	pthread_setcancelstate(cancel, NULL);
	errno = saved_errno;
	text[len > 0 ? len : 0] = 0;
	return len > 0 && epk_mapping_nr() >= strtoul(text, NULL, 10);
}

/* Under epk_lock. */
int epk_strict_map(const struct epk_mapping *map)
{
	if (mappings_reached())
		return epk_because(EPK_CAUSE_MAPPINGS);
	if (map->fd >= 0)
		return check_file(map->fd);
	if (epk_memlock_reached(map->end - map->start, epk_mapping_bytes()))
		return epk_because(EPK_CAUSE_MEMLOCK);
	return 0;
}
