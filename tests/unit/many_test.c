// SPDX-License-Identifier: MIT
/* 100,000 domains in one process, and what limits there are. */
#define _GNU_SOURCE
#include <fcntl.h>

#include "unit.h"

#define MANY	100000
#define STEP	10	/* domains that have memory */
#define MAPPED	(MANY / STEP)
/* Indices of 17 bits: one is none, and the backends keep two at most for themselves. */
#define IDS	((1 << 17) - 3)

static int ids[1 << 17], order[MAPPED];
static char *mem[MAPPED], ignored;

/* Fisher and Yates's shuffle; the same order each time. */
static void shuffle(unsigned int seed)
{
	int i, at, saved;

	for (i = 0; i < MAPPED; i++)
		order[i] = i;
	for (i = MAPPED - 1; i > 0; i--) {
		at = rand_r(&seed) % (i + 1);
		saved = order[i];
		order[i] = order[at];
		order[at] = saved;
	}
}

static int set_up(void **state)
{
	int i;

	(void)state;
	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = 0; i < MAPPED; i++)
		mem[i] = new_pages(ids[i * STEP], 1);
	return 0;
}

static int tear_down(void **state)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	(void)state;
	REQUIRE_EQ(free_domains(MANY, ids), 0);
	REQUIRE_EQ(count_epk_mappings(), 0);
	REQUIRE_EQ(epk_counts(&counts), 0);
	REQUIRE_EQ(counts.domains, 0);
	return 0;
}

static void in_random_order(void **state)
{
	int round, n, i;

	(void)state;
	for (round = 0; round < 2; round++) {
		shuffle(round + 1);
		for (n = 0; n < MAPPED; n++) {
			i = order[n];
			REQUIRE_EQ(domain_begin(ids[i * STEP], RW), 0);
			REQUIRE_EQ(*(int *)mem[i], round ? ~i : 0);
			*(int *)mem[i] = ~i;
			REQUIRE_EQ(domain_end(ids[i * STEP]), 0);
		}
	}
	for (n = 0; n < MAPPED && backend_protects(); n += 100)
		REQUIRE(!try_read(mem[n], &ignored));
}

/* Also of those that have no memory. */
static void all_over(void **state)
{
	int i;

	(void)state;
	for (i = 3; i < MANY; i += 37) {
		REQUIRE_EQ(domain_begin(ids[i], PROT_READ), 0);
		REQUIRE_EQ(epk_held_prot(ids[i]), PROT_READ);
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(domain_begin(ids[MANY - 1], RW), 0);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	*mem[0] = 1;
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(domain_end(ids[MANY - 1]), 0);
}

/* The IDs run out before memory does, and that is -ENOSPC. */
static void ids_run_out(void **state)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	(void)state;
	REQUIRE_EQ(alloc_domains(IDS - MANY, ids + MANY), 0);
	REQUIRE_EQ(alloc_domains(3, ids + IDS), -ENOSPC);
	REQUIRE_EQ(epk_counts(&counts), 0);
	REQUIRE_EQ(counts.domains, IDS);
	REQUIRE_EQ(domain_begin(ids[IDS - 1], RW), 0);
	REQUIRE_EQ(domain_end(ids[IDS - 1]), 0);
	REQUIRE_EQ(free_domains(IDS - MANY, ids + MANY), 0);
}

static long max_map_count(long wanted)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", wanted ? "r+" : "r");
	long was = 0;

	if (!file)
		return -1;
	if (fscanf(file, "%ld", &was) != 1)
		was = -1;
	rewind(file);
	if (wanted && (fprintf(file, "%ld\n", wanted) < 0 || fflush(file)))
		was = -1;
	fclose(file);
	return was;
}

/* Each mapping is one of the process's, of which Linux allows 65,530 as it comes. */
static void mappings_run_out(void **state)
{
	int before = count_mappings(), nr = 0, i;
	long was = max_map_count(0);
	char *more[64];

	(void)state;
	if (!backend_is("epk"))
		skip();
	REQUIRE(was > before);
	REQUIRE_EQ(max_map_count(before + 20), was);
	for (i = 1; nr < 64; nr++, i += 2) {
		more[nr] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		if (more[nr] == MAP_FAILED)
			break;
	}
	i = errno;
	REQUIRE_EQ(max_map_count(was), before + 20);
	REQUIRE(nr > 10 && nr < 30);
	REQUIRE_EQ(i, ENOMEM);
	while (nr--)
		REQUIRE_EQ(domain_munmap(more[nr], PAGE), 0);
	REQUIRE_EQ(count_mappings(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_random_order),
		cmocka_unit_test(all_over),
		cmocka_unit_test(ids_run_out),
		cmocka_unit_test(mappings_run_out),
	};

	need_backend();
	skip_if(backend_is("vmfunc"), "has one domain an EPT");
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
