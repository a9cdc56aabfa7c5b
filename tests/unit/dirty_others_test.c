// SPDX-License-Identifier: MIT
/* epk_dirty_start() and its like beside what else a program does: files, forks, threads, userfaultfds of its own. */
#define _GNU_SOURCE
#include "unit.h"

#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "dirty_unit.h"

/* Of the program's own, over @len bytes of @addr. */
static int open_foreign(void *addr, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API, .features = 1ull << 15 | 1ull << 13 | 1ull << 12 | 1 };
	struct uffdio_register area = {
		.range = { (uintptr_t)addr, len }, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | 1);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ioctl(fd, UFFDIO_API, &api), 0);
	REQUIRE_EQ(ioctl(fd, UFFDIO_REGISTER, &area), 0);
	return fd;
}

static long pages_mapped(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	long pages = -1;

	REQUIRE(file);
	REQUIRE_EQ(fscanf(file, "%ld", &pages), 1);
	fclose(file);
	return pages;
}

/* It is refused, and leaves nothing behind. */
static void another_userfaultfd(void **state)
{
	size_t len = 1ul << 30;
	char *room = mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int fd, fds, i;
	struct epk_dirty *other = NULL;
	long before;

	(void)state;
	REQUIRE_NE(room, MAP_FAILED);
	fd = open_foreign(room + 16 * PAGE, PAGE);
	pages_mapped();
	fds = count_userfaultfds(NULL);
	before = pages_mapped();
	for (i = 0; i < 20; i++)
		REQUIRE_EQ(epk_dirty_start(room, len, &other), -EBUSY);
	REQUIRE(strstr(epk_strerror(-EBUSY), "another userfaultfd"));
	REQUIRE(!other);
	REQUIRE_EQ(count_userfaultfds(NULL), fds);
	REQUIRE_IN(pages_mapped(), 0, before + 20);
	close(fd);
	REQUIRE_EQ(epk_dirty_start(room, len, &other), 0);
	REQUIRE_EQ(epk_dirty_stop(other), 0);
	munmap(room, len);
}

/* One that is mapped later, of which another userfaultfd with WP_ASYNC has been told. */
static int collect_half(char *huge)
{
	struct epk_dirty *other;

	if (epk_dirty_start(huge, HUGE / 2, &other))
		return 1;
	if (mmap(huge, HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB, -1, 0) != huge)
		return 77;
	open_foreign(huge, HUGE);
	*(volatile char *)huge = 1;
	if (epk_dirty_collect(other, ranges, PAGES) != 1)
		return 2;
	return ranges[0].addr != huge || ranges[0].len != HUGE / 2;
}

/* The kernel does not go on from there. */
static void half_a_hugetlb_page(void **state)
{
	char *room = mmap(NULL, 4 * HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int status = -1, i;
	pid_t pid;

	(void)state;
	REQUIRE_NE(room, MAP_FAILED);
	pid = fork();
	if (!pid)
		_exit(collect_half((char *)(((uintptr_t)room + HUGE - 1) & -HUGE)));
	for (i = 0; i < 200 && !waitpid(pid, &status, WNOHANG); i++)
		usleep(100000);
	if (i == 200) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	munmap(room, 4 * HUGE);
	REQUIRE(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("no hugetlb page is free: not tried\n");
	else
		REQUIRE_EQ(WEXITSTATUS(status), 0);
}

/* What cannot be had for now is told, and is not taken for what the kernel lacks; nothing is lost. */
static void no_file_more(void **state)
{
	struct epk_dirty *other = NULL;
	struct rlimit old, none;
	int fd = open("/dev/null", O_RDONLY);

	(void)state;
	close(fd);
	REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 0;
	mem[0] = 1;
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	REQUIRE_EQ(epk_dirty_start(copy, PAGE, &other), -EMFILE);
	REQUIRE_EQ(epk_dirty_collect(dirty, ranges, PAGES), -EMFILE);
	/* For one more. */
	none.rlim_cur = fd + 1;
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	REQUIRE_EQ(epk_dirty_start(copy, PAGE, &other), -EMFILE);
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	REQUIRE(strstr(epk_strerror(-EMFILE), "RLIMIT_NOFILE"));
	REQUIRE(!other);
	require_told("x");
}

static int started_after_setuid(void)
{
	struct epk_dirty *other;

	if (setuid(65534) || epk_dirty_start(copy, PAGE, &other) != -EACCES)
		return 1;
	return !strstr(epk_strerror(-EACCES), "DUMPABLE");
}

/* Alone in a PID namespace, as its parent is in another. */
static int same_pid(void)
{
	struct epk_dirty *other;
	int status;
	pid_t pid;

	if (epk_dirty_start(copy, PAGE, &other) || unshare(CLONE_NEWPID))
		return 1;
	pid = fork();
	if (!pid)
		_exit(getpid() != 1 || epk_dirty_collect(other, ranges, 1) != -EPERM);
	return waitpid(pid, &status, 0) != pid || status;
}

static void as_root(void **state)
{
	int (*const each[])(void) = { started_after_setuid, same_pid };
	unsigned int i;
	int status;
	pid_t pid;

	(void)state;
	if (getuid())
		skip();
	for (i = 0; i < 2; i++) {
		pid = fork();
		if (!pid) {
			/* The next is the first there. */
			if (i == 1 && (unshare(CLONE_NEWPID) || (pid = fork())))
				_exit(pid <= 0 || waitpid(pid, &status, 0) != pid || status);
			_exit(each[i]());
		}
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		REQUIRE_EQ(status, 0);
	}
}

static void *starts_and_stops(void *arg)
{
	struct epk_dirty *own;

	while (!__atomic_load_n((bool *)arg, __ATOMIC_ACQUIRE))
		if (epk_dirty_start(copy, PAGE, &own) || epk_dirty_stop(own))
			return arg;
	return NULL;
}

/* No child has a userfaultfd, whatever another thread is at. */
static void forked_by_another_thread(void **state)
{
	bool end = false;
	pthread_t thread;
	int status, i, bad = 0;
	void *failed;
	pid_t pid;

	(void)state;
	REQUIRE_EQ(pthread_create(&thread, NULL, starts_and_stops, &end), 0);
	for (i = 0; i < 100; i++) {
		pid = fork();
		if (!pid)
			_exit(count_userfaultfds(NULL));
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		bad += status != 0;
	}
	__atomic_store_n(&end, true, __ATOMIC_RELEASE);
	REQUIRE_EQ(pthread_join(thread, &failed), 0);
	REQUIRE(!failed);
	REQUIRE_EQ(bad, 0);
}

#define ROUNDS	300
/* So many that each is at it for a while. */
#define MANY	2048

static struct epk_dirty *many;
static struct epk_pages of_one[MANY], of_other[MANY];
static long at_round, done_round, nr_other;

static void *collects_too(void *arg)
{
	long round;

	for (round = 1; round <= ROUNDS; round++) {
		while (__atomic_load_n(&at_round, __ATOMIC_ACQUIRE) < round)
			sched_yield();
		nr_other = epk_dirty_collect(many, of_other, MANY);
		__atomic_store_n(&done_round, round, __ATOMIC_RELEASE);
	}
	return arg;
}

/* Two collect at a time: each page is told to one of them. */
static void two_collect(void **state)
{
	char *room = mmap(NULL, MANY * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long nr, round, i, told, wrong = 0;
	pthread_t thread;

	(void)state;
	REQUIRE_NE(room, MAP_FAILED);
	REQUIRE_EQ(madvise(room, MANY * PAGE, MADV_NOHUGEPAGE), 0);
	REQUIRE_EQ(epk_dirty_start(room, MANY * PAGE, &many), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, collects_too, NULL), 0);
	for (round = 1; round <= ROUNDS; round++) {
		for (i = round % 2; i < MANY; i += 2)
			room[i * PAGE]++;
		__atomic_store_n(&at_round, round, __ATOMIC_RELEASE);
		nr = epk_dirty_collect(many, of_one, MANY);
		while (__atomic_load_n(&done_round, __ATOMIC_ACQUIRE) < round)
			sched_yield();
		for (told = i = 0; i < nr; i++)
			told += of_one[i].len / PAGE;
		for (i = 0; i < nr_other; i++)
			told += of_other[i].len / PAGE;
		wrong += told != MANY / 2;
	}
	pthread_join(thread, NULL);
	REQUIRE_EQ(epk_dirty_stop(many), 0);
	munmap(room, MANY * PAGE);
	REQUIRE_EQ(wrong, 0);
}

/* No program that is executed has the userfaultfd, and one that a child kept watches nothing after stop. */
static void descriptor_kept(void **state)
{
	int fd = -1, kept;

	(void)state;
	REQUIRE_EQ(count_userfaultfds(&fd), 1);
	REQUIRE_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	kept = dup(fd);
	REQUIRE_EQ(epk_dirty_stop(dirty), 0);
	dirty = NULL;
	REQUIRE_EQ(epk_dirty_start(mem, PAGES * PAGE, &dirty), 0);
	close(kept);
	mem[0] = 1;
	require_told("x");
}

/* Under its number there is another userfaultfd, the program's: neither fork nor stop closes that. */
static void number_taken(void **state)
{
	char *page = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = -1, foreign, status;
	pid_t pid;

	(void)state;
	REQUIRE_EQ(count_userfaultfds(&fd), 1);
	foreign = open_foreign(page, PAGE);
	REQUIRE_EQ(dup2(foreign, fd), fd);
	pid = fork();
	if (!pid)
		_exit(fcntl(fd, F_GETFD) < 0);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	REQUIRE_EQ(collect(), -EBADF);
	REQUIRE(strstr(epk_strerror(-EBADF), "userfaultfd"));
	REQUIRE_EQ(epk_dirty_stop(dirty), 0);
	dirty = NULL;
	REQUIRE_EQ(close(fd), 0);
	close(foreign);
	munmap(page, PAGE);
}

/* Refused as long as it is there. */
static void domain_comes_later(void **state)
{
	int id;

	(void)state;
	REQUIRE_EQ(alloc_domains(1, &id), 0);
	REQUIRE_EQ(munmap(mem + 8 * PAGE, 2 * PAGE), 0);
	REQUIRE_EQ(domain_mmap(id, mem + 8 * PAGE, 2 * PAGE, RW, MAP_FIXED_NOREPLACE), mem + 8 * PAGE);
	mem[0] = 1;
	REQUIRE_EQ(epk_dirty_collect(dirty, ranges, PAGES), -EINVAL);
	REQUIRE(strstr(epk_strerror(-EINVAL), "domain's memory"));
	REQUIRE_EQ(domain_munmap(mem + 8 * PAGE, 2 * PAGE), 0);
	REQUIRE(is_told(collect(), 0));
	REQUIRE_EQ(free_domains(1, &id), 0);
}

/* Other code closes what is not its own: an error, and a new start helps. */
static void descriptor_gone(void **state)
{
	int fd = -1, null = open("/dev/null", O_RDONLY);

	(void)state;
	mem[0] = 1;
	REQUIRE_EQ(count_userfaultfds(&fd), 1);
	REQUIRE_EQ(dup2(null, fd), fd);
	REQUIRE_EQ(collect(), -EBADF);
	REQUIRE_EQ(epk_dirty_stop(dirty), 0);
	dirty = NULL;
	REQUIRE_EQ(close(fd), 0);
	close(null);
	REQUIRE_EQ(epk_dirty_start(mem, PAGES * PAGE, &dirty), 0);
	mem[0] = 1;
	require_told("x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MEMORY(another_userfaultfd),
		WITH_MEMORY(half_a_hugetlb_page),
		WITH_MEMORY(no_file_more),
		WITH_MEMORY(as_root),
		WITH_MEMORY(forked_by_another_thread),
		WITH_MEMORY(two_collect),
		WITH_MEMORY(descriptor_kept),
		WITH_MEMORY(number_taken),
		WITH_MEMORY(domain_comes_later),
		WITH_MEMORY(descriptor_gone),
	};

	need_backend();
	return RUN_WITH_MEMORY(tests);
}
