// SPDX-License-Identifier: MIT
/*
 * What the module costs, in instructions: in the emulator the TSC counts them,
 * the hypervisor's included.  Each row has its baseline from the same run and the
 * most that it may be; the least of several rounds counts, so that timer
 * interrupts do not.
 *
 * The first row is measured without the module, which is why this loads it anew.
 */
#include "epk_test.h"
#include "../../bench/figure.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define MODULE		"/epk/epk.ko"
#define ROUNDS		30
/* Few, so that the scheduler does not find that time has passed, and do sums of its own. */
#define YIELDS		10
/* Each yield switches to the partner, and its yield back. */
#define SWITCHES	(2 * YIELDS)
#define PAGES		256
#define BYTES		(PAGES * 4096)
#define HUGE		(2l << 20)

/* What the module is compared with. */
#define UNLOADED	"20 thread switches, module not loaded"
#define TOUCH		"first touch of an anonymous page"
#define UNMAP		"munmap of an anonymous page"
#define TOUCH_HUGE	"first touch of 2 MiB of anonymous memory"
#define ACCESS		"access to what is held in another EPT"
#define PROTECTS	"two pkey_mprotect of 256 pages"

static struct epk_device dev;

static uint64_t now(void)
{
	uint32_t low, high;

	asm volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* Of single pages, figures change with where the kernel finds memory. */
#define WITHIN		5

static void figure(const char *what, const char *than, long value)
{
	struct bench_key key = { .table = "module", .name = what, .baseline = than, .within = WITHIN };

	bench_figure(&key, value, NULL);
}

/* @than: "-" if there is nothing to compare it with; what was measured for this is a row, too. */
static void row(const char *what, long value, const char *than, long baseline, double most)
{
	figure(what, than, value);
	printf("%-44s %8ld   %-28s %8ld   at most %8.0f\n", what, value, than, baseline, most);
	epk_check(value <= most, __FILE__, __LINE__, what, "");
}

/* Two threads that do nothing but give the CPU to each other: FIFO ones do so each time. */
static void set_policy(int policy)
{
	struct sched_param param = { .sched_priority = policy == SCHED_FIFO };

	CHECK_EQ(sched_setscheduler(0, policy, &param), 0);
}

static long switches(void)
{
	struct rusage usage;

	CHECK_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_nivcsw + usage.ru_nvcsw;
}

static volatile int partner_stop, partner_ready;
static unsigned int partner_ept;

static void *partner(void *arg)
{
	if (partner_ept) {
		CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
		epk_vmfunc(partner_ept);
	}
	partner_ready = 1;
	while (!partner_stop)
		sched_yield();
	return arg;
}

/* Instructions for YIELDS switches between two threads. */
static long switching_once(unsigned int ept, unsigned int other_ept)
{
	uint64_t least = UINT64_MAX, start, took;
	pthread_t thread;
	long before;
	int round, i;

	set_policy(SCHED_FIFO);
	partner_ept = other_ept;
	partner_stop = partner_ready = 0;
	CHECK_EQ(pthread_create(&thread, NULL, partner, NULL), 0);
	while (!partner_ready)
		sched_yield();
	if (ept)
		epk_vmfunc(ept);
	for (round = 0; round < ROUNDS; round++) {
		before = switches();
		start = now();
		for (i = 0; i < YIELDS; i++)
			sched_yield();
		took = now() - start;
		CHECK(switches() >= before + YIELDS);
		least = took < least ? took : least;
	}
	if (ept) {
		CHECK_EQ(dev.identity->ept, ept);
		epk_vmfunc(0);
	}
	partner_stop = 1;
	pthread_join(thread, NULL);
	set_policy(SCHED_OTHER);
	return least;
}

/* Now and then a thread has something of the kernel's to do all the time that it lives. */
static long switching(unsigned int ept, unsigned int other_ept)
{
	long least = LONG_MAX, took;
	int i;

	for (i = 0; i < 10; i++) {
		took = switching_once(ept, other_ept);
		least = took < least ? took : least;
	}
	return least;
}

static void *anonymous(void)
{
	char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(p != MAP_FAILED);
	madvise(p, BYTES, MADV_NOHUGEPAGE);
	return p;
}

static void touch(volatile char *p)
{
	int i;

	for (i = 0; i < PAGES; i++)
		p[i * 4096] = 1;
}

/* Instructions for a page, touched first and unmapped last; @id 0: anonymous. */
static void per_page(int id, long *fault, long *unmap)
{
	uint64_t start;
	long took;
	int round;
	char *p;

	*fault = *unmap = LONG_MAX;
	for (round = 0; round < ROUNDS; round++) {
		p = id ? epk_device_map(&dev, id, BYTES) : anonymous();
		REQUIRE(p != MAP_FAILED);
		if (id)
			epk_device_enter(&dev, id);
		start = now();
		touch(p);
		took = (now() - start) / PAGES;
		*fault = took < *fault ? took : *fault;
		start = now();
		if (id)
			epk_device_unmap(&dev, p, BYTES);
		else
			munmap(p, BYTES);
		took = (now() - start) / PAGES;
		*unmap = took < *unmap ? took : *unmap;
	}
}

/* Linux switches them off for anonymous memory where there is little RAM. */
static void anonymous_huge_pages(void)
{
	int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY);

	REQUIRE(fd >= 0 && write(fd, "always", 6) == 6);
	close(fd);
}

/* Instructions for the first touch of 2 MiB; @id 0: anonymous. */
static long per_huge_touch(int id)
{
	long least = LONG_MAX, took;
	uint64_t start;
	int round;
	char *p, *at;

	for (round = 0; round < ROUNDS; round++) {
		p = id ? epk_device_map(&dev, id, 2 * HUGE) :
			 mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		REQUIRE(p != MAP_FAILED);
		at = (char *)(((uintptr_t)p + HUGE - 1) & -HUGE);
		if (id)
			epk_device_enter(&dev, id);
		start = now();
		*at = 1;
		took = now() - start;
		least = took < least ? took : least;
		if (id)
			epk_device_unmap(&dev, p, 2 * HUGE);
		else
			munmap(p, 2 * HUGE);
	}
	return least;
}

static long per_move(int id)
{
	long least = LONG_MAX, took;
	uint64_t start;
	int round;
	char *p;

	p = epk_device_map(&dev, id, BYTES);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	touch(p);
	for (round = 0; round < ROUNDS; round++) {
		unsigned int from = epk_device_entry(&dev, id).ept;
		struct epk_move move = { .id = id, .ept = from == 3 ? 4 : 3 };

		start = now();
		CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
		took = now() - start;
		CHECK(epk_device_entry(&dev, id).ept != from);
		least = took < least ? took : least;
	}
	epk_device_enter(&dev, id);
	CHECK_EQ(p[0] + p[BYTES - 4096], 2);
	epk_device_enter(&dev, 0);
	epk_device_unmap(&dev, p, BYTES);
	return least;
}

/* Threads that hold a domain, and sleep. */
#define HOLDERS		16

static pthread_barrier_t held, let_go;

static void *holder(void *id)
{
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) == 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(*(int *)id, PROT_READ | PROT_WRITE)), 0);
	pthread_barrier_wait(&held);
	pthread_barrier_wait(&let_go);
	return NULL;
}

static void place(int id, unsigned int ept, unsigned int pkey)
{
	struct epk_move move = { .id = id, .ept = ept, .pkey = pkey };

	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
}

/* Instructions to move a page that so many threads hold. */
static long per_page_move(int id, unsigned int holders)
{
	long least = LONG_MAX, took;
	pthread_t threads[HOLDERS];
	uint64_t start;
	struct epk_move move;
	unsigned int i;
	int round, ret;

	pthread_barrier_init(&held, NULL, holders + 1);
	pthread_barrier_init(&let_go, NULL, holders + 1);
	for (i = 0; i < holders; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, holder, &id));
	pthread_barrier_wait(&held);
	/* They fall asleep. */
	usleep(1000);
	for (round = 0; round < ROUNDS; round++) {
		move = (struct epk_move) { .id = id, .ept = 3 + round % 2, .pkey = 5 };
		start = now();
		ret = epk_device_moves(&dev, 1, &move);
		took = now() - start;
		CHECK_EQ(ret, 0);
		least = took < least ? took : least;
	}
	pthread_barrier_wait(&let_go);
	for (i = 0; i < holders; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&held);
	pthread_barrier_destroy(&let_go);
	return least;
}

/**
 * struct across - two domains in two EPTs, one held while the other is used
 * @ids: the domains
 * @same_key: their keys are the same
 * @access: instructions for the first access to what is held elsewhere
 * @round: for begin, access and end of the other, and that
 */
struct across {
	int ids[2];
	bool same_key;
	long access, round;
};

static void begin(int id)
{
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ | PROT_WRITE)), 0);
}

static void *use_across(void *arg)
{
	struct across *a = arg;
	volatile char *mem[2];
	uint64_t start, access;
	int i, round, ret;
	long took;

	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) == 0);
	for (i = 0; i < 2; i++) {
		mem[i] = epk_device_map(&dev, a->ids[i], 4096);
		REQUIRE(mem[i] != MAP_FAILED);
	}
	a->access = a->round = LONG_MAX;
	for (round = 0; round < ROUNDS; round++) {
		place(a->ids[0], 3, 5);
		place(a->ids[1], 4, a->same_key ? 5 : 6);
		begin(a->ids[0]);
		*mem[0] = 1;
		start = now();
		ret = ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(a->ids[1], PROT_READ | PROT_WRITE));
		*mem[1] = 1;
		/* As the library ends what is open where the thread is. */
		epk_wrpkru(epk_rdpkru() | 3u << 2 * (a->same_key ? 5 : 6));
		access = now();
		*mem[0] = 1;
		took = now() - access;
		a->access = took < a->access ? took : a->access;
		took = now() - start;
		a->round = took < a->round ? took : a->round;
		CHECK_EQ(ret, 0);
		/* It has come to where the domain is. */
		CHECK_EQ(dev.identity->ept, 3);
		CHECK_EQ(ioctl(dev.fd, EPK_IOC_END, (long)a->ids[0]), 0);
	}
	for (i = 0; i < 2; i++)
		epk_device_unmap(&dev, (void *)mem[i], 4096);
	return NULL;
}

static void across(int x, int y)
{
	struct across other = { .ids = { x, y } }, same = { .ids = { x, y }, .same_key = true };
	pthread_t thread;

	REQUIRE(!pthread_create(&thread, NULL, use_across, &other) && !pthread_join(thread, NULL));
	REQUIRE(!pthread_create(&thread, NULL, use_across, &same) && !pthread_join(thread, NULL));
	row(ACCESS, other.access, "-", 0, 1400);
	row("the same, by the same key", same.access, ACCESS, 0, 1400);
	row("begin, access, end beside it, and that", other.round, ACCESS, 0, 2100);
}

#define KEYS	15

/* In turn each of a full EPT's domains makes room for one of another: instructions for each. */
static long per_room(void)
{
	int ids[2 * KEYS], i, n, round, outside[KEYS];
	struct epk_move move;
	struct epk_moves arg = { .num = 1, .flags = EPK_MOVES_ADMIT, .moves = (uintptr_t)&move };
	long least = LONG_MAX, took;
	char *mem[2 * KEYS];
	uint64_t start;

	REQUIRE(epk_device_alloc(&dev, 2 * KEYS, ids) == 0);
	for (i = 0; i < 2 * KEYS; i++) {
		mem[i] = epk_device_map(&dev, ids[i], 4096);
		REQUIRE(mem[i] != MAP_FAILED);
		CHECK_EQ(epk_device_populate(&dev, mem[i], 4096), 0);
		place(ids[i], 5 + i / KEYS, 1 + i % KEYS);
	}
	for (round = 0; round < 6; round++) {
		for (i = n = 0; i < 2 * KEYS; i++)
			if (n < KEYS && epk_device_entry(&dev, ids[i]).ept == 6)
				outside[n++] = ids[i];
		CHECK_EQ(n, KEYS);
		start = now();
		for (i = 0; i < KEYS; i++) {
			move = (struct epk_move) { .id = outside[i], .ept = 5 };
			CHECK_EQ(ioctl(dev.fd, EPK_IOC_MOVE, &arg), 0);
		}
		took = (now() - start) / KEYS;
		least = took < least ? took : least;
	}
	for (i = 0; i < 2 * KEYS; i++)
		epk_device_unmap(&dev, mem[i], 4096);
	CHECK_EQ(epk_device_free(&dev, 2 * KEYS, ids), 0);
	return least;
}

static void page_moves(int id)
{
	char *p = epk_device_map(&dev, id, 4096);
	long alone, with;

	REQUIRE(p != MAP_FAILED);
	CHECK_EQ(epk_device_populate(&dev, p, 4096), 0);
	alone = per_page_move(id, 0);
	with = per_page_move(id, HOLDERS);
	row("move of a page", alone, "-", 0, 4000);
	row("the same, for each thread that holds it", (with - alone) / HOLDERS, "move of a page", 0, 350);
	row("a place in a full EPT", per_room(), "move of a page", 0, 13000);
	epk_device_unmap(&dev, p, 4096);
}

/* What libmpk does to give a key to other memory: close one range, open another. */
static long per_two_protects(int pkey)
{
	long least = LONG_MAX, took;
	char *a = anonymous(), *b = anonymous();
	uint64_t start;
	int round;

	touch(a);
	touch(b);
	for (round = 0; round < ROUNDS; round++) {
		char *out = round % 2 ? a : b, *in = round % 2 ? b : a;

		start = now();
		CHECK_EQ(pkey_mprotect(out, BYTES, PROT_NONE, 0), 0);
		CHECK_EQ(pkey_mprotect(in, BYTES, PROT_READ | PROT_WRITE, pkey), 0);
		took = now() - start;
		least = took < least ? took : least;
	}
	munmap(a, BYTES);
	munmap(b, BYTES);
	return least;
}

/* What switching between two threads takes without the module. */
static long without_module(void)
{
	int fd = open(MODULE, O_RDONLY);
	long took;

	if (fd < 0)
		EPK_SKIP("no " MODULE);
	REQUIRE(syscall(SYS_delete_module, "epk", O_NONBLOCK) == 0);
	took = switching(0, 0);
	REQUIRE(syscall(SYS_finit_module, fd, "", 0) == 0);
	close(fd);
	return took;
}

int main(void)
{
	long without, fault[2], unmap[2], moved, protects;
	cpu_set_t set;
	int id, beside;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	REQUIRE(sched_setaffinity(0, sizeof(set), &set) == 0);
	epk_try_init();
	without = switching(0, 0);
	without = without_module();
	figure(UNLOADED, "-", without);
	row("20 thread switches, no EPK", switching(0, 0), UNLOADED, without,
	    without + 20 * SWITCHES);

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	CHECK_EQ(epk_device_move(&dev, id, 4), 0);
	CHECK_EQ(epk_device_move(&dev, id, 3), 0);
	row("20 thread switches, each in another EPT", switching(3, 4), UNLOADED,
	    without, without + 120 * SWITCHES);

	per_page(0, &fault[0], &unmap[0]);
	per_page(id, &fault[1], &unmap[1]);
	figure(TOUCH, "-", fault[0]);
	figure(UNMAP, "-", unmap[0]);
	row("first touch of a domain page", fault[1], TOUCH, fault[0], fault[0] * 1.2);
	row("munmap of a domain page", unmap[1], UNMAP, unmap[0], unmap[0] * 1.2);

	anonymous_huge_pages();
	fault[0] = per_huge_touch(0);
	figure(TOUCH_HUGE, "-", fault[0]);
	row("first touch of 2 MiB of a domain", per_huge_touch(id), TOUCH_HUGE, fault[0],
	    fault[0] * 1.2);

	moved = per_move(id);
	protects = per_two_protects(epk_device_entry(&dev, id).pkey);
	figure(PROTECTS, "-", protects);
	row("move of 256 pages", moved, PROTECTS, protects, 60000);
	CHECK(moved <= protects / 3);
	page_moves(id);
	REQUIRE(epk_device_alloc(&dev, 1, &beside) == 0);
	across(id, beside);
	return epk_test_result();
}
