// SPDX-License-Identifier: MIT
/*
 * Each call that takes a domain, with each kind of ID that is none: it fails with the
 * error for that kind, changes nothing, and under EPK_DEBUG=1 says so on stderr.
 */
#define _GNU_SOURCE
#include <limits.h>

#include "unit.h"

static int good, freed, here;

static int from_errno(const void *failed, const void *got)
{
	return got == failed ? -errno : 0;
}

static long nothing(void *arg)
{
	(void)arg;
	return 0;
}

static int try_free_domains(int id)
{
	return free_domains(1, &id);
}

static int try_free_behind_good(int id)
{
	int both[2] = { good, id };

	return free_domains(2, both);
}

static int try_mmap(int id)
{
	return from_errno(MAP_FAILED, domain_mmap(id, NULL, PAGE, RW, 0));
}

static int try_begin(int id)
{
	return domain_begin(id, PROT_READ);
}

static int try_beside(int id)
{
	return epk_alloc_beside(1, &here, id);
}

static int try_place(int id)
{
	return epk_domain_place(id, NULL, NULL);
}

static int try_malloc(int id)
{
	return from_errno(NULL, epk_malloc(id, 1));
}

static int try_calloc(int id)
{
	return from_errno(NULL, epk_calloc(id, 1, 1));
}

static int try_memalign(int id)
{
	return from_errno(NULL, epk_memalign(id, 64, 1));
}

static int try_realloc(int id)
{
	return from_errno(NULL, epk_realloc(id, NULL, 1));
}

static int try_heap_free(int id)
{
	return epk_free(id, &here);
}

static int try_call(int id)
{
	return epk_call(id, nothing, NULL, NULL);
}

static int try_with(int id)
{
	int err;

	EPK_WITH_ERROR(err, id, PROT_READ)
		abort();
	return err;
}

/* @says: what it calls itself under EPK_DEBUG=1; NULL: it says nothing. */
static const struct {
	int (*call)(int id);
	const char *says;
} calls[] = {
	{ try_free_domains, "free_domains(" },
	{ try_free_behind_good, "free_domains(" },
	{ try_mmap, "domain_mmap(" },
	{ try_begin, "domain_begin(" },
	{ epk_begin_read, "domain_begin(" },
	{ epk_begin_write, "domain_begin(" },
	{ try_with, "domain_begin(" },
	{ domain_end, "domain_end(" },
	{ try_beside, "epk_alloc_beside(" },
	{ try_place, NULL },
	{ epk_held_prot, NULL },
	{ try_malloc, "(" },
	{ try_calloc, "(" },
	{ try_memalign, "(" },
	{ try_realloc, "(" },
	{ try_heap_free, "(" },
	{ try_call, "epk_call(" },
};

/* What a call writes to stderr; @err is what it returns. */
static void listen(unsigned int i, int id, int *err, char *said, size_t size)
{
	int saved = dup(STDERR_FILENO), pipes[2];
	ssize_t got;

	REQUIRE(saved >= 0 && !pipe(pipes));
	REQUIRE(dup2(pipes[1], STDERR_FILENO) == STDERR_FILENO);
	close(pipes[1]);
	*err = calls[i].call(id);
	REQUIRE(dup2(saved, STDERR_FILENO) == STDERR_FILENO);
	close(saved);
	got = read(pipes[0], said, size - 1);
	close(pipes[0]);
	said[got > 0 ? got : 0] = 0;
}

static void require_all(int id, int error)
{
	char said[512];
	unsigned int i;
	int err;

	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		listen(i, id, &err, said, sizeof(said));
		if (err != error)
			fprintf(stderr, "call %u with ID %d: %d, not %d\n", i, id, err, error);
		REQUIRE(err == error);
		if (!getenv("EPK_DEBUG") || !calls[i].says) {
			REQUIRE(!*said);
			continue;
		}
		REQUIRE(strstr(said, calls[i].says));
		REQUIRE(strstr(said, strerrorname_np(-error)) && strstr(said, epk_strerror(error)));
	}
}

static void wrong_ids(void)
{
	struct unit_resources before;
	int held;

	REQUIRE(!alloc_domains(1, &held) && !alloc_domains(1, &good) && !alloc_domains(1, &freed));
	REQUIRE(!free_domains(1, &freed));
	/* What each call makes once and keeps. */
	REQUIRE(!domain_begin(good, RW) && !domain_end(good));
	before = count_resources();
	require_all(0, -EINVAL);
	require_all(-1, -EINVAL);
	require_all(INT_MIN, -EINVAL);
	require_all(good | INT_MIN, -EINVAL);
	require_all(freed, -ENOENT);
	require_all(good + (1 << 17), -ENOENT);
	require_all(INT_MAX, -ENOENT);
	require_all(1, -ENOENT);
	/* Whoever holds another. */
	REQUIRE(!domain_begin(held, RW));
	require_all(0, -EINVAL);
	require_all(freed, -ENOENT);
	REQUIRE(domain_begin(held, PROT_READ) == -EALREADY && epk_held_prot(held) == RW);
	REQUIRE(!domain_end(held));
	REQUIRE(domain_end(held) == -EACCES);
	require_nothing_lost(before);
}

static void inherited_ids(void)
{
	int parents, status;
	pid_t pid;

	REQUIRE(!alloc_domains(1, &parents));
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		REQUIRE(!alloc_domains(1, &good));
		require_all(parents, -EPERM);
		REQUIRE(!domain_begin(good, RW) && !domain_end(good));
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
	REQUIRE(!domain_begin(parents, RW) && !domain_end(parents));
}

static void explained(void (*body)(void))
{
	run_in_child(body);
	setenv("EPK_DEBUG", "1", 1);
	run_in_child(body);
	unsetenv("EPK_DEBUG");
}

static void each_call_each_wrong_id(void **state)
{
	(void)state;
	explained(wrong_ids);
}

static void each_call_with_the_parents(void **state)
{
	(void)state;
	explained(inherited_ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_call_each_wrong_id),
		cmocka_unit_test(each_call_with_the_parents),
	};

	need_backend();
	unsetenv("EPK_DEBUG");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
