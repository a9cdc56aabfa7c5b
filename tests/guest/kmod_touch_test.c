// SPDX-License-Identifier: MIT
/*
 * Memory for stacks, in which the module counts the pages that come by a touch: the process's own
 * memory in everything else, and no tie between a forked child and its parent's open of the device.
 */
#include "epk_test.h"
#include "core_dump.h"

#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define PAGE	4096ul
#define PAGES	16ul
#define MANY	4000
#define STATS	"/sys/kernel/debug/epk/stats"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif

static struct epk_device dev;

static char *map_with(int prot, int flags, unsigned long pages)
{
	return mmap(NULL, pages * PAGE, prot, flags, dev.fd, EPK_MMAP_STACK);
}

static char *map_stack(void)
{
	char *stack = map_with(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, PAGES);

	REQUIRE(stack != MAP_FAILED);
	return stack;
}

static unsigned long touched(const char *stack)
{
	return *(const volatile uint64_t *)stack;
}

static void refused(void)
{
	CHECK(map_with(PROT_READ, MAP_SHARED, PAGES) == MAP_FAILED && errno == EINVAL);
	CHECK(map_with(PROT_READ | PROT_EXEC, MAP_PRIVATE, PAGES) == MAP_FAILED && errno == EACCES);
	CHECK(map_with(PROT_READ, MAP_PRIVATE | MAP_NORESERVE, (1ul << 30) / PAGE + 1) ==
	      MAP_FAILED && errno == EINVAL);
	CHECK(mmap(NULL, PAGES * PAGE, PROT_READ, MAP_PRIVATE, dev.fd, EPK_MMAP_STACK + PAGE) ==
	      MAP_FAILED && errno == EINVAL);
}

/* By an open that is only for reading, memory that is shared is another kind to the kernel. */
static void refused_to_readers(void)
{
	struct epk_init init = { .version = EPK_ABI_VERSION };
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		epk_failures = 0;
		dev.fd = open(EPK_DEVICE, O_RDONLY | O_CLOEXEC);
		init.pkeys = epk_all_pkeys();
		REQUIRE(dev.fd >= 0 && ioctl(dev.fd, EPK_IOC_INIT, &init) == 0);
		CHECK(map_with(PROT_READ, MAP_SHARED, PAGES) == MAP_FAILED && errno == EINVAL);
		CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, dev.fd, EPK_MMAP_DOMAIN(1)) ==
		      MAP_FAILED && errno == EINVAL);
		CHECK(map_with(PROT_READ, MAP_PRIVATE, PAGES) != MAP_FAILED);
		_exit(epk_failures != 0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

static void counts(void)
{
	volatile char *stack = map_stack(), *other = map_stack();
	unsigned long i;
	int zero;

	CHECK_EQ(touched((char *)stack), 0);
	CHECK_EQ(stack[3 * PAGE], 0);
	CHECK_EQ(touched((char *)stack), 1);
	/* Read before, and now the process's own. */
	stack[3 * PAGE] = 1;
	stack[3 * PAGE + 1] = 1;
	CHECK_EQ(touched((char *)stack), 1);
	stack[5 * PAGE] = 1;
	CHECK_EQ(touched((char *)stack), 2);
	/* By the kernel. */
	zero = open("/dev/zero", O_RDONLY);
	REQUIRE(zero >= 0);
	CHECK_EQ(read(zero, (char *)stack + 7 * PAGE - 8, 16), 16);
	CHECK_EQ(touched((char *)stack), 4);
	close(zero);
	/* Given back, and zero again. */
	CHECK_EQ(madvise((char *)stack + PAGE, (PAGES - 1) * PAGE, MADV_DONTNEED), 0);
	CHECK_EQ(touched((char *)stack), 4);
	CHECK_EQ(stack[3 * PAGE], 0);
	CHECK_EQ(stack[5 * PAGE], 0);
	CHECK_EQ(touched((char *)stack), 6);
	for (i = 1; i < PAGES; i++)
		stack[i * PAGE] = 1;
	CHECK_EQ(touched((char *)stack), 6 + PAGES - 3);
	/* Of the other nothing. */
	CHECK_EQ(touched((char *)other), 0);
	munmap((char *)stack, PAGES * PAGE);
	munmap((char *)other, PAGES * PAGE);
}

/* Locked memory may have all its pages at once, and can be given back all the same. */
static void locked(void)
{
	volatile char *stack;
	unsigned long before;

	CHECK_EQ(mlockall(MCL_FUTURE), 0);
	stack = map_with(PROT_READ, MAP_PRIVATE | MAP_NORESERVE, PAGES);
	REQUIRE(stack != MAP_FAILED);
	CHECK_EQ(mprotect((char *)stack + PAGE, (PAGES - 1) * PAGE, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(mlock((char *)stack, PAGES * PAGE), 0);
	before = touched((char *)stack);
	CHECK_EQ(before, PAGES - 1);
	stack[PAGE] = 1;
	CHECK_EQ(touched((char *)stack), before);
	CHECK(!madvise((char *)stack + PAGE, PAGE, MADV_DONTNEED) ||
	      !madvise((char *)stack + PAGE, PAGE, MADV_DONTNEED_LOCKED));
	CHECK_EQ(stack[PAGE], 0);
	CHECK_EQ(touched((char *)stack), before + 1);
	munmap((char *)stack, PAGES * PAGE);
	munlockall();
}

/* It can be cut, and protected, and not run, nor go elsewhere. */
static void stays(void)
{
	volatile char *memory = map_stack();
	char *stack = (char *)memory;

	CHECK_EQ(mprotect(stack, PAGE, PROT_READ), 0);
	CHECK_EQ(mprotect(stack + 4 * PAGE, PAGE, PROT_NONE), 0);
	memory[5 * PAGE] = 1;
	CHECK_EQ(touched(stack), 1);
	CHECK(mprotect(stack + PAGE, PAGE, PROT_EXEC) == -1 && errno == EACCES);
	CHECK(mremap(stack + 5 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
	CHECK(mremap(stack + 5 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		     stack + 9 * PAGE) == MAP_FAILED);
	CHECK_EQ(memory[5 * PAGE], 1);
	/* Who writes to the count has one of its own. */
	CHECK_EQ(mprotect(stack, PAGE, PROT_READ | PROT_WRITE), 0);
	*(volatile uint64_t *)stack = 7;
	memory[6 * PAGE] = 1;
	CHECK_EQ(touched(stack), 7);
	munmap(stack, PAGES * PAGE);
	/* Not even where there is room behind it. */
	stack = map_with(PROT_READ, MAP_PRIVATE | MAP_NORESERVE, PAGES + 1);
	REQUIRE(stack != MAP_FAILED);
	CHECK_EQ(munmap(stack + PAGES * PAGE, PAGE), 0);
	CHECK(mremap(stack, PAGES * PAGE, (PAGES + 1) * PAGE, 0) == MAP_FAILED);
	munmap(stack, PAGES * PAGE);
}

static int status_of(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

/* Another process, in the name of this one. */
static void look_from_outside(char *stack)
{
	uint64_t word = 1;
	struct iovec to = { &word, 8 }, from = { stack + 3 * PAGE, 8 };
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", getppid());
	fd = open(path, O_RDWR);
	if (process_vm_readv(getppid(), &to, 1, &from, 1, 0) != 8 || word)
		_exit(1);
	if (pread(fd, &word, 8, (uintptr_t)stack + 5 * PAGE) != 8 || word)
		_exit(2);
	word = 7;
	if (pwrite(fd, &word, 8, (uintptr_t)stack + 6 * PAGE) != 8)
		_exit(3);
	_exit(0);
}

#define CORE	"/tmp/touch-core"

/* Its core has what it had used of the stack, and of the rest nothing. */
static void die(char *stack)
{
	const struct rlimit any = { RLIM_INFINITY, RLIM_INFINITY };

	if (setrlimit(RLIMIT_CORE, &any))
		_exit(1);
	signal(SIGABRT, SIG_DFL);
	*(volatile uint64_t *)(stack + 8 * PAGE) = 8;
	abort();
}

/* What others have looked at has come, as by a touch; a core dump has none come. */
static void by_others(void)
{
	char *stack = map_stack(), was[128] = { 0 };
	int status, fd = open(CORE_PATTERN, O_RDONLY);
	pid_t pid;

	REQUIRE(fd >= 0 && read(fd, was, sizeof(was) - 1) > 0);
	close(fd);
	pid = fork();
	if (!pid)
		look_from_outside(stack);
	CHECK_EQ(status_of(pid), 0);
	CHECK_EQ(touched(stack), 3);
	CHECK_EQ(*(volatile uint64_t *)(stack + 3 * PAGE), 0);
	CHECK_EQ(*(volatile uint64_t *)(stack + 5 * PAGE), 0);
	CHECK_EQ(*(volatile uint64_t *)(stack + 6 * PAGE), 7);
	CHECK_EQ(touched(stack), 3);

	REQUIRE(put(CORE_PATTERN, CORE));
	pid = fork();
	if (!pid)
		die(stack);
	status = status_of(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && WCOREDUMP(status));
	CHECK_EQ(touched(stack), 4);
	CHECK(unlink(CORE) == 0 || unlink(CORE ".1") == 0);
	put(CORE_PATTERN, was);
	munmap(stack, PAGES * PAGE);
}

static long free_kib(void)
{
	return epk_kib_of("/proc/meminfo", "MemFree:");
}

/* Nobody bounds how many there are: those that are in no use have no memory that is not swapped. */
static void costs_nothing(void)
{
	static char *stacks[MANY];
	long before = free_kib();
	unsigned int i;

	for (i = 0; i < MANY; i++)
		stacks[i] = map_stack();
	CHECK(before - free_kib() < MANY * (long)PAGE / 1024);
	for (i = 0; i < MANY; i++)
		munmap(stacks[i], PAGES * PAGE);
}

static long contexts(void)
{
	FILE *f = fopen(STATS, "r");
	char word[32];
	long value, found = -1;

	REQUIRE(f);
	while (fscanf(f, "%31s %ld", word, &value) == 2)
		if (!strcmp(word, "contexts"))
			found = value;
	fclose(f);
	REQUIRE(found >= 0);
	return found;
}

static void put_byte(int fd, char c)
{
	REQUIRE(write(fd, &c, 1) == 1);
}

static char get_byte(int fd)
{
	char c = -1;

	REQUIRE(read(fd, &c, 1) == 1);
	return c;
}

static int there[2], back[2];

/* It has the memory, and goes on when its parent is no more. */
static void child(volatile char *stack)
{
	close(dev.fd);
	CHECK_EQ(stack[2 * PAGE], 2);
	stack[2 * PAGE] = 3;
	stack[3 * PAGE] = 3;
	put_byte(back[1], 0);
	get_byte(there[0]);
	CHECK_EQ(stack[2 * PAGE], 3);
	CHECK_EQ(stack[4 * PAGE], 0);
	CHECK_EQ(touched((char *)stack), 3);
	put_byte(back[1], epk_failures != 0);
	_exit(0);
}

static void parent(void)
{
	volatile char *stack;
	pid_t pid;

	epk_device_open(&dev);
	stack = map_stack();
	stack[2 * PAGE] = 2;
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		child(stack);
	get_byte(back[0]);
	/* What it did there is its own, but the count of it. */
	CHECK_EQ(stack[2 * PAGE], 2);
	CHECK_EQ(touched((char *)stack), 2);
	_exit(epk_failures != 0);
}

static void forked(void)
{
	long before = contexts();
	int status;
	pid_t pid;

	REQUIRE(!pipe(there) && !pipe(back));
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		parent();
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	/* The open went, although the child has the memory. */
	CHECK_EQ(contexts(), before);
	put_byte(there[1], 0);
	CHECK_EQ(get_byte(back[0]), 0);
}

int main(void)
{
	forked();
	epk_device_open(&dev);
	refused();
	refused_to_readers();
	counts();
	locked();
	stays();
	by_others();
	costs_nothing();
	return epk_test_result();
}
