// SPDX-License-Identifier: MIT
/* What does not go by the frames of epk_call() and EPK_WITH(): other stacks, and frames that are written over. */
#define _GNU_SOURCE
#include <ucontext.h>

#include "call_unit.h"

/* What is held: by what the library says, and in truth. */
static int what_is_left(void)
{
	return epk_held(NULL, 0) + (backend_is_private() && (can_read(0) || can_read(1)));
}

static volatile int after_end;

/* libc cannot tell there which frames are left: it is to be ended by hand, and then all is well. */
static void jump_in_coroutine(void)
{
	static volatile int round;

	for (round = 0; round < 3; round++) {
		if (!setjmp(jump_buf))
			epk_call(ids[1], jump_out, NULL, NULL);
		domain_end(ids[1]);
		after_end += what_is_left();
	}
}

static void *thread_with_coroutine(void *arg)
{
	static char stack[65536];
	static void *volatile exits;

	exits = arg;
	run_coroutine(jump_in_coroutine, stack, sizeof(stack));
	memset(stack, 0x41, sizeof(stack));
	if (epk_call(ids[1], look, NULL, NULL))
		return (void *)1;
	if (exits)
		pthread_exit(NULL);
	return NULL;
}

static void left_by_longjmp_on_another_stack(void **state)
{
	pthread_t thread;
	void *got;

	(void)state;
	set_up();
	after_end = 0;
	REQUIRE(!thread_with_coroutine(NULL));
	REQUIRE_EQ(pthread_create(&thread, NULL, thread_with_coroutine, &coroutine), 0);
	REQUIRE_EQ(pthread_join(thread, &got), 0);
	REQUIRE(!got);
	REQUIRE_EQ(after_end, 0);
	tear_down();
}

#ifdef __clang__
#define FRAME_POINTER
#else
#define FRAME_POINTER	__attribute__((optimize("no-omit-frame-pointer")))
#endif

/* Writes to the frame of who called epk_call(). */
static FRAME_POINTER long write_over(void *arg)
{
	void **frame = __builtin_frame_address(0);
	char *at = (char *)frame[0] + 16;
	int i;

	(void)arg;
	for (i = 0; i < 512; i += 4)
		if (*(int *)(at + i) == ids[1] && at[i + 4] == 1)
			return at[i + 4] = 0, 1;
	return 0;
}

static void the_frame_is_written_over(void **state)
{
	long found = 0;
	int held;

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call(ids[1], write_over, NULL, &found), 0);
	REQUIRE_EQ(found, 1);
	held = what_is_left();
	domain_end(ids[1]);
	REQUIRE_EQ(held, 0);
	tear_down();
}

static void a_scope_is_written_over(void **state)
{
	int held;

	(void)state;
	set_up();
	EPK_WITH(ids[1], PROT_READ) {
		struct epk_scope *volatile scope = &epk_scope_;

		scope->dom_id = ids[0];
		scope->before = RW;
	}
	domain_end(ids[1]);
	held = what_is_left();
	domain_end(ids[0]);
	REQUIRE_EQ(held, 0);
	tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(left_by_longjmp_on_another_stack),
		cmocka_unit_test(the_frame_is_written_over),
		cmocka_unit_test(a_scope_is_written_over),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
