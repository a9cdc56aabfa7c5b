/* SPDX-License-Identifier: MIT */
#ifndef PROCMAP_H
#define PROCMAP_H

#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* As of struct procmap_query, which not all headers have. */
struct procmap {
	uint64_t size, flags, addr, start, end, vm_flags, page_size, offset, inode;
	uint32_t major, minor, name_size, build_id_size;
	uint64_t name, build_id;
};

/* PROCMAP_QUERY, from 6.11 on: what @query wants to know.  Return: 0, or -1 with errno. */
static inline int procmap_query(struct procmap *query)
{
	int fd = open("/proc/self/maps", O_RDONLY), ret;

	query->size = sizeof(*query);
	ret = ioctl(fd, _IOWR('f', 17, struct procmap), query);
	close(fd);
	return ret;
}

#endif /* PROCMAP_H */
