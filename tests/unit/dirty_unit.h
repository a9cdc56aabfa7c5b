/* SPDX-License-Identifier: MIT */
/* What the tests of epk_dirty_start() share: 64 pages that are watched, and what of them is told. */
#ifndef DIRTY_UNIT_H
#define DIRTY_UNIT_H

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#define PAGES	64
#define HUGE	(2ul << 20)

static unsigned char *mem;
static unsigned char copy[PAGES * PAGE] __attribute__((aligned(4096)));
static struct epk_dirty *dirty;
static struct epk_pages ranges[PAGES];
/* How many of them the last call has written. */
static int last;

static __attribute__((unused)) void map_at(void *addr, size_t pages)
{
	REQUIRE_EQ(mmap(addr, pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), addr);
	REQUIRE_EQ(madvise(addr, pages * PAGE, MADV_NOHUGEPAGE), 0);
}

/* Every second page has something.  Nothing else lies beside it that it could be merged with. */
static __attribute__((unused)) int set_up(void **state)
{
	int i;

	(void)state;
	mem = mmap(NULL, (PAGES + 2) * PAGE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE_NE(mem, MAP_FAILED);
	mem += PAGE;
	map_at(mem, PAGES);
	for (i = 0; i < PAGES; i += 2)
		memset(mem + i * PAGE, i + 1, PAGE);
	memcpy(copy, mem, sizeof(copy));
	REQUIRE_EQ(epk_dirty_start(mem, PAGES * PAGE, &dirty), 0);
	return 0;
}

static __attribute__((unused)) int tear_down(void **state)
{
	(void)state;
	if (dirty)
		REQUIRE_EQ(epk_dirty_stop(dirty), 0);
	dirty = NULL;
	return munmap(mem - PAGE, (PAGES + 2) * PAGE);
}

static __attribute__((unused)) int collect_some(int max)
{
	unsigned char *behind = mem;
	int nr = epk_dirty_collect(dirty, ranges, max), i;

	last = nr;
	for (i = 0; i < nr; i++) {
		REQUIRE((unsigned char *)ranges[i].addr >= behind + (i ? PAGE : 0));
		REQUIRE(ranges[i].len && ranges[i].len % PAGE == 0);
		behind = (unsigned char *)ranges[i].addr + ranges[i].len;
		REQUIRE(behind <= mem + PAGES * PAGE);
	}
	return nr;
}

static __attribute__((unused)) int collect(void)
{
	return collect_some(PAGES);
}

static __attribute__((unused)) bool is_told(int nr, int page)
{
	unsigned char *addr = mem + page * PAGE;
	int i;

	for (i = 0; i < nr; i++)
		if (addr >= (unsigned char *)ranges[i].addr &&
		    addr < (unsigned char *)ranges[i].addr + ranges[i].len)
			return true;
	return false;
}

/* These and no others. */
static __attribute__((unused)) void require_told(const char *pages)
{
	int nr = collect(), i;

	for (i = 0; i < PAGES; i++)
		REQUIRE_EQ(is_told(nr, i), i < (int)strlen(pages) && pages[i] == 'x');
}

/* The number of the last, if @last is wanted. */
static __attribute__((unused)) int count_userfaultfds(int *last_one)
{
	char link[64], to[64];
	ssize_t got;
	int fd, nr = 0;

	for (fd = 0; fd < 1024; fd++) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		got = readlink(link, to, sizeof(to) - 1);
		to[got < 0 ? 0 : got] = '\0';
		if (strcmp(to, "anon_inode:[userfaultfd]"))
			continue;
		nr++;
		if (last_one)
			*last_one = fd;
	}
	return nr;
}

static __attribute__((unused)) void map_file(int fd, int flags)
{
	REQUIRE_EQ(mmap(mem, 8 * PAGE, RW, flags | MAP_FIXED, fd, 0), mem);
}

/* Debian's from 12's backports on has all of it; without userfaultfd, or /proc, no test could say so. */
static __attribute__((unused)) void kernel_that_cannot(void **state)
{
	struct epk_dirty *other = NULL;
	struct utsname name;
	int major, minor;

	(void)state;
	REQUIRE_EQ(epk_dirty_start(copy, PAGE, &other), -EOPNOTSUPP);
	REQUIRE(!other);
	REQUIRE(strstr(epk_strerror(-EOPNOTSUPP), "userfaultfd"));
	REQUIRE_EQ(uname(&name), 0);
	REQUIRE_EQ(sscanf(name.release, "%d.%d", &major, &minor), 2);
	REQUIRE(major < 6 || (major == 6 && minor < 12));
}

#define WITH_MEMORY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* Or what a kernel says that cannot. */
#define RUN_WITH_MEMORY(tests) ({						\
	const struct CMUnitTest without[] = { cmocka_unit_test(kernel_that_cannot) };	\
										\
	epk_dirty_start(copy, PAGE, &dirty) != -EOPNOTSUPP && !epk_dirty_stop(dirty) && !(dirty = NULL) ?	\
		cmocka_run_group_tests(tests, NULL, NULL) : cmocka_run_group_tests(without, NULL, NULL);	\
})

#endif
