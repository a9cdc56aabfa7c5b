// SPDX-License-Identifier: MIT
/*
 * What a signal's frame leaves on the stack, wherever in the watched code it comes: nothing of
 * the registers, with AMX's tiles in the frame or a gap in their place, too.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "provider_test.h"
#include "provider/epk_provider.h"

OSSL_LIB_CTX *with_epk, *plain;

/* As the vault and boxes have it, and less, by which the marks are elsewhere. */
static size_t watched;
static const size_t watched_tried[] = { 2048, 4096, 8192 };
#define WATCHED_MAX	8192
#define STACK_STEP	16
/* Of a frame, and of what lies between it and the watched code. */
#define BELOW		(32 * 1024)

/* In two halves, lest the test finds its own. */
#define SECRET_HALF	0x3c5a96e1u

#define ARCH_REQ_XCOMP_PERM	0x1023
#define XFEATURE_XTILEDATA	18

static volatile unsigned int nr_signals;

static void on_signal(int sig)
{
	(void)sig;
	nr_signals++;
}

static void on_signal_with_info(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	nr_signals++;
}

/* Vector registers with the secret, and a signal; then they are empty.  Nothing else is called. */
static long interrupted_with_secret(void)
{
	long pid = getpid(), tid = gettid(), ret = SYS_tgkill;
	uint64_t half = SECRET_HALF;

	__asm__ volatile("mov %[half], %%r8\n\tshl $32, %%r8\n\tor %[half], %%r8\n\t"
			 "movq %%r8, %%xmm0\n\tmovq %%r8, %%xmm15\n\txor %%r8d, %%r8d\n\t"
			 "syscall\n\t"
			 "pxor %%xmm0, %%xmm0\n\tpxor %%xmm15, %%xmm15\n\t"
			 : "+a"(ret)
			 : [half] "r"(half), "D"(pid), "S"(tid), "d"((long)SIGUSR1)
			 : "rcx", "r8", "r11", "xmm0", "xmm15", "cc", "memory");
	return ret;
}

static void empty_vectors(void)
{
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vzeroall" : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
				 "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
				 "xmm14", "xmm15");
}

/* The same with the general registers: a frame of theirs is shorter, and has them near its end. */
static long interrupted_with_general(void)
{
	long pid = getpid(), tid = gettid(), ret = SYS_tgkill;
	uint64_t half = SECRET_HALF;

	empty_vectors();
	__asm__ volatile("mov %[half], %%r8\n\tshl $32, %%r8\n\tor %[half], %%r8\n\t"
			 "mov %%r8, %%r9\n\tmov %%r8, %%rbx\n\tmov %%r8, %%r12\n\t"
			 "mov %%r8, %%r13\n\tmov %%r8, %%r14\n\tmov %%r8, %%r15\n\t"
			 "syscall\n\t"
			 "xor %%r8d, %%r8d\n\txor %%r9d, %%r9d\n\txor %%ebx, %%ebx\n\t"
			 "xor %%r12d, %%r12d\n\txor %%r13d, %%r13d\n\txor %%r14d, %%r14d\n\t"
			 "xor %%r15d, %%r15d"
			 : "+a"(ret)
			 : [half] "r"(half), "D"(pid), "S"(tid), "d"((long)SIGUSR1)
			 : "rcx", "r8", "r9", "rbx", "r11", "r12", "r13", "r14", "r15", "cc",
			   "memory");
	return ret;
}

static bool in_general;

static __attribute__((noinline)) long interrupted_at(size_t depth)
{
	volatile char *bytes = alloca(depth + 1);
	long ret;

	bytes[0] = 0;
	ret = in_general ? interrupted_with_general() : interrupted_with_secret();
	bytes[depth] = 0;
	return ret;
}

static __attribute__((noinline)) long watched_and_interrupted(size_t depth)
{
	char *low = epkp_watch(watched);
	long ret = interrupted_at(depth);

	epkp_scrub(low);
	return ret;
}

static __attribute__((noinline)) unsigned int left_below(void)
{
	const volatile uint32_t *top = __builtin_frame_address(0);
	const volatile uint32_t *at = top - (WATCHED_MAX + BELOW) / sizeof(*at);
	unsigned int found = 0;

	for (; at < top; at++)
		found += at[0] == SECRET_HALF && at[1] == SECRET_HALF;
	return found;
}

/* From where the watched code begins to where it almost ends. */
static unsigned int left_of_signals(void)
{
	unsigned int found = 0, before = nr_signals;
	size_t depth, times = 0;
	long failed = 0;

	for (depth = 0; depth < watched - 512; depth += STACK_STEP, times++) {
		failed |= watched_and_interrupted(depth);
		found += left_below();
	}
	REQUIRE_EQ(failed, 0);
	REQUIRE_EQ(nr_signals - before, times);
	return found;
}

static void handle_with(void (*with_info)(int, siginfo_t *, void *))
{
	struct sigaction action = { .sa_handler = on_signal };

	if (with_info) {
		action.sa_flags = SA_SIGINFO;
		action.sa_sigaction = with_info;
	}
	REQUIRE_EQ(sigaction(SIGUSR1, &action, NULL), 0);
}

static void nothing_is_left_of_a_frame(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(watched_tried) / sizeof(watched_tried[0]); i++) {
		watched = watched_tried[i];
		for (in_general = false;; in_general = true) {
			handle_with(NULL);
			REQUIRE_EQ(left_of_signals(), 0);
			handle_with(on_signal_with_info);
			REQUIRE_EQ(left_of_signals(), 0);
			if (in_general)
				break;
		}
	}
}

/* What a frame writes without a gap: the least of what marks are to see. */
#define WITHOUT_GAP	384

static __attribute__((noinline)) void watched_and_written(size_t below)
{
	volatile uint32_t *at;
	char *low = epkp_watch(watched);
	size_t i;

	at = (volatile uint32_t *)(low - below - WITHOUT_GAP);
	for (i = 0; i < WITHOUT_GAP / sizeof(*at); i++)
		at[i] = SECRET_HALF;
	epkp_scrub(low);
}

/* Whatever a CPU leaves out of its frames. */
static void nothing_is_left_of_so_much(void **state)
{
	size_t below;

	(void)state;
	watched = watched_tried[0];
	for (below = 0; below + WITHOUT_GAP <= epkp_watched_below(0) - 128; below += 8) {
		watched_and_written(below);
		REQUIRE_EQ(left_below(), 0);
	}
}

static __attribute__((noinline)) void clear_below(void)
{
	volatile char bytes[WATCHED_MAX + BELOW + 4096];
	size_t i;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = 0;
}

/* What is looked for is there to be found. */
static void unwatched_code_leaves_it(void **state)
{
	(void)state;
	handle_with(NULL);
	in_general = false;
	REQUIRE_EQ(interrupted_at(0), 0);
	REQUIRE(left_below() > 0);
	in_general = true;
	clear_below();
	REQUIRE_EQ(left_below(), 0);
	REQUIRE_EQ(interrupted_at(0), 0);
	REQUIRE(left_below() > 0);
}

static int have_tiles(void)
{
	unsigned int a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 24 & 1 &&
	       !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

static __attribute__((target("amx-tile"))) void use_tiles(int use)
{
	/* Palette 1, and one tile of 16 rows of 64 bytes. */
	static const uint8_t config[64] = { [0] = 1, [16] = 64, [48] = 16 };

	if (use)
		__asm__ volatile("ldtilecfg %0\n\ttilezero %%tmm0" : : "m"(config));
	else
		__asm__ volatile("tilerelease");
}

static void nothing_is_left_of_a_frame_with_tiles(void **state)
{
	(void)state;
	if (!have_tiles())
		skip();
	use_tiles(1);
	nothing_is_left_of_a_frame(state);
	use_tiles(0);
	nothing_is_left_of_a_frame(state);
}

/* ---- a stack that is too small */

#define SMALL_STACK	(16 * 1024)
#define GUARD_PAGE	4096

static void *watch_more_than_there_is(void *arg)
{
	(void)arg;
	epkp_watch(32 * 1024);
	return NULL;
}

/* As what was not watched is wiped. */
static void *wipe_more_than_there_is(void *arg)
{
	(void)arg;
	epkp_scrub((char *)__builtin_frame_address(0) - 16 * 1024);
	return NULL;
}

/* It is a fault, and what lies behind the page below is as it was. */
static void is_a_fault(void *(*fn)(void *))
{
	char *mem = mmap(NULL, BELOW + GUARD_PAGE + SMALL_STACK, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attr;
	pthread_t thread;
	int status, i;
	pid_t pid;

	REQUIRE(mem != MAP_FAILED);
	memset(mem, 1, BELOW);
	REQUIRE_EQ(mprotect(mem + BELOW, GUARD_PAGE, PROT_NONE), 0);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		pthread_attr_init(&attr);
		pthread_attr_setstack(&attr, mem + BELOW + GUARD_PAGE, SMALL_STACK);
		if (pthread_create(&thread, &attr, fn, NULL))
			_exit(1);
		pthread_join(thread, NULL);
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	for (i = 0; i < BELOW; i++)
		REQUIRE_EQ(mem[i], 1);
	munmap(mem, BELOW + GUARD_PAGE + SMALL_STACK);
}

static void small_stack_is_a_fault(void **state)
{
	(void)state;
	is_a_fault(watch_more_than_there_is);
	is_a_fault(wipe_more_than_there_is);
}

/* What libc's functions leave in masks is a string's length. */
#define MASK_SECRET	0x3c96u
#define SET_MASK(n)	"kmovw %k0, %%k" #n "\n\t"
#define GET_MASK(n)	"kmovw %%k" #n ", 4*" #n "(%0)\n\t"

static void masks_are_emptied(void **state)
{
	uint32_t secret = MASK_SECRET;
	uint16_t masks[16] = { 0 };
	char *low;
	int i;

	(void)state;
	if (!__builtin_cpu_supports("avx512f")) {
		skip();
		return;
	}
	low = epkp_watch(2048);
	__asm__ volatile(SET_MASK(0) SET_MASK(1) SET_MASK(2) SET_MASK(3) SET_MASK(4) SET_MASK(5)
			 SET_MASK(6) SET_MASK(7) : : "r"(secret));
	epkp_scrub(low);
	__asm__ volatile(GET_MASK(0) GET_MASK(1) GET_MASK(2) GET_MASK(3) GET_MASK(4) GET_MASK(5)
			 GET_MASK(6) GET_MASK(7) : : "r"(masks) : "memory");
	for (i = 0; i < 16; i++)
		REQUIRE(masks[i] != MASK_SECRET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unwatched_code_leaves_it),
		cmocka_unit_test(nothing_is_left_of_a_frame),
		cmocka_unit_test(nothing_is_left_of_a_frame_with_tiles),
		cmocka_unit_test(nothing_is_left_of_so_much),
		cmocka_unit_test(small_stack_is_a_fault),
		cmocka_unit_test(masks_are_emptied),
	};

	return cmocka_run_group_tests_name("provider_scrub", tests, NULL, NULL);
}
