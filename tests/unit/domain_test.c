// SPDX-License-Identifier: MIT
/* The six calls: what they do, and each wrong argument by itself. */
#define _GNU_SOURCE
#include "unit.h"

#define NEVER	((1 << 17) * 9 | 77)	/* an ID that nobody has got */

static void alloc_num_not_positive(void **state)
{
	int id = 77;

	(void)state;
	REQUIRE_EQ(alloc_domains(0, &id), -EINVAL);
	REQUIRE_EQ(alloc_domains(-1, &id), -EINVAL);
	REQUIRE_EQ(alloc_domains(INT32_MIN, &id), -EINVAL);
	REQUIRE_EQ(id, 77);
}

static void alloc_null(void **state)
{
	(void)state;
	REQUIRE_EQ(alloc_domains(1, NULL), -EINVAL);
}

/* All or none: nothing is written, nothing is kept. */
static void alloc_too_many(void **state)
{
	struct unit_resources before = count_resources();
	static int ids[1 << 18];
	int i;

	(void)state;
	ids[0] = 77;
	for (i = 0; i < 3; i++)
		REQUIRE_EQ(alloc_domains(1 << 18, ids), -ENOSPC);
	REQUIRE_EQ(ids[0], 77);
	require_nothing_lost(before);
}

static void alloc_distinct_ids(void **state)
{
	int ids[40], i, j;

	(void)state;
	REQUIRE_EQ(alloc_domains(40, ids), 0);
	for (i = 0; i < 40; i++) {
		REQUIRE(ids[i] > 0);
		for (j = 0; j < i; j++)
			REQUIRE_NE(ids[i], ids[j]);
	}
	REQUIRE_EQ(free_domains(40, ids), 0);
}

static void alloc_affinity(void **state)
{
	int ids[10], ept, first, i;

	(void)state;
	if (backend_is("vmfunc"))
		skip();
	REQUIRE_EQ(alloc_domains(10, ids), 0);
	REQUIRE_EQ(epk_domain_place(ids[0], &first, NULL), 0);
	for (i = 1; i < 10; i++) {
		REQUIRE_EQ(epk_domain_place(ids[i], &ept, NULL), 0);
		REQUIRE_EQ(ept, first);
	}
	REQUIRE_EQ(free_domains(10, ids), 0);
}

/* What came in between, too many for the rest of the first one's EPT, took other places. */
static void alloc_beside(void **state)
{
	int first, between[15], later[5], ept, want, i;

	(void)state;
	if (backend_is("vmfunc") || backend_is_alone())
		skip();
	REQUIRE_EQ(epk_alloc_beside(1, &first, 0), -EINVAL);
	first = new_domain();
	/* More than there is room for where the first is. */
	REQUIRE_EQ(alloc_domains(15, between), 0);
	REQUIRE_EQ(epk_alloc_beside(5, later, first), 0);
	REQUIRE_EQ(epk_domain_place(first, &want, NULL), 0);
	for (i = 0; i < 5; i++) {
		REQUIRE_EQ(epk_domain_place(later[i], &ept, NULL), 0);
		REQUIRE_EQ(ept, want);
	}
	REQUIRE_EQ(free_domains(5, later), 0);
	REQUIRE_EQ(free_domains(15, between), 0);
	free_domain(first);
	REQUIRE_EQ(epk_alloc_beside(1, later, first), -ENOENT);
	REQUIRE_EQ(epk_alloc_beside(0, later, first), -EINVAL);
	REQUIRE_EQ(epk_alloc_beside(1, NULL, first), -EINVAL);
}

static void alloc_reuse_has_new_id(void **state)
{
	int seen[200], i, j;

	(void)state;
	for (i = 0; i < 200; i++) {
		seen[i] = new_domain();
		for (j = 0; j < i; j++)
			REQUIRE_NE(seen[i], seen[j]);
		free_domain(seen[i]);
	}
}

static void free_num_not_positive(void **state)
{
	int id = new_domain();

	(void)state;
	REQUIRE_EQ(free_domains(0, &id), -EINVAL);
	REQUIRE_EQ(free_domains(-1, &id), -EINVAL);
	free_domain(id);
}

static void free_null(void **state)
{
	(void)state;
	REQUIRE_EQ(free_domains(1, NULL), -EINVAL);
}

static void free_id_not_positive(void **state)
{
	int zero = 0, negative = -5;

	(void)state;
	REQUIRE_EQ(free_domains(1, &zero), -EINVAL);
	REQUIRE_EQ(free_domains(1, &negative), -EINVAL);
}

static void free_unknown(void **state)
{
	int never = NEVER, huge = INT32_MAX;

	(void)state;
	REQUIRE_EQ(free_domains(1, &never), -ENOENT);
	REQUIRE_EQ(free_domains(1, &huge), -ENOENT);
}

static void free_twice(void **state)
{
	int id = new_domain(), freed = id;

	(void)state;
	free_domain(id);
	REQUIRE_EQ(free_domains(1, &freed), -ENOENT);
	id = new_domain();
	REQUIRE_EQ(free_domains(1, &freed), -ENOENT);
	free_domain(id);
}

/* One bad ID among good ones: none is freed, no memory unmapped. */
static void free_all_or_none(void **state)
{
	int ids[3] = { new_domain(), new_domain(), 0 };
	char *mem = new_pages(ids[0], 1);
	struct unit_resources before;
	int i;

	(void)state;
	before = count_resources();
	for (i = 0; i < ERROR_REPEATS; i++) {
		ids[2] = NEVER;
		REQUIRE_EQ(free_domains(3, ids), -ENOENT);
		ids[2] = ids[0];
		REQUIRE_EQ(free_domains(3, ids), -EINVAL);
	}
	require_nothing_lost(before);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	mem[0] = 1;
	REQUIRE_EQ(free_domains(2, ids), -EBUSY);
	REQUIRE_EQ(mem[0], 1);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(free_domains(2, ids), 0);
}

static void free_unmaps(void **state)
{
	int before = count_epk_mappings(), id = new_domain();
	char *mem = new_pages(id, 3);
	unsigned char vec[3];

	(void)state;
	new_pages(id, 1);
	REQUIRE_EQ(count_epk_mappings(), before + 2);
	free_domain(id);
	REQUIRE_EQ(count_epk_mappings(), before);
	errno = 0;
	REQUIRE_EQ(mincore(mem, 3 * PAGE, vec), -1);
	REQUIRE_EQ(errno, ENOMEM);
}

static void require_no_mmap(int id, void *addr, size_t len, int prot, int flags, int error)
{
	struct unit_resources before = count_resources();
	int i;

	for (i = 0; i < ERROR_REPEATS; i++) {
		errno = 0;
		REQUIRE_EQ(domain_mmap(id, addr, len, prot, flags), MAP_FAILED);
		REQUIRE_EQ(errno, error);
	}
	require_nothing_lost(before);
}

static void mmap_bad_id(void **state)
{
	int freed = new_domain();

	(void)state;
	free_domain(freed);
	require_no_mmap(0, NULL, PAGE, RW, 0, EINVAL);
	require_no_mmap(-1, NULL, PAGE, RW, 0, EINVAL);
	require_no_mmap(NEVER, NULL, PAGE, RW, 0, ENOENT);
	require_no_mmap(freed, NULL, PAGE, RW, 0, ENOENT);
}

static void mmap_bad_len(void **state)
{
	int id = new_domain();

	(void)state;
	require_no_mmap(id, NULL, 0, RW, 0, EINVAL);
	require_no_mmap(id, NULL, SIZE_MAX, RW, 0, EOVERFLOW);
	require_no_mmap(id, NULL, SIZE_MAX - PAGE + 2, RW, 0, EOVERFLOW);
	require_no_mmap(id, NULL, SIZE_MAX - PAGE + 1, RW, 0, ENOMEM);
	free_domain(id);
}

static void mmap_bad_prot(void **state)
{
	int id = new_domain();

	(void)state;
	require_no_mmap(id, NULL, PAGE, PROT_READ | PROT_EXEC, 0, EINVAL);
	require_no_mmap(id, NULL, PAGE, RW | PROT_GROWSDOWN, 0, EINVAL);
	require_no_mmap(id, NULL, PAGE, -1, 0, EINVAL);
	free_domain(id);
}

static void mmap_bad_flags(void **state)
{
	int id = new_domain();
	char *there = new_pages(id, 1);

	(void)state;
	require_no_mmap(id, there, PAGE, RW, MAP_FIXED, EEXIST);
	require_no_mmap(id, there - PAGE, 2 * PAGE, RW, MAP_FIXED, EEXIST);
	require_no_mmap(id, there + 1, PAGE, RW, MAP_FIXED, EINVAL);
	require_no_mmap(id, NULL, PAGE, RW, MAP_SHARED | MAP_PRIVATE, EINVAL);
	require_no_mmap(id, NULL, PAGE, RW, MAP_GROWSDOWN, EINVAL);
	require_no_mmap(id, NULL, PAGE, RW, MAP_HUGETLB, EINVAL);
	require_no_mmap(id, there, PAGE, RW, MAP_FIXED_NOREPLACE, EEXIST);
	require_no_mmap(id, there + 1, PAGE, RW, MAP_FIXED_NOREPLACE, EINVAL);
	free_domain(id);
}

static void mmap_fixed_noreplace(void **state)
{
	int id = new_domain();
	char *mem = new_pages(id, 4);

	(void)state;
	REQUIRE_EQ(domain_munmap(mem + PAGE, PAGE), 0);
	REQUIRE_EQ(domain_mmap(id, mem + PAGE, PAGE, RW, MAP_FIXED_NOREPLACE), mem + PAGE);
	free_domain(id);
}

static void mmap_zeroed_and_writable(void **state)
{
	static const int flags[] = {
		0, MAP_PRIVATE, MAP_SHARED, MAP_ANONYMOUS | MAP_PRIVATE, MAP_POPULATE,
	};
	int id = new_domain();
	size_t i, at;

	(void)state;
	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		/* A length of 2 pages less 1 byte is 2 pages. */
		char *mem = domain_mmap(id, NULL, 2 * PAGE - 1, RW, flags[i]);

		REQUIRE_NE(mem, MAP_FAILED);
		REQUIRE_EQ((uintptr_t)mem % PAGE, 0);
		REQUIRE_EQ(domain_begin(id, RW), 0);
		for (at = 0; at < 2 * PAGE; at++)
			REQUIRE_EQ(mem[at], 0);
		memset(mem, 0x5a, 2 * PAGE);
		REQUIRE_EQ(domain_end(id), 0);
		REQUIRE_EQ(domain_begin(id, PROT_READ), 0);
		REQUIRE_EQ(mem[2 * PAGE - 1], 0x5a);
		REQUIRE_EQ(domain_end(id), 0);
	}
	free_domain(id);
}

static uint64_t pages_in_ram(char *mem, size_t pages)
{
	struct epk_counts counts = { .size = sizeof(counts) };
	unsigned char vec[16];
	uint64_t nr = 0;
	size_t i;

	REQUIRE_EQ(epk_counts(&counts), 0);
	if (backend_is("epk") || backend_is("vmfunc"))
		return counts.pages;
	REQUIRE_EQ(mincore(mem, pages * PAGE, vec), 0);
	for (i = 0; i < pages; i++)
		nr += vec[i] & 1;
	return nr;
}

static void mmap_populate(void **state)
{
	static const int prots[] = { RW, PROT_READ };
	int id = new_domain(), i;
	uint64_t before;
	char *mem;

	(void)state;
	for (i = 0; i < 2; i++) {
		mem = domain_mmap(id, NULL, 16 * PAGE, prots[i], 0);
		REQUIRE_NE(mem, MAP_FAILED);
		before = pages_in_ram(mem, 16);
		mem = domain_mmap(id, NULL, 16 * PAGE, prots[i], MAP_POPULATE);
		REQUIRE_NE(mem, MAP_FAILED);
		REQUIRE_EQ(pages_in_ram(mem, 16), before + 16);
	}
	free_domain(id);
}

static void mmap_read_only(void **state)
{
	int id = new_domain();
	char *mem = domain_mmap(id, NULL, PAGE, PROT_READ, 0);
	char byte = 1;

	(void)state;
	REQUIRE_NE(mem, MAP_FAILED);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE(try_read(mem, &byte));
	REQUIRE_EQ(byte, 0);
	REQUIRE(!try_write(mem, 1));
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(id);
}

static void begin_bad_id(void **state)
{
	int freed = new_domain();

	(void)state;
	free_domain(freed);
	REQUIRE_EQ(domain_begin(0, RW), -EINVAL);
	REQUIRE_EQ(domain_begin(-1, RW), -EINVAL);
	REQUIRE_EQ(domain_begin(NEVER, RW), -ENOENT);
	REQUIRE_EQ(domain_begin(INT32_MAX, RW), -ENOENT);
	REQUIRE_EQ(domain_begin(freed, RW), -ENOENT);
}

static void begin_bad_prot(void **state)
{
	int id = new_domain();

	(void)state;
	REQUIRE_EQ(domain_begin(id, PROT_NONE), -EINVAL);
	REQUIRE_EQ(domain_begin(id, PROT_READ | PROT_EXEC), -EINVAL);
	REQUIRE_EQ(domain_begin(id, -1), -EINVAL);
	REQUIRE_EQ(domain_end(id), -EACCES);
	free_domain(id);
}

static void begin_write_alone_is_both(void **state)
{
	int id = new_domain();
	char *mem = new_pages(id, 1);

	(void)state;
	REQUIRE_EQ(domain_begin(id, PROT_WRITE), 0);
	mem[0]++;
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(id);
}

static void begin_twice(void **state)
{
	int id = new_domain();

	(void)state;
	REQUIRE_EQ(domain_begin(id, PROT_READ), 0);
	REQUIRE_EQ(domain_begin(id, PROT_READ), -EALREADY);
	/* More than before it can have. */
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_EQ(domain_begin(id, RW), -EALREADY);
	REQUIRE_EQ(domain_begin(id, PROT_READ), -EALREADY);
	REQUIRE_EQ(epk_held_prot(id), RW);
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(domain_end(id), -EACCES);
	free_domain(id);
}

static void end_bad_id(void **state)
{
	int freed = new_domain(), id = new_domain();

	(void)state;
	free_domain(freed);
	REQUIRE_EQ(domain_end(0), -EINVAL);
	REQUIRE_EQ(domain_end(-1), -EINVAL);
	REQUIRE_EQ(domain_end(NEVER), -ENOENT);
	REQUIRE_EQ(domain_end(freed), -ENOENT);
	REQUIRE_EQ(domain_end(id), -EACCES);
	free_domain(id);
}

static void errno_untouched(void **state)
{
	int id = new_domain(), bad = NEVER;
	void *mem;

	(void)state;
	errno = 12345;
	alloc_domains(1 << 18, &bad);
	free_domains(1, &bad);
	domain_munmap((void *)PAGE, PAGE);
	domain_begin(bad, RW);
	mem = domain_mmap(id, NULL, PAGE, RW, MAP_POPULATE);
	domain_begin(id, RW);
	domain_end(id);
	domain_munmap(mem, PAGE);
	free_domain(id);
	REQUIRE_EQ(errno, 12345);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alloc_num_not_positive),
		cmocka_unit_test(alloc_null),
		cmocka_unit_test(alloc_too_many),
		cmocka_unit_test(alloc_distinct_ids),
		cmocka_unit_test(alloc_affinity),
		cmocka_unit_test(alloc_beside),
		cmocka_unit_test(alloc_reuse_has_new_id),
		cmocka_unit_test(free_num_not_positive),
		cmocka_unit_test(free_null),
		cmocka_unit_test(free_id_not_positive),
		cmocka_unit_test(free_unknown),
		cmocka_unit_test(free_twice),
		cmocka_unit_test(free_all_or_none),
		cmocka_unit_test(free_unmaps),
		cmocka_unit_test(mmap_bad_id),
		cmocka_unit_test(mmap_bad_len),
		cmocka_unit_test(mmap_bad_prot),
		cmocka_unit_test(mmap_bad_flags),
		cmocka_unit_test(mmap_fixed_noreplace),
		cmocka_unit_test(mmap_zeroed_and_writable),
		cmocka_unit_test(mmap_populate),
		cmocka_unit_test(mmap_read_only),
		cmocka_unit_test(begin_bad_id),
		cmocka_unit_test(begin_bad_prot),
		cmocka_unit_test(begin_write_alone_is_both),
		cmocka_unit_test(begin_twice),
		cmocka_unit_test(end_bad_id),
		cmocka_unit_test(errno_untouched),
	};

	need_backend();
	/* What the library and the C library make once is there from now on. */
	free_domain(new_domain());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
