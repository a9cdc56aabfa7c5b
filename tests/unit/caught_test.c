// SPDX-License-Identifier: MIT
/* epk_call_caught(): a function that faults is left, and nothing else is. */
#define _GNU_SOURCE
#include <semaphore.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "aside.h"
#include "call_unit.h"
#include "faults.h"

/* look(), whose looks at other domains would be caught. */
static long works(void *arg)
{
	mem[1][1]++;
	return (long)arg + 1;
}

static char room[65536];

/* What has come to the program's own handler, which goes back to where it is told. */
static volatile sig_atomic_t signals;
static sigjmp_buf from_signal;

static void leaves(int sig)
{
	signals++;
	siglongjmp(from_signal, sig);
}

/* SIGSEGV, or 0 */
static __attribute__((noinline)) int signal_of(long (*what)(void *arg), void *arg)
{
	const stack_t alternate = { .ss_sp = room, .ss_size = sizeof(room) };
	const stack_t none = { .ss_flags = SS_DISABLE };
	struct sigaction act = { .sa_handler = leaves, .sa_flags = SA_ONSTACK }, old;
	int sig;

	sigaltstack(&alternate, NULL);
	sigaction(SIGSEGV, &act, &old);
	sig = sigsetjmp(from_signal, 1);
	if (!sig)
		what(arg);
	sigaction(SIGSEGV, &old, NULL);
	sigaltstack(&none, NULL);
	return sig;
}

#define SECRET	0x5ec4e75ec4e7ul
#define KINDS	11

static long bad(void *arg)
{
	uint32_t all = 0;
	float none = 0;

	mem[1][1]++;
	asm volatile("movq %0, %%xmm5\n\tmovq %0, %%mm3\n\tmov %0, %%r10\n\tmov %0, %%rbx\n\t"
		     "mov %0, %%r12\n\tmov %0, %%r13\n\tmov %0, %%r14\n\tmov %0, %%r15\n\tstd\n\tcld"
		     : : "a"(SECRET) : "xmm5", "r10", "rbx", "r12", "r13", "r14", "r15", "st");
	switch ((long)arg) {
	case 5:
		return mem[0][0];
	case 6:
		mem[2][0] = 1;
		break;
	case 7:
		asm volatile("ldmxcsr %0\n\tmovss %1, %%xmm0\n\tdivss %%xmm0, %%xmm0\n\t"
			     "ud2"		/* emulators may let it pass */
			     : : "m"(all), "m"(none) : "xmm0");
		break;
	case 8:
		asm volatile("mov $0x48d, %%eax\n\tpush %%rax\n\tfldcw (%%rsp)\n\tstd\n\tud2" : : : "rax");
		break;
	case 9:
		domain_end(ids[1]);
		return mem[1][0];
	default:
		return fault((long)arg);
	}
	return 0;
}

static void each_kind(void **state)
{
	unsigned int i, before;
	unsigned short control;
	uint64_t xmm5, r10;
	uint32_t mxcsr;
	long result;

	(void)state;
	set_up();
	for (i = 0; i < 4 * KINDS; i++) {
		before = i / KINDS;
		if (before & 1)
			REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
		if (before & 2)
			REQUIRE_EQ(domain_begin(ids[1], RW), 0);
		result = 7;
		signals = 0;
		REQUIRE_EQ(epk_call_caught(ids[1], bad, (void *)(long)(i % KINDS), &result),
			   -EFAULT);
		asm volatile("mov %%r10, %0\n\tmovq %%xmm5, %1\n\tfnstcw %2\n\tstmxcsr %3\n\tcld"
			     : "=r"(r10), "=r"(xmm5), "=m"(control), "=m"(mxcsr));
		REQUIRE_NE(r10, SECRET);
		REQUIRE_NE(xmm5, SECRET);
		REQUIRE_EQ(control, 0x37f);
		REQUIRE_EQ(mxcsr & ~0x3f, 0x1f80);
		REQUIRE_EQ(result, 7);
		REQUIRE_EQ(epk_held(NULL, 0), !!(before & 1) + !!(before & 2));
		check_reach(before & 1, before & 2, false);
		REQUIRE_EQ(epk_call_caught(ids[1], works, (void *)41, &result), 0);
		REQUIRE_EQ(result, 42);
		REQUIRE_EQ(epk_call(ids[1], look, (void *)41, &result), 0);
		if (before & 1)
			REQUIRE_EQ(domain_end(ids[0]), 0);
		if (before & 2)
			REQUIRE_EQ(domain_end(ids[1]), 0);
	}
	REQUIRE_EQ(domain_begin(ids[1], PROT_READ), 0);
	REQUIRE_EQ(epk_call_caught(ids[1], works, NULL, NULL), -EACCES);
	REQUIRE_EQ(domain_end(ids[1]), 0);
	REQUIRE_EQ(epk_call_caught(ids[1], NULL, NULL, NULL), -EINVAL);
	REQUIRE_EQ(epk_call_caught(0, works, NULL, NULL), -EINVAL);
	REQUIRE_EQ(epk_call_caught(1 << 30, works, NULL, NULL), -ENOENT);
	tear_down();
}

#define PATTERN	0x5ec2e7a11d0u

static long leave_secrets(void *arg)
{
	volatile uint64_t secrets[12000 / 8];
	size_t i;

	for (i = 0; i < 12000 / 8; i++)
		secrets[i] = ((uint64_t)PATTERN << 16) + i;
	return *(volatile char *)arg + secrets[0];
}

static char *stack_at;

static long note_stack(void *arg)
{
	(void)arg;
	stack_at = __builtin_frame_address(0);
	return 0;
}

static void the_stack_is_wiped(void **state)
{
	uint64_t *word, *end;

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call(ids[1], note_stack, NULL, NULL), 0);
	REQUIRE_EQ(epk_call_caught(ids[1], leave_secrets, (void *)nowhere, NULL), -EFAULT);
	end = (uint64_t *)stack_at;
	for (word = end - 16000 / 8; word < end; word++)
		REQUIRE_NE(*word >> 16, PATTERN);
	tear_down();
}

/* What is not the function's own is a signal. */
static long raises(void *arg)
{
	(void)arg;
	kill(getpid(), SIGSEGV);
	return 0;
}

static long raises_caught(void *arg)
{
	return epk_call_caught(ids[1], raises, arg, NULL);
}

static volatile int handled_in;

static void faulty_handler(int sig)
{
	(void)sig;
	handled_in++;
	*(volatile int *)nowhere = 1;
}

static long is_interrupted(void *arg)
{
	(void)arg;
	raise(SIGUSR1);
	return 1;
}

static long interrupted_caught(void *arg)
{
	return epk_call_caught(ids[1], is_interrupted, arg, NULL);
}

static char coroutine_stack[65536];

static void fault_in_coroutine(void)
{
	*(volatile int *)nowhere = 1;
}

static long goes_elsewhere(void *arg)
{
	(void)arg;
	return run_coroutine(fault_in_coroutine, coroutine_stack, sizeof(coroutine_stack));
}

static long elsewhere_caught(void *arg)
{
	return epk_call_caught(ids[1], goes_elsewhere, arg, NULL);
}

/* With the library's lock, as what follows forged notes. */
static long in_the_library(void *arg)
{
	struct epk_aside aside;

	REQUIRE_EQ(epk_notes_lock(&aside), 0);
	handled_in++;
	*(volatile int *)nowhere = 1;
	epk_notes_unlock(&aside);
	return (long)arg;
}

static long library_caught(void *arg)
{
	return epk_call_caught(ids[1], in_the_library, arg, NULL);
}

static long plain_call(void *arg)
{
	return epk_call(ids[2], bad, arg, NULL);
}

static void others_are_signals(void **state)
{
	struct sigaction act = { .sa_handler = faulty_handler }, old;
	int on;

	(void)state;
	set_up();
	REQUIRE_EQ(signal_of(bad, NULL), SIGSEGV);
	REQUIRE_EQ(signal_of(raises_caught, NULL), SIGSEGV);
	check_reach(false, false, false);
	for (on = 0; on < 2; on++) {
		act.sa_flags = on ? SA_ONSTACK : 0;
		handled_in = 0;
		sigaction(SIGUSR1, &act, &old);
		REQUIRE_EQ(signal_of(interrupted_caught, NULL), SIGSEGV);
		REQUIRE_EQ(handled_in, 1);
		sigaction(SIGUSR1, &old, NULL);
		check_reach(false, false, false);
		REQUIRE_EQ(epk_call_caught(ids[1], bad, NULL, NULL), -EFAULT);
	}
	REQUIRE_EQ(signal_of(elsewhere_caught, NULL), SIGSEGV);
	check_reach(false, false, false);
	REQUIRE_EQ(signal_of(library_caught, NULL), SIGSEGV);
	pthread_mutex_unlock(&epk_lock);
	check_reach(false, false, false);
	/* That is left, too: this is not its. */
	REQUIRE_EQ(signal_of(plain_call, NULL), SIGSEGV);
	check_reach(false, false, false);
	REQUIRE_EQ(epk_call_caught(ids[1], bad, NULL, NULL), -EFAULT);
	REQUIRE_EQ(signal_of(bad, NULL), SIGSEGV);
	tear_down();
}

static sigjmp_buf in_function;

static void jumps(int sig)
{
	(void)sig;
	siglongjmp(in_function, 1);
}

/* A handler that was left does not run. */
static long jumped_out_of(void *arg)
{
	volatile char deep[4096];

	deep[0] = 1;
	if (!sigsetjmp(in_function, 1))
		raise(SIGUSR1);
	REQUIRE_EQ(domain_begin(ids[1], RW), 0);
	return *(volatile char *)arg + deep[0];
}

static void a_handler_that_was_left(void **state)
{
	const stack_t alternate = { .ss_sp = room, .ss_size = sizeof(room) };
	const stack_t none = { .ss_flags = SS_DISABLE };
	struct sigaction act = { .sa_handler = jumps }, old;
	int i;

	(void)state;
	set_up();
	for (i = 0; i < 40; i++) {
		act.sa_flags = i & 1 ? SA_ONSTACK : 0;
		sigaltstack(&alternate, NULL);
		sigaction(SIGUSR1, &act, &old);
		REQUIRE_EQ(epk_call_caught(ids[1], jumped_out_of, (void *)nowhere, NULL), -EFAULT);
		sigaction(SIGUSR1, &old, NULL);
		sigaltstack(&none, NULL);
		check_reach(false, false, false);
	}
	tear_down();
}

/* One in another. */
static volatile int seen;

static long calls(void *arg)
{
	switch ((long)arg) {
	case 0:		/* caught by this */
		seen = epk_call_caught(ids[2], bad, NULL, NULL);
		return mem[1][0];
	case 1:		/* and not by this */
		REQUIRE_EQ(domain_begin(ids[2], RW), 0);
		epk_call(ids[2], bad, NULL, NULL);
		break;
	case 2:		/* a plain one, where nothing is held */
		REQUIRE_EQ(domain_end(ids[1]), 0);
		epk_call(ids[1], bad, NULL, NULL);
		break;
	case 3:
		return epk_call(ids[0], calls, (void *)1, NULL);
	default:	/* after it has caught */
		seen = epk_call_caught(ids[2], bad, NULL, NULL);
		return *(volatile char *)nowhere;
	}
	seen = 1;
	return 0;
}

static void nested(void **state)
{
	long i, result;
	int held;

	(void)state;
	set_up();
	for (i = 0; i < 60; i++) {
		held = i & 1;
		if (held)
			REQUIRE_EQ(domain_begin(ids[0], RW), 0);
		seen = 0;
		result = 0;
		if (i % 6 == 5) {
			REQUIRE_EQ(epk_call(ids[1], calls, NULL, &result), 0);
			REQUIRE_EQ(result, 2);
			REQUIRE_EQ(seen, -EFAULT);
		} else {
			REQUIRE_EQ(epk_call_caught(ids[1], calls, (void *)(i % 6), &result),
				   i % 6 ? -EFAULT : 0);
			REQUIRE_EQ(seen, i % 6 % 4 ? 0 : -EFAULT);
		}
		REQUIRE_EQ(epk_held(NULL, 0), held);
		check_reach(held, false, false);
		if (held)
			REQUIRE_EQ(domain_end(ids[0]), 0);
	}
	tear_down();
}

/* What leaves in other ways. */
static long exit_thread(void *arg)
{
	if (arg)
		epk_call_caught(ids[2], bad, NULL, NULL);
	pthread_exit(arg);
}

static sem_t inside;

static long wait_for_ever(void *arg)
{
	sem_post(&inside);
	for (;;)
		pause();
	return (long)arg;
}

static void *thread_that_ends(void *arg)
{
	int i;

	for (i = 0; i < 3; i++)
		if (epk_call_caught(ids[1], bad, NULL, NULL) != -EFAULT)
			return (void *)2;
	if (arg == (void *)2)
		epk_call_caught(ids[1], wait_for_ever, NULL, NULL);
	else
		epk_call_caught(ids[1], exit_thread, arg, NULL);
	return (void *)3;
}

static void left_otherwise(void **state)
{
	pthread_t thread;
	volatile long i;
	long result;
	void *got;

	(void)state;
	set_up();
	REQUIRE_EQ(sem_init(&inside, 0, 0), 0);
	for (i = 0; i < 3; i++) {
		REQUIRE_EQ(pthread_create(&thread, NULL, thread_that_ends, (void *)i), 0);
		if (i == 2) {
			sem_wait(&inside);
			pthread_cancel(thread);
		}
		REQUIRE_EQ(pthread_join(thread, &got), 0);
		REQUIRE_EQ(got, i == 2 ? PTHREAD_CANCELED : (void *)i);
	}
	for (i = 0; i < 200; i++) {
		if (i & 1)
			REQUIRE_EQ(domain_begin(ids[0], RW), 0);
		if (!setjmp(jump_buf))
			epk_call_caught(ids[1], jump_out, NULL, NULL);
		REQUIRE_EQ(epk_held(NULL, 0), 0);
		check_reach(false, false, false);
		REQUIRE_EQ(signal_of(bad, NULL), SIGSEGV);
		REQUIRE_EQ(epk_call_caught(ids[1], works, (void *)1, &result), 0);
		REQUIRE_EQ(epk_call_caught(ids[1], bad, NULL, NULL), -EFAULT);
	}
	tear_down();
}

/* libc cannot tell there that a call is left; what faults then is none. */
static volatile int wrong;

static void jump_in_coroutine(void)
{
	volatile int i;

	for (i = 0; i < 3; i++) {
		if (!setjmp(jump_buf))
			epk_call_caught(ids[1], jump_out, NULL, NULL);
		domain_end(ids[1]);
		if (signal_of(bad, (void *)4) != SIGSEGV)
			wrong = 1;
		if (signal_of(plain_call, NULL) != SIGSEGV)
			wrong = 2;
		domain_end(ids[2]);
		if (epk_call_caught(ids[1], bad, NULL, NULL) != -EFAULT)
			wrong = 3;
	}
}

static void left_in_a_coroutine(void **state)
{
	(void)state;
	set_up();
	wrong = 0;
	run_coroutine(jump_in_coroutine, coroutine_stack, sizeof(coroutine_stack));
	REQUIRE_EQ(wrong, 0);
	REQUIRE_EQ(signal_of(plain_call, NULL), SIGSEGV);
	domain_end(ids[2]);
	REQUIRE_EQ(epk_call_caught(ids[1], bad, NULL, NULL), -EFAULT);
	check_reach(false, false, false);
	tear_down();
}

/* Nor where the thread's stack lies below: what calls goes on over the frame that was left. */
static sigjmp_buf from_taken;

static void taken(void)
{
	wrong = 4;
	siglongjmp(from_taken, 1);
}

static __attribute__((noinline)) void fill_and_fault(void)
{
	volatile uintptr_t frame[1024];
	unsigned int i;

	for (i = 0; i < 1024; i++)
		frame[i] = (uintptr_t)taken;
	nowhere += !frame[1023];
	*(volatile int *)nowhere = 1;
}

static long left_within(void *arg)
{
	if (!setjmp(jump_buf))
		epk_call_caught(ids[1], jump_out, NULL, NULL);
	fill_and_fault();
	return (long)arg;
}

static void *on_a_low_stack(void *arg)
{
	(void)arg;
	if (!sigsetjmp(from_taken, 1) && epk_call_caught(ids[1], left_within, NULL, NULL) != -EFAULT)
		wrong = 5;
	return NULL;
}

static void left_within_another(void **state)
{
	void *low = mmap((void *)0x20000000, 1 << 18, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	pthread_attr_t attr;
	pthread_t thread;

	(void)state;
	set_up();
	wrong = 0;
	REQUIRE_NE(low, MAP_FAILED);
	pthread_attr_init(&attr);
	REQUIRE_EQ(pthread_attr_setstack(&attr, low, 1 << 18), 0);
	REQUIRE_EQ(pthread_create(&thread, &attr, on_a_low_stack, NULL), 0);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attr);
	munmap(low, 1 << 18);
	REQUIRE_EQ(wrong, 0);
	tear_down();
}

static long make_child(void *arg)
{
	int status = 0;
	pid_t pid = fork();

	(void)arg;
	if (!pid)
		*(volatile int *)nowhere = 1;
	waitpid(pid, &status, 0);
	mem[1][1]++;
	return WIFSIGNALED(status) ? WTERMSIG(status) : -1;
}

static void a_child(void **state)
{
	long result = 0;

	(void)state;
	set_up();
	signal(SIGSEGV, SIG_DFL);
	REQUIRE_EQ(epk_call_caught(ids[1], make_child, NULL, &result), 0);
	REQUIRE_EQ(result, SIGSEGV);
	tear_down();
}

/* Components: each way round. */
static int component;

static long in_component(void *arg)
{
	if (arg)
		return epk_call_caught(ids[1], works, NULL, NULL);
	return *(volatile char *)nowhere;
}

static long calls_gate(void *arg)
{
	long result = 0;

	REQUIRE_EQ(epk_gate_call(component, 0, NULL, NULL), -EFAULT);
	REQUIRE_EQ(epk_gate_call(component, 0, &result, &result), 0);
	REQUIRE_EQ(result, -EPERM);
	mem[1][1]++;
	return *(volatile char *)arg;
}

static void components(void **state)
{
	long (*const entries[])(void *arg) = { in_component };
	int i;

	(void)state;
	set_up();
	component = new_domain();
	REQUIRE_EQ(epk_component_create(component, entries, 1, NULL), 0);
	for (i = 0; i < 4; i++) {
		if (i & 1)
			REQUIRE_EQ(domain_begin(ids[0], RW), 0);
		REQUIRE_EQ(epk_call_caught(ids[1], calls_gate, (void *)nowhere, NULL), -EFAULT);
		check_reach(i & 1, false, false);
		if (i & 1)
			REQUIRE_EQ(domain_end(ids[0]), 0);
	}
	free_domain(component);
	tear_down();
}

/* A signal anywhere, whose handler calls and faults itself. */
static volatile bool stops;
static volatile int troubles;

static void calls_in_handler(int sig)
{
	int saved = errno;

	(void)sig;
	if (epk_held(NULL, 0) || can_read(1))
		troubles++;
	if (epk_call_caught(ids[2], bad, NULL, NULL) != -EFAULT)
		troubles++;
	if (epk_held(NULL, 0))
		troubles++;
	errno = saved;
	handled_in++;
}

static void *sends(void *arg)
{
	while (!stops) {
		pthread_kill(*(pthread_t *)arg, SIGUSR1);
		usleep(300 + rand() % 700);
	}
	return NULL;
}

static void signals_anywhere(void **state)
{
	const stack_t alternate = { .ss_sp = room, .ss_size = sizeof(room) };
	const stack_t none = { .ss_flags = SS_DISABLE };
	struct sigaction act = { .sa_handler = calls_in_handler }, old;
	pthread_t self = pthread_self(), thread;
	int on, i;

	(void)state;
	set_up();
	for (on = 0; on < 2; on++) {
		/* At the end of the stack there is no room for a signal's frame. */
		const int kinds = on ? KINDS : KINDS - 1;

		act.sa_flags = SA_RESTART | (on ? SA_ONSTACK : 0);
		sigaltstack(on ? &alternate : &none, NULL);
		sigaction(SIGUSR1, &act, &old);
		handled_in = 0;
		troubles = 0;
		stops = false;
		REQUIRE_EQ(pthread_create(&thread, NULL, sends, &self), 0);
		for (i = 0; handled_in < 150; i++) {
			if (i & 1)
				REQUIRE_EQ(domain_begin(ids[0], RW), 0);
			REQUIRE_EQ(epk_call_caught(ids[1], bad, (void *)(long)(i % kinds), NULL),
				   -EFAULT);
			REQUIRE_EQ(epk_held(NULL, 0), i & 1);
			if (i & 1)
				REQUIRE_EQ(domain_end(ids[0]), 0);
		}
		stops = true;
		pthread_join(thread, NULL);
		sigaction(SIGUSR1, &old, NULL);
		REQUIRE_EQ(troubles, 0);
	}
	sigaltstack(&none, NULL);
	tear_down();
}

/* Frames that the function has written over: nothing is held, whatever becomes of the process. */
static __attribute__((optimize("no-omit-frame-pointer"))) long writes_over(void *arg)
{
	/* The frame of epk_call_on_stack(), below which is the rest. */
	uint64_t *frame = ((uint64_t **)__builtin_frame_address(0))[0];

	/* Its control words, in each of which no exception is masked. */
	frame[-2] = (uint64_t)0x7f << 32 | 0x340;
	return 100 / zero + (long)arg;
}

static long control_words(void *arg)
{
	return epk_call_caught(ids[1], writes_over, arg, NULL);
}

static void frames_written_over(void **state)
{
	const unsigned int masked = 0x1f80;
	unsigned short control;

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call_caught(ids[1], writes_over, NULL, NULL), -EFAULT);
	asm volatile("fnstcw %0\n\tfninit\n\tldmxcsr %1" : "=m"(control) : "m"(masked));
	REQUIRE_EQ(control & 0x3f, 0);
	REQUIRE_EQ(signal_of(control_words, NULL), 0);
	asm volatile("fninit\n\tldmxcsr %0" : : "m"(masked));
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	check_reach(false, false, false);
	tear_down();
}

static void elsewhere(void **state)
{
	struct epk_fault fault = { .size = sizeof(fault) };

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call_caught(ids[1], works, NULL, NULL), -EOPNOTSUPP);
	REQUIRE_EQ(epk_last_fault(&fault), -ENOENT);
	REQUIRE(strstr(epk_strerror(-ENOENT), "epk_call_caught()"));
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind),
		cmocka_unit_test(the_stack_is_wiped),
		cmocka_unit_test(nested),
		cmocka_unit_test(others_are_signals),
		cmocka_unit_test(a_handler_that_was_left),
		cmocka_unit_test(left_otherwise),
		cmocka_unit_test(left_in_a_coroutine),
		cmocka_unit_test(left_within_another),
		cmocka_unit_test(a_child),
		cmocka_unit_test(components),
		cmocka_unit_test(frames_written_over),
		cmocka_unit_test(signals_anywhere),
	};
	const struct CMUnitTest others[] = { cmocka_unit_test(elsewhere) };

	need_backend();
	if (!backend_is("epk"))
		return cmocka_run_group_tests(others, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
