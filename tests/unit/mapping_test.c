// SPDX-License-Identifier: MIT
/* domain_munmap() of wholes and parts, and the list of mappings. */
#define _GNU_SOURCE
#include "unit.h"

/* One mapping of 8 pages of a domain; each page starts with its number. */
#define PAGES	8

static int id;
static char *mem;

static int set_up(void **state)
{
	int i;

	(void)state;
	id = new_domain();
	mem = new_pages(id, PAGES);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	for (i = 0; i < PAGES; i++)
		mem[i * PAGE] = i + 1;
	REQUIRE_EQ(domain_end(id), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free_all_domains(1, &id);
	return 0;
}

/* Bit i of @pages: page i is mapped, with its number in it. */
static void require_pages(unsigned int pages)
{
	char byte;
	int i;

	REQUIRE_EQ(domain_begin(id, PROT_READ), 0);
	for (i = 0; i < PAGES; i++) {
		REQUIRE_EQ(try_read(mem + i * PAGE, &byte), pages >> i & 1);
		if (pages >> i & 1)
			REQUIRE_EQ(byte, i + 1);
	}
	REQUIRE_EQ(domain_end(id), 0);
}

static void munmap_whole(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_munmap(mem, PAGES * PAGE), 0);
	REQUIRE_EQ(count_epk_mappings(), 0);
	require_pages(0);
	REQUIRE_EQ(domain_munmap(mem, PAGES * PAGE), -EINVAL);
}

static void munmap_front(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_munmap(mem, 3 * PAGE), 0);
	REQUIRE_EQ(count_epk_mappings(), 1);
	require_pages(0xf8);
}

static void munmap_back(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_munmap(mem + 6 * PAGE, PAGE + 1), 0);
	REQUIRE_EQ(count_epk_mappings(), 1);
	require_pages(0x3f);
}

static void munmap_middle(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_munmap(mem + 2 * PAGE, 1), 0);
	REQUIRE_EQ(count_epk_mappings(), 2);
	require_pages(0xfb);
	/* Across the hole: refused, and both sides stay. */
	REQUIRE_EQ(domain_munmap(mem, PAGES * PAGE), -EINVAL);
	REQUIRE_EQ(domain_munmap(mem + PAGE, 2 * PAGE), -EINVAL);
	REQUIRE_EQ(count_epk_mappings(), 2);
	require_pages(0xfb);
	REQUIRE_EQ(domain_munmap(mem + 5 * PAGE, PAGE), 0);
	REQUIRE_EQ(count_epk_mappings(), 3);
	require_pages(0xdb);
}

static void munmap_several_that_touch(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_munmap(mem + 3 * PAGE, 2 * PAGE), 0);
	REQUIRE_EQ(domain_mmap(id, mem + 3 * PAGE, 2 * PAGE, RW, MAP_FIXED_NOREPLACE),
		   mem + 3 * PAGE);
	REQUIRE_EQ(count_epk_mappings(), 3);
	REQUIRE_EQ(domain_munmap(mem + 2 * PAGE, 4 * PAGE), 0);
	REQUIRE_EQ(count_epk_mappings(), 2);
	require_pages(0xc3);
}

static void munmap_misaligned(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_munmap(mem + 1, PAGE), -EINVAL);
	require_pages(0xff);
}

static void munmap_len_zero(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_munmap(mem, 0), -EINVAL);
	require_pages(0xff);
}

static void munmap_overflow(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_munmap(mem, SIZE_MAX), -EOVERFLOW);
	REQUIRE_EQ(domain_munmap(mem, SIZE_MAX - 2 * PAGE), -EOVERFLOW);
	require_pages(0xff);
}

static void munmap_not_domain_memory(void **state)
{
	char *other = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	REQUIRE_EQ(domain_munmap(other, PAGE), -EINVAL);
	REQUIRE_EQ(domain_munmap(NULL, PAGE), -EINVAL);
	*other = 1;
	munmap(other, PAGE);
	require_pages(0xff);
}

static void munmap_beyond_end(void **state)
{
	struct unit_resources before = count_resources();
	int i;

	(void)state;
	for (i = 0; i < ERROR_REPEATS; i++) {
		REQUIRE_EQ(domain_munmap(mem + PAGE, PAGES * PAGE), -EINVAL);
		REQUIRE_EQ(domain_munmap(mem - PAGE, 2 * PAGE), -EINVAL);
	}
	require_nothing_lost(before);
	require_pages(0xff);
}

static void munmap_returns_memory(void **state)
{
	struct unit_resources before = count_resources();
	int i;

	(void)state;
	for (i = 0; i < ERROR_REPEATS; i++) {
		char *more = new_pages(id, 5);

		REQUIRE_EQ(domain_begin(id, RW), 0);
		memset(more, 1, 5 * PAGE);
		REQUIRE_EQ(domain_end(id), 0);
		REQUIRE_EQ(domain_munmap(more + PAGE, 2 * PAGE), 0);
		REQUIRE_EQ(domain_munmap(more, PAGE), 0);
		REQUIRE_EQ(domain_munmap(more + 3 * PAGE, 2 * PAGE), 0);
	}
	require_nothing_lost(before);
}

struct visits {
	int nr;
	int stop_at;
	size_t bytes;
};

static int visit(int dom_id, void *addr, size_t len, void *arg)
{
	struct visits *visits = arg;

	REQUIRE_EQ(dom_id, id);
	REQUIRE((char *)addr >= mem && (char *)addr + len <= mem + PAGES * PAGE);
	visits->nr++;
	visits->bytes += len;
	return visits->nr == visits->stop_at ? 77 : 0;
}

static int visit_and_unmap(int dom_id, void *addr, size_t len, void *arg)
{
	(void)dom_id;
	(void)arg;
	return domain_munmap(addr, len);
}

static void for_each_null(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_for_each_mapping(NULL, NULL), -EINVAL);
}

static void for_each_all_and_stop(void **state)
{
	struct visits all = { 0 }, two = { .stop_at = 2 };

	(void)state;
	REQUIRE_EQ(domain_munmap(mem + 2 * PAGE, PAGE), 0);
	REQUIRE_EQ(domain_munmap(mem + 5 * PAGE, PAGE), 0);
	REQUIRE_EQ(epk_for_each_mapping(visit, &all), 0);
	REQUIRE_EQ(all.nr, 3);
	REQUIRE_EQ(all.bytes, 6 * PAGE);
	REQUIRE_EQ(epk_for_each_mapping(visit, &two), 77);
	REQUIRE_EQ(two.nr, 2);
	REQUIRE_EQ(epk_for_each_mapping(visit_and_unmap, NULL), 0);
	REQUIRE_EQ(count_epk_mappings(), 0);
}

static void place_bad_id(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_domain_place(0, NULL, NULL), -EINVAL);
	REQUIRE_EQ(epk_domain_place(INT32_MAX, NULL, NULL), -ENOENT);
	REQUIRE_EQ(epk_domain_place(id, NULL, NULL), 0);
}

static void counts_null(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_counts(NULL), -EINVAL);
}

static void counts_domains(void **state)
{
	struct epk_counts before = { .size = sizeof(before) }, after = before;
	int more[3];

	(void)state;
	REQUIRE_EQ(epk_counts(&before), 0);
	REQUIRE_EQ(alloc_domains(3, more), 0);
	REQUIRE_EQ(epk_counts(&after), 0);
	REQUIRE_EQ(after.domains, before.domains + 3);
	REQUIRE_EQ(free_domains(3, more), 0);
	REQUIRE_EQ(epk_counts(&after), 0);
	REQUIRE_EQ(after.domains, before.domains);
}

/* As of an earlier version, and of a later one. */
static void counts_of_each_size(void **state)
{
	uint64_t counts[sizeof(struct epk_counts) / 8 + 2];
	const size_t nr = sizeof(counts) / 8;
	size_t size, i;

	(void)state;
	for (size = 1; size <= nr; size++) {
		memset(counts, 0xaa, sizeof(counts));
		counts[0] = size * 8;
		REQUIRE_EQ(epk_counts((struct epk_counts *)counts), 0);
		REQUIRE_EQ(counts[0], size * 8);
		if (size > 1)
			REQUIRE(counts[1] >= 1 && counts[1] < 100);
		for (i = 2; i < nr; i++)
			REQUIRE_EQ(counts[i] == 0xaaaaaaaaaaaaaaaa, i >= size);
		for (i = sizeof(struct epk_counts) / 8; i < size; i++)
			REQUIRE_EQ(counts[i], 0);
	}
}

static void counts_of_no_size(void **state)
{
	static const size_t wrong[] = { 0, 1, 7, 9, sizeof(struct epk_counts) - 1, PAGE + 8, ~0ul };
	struct epk_counts counts;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		memset(&counts, 0xaa, sizeof(counts));
		counts.size = wrong[i];
		REQUIRE_EQ(epk_counts(&counts), -EINVAL);
		REQUIRE_EQ(counts.size, wrong[i]);
		REQUIRE_EQ(counts.domains, 0xaaaaaaaaaaaaaaaa);
	}
}

#define WITH_MEMORY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MEMORY(munmap_whole),
		WITH_MEMORY(munmap_front),
		WITH_MEMORY(munmap_back),
		WITH_MEMORY(munmap_middle),
		WITH_MEMORY(munmap_several_that_touch),
		WITH_MEMORY(munmap_misaligned),
		WITH_MEMORY(munmap_len_zero),
		WITH_MEMORY(munmap_overflow),
		WITH_MEMORY(munmap_not_domain_memory),
		WITH_MEMORY(munmap_beyond_end),
		WITH_MEMORY(munmap_returns_memory),
		WITH_MEMORY(for_each_null),
		WITH_MEMORY(for_each_all_and_stop),
		WITH_MEMORY(place_bad_id),
		WITH_MEMORY(counts_null),
		WITH_MEMORY(counts_domains),
		WITH_MEMORY(counts_of_each_size),
		WITH_MEMORY(counts_of_no_size),
	};

	need_backend();
	free_domain(new_domain());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
