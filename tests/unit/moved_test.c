// SPDX-License-Identifier: MIT
/*
 * For a guest that is moved from one VM to another, again and again: domains in all EPTs are
 * written, checked, freed and allocated all the time, and threads hold some of them.  Prints
 * "round N" now and then, or what is wrong.  tests/testbed/init/moved has it run without end,
 * by the number of rounds 0; as a unit test it is not moved and ends soon.
 */
#define _GNU_SOURCE
#include <sched.h>

#include "unit.h"

#define NR_DOMAINS	1000
#define NR_HOLDERS	2
/* That a holder keeps, which the others leave alone; not of EPT 0, and far apart. */
#define HELD(holder)	(300 + 400 * (holder))
/* Freed and allocated again, in each round another. */
#define SOME		40

static int ids[NR_DOMAINS];
static volatile uint64_t *mem[NR_DOMAINS];
static uint64_t written[NR_DOMAINS];
static volatile unsigned long held_for[NR_HOLDERS];
static char ignored;

static void __attribute__((noreturn, format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("WRONG: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	_exit(1);
}

#define MUST(call) do {							\
	int ret_ = (call);						\
	if (ret_)							\
		wrong("%s: %d", #call, ret_);				\
} while (0)

static uint64_t pattern(int i, uint64_t round)
{
	return 0x9e3779b97f4a7c15ull * (i + 1) ^ round << 20;
}

static void check(int i)
{
	uint64_t first = mem[i][0], last = mem[i][PAGE / 8 - 1];

	if (first != written[i] || last != ~written[i])
		wrong("domain %d has %lx and %lx, not %lx", i, first, last, written[i]);
}

static void set(int i, uint64_t round)
{
	written[i] = pattern(i, round);
	mem[i][0] = written[i];
	mem[i][PAGE / 8 - 1] = ~written[i];
}

static void make(int i, uint64_t round)
{
	void *p = domain_mmap(ids[i], NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS);

	if (p == MAP_FAILED)
		wrong("domain_mmap: %d", errno);
	mem[i] = p;
	MUST(domain_begin(ids[i], RW));
	set(i, round);
	MUST(domain_end(ids[i]));
}

/* Holds one domain all the time, in its EPT: wherever a move finds it. */
static void *hold(void *arg)
{
	int holder = (int)(intptr_t)arg, i = HELD(holder), ept, pkey;
	unsigned long n;

	MUST(domain_begin(ids[i], RW));
	MUST(epk_domain_place(ids[i], &ept, &pkey));
	if (!ept && !strcmp(unit_backend(), "epk"))
		wrong("domain %d is in EPT 0", i);
	for (n = 0;; n++) {
		check(i);
		set(i, n);
		held_for[holder] = n;
		if (n % 1000 == 0)
			sched_yield();
	}
}

static bool is_held(int i)
{
	int holder;

	for (holder = 0; holder < NR_HOLDERS; holder++) {
		if (i == HELD(holder))
			return true;
	}
	return false;
}

static void one_round(uint64_t round)
{
	int from = (int)(round * SOME % (NR_DOMAINS - SOME)), i;

	for (i = 0; i < NR_DOMAINS; i++) {
		if (is_held(i))
			continue;
		MUST(domain_begin(ids[i], RW));
		check(i);
		set(i, round);
		MUST(domain_end(ids[i]));
		if (i % 50 == 0 && backend_protects() && try_read((char *)mem[i], &ignored))
			wrong("domain %d can be read", i);
	}
	for (i = from; i < from + SOME; i++) {
		if (is_held(i))
			return;
	}
	MUST(free_domains(SOME, ids + from));
	MUST(alloc_domains(SOME, ids + from));
	for (i = from; i < from + SOME; i++)
		make(i, round);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 0) : 30, round;
	unsigned long seen[NR_HOLDERS] = { 0 }, still[NR_HOLDERS] = { 0 };
	pthread_t threads[NR_HOLDERS];
	int i;

	need_backend();
	MUST(alloc_domains(NR_DOMAINS, ids));
	for (i = 0; i < NR_DOMAINS; i++)
		make(i, 0);
	for (i = 0; i < NR_HOLDERS; i++) {
		if (pthread_create(&threads[i], NULL, hold, (void *)(intptr_t)i))
			wrong("no thread");
	}
	for (round = 1; !rounds || round <= rounds; round++) {
		one_round(round);
		usleep(10000);
		if (round % 10)
			continue;
		for (i = 0; i < NR_HOLDERS; i++) {
			/* On one CPU it may have to wait for the others, and clocks jump. */
			still[i] = held_for[i] == seen[i] ? still[i] + 1 : 0;
			if (still[i] == 20)
				wrong("holder %d stands still", i);
			seen[i] = held_for[i];
		}
		printf("round %lu\n", round);
		fflush(stdout);
	}
	return 0;
}
