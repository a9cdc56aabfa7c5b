/* SPDX-License-Identifier: MIT */
/* What the tests of libepk-pkeys.so share: memory, and a key, which is closed. */
#ifndef EPK_PKEYS_UNIT_H
#define EPK_PKEYS_UNIT_H

#include "may.h"

#define PAGES	4ul
#define CLOSED	PKEY_DISABLE_ACCESS
#define READ	PKEY_DISABLE_WRITE
#define OPEN	0

static char *mem, value;
static int key;

static inline char *map_pages(size_t pages)
{
	char *got = mmap(NULL, pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE_NE(got, MAP_FAILED);
	return got;
}

/* Each page is 'a', 'b' and so on, and the last one is untouched. */
static inline void fill(char *to)
{
	size_t page;

	for (page = 0; page < PAGES - 1; page++)
		memset(to + page * PAGE, 'a' + page, PAGE);
}

static inline bool is_filled(const char *from)
{
	size_t at;

	for (at = 0; at < PAGES * PAGE; at++)
		if (from[at] != (at < (PAGES - 1) * PAGE ? (char)('a' + at / PAGE) : 0))
			return false;
	return true;
}

static inline int set_up(void **state)
{
	(void)state;
	mem = map_pages(PAGES);
	fill(mem);
	key = pkey_alloc(0, CLOSED);
	return key <= 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	pkey_free(key);
	return munmap(mem, PAGES * PAGE);
}

static inline void give(int to, int prot)
{
	REQUIRE_EQ(pkey_mprotect(mem, PAGES * PAGE, prot, to), 0);
}

static inline int may_at(char *addr)
{
	return backend_protects() ? may(addr) : RW;
}

static inline int new_key(unsigned int rights)
{
	int got = pkey_alloc(0, rights);

	REQUIRE(got > 0);
	return got;
}

#define WITH_KEY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif /* EPK_PKEYS_UNIT_H */
