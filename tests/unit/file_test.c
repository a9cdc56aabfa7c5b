// SPDX-License-Identifier: MIT
/* epk_mmap_file(): one content with the file, and every error. */
#define _GNU_SOURCE
#include "unit.h"

#include <fcntl.h>

#define PAGES	4

static int id, fd;
static char path[] = "/tmp/epk-file-XXXXXX";

static int set_up(void **state)
{
	(void)state;
	strcpy(path + sizeof(path) - 7, "XXXXXX");
	id = new_domain();
	fd = mkostemp(path, O_CLOEXEC);
	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, PAGES * PAGE), 0);
	REQUIRE_EQ(pwrite(fd, "first", 6, 0), 6);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free_domain(id);
	REQUIRE_EQ(count_epk_mappings(), 0);
	unlink(path);
	close(fd);
	return 0;
}

static char *map(int prot, int file, uint64_t offset)
{
	char *mem = epk_mmap_file(id, NULL, PAGES * PAGE, prot, 0, file, offset);

	REQUIRE_NE(mem, MAP_FAILED);
	return mem;
}

static void require_file(uint64_t offset, const char *text)
{
	char got[16] = "";

	REQUIRE_EQ(pread(fd, got, strlen(text) + 1, offset), strlen(text) + 1);
	REQUIRE_STR_EQ(got, text);
}

static void file_both_ways(void **state)
{
	char *mem = map(RW, fd, 0), byte;

	(void)state;
	if (backend_protects())
		REQUIRE(!try_read(mem, &byte));
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_STR_EQ(mem, "first");
	strcpy(mem + PAGE, "second");
	REQUIRE_EQ(pwrite(fd, "third", 6, 2 * PAGE), 6);
	REQUIRE_STR_EQ(mem + 2 * PAGE, "third");
	REQUIRE_EQ(msync(mem, PAGES * PAGE, MS_SYNC), 0);
	REQUIRE_EQ(domain_end(id), 0);
	require_file(PAGE, "second");
	if (backend_protects())
		REQUIRE(!try_read(mem, &byte));
	REQUIRE_EQ(domain_munmap(mem, PAGES * PAGE), 0);
	require_file(PAGE, "second");
}

static void file_offset_and_two_domains(void **state)
{
	int other = new_domain();
	char *mem = map(RW, fd, 0), *part;

	(void)state;
	part = epk_mmap_file(other, NULL, PAGE, RW, MAP_SHARED, fd, 3 * PAGE);
	REQUIRE_NE(part, MAP_FAILED);
	REQUIRE_EQ(domain_begin(other, RW), 0);
	strcpy(part, "shared");
	REQUIRE_EQ(domain_end(other), 0);
	REQUIRE_EQ(domain_begin(id, PROT_READ), 0);
	REQUIRE_STR_EQ(mem + 3 * PAGE, "shared");
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(other);
}

static void file_only_read(void **state)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	char *mem;

	(void)state;
	REQUIRE_EQ(epk_mmap_file(id, NULL, PAGE, RW, 0, file, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EACCES);
	mem = map(PROT_READ, file, 0);
	close(file);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_STR_EQ(mem, "first");
	REQUIRE(!try_write(mem, 1));
	REQUIRE_EQ(domain_end(id), 0);
}

static void file_truncated(void **state)
{
	char *mem = map(RW, fd, 0), byte = 1;

	(void)state;
	REQUIRE_EQ(domain_begin(id, RW), 0);
	mem[PAGE] = 7;
	REQUIRE_EQ(ftruncate(fd, PAGE), 0);
	REQUIRE(!try_read(mem + PAGE, &byte));
	REQUIRE_EQ(ftruncate(fd, 2 * PAGE), 0);
	REQUIRE(try_read(mem + PAGE, &byte));
	REQUIRE_EQ(byte, 0);
	REQUIRE_EQ(domain_end(id), 0);
}

static void file_fixed(void **state)
{
	char *mem = map(RW, fd, 0);

	(void)state;
	REQUIRE_EQ(epk_mmap_file(id, mem, PAGE, RW, MAP_FIXED_NOREPLACE, fd, 0), MAP_FAILED);
	REQUIRE_EQ(errno, EEXIST);
	REQUIRE_EQ(domain_munmap(mem, PAGE), 0);
	REQUIRE_EQ(epk_mmap_file(id, mem, PAGE, RW, MAP_FIXED_NOREPLACE, fd, PAGE), mem);
}

struct bad {
	int error, dom_id;
	size_t len;
	int prot, flags, fd;
	uint64_t offset;
};

static void file_bad_arguments(void **state)
{
	int pipes[2], file = open(path, O_WRONLY | O_CLOEXEC);
	int kind = backend_is("epk") || backend_is("vmfunc") ? EOPNOTSUPP : ENODEV;
	size_t i;

	(void)state;
	REQUIRE_EQ(pipe(pipes), 0);
	const struct bad bad[] = {
		{ EINVAL, 0, PAGE, RW, 0, fd, 0 },
		{ ENOENT, id + 1, PAGE, RW, 0, fd, 0 },
		{ EINVAL, id, 0, RW, 0, fd, 0 },
		{ EOVERFLOW, id, SIZE_MAX, RW, 0, fd, 0 },
		{ EINVAL, id, PAGE, PROT_EXEC, 0, fd, 0 },
		{ EINVAL, id, PAGE, RW, MAP_PRIVATE, fd, 0 },
		{ EINVAL, id, PAGE, RW, MAP_ANONYMOUS, fd, 0 },
		{ EINVAL, id, PAGE, RW, MAP_FIXED, fd, 0 },
		{ EINVAL, id, PAGE, RW, MAP_POPULATE, fd, 0 },
		{ EINVAL, id, PAGE, RW, 0, fd, 100 },
		{ EBADF, id, PAGE, RW, 0, -1, 0 },
		{ EACCES, id, PAGE, PROT_READ, 0, file, 0 },
		{ kind, id, PAGE, PROT_READ, 0, pipes[0], 0 },
	};

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		errno = 0;
		REQUIRE_EQ(epk_mmap_file(bad[i].dom_id, NULL, bad[i].len, bad[i].prot,
					 bad[i].flags, bad[i].fd, bad[i].offset), MAP_FAILED);
		if (errno != bad[i].error)
			FAIL("case %zu: %s", i, strerror(errno));
	}
	close(pipes[0]);
	close(pipes[1]);
	close(file);
}

#define WITH_FILE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FILE(file_both_ways),
		WITH_FILE(file_offset_and_two_domains),
		WITH_FILE(file_only_read),
		WITH_FILE(file_truncated),
		WITH_FILE(file_fixed),
		WITH_FILE(file_bad_arguments),
	};

	need_backend();
	free_domain(new_domain());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
