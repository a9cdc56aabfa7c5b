// SPDX-License-Identifier: MIT
/* libmpk's calls, as its paper has them, by libepk. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <fcntl.h>
#include <signal.h>

#include <libmpk.h>

#include "map_limit.h"
#include "may.h"

#define ANON	(MAP_ANONYMOUS | MAP_PRIVATE)
#define GROUP	100
#define MANY	60

static char *mem;

/* Of all but "mpk" and "vmfunc", where no thread's rights can be changed by another. */
static bool changes_all(void)
{
	return !backend_is("mpk") && !backend_is("vmfunc");
}

static char *group(int vkey, size_t pages, int prot)
{
	char *got = mpk_mmap(vkey, NULL, pages * PAGE, prot, ANON, -1, 0);

	REQUIRE_NE(got, MAP_FAILED);
	return got;
}

static int set_up(void **state)
{
	(void)state;
	REQUIRE_EQ(mpk_init(-1), 0);
	mem = group(GROUP, 2, RW);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return mpk_munmap(GROUP);
}

#define FAILS(call, error)						\
	do {								\
		errno = 0;						\
		REQUIRE_EQ((call), -1);					\
		REQUIRE_EQ(errno, (error));				\
	} while (0)

/* The paper's first example: a domain, for the thread that has begun it. */
static void isolation(void **state)
{
	(void)state;
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	strcpy(mem, "Hello World!");
	/* Under "mpk" a new thread has what its creator holds. */
	if (backend_is("epk"))
		REQUIRE_EQ(new_thread_may(mem), PROT_NONE);
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
	REQUIRE_EQ(mpk_begin(GROUP, PROT_READ), 0);
	REQUIRE_STR_EQ(mem, "Hello World!");
	REQUIRE_EQ(may(mem), expected(PROT_READ));
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
}

/* Its second: what all threads may, changed at once. */
static void quick_change(void **state)
{
	static const int prots[] = { RW, PROT_READ, PROT_NONE, PROT_READ, RW, PROT_NONE };
	size_t i;

	(void)state;
	if (!changes_all()) {
		FAILS(mpk_mprotect(GROUP, RW), EOPNOTSUPP);
		REQUIRE_EQ(may(mem), PROT_NONE);
		return;
	}
	for (i = 0; i < sizeof(prots) / sizeof(*prots); i++) {
		REQUIRE_EQ(mpk_mprotect(GROUP, prots[i]), 0);
		REQUIRE_EQ(may(mem), expected(prots[i]));
		REQUIRE_EQ(new_thread_may(mem), expected(prots[i]));
	}
	/* As mprotect(), it gives more than the mapping was made with. */
	REQUIRE_EQ(mpk_munmap(GROUP), 0);
	mem = group(GROUP, 1, PROT_READ);
	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	REQUIRE_EQ(may(mem), PROT_READ);
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(mpk_mprotect(GROUP, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(new_thread_may(mem), RW);
}

static void nested(void **state)
{
	int i;

	(void)state;
	FAILS(mpk_end(GROUP), EACCES);
	REQUIRE_EQ(mpk_begin(GROUP, PROT_READ), 0);
	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	REQUIRE_EQ(mpk_begin(GROUP, PROT_READ), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(may(mem), expected(PROT_READ));
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
	FAILS(mpk_end(GROUP), EACCES);
	for (i = 0; i < MPK_BEGINS_MAX; i++)
		REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	FAILS(mpk_begin(GROUP, RW), EMFILE);
	for (i = 0; i < MPK_BEGINS_MAX; i++) {
		REQUIRE_EQ(may(mem), RW);
		REQUIRE_EQ(mpk_end(GROUP), 0);
	}
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
}

static int in_handler, in_begun, after_end;

static void handler(int sig)
{
	(void)sig;
	in_handler = may(mem);
	if (mpk_begin(GROUP, PROT_READ))
		abort();
	in_begun = may(mem);
	if (mpk_end(GROUP))
		abort();
	after_end = may(mem);
}

/* A handler's own pair is its own. */
static void signals(void **state)
{
	(void)state;
	/* "mpk" has no begins in handlers, and where rights are the process's they are the handler's, too. */
	if (!backend_is("epk"))
		return;
	signal(SIGUSR1, handler);
	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	raise(SIGUSR1);
	REQUIRE_EQ(in_handler, PROT_NONE);
	REQUIRE_EQ(in_begun, PROT_READ);
	REQUIRE_EQ(after_end, PROT_NONE);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(may(mem), PROT_NONE);
}

static unsigned int steps;

static void pair_at_each_step(int sig)
{
	(void)sig;
	/* In the middle of a call of the library's it may be refused. */
	if (!mpk_begin(GROUP + 1, RW) && mpk_end(GROUP + 1))
		abort();
	steps++;
}

/* With the trap flag. */
static void step(bool on)
{
	unsigned long flags = __builtin_ia32_readeflags_u64();

	__builtin_ia32_writeeflags_u64(on ? flags | 0x100 : flags & ~0x100ul);
}

/* A handler's pair between any two instructions of another takes nothing of that one's place. */
static void signals_at_each_step(void **state)
{
	int began, ended, held;

	(void)state;
	/* Where a begin is a matter of the thread's own memory. */
	if (SANITIZED || !backend_is("none"))
		return;
	group(GROUP + 1, 1, RW);
	signal(SIGTRAP, pair_at_each_step);
	step(true);
	began = mpk_begin(GROUP, RW);
	step(false);
	held = epk_held_prot(epk_domain_at(mem));
	step(true);
	ended = mpk_end(GROUP);
	step(false);
	signal(SIGTRAP, SIG_DFL);
	REQUIRE_IN(steps, 100, 100000);
	REQUIRE_EQ(began, 0);
	REQUIRE_EQ(held, RW);
	REQUIRE_EQ(ended, 0);
	REQUIRE_EQ(epk_held_prot(epk_domain_at(mem)), 0);
	FAILS(mpk_end(GROUP), EACCES);
	REQUIRE_EQ(mpk_munmap(GROUP + 1), 0);
}

/* More groups than keys; numbers that are used anew name nothing of what was. */
static void many_and_anew(void **state)
{
	char *pages[MANY];
	int round, i;

	(void)state;
	for (round = 0; round < 3; round++) {
		for (i = 0; i < MANY; i++) {
			pages[i] = group(1000 * i, 1, RW);
			REQUIRE_EQ(mpk_begin(1000 * i, RW), 0);
			REQUIRE_EQ(*(int *)pages[i], 0);
			*(int *)pages[i] = i + 1;
			REQUIRE_EQ(mpk_end(1000 * i), 0);
		}
		for (i = 0; i < MANY; i++) {
			REQUIRE_EQ(mpk_begin(1000 * i, PROT_READ), 0);
			REQUIRE_EQ(*(int *)pages[i], i + 1);
			REQUIRE_EQ(mpk_end(1000 * i), 0);
			REQUIRE_EQ(may(pages[i]), expected(PROT_NONE));
		}
		for (i = 0; i < MANY; i++) {
			REQUIRE_EQ(mpk_munmap(1000 * i), 0);
			FAILS(mpk_begin(1000 * i, RW), ENOENT);
			FAILS(mpk_munmap(1000 * i), ENOENT);
		}
	}
}

/* No domain is left behind. */
static void groups_come_and_go(void **state)
{
	struct unit_resources before;
	int i;

	(void)state;
	for (i = 0; i < 300; i++) {
		if (i == 5)
			before = count_resources();
		group(7000 + i, 1, RW);
		REQUIRE_EQ(mpk_munmap(7000 + i), 0);
	}
	require_nothing_lost(before);
}

static void two_mappings(void **state)
{
	char *more = group(GROUP, 1, PROT_READ);

	(void)state;
	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(may(more), PROT_READ);
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(may(more), backend_protects() ? PROT_NONE : PROT_READ);
}

static void heap(void **state)
{
	char *a = mpk_malloc(GROUP, 100), *b = mpk_malloc(GROUP, 5000);

	(void)state;
	REQUIRE(a);
	REQUIRE(b);
	REQUIRE_EQ(may(a), expected(PROT_NONE));
	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	memset(a, 'a', 100);
	memset(b, 'b', 5000);
	REQUIRE_EQ(a[99], 'a');
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(mpk_free(a), 0);
	FAILS(mpk_free(a), EINVAL);
	REQUIRE_EQ(mpk_free(b), 0);
	REQUIRE_EQ(mpk_free(NULL), 0);
	FAILS(mpk_free(&mem), EINVAL);
	errno = 0;
	REQUIRE(!mpk_malloc(GROUP + 1, 1));
	REQUIRE_EQ(errno, ENOENT);
}

/* With the group begun. */
static int may_begun(char *addr)
{
	int prot;

	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	prot = may(addr);
	REQUIRE_EQ(mpk_end(GROUP), 0);
	return prot;
}

/* What is given to some of a group takes nothing from the rest. */
static void change_narrows_nothing(void **state)
{
	char *none = group(GROUP, 1, PROT_NONE), *read = group(GROUP, 1, PROT_READ), *a, *b;
	bool changes = changes_all();

	(void)state;
	a = mpk_malloc(GROUP, 100);
	REQUIRE(a);
	if (changes)
		REQUIRE_EQ(mpk_mprotect(GROUP, PROT_READ), 0);
	else
		FAILS(mpk_mprotect(GROUP, PROT_READ), EOPNOTSUPP);
	REQUIRE_EQ(may_begun(mem), RW);
	REQUIRE_EQ(may_begun(read), PROT_READ);
	REQUIRE_EQ(may_begun(none), changes ? PROT_READ : PROT_NONE);
	REQUIRE_EQ(may_begun(a), RW);
	b = mpk_malloc(GROUP, 100 * PAGE);
	REQUIRE(b);
	REQUIRE_EQ(may_begun(b + 100 * PAGE - 1), RW);
	REQUIRE_EQ(mpk_free(a), 0);
	if (changes)
		REQUIRE_EQ(mpk_mprotect(GROUP, PROT_NONE), 0);
	REQUIRE_EQ(may(none), changes ? expected(PROT_NONE) & PROT_READ : PROT_NONE);
	REQUIRE_EQ(may_begun(none), changes ? PROT_READ : PROT_NONE);
}

/* A file that is not open for writing fails it in the middle; what was changed before is as it was. */
static void failed_change(void **state)
{
	int fd = memfd_create("group", 0), only;
	char path[40], *maps[4];
	size_t i;

	(void)state;
	REQUIRE_EQ(ftruncate(fd, PAGE), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	only = open(path, O_RDONLY);
	REQUIRE(only >= 0);
	maps[0] = group(GROUP, 1, PROT_READ);
	maps[1] = mpk_mmap(GROUP, NULL, PAGE, PROT_READ, MAP_SHARED, only, 0);
	REQUIRE_NE(maps[1], MAP_FAILED);
	maps[2] = group(GROUP, 1, PROT_READ);
	/* Readable by a change that did not fail, and so it stays. */
	maps[3] = group(GROUP, 1, PROT_NONE);
	if (changes_all())
		REQUIRE_EQ(mpk_mprotect(GROUP, PROT_READ), 0);
	FAILS(mpk_mprotect(GROUP, RW), changes_all() ? EACCES : EOPNOTSUPP);
	for (i = 0; i < 4; i++) {
		REQUIRE_EQ(may(maps[i]), changes_all() ? PROT_READ : PROT_NONE);
		REQUIRE_EQ(may_begun(maps[i]), changes_all() || i < 3 ? PROT_READ : PROT_NONE);
	}
	REQUIRE_EQ(may(mem), changes_all() ? expected(PROT_READ) : PROT_NONE);
	REQUIRE_EQ(may_begun(mem), RW);
	close(only);
	close(fd);
}

/* What is not to be written is noted, so much of it and no more. */
static void many_narrow(void **state)
{
	int i, round;

	(void)state;
	/* Takes long where it is emulated, and is the same. */
	if (SANITIZED || backend_is("epk"))
		return;
	for (round = 0; round < 2; round++) {
		group(GROUP + 1, 1, RW);
		for (i = 0; i < MPK_NARROW_MAX; i++)
			group(GROUP + 1, 1, PROT_READ);
		errno = 0;
		REQUIRE_EQ(mpk_mmap(GROUP + 1, NULL, PAGE, PROT_READ, ANON, -1, 0), MAP_FAILED);
		REQUIRE_EQ(errno, ENOSPC);
		REQUIRE_EQ(mpk_mmap(GROUP + 2, NULL, PAGE, PROT_READ, ANON, -1, 0), MAP_FAILED);
		FAILS(mpk_begin(GROUP + 2, RW), ENOENT);
		group(GROUP + 1, 1, RW);
		REQUIRE_EQ(mpk_munmap(GROUP + 1), 0);
	}
}

static void *unmap_it(void *arg)
{
	*(int *)arg = mpk_munmap(GROUP + 1) ? errno : 0;
	return NULL;
}

/* Under "epk" another thread's begin keeps no group; what it leaves behind is in nobody's way. */
static void unmapped_by_another(void **state)
{
	void *arg = &(int){ -1 };
	int i;

	(void)state;
	for (i = 0; i <= MPK_BEGINS_MAX; i++) {
		group(GROUP + 1, 1, RW);
		REQUIRE_EQ(mpk_begin(GROUP + 1, RW), 0);
		run_threads(unmap_it, &arg, 1);
		REQUIRE_EQ(*(int *)arg, backend_is("epk") ? 0 : EBUSY);
		if (backend_is("epk")) {
			FAILS(mpk_end(GROUP + 1), ENOENT);
		} else {
			REQUIRE_EQ(mpk_end(GROUP + 1), 0);
			REQUIRE_EQ(mpk_munmap(GROUP + 1), 0);
		}
	}
	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(mpk_end(GROUP), 0);
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
}

/* What could not be closed is ended by the next call. */
static void failed_end(void **state)
{
	char *at, *pages[3];
	int i;

	(void)state;
	if (SANITIZED || !backend_is("mprotect") || !limit_is_near())
		return;
	at = mmap(NULL, 3 * PAGE, PROT_NONE, ANON, -1, 0);
	REQUIRE_NE(at, MAP_FAILED);
	/* The kernel makes one mapping of all three, while they allow the same. */
	for (i = 0; i < 3; i++) {
		pages[i] = mpk_mmap(GROUP + 1 + i, at + i * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0);
		REQUIRE_EQ(pages[i], at + i * PAGE);
		REQUIRE_EQ(mpk_begin(GROUP + 1 + i, RW), 0);
	}
	limit_reach();
	FAILS(mpk_end(GROUP + 2), ENOMEM);
	REQUIRE_EQ(epk_held_prot(epk_domain_at(pages[1])), RW);
	limit_forget();
	for (i = 0; i < 3; i++) {
		REQUIRE_EQ(mpk_end(GROUP + 1 + i), 0);
		REQUIRE_EQ(may(pages[i]), PROT_NONE);
		REQUIRE_EQ(mpk_munmap(GROUP + 1 + i), 0);
	}
}

/* Half of the group's memory goes; what comes in its place is new. */
static void failed_munmap(void **state)
{
	static const int groups[] = { GROUP + 2, GROUP + 1, GROUP + 2, GROUP + 1 };
	char *around, *at;
	int i;

	(void)state;
	/* Where the kernel makes one mapping of all four, of which the last is unmapped first. */
	if (SANITIZED || backend_takes_pkeys() || !limit_is_near())
		return;
	/* With others around them, that it does not make one with these. */
	around = mmap(NULL, 6 * PAGE, PROT_READ | PROT_EXEC, ANON, -1, 0);
	REQUIRE_NE(around, MAP_FAILED);
	at = around + PAGE;
	for (i = 0; i < 4; i++)
		REQUIRE_EQ(mpk_mmap(groups[i], at + i * PAGE, PAGE, PROT_NONE, ANON | MAP_FIXED, -1, 0),
			   at + i * PAGE);
	limit_reach();
	FAILS(mpk_munmap(GROUP + 1), ENOMEM);
	limit_forget();
	REQUIRE(epk_domain_at(at + PAGE) > 0);
	REQUIRE_EQ(epk_domain_at(at + 3 * PAGE), 0);
	REQUIRE_EQ(mpk_mmap(GROUP + 1, at + 3 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0),
		   at + 3 * PAGE);
	REQUIRE_EQ(mpk_mprotect(GROUP + 1, PROT_READ), 0);
	REQUIRE_EQ(mpk_begin(GROUP + 1, RW), 0);
	REQUIRE_EQ(may(at + 3 * PAGE), RW);
	REQUIRE_EQ(may(at + PAGE), PROT_READ);
	REQUIRE_EQ(mpk_end(GROUP + 1), 0);
	REQUIRE_EQ(mpk_munmap(GROUP + 1), 0);
	REQUIRE_EQ(mpk_munmap(GROUP + 2), 0);
	munmap(around, PAGE);
	munmap(around + 5 * PAGE, PAGE);
}

static void a_file(void **state)
{
	int fd = memfd_create("group", 0);
	char *at;

	(void)state;
	REQUIRE_EQ(ftruncate(fd, PAGE), 0);
	REQUIRE_EQ(mpk_mmap(5, NULL, PAGE, RW, MAP_PRIVATE, fd, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EOPNOTSUPP);
	FAILS(mpk_begin(5, RW), ENOENT);
	at = mpk_mmap(5, NULL, PAGE, RW, MAP_SHARED, fd, 0);
	REQUIRE_NE(at, MAP_FAILED);
	REQUIRE_EQ(mpk_begin(5, RW), 0);
	*at = 'f';
	REQUIRE_EQ(mpk_end(5), 0);
	REQUIRE_EQ(mpk_munmap(5), 0);
	REQUIRE_EQ(pread(fd, &(char){ 0 }, 1, 0), 1);
	close(fd);
}

static void bad_arguments(void **state)
{
	struct unit_resources before = count_resources();

	(void)state;
	REQUIRE_EQ(mpk_init(100), 0);
	FAILS(mpk_begin(-1, RW), EINVAL);
	FAILS(mpk_begin(GROUP, PROT_NONE), EINVAL);
	FAILS(mpk_begin(GROUP, PROT_EXEC), EINVAL);
	FAILS(mpk_end(-5), EINVAL);
	FAILS(mpk_end(GROUP + 1), ENOENT);
	FAILS(mpk_mprotect(-1, RW), EINVAL);
	FAILS(mpk_mprotect(GROUP, 8), EINVAL);
	FAILS(mpk_mprotect(GROUP, PROT_READ | PROT_EXEC), EOPNOTSUPP);
	FAILS(mpk_mprotect(GROUP + 1, RW), ENOENT);
	FAILS(mpk_munmap(GROUP + 1), ENOENT);
	REQUIRE_EQ(mpk_mmap(-1, NULL, PAGE, RW, ANON, -1, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(mpk_mmap(GROUP + 1, NULL, 0, RW, ANON, -1, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(mpk_mmap(GROUP + 1, NULL, PAGE, RW | PROT_EXEC, ANON, -1, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EOPNOTSUPP);
	REQUIRE_EQ(mpk_mmap(GROUP + 1, NULL, PAGE, RW, ANON | MAP_GROWSDOWN, -1, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	FAILS(mpk_begin(GROUP + 1, RW), ENOENT);
	require_nothing_lost(before);
	REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	FAILS(mpk_munmap(GROUP), EBUSY);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(mpk_end(GROUP), 0);
}

/*
 * The paper's compiler: a function is written within a begin and an end, in the thread that compiles; others run the
 * one before or the new one, and what they write there is refused.
 */
#define FUNCTIONS	64
#define BYTES		64

static char *cache, *cache_run;
static int nr_compiled;

static int (*function(int n))(void)
{
	return (int (*)(void))(uintptr_t)(cache_run + n * BYTES);
}

static void *run_functions(void *arg)
{
	unsigned int a, b, c, d;
	int n, nr;

	(void)arg;
	do {
		nr = __atomic_load_n(&nr_compiled, __ATOMIC_ACQUIRE);
		__cpuid(0, a, b, c, d);
		for (n = 0; n < nr; n++)
			if (function(n)() != n)
				return "another function";
		if (try_write(cache_run, 0))
			return "wrote where it runs";
		if (backend_is_private() && try_write(cache, 0))
			return "wrote without a begin";
	} while (nr < FUNCTIONS);
	return NULL;
}

static void *compile_functions(void *arg)
{
	int n;

	(void)arg;
	for (n = 0; n < FUNCTIONS; n++) {
		char *at = cache + n * BYTES;

		if (mpk_begin(GROUP, RW))
			return "no begin";
		/* mov $n, %eax; ret */
		memcpy(at, "\xb8\x00\x00\x00\x00\xc3", 6);
		at[1] = n;
		if (mpk_end(GROUP))
			return "no end";
		if (backend_protects() && try_write(at, 0))
			return "wrote after the end";
		__atomic_store_n(&nr_compiled, n + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *compile_or_run(void *arg)
{
	return arg ? compile_functions(arg) : run_functions(arg);
}

static void code(void **state)
{
	void *args[] = { "", NULL, NULL }, *run;
	char was;

	(void)state;
	REQUIRE_EQ(mpk_mmap_code(-1, PAGE, RW | PROT_EXEC, &run), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(mpk_mmap_code(GROUP + 1, PAGE, PROT_EXEC, &run), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	FAILS(mpk_begin(GROUP + 1, RW), ENOENT);
	cache = mpk_mmap_code(GROUP, FUNCTIONS * BYTES, RW | PROT_EXEC, &run);
	REQUIRE_NE(cache, MAP_FAILED);
	cache_run = run;
	nr_compiled = 0;
	run_threads(compile_or_run, args, 3);
	/* A group of its own comes to be, and goes with its code. */
	cache = mpk_mmap_code(GROUP + 1, PAGE, RW, &run);
	REQUIRE_NE(cache, MAP_FAILED);
	REQUIRE_EQ(epk_mprotect(cache, PAGE, PROT_READ | PROT_EXEC), 0);
	REQUIRE(try_read(run, &was));
	REQUIRE_EQ(mpk_munmap(GROUP + 1), 0);
	REQUIRE(!try_read(run, &was));
}

/* A child has none of its parent's groups, begins nothing of theirs, and makes its own. */
static void child(void)
{
	char *own;

	REQUIRE(mpk_begin(GROUP, RW) == -1 && errno == ENOENT);
	REQUIRE(mpk_end(GROUP) == -1 && errno == ENOENT);
	REQUIRE(mpk_munmap(GROUP) == -1 && errno == ENOENT);
	own = mpk_mmap(GROUP, NULL, PAGE, RW, ANON, -1, 0);
	REQUIRE(own != MAP_FAILED);
	REQUIRE(mpk_end(GROUP) == -1 && errno == EACCES);
	REQUIRE(may(own) == expected(PROT_NONE));
	REQUIRE(!mpk_begin(GROUP, RW));
	*own = 'c';
	REQUIRE(!mpk_end(GROUP));
	REQUIRE(!mpk_munmap(GROUP));
}

static void forked(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < MPK_BEGINS_MAX; i++)
		REQUIRE_EQ(mpk_begin(GROUP, RW), 0);
	*mem = 'p';
	run_in_child(child);
	REQUIRE_EQ(*mem, 'p');
	for (i = 0; i < MPK_BEGINS_MAX; i++)
		REQUIRE_EQ(mpk_end(GROUP), 0);
}

/* A thread that makes groups while others fork. */
static void *make_groups(void *arg)
{
	int first = *(int *)arg, i;

	for (i = 0; i < 40; i++) {
		if (mpk_mmap(first + i, NULL, PAGE, RW, ANON, -1, 0) == MAP_FAILED ||
		    mpk_begin(first + i, RW) || mpk_end(first + i) || mpk_munmap(first + i))
			return "failed";
	}
	return NULL;
}

static void make_one(void)
{
	REQUIRE(mpk_mmap(3, NULL, PAGE, RW, ANON, -1, 0) != MAP_FAILED);
}

static void *fork_all_the_time(void *arg)
{
	int i, status;
	pid_t pid;

	for (i = 0; i < 10; i++) {
		pid = fork();
		if (!pid) {
			make_one();
			_exit(0);
		}
		if (waitpid(pid, &status, 0) != pid || status)
			return arg;
	}
	return NULL;
}

static void *either(void *arg)
{
	return *(int *)arg ? make_groups(arg) : fork_all_the_time(arg);
}

static void threads_and_forks(void **state)
{
	int firsts[] = { 1000, 2000, 0 };
	void *args[] = { &firsts[0], &firsts[1], &firsts[2] };

	(void)state;
	run_threads(either, args, 3);
}

#define WITH_GROUP(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_GROUP(isolation),
		WITH_GROUP(quick_change),
		WITH_GROUP(nested),
		WITH_GROUP(signals),
		WITH_GROUP(signals_at_each_step),
		WITH_GROUP(many_and_anew),
		WITH_GROUP(groups_come_and_go),
		WITH_GROUP(two_mappings),
		WITH_GROUP(heap),
		WITH_GROUP(change_narrows_nothing),
		WITH_GROUP(failed_change),
		WITH_GROUP(many_narrow),
		WITH_GROUP(unmapped_by_another),
		WITH_GROUP(failed_end),
		WITH_GROUP(failed_munmap),
		WITH_GROUP(a_file),
		WITH_GROUP(code),
		WITH_GROUP(bad_arguments),
		WITH_GROUP(forked),
		WITH_GROUP(threads_and_forks),
	};
	struct epk_options options = { .size = sizeof(options), .flags = EPK_CODE };

	skip_if(backend_is("vmfunc"), "has its own tests of rights");
	need_backend();
	/* Before mpk_init(), which has it so. */
	if (epk_init(&options)) {
		printf("no code with backend %s\n", unit_backend());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
