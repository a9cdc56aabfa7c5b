// SPDX-License-Identifier: MIT
/*
 * A process whose heap outlives it.  Every few milliseconds the pages that were written to since the
 * last time go to a log, and then what was done is acknowledged.  Its parent kills it at any moment,
 * starts it anew, and has to find all that was acknowledged.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <epk.h>

/* Pointers in it stay right. */
#define HEAP		((char *)0x200000000000)
#define BYTES		(4l << 20)
#define MOST		(BYTES / 4096 / 2)
#define EVERY_MS	3
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

/* In the log; @nr ranges follow, and their bytes. */
struct record {
	unsigned long sum;
	long nr, bytes;
};

static struct epk_pages pages[MOST];
static char scratch[BYTES];

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

static unsigned long sum_of(unsigned long sum, const void *from, long len)
{
	const unsigned long *words = from;

	for (; len > 0; len -= sizeof(*words))
		sum = (sum ^ *words++) * 0x9e3779b97f4a7c15 + 1;
	return sum;
}

/* What was written to, as one record; the disk has it then. */
static int save(int log, struct epk_dirty *dirty)
{
	struct record record = { 1, epk_dirty_collect(dirty, pages, MOST), 0 };
	long ranges = record.nr * sizeof(*pages), i;
	int well = record.nr >= 0;

	record.sum = sum_of(record.sum, pages, well ? ranges : 0);
	for (i = 0; i < record.nr; i++) {
		record.sum = sum_of(record.sum, pages[i].addr, pages[i].len);
		record.bytes += pages[i].len;
	}
	well = well && write(log, &record, sizeof(record)) == sizeof(record) &&
	       write(log, pages, ranges) == ranges;
	for (i = 0; well && i < record.nr; i++)
		well = write(log, pages[i].addr, pages[i].len) == (ssize_t)pages[i].len;
	return well ? fdatasync(log) : -1;
}

/* All records up to the first that is not whole, which nobody has heard of, and goes. */
static int restore(int log)
{
	struct record record;
	long end = 0, ranges, at, i;

	while (read(log, &record, sizeof(record)) == sizeof(record) && record.nr >= 0 &&
	       record.nr <= MOST && record.bytes >= 0 && record.bytes <= BYTES) {
		ranges = record.nr * sizeof(*pages);
		if (read(log, pages, ranges) != ranges || read(log, scratch, record.bytes) != record.bytes ||
		    sum_of(sum_of(1, pages, ranges), scratch, record.bytes) != record.sum)
			break;
		for (at = i = 0; i < record.nr; at += pages[i++].len)
			memcpy(pages[i].addr, scratch + at, pages[i].len);
		end += sizeof(record) + ranges + record.bytes;
	}
	return ftruncate(log, end) || lseek(log, end, SEEK_SET) != end;
}

static long now_ms(void)
{
	struct timespec now;

	return clock_gettime(CLOCK_MONOTONIC, &now) ? 0 : now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Tells how far it is: first what it has found, then each time that this is safe. */
static int live(int log, int out)
{
	struct epk_dirty *dirty;

	if (mmap(HEAP, BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != HEAP || restore(log) || !is_whole() || epk_dirty_start(HEAP, BYTES, &dirty))
		return 1;
	while (write(out, &root->steps, sizeof(long)) == sizeof(long)) {
		for (long until = now_ms() + EVERY_MS; now_ms() < until;)
			step();
		if (save(log, dirty))
			return 1;
	}
	return 1;
}

int main(void)
{
	long safe = 0, first;
	int log = open("/tmp", O_TMPFILE | O_RDWR, 0600), i, status, ends[2];

	if (!epk_dirty_engine())
		return puts("this kernel cannot tell which pages are written to") < 0;
	srand(time(NULL));
	for (i = 0; i < LIVES; i++) {
		pid_t pid = lseek(log, 0, SEEK_SET) || pipe(ends) ? -1 : fork();

		if (!pid)
			_exit(live(log, ends[1]));
		close(ends[1]);
		if (pid < 0 || read(ends[0], &first, sizeof(long)) != sizeof(long) || first < safe)
			return 1;
		safe = first;
		usleep(rand() % 40000);
		kill(pid, SIGKILL);
		while (read(ends[0], &safe, sizeof(long)) == sizeof(long))
			;
		close(ends[0]);
		if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
			return 1;
	}
	printf("%s: %d lives, %ld steps acknowledged, none lost\n", epk_dirty_engine(), LIVES, safe);
	return safe == 0;
}
