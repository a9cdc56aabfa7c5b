// SPDX-License-Identifier: MIT
/*
 * The life cycle of domain memory and of who uses it: each row of
 * docs/lifecycle.md that kmod_args, kmod_process and kmod_move do not try.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAGES		4
#define CGROUP		"/tmp/cgroup"

static struct epk_device dev;
static int id;
static volatile char *p;
static const char *self;

static void setup(void)
{
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	p = epk_device_map(&dev, id, PAGES * 4096);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	memset((void *)p, 7, PAGES * 4096);
}

static void teardown(void)
{
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, PAGES * 4096), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
}

/* Whatever advice is given, no byte changes and no right appears. */
static void advice(void)
{
	static const struct {
		int advice;
		int error;
	} cases[] = {
		{ MADV_NORMAL, 0 }, { MADV_RANDOM, 0 }, { MADV_SEQUENTIAL, 0 },
		{ MADV_WILLNEED, 0 }, { MADV_DONTNEED, EINVAL }, { MADV_FREE, EINVAL },
		{ MADV_REMOVE, ENODEV }, { MADV_DONTFORK, 0 }, { MADV_DOFORK, EINVAL },
		{ MADV_HWPOISON, EINVAL }, { MADV_MERGEABLE, 0 }, { MADV_UNMERGEABLE, 0 },
		{ MADV_HUGEPAGE, 0 }, { MADV_NOHUGEPAGE, 0 },
		{ MADV_DONTDUMP, 0 }, { MADV_DODUMP, EINVAL },
		{ MADV_WIPEONFORK, EINVAL }, { MADV_KEEPONFORK, 0 },
		{ MADV_COLD, EINVAL }, { MADV_PAGEOUT, EINVAL },
		{ MADV_POPULATE_READ, EINVAL }, { MADV_POPULATE_WRITE, EINVAL },
		{ 24 /* MADV_DONTNEED_LOCKED */, EINVAL }, { 25 /* MADV_COLLAPSE */, EINVAL },
		{ 9999, EINVAL },
	};
	unsigned int i, j;

	setup();
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int ret, got;
		char name[48];

		errno = 0;
		ret = madvise((void *)p, PAGES * 4096, cases[i].advice);
		got = ret ? errno : 0;
		/* A kernel that can poison pages finds none here. */
		if (cases[i].advice == MADV_HWPOISON && got == EFAULT)
			got = EINVAL;
		snprintf(name, sizeof(name), "madvise %d: %d", cases[i].advice, got);
		epk_check(got == cases[i].error, __FILE__, __LINE__, name, "");
		for (j = 0; j < PAGES; j++)
			CHECK_EQ(p[j * 4096], 7);
	}
	CHECK_EQ(epk_device_stats(&dev).pages, PAGES);
	teardown();
}

/* Locked it is already; what is asked for has no effect and does no harm. */
static void locking(void)
{
	setup();
	CHECK_EQ(mlock((void *)p, 4096), 0);
	CHECK_EQ(munlock((void *)p, 4096), 0);
	CHECK_EQ(mlockall(MCL_CURRENT | MCL_FUTURE), 0);
	CHECK_EQ(p[0], 7);
	teardown();
	setup();
	CHECK_EQ(munlockall(), 0);
	CHECK_EQ(p[0], 7);
	teardown();
}

/* Other memory in the middle of a domain's: an ordinary page, and no trace of the old. */
static void fixed(void)
{
	setup();
	REQUIRE(epk_device_unmap(&dev, p + 4096, 4096) == 0);
	REQUIRE(mmap((void *)(p + 4096), 4096, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + 4096);
	CHECK_EQ(p[4096], 0);
	CHECK_EQ(p[0] + p[2 * 4096], 14);
	CHECK_EQ(epk_device_stats(&dev).pages, PAGES - 1);
	/* And domain memory over it again: zero, with the domain's key. */
	REQUIRE(mmap((void *)(p + 4096), 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		     dev.fd, EPK_MMAP_DOMAIN(id)) == p + 4096);
	CHECK_EQ(p[4096], 0);
	epk_device_enter(&dev, 0);
	CHECK_EQ(EPK_TRY((void)p[4096]), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	teardown();
}

/* Whole, a part, beyond both ends; pages go back at once. */
static void unmapping(void)
{
	struct epk_stats before = epk_device_stats(&dev);

	setup();
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
	CHECK_EQ(epk_device_unmap(&dev, (p + 3 * 4096), 4096), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 2);
	CHECK_EQ(p[4096] + p[2 * 4096], 14);
	CHECK_EQ(EPK_TRY((void)p[0]), SIGSEGV);
	teardown();
	CHECK_EQ(epk_device_stats(&dev).vm_pages, before.vm_pages);
}

static void protecting(void)
{
	unsigned long faults;
	int pkey;

	setup();
	pkey = epk_device_entry(&dev, id).pkey;
	/* On CPUs with L1TF root may always. */
	CHECK_EQ(seteuid(1000), 0);
	CHECK_EQ(mprotect((void *)p, 4096, PROT_NONE), 0);
	CHECK_EQ(EPK_TRY((void)p[0]), SIGSEGV);
	CHECK_EQ(mprotect((void *)p, 4096, PROT_READ), 0);
	CHECK_EQ(seteuid(0), 0);
	/* On those CPUs what nobody may access may not stand in the page tables either. */
	faults = epk_device_stats(&dev).page_faults;
	CHECK_EQ(p[0], 7);
	CHECK_EQ(epk_device_stats(&dev).page_faults, faults + 1);
	CHECK_EQ(EPK_TRY(p[0] = 1), SIGSEGV);
	CHECK_EQ(pkey_mprotect((void *)p, 4096, PROT_READ | PROT_WRITE, pkey), 0);
	p[0] = 7;
	CHECK_EQ(pkey_mprotect((void *)p, 4096, PROT_READ, -1), 0);
	CHECK(pkey_mprotect((void *)p, 4096, PROT_READ, 0) == -1 && errno == EACCES);
	CHECK_EQ(p[0], 7);
	epk_device_enter(&dev, 0);
	CHECK_EQ(EPK_TRY((void)p[0]), SIGSEGV);
	teardown();
}

static void check_child(pid_t pid, int expected)
{
	int status = -1;

	REQUIRE(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, expected);
}

/* A child with a domain in EPT @ept that it holds when it ends so. */
static pid_t child_in(unsigned int ept, void (*end)(void))
{
	pid_t pid = fork();

	if (!pid) {
		epk_device_open(&dev);
		REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
		REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
		REQUIRE(epk_device_move(&dev, id, ept) == 0);
		p = epk_device_map(&dev, id, 4096);
		epk_device_enter(&dev, id);
		*p = 1;
		REQUIRE(dev.identity->ept == ept);
		end();
		_exit(1);
	}
	return pid;
}

static void end_exit(void)
{
	_exit(0);
}

static void end_kill(void)
{
	kill(getpid(), SIGKILL);
}

static void end_exec(void)
{
	execl(self, self, "fresh", NULL);
}

extern char **environ;

static void end_spawn(void)
{
	char *const argv[] = { (char *)self, "fresh", NULL };
	unsigned int ept = dev.identity->ept;
	int status = -1;
	pid_t pid;

	if (posix_spawn(&pid, self, NULL, NULL, argv, environ))
		_exit(2);
	waitpid(pid, &status, 0);
	_exit(status || dev.identity->ept != ept || *p != 1);
}

static void *die_holding(void *arg)
{
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(*p, 1);
	/* The bare system call: no destructor, no clean-up. */
	syscall(SYS_exit, 0);
	return arg;
}

/* The domain lives on, and who holds it still does. */
static void end_thread(void)
{
	pthread_t thread;
	int i;

	for (i = 0; i < 20; i++) {
		if (pthread_create(&thread, NULL, die_holding, NULL))
			_exit(2);
		pthread_join(thread, NULL);
	}
	_exit(*p != 1 || epk_failures);
}

static void ends(void)
{
	const unsigned int where[] = { 0, 1, 100, dev.init.nr_epts - 1 };
	unsigned int i;

	for (i = 0; i < sizeof(where) / sizeof(*where); i++) {
		check_child(child_in(where[i], end_exit), 0);
		check_child(child_in(where[i], end_kill), SIGKILL);
		check_child(child_in(where[i], end_exec), 0);
		check_child(child_in(where[i], end_spawn), 0);
		check_child(child_in(where[i], end_thread), 0);
	}
}

/* Pages before they are touched, limits, and what happens at them. */
static void populating(void)
{
	struct epk_stats before, after;
	struct epk_range range;
	char *q;

	setup();
	q = epk_device_map(&dev, id, 64 * 4096);
	before = epk_device_stats(&dev);
	range = (struct epk_range) { (uintptr_t)q, 64 * 4096 };
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_POPULATE, &range), 0);
	after = epk_device_stats(&dev);
	CHECK_EQ(after.pages, before.pages + 64);
	CHECK_EQ(q[0] + q[63 * 4096], 0);
	q[5] = 1;
	CHECK_EQ(epk_device_stats(&dev).page_faults, before.page_faults);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_POPULATE, &range), 0);
	CHECK_EQ(q[5], 1);

	range.len = 100;
	CHECK(ioctl(dev.fd, EPK_IOC_POPULATE, &range) == -1 && errno == EINVAL);
	range.len = 0;
	CHECK(ioctl(dev.fd, EPK_IOC_POPULATE, &range) == -1 && errno == EINVAL);
	range = (struct epk_range) { (uintptr_t)q + 4096, -4096ull };
	CHECK(ioctl(dev.fd, EPK_IOC_POPULATE, &range) == -1 && errno == EINVAL);
	range = (struct epk_range) { (uintptr_t)&dev & -4096ul, 4096 };
	CHECK(ioctl(dev.fd, EPK_IOC_POPULATE, &range) == -1 && errno == EINVAL);
	range = (struct epk_range) { 4096, 4096 };
	CHECK(ioctl(dev.fd, EPK_IOC_POPULATE, &range) == -1 && errno == ENOMEM);
	CHECK(ioctl(dev.fd, EPK_IOC_POPULATE, NULL) == -1 && errno == EFAULT);
	CHECK_EQ(epk_device_unmap(&dev, q, 64 * 4096), 0);

	REQUIRE(put("/sys/module/epk/parameters/max_process_pages", "100"));
	CHECK(epk_device_map(&dev, id, 97 * 4096) == MAP_FAILED && errno == ENOMEM);
	q = epk_device_map(&dev, id, 96 * 4096);
	CHECK(q != MAP_FAILED);
	CHECK_EQ(epk_device_unmap(&dev, q, 96 * 4096), 0);
	REQUIRE(put("/sys/module/epk/parameters/max_process_pages", "0"));
	REQUIRE(put("/sys/module/epk/parameters/max_pages", "50"));
	CHECK(epk_device_map(&dev, id, 47 * 4096) == MAP_FAILED && errno == ENOMEM);
	REQUIRE(put("/sys/module/epk/parameters/max_pages", "0"));
	q = epk_device_map(&dev, id, 200 * 4096);
	CHECK(q != MAP_FAILED);
	CHECK_EQ(epk_device_unmap(&dev, q, 200 * 4096), 0);
	teardown();
}

static void unloading(void)
{
	setup();
	CHECK(syscall(SYS_delete_module, "epk", O_NONBLOCK) == -1 && errno == EAGAIN);
	CHECK_EQ(p[0], 7);
	teardown();
}

/* KiB of what a process has in RAM, all kinds. */
static long resident(void)
{
	return epk_kib_of("/proc/self/status", "VmRSS:");
}

/* Nearly: later kernels keep a part of the sum by CPU. */
static void check_resident(long before, long pages)
{
	long more = (resident() - before) / 4;

	CHECK(more > pages - 200 && more < pages + 200);
}

/* By 4 KiB and by 2 MiB, moved, evicted, unmapped in parts, with the domain freed first. */
static void counting(void)
{
	const long nr = 2048;
	long before;
	char *q;

	setup();
	before = resident();
	q = epk_device_map(&dev, id, nr * 4096);
	REQUIRE(q != MAP_FAILED);
	check_resident(before, 0);
	memset(q, 1, nr * 4096);
	check_resident(before, nr);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	check_resident(before, nr);
	CHECK_EQ(epk_device_move(&dev, id, 2), 0);
	CHECK_EQ(mprotect(q, nr * 4096, PROT_NONE), 0);
	check_resident(before, nr);
	CHECK_EQ(epk_device_unmap(&dev, q + 4096, nr * 2048), 0);
	check_resident(before, nr / 2);
	CHECK_EQ(epk_device_unmap(&dev, q, nr * 4096), 0);
	check_resident(before, 0);

	q = epk_device_map(&dev, id, nr * 4096 + 4096);
	REQUIRE(q != MAP_FAILED && !madvise(q, nr * 4096, MADV_NOHUGEPAGE));
	CHECK_EQ(epk_device_populate(&dev, q, nr * 4096), 0);
	check_resident(before, nr);
	CHECK_EQ(epk_device_unmap(&dev, q, nr * 4096 + 4096), 0);
	check_resident(before, 0);
	teardown();
}

static void fill_in_cgroup(size_t len)
{
	char *q;

	REQUIRE(put(CGROUP "/test/cgroup.procs", "0"));
	q = epk_device_map(&dev, id, len);
	REQUIRE(q != MAP_FAILED);
	memset(q, 1, len);
}

/* A memory cgroup with a limit kills who goes beyond it, and gets all back. */
static void end_oom(void)
{
	fill_in_cgroup(64 << 20);
	_exit(0);
}

static long cgroup_number(const char *file)
{
	FILE *f = fopen(file, "r");
	long value = -1;

	REQUIRE(f && fscanf(f, "%ld", &value) == 1);
	fclose(f);
	return value;
}

static void out_of_memory(void)
{
	struct epk_stats before = epk_device_stats(&dev);

	/* The kernel's report of it has a call trace, which is no trouble here. */
	REQUIRE(put("/proc/sys/kernel/printk", "1"));
	REQUIRE(put(CGROUP "/test/memory.max", "16M"));
	check_child(child_in(5, end_oom), SIGKILL);
	REQUIRE(put("/proc/sys/kernel/printk", "5"));
	CHECK_EQ(epk_device_stats(&dev).vm_pages, before.vm_pages);
	REQUIRE(put(CGROUP "/test/memory.max", "max"));
}

static volatile int *shared;

/* Memory in a domain, and nothing else that is worth killing for. */
static void end_hog(void)
{
	fill_in_cgroup(14 << 20);
	shared[0] = 1;
	while (!shared[1])
		sched_yield();
	_exit(0);
}

static pid_t small_neighbour(void)
{
	size_t len = 12 << 20;
	pid_t pid = fork();
	char *q;

	if (pid)
		return pid;
	REQUIRE(put(CGROUP "/test/cgroup.procs", "0"));
	q = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(q != MAP_FAILED);
	memset(q, 1, len);
	_exit(0);
}

static bool log_has(const char *text)
{
	static char log[1 << 20];
	int len = klogctl(3, log, sizeof(log) - 1);

	if (!CHECK(len > 0))
		return false;
	log[len] = 0;
	return strstr(log, text);
}

/* The OOM killer finds who has the memory, and not who asks for the last page. */
static void right_victim(void)
{
	pid_t hog, small;
	char line[64];

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(put("/proc/sys/kernel/printk", "1"));
	REQUIRE(put(CGROUP "/test/memory.max", "20M"));
	hog = child_in(5, end_hog);
	while (!shared[0])
		sched_yield();
	small = small_neighbour();
	check_child(small, 0);
	shared[1] = 1;
	check_child(hog, SIGKILL);
	snprintf(line, sizeof(line), "Killed process %d (kmod_life_test)", hog);
	CHECK(log_has(line));
	REQUIRE(put("/proc/sys/kernel/printk", "5"));
	REQUIRE(put(CGROUP "/test/memory.max", "max"));
	munmap((void *)shared, 4096);
}

/* Domain pages are charged to who has them, as long as they are there. */
static void end_charged(void)
{
	long before, after;
	char *q;

	REQUIRE(put(CGROUP "/test/cgroup.procs", "0"));
	q = epk_device_map(&dev, id, 4 << 20);
	before = cgroup_number(CGROUP "/test/memory.current");
	memset(q, 1, 4 << 20);
	after = cgroup_number(CGROUP "/test/memory.current");
	CHECK(after - before > 3 << 20);
	CHECK_EQ(epk_device_unmap(&dev, q, 4 << 20), 0);
	after = cgroup_number(CGROUP "/test/memory.current");
	CHECK(after - before < 1 << 20);
	_exit(epk_failures != 0);
}

/* Frozen in an EPT while it holds a domain, and thawed there. */

static void end_frozen(void)
{
	unsigned int ept = dev.identity->ept;

	shared[0] = 1;
	while (!shared[1])
		shared[2]++;
	_exit(dev.identity->ept != ept || *p != 1);
}

static void freezing(void)
{
	char pid_text[16], events[64] = "";
	int fd, seen;
	pid_t pid;

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = child_in(5, end_frozen);
	while (!shared[0])
		sched_yield();
	snprintf(pid_text, sizeof(pid_text), "%d", pid);
	REQUIRE(put(CGROUP "/test/cgroup.procs", pid_text));
	REQUIRE(put(CGROUP "/test/cgroup.freeze", "1"));
	do {
		fd = open(CGROUP "/test/cgroup.events", O_RDONLY);
		CHECK(read(fd, events, sizeof(events) - 1) > 0);
		close(fd);
	} while (!strstr(events, "frozen 1"));
	seen = shared[2];
	CHECK_EQ(dev.identity->ept, 0);
	sched_yield();
	CHECK_EQ(shared[2], seen);
	REQUIRE(put(CGROUP "/test/cgroup.freeze", "0"));
	shared[1] = 1;
	check_child(pid, 0);
	munmap((void *)shared, 4096);
}

static void cgroup(void)
{
	mkdir(CGROUP, 0755);
	REQUIRE(mount("none", CGROUP, "cgroup2", 0, NULL) == 0);
	REQUIRE(put(CGROUP "/cgroup.subtree_control", "+memory"));
	REQUIRE(mkdir(CGROUP "/test", 0755) == 0);
	check_child(child_in(5, end_charged), 0);
	out_of_memory();
	right_victim();
	freezing();
	while (rmdir(CGROUP "/test") && errno == EBUSY)
		sched_yield();
	CHECK_EQ(umount(CGROUP), 0);
}

/* The CPU goes away under a thread that is in an EPT; it goes on on another. */
static void end_unplugged(void)
{
	unsigned int ept = dev.identity->ept;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(1, &set);
	sched_setaffinity(0, sizeof(set), &set);
	shared[0] = 1;
	while (!shared[1])
		if (dev.identity->ept != ept || *p != 1)
			_exit(1);
	_exit(0);
}

static void unplugging(void)
{
	const char *online = "/sys/devices/system/cpu/cpu1/online";
	pid_t pid;

	if (access(online, W_OK))
		return;
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = child_in(5, end_unplugged);
	while (!shared[0])
		sched_yield();
	CHECK(put(online, "0"));
	sched_yield();
	CHECK(put(online, "1"));
	shared[1] = 1;
	check_child(pid, 0);
	/* The CPU that came back is in EPT 0 and can enter others. */
	shared[0] = 0;
	pid = child_in(6, end_unplugged);
	check_child(pid, 0);
	munmap((void *)shared, 4096);
}

/* What root can see of it all: a line for each process, and tracepoints. */
#define TRACING	"/sys/kernel/debug/tracing"

static bool file_has(const char *path, const char *text)
{
	static char content[65536];
	int fd = open(path, O_RDONLY);
	ssize_t len = fd < 0 ? -1 : read(fd, content, sizeof(content) - 1);

	close(fd);
	if (!CHECK(len > 0))
		return false;
	content[len] = 0;
	return strstr(content, text);
}

static void statistics(void)
{
	static const char *const events[] = { "epk_place: id=", "epk_fault: addr=", "epk_free: id=" };
	struct epk_stats stats;
	struct epk_entry place;
	struct epk_move move;
	char line[160];
	unsigned int i;

	REQUIRE(put(TRACING "/events/epk/enable", "1"));
	setup();
	place = epk_device_entry(&dev, id);
	CHECK_EQ(epk_device_move(&dev, id, 3), 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(p[0], 7);
	stats = epk_device_stats(&dev);
	CHECK(stats.moves && stats.page_faults >= PAGES);
	snprintf(line, sizeof(line), "\n%d kmod_life_test 1 0 1 %d %d %llu %llu %llu\n", getpid(),
		 PAGES, PAGES, (unsigned long long)stats.moves,
		 (unsigned long long)stats.page_faults, (unsigned long long)stats.revocations);
	CHECK(file_has("/sys/kernel/debug/epk/processes", line));
	snprintf(line, sizeof(line), "epk_place: id=%d ept=3 pkey=", id);
	CHECK(file_has(TRACING "/trace", line));

	/* Away from where this thread has its key open. */
	move = (struct epk_move) { .id = id, .ept = place.ept, .pkey = place.pkey };
	place = epk_device_entry(&dev, id);
	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
	CHECK_EQ(epk_device_stats(&dev).revocations, stats.revocations + 1);
	snprintf(line, sizeof(line), "epk_revoke: ept=%u pkru=%#x", place.ept,
		 1u << 2 * place.pkey);
	CHECK(file_has(TRACING "/trace", line));
	teardown();
	for (i = 0; i < sizeof(events) / sizeof(*events); i++)
		CHECK(file_has(TRACING "/trace", events[i]));
	CHECK(put(TRACING "/events/epk/enable", "0"));
}

static int fresh(void)
{
	epk_device_open(&dev);
	CHECK_EQ(dev.identity->ept, 0);
	CHECK_EQ(epk_rdpkru(), 3 * EPK_PKRU_DENY_ALL);
	return epk_failures != 0;
}

int main(int argc, char *argv[])
{
	self = argv[0];
	if (argc > 1)
		return fresh();
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	advice();
	locking();
	fixed();
	unmapping();
	protecting();
	populating();
	counting();
	statistics();
	unloading();
	ends();
	cgroup();
	unplugging();
	CHECK_EQ(epk_device_stats(&dev).domains, 0);
	return epk_test_result();
}
