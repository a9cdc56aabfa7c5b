// SPDX-License-Identifier: MIT
/*
 * Neighbours: what one user can take, see and slow down of another's.
 *
 * The last counts CPU time of one process, B, while another, A, does its worst; in the
 * emulator that counts instructions, interrupts and the hypervisor's included.  The
 * baseline is an A that does nothing but spin.
 */
#include "epk_test.h"

#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define USER		1000
#define OTHER		1001
#define PARAMETERS	"/sys/module/epk/parameters/"

static struct epk_device dev;

static void parameter(const char *name, const char *value)
{
	char path[96];

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	CHECK(put(path, value));
}

static void finish(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void become(uid_t uid)
{
	if (uid != getuid())
		REQUIRE(!setgroups(0, NULL) && !setgid(uid) && !setuid(uid));
}

static void run_as(uid_t uid, void (*func)(void))
{
	pid_t pid = fork();

	if (!pid) {
		epk_failures = 0;
		become(uid);
		func();
		_exit(epk_failures != 0);
	}
	finish(pid);
}

static int open_device(void)
{
	int fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static void open_one(void)
{
	CHECK(open_device() >= 0);
}

static void open_none(void)
{
	CHECK_EQ(open_device(), -EDQUOT);
}

/* All users of a namespace of its own are this one, and its capabilities there none. */
static void open_none_in_namespace(void)
{
	if (access("/proc/self/ns/user", F_OK))
		return;
	CHECK_EQ(unshare(CLONE_NEWUSER), 0);
	open_none();
}

static void open_three(void)
{
	int fd[3], i;

	for (i = 0; i < 3; i++)
		CHECK((fd[i] = open_device()) >= 0);
	open_none();
	run_as(getuid(), open_none);
	run_as(getuid(), open_none_in_namespace);
	close(fd[1]);
	fd[1] = open_device();
	CHECK(fd[1] >= 0);
	open_none();
	/* An open that is passed on is still this user's; exec or exit of all ends it. */
	close(fd[0]);
	close(fd[1]);
	close(fd[2]);
	run_as(getuid(), open_one);
}

/* It is root who makes this one other user, and is counted as itself. */
static void open_others(void)
{
	int i;

	for (i = 0; i < 5; i++)
		open_one();
}

static void contexts(void)
{
	parameter("max_user_contexts", "3");
	run_as(USER, open_three);
	run_as(USER, open_three);
	run_as(OTHER, open_three);
	run_as(0, open_others);
	parameter("max_user_contexts", "0");
	run_as(USER, open_others);
	parameter("max_user_contexts", "1024");
}

static int alloc(unsigned int num, uint32_t flags, int *ids)
{
	struct epk_domains arg = { .num = num, .flags = flags, .ids = (uintptr_t)ids };

	return ioctl(dev.fd, EPK_IOC_ALLOC, &arg) ? -errno : 0;
}

static void alloc_none(void)
{
	int id;

	epk_device_open(&dev);
	CHECK_EQ(alloc(1, 0, &id), -EDQUOT);
	CHECK_EQ(alloc(1, EPK_ALLOC_SPILL, &id), -EDQUOT);
}

static void alloc_twenty(void)
{
	int ids[20], more[6];

	epk_device_open(&dev);
	CHECK_EQ(alloc(15, 0, ids), 0);
	CHECK_EQ(alloc(6, 0, more), -EDQUOT);
	CHECK_EQ(epk_device_stats(&dev).domains, 15);
	/* What fails for another reason is given back. */
	CHECK_EQ(alloc(5, EPK_ALLOC_AT(5000), more), -EINVAL);
	CHECK_EQ(alloc(5, EPK_ALLOC_SPILL, ids + 15), 0);
	CHECK_EQ(alloc(1, EPK_ALLOC_SPILL, more), -EDQUOT);
	run_as(getuid(), alloc_none);
	CHECK_EQ(epk_device_free(&dev, 2, ids), 0);
	CHECK_EQ(alloc(3, EPK_ALLOC_SPILL, more), -EDQUOT);
	CHECK_EQ(alloc(2, EPK_ALLOC_SPILL, more), 0);
}

static void alloc_forty(void)
{
	int ids[40];

	epk_device_open(&dev);
	CHECK_EQ(alloc(40, EPK_ALLOC_SPILL, ids), 0);
}

static void domains(void)
{
	parameter("max_user_domains", "20");
	run_as(USER, alloc_twenty);
	run_as(USER, alloc_twenty);
	run_as(OTHER, alloc_twenty);
	run_as(0, alloc_forty);
	parameter("max_user_domains", "262144");
	run_as(USER, alloc_forty);
}

static int last_id;

static void *map(size_t pages)
{
	return epk_device_map(&dev, last_id, pages * 4096);
}

static void map_none(void)
{
	epk_device_open(&dev);
	REQUIRE(alloc(1, 0, &last_id) == 0);
	CHECK(map(1) == MAP_FAILED && errno == ENOMEM);
}

static void map_hundred(void)
{
	char *a, *b;

	epk_device_open(&dev);
	REQUIRE(alloc(1, 0, &last_id) == 0);
	a = map(60);
	CHECK(a != MAP_FAILED);
	CHECK(map(41) == MAP_FAILED && errno == ENOMEM);
	b = map(40);
	CHECK(b != MAP_FAILED);
	run_as(getuid(), map_none);
	CHECK_EQ(epk_device_unmap(&dev, a, 30 * 4096), 0);
	CHECK(map(31) == MAP_FAILED && errno == ENOMEM);
	CHECK(map(30) != MAP_FAILED);
}

static void map_more(void)
{
	epk_device_open(&dev);
	REQUIRE(alloc(1, 0, &last_id) == 0);
	CHECK(map(200) != MAP_FAILED);
}

static void pages(void)
{
	char normal[32] = "";
	int fd = open(PARAMETERS "max_user_pages", O_RDONLY);

	CHECK(fd >= 0 && read(fd, normal, sizeof(normal) - 1) > 0);
	close(fd);
	parameter("max_user_pages", "100");
	run_as(USER, map_hundred);
	run_as(USER, map_hundred);
	run_as(OTHER, map_hundred);
	run_as(0, map_more);
	parameter("max_user_pages", normal);
	run_as(USER, map_more);
}

/* The last EPTs are not there for who is not root. */
static void not_reserved(void)
{
	int ids[15], id;

	epk_device_open(&dev);
	REQUIRE(alloc(1, 0, &id) == 0);
	CHECK_EQ(epk_device_move(&dev, id, dev.init.nr_epts), -EINVAL);
	CHECK_EQ(alloc(15, EPK_ALLOC_AT(dev.init.nr_epts), ids), -EINVAL);
	CHECK_EQ(epk_device_move(&dev, id, dev.init.nr_epts - 1), 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(dev.identity->ept, dev.init.nr_epts - 1);
}

static unsigned int nr_epts;

static void sees_fewer(void)
{
	not_reserved();
	CHECK_EQ(dev.init.nr_epts, nr_epts - 16);
}

/* All that it may have, so that nothing but the bound can be the reason. */
static void sees_three_quarters(void)
{
	int ids[15];

	epk_device_open(&dev);
	CHECK_EQ(dev.init.nr_epts, nr_epts - nr_epts / 4);
	CHECK_EQ(alloc(15, EPK_ALLOC_AT(dev.init.nr_epts - 1), ids), 0);
}

static void sees_all(void)
{
	not_reserved();
	CHECK_EQ(dev.init.nr_epts, nr_epts);
}

static void none_in_two(void)
{
	int id;

	epk_device_open(&dev);
	/* What another process of the user is in may be shared, nothing else. */
	CHECK_EQ(alloc(1, 0, &id), 0);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 0);
	CHECK_EQ(epk_device_move(&dev, id, 1), 0);
	CHECK_EQ(epk_device_move(&dev, id, 2), -ENOSPC);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 1);
}

static void only_two(void)
{
	int ids[30], more[2];

	epk_device_open(&dev);
	CHECK_EQ(alloc(10, 0, ids), 0);
	/* They do not fit into one: an EPT for them alone, and then what is left. */
	CHECK_EQ(alloc(10, 0, ids + 10), 0);
	CHECK_EQ(epk_device_entry(&dev, ids[10]).ept, 1);
	CHECK_EQ(alloc(10, 0, ids + 20), 0);
	CHECK_EQ(alloc(1, 0, more), -ENOSPC);
	CHECK_EQ(epk_device_stats(&dev).domains, 30);
	CHECK_EQ(epk_device_move(&dev, ids[0], 100), -ENOSPC);
	CHECK_EQ(alloc(2, EPK_ALLOC_SPILL, more), 0);
	CHECK_EQ(epk_device_entry(&dev, more[0]).ept, EPK_EPT_NONE);
	CHECK_EQ(epk_device_move(&dev, more[0], EPK_EPT_ANY), -ENOSPC);
	CHECK_EQ(epk_device_free(&dev, 1, ids), 0);
	CHECK_EQ(epk_device_move(&dev, more[0], EPK_EPT_ANY), 0);
	run_as(getuid(), none_in_two);
}

static void more_than_two(void)
{
	int ids[46];

	epk_device_open(&dev);
	CHECK_EQ(alloc(46, 0, ids), 0);
	CHECK_EQ(epk_device_entry(&dev, ids[45]).ept, 3);
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void make_epts(int times)
{
	int id;

	while (times--) {
		epk_device_open(&dev);
		REQUIRE(alloc(1, 0, &id) == 0);
		REQUIRE(epk_device_move(&dev, id, 100 + times % 2) == 0);
		CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
		CHECK_EQ(munmap((void *)dev.table, dev.init.table_bytes), 0);
		CHECK_EQ(munmap((void *)dev.identity, 4096), 0);
		close(dev.fd);
	}
}

/*
 * Each makes an EPT and has it destroyed: at once as many as in ten seconds, then no faster,
 * although each time nothing of the user is left.
 */
static void make_many(void)
{
	double start = seconds(CLOCK_MONOTONIC), burst;

	make_epts(20);
	burst = seconds(CLOCK_MONOTONIC) - start;
	make_epts(4);
	printf("20 EPTs: %.3f s, 4 more: %.3f s\n", burst,
	       seconds(CLOCK_MONOTONIC) - start - burst);
	CHECK(burst < .8);
	CHECK(seconds(CLOCK_MONOTONIC) - start >= 1);
}

static void make_as_fast(int times)
{
	double start = seconds(CLOCK_MONOTONIC);

	make_epts(times);
	CHECK(seconds(CLOCK_MONOTONIC) - start < .8);
}

/* What another user has had made is not held against this one. */
static void make_twenty(void)
{
	make_as_fast(20);
}

static void make_many_as_root(void)
{
	make_as_fast(24);
}

static void epts(void)
{
	epk_device_open(&dev);
	nr_epts = dev.init.nr_epts;
	/* One is everybody's. */
	if (epk_device_is_alone(&dev))
		return;
	run_as(0, sees_all);
	run_as(USER, sees_fewer);
	parameter("reserved_epts", "100000");
	run_as(USER, sees_three_quarters);
	parameter("reserved_epts", "16");
	parameter("max_user_epts", "2");
	run_as(USER, only_two);
	run_as(OTHER, only_two);
	run_as(0, more_than_two);
	parameter("max_user_epts", "0");
	run_as(USER, more_than_two);
	parameter("user_epts_per_second", "2");
	run_as(USER, make_many);
	run_as(OTHER, make_twenty);
	run_as(0, make_many_as_root);
	parameter("user_epts_per_second", "100");
}

/* Who is not root sees what is its own. */
static void counts(bool all)
{
	struct epk_stats stats;
	char *p;
	int ids[2];

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(alloc(2, 0, ids) == 0);
	REQUIRE(epk_device_move(&dev, ids[0], 1) == 0);
	p = epk_device_map(&dev, ids[0], 4096);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, ids[0]);
	*p = 1;
	sched_yield();
	stats = epk_device_stats(&dev);
	epk_device_enter(&dev, 0);
	CHECK_EQ(stats.domains, 2);
	CHECK_EQ(stats.epts, epk_device_is_alone(&dev) ? 1 : 2);
	CHECK_EQ(stats.pages, 1);
	CHECK_EQ(stats.moves, !epk_device_is_alone(&dev));
	CHECK_EQ(stats.page_faults, 1);
	CHECK_EQ(stats.vm_domains > 0, all);
	CHECK_EQ(stats.vm_epts > 0, all);
	CHECK_EQ(stats.vm_pages > 0, all);
	CHECK_EQ(stats.vm_exits > 0, all && !epk_device_is_alone(&dev));
	CHECK(all || !stats.vm_faults);
	CHECK(all || !stats.rescues);
}

static void counts_own(void)
{
	counts(false);
}

static void counts_all(void)
{
	counts(true);
}

/* Before it has a context in use, too. */
static void counts_early(void)
{
	struct epk_stats stats;

	dev.fd = open_device();
	stats = epk_device_stats(&dev);
	CHECK(!stats.vm_domains && !stats.vm_epts && !stats.vm_pages && !stats.vm_exits &&
	      !stats.vm_faults && !stats.rescues);
}

static void statistics(void)
{
	run_as(0, counts_all);
	run_as(USER, counts_own);
	run_as(USER, counts_early);
}

/* What A does. */
static volatile struct {
	int stop;
	int ready;
	unsigned long done;
	int crowd;
} *shared;

static char *memory;
static int two[2], eight[8];

static void a_spins(void)
{
}

static void a_allocates(void)
{
	int ids[15];

	CHECK_EQ(alloc(15, 0, ids), 0);
	CHECK_EQ(epk_device_free(&dev, 15, ids), 0);
}

/* Each move but the first meets the one key of an EPT vacated. */
static void a_moves(void)
{
	unsigned int from = epk_device_entry(&dev, two[0]).ept;

	CHECK_EQ(epk_device_move(&dev, two[0], from == 3 ? 4 : 3), 0);
}

static void a_swaps(void)
{
	struct epk_entry first = epk_device_entry(&dev, two[0]);
	struct epk_entry second = epk_device_entry(&dev, two[1]);
	struct epk_move moves[] = {
		{ .id = two[0], .ept = second.ept, .pkey = second.pkey },
		{ .id = two[1], .ept = first.ept, .pkey = first.pkey },
	};

	CHECK_EQ(epk_device_moves(&dev, 2, moves), 0);
}

static void a_evicts(void)
{
	CHECK_EQ(epk_device_move(&dev, two[0], EPK_EPT_NONE), 0);
	CHECK_EQ(epk_device_move(&dev, two[0], EPK_EPT_ANY), 0);
}

static void a_faults(void)
{
	char *p = epk_device_map(&dev, two[1], 32 * 4096);
	int i;

	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, two[1]);
	for (i = 0; i < 32; i++)
		p[i * 4096] = 1;
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 32 * 4096), 0);
}

static void a_opens(void)
{
	int fd = open_device();

	CHECK(fd >= 0);
	close(fd);
}

static void a_makes_epts(void)
{
	int id;

	epk_device_open(&dev);
	CHECK_EQ(alloc(1, EPK_ALLOC_AT(77), &id), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK_EQ(munmap((void *)dev.table, dev.init.table_bytes), 0);
	CHECK_EQ(munmap((void *)dev.identity, 4096), 0);
	close(dev.fd);
}

/* A process of its own each time, of two threads, and an EPT that nobody else has. */
static volatile int a_thread_stop;

static void *a_thread(void *arg)
{
	while (!a_thread_stop)
		sched_yield();
	return arg;
}

static void a_begins(void)
{
	pid_t pid = fork();

	if (!pid) {
		pthread_t thread;
		int id;

		REQUIRE(pthread_create(&thread, NULL, a_thread, NULL) == 0);
		epk_device_open(&dev);
		REQUIRE(alloc(1, 0, &id) == 0);
		REQUIRE(epk_device_move(&dev, id, 77) == 0);
		_exit(0);
	}
	finish(pid);
}

#define CROWD	300

/* Calls that have not returned, each of them with what its caller holds, on a deeper stack. */
static void crowd_calls(void)
{
	volatile char *deeper;
	int i;

	for (i = 0; i < 8; i++) {
		deeper = alloca(64);
		*deeper = 0;
		REQUIRE(ioctl(dev.fd, EPK_IOC_CALL, EPK_BEGIN(two[i % 2], PROT_READ)) == 0);
	}
}

static void *crowd_sleeps(void *arg)
{
	__atomic_fetch_add(&shared->crowd, 1, __ATOMIC_RELAXED);
	pause();
	return arg;
}

static void *crowd_holds(void *arg)
{
	REQUIRE(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(two[0], PROT_READ)) == 0);
	crowd_calls();
	return crowd_sleeps(arg);
}

static void crowd(void *(*func)(void *arg))
{
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	REQUIRE(pthread_attr_init(&attr) == 0 && pthread_attr_setstacksize(&attr, 16384) == 0);
	for (i = 0; i < CROWD; i++)
		REQUIRE(pthread_create(&thread, &attr, func, NULL) == 0);
	while (shared->crowd < CROWD)
		usleep(1000);
}

static void a_is_many(void)
{
	crowd(crowd_holds);
}

static void a_frees_private(void)
{
	struct epk_note note = { .flags = EPK_NOTE_PRIVATE };
	void *p;
	int id;

	REQUIRE(alloc(1, EPK_ALLOC_SPILL, &id) == 0);
	p = epk_device_map(&dev, id, 4096);
	REQUIRE(p != MAP_FAILED);
	note.id = id;
	note.addr = (uintptr_t)p;
	REQUIRE(ioctl(dev.fd, EPK_IOC_NOTE, &note) == 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
}

/* One more domain than it has places, all of them held. */
static volatile char *three[3];

static void a_holds_three(void)
{
	int i, ids[3] = { two[0], two[1] };

	REQUIRE(alloc(1, EPK_ALLOC_SPILL, ids + 2) == 0);
	for (i = 0; i < 3; i++) {
		three[i] = epk_device_map(&dev, ids[i], 4096);
		REQUIRE(three[i] != MAP_FAILED);
		REQUIRE(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(ids[i], PROT_READ | PROT_WRITE)) == 0);
	}
	CHECK_EQ(epk_device_stats(&dev).evicted, 1);
}

static void a_touches_three(void)
{
	int i;

	for (i = 0; i < 3; i++)
		*three[i] += 1;
}

/* A process that does nothing but be there while others begin. */
static pid_t many;

static void a_begins_among_many(void)
{
	if (!many) {
		many = fork();
		if (!many) {
			crowd(crowd_sleeps);
			for (;;)
				pause();
		}
		while (shared->crowd < CROWD)
			usleep(1000);
	}
	a_begins();
}

static const struct worst {
	const char *name;
	void (*once)(void);
	/* Its keys; with none it opens the device by itself. */
	uint32_t keys;
	/* What it does first, with two domains. */
	void (*first)(void);
	/* How many EPTs it may have. */
	const char *epts;
} worst[] = {
	{ "spins", a_spins, .keys = 0xfffe },
	{ "allocates and frees 15 domains", a_allocates, .keys = 0xfffe },
	{ "moves a domain", a_moves, .keys = 2 },
	{ "lets two domains change places", a_swaps, .keys = 0xfffe },
	{ "evicts and readmits", a_evicts, .keys = 2 },
	{ "touches and unmaps 32 pages", a_faults, .keys = 0xfffe },
	{ "opens and closes", a_opens, .keys = 0 },
	{ "has EPTs made and destroyed", a_makes_epts, .keys = 0 },
	{ "begins and ends processes", a_begins, .keys = 0 },
	{ "the same among many threads", a_begins_among_many, .keys = 0 },
	{ "moves what many threads hold", a_moves, .keys = 2, .first = a_is_many },
	{ "frees private domains, has many", a_frees_private, .keys = 0xfffe, .first = a_is_many },
	{ "touches more than it has places", a_touches_three, .keys = 2, .first = a_holds_three,
	  .epts = "2" },
};

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	REQUIRE(sched_setaffinity(0, sizeof(set), &set) == 0);
}

static pid_t start_a(const struct worst *how)
{
	pid_t pid;
	int i;

	shared->stop = shared->ready = shared->done = shared->crowd = 0;
	pid = fork();
	if (pid)
		return pid;
	epk_failures = 0;
	pin(sysconf(_SC_NPROCESSORS_ONLN) - 1);
	become(USER);
	if (how->keys) {
		epk_device_open_keys(&dev, how->keys);
		REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
		REQUIRE(alloc(2, 0, two) == 0);
		memory = epk_device_map(&dev, two[0], 4 * 4096);
		REQUIRE(memory != MAP_FAILED);
		epk_device_enter(&dev, two[0]);
		for (i = 0; i < 4; i++)
			memory[i * 4096] = 1;
		epk_device_enter(&dev, 0);
	}
	if (how->first)
		how->first();
	shared->ready = 1;
	while (!shared->stop) {
		how->once();
		shared->done++;
	}
	if (many)
		kill(many, SIGKILL);
	_exit(epk_failures != 0);
}

/* What B does, which another's deeds should not be felt in. */
static int pipes[2][2];

static void *b_answers(void *arg)
{
	char byte;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_vmfunc(2);
	while (read(pipes[0][0], &byte, 1) == 1 && byte)
		REQUIRE(write(pipes[1][1], &byte, 1) == 1);
	return arg;
}

static void b_pairs(void)
{
	int i;

	for (i = 0; i < 500; i++) {
		epk_device_enter(&dev, eight[i % 8]);
		memory[(i % 8) * 4096] += 1;
		epk_device_enter(&dev, 0);
	}
}

static void b_faults(void)
{
	char *p = epk_device_map(&dev, eight[3], 32 * 4096);
	int i;

	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, eight[3]);
	for (i = 0; i < 32; i++)
		p[i * 4096] = 1;
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 32 * 4096), 0);
}

static void b_switches(void)
{
	char byte = 1;
	int i;

	epk_vmfunc(1);
	for (i = 0; i < 20; i++) {
		REQUIRE(write(pipes[0][1], &byte, 1) == 1);
		REQUIRE(read(pipes[1][0], &byte, 1) == 1);
	}
	epk_vmfunc(0);
}

#define WORKS	3

static const struct {
	const char *name;
	void (*once)(void);
} works[WORKS] = {
	{ "pair", b_pairs }, { "fault", b_faults }, { "switch", b_switches },
};

#define ROUNDS	30
/* How many times as long B's work may take.  Interrupts for B itself differ as well. */
#define MOST	1.1

/*
 * Microseconds of B's threads for all rounds of each work.  In between it sleeps, so that A runs on
 * the only CPU, too; and it goes on until A has done its worst once.
 */
static void measure(double took[WORKS])
{
	unsigned long done = shared->done;
	double start;
	int i, w;

	memset(took, 0, WORKS * sizeof(*took));
	for (i = 0; i < ROUNDS || (shared->done == done && i < 40 * ROUNDS); i++) {
		usleep(100);
		for (w = 0; w < WORKS; w++) {
			start = seconds(CLOCK_PROCESS_CPUTIME_ID);
			works[w].once();
			took[w] += (seconds(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e6;
		}
	}
	for (w = 0; w < WORKS; w++)
		took[w] *= (double)ROUNDS / i;
}

static void start_b(void)
{
	static pthread_t thread;
	char *p;
	int i;

	pin(0);
	become(OTHER);
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(alloc(8, 0, eight) == 0);
	memory = mmap(NULL, 8 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < 8; i++) {
		REQUIRE(epk_device_move(&dev, eight[i], i % 4) == 0);
		p = mmap(memory + i * 4096, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 dev.fd, EPK_MMAP_DOMAIN(eight[i]));
		REQUIRE(p == memory + i * 4096);
	}
	REQUIRE(pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0);
	REQUIRE(pthread_create(&thread, NULL, b_answers, NULL) == 0);
}

static void slowing(void)
{
	const unsigned int nr = sizeof(worst) / sizeof(*worst);
	double base[WORKS], took[WORKS];
	int fds[2][2];
	unsigned int i, w;
	pid_t b;

	REQUIRE(pipe(fds[0]) == 0 && pipe(fds[1]) == 0);
	b = fork();
	if (!b) {
		epk_failures = 0;
		start_b();
		/* What comes once. */
		for (w = 0; w < WORKS; w++)
			works[w].once();
		for (i = 0; i < nr; i++) {
			REQUIRE(read(fds[0][0], &w, sizeof(w)) == sizeof(w));
			measure(took);
			REQUIRE(write(fds[1][1], took, sizeof(took)) == sizeof(took));
		}
		_exit(epk_failures != 0);
	}
	for (i = 0; i < nr; i++) {
		unsigned long before;
		pid_t a;

		if (worst[i].epts)
			parameter("max_user_epts", worst[i].epts);
		a = start_a(&worst[i]);
		while (!shared->ready)
			sched_yield();
		before = shared->done;
		REQUIRE(write(fds[0][1], &i, sizeof(i)) == sizeof(i));
		REQUIRE(read(fds[1][0], took, sizeof(took)) == sizeof(took));
		printf("%-32s %6lu times:", worst[i].name, shared->done - before);
		CHECK(shared->done > before);
		shared->stop = 1;
		finish(a);
		if (worst[i].epts)
			parameter("max_user_epts", "0");
		if (!i)
			memcpy(base, took, sizeof(base));
		for (w = 0; w < WORKS; w++) {
			printf("  %s %6.0f us %4.0f%%", works[w].name, took[w],
			       100 * took[w] / base[w]);
			if (took[w] > base[w] * MOST) {
				printf("!");
				epk_failures++;
			}
			epk_checks++;
		}
		puts("");
	}
	finish(b);
}

static void bounds(void)
{
	statistics();
	contexts();
	domains();
	pages();
	epts();
}

/* bounds: what a user may take and see; slowing: what it can do to others. */
int main(int argc, char *argv[])
{
	REQUIRE(argc == 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	REQUIRE(chmod(EPK_DEVICE, 0666) == 0);
	if (!strcmp(argv[1], "bounds"))
		bounds();
	else
		slowing();
	CHECK_EQ(chmod(EPK_DEVICE, 0600), 0);
	return epk_test_result();
}
