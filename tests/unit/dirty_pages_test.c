// SPDX-License-Identifier: MIT
/*
 * epk_dirty_start() and its like.  A copy is kept up to date by nothing but the pages that are told: it has to be
 * like the memory each time, whatever has been done to that.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <sys/uio.h>
#include <time.h>

#include "dirty_unit.h"

static void pages_written(void **state)
{
	(void)state;
	REQUIRE_EQ(collect(), 0);
	mem[0] = 5;
	mem[3 * PAGE - 1] = 0;
	mem[3 * PAGE] = 7;
	require_told("x xx");
	REQUIRE_EQ(collect(), 0);
	mem[3 * PAGE] = 8;
	require_told("   x");
}

static void pages_read(void **state)
{
	unsigned int i, sum = 0;

	(void)state;
	for (i = 0; i < PAGES; i++)
		sum += *(volatile unsigned char *)(mem + i * PAGE);
	REQUIRE_EQ(sum, PAGES / 2 * PAGES / 2);
	REQUIRE_EQ(collect(), 0);
	mem[PAGE] = 1;
	require_told(" x");
}

/* What does not fit is told by the next, with what was written meanwhile. */
static void little_room(void **state)
{
	(void)state;
	mem[1 * PAGE] = mem[5 * PAGE] = mem[6 * PAGE] = mem[9 * PAGE] = 1;
	REQUIRE_EQ(collect_some(1), 1);
	REQUIRE(is_told(1, 1));
	mem[3 * PAGE] = 1;
	REQUIRE_EQ(collect_some(2), 2);
	REQUIRE(is_told(2, 3) && is_told(2, 5) && is_told(2, 6));
	require_told("         x");
}

/* It reads as zeros now, whether it is read or not. */
static void pages_dropped(void **state)
{
	(void)state;
	REQUIRE_EQ(madvise(mem, 3 * PAGE, MADV_DONTNEED), 0);
	REQUIRE(is_told(collect(), 0) && is_told(last, 2));
	REQUIRE_EQ(collect(), 0);
	REQUIRE_EQ(madvise(mem + 4 * PAGE, PAGE, MADV_DONTNEED), 0);
	REQUIRE_EQ(*(volatile unsigned char *)(mem + 4 * PAGE), 0);
	REQUIRE(is_told(collect(), 4));
	REQUIRE_EQ(collect(), 0);
	mem[0] = 1;
	REQUIRE(is_told(collect(), 0));
}

static void mapped_anew(void **state)
{
	int nr;

	(void)state;
	REQUIRE_EQ(munmap(mem + 2 * PAGE, 4 * PAGE), 0);
	REQUIRE_EQ(collect(), 0);
	map_at(mem + 4 * PAGE, 1);
	nr = collect();
	REQUIRE(is_told(nr, 4) && !is_told(nr, 2) && !is_told(nr, 3));
	REQUIRE_EQ(collect(), 0);
	map_at(mem + 2 * PAGE, 4);
	nr = collect();
	REQUIRE(is_told(nr, 2) && is_told(nr, 3) && is_told(nr, 4) && is_told(nr, 5));
	mem[2 * PAGE] = 1;
	require_told("  x");
}

static void moved_in_and_out(void **state)
{
	unsigned char *other = mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	REQUIRE_NE(other, MAP_FAILED);
	memset(other, 9, 2 * PAGE);
	/* Not touched any more once it is there. */
	REQUIRE_EQ(mremap(other, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, mem + 8 * PAGE),
		   mem + 8 * PAGE);
	REQUIRE(is_told(collect(), 8) && is_told(last, 9));
	REQUIRE_EQ(collect(), 0);
	mem[9 * PAGE] = 1;
	REQUIRE(is_told(collect(), 9));
	/* Out, and back. */
	REQUIRE_EQ(mremap(mem, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other), other);
	REQUIRE_EQ(collect(), 0);
	other[0] = 77;
	REQUIRE_EQ(mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, mem), mem);
	REQUIRE(is_told(collect(), 0));
	/* The pages go, the mapping stays. */
	REQUIRE_EQ(mremap(mem + 16 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			  other), other);
	REQUIRE(is_told(collect(), 16));
	REQUIRE_EQ(munmap(other, PAGE), 0);
	REQUIRE_EQ(munmap(other + 2 * PAGE, 2 * PAGE), 0);
}

static void protected_in_between(void **state)
{
	(void)state;
	mem[2 * PAGE] = 1;
	REQUIRE_EQ(mprotect(mem, 4 * PAGE, PROT_READ), 0);
	require_told("  x");
	REQUIRE_EQ(mprotect(mem, 4 * PAGE, PROT_NONE), 0);
	REQUIRE_EQ(collect(), 0);
	REQUIRE_EQ(mprotect(mem, 4 * PAGE, RW), 0);
	REQUIRE_EQ(collect(), 0);
	mem[0] = 1;
	require_told("x");
}

/* By the kernel in the process's name: into its page tables, and past them. */
static void written_by_system_calls(void **state)
{
	int fd = open("/dev/zero", O_RDONLY);
	char from[8] = "writev";
	struct iovec local = { from, 8 }, remote = { mem + 6 * PAGE, 8 };

	(void)state;
	REQUIRE_EQ(read(fd, mem + 4 * PAGE, 100), 100);
	close(fd);
	REQUIRE_EQ(process_vm_writev(getpid(), &local, 1, &remote, 1, 0), 8);
	require_told("    x x");
	/* Where it has been written to before. */
	mem[6 * PAGE] = 1;
	require_told("      x");
	REQUIRE_EQ(process_vm_writev(getpid(), &local, 1, &remote, 1, 0), 8);
	require_told("      x");
	fd = open("/proc/self/mem", O_RDWR);
	REQUIRE_EQ(pwrite(fd, "x", 1, (off_t)(uintptr_t)mem + 8 * PAGE), 1);
	close(fd);
	require_told("        x");
}

/* 4 MiB that may have large pages, whose second half is dropped. */
static void large_pages(void **state)
{
	unsigned char *room = mmap(NULL, 4 * HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *large;
	static struct epk_pages few[4];
	struct epk_dirty *other;
	int nr;

	(void)state;
	REQUIRE_NE(room, MAP_FAILED);
	large = (unsigned char *)(((uintptr_t)room + HUGE - 1) & -HUGE);
	madvise(large, 2 * HUGE, MADV_HUGEPAGE);
	memset(large, 1, 2 * HUGE);
	REQUIRE_EQ(epk_dirty_start(large, 2 * HUGE, &other), 0);
	REQUIRE_EQ(epk_dirty_collect(other, few, 4), 0);
	large[5 * PAGE] = 2;
	nr = epk_dirty_collect(other, few, 4);
	REQUIRE_EQ(nr, 1);
	REQUIRE((unsigned char *)few[0].addr <= large + 5 * PAGE);
	REQUIRE((unsigned char *)few[0].addr + few[0].len >= large + 6 * PAGE);
	REQUIRE((unsigned char *)few[0].addr + few[0].len <= large + HUGE);
	REQUIRE_EQ(madvise(large + HUGE, HUGE, MADV_DONTNEED), 0);
	nr = epk_dirty_collect(other, few, 4);
	REQUIRE_EQ(nr, 1);
	REQUIRE_EQ(few[0].addr, large + HUGE);
	REQUIRE_EQ(few[0].len, HUGE);
	REQUIRE_EQ(epk_dirty_collect(other, few, 4), 0);
	/* One page of a large one. */
	REQUIRE_EQ(madvise(large + PAGE, PAGE, MADV_DONTNEED), 0);
	nr = epk_dirty_collect(other, few, 4);
	REQUIRE_EQ(nr, 1);
	REQUIRE((unsigned char *)few[0].addr <= large + PAGE);
	REQUIRE_EQ(epk_dirty_stop(other), 0);
	munmap(room, 4 * HUGE);
}

static int child(void)
{
	struct epk_dirty *own;

	mem[0] = 99;
	if (count_userfaultfds(NULL))
		return 1;
	if (epk_dirty_collect(dirty, ranges, PAGES) != -EPERM)
		return 2;
	if (epk_dirty_stop(dirty) || epk_dirty_stop(dirty) != -EINVAL)
		return 3;
	if (epk_dirty_start(mem, PAGES * PAGE, &own))
		return 4;
	mem[PAGE] = 1;
	if (epk_dirty_collect(own, ranges, PAGES) < 1)
		return 5;
	return epk_dirty_stop(own) ? 6 : 0;
}

static void forked(void **state)
{
	int status, stop[2];
	char byte;
	pid_t pid;

	(void)state;
	REQUIRE_EQ(pipe(stop), 0);
	pid = fork();
	if (!pid) {
		close(stop[1]);
		/* Pages are shared as long as it lives. */
		_exit(read(stop[0], &byte, 1) ? 7 : child());
	}
	mem[2 * PAGE] = 1;
	REQUIRE(is_told(collect(), 2));
	mem[2 * PAGE] = 2;
	mem[3 * PAGE] = 2;
	REQUIRE(is_told(collect(), 2) && is_told(last, 3));
	REQUIRE_EQ(madvise(mem + 4 * PAGE, PAGE, MADV_DONTNEED), 0);
	REQUIRE_EQ(*(volatile unsigned char *)(mem + 4 * PAGE), 0);
	REQUIRE(is_told(collect(), 4));
	close(stop[1]);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFEXITED(status));
	REQUIRE_EQ(WEXITSTATUS(status), 0);
	close(stop[0]);
	REQUIRE_NE(mem[0], 99);
	collect();
	mem[6 * PAGE] = 1;
	REQUIRE(is_told(collect(), 6));
}

/* Its pages can leave the page tables without losing anything. */
static void shared_file(void **state)
{
	char name[] = "/tmp/epk-dirty-XXXXXX";
	int fd = mkstemp(name);

	(void)state;
	unlink(name);
	REQUIRE_EQ(ftruncate(fd, 8 * PAGE), 0);
	map_file(fd, MAP_SHARED);
	REQUIRE(is_told(collect(), 0));
	collect();
	mem[PAGE] = 1;
	REQUIRE(is_told(collect(), 1));
	mem[2 * PAGE] = 1;
	REQUIRE_EQ(msync(mem, 8 * PAGE, MS_SYNC), 0);
	madvise(mem, 8 * PAGE, 21 /* MADV_PAGEOUT */);
	REQUIRE(is_told(collect(), 2));
	mem[3 * PAGE] = 1;
	madvise(mem, 8 * PAGE, MADV_DONTNEED);
	REQUIRE(is_told(collect(), 3));
	map_file(fd, MAP_PRIVATE);
	collect();
	mem[4 * PAGE] = 1;
	REQUIRE(is_told(collect(), 4));
	REQUIRE_EQ(madvise(mem + 4 * PAGE, PAGE, MADV_DONTNEED), 0);
	REQUIRE_EQ(*(volatile unsigned char *)(mem + 4 * PAGE), 0);
	REQUIRE(is_told(collect(), 4));
	close(fd);
}

/* Past the page tables: none of them has changed before the pages go. */
static void shared_pages_taken(void **state)
{
	int fd = memfd_create("dirty", 0);

	(void)state;
	REQUIRE_EQ(ftruncate(fd, 8 * PAGE), 0);
	map_file(fd, MAP_SHARED);
	memset(mem, 1, 8 * PAGE);
	collect();
	collect();
	REQUIRE_EQ(madvise(mem + PAGE, PAGE, MADV_REMOVE), 0);
	REQUIRE(is_told(collect(), 1));
	REQUIRE_EQ(fallocate(fd, 3 /* PUNCH_HOLE | KEEP_SIZE */, 2 * PAGE, PAGE), 0);
	REQUIRE(is_told(collect(), 2));
	REQUIRE_EQ(ftruncate(fd, 4 * PAGE), 0);
	REQUIRE_EQ(ftruncate(fd, 8 * PAGE), 0);
	REQUIRE(is_told(collect(), 4));
	close(fd);
}

/* It counts as written to each time; what lies beside it does not. */
static void file_page_beside(void **state)
{
	int fd = memfd_create("dirty", 0);

	(void)state;
	REQUIRE_EQ(ftruncate(fd, PAGE), 0);
	map_at(mem + 3 * PAGE, 6);
	REQUIRE_EQ(mmap(mem + 5 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd, 0), mem + 5 * PAGE);
	require_told("   xxxxxx");
	require_told("     x");
	mem[6 * PAGE] = 1;
	require_told("     xx");
	close(fd);
}

static void two_at_a_time(void **state)
{
	struct epk_dirty *other;
	struct epk_pages one;
	char *page = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	REQUIRE_NE(page, MAP_FAILED);
	REQUIRE_EQ(epk_dirty_start(mem + PAGE, PAGE, &other), -EBUSY);
	page[4] = 1;
	REQUIRE_EQ(epk_dirty_start(page, PAGE, &other), 0);
	page[5] = 1;
	mem[0] = 1;
	require_told("x");
	REQUIRE_EQ(epk_dirty_collect(other, &one, 1), 1);
	REQUIRE_EQ(one.addr, page);
	REQUIRE_EQ(epk_dirty_collect(other, &one, 1), 0);
	mem[1 * PAGE] = 1;
	REQUIRE_EQ(epk_dirty_stop(other), 0);
	munmap(page, PAGE);
	require_told(" x");
	REQUIRE_EQ(epk_dirty_stop(dirty), 0);
	mem[2 * PAGE] = 1;
	REQUIRE_EQ(epk_dirty_start(mem, PAGES * PAGE, &dirty), 0);
	mem[3 * PAGE] = 1;
	require_told("   x");
}

static void bad_arguments(void **state)
{
	struct epk_dirty *other = NULL;
	char *domain;
	int id;

	(void)state;
	REQUIRE_EQ(epk_dirty_start(mem + 1, PAGE, &other), -EINVAL);
	REQUIRE_EQ(epk_dirty_start(mem, 0, &other), -EINVAL);
	REQUIRE_EQ(epk_dirty_start(mem, PAGE, NULL), -EINVAL);
	REQUIRE_EQ(epk_dirty_start(mem, -PAGE, &other), -EOVERFLOW);
	REQUIRE_EQ(epk_dirty_start(mem, -1, &other), -EOVERFLOW);
	REQUIRE_EQ(epk_dirty_start((void *)0x7ffffffff000, PAGE, &other), -EOVERFLOW);
	REQUIRE_EQ(epk_dirty_collect(NULL, ranges, 1), -EINVAL);
	REQUIRE_EQ(epk_dirty_collect(dirty, NULL, 1), -EINVAL);
	REQUIRE_EQ(epk_dirty_collect(dirty, ranges, 0), -EINVAL);
	REQUIRE_EQ(epk_dirty_collect(dirty, ranges, -1), -EINVAL);
	REQUIRE_EQ(epk_dirty_stop(NULL), -EINVAL);
	REQUIRE_EQ(alloc_domains(1, &id), 0);
	domain = domain_mmap(id, NULL, 2 * PAGE, RW, 0);
	REQUIRE_NE(domain, MAP_FAILED);
	REQUIRE_EQ(epk_dirty_start(domain + PAGE, PAGE, &other), -EINVAL);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_EQ(epk_dirty_collect(dirty, (struct epk_pages *)domain, 1), -EINVAL);
	/* What is held is held afterwards. */
	mem[0] = 1;
	require_told("x");
	domain[0] = 1;
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(free_domains(1, &id), 0);
	REQUIRE(!other);
}

/* The pages that are told, and no others, are copied. */
static void follow(int round)
{
	unsigned char *end = mem + PAGES * PAGE, *at, there;
	int nr = collect(), i;

	REQUIRE_IN(nr, 0, PAGES);
	for (i = 0; i < nr; i++)
		memcpy(copy + ((unsigned char *)ranges[i].addr - mem), ranges[i].addr, ranges[i].len);
	for (at = mem; at < end; at += PAGE) {
		if (mincore(at, PAGE, &there) && errno == ENOMEM)
			continue;
		if (memcmp(copy + (at - mem), at, PAGE))
			FAIL("round %d: page %d was not told", round, (int)((at - mem) / PAGE));
	}
}

static unsigned int seed;

static unsigned int any(unsigned int below)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % below;
}

/* One of the things that happen to memory; what is unmapped comes back. */
static void happen(int round)
{
	unsigned int page = any(PAGES - 4), nr = 1 + any(4), i;
	unsigned char *at = mem + page * PAGE, *other;

	switch (any(12)) {
	case 0:
		madvise(at, nr * PAGE, MADV_DONTNEED);
		break;
	case 1:
		map_at(at, nr);
		break;
	case 2:
		munmap(at, nr * PAGE);
		if (any(2))
			follow(round);
		map_at(at, nr);
		break;
	case 3:
		other = mmap(NULL, nr * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(other, round, any(2) * PAGE);
		REQUIRE_EQ(mremap(other, nr * PAGE, nr * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at), at);
		break;
	case 4:
		mprotect(at, nr * PAGE, PROT_READ);
		if (any(2))
			follow(round);
		mprotect(at, nr * PAGE, RW);
		break;
	case 5:
		if (any(4) == 0 && !fork())
			_exit(0);
		break;
	default:
		for (i = 0; i < nr; i++)
			at[i * PAGE + any(PAGE)] = round;
	}
}

static void whatever_happens(void **state)
{
	int round, i;

	(void)state;
	for (round = 0; round < 3000; round++) {
		for (i = any(6); i >= 0; i--)
			happen(round);
		follow(round);
	}
	while (wait(NULL) > 0)
		;
}

#define WRITERS	3

static bool enough;
static long long written[WRITERS];

static void *writer(void *arg)
{
	long which = (long)arg;
	unsigned int my = 77 + which;
	volatile long long *at;

	while (!__atomic_load_n(&enough, __ATOMIC_ACQUIRE)) {
		my = my * 1664525 + 1013904223;
		at = (volatile long long *)(mem + (my >> 8) % PAGES * PAGE) + which;
		*at = ++written[which];
		if (which == 0 && my >> 8 & 1)
			madvise(mem + (my >> 16) % PAGES * PAGE, PAGE, MADV_DONTNEED);
	}
	return NULL;
}

/* Each write is in a copy that was made afterwards, once the writers have ended. */
static void threads_write_meanwhile(void **state)
{
	pthread_t threads[WRITERS];
	time_t end = time(NULL) + 120;
	int round, nr, i, told;
	long n;

	(void)state;
	for (round = 0; round < 20; round++) {
		enough = false;
		for (n = 0; n < WRITERS; n++)
			REQUIRE_EQ(pthread_create(&threads[n], NULL, writer, (void *)n), 0);
		for (told = 0; told < 50 && time(NULL) < end;) {
			nr = collect_some(1 + told);
			REQUIRE_IN(nr, 0, PAGES);
			for (i = 0; i < nr; i++)
				memcpy(copy + ((unsigned char *)ranges[i].addr - mem), ranges[i].addr,
				       ranges[i].len);
			told += nr > 0;
		}
		__atomic_store_n(&enough, true, __ATOMIC_RELEASE);
		for (n = 0; n < WRITERS; n++)
			pthread_join(threads[n], NULL);
		REQUIRE_EQ(told, 50);
		follow(round);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MEMORY(pages_written),
		WITH_MEMORY(pages_read),
		WITH_MEMORY(little_room),
		WITH_MEMORY(pages_dropped),
		WITH_MEMORY(mapped_anew),
		WITH_MEMORY(moved_in_and_out),
		WITH_MEMORY(protected_in_between),
		WITH_MEMORY(written_by_system_calls),
		WITH_MEMORY(large_pages),
		WITH_MEMORY(forked),
		WITH_MEMORY(shared_file),
		WITH_MEMORY(shared_pages_taken),
		WITH_MEMORY(file_page_beside),
		WITH_MEMORY(two_at_a_time),
		WITH_MEMORY(bad_arguments),
		WITH_MEMORY(whatever_happens),
		WITH_MEMORY(threads_write_meanwhile),
	};

	need_backend();
	return RUN_WITH_MEMORY(tests);
}
