// SPDX-License-Identifier: MIT
/*
 * What programs do with the library, in plain C, with nothing but a C library: threads with
 * domains of their own, heaps, calls, components, children.  Exits with 0 if all is as it should be.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <string.h>
#include <unistd.h>

#include <epk.h>

#include "need.h"

#define RW	(PROT_READ | PROT_WRITE)

static long add_up(void *arg)
{
	const long *numbers = arg;
	long sum = 0;
	int i;

	for (i = 0; i < 512; i++)
		sum += numbers[i];
	return sum;
}

static void use_memory(int id)
{
	long *numbers = domain_mmap(id, NULL, 4096, RW, 0), sum = 0;
	int by_module = !strcmp(epk_backend(), "epk");
	int i, err;

	REQUIRE(numbers != MAP_FAILED);
	REQUIRE(!domain_begin(id, RW));
	for (i = 0; i < 512; i++)
		numbers[i] = i;
	REQUIRE(domain_begin(id, RW) == -EALREADY);
	REQUIRE(epk_held(NULL, 0) == 1 && epk_held_prot(id) == RW);
	REQUIRE(!domain_end(id) && domain_end(id) == -EACCES);
	REQUIRE(!epk_call(id, add_up, numbers, &sum) && sum == 511 * 256);
	err = epk_call_caught(id, add_up, numbers, &sum);
	REQUIRE(err == (by_module ? 0 : -EOPNOTSUPP) && sum == 511 * 256);
	REQUIRE(!by_module || epk_call_caught(id, add_up, NULL, NULL) == -EFAULT);
	EPK_WITH_ERROR(err, id, PROT_READ)
		REQUIRE(numbers[7] == 7);
	REQUIRE(!err && !epk_held(NULL, 0));
	REQUIRE(epk_domain_at(numbers) == id && !domain_munmap(numbers, 4096));
}

static long (*const entries[])(void *arg) = { add_up };

static void use_component(int id)
{
	static long numbers[512] = { 1, 2, 3 };
	int by_module = !strcmp(epk_backend(), "epk"), err;
	long sum = 0;

	err = epk_component_create(id, entries, 1, NULL);
	REQUIRE(err == (by_module ? 0 : -EOPNOTSUPP));
	err = epk_gate_call(id, 0, numbers, &sum);
	REQUIRE(err == (by_module ? 0 : -EINVAL) && sum == (by_module ? 6 : 0));
}

static void use_heap(int id)
{
	char *some, *more;

	some = epk_malloc(id, 100);
	REQUIRE(some);
	EPK_WITH(id, RW)
		strcpy(some, "some");
	more = epk_realloc(id, some, 10000);
	REQUIRE(more);
	EPK_WITH(id, PROT_READ)
		REQUIRE(!strcmp(more, "some"));
	REQUIRE(!epk_free(id, more) && epk_free(id, more) == -EINVAL);
}

static void *use_all(void *arg)
{
	int ids[3], round, i;

	(void)arg;
	for (round = 0; round < 5; round++) {
		REQUIRE(!alloc_domains(3, ids));
		for (i = 0; i < 3; i++)
			use_memory(ids[i]);
		use_heap(ids[0]);
		use_component(ids[1]);
		REQUIRE(!free_domains(3, ids) && domain_begin(ids[0], RW) == -ENOENT);
	}
	return NULL;
}

/* musl does not tell anybody. */
#ifdef __GLIBC__
static jmp_buf before;

/* Leaves used frames behind, fewer each time, where the next goes. */
static long jump_out(void *arg)
{
	volatile char frame[300];
	long deeper = (long)arg;

	frame[299] = frame[0] = 1;
	if (deeper)
		frame[0] = jump_out((void *)(deeper - 1));
	if (frame[299])
		longjmp(before, 1);
	return frame[0];
}

static void jump_out_of_calls(void)
{
	volatile long deep;
	int id;

	REQUIRE(!alloc_domains(1, &id));
	for (deep = 20; deep >= 0; deep--) {
		if (!setjmp(before))
			REQUIRE(epk_call(id, jump_out, (void *)deep, NULL));
		REQUIRE(!epk_held(NULL, 0));
	}
	use_memory(id);
	REQUIRE(!free_domains(1, &id));
}
#else
static void jump_out_of_calls(void)
{
}
#endif

static long end_thread(void *arg)
{
	pthread_exit(arg);
}

static void *call_and_end(void *arg)
{
	epk_call(*(int *)arg, end_thread, arg, NULL);
	return NULL;
}

/* Whatever it holds goes with it. */
static void end_in_call(void)
{
	pthread_t thread;
	void *got;
	int id;

	REQUIRE(!alloc_domains(1, &id));
	REQUIRE(!pthread_create(&thread, NULL, call_and_end, &id));
	REQUIRE(!pthread_join(thread, &got) && got == &id);
	REQUIRE(!free_domains(1, &id));
}

static void use_in_child(void)
{
	int id;
	pid_t pid;

	REQUIRE(!alloc_domains(1, &id));
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		REQUIRE(domain_begin(id, RW) == -EPERM);
		use_all(NULL);
		_exit(0);
	}
	REQUIRE_CHILD(pid);
	use_memory(id);
	REQUIRE(!free_domains(1, &id));
}

int main(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };
	pthread_t threads[4];
	int i;

	REQUIRE(!epk_init(NULL) && epk_init(NULL) == -EALREADY);
	REQUIRE(epk_version() == (EPK_VERSION_MAJOR << 16 | EPK_VERSION_MINOR));
	for (i = 0; i < 4; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, use_all, NULL));
	for (i = 0; i < 4; i++)
		REQUIRE(!pthread_join(threads[i], NULL));
	end_in_call();
	jump_out_of_calls();
	use_in_child();
	REQUIRE(!epk_counts(&counts) && !counts.domains);
	return 0;
}
