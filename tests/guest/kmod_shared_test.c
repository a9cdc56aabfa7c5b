// SPDX-License-Identifier: MIT
/*
 * Domains over a memfd: one file behind domains of several places and
 * processes, which keeps what they write and loses no page under them.
 */
#include "epk_test.h"

#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/falloc.h>
#include <linux/memfd.h>

#define PAGES	8
#define BYTES	(PAGES * 4096)
#define SEALS	(F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE	0x0010
#endif

static struct epk_device dev;

static int file(unsigned int seals)
{
	int fd = memfd_create("domain", MFD_ALLOW_SEALING);

	REQUIRE(fd >= 0);
	REQUIRE(ftruncate(fd, BYTES) == 0);
	CHECK_EQ(pwrite(fd, "first", 5, 0), 5);
	REQUIRE(!seals || fcntl(fd, F_ADD_SEALS, seals) == 0);
	return fd;
}

static int attach(struct epk_device *own, void *addr, int fd, uint64_t offset)
{
	struct epk_attach arg = { .addr = (uintptr_t)addr, .offset = offset, .fd = fd };

	return ioctl(own->fd, EPK_IOC_ATTACH, &arg) ? -errno : 0;
}

static void arguments(int id)
{
	int fd = file(SEALS), pipes[2], other;
	struct epk_attach arg = { .flags = 1, .fd = fd };
	char path[32];
	char *p = epk_device_map(&dev, id, BYTES);

	REQUIRE(p != MAP_FAILED && pipe(pipes) == 0);
	CHECK(ioctl(dev.fd, EPK_IOC_ATTACH, NULL) == -1 && errno == EFAULT);
	arg.addr = (uintptr_t)p;
	CHECK(ioctl(dev.fd, EPK_IOC_ATTACH, &arg) == -1 && errno == EINVAL);
	CHECK_EQ(attach(&dev, p, -1, 0), -EBADF);
	CHECK_EQ(attach(&dev, p, pipes[0], 0), -EACCES);
	CHECK_EQ(attach(&dev, p, dev.fd, 0), -EOPNOTSUPP);
	CHECK_EQ(attach(&dev, p, fd, 100), -EINVAL);
	CHECK_EQ(attach(&dev, p, fd, 4096), -EINVAL);
	CHECK_EQ(attach(&dev, p, fd, -4096ull), -EINVAL);
	CHECK_EQ(attach(&dev, p + 4096, fd, 0), -EINVAL);
	CHECK_EQ(attach(&dev, &arg, fd, 0), -EINVAL);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_RDONLY);
	CHECK_EQ(attach(&dev, p, other, 0), -EACCES);
	close(other);
	other = file(0);
	CHECK_EQ(attach(&dev, p, other, 0), -EPERM);
	CHECK_EQ(fcntl(other, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	CHECK_EQ(attach(&dev, p, other, 0), -EPERM);
	CHECK_EQ(fcntl(other, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_WRITE), 0);
	CHECK_EQ(attach(&dev, p, other, 0), -EPERM);
	close(other);
	other = open("/tmp/file", O_RDWR | O_CREAT, 0600);
	CHECK_EQ(attach(&dev, p, other, 0), -EPERM);
	close(other);

	/* Evicted, touched, freed. */
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(attach(&dev, p, fd, 0), -EINVAL);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY), 0);
	epk_device_enter(&dev, id);
	p[0] = 1;
	epk_device_enter(&dev, 0);
	CHECK_EQ(attach(&dev, p, fd, 0), -EBUSY);
	CHECK_EQ(munmap(p, BYTES), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

/* The file as anybody sees it who may read it. */
static bool file_has(int fd, uint64_t offset, const char *text)
{
	char got[16] = "";

	CHECK(pread(fd, got, sizeof(got) - 1, offset) > 0);
	return !strcmp(got, text);
}

/* It keeps what it holds, whoever maps it, and no page of it goes away. */
static void sharing(int id, int other_id)
{
	int fd = file(SEALS);
	char *p = epk_device_map(&dev, id, BYTES), *q = epk_device_map(&dev, other_id, 4096);

	CHECK_EQ(epk_device_move(&dev, other_id, 3), 0);
	CHECK_EQ(attach(&dev, p, fd, 0), 0);
	CHECK_EQ(attach(&dev, p, fd, 0), -EBUSY);
	CHECK_EQ(attach(&dev, q, fd, 4096), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, PAGES + 1);
	CHECK_EQ(EPK_TRY((void)*(volatile char *)p), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);

	epk_device_enter(&dev, id);
	CHECK(!strcmp(p, "first"));
	strcpy(p + 4096, "second");
	epk_device_enter(&dev, other_id);
	CHECK(!strcmp(q, "second"));
	CHECK_EQ(EPK_TRY((void)*(volatile char *)p), SIGSEGV);
	strcpy(q, "third");
	epk_device_enter(&dev, 0);
	CHECK(file_has(fd, 4096, "third"));

	CHECK(ftruncate(fd, 4096) == -1 && errno == EPERM);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096) == -1 &&
	      errno == EPERM);
	CHECK(pwrite(fd, "x", 1, 4096) == -1 && errno == EPERM);
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == -1 && errno == EBUSY);

	/* Moved, evicted, back, in part unmapped. */
	CHECK_EQ(epk_device_move(&dev, id, 7), 0);
	epk_device_enter(&dev, id);
	CHECK(!strcmp(p + 4096, "third"));
	strcpy(p + 2 * 4096, "fourth");
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(EPK_TRY((void)*(volatile char *)p), SIGSEGV);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY), 0);
	epk_device_enter(&dev, id);
	CHECK(!strcmp(p + 2 * 4096, "fourth"));
	CHECK_EQ(munmap(p, 4096), 0);
	CHECK(!strcmp(p + 4096, "third"));
	epk_device_enter(&dev, 0);
	CHECK_EQ(munmap(p, BYTES), 0);
	CHECK_EQ(munmap(q, 4096), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	CHECK(file_has(fd, 0, "first") && file_has(fd, 2 * 4096, "fourth"));
	close(fd);
}

/* Two processes, each with a domain of its own, and one file. */
static void processes(int id)
{
	int fd = file(SEALS), status;
	char *p = epk_device_map(&dev, id, BYTES);
	pid_t pid;

	CHECK_EQ(attach(&dev, p, fd, 0), 0);
	pid = fork();
	if (!pid) {
		struct epk_device own;
		int own_id;
		char *q;

		epk_failures = 0;
		epk_device_open(&own);
		REQUIRE(epk_device_alloc(&own, 1, &own_id) == 0);
		CHECK_EQ(epk_device_move(&own, own_id, 9), 0);
		q = epk_device_map(&own, own_id, BYTES);
		CHECK_EQ(attach(&own, q, fd, 0), 0);
		epk_device_enter(&own, own_id);
		CHECK(!strcmp(q, "first"));
		strcpy(q + 5 * 4096, "child");
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	epk_device_enter(&dev, id);
	CHECK(!strcmp(p + 5 * 4096, "child"));
	epk_device_enter(&dev, 0);
	CHECK_EQ(munmap(p, BYTES), 0);
	close(fd);
}

int main(void)
{
	int ids[2];

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 2, ids) == 0);
	arguments(ids[0]);
	sharing(ids[0], ids[1]);
	processes(ids[0]);
	CHECK_EQ(epk_device_free(&dev, 2, ids), 0);
	return epk_test_result();
}
