// SPDX-License-Identifier: MIT
/*
 * Last on the debug kernel: does kmemleak or page_owner know of memory that the module got and
 * nobody has any more?  No context is open now.
 */
#include "epk_test.h"

#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define PAGE_OWNER	"/sys/kernel/debug/page_owner"
/* kmemleak takes a lock for each pointer that it finds. */
#define PROVE_LOCKING	"/sys/module/lockdep/parameters/prove_locking"
#define OURS		"[epk]"

/* What a running module has: from its start, slabs, and page tables of the kernel. */
static bool may_stay(const char *line)
{
	return strstr(line, "do_one_initcall") || strstr(line, "slab") ||
	       strstr(line, "_alloc_kernel") || strstr(line, "pmd_alloc") ||
	       strstr(line, "pud_alloc") || strstr(line, "stack_depot");
}

/*
 * The entries of @path, which begin with @head, that have us in their stack and may not stay.
 * The first few are shown.
 */
static unsigned int entries(const char *path, const char *head, unsigned int *all)
{
	bool ours = false, stays = false;
	char line[512], entry[4096] = "";
	FILE *file = fopen(path, "r");
	unsigned int count = 0;

	REQUIRE(file);
	*all = 0;
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, head, strlen(head))) {
			count += ours && !stays;
			if (ours && !stays && count <= 4)
				puts(entry);
			entry[0] = 0;
			ours = stays = false;
			++*all;
		}
		if (strlen(entry) + strlen(line) < sizeof(entry))
			strcat(entry, line);
		ours = ours || strstr(line, OURS);
		stays = stays || may_stay(line);
	}
	if (ours && !stays) {
		puts(entry);
		count++;
	}
	fclose(file);
	return count;
}

int main(void)
{
	unsigned int all;

	/* kvfree_rcu() takes its time, and kmemleak tells of no object younger than five seconds. */
	sleep(6);
	CHECK_EQ(entries(PAGE_OWNER, "Page allocated", &all), 0);
	/* Else page_owner is off. */
	CHECK(all > 1000);
	printf("page_owner: %u allocations\n", all);

	/* It has to look the same in two scans. */
	REQUIRE(put(PROVE_LOCKING, "0"));
	REQUIRE(put(KMEMLEAK, "scan"));
	REQUIRE(put(KMEMLEAK, "scan"));
	REQUIRE(put(PROVE_LOCKING, "1"));
	CHECK_EQ(entries(KMEMLEAK, "unreferenced object", &all), 0);
	printf("kmemleak: %u in the whole kernel\n", all);
	return epk_test_result();
}
