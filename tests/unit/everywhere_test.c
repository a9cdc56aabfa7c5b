// SPDX-License-Identifier: MIT
/* epk_alloc_everywhere(): beside whatever else is held, and no further than any domain. */
#define _GNU_SOURCE
#include "unit.h"

#include <signal.h>

#include "state_page.h"

#define NR	100
#define PAGES	3

static int all, ids[NR];
static char *mem, *others[NR];

static int set_up(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_alloc_everywhere(1, &all), 0);
	mem = new_pages(all, PAGES);
	fill_domains(NR, ids, others, 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	REQUIRE_EQ(free_domains(NR, ids), 0);
	return all ? free_domains(1, &all) : 0;
}

static bool in_epts(void)
{
	return backend_is("epk");
}

/* What @addr is to the thread as it is: RW, PROT_READ or nothing. */
static int may(volatile char *addr)
{
	char was;

	if (!try_read(addr, &was))
		return PROT_NONE;
	return try_write(addr, was) ? RW : PROT_READ;
}

static int nothing(void)
{
	return backend_protects() ? PROT_NONE : RW;
}

static int reading(void)
{
	return backend_protects() ? PROT_READ : RW;
}

static uint64_t switches(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	REQUIRE_EQ(epk_counts(&counts), 0);
	return counts.ept_switches;
}

static int place_of(int id)
{
	int ept = -7;

	REQUIRE_EQ(epk_domain_place(id, &ept, NULL), 0);
	return ept;
}

/* Each of the others is open when it is begun, in whatever EPT. */
static void beside_each(void **state)
{
	uint64_t before;
	int i, k;

	(void)state;
	for (i = 0; i < NR; i++) {
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		before = switches();
		REQUIRE_EQ(may(mem), nothing());
		REQUIRE_EQ(domain_begin(all, i % 2 ? RW : PROT_READ), 0);
		for (k = 0; k < PAGES; k++)
			REQUIRE_EQ(may(mem + k * PAGE), i % 2 ? RW : reading());
		REQUIRE_EQ(epk_held_prot(all), i % 2 ? RW : PROT_READ);
		REQUIRE_EQ(epk_held(NULL, 0), 2);
		REQUIRE_EQ(others[i][0], i + 1);
		REQUIRE_EQ(domain_end(all), 0);
		REQUIRE_EQ(may(mem + PAGE), nothing());
		REQUIRE_EQ(may(others[i]), RW);
		REQUIRE_EQ(switches(), before);
		REQUIRE_EQ(domain_end(ids[i]), 0);
		REQUIRE_EQ(may(mem), nothing());
		if (in_epts())
			REQUIRE_EQ(place_of(all), EPK_EVERYWHERE);
	}
}

/* It goes along to each EPT, and is there what it was. */
static void held_by_who_goes(void **state)
{
	int i, prot;

	(void)state;
	for (prot = PROT_READ; prot <= RW; prot += RW - PROT_READ) {
		REQUIRE_EQ(domain_begin(all, prot), 0);
		for (i = 0; i < NR; i++) {
			REQUIRE_EQ(domain_begin(ids[i], PROT_READ), 0);
			REQUIRE_EQ(may(mem), prot == RW ? RW : reading());
			REQUIRE_EQ(others[i][0], i + 1);
			REQUIRE_EQ(domain_end(ids[i]), 0);
		}
		REQUIRE_EQ(domain_begin(ids[40], PROT_READ), 0);
		REQUIRE_EQ(domain_begin(ids[90], PROT_READ), 0);
		REQUIRE_EQ(may(mem), prot == RW ? RW : reading());
		REQUIRE_EQ(others[40][0] + others[90][0], 41 + 91);
		REQUIRE_EQ(domain_end(all), 0);
		REQUIRE_EQ(may(mem), nothing());
		REQUIRE_EQ(others[40][0] + others[90][0], 41 + 91);
		REQUIRE_EQ(domain_end(ids[40]), 0);
		REQUIRE_EQ(domain_end(ids[90]), 0);
	}
}

/* Those that had the key come back with what they have, whoever holds them. */
static void made_later(void **state)
{
	int later[3], i, k;
	char *pages[3];

	(void)state;
	REQUIRE_EQ(domain_begin(ids[7], RW), 0);
	REQUIRE_EQ(epk_alloc_everywhere(3, later), 0);
	REQUIRE_EQ(may(others[7]), RW);
	for (k = 0; k < 3; k++)
		pages[k] = new_pages(later[k], 1);
	for (i = 0; i < NR; i++) {
		REQUIRE_EQ(domain_begin(ids[i], PROT_READ), i == 7 ? -EALREADY : 0);
		for (k = 0; k < 3; k++)
			REQUIRE_EQ(may(pages[k]), nothing());
		REQUIRE_EQ(domain_begin(later[i % 3], RW), 0);
		REQUIRE_EQ(may(pages[i % 3]), RW);
		REQUIRE_EQ(may(pages[(i + 1) % 3]), nothing());
		REQUIRE_EQ(domain_end(later[i % 3]), 0);
		REQUIRE_EQ(others[i][0], i + 1);
		if (i != 7)
			REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(domain_end(ids[7]), 0);
	REQUIRE_EQ(free_domains(3, later), 0);
}

static uint64_t domains(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	REQUIRE_EQ(epk_counts(&counts), 0);
	return counts.domains;
}

/* Two keys stay for all others; what fails changes nothing. */
static void as_many_as_can_be(void **state)
{
	int more[16], nr = 0, i, most = __builtin_popcount(epk_now.pkeys) - 2 - 1;
	uint64_t before = domains();

	(void)state;
	if (!in_epts())
		return;
	REQUIRE_EQ(epk_alloc_everywhere(most + 1, more), -ENOSPC);
	REQUIRE_EQ(domains(), before);
	while (nr < 16 && !epk_alloc_everywhere(1, more + nr))
		nr++;
	REQUIRE_EQ(nr, most);
	REQUIRE_EQ(epk_alloc_everywhere(1, more + 15), -ENOSPC);
	for (i = 0; i < NR; i++) {
		REQUIRE_EQ(domain_begin(ids[i], PROT_READ), 0);
		REQUIRE_EQ(domain_begin(more[i % nr], PROT_READ), 0);
		REQUIRE_EQ(others[i][0], i + 1);
		REQUIRE_EQ(domain_end(more[i % nr]), 0);
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(free_domains(nr, more), 0);
	REQUIRE_EQ(epk_alloc_everywhere(most, more), 0);
	REQUIRE_EQ(free_domains(most, more), 0);
}

static int stage;

static void step(int to)
{
	__atomic_store_n(&stage, to, __ATOMIC_RELEASE);
}

static void wait_for(int what)
{
	while (__atomic_load_n(&stage, __ATOMIC_ACQUIRE) < what)
		usleep(500);
}

/* It holds it beside another, far away; and must not hold what has the key next. */
static void *loses_it(void *arg)
{
	char **news = arg;
	int i;

	if (domain_begin(ids[95], PROT_READ) || domain_begin(all, RW) || may(mem) != RW)
		return "begin";
	step(1);
	wait_for(2);
	if (others[95][0] != 96)
		return "what else it holds";
	for (i = 0; i < 16; i++)
		if (may(news[i]) != PROT_NONE)
			return "another's";
	return domain_end(ids[95]) ? "end" : NULL;
}

static void freed_while_held(void **state)
{
	int later[16], i;
	char *news[16];
	pthread_t thread;
	void *wrong;

	(void)state;
	/* Others refuse. */
	if (!in_epts())
		return;
	step(0);
	REQUIRE_EQ(pthread_create(&thread, NULL, loses_it, news), 0);
	wait_for(1);
	REQUIRE_EQ(free_domains(1, &all), 0);
	all = 0;
	/* So many that each EPT that is in use gives its free key. */
	REQUIRE_EQ(epk_alloc_beside(16, later, ids[95]), 0);
	for (i = 0; i < 16; i++)
		news[i] = new_pages(later[i], 1);
	step(2);
	REQUIRE_EQ(pthread_join(thread, &wrong), 0);
	REQUIRE_EQ(free_domains(16, later), 0);
	REQUIRE(!wrong);
}

/* Where it is, each time that it is told. */
static void *uses_what_all_may(void *arg)
{
	(void)arg;
	if (domain_begin(ids[60], PROT_READ) || may(mem) != RW)
		return "given";
	step(1);
	wait_for(2);
	if (may(mem) != PROT_NONE || others[60][0] != 61)
		return "taken";
	step(3);
	wait_for(4);
	if (may(mem + PAGE) != PROT_READ || epk_held_prot(all))
		return "given to read";
	return domain_end(ids[60]) ? "end" : NULL;
}

/* All may, without a begin, wherever they are; and may not any more. */
static void common(void **state)
{
	pthread_t thread;
	void *wrong;

	(void)state;
	if (!in_epts())
		return;
	step(0);
	REQUIRE_EQ(epk_protect(all, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(pthread_create(&thread, NULL, uses_what_all_may, NULL), 0);
	wait_for(1);
	REQUIRE_EQ(domain_begin(ids[20], PROT_READ), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(epk_protect(all, PROT_NONE), 0);
	REQUIRE_EQ(may(mem), PROT_NONE);
	REQUIRE_EQ(domain_end(ids[20]), 0);
	REQUIRE_EQ(may(mem), PROT_NONE);
	step(2);
	wait_for(3);
	REQUIRE_EQ(epk_protect(all, PROT_READ), 0);
	step(4);
	REQUIRE_EQ(pthread_join(thread, &wrong), 0);
	REQUIRE(!wrong);
	REQUIRE_EQ(epk_protect(all, PROT_NONE), 0);
	REQUIRE_EQ(domain_begin(all, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(domain_end(all), 0);
}

static int seen, seen_begun;

static void look_in_handler(int sig)
{
	(void)sig;
	seen = may(mem);
	seen_begun = -1;
	if (domain_begin(ids[3], PROT_READ))
		return;
	if (!domain_begin(all, PROT_READ))
		seen_begun = may(mem);
	domain_end(all);
	domain_end(ids[3]);
}

/* A handler has none of it, begins it anew, and what it interrupts has it again. */
static void in_a_handler(void **state)
{
	int i;

	(void)state;
	/* Elsewhere a handler has what it interrupts has. */
	if (!backend_is_private())
		return;
	signal(SIGUSR1, look_in_handler);
	for (i = 10; i < NR; i += 30) {
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		REQUIRE_EQ(domain_begin(all, RW), 0);
		raise(SIGUSR1);
		REQUIRE_EQ(may(mem), RW);
		REQUIRE_EQ(may(others[i]), RW);
		REQUIRE_EQ(seen, PROT_NONE);
		REQUIRE_EQ(seen_begun, PROT_READ);
		REQUIRE_EQ(domain_end(all), 0);
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
}

static long called(void *arg)
{
	(void)arg;
	return may(mem) | may(others[5]) << 8;
}

static void called_with_it_alone(void **state)
{
	long got = -1;

	(void)state;
	REQUIRE_EQ(domain_begin(ids[5], RW), 0);
	REQUIRE_EQ(epk_call(all, called, NULL, &got), 0);
	REQUIRE_EQ(got, RW | nothing() << 8);
	REQUIRE_EQ(may(mem), nothing());
	REQUIRE_EQ(may(others[5]), RW);
	REQUIRE_EQ(domain_end(ids[5]), 0);
}

static void with_others(void **state)
{
	int list[] = { ids[2], all, ids[70] }, beside, refused[2] = { 5, 6 };

	(void)state;
	REQUIRE_EQ(epk_gather(3, list), 0);
	REQUIRE_EQ(epk_gather(1, &all), 0);
	if (in_epts()) {
		REQUIRE_EQ(place_of(ids[2]), place_of(ids[70]));
		REQUIRE_EQ(place_of(all), EPK_EVERYWHERE);
	}
	REQUIRE_EQ(epk_alloc_beside(1, &beside, all), 0);
	REQUIRE_EQ(free_domains(1, &beside), 0);
	REQUIRE_EQ(epk_alloc_everywhere(0, refused), -EINVAL);
	REQUIRE_EQ(epk_alloc_everywhere(-1, refused), -EINVAL);
	REQUIRE_EQ(epk_alloc_everywhere(1, NULL), -EINVAL);
	REQUIRE_EQ(refused[0], 5);
	REQUIRE_EQ(refused[1], 6);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(beside_each),
		CASE(held_by_who_goes),
		CASE(made_later),
		CASE(as_many_as_can_be),
		CASE(freed_while_held),
		CASE(common),
		CASE(in_a_handler),
		CASE(called_with_it_alone),
		CASE(with_others),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
