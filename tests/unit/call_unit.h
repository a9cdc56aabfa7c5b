/* SPDX-License-Identifier: MIT */
/* Three domains, and functions for epk_call(). */
#ifndef EPK_CALL_UNIT_H
#define EPK_CALL_UNIT_H

#include <ucontext.h>

#include "unit.h"

static int ids[3];
static char *mem[3];

static inline void set_up(void)
{
	fill_domains(3, ids, mem, 1);
}

static inline void tear_down(void)
{
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	free_all_domains(3, ids);
}

/* Only what is held can be accessed. */
static inline bool can_read(int n)
{
	char byte;

	return try_read(mem[n], &byte);
}

static inline void check_reach(bool first, bool second, bool third)
{
	if (!backend_is_private())
		return;
	/* "vmfunc" shows what was begun last. */
	if (backend_holds_several())
		REQUIRE_EQ(can_read(0), first);
	REQUIRE_EQ(can_read(1), second);
	if (backend_holds_several())
		REQUIRE_EQ(can_read(2), third);
}

static inline long look(void *arg)
{
	int held[3] = { 0 };

	REQUIRE_EQ(epk_held(held, 3), 1);
	REQUIRE_EQ(held[0], ids[1]);
	REQUIRE_EQ(epk_held_prot(ids[1]), RW);
	check_reach(false, true, false);
	mem[1][1]++;
	return (long)arg + 1;
}

static ucontext_t main_context, coroutine;

/* Runs @body on a stack that libc knows nothing of. */
static inline int run_coroutine(void (*body)(void), char *stack, size_t size)
{
	getcontext(&coroutine);
	coroutine.uc_stack.ss_sp = stack;
	coroutine.uc_stack.ss_size = size;
	coroutine.uc_link = &main_context;
	makecontext(&coroutine, body, 0);
	return swapcontext(&main_context, &coroutine);
}

static jmp_buf jump_buf;
static sigjmp_buf sigjump_buf;

static inline long jump_out(void *arg)
{
	mem[1][1]++;
	if (arg)
		siglongjmp(sigjump_buf, 1);
	longjmp(jump_buf, 1);
}

#endif /* EPK_CALL_UNIT_H */
