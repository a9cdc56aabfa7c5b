// SPDX-License-Identifier: MIT
/*
 * What pkeys(7) promises a program that calls the C library, where libepk-pkeys.so answers.  Nothing here
 * knows of a domain.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>

#include "pkeys_unit.h"

/* 512 EPTs, 15 keys in each. */
#define KEYS	7680

static void values(void **state)
{
	int keys[64], i, j;

	(void)state;
	for (i = 0; i < 64; i++) {
		keys[i] = new_key(CLOSED);
		/* None that a program might guess, nor the CPU's own. */
		REQUIRE(keys[i] > 15);
		for (j = 0; j < i; j++)
			REQUIRE(abs(keys[i] - keys[j]) > 1);
	}
	for (i = 0; i < 64; i++)
		REQUIRE_EQ(pkey_free(keys[i]), 0);
}

static void small_numbers(void **state)
{
	int first, second;

	(void)state;
	setenv("EPK_PKEYS_NUMBERS", "small", 1);
	first = new_key(READ);
	second = new_key(CLOSED);
	unsetenv("EPK_PKEYS_NUMBERS");
	REQUIRE_EQ(second, first + 1);
	REQUIRE_IN(second, 2, 20);
	REQUIRE_EQ(pkey_get(first), READ);
	REQUIRE_EQ(pkey_free(first), 0);
	REQUIRE_EQ(pkey_free(second), 0);
}

static void fails(int result, int error)
{
	REQUIRE_EQ(result, -1);
	REQUIRE_EQ(errno, error);
	errno = 0;
}

static void errors(void **state)
{
	int freed = new_key(OPEN);

	(void)state;
	REQUIRE_EQ(pkey_free(freed), 0);
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
	REQUIRE_EQ(pkey_set(0, OPEN), 0);
	fails(pkey_get(freed), EINVAL);
	fails(pkey_get(-1), EINVAL);
	REQUIRE_EQ(pkey_get(0), 0);
	fails(pkey_mprotect(mem, PAGE, RW, freed), EINVAL);
	fails(pkey_mprotect(mem, PAGE, RW, 1), EINVAL);
	fails(pkey_mprotect(mem, PAGE, RW, -2), EINVAL);
	fails(pkey_mprotect(mem + 1, PAGE, RW, key), EINVAL);
	fails(pkey_mprotect(mem, -1ul, RW, key), ENOMEM);
	fails(pkey_mprotect(mem, PAGE, RW | PROT_EXEC, key), EACCES);
	fails(pkey_mprotect(mem, PAGE, RW | PROT_GROWSDOWN, key), EINVAL);
	REQUIRE_EQ(pkey_mprotect(mem, 0, RW, key), 0);
	REQUIRE(is_filled(mem));
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
	REQUIRE_EQ(may(with_hole), RW);
	shared = mmap(with_hole + PAGE, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	REQUIRE_EQ(shared, with_hole + PAGE);
	fails(pkey_mprotect(with_hole, 3 * PAGE, RW, key), EACCES);
	REQUIRE_EQ(may(with_hole), RW);
	fails(pkey_mprotect(local, PAGE, RW, key), EACCES);
	REQUIRE_EQ(pthread_create(&thread, NULL, on_own_stack, NULL), 0);
	pthread_join(thread, &wrong);
	REQUIRE(!wrong);
	munmap(with_hole, 3 * PAGE);
}

static void keeps_contents(void **state)
{
	(void)state;
	give(key, RW);
	REQUIRE_EQ(pkey_get(key), CLOSED);
	if (backend_protects()) {
		REQUIRE_EQ(may(mem), 0);
		REQUIRE_EQ(try_code, refused_code());
		if (try_code == SEGV_PKUERR)
			REQUIRE_EQ(try_pkey, key);
		REQUIRE_EQ(may(mem + PAGES * PAGE - 1), 0);
	}
	REQUIRE_EQ(pkey_set(key, OPEN), 0);
	REQUIRE(is_filled(mem));
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(pkey_set(key, CLOSED), 0);
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
			REQUIRE_EQ(pkey_set(key, all[from]), 0);
			REQUIRE_EQ(pkey_get(key), all[from]);
			REQUIRE_EQ(pkey_set(key, all[to]), 0);
			REQUIRE_EQ(pkey_get(key), all[to]);
			if (backend_protects())
				REQUIRE_EQ(may(mem), prots[to]);
		}
	}
	REQUIRE_EQ(pkey_set(key, READ | CLOSED), 0);
	REQUIRE_EQ(pkey_get(key) & CLOSED, CLOSED);
}

static void rights_at_first(void **state)
{
	int open = new_key(OPEN), read = new_key(READ);

	(void)state;
	REQUIRE_EQ(pkey_get(open), OPEN);
	REQUIRE_EQ(pkey_get(read), READ);
	give(open, RW);
	REQUIRE(is_filled(mem));
	REQUIRE_EQ(may_at(mem), RW);
	give(read, RW);
	REQUIRE(is_filled(mem));
	REQUIRE_EQ(may_at(mem), backend_protects() ? PROT_READ : RW);
	REQUIRE_EQ(pkey_free(open), 0);
	REQUIRE_EQ(pkey_free(read), 0);
}

static void other_key(void **state)
{
	int other = new_key(CLOSED);

	(void)state;
	give(key, RW);
	give(other, RW);
	/* What it took is nobody's afterwards. */
	REQUIRE_EQ(pkey_get(key), CLOSED);
	REQUIRE_EQ(pkey_get(other), CLOSED);
	REQUIRE_EQ(pkey_set(key, OPEN), 0);
	if (backend_protects())
		REQUIRE_EQ(may(mem), 0);
	REQUIRE_EQ(pkey_set(other, READ), 0);
	REQUIRE(is_filled(mem));
	pkey_free(other);
}

static void key_0(void **state)
{
	(void)state;
	give(key, RW);
	give(0, PROT_READ);
	REQUIRE_EQ(may(mem), PROT_READ);
	REQUIRE(is_filled(mem));
	give(0, RW);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(pkey_get(key), CLOSED);
	/* Ordinary, as far as the kernel knows. */
	REQUIRE_EQ(madvise(mem, PAGE, MADV_DONTNEED), 0);
	REQUIRE_EQ(mem[0], 0);
}

static void mprotect_keeps_key(void **state)
{
	(void)state;
	give(key, RW);
	REQUIRE_EQ(pkey_set(key, OPEN), 0);
	REQUIRE_EQ(mprotect(mem, PAGE, PROT_READ), 0);
	REQUIRE_EQ(may(mem), PROT_READ);
	REQUIRE_EQ(may(mem + PAGE), RW);
	REQUIRE_EQ(pkey_mprotect(mem, PAGE, PROT_NONE, -1), 0);
	REQUIRE_EQ(may(mem), 0);
	fails(mprotect(mem, PAGE, PROT_READ | PROT_EXEC), EACCES);
	REQUIRE_EQ(mprotect(mem, PAGES * PAGE, RW), 0);
	REQUIRE(is_filled(mem));
	REQUIRE_EQ(pkey_set(key, CLOSED), 0);
	if (backend_protects())
		REQUIRE_EQ(may(mem), 0);
}

static void prot_with_key(void **state)
{
	(void)state;
	give(key, PROT_READ);
	REQUIRE_EQ(pkey_set(key, OPEN), 0);
	REQUIRE_EQ(may(mem), PROT_READ);
	REQUIRE(is_filled(mem));
	give(key, PROT_NONE);
	REQUIRE_EQ(may(mem), 0);
	give(key, PROT_WRITE);
	REQUIRE(is_filled(mem));
}

/* Without a key pkey_mprotect() is mprotect(). */
static void no_key(void **state)
{
	(void)state;
	REQUIRE_EQ(pkey_mprotect(mem, PAGE, PROT_READ, -1), 0);
	REQUIRE_EQ(may(mem), PROT_READ);
	REQUIRE_EQ(pkey_mprotect(mem, PAGE, RW, -1), 0);
	REQUIRE_EQ(may(mem), RW);
}

static void parts(void **state)
{
	(void)state;
	REQUIRE_EQ(pkey_mprotect(mem + PAGE, 1, RW, key), 0);
	if (backend_protects())
		REQUIRE_EQ(may(mem + PAGE), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(may(mem + 2 * PAGE), RW);
	/* All of it, of which a part has it already. */
	give(key, RW);
	if (backend_protects())
		REQUIRE_EQ(may(mem), 0);
	REQUIRE_EQ(pkey_set(key, OPEN), 0);
	REQUIRE(is_filled(mem));
	/* A hole, and what is mapped over another part. */
	REQUIRE_EQ(munmap(mem + PAGE, PAGE), 0);
	REQUIRE_EQ(may(mem + PAGE), 0);
	REQUIRE_EQ(mmap(mem, 3 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), mem);
	REQUIRE_EQ(pkey_set(key, CLOSED), 0);
	REQUIRE_EQ(mem[0] + mem[PAGE] + mem[2 * PAGE], 0);
	/* It has no key, as far as anybody knows. */
	REQUIRE_EQ(mprotect(mem, PAGE, RW | PROT_EXEC), 0);
	REQUIRE_EQ(may(mem + 2 * PAGE), RW);
	if (backend_protects())
		REQUIRE_EQ(may(mem + 3 * PAGE), 0);
}

/* What cannot be mapped is mapped over nothing. */
static void failed_map_keeps_it(void **state)
{
	(void)state;
	give(key, RW);
	REQUIRE_EQ(mmap(mem, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, -1, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EBADF);
	REQUIRE_EQ(mmap(mem, PAGE, PROT_READ, MAP_FIXED | MAP_ANONYMOUS, -1, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	if (backend_protects())
		REQUIRE_EQ(may(mem), 0);
	REQUIRE_EQ(pkey_set(key, READ), 0);
	REQUIRE(try_read(mem, &value));
	REQUIRE(is_filled(mem));
}

static void stays_where_it_is(void **state)
{
	(void)state;
	give(key, RW);
	REQUIRE_EQ(mremap(mem, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE), MAP_FAILED);
	REQUIRE_EQ(errno, ENOMEM);
	REQUIRE_EQ(pkey_set(key, READ), 0);
	REQUIRE(is_filled(mem));
}

static void of_the_heap(void **state)
{
	char *heap = aligned_alloc(PAGE, 2 * PAGE);

	(void)state;
	memset(heap, 'h', 2 * PAGE);
	REQUIRE_EQ(pkey_mprotect(heap, PAGE, RW, key), 0);
	if (backend_protects())
		REQUIRE_EQ(may(heap), 0);
	REQUIRE_EQ(heap[PAGE], 'h');
	REQUIRE_EQ(pkey_set(key, READ), 0);
	REQUIRE_EQ(heap[PAGE - 1], 'h');
	REQUIRE_EQ(pkey_mprotect(heap, PAGE, RW, 0), 0);
	REQUIRE_EQ(heap[0], 'h');
	free(heap);
}

/* A private mapping of a file has what it had, but where the file ends before it. */
static void of_a_file(void **state)
{
	int fd = memfd_create("of_a_file", 0);
	char *pages;

	(void)state;
	REQUIRE_EQ(write(fd, mem, PAGE), PAGE);
	pages = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);
	REQUIRE_NE(pages, MAP_FAILED);
	pages[1] = 'f';
	fails(pkey_mprotect(pages, 2 * PAGE, RW, key), EACCES);
	REQUIRE_EQ(may(pages), RW);
	REQUIRE_EQ(pkey_mprotect(pages, PAGE, RW, key), 0);
	if (backend_protects())
		REQUIRE_EQ(may(pages), 0);
	REQUIRE_EQ(pkey_set(key, READ), 0);
	REQUIRE_EQ(pages[0], 'a');
	REQUIRE_EQ(pages[1], 'f');
	REQUIRE_EQ(munmap(pages, 2 * PAGE), 0);
	close(fd);
}

/* Its number is none, its memory is closed to who had it closed, and no other key comes to it. */
static void freed_with_memory(void **state)
{
	int keys[100], i;

	(void)state;
	give(key, RW);
	REQUIRE_EQ(pkey_free(key), 0);
	fails(pkey_free(key), EINVAL);
	fails(pkey_set(key, OPEN), EINVAL);
	for (i = 0; i < 100; i++) {
		keys[i] = new_key(READ);
		if (backend_protects() && i < 10)
			REQUIRE_EQ(may(mem), 0);
		if (i >= 5)
			REQUIRE_EQ(pkey_set(keys[i], CLOSED), 0);
	}
	for (i = 0; i < 100; i++)
		REQUIRE_EQ(pkey_free(keys[i]), 0);
	give(0, RW);
	REQUIRE(is_filled(mem));
}

static void by_system_call(void **state)
{
	int got = syscall(SYS_pkey_alloc, 0, CLOSED);

	(void)state;
	REQUIRE(got > 15);
	REQUIRE_EQ(syscall(SYS_pkey_mprotect, mem, PAGES * PAGE, RW, got), 0);
	if (backend_protects())
		REQUIRE_EQ(may(mem), 0);
	REQUIRE_EQ(pkey_set(got, READ), 0);
	REQUIRE(is_filled(mem));
	REQUIRE_EQ(syscall(SYS_mprotect, mem, PAGE, PROT_NONE), 0);
	REQUIRE_EQ(syscall(SYS_munmap, mem, PAGE), 0);
	REQUIRE_EQ(syscall(SYS_pkey_free, got), 0);
	fails(syscall(SYS_pkey_free, got), EINVAL);
	/* Others are the kernel's. */
	REQUIRE_EQ(syscall(SYS_getpid), getpid());
	fails(syscall(SYS_close, -1), EBADF);
	REQUIRE_EQ(syscall(SYS_mmap, mem, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			   -1, 0), mem);
}

static long by_itself(long nr, long a, long b, long c, long d)
{
	register long r10 asm("r10") = d;
	long ret;

	asm volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
		     : "rcx", "r11", "memory");
	return ret;
}

/* Nobody gets one of the CPU's keys past the library, nor with EPK does anything to those that there are. */
static void by_instruction(void **state)
{
	int real;

	(void)state;
	if (!backend_takes_pkeys())
		return;
	give(key, RW);
	REQUIRE_EQ(by_itself(SYS_pkey_alloc, 0, 0, 0, 0), -ENOSPC);
	for (real = 1; backend_is("epk") && real <= 15; real++) {
		REQUIRE_EQ(by_itself(SYS_pkey_free, real, 0, 0, 0), -EPERM);
		/* The domain's own, which it has already. */
		if (by_itself(SYS_pkey_mprotect, (long)mem, PAGE, RW, real))
			REQUIRE_EQ(by_itself(SYS_pkey_mprotect, (long)mem, PAGE, RW, real), -EACCES);
	}
	if (backend_is("epk"))
		REQUIRE_EQ(by_itself(SYS_munmap, (long)mem, PAGE, 0, 0), -EPERM);
	REQUIRE_EQ(may(mem), 0);
	REQUIRE_EQ(pkey_set(key, READ), 0);
	REQUIRE(is_filled(mem));
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
		REQUIRE_EQ(pkey_mprotect(pages + i * PAGE, PAGE, RW, keys[i * (nr / 200)]), 0);
	}
	for (i = 0; i < 200; i++) {
		REQUIRE_EQ(pkey_set(keys[i * (nr / 200)], OPEN), 0);
		REQUIRE_EQ(pages[i * PAGE], (char)i);
		if (backend_protects()) {
			REQUIRE(!try_read(pages + (i + 1) % 200 * PAGE, &value));
			REQUIRE(!try_read(pages + (i + 199) % 200 * PAGE, &value));
		}
		REQUIRE_EQ(pkey_set(keys[i * (nr / 200)], CLOSED), 0);
	}
	REQUIRE_EQ(munmap(pages, 200 * PAGE), 0);
	for (i = 0; i < nr; i++)
		REQUIRE_EQ(pkey_free(keys[i]), 0);
}

/* More than a thread can have open: those that come then are closed, and one can be had for another. */
static void more_than_can_be_open(void **state)
{
	char *pages = map_pages(80);
	int keys[80], i, open = 0;

	(void)state;
	for (i = 0; i < 80; i++) {
		keys[i] = new_key(OPEN);
		REQUIRE_EQ(pkey_mprotect(pages + i * PAGE, PAGE, RW, keys[i]), 0);
	}
	for (i = 0; i < 80; i++)
		open += pkey_get(keys[i]) == OPEN;
	REQUIRE_EQ(open, backend_is("mpk") ? 14 : 60);
	for (i = 0; i < 80; i++)
		REQUIRE_EQ(pkey_set(keys[i], CLOSED), 0);
	REQUIRE_EQ(pkey_set(keys[79], OPEN), 0);
	pages[79 * PAGE] = 1;
	REQUIRE_EQ(munmap(pages, 80 * PAGE), 0);
	for (i = 0; i < 80; i++)
		REQUIRE_EQ(pkey_free(keys[i]), 0);
}

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
		WITH_KEY(failed_map_keeps_it),
		WITH_KEY(stays_where_it_is),
		WITH_KEY(of_the_heap),
		WITH_KEY(of_a_file),
		WITH_KEY(freed_with_memory),
		WITH_KEY(by_system_call),
		WITH_KEY(by_instruction),
		WITH_KEY(thousands),
		WITH_KEY(more_than_can_be_open),
	};

	skip_if(backend_is("vmfunc"), "is none that keeps several keys open");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
