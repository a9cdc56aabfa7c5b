// SPDX-License-Identifier: MIT
/*
 * What domain_begin() + domain_end() take: instructions, EPT switches, VM exits; and
 * what the same takes by other means.
 *
 * In the emulator the time stamp counter counts instructions, the kernel's and
 * the hypervisor's own included; the least of many batches is free of
 * interrupts and exact.  Anywhere else the figures are cycles of that machine, so
 * that the limits, which are for instructions, are to be asked for.
 *
 * switch_bench [BACKEND [limits]]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include <epk.h>

#include "bench.h"
#include "figure.h"
#include "pkru.h"

#define BATCH	100
#define BATCHES	50
#define MOST	(512 * 15 - 16)
#define GROUP	15

/* The most that a pair may take: alone, in another EPT with its VMFUNC. */
#define PAIR_LIMIT	43
#define OTHER_LIMIT	49
#define CALL_LIMIT	240
/* Beside what is held, where no module puts that aside. */
#define PINS_CALL_LIMIT	6000
/* Of a component: by ordinary code, by another in its EPT, and in another EPT with two VMFUNC. */
#define GATE_LIMIT	130
#define GATES_LIMIT	170
#define FAR_LIMIT	182
/* Where no module knows what is held, it is counted: alone and beside what is held. */
#define PINS_LIMIT	81
/* By how much thousands of domains may change it. */
#define MANY_PERCENT	2
/* Allocation takes the kernel's allocators as it finds them. */
#define ALLOC_PERCENT	25

static int ids[2], beside, inner;
static bool failed;
/* Of figures: the table, and how many domains there are; 0 if few. */
static char table[32];
static long domains;

/* What the rows are compared with. */
#define BARE	"RDPKRU + two WRPKRU"
#define GLIBC	"glibc's pkey_set, twice"
#define SAME	"begin + end, same domain"
#define CALL	"epk_call"
#define SYSCALL	"null system call"
#define MALLOC	"glibc's malloc + free"

static void fail(const char *what, int err)
{
	fprintf(stderr, "switch_bench: %s: %s\n", what, epk_strerror(err));
	exit(1);
}

static void nothing(int i)
{
	asm volatile("" : : "r"(i) : "memory");
}

/* The least that opening and closing a key can take. */
static void bare_wrpkru(int i)
{
	uint32_t pkru = rdpkru();

	asm volatile("xor %%ecx, %%ecx\n\t"
		     "xor %%edx, %%edx\n\t"
		     "wrpkru\n\t"
		     "wrpkru" : : "a" (pkru) : "rcx", "rdx", "memory");
	nothing(i);
}

/* In place of calls that are measured, as no_call(). */
static __attribute__((noipa)) int no_call_of_two(int key, int rights)
{
	(void)key;
	(void)rights;
	return 0;
}

static __attribute__((noipa)) int no_call_of_four(int id, long (*func)(void *), void *arg,
						  long *result)
{
	(void)id;
	(void)func;
	(void)arg;
	(void)result;
	return 0;
}

/* Its instructions, and that of the call. */
#define NO_CALL	3

static void same(int i)
{
	(void)i;
	libepk_pair(ids[0]);
}

static void same_no_call(int i)
{
	(void)i;
	no_pair(ids[0]);
}

static void other(int i)
{
	libepk_pair(ids[i & 1]);
}

static void other_no_call(int i)
{
	no_pair(ids[i & 1]);
}

static void inner_pair(int i)
{
	(void)i;
	libepk_pair(inner);
}

static void inner_no_call(int i)
{
	(void)i;
	no_pair(inner);
}

static long empty(void *arg)
{
	return (long)arg;
}

static void call_one(int i)
{
	(void)i;
	if (epk_call(ids[0], empty, NULL, NULL))
		abort();
}

static void call_no_call(int i)
{
	(void)i;
	if (no_call_of_four(ids[0], empty, NULL, NULL))
		abort();
}

static long deeper(void *arg)
{
	volatile char stack[3000];

	stack[0] = 1;
	return stack[0] + (long)arg;
}

static void call_deeper(int i)
{
	(void)i;
	if (epk_call(ids[0], deeper, NULL, NULL))
		abort();
}

/* Components: two in one EPT, and one in another, if there is another. */
static int components[3];
static bool far_away;

static long call_next(void *arg)
{
	long result;

	if (epk_gate_call(components[*(int *)arg], 0, NULL, &result))
		abort();
	return 0;
}

static long next_no_call(void *arg)
{
	long result;

	if (no_call_of_four(components[*(int *)arg], NULL, NULL, &result))
		abort();
	return 0;
}

static long (*const entries[])(void *arg) = { empty, call_next, next_no_call };

static void gate(int i)
{
	(void)i;
	if (epk_gate_call(components[0], 0, NULL, NULL))
		abort();
}

static void gate_no_call(int i)
{
	(void)i;
	if (no_call_of_four(components[0], NULL, NULL, NULL))
		abort();
}

/* From within one, less the way there. */
static int next;

static void gate_and_next(int i)
{
	(void)i;
	if (epk_gate_call(components[0], 1, &next, NULL))
		abort();
}

static void gate_and_no_call(int i)
{
	(void)i;
	if (epk_gate_call(components[0], 2, &next, NULL))
		abort();
}

static void malloc_and_free(int i)
{
	void *mem = epk_malloc(ids[0], 64);

	(void)i;
	if (!mem || epk_free(ids[0], mem))
		abort();
}

static void glibc_no_call(int i)
{
	(void)i;
	if (no_call_of_two(GLIBC_KEY, 0) || no_call_of_two(GLIBC_KEY, PKEY_DISABLE_ACCESS))
		abort();
}

static void libmpk_no_call(int i)
{
	(void)i;
	if (no_call_of_two(1, PROT_READ | PROT_WRITE) || no_call(1))
		abort();
}

static void alloc_group(int i)
{
	int group[GROUP];

	(void)i;
	if (alloc_domains(GROUP, group) || free_domains(GROUP, group))
		abort();
}

static double measure(void (*what)(int))
{
	uint64_t least = UINT64_MAX, start, took;
	int batch, i;

	for (batch = 0; batch < BATCHES; batch++) {
		start = __rdtsc();
		for (i = 0; i < BATCH; i++)
			what(i);
		took = __rdtsc() - start;
		if (took < least)
			least = took;
	}
	return (double)least / BATCH;
}

/**
 * struct cost - what a row takes
 * @count: instructions, or cycles
 * @switches: of the EPT
 * @exits: of the VM, in all of the batches
 */
struct cost {
	double count;
	double switches;
	unsigned long long exits;
};

/* @nothing: the same without what is to be measured, but for @more instructions. */
static struct cost row(const char *name, const char *baseline, void (*what)(int),
		       void (*nothing)(int), int more)
{
	struct bench_key key = {
		.table = table, .name = name, .baseline = baseline, .domains = domains,
		/* Under "mpk" each empties its stack by a system call, whose work is that of the page tables
		 * that the stack happens to lie in. */
		.within = !strncmp(name, CALL, strlen(CALL)) && !strcmp(epk_backend(), "mpk") ? 12 : 0,
	};
	double overhead = measure(nothing) - more, pairs = BATCH * BATCHES;
	struct epk_counts before = { .size = sizeof(before) }, after = before;
	struct cost cost;

	measure(what);		/* warm */
	epk_counts(&before);
	/* As it is printed: a batch may begin within what the emulator runs at a time. */
	cost.count = (long)((measure(what) - overhead) * 10 + 0.5) / 10.0;
	epk_counts(&after);
	cost.switches = (after.ept_switches - before.ept_switches) / pairs;
	cost.exits = after.vm_exits - before.vm_exits;
	printf("%-36s %8.1f %14.2f %10llu\n", name, cost.count, cost.switches, cost.exits);
	bench_figure(&key, cost.count, NULL);
	return cost;
}

static void limit(bool holds, const char *what)
{
	if (holds)
		return;
	printf("limit: %s\n", what);
	failed = true;
}

static bool within(double value, double of, double percent)
{
	return value <= of * (1 + percent / 100) && value >= of * (1 - percent / 100);
}

/**
 * struct costs - of all rows that depend on the number of domains
 * @same: begin and end of one domain
 * @other: of another EPT each time; all 0 if there is only one EPT
 * @beside: begin and end while another of the same EPT is held
 * @away: likewise, that lies in another EPT; all 0 if there is only one EPT
 * @call: a call of an empty function
 * @call_beside: the same while another domain is held
 * @gate: a call of a component
 * @gates: a call of one component by another
 * @far: the same, in another EPT; all 0 if there is only one EPT
 * @one: an allocation and freeing of one domain
 * @group: of as many as an EPT has keys for
 */
struct costs {
	struct cost same;
	struct cost other;
	struct cost beside;
	struct cost away;
	struct cost call;
	struct cost call_beside;
	struct cost gate;
	struct cost gates;
	struct cost far;
	struct cost one;
	struct cost group;
};

static struct costs rows(void)
{
	struct costs costs = { .other.count = 0, .away.count = 0, .far.count = 0 };
	int epts[2];

	epk_domain_place(ids[0], &epts[0], NULL);
	epk_domain_place(ids[1], &epts[1], NULL);
	costs.same = row(SAME, BARE, same, same_no_call, NO_CALLS);
	if (epts[0] != epts[1])
		costs.other = row("begin + end, another EPT each time", SAME, other, other_no_call,
				  NO_CALLS);
	/* With @beside held, which lies in the EPT of ids[1]. */
	if (domain_begin(beside, PROT_READ | PROT_WRITE))
		abort();
	inner = ids[1];
	costs.beside = row("the same, one held, same EPT", SAME, inner_pair, inner_no_call, NO_CALLS);
	inner = ids[0];
	if (epts[0] != epts[1])
		costs.away = row("the same, one held in another EPT", SAME, inner_pair,
				 inner_no_call, NO_CALLS);
	costs.call_beside = row("epk_call, one held", CALL, call_one, call_no_call, NO_CALL);
	if (domain_end(beside))
		abort();
	costs.call = row(CALL, SAME, call_one, call_no_call, NO_CALL);
	row("epk_call, with 3 KiB of stack", CALL, call_deeper, call_no_call, NO_CALL);
	if (components[0]) {
		costs.gate = row("epk_gate_call", CALL, gate, gate_no_call, NO_CALL);
		next = 1;
		costs.gates = row("the same from another component", CALL, gate_and_next,
				  gate_and_no_call, NO_CALL);
		next = 2;
		if (far_away)
			costs.far = row("the same in another EPT", CALL, gate_and_next,
					gate_and_no_call, NO_CALL);
	}
	row("epk_malloc + epk_free", MALLOC, malloc_and_free, nothing, 0);
	costs.one = row("alloc_domains + free_domains, of 1", SYSCALL, alloc_one, nothing, 0);
	costs.group = row("alloc_domains + free_domains, of 15", SYSCALL, alloc_group, nothing, 0);
	return costs;
}

static void null_syscall(int i)
{
	(void)i;
	syscall(SYS_getppid);
}

static void glibc_malloc(int i)
{
	void *volatile mem = malloc(64);

	(void)i;
	free(mem);
}

/* The same by other means: glibc's pkey_set(), and libmpk's begin and end on a hit. */
static void compare(struct cost pair)
{
	struct cost glibc, libmpk;

	libmpk_init(GLIBC_KEY - 1);
	row(SYSCALL, "-", null_syscall, nothing, 0);
	row(MALLOC, "-", glibc_malloc, nothing, 0);
	row(BARE, "-", bare_wrpkru, nothing, 0);
	glibc = row(GLIBC, BARE, glibc_pair, glibc_no_call, NO_CALLS);
	libmpk = row("libmpk's begin + end, a hit", BARE, libmpk_pair, libmpk_no_call, NO_CALLS);
	if (!strcmp(epk_backend(), "epk"))
		limit(pair.count < glibc.count, "more instructions than glibc's pkey_set");
	limit(pair.count < libmpk.count, "more instructions than libmpk");
}

static bool is_short(const struct costs *costs)
{
	return costs->beside.count <= HELD_LIMIT && costs->away.count <= HELD_LIMIT &&
	       costs->beside.exits + costs->away.exits == 0;
}

static void check(const struct costs *few, const struct costs *many)
{
	bool by_module = !strcmp(epk_backend(), "epk");

	limit(few->same.count <= (by_module ? PAIR_LIMIT : PINS_LIMIT),
	      "the pair takes too many instructions");
	limit(few->same.switches == 0 && few->same.exits == 0, "the pair leaves its EPT");
	limit(within(many->same.count, few->same.count, MANY_PERCENT),
	      "thousands of domains change what the pair takes");
	limit(many->one.count <= few->one.count * (1 + ALLOC_PERCENT / 100.0) &&
	      many->group.count <= few->group.count * (1 + ALLOC_PERCENT / 100.0),
	      "thousands of domains make allocation dearer");
	if (!by_module) {
		limit(few->beside.count <= PINS_LIMIT && many->beside.count <= PINS_LIMIT,
		      "the pair takes too many beside what is held");
		limit(few->call_beside.count <= PINS_CALL_LIMIT,
		      "epk_call takes too many beside what is held");
		return;
	}
	limit(few->call.count <= CALL_LIMIT && many->call.count <= CALL_LIMIT,
	      "epk_call takes too many instructions");
	limit(few->gate.count <= GATE_LIMIT && many->gate.count <= GATE_LIMIT &&
	      few->gates.count <= GATES_LIMIT && many->gates.count <= GATES_LIMIT,
	      "epk_gate_call takes too many instructions");
	limit(few->far.count <= FAR_LIMIT && many->far.count <= FAR_LIMIT,
	      "epk_gate_call takes too many instructions across EPTs");
	limit(!few->far.count || few->far.switches == 2,
	      "not two changes of the EPT for each call in another");
	limit(is_short(few) && is_short(many), "the pair takes too many beside what is held");
	limit(few->other.count <= OTHER_LIMIT,
	      "the pair in another EPT takes too many instructions");
	limit(few->other.switches == 1 && many->other.switches == 1,
	      "not one change of the EPT for each pair");
	limit(few->other.exits == 0 && many->other.exits == 0, "a change of the EPT is an exit");
	limit(within(many->other.count, few->other.count, MANY_PERCENT),
	      "thousands of domains change what the pair in another EPT takes");
}

static void set_up(const char *backend)
{
	struct epk_options options = { .size = sizeof(options), .backend = backend };
	int group[GROUP], epts[2] = { 0 }, err, i;

	err = epk_init(&options);
	if (err)
		fail("epk_init", err);
	err = alloc_domains(1, &ids[0]);
	if (!err)
		err = alloc_domains(GROUP, group);
	if (err)
		fail("alloc_domains", err);
	ids[1] = group[0];
	beside = group[1];
	if (strcmp(epk_backend(), "epk"))
		return;
	err = alloc_domains(1, &components[0]);
	if (!err)
		err = epk_alloc_beside(1, &components[1], components[0]);
	components[2] = group[2];
	if (!err) {
		epk_domain_place(components[0], &epts[0], NULL);
		epk_domain_place(components[2], &epts[1], NULL);
	}
	far_away = epts[0] != epts[1];
	for (i = 0; i < 3 && !err; i++)
		err = epk_component_create(components[i], entries, 3, NULL);
	if (err)
		fail("epk_component_create", err);
}

int main(int argc, char **argv)
{
	bool limits = bench_limits(argc, argv);
	struct costs few, many;
	int *more, nr = 0;

	set_up(argc > 1 ? argv[1] : NULL);
	printf("backend %s; pairs and calls of functions from call to return, without loop and arguments\n",
	       epk_backend());
	printf("%-36s %8s %14s %10s\n", "", "TSC", "EPT switches", "VM exits");
	snprintf(table, sizeof(table), "switch %s", epk_backend());
	few = rows();
	if (!strcmp(epk_backend(), "epk") || !strcmp(epk_backend(), "mpk"))
		compare(few.same);
	/* The same beside as many domains as there can be. */
	more = malloc(MOST * sizeof(*more));
	if (!more)
		fail("malloc", -ENOMEM);
	while (nr < MOST && !alloc_domains(1, &more[nr]))
		nr++;
	domains = nr + 1 + GROUP;
	printf("of %ld domains:\n", domains);
	many = rows();
	free(more);
	if (!limits)
		return 0;
	check(&few, &many);
	printf("limits: %s\n", failed ? "broken" : "all kept");
	return failed;
}
