// SPDX-License-Identifier: MIT
/*
 * Threads begin, use and end domains while another moves these: from EPT to EPT, out of all, one
 * for the other.  Nobody loses what it holds, holds what it has ended, or reaches anything else.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/ioctl.h>

#include "unit.h"

#include "state_page.h"

#define NR		24
#define ROUNDS		1500

static int ids[NR];
static volatile uint64_t *mem[NR];
static int stop;
static unsigned int seed = 1;
static char ignored;

static unsigned int dice(unsigned int sides)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % sides;
}

/* What cannot be moved there stays. */
static void *mover(void *arg)
{
	unsigned int epts;
	int ept = 0;

	(void)arg;
	/* As many as there are, if fewer. */
	REQUIRE(!epk_domain_place(ids[NR - 1], &ept, NULL) || ept <= 0);
	epts = ept > 0 ? 3 : 1;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		struct epk_move list[2] = {
			{ .id = ids[dice(NR)], .ept = dice(2) ? EPK_EPT_NONE : dice(epts) },
			{ .id = ids[dice(NR)], .ept = dice(2) ? EPK_EPT_ANY : dice(epts) },
		};
		struct epk_moves arg = { .num = 1 + dice(2), .moves = (uintptr_t)list };

		ioctl(epk_now.fd, EPK_IOC_MOVE, &arg);
		if (!dice(8))
			sched_yield();
	}
	return NULL;
}

static void set_up(pthread_t *thread)
{
	int i;

	REQUIRE(!alloc_domains(NR, ids));
	for (i = 0; i < NR; i++) {
		mem[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		REQUIRE(mem[i] != MAP_FAILED);
	}
	REQUIRE(!pthread_create(thread, NULL, mover, NULL));
}

static void finish(pthread_t thread)
{
	int i;

	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	REQUIRE(!pthread_join(thread, NULL));
	REQUIRE(!epk_held(NULL, 0));
	for (i = 0; i < NR; i++)
		REQUIRE(!try_read((char *)mem[i], &ignored));
}

static void one_at_a_time(void)
{
	uint64_t sums[NR] = { 0 };
	pthread_t thread;
	int i, round;

	set_up(&thread);
	for (round = 0; round < ROUNDS; round++) {
		i = round % NR;
		REQUIRE(!domain_begin(ids[i], RW));
		REQUIRE(*mem[i] == sums[i]);
		*mem[i] = sums[i] = round;
		REQUIRE(*mem[i] == sums[i]);
		REQUIRE(!domain_end(ids[i]));
		REQUIRE(domain_end(ids[i]) == -EACCES);
		if (round % 64 == 0) {
			REQUIRE(!try_read((char *)mem[i], &ignored));
			sched_yield();
		}
	}
	finish(thread);
}

/* Two, three, and all of them, ended in another order than begun. */
static void several(void)
{
	pthread_t thread;
	int i, n, round;

	set_up(&thread);
	for (round = 0; round < ROUNDS / 10; round++) {
		n = round % 10 ? 2 + round % 3 : NR;
		for (i = 0; i < n; i++) {
			REQUIRE(!domain_begin(ids[(round + i) % NR], RW));
			*mem[(round + i) % NR] = round + i;
		}
		for (i = 0; i < n; i++) {
			REQUIRE(domain_begin(ids[(round + i) % NR], RW) == -EALREADY);
			REQUIRE(*mem[(round + i) % NR] == (uint64_t)round + i);
		}
		REQUIRE(epk_held(NULL, 0) == n);
		for (i = 0; i < n; i++)
			REQUIRE(!domain_end(ids[(round + (i * 5 + 1) % n) % NR]) ||
				!domain_end(ids[(round + i) % NR]));
		for (i = 0; i < n; i++)
			domain_end(ids[(round + i) % NR]);
		REQUIRE(!epk_held(NULL, 0));
	}
	finish(thread);
}

/* What is held to be read only stays so. */
static void only_reads(void)
{
	pthread_t thread;
	int round;

	set_up(&thread);
	for (round = 0; round < ROUNDS / 10; round++) {
		REQUIRE(!domain_begin(ids[0], PROT_READ));
		REQUIRE(!domain_begin(ids[1], RW));
		REQUIRE(!*mem[0]);
		*mem[1] = round;
		REQUIRE(epk_held_prot(ids[0]) == PROT_READ && epk_held_prot(ids[1]) == RW);
		REQUIRE(!domain_end(ids[1]));
		REQUIRE(!*mem[0]);
		if (round % 16 == 0)
			REQUIRE(!try_write((char *)mem[0], 1));
		REQUIRE(!domain_end(ids[0]));
	}
	finish(thread);
}

IN_CHILD(one_at_a_time)
IN_CHILD(several)
IN_CHILD(only_reads)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_child_one_at_a_time),
		cmocka_unit_test(in_child_several),
		cmocka_unit_test(in_child_only_reads),
	};

	skip_if(!backend_is("epk"), "has no module that moves domains");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
