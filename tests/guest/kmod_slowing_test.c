// SPDX-License-Identifier: MIT
/*
 * Neighbours: how much one user can slow another.
 *
 * It counts CPU time of one process, B, while another, A, does its worst; in the
 * emulator that counts instructions, interrupts and the hypervisor's included.  The
 * baseline is an A that does nothing but spin.
 */
#include "neighbour_test.h"

#include <pthread.h>
#include <sched.h>

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

static void touch_new(int id)
{
	char *p = epk_device_map(&dev, id, 32 * 4096);
	int i;

	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	for (i = 0; i < 32; i++)
		p[i * 4096] = 1;
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 32 * 4096), 0);
}

static void a_faults(void)
{
	touch_new(two[1]);
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
	touch_new(eight[3]);
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

#define ROUNDS	10
/* How often B does each work before it sleeps. */
#define REPEAT	3
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
	int i, w, repeat;

	memset(took, 0, WORKS * sizeof(*took));
	for (i = 0; i < ROUNDS || (shared->done == done && i < 40 * ROUNDS); i++) {
		usleep(100);
		for (w = 0; w < WORKS; w++) {
			start = seconds(CLOCK_PROCESS_CPUTIME_ID);
			for (repeat = 0; repeat < REPEAT; repeat++)
				works[w].once();
			took[w] += (seconds(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e6;
		}
	}
	for (w = 0; w < WORKS; w++)
		took[w] *= (double)ROUNDS / i;
}

static void start_b(void)
{
	static const struct sched_param batch;
	static pthread_t thread;
	char *p;
	int i;

	pin(0);
	/*
	 * Whether a byte in a pipe preempts its writer hangs on how long each of two threads has
	 * run, stays one way or the other for a whole measurement, and is a fifth of "switch".
	 * Batch threads never preempt when they wake.
	 */
	REQUIRE(sched_setscheduler(0, SCHED_BATCH, &batch) == 0);
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

int main(void)
{
	const unsigned int nr = sizeof(worst) / sizeof(*worst);
	double base[WORKS], took[WORKS];
	int fds[2][2];
	unsigned int i, w;
	pid_t b;

	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	REQUIRE(chmod(EPK_DEVICE, 0666) == 0);
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
	CHECK_EQ(chmod(EPK_DEVICE, 0600), 0);
	return epk_test_result();
}
