// SPDX-License-Identifier: MIT
/* Memory that changes in place: what lies over other memory, leaves its addresses reserved, or can do less. */
#define _GNU_SOURCE
#include <sys/syscall.h>

#include "map_limit.h"

#define PAGES	4ul

static int ids[2];
static char *mem, value;

static int set_up(void **state)
{
	(void)state;
	REQUIRE_EQ(alloc_domains(2, ids), 0);
	mem = new_pages(ids[0], PAGES);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	memset(mem, 'a', PAGES * PAGE);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return free_domains(2, ids);
}

static char *plain(void *addr, int prot, int flags)
{
	return mmap(addr, PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

/* What the page at @addr is to a thread that holds @id: RW, PROT_READ or nothing. */
static int may(int id, char *addr)
{
	int prot = 0;

	REQUIRE_EQ(domain_begin(id, RW), 0);
	if (try_read(addr, &value))
		prot = try_write(addr, value) ? RW : PROT_READ;
	REQUIRE_EQ(domain_end(id), 0);
	return prot;
}

static void reserve_keeps_the_place(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_munmap_reserve(mem + PAGE, 2 * PAGE), 0);
	REQUIRE_EQ(epk_domain_at(mem), ids[0]);
	REQUIRE_EQ(epk_domain_at(mem + PAGE), 0);
	REQUIRE_EQ(epk_domain_at(mem + 3 * PAGE), ids[0]);
	REQUIRE_EQ(may(ids[0], mem), RW);
	REQUIRE_EQ(may(ids[0], mem + PAGE), 0);
	REQUIRE_EQ(may(ids[0], mem + 3 * PAGE), RW);
	REQUIRE_EQ(plain(mem + 2 * PAGE, RW, MAP_FIXED_NOREPLACE), MAP_FAILED);
	REQUIRE_EQ(errno, EEXIST);
	REQUIRE_EQ(epk_munmap_reserve(mem, PAGES * PAGE), -EINVAL);
	/* Nothing of the domain's is there for who opens it. */
	REQUIRE_EQ(mprotect(mem + PAGE, PAGE, RW), 0);
	REQUIRE_EQ(mem[PAGE], 0);
	REQUIRE_EQ(munmap(mem + PAGE, 2 * PAGE), 0);
}

static void reserve_bad_arguments(void **state)
{
	char *ordinary = plain(NULL, RW, 0);

	(void)state;
	*ordinary = 1;
	REQUIRE_EQ(epk_munmap_reserve(mem + 1, PAGE), -EINVAL);
	REQUIRE_EQ(epk_munmap_reserve(mem, 0), -EINVAL);
	REQUIRE_EQ(epk_munmap_reserve(mem, -PAGE), -EOVERFLOW);
	REQUIRE_EQ(epk_munmap_reserve(ordinary, PAGE), -EINVAL);
	REQUIRE_EQ(epk_munmap_reserve(mem, (PAGES + 1) * PAGE), -EINVAL);
	REQUIRE_EQ(*ordinary, 1);
	REQUIRE_EQ(may(ids[0], mem), RW);
	REQUIRE_EQ(value, 'a');
	munmap(ordinary, PAGE);
}

/* From one domain to another, at the same address. */
static void reserve_and_map(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_munmap_reserve(mem, 2 * PAGE), 0);
	REQUIRE_EQ(domain_mmap(ids[1], mem, 2 * PAGE, RW, MAP_FIXED), mem);
	REQUIRE_EQ(epk_domain_at(mem), ids[1]);
	if (backend_protects())
		REQUIRE_EQ(may(ids[0], mem), 0);
	REQUIRE_EQ(may(ids[1], mem), RW);
	REQUIRE_EQ(value, 0);
	REQUIRE_EQ(may(ids[0], mem + 2 * PAGE), RW);
	REQUIRE_EQ(value, 'a');
}

static void fixed_over_ordinary_memory(void **state)
{
	char *ordinary = plain(NULL, RW, 0);

	(void)state;
	*ordinary = 1;
	REQUIRE_EQ(domain_mmap(ids[0], ordinary, PAGE, RW, MAP_FIXED), ordinary);
	REQUIRE_EQ(epk_domain_at(ordinary), ids[0]);
	if (backend_protects())
		REQUIRE(!try_read(ordinary, &value));
	REQUIRE_EQ(may(ids[0], ordinary), RW);
	REQUIRE_EQ(value, 0);
}

/* What is a domain's stays so, in whatever part the range lies over it. */
static void fixed_over_domain_memory(void **state)
{
	static const struct { long first, pages; } ranges[] = {
		{ 0, 1 }, { 0, PAGES }, { 1, 1 }, { 1, 2 }, { PAGES - 1, 1 }, { PAGES - 1, 2 }, { -1, 2 },
		{ -1, PAGES + 2 },
	};
	char *around = mmap(NULL, (PAGES + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t i;

	(void)state;
	REQUIRE_EQ(epk_munmap_reserve(mem, PAGES * PAGE), 0);
	mem = around + PAGE;
	REQUIRE_EQ(domain_mmap(ids[0], mem, PAGES * PAGE, RW, MAP_FIXED), mem);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	memset(mem, 'a', PAGES * PAGE);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	for (i = 0; i < 2 * sizeof(ranges) / sizeof(ranges[0]); i++) {
		char *at = mem + ranges[i / 2].first * (long)PAGE;

		errno = 0;
		REQUIRE_EQ(domain_mmap(ids[i % 2], at, ranges[i / 2].pages * PAGE, RW, MAP_FIXED),
			   MAP_FAILED);
		REQUIRE_EQ(errno, EEXIST);
	}
	REQUIRE_EQ(count_epk_mappings(), 1);
	for (i = 0; i < PAGES; i++) {
		REQUIRE_EQ(epk_domain_at(mem + i * PAGE), ids[0]);
		REQUIRE_EQ(may(ids[0], mem + i * PAGE), RW);
		REQUIRE_EQ(value, 'a');
	}
	/* What touches it is free. */
	REQUIRE_EQ(domain_mmap(ids[1], mem - PAGE, PAGE, RW, MAP_FIXED), mem - PAGE);
	REQUIRE_EQ(domain_mmap(ids[1], mem + PAGES * PAGE, PAGE, RW, MAP_FIXED), mem + PAGES * PAGE);
	REQUIRE_EQ(may(ids[1], mem - PAGE), RW);
}

/* What fails after it has replaced something leaves no hole, in which another thread's memory could come to lie. */
static void fixed_that_fails_leaves_no_hole(void **state)
{
	char *around = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *got;
	int room;

	(void)state;
	if (backend_is("epk") || !limit_is_near())
		return;
	for (room = 0; room < 6; room++) {
		limit_reach();
		limit_release(room);
		got = domain_mmap(ids[0], around + PAGE, PAGE, RW, MAP_FIXED);
		limit_forget();
		REQUIRE_EQ(plain(around + PAGE, RW, MAP_FIXED_NOREPLACE), MAP_FAILED);
		if (got != MAP_FAILED)
			REQUIRE_EQ(epk_munmap_reserve(around + PAGE, PAGE), 0);
	}
	munmap(around, 3 * PAGE);
}

static void protect_part(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_mprotect(mem + PAGE, 2 * PAGE, PROT_READ), 0);
	REQUIRE_EQ(may(ids[0], mem), RW);
	REQUIRE_EQ(may(ids[0], mem + PAGE), PROT_READ);
	REQUIRE_EQ(may(ids[0], mem + 2 * PAGE), PROT_READ);
	REQUIRE_EQ(may(ids[0], mem + 3 * PAGE), RW);
	REQUIRE_EQ(epk_mprotect(mem, 2 * PAGE, PROT_NONE), 0);
	REQUIRE_EQ(may(ids[0], mem), 0);
	REQUIRE_EQ(may(ids[0], mem + PAGE), 0);
	REQUIRE_EQ(may(ids[0], mem + 2 * PAGE), PROT_READ);
	/* Several mappings by now. */
	REQUIRE_EQ(epk_mprotect(mem, PAGES * PAGE, PROT_WRITE), 0);
	REQUIRE_EQ(may(ids[0], mem + PAGE), RW);
	REQUIRE_EQ(value, 'a');
	if (backend_protects())
		REQUIRE(!try_read(mem, &value));
}

static void protect_while_held(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(epk_mprotect(mem, PAGE, PROT_READ), 0);
	REQUIRE(try_read(mem, &value));
	REQUIRE(!try_write(mem, 0));
	REQUIRE(try_write(mem + PAGE, 'a'));
	REQUIRE_EQ(epk_mprotect(mem, PAGE, RW), 0);
	REQUIRE(try_write(mem, 'a'));
	REQUIRE_EQ(domain_end(ids[0]), 0);
}

/* More domains than have keys under "mpk": it is not forgotten while the domain has none. */
static void protect_outlasts_eviction(void **state)
{
	int others[20], i;

	(void)state;
	REQUIRE_EQ(epk_mprotect(mem, PAGE, PROT_READ), 0);
	REQUIRE_EQ(alloc_domains(20, others), 0);
	for (i = 0; i < 20; i++) {
		new_pages(others[i], 1);
		REQUIRE_EQ(domain_begin(others[i], RW), 0);
		REQUIRE_EQ(domain_end(others[i]), 0);
	}
	REQUIRE_EQ(epk_mprotect(mem + PAGE, PAGE, PROT_READ), 0);
	if (backend_protects())
		REQUIRE(!try_read(mem + PAGE, &value));
	REQUIRE_EQ(may(ids[0], mem), PROT_READ);
	REQUIRE_EQ(may(ids[0], mem + PAGE), PROT_READ);
	REQUIRE_EQ(may(ids[0], mem + 2 * PAGE), RW);
	REQUIRE_EQ(free_domains(20, others), 0);
}

static void fill_what_nobody_can_access(void **state)
{
	static char from[2 * PAGE];

	(void)state;
	memset(from, 'f', sizeof(from));
	REQUIRE_EQ(epk_mprotect(mem, PAGE, PROT_NONE), 0);
	REQUIRE_EQ(epk_mprotect(mem + PAGE, PAGE, PROT_READ), 0);
	REQUIRE_EQ(epk_fill(mem, from, 2 * PAGE), -EACCES);
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
	REQUIRE_EQ(epk_fill(mem, from, 2 * PAGE), -EACCES);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(epk_fill(mem, from, 2 * PAGE), 0);
	REQUIRE(!try_read(mem, &value));
	REQUIRE_EQ(mem[PAGE], 'f');
	REQUIRE_EQ(epk_mprotect(mem, PAGE, PROT_READ), 0);
	REQUIRE_MEM_EQ(mem, from, 2 * PAGE);
	REQUIRE_EQ(mem[2 * PAGE], 'a');
	REQUIRE_EQ(epk_fill(mem + 1, from, PAGE), -EINVAL);
	REQUIRE_EQ(epk_fill(mem, from, 1), -EINVAL);
	REQUIRE_EQ(epk_fill(mem, from, 0), -EINVAL);
	REQUIRE_EQ(epk_fill(from, from, PAGE), -EINVAL);
	REQUIRE_EQ(epk_fill(mem, from, -PAGE), -EOVERFLOW);
	REQUIRE_EQ(epk_fill(mem, (void *)PAGE, PAGE), -EFAULT);
	REQUIRE_EQ(domain_end(ids[0]), 0);
}

static void protect_bad_arguments(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_mprotect(mem, PAGE, PROT_READ | PROT_EXEC), -EINVAL);
	REQUIRE_EQ(epk_mprotect(mem + 1, PAGE, PROT_READ), -EINVAL);
	REQUIRE_EQ(epk_mprotect(mem, 0, PROT_READ), -EINVAL);
	REQUIRE_EQ(epk_mprotect(mem, -PAGE, PROT_READ), -EOVERFLOW);
	REQUIRE_EQ(epk_mprotect(mem, (PAGES + 1) * PAGE, PROT_READ), -EINVAL);
	REQUIRE_EQ(may(ids[0], mem), RW);
}

#define WITH_MEMORY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MEMORY(reserve_keeps_the_place),
		WITH_MEMORY(reserve_bad_arguments),
		WITH_MEMORY(reserve_and_map),
		WITH_MEMORY(fixed_over_ordinary_memory),
		WITH_MEMORY(fixed_over_domain_memory),
		WITH_MEMORY(fixed_that_fails_leaves_no_hole),
		WITH_MEMORY(protect_part),
		WITH_MEMORY(protect_while_held),
		WITH_MEMORY(protect_outlasts_eviction),
		WITH_MEMORY(fill_what_nobody_can_access),
		WITH_MEMORY(protect_bad_arguments),
	};

	skip_if(backend_is("vmfunc"), "has its own tests of rights");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
