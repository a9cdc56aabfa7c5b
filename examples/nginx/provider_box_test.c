// SPDX-License-Identifier: MIT
/* Boxes, where a signal handler that interrupted the code below forks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <epk.h>

/* So that what is freed is seen. */
static unsigned int nr_freed;

static void count_and_free(void *block)
{
	nr_freed++;
	free(block);
}

/* In place of libepk's. */
static bool opens_nothing;

int epk_begin_write(int dom)
{
	static int (*begin)(int dom);

	if (!begin)
		begin = (int (*)(int))dlsym(RTLD_NEXT, "epk_begin_write");
	return opens_nothing ? -EINVAL : begin(dom);
}

#define free count_and_free
#include "provider/box.c"
#undef free
#include "provider/publish.c"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

bool epkp_raise_error(struct provider *prov, const char *file, int line, const char *func,
		      enum epk_reason reason, const char *fmt, ...)
{
	(void)prov;
	(void)func;
	print_message("%s:%d: reason %d, %s\n", file, line, reason, fmt);
	return false;
}

/* The vault has tests of its own. */
void epkp_vault_before_fork(void)
{
}

void epkp_vault_after_fork(void)
{
}

void epkp_vault_in_child(int err)
{
	(void)err;
}

static bool is_usable(struct box *box)
{
	if (!box || !epkp_box_open(NULL, box))
		return false;
	box->mem[0] = 1;
	return epkp_box_close(NULL, box);
}

/* What is interrupted is between lock() and unlock(). */
static void handler_may_fork(void **state)
{
	struct box *box = epkp_box_get(NULL), *other;
	int status, round;
	pid_t pid;

	(void)state;
	REQUIRE(is_usable(box));
	epkp_box_put(NULL, box, 0, 1);
	/* Otherwise it waits for itself. */
	alarm(10);
	for (round = 0; round < 2; round++) {
		lock();
		pid = fork();
		REQUIRE(pid >= 0);
		if (!pid) {
			alarm(10);
			unlock();
			other = epkp_box_get(NULL);
			_exit(other == box || !is_usable(other));
		}
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		REQUIRE_EQ(status, 0);
		unlock();
		REQUIRE_EQ(nested, 0);
		REQUIRE_EQ(epkp_box_get(NULL), box);
		REQUIRE(is_usable(box));
		epkp_box_put(NULL, box, 0, 1);
	}
	alarm(0);
}

static void half_that_is_not_wiped_is_nobodys(void **state)
{
	const struct lineage of = { { 3, 4 } };
	struct box *box = epkp_box_get(NULL);
	unsigned int half;

	(void)state;
	epkp_box_offer(box, &of);
	REQUIRE_EQ(epkp_box_join(&of, &half), box);
	opens_nothing = true;
	epkp_box_put(NULL, box, half, 1);
	opens_nothing = false;
	REQUIRE(!epkp_box_join(&of, &half));
	REQUIRE(is_usable(box));
	nr_freed = 0;
	epkp_box_put(NULL, box, 0, 1);
	REQUIRE_EQ(nr_freed, 1);
	REQUIRE(!epkp_box_join(&of, &half));
}

/* What was interrupted may be on its way through a list that a box of before is in. */
static void handler_frees_no_box_of_before(void **state)
{
	const struct lineage of = { { 1, 2 } };
	struct box *box = epkp_box_get(NULL);
	unsigned int half;
	int status;
	pid_t pid;

	(void)state;
	nr_freed = 0;
	epkp_box_offer(box, &of);
	lock();
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		unlock();
		REQUIRE(!epkp_box_join(&of, &half));
		epkp_box_put(NULL, box, 0, 1);
		_exit(nr_freed);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	unlock();
	/* One that does not interrupt may, with the last half. */
	REQUIRE_EQ(epkp_box_join(&of, &half), box);
	REQUIRE_EQ(half, 1);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		nr_freed = 0;
		epkp_box_put(NULL, box, half, 1);
		REQUIRE_EQ(nr_freed, 0);
		epkp_box_put(NULL, box, 0, 1);
		_exit(nr_freed != 1);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	epkp_box_put(NULL, box, half, 1);
	epkp_box_put(NULL, box, 0, 1);
}

/* An abort is better than one box for two. */
static void handler_may_not_take_boxes(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		lock();
		epkp_box_get(NULL);
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static int setup(void **state)
{
	(void)state;
	return epkp_box_setup() || !epkp_box_start(NULL, getenv("EPK_BACKEND"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(handler_may_fork),
		cmocka_unit_test(half_that_is_not_wiped_is_nobodys),
		cmocka_unit_test(handler_frees_no_box_of_before),
		cmocka_unit_test(handler_may_not_take_boxes),
	};

	return cmocka_run_group_tests_name("provider_box", tests, setup, NULL);
}
