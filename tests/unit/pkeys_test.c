// SPDX-License-Identifier: MIT
/*
 * What pkeys(7) promises a program that calls the C library, where libepk-pkeys.so answers.  Nothing here
 * knows of a domain.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "unit.h"

#define PAGES	4ul
#define LARGE	256ul
#define CLOSED	PKEY_DISABLE_ACCESS
#define READ	PKEY_DISABLE_WRITE
#define OPEN	0
/* 512 EPTs, 15 keys in each. */
#define KEYS	7680

static char *mem, value;
static int key;

static char *map_pages(size_t pages)
{
	char *got = mmap(NULL, pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(got, MAP_FAILED);
	return got;
}

/* Each page is 'a', 'b' and so on, and the last one is untouched. */
static void fill(char *to)
{
	size_t page;

	for (page = 0; page < PAGES - 1; page++)
		memset(to + page * PAGE, 'a' + page, PAGE);
}

static bool is_filled(const char *from)
{
	size_t at;

	for (at = 0; at < PAGES * PAGE; at++)
		if (from[at] != (at < (PAGES - 1) * PAGE ? (char)('a' + at / PAGE) : 0))
			return false;
	return true;
}

static int set_up(void **state)
{
	(void)state;
	mem = map_pages(PAGES);
	fill(mem);
	key = pkey_alloc(0, CLOSED);
	return key <= 0;
}

static int tear_down(void **state)
{
	(void)state;
	pkey_free(key);
	return munmap(mem, PAGES * PAGE);
}

static void give(int to, int prot)
{
	assert_int_equal(pkey_mprotect(mem, PAGES * PAGE, prot, to), 0);
}

/* RW, PROT_READ or nothing. */
static int may(char *addr)
{
	if (!try_read(addr, &value))
		return 0;
	return try_write(addr, value) ? RW : PROT_READ;
}

static int may_at(char *addr)
{
	return backend_protects() ? may(addr) : RW;
}

static int new_key(unsigned int rights)
{
	int got = pkey_alloc(0, rights);

	assert_true(got > 0);
	return got;
}

static void values(void **state)
{
	int keys[64], i, j;

	(void)state;
	for (i = 0; i < 64; i++) {
		keys[i] = new_key(CLOSED);
		/* None that a program might guess, nor the CPU's own. */
		assert_true(keys[i] > 15);
		for (j = 0; j < i; j++)
			assert_true(abs(keys[i] - keys[j]) > 1);
	}
	for (i = 0; i < 64; i++)
		assert_int_equal(pkey_free(keys[i]), 0);
}

static void small_numbers(void **state)
{
	int first, second;

	(void)state;
	setenv("EPK_PKEYS_NUMBERS", "small", 1);
	first = new_key(READ);
	second = new_key(CLOSED);
	unsetenv("EPK_PKEYS_NUMBERS");
	assert_int_equal(second, first + 1);
	assert_in_range(second, 2, 20);
	assert_int_equal(pkey_get(first), READ);
	assert_int_equal(pkey_free(first), 0);
	assert_int_equal(pkey_free(second), 0);
}

static void fails(int result, int error)
{
	assert_int_equal(result, -1);
	assert_int_equal(errno, error);
	errno = 0;
}

static void errors(void **state)
{
	int freed = new_key(OPEN);

	(void)state;
	assert_int_equal(pkey_free(freed), 0);
	fails(pkey_alloc(1, 0), EINVAL);
	fails(pkey_alloc(0, 4), EINVAL);
	fails(pkey_free(freed), EINVAL);
	fails(pkey_free(0), EINVAL);
	fails(pkey_free(-1), EINVAL);
	fails(pkey_free(3), EINVAL);
	fails(pkey_set(freed, 0), EINVAL);
	fails(pkey_set(key, 4), EINVAL);
	fails(pkey_set(-1, 0), EINVAL);
	fails(pkey_set(0, CLOSED), EINVAL);
	assert_int_equal(pkey_set(0, OPEN), 0);
	fails(pkey_get(freed), EINVAL);
	fails(pkey_get(-1), EINVAL);
	assert_int_equal(pkey_get(0), 0);
	fails(pkey_mprotect(mem, PAGE, RW, freed), EINVAL);
	fails(pkey_mprotect(mem, PAGE, RW, 1), EINVAL);
	fails(pkey_mprotect(mem, PAGE, RW, -2), EINVAL);
	fails(pkey_mprotect(mem + 1, PAGE, RW, key), EINVAL);
	fails(pkey_mprotect(mem, -1ul, RW, key), ENOMEM);
	fails(pkey_mprotect(mem, PAGE, RW | PROT_EXEC, key), EACCES);
	fails(pkey_mprotect(mem, PAGE, RW | PROT_GROWSDOWN, key), EINVAL);
	assert_int_equal(pkey_mprotect(mem, 0, RW, key), 0);
	assert_true(is_filled(mem));
}

static void *on_own_stack(void *arg)
{
	char *local = (char *)((uintptr_t)&arg & -PAGE);

	return pkey_mprotect(local, PAGE, RW, key) == -1 && errno == EACCES ? NULL : local;
}

/* What cannot have a key; and nothing before it in the range has one then. */
static void errors_of_memory(void **state)
{
	char *with_hole = map_pages(3), *shared, *local = (char *)((uintptr_t)&state & -PAGE);
	pthread_t thread;
	void *wrong;

	munmap(with_hole + PAGE, PAGE);
	fails(pkey_mprotect(with_hole, 3 * PAGE, RW, key), ENOMEM);
	assert_int_equal(may(with_hole), RW);
	shared = mmap(with_hole + PAGE, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	assert_ptr_equal(shared, with_hole + PAGE);
	fails(pkey_mprotect(with_hole, 3 * PAGE, RW, key), EACCES);
	assert_int_equal(may(with_hole), RW);
	fails(pkey_mprotect(local, PAGE, RW, key), EACCES);
	assert_int_equal(pthread_create(&thread, NULL, on_own_stack, NULL), 0);
	pthread_join(thread, &wrong);
	assert_null(wrong);
	munmap(with_hole, 3 * PAGE);
}

static void keeps_contents(void **state)
{
	(void)state;
	give(key, RW);
	assert_int_equal(pkey_get(key), CLOSED);
	if (backend_protects()) {
		assert_int_equal(may(mem), 0);
		assert_int_equal(try_code, refused_code());
		if (try_code == SEGV_PKUERR)
			assert_int_equal(try_pkey, key);
		assert_int_equal(may(mem + PAGES * PAGE - 1), 0);
	}
	assert_int_equal(pkey_set(key, OPEN), 0);
	assert_true(is_filled(mem));
	assert_int_equal(may(mem), RW);
	assert_int_equal(pkey_set(key, CLOSED), 0);
}

static void rights(void **state)
{
	static const unsigned int all[] = { OPEN, READ, CLOSED };
	static const int prots[] = { RW, PROT_READ, 0 };
	int from, to;

	(void)state;
	give(key, RW);
	for (from = 0; from < 3; from++) {
		for (to = 0; to < 3; to++) {
			assert_int_equal(pkey_set(key, all[from]), 0);
			assert_int_equal(pkey_get(key), all[from]);
			assert_int_equal(pkey_set(key, all[to]), 0);
			assert_int_equal(pkey_get(key), all[to]);
			if (backend_protects())
				assert_int_equal(may(mem), prots[to]);
		}
	}
	assert_int_equal(pkey_set(key, READ | CLOSED), 0);
	assert_int_equal(pkey_get(key) & CLOSED, CLOSED);
}

static void rights_at_first(void **state)
{
	int open = new_key(OPEN), read = new_key(READ);

	(void)state;
	assert_int_equal(pkey_get(open), OPEN);
	assert_int_equal(pkey_get(read), READ);
	give(open, RW);
	assert_true(is_filled(mem));
	assert_int_equal(may_at(mem), RW);
	give(read, RW);
	assert_true(is_filled(mem));
	assert_int_equal(may_at(mem), backend_protects() ? PROT_READ : RW);
	assert_int_equal(pkey_free(open), 0);
	assert_int_equal(pkey_free(read), 0);
}

static void other_key(void **state)
{
	int other = new_key(CLOSED);

	(void)state;
	give(key, RW);
	give(other, RW);
	/* What it took is nobody's afterwards. */
	assert_int_equal(pkey_get(key), CLOSED);
	assert_int_equal(pkey_get(other), CLOSED);
	assert_int_equal(pkey_set(key, OPEN), 0);
	if (backend_protects())
		assert_int_equal(may(mem), 0);
	assert_int_equal(pkey_set(other, READ), 0);
	assert_true(is_filled(mem));
	pkey_free(other);
}

static void key_0(void **state)
{
	(void)state;
	give(key, RW);
	give(0, PROT_READ);
	assert_int_equal(may(mem), PROT_READ);
	assert_true(is_filled(mem));
	give(0, RW);
	assert_int_equal(may(mem), RW);
	assert_int_equal(pkey_get(key), CLOSED);
	/* Ordinary, as far as the kernel knows. */
	assert_int_equal(madvise(mem, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(mem[0], 0);
}

static void mprotect_keeps_key(void **state)
{
	(void)state;
	give(key, RW);
	assert_int_equal(pkey_set(key, OPEN), 0);
	assert_int_equal(mprotect(mem, PAGE, PROT_READ), 0);
	assert_int_equal(may(mem), PROT_READ);
	assert_int_equal(may(mem + PAGE), RW);
	assert_int_equal(pkey_mprotect(mem, PAGE, PROT_NONE, -1), 0);
	assert_int_equal(may(mem), 0);
	fails(mprotect(mem, PAGE, PROT_READ | PROT_EXEC), EACCES);
	assert_int_equal(mprotect(mem, PAGES * PAGE, RW), 0);
	assert_true(is_filled(mem));
	assert_int_equal(pkey_set(key, CLOSED), 0);
	if (backend_protects())
		assert_int_equal(may(mem), 0);
}

static void prot_with_key(void **state)
{
	(void)state;
	give(key, PROT_READ);
	assert_int_equal(pkey_set(key, OPEN), 0);
	assert_int_equal(may(mem), PROT_READ);
	assert_true(is_filled(mem));
	give(key, PROT_NONE);
	assert_int_equal(may(mem), 0);
	give(key, PROT_WRITE);
	assert_true(is_filled(mem));
}

/* Without a key pkey_mprotect() is mprotect(). */
static void no_key(void **state)
{
	(void)state;
	assert_int_equal(pkey_mprotect(mem, PAGE, PROT_READ, -1), 0);
	assert_int_equal(may(mem), PROT_READ);
	assert_int_equal(pkey_mprotect(mem, PAGE, RW, -1), 0);
	assert_int_equal(may(mem), RW);
}

static void parts(void **state)
{
	(void)state;
	assert_int_equal(pkey_mprotect(mem + PAGE, 1, RW, key), 0);
	if (backend_protects())
		assert_int_equal(may(mem + PAGE), 0);
	assert_int_equal(may(mem), RW);
	assert_int_equal(may(mem + 2 * PAGE), RW);
	/* All of it, of which a part has it already. */
	give(key, RW);
	if (backend_protects())
		assert_int_equal(may(mem), 0);
	assert_int_equal(pkey_set(key, OPEN), 0);
	assert_true(is_filled(mem));
	/* A hole, and what is mapped over another part. */
	assert_int_equal(munmap(mem + PAGE, PAGE), 0);
	assert_int_equal(may(mem + PAGE), 0);
	assert_ptr_equal(mmap(mem, 3 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), mem);
	assert_int_equal(pkey_set(key, CLOSED), 0);
	assert_int_equal(mem[0] + mem[PAGE] + mem[2 * PAGE], 0);
	/* It has no key, as far as anybody knows. */
	assert_int_equal(mprotect(mem, PAGE, RW | PROT_EXEC), 0);
	assert_int_equal(may(mem + 2 * PAGE), RW);
	if (backend_protects())
		assert_int_equal(may(mem + 3 * PAGE), 0);
}

static void stays_where_it_is(void **state)
{
	(void)state;
	give(key, RW);
	assert_ptr_equal(mremap(mem, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE), MAP_FAILED);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(pkey_set(key, READ), 0);
	assert_true(is_filled(mem));
}

static void of_the_heap(void **state)
{
	char *heap = aligned_alloc(PAGE, 2 * PAGE);

	(void)state;
	memset(heap, 'h', 2 * PAGE);
	assert_int_equal(pkey_mprotect(heap, PAGE, RW, key), 0);
	if (backend_protects())
		assert_int_equal(may(heap), 0);
	assert_int_equal(heap[PAGE], 'h');
	assert_int_equal(pkey_set(key, READ), 0);
	assert_int_equal(heap[PAGE - 1], 'h');
	assert_int_equal(pkey_mprotect(heap, PAGE, RW, 0), 0);
	assert_int_equal(heap[0], 'h');
	free(heap);
}

/* A private mapping of a file has what it had, but where the file ends before it. */
static void of_a_file(void **state)
{
	int fd = memfd_create("of_a_file", 0);
	char *pages;

	(void)state;
	assert_int_equal(write(fd, mem, PAGE), PAGE);
	pages = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(pages, MAP_FAILED);
	pages[1] = 'f';
	fails(pkey_mprotect(pages, 2 * PAGE, RW, key), EACCES);
	assert_int_equal(may(pages), RW);
	assert_int_equal(pkey_mprotect(pages, PAGE, RW, key), 0);
	if (backend_protects())
		assert_int_equal(may(pages), 0);
	assert_int_equal(pkey_set(key, READ), 0);
	assert_int_equal(pages[0], 'a');
	assert_int_equal(pages[1], 'f');
	assert_int_equal(munmap(pages, 2 * PAGE), 0);
	close(fd);
}

/* Its number is none, its memory is closed to who had it closed, and no other key comes to it. */
static void freed_with_memory(void **state)
{
	int keys[100], i;

	(void)state;
	give(key, RW);
	assert_int_equal(pkey_free(key), 0);
	fails(pkey_free(key), EINVAL);
	fails(pkey_set(key, OPEN), EINVAL);
	for (i = 0; i < 100; i++) {
		keys[i] = new_key(READ);
		if (backend_protects() && i < 10)
			assert_int_equal(may(mem), 0);
		if (i >= 5)
			assert_int_equal(pkey_set(keys[i], CLOSED), 0);
	}
	for (i = 0; i < 100; i++)
		assert_int_equal(pkey_free(keys[i]), 0);
	give(0, RW);
	assert_true(is_filled(mem));
}

static void by_system_call(void **state)
{
	int got = syscall(SYS_pkey_alloc, 0, CLOSED);

	(void)state;
	assert_true(got > 15);
	assert_int_equal(syscall(SYS_pkey_mprotect, mem, PAGES * PAGE, RW, got), 0);
	if (backend_protects())
		assert_int_equal(may(mem), 0);
	assert_int_equal(pkey_set(got, READ), 0);
	assert_true(is_filled(mem));
	assert_int_equal(syscall(SYS_mprotect, mem, PAGE, PROT_NONE), 0);
	assert_int_equal(syscall(SYS_munmap, mem, PAGE), 0);
	assert_int_equal(syscall(SYS_pkey_free, got), 0);
	fails(syscall(SYS_pkey_free, got), EINVAL);
	/* Others are the kernel's. */
	assert_int_equal(syscall(SYS_getpid), getpid());
	fails(syscall(SYS_close, -1), EBADF);
	assert_ptr_equal(syscall(SYS_mmap, mem, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
				 -1, 0), mem);
}

/* As many as there can be, and each is another. */
static void thousands(void **state)
{
	static int keys[KEYS];
	int nr = KEYS, i;
	char *pages = map_pages(200);

	(void)state;
	for (i = 0; i < nr; i++)
		keys[i] = new_key(CLOSED);
	for (i = 0; i < 200; i++) {
		pages[i * PAGE] = i;
		assert_int_equal(pkey_mprotect(pages + i * PAGE, PAGE, RW, keys[i * (nr / 200)]), 0);
	}
	for (i = 0; i < 200; i++) {
		assert_int_equal(pkey_set(keys[i * (nr / 200)], OPEN), 0);
		assert_int_equal(pages[i * PAGE], (char)i);
		if (backend_protects()) {
			assert_false(try_read(pages + (i + 1) % 200 * PAGE, &value));
			assert_false(try_read(pages + (i + 199) % 200 * PAGE, &value));
		}
		assert_int_equal(pkey_set(keys[i * (nr / 200)], CLOSED), 0);
	}
	assert_int_equal(munmap(pages, 200 * PAGE), 0);
	for (i = 0; i < nr; i++)
		assert_int_equal(pkey_free(keys[i]), 0);
}

/* More than a thread can have open: those that come then are closed, and one can be had for another. */
static void more_than_can_be_open(void **state)
{
	char *pages = map_pages(80);
	int keys[80], i, open = 0;

	(void)state;
	for (i = 0; i < 80; i++) {
		keys[i] = new_key(OPEN);
		assert_int_equal(pkey_mprotect(pages + i * PAGE, PAGE, RW, keys[i]), 0);
	}
	for (i = 0; i < 80; i++)
		open += pkey_get(keys[i]) == OPEN;
	assert_in_range(open, backend_is("mpk") ? 14 : 60, 80);
	for (i = 0; i < 80; i++)
		assert_int_equal(pkey_set(keys[i], CLOSED), 0);
	assert_int_equal(pkey_set(keys[79], OPEN), 0);
	pages[79 * PAGE] = 1;
	assert_int_equal(munmap(pages, 80 * PAGE), 0);
	for (i = 0; i < 80; i++)
		assert_int_equal(pkey_free(keys[i]), 0);
}

static sem_t go, done;

static void *early(void *arg)
{
	sem_wait(&go);
	*(int *)arg = pkey_get(key);
	if (backend_is_private() && try_read(mem, &value))
		*(int *)arg = -1;
	sem_post(&done);
	sem_wait(&go);
	assert_int_equal(pkey_set(key, OPEN), 0);
	*(int *)arg = is_filled(mem) ? pkey_get(key) : -1;
	return NULL;
}

static void *late(void *arg)
{
	*(int *)arg = pkey_get(key);
	if (!is_filled(mem))
		*(int *)arg = -1;
	assert_int_equal(pkey_set(key, CLOSED), 0);
	return NULL;
}

static void threads(void **state)
{
	pthread_t thread;
	int got = -1;

	(void)state;
	sem_init(&go, 0, 0);
	sem_init(&done, 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, early, &got), 0);
	give(key, RW);
	assert_int_equal(pkey_set(key, READ), 0);
	sem_post(&go);
	sem_wait(&done);
	assert_int_equal(got, CLOSED);
	sem_post(&go);
	pthread_join(thread, NULL);
	assert_int_equal(got, OPEN);
	/* Its own right is what it was. */
	assert_int_equal(pkey_get(key), READ);
	assert_int_equal(pthread_create(&thread, NULL, late, &got), 0);
	pthread_join(thread, NULL);
	assert_int_equal(got, READ);
	assert_int_equal(pkey_get(key), READ);
}

static volatile int in_handler;

static void handler(int sig)
{
	(void)sig;
	in_handler = pkey_get(key);
	pkey_set(key, OPEN);
}

static void handlers(void **state)
{
	(void)state;
	give(key, RW);
	assert_int_equal(pkey_set(key, READ), 0);
	signal(SIGUSR1, handler);
	in_handler = -1;
	raise(SIGUSR1);
	signal(SIGUSR1, SIG_DFL);
	assert_int_equal(in_handler, backend_is_private() ? CLOSED : READ);
	/* What it may is gone with it. */
	if (backend_is_private())
		assert_int_equal(pkey_get(key), READ);
	assert_true(is_filled(mem));
}

static int other_key_of_child;

static void in_child_of_fork(void)
{
	EXPECT(pkey_get(key) == READ);
	EXPECT(pkey_get(other_key_of_child) == CLOSED);
	EXPECT(is_filled(mem));
	if (backend_protects())
		EXPECT(!try_write(mem, 'z'));
	EXPECT(!mprotect(mem + 2 * PAGE, PAGE, RW) && !mprotect(mem + 2 * PAGE, PAGE, PROT_READ));
	EXPECT(!pkey_set(key, OPEN));
	EXPECT(try_write(mem, 'z') && mem[0] == 'z');
	EXPECT(pkey_alloc(0, CLOSED) > 15);
	EXPECT(!pkey_set(key, CLOSED));
	EXPECT(!backend_protects() || !try_read(mem, &value));
	EXPECT(!pkey_mprotect(mem, PAGES * PAGE, RW, 0) && mem[0] == 'z' && mem[PAGE] == 'b');
	EXPECT(!pkey_free(key));
}

static void forks_again(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		in_child_of_fork();
		_exit(0);
	}
	EXPECT(waitpid(pid, &status, 0) == pid && !status);
	in_child_of_fork();
}

static void forks(void **state)
{
	int files = count_files();

	(void)state;
	other_key_of_child = new_key(CLOSED);
	give(key, RW);
	assert_int_equal(pkey_set(key, READ), 0);
	run_in_child(in_child_of_fork);
	run_in_child(forks_again);
	/* The parent's is its own, and nothing of it lies about. */
	assert_int_equal(pkey_get(key), READ);
	assert_true(is_filled(mem));
	assert_int_equal(count_files(), files);
	pkey_free(other_key_of_child);
}

static void in_child_without_memory(void)
{
	EXPECT(!try_read(mem, &value));
	EXPECT(!try_read(mem + PAGES * PAGE - 1, &value));
	EXPECT(pkey_get(key) == CLOSED && !pkey_set(key, OPEN) && !try_read(mem, &value));
	/* It is the child's to use, as ordinary memory. */
	EXPECT(!mprotect(mem, PAGE, RW) && !mem[0]);
	EXPECT(!munmap(mem, PAGES * PAGE));
}

/* What the parent cannot leave the child it has not: the parent has it, and no signal. */
static void forks_without_room(void)
{
	const struct rlimit none = { 0, 0 };
	int status;
	pid_t pid;

	EXPECT(!setrlimit(RLIMIT_FSIZE, &none));
	pid = fork();
	if (!pid) {
		in_child_without_memory();
		_exit(0);
	}
	EXPECT(waitpid(pid, &status, 0) == pid && !status);
	EXPECT(!pkey_set(key, READ) && is_filled(mem));
}

static void forks_at_a_limit(void **state)
{
	(void)state;
	give(key, RW);
	run_in_child(forks_without_room);
	assert_int_equal(pkey_set(key, READ), 0);
	assert_true(is_filled(mem));
}

static volatile bool stop;

/* The access is tried again: it succeeds as soon as nobody is at work there. */
static void try_again(int sig)
{
	(void)sig;
}

/* With all that there is open, so that only what changes under it refuses; how often it has counted. */
static void *counter(void *arg)
{
	volatile uint64_t *count = arg;
	uint64_t n;

	for (n = 0; !stop; n++)
		*count = *count + 1;
	return (void *)n;
}

/* Nothing that a thread has written is lost while so much memory gets another key. */
static void races(void **state)
{
	int keys[2] = { new_key(OPEN), new_key(OPEN) }, i;
	char *large = map_pages(LARGE);
	pthread_t thread;
	void *counted;

	(void)state;
	stop = false;
	signal(SIGSEGV, try_again);
	memset(large + PAGE, 1, (LARGE - 1) * PAGE);
	assert_int_equal(pkey_mprotect(large, LARGE * PAGE, RW, keys[0]), 0);
	assert_int_equal(pthread_create(&thread, NULL, counter, large), 0);
	for (i = 0; i < 90; i++)
		assert_int_equal(pkey_mprotect(large, LARGE * PAGE, RW, i % 3 == 2 ? 0 : keys[i % 2]), 0);
	stop = true;
	pthread_join(thread, &counted);
	assert_int_equal(*(uint64_t *)large, (uint64_t)counted);
	assert_true(counted);
	signal(SIGSEGV, SIG_DFL);
	assert_int_equal(munmap(large, LARGE * PAGE), 0);
	pkey_free(keys[0]);
	pkey_free(keys[1]);
}

/* Another thread, which has all keys open, and the byte that it tries to write where memory is about to go. */
static sem_t ask, answered;
static char *volatile asked;
static volatile bool wrote;
static int nr_asked, nr_wrote, zeros[2];

static void *tries(void *arg)
{
	(void)arg;
	while (!sem_wait(&ask) && asked) {
		assert_int_equal(write(zeros[1], "", 1), 1);
		wrote = read(zeros[0], asked, 1) == 1;
		if (!wrote)
			assert_int_equal(read(zeros[0], &value, 1), 1);
		sem_post(&answered);
	}
	return NULL;
}

static void is_asked(void *addr)
{
	if (!asked)
		return;
	nr_asked++;
	asked = addr;
	sem_post(&ask);
	sem_wait(&answered);
	nr_wrote += wrote;
}

/* Where the library that answers asks for the domains' memory, contents are on their way. */
int epk_munmap_reserve(void *addr, size_t len)
{
	int (*real)(void *addr, size_t len) = dlsym(RTLD_NEXT, "epk_munmap_reserve");

	is_asked(addr);
	return real(addr, len);
}

void *domain_mmap(int id, void *addr, size_t len, int prot, int flags)
{
	void *(*real)(int id, void *addr, size_t len, int prot, int flags) =
		dlsym(RTLD_NEXT, "domain_mmap");

	if (flags & MAP_FIXED)
		is_asked(addr);
	return real(id, addr, len, prot, flags);
}

/* What comes between the copy and the change of keys would be lost: it is refused. */
static void refused_meanwhile(void **state)
{
	int keys[2] = { new_key(OPEN), new_key(OPEN) };
	pthread_t thread;

	(void)state;
	sem_init(&ask, 0, 0);
	sem_init(&answered, 0, 0);
	assert_int_equal(pipe(zeros), 0);
	asked = mem;
	assert_int_equal(pthread_create(&thread, NULL, tries, NULL), 0);
	is_asked(mem);
	assert_int_equal(nr_wrote, 1);
	mem[0] = 'a';
	give(keys[0], RW);
	assert_int_equal(nr_asked, 2);
	give(keys[1], RW);
	assert_int_equal(nr_asked, 4);
	give(0, RW);
	assert_int_equal(nr_asked, 5);
	assert_int_equal(nr_wrote, 1);
	asked = NULL;
	sem_post(&ask);
	pthread_join(thread, NULL);
	assert_true(is_filled(mem));
	close(zeros[0]);
	close(zeros[1]);
	pkey_free(keys[0]);
	pkey_free(keys[1]);
}

#define WITH_KEY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_KEY(values),
		WITH_KEY(small_numbers),
		WITH_KEY(errors),
		WITH_KEY(errors_of_memory),
		WITH_KEY(keeps_contents),
		WITH_KEY(rights),
		WITH_KEY(rights_at_first),
		WITH_KEY(other_key),
		WITH_KEY(key_0),
		WITH_KEY(mprotect_keeps_key),
		WITH_KEY(prot_with_key),
		WITH_KEY(no_key),
		WITH_KEY(parts),
		WITH_KEY(stays_where_it_is),
		WITH_KEY(of_the_heap),
		WITH_KEY(of_a_file),
		WITH_KEY(freed_with_memory),
		WITH_KEY(by_system_call),
		WITH_KEY(thousands),
		WITH_KEY(more_than_can_be_open),
		WITH_KEY(threads),
		WITH_KEY(handlers),
		WITH_KEY(forks),
		WITH_KEY(forks_at_a_limit),
		WITH_KEY(races),
		WITH_KEY(refused_meanwhile),
	};

	skip_if(backend_is("vmfunc"), "is none that keeps several keys open");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
