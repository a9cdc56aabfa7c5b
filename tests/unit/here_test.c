// SPDX-License-Identifier: MIT
/*
 * Allocators for code that knows of no domain, what an allocation has room for, what may be accessed,
 * and how many pages there are.
 */
#define _GNU_SOURCE
#include "unit.h"

static void allocates_where_it_is_held(void **state)
{
	int doms[2], i;
	char *got;

	(void)state;
	REQUIRE_EQ(alloc_domains(2, doms), 0);
	for (i = 0; i < 2; i++) {
		REQUIRE_EQ(domain_begin(doms[i], RW), 0);
		got = epk_malloc_here(100);
		REQUIRE(got);
		memset(got, 'x', 100);
		REQUIRE_EQ(epk_domain_at(got), doms[i]);
		got = epk_realloc_here(got, 5000);
		REQUIRE(got);
		REQUIRE(got[0] == 'x' && got[99] == 'x');
		REQUIRE_EQ(epk_domain_at(got), doms[i]);
		REQUIRE(epk_usable_size_here(got) >= 5000);
		errno = 0;
		epk_free_here(got);
		REQUIRE_EQ(errno, 0);
		/* It was given back. */
		REQUIRE_EQ(epk_free(doms[i], got), -EINVAL);
		got = epk_calloc_here(10, 10);
		REQUIRE(got);
		REQUIRE_EQ(got[0] | got[99], 0);
		REQUIRE_EQ(domain_end(doms[i]), 0);
		/* Not held any more, and found by where it lies. */
		epk_free_here(got);
		REQUIRE_EQ(errno, 0);
		REQUIRE_EQ(epk_free(doms[i], got), -EINVAL);
	}
	REQUIRE_EQ(free_domains(2, doms), 0);
}

static void refused_here(int error)
{
	errno = 0;
	REQUIRE(!epk_malloc_here(1));
	REQUIRE_EQ(errno, error);
	errno = 0;
	REQUIRE(!epk_calloc_here(1, 1));
	REQUIRE_EQ(errno, error);
	errno = 0;
	REQUIRE(!epk_realloc_here(NULL, 1));
	REQUIRE_EQ(errno, error);
}

/* None that is held, several, one to be read only. */
static void refuses_to_guess(void **state)
{
	int doms[2], left;
	char *got, ordinary[64];

	(void)state;
	REQUIRE_EQ(alloc_domains(2, doms), 0);
	refused_here(EINVAL);
	REQUIRE(strstr(epk_strerror(EINVAL), "epk_heap_choose"));
	REQUIRE_EQ(domain_begin(doms[0], PROT_READ), 0);
	refused_here(EINVAL);
	if (backend_holds_several()) {
		/* Of two one is to be written. */
		REQUIRE_EQ(domain_begin(doms[1], RW), 0);
		got = epk_malloc_here(1);
		REQUIRE_EQ(epk_domain_at(got), doms[1]);
		REQUIRE_EQ(domain_begin(doms[0], RW), 0);
		refused_here(EINVAL);
		REQUIRE_EQ(domain_end(doms[1]), 0);
	}
	REQUIRE_EQ(domain_end(doms[0]), 0);
	/* What was allocated by nobody here. */
	errno = 0;
	epk_free_here(ordinary);
	REQUIRE_EQ(errno, EINVAL);
	errno = 0;
	REQUIRE(!epk_realloc_here(ordinary, 10));
	REQUIRE_EQ(errno, EINVAL);
	errno = 0;
	REQUIRE_EQ(epk_usable_size_here(ordinary), 0);
	REQUIRE_EQ(errno, EINVAL);
	errno = 0;
	epk_free_here(NULL);
	REQUIRE_EQ(epk_usable_size_here(NULL), 0);
	REQUIRE_EQ(errno, 0);
	left = epk_held(NULL, 0);
	REQUIRE_EQ(left, 0);
	REQUIRE_EQ(free_domains(2, doms), 0);
}

static void *chooses_none(void *arg)
{
	errno = 0;
	return epk_malloc_here(1) || errno != EINVAL ? arg : NULL;
}

/* What is chosen counts, whatever is held; it is the thread's own, and need not be held. */
static void allocates_where_it_is_chosen(void **state)
{
	void *wrong = "chosen for all";
	int doms[2], i;
	char *got;

	(void)state;
	REQUIRE_EQ(alloc_domains(2, doms), 0);
	REQUIRE_EQ(epk_heap_choose(doms[0]), 0);
	REQUIRE_EQ(epk_heap_choose(doms[1]), doms[0]);
	got = epk_malloc_here(1);
	REQUIRE_EQ(epk_domain_at(got), doms[1]);
	if (backend_holds_several()) {
		REQUIRE_EQ(domain_begin(doms[0], RW), 0);
		for (i = 0; i < 2; i++) {
			got = epk_malloc_here(1);
			REQUIRE_EQ(epk_domain_at(got), doms[1]);
		}
		REQUIRE_EQ(domain_end(doms[0]), 0);
	}
	run_threads(chooses_none, &wrong, 1);
	/* A choice that is none changes nothing. */
	REQUIRE_EQ(epk_heap_choose(-1), -EINVAL);
	REQUIRE_EQ(epk_heap_choose(0x7fffffff), -ENOENT);
	got = epk_malloc_here(1);
	REQUIRE_EQ(epk_domain_at(got), doms[1]);
	REQUIRE_EQ(epk_heap_choose(0), doms[1]);
	refused_here(EINVAL);
	/* Freed while it is chosen. */
	REQUIRE_EQ(epk_heap_choose(doms[0]), 0);
	REQUIRE_EQ(free_domains(2, doms), 0);
	refused_here(ENOENT);
	REQUIRE_EQ(epk_heap_choose(0), doms[0]);
}

static void tells_sizes(void **state)
{
	static const size_t sizes[] = { 0, 1, 15, 16, 17, 100, 4096, 100000 };
	int dom = new_domain(), other = new_domain();
	unsigned int i;
	size_t size;
	char *got;

	(void)state;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		got = epk_malloc(dom, sizes[i]);
		size = epk_usable_size(dom, got);
		REQUIRE(size >= sizes[i] && size >= 1 && size < sizes[i] + 64);
		/* All of it is there to be used, and nothing else: the next one is whole. */
		EPK_WITH(dom, RW)
			memset(got, 0x55, size);
		REQUIRE_EQ(epk_free(dom, epk_malloc(dom, 10)), 0);
		REQUIRE_EQ(epk_usable_size(dom, got), size);
		errno = 0;
		REQUIRE_EQ(epk_usable_size(other, got), 0);
		REQUIRE_EQ(errno, EINVAL);
		REQUIRE_EQ(epk_free(dom, got), 0);
		errno = 0;
		REQUIRE_EQ(epk_usable_size(dom, got), 0);
		REQUIRE_EQ(errno, EINVAL);
	}
	REQUIRE_EQ(epk_usable_size(dom, NULL), 0);
	free_domain(other);
	free_domain(dom);
	errno = 0;
	REQUIRE_EQ(epk_usable_size(dom, got), 0);
	REQUIRE_EQ(errno, ENOENT);
}

/* Each kind of range, with each that can be held of it. */
static void tells_what_may_be_accessed(void **state)
{
	int dom = new_domain(), other = new_domain();
	char ordinary[16], *mem, *file;

	(void)state;
	mem = new_pages(dom, 2);
	file = domain_mmap(dom, NULL, PAGE, PROT_READ, 0);
	REQUIRE_NE(file, MAP_FAILED);
	new_pages(other, 1);
	REQUIRE_EQ(epk_may_access(ordinary, 16, RW), 0);
	REQUIRE_EQ(epk_may_access(NULL, 1, PROT_READ), 0);
	REQUIRE_EQ(epk_may_access(mem, 0, RW), 0);
	REQUIRE_EQ(epk_may_access(mem, 1, PROT_READ), -EACCES);
	REQUIRE_EQ(epk_may_access(mem + 2 * PAGE - 1, 1, PROT_READ), -EACCES);
	/* Begins before it, ends behind it. */
	REQUIRE_EQ(epk_may_access(mem - 8, 9, PROT_READ), -EACCES);
	REQUIRE_EQ(domain_begin(dom, PROT_READ), 0);
	REQUIRE_EQ(epk_may_access(mem, 2 * PAGE, PROT_READ), 0);
	REQUIRE_EQ(epk_may_access(mem, 2 * PAGE, PROT_WRITE), -EACCES);
	REQUIRE_EQ(epk_may_access(mem + 10, 1, RW), -EACCES);
	REQUIRE_EQ(domain_begin(dom, RW), 0);
	REQUIRE_EQ(epk_may_access(mem, 2 * PAGE, PROT_WRITE), 0);
	REQUIRE_EQ(epk_may_access(file, PAGE, PROT_READ), 0);
	REQUIRE_EQ(epk_may_access(file, 1, RW), -EACCES);
	/* It is held as before. */
	REQUIRE_EQ(epk_held_prot(dom), RW);
	mem[0] = 1;
	REQUIRE_EQ(domain_end(dom), 0);
	REQUIRE_EQ(domain_begin(other, RW), 0);
	REQUIRE_EQ(epk_may_access(mem, 1, PROT_READ), -EACCES);
	REQUIRE_EQ(domain_end(other), 0);
	REQUIRE_EQ(epk_may_access(mem, 1, 0), -EINVAL);
	REQUIRE_EQ(epk_may_access(mem, 1, PROT_EXEC), -EINVAL);
	REQUIRE_EQ(epk_may_access(mem, SIZE_MAX, PROT_READ), -EOVERFLOW);
	free_domain(other);
	free_domain(dom);
	REQUIRE_EQ(epk_may_access(mem, 1, PROT_READ), 0);
}

static uint64_t pages(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	REQUIRE_EQ(epk_counts(&counts), 0);
	return counts.pages;
}

/* Whatever the backend: those that were touched. */
static void counts_pages(void **state)
{
	uint64_t before = pages();
	int dom = new_domain(), i;
	char *mem = new_pages(dom, 1100);

	(void)state;
	REQUIRE_EQ(pages(), before);
	/* Or one touch has memory for 512. */
	madvise(mem, 1100 * PAGE, MADV_NOHUGEPAGE);
	EPK_WITH(dom, RW)
		for (i = 0; i < 1100; i += 3)
			mem[i * PAGE] = 1;
	REQUIRE_EQ(pages(), before + 367);
	REQUIRE_EQ(domain_munmap(mem, 3 * PAGE), 0);
	REQUIRE_EQ(pages(), before + 366);
	free_domain(dom);
	REQUIRE_EQ(pages(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(allocates_where_it_is_held),
		cmocka_unit_test(refuses_to_guess),
		cmocka_unit_test(allocates_where_it_is_chosen),
		cmocka_unit_test(tells_sizes),
		cmocka_unit_test(tells_what_may_be_accessed),
		cmocka_unit_test(counts_pages),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
