// SPDX-License-Identifier: MIT
/*
 * Domains over files of a disk: what is written reaches it, when it has to, and what
 * others write to it arrives.  The arguments that do not work.
 */
#include "file_test.h"

#include <sys/wait.h>

#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/memfd.h>

#define PAGES	8
#define BYTES	(PAGES * 4096)
#define NAME	MOUNT "/file"
#define CGROUP	"/tmp/cgroup"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE	0x0010
#endif

static struct epk_device dev;
static int id;
static char direct[4096] __attribute__((aligned(4096)));

static int file_make(size_t bytes)
{
	int fd = open(NAME, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	REQUIRE(fd >= 0 && ftruncate(fd, bytes) == 0);
	return fd;
}

/* What the disk has, read past the page cache: of a file's page, the start. */
static bool disk_has(int fd, int page, const char *text)
{
	int block = page, disk = open(DISK, O_RDONLY | O_DIRECT);

	REQUIRE(disk >= 0 && ioctl(fd, FIBMAP, &block) == 0);
	memset(direct, 0, sizeof(direct));
	CHECK(block && pread(disk, direct, 4096, block * 4096ull) == 4096);
	close(disk);
	if (!strcmp(direct, text))
		return true;
	printf("the disk has \"%.20s\", not \"%s\"\n", direct, text);
	return false;
}

/* By each of the ways that bring a file to the disk, and again after each. */
static void reaching(void)
{
	int fd = file_make(BYTES);
	char *p = file_map(&dev, id, BYTES, fd, 0);

	epk_device_enter(&dev, id);
	strcpy(p + 4096, "one");
	strcpy(p + 2 * 4096, "another");
	CHECK_EQ(msync(p, BYTES, MS_SYNC), 0);
	CHECK(disk_has(fd, 1, "one") && disk_has(fd, 2, "another"));
	/* Nothing tells the kernel of these but the PTEs. */
	strcpy(p + 4096, "two");
	CHECK_EQ(msync(p + 4096, 4096, MS_SYNC), 0);
	CHECK(disk_has(fd, 1, "two"));
	strcpy(p + 4096, "three");
	CHECK_EQ(fdatasync(fd), 0);
	CHECK(disk_has(fd, 1, "three"));
	strcpy(p + 4096, "four");
	sync();
	CHECK(disk_has(fd, 1, "four"));
	strcpy(p + 4096, "five");
	strcpy(p + 2 * 4096, "yet another");
	sync();
	CHECK(disk_has(fd, 1, "five") && disk_has(fd, 2, "yet another"));
	strcpy(p + 4096, "six");
	CHECK_EQ(epk_device_move(&dev, id, 5), 0);
	CHECK_EQ(fsync(fd), 0);
	CHECK(disk_has(fd, 1, "six"));
	epk_device_enter(&dev, id);
	strcpy(p + 4096, "seven");
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(fsync(fd), 0);
	CHECK(disk_has(fd, 1, "seven"));
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY), 0);
	epk_device_enter(&dev, id);
	strcpy(p + 4096, "eight");
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	CHECK_EQ(fsync(fd), 0);
	CHECK(disk_has(fd, 1, "eight"));
	close(fd);
}

/* Writes and reads past the page cache, blocks that change places, a cache dropped. */
static void arriving(void)
{
	int fd = file_make(BYTES), past = open(NAME, O_RDWR | O_DIRECT), caches;
	char *p = file_map(&dev, id, BYTES, fd, 0);

	REQUIRE(past >= 0);
	epk_device_enter(&dev, id);
	memset(p, 'x', BYTES);
	for (int i = 0; i < 20; i++) {
		snprintf(direct, sizeof(direct), "direct %d", i);
		CHECK_EQ(pwrite(past, direct, 4096, 4096), 4096);
		CHECK(!strcmp(p + 4096, direct));
		snprintf(p + 4096, 20, "window %d", i);
		CHECK_EQ(pread(past, direct, 4096, 4096), 4096);
		CHECK(!strcmp(p + 4096, direct));
	}
	strcpy(p + 3 * 4096, "moves down");
	CHECK_EQ(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096), 0);
	CHECK(!strcmp(p + 2 * 4096, "moves down"));
	CHECK_FAULT(TOUCH(p + 7 * 4096), SIGBUS, BUS_ADRERR);
	strcpy(p + 2 * 4096, "kept");
	CHECK_EQ(fsync(fd), 0);
	caches = open("/proc/sys/vm/drop_caches", O_WRONLY);
	CHECK_EQ(write(caches, "3", 1), 1);
	close(caches);
	CHECK(!strcmp(p + 2 * 4096, "kept"));
	strcpy(p + 2 * 4096, "still the file's");
	CHECK(file_has(fd, 2 * 4096, "still the file's"));
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	close(past);
	close(fd);
}

/* A mapping keeps the filesystem; what it wrote is there after the next mount. */
static void mounting(void)
{
	int fd = file_make(BYTES);
	char *p = file_map(&dev, id, BYTES, fd, 0);
	struct stat before, after;

	CHECK_EQ(fstat(fd, &before), 0);
	epk_device_enter(&dev, id);
	usleep(20000);
	strcpy(p + 4 * 4096, "survives");
	CHECK_EQ(fstat(fd, &after), 0);
	CHECK(memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)));
	close(fd);
	CHECK(umount(MOUNT) == -1 && errno == EBUSY);
	strcpy(p + 5 * 4096, "without a descriptor");
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	CHECK_EQ(umount(MOUNT), 0);
	CHECK_EQ(mount(DISK, MOUNT, "ext4", 0, ""), 0);
	fd = open(NAME, O_RDWR);
	CHECK(file_has(fd, 4 * 4096, "survives") && file_has(fd, 5 * 4096, "without a descriptor"));
	close(fd);
}

static bool mtime_changes(int fd, char *p)
{
	struct stat before, after;

	CHECK_EQ(fstat(fd, &before), 0);
	usleep(20000);
	epk_device_enter(&dev, id);
	p[0]++;
	epk_device_enter(&dev, 0);
	CHECK_EQ(fstat(fd, &after), 0);
	return memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
}

/* What /dev is mounted with says nothing of a file that is somewhere else. */
static void dev_read_only(int fd)
{
	unsigned long flags = MS_REMOUNT | MS_BIND;
	char *p = file_map(&dev, id, BYTES, fd, 0), *own;

	CHECK(mtime_changes(fd, p));
	CHECK_EQ(mount(NULL, "/dev", NULL, flags | MS_RDONLY | MS_NOEXEC | MS_NOATIME, NULL), 0);
	CHECK(mtime_changes(fd, p + 4096));
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	p = file_map(&dev, id, BYTES, fd, 0);
	CHECK(mtime_changes(fd, p + 2 * 4096));
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	own = epk_device_map(&dev, id, 4096);
	CHECK(own != MAP_FAILED);
	epk_device_enter(&dev, id);
	own[0] = 1;
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, own, 4096), 0);
	CHECK_EQ(mount(NULL, "/dev", NULL, flags, NULL), 0);
}

static void mounts_of_dev(void)
{
	int fd = file_make(BYTES), memory = memfd_create("file", 0);

	CHECK_EQ(ftruncate(memory, BYTES), 0);
	dev_read_only(fd);
	dev_read_only(memory);
	close(memory);
	close(fd);
}

/* A hole with no block to be had: SIGBUS at the write, and not later. */
static void full(void)
{
	int fd = file_make(BYTES), other = open(MOUNT "/filler", O_RDWR | O_CREAT, 0600);
	char *p = file_map(&dev, id, BYTES, fd, 0);

	while (write(other, direct, 4096) == 4096)
		;
	CHECK_EQ(errno, ENOSPC);
	epk_device_enter(&dev, id);
	CHECK_EQ(p[4096], 0);
	CHECK_FAULT(p[4096] = 1, SIGBUS, BUS_ADRERR);
	CHECK_EQ(ftruncate(other, 0), 0);
	sync();
	strcpy(p + 4096, "room");
	CHECK_EQ(msync(p, BYTES, MS_SYNC), 0);
	CHECK(disk_has(fd, 1, "room"));
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	close(other);
	close(fd);
	unlink(MOUNT "/filler");
}

/* More than may stay in memory: pages are reclaimed under the domain, and come back. */
static void reclaim(void)
{
	size_t bytes = 6 << 20, pages = bytes / 4096;
	int fd = file_make(bytes), wrong = 0;
	char *p = file_map(&dev, id, bytes, fd, 0);
	uint64_t word;

	mkdir(CGROUP, 0700);
	REQUIRE(mount("cgroup", CGROUP, "cgroup2", 0, "") == 0 || errno == EBUSY);
	REQUIRE(put(CGROUP "/cgroup.subtree_control", "+memory"));
	REQUIRE(mkdir(CGROUP "/file", 0700) == 0 || errno == EEXIST);
	REQUIRE(put(CGROUP "/file/memory.max", "3M"));
	REQUIRE(put(CGROUP "/file/cgroup.procs", "0"));
	epk_device_enter(&dev, id);
	for (uint64_t round = 1; round <= 3; round++) {
		for (size_t page = 0; page < pages; page++) {
			uint64_t *q = (uint64_t *)(p + page * 4096) + page % 512;

			wrong += *q != (round == 1 ? 0 : page + round - 1);
			*q = page + round;
		}
	}
	CHECK(epk_device_stats(&dev).pages < (3 << 20) / 4096);
	CHECK(epk_device_stats(&dev).page_faults > pages);
	epk_device_enter(&dev, 0);
	for (size_t page = 0; page < pages; page++) {
		CHECK_EQ(pread(fd, &word, 8, page * 4096 + page % 512 * 8), 8);
		wrong += word != page + 3;
	}
	CHECK_EQ(wrong, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, bytes), 0);
	close(fd);
	REQUIRE(put(CGROUP "/cgroup.procs", "0"));
	CHECK_EQ(rmdir(CGROUP "/file"), 0);
	CHECK_EQ(umount2(CGROUP, MNT_DETACH), 0);
}

#define REFUSED(error, call)	CHECK((call) == MAP_FAILED && errno == (error))

static void arguments(void)
{
	struct epk_file arg = { .len = 4096, .id = id, .flags = MAP_POPULATE };
	int fd = file_make(BYTES), pipes[2], other;
	int rw = PROT_READ | PROT_WRITE;
	char *p, *q;

	REQUIRE(pipe(pipes) == 0);
	CHECK(ioctl(dev.fd, EPK_IOC_FILE, NULL) == -1 && errno == EFAULT);
	arg.fd = fd;
	CHECK(ioctl(dev.fd, EPK_IOC_FILE, &arg) == -1 && errno == EINVAL);
	REFUSED(EINVAL, file_map_at(&dev, id, NULL, 4096, PROT_READ | PROT_EXEC, 0, fd, 0));
	REFUSED(EINVAL, file_map_at(&dev, id, NULL, 4096, 1 << 20, 0, fd, 0));
	REFUSED(EINVAL, file_map_at(&dev, id, NULL, 4096, rw, MAP_PRIVATE, fd, 0));
	REFUSED(EINVAL, file_map_at(&dev, id, NULL, 0, rw, 0, fd, 0));
	REFUSED(EINVAL, file_map_at(&dev, id, NULL, 4096, rw, 0, fd, 100));
	REFUSED(EINVAL, file_map_at(&dev, id, NULL, 8192, rw, 0, fd, -4096ull));
	REFUSED(ENOENT, file_map_at(&dev, id + 1, NULL, 4096, rw, 0, fd, 0));
	REFUSED(ENOENT, file_map_at(&dev, -1, NULL, 4096, rw, 0, fd, 0));
	REFUSED(EBADF, file_map_at(&dev, id, NULL, 4096, rw, 0, -1, 0));
	REFUSED(EOPNOTSUPP, file_map_at(&dev, id, NULL, 4096, rw, 0, pipes[0], 0));
	REFUSED(EOPNOTSUPP, file_map_at(&dev, id, NULL, 4096, rw, 0, dev.fd, 0));
	other = open("/proc/self/maps", O_RDONLY);
	REFUSED(EOPNOTSUPP, file_map_at(&dev, id, NULL, 4096, PROT_READ, 0, other, 0));
	close(other);
	other = open(MOUNT, O_RDONLY);
	REFUSED(EOPNOTSUPP, file_map_at(&dev, id, NULL, 4096, PROT_READ, 0, other, 0));
	close(other);
	other = open(NAME, O_WRONLY);
	REFUSED(EACCES, file_map_at(&dev, id, NULL, 4096, rw, 0, other, 0));
	close(other);

	/* Open for reading only. */
	other = open(NAME, O_RDONLY);
	REFUSED(EACCES, file_map_at(&dev, id, NULL, 4096, rw, 0, other, 0));
	p = file_map_at(&dev, id, NULL, 4096, PROT_READ, 0, other, 0);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	CHECK_EQ(p[0], 0);
	CHECK_FAULT(p[0] = 1, SIGSEGV, SEGV_ACCERR);
	CHECK(mprotect(p, 4096, rw) == -1 && errno == EACCES);
	epk_device_enter(&dev, 0);
	close(other);

	/* Where. */
	REFUSED(EEXIST, file_map_at(&dev, id, p, 4096, rw, MAP_FIXED_NOREPLACE, fd, 0));
	REFUSED(EPERM, file_map_at(&dev, id, p, 4096, rw, MAP_FIXED, fd, 4096));
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
	REQUIRE(mmap(p, 4096, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	q = file_map_at(&dev, id, p, 4096, rw, MAP_FIXED, fd, 4096);
	CHECK(q == p);
	epk_device_enter(&dev, id);
	strcpy(q, "in its place");
	epk_device_enter(&dev, 0);
	CHECK(file_has(fd, 4096, "in its place"));
	CHECK_EQ(epk_device_unmap(&dev, q, 4096), 0);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

static void seals(void)
{
	int rw = PROT_READ | PROT_WRITE;
	int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
	char *p;

	REQUIRE(ftruncate(fd, 4096) == 0);
	p = file_map(&dev, id, 4096, fd, 0);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == -1 && errno == EBUSY);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK), 0);
	REFUSED(EPERM, file_map_at(&dev, id, NULL, 4096, rw, 0, fd, 0));
	/* What is mapped already can write, and nobody else. */
	epk_device_enter(&dev, id);
	strcpy(p, "sealed");
	epk_device_enter(&dev, 0);
	CHECK(file_has(fd, 0, "sealed") && pwrite(fd, "x", 1, 0) == -1);
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	REFUSED(EPERM, file_map_at(&dev, id, NULL, 4096, rw, 0, fd, 0));
	close(fd);
}

/* The kernel's own open and close of the file take no lock of the process away. */
static void locks(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10 };
	int fd = file_make(BYTES), status;
	char *p;
	pid_t pid;

	CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
	p = file_map(&dev, id, BYTES, fd, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	pid = fork();
	if (!pid) {
		lock.l_type = F_WRLCK;
		_exit(fcntl(fd, F_GETLK, &lock) || lock.l_type == F_UNLCK);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	close(fd);
}

int main(void)
{
	disk_make();
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	arguments();
	seals();
	locks();
	reaching();
	arriving();
	mounting();
	mounts_of_dev();
	full();
	reclaim();
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	disk_drop();
	return epk_test_result();
}
