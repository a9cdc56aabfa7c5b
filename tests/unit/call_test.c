// SPDX-License-Identifier: MIT
/* epk_call(): a function runs with one domain alone, and may be left in any way. */
#define _GNU_SOURCE
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>

#include "call_unit.h"

#define STACK_BYTES	(128ul * 1024)

extern char **environ;

static void one_domain_alone(void **state)
{
	long result = 0;
	int before;

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call(ids[1], look, (void *)41, &result), 0);
	REQUIRE_EQ(result, 42);
	check_reach(false, false, false);
	REQUIRE_EQ(epk_call(ids[1], look, NULL, NULL), 0);

	/* Others are held, it too, it for reading. */
	for (before = 1; before < 8; before++) {
		if (before & 1)
			REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
		if (before & 4)
			REQUIRE_EQ(domain_begin(ids[2], RW), 0);
		if (before & 2)
			REQUIRE_EQ(domain_begin(ids[1], RW), 0);
		REQUIRE_EQ(epk_call(ids[1], look, NULL, NULL), 0);
		REQUIRE_EQ(epk_held_prot(ids[0]), before & 1 ? PROT_READ : 0);
		REQUIRE_EQ(epk_held_prot(ids[1]), before & 2 ? RW : 0);
		REQUIRE_EQ(epk_held_prot(ids[2]), before & 4 ? RW : 0);
		if (backend_holds_several())
			check_reach(before & 1, before & 2, before & 4);
		epk_held(NULL, 0);
		if (before & 1)
			REQUIRE_EQ(domain_end(ids[0]), 0);
		if (before & 2)
			REQUIRE_EQ(domain_end(ids[1]), 0);
		if (before & 4)
			REQUIRE_EQ(domain_end(ids[2]), 0);
	}
	REQUIRE_EQ(domain_begin(ids[1], PROT_READ), 0);
	REQUIRE_EQ(epk_call(ids[1], look, NULL, NULL), -EACCES);
	REQUIRE_EQ(epk_held_prot(ids[1]), PROT_READ);
	REQUIRE_EQ(domain_end(ids[1]), 0);
	tear_down();
}

static void errors(void **state)
{
	int id = new_domain();

	(void)state;
	set_up();
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(epk_call(id, NULL, NULL, NULL), -EINVAL);
	REQUIRE_EQ(epk_call(0, look, NULL, NULL), -EINVAL);
	REQUIRE_EQ(epk_call(-5, look, NULL, NULL), -EINVAL);
	free_domain(id);
	REQUIRE_EQ(epk_call(id, look, NULL, NULL), -ENOENT);
	REQUIRE_EQ(epk_held_prot(ids[0]), RW);
	REQUIRE_EQ(epk_held(NULL, 0), 1);
	check_reach(true, false, false);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(epk_call(id, look, NULL, NULL), -ENOENT);
	tear_down();
}

static long inner(void *arg)
{
	int depth = (int)(long)arg;

	REQUIRE_EQ(epk_held(NULL, 0), 1);
	REQUIRE_EQ(epk_held_prot(ids[depth % 3]), RW);
	mem[depth % 3][2]++;
	if (depth)
		REQUIRE_EQ(epk_call(ids[(depth - 1) % 3], inner, (void *)(long)(depth - 1),
				    NULL), 0);
	REQUIRE_EQ(epk_held_prot(ids[depth % 3]), RW);
	mem[depth % 3][2]--;
	return 0;
}

/* The whole library, in the function. */
static long use_library(void *arg)
{
	char *more, *pages;

	(void)arg;
	more = epk_malloc(ids[1], 100);
	REQUIRE(more);
	more[99] = 1;
	REQUIRE_EQ(epk_free(ids[1], more), 0);
	more = epk_malloc(ids[2], 100);
	REQUIRE(more);
	REQUIRE_EQ(epk_free(ids[2], more), 0);
	pages = new_pages(ids[1], 2);
	pages[PAGE] = 1;
	REQUIRE_EQ(domain_munmap(pages, 2 * PAGE), 0);
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
	REQUIRE_EQ(mem[0][0], 1);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	EPK_WITH(ids[2], RW)
		mem[2][3] = 3;
	REQUIRE_EQ(epk_call(ids[0], inner, (void *)60L, NULL), 0);
	REQUIRE_EQ(free_domains(1, &ids[1]), -EBUSY);
	/* What it begins and does not end. */
	REQUIRE_EQ(domain_begin(ids[2], RW), 0);
	return mem[1][0];
}

static void the_library_inside(void **state)
{
	long result;

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call(ids[1], use_library, NULL, &result), 0);
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	check_reach(false, false, false);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(epk_call(ids[1], use_library, NULL, &result), 0);
	REQUIRE_EQ(epk_held(NULL, 0), 1);
	if (backend_holds_several())
		check_reach(true, false, false);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	tear_down();
}

static long give_up(void *arg)
{
	(void)arg;
	REQUIRE_EQ(domain_end(ids[1]), 0);
	check_reach(false, false, false);
	return 7;
}

static long free_what_waits(void *arg)
{
	return free_domains(1, arg);
}

/* Where nobody but the thread knows what it held, that can be freed meanwhile: the caller is told. */
static void what_was_held_is_gone(void **state)
{
	long result = 0;
	int id, err;

	(void)state;
	set_up();
	id = new_domain();
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
	err = epk_call(ids[1], free_what_waits, &id, &result);
	if (result) {
		REQUIRE_EQ(result, -EBUSY);
		REQUIRE_EQ(err, 0);
		REQUIRE_EQ(domain_end(id), 0);
		free_domain(id);
	} else {
		REQUIRE_EQ(err, backend_is("epk") ? 0 : -EIO);
	}
	if (!err)
		REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	check_reach(false, false, false);
	tear_down();
}

static void it_ends_its_domain(void **state)
{
	long result = 0;

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call(ids[1], give_up, NULL, &result), 0);
	REQUIRE_EQ(result, 7);
	check_reach(false, false, false);
	REQUIRE_EQ(domain_begin(ids[1], RW), 0);
	REQUIRE_EQ(epk_call(ids[1], give_up, NULL, &result), 0);
	REQUIRE_EQ(epk_held_prot(ids[1]), RW);
	check_reach(false, true, false);
	REQUIRE_EQ(domain_end(ids[1]), 0);
	tear_down();
}

static long jump_far(void *arg)
{
	epk_call(ids[1], jump_out, arg, NULL);
	return 1;
}

static long jump_about(void *arg)
{
	volatile int jumps = 0;

	(void)arg;
	setjmp(jump_buf);
	if (++jumps < 10)
		longjmp(jump_buf, 1);
	return jumps + mem[1][0];
}

/* Nothing is held afterwards, whatever was before, and all can be held anew. */
static void left_by_longjmp(void **state)
{
	volatile int round;
	long result;

	(void)state;
	set_up();
	/* More often than rights can be put aside. */
	for (round = 0; round < 1200; round++) {
		if (round & 1)
			REQUIRE_EQ(domain_begin(ids[0], RW), 0);
		if (round & 2 ? !sigsetjmp(sigjump_buf, 1) : !setjmp(jump_buf))
			epk_call(round & 4 ? ids[2] : ids[1], round & 4 ? jump_far : jump_out,
				 (void *)(long)(round & 2), NULL);
		REQUIRE_EQ(epk_held(NULL, 0), 0);
		check_reach(false, false, false);
		if (round % 100 == 0) {
			REQUIRE_EQ(epk_call(ids[1], look, NULL, NULL), 0);
			check_reach(false, false, false);
		}
	}
	REQUIRE_EQ(epk_call(ids[1], jump_about, NULL, &result), 0);
	REQUIRE_EQ(result, 10 + 2);
	check_reach(false, false, false);
	tear_down();
}

static sigjmp_buf from_fault;

static void leave_fault(int sig)
{
	siglongjmp(from_fault, sig);
}

static long goes_wrong(void *arg)
{
	return *(volatile long *)arg;
}

/* By a handler of the program's own: each next call has the stack back. */
static void left_by_faults(void **state)
{
	struct sigaction old, own = { .sa_handler = leave_fault };
	volatile int i, before = 0;

	(void)state;
	set_up();
	REQUIRE_EQ(sigaction(SIGSEGV, &own, &old), 0);
	for (i = 0; i < 200; i++) {
		if (i == 5)
			before = count_mappings();
		if (!sigsetjmp(from_fault, 1)) {
			epk_call(ids[1], goes_wrong, NULL, NULL);
			FAIL("here nothing comes by");
		}
		REQUIRE_EQ(epk_held(NULL, 0), 0);
	}
	REQUIRE_EQ(count_mappings(), before);
	REQUIRE_EQ(sigaction(SIGSEGV, &old, NULL), 0);
	tear_down();
}

static long exit_thread(void *arg)
{
	mem[1][1]++;
	pthread_exit(arg);
}

static pthread_key_t key;
static int reached;

/* A destructor runs after the thread's function has been left. */
static void destructor(void *arg)
{
	(void)arg;
	reached = backend_is_private() && can_read(1);
	if (epk_held(NULL, 0))
		reached++;
}

static void *thread_that_exits(void *arg)
{
	pthread_setspecific(key, &key);
	if (arg && domain_begin(ids[0], RW))
		return arg;
	epk_call(ids[1], exit_thread, NULL, NULL);
	return (void *)1;
}

static void left_by_thread_exit(void **state)
{
	pthread_t thread;
	void *got;
	int held;

	(void)state;
	set_up();
	REQUIRE_EQ(pthread_key_create(&key, destructor), 0);
	for (held = 0; held < 2; held++) {
		reached = -1;
		REQUIRE_EQ(pthread_create(&thread, NULL, thread_that_exits,
					  held ? &held : NULL), 0);
		REQUIRE_EQ(pthread_join(thread, &got), 0);
		REQUIRE(!got);
		if (!held)
			REQUIRE_EQ(reached, 0);
	}
	pthread_key_delete(key);
	tear_down();
}

static sem_t inside;
static int cleaned;

/* In the handler of libc's signal, perhaps, which has nothing of what it interrupts. */
static void clean(void *arg)
{
	(void)arg;
	cleaned++;
}

static long wait_for_ever(void *arg)
{
	pthread_cleanup_push(clean, NULL);
	sem_post(&inside);
	if (arg)
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;)
		if (!arg)
			pause();
	pthread_cleanup_pop(0);
	return 0;
}

static void *thread_that_waits(void *arg)
{
	epk_call(ids[1], wait_for_ever, arg, NULL);
	return (void *)1;
}

static void left_by_cancellation(void **state)
{
	pthread_t thread;
	void *got;
	int i;

	(void)state;
	set_up();
	REQUIRE_EQ(sem_init(&inside, 0, 0), 0);
	for (i = 0; i < 4; i++) {
		cleaned = 0;
		REQUIRE_EQ(pthread_create(&thread, NULL, thread_that_waits, NULL), 0);
		sem_wait(&inside);
		REQUIRE_EQ(pthread_cancel(thread), 0);
		REQUIRE_EQ(pthread_join(thread, &got), 0);
		REQUIRE_EQ(got, PTHREAD_CANCELED);
		REQUIRE_EQ(cleaned, 1);
	}
	tear_down();
}

static volatile sig_atomic_t handled;
static volatile bool handler_reads;

static void handler(int signo)
{
	(void)signo;
	handler_reads = can_read(1);
	handled++;
}

static long raise_signals(void *arg)
{
	int i;

	(void)arg;
	for (i = 0; i < 10; i++) {
		raise(SIGUSR1);
		mem[1][1]++;
	}
	return epk_held_prot(ids[1]);
}

/* Whatever stack it runs on, a handler has nothing, and comes back to what was held. */
static void interrupted(void **state)
{
	static char stack[65536];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	const stack_t none = { .ss_flags = SS_DISABLE };
	struct sigaction act = { .sa_handler = handler }, old;
	long result;
	int on;

	(void)state;
	set_up();
	for (on = 0; on < 2; on++) {
		handled = 0;
		act.sa_flags = on ? SA_ONSTACK : 0;
		REQUIRE_EQ(sigaction(SIGUSR1, &act, &old), 0);
		REQUIRE_EQ(sigaltstack(on ? &alternate : &none, NULL), 0);
		REQUIRE_EQ(epk_call(ids[1], raise_signals, NULL, &result), 0);
		REQUIRE_EQ(result, RW);
		REQUIRE_EQ(handled, 10);
		if (backend_is_private())
			REQUIRE(!handler_reads);
		check_reach(false, false, false);
		REQUIRE_EQ(sigaction(SIGUSR1, &old, NULL), 0);
	}
	REQUIRE_EQ(sigaltstack(&none, NULL), 0);
	tear_down();
}

static int status_of(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static long make_children(void *arg)
{
	char *const args[] = { "/bin/true", NULL };
	pid_t pid;
	int own;

	(void)arg;
	pid = fork();
	if (!pid) {
		/* It has none of the domains, and makes its own. */
		if (domain_begin(ids[1], RW) != -EPERM || alloc_domains(1, &own) ||
		    epk_held(NULL, 0))
			_exit(1);
		return -1;
	}
	REQUIRE_EQ(status_of(pid), 0);
	pid = vfork();
	if (!pid) {
		execv(args[0], args);
		_exit(127);
	}
	REQUIRE_EQ(status_of(pid), 0);
	REQUIRE_EQ(posix_spawn(&pid, args[0], NULL, NULL, args, environ), 0);
	REQUIRE_EQ(status_of(pid), 0);
	REQUIRE_EQ(system("true"), 0);
	mem[1][1]++;
	return epk_held_prot(ids[1]);
}

static void children(void **state)
{
	long result = 0;
	int held, err;

	(void)state;
	set_up();
	for (held = 0; held < 2; held++) {
		if (held)
			REQUIRE_EQ(domain_begin(ids[0], RW), 0);
		err = epk_call(ids[1], make_children, NULL, &result);
		if (result < 0)
			_exit(err && !held);
		REQUIRE_EQ(err, 0);
		REQUIRE_EQ(result, RW);
		if (held)
			REQUIRE_EQ(domain_end(ids[0]), 0);
		check_reach(false, false, false);
	}
	tear_down();
}

#define SECRET	0x5ec2e7a11d0u

/* Written from one end of a stack of @bytes to the other. */
static __attribute__((noinline)) long leave_secrets(void *arg)
{
	size_t i, nr = (size_t)arg / sizeof(uint64_t);
	volatile uint64_t secrets[nr];

	for (i = 0; i < nr; i++)
		secrets[i] = (SECRET << 16) + i;
	return secrets[nr - 1] - secrets[0];
}

/* Of memory that can be read and written and is no domain's. */
static size_t count_secrets(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	size_t found = 0;
	char line[512];

	REQUIRE(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (!strstr(line, " rw-p") || sscanf(line, "%lx-%lx", &start, &end) != 2 ||
		    epk_domain_at((void *)start))
			continue;
		for (; start < end; start += sizeof(uint64_t))
			found += *(volatile uint64_t *)start >> 16 == SECRET;
	}
	fclose(maps);
	return found;
}

/* What is looked for is found, if it lies below what looks for it. */
static void find_secrets(void)
{
	REQUIRE(leave_secrets((void *)20000) == 2499);
	REQUIRE(count_secrets());
}

static void nothing_stays_on_the_stack(void **state)
{
	const size_t depths[] = { 16, 2000, 5000, 20000, 120000 };
	long result;
	int i, held;

	(void)state;
	if (SANITIZED)
		skip();
	set_up();
	run_in_child(find_secrets);
	for (held = 0; held < 2; held++) {
		for (i = 0; i < 5; i++) {
			explicit_bzero(alloca(4096), 4096);
			if (held)
				REQUIRE_EQ(domain_begin(ids[0], RW), 0);
			REQUIRE_EQ(epk_call(ids[1], leave_secrets, (void *)depths[i],
					    &result), 0);
			if (held)
				REQUIRE_EQ(domain_end(ids[0]), 0);
			REQUIRE_EQ(result, depths[i] / 8 - 1);
			REQUIRE_EQ(count_secrets(), 0);
		}
	}
	tear_down();
}

static char *stack_of(void *arg)
{
	char *byte = __builtin_frame_address(0);

	*(char **)arg = byte;
	return byte;
}

static long note_stack(void *arg)
{
	return (long)stack_of(arg);
}

static __attribute__((noinline)) long run_over(void *arg)
{
	char deep[STACK_BYTES + 2 * PAGE];

	memset(deep, 1, sizeof(deep));
	asm volatile("" : : "r"(deep), "r"(arg) : "memory");
	return 0;
}

/* On a stack of its own, that has an end. */
static void on_a_stack_of_its_own(void **state)
{
	char *first, *second, here, *at;
	long pages;

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call(ids[1], note_stack, &first, NULL), 0);
	REQUIRE_EQ(epk_call(ids[2], note_stack, &second, NULL), 0);
	REQUIRE_EQ(first, second);
	REQUIRE((size_t)labs(first - &here) > STACK_BYTES);
	REQUIRE_EQ(epk_domain_at(first), 0);
	at = (char *)((uintptr_t)first & -PAGE);
	for (pages = 0; pages < 64 && try_read(at, &here); pages++)
		at -= PAGE;
	REQUIRE_EQ(pages, STACK_BYTES / PAGE);
	tear_down();
}

static long use_registers(void *arg)
{
	(void)arg;
	asm volatile("mov $0x5ec4e75ec4e7, %%rax\n\t"
		     "movq %%rax, %%xmm5\n\t"
		     "movq %%rax, %%xmm12\n\t"
		     "mov %%rax, %%r10\n\t"
		     "mov %%rax, %%rsi\n\t"
		     "movq %%rax, %%mm3\n\t"
		     : : : "rax", "xmm5", "xmm12", "r10", "rsi", "mm3", "st");
	if (__builtin_cpu_supports("avx512f"))
		asm volatile("vpbroadcastq %%rax, %%zmm20\n\tkmovw %%eax, %%k3"
			     : : "a" (0x5ec4e75ec4e7ul) : "memory");
	return 42;
}

static void nothing_stays_in_registers(void **state)
{
	uint64_t low, high, r10, rsi, mm3 = 1, zmm[8] = { 0 }, k3 = 0;
	unsigned short control = 0, wanted = 0x27f;
	unsigned int mxcsr = 0, rounding = 0x1f80 | 0x2000;
	long result;
	int i;

	(void)state;
	/* What a sanitizer does comes between the call and a look. */
	if (SANITIZED)
		skip();
	set_up();
	for (i = 0; i < 3; i++) {
		asm volatile("fldcw %0\n\tldmxcsr %1" : : "m"(wanted), "m"(rounding));
		REQUIRE_EQ(epk_call(ids[1], use_registers, NULL, &result), 0);
		asm volatile("mov %%r10, %0\n\tmov %%rsi, %1" : "=r"(r10), "=r"(rsi));
		asm volatile("movq %%xmm5, %0\n\tmovq %%xmm12, %1" : "=r"(low), "=r"(high));
		asm volatile("fnstcw %0\n\tstmxcsr %1" : "=m"(control), "=m"(mxcsr));
		asm volatile("movq %%mm3, %0\n\temms" : "=r"(mm3) : : "st");
		if (__builtin_cpu_supports("avx512f"))
			asm volatile("vmovdqu64 %%zmm20, %0\n\tkmovw %%k3, %k1"
				     : "=m"(zmm), "=r"(k3));
		asm volatile("fninit");
		REQUIRE_EQ(low, 0);
		REQUIRE_EQ(high, 0);
		REQUIRE_NE(r10, 0x5ec4e75ec4e7);
		REQUIRE_NE(rsi, 0x5ec4e75ec4e7);
		REQUIRE_EQ(mm3, 0);
		REQUIRE_EQ(zmm[0], 0);
		REQUIRE_EQ(k3, 0);
		REQUIRE_EQ(control, wanted);
		REQUIRE_EQ(mxcsr & ~0x3fu, rounding);
		REQUIRE_EQ(result, 42);
	}
	mxcsr = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
	tear_down();
}

static long call_from_handler(void *arg)
{
	(void)arg;
	mem[2][1]++;
	return 0;
}

static void calling_handler(int signo)
{
	(void)signo;
	handled += epk_call(ids[2], call_from_handler, NULL, NULL) == 0;
}

/* What it interrupted has its stack still; not for "mpk", where a handler cannot begin much. */
static void called_in_a_handler(void **state)
{
	static char stack[65536];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	const stack_t none = { .ss_flags = SS_DISABLE };
	struct sigaction act = { .sa_handler = calling_handler }, old;
	long result;
	int on;

	(void)state;
	set_up();
	REQUIRE_EQ(domain_begin(ids[2], RW), 0);
	REQUIRE_EQ(domain_end(ids[2]), 0);
	for (on = 0; on < 2; on++) {
		handled = 0;
		act.sa_flags = on ? SA_ONSTACK : 0;
		REQUIRE_EQ(sigaltstack(on ? &alternate : &none, NULL), 0);
		REQUIRE_EQ(sigaction(SIGUSR1, &act, &old), 0);
		REQUIRE_EQ(epk_call(ids[1], raise_signals, NULL, &result), 0);
		REQUIRE_EQ(result, RW);
		REQUIRE_EQ(handled, 10);
		REQUIRE_EQ(sigaction(SIGUSR1, &old, NULL), 0);
	}
	REQUIRE_EQ(sigaltstack(&none, NULL), 0);
	tear_down();
}

static void the_stack_ends(void **state)
{
	int status;

	(void)state;
	set_up();
	fflush(NULL);
	status = fork();
	if (!status) {
		signal(SIGSEGV, SIG_DFL);
		REQUIRE_EQ(alloc_domains(1, ids), 0);
		epk_call(ids[0], run_over, NULL, NULL);
		_exit(0);
	}
	status = status_of(status);
	REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_domain_alone),
		cmocka_unit_test(errors),
		cmocka_unit_test(the_library_inside),
		cmocka_unit_test(what_was_held_is_gone),
		cmocka_unit_test(it_ends_its_domain),
		cmocka_unit_test(left_by_longjmp),
		cmocka_unit_test(left_by_faults),
		cmocka_unit_test(left_by_thread_exit),
		cmocka_unit_test(left_by_cancellation),
		cmocka_unit_test(interrupted),
		cmocka_unit_test(called_in_a_handler),
		cmocka_unit_test(children),
		cmocka_unit_test(nothing_stays_on_the_stack),
		cmocka_unit_test(nothing_stays_in_registers),
		cmocka_unit_test(on_a_stack_of_its_own),
		cmocka_unit_test(the_stack_ends),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
