// SPDX-License-Identifier: MIT
/*
 * Domains over files of tmpfs, memfds and ext4: what they show, what they lose with
 * the file, whose they are.
 */
#include "file_test.h"

#include <pthread.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <linux/falloc.h>
#include <linux/memfd.h>

#define PAGES	8
#define BYTES	(PAGES * 4096)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE	0x0010
#endif

static struct epk_device dev;
static int id, other_id;
static const char *where;

static int file_make(void)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/file", where);
	fd = strcmp(where, "memfd") ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
				    : memfd_create("domain", MFD_ALLOW_SEALING);
	REQUIRE(fd >= 0);
	REQUIRE(ftruncate(fd, BYTES) == 0);
	CHECK_EQ(pwrite(fd, "first", 6, 0), 6);
	return fd;
}

/* What /proc has of the mapping at @p, which root can open. */
static bool reads_by_map_files(const char *p, size_t len, const char *text)
{
	char path[80], got[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (long)p, (long)p + len);
	CHECK_EQ(access(path, F_OK), 0);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	CHECK(pread(fd, got, strlen(text), 0) <= (ssize_t)strlen(text));
	close(fd);
	return !strcmp(got, text);
}

/* One content for all: two domains, an ordinary mapping, read and write. */
static void content(void)
{
	int fd = file_make();
	char *p = file_map(&dev, id, BYTES, fd, 0), *q = file_map(&dev, other_id, 4096, fd, 4096);
	char *plain = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	CHECK_FAULT(TOUCH(p), SIGSEGV, SEGV_PKUERR);
	epk_device_enter(&dev, id);
	CHECK(!strcmp(p, "first"));
	CHECK_EQ(epk_device_stats(&dev).pages, 1);
	strcpy(p + 4096, "second");
	CHECK(file_has(fd, 4096, "second") && !strcmp(plain + 4096, "second"));
	strcpy(p + 4096, "third");
	CHECK(file_has(fd, 4096, "third"));
	CHECK_EQ(pwrite(fd, "fourth", 7, 4096), 7);
	CHECK(!strcmp(p + 4096, "fourth"));
	CHECK_FAULT(TOUCH(q), SIGSEGV, SEGV_PKUERR);

	epk_device_enter(&dev, other_id);
	CHECK(!strcmp(q, "fourth"));
	CHECK_FAULT(TOUCH(p), SIGSEGV, SEGV_PKUERR);
	strcpy(q, "fifth");
	epk_device_enter(&dev, id);
	CHECK(!strcmp(p + 4096, "fifth"));
	strcpy(plain + 4096, "sixth");
	CHECK(!strcmp(p + 4096, "sixth"));

	/* From the file into its own domain memory and back. */
	CHECK_EQ(pread(fd, p + 2 * 4096, 4096, 0), 4096);
	CHECK(!strcmp(p + 2 * 4096, "first") && file_has(fd, 2 * 4096, "first"));
	CHECK_EQ(pwrite(fd, p + 4096, 4096, 3 * 4096), 4096);
	CHECK(!strcmp(p + 3 * 4096, "sixth"));
	epk_device_enter(&dev, 0);
	CHECK(pread(fd, p, 4096, 0) == -1 && errno == EFAULT);

	/* A way from the mapping to the file there is none. */
	CHECK(reads_by_map_files(plain, BYTES, "first"));
	CHECK(!reads_by_map_files(p, BYTES, "first"));
	CHECK(!reads_by_map_files(q, 4096, "first"));

	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	CHECK_EQ(epk_device_unmap(&dev, q, 4096), 0);
	CHECK_EQ(munmap(plain, BYTES), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	CHECK(file_has(fd, 4096, "sixth"));
	close(fd);
}

/* Behind the end: SIGBUS.  What comes back is zero. */
static void truncation(void)
{
	int fd = file_make();
	char *p = file_map(&dev, id, BYTES, fd, 0);

	epk_device_enter(&dev, id);
	memset(p, 'x', BYTES);
	CHECK_EQ(epk_device_stats(&dev).pages, PAGES);
	CHECK_EQ(ftruncate(fd, 4096 + 100), 0);
	/* The page that is cut may go, to be written to the disk. */
	CHECK(epk_device_stats(&dev).pages <= 2);
	CHECK_FAULT(TOUCH(p + 2 * 4096), SIGBUS, BUS_ADRERR);
	CHECK_FAULT(p[7 * 4096] = 1, SIGBUS, BUS_ADRERR);
	CHECK(p[4096 + 99] == 'x' && p[4096 + 100] == 0);
	CHECK_EQ(ftruncate(fd, BYTES), 0);
	CHECK(p[2 * 4096] == 0 && p[7 * 4096 + 5] == 0 && p[4096 + 100] == 0);
	strcpy(p + 7 * 4096, "again");
	CHECK(file_has(fd, 7 * 4096, "again"));
	CHECK_EQ(ftruncate(fd, 0), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	CHECK_FAULT(TOUCH(p), SIGBUS, BUS_ADRERR);
	CHECK(write(fd, p, 1) == -1 && errno == EFAULT);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	close(fd);
}

static void hole(void)
{
	int fd = file_make();
	char *p = file_map(&dev, id, BYTES, fd, 0), *q = file_map(&dev, other_id, BYTES, fd, 0);

	epk_device_enter(&dev, other_id);
	memset(q, 'y', BYTES);
	epk_device_enter(&dev, id);
	memset(p, 'x', BYTES);
	CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 2 * 4096), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 2 * PAGES - 4);
	CHECK(p[4095] == 'x' && p[4096] == 0 && p[2 * 4096 + 77] == 0 && p[3 * 4096] == 'x');
	strcpy(p + 4096, "filled");
	CHECK(file_has(fd, 4096, "filled"));
	epk_device_enter(&dev, other_id);
	CHECK(!strcmp(q + 4096, "filled") && q[2 * 4096] == 0);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	CHECK_EQ(epk_device_unmap(&dev, q, BYTES), 0);
	close(fd);
}

static void places(void)
{
	int fd = file_make();
	char *p = file_map(&dev, id, BYTES, fd, 0);

	epk_device_enter(&dev, id);
	memset(p, 'x', BYTES);
	CHECK_EQ(epk_device_move(&dev, id, 7), 0);
	if (!epk_device_is_alone(&dev))
		CHECK_FAULT(TOUCH(p), SIGSEGV, SEGV_PKUERR);
	epk_device_enter(&dev, id);
	CHECK(dev.identity->ept == epk_device_ept(&dev, 7) && p[5 * 4096] == 'x');
	strcpy(p, "moved");
	CHECK(file_has(fd, 0, "moved"));
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_FAULT(TOUCH(p), SIGSEGV, SEGV_PKUERR);
	CHECK_EQ(pwrite(fd, "meanwhile", 10, 0), 10);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY), 0);
	epk_device_enter(&dev, id);
	CHECK(!strcmp(p, "meanwhile"));

	/* Protection, parts, and the end of the domain. */
	CHECK_EQ(mprotect(p, 4096, PROT_READ), 0);
	CHECK_FAULT(p[0] = 1, SIGSEGV, SEGV_ACCERR);
	CHECK_EQ(mprotect(p, 4096, PROT_READ | PROT_WRITE), 0);
	p[0] = 'M';
	CHECK(file_has(fd, 0, "Meanwhile"));
	CHECK(mprotect(p, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EACCES);
	CHECK(pkey_mprotect(p, 4096, PROT_READ, 0) == -1 && errno == EACCES);
	CHECK(mremap(p, BYTES, 2 * BYTES, MREMAP_MAYMOVE) == MAP_FAILED && p[5 * 4096] == 'x');
	CHECK_EQ(epk_device_unmap(&dev, p + 4096, 4096), 0);
	CHECK_FAULT(TOUCH(p + 4096), SIGSEGV, SEGV_MAPERR);
	CHECK_EQ(epk_device_unmap(&dev, p + 2 * 4096, 4096), 0);
	CHECK(mmap(p + 2 * 4096, 4096, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + 2 * 4096);
	p[2 * 4096] = 'z';
	CHECK_EQ(epk_device_move(&dev, id, 11), 0);
	CHECK(p[2 * 4096] == 'z');
	epk_device_enter(&dev, id);
	CHECK(p[3 * 4096] == 'x');
	/* Those that were touched since. */
	CHECK_EQ(epk_device_stats(&dev).pages, epk_device_is_alone(&dev) ? 3 : 1);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK_FAULT(TOUCH(p + 3 * 4096), SIGBUS, BUS_ADRERR);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	epk_device_enter(&dev, 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	/* With the domain its memory is nobody's, and no guard's. */
	CHECK_EQ(munmap(p, BYTES), 0);
	close(fd);
}

/* Unlinked and closed, and of another process at the same time. */
static void processes(void)
{
	int fd = file_make(), status;
	char *p = file_map(&dev, id, BYTES, fd, 0), path[64];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/file", where);
	epk_device_enter(&dev, id);
	strcpy(p, "parent");
	epk_device_enter(&dev, 0);
	pid = fork();
	if (!pid) {
		struct epk_device own;
		int own_id;
		char *q;

		epk_failures = 0;
		CHECK_FAULT(TOUCH(p), SIGSEGV, SEGV_MAPERR);
		CHECK(file_map_at(&dev, id, NULL, BYTES, PROT_READ, 0, fd, 0) == MAP_FAILED &&
		      errno == EPERM);
		epk_device_open(&own);
		REQUIRE(ioctl(own.fd, EPK_IOC_THREAD, 0) == 0);
		REQUIRE(epk_device_alloc(&own, 1, &own_id) == 0);
		CHECK_EQ(epk_device_move(&own, own_id, 9), 0);
		q = file_map(&own, own_id, BYTES, fd, 0);
		epk_device_enter(&own, own_id);
		CHECK(!strcmp(q, "parent"));
		strcpy(q + 5 * 4096, "child");
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	unlink(path);
	close(fd);
	epk_device_enter(&dev, id);
	CHECK(!strcmp(p + 5 * 4096, "child") && !strcmp(p, "parent"));
	strcpy(p + 6 * 4096, "nobody else's");
	CHECK_EQ(msync(p, BYTES, MS_SYNC), 0);
	CHECK_EQ(msync(p, BYTES, MS_ASYNC), 0);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
}

/* A debugger's and another's ways, refused though the key is open, and to root as well. */
static void refused(void)
{
	int fd = file_make(), mem = open("/proc/self/mem", O_RDWR), pipes[2];
	char *p = file_map(&dev, id, BYTES, fd, 0), got[8] = "";
	char *plain = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct iovec to = { got, 6 }, from = { p, 6 }, from_plain = { plain, 6 };
	const char *debug = "/sys/module/epk/parameters/debug_access";

	REQUIRE(mem >= 0 && pipe(pipes) == 0 && put(debug, "1"));
	epk_device_enter(&dev, id);
	CHECK(!strcmp(p, "first"));
	CHECK(process_vm_readv(getpid(), &to, 1, &from, 1, 0) == -1 && errno == EFAULT);
	CHECK(process_vm_writev(getpid(), &to, 1, &from, 1, 0) == -1 && errno == EFAULT);
	CHECK(pread(mem, got, 6, (uintptr_t)p) == -1 && errno == EIO);
	CHECK(pwrite(mem, got, 6, (uintptr_t)p) == -1 && errno == EIO);
	CHECK(vmsplice(pipes[1], &from, 1, 0) == -1 && errno == EFAULT);
	/* All of these do work where there is no domain. */
	CHECK_EQ(vmsplice(pipes[1], &from_plain, 1, 0), 6);
	CHECK_EQ(process_vm_readv(getpid(), &to, 1, &from_plain, 1, 0), 6);
	CHECK_EQ(pwrite(mem, got, 6, (uintptr_t)plain), 6);
	CHECK(!strcmp(p, "first"));
	epk_device_enter(&dev, 0);
	REQUIRE(put(debug, "0"));
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	CHECK_EQ(munmap(plain, BYTES), 0);
	close(pipes[0]);
	close(pipes[1]);
	close(mem);
	close(fd);
}

/* As for other domain memory; who wants a hole punches it in the file. */
static void advice(void)
{
	static const struct {
		int advice, error;
	} cases[] = {
		{ MADV_NORMAL, 0 }, { MADV_RANDOM, 0 }, { MADV_SEQUENTIAL, 0 },
		{ MADV_WILLNEED, 0 }, { MADV_DONTNEED, EINVAL }, { MADV_FREE, EINVAL },
		{ MADV_REMOVE, EOPNOTSUPP }, { MADV_DONTFORK, 0 }, { MADV_DOFORK, EINVAL },
		{ MADV_MERGEABLE, 0 }, { MADV_UNMERGEABLE, 0 }, { MADV_HUGEPAGE, 0 },
		{ MADV_NOHUGEPAGE, 0 }, { MADV_DONTDUMP, 0 }, { MADV_DODUMP, EINVAL },
		{ MADV_WIPEONFORK, EINVAL }, { MADV_KEEPONFORK, 0 }, { MADV_COLD, EINVAL },
		{ MADV_PAGEOUT, EINVAL }, { MADV_POPULATE_READ, EINVAL },
		{ MADV_POPULATE_WRITE, EINVAL },
		{ 24 /* MADV_DONTNEED_LOCKED */, EINVAL }, { 25 /* MADV_COLLAPSE */, EINVAL },
	};
	int fd = file_make();
	char *p = file_map(&dev, id, BYTES, fd, 0), text[32];

	epk_device_enter(&dev, id);
	memset(p, 'x', BYTES);
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int got = madvise(p, BYTES, cases[i].advice) ? errno : 0;

		snprintf(text, sizeof(text), "madvise %d: %d", cases[i].advice, got);
		epk_check(got == cases[i].error, __FILE__, __LINE__, text, "");
		CHECK(p[0] == 'x' && p[BYTES - 1] == 'x');
	}
	CHECK_EQ(mlock(p, BYTES), 0);
	CHECK_EQ(munlock(p, BYTES), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, PAGES);
	epk_device_enter(&dev, 0);
	CHECK_FAULT(TOUCH(p), SIGSEGV, SEGV_PKUERR);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	close(fd);
}

static volatile bool race_ended;

/* Read-only first, then writable. */
static void touch(volatile char *page)
{
	page[100] = page[200];
}

static void *toucher(void *arg)
{
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_device_enter(&dev, id);
	while (!race_ended) {
		for (int page = 0; page < PAGES; page++)
			EPK_TRY(touch((volatile char *)arg + page * 4096));
	}
	return NULL;
}

/* Pages that leave the file while another thread brings them back. */
static void race(void)
{
	int fd = file_make(), stale = 0;
	char *p = file_map(&dev, id, BYTES, fd, 0);
	static char bytes[BYTES];
	pthread_t thread;

	race_ended = false;
	REQUIRE(pthread_create(&thread, NULL, toucher, p) == 0);
	epk_device_enter(&dev, id);
	for (int i = 0; i < 300; i++) {
		char value = 1 + i % 100;

		memset(bytes, value, BYTES);
		/* Mapped by this thread, or just being mapped by the other. */
		if (i & 1)
			memcpy(p, bytes, BYTES);
		else
			CHECK_EQ(pwrite(fd, bytes, BYTES, 0), BYTES);
		if (i % 3)
			CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES), 0);
		else
			CHECK(ftruncate(fd, 0) == 0 && ftruncate(fd, BYTES) == 0);
		for (int page = 0; page < PAGES; page++)
			stale += p[page * 4096 + 9] != 0;
		CHECK_EQ(pwrite(fd, &value, 1, 4096), 1);
		stale += p[4096] != value;
	}
	race_ended = true;
	epk_device_enter(&dev, 0);
	pthread_join(thread, NULL);
	CHECK_EQ(stale, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	close(fd);
}

int main(int argc, char **argv)
{
	int ids[2];

	REQUIRE(argc == 2);
	where = argv[1];
	if (!strcmp(where, MOUNT))
		disk_make();
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 2, ids) == 0);
	id = ids[0];
	other_id = ids[1];
	CHECK_EQ(epk_device_move(&dev, other_id, 3), 0);
	content();
	truncation();
	hole();
	places();
	processes();
	refused();
	advice();
	race();
	CHECK_EQ(epk_device_free(&dev, 1, &id) | epk_device_free(&dev, 1, &other_id), 0);
	if (!strcmp(where, MOUNT))
		disk_drop();
	return epk_test_result();
}
