// SPDX-License-Identifier: MIT
/*
 * A program does the same whatever the backend: what once did not, and what EPK_STRICT=1 makes so.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/uio.h>

#define DOMAINS	60
#define LIMIT	16
#define NOBODY	65534

static void read_in_turn(int fd, int first, int second)
{
	char *to_first = epk_calloc(first, 1, PAGE), *to_second = epk_calloc(second, 1, PAGE);
	const struct iovec both[2] = { { to_first, 64 }, { to_second, 64 } };
	int ends[2], i;

	REQUIRE(to_first);
	REQUIRE(to_second);
	REQUIRE_EQ(domain_begin(first, RW), 0);
	REQUIRE_EQ(domain_begin(second, RW), 0);
	for (i = 0; i < 5; i++) {
		REQUIRE_EQ(read(fd, to_first, 64), 64);
		REQUIRE_EQ(read(fd, to_second, 64), 64);
	}
	/* One call of both, each way. */
	REQUIRE_EQ(readv(fd, both, 2), 128);
	REQUIRE_EQ(pipe(ends), 0);
	REQUIRE_EQ(writev(ends[1], both, 2), 128);
	REQUIRE_EQ(readv(ends[0], both, 2), 128);
	close(ends[0]);
	close(ends[1]);
	REQUIRE_EQ(domain_end(first), 0);
	REQUIRE_EQ(domain_end(second), 0);
}

/* Under "epk" most lie in two EPTs, and no code of the program's has touched them before. */
static void system_calls_reach_two(void **state)
{
	int ids[DOMAINS], fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), i;

	(void)state;
	REQUIRE(fd >= 0);
	REQUIRE_EQ(alloc_domains(DOMAINS, ids), 0);
	for (i = 1; i < DOMAINS; i += 7)
		read_in_turn(fd, ids[0], ids[i]);
	REQUIRE_EQ(free_domains(DOMAINS, ids), 0);
	close(fd);
}

static int call_ids[2];

static long allocates(void *arg)
{
	char *own = epk_malloc(call_ids[0], 100000), *others = epk_malloc(call_ids[1], 100000);

	(void)arg;
	if (!own || !others)
		return 1;
	own[99999] = 1;
	return epk_free(call_ids[0], own) || epk_free(call_ids[1], others);
}

/* The heap of the domain that it has, and of another, which the caller holds; both grow. */
static void heaps_in_a_call(void **state)
{
	long result = -1;

	(void)state;
	REQUIRE_EQ(alloc_domains(2, call_ids), 0);
	REQUIRE_EQ(domain_begin(call_ids[1], RW), 0);
	REQUIRE_EQ(epk_call(call_ids[0], allocates, NULL, &result), 0);
	REQUIRE_EQ(result, 0);
	REQUIRE_EQ(domain_end(call_ids[1]), 0);
	REQUIRE_EQ(free_domains(2, call_ids), 0);
}

/* As in a service: so much memory may be locked, and no capability. */
static void limit_memory(void)
{
	struct rlimit limit = { LIMIT * PAGE, LIMIT * PAGE };

	REQUIRE(!setrlimit(RLIMIT_MEMLOCK, &limit));
	REQUIRE(geteuid() || !setresuid(NOBODY, NOBODY, NOBODY));
}

static bool fits(int id, size_t pages, char **mem)
{
	*mem = domain_mmap(id, NULL, pages * PAGE, RW, 0);
	REQUIRE(*mem != MAP_FAILED || errno == ENOMEM);
	REQUIRE(*mem != MAP_FAILED || strstr(epk_strerror(errno), "RLIMIT_MEMLOCK"));
	return *mem != MAP_FAILED;
}

static bool takes_a_device(int id)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	void *mem = epk_mmap_file(id, NULL, PAGE, RW, 0, fd, 0);

	REQUIRE(fd >= 0 && (mem != MAP_FAILED || errno == EOPNOTSUPP));
	close(fd);
	return mem != MAP_FAILED;
}

static void map_a_memfd(int id, size_t pages)
{
	int fd = memfd_create("alike", MFD_CLOEXEC);

	REQUIRE(fd >= 0 && !ftruncate(fd, pages * PAGE));
	REQUIRE(epk_mmap_file(id, NULL, pages * PAGE, RW, 0, fd, 0) != MAP_FAILED);
	close(fd);
}

static void what_is_refused(void)
{
	char *mem, *more;
	int id;

	REQUIRE(!alloc_domains(1, &id));
	limit_memory();
	REQUIRE(fits(id, LIMIT / 2, &mem) && fits(id, LIMIT / 2, &more) && !fits(id, 1, &more));
	/* Of one mapping a part. */
	REQUIRE(!domain_munmap(mem + PAGE, 3 * PAGE));
	REQUIRE(!fits(id, 4, &more) && fits(id, 3, &more) && !fits(id, 1, &more));
	/* Files do not count. */
	map_a_memfd(id, LIMIT);
	REQUIRE(!takes_a_device(id));
	REQUIRE(!free_domains(1, &id));
	REQUIRE(!alloc_domains(1, &id) && fits(id, LIMIT, &mem) && !fits(id, 1, &more));
}

static void strict_by_environment(void)
{
	REQUIRE(!setenv("EPK_STRICT", "1", 1));
	what_is_refused();
}

static void strict_by_option(void)
{
	struct epk_options options = { .size = sizeof(options), .flags = EPK_STRICT };

	REQUIRE(!epk_init(&options));
	what_is_refused();
}

/* Without the module, and without being told to. */
static void not_strict(void)
{
	bool module = backend_is("epk") || backend_is("vmfunc");
	char *mem;
	int id;

	REQUIRE(!setenv("EPK_STRICT", "0", 1) && !alloc_domains(1, &id));
	limit_memory();
	REQUIRE(fits(id, LIMIT + 1, &mem) == !module);
	REQUIRE(takes_a_device(id) == !module);
}

static void *is_cancelled_mapping(void *id)
{
	pthread_cancel(pthread_self());
	domain_mmap(*(int *)id, NULL, PAGE, RW, 0);
	pthread_testcancel();
	return NULL;
}

/* It leaves no lock behind. */
static void strict_and_cancelled(void)
{
	pthread_t thread;
	void *result;
	char *mem;
	int id;

	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(1, &id));
	limit_memory();
	REQUIRE(!pthread_create(&thread, NULL, is_cancelled_mapping, &id));
	REQUIRE(!pthread_join(thread, &result) && result == PTHREAD_CANCELED);
	alarm(30);
	REQUIRE(fits(id, 1, &mem));
	alarm(0);
}

#define GROUPS	4000

/* Who may lock what he likes is in so many that the kernel's text has little else. */
static void strict_in_many_groups(void)
{
	gid_t groups[GROUPS];
	struct rlimit limit = { LIMIT * PAGE, LIMIT * PAGE };
	char *mem;
	int id, i;

	for (i = 0; i < GROUPS; i++)
		groups[i] = 100000 + i;
	REQUIRE(!setrlimit(RLIMIT_MEMLOCK, &limit));
	mem = mmap(NULL, (LIMIT + 1) * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(mem != MAP_FAILED);
	if (mlock(mem, (LIMIT + 1) * PAGE) || setgroups(GROUPS, groups))
		return;
	REQUIRE(!munmap(mem, (LIMIT + 1) * PAGE));
	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(1, &id));
	REQUIRE(fits(id, LIMIT + 1, &mem));
}

/*
 * Root of a user namespace of its own has all capabilities, of which the kernel counts none here.  Its own
 * is left for that: as root of the machine it has no limit.
 */
static void strict_in_a_namespace(void)
{
	struct rlimit limit = { LIMIT * PAGE, LIMIT * PAGE };
	char *mem;
	int id;

	REQUIRE(!setrlimit(RLIMIT_MEMLOCK, &limit));
	if (unshare(CLONE_NEWUSER))
		return;
	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(1, &id));
	REQUIRE(!fits(id, LIMIT + 1, &mem) && fits(id, LIMIT, &mem));
}

/* How often a function can be called in another. */
static long nests(void *arg)
{
	long depth = (long)arg, deeper = -1;
	int err = epk_call(call_ids[depth & 1], nests, (void *)(depth + 1), &deeper);

	if (err && err != -EMFILE)
		fprintf(stderr, "%ld calls, and then %s\n", depth, strerror(-err));
	REQUIRE(!err || err == -EMFILE);
	return err ? depth : deeper;
}

static void strict_in_calls(void)
{
	long result = 0;
	int tries;

	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(2, call_ids));
	for (tries = 0; tries < 3; tries++) {
		REQUIRE(!epk_call(call_ids[0], nests, (void *)1, &result));
		if (result != 65)
			fprintf(stderr, "%ld calls\n", result);
		/* A thread's first is one that counts, where the module does not know it yet. */
		REQUIRE(result == 65 || (!tries && result == 64));
		REQUIRE(!epk_held(NULL, 0));
	}
	REQUIRE(!domain_begin(call_ids[0], RW));
	REQUIRE(!epk_call(call_ids[0], nests, (void *)1, &result) && result == 64);
}

static sigjmp_buf out_of_it;

static long jumps(void *arg)
{
	siglongjmp(out_of_it, 1);
	return (long)arg;
}

/* On a stack of its own, where nobody tells that a call is left. */
static void calls_and_jumps(int signo)
{
	long unused;

	(void)signo;
	REQUIRE(!domain_begin(call_ids[0], RW));
	REQUIRE(!epk_call(call_ids[1], jumps, NULL, &unused));
}

/* In the same place again and again it is one call. */
static void strict_in_calls_that_are_left(void)
{
	static char handlers_stack[16 * PAGE];
	const stack_t stack = { .ss_sp = handlers_stack, .ss_size = sizeof(handlers_stack) };
	const struct sigaction action = { .sa_handler = calls_and_jumps, .sa_flags = SA_ONSTACK };
	volatile int times;
	long result = 0;

	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(2, call_ids));
	REQUIRE(!sigaltstack(&stack, NULL) && !sigaction(SIGUSR1, &action, NULL));
	for (times = 0; times < 200; times++) {
		if (!sigsetjmp(out_of_it, 1))
			raise(SIGUSR1);
		domain_end(call_ids[0]);
		domain_end(call_ids[1]);
	}
	/* It counts until somebody else is there. */
	REQUIRE(!domain_begin(call_ids[0], RW));
	REQUIRE(!epk_call(call_ids[0], nests, (void *)1, &result));
	REQUIRE(result == 63 || result == 64);
}

static void *begins_first(void *id)
{
	return (void *)(long)domain_begin(*(int *)id, RW);
}

/* As a daemon does at its start. */
static void strict_and_closed(void)
{
	pthread_t thread;
	void *result;
	char *mem;
	int id, other;
	pid_t pid;

	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(1, &id) && fits(id, 1, &mem));
	REQUIRE(!domain_begin(id, RW) && !domain_end(id));
	closefrom(3);
	REQUIRE(alloc_domains(1, &other) == -EBADF && strstr(epk_strerror(-EBADF), "/dev/epk"));
	REQUIRE(domain_mmap(id, NULL, PAGE, RW, 0) == MAP_FAILED && errno == EBADF);
	REQUIRE(domain_munmap(mem, PAGE) == -EBADF);
	REQUIRE(free_domains(1, &id) == -EBADF);
	REQUIRE(!pthread_create(&thread, NULL, begins_first, &id) &&
		!pthread_join(thread, &result));
	REQUIRE((long)result == -EBADF);
	/* What is there can be used, and a child opens it anew. */
	REQUIRE(!domain_begin(id, RW));
	mem[0] = 1;
	REQUIRE(!domain_end(id));
	pid = fork();
	if (!pid)
		_exit(alloc_domains(1, &other) || free_domains(1, &other));
	REQUIRE(waitpid(pid, &other, 0) == pid && !other);
}

/* Another file has its number; in a process that is not strict there is none. */
static void strict_and_replaced(void)
{
	int id, other, fd;

	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(1, &id));
	closefrom(3);
	for (fd = 3; fd < 20; fd++)
		REQUIRE(memfd_create("another", 0) == fd);
	REQUIRE(alloc_domains(1, &other) != 0 && domain_mmap(id, NULL, PAGE, RW, 0) == MAP_FAILED);
	closefrom(3);
}

static void loose_and_closed(void)
{
	int ids[2];

	REQUIRE(!setenv("EPK_STRICT", "0", 1) && !alloc_domains(1, ids));
	closefrom(3);
	REQUIRE(!alloc_domains(1, ids + 1) == !(backend_is("epk") || backend_is("vmfunc")));
}

#define MAP_COUNT	"/proc/sys/vm/max_map_count"

static void strict_and_mappings(void)
{
	unsigned long most = 0, nr = 0;
	FILE *file = fopen(MAP_COUNT, "r");
	char *mem;
	int id;

	REQUIRE(file && fscanf(file, "%lu", &most) == 1 && !fclose(file));
	/* Who has a limit of memory reaches that before; more take long. */
	if (geteuid() || most > 70000)
		return;
	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(1, &id));
	while (nr <= most && (mem = domain_mmap(id, NULL, PAGE, RW, 0)) != MAP_FAILED)
		nr++;
	REQUIRE(mem == MAP_FAILED && errno == ENOMEM && nr <= most && nr + 1000 > most);
	REQUIRE(strstr(epk_strerror(-ENOMEM), "max_map_count"));
	REQUIRE(!free_domains(1, &id) && !alloc_domains(1, &id));
	REQUIRE(domain_mmap(id, NULL, PAGE, RW, 0) != MAP_FAILED);
}

IN_CHILD(strict_in_calls)
IN_CHILD(strict_in_calls_that_are_left)
IN_CHILD(strict_and_closed)
IN_CHILD(strict_and_replaced)
IN_CHILD(loose_and_closed)
IN_CHILD(strict_and_mappings)
IN_CHILD(strict_by_environment)
IN_CHILD(strict_by_option)
IN_CHILD(not_strict)
IN_CHILD(strict_and_cancelled)
IN_CHILD(strict_in_many_groups)
IN_CHILD(strict_in_a_namespace)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_child_strict_in_calls),
		cmocka_unit_test(in_child_strict_in_calls_that_are_left),
		cmocka_unit_test(in_child_strict_and_closed),
		cmocka_unit_test(in_child_strict_and_replaced),
		cmocka_unit_test(in_child_loose_and_closed),
		cmocka_unit_test(in_child_strict_and_mappings),
		cmocka_unit_test(in_child_strict_by_environment),
		cmocka_unit_test(in_child_strict_by_option),
		cmocka_unit_test(in_child_not_strict),
		cmocka_unit_test(in_child_strict_and_cancelled),
		cmocka_unit_test(in_child_strict_in_many_groups),
		cmocka_unit_test(in_child_strict_in_a_namespace),
		cmocka_unit_test(system_calls_reach_two),
		cmocka_unit_test(heaps_in_a_call),
	};

	need_backend();
	skip_if(!backend_holds_several(), "reaches one domain at a time");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
