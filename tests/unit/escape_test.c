// SPDX-License-Identifier: MIT
/* A handler that is left by siglongjmp() while domains are held. */
#define _GNU_SOURCE
#include <signal.h>

#include "unit.h"

#define NR	20	/* of two EPTs, if keys are what limits */

static int ids[NR];
static char *mem[NR], ignored;
static sigjmp_buf back;

static void escape(int signo)
{
	(void)signo;
	siglongjmp(back, 1);
}

static int set_up(void **state)
{
	struct sigaction action = { .sa_handler = escape };
	int i;

	(void)state;
	REQUIRE_EQ(alloc_domains(NR, ids), 0);
	for (i = 0; i < NR; i++)
		mem[i] = new_pages(ids[i], 1);
	return sigaction(SIGUSR1, &action, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	return free_domains(NR, ids);
}

/* Holds @held[0] to @held[@nr - 1], the number of each, and flees from a handler. */
static void hold_and_escape(const int *held, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		REQUIRE_EQ(domain_begin(ids[held[i]], RW), 0);
		*mem[held[i]] = 1 + held[i];
	}
	if (!sigsetjmp(back, 1)) {
		raise(SIGUSR1);
		FAIL("here nothing comes by");
	}
	for (i = 0; i < nr && backend_is_private(); i++)
		REQUIRE(!try_read(mem[held[i]], &ignored));
}

static void end_all(const int *held, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		REQUIRE_EQ(domain_end(ids[held[i]]), backend_forgets() ? -EACCES : 0);
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	for (i = 0; i < NR && backend_is_private(); i++)
		REQUIRE(!try_read(mem[i], &ignored));
	/* All as it should be. */
	for (i = 0; i < nr; i++) {
		REQUIRE_EQ(domain_begin(ids[held[i]], RW), 0);
		REQUIRE_EQ(*mem[held[i]], 1 + held[i]);
		REQUIRE_EQ(domain_end(ids[held[i]]), 0);
	}
}

static const int one[] = { 4 }, several[] = { 4, 5, 18 };

static void one_is_held(void **state)
{
	(void)state;
	hold_and_escape(one, 1);
	/* Nobody can tell it from a handler, whose interrupted code has it. */
	if (backend_is("mpk"))
		REQUIRE_EQ(free_domains(1, &ids[one[0]]), -EBUSY);
	end_all(one, 1);
}

static void several_are_held(void **state)
{
	(void)state;
	if (!backend_holds_several())
		skip();
	hold_and_escape(several, 3);
	end_all(several, 3);
}

/* The next call is a begin. */
static void next_begins_another(void **state)
{
	(void)state;
	if (!backend_holds_several())
		skip();
	hold_and_escape(several, 3);
	REQUIRE_EQ(domain_begin(ids[7], RW), 0);
	*mem[7] = 7;
	if (!backend_forgets() && !backend_is("mpk"))
		REQUIRE_EQ(domain_begin(ids[4], RW), -EALREADY);
	REQUIRE_EQ(domain_end(ids[7]), 0);
	end_all(several, 3);
}

static void again_and_again(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < 50; i++) {
		hold_and_escape(one, 1);
		REQUIRE_EQ(domain_end(ids[4]), backend_forgets() ? -EACCES : 0);
	}
	end_all(NULL, 0);
}

static void *looks(void *arg)
{
	return try_read(arg, &ignored) ? arg : NULL;
}

static bool another_can_read(char *at)
{
	pthread_t thread;
	void *got;

	REQUIRE_EQ(pthread_create(&thread, NULL, looks, at), 0);
	REQUIRE_EQ(pthread_join(thread, &got), 0);
	return got;
}

/* Out of the body of EPK_WITH: whose page protections are the process's, it is open to all until it is ended. */
static void open_until_ended(void **state)
{
	(void)state;
	if (!backend_is("mprotect"))
		skip();
	REQUIRE(!another_can_read(mem[4]));
	if (!sigsetjmp(back, 1)) {
		EPK_WITH(ids[4], RW) {
			raise(SIGUSR1);
			FAIL("here nothing comes by");
		}
	}
	REQUIRE_EQ(epk_held_prot(ids[4]), RW);
	REQUIRE(another_can_read(mem[4]));
	REQUIRE_EQ(free_domains(1, &ids[4]), -EBUSY);
	REQUIRE_EQ(domain_end(ids[4]), 0);
	REQUIRE(!another_can_read(mem[4]));
	REQUIRE_EQ(domain_end(ids[4]), -EACCES);
	end_all(NULL, 0);
}

static long escapes(void *arg)
{
	raise(SIGUSR1);
	return (long)arg;
}

/* Out of what epk_call() runs, nothing stays held, and nothing open. */
static void call_leaves_nothing(void **state)
{
	(void)state;
	if (!sigsetjmp(back, 1)) {
		epk_call(ids[4], escapes, NULL, NULL);
		FAIL("here nothing comes by");
	}
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	if (!backend_is("none"))
		REQUIRE(!another_can_read(mem[4]));
	REQUIRE_EQ(domain_end(ids[4]), -EACCES);
	end_all(NULL, 0);
}

/* It is begun anew each time: under "mpk" each begin wants its end. */
static void begun_anew(void **state)
{
	int i;

	(void)state;
	if (!backend_is("mpk"))
		skip();
	for (i = 0; i < 3; i++)
		hold_and_escape(one, 1);
	for (i = 0; i < 3; i++)
		REQUIRE_EQ(domain_end(ids[4]), 0);
	end_all(NULL, 0);
	REQUIRE_EQ(domain_end(ids[4]), -EACCES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_is_held),
		cmocka_unit_test(several_are_held),
		cmocka_unit_test(next_begins_another),
		cmocka_unit_test(again_and_again),
		cmocka_unit_test(begun_anew),
		cmocka_unit_test(open_until_ended),
		cmocka_unit_test(call_leaves_nothing),
	};

	need_backend();
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
