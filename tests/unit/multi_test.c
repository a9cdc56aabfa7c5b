// SPDX-License-Identifier: MIT
/* A thread that holds domains of several EPTs accesses them in any order. */
#define _GNU_SOURCE
#include <immintrin.h>

#include "unit.h"

#define NR	46	/* four EPTs of 15, if keys are what limits */
#define SPREAD	3

/* By the time they are used, of as many EPTs as the backend makes of NR. */
static int ids[NR], few[SPREAD];
static char *mem[NR], *few_mem[SPREAD], ignored;

static void set_up_domains(void)
{
	int i;

	if (alloc_domains(NR, ids))
		abort();
	for (i = 0; i < NR; i++) {
		mem[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		if (mem[i] == MAP_FAILED || domain_begin(ids[i], RW))
			abort();
		memset(mem[i], i, PAGE);
		domain_end(ids[i]);
	}
	for (i = 0; i < SPREAD; i++) {
		few[i] = ids[i * 15];
		few_mem[i] = mem[i * 15];
	}
}

static int set_up(void **state)
{
	(void)state;
	set_up_domains();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return free_domains(NR, ids);
}

static void begin_few(void)
{
	int i;

	for (i = 0; i < SPREAD; i++)
		REQUIRE_EQ(domain_begin(few[i], RW), 0);
}

static void end_few(void)
{
	int i;

	for (i = 0; i < SPREAD; i++)
		REQUIRE_EQ(domain_end(few[i]), 0);
}

/* Changes of the EPT and faults. */
static uint64_t switches(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	REQUIRE_EQ(epk_counts(&counts), 0);
	return counts.ept_switches + counts.vm_faults;
}

static void any_order(void **state)
{
	unsigned int seed = 1;
	int i, at;

	(void)state;
	begin_few();
	for (i = 0; i < 200; i++) {
		at = rand_r(&seed) % SPREAD;
		few_mem[at][i] = i;
		REQUIRE_EQ((unsigned char)few_mem[at][i], i);
	}
	end_few();
	for (i = 0; i < SPREAD && backend_protects(); i++)
		REQUIRE(!try_read(few_mem[i], &ignored));
}

/* As many as a thread can hold, more than fit into one EPT. */
static void many_at_once(void **state)
{
	int i, round;

	(void)state;
	if (backend_is("mpk"))
		skip();
	for (i = 0; i < NR; i++)
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < NR; i++) {
			mem[i][100] = round;
			REQUIRE_EQ(mem[i][100], round);
			REQUIRE_EQ(mem[i][101], i);
		}
	}
	for (i = 0; i < NR; i++)
		REQUIRE_EQ(domain_end(ids[i]), 0);
}

static void rep_movsb(void **state)
{
	void *from = few_mem[0], *to = few_mem[1];
	size_t len = PAGE;

	(void)state;
	begin_few();
	memset(few_mem[0], 77, PAGE);
	asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(len) : : "memory");
	REQUIRE_MEM_EQ(few_mem[0], few_mem[1], PAGE);
	end_few();
}

static void movsb(void **state)
{
	void *from = few_mem[1], *to = few_mem[2];

	(void)state;
	begin_few();
	few_mem[1][0] = 78;
	asm volatile("movsb" : "+S"(from), "+D"(to) : : "memory");
	REQUIRE_EQ(few_mem[2][0], 78);
	end_few();
}

/* The stack in one domain, what is pushed in another: the signal needs a third. */
static void push_from_memory(void **state)
{
	static char stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) }, old;
	uint64_t *from = (uint64_t *)few_mem[0], *to = (uint64_t *)(few_mem[2] + 512);

	(void)state;
	REQUIRE_EQ(sigaltstack(&alternate, &old), 0);
	begin_few();
	*from = 0x1234567890;
	asm volatile("mov %%rsp, %%r12\n\t"
		     "mov %[to], %%rsp\n\t"
		     "push (%[from])\n\t"
		     "mov %%r12, %%rsp"
		     : : [to] "r"(to), [from] "r"(from) : "r12", "memory");
	REQUIRE_EQ(to[-1], 0x1234567890);
	end_few();
	REQUIRE_EQ(sigaltstack(&old, NULL), 0);
}

__attribute__((target("avx2"))) static void gather(void **state)
{
	long long offsets[4] = { 0 };
	__m256i index, got;
	uint64_t values[4];
	int i;

	(void)state;
	if (!__builtin_cpu_supports("avx2"))
		return;
	begin_few();
	for (i = 0; i < SPREAD; i++) {
		*(uint64_t *)few_mem[i] = 1000 + i;
		offsets[i] = few_mem[i] - few_mem[0];
	}
	index = _mm256_loadu_si256((void *)offsets);
	got = _mm256_i64gather_epi64((void *)few_mem[0], index, 1);
	_mm256_storeu_si256((void *)values, got);
	for (i = 0; i < SPREAD; i++)
		REQUIRE_EQ(values[i], 1000 + i);
	end_few();
}

static void repeated_pairs_cost_nothing(void **state)
{
	uint64_t before;
	int i;

	(void)state;
	begin_few();
	for (i = 0; i < 20; i++) {
		few_mem[0][i] = few_mem[1][i];
		few_mem[2][i] = few_mem[0][i];
	}
	before = switches();
	for (i = 0; i < 200; i++) {
		few_mem[0][i] = few_mem[1][i];
		few_mem[2][i] = few_mem[0][i];
	}
	REQUIRE_EQ(switches(), before);
	end_few();
}

/* Holding others helps nobody to what is not held, nor to writing. */
static void only_what_is_held(void **state)
{
	(void)state;
	if (!backend_protects())
		return;
	REQUIRE_EQ(domain_begin(few[0], RW), 0);
	REQUIRE_EQ(domain_begin(few[1], PROT_READ), 0);
	few_mem[0][5] = few_mem[1][5];
	REQUIRE(!try_read(few_mem[2], &ignored));
	REQUIRE(!try_write(few_mem[1], 1));
	few_mem[0][5] = few_mem[1][5];
	REQUIRE_EQ(domain_end(few[0]), 0);
	REQUIRE(!try_read(few_mem[0], &ignored));
	REQUIRE(try_read(few_mem[1], &ignored));
	REQUIRE_EQ(domain_end(few[1]), 0);
	REQUIRE(!try_read(few_mem[1], &ignored));
}

/* Threads that hold different sets, and move what the others hold. */
static void *copy(void *arg)
{
	int me = (long)arg, other = (me + 1) % SPREAD, i;

	for (i = 0; i < 300; i++) {
		if (domain_begin(few[me], RW) || domain_begin(few[other], PROT_READ))
			return (void *)1;
		__atomic_store_n(&few_mem[me][1000 + me], i, __ATOMIC_RELAXED);
		few_mem[me][1010 + me] = __atomic_load_n(&few_mem[other][1000 + other],
							 __ATOMIC_RELAXED);
		if (few_mem[me][1000 + me] != (char)i)
			return (void *)2;
		if (domain_end(few[me]) || domain_end(few[other]))
			return (void *)3;
	}
	return NULL;
}

static void threads_with_different_sets(void **state)
{
	void *args[SPREAD];
	long i;

	(void)state;
	for (i = 0; i < SPREAD; i++)
		args[i] = (void *)i;
	run_threads(copy, args, SPREAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(any_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(many_at_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(rep_movsb, set_up, tear_down),
		cmocka_unit_test_setup_teardown(movsb, set_up, tear_down),
		cmocka_unit_test_setup_teardown(push_from_memory, set_up, tear_down),
		cmocka_unit_test_setup_teardown(gather, set_up, tear_down),
		cmocka_unit_test_setup_teardown(repeated_pairs_cost_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(only_what_is_held, set_up, tear_down),
		cmocka_unit_test_setup_teardown(threads_with_different_sets, set_up, tear_down),
	};

	need_backend();
	skip_if(!backend_holds_several(), "cannot access several domains at a time");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
