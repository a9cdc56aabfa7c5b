// SPDX-License-Identifier: MIT
/*
 * A thread begins or ends a domain while another is about to move one: the first
 * goes step by step through the call, and after each step in turn the second looks
 * whether the domain can be moved.  If so, it moves it when the call has returned,
 * or at once.  The first must not lose what it holds.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "unit.h"

#include "thread.h"

#define TRAP_FLAG	0x100

static int ids[32], dom, other, wanted_step, step, looked, movable;
static char *mem, ignored;
static void (*call)(void);
static bool at_once;

static void pass_on(int *flag)
{
	__atomic_store_n(flag, 1, __ATOMIC_RELEASE);
}

static void wait_for(int *flag)
{
	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE))
		sched_yield();
}

static int reached, moved, returned;

/* As place.c does: under the lock, first the announcement, then the look. */
static void *mover(void *arg)
{
	struct epk_move move = { .id = dom, .ept = EPK_EPT_NONE };
	struct epk_moves moves = { .num = 1, .moves = (uintptr_t)&move };

	(void)arg;
	/* A thread that the library knows. */
	EXPECT(!domain_begin(ids[31], RW) && !domain_end(ids[31]));
	pass_on(&looked);
	wait_for(&reached);
	/* The first thread has it: then nobody moves anything now. */
	if (pthread_mutex_trylock(&epk_lock)) {
		pass_on(&moved);
		return NULL;
	}
	epk_threads_moving();
	/* What nobody holds can go; what is held by a list comes back by a fault. */
	movable = !epk_threads_word(dom);
	if (movable && at_once)
		EXPECT(!ioctl(epk_now.fd, EPK_IOC_MOVE, &moves));
	pass_on(&moved);
	wait_for(&returned);
	if (movable && !at_once)
		EXPECT(!ioctl(epk_now.fd, EPK_IOC_MOVE, &moves));
	pthread_mutex_unlock(&epk_lock);
	return NULL;
}

/* Not into a system call: the emulator would go on there. */
static void on_step(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signo;
	(void)info;
	if (!memcmp((void *)uc->uc_mcontext.gregs[REG_RIP], "\x0f\x05", 2))
		uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	if (step++ != wanted_step)
		return;
	uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	pass_on(&reached);
	wait_for(&moved);
}

static __attribute__((noinline)) void single_step(void (*what)(void))
{
	asm volatile("sub $128, %%rsp\n\t"
		     "pushfq\n\t"
		     "orq $0x100, (%%rsp)\n\t"
		     "popfq\n\t"
		     "call *%[what]\n\t"
		     "pushfq\n\t"
		     "andq $~0x100, (%%rsp)\n\t"
		     "popfq\n\t"
		     "add $128, %%rsp"
		     : [what] "+b"(what) : : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10",
		       "r11", "memory", "cc");
}

static void begin_one(void)
{
	EXPECT(!domain_begin(dom, RW));
}

static void begin_second(void)
{
	EXPECT(!domain_begin(other, RW));
}

static void end_second(void)
{
	EXPECT(!domain_end(other));
}

/* In a child, since the gates are taken away once. */
static void one_round(void)
{
	struct sigaction action = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };
	pthread_t thread;

	EXPECT(!alloc_domains(32, ids));
	dom = ids[0];
	other = ids[1];	/* beside it: no call needs the lock */
	mem = domain_mmap(dom, NULL, PAGE, RW, 0);
	EXPECT(mem != MAP_FAILED);
	EXPECT(!domain_begin(dom, RW));
	*mem = 42;
	EXPECT(!domain_end(dom));
	EXPECT(!pthread_create(&thread, NULL, mover, NULL));
	wait_for(&looked);
	if (call != begin_one)
		EXPECT(!domain_begin(dom, RW));
	if (call == end_second)
		EXPECT(!domain_begin(other, RW));

	EXPECT(!sigaction(SIGTRAP, &action, NULL));
	single_step(call);
	/* Past the last step? */
	if (step <= wanted_step)
		_exit(2);
	pass_on(&returned);
	pthread_join(thread, NULL);
	EXPECT(*(volatile char *)mem == 42);
	EXPECT(try_write(mem, 43));
	if (call == begin_second)
		EXPECT(!domain_end(other));
	EXPECT(!domain_end(dom));
	EXPECT(!try_read(mem, &ignored));
	_exit(0);
}

/* Where the list is opened: after every fourth step; where it is closed and between: */
#define FINE_STEPS	120
#define STRIDE		127

/* @steps: it has so many at the least. */
static void try_steps(void (*what)(void), int fine, int steps)
{
	int status;

	call = what;
	for (wanted_step = 0;; wanted_step += wanted_step < FINE_STEPS ? fine : STRIDE) {
		status = status_of_child(one_round);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
			break;
		if (status)
			print_message("step %d\n", wanted_step);
		assert_int_equal(status, 0);
	}
	assert_true(wanted_step >= steps);
}

static void begins_at_the_first_move(void **state)
{
	(void)state;
	try_steps(begin_one, 1, 20);
}

static void begins_a_second_at_the_first_move(void **state)
{
	(void)state;
	try_steps(begin_second, 4, 200);
}

static void ends_the_second_at_the_first_move(void **state)
{
	(void)state;
	try_steps(end_second, 4, 200);
}

static void begins_a_second_while_it_moves(void **state)
{
	(void)state;
	at_once = true;
	try_steps(begin_second, 2, 200);
	at_once = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(begins_at_the_first_move),
		cmocka_unit_test(begins_a_second_at_the_first_move),
		cmocka_unit_test(ends_the_second_at_the_first_move),
		cmocka_unit_test(begins_a_second_while_it_moves),
	};

	skip_if(!backend_is("epk"), "moves no domains");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
