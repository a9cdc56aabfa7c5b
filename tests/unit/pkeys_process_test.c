// SPDX-License-Identifier: MIT
/* Threads, handlers, children and races of a program whose keys libepk-pkeys.so gives. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <semaphore.h>
#include <sys/resource.h>

#include "map_limit.h"
#include "pkeys_unit.h"

#define LARGE	256ul

static sem_t go, done;

static void *early(void *arg)
{
	sem_wait(&go);
	*(int *)arg = pkey_get(key);
	if (backend_is_private() && try_read(mem, &value))
		*(int *)arg = -1;
	sem_post(&done);
	sem_wait(&go);
	REQUIRE_EQ(pkey_set(key, OPEN), 0);
	*(int *)arg = is_filled(mem) ? pkey_get(key) : -1;
	return NULL;
}

static void *late(void *arg)
{
	*(int *)arg = pkey_get(key);
	if (!is_filled(mem))
		*(int *)arg = -1;
	REQUIRE_EQ(pkey_set(key, CLOSED), 0);
	return NULL;
}

static void threads(void **state)
{
	pthread_t thread;
	int got = -1;

	(void)state;
	sem_init(&go, 0, 0);
	sem_init(&done, 0, 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, early, &got), 0);
	give(key, RW);
	REQUIRE_EQ(pkey_set(key, READ), 0);
	sem_post(&go);
	sem_wait(&done);
	REQUIRE_EQ(got, CLOSED);
	sem_post(&go);
	pthread_join(thread, NULL);
	REQUIRE_EQ(got, OPEN);
	/* Its own right is what it was. */
	REQUIRE_EQ(pkey_get(key), READ);
	REQUIRE_EQ(pthread_create(&thread, NULL, late, &got), 0);
	pthread_join(thread, NULL);
	REQUIRE_EQ(got, READ);
	REQUIRE_EQ(pkey_get(key), READ);
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
	REQUIRE_EQ(pkey_set(key, READ), 0);
	signal(SIGUSR1, handler);
	in_handler = -1;
	raise(SIGUSR1);
	signal(SIGUSR1, SIG_DFL);
	REQUIRE_EQ(in_handler, backend_is_private() ? CLOSED : READ);
	/* What it may is gone with it. */
	if (backend_is_private())
		REQUIRE_EQ(pkey_get(key), READ);
	REQUIRE(is_filled(mem));
}

static int other_key_of_child;

static void in_child_of_fork(void)
{
	REQUIRE(pkey_get(key) == READ);
	REQUIRE(pkey_get(other_key_of_child) == CLOSED);
	REQUIRE(is_filled(mem));
	if (backend_protects())
		REQUIRE(!try_write(mem, 'z'));
	REQUIRE(!mprotect(mem + 2 * PAGE, PAGE, RW) && !mprotect(mem + 2 * PAGE, PAGE, PROT_READ));
	REQUIRE(!pkey_set(key, OPEN));
	REQUIRE(try_write(mem, 'z') && mem[0] == 'z');
	REQUIRE(pkey_alloc(0, CLOSED) > 15);
	REQUIRE(!pkey_set(key, CLOSED));
	REQUIRE(!backend_protects() || !try_read(mem, &value));
	REQUIRE(!pkey_mprotect(mem, PAGES * PAGE, RW, 0) && mem[0] == 'z' && mem[PAGE] == 'b');
	REQUIRE(!pkey_free(key));
}

static void forks_again(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		in_child_of_fork();
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
	in_child_of_fork();
}

static void forks(void **state)
{
	int files = count_files();

	(void)state;
	other_key_of_child = new_key(CLOSED);
	give(key, RW);
	REQUIRE_EQ(pkey_set(key, READ), 0);
	run_in_child(in_child_of_fork);
	run_in_child(forks_again);
	/* The parent's is its own, and nothing of it lies about. */
	REQUIRE_EQ(pkey_get(key), READ);
	REQUIRE(is_filled(mem));
	REQUIRE_EQ(count_files(), files);
	pkey_free(other_key_of_child);
}

static void in_child_without_memory(void)
{
	REQUIRE(!try_read(mem, &value));
	REQUIRE(!try_read(mem + PAGES * PAGE - 1, &value));
	REQUIRE(pkey_get(key) == CLOSED && !pkey_set(key, OPEN) && !try_read(mem, &value));
	/* It is the child's to use, as ordinary memory. */
	REQUIRE(!mprotect(mem, PAGE, RW) && !mem[0]);
	REQUIRE(!munmap(mem, PAGES * PAGE));
}

/* What the parent cannot leave the child it has not: the parent has it, and no signal. */
static void forks_without_room(void)
{
	const struct rlimit none = { 0, 0 };
	int status;
	pid_t pid;

	REQUIRE(!setrlimit(RLIMIT_FSIZE, &none));
	pid = fork();
	if (!pid) {
		in_child_without_memory();
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
	REQUIRE(!pkey_set(key, READ) && is_filled(mem));
}

static void forks_at_a_limit(void **state)
{
	(void)state;
	give(key, RW);
	run_in_child(forks_without_room);
	REQUIRE_EQ(pkey_set(key, READ), 0);
	REQUIRE(is_filled(mem));
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
	REQUIRE_EQ(pkey_mprotect(large, LARGE * PAGE, RW, keys[0]), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, counter, large), 0);
	/* On a machine with other work it may not have begun when all is done. */
	while (!*(volatile uint64_t *)large)
		usleep(100);
	for (i = 0; i < 90; i++)
		REQUIRE_EQ(pkey_mprotect(large, LARGE * PAGE, RW, i % 3 == 2 ? 0 : keys[i % 2]), 0);
	REQUIRE_EQ(pkey_mprotect(large, LARGE * PAGE, RW, 0), 0);
	stop = true;
	pthread_join(thread, &counted);
	REQUIRE_EQ(*(uint64_t *)large, (uint64_t)counted);
	REQUIRE(counted);
	signal(SIGSEGV, SIG_DFL);
	REQUIRE_EQ(munmap(large, LARGE * PAGE), 0);
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
		REQUIRE_EQ(write(zeros[1], "", 1), 1);
		wrote = read(zeros[0], asked, 1) == 1;
		if (!wrote)
			REQUIRE_EQ(read(zeros[0], &value, 1), 1);
		sem_post(&answered);
	}
	return NULL;
}

/* The call of the library's that fails, counted down; and whether contents have left their place by then. */
static volatile int fails_at;
static volatile bool has_left, left_when_it_failed;

static bool refuses(void)
{
	if (!fails_at || --fails_at)
		return false;
	left_when_it_failed = has_left;
	return true;
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
	int err;

	is_asked(addr);
	if (refuses())
		return -ENOMEM;
	err = real(addr, len);
	has_left |= !err;
	return err;
}

int epk_mprotect(void *addr, size_t len, int prot)
{
	int (*real)(void *addr, size_t len, int prot) = dlsym(RTLD_NEXT, "epk_mprotect");

	return refuses() ? -ENOMEM : real(addr, len, prot);
}

void *domain_mmap(int id, void *addr, size_t len, int prot, int flags)
{
	void *(*real)(int id, void *addr, size_t len, int prot, int flags) =
		dlsym(RTLD_NEXT, "domain_mmap");

	if (flags & MAP_FIXED)
		is_asked(addr);
	if (refuses()) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return real(id, addr, len, prot, flags);
}

int epk_fill(void *addr, const void *from, size_t len)
{
	int (*real)(void *addr, const void *from, size_t len) = dlsym(RTLD_NEXT, "epk_fill");

	is_asked(addr);
	return refuses() ? -ENOMEM : real(addr, from, len);
}

/* What comes between the copy and the change of keys would be lost: it is refused. */
static void refused_meanwhile(void **state)
{
	int keys[2] = { new_key(OPEN), new_key(OPEN) };
	pthread_t thread;

	(void)state;
	sem_init(&ask, 0, 0);
	sem_init(&answered, 0, 0);
	REQUIRE_EQ(pipe(zeros), 0);
	asked = mem;
	REQUIRE_EQ(pthread_create(&thread, NULL, tries, NULL), 0);
	is_asked(mem);
	REQUIRE_EQ(nr_wrote, 1);
	mem[0] = 'a';
	give(keys[0], RW);
	/* To be mapped, and to be filled. */
	REQUIRE_EQ(nr_asked, 1 + 2);
	/* Tried, given up, mapped, filled. */
	give(keys[1], RW);
	REQUIRE_EQ(nr_asked, 3 + 4);
	give(0, RW);
	REQUIRE_EQ(nr_asked, 8);
	REQUIRE_EQ(nr_wrote, 1);
	asked = NULL;
	sem_post(&ask);
	pthread_join(thread, NULL);
	REQUIRE(is_filled(mem));
	close(zeros[0]);
	close(zeros[1]);
	pkey_free(keys[0]);
	pkey_free(keys[1]);
}

static void *changes_the_end(void *arg)
{
	char *last = mem + (PAGES - 1) * PAGE;
	int n;

	(void)arg;
	for (n = 0; !stop; n++)
		REQUIRE_EQ(mprotect(last, PAGE, n % 2 ? RW : PROT_READ), 0);
	return NULL;
}

/* Whoever asks for memory with a key finds it, whatever becomes of what lies beside it meanwhile. */
static void seen_meanwhile(void **state)
{
	int missed = 0, n = backend_is("epk") ? 2000 : 300000;
	pthread_t thread;

	(void)state;
	give(key, RW);
	stop = false;
	REQUIRE_EQ(pthread_create(&thread, NULL, changes_the_end, NULL), 0);
	while (n--)
		missed += mremap(mem, PAGE, PAGE, 0) != MAP_FAILED;
	stop = true;
	pthread_join(thread, NULL);
	REQUIRE_EQ(missed, 0);
	REQUIRE_EQ(mprotect(mem, PAGES * PAGE, RW), 0);
}

static void no_child(void)
{
}

/* It has this key and its contents; 0: it is ordinary. */
static bool is_whole_with(int its_key)
{
	bool whole;

	if (!its_key)
		return may(mem) == RW && is_filled(mem);
	REQUIRE(!pkey_set(its_key, CLOSED));
	REQUIRE(!backend_protects() || (!may(mem) && !may(mem + (PAGES - 1) * PAGE)));
	REQUIRE(!pkey_set(its_key, READ));
	whole = try_read(mem, &value) && is_filled(mem);
	REQUIRE(!pkey_set(its_key, OPEN));
	whole = whole && may(mem) == RW && may(mem + (PAGES - 1) * PAGE) == RW;
	REQUIRE(!pkey_set(its_key, CLOSED));
	return whole;
}

/* Nobody can access it, whatever is open, and it is the program's to use as ordinary memory. */
static bool is_gone(int first, int second)
{
	bool gone;

	REQUIRE(!pkey_set(first, OPEN) && !pkey_set(second, OPEN));
	gone = !try_read(mem, &value) && !try_read(mem + (PAGES - 1) * PAGE, &value);
	REQUIRE(!pkey_set(first, CLOSED) && !pkey_set(second, CLOSED));
	return gone && !mprotect(mem, PAGES * PAGE, RW) && !mem[0] && may(mem) == RW;
}

/* Any of the library's calls can fail: memory and what is known of it are as before, or as asked for, or there is none. */
static void fails_on_the_way(int from, int to)
{
	int nth, ret, error;

	for (nth = 1; nth < 50; nth++) {
		munmap(mem, PAGES * PAGE);
		mem = map_pages(PAGES);
		fill(mem);
		give(from, RW);
		has_left = false;
		fails_at = nth;
		ret = pkey_mprotect(mem, PAGES * PAGE, RW, to);
		error = errno;
		if (fails_at)
			break;
		run_in_child(no_child);
		if (!ret) {
			REQUIRE(is_whole_with(to));
			continue;
		}
		REQUIRE_EQ(error, ENOMEM);
		if (from && to && left_when_it_failed)
			REQUIRE(is_gone(from, to));
		else
			REQUIRE(is_whole_with(from));
	}
	fails_at = 0;
	REQUIRE_EQ(ret, 0);
	REQUIRE_IN(nth, 2, 20);
}

static void each_call_fails(void **state)
{
	int other = new_key(CLOSED);

	(void)state;
	fails_on_the_way(0, key);
	fails_on_the_way(key, 0);
	fails_on_the_way(key, other);
	give(0, RW);
	REQUIRE_EQ(pkey_free(other), 0);
}

/* One in the middle of what the program has, so that it is cut off from both sides. */
static void at_the_limit(int from, int to, int room)
{
	char *around;
	int ret;

	munmap(mem, PAGES * PAGE);
	around = map_pages(3 * PAGES);
	mem = around + PAGES * PAGE;
	fill(mem);
	give(from, RW);
	limit_reach();
	limit_release(room);
	ret = pkey_mprotect(mem, PAGES * PAGE, RW, to);
	limit_forget();
	REQUIRE(is_whole_with(ret ? from : to));
	munmap(around, PAGES * PAGE);
	munmap(mem + PAGES * PAGE, PAGES * PAGE);
}

/* Where the kernel moves nothing any more, what has been moved aside is not lost. */
static void near_the_most_mappings(void **state)
{
	int room;

	(void)state;
	if (backend_is("epk") || !limit_is_near())
		return;
	for (room = 0; room < 12; room++) {
		at_the_limit(0, key, room);
		at_the_limit(key, 0, room);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_KEY(threads),
		WITH_KEY(handlers),
		WITH_KEY(forks),
		WITH_KEY(forks_at_a_limit),
		WITH_KEY(races),
		WITH_KEY(refused_meanwhile),
		WITH_KEY(each_call_fails),
		WITH_KEY(seen_meanwhile),
		WITH_KEY(near_the_most_mappings),
	};

	skip_if(backend_is("vmfunc"), "is none that keeps several keys open");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
