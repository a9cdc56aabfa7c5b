// SPDX-License-Identifier: MIT
/*
 * Whoever walks a process's memory or its mappings: what he finds of a domain's, beside
 * ordinary memory as the contrast, and that the domain is as before.
 */
#include "epk_test.h"
#include "core_dump.h"
#include "procmap.h"

#include <linux/userfaultfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAGES		16
#define BYTES		(PAGES * 4096)
#define SECRET		0x5ec0d0a1ull	/* kept inverted where a core dump would find it */
#define CORE		"/tmp/core-walkers"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC	(1 << 15)
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE	67
#endif

static struct epk_device dev;
static int id;
static volatile uint64_t *secret, *plain;
static volatile uint64_t not_secret = ~SECRET;

static void check_unharmed(void)
{
	struct epk_stats stats = epk_device_stats(&dev);
	int i, bad = 0;

	epk_device_enter(&dev, id);
	for (i = 0; i < PAGES; i++)
		bad += secret[i * 512] != ~not_secret + i;
	epk_device_enter(&dev, 0);
	CHECK_EQ(bad, 0);
	CHECK_EQ(stats.pages, PAGES);
	/* None has been taken out of the page tables, either. */
	CHECK_EQ(epk_device_stats(&dev).page_faults, PAGES);
}

/* The sum of all numbers of kB that smaps has for a mapping, but its size and page sizes. */
static long smaps_kib(const volatile void *at)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	char line[512], name[64];
	bool here = false;
	long kib, sum = 0;

	REQUIRE(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)at && (uintptr_t)at < end;
		else if (here && strstr(line, " kB") && !strstr(line, "Size") &&
			 sscanf(line, "%63[^:]: %ld", name, &kib) == 2)
			sum += kib;
	}
	fclose(f);
	return sum;
}

static void smaps(void)
{
	CHECK_EQ(smaps_kib(secret), 0);
	CHECK(smaps_kib(plain) >= BYTES >> 10);
}

static void slurp(const char *path)
{
	static char bytes[1 << 16];
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return;
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
	close(fd);
}

static void tables(void)
{
	slurp("/proc/self/maps");
	slurp("/proc/self/smaps_rollup");
	slurp("/proc/self/numa_maps");
	slurp("/proc/self/stat");
}

static uint64_t pagemap_entry(const volatile uint64_t *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	REQUIRE(fd >= 0);
	CHECK_EQ(pread(fd, &entry, 8, (uintptr_t)at / 4096 * 8), 8);
	close(fd);
	return entry;
}

/* Where each page is, is for root; whether there is one, of domains for nobody. */
static void pagemap(void)
{
	CHECK_EQ(pagemap_entry(secret) << 9 >> 9, 0);
	CHECK(pagemap_entry(plain) >> 63);
}

/* PAGEMAP_SCAN, from 6.7 on: all that is present, and write-protection by the way. */
static void pagemap_scan(void)
{
	struct {
		uint64_t start, end, categories;
	} found[8];
	struct {
		uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
		uint64_t inverted, mask, anyof, returns;
	} arg = {
		.size = sizeof(arg), .start = (uintptr_t)secret, .end = (uintptr_t)secret + BYTES,
		.vec = (uintptr_t)found, .vec_len = 8, .mask = 1 << 3, .returns = 1 << 3,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY);
	int n = ioctl(fd, _IOWR('f', 16, arg), &arg);

	CHECK(n == 0 || (n < 0 && errno == ENOTTY));
	if (n == 0) {
		arg.start = (uintptr_t)plain;
		arg.end = arg.start + BYTES;
		CHECK_EQ(ioctl(fd, _IOWR('f', 16, arg), &arg), 1);
	}
	close(fd);
}

static void clear_refs(void)
{
	static const char *const what[] = { "1", "2", "3", "4", "5" };
	unsigned int i;

	for (i = 0; i < 5; i++)
		put("/proc/self/clear_refs", what[i]);
}

static void mincores(void)
{
	unsigned char core[PAGES];

	CHECK_EQ(mincore((void *)secret, BYTES, core), 0);
}

/* Another process, root's, on this one. */
static void advise(void)
{
	static const int advice[] = {
		MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, MADV_COLLAPSE, MADV_DONTNEED, MADV_FREE,
	};
	pid_t parent = getpid(), pid = fork();
	int status = -1;

	if (!pid) {
		struct iovec { void *base; size_t len; } range = { (void *)secret, BYTES };
		int fd = syscall(SYS_pidfd_open, parent, 0);
		unsigned int i;

		if (fd < 0)
			_exit(1);
		for (i = 0; i < sizeof(advice) / sizeof(*advice); i++) {
			/* It reads nothing ahead of what is no file's. */
			if (syscall(SYS_process_madvise, fd, &range, 1, advice[i], 0) > 0 &&
			    advice[i] != MADV_WILLNEED)
				_exit(2 + i);
		}
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

static void move(void)
{
	void *pages[] = { (void *)secret };
	int status = -1;

	if (syscall(SYS_move_pages, 0, 1, pages, NULL, &status, 0)) {
		CHECK_EQ(errno, ENOSYS);
		return;
	}
	CHECK(status == -EFAULT || status == -ENOENT);
}

/* KSM for all of a process, from 6.4 on, and for this. */
static void merge(void)
{
	CHECK_EQ(madvise((void *)secret, BYTES, MADV_MERGEABLE), 0);
	prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
	if (put("/sys/kernel/mm/ksm/run", "1")) {
		usleep(100000);
		put("/sys/kernel/mm/ksm/run", "2");
		put("/sys/kernel/mm/ksm/run", "0");
	}
	prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0);
	CHECK_EQ(madvise((void *)secret, BYTES, MADV_UNMERGEABLE), 0);
}

/* With all kinds of mappings in it that there are. */
static void dump(void)
{
	pid_t pid;
	int status = -1;

	REQUIRE(put(CORE_PATTERN, CORE));
	pid = fork();
	if (!pid) {
		static struct epk_device own;
		struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
		volatile uint64_t *mine, *other;

		setrlimit(RLIMIT_CORE, &limit);
		put("/proc/self/coredump_filter", "0x1ff");
		signal(SIGABRT, SIG_DFL);
		epk_device_open(&own);
		/* What it opens is to stay open, whatever runs in between. */
		REQUIRE(ioctl(own.fd, EPK_IOC_THREAD, 0) == 0);
		REQUIRE(epk_device_alloc(&own, 1, &id) == 0);
		mine = epk_device_map(&own, id, 4096);
		other = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
		epk_device_enter(&own, id);
		mine[0] = ~not_secret + 100;
		other[0] = ~not_secret + 200;
		abort();
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WCOREDUMP(status));
	CHECK_EQ(WTERMSIG(status), SIGABRT);
	CHECK(!core_has(CORE, not_secret - 100));
	CHECK(core_has(CORE, not_secret - 200));
	unlink(CORE);
}

/* By its name the mapping is the device. */
static void query(void)
{
	char name[64] = "";
	struct procmap arg = {
		.addr = (uintptr_t)secret, .name = (uintptr_t)name, .name_size = sizeof(name),
	};

	if (procmap_query(&arg))
		CHECK_EQ(errno, ENOTTY);
	else
		CHECK(!strcmp(name, EPK_DEVICE));
}

/*
 * userfaultfd that only notes what is written, from 6.7 on, which there takes memory of any kind.  What
 * it puts in the place of pages that are not there yet would have each touch of them tried for ever.
 */
static void note_writes(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	struct uffdio_register range = {
		.range = { (uintptr_t)secret, BYTES }, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	REQUIRE(fd >= 0);
	if (ioctl(fd, UFFDIO_API, &api)) {
		CHECK_EQ(errno, EINVAL);
	} else {
		CHECK(ioctl(fd, UFFDIO_REGISTER, &range) == -1 && errno == EINVAL);
		range.range.start = (uintptr_t)plain;
		CHECK_EQ(ioctl(fd, UFFDIO_REGISTER, &range), 0);
	}
	close(fd);
}

static long resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long size, pages = -1;

	REQUIRE(f && fscanf(f, "%ld %ld", &size, &pages) == 2);
	fclose(f);
	return pages;
}

/* How much there is, the process is told to have.  Later kernels keep a part of the sum by CPU. */
static void counted(void)
{
	const long nr = 2048;
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		struct epk_device own;
		long before;
		int own_id;
		char *q;

		epk_failures = 0;
		epk_device_open(&own);
		REQUIRE(epk_device_alloc(&own, 1, &own_id) == 0);
		q = epk_device_map(&own, own_id, nr * 4096);
		REQUIRE(q != MAP_FAILED);
		before = resident();
		CHECK_EQ(epk_device_populate(&own, q, nr * 4096), 0);
		CHECK(labs(resident() - before - nr) < 200);
		CHECK_EQ(epk_device_unmap(&own, q, nr * 4096), 0);
		CHECK(labs(resident() - before) < 200);
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

int main(void)
{
	static void (*const walkers[])(void) = {
		smaps, tables, pagemap, pagemap_scan, clear_refs, mincores, advise, move, merge,
		dump, query, note_writes, counted,
	};
	unsigned int i;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	secret = epk_device_map(&dev, id, BYTES);
	plain = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(secret != MAP_FAILED && plain != MAP_FAILED);
	epk_device_enter(&dev, id);
	for (i = 0; i < PAGES; i++)
		secret[i * 512] = plain[i * 512] = ~not_secret + i;
	epk_device_enter(&dev, 0);
	for (i = 0; i < sizeof(walkers) / sizeof(*walkers); i++) {
		walkers[i]();
		check_unharmed();
	}
	return epk_test_result();
}
