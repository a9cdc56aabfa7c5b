// SPDX-License-Identifier: MIT
/* epk_snapshot(): ordinary memory comes back as it was. */
#define _GNU_SOURCE
#include "snapshot_unit.h"

#include "backend.h"
#include "dirty.h"
#include "lock.h"
#include "snapshot.h"
#include "state_page.h"

static void map_plain(char *at, size_t pages, int prot)
{
	REQUIRE_EQ(mmap(at, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), at);
}

static int set_up(void **state)
{
	(void)state;
	mem = mmap(NULL, (PAGES + 2) * PAGE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE_NE(mem, MAP_FAILED);
	mem += PAGE;
	map_plain(mem, PAGES, RW);
	fill(mem, PAGES);
	memcpy(was, mem, sizeof(was));
	snap = epk_snapshot(mem, PAGES * PAGE);
	REQUIRE(snap > 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (snap)
		REQUIRE_EQ(epk_snapshot_free(snap), 0);
	snap = 0;
	return munmap(mem - PAGE, (PAGES + 2) * PAGE);
}

/* Is it told what was written to? */
static bool told(void)
{
	struct epk_dirty *dirty;
	char *page = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err = epk_dirty_start(page, PAGE, &dirty);

	if (!err)
		epk_dirty_stop(dirty);
	munmap(page, PAGE);
	return !err;
}

static void comes_back(void **state)
{
	(void)state;
	comes_back_again();
	memset(mem, 77, PAGES * PAGE);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
	REQUIRE_EQ(madvise(mem + 3 * PAGE, 9 * PAGE, MADV_DONTNEED), 0);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

static void renewed(void **state)
{
	(void)state;
	mem[3 * PAGE] = 'n';
	memset(mem + 10 * PAGE, 0, PAGE);
	memcpy(was, mem, sizeof(was));
	REQUIRE_EQ(epk_snapshot_renew(snap), 0);
	mem[3 * PAGE] = 'o';
	mem[10 * PAGE] = mem[60 * PAGE] = 'o';
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

/* What was not written to cannot even be read. */
static void not_looked_at(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_rollback(snap), 0);
	mem[0] ^= 1;
	mem[40 * PAGE] ^= 1;
	REQUIRE_EQ(mprotect(mem + PAGE, 30 * PAGE, PROT_NONE), 0);
	if (told())
		REQUIRE_EQ(epk_rollback(snap), 0);
	else
		REQUIRE_CAUSE(epk_rollback(snap), EACCES, "mprotect()");
	REQUIRE_EQ(mprotect(mem + PAGE, 30 * PAGE, RW), 0);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

/* Neither the first page nor the last, which come back where all does. */
static void require_nothing_back(void)
{
	REQUIRE_EQ(mem[0], 'x');
	REQUIRE_EQ(mem[(PAGES - 1) * PAGE], 'x');
}

static void cannot_come_back(void **state)
{
	char *elsewhere;

	(void)state;
	mem[0] = mem[8 * PAGE] = mem[(PAGES - 1) * PAGE] = 'x';
	REQUIRE_EQ(mprotect(mem + 8 * PAGE, PAGE, PROT_READ), 0);
	REQUIRE_CAUSE(epk_rollback(snap), EACCES, "mprotect()");
	require_nothing_back();
	REQUIRE_EQ(mprotect(mem + 8 * PAGE, PAGE, PROT_NONE), 0);
	REQUIRE_CAUSE(epk_rollback(snap), EACCES, "mprotect()");
	REQUIRE_CAUSE(epk_snapshot_renew(snap), EACCES, "mprotect()");
	require_nothing_back();
	REQUIRE_EQ(munmap(mem + 8 * PAGE, PAGE), 0);
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "not mapped");
	REQUIRE_CAUSE(epk_snapshot_renew(snap), EINVAL, "not mapped");
	require_nothing_back();
	map_plain(mem + 8 * PAGE, 1, RW);
	elsewhere = mremap(mem + 30 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, mem + 40 * PAGE);
	REQUIRE_EQ(elsewhere, mem + 40 * PAGE);
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "not mapped");
	require_nothing_back();
	map_plain(mem + 30 * PAGE, 2, RW);
	/* All is there again, and what was then is not what the failures left. */
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

static void a_domain_came_there(void **state)
{
	int id = new_domain();
	char *page;

	(void)state;
	mem[0] = mem[(PAGES - 1) * PAGE] = 'x';
	page = domain_mmap(id, mem + 9 * PAGE, PAGE, RW, MAP_FIXED);
	REQUIRE_EQ(page, mem + 9 * PAGE);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	page[0] = 's';
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "epk_snapshot_domain()");
	REQUIRE_CAUSE(epk_snapshot_renew(snap), EINVAL, "epk_snapshot_domain()");
	REQUIRE_CAUSE(epk_snapshot(mem, PAGES * PAGE), EINVAL, "epk_snapshot_domain()");
	REQUIRE_EQ(epk_held_prot(id), RW);
	REQUIRE_EQ(page[0], 's');
	REQUIRE_EQ(domain_end(id), 0);
	require_nothing_back();
	REQUIRE_EQ(epk_munmap_reserve(page, PAGE), 0);
	map_plain(page, 1, RW);
	free_domain(id);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

/* Each is as it was when it was taken, whatever the other has brought back. */
static void nested(void **state)
{
	static char then[PAGES * PAGE];
	int inner;

	(void)state;
	mem[5 * PAGE] = mem[6 * PAGE] = 'i';
	memcpy(then, mem, sizeof(then));
	inner = epk_snapshot(mem, PAGES * PAGE);
	REQUIRE(inner > 0);
	mem[6 * PAGE] = mem[7 * PAGE] = 'x';
	REQUIRE_EQ(epk_rollback(inner), 0);
	REQUIRE(!memcmp(mem, then, sizeof(then)));
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
	REQUIRE_EQ(epk_rollback(inner), 0);
	REQUIRE(!memcmp(mem, then, sizeof(then)));
	REQUIRE_EQ(epk_snapshot_free(inner), 0);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

static int child(void)
{
	int own;

	if (epk_rollback(snap) != -EPERM || epk_snapshot_renew(snap) != -EPERM || epk_snapshot_free(snap) != -EPERM)
		return 1;
	if (epk_dirty_list || mem[0] != 'x')
		return 2;
	own = epk_snapshot(mem, PAGES * PAGE);
	if (own <= 0)
		return 3;
	mem[0] = mem[PAGE] = 'y';
	if (epk_rollback(own) || mem[0] != 'x' || mem[PAGE] != was[PAGE])
		return 4;
	return epk_snapshot_free(own) ? 5 : 0;
}

static void forked(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	mem[0] = 'x';
	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(child());
	mem[2 * PAGE] = 'x';
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	mem[3 * PAGE] = 'x';
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

#define WRITERS	3

static bool enough;
static uint32_t written[WRITERS];

static long long *counter(size_t page, long which)
{
	return (long long *)(mem + page * PAGE) + which;
}

/* A number that its other half tells from what is half of one and half of another. */
static long long marked(uint32_t count)
{
	return (long long)((uint64_t)count << 32 | count * 2654435769u);
}

static void *writer(void *arg)
{
	long which = (long)arg;
	unsigned int my = which;
	uint32_t next = 0;

	while (!__atomic_load_n(&enough, __ATOMIC_ACQUIRE)) {
		my = my * 1664525 + 1013904223;
		next++;
		__atomic_store_n(counter((my >> 8) % PAGES, which), marked(next), __ATOMIC_RELEASE);
		__atomic_store_n(&written[which], next, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* What is copied byte by byte while it is written to is nothing that was ever written. */
static uint32_t count_in(long long value)
{
	uint32_t count = (uint64_t)value >> 32;

	return value == marked(count) ? count : 0;
}

/* No counter is newer than what was written when the snapshot was there; and what came back comes back again. */
static void round_with_threads(void)
{
	uint32_t then[WRITERS];
	pthread_t threads[WRITERS];
	size_t page;
	long n;

	memset(mem, 0, PAGES * PAGE);
	memset(written, 0, sizeof(written));
	enough = false;
	for (n = 0; n < WRITERS; n++)
		REQUIRE_EQ(pthread_create(&threads[n], NULL, writer, (void *)n), 0);
	while (!__atomic_load_n(&written[0], __ATOMIC_ACQUIRE))
		sched_yield();
	REQUIRE_EQ(epk_snapshot_renew(snap), 0);
	for (n = 0; n < WRITERS; n++)
		then[n] = __atomic_load_n(&written[n], __ATOMIC_ACQUIRE);
	REQUIRE_EQ(epk_rollback(snap), 0);
	usleep(500);
	__atomic_store_n(&enough, true, __ATOMIC_RELEASE);
	for (n = 0; n < WRITERS; n++)
		pthread_join(threads[n], NULL);
	REQUIRE_EQ(epk_rollback(snap), 0);
	for (page = 0; page < PAGES; page++)
		for (n = 0; n < WRITERS; n++)
			REQUIRE(count_in(*counter(page, n)) <= then[n] + 1);
	memcpy(was, mem, sizeof(was));
	for (page = 0; page < PAGES; page += 3)
		*counter(page, 0) = -1;
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

static void threads_write_meanwhile(void **state)
{
	int round;

	(void)state;
	/* They race, as they are to. */
	if (SANITIZED_THREADS)
		return;
	for (round = 0; round < 30; round++)
		round_with_threads();
}

static void byte_changes_when_read(void **state)
{
	(void)state;
	changes_when_read(0);
}

static long sweep_at, sweep_done;
static size_t sweep_page;

/* Writes once to each page, with a moment between two of them, as often as it is told. */
static void *sweeper(void *arg)
{
	volatile int moment;
	long round;
	size_t page;

	for (round = 1;; round++) {
		while (__atomic_load_n(&sweep_at, __ATOMIC_ACQUIRE) == round - 1)
			sched_yield();
		if (__atomic_load_n(&sweep_at, __ATOMIC_ACQUIRE) < 0)
			return arg;
		for (page = 0; page < PAGES; page++) {
			mem[page * PAGE + 8]++;
			__atomic_store_n(&sweep_page, page, __ATOMIC_RELEASE);
			for (moment = 0; moment < 3000; moment++)
				;
		}
		__atomic_store_n(&sweep_done, round, __ATOMIC_RELEASE);
	}
}

/* Comes back in the middle of it. */
static void sweep_start(long round)
{
	__atomic_store_n(&sweep_page, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&sweep_at, round, __ATOMIC_RELEASE);
	while (__atomic_load_n(&sweep_page, __ATOMIC_ACQUIRE) < (size_t)round % (PAGES / 2) + 1)
		sched_yield();
}

static void sweep_wait(long round)
{
	while (__atomic_load_n(&sweep_done, __ATOMIC_ACQUIRE) < round)
		sched_yield();
}

/* Each write is undone, or kept, whenever it was made: now or the next time. */
static void no_write_is_lost(void **state)
{
	pthread_t thread;
	long round = 0, i;

	(void)state;
	if (SANITIZED_THREADS)
		return;
	sweep_at = sweep_done = 0;
	REQUIRE_EQ(pthread_create(&thread, NULL, sweeper, NULL), 0);
	for (i = 0; i < 100; i++) {
		sweep_start(++round);
		REQUIRE_EQ(epk_rollback(snap), 0);
		sweep_wait(round);
		REQUIRE_EQ(epk_rollback(snap), 0);
		REQUIRE(is_back());
		sweep_start(++round);
		REQUIRE_EQ(epk_snapshot_renew(snap), 0);
		sweep_wait(round);
		REQUIRE_EQ(epk_snapshot_renew(snap), 0);
		memcpy(was, mem, sizeof(was));
		memset(mem + i % PAGES * PAGE, 'x', PAGE);
		REQUIRE_EQ(epk_rollback(snap), 0);
		REQUIRE(is_back());
	}
	__atomic_store_n(&sweep_at, -1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
}

#define MANY	256ul

/* Where other threads write, to every second page, each time that the library asks the kernel what was written to. */
static char *many;
static int asked;

static void write_to_many(void)
{
	size_t page;

	/* Not for ever. */
	if (asked++ < 10)
		for (page = 0; page < MANY; page += 2)
			many[page * PAGE]++;
}

/* The C library's, for this program. */
long syscall(long number, ...)
{
	register long r10 asm("r10"), r8 asm("r8"), r9 asm("r9");
	long a, b, c, result = number;
	va_list list;

	va_start(list, number);
	a = va_arg(list, long);
	b = va_arg(list, long);
	c = va_arg(list, long);
	r10 = va_arg(list, long);
	r8 = va_arg(list, long);
	r9 = va_arg(list, long);
	va_end(list);
	if (many && number == SYS_openat && strstr((const char *)b, "/pagemap"))
		write_to_many();
	asm volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	if (result >= 0 || result < -4095)
		return result;
	errno = -result;
	return -1;
}

/* However quick they are, there is an end. */
static void threads_write_quickly(void **state)
{
	char *pages = mmap(NULL, MANY * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *then = malloc(MANY * PAGE);
	int id = epk_snapshot(pages, MANY * PAGE), looks = told() ? 1 : 0;

	(void)state;
	REQUIRE(then);
	REQUIRE(id > 0);
	madvise(pages, MANY * PAGE, MADV_NOHUGEPAGE);
	many = pages;
	asked = 0;
	REQUIRE_EQ(epk_snapshot_renew(id), 0);
	REQUIRE_EQ(asked, looks);
	memcpy(then, pages, MANY * PAGE);
	REQUIRE_EQ(epk_rollback(id), 0);
	REQUIRE_EQ(asked, 2 * looks);
	many = NULL;
	REQUIRE(!memcmp(pages, then, MANY * PAGE));
	REQUIRE_EQ(epk_snapshot_free(id), 0);
	munmap(pages, MANY * PAGE);
	free(then);
}

static void large_pages(void **state)
{
	size_t len = 4ul << 20;
	char *room = mmap(NULL, 2 * len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *large, *then = malloc(len);
	int id;

	(void)state;
	REQUIRE_NE(room, MAP_FAILED);
	REQUIRE(then);
	large = (char *)(((uintptr_t)room + (2ul << 20) - 1) & -(2ul << 20));
	madvise(large, len, MADV_HUGEPAGE);
	memset(large, 5, len);
	memcpy(then, large, len);
	id = epk_snapshot(large, len);
	REQUIRE(id > 0);
	large[0] = large[len / 2 + 77] = large[len - 1] = 6;
	REQUIRE_EQ(epk_rollback(id), 0);
	REQUIRE(!memcmp(large, then, len));
	large[123456] = 6;
	REQUIRE_EQ(epk_rollback(id), 0);
	REQUIRE(!memcmp(large, then, len));
	REQUIRE_EQ(epk_snapshot_free(id), 0);
	free(then);
	munmap(room, 2 * len);
}

static void *on_own_stack(void *arg)
{
	volatile char here = 'x';
	int err = epk_rollback(*(int *)arg);

	return err == -EINVAL && strstr(epk_strerror(err), "stack") && here == 'x' ? NULL : arg;
}

static void stack_in_it(void **state)
{
	size_t len = 512 * PAGE;
	char *stack = mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int id = epk_snapshot(stack, len);
	pthread_attr_t attr;
	pthread_t thread;
	void *failed;

	(void)state;
	REQUIRE(id > 0);
	pthread_attr_init(&attr);
	REQUIRE_EQ(pthread_attr_setstack(&attr, stack, len), 0);
	REQUIRE_EQ(pthread_create(&thread, &attr, on_own_stack, &id), 0);
	REQUIRE_EQ(pthread_join(thread, &failed), 0);
	pthread_attr_destroy(&attr);
	REQUIRE(!failed);
	REQUIRE_EQ(epk_rollback(id), 0);
	REQUIRE_EQ(epk_snapshot_free(id), 0);
	munmap(stack, len);
}

/* How far it has come. */
static int cancelled_at;

static void *cancelled(void *arg)
{
	int own;

	pthread_cancel(pthread_self());
	if (epk_rollback(snap) || epk_snapshot_renew(snap))
		return arg;
	cancelled_at = 1;
	own = epk_snapshot(was, sizeof(was));
	if (own < 0 || epk_snapshot_free(own) || epk_held(NULL, 0))
		return arg;
	cancelled_at = 2;
	pthread_testcancel();
	return arg;
}

/* A thread that is cancelled ends when it is through. */
static void thread_is_cancelled(void **state)
{
	struct unit_resources before = count_resources();
	pthread_t thread;
	void *got;

	(void)state;
	cancelled_at = 0;
	mem[0] = 'x';
	REQUIRE_EQ(pthread_create(&thread, NULL, cancelled, &before), 0);
	REQUIRE_EQ(pthread_join(thread, &got), 0);
	REQUIRE_EQ(got, PTHREAD_CANCELED);
	REQUIRE_EQ(cancelled_at, 2);
	REQUIRE(is_back());
	REQUIRE_EQ(count_resources().domains, before.domains);
	mem[0] = 'x';
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

static void bad_arguments(void **state)
{
	struct unit_resources before = count_resources();
	char *page = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int id = new_domain(), with_heap = new_domain();

	(void)state;
	REQUIRE_CAUSE(epk_snapshot(page + 1, PAGE), EINVAL, "4096");
	REQUIRE_CAUSE(epk_snapshot(page, 0), EINVAL, "len");
	REQUIRE_EQ(epk_snapshot(page, -1), -EOVERFLOW);
	REQUIRE_EQ(epk_snapshot(page, -PAGE), -EOVERFLOW);
	REQUIRE_EQ(epk_snapshot((void *)0x7ffffffff000, PAGE), -EOVERFLOW);
	REQUIRE_CAUSE(epk_snapshot((void *)((uintptr_t)&epk_lock & -PAGE), PAGE), EINVAL, "own");
	REQUIRE_CAUSE(epk_snapshot((void *)((uintptr_t)&epk_slots[EPK_SLOTS / 2] & -PAGE), PAGE), EINVAL, "own");
	REQUIRE_EQ(mprotect(page, PAGE, PROT_NONE), 0);
	REQUIRE_CAUSE(epk_snapshot(page, 2 * PAGE), EACCES, "mprotect()");
	REQUIRE_EQ(munmap(page, PAGE), 0);
	/* What is new may come there. */
	REQUIRE_EQ(epk_snapshot(page, 2 * PAGE), -EINVAL);
	REQUIRE_EQ(munmap(page + PAGE, PAGE), 0);
	REQUIRE_EQ(epk_rollback(0), -EINVAL);
	REQUIRE_EQ(epk_rollback(-1), -EINVAL);
	REQUIRE_CAUSE(epk_rollback(id), EINVAL, "no snapshot");
	REQUIRE(epk_malloc(with_heap, 100));
	REQUIRE_CAUSE(epk_rollback(with_heap), EINVAL, "no snapshot");
	REQUIRE_CAUSE(epk_snapshot_renew(with_heap), EINVAL, "no snapshot");
	REQUIRE_CAUSE(epk_snapshot_free(with_heap), EINVAL, "no snapshot");
	/* It is no domain to allocate in. */
	REQUIRE(!epk_malloc(snap, 16));
	REQUIRE_EQ(errno, ENOMEM);
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	free_domain(id);
	REQUIRE_EQ(epk_rollback(id), -ENOENT);
	free_domain(with_heap);
	require_nothing_lost(before);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

/* What the library maps meanwhile would come to lie in the gap, and be taken for a part of the range. */
static void gap_that_is_filled(void **state)
{
	char *range = mmap(NULL, PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *last = NULL, *page;
	int id, i;

	(void)state;
	REQUIRE_NE(range, MAP_FAILED);
	/* One page is free above it, which the first of them takes, and no other. */
	for (i = 0; i < 100000; i++) {
		page = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		REQUIRE_NE(page, MAP_FAILED);
		if (page < range)
			break;
		last = page;
	}
	if (last)
		munmap(last, PAGE);
	munmap(range + 9 * PAGE, PAGE);
	id = epk_snapshot(range, PAGES * PAGE);
	REQUIRE_EQ(id, -EINVAL);
	munmap(range, PAGES * PAGE);
}

#define KEPT_BYTES	200ul

/* What a heap has stored, whoever has sent it, is no snapshot: the first page of a heap has some of it. */
static void stored_in_a_heap(void **state)
{
	static char victim[PAGE] __attribute__((aligned(4096))), forged[PAGE];
	int id = new_domain();
	struct epk_kept *kept;
	struct epk_piece *piece;
	char *at, *stored;

	(void)state;
	memset(forged, 'f', sizeof(forged));
	REQUIRE(epk_malloc(id, 16));
	REQUIRE_EQ(domain_begin(id, RW), 0);
	at = (char *)epk_note(id) + EPK_KEPT_AT;
	do
		stored = epk_malloc(id, 16);
	while (stored && stored + 100 < at);
	stored = epk_malloc(id, 100 + KEPT_BYTES);
	REQUIRE(stored && stored <= at && at + KEPT_BYTES <= stored + 100 + KEPT_BYTES);
	kept = (struct epk_kept *)at;
	piece = (struct epk_piece *)(kept + 1);
	REQUIRE((char *)(piece + 1) + 8 <= at + KEPT_BYTES);
	*piece = (struct epk_piece){ (uintptr_t)victim, (uintptr_t)victim + PAGE, true };
	*kept = (struct epk_kept){ .magic = EPK_KEPT, .pieces = piece, .nr = 1, .pages = 1,
				   .pending = (uint64_t *)(piece + 1), .copy = forged, .bytes = PAGE };
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_CAUSE(epk_rollback(id), EINVAL, "no snapshot");
	REQUIRE_CAUSE(epk_snapshot_renew(id), EINVAL, "no snapshot");
	REQUIRE_CAUSE(epk_snapshot_free(id), EINVAL, "no snapshot");
	REQUIRE_EQ(victim[0], 0);
	free_domain(id);
}

static void nothing_lost(void **state)
{
	struct unit_resources before;
	int id;

	(void)state;
	id = epk_snapshot(was, sizeof(was));
	REQUIRE(id > 0);
	REQUIRE_EQ(epk_snapshot_free(id), 0);
	before = count_resources();
	id = epk_snapshot(was, sizeof(was));
	REQUIRE(id > 0);
	REQUIRE_EQ(count_resources().domains, before.domains + 1);
	REQUIRE_EQ(epk_snapshot_free(id), 0);
	REQUIRE_EQ(epk_snapshot_free(id), -ENOENT);
	REQUIRE_EQ(epk_rollback(id), -ENOENT);
	require_nothing_lost(before);
}

#define WITH_MEMORY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MEMORY(comes_back),
		WITH_MEMORY(renewed),
		WITH_MEMORY(not_looked_at),
		WITH_MEMORY(cannot_come_back),
		WITH_MEMORY(a_domain_came_there),
		WITH_MEMORY(nested),
		WITH_MEMORY(forked),
		WITH_MEMORY(threads_write_meanwhile),
		WITH_MEMORY(byte_changes_when_read),
		WITH_MEMORY(no_write_is_lost),
		cmocka_unit_test(threads_write_quickly),
		WITH_MEMORY(thread_is_cancelled),
		WITH_MEMORY(bad_arguments),
		cmocka_unit_test(large_pages),
		cmocka_unit_test(stack_in_it),
		cmocka_unit_test(gap_that_is_filled),
		cmocka_unit_test(stored_in_a_heap),
		cmocka_unit_test(nothing_lost),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
