// SPDX-License-Identifier: MIT
/* More domains than there are places for them. */
#define _GNU_SOURCE
#include "lock.h"
#include "unit.h"

#define MANY	8000	/* 512 EPTs of 15 keys are 7,680 places */
#define STEP	8	/* in the cases that need not touch each */

static int ids[MANY];
static char *mem[MANY], ignored;

static int set_up(void **state)
{
	int i;

	(void)state;
	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = 0; i < MANY; i += STEP)
		mem[i] = new_pages(ids[i], 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	REQUIRE_EQ(free_domains(MANY, ids), 0);
	REQUIRE_EQ(count_epk_mappings(), 0);
	return 0;
}

static void places_are_told(void **state)
{
	int without = 0, i, ept, pkey;

	(void)state;
	for (i = 0; i < MANY; i++) {
		REQUIRE_EQ(epk_domain_place(ids[i], &ept, &pkey), 0);
		REQUIRE_IN(pkey, 0, 15);
		without += !pkey;
		if (backend_is("epk"))
			REQUIRE_IN(ept + 1, pkey ? 1 : 0, pkey ? 512 : 0);
		else
			REQUIRE_EQ(ept, 0);
	}
	if (backend_is("epk"))
		REQUIRE(without >= MANY - 7680);
}

static void every_one_can_begin(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < MANY; i++) {
		REQUIRE_EQ(domain_begin(ids[i], PROT_READ), 0);
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
}

static void each_keeps_its_memory(void **state)
{
	int round, i;

	(void)state;
	for (round = 0; round < 2; round++) {
		for (i = 0; i < MANY; i += STEP) {
			REQUIRE_EQ(domain_begin(ids[i], RW), 0);
			if (round)
				REQUIRE_EQ(*(int *)mem[i], i);
			*(int *)mem[i] = i;
			REQUIRE_EQ(domain_end(ids[i]), 0);
		}
	}
	for (i = 0; i < MANY && backend_protects(); i += 16 * STEP)
		REQUIRE(!try_read(mem[i], &ignored));
}

/* What is held stays where it is while others come and go. */
static void held_stays(void **state)
{
	int i;

	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(domain_begin(ids[STEP], RW), 0);
	*(int *)mem[0] = 11;
	for (i = MANY - 1; i > MANY - 500; i--) {
		REQUIRE_EQ(domain_begin(ids[i], PROT_READ), 0);
		REQUIRE_EQ(*(volatile int *)mem[0], 11);
		*(volatile int *)mem[STEP] = i;
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(*(int *)mem[STEP], MANY - 499);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(domain_end(ids[STEP]), 0);
}

/* As in a signal handler that interrupted a call of the library. */
static void no_place_meanwhile(void **state)
{
	int refused = 0, i, err, least = 0, most = 0;

	(void)state;
	/* Under "epk" the kernel does it, with no lock of the library's. */
	if (backend_is("epk"))
		most = 0;
	else if (backend_protects())
		least = MANY - (backend_is("mpk") ? MPK_PLACES : 0), most = MANY;
	REQUIRE_EQ(pthread_mutex_lock(&epk_lock), 0);
	for (i = 0; i < MANY; i++) {
		err = domain_begin(ids[i], PROT_READ);
		refused += err == -EDEADLK;
		if (err != -EDEADLK)
			REQUIRE_EQ(err ? err : domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(pthread_mutex_unlock(&epk_lock), 0);
	REQUIRE_IN(refused, least, most);
	every_one_can_begin(state);
}

static void *sweep(void *arg)
{
	int start = *(int *)arg, n, i;

	for (n = 0; n < 600; n++) {
		i = (start + n * 13 * STEP) % MANY;
		if (domain_begin(ids[i], RW))
			return (void *)1;
		*(volatile int *)(mem[i] + 64 + start) = n;
		if (*(volatile int *)(mem[i] + 64 + start) != n || domain_end(ids[i]))
			return (void *)2;
	}
	return NULL;
}

static void threads_sweep(void **state)
{
	int starts[] = { 0, STEP, 2 * STEP };
	void *const args[] = { &starts[0], &starts[1], &starts[2] };

	(void)state;
	run_threads(sweep, args, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places_are_told),
		cmocka_unit_test(every_one_can_begin),
		cmocka_unit_test(each_keeps_its_memory),
		cmocka_unit_test(held_stays),
		cmocka_unit_test(no_place_meanwhile),
		cmocka_unit_test(threads_sweep),
	};

	need_backend();
	skip_if(backend_is("vmfunc"), "has one domain an EPT");
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
