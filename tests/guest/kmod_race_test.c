// SPDX-License-Identifier: MIT
/*
 * Threads that allocate, free, map, unmap, protect, move, evict, populate and
 * touch the same domains in any order.  Whatever each call answers, nothing is left behind,
 * a fresh page is zero, and no page shows up in two places.  Argument: seed;
 * default 1.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>

#define NR_THREADS	4
#define NR_IDS		32
#define NR_AREAS	16
#define STEPS		3000
#define AREA_PAGES	4
#define ELSEWHERE	((char *)(1ul << 40))

static struct epk_device dev;
static int ids[NR_IDS];
static int area_ids[NR_AREAS];	/* a guess: others remap meanwhile */
static char *areas;
static long seed = 1;

static unsigned int rnd(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state >> 33;
}

/* Other memory instead. */
static void lose(char *page)
{
	epk_device_unmap(&dev, page, 4096);
	mmap(page, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/*
 * Refused only after the kernel moved the page there: where nobody looks meanwhile and nothing
 * else is ever mapped.
 */
static void carry_off(char *page, uint64_t *state)
{
	if (mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
		   ELSEWHERE + rnd(state) % 256 * 4096) == MAP_FAILED)
		return;
	mmap(page, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* Two at once, which may change places. */
static void move_two(int id, uint64_t *state)
{
	struct epk_move list[2] = {
		{ .id = id, .ept = rnd(state) % 4 },
		{ .id = ids[rnd(state) % NR_IDS], .ept = EPK_EPT_ANY },
	};

	epk_device_moves(&dev, 2, list);
}

static void look_into(char *page, int id)
{
	epk_device_enter(&dev, id);
	EPK_TRY({
		volatile uint64_t *words = (void *)page;
		uint64_t owner = words[256];

		/* Zero, or what was written here: memory does not move. */
		CHECK_EQ(words[0], 0);
		if (owner)
			CHECK_EQ(owner, (uintptr_t)page);
		words[256] = (uintptr_t)page;
	});
	epk_device_enter(&dev, 0);
}

static void step(uint64_t *state)
{
	unsigned int slot = rnd(state) % NR_IDS, num = 1 + rnd(state) % 3;
	unsigned int where = rnd(state) % NR_AREAS;
	char *area = areas + where * AREA_PAGES * 4096;
	char *page = area + rnd(state) % AREA_PAGES * 4096;
	struct epk_range range = { (uintptr_t)page, 4096 };
	int got[3];

	switch (rnd(state) % 14) {
	case 0:
		if (slot + num <= NR_IDS && !epk_device_alloc(&dev, num, got))
			memcpy(ids + slot, got, num * sizeof(int));
		break;
	case 1:
		epk_device_free(&dev, 1, &ids[slot]);
		break;
	case 2:
	case 3:
		area_ids[where] = ids[slot];
		epk_device_unmap_pages(&dev, area, AREA_PAGES * 4096);
		mmap(area, AREA_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		     dev.fd, EPK_MMAP_DOMAIN(ids[slot]));
		break;
	case 4:
		lose(page);
		break;
	case 5:
		mprotect(page, 4096, rnd(state) % 2 ? PROT_READ : PROT_READ | PROT_WRITE);
		break;
	case 6:
		carry_off(page, state);
		break;
	case 7:
		epk_device_move(&dev, ids[slot], rnd(state) % 4);
		break;
	case 8:
		epk_device_move(&dev, ids[slot], EPK_EPT_NONE);
		break;
	case 9:
		move_two(ids[slot], state);
		break;
	case 10:
		ioctl(dev.fd, EPK_IOC_POPULATE, &range);
		break;
	default:
		look_into(page, area_ids[where]);
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

	epk_device_unmap_pages(&dev, areas, NR_AREAS * AREA_PAGES * 4096);
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
