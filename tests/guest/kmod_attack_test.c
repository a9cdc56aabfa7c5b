// SPDX-License-Identifier: MIT
/*
 * Attacks that have the kernel do what the thread may not: each is made on a
 * page with a plain protection key first, where most succeed, which shows that
 * they are real, and then on a domain that the thread does not hold.
 */
#include "epk_test.h"
#include "core_dump.h"
#include "uring.h"

#include <sched.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <linux/userfaultfd.h>

#define SECRET		0x5ec0ffeeull
#define CORE		"/tmp/core"

static struct epk_device dev;

/* The page under attack, its key, and what the last attack got of it. */
static volatile uint64_t *target;
static int target_pkey, target_id;
static uint64_t loot;
static bool on_domain;

static bool by_readv(void)
{
	struct iovec to = { &loot, 8 }, from = { (void *)target, 8 };

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 8;
}

static bool by_writev(void)
{
	uint64_t value = SECRET;
	struct iovec from = { &value, 8 }, to = { (void *)target, 8 };

	loot = SECRET;
	return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == 8;
}

static bool by_mem_read(void)
{
	int fd = open("/proc/self/mem", O_RDONLY);
	bool got = pread(fd, &loot, 8, (uintptr_t)target) == 8;

	if (!got)
		CHECK_EQ(errno, EIO);
	close(fd);
	return got;
}

static bool by_mem_write(void)
{
	int fd = open("/proc/self/mem", O_RDWR);
	uint64_t value = SECRET;
	bool got = pwrite(fd, &value, 8, (uintptr_t)target) == 8;

	loot = SECRET;
	close(fd);
	return got;
}

static bool by_pkey_mprotect(void)
{
	bool got = !pkey_mprotect((void *)target, 4096, PROT_READ | PROT_WRITE, 0);

	if (got) {
		loot = *target;
		pkey_mprotect((void *)target, 4096, PROT_READ | PROT_WRITE, target_pkey);
	}
	return got;
}

/* The next owner of a freed key starts with it open. */
static bool by_pkey_free(void)
{
	uint32_t pkru = epk_rdpkru();
	int pkey;

	if (pkey_free(target_pkey)) {
		CHECK_EQ(errno, EPERM);
		CHECK_EQ(pkey_alloc(0, 0), -1);
		return false;
	}
	pkey = pkey_alloc(0, 0);
	CHECK_EQ(pkey, target_pkey);
	if (on_domain)
		epk_device_goto(&dev, epk_device_entry(&dev, target_id).ept);
	loot = *target;
	if (on_domain)
		epk_device_goto(&dev, 0);
	epk_wrpkru(pkru);
	return true;
}

/* In another process, which the parent waits for; it says what it found. */
static bool in_child(bool (*attack)(pid_t parent))
{
	int pipes[2], status;
	pid_t parent = getpid(), pid;
	bool got;

	REQUIRE(pipe(pipes) == 0);
	pid = fork();
	if (!pid) {
		loot = 0;
		if (!attack(parent))
			_exit(1);
		_exit(write(pipes[1], &loot, 8) != 8);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	got = status == 0 && read(pipes[0], &loot, 8) == 8;
	close(pipes[0]);
	close(pipes[1]);
	return got;
}

static bool child_reads_its_own(pid_t parent)
{
	(void)parent;
	epk_wrpkru(0);
	return !EPK_TRY(loot = *target);
}

static bool by_fork(void)
{
	return in_child(child_reads_its_own);
}

static bool child_reads_parent(pid_t parent)
{
	struct iovec to = { &loot, 8 }, from = { (void *)target, 8 };

	return process_vm_readv(parent, &to, 1, &from, 1, 0) == 8;
}

static bool by_child(void)
{
	return in_child(child_reads_parent);
}

/* The kernel as the reader: read from a pipe or file what it took. */
static bool piped(int fd)
{
	return read(fd, &loot, 8) == 8;
}

static bool by_write(void)
{
	int pipes[2];
	bool got;

	REQUIRE(pipe(pipes) == 0);
	got = write(pipes[1], (void *)target, 8) == 8 && piped(pipes[0]);
	close(pipes[0]);
	close(pipes[1]);
	return got;
}

static bool by_read(void)
{
	int pipes[2];
	bool got;
	uint64_t value = SECRET;

	REQUIRE(pipe(pipes) == 0);
	CHECK_EQ(write(pipes[1], &value, 8), 8);
	got = read(pipes[0], (void *)target, 8) == 8;
	loot = SECRET;
	close(pipes[0]);
	close(pipes[1]);
	return got;
}

static bool by_vmsplice(void)
{
	struct iovec from = { (void *)target, 8 };
	int pipes[2];
	bool got;

	REQUIRE(pipe(pipes) == 0);
	got = vmsplice(pipes[1], &from, 1, 0) == 8 && piped(pipes[0]);
	close(pipes[0]);
	close(pipes[1]);
	return got;
}

static bool by_direct(void)
{
	int fd = open("/dev/ram0", O_RDWR | O_DIRECT);
	static char page[4096] __attribute__((aligned(4096)));
	bool got;

	REQUIRE(fd >= 0);
	/* The test of the test: this does work from ordinary memory. */
	CHECK_EQ(pwrite(fd, page, 4096, 0), 4096);
	got = pwrite(fd, (void *)target, 4096, 0) == 4096 && pread(fd, page, 4096, 0) == 4096;
	memcpy(&loot, page, 8);
	close(fd);
	return got;
}

static bool uring_attack(unsigned int flags, unsigned int sqe_flags)
{
	struct uring ring;
	uint64_t value = SECRET;
	int pipes[2];
	bool got;

	REQUIRE(pipe(pipes) == 0);
	REQUIRE(uring_open(&ring, flags) == 0);
	CHECK_EQ(uring_write(&ring, pipes[1], &value, 8, sqe_flags), 8);
	CHECK(piped(pipes[0]) && loot == SECRET);
	loot = 0;
	got = uring_write(&ring, pipes[1], (void *)target, 8, sqe_flags) == 8 && piped(pipes[0]);
	uring_close(&ring);
	close(pipes[0]);
	close(pipes[1]);
	return got;
}

static bool by_uring(void)
{
	return uring_attack(0, 0);
}

static bool by_uring_worker(void)
{
	return uring_attack(0, IOSQE_ASYNC);
}

static bool by_sqpoll(void)
{
	return uring_attack(IORING_SETUP_SQPOLL, 0);
}

static bool by_uring_buffer(void)
{
	struct iovec iov = { (void *)target, 4096 };
	struct uring ring;
	bool got;

	REQUIRE(uring_open(&ring, 0) == 0);
	got = !syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &iov, 1);
	loot = SECRET;
	uring_close(&ring);
	return got;
}

static bool child_traces_parent(pid_t parent)
{
	bool got;

	if (ptrace(PTRACE_ATTACH, parent, 0, 0))
		return false;
	waitpid(parent, NULL, 0);
	errno = 0;
	loot = ptrace(PTRACE_PEEKDATA, parent, (void *)target, 0);
	got = !errno;
	if (!got)
		CHECK_EQ(errno, EIO);
	ptrace(PTRACE_DETACH, parent, 0, 0);
	return got;
}

static bool by_ptrace(void)
{
	return in_child(child_traces_parent);
}

/* A child has no domain, so who dumps core has to be a program of its own. */
static const char *self;

static bool by_core(void)
{
	int status;
	pid_t pid;
	bool got;

	CHECK(put(CORE_PATTERN, CORE));
	pid = fork();
	if (!pid) {
		execl(self, self, on_domain ? "core-domain" : "core-plain", NULL);
		_exit(1);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WCOREDUMP(status));
	loot = SECRET;
	got = core_has(CORE, SECRET);
	unlink(CORE);
	return got;
}

/* What would let another handle the page's faults, or move it, or share it. */
static bool by_userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	bool got;

	REQUIRE(fd >= 0);
	REQUIRE(ioctl(fd, UFFDIO_API, &api) == 0);
	reg.range.start = (uintptr_t)target;
	reg.range.len = 4096;
	got = !ioctl(fd, UFFDIO_REGISTER, &reg);
	if (got)
		ioctl(fd, UFFDIO_UNREGISTER, &reg.range);
	loot = SECRET;
	close(fd);
	return got;
}

static bool by_advice(int advice)
{
	loot = SECRET;
	return !madvise((void *)target, 4096, advice);
}

static bool by_pageout(void)
{
	return by_advice(MADV_PAGEOUT);
}

/* VM_IO makes the kernel skip it; it says so by doing nothing. */
static bool by_ksm(void)
{
	char line[256];
	bool merges = false, here = false;
	FILE *f;

	by_advice(MADV_MERGEABLE);
	f = fopen("/proc/self/smaps", "r");
	REQUIRE(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)target && (uintptr_t)target < end;
		if (here && !strncmp(line, "VmFlags:", 8))
			merges = strstr(line, " mg");
	}
	fclose(f);
	by_advice(MADV_UNMERGEABLE);
	return merges;
}

static const struct {
	const char *name;
	bool (*attack)(void);
	bool plain;		/* what a plain key lets happen */
} attacks[] = {
	{ "A1 process_vm_readv", by_readv, true },
	{ "A1 process_vm_writev", by_writev, true },
	{ "A2 /proc/self/mem read", by_mem_read, true },
	{ "A2 /proc/self/mem write", by_mem_write, true },
	{ "A3 pkey_mprotect to key 0", by_pkey_mprotect, true },
	{ "A6 fork, the child opens the key", by_fork, true },
	{ "A6 fork, process_vm_readv of the parent", by_child, true },
	{ "A10 read into it", by_read, false },
	{ "A10 vmsplice", by_vmsplice, false },
	{ "A10 O_DIRECT", by_direct, false },
	{ "A10 io_uring's fixed buffer", by_uring_buffer, false },
	{ "A11 ptrace", by_ptrace, true },
	{ "A11 core dump", by_core, true },
	{ "A12 userfaultfd", by_userfaultfd, true },
	{ "A12 MADV_PAGEOUT", by_pageout, true },
	{ "A12 MADV_MERGEABLE", by_ksm, true },
	/* Last: it spoils the plain key. */
	{ "A5 pkey_free and pkey_alloc", by_pkey_free, true },
};

/*
 * The emulator lets the kernel read what a closed key protects, so these say
 * nothing about a plain key.  A domain is in another EPT besides.
 */
static const struct {
	const char *name;
	bool (*attack)(void);
} reads[] = {
	{ "A10 write from it", by_write },
	{ "A10 io_uring", by_uring },
	{ "A10 io_uring, by a worker", by_uring_worker },
	{ "A10 io_uring, by the polling thread", by_sqpoll },
};

static void attack_plain(void)
{
	unsigned int i;

	target_pkey = pkey_alloc(0, 0);
	REQUIRE(target_pkey > 0);
	target = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(target != MAP_FAILED);
	*target = SECRET;
	REQUIRE(pkey_mprotect((void *)target, 4096, PROT_READ | PROT_WRITE, target_pkey) == 0);
	epk_wrpkru(EPK_PKRU_DENY_ALL);
	for (i = 0; i < sizeof(attacks) / sizeof(*attacks); i++) {
		bool got;

		loot = 0;
		got = attacks[i].attack();
		epk_check(got == attacks[i].plain && (!got || loot == SECRET), __FILE__, __LINE__,
			  attacks[i].name, " on a plain key");
	}
	munmap((void *)target, 4096);
	CHECK_EQ(pkey_free(target_pkey), 0);
}

static void attack_domain(int id)
{
	unsigned int i;

	on_domain = true;
	target_pkey = epk_device_entry(&dev, id).pkey;
	for (i = 0; i < sizeof(attacks) / sizeof(*attacks); i++) {
		loot = 0;
		epk_check(!attacks[i].attack(), __FILE__, __LINE__, attacks[i].name, "");
	}
	for (i = 0; i < sizeof(reads) / sizeof(*reads); i++) {
		loot = 0;
		epk_check(!reads[i].attack(), __FILE__, __LINE__, reads[i].name, "");
	}
	/* Nothing of all that changed it. */
	epk_device_enter(&dev, id);
	CHECK_EQ(*target, SECRET + 1);
	epk_device_enter(&dev, 0);
}

/* The holder's own system calls work, its workers' do not: they hold nothing. */
static void holder(int id)
{
	struct uring ring;
	int pipes[2];

	REQUIRE(pipe(pipes) == 0);
	REQUIRE(uring_open(&ring, 0) == 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(write(pipes[1], (void *)target, 8), 8);
	CHECK(piped(pipes[0]) && loot == SECRET + 1);
	CHECK_EQ(uring_write(&ring, pipes[1], (void *)target, 8, IOSQE_ASYNC), -EFAULT);
	epk_device_enter(&dev, 0);
	uring_close(&ring);
	close(pipes[0]);
	close(pipes[1]);
}

/* A15: the same index and place in another process is another domain. */
static void other_process(int id)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct epk_device own;
		volatile uint64_t *p;
		int own_id;

		epk_failures = 0;
		epk_device_open(&own);
		own_id = epk_device_alloc_far(&own);
		p = epk_device_map(&own, own_id, 4096);
		/* Or it loses its key with the CPU. */
		REQUIRE(ioctl(own.fd, EPK_IOC_THREAD, 0) == 0);
		epk_device_enter(&own, own_id);
		CHECK_EQ(own.identity->ept, epk_device_entry(&dev, id).ept);
		CHECK_EQ(*p, 0);
		*p = 7;
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(*target, SECRET + 1);
	epk_device_enter(&dev, 0);
}

static void write_parameter(const char *value)
{
	int fd = open("/sys/module/epk/parameters/debug_access", O_WRONLY);

	REQUIRE(fd >= 0);
	CHECK_EQ(write(fd, value, 1), 1);
	close(fd);
}

/* Does the kernel's log have it, from where @log is? */
static bool log_says(int log, const char *text)
{
	char record[1024];
	bool says = false;
	ssize_t n;

	while ((n = read(log, record, sizeof(record) - 1)) > 0) {
		record[n] = 0;
		says |= strstr(record, text) != NULL;
	}
	return says;
}

/* Root opens it for debuggers, and for as long as it wants; the log tells. */
static void debug_access(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	struct stat st;

	CHECK_EQ(stat("/sys/module/epk/parameters/debug_access", &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0600);
	REQUIRE(log >= 0 && lseek(log, 0, SEEK_END) == 0);
	write_parameter("1");
	CHECK(log_says(log, "/proc/PID/mem reach domain memory"));
	CHECK(by_mem_read() && loot == SECRET + 1);
	CHECK(by_ptrace() && loot == SECRET + 1);
	CHECK(log_says(log, "reads domain memory"));
	write_parameter("0");
	CHECK(log_says(log, "/proc/PID/mem do not reach domain memory"));
	CHECK(!by_mem_read());
	close(log);
}

static int domain_with_secret(uint64_t value)
{
	epk_device_open(&dev);
	target_id = epk_device_alloc_far(&dev);
	target = epk_device_map(&dev, target_id, 4096);
	REQUIRE(target != MAP_FAILED);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	epk_device_enter(&dev, target_id);
	*target = value;
	epk_device_enter(&dev, 0);
	return target_id;
}

/* Dumps core with a word in memory that stands nowhere else. */
static int dump_core(const char *what)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	int id;

	setrlimit(RLIMIT_CORE, &limit);
	if (!strcmp(what, "core-domain")) {
		id = domain_with_secret(0);
		epk_device_enter(&dev, id);
	} else {
		target = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			      -1, 0);
	}
	*(volatile uint32_t *)target = (uint32_t)~SECRET;
	((volatile uint32_t *)target)[1] = ~SECRET >> 32;
	epk_try_init();
	signal(SIGABRT, SIG_DFL);
	abort();
}

int main(int argc, char *argv[])
{
	int id;

	self = argv[0];
	if (argc > 1)
		return dump_core(argv[1]);
	epk_try_init();
	attack_plain();
	id = domain_with_secret(SECRET + 1);
	attack_domain(id);
	holder(id);
	other_process(id);
	debug_access();
	return epk_test_result();
}
