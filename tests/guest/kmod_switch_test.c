// SPDX-License-Identifier: MIT
/*
 * Registered threads, each in an EPT of its own, are preempted, give way, sleep
 * and migrate: each always finds itself in its EPT, and a thread that comes in
 * between always finds itself in EPT 0.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>
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
			if (round % 30 == 2)
				nanosleep(&pause, NULL);
		}
		CHECK_EQ(dev.identity->ept, ept);
	}
	epk_device_enter(&dev, 0);
	__atomic_fetch_sub(&workers_left, 1, __ATOMIC_RELAXED);
	return NULL;
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

	after = epk_device_stats(&dev);
	printf("%d CPUs, %ld wakes, %ld migrations, %llu switches out of an EPT\n", nr_cpus,
	       wakes, migrations, (unsigned long long)(after.rescues - before.rescues));
	/* Otherwise the checks above saw nothing. */
	CHECK(wakes > 10);
	CHECK(after.rescues - before.rescues > 100);
	return epk_test_result();
}
