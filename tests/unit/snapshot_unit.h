/* SPDX-License-Identifier: MIT */
/* What the tests of epk_snapshot() and epk_snapshot_domain() share. */
#ifndef SNAPSHOT_UNIT_H
#define SNAPSHOT_UNIT_H

#include "unit.h"

#define PAGES	64ul

static char *mem, was[PAGES * PAGE] __attribute__((aligned(4096)));
static int snap;

/* Each page has something else, but for some that have nothing. */
static inline void fill(char *at, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		if (i % 5)
			memset(at + i * PAGE, i + 1, PAGE);
}

static inline bool is_back(void)
{
	return !memcmp(mem, was, sizeof(was));
}

/* Some pages and parts of pages, again and again. */
static inline void comes_back_again(void)
{
	int i;

	REQUIRE(is_back());
	for (i = 0; i < 3; i++) {
		mem[0] ^= 1;
		mem[7 * PAGE + 5] ^= 1;
		mem[PAGES * PAGE - 1] ^= 1;
		memset(mem + 20 * PAGE, i, 3 * PAGE);
		REQUIRE(!is_back());
		REQUIRE_EQ(epk_rollback(snap), 0);
		REQUIRE(is_back());
		REQUIRE_EQ(epk_rollback(snap), 0);
		REQUIRE(is_back());
	}
}

/* The copy of @snap: the larger of its two mappings. */
struct unit_copy {
	int id;
	char *addr;
	size_t len;
};

static inline int find_copy(int id, void *addr, size_t len, void *arg)
{
	struct unit_copy *copy = arg;

	if (id == copy->id && len >= copy->len) {
		copy->addr = addr;
		copy->len = len;
	}
	return 0;
}

static inline struct unit_copy copy_of(int id)
{
	struct unit_copy copy = { .id = id };

	REQUIRE_EQ(epk_for_each_mapping(find_copy, &copy), 0);
	REQUIRE(copy.addr);
	return copy;
}

#define REQUIRE_CAUSE(call, error, words) do {				\
	REQUIRE_EQ(call, -(error));					\
	if (!strstr(epk_strerror(error), words))			\
		FAIL("%s: %s", #call, epk_strerror(error));		\
} while (0)

#endif
