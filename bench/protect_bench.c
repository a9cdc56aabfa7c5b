// SPDX-License-Identifier: MIT
/*
 * What it takes to change what all threads may do with memory: epk_protect() beside mprotect(2), by
 * threads and by pages.  All threads but the one that does it sleep, and have used the memory.
 *
 * In the emulator the time stamp counter counts instructions, the kernel's own included; the least of many
 * runs is free of interrupts.  Anywhere else the figures are cycles of that machine.
 *
 * protect_bench [BACKEND [limits]]
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <unistd.h>
#include <x86intrin.h>

#include "bench.h"

#define RW	(PROT_READ | PROT_WRITE)
#define PAGE	4096ul
#define RUNS	30
/* From so many pages on mprotect() has to take so many times as much. */
#define PAGES	64
#define TIMES	3

static const unsigned int threads[] = { 1, 2, 8, 64 }, pages[] = { 1, 64, 1024 };
#define NR_THREADS	(sizeof(threads) / sizeof(*threads))
#define NR_PAGES	(sizeof(pages) / sizeof(*pages))

static int id;
static volatile char *plain, *mine;
static size_t bytes;
static sem_t used, again;

static void need(bool well, const char *what, int err)
{
	if (well)
		return;
	fprintf(stderr, "protect_bench: %s: %s\n", what, epk_strerror(err));
	exit(1);
}

static void *use_and_sleep(void *arg)
{
	for (;;) {
		plain[0] = 1;
		mine[0] = 1;
		sem_post(&used);
		sem_wait(&again);
	}
	return arg;
}

static void by_mprotect(int prot)
{
	need(!mprotect((void *)plain, bytes, prot), "mprotect", errno);
}

static void by_epk(int prot)
{
	int err = epk_protect(id, prot);

	need(!err, "epk_protect", err);
}

/* Less, and what it was; perhaps with an access each, as the first after a change may be a fault. */
static uint64_t least(void (*change)(int prot), volatile char *at)
{
	uint64_t best = ~0ull, start, took;
	int i;

	for (i = 0; i < RUNS; i++) {
		start = __rdtsc();
		change(PROT_READ);
		if (at)
			(void)at[0];
		change(RW);
		if (at)
			at[0] = 1;
		took = __rdtsc() - start;
		if (took < best)
			best = took;
	}
	return best;
}

static void have(size_t nr)
{
	size_t n;

	bytes = nr * PAGE;
	plain = mmap(NULL, bytes, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(plain != MAP_FAILED, "mmap", errno);
	madvise((void *)plain, bytes, MADV_NOHUGEPAGE);
	need(!alloc_domains(1, &id), "alloc_domains", ENOSPC);
	mine = domain_mmap(id, NULL, bytes, RW, 0);
	need(mine != MAP_FAILED, "domain_mmap", errno);
	by_epk(RW);
	for (n = 0; n < bytes; n += PAGE)
		plain[n] = mine[n] = 1;
}

static void drop(void)
{
	munmap((void *)plain, bytes);
	free_domains(1, &id);
}

static bool row(unsigned int nr_threads, unsigned int nr_pages)
{
	uint64_t mprotects, protects, touched, touches;
	unsigned int n;

	have(nr_pages);
	for (n = 1; n < nr_threads; n++)
		sem_post(&again);
	for (n = 1; n < nr_threads; n++)
		sem_wait(&used);
	/* They are to be asleep by then. */
	usleep(20000);
	mprotects = least(by_mprotect, NULL);
	protects = least(by_epk, NULL);
	touched = least(by_mprotect, plain);
	touches = least(by_epk, mine);
	printf("protect: %2u threads, %4u pages: mprotect %8lu, epk_protect %6lu; with an access each %8lu, %6lu\n",
	       nr_threads, nr_pages, mprotects, protects, touched, touches);
	drop();
	return nr_pages < PAGES || (mprotects >= TIMES * protects && touched >= TIMES * touches);
}

int main(int argc, char **argv)
{
	bool limits = bench_limits(argc, argv), well = true;
	struct epk_options options = { .size = sizeof(options), .backend = argc > 1 ? argv[1] : NULL };
	unsigned int t, p, n = 1;
	pthread_t thread;
	int err = epk_init(&options);

	need(!err, "epk_init", err);
	sem_init(&used, 0, 0);
	sem_init(&again, 0, 0);
	for (t = 0; t < NR_THREADS; t++) {
		have(1);
		for (; n < threads[t]; n++) {
			need(!pthread_create(&thread, NULL, use_and_sleep, NULL), "pthread_create", EAGAIN);
			sem_wait(&used);
		}
		drop();
		for (p = 0; p < NR_PAGES; p++)
			well &= row(threads[t], pages[p]);
	}
	if (limits && !well)
		fprintf(stderr, "protect_bench: FAIL: mprotect() takes less than %d times as much\n", TIMES);
	return limits && !well;
}
