// SPDX-License-Identifier: MIT
/*
 * What it costs to learn which pages were written to: by epk_dirty_start(), and by what programs do
 * without them, mprotect() with a handler of SIGSEGV and userfaultfd with a thread that resolves faults.  And to have them
 * back as they were: by epk_rollback(), and by a copy of all.
 *
 * A round writes to some of 4,096 pages and asks; the median of the rounds is the result, in nanoseconds of this
 * machine for each page that was written to, its write included.  What cannot be had here has no line.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <epk.h>

#define PAGES	4096l
#define PAGE	4096l
#define ROUNDS	21

static char *mem;
static unsigned char written[PAGES];
static struct epk_pages found[PAGES];
static struct epk_dirty *dirty;
static int uffd, snapshot;
static char *copy;
/* Pages that this round writes to. */
static long expected;

static int engine_start(void)
{
	return epk_dirty_start(mem, PAGES * PAGE, &dirty);
}

static long engine_collect(void)
{
	int nr = epk_dirty_collect(dirty, found, PAGES);
	long pages = 0;

	while (nr > 0)
		pages += found[--nr].len / PAGE;
	return pages;
}

static void engine_stop(void)
{
	epk_dirty_stop(dirty);
}

static long count_written(void)
{
	long page, nr = 0;

	for (page = 0; page < PAGES; page++)
		nr += written[page];
	memset(written, 0, sizeof(written));
	return nr;
}

static void on_fault(int signo, siginfo_t *info, void *context)
{
	long page = ((char *)info->si_addr - mem) / PAGE;

	(void)context;
	if (page < 0 || page >= PAGES || mprotect(mem + page * PAGE, PAGE, PROT_READ | PROT_WRITE))
		signal(signo, SIG_DFL);
	else
		written[page] = 1;
}

static int mprotect_start(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	return sigaction(SIGSEGV, &action, NULL) || mprotect(mem, PAGES * PAGE, PROT_READ);
}

static long mprotect_collect(void)
{
	mprotect(mem, PAGES * PAGE, PROT_READ);
	return count_written();
}

static void mprotect_stop(void)
{
	mprotect(mem, PAGES * PAGE, PROT_READ | PROT_WRITE);
	signal(SIGSEGV, SIG_DFL);
}

static int protect(unsigned long start, unsigned long len, int mode)
{
	struct uffdio_writeprotect arg = { .range = { start, len }, .mode = mode };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &arg);
}

static void *resolve(void *arg)
{
	struct uffd_msg message;

	while (read(uffd, &message, sizeof(message)) == sizeof(message)) {
		unsigned long addr = message.arg.pagefault.address & -PAGE;

		written[(addr - (unsigned long)mem) / PAGE] = 1;
		protect(addr, PAGE, 0);
	}
	return arg;
}

static int uffd_start(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register area = {
		.range = { (unsigned long)mem, PAGES * PAGE }, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	pthread_t thread;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | 1);
	return uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &area) ||
	       pthread_create(&thread, NULL, resolve, NULL) ||
	       protect((unsigned long)mem, PAGES * PAGE, UFFDIO_WRITEPROTECT_MODE_WP);
}

static long uffd_collect(void)
{
	protect((unsigned long)mem, PAGES * PAGE, UFFDIO_WRITEPROTECT_MODE_WP);
	return count_written();
}

static int rollback_start(void)
{
	snapshot = epk_snapshot(mem, PAGES * PAGE);
	return snapshot < 0;
}

static long rollback_collect(void)
{
	return epk_rollback(snapshot) ? -1 : expected;
}

static void rollback_stop(void)
{
	epk_snapshot_free(snapshot);
}

static int copy_start(void)
{
	copy = malloc(PAGES * PAGE);
	if (copy)
		memcpy(copy, mem, PAGES * PAGE);
	return !copy;
}

static long copy_collect(void)
{
	memcpy(mem, copy, PAGES * PAGE);
	return expected;
}

static void copy_stop(void)
{
	free(copy);
}

/* The last: its thread waits until the program ends. */
static const struct way {
	const char *name;
	int (*start)(void);
	long (*collect)(void);
	void (*stop)(void);
} ways[] = {
	{ "libepk", engine_start, engine_collect, engine_stop },
	{ "mprotect", mprotect_start, mprotect_collect, mprotect_stop },
	{ "epk_rollback", rollback_start, rollback_collect, rollback_stop },
	{ "copy of all", copy_start, copy_collect, copy_stop },
	{ "userfaultfd", uffd_start, uffd_collect, NULL },
};

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static int compare(const void *one, const void *other)
{
	return (*(const double *)one > *(const double *)other) - (*(const double *)one < *(const double *)other);
}

/* Every @every-th page.  0: it told as many. */
static int measure(const struct way *way, long every)
{
	double times[ROUNDS];
	long page;
	int round;

	expected = PAGES / every;
	for (round = -1; round < ROUNDS; round++) {
		double begin = now();

		for (page = 0; page < PAGES; page += every)
			mem[page * PAGE]++;
		if (way->collect() != expected && round >= 0)
			return 1;
		if (round >= 0)
			times[round] = (now() - begin) / (PAGES / every);
	}
	qsort(times, ROUNDS, sizeof(*times), compare);
	printf("%-12s %5ld of %ld pages: %7.0f\n", way->name, PAGES / every, PAGES, times[ROUNDS / 2]);
	return 0;
}

int main(void)
{
	const struct way *way;
	long every;

	mem = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || madvise(mem, PAGES * PAGE, MADV_NOHUGEPAGE))
		return 1;
	memset(mem, 1, PAGES * PAGE);
	for (way = ways; way < ways + sizeof(ways) / sizeof(ways[0]); way++) {
		if (way->start())
			continue;
		for (every = 1; every <= 256; every *= 16)
			if (measure(way, every)) {
				fprintf(stderr, "%s tells too few or too many\n", way->name);
				return 1;
			}
		if (way->stop)
			way->stop();
	}
	return 0;
}
