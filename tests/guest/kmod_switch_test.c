// SPDX-License-Identifier: MIT
/*
 * Registered threads, each in an EPT of its own, are preempted, give way, sleep
 * and migrate: each always finds itself in its EPT, and a thread that comes in
 * between always finds itself in EPT 0.  Keys that were closed once can be opened
 * again, and are closed only where their domain was.
 */
#include "epk_test.h"
#include "owner.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>

#define NR_WORKERS	4
#define NR_PKEYS	15
#define ROUNDS		300
#define WAKE_NSEC	500000

static struct epk_device dev;
static int ids[(NR_WORKERS + 1) * NR_PKEYS];
static int nr_cpus;
static volatile int workers_left = NR_WORKERS;
static volatile long wakes, migrations;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* Wakes up at a real-time priority, which preempts whatever runs. */
static void *preemptor(void *arg)
{
	struct sched_param param = { .sched_priority = 1 };
	struct timespec pause = { .tv_nsec = WAKE_NSEC };

	pin((long)arg);
	CHECK_EQ(sched_setscheduler(0, SCHED_FIFO, &param), 0);
	while (workers_left) {
		nanosleep(&pause, NULL);
		CHECK_EQ(dev.identity->ept, 0);
		__atomic_fetch_add(&wakes, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void work(volatile uint64_t *page, unsigned int ept, unsigned int round)
{
	unsigned int i;

	/* Long enough to be preempted in the middle. */
	for (i = 0; i < 5000; i++) {
		page[i % 512] = round * 5000ul + i;
		if (dev.identity->ept != ept || page[i % 512] != round * 5000ul + i)
			break;
	}
	CHECK_EQ(i, 5000);
}

static void *worker(void *arg)
{
	long number = (long)arg;
	int id = ids[(number + 1) * NR_PKEYS];
	unsigned int ept = dev.table[EPK_ID_INDEX(id)].ept, round;
	struct timespec pause = { .tv_nsec = 100000 };
	volatile uint64_t *page = epk_device_map(&dev, id, 4096);

	REQUIRE(page != MAP_FAILED);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_device_enter(&dev, id);
	for (round = 0; round < ROUNDS; round++) {
		work(page, ept, round);
		switch (round % 3) {
		case 0:
			sched_yield();
			break;
		case 1:
			if (nr_cpus > 1) {
				pin((round / 3 + number) % nr_cpus);
				__atomic_fetch_add(&migrations, 1, __ATOMIC_RELAXED);
			}
			break;
		default:
			if (round % 30 != 2)
				break;
			nanosleep(&pause, NULL);
			CHECK_EQ(dev.identity->ept, ept);
			/* Where it was before it left is not where it comes back. */
			epk_device_enter(&dev, 0);
			nanosleep(&pause, NULL);
			CHECK_EQ(dev.identity->ept, 0);
			epk_device_enter(&dev, id);
		}
		CHECK_EQ(dev.identity->ept, ept);
	}
	epk_device_enter(&dev, 0);
	__atomic_fetch_sub(&workers_left, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* Another domain comes to the place of one that this thread held. */
static struct epk_entry change_places(int *one, int *other)
{
	struct epk_entry place = epk_device_entry(&dev, *one);
	struct epk_move list[2] = {
		{ .id = *one, .ept = 20 },
		{ .id = *other, .ept = place.ept, .pkey = place.pkey },
	};
	int id = *one;

	CHECK_EQ(epk_device_moves(&dev, 2, list), 0);
	*one = *other;
	*other = id;
	return place;
}

static void *younger(void *arg)
{
	struct timespec pause = { .tv_nsec = 100000 };
	int id = *(int *)arg;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_device_enter(&dev, id);
	nanosleep(&pause, NULL);
	CHECK_EQ(epk_rdpkru(), EPK_PKRU_ALLOW(epk_device_entry(&dev, id).pkey));
	/* Or it would be closed in the thread that is still exiting. */
	epk_device_enter(&dev, 0);
	return NULL;
}

/* A key is closed once, and not in threads that came to the place after that. */
static void granted_again(int *one, int *other)
{
	struct timespec pause = { .tv_nsec = 100000 };
	struct epk_entry place;
	pthread_t thread;

	epk_device_enter(&dev, *one);
	place = change_places(one, other);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	epk_device_enter(&dev, *one);
	nanosleep(&pause, NULL);
	CHECK_EQ(dev.identity->ept, place.ept);
	CHECK_EQ(epk_rdpkru(), EPK_PKRU_ALLOW(place.pkey));
	epk_device_enter(&dev, 0);
	CHECK_EQ(pthread_create(&thread, NULL, younger, one), 0);
	pthread_join(thread, NULL);
}

/* Beside a place that changes hands, everything stays; so does its new owner. */
static void not_closed(int *one, int *other, int neighbour)
{
	uint32_t key = EPK_PKRU_ALLOW(epk_device_entry(&dev, neighbour).pkey);
	struct epk_stats stats = epk_device_stats(&dev);
	int far[2];

	CHECK_EQ(epk_device_entry(&dev, neighbour).ept, epk_device_entry(&dev, *one).ept);
	epk_device_enter(&dev, neighbour);
	change_places(one, other);
	CHECK_EQ(epk_rdpkru(), key);
	CHECK_EQ(epk_device_stats(&dev).revocations, stats.revocations);

	/* Another place changes hands later. */
	epk_device_enter(&dev, *one);
	key = epk_rdpkru();
	REQUIRE(epk_device_alloc(&dev, 2, far) == 0);
	CHECK_EQ(epk_device_move(&dev, far[0], 30), 0);
	CHECK_EQ(epk_device_move(&dev, far[1], 31), 0);
	change_places(&far[0], &far[1]);
	CHECK_EQ(epk_rdpkru(), key);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_free(&dev, 2, far), 0);
}

/* The place of a domain that was freed goes to the next: its EPT has no other. */
static void given_by_alloc(int *id)
{
	struct epk_entry place = epk_device_entry(&dev, *id);
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_AT(place.ept) };

	arg.ids = (uintptr_t)id;
	epk_device_enter(&dev, *id);
	CHECK_EQ(epk_device_free(&dev, 1, id), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), 0);
	CHECK_EQ(epk_device_entry(&dev, *id).ept, place.ept);
	CHECK_EQ(epk_device_entry(&dev, *id).pkey, place.pkey);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	epk_device_enter(&dev, 0);
}

/* After a change of keys no TLB knows the old one.  (VMFUNC empties the emulator's.) */
static void no_old_translation(void)
{
	struct epk_move move = { .ept = 40, .pkey = 2 };
	volatile char *p;
	int id;

	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	move.id = id;
	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
	p = epk_device_map(&dev, id, 4096);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	*p = 1;
	move.pkey = 3;
	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
	/* The key was closed; what it opened is not there any more either. */
	CHECK_EQ(epk_rdpkru(), EPK_PKRU_DENY_ALL);
	epk_wrpkru(EPK_PKRU_ALLOW(2));
	CHECK_EQ(EPK_TRY((void)*p), SIGSEGV);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
}

/* The keys of a process without domains are its own.  Seen with two CPUs. */
static void other_process(int *one, int *other)
{
	int *stop = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status, i;
	pid_t pid;

	REQUIRE(stop != MAP_FAILED);
	pid = fork();
	if (!pid) {
		pin(nr_cpus - 1);
		epk_wrpkru(0);
		__atomic_store_n(&stop[1], 1, __ATOMIC_SEQ_CST);
		while (!__atomic_load_n(stop, __ATOMIC_SEQ_CST))
			;
		_exit(epk_rdpkru() != 0);
	}
	while (!__atomic_load_n(&stop[1], __ATOMIC_SEQ_CST))
		sched_yield();
	for (i = 0; i < 20; i++) {
		epk_device_enter(&dev, *one);
		change_places(one, other);
	}
	epk_device_enter(&dev, 0);
	__atomic_store_n(stop, 1, __ATOMIC_SEQ_CST);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	munmap(stop, 4096);
}

/* A thread sleeps in an EPT of another process, which ends: it comes back in EPT 0. */
static volatile int guest_there;

static void *guest(void *arg)
{
	struct sched_param param = { .sched_priority = 1 };
	int *from = arg;
	char c;

	pin(0);
	/* So that nobody comes between the thread that wakes it and this one. */
	CHECK_EQ(sched_setscheduler(0, SCHED_FIFO, &param), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_vmfunc(FAR_EPT);
	guest_there = 1;
	CHECK_EQ(read(from[0], &c, 1), 1);
	CHECK_EQ(dev.identity->ept, 0);
	guest_there = 0;
	return NULL;
}

static void host_goes(int id)
{
	struct owner owner;
	pthread_t thread;
	int to_guest[2];

	REQUIRE(pipe(to_guest) == 0);
	owner_start(&owner, FAR_EPT);
	CHECK_EQ(pthread_create(&thread, NULL, guest, to_guest), 0);
	while (!guest_there)
		sched_yield();
	owner_ends(&owner);
	/* This thread is in an EPT when the guest follows it on the same CPU. */
	pin(0);
	epk_device_enter(&dev, id);
	CHECK_EQ(write(to_guest[1], "", 1), 1);
	while (guest_there)
		;
	epk_device_enter(&dev, 0);
	pthread_join(thread, NULL);
}

int main(void)
{
	pthread_t preemptors[8], workers[NR_WORKERS];
	struct epk_stats before, after;
	cpu_set_t set;
	long i;

	epk_device_open(&dev);
	REQUIRE(epk_device_alloc(&dev, (NR_WORKERS + 1) * NR_PKEYS, ids) == 0);
	for (i = 0; i < NR_WORKERS; i++)
		CHECK_EQ(dev.table[EPK_ID_INDEX(ids[(i + 1) * NR_PKEYS])].ept, i + 1);
	CHECK_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
	nr_cpus = CPU_COUNT(&set) < 8 ? CPU_COUNT(&set) : 8;
	before = epk_device_stats(&dev);

	for (i = 0; i < NR_WORKERS; i++)
		CHECK_EQ(pthread_create(&workers[i], NULL, worker, (void *)i), 0);
	for (i = 0; i < nr_cpus; i++)
		CHECK_EQ(pthread_create(&preemptors[i], NULL, preemptor, (void *)i), 0);
	for (i = 0; i < NR_WORKERS; i++)
		pthread_join(workers[i], NULL);
	for (i = 0; i < nr_cpus; i++)
		pthread_join(preemptors[i], NULL);

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	granted_again(&ids[NR_PKEYS], &ids[2 * NR_PKEYS]);
	not_closed(&ids[NR_PKEYS], &ids[2 * NR_PKEYS], ids[NR_PKEYS + 1]);
	given_by_alloc(&ids[NR_PKEYS + 2]);
	no_old_translation();
	other_process(&ids[0], &ids[2 * NR_PKEYS]);
	host_goes(ids[NR_PKEYS]);

	after = epk_device_stats(&dev);
	printf("%d CPUs, %ld wakes, %ld migrations, %llu switches out of an EPT\n", nr_cpus,
	       wakes, migrations, (unsigned long long)(after.rescues - before.rescues));
	/* Otherwise the checks above saw nothing. */
	CHECK(wakes > 10);
	CHECK(after.rescues - before.rescues > 100);
	return epk_test_result();
}
