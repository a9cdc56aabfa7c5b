/* SPDX-License-Identifier: MIT */
/* As many mappings as there can be, but for some. */
#ifndef EPK_MAP_LIMIT_H
#define EPK_MAP_LIMIT_H

#include "unit.h"

#define LIMIT_PAGES	140000ul

static char *limit_pages;
static size_t limit_at;

static inline void limit_reach(void)
{
	limit_pages = mmap(NULL, LIMIT_PAGES * PAGE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	REQUIRE_NE(limit_pages, MAP_FAILED);
	mprotect(limit_pages + (LIMIT_PAGES - 1) * PAGE, PAGE, PROT_READ);
	for (limit_at = 1; limit_at < LIMIT_PAGES - 2; limit_at += 2)
		if (mprotect(limit_pages + limit_at * PAGE, PAGE, PROT_READ))
			break;
}

/* So many more there can be. */
static inline void limit_release(int room)
{
	if (room % 2)
		mprotect(limit_pages + (LIMIT_PAGES - 1) * PAGE, PAGE, PROT_NONE);
	for (room /= 2; room; room--) {
		limit_at -= 2;
		mprotect(limit_pages + limit_at * PAGE, PAGE, PROT_NONE);
	}
}

static inline void limit_forget(void)
{
	munmap(limit_pages, LIMIT_PAGES * PAGE);
}

/* The limit is low enough to be reached. */
static inline bool limit_is_near(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
	long most = 0;

	if (!file || fscanf(file, "%ld", &most) != 1)
		most = 0;
	if (file)
		fclose(file);
	return most > 0 && most < (long)LIMIT_PAGES / 2;
}

#endif /* EPK_MAP_LIMIT_H */
