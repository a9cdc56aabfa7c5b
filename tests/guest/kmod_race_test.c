// SPDX-License-Identifier: MIT
/*
 * Threads that allocate, free, map, unmap, protect, move and touch the same
 * domains in any order.  Whatever each call answers, nothing is left behind
 * and a fresh page is always zero.  Argument: seed; default 1.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>

#define NR_THREADS	4
#define NR_IDS		64
#define NR_AREAS	64
#define STEPS		1500
#define AREA_PAGES	4

static struct epk_device dev;
static int ids[NR_IDS];
static char *areas;
static long seed = 1;

static unsigned int rnd(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state >> 33;
}

static void step(uint64_t *state)
{
	unsigned int slot = rnd(state) % NR_IDS, num = 1 + rnd(state) % 3;
	char *area = areas + rnd(state) % NR_AREAS * AREA_PAGES * 4096;
	char *page = area + rnd(state) % AREA_PAGES * 4096;
	int got[3];

	switch (rnd(state) % 8) {
	case 0:
		if (slot + num <= NR_IDS && !epk_device_alloc(&dev, num, got))
			memcpy(ids + slot, got, num * sizeof(int));
		break;
	case 1:
		epk_device_free(&dev, 1, &ids[slot]);
		break;
	case 2:
	case 3:
		mmap(area, AREA_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		     dev.fd, EPK_MMAP_DOMAIN(ids[slot]));
		break;
	case 4:
		/* PROT_NONE memory instead, so that nobody else maps there. */
		mmap(page, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	case 5:
		mprotect(page, 4096, rnd(state) % 2 ? PROT_READ : PROT_READ | PROT_WRITE);
		break;
	case 6:
		mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
		       areas + rnd(state) % NR_AREAS * AREA_PAGES * 4096);
		break;
	default:
		epk_device_enter(&dev, ids[slot]);
		EPK_TRY({
			volatile uint64_t *words = (void *)page;

			/* Zero, or what a thread wrote here: never another's page. */
			CHECK_EQ(words[0], 0);
			CHECK(!words[256] || words[256] >> 32 == 0x5eed);
			words[256] = 0x5eedull << 32 | rnd(state);
		});
		epk_device_enter(&dev, 0);
	}
}

static void *racer(void *arg)
{
	uint64_t state = seed * 1000 + (long)arg;
	int i;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	for (i = 0; i < STEPS; i++)
		step(&state);
	return NULL;
}

int main(int argc, char *argv[])
{
	pthread_t threads[NR_THREADS];
	struct epk_stats stats;
	unsigned int index;
	long i;

	if (argc > 1)
		seed = atol(argv[1]);
	printf("seed %ld\n", seed);
	epk_device_open(&dev);
	areas = mmap(NULL, NR_AREAS * AREA_PAGES * 4096, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(areas != MAP_FAILED);

	for (i = 0; i < NR_THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, racer, (void *)i), 0);
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);

	CHECK_EQ(munmap(areas, NR_AREAS * AREA_PAGES * 4096), 0);
	stats = epk_device_stats(&dev);
	CHECK_EQ(stats.pages, 0);
	for (index = 1; index < dev.init.max_domains; index++) {
		int id = dev.table[index].id;

		if (id)
			CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	}
	stats = epk_device_stats(&dev);
	CHECK_EQ(stats.domains, 0);
	CHECK_EQ(stats.epts, 0);
	return epk_test_result();
}
