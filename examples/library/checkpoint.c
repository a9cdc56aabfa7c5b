// SPDX-License-Identifier: MIT
/*
 * A process whose heap outlives it.  Every few thousand steps the pages that were written to since the
 * last time go to a log, and then what was done is acknowledged.  Its parent kills it at any moment,
 * starts it anew, and has to find all that was acknowledged.  Without fdatasync() only a power cut would tell.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <epk.h>

/* Pointers in it stay right. */
#define HEAP		((char *)0x200000000000)
#define BYTES		(4l << 20)
#define FLAGS		(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE)
#define MOST		(BYTES / 4096)
#define STEPS		5000
#define LIVES		12

struct item {
	struct item *next;
	long key, count;
};

struct root {
	long steps, used;
	struct item *lists[256];
};

static struct root *const root = (struct root *)HEAP;
static struct epk_pages ranges[MOST];
/* In the log, with the first @nr pages. */
static struct record {
	long nr, not_nr;
	unsigned long sum;
	struct {
		unsigned long at;
		char bytes[4096];
	} pages[MOST];
} record;
#define HEAD		((long)offsetof(struct record, pages))
#define SIZE		(HEAD + record.nr * (long)sizeof(record.pages[0]))

static void step(void)
{
	long key = root->steps * 7919 % 5000;
	struct item **list = &root->lists[key % 256], *item;

	for (item = *list; item && item->key != key; item = item->next)
		;
	if (!item) {
		item = (struct item *)(root + 1) + root->used++;
		*item = (struct item){ *list, key, 0 };
		*list = item;
	}
	item->count++;
	root->steps++;
}

static int is_whole(void)
{
	long sum = 0, i;

	for (i = 0; i < root->used; i++)
		sum += ((struct item *)(root + 1))[i].count;
	return sum == root->steps;
}

static unsigned long sum_of_pages(void)
{
	const unsigned long *word = (void *)record.pages, *end = (void *)&record.pages[record.nr];
	unsigned long sum = 1;

	while (word < end)
		sum = (sum ^ *word++) * 0x9e3779b97f4a7c15 + 1;
	return sum;
}

/* What was written to, as one record; the disk has it then. */
static int save(int log, struct epk_dirty *dirty)
{
	int nr = epk_dirty_collect(dirty, ranges, MOST), i;
	unsigned long at;

	for (record.nr = i = 0; i < nr; i++)
		for (at = 0; at < ranges[i].len; at += 4096) {
			record.pages[record.nr].at = (char *)ranges[i].addr + at - HEAP;
			memcpy(record.pages[record.nr++].bytes, (char *)ranges[i].addr + at, 4096);
		}
	record.not_nr = ~record.nr;
	record.sum = sum_of_pages();
	return nr < 0 || write(log, &record, SIZE) != SIZE || fdatasync(log);
}

/* Of a last one that is not all there nobody has heard: it goes.  All else is damage, and nothing goes. */
static int restore(int log)
{
	long at = 0, got, i;

	for (; (got = pread(log, &record, HEAD, at)) == HEAD; at += SIZE) {
		if (record.nr < 0 || record.nr > MOST || record.not_nr != ~record.nr)
			return 1;
		got = pread(log, &record, SIZE, at);
		if (got < SIZE)
			break;
		if (sum_of_pages() != record.sum)
			return 1;
		for (i = 0; i < record.nr && record.pages[i].at <= BYTES - 4096; i++)
			memcpy(HEAP + record.pages[i].at, record.pages[i].bytes, 4096);
		if (i < record.nr)
			return 1;
	}
	return got < 0 || ftruncate(log, at) || lseek(log, at, SEEK_SET) != at;
}

/* Tells how far it is: first what it has found, then each time that this is safe. */
static int live(int log, int out)
{
	struct epk_dirty *dirty;

	if (restore(log) || !is_whole() || epk_dirty_start(HEAP, BYTES, &dirty))
		return 1;
	while (write(out, &root->steps, sizeof(long)) == sizeof(long)) {
		for (int i = 0; i < STEPS; i++)
			step();
		if (save(log, dirty))
			return 1;
	}
	return 1;
}

int main(void)
{
	long safe = 0, first;
	int log = open("/tmp", O_TMPFILE | O_RDWR, 0600), i, status, err, ends[2];
	struct epk_dirty *dirty;

	if (mmap(HEAP, BYTES, PROT_READ | PROT_WRITE, FLAGS, -1, 0) != HEAP)
		return 1;
	err = epk_dirty_start(HEAP, BYTES, &dirty) ?: epk_dirty_stop(dirty);
	if (err)
		return printf("checkpoint: %s\n", epk_strerror(err)) < 0 || err != -EOPNOTSUPP;
	for (i = 0; i < LIVES; i++) {
		pid_t pid = pipe(ends) ? -1 : fork();

		if (!pid) {
			close(ends[0]);	/* Or it would live on where nobody reads. */
			_exit(live(log, ends[1]));
		}
		close(ends[1]);
		if (pid < 0 || read(ends[0], &first, sizeof(long)) != sizeof(long) || first < safe)
			return 1;
		usleep(rand() % 40000);
		kill(pid, SIGKILL);
		while (read(ends[0], &safe, sizeof(long)) == sizeof(long))
			;
		close(ends[0]);
		if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
			return 1;
	}
	printf("%d lives, %ld steps acknowledged, none lost by a kill\n", LIVES, safe);
	return safe == 0;
}
