// SPDX-License-Identifier: MIT
/*
 * Code whose stack lies in a private domain: what it may call, what its handlers have, and what is
 * left of its rights when the domain is freed; all while it moves, and others want its place.
 */
#include "private_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "forge.h"

#define STACK_PAGES	32

static char ordinary[4][4096] __attribute__((aligned(64)));

/* x is held beside the private domain, y has one to be called. */
static int id, x, y;
static char *stack, *mem_x, *mem_y;

static void *top(void)
{
	return stack + STACK_PAGES * PAGE - 256;
}

static void *sp(int n)
{
	return ordinary[n] + sizeof(ordinary[n]) - 256;
}

static void set_up(void)
{
	id = new_private(&stack, STACK_PAGES);
	x = new_domain(&mem_x, 1);
	y = new_domain(&mem_y, 1);
	enter(id);
	memset(stack, 0, STACK_PAGES * PAGE);
	CHECK_EQ(begin(x), 0);
	*mem_x = 1;
	CHECK(can_write(stack));
}

static void tear_down(void)
{
	end(id);
	end(x);
	list(0, 0, 0, 0);
	done_with(id, stack, STACK_PAGES);
	done_with(x, mem_x, 1);
	done_with(y, mem_y, 1);
}

static void has_both(int line)
{
	list(id, PROT_READ | PROT_WRITE, x, PROT_READ | PROT_WRITE);
	epk_check(can_read(stack) && can_read(mem_x) && !can_read(mem_y), __FILE__, line,
		  "has both", "");
}

static void has_stack(int line)
{
	list(id, PROT_READ | PROT_WRITE, 0, 0);
	epk_check(can_write(stack) && !can_read(mem_x) && !can_read(mem_y), __FILE__, line,
		  "has its stack", "");
}

/* On its stack. */
static void calls(void)
{
	int moved;

	CHECK_EQ(call(top() - PAGE, y), -EPERM);
	CHECK_EQ(call(top() - PAGE, x), -EPERM);
	CHECK_EQ(call(stack, y), -EPERM);
	has_both(__LINE__);
	for (moved = 0; moved < 3; moved++) {
		CHECK_EQ(ioctl_at(top() - PAGE, EPK_IOC_CALL, 0), 0);
		has_stack(__LINE__);
		CHECK_EQ(call(top() - 2 * PAGE, y), -EPERM);
		has_stack(__LINE__);
		if (moved == 1)
			CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
		if (moved == 2)
			CHECK_EQ(begin(y), 0);
		if (moved == 2 && !epk_device_is_alone(&dev))
			CHECK_EQ(epk_device_move(&dev, id, FAR_EPT), 0);
		/* Another, in this one. */
		CHECK_EQ(ioctl_at(top() - 2 * PAGE, EPK_IOC_CALL, 0), 0);
		has_stack(__LINE__);
		CHECK_EQ(call_return(top() - 2 * PAGE), 0);
		if (moved == 2)
			CHECK_EQ(end(y), 0);
		has_stack(__LINE__);
		CHECK_EQ(call_return(top() - PAGE), 0);
		has_both(__LINE__);
	}
}

/* The stack is elsewhere, or the domain is not held: then all is as ever. */
static void calls_elsewhere(void)
{
	CHECK_EQ(ioctl_at(sp(0), EPK_IOC_CALL, 0), 0);
	holds_nothing(__LINE__);
	CHECK_EQ(ioctl_at(top(), EPK_IOC_CALL, 0), 0);
	holds_nothing(__LINE__);
	CHECK_EQ(call(top() - PAGE, y), 0);
	list(y, PROT_READ | PROT_WRITE, 0, 0);
	CHECK(!can_read(stack));
	CHECK_EQ(call_return(top() - PAGE), 0);
	CHECK_EQ(call_return(top()), 0);
	CHECK_EQ(call(sp(0) - 512, y), -EACCES + EACCES);
	list(y, PROT_READ | PROT_WRITE, 0, 0);
	CHECK_EQ(call_return(sp(0) - 512), 0);
	CHECK_EQ(call_return(sp(0)), 0);
	has_both(__LINE__);
	/* To read only it is no stack. */
	CHECK_EQ(epk_device_move(&dev, x, EPK_EPT_NONE), 0);
	CHECK(can_read(stack));
	epk_wrpkru(epk_rdpkru() | 2u << 2 * EPK_NOTE_PKEY(note_of(id)));
	CHECK_EQ(ioctl_at(top(), EPK_IOC_CALL, 0), 0);
	holds_nothing(__LINE__);
	CHECK_EQ(call_return(top()), 0);
	list(id, PROT_READ, x, PROT_READ | PROT_WRITE);
}

/* No handler has anything of what it interrupts, and none has its frame in a private domain. */
static char outside[1 << 16] __attribute__((aligned(64)));
static char alternate[1 << 16] __attribute__((aligned(64)));
static volatile int handled, refused;

static void is_on(const char *area, int line)
{
	const char *here = __builtin_frame_address(0);

	epk_check(here > area && here < area + sizeof(outside), __FILE__, line, "on its stack", "");
	list(0, 0, 0, 0);
	holds_nothing(line);
}

static void nests(int sig)
{
	(void)sig;
	handled++;
	is_on(outside, __LINE__);
}

static void handler(int sig)
{
	(void)sig;
	handled++;
	is_on(outside, __LINE__);
	raise(SIGUSR2);
	CHECK_EQ(begin(y), 0);
	*mem_y = 1;
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(call(sp(2), x), 0);
	CHECK_EQ(call_return(sp(2)), 0);
}

static void on_alternate(int sig)
{
	(void)sig;
	handled++;
	is_on(alternate, __LINE__);
}

static void refuses(int sig)
{
	(void)sig;
	refused++;
}

static void handle(int sig, void (*func)(int), int flags)
{
	struct sigaction action = { .sa_handler = func, .sa_flags = flags };

	REQUIRE(!sigaction(sig, &action, NULL));
}

static void alternate_at(void *where)
{
	stack_t stack_of = { .ss_sp = where, .ss_size = sizeof(alternate) };

	REQUIRE(!sigaltstack(&stack_of, NULL));
}

static void on_its_stack(void)
{
	int i;

	handle(SIGUSR1, handler, 0);
	handle(SIGUSR2, nests, 0);
	private_outside = outside + sizeof(outside);
	for (handled = i = 0; i < 3; i++) {
		raise(SIGUSR1);
		has_both(__LINE__);
		if (i == 1 && !epk_device_is_alone(&dev))
			CHECK_EQ(epk_device_move(&dev, id, FAR_EPT), 0);
	}
	CHECK_EQ(handled, 6);
	/* One that is elsewhere already stays there. */
	alternate_at(alternate);
	handle(SIGUSR1, on_alternate, SA_ONSTACK);
	raise(SIGUSR1);
	CHECK_EQ(handled, 7);
	has_both(__LINE__);
	/* There waits a handler that has called what is interrupted now. */
	private_outside = alternate + sizeof(alternate) / 2;
	memset(private_outside, 0x5a, sizeof(alternate) / 2);
	raise(SIGUSR1);
	CHECK_EQ(handled, 8);
	for (i = 0; i < (int)sizeof(alternate) / 2 && private_outside[i] == 0x5a; i++)
		;
	CHECK_EQ(i, (int)sizeof(alternate) / 2);
	private_outside = outside + sizeof(outside);
}

/* Where no frame may go: it is SIGSEGV, and nothing is written there. */
static void no_frame(int flags, void *alternate_low, char *outside_top)
{
	/* SIGSEGV has the other stack. */
	struct sigaction action = { .sa_handler = refuses, .sa_flags = SA_ONSTACK & ~flags }, tries;
	int i;

	handle(SIGUSR1, nests, flags);
	memset(stack, 0x5a, sizeof(alternate));
	handled = refused = 0;
	REQUIRE(!sigaction(SIGSEGV, &action, &tries));
	alternate_at(alternate_low);
	private_outside = outside_top;
	raise(SIGUSR1);
	private_outside = outside + sizeof(outside);
	alternate_at(alternate);
	REQUIRE(!sigaction(SIGSEGV, &tries, NULL));
	CHECK_EQ(handled, 0);
	CHECK_EQ(refused, 1);
	has_both(__LINE__);
	for (i = 0; i < (int)sizeof(alternate) && stack[i] == 0x5a; i++)
		;
	CHECK_EQ(i, (int)sizeof(alternate));
}

/* The lower half of the domain is no stack that is in use. */
static void nowhere(void)
{
	char *const said[] = {
		stack + sizeof(alternate), stack + 8192, NULL, (char *)(1ul << 47),
		(char *)(1ul << 63), mem_y + 4096, (char *)nests,
	};
	unsigned int i;

	no_frame(SA_ONSTACK, stack, outside + sizeof(outside));
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	no_frame(SA_ONSTACK, stack, outside + sizeof(outside));
	for (i = 0; i < sizeof(said) / sizeof(*said); i++)
		no_frame(0, alternate, said[i]);
	raise(SIGUSR1);
	CHECK_EQ(handled, 1);
}

/* A thread of its own, in code that has a stack in a private domain which is freed. */
enum { RUNS, SLEEPS, HANDLES, CALLED, IN_RECORD, NOT_REGISTERED, NOT_FOLLOWING, NR_WHAT };

static volatile int state, what;
static volatile unsigned int held, open_keys, reached;

static void wait_for_end(void)
{
	struct timespec pause = { .tv_nsec = 1000000 };

	state = 1;
	while (state == 1) {
		if (what == SLEEPS)
			nanosleep(&pause, NULL);
	}
}

static void handler_waits(int sig)
{
	(void)sig;
	wait_for_end();
}

static void by_hand(int pkey)
{
	epk_wrpkru(EPK_PKRU_ALLOW(pkey) & EPK_PKRU_ALLOW(epk_device_entry(&dev, x).pkey));
}

static void *inside(void *unused)
{
	struct sigaction action = { .sa_handler = handler_waits, .sa_flags = SA_ONSTACK };
	struct epk_grants list_of = { .num = 0 };

	alternate_at(alternate);
	REQUIRE(!sigaction(SIGUSR2, &action, NULL));
	if (what == NOT_FOLLOWING)
		REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS) == 0);
	if (what == NOT_REGISTERED || what == NOT_FOLLOWING) {
		epk_device_goto(&dev, EPK_NOTE_EPT(note_of(id)));
		by_hand(EPK_NOTE_PKEY(note_of(id)));
	} else {
		REQUIRE(follow() == 0);
		enter(id);
		CHECK_EQ(begin(x), 0);
		if (what != IN_RECORD)
			CHECK(can_write(stack));
	}
	if (what == CALLED)
		CHECK_EQ(ioctl_at(sp(1), EPK_IOC_CALL, 0), 0);
	if (what == HANDLES)
		raise(SIGUSR2);
	else
		wait_for_end();
	if (what == CALLED)
		CHECK_EQ(call_return(sp(1)), 0);
	open_keys = ~epk_rdpkru() & EPK_PKRU_DENY_ALL;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &list_of), 0);
	held = list_of.num;
	/* What lies there now is nobody's secret. */
	reached = can_read(mem_x) | can_read(stack) << 1;
	state = 3;
	return unused;
}

static void freed(void)
{
	pthread_t thread;

	for (what = 0; what < NR_WHAT; what++) {
		set_up();
		end(id);
		end(x);
		if (what == NOT_REGISTERED || what == NOT_FOLLOWING)
			if (!epk_device_entry(&dev, x).pkey || !EPK_NOTE_PKEY(note_of(id)))
				printf("no place for both\n");
		if (!epk_device_is_alone(&dev) && what == IN_RECORD)
			CHECK_EQ(epk_device_move(&dev, x, FAR_EPT), 0);
		if (!epk_device_is_alone(&dev) && what >= NOT_REGISTERED) {
			CHECK_EQ(epk_device_move(&dev, x, FAR_EPT), 0);
			CHECK_EQ(epk_device_move(&dev, id, FAR_EPT), 0);
		}
		state = 0;
		REQUIRE(!pthread_create(&thread, NULL, inside, NULL));
		while (state != 1)
			sched_yield();
		/* What it holds beside the domain is in the record, too. */
		if (what == IN_RECORD)
			CHECK_EQ(epk_device_move(&dev, x, EPK_EPT_NONE), 0);
		CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
		CHECK_EQ(note_of(id), 0);
		CHECK_EQ(epk_device_unmap(&dev, stack, STACK_PAGES * PAGE), 0);
		REQUIRE(mmap(stack, STACK_PAGES * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == stack);
		state = 2;
		pthread_join(thread, NULL);
		CHECK_EQ(held, 0);
		CHECK_EQ(open_keys, 0);
		CHECK_EQ(reached, 2);
		munmap(stack, STACK_PAGES * PAGE);
		done_with(x, mem_x, 1);
		done_with(y, mem_y, 1);
	}
}

/* What is freed is no private domain, or none that the thread holds: it keeps what it has. */
static void freed_beside(void)
{
	char *other;
	int beside;

	set_up();
	beside = new_private(&other, 1);
	CHECK_EQ(begin(y), 0);
	done_with(beside, other, 1);
	CHECK_EQ(end(y), 0);
	list(id, PROT_READ | PROT_WRITE, x, PROT_READ | PROT_WRITE);
	tear_down();
}

/* In and out, with work on its stack, while it and others move. */
static volatile int stop, rounds;

static void *in_and_out(void *unused)
{
	int n = 0;

	REQUIRE(follow() == 0);
	while (!stop) {
		enter(id);
		*(volatile uint64_t *)stack = 0x1234;
		CHECK_EQ(*(volatile uint64_t *)stack, 0x1234);
		if (n++ % 4 == 0) {
			CHECK_EQ(begin(x), 0);
			CHECK_EQ(*mem_x, 1);
			CHECK_EQ(*(volatile uint64_t *)stack, 0x1234);
			CHECK_EQ(end(x), 0);
		}
		CHECK_EQ(end(id), 0);
		CHECK_EQ(epk_rdpkru(), EPK_PKRU_DENY_ALL);
		rounds++;
	}
	return unused;
}

/* By the kernel's own stores, too: signals, whose frames lie there. */
static void *works_inside(void *unused)
{
	struct epk_move move = { .id = id };
	unsigned int i;

	for (i = 0; !stop; i++) {
		move.ept = i % 3 ? EPK_EPT_ANY : EPK_EPT_NONE;
		if (i % 7 == 0)
			move.ept = epk_device_ept(&dev, FAR_EPT + i % 2);
		move.pkey = 0;
		epk_device_moves(&dev, 1, &move);
		epk_device_move(&dev, x, i % 2 ? EPK_EPT_NONE : EPK_EPT_ANY);
		if (i % 5 == 0)
			sched_yield();
	}
	return unused;
}

static void race(void)
{
	struct timespec since;
	pthread_t threads[2];

	set_up();
	CHECK_EQ(end(id), 0);
	CHECK_EQ(end(x), 0);
	stop = rounds = 0;
	REQUIRE(!pthread_create(&threads[0], NULL, in_and_out, NULL));
	REQUIRE(!pthread_create(&threads[1], NULL, works_inside, NULL));
	clock_gettime(CLOCK_MONOTONIC, &since);
	while (race_goes_on(rounds, 2000, &since))
		sched_yield();
	stop = 1;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	printf("%d rounds\n", rounds);
	done_with(id, stack, STACK_PAGES);
	done_with(x, mem_x, 1);
	done_with(y, mem_y, 1);
}

/* A child has nothing of it, nor a program that is executed. */
static void forked(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		epk_failures = 0;
		CHECK(!can_read(stack) && !can_read((void *)&notes[1]));
		CHECK_EQ(make_private(id, stack), -EPERM);
		CHECK_EQ(epk_device_unmap(&dev, stack, PAGE), -EPERM);
		CHECK(mmap(stack, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			   0) == stack);
		/* The same in a domain of its own. */
		close(dev.fd);
		private_init(0);
		set_up();
		has_both(__LINE__);
		tear_down();
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_CALL, 0), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING), 0);
}

int main(void)
{
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	private_init(0);
	set_up();
	RUN(calls());
	RUN(calls_elsewhere());
	tear_down();
	set_up();
	RUN(run_on(top(), on_its_stack));
	/* The other emulator has its kernel write what a key denies. */
	if (epk_device_is_alone(&dev))
		RUN(run_on(top(), nowhere));
	tear_down();
	RUN(freed());
	RUN(freed_beside());
	RUN(race());
	set_up();
	RUN(forked());
	tear_down();
	return epk_test_result();
}
