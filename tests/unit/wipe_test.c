// SPDX-License-Identifier: MIT
/*
 * Of what a function that epk_call() ran has left on its stack nothing is there afterwards, however
 * deep it went, and those before it; and shallow ones cost neither a system call nor a fault.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "call_unit.h"

#define STACK_BYTES	(128ul * 1024)
#define SECRET		0x5ec2e7a11d0ul
#define OUTER		0x07e25ec2e70ul

/* Written from one end of a frame of @bytes to the other. */
static __attribute__((noinline)) void leave(size_t bytes, uint64_t secret)
{
	size_t i, nr = bytes / sizeof(uint64_t);
	volatile uint64_t secrets[nr];

	for (i = 0; i < nr; i++)
		secrets[i] = secret << 16 | (i & 0xffff);
	(void)secrets[0];
}

static long leave_secrets(void *arg)
{
	leave((size_t)arg, SECRET);
	return 0;
}

/* Where the stack of the calling thread lies, in whose last page functions begin. */
static long find_stack(void *arg)
{
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0);

	*(char **)arg = (char *)((frame & -PAGE) + PAGE - STACK_BYTES);
	return 0;
}

static char *stack(void)
{
	char *low = NULL;

	REQUIRE(!epk_call(ids[1], find_stack, &low, NULL) && low);
	return low;
}

/* Looks only where there are pages, since looking elsewhere would make some. */
static size_t count(char *low, uint64_t secret, size_t *pages)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *high = low + STACK_BYTES;
	size_t found = 0, there = 0;
	uint64_t entry, *word;

	REQUIRE(pagemap >= 0);
	for (; low < high; low += PAGE) {
		REQUIRE(pread(pagemap, &entry, 8, (uintptr_t)low / PAGE * 8) == 8);
		if (!(entry >> 62))
			continue;
		there++;
		for (word = (uint64_t *)low; word < (uint64_t *)(low + PAGE); word++)
			found += *word >> 16 == secret;
	}
	close(pagemap);
	if (pages)
		*pages = there;
	return found;
}

static void call(size_t bytes)
{
	REQUIRE(!epk_call(ids[1], leave_secrets, (void *)bytes, NULL));
}

/* What comes behind what. */
static const size_t depths[] = {
	16, 500, 900, 16, 1500, 16, 3000, 3000, 5000, 700, 9000, 16, 9000, 40000, 16, 120000, 16, 16,
	25000, 25000, 25000, 25000, 25000, 25000, 4096, 8192, 12288, 16384, 20480, 16,
};

static void all_depths(char *low)
{
	size_t i, n;

	for (i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
		call(depths[i]);
		REQUIRE(!count(low, SECRET, NULL));
	}
	/* So many that the stack is taken for a shallow one in between. */
	for (n = 0; n < 300; n++) {
		call(n % 100 == 99 ? 9000 : 16);
		REQUIRE(n % 33 || !count(low, SECRET, NULL));
	}
	REQUIRE(!count(low, SECRET, NULL));
}

static long look_for_own(void *arg)
{
	volatile uint64_t own[8];
	size_t found;
	int i;

	for (i = 0; i < 8; i++)
		own[i] = SECRET << 16;
	found = count(arg, SECRET, NULL);
	(void)own[0];
	return found;
}

static void nothing_stays(void **state)
{
	long found = 0;
	char *low;

	(void)state;
	set_up();
	low = stack();
	/* What is looked for is found. */
	REQUIRE(!epk_call(ids[1], look_for_own, low, &found));
	REQUIRE(found >= 8);
	all_depths(low);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	all_depths(low);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	tear_down();
}

struct nested {
	char *low;
	size_t outer;
	size_t inner;
};

static long call_inside(void *arg)
{
	struct nested *n = arg;
	volatile uint64_t own[n->outer / 8];
	size_t i;

	for (i = 0; i < n->outer / 8; i++)
		own[i] = OUTER << 16;
	REQUIRE(!epk_call(ids[2], leave_secrets, (void *)n->inner, NULL));
	REQUIRE(!count(n->low, SECRET, NULL));
	for (i = 0; i < n->outer / 8; i++)
		REQUIRE(own[i] == OUTER << 16);
	return 0;
}

static void nor_of_what_they_call(void **state)
{
	struct nested n;
	size_t i, j;

	(void)state;
	set_up();
	n.low = stack();
	for (i = 0; i < 16; i++) {
		for (j = 0; j < 12; j++) {
			n.outer = depths[i] < 50000 ? depths[i] : 50000;
			n.inner = depths[j];
			REQUIRE(!epk_call(ids[1], call_inside, &n, NULL));
			REQUIRE(!count(n.low, OUTER, NULL));
			REQUIRE(!count(n.low, SECRET, NULL));
		}
	}
	tear_down();
}

static size_t handler_bytes;

static void handler(int sig)
{
	(void)sig;
	REQUIRE(!epk_call(ids[2], leave_secrets, (void *)handler_bytes, NULL));
}

static long interrupted(void *arg)
{
	leave((size_t)arg, OUTER);
	raise(SIGUSR1);
	return 0;
}

static void nor_of_what_handlers_call(void **state)
{
	struct sigaction action = { .sa_handler = handler };
	static char other[1 << 16];
	stack_t alternate = { .ss_sp = other, .ss_size = sizeof(other) };
	char *low;
	size_t i;
	int on;

	(void)state;
	set_up();
	low = stack();
	REQUIRE_EQ(sigaltstack(&alternate, NULL), 0);
	for (on = 0; on < 2; on++) {
		action.sa_flags = on ? SA_ONSTACK : 0;
		REQUIRE_EQ(sigaction(SIGUSR1, &action, NULL), 0);
		for (i = 0; i < 14; i++) {
			handler_bytes = depths[i];
			REQUIRE(!epk_call(ids[1], interrupted, (void *)depths[13 - i], NULL));
			REQUIRE(!count(low, OUTER, NULL));
			REQUIRE(!count(low, SECRET, NULL));
		}
	}
	alternate.ss_flags = SS_DISABLE;
	sigaltstack(&alternate, NULL);
	signal(SIGUSR1, SIG_DFL);
	tear_down();
}

static long leave_and_jump(void *arg)
{
	leave((size_t)arg, SECRET);
	longjmp(jump_buf, 1);
}

/* What is left by a jump is there until the next call. */
static void jumps(void **state)
{
	volatile size_t i;
	char *low;

	(void)state;
	set_up();
	low = stack();
	for (i = 0; i < 16; i++) {
		if (!setjmp(jump_buf))
			epk_call(ids[1], leave_and_jump, (void *)depths[i], NULL);
		call(16);
		REQUIRE(!count(low, SECRET, NULL));
	}
	tear_down();
}

static long read_far_down(void *arg)
{
	char *low = arg;

	return *(volatile char *)low + *(volatile char *)(low + 5 * PAGE);
}

/* Pages that are only read, too, go back. */
static void pages_go_back(void **state)
{
	size_t pages = 99, n;
	char *low;

	(void)state;
	set_up();
	low = stack();
	for (n = 0; n < 200; n++)
		call(16);
	count(low, SECRET, &pages);
	REQUIRE(pages <= 2);
	call(120000);
	count(low, SECRET, &pages);
	REQUIRE(pages <= 6);
	for (n = 0; n < 200; n++)
		call(16);
	REQUIRE(!epk_call(ids[1], read_far_down, low, NULL));
	for (n = 0; n < 200; n++)
		call(16);
	count(low, SECRET, &pages);
	REQUIRE(pages <= 2);
	tear_down();
}

static long faults(void)
{
	struct rusage usage;

	REQUIRE(!getrusage(RUSAGE_THREAD, &usage));
	return usage.ru_minflt + usage.ru_majflt;
}

/* Of one depth, once it is known. */
static void no_faults(void **state)
{
	const size_t known[] = { 16, 500, 3000, 9000 };
	size_t i, n;
	long before;

	(void)state;
	set_up();
	if (!backend_is("epk")) {
		tear_down();
		skip();
	}
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		for (n = 0; n < 200; n++)
			call(16);
		for (n = 0; n < 6; n++)
			call(known[i]);
		before = faults();
		for (n = 0; n < 50; n++)
			call(known[i]);
		REQUIRE_EQ(faults() - before, 0);
	}
	tear_down();
}

static void *thread(void *arg)
{
	(void)arg;
	all_depths(stack());
	return NULL;
}

/* Memory that is locked does not go back as other does. */
static void locked(void **state)
{
	pthread_t id;
	char *low;

	(void)state;
	set_up();
	low = stack();
	REQUIRE_EQ(mlockall(MCL_CURRENT | MCL_FUTURE), 0);
	all_depths(low);
	REQUIRE_EQ(pthread_create(&id, NULL, thread, NULL), 0);
	REQUIRE_EQ(pthread_join(id, NULL), 0);
	REQUIRE_EQ(munlockall(), 0);
	REQUIRE_EQ(mlock(low, STACK_BYTES), 0);
	all_depths(low);
	REQUIRE_EQ(munlock(low, STACK_BYTES), 0);
	tear_down();
}

/* A sandbox that allows no madvise().  False if the kernel has none. */
static bool forbid_madvise(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	REQUIRE(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	return !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void *confined_thread(void *arg)
{
	char *low = stack();

	(void)arg;
	if (!forbid_madvise())
		return NULL;
	errno = 1234;
	all_depths(low);
	return (void *)(long)errno;
}

static void without_madvise(void **state)
{
	void *saved = NULL;
	pthread_t id;

	(void)state;
	set_up();
	REQUIRE_EQ(pthread_create(&id, NULL, confined_thread, NULL), 0);
	REQUIRE_EQ(pthread_join(id, &saved), 0);
	tear_down();
	if (!saved)
		skip();
	REQUIRE_EQ((long)saved, 1234);
}

/* A child has what its parent had. */
static void forked(void **state)
{
	char *low;
	pid_t pid;
	int status;

	(void)state;
	set_up();
	low = stack();
	call(9000);
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		ids[1] = new_domain();
		all_depths(stack());
		_exit(0);
	}
	all_depths(low);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	all_depths(low);
	tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_stays),
		cmocka_unit_test(nor_of_what_they_call),
		cmocka_unit_test(nor_of_what_handlers_call),
		cmocka_unit_test(jumps),
		cmocka_unit_test(pages_go_back),
		cmocka_unit_test(no_faults),
		cmocka_unit_test(locked),
		cmocka_unit_test(without_madvise),
		cmocka_unit_test(forked),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
