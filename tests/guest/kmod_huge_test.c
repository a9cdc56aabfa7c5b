// SPDX-License-Identifier: MIT
/*
 * Domain memory by 2 MiB: when it comes so and when not, and that it is ordinary
 * domain memory to whoever cuts it, moves it, looks at it or wants it by another way.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define HUGE		(2ul << 20)
#define NR		512
#define BYTES		(2 * HUGE)
#define POLICY		"/sys/module/epk/parameters/transparent_hugepage"
#define CGROUP		"/tmp/cgroup-huge"
#define WORD(page)	p[(page) * 512]

static struct epk_device dev;
static int id;
static volatile uint64_t *p;

static void setup(void)
{
	p = epk_device_map(&dev, id, BYTES);
	REQUIRE(p != MAP_FAILED);
	CHECK_EQ((uintptr_t)p % HUGE, 0);
	epk_device_enter(&dev, id);
}

static void teardown(void)
{
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, BYTES), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
}

static void fill(uint64_t value)
{
	int i;

	for (i = 0; i < NR; i++)
		WORD(i) = value + i;
}

static void check_holds(int first, int last, uint64_t value)
{
	int i, bad = 0;

	for (i = first; i <= last; i++)
		bad += WORD(i) != value + i;
	CHECK_EQ(bad, 0);
}

/* One touch at @page: did that many pages come, by one fault? */
static void check_touch(int page, unsigned int pages)
{
	struct epk_stats before = epk_device_stats(&dev), now;

	CHECK_EQ(EPK_TRY(WORD(page) += 1), 0);
	now = epk_device_stats(&dev);
	CHECK_EQ(now.pages, before.pages + pages);
	CHECK_EQ(now.page_faults, before.page_faults + 1);
	CHECK_EQ(now.huge_faults, before.huge_faults + (pages == NR));
}

static uint64_t faults(void)
{
	return epk_device_stats(&dev).page_faults;
}

/* The next to have the pages finds them zeroed, whoever had them. */
static void first_touch(void)
{
	uint64_t before;
	int round, i, bad = 0;

	for (round = 0; round < 2; round++) {
		setup();
		check_touch(77, NR);
		before = faults();
		for (i = 0; i < NR * 512; i++)
			bad += p[i] != (i == 77 * 512);
		CHECK_EQ(bad, 0);
		memset((void *)p, 0xee, HUGE);
		CHECK_EQ(faults(), before);
		check_touch(NR, NR);
		CHECK_EQ(WORD(NR), 1);
		teardown();
	}
}

static void keys(void)
{
	struct epk_entry at = epk_device_entry(&dev, id);
	int other;

	/* So that there is an EPT 1. */
	REQUIRE(epk_device_alloc(&dev, 1, &other) == 0);
	CHECK_EQ(epk_device_move(&dev, other, 1), 0);
	setup();
	fill(10);
	epk_wrpkru(EPK_PKRU_DENY_ALL);
	CHECK_EQ(EPK_TRY((void)WORD(100)), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	epk_wrpkru(EPK_PKRU_ALLOW(at.pkey));
	if (!epk_device_is_alone(&dev)) {
		epk_vmfunc(1);
		CHECK_EQ(EPK_TRY(WORD(100) = 1), SIGSEGV);
		CHECK_EQ(epk_try_code, SEGV_PKUERR);
		epk_vmfunc(0);
	}
	epk_device_enter(&dev, id);
	/* Reading is another bit of PKRU. */
	epk_wrpkru(EPK_PKRU_ALLOW(at.pkey) | 2u << 2 * at.pkey);
	CHECK_EQ(EPK_TRY(WORD(100) = 1), SIGSEGV);
	CHECK_EQ(WORD(100), 110);
	teardown();
	CHECK_EQ(epk_device_free(&dev, 1, &other), 0);
}

/* What is left of 2 MiB that were cut is there, page by page. */
static void cuts(void)
{
	uint64_t before;

	setup();
	fill(1000);
	before = faults();
	CHECK_EQ(epk_device_unmap(&dev, &WORD(100), 10 * 4096), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, NR - 10);
	check_holds(0, 99, 1000);
	check_holds(110, NR - 1, 1000);
	CHECK_EQ(faults(), before + NR - 10);
	CHECK_EQ(EPK_TRY((void)WORD(105)), SIGSEGV);
	CHECK_EQ(mprotect((void *)&WORD(200), 4096, PROT_READ), 0);
	CHECK_EQ(EPK_TRY(WORD(200) = 1), SIGSEGV);
	CHECK_EQ(EPK_TRY(WORD(201) = 1201), 0);
	check_holds(199, 201, 1000);
	check_touch(NR, NR);
	/* Both of a kind: what PTEs map, and what a PMD does. */
	before = faults();
	CHECK_EQ(epk_device_move(&dev, id, 3), 0);
	epk_device_enter(&dev, id);
	check_holds(0, 99, 1000);
	check_holds(110, NR - 1, 1000);
	CHECK_EQ(WORD(NR), 1);
	CHECK_EQ(faults(), before);
	teardown();
}

/* The kernel cuts a VMA only in thought, and takes what the PMD shows by PTEs to and fro. */
static void cut_not_made(void)
{
	setup();
	fill(1500);
	CHECK(mremap((void *)&WORD(100), 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
		     (char *)p + 64 * HUGE) == MAP_FAILED);
	CHECK_EQ(epk_device_stats(&dev).pages, NR);
	check_holds(0, NR - 1, 1500);
	CHECK_EQ(epk_device_populate(&dev, p, HUGE), 0);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(epk_device_move(&dev, id, 4), 0);
	epk_device_enter(&dev, id);
	check_holds(0, NR - 1, 1500);
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, NR - 1);
	check_holds(1, NR - 1, 1500);
	teardown();
}

static void protections(void)
{
	uint64_t before;

	setup();
	fill(2000);
	WORD(NR) = 5;
	before = faults();
	CHECK_EQ(mprotect((void *)p, HUGE, PROT_READ), 0);
	CHECK_EQ(EPK_TRY(WORD(300) = 1), SIGSEGV);
	check_holds(0, NR - 1, 2000);
	CHECK_EQ(mprotect((void *)p, HUGE, PROT_NONE), 0);
	CHECK_EQ(EPK_TRY((void)WORD(300)), SIGSEGV);
	CHECK_EQ(epk_device_move(&dev, id, 5), 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(EPK_TRY((void)WORD(300)), SIGSEGV);
	CHECK_EQ(mprotect((void *)p, HUGE, PROT_READ | PROT_WRITE), 0);
	check_holds(0, NR - 1, 2000);
	WORD(300) = 1;
	CHECK_EQ(WORD(NR), 5);
	/* By PMDs, all the time; what nobody might access came back by a fault. */
	CHECK_EQ(faults(), before + 1);
	teardown();
}

static void moves(void)
{
	struct epk_entry old;
	uint64_t before;

	setup();
	fill(3000);
	WORD(NR) = 6;
	before = faults();
	CHECK_EQ(epk_device_move(&dev, id, 7), 0);
	old = epk_device_entry(&dev, id);
	epk_device_enter(&dev, id);
	check_holds(0, NR - 1, 3000);
	CHECK_EQ(epk_device_move(&dev, id, 8), 0);
	/* Still at its old place. */
	epk_wrpkru(EPK_PKRU_ALLOW(old.pkey));
	if (!epk_device_is_alone(&dev))
		CHECK_EQ(EPK_TRY((void)WORD(1)), SIGSEGV);
	epk_device_enter(&dev, id);
	check_holds(0, NR - 1, 3000);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(EPK_TRY((void)WORD(1)), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	CHECK_EQ(epk_device_move(&dev, id, 9), 0);
	epk_device_enter(&dev, id);
	check_holds(0, NR - 1, 3000);
	CHECK_EQ(WORD(NR), 6);
	CHECK_EQ(faults(), before);
	teardown();
}

/* Two domains change places while other threads read them. */
static struct {
	int id;
	volatile uint64_t *p;
	uint64_t value;
} racing[2];
static volatile int racing_done;
static long reads;

static void *racer(void *arg)
{
	volatile unsigned int i = (long)arg, page = 0;
	volatile uint64_t got;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	while (!racing_done) {
		int sig;

		i ^= 1;
		page = (page + 37) % NR;
		got = 0;
		epk_device_enter(&dev, racing[i].id);
		sig = EPK_TRY(got = racing[i].p[page * 512]);
		epk_device_enter(&dev, 0);
		if (!CHECK(sig ? sig == SIGSEGV && !got : got == racing[i].value + page))
			break;
		__atomic_fetch_add(&reads, !sig, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void race(void)
{
	struct timespec start;
	pthread_t threads[2];
	long i;

	for (i = 0; i < 2; i++) {
		racing[i].value = 100000 * (i + 1);
		REQUIRE(epk_device_alloc(&dev, 1, &racing[i].id) == 0);
		p = racing[i].p = epk_device_map(&dev, racing[i].id, HUGE);
		REQUIRE(p != MAP_FAILED);
		epk_device_enter(&dev, racing[i].id);
		fill(racing[i].value);
		epk_device_enter(&dev, 0);
	}
	for (i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, racer, (void *)i), 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0; race_goes_on(i, 200, &start); i++) {
		struct epk_entry a = epk_device_entry(&dev, racing[0].id);
		struct epk_entry b = epk_device_entry(&dev, racing[1].id);
		struct epk_move list[2] = {
			{ .id = racing[0].id, .ept = b.ept, .pkey = b.pkey },
			{ .id = racing[1].id, .ept = a.ept, .pkey = a.pkey },
		};

		if (i % 2)
			list[0] = (struct epk_move) {
				.id = racing[0].id, .ept = epk_device_ept(&dev, i % 16),
			};
		CHECK_EQ(epk_device_moves(&dev, i % 2 ? 1 : 2, list), 0);
		/* To PTEs and, with new memory, to a PMD again. */
		if (i % 50 == 49)
			CHECK_EQ(mprotect((void *)racing[1].p, 4096, PROT_READ), 0);
		sched_yield();
	}
	racing_done = 1;
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		CHECK_EQ(epk_device_unmap(&dev, racing[i].p, HUGE), 0);
	}
	for (i = 0; i < 2; i++)
		CHECK_EQ(epk_device_free(&dev, 1, &racing[i].id), 0);
	printf("%ld reads\n", reads);
	CHECK(reads > 20);
}

/* Many threads touch the same new memory at once: one gets it, all see it. */
static volatile int touching;

static void *toucher(void *arg)
{
	int page = (long)arg * 31;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_device_enter(&dev, id);
	while (!touching)
		;
	WORD(page) = page + 1;
	WORD(NR + page) = page + 1;
	epk_device_enter(&dev, 0);
	return NULL;
}

static void touch_race(void)
{
	pthread_t threads[4];
	long round, i;

	for (round = 0; round < 5; round++) {
		touching = 0;
		setup();
		for (i = 0; i < 4; i++)
			CHECK_EQ(pthread_create(&threads[i], NULL, toucher, (void *)i), 0);
		touching = 1;
		for (i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		for (i = 0; i < 4; i++) {
			CHECK_EQ(WORD(i * 31), i * 31 + 1);
			CHECK_EQ(WORD(NR + i * 31), i * 31 + 1);
		}
		CHECK_EQ(epk_device_stats(&dev).pages, 2 * NR);
		teardown();
	}
}

/* By way of get_user_pages(), fast and slow: refused though the key is open. */
static void refused(void)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct iovec mine = { page, 8 }, from;
	int pipes[2], fd;

	setup();
	fill(4000);
	from = (struct iovec) { (void *)&WORD(300), 8 };
	errno = 0;
	CHECK(process_vm_readv(getpid(), &mine, 1, &from, 1, 0) == -1 && errno == EFAULT);
	fd = open("/proc/self/mem", O_RDWR);
	REQUIRE(fd >= 0);
	CHECK(pread(fd, page, 8, (uintptr_t)&WORD(300)) == -1 && errno == EIO);
	CHECK(pwrite(fd, page, 8, (uintptr_t)&WORD(300)) == -1 && errno == EIO);
	close(fd);
	REQUIRE(pipe(pipes) == 0);
	CHECK(vmsplice(pipes[1], &from, 1, 0) == -1 && errno == EFAULT);
	fd = open("/dev/ram0", O_RDWR | O_DIRECT);
	if (fd >= 0) {
		CHECK_EQ(pwrite(fd, page, 4096, 0), 4096);
		CHECK(pwrite(fd, (void *)&WORD(300), 4096, 0) == -1 && errno == EFAULT);
		CHECK(pread(fd, (void *)&WORD(300), 4096, 0) == -1 && errno == EFAULT);
		close(fd);
	}
	/* The owner's own copy is no such way. */
	CHECK_EQ(write(pipes[1], (void *)&WORD(300), 8), 8);
	CHECK_EQ(read(pipes[0], (void *)&WORD(301), 8), 8);
	CHECK_EQ(WORD(301), 4300);
	close(pipes[0]);
	close(pipes[1]);
	check_holds(0, 300, 4000);
	teardown();
}

static void slurp(const char *path)
{
	static char text[4096];
	int fd = open(path, O_RDONLY);
	long got, all = 0;

	if (fd < 0 && errno == ENOENT)
		return;
	REQUIRE(fd >= 0);
	while ((got = read(fd, text, sizeof(text))) > 0)
		all += got;
	CHECK_EQ(got, 0);
	CHECK(all > 0);
	close(fd);
}

/* numaif.h's, without the library. */
#define MPOL_DEFAULT		0
#define MPOL_BIND		2
#define MPOL_MF_STRICT		1
#define MPOL_MF_MOVE		2

/* They ask for the nodes of pages; without NUMA there are no such calls. */
static void look_at_nodes(void)
{
	void *pages[] = { (void *)p, (void *)&WORD(300) };
	unsigned long all = 1;
	int status[2] = { 0, 0 };

	if (syscall(SYS_mbind, p, BYTES, MPOL_DEFAULT, NULL, 0, 0) && errno == ENOSYS) {
		puts("no NUMA here");
		return;
	}
	slurp("/proc/self/numa_maps");
	CHECK_EQ(syscall(SYS_move_pages, 0, 2, pages, NULL, status, 0), 0);
	CHECK(status[0] < 0 && status[1] < 0);
	check_holds(0, NR - 1, 5000);
	CHECK_EQ(syscall(SYS_migrate_pages, 0, 8, &all, &all), 0);
	/* It looks at each page, and finds none that is anywhere else. */
	CHECK_EQ(syscall(SYS_mbind, p, HUGE, MPOL_BIND, &all, 8, MPOL_MF_STRICT), 0);
	check_holds(0, NR - 1, 5000);
	CHECK_EQ(syscall(SYS_mbind, p, BYTES, MPOL_BIND, &all, 8,
			 MPOL_MF_STRICT | MPOL_MF_MOVE), 0);
	check_holds(0, NR - 1, 5000);
}

static void observed(void)
{
	static const int advice[] = { MADV_NORMAL, MADV_DONTNEED, MADV_FREE, MADV_COLD,
				      MADV_PAGEOUT, MADV_POPULATE_WRITE, MADV_HUGEPAGE, 25 };
	static unsigned char core[BYTES / 4096];
	uint64_t entry = 1, before;
	unsigned int i;
	pid_t pid;
	int fd, status;

	setup();
	fill(5000);
	before = faults();
	slurp("/proc/self/smaps");
	slurp("/proc/self/maps");
	fd = open("/proc/self/pagemap", O_RDONLY);
	REQUIRE(fd >= 0);
	CHECK_EQ(pread(fd, &entry, 8, (uintptr_t)&WORD(300) / 4096 * 8), 8);
	CHECK_EQ(entry << 9 >> 9, 0);
	close(fd);
	/* Root looks at the page that he asks for. */
	CHECK(put("/sys/module/epk/parameters/debug_access", "1"));
	fd = open("/proc/self/mem", O_RDONLY);
	REQUIRE(fd >= 0);
	CHECK_EQ(pread(fd, &entry, 8, (uintptr_t)&WORD(300)), 8);
	CHECK_EQ(entry, 5300);
	close(fd);
	CHECK(put("/sys/module/epk/parameters/debug_access", "0"));
	CHECK_EQ(mincore((void *)p, BYTES, core), 0);
	CHECK_EQ(mlock((void *)p, HUGE), 0);
	CHECK_EQ(munlock((void *)p, HUGE), 0);
	CHECK(put("/proc/self/clear_refs", "1"));
	CHECK(put("/proc/self/clear_refs", "4"));
	for (i = 0; i < sizeof(advice) / sizeof(*advice); i++)
		madvise((void *)p, HUGE, advice[i]);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		_exit(EPK_TRY((void)*p) != SIGSEGV);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	check_holds(0, NR - 1, 5000);
	CHECK_EQ(faults(), before);
	/* Refused; on the way it may be mapped elsewhere, and by PTEs afterwards. */
	CHECK(mremap((void *)p, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
		     (char *)p + 64 * HUGE + 4096) == MAP_FAILED);
	CHECK(mremap((void *)p, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
		     (char *)p + 64 * HUGE) == MAP_FAILED);
	check_holds(0, NR - 1, 5000);
	look_at_nodes();
	teardown();
}

/*
 * While the kernel counts who writes to what, by clear_refs, mappings become writable at a
 * fault only: there has to be one fault, and no more.  Where it cannot count this is as ever.
 */
static void soft_dirty(void)
{
	setup();
	fill(100);
	CHECK(put("/proc/self/clear_refs", "4"));
	alarm(20);
	check_touch(NR, NR);
	CHECK_EQ(EPK_TRY(WORD(5) = 105), 0);
	CHECK_EQ(mprotect((void *)p, HUGE, PROT_READ), 0);
	CHECK_EQ(EPK_TRY(WORD(5) = 1), SIGSEGV);
	CHECK_EQ(mprotect((void *)p, HUGE, PROT_READ | PROT_WRITE), 0);
	CHECK(put("/proc/self/clear_refs", "4"));
	CHECK_EQ(EPK_TRY(WORD(5) = 105), 0);
	check_holds(0, NR - 1, 100);
	CHECK_EQ(epk_device_move(&dev, id, 1), 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(EPK_TRY(WORD(5) = 105), 0);
	CHECK_EQ(EPK_TRY(WORD(NR) = 1), 0);
	check_holds(0, NR - 1, 100);
	alarm(0);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_move(&dev, id, 0), 0);
	teardown();
}

/* In a process of its own, which ends by @how. */
static int in_process(void (*how)(void))
{
	int status = -1;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		epk_device_open(&dev);
		if (ioctl(dev.fd, EPK_IOC_THREAD, 0) || epk_device_alloc(&dev, 1, &id))
			_exit(2);
		how();
		_exit(epk_failures);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	return status;
}

static void dump_core(void)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	setup();
	fill(1);
	setrlimit(RLIMIT_CORE, &limit);
	if (chdir("/tmp"))
		_exit(2);
	abort();
}

static void with_limit(void)
{
	setup();
	if (!put(CGROUP "/test/cgroup.procs", "0"))
		_exit(2);
	check_touch(5, 1);
	check_touch(6, 1);
	teardown();
}

static long charged(void)
{
	char text[32] = "";
	int fd = open(CGROUP "/test/memory.current", O_RDONLY);

	CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return atol(text);
}

static void without_limit(void)
{
	long before;

	setup();
	if (!put(CGROUP "/test/cgroup.procs", "0"))
		_exit(2);
	before = charged();
	check_touch(5, NR);
	CHECK(charged() >= before + (long)HUGE);
	CHECK_EQ(epk_device_unmap(&dev, &WORD(1), HUGE / 2), 0);
	CHECK(charged() < before + (long)HUGE);
	epk_device_enter(&dev, 0);
	/* The rest goes with the process. */
}

/* A limit that 2 MiB would not fit into: 4 KiB do.  And what fits is charged. */
static void limited(void)
{
	mkdir(CGROUP, 0700);
	REQUIRE(mount("none", CGROUP, "cgroup2", 0, NULL) == 0);
	put(CGROUP "/cgroup.subtree_control", "+memory");
	REQUIRE(mkdir(CGROUP "/test", 0700) == 0);
	REQUIRE(put(CGROUP "/test/memory.max", "1M"));
	CHECK_EQ(in_process(with_limit), 0);
	REQUIRE(put(CGROUP "/test/memory.max", "max"));
	CHECK_EQ(in_process(without_limit), 0);
	CHECK(charged() < (long)HUGE / 2);
	CHECK_EQ(rmdir(CGROUP "/test"), 0);
	put(CGROUP "/cgroup.subtree_control", "-memory");
	CHECK_EQ(umount(CGROUP), 0);
}

static void policy(void)
{
	CHECK(!put(POLICY, "sometimes"));
	REQUIRE(put(POLICY, "never"));
	setup();
	check_touch(1, 1);
	REQUIRE(put(POLICY, "always"));
	/* A page is there already. */
	check_touch(2, 1);
	CHECK_EQ(WORD(1), 1);
	check_touch(NR + 2, NR);
	teardown();

	REQUIRE(put(POLICY, "madvise"));
	setup();
	check_touch(1, 1);
	CHECK_EQ(madvise((void *)p, BYTES, MADV_HUGEPAGE), 0);
	check_touch(NR + 1, NR);
	teardown();
	REQUIRE(put(POLICY, "always"));

	setup();
	CHECK_EQ(madvise((void *)p, BYTES, MADV_NOHUGEPAGE), 0);
	check_touch(1, 1);
	teardown();
	setup();
	CHECK_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	check_touch(1, 1);
	CHECK_EQ(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), 0);
	teardown();
}

/* What is no whole, aligned 2 MiB. */
static void odd(void)
{
	char *room = mmap(NULL, 4 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = (char *)(((uintptr_t)room + HUGE) & -HUGE);
	struct epk_range range;
	uint64_t before;

	REQUIRE(room != MAP_FAILED);
	p = mmap(at + 4096, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		 EPK_MMAP_DOMAIN(id));
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	check_touch(3, 1);
	CHECK_EQ(epk_device_unmap(&dev, p, HUGE), 0);
	p = mmap(at, HUGE + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		 EPK_MMAP_DOMAIN(id));
	REQUIRE(p != MAP_FAILED);
	check_touch(NR, 1);
	check_touch(3, NR);
	CHECK_EQ(epk_device_unmap(&dev, at, HUGE + 4096), 0);
	CHECK_EQ(munmap(room, 4 * HUGE), 0);

	setup();
	before = faults();
	range = (struct epk_range) { (uintptr_t)&WORD(10), HUGE };
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_POPULATE, &range), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 2 * NR);
	fill(6000);
	check_holds(0, NR - 1, 6000);
	CHECK_EQ(WORD(NR + 100), 0);
	CHECK(faults() <= before + 2);
	teardown();
	/* As they are freed with their domain, and not touched before they are unmapped. */
	setup();
	fill(7000);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK_EQ(EPK_TRY((void)WORD(5)), SIGBUS);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	teardown();
}

int main(void)
{
	struct epk_stats before, after;
	int status;

	epk_device_open(&dev);
	if (access(POLICY, F_OK))
		EPK_SKIP("the kernel has no PMDs for memory without struct page");
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	before = epk_device_stats(&dev);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	first_touch();
	keys();
	cuts();
	cut_not_made();
	protections();
	moves();
	touch_race();
	race();
	refused();
	observed();
	soft_dirty();
	policy();
	odd();
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	limited();
	status = in_process(dump_core);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	after = epk_device_stats(&dev);
	CHECK_EQ(after.vm_pages, before.vm_pages);
	CHECK_EQ(after.vm_domains, before.vm_domains);
	return epk_test_result();
}
