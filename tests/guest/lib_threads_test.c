// SPDX-License-Identifier: MIT
/*
 * Threads, more than there are CPUs, each in a domain of its own in one of
 * several EPTs, while they are preempted and moved between CPUs: each reads
 * back what it wrote, and never anything of another's.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <epk.h>

#include "../try.h"

#define THREADS		6
#define SPREAD		14	/* domains between those in use: EPTs differ */
#define PAGE		4096
#define ROUNDS		40

static int ids[THREADS];
static int fillers[THREADS][SPREAD];
static volatile char *mem[THREADS];
static atomic_int failures;
static atomic_ulong moves, preempted;
static int cpus;

static void fail(const char *what, int thread, int round)
{
	if (++failures <= 20)
		printf("thread %d, round %d: %s\n", thread, round, what);
}

static void move_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity", cpu, 0);
	moves++;
}

static unsigned long switches(void)
{
	char line[128];
	unsigned long sum = 0, n;
	FILE *status = fopen("/proc/thread-self/status", "r");

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "%*[a-z]ctxt_switches: %lu", &n) == 1 ||
		    sscanf(line, "voluntary_ctxt_switches: %lu", &n) == 1 ||
		    sscanf(line, "nonvoluntary_ctxt_switches: %lu", &n) == 1)
			sum += n;
	if (status)
		fclose(status);
	return sum;
}

/* With the right held, through yields and migrations: own data and no other. */
static void hold(int me, int round)
{
	int other = (me + 1 + round % (THREADS - 1)) % THREADS;
	char value;
	int i;

	if (domain_begin(ids[me], PROT_READ | PROT_WRITE)) {
		fail("domain_begin", me, round);
		return;
	}
	for (i = 0; i < 8; i++) {
		char sign = (char)(me * 40 + (round + i) % 40);

		mem[me][i] = sign;
		if (i & 1)
			sched_yield();
		if (cpus > 1 && i % 4 == 2)
			move_to((me + round + i / 4) % cpus);
		if (!try_read(mem[me] + i, &value) || value != sign)
			fail("own data", me, round);
		if (try_read(mem[other], &value))
			fail("read another's", me, round);
		else if (try_code != SEGV_PKUERR)
			fail("not SEGV_PKUERR", me, round);
	}
	if (domain_end(ids[me]))
		fail("domain_end", me, round);
	if (try_read(mem[me], &value))
		fail("read after the end", me, round);
}

static void *run(void *arg)
{
	int me = (int)(intptr_t)arg, round;
	unsigned long before = switches();

	for (round = 0; round < ROUNDS; round++)
		hold(me, round);
	preempted += switches() - before;
	return NULL;
}

int main(void)
{
	struct epk_options options = { .size = sizeof(options), .backend = "epk" };
	pthread_t threads[THREADS];
	int i, ept, last = -1;

	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (epk_init(&options)) {
		puts("epk_init failed");
		return 1;
	}
	for (i = 0; i < THREADS; i++) {
		if (alloc_domains(1, &ids[i]) || alloc_domains(SPREAD, fillers[i]))
			return 1;
		mem[i] = domain_mmap(ids[i], NULL, PAGE, PROT_READ | PROT_WRITE, 0);
		if (mem[i] == MAP_FAILED || epk_domain_place(ids[i], &ept, NULL))
			return 1;
		if (ept == last)
			fail("two threads' domains in one EPT", i, ept);
		last = ept;
	}
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, run, (void *)(intptr_t)i))
			return 1;
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);

	printf("%d CPUs, %lu context switches, %lu moves, %d failures\n", cpus, preempted, moves,
	       failures);
	if (preempted < THREADS * ROUNDS)
		fail("too few context switches to mean anything", 0, 0);
	return failures != 0;
}
