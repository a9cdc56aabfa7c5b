// SPDX-License-Identifier: MIT
/* The heap in a domain, and what else there is for comfort. */
#define _GNU_SOURCE
#include <sys/resource.h>

#include "unit.h"

#define SLOTS	200

static void malloc_belongs_to_domain(void **state)
{
	int id = new_domain();
	char *mem = epk_malloc(id, 100), byte;

	(void)state;
	REQUIRE(mem);
	REQUIRE_EQ((uintptr_t)mem % 16, 0);
	REQUIRE_EQ(epk_domain_at(mem), id);
	REQUIRE_EQ(epk_domain_at(&byte), 0);
	if (backend_protects())
		REQUIRE(!try_read(mem, &byte));
	REQUIRE_EQ(domain_begin(id, RW), 0);
	memset(mem, 1, 100);
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(epk_free(id, mem), 0);
	REQUIRE_EQ(epk_free(id, NULL), 0);
	free_domain(id);
	REQUIRE_EQ(epk_domain_at(mem), 0);
}

static void errors(void **state)
{
	int id = new_domain(), other = new_domain();
	char *mem = epk_malloc(id, 100), *more = epk_malloc(id, 100), local[64];

	(void)state;
	errno = 0;
	REQUIRE(!epk_malloc(0, 1));
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE(!epk_malloc(other + 1000, 1));
	REQUIRE_EQ(errno, ENOENT);
	REQUIRE(!epk_malloc(id, SIZE_MAX));
	REQUIRE_EQ(errno, ENOMEM);
	REQUIRE(!epk_calloc(id, SIZE_MAX / 2, 3));
	REQUIRE_EQ(errno, ENOMEM);
	REQUIRE(!epk_memalign(id, 24, 1));
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE(!epk_memalign(id, 0, 1));
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE(!epk_realloc(id, local, 1));
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(epk_free(id, local), -EINVAL);
	REQUIRE_EQ(epk_free(id, mem + 16), -EINVAL);
	REQUIRE_EQ(epk_free(id, mem + 1), -EINVAL);
	REQUIRE_EQ(epk_free(other, mem), -EINVAL);
	REQUIRE_EQ(epk_free(-1, mem), -EINVAL);
	REQUIRE_EQ(epk_free(id, mem), 0);
	REQUIRE_EQ(epk_free(id, mem), -EINVAL);
	REQUIRE_EQ(epk_free(id, more), 0);
	REQUIRE_EQ(epk_free(id, more), -EINVAL);
	REQUIRE_EQ(domain_begin(id, PROT_READ), 0);
	REQUIRE(!epk_malloc(id, 1));
	REQUIRE_EQ(errno, EACCES);
	REQUIRE_EQ(epk_free(id, mem), -EACCES);
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(id);
	free_domain(other);
}

/* What the heap did not give out, whatever stands before and behind it. */
static void free_of_no_allocation(void **state)
{
	int id = new_domain(), i;
	char *mem = epk_malloc(id, 100), *pages = new_pages(id, 2);
	size_t *before, lengths[] = { 64, 65, 4096 - 63, 4097, 1 << 20, 1ul << 45, SIZE_MAX };

	(void)state;
	/* A header would lie in front of the mapping. */
	REQUIRE_EQ(epk_free(id, pages), -EINVAL);
	REQUIRE(!epk_realloc(id, pages, 1));
	REQUIRE_EQ(domain_begin(id, RW), 0);
	for (i = 0; i < (int)(sizeof(lengths) / sizeof(lengths[0])); i++) {
		before = (size_t *)(pages + PAGE);
		before[0] = 0;
		before[1] = lengths[i];
		REQUIRE_EQ(epk_free(id, before + 2), -EINVAL);
		REQUIRE(!epk_realloc(id, before + 2, 1));
		before = (size_t *)(pages + 2 * PAGE) - 2;
		before[1] = lengths[i];
		REQUIRE_EQ(epk_free(id, before + 2), -EINVAL);
	}
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(epk_free(id, mem), 0);
	free_domain(id);
}

struct slot {
	unsigned char *mem;
	size_t size;
};

static void check_slot(const struct slot *slot, unsigned char value)
{
	size_t i;

	for (i = 0; i < slot->size; i++)
		REQUIRE_EQ(slot->mem[i], value);
}

/* Nothing overlaps, everything keeps its contents, and all of it can be had again. */
static void random_use(void **state)
{
	int id = new_domain(), round, at;
	struct slot slots[SLOTS] = { { 0 } };
	unsigned int seed = 7;
	size_t size, align;

	(void)state;
	REQUIRE_EQ(domain_begin(id, RW), 0);
	for (round = 0; round < 5000; round++) {
		at = rand_r(&seed) % SLOTS;
		size = rand_r(&seed) % (round % 50 ? 600 : 100000);
		check_slot(&slots[at], at);
		if (rand_r(&seed) % 4 == 0 && slots[at].mem) {
			slots[at].mem = epk_realloc(id, slots[at].mem, size);
			REQUIRE(slots[at].mem);
			if (size > slots[at].size)
				memset(slots[at].mem, at, size);
			slots[at].size = size;
			continue;
		}
		REQUIRE_EQ(epk_free(id, slots[at].mem), 0);
		align = 16ul << rand_r(&seed) % 10;
		slots[at].mem = epk_memalign(id, align, size);
		REQUIRE(slots[at].mem);
		REQUIRE_EQ((uintptr_t)slots[at].mem % align, 0);
		slots[at].size = size;
		memset(slots[at].mem, at, size);
	}
	for (at = 0; at < SLOTS; at++) {
		check_slot(&slots[at], at);
		REQUIRE_EQ(epk_free(id, slots[at].mem), 0);
	}
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(id);
	REQUIRE_EQ(count_epk_mappings(), 0);
}

static void calloc_is_zero(void **state)
{
	int id = new_domain(), i;
	unsigned char *mem;

	(void)state;
	REQUIRE_EQ(domain_begin(id, RW), 0);
	mem = epk_malloc(id, 5000);
	memset(mem, 255, 5000);
	REQUIRE_EQ(epk_free(id, mem), 0);
	mem = epk_calloc(id, 50, 100);
	for (i = 0; i < 5000; i++)
		REQUIRE_EQ(mem[i], 0);
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(id);
}

static void *use_heap(void *arg)
{
	int id = *(int *)arg, i;
	unsigned char *mem;

	for (i = 0; i < 500; i++) {
		mem = epk_malloc(id, 1 + i);
		if (!mem || domain_begin(id, RW))
			return (void *)1;
		memset(mem, i, 1 + i);
		if (mem[i] != (unsigned char)i || domain_end(id) || epk_free(id, mem))
			return (void *)2;
	}
	return NULL;
}

static void threads_share_a_heap(void **state)
{
	int id = new_domain();
	void *const args[] = { &id, &id, &id, &id };

	(void)state;
	run_threads(use_heap, args, 4);
	free_domain(id);
}

static int add_bytes(int id, void *addr, size_t len, void *arg)
{
	(void)id;
	(void)addr;
	*(size_t *)arg += len;
	return 0;
}

/* A heap takes no more memory than what it has given out, rounded up; limits count what is mapped. */
static void small_heaps_are_small(void **state)
{
	struct epk_counts before = { .size = sizeof(before) }, after = before;
	size_t mapped = 0;
	int ids[50], i;

	(void)state;
	REQUIRE_EQ(alloc_domains(50, ids), 0);
	REQUIRE_EQ(epk_counts(&before), 0);
	for (i = 0; i < 50; i++)
		REQUIRE(epk_malloc(ids[i], 100));
	REQUIRE_EQ(epk_for_each_mapping(add_bytes, &mapped), 0);
	REQUIRE_EQ(mapped, 50 * PAGE);
	REQUIRE_EQ(epk_counts(&after), 0);
	if (backend_is("epk") || backend_is("vmfunc"))
		REQUIRE_EQ(after.pages - before.pages, 50);
	REQUIRE_EQ(free_domains(50, ids), 0);
}

#define HEAPS	2000

/* Debian's default of memory that a process may pin is 8 MiB. */
static void many_heaps(void)
{
	const struct rlimit limit = { 8 << 20, 8 << 20 };
	static int ids[HEAPS];
	int i;

	REQUIRE(!epk_init(NULL) || epk_backend());
	REQUIRE(!setrlimit(RLIMIT_MEMLOCK, &limit) && !setresuid(65534, 65534, 65534));
	REQUIRE(!alloc_domains(HEAPS, ids));
	for (i = 0; i < HEAPS; i++)
		REQUIRE(epk_malloc(ids[i], 100));
}

static void many_heaps_fit(void **state)
{
	(void)state;
	/* It has an EPT for each of so many. */
	if (!backend_is("vmfunc"))
		run_in_child(many_heaps);
}

/* Near a limit a heap takes what is left. */
static void near_a_limit(void)
{
	size_t got = 0, more = 0;
	struct rlimit limit;
	unsigned long pages;
	int id;
	FILE *statm;

	REQUIRE(!alloc_domains(1, &id) && epk_malloc(id, 100));
	for (; got < 1 << 20; got += 1016)
		REQUIRE(epk_malloc(id, 1000));
	statm = fopen("/proc/self/statm", "r");
	REQUIRE(statm && fscanf(statm, "%lu", &pages) == 1);
	fclose(statm);
	limit.rlim_cur = limit.rlim_max = (pages << 12) + (8 << 20);
	REQUIRE(!setrlimit(RLIMIT_AS, &limit));
	for (got = 0; epk_malloc(id, 1000); got += 1016)
		;
	while (domain_mmap(id, NULL, 64 << 10, RW, 0) != MAP_FAILED)
		more += 64 << 10;
	REQUIRE(got > 6 << 20 && more < 128 << 10);
}

static void takes_what_is_left(void **state)
{
	(void)state;
	run_in_child(near_a_limit);
}

#define MANY	10000

static uint64_t ticks(void)
{
	return __builtin_ia32_rdtsc();
}

/* How long @order frees take; all of them are allocated before. */
static uint64_t time_to_free(int id, int nr, unsigned int step)
{
	char **mem = calloc(nr, sizeof(*mem));
	unsigned int i, at = 0;
	uint64_t start;

	REQUIRE(mem);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	for (i = 0; i < (unsigned int)nr; i++) {
		mem[i] = epk_malloc(id, 16 + i % 300);
		REQUIRE(mem[i]);
		memset(mem[i], i, 16 + i % 300);
	}
	for (i = 0; i < (unsigned int)nr; i++)
		REQUIRE_EQ((unsigned char)mem[i][15 + i % 300], i & 255);
	start = ticks();
	for (i = 0; i < (unsigned int)nr; i++) {
		REQUIRE_EQ(epk_free(id, mem[at]), 0);
		at = (at + step) % nr;
	}
	start = ticks() - start;
	REQUIRE_EQ(domain_end(id), 0);
	free(mem);
	return start;
}

/* Forwards, backwards, to and fro: one of many costs what one of few does. */
static void freed_in_any_order(void **state)
{
	/* Each has no common factor with 100 and with MANY. */
	const unsigned int steps[] = { 1, MANY - 1, 3001, 7, 9973 };
	int id = new_domain(), tries;
	uint64_t few, many;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		for (tries = 0; tries < 10; tries++) {
			few = time_to_free(id, 100, steps[i] % 100);
			many = time_to_free(id, MANY, steps[i]);
			/* Caches count, too, and who else runs on the machine. */
			if (many / MANY <= 5 * (few / 100))
				break;
		}
		REQUIRE_IN(tries, 0, 9);
	}
	free_domain(id);
}

static void *use_own_heap(void *arg)
{
	int id = *(int *)arg, i;
	void *mem;

	for (i = 0; i < 2000; i++) {
		mem = epk_malloc(id, 64);
		if (!mem || epk_free(id, mem))
			return arg;
	}
	return NULL;
}

static void threads_have_a_heap_each(void **state)
{
	int ids[UNIT_THREADS], i;
	void *args[UNIT_THREADS];

	(void)state;
	REQUIRE_EQ(alloc_domains(UNIT_THREADS, ids), 0);
	for (i = 0; i < UNIT_THREADS; i++)
		args[i] = &ids[i];
	run_threads(use_own_heap, args, UNIT_THREADS);
	REQUIRE_EQ(free_domains(UNIT_THREADS, ids), 0);
}

/* An allocation larger than all before, next to one that is smaller, many times. */
static void grows(void **state)
{
	int id = new_domain();
	size_t size;
	char *mem, *last = NULL;

	(void)state;
	for (size = 1000; size < 16 << 20; size += size / 3) {
		mem = epk_malloc(id, size);
		REQUIRE(mem);
		EPK_WITH(id, RW) {
			mem[0] = 1;
			mem[size - 1] = 1;
		}
		REQUIRE_EQ(epk_free(id, last), 0);
		last = mem;
	}
	REQUIRE_EQ(epk_free(id, last), 0);
	REQUIRE(count_epk_mappings() < 60);
	free_domain(id);
	REQUIRE_EQ(count_epk_mappings(), 0);
}

static int leave_early(int id, int *inside)
{
	EPK_WITH(id, PROT_READ) {
		*inside = epk_held_prot(id);
		return 5;
	}
	return 6;
}

static void scopes(void **state)
{
	int id = new_domain(), i, err = 0, runs = 0, inside = 0;

	(void)state;
	EPK_WITH(id, RW) {
		REQUIRE_EQ(epk_held_prot(id), RW);
		runs++;
	}
	REQUIRE_EQ(epk_held_prot(id), 0);
	REQUIRE_EQ(leave_early(id, &inside), 5);
	REQUIRE_EQ(inside, PROT_READ);
	REQUIRE_EQ(epk_held_prot(id), 0);
	for (i = 0; i < 3; i++) {
		EPK_WITH(id, RW)
			break;
		REQUIRE_EQ(epk_held_prot(id), 0);
	}
	EPK_WITH_ERROR(err, id, PROT_EXEC)
		runs++;
	REQUIRE_EQ(err, -EINVAL);
	EPK_WITH_ERROR(err, id, PROT_READ)
		runs++;
	REQUIRE_EQ(err, 0);
	REQUIRE_EQ(runs, 2);
	free_domain(id);
}

static int depth_of_scopes(int id, int depth)
{
	int prot = depth % 3 ? PROT_READ : RW, held;

	if (!depth)
		return 0;
	EPK_WITH(id, prot) {
		held = epk_held_prot(id);
		REQUIRE_EQ(held & prot, prot);
		depth = depth_of_scopes(id, depth - 1) + 1;
		REQUIRE_EQ(epk_held_prot(id), held);
		return depth;
	}
	return -1000;
}

/* What it was before. */
static void scopes_in_scopes(void **state)
{
	int id = new_domain(), prot, before, err;

	(void)state;
	REQUIRE_EQ(depth_of_scopes(id, 30), 30);
	REQUIRE_EQ(epk_held_prot(id), 0);
	for (before = PROT_READ; before <= RW; before += RW - PROT_READ) {
		for (prot = PROT_READ; prot <= RW; prot++) {
			REQUIRE_EQ(domain_begin(id, before), 0);
			EPK_WITH_ERROR(err, id, prot) {
				REQUIRE_EQ(epk_held_prot(id),
					   (before | prot) & PROT_WRITE ? RW : PROT_READ);
				break;
			}
			REQUIRE_EQ(err, 0);
			REQUIRE_EQ(epk_held_prot(id), before);
			REQUIRE_EQ(domain_end(id), 0);
		}
	}
	EPK_WITH_ERROR(err, id, 0)
		FAIL("here nothing comes by");
	REQUIRE_EQ(err, -EINVAL);
	free_domain(id);
	EPK_WITH_ERROR(err, id, RW)
		FAIL("here nothing comes by");
	REQUIRE_EQ(err, -ENOENT);
}

static void held_lists_what_is_held(void **state)
{
	int ids[3], got[3] = { 0 };

	(void)state;
	REQUIRE_EQ(alloc_domains(3, ids), 0);
	REQUIRE_EQ(epk_held(got, 3), 0);
	REQUIRE_EQ(domain_begin(ids[1], PROT_READ), 0);
	REQUIRE_EQ(epk_held(got, 3), 1);
	REQUIRE_EQ(got[0], ids[1]);
	REQUIRE_EQ(epk_held_prot(ids[1]), PROT_READ);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(epk_held(NULL, 0), 2);
	REQUIRE_EQ(epk_held(got, 1), 2);
	REQUIRE_EQ(epk_held_prot(ids[0]), RW);
	REQUIRE_EQ(epk_held_prot(ids[1]), PROT_READ);
	REQUIRE_EQ(epk_held_prot(ids[2]), 0);
	REQUIRE_EQ(epk_held_prot(0), -EINVAL);
	REQUIRE_EQ(epk_held_prot(ids[2] + (1 << 17)), -ENOENT);
	REQUIRE_EQ(epk_held(NULL, 1), -EINVAL);
	REQUIRE_EQ(epk_held(got, -1), -EINVAL);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(domain_end(ids[1]), 0);
	REQUIRE_EQ(epk_held(got, 3), 0);
	REQUIRE_EQ(free_domains(3, ids), 0);
}

static void version_is_the_header(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_version(), EPK_VERSION_MAJOR << 16 | EPK_VERSION_MINOR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(malloc_belongs_to_domain),
		cmocka_unit_test(errors),
		cmocka_unit_test(free_of_no_allocation),
		cmocka_unit_test(random_use),
		cmocka_unit_test(calloc_is_zero),
		cmocka_unit_test(threads_share_a_heap),
		cmocka_unit_test(threads_have_a_heap_each),
		cmocka_unit_test(small_heaps_are_small),
		cmocka_unit_test(many_heaps_fit),
		cmocka_unit_test(takes_what_is_left),
		cmocka_unit_test(freed_in_any_order),
		cmocka_unit_test(grows),
		cmocka_unit_test(scopes),
		cmocka_unit_test(scopes_in_scopes),
		cmocka_unit_test(held_lists_what_is_held),
		cmocka_unit_test(version_is_the_header),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
