/* SPDX-License-Identifier: MIT */
/*
 * For tests of domains over files: mapping them, and an ext4 on the RAM disk.
 */
#ifndef FILE_TEST_H
#define FILE_TEST_H

#include "epk_test.h"

#include <sys/mount.h>
#include <sys/stat.h>

#define DISK	"/dev/ram0"
#define MOUNT	"/tmp/ext4"

#define CHECK_FAULT(statement, signal, code)					\
	do {									\
		CHECK_EQ(EPK_TRY(statement), signal);				\
		CHECK_EQ(epk_try_code, code);					\
	} while (0)

#define TOUCH(addr)	((void)*(volatile char *)(addr))

static inline void *file_map_at(struct epk_device *dev, int id, void *addr, size_t len, int prot,
				int flags, int fd, uint64_t offset)
{
	struct epk_file arg = {
		.addr = (uintptr_t)addr, .len = len, .offset = offset, .id = id, .fd = fd,
		.prot = prot, .flags = flags,
	};

	return ioctl(dev->fd, EPK_IOC_FILE, &arg) ? MAP_FAILED : (void *)(uintptr_t)arg.addr;
}

static inline char *file_map(struct epk_device *dev, int id, size_t len, int fd, uint64_t offset)
{
	char *p = file_map_at(dev, id, NULL, len, PROT_READ | PROT_WRITE, 0, fd, offset);

	REQUIRE(p != MAP_FAILED);
	return p;
}

/* The testbed's image has an empty filesystem. */
static inline void disk_make(void)
{
	if (access(DISK, W_OK))
		EPK_SKIP("no RAM disk in this kernel");
	REQUIRE(system("zcat /epk/ext4.gz >" DISK) == 0);
	mkdir(MOUNT, 0700);
	if (mount(DISK, MOUNT, "ext4", 0, "")) {
		if (errno == ENODEV)
			EPK_SKIP("no ext4 in this kernel");
		REQUIRE(!"mount");
	}
}

static inline void disk_drop(void)
{
	REQUIRE(umount(MOUNT) == 0);
}

/* Does the file have this text there, for who reads it? */
static inline bool file_has(int fd, uint64_t offset, const char *text)
{
	char got[32] = "";
	size_t len = strlen(text) + 1;

	if (pread(fd, got, len, offset) != (ssize_t)len || strcmp(got, text)) {
		printf("the file has \"%s\" at %llu, not \"%s\"\n", got,
		       (unsigned long long)offset, text);
		return false;
	}
	return true;
}

#endif /* FILE_TEST_H */
