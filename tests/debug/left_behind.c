// SPDX-License-Identifier: MIT
/*
 * left_behind: look for what KVM has left in the host now that no VM exists: one
 * look after all tests, as it takes billions of instructions.
 *
 * Wants a kernel with kmemleak and page_owner=on: kernel.sh debug.
 */

#include "vmm.h"

#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define PAGE_OWNER	"/sys/kernel/debug/page_owner"
/* kmemleak takes a lock for each pointer that it finds. */
#define PROVE_LOCKING	"/sys/module/lockdep/parameters/prove_locking"

/*
 * Two scans in a row have to find an object without a reference, unchanged, and
 * it has to be at least five seconds old.
 */
static bool kmemleak_clean(void)
{
	unsigned int lines = 0;
	char line[256];
	FILE *file;

	sleep(6);
	write_file(PROVE_LOCKING, "0");
	write_file(KMEMLEAK, "scan");
	write_file(KMEMLEAK, "scan");
	write_file(PROVE_LOCKING, "1");
	file = fopen(KMEMLEAK, "r");
	REQUIRE(file);
	while (fgets(line, sizeof(line), file)) {
		if (lines++ < 60)
			printf("    %s", line);
	}
	fclose(file);
	printf("kmemleak: %s\n", lines ? "LEAKS" : "clean");
	return !lines;
}

/*
 * What may be left of pages that were allocated on KVM's account: those of the
 * modules themselves, slabs with free objects, the kernel's own page tables and
 * notes.
 */
static bool may_stay(const char *line)
{
	return strstr(line, "do_one_initcall") || strstr(line, "slab") ||
	       strstr(line, "_alloc_kernel") || strstr(line, "pmd_alloc") ||
	       strstr(line, "pud_alloc") || strstr(line, "stack_depot");
}

/* Show the first few that may not, and count them. */
static unsigned long pages_of_kvm(void)
{
	unsigned long pages = 0, all = 0;
	char line[512], entry[4096] = "";
	bool ours = false, stays = false;
	FILE *file = fopen(PAGE_OWNER, "r");

	REQUIRE(file);
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, "Page allocated", 14)) {
			entry[0] = 0;
			ours = stays = false;
			all++;
		}
		if (strlen(entry) + strlen(line) < sizeof(entry))
			strcat(entry, line);
		ours = ours || strstr(line, "[kvm");
		stays = stays || may_stay(line);
		if (line[0] != '\n' || !ours || stays)
			continue;
		if (pages++ < 4)
			printf("%s", entry);
		ours = false;
	}
	fclose(file);
	if (!all)
		die("page_owner is off");
	printf("page_owner: %lu allocations, %lu of them left by KVM\n", all, pages);
	return pages;
}

int main(void)
{
	unsigned long pages;
	bool clean;

	setvbuf(stdout, NULL, _IOLBF, 0);
	pages = pages_of_kvm();
	clean = kmemleak_clean();
	return !clean || pages;
}
