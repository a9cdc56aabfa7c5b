// SPDX-License-Identifier: MIT
/* Who can touch what, and when: on backends that protect. */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "unit.h"

#include "state_page.h"

#define MANY	40	/* more than there are protection keys */

static char byte;

static void require_refused(char *mem, int id)
{
	int pkey;

	REQUIRE(!try_read(mem, &byte));
	REQUIRE_EQ(try_signal, SIGSEGV);
	if (try_code == SEGV_PKUERR && backend_is("mpk")) {
		/* An evicted domain has no key of its own. */
		REQUIRE_EQ(epk_domain_place(id, NULL, &pkey), 0);
		if (pkey > 0)
			REQUIRE_EQ(try_pkey, pkey);
	}
	REQUIRE(!try_write(mem, 1));
	REQUIRE_EQ(try_signal, SIGSEGV);
}

static void fresh_domain_is_closed(void **state)
{
	int id = new_domain();
	char *mem = new_pages(id, 1);

	(void)state;
	require_refused(mem, id);
	free_domain(id);
}

static void begin_opens_and_end_closes(void **state)
{
	int id = new_domain();
	char *mem = new_pages(id, 2);
	int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		REQUIRE_EQ(domain_begin(id, RW), 0);
		REQUIRE(try_write(mem + PAGE, 42 + i));
		REQUIRE(try_read(mem + PAGE, &byte));
		REQUIRE_EQ(byte, 42 + i);
		REQUIRE_EQ(domain_end(id), 0);
		require_refused(mem, id);
		require_refused(mem + PAGE, id);
	}
	free_domain(id);
}

/* So often. */
static int mprotect_fails;

/* In place of the C library's. */
int mprotect(void *addr, size_t len, int prot)
{
	if (mprotect_fails > 0) {
		mprotect_fails--;
		errno = ENOMEM;
		return -1;
	}
	return syscall(SYS_mprotect, addr, len, prot);
}

/* What could not be closed is held still, and can be ended again. */
static void end_that_fails(void **state)
{
	char *mem;
	int id;

	(void)state;
	if (!backend_is("mprotect"))
		skip();
	id = new_domain();
	mem = new_pages(id, 1);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	/* And its undoing. */
	mprotect_fails = 2;
	REQUIRE_EQ(domain_end(id), -ENOMEM);
	REQUIRE_EQ(mprotect_fails, 0);
	REQUIRE_EQ(epk_held_prot(id), RW);
	mem[0] = 1;
	REQUIRE_EQ(domain_end(id), 0);
	require_refused(mem, id);
	free_domain(id);
}

static int left[3];
static char *left_mem[3];

static void *leave_all(void *arg)
{
	int i;

	for (i = 0; i < 3; i++)
		REQUIRE(!domain_begin(left[i], RW));
	mprotect_fails = *(int *)arg;
	return NULL;
}

static void end_thread_that_holds(int failures)
{
	pthread_t thread;
	int i;

	REQUIRE(!alloc_domains(3, left));
	for (i = 0; i < 3; i++) {
		left_mem[i] = domain_mmap(left[i], NULL, PAGE, RW, 0);
		REQUIRE(left_mem[i] != MAP_FAILED);
	}
	REQUIRE(!pthread_create(&thread, NULL, leave_all, &failures));
	REQUIRE(!pthread_join(thread, NULL));
	for (i = 0; i < 3; i++)
		REQUIRE(!try_read(left_mem[i], &byte));
}

static void thread_ends_that_cannot_close_one(void)
{
	end_thread_that_holds(2);
	REQUIRE(!mprotect_fails);
	REQUIRE(!free_domains(3, left));
}

static void thread_ends_that_cannot_close_any(void)
{
	end_thread_that_holds(1000);
}

/* What a thread holds at its end is closed, one failure or not; or the process ends. */
static void thread_end_that_fails(void **state)
{
	int status;

	(void)state;
	if (!backend_is("mprotect"))
		skip();
	run_in_child(thread_ends_that_cannot_close_one);
	status = status_of_child(thread_ends_that_cannot_close_any);
	REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
}

static bool ran;

static long run(void *arg)
{
	(void)arg;
	ran = true;
	return 0;
}

/* Nothing is run beside what could not be closed, and what was held is held. */
static void call_that_cannot_close(void **state)
{
	int ids[3], i;
	char *mem[3];

	(void)state;
	if (!backend_is("mprotect"))
		skip();
	REQUIRE_EQ(alloc_domains(3, ids), 0);
	for (i = 0; i < 3; i++)
		mem[i] = new_pages(ids[i], 1);
	REQUIRE_EQ(epk_call(ids[2], run, NULL, NULL), 0);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(domain_begin(ids[1], PROT_READ), 0);
	ran = false;
	mprotect_fails = 2;
	REQUIRE_EQ(epk_call(ids[2], run, NULL, NULL), -ENOMEM);
	REQUIRE_EQ(mprotect_fails, 0);
	REQUIRE(!ran);
	REQUIRE_EQ(epk_held(NULL, 0), 2);
	REQUIRE(try_write(mem[0], 1));
	REQUIRE(try_read(mem[1], &byte));
	REQUIRE(!try_write(mem[1], 1));
	require_refused(mem[2], ids[2]);
	REQUIRE_EQ(epk_call(ids[2], run, NULL, NULL), 0);
	REQUIRE(ran);
	for (i = 0; i < 2; i++)
		REQUIRE_EQ(domain_end(ids[i]), 0);
	REQUIRE_EQ(free_domains(3, ids), 0);
}

static bool mmap_forgets;

#if !SANITIZED
/* In place of the C library's: what has been put aside is lost meanwhile. */
void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (mmap_forgets)
		ioctl(epk_now.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING);
	mmap_forgets = false;
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}
#endif

/* A call that cannot give back what is held has done what it says; an access faults. */
static void what_cannot_be_given_back(void **state)
{
	int ids[2], i;
	char *mem[2];

	(void)state;
	if (!backend_is("epk"))
		skip();
	REQUIRE_EQ(alloc_domains(2, ids), 0);
	mem[0] = new_pages(ids[0], 1);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	mem[0][0] = 1;
	mmap_forgets = true;
	mem[1] = new_pages(ids[1], 1);
	REQUIRE(!mmap_forgets);
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	for (i = 0; i < 2; i++) {
		require_refused(mem[i], ids[i]);
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		mem[i][0]++;
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(free_domains(2, ids), 0);
}

static long close_fails(void *arg)
{
	mprotect_fails = *(int *)arg;
	return 0;
}

/* What a call has held alone is held still if it could not be closed, and nothing else is. */
static void call_that_cannot_end(void **state)
{
	int ids[2], most = 1000, held[2] = { 0 }, i;
	char *mem[2];

	(void)state;
	if (!backend_is("mprotect"))
		skip();
	REQUIRE_EQ(alloc_domains(2, ids), 0);
	for (i = 0; i < 2; i++)
		mem[i] = new_pages(ids[i], 1);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	/* Once is not enough. */
	i = 2;
	REQUIRE_EQ(epk_call(ids[1], close_fails, &i, NULL), 0);
	REQUIRE_EQ(mprotect_fails, 0);
	require_refused(mem[1], ids[1]);
	REQUIRE(try_read(mem[0], &byte));
	/* Nor is it held beside what was held before. */
	i = 6;
	REQUIRE_EQ(epk_call(ids[1], close_fails, &i, NULL), -EIO);
	REQUIRE_EQ(mprotect_fails, 0);
	REQUIRE_EQ(epk_held(held, 2), 0);
	require_refused(mem[1], ids[1]);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(epk_call(ids[1], close_fails, &most, NULL), -EIO);
	mprotect_fails = 0;
	REQUIRE_EQ(epk_held(held, 2), 1);
	REQUIRE_EQ(held[0], ids[1]);
	REQUIRE(!try_read(mem[0], &byte));
	REQUIRE_EQ(domain_end(ids[1]), 0);
	require_refused(mem[1], ids[1]);
	REQUIRE_EQ(free_domains(2, ids), 0);
}

static void begin_read_only_refuses_writes(void **state)
{
	int id = new_domain();
	char *mem = new_pages(id, 1);

	(void)state;
	REQUIRE_EQ(domain_begin(id, PROT_READ), 0);
	REQUIRE(try_read(mem, &byte));
	REQUIRE(!try_write(mem, 1));
	REQUIRE_EQ(try_code, refused_code());
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(id);
}

static void one_domain_does_not_open_another(void **state)
{
	int ids[2];
	char *a, *b;

	(void)state;
	if (!backend_holds_several())
		skip();
	REQUIRE_EQ(alloc_domains(2, ids), 0);
	a = new_pages(ids[0], 1);
	b = new_pages(ids[1], 1);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE(try_write(a, 1));
	require_refused(b, ids[1]);
	REQUIRE_EQ(domain_begin(ids[1], RW), 0);
	REQUIRE(try_write(a, 2));
	REQUIRE(try_write(b, 3));
	REQUIRE_EQ(domain_end(ids[0]), 0);
	require_refused(a, ids[0]);
	REQUIRE(try_read(b, &byte));
	REQUIRE_EQ(byte, 3);
	REQUIRE_EQ(domain_end(ids[1]), 0);
	require_refused(b, ids[1]);
	REQUIRE_EQ(free_domains(2, ids), 0);
}

static char *shared_mem;
static pthread_barrier_t held;

static void *read_shared(void *arg)
{
	pthread_barrier_wait(&held);
	*(bool *)arg = try_read(shared_mem, &byte);
	return NULL;
}

static bool other_thread_can_read(bool created_while_held)
{
	int id = new_domain();
	pthread_t thread;
	bool got = true;

	shared_mem = new_pages(id, 1);
	REQUIRE_EQ(pthread_barrier_init(&held, NULL, 2), 0);
	if (!created_while_held)
		REQUIRE_EQ(pthread_create(&thread, NULL, read_shared, &got), 0);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE(try_write(shared_mem, 1));
	if (created_while_held)
		REQUIRE_EQ(pthread_create(&thread, NULL, read_shared, &got), 0);
	pthread_barrier_wait(&held);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	pthread_barrier_destroy(&held);
	REQUIRE(try_read(shared_mem, &byte));
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(id);
	return got;
}

static void other_thread_has_no_right(void **state)
{
	(void)state;
	if (!backend_is_private())
		skip();
	REQUIRE(!other_thread_can_read(false));
}

/* Only the module can see to this: Linux hands PKRU on to new threads. */
static void new_thread_does_not_inherit(void **state)
{
	(void)state;
	if (!backend_is_private())
		skip();
	REQUIRE_EQ(other_thread_can_read(true), backend_is("mpk"));
}

/* On mpk, keys go round; on epk, EPTs do. */
static void many_domains_keep_their_data(void **state)
{
	int ids[MANY], i, j;
	char *mem[MANY];

	(void)state;
	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = 0; i < MANY; i++) {
		mem[i] = new_pages(ids[i], 1);
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		REQUIRE(try_write(mem[i], i));
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	for (i = 0; i < MANY; i++) {
		REQUIRE_EQ(domain_begin(ids[i], PROT_READ), 0);
		REQUIRE(try_read(mem[i], &byte));
		REQUIRE_EQ(byte, i);
		for (j = 0; j < MANY; j++)
			REQUIRE_EQ(try_read(mem[j], &byte), i == j);
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(free_domains(MANY, ids), 0);
}

static void freed_memory_comes_back_zero(void **state)
{
	int id = new_domain(), i;
	char *mem;

	(void)state;
	for (i = 0; i < 8; i++) {
		mem = new_pages(id, 1);
		REQUIRE_EQ(domain_begin(id, RW), 0);
		REQUIRE(try_read(mem, &byte));
		REQUIRE_EQ(byte, 0);
		REQUIRE(try_write(mem, 99));
		REQUIRE_EQ(domain_end(id), 0);
		REQUIRE_EQ(domain_munmap(mem, PAGE), 0);
	}
	free_domain(id);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fresh_domain_is_closed),
		cmocka_unit_test(begin_opens_and_end_closes),
		cmocka_unit_test(end_that_fails),
		cmocka_unit_test(thread_end_that_fails),
		cmocka_unit_test(call_that_cannot_close),
		cmocka_unit_test(call_that_cannot_end),
		cmocka_unit_test(what_cannot_be_given_back),
		cmocka_unit_test(begin_read_only_refuses_writes),
		cmocka_unit_test(one_domain_does_not_open_another),
		cmocka_unit_test(other_thread_has_no_right),
		cmocka_unit_test(new_thread_does_not_inherit),
		cmocka_unit_test(many_domains_keep_their_data),
		cmocka_unit_test(freed_memory_comes_back_zero),
	};
	const struct CMUnitTest unprotected[] = {
		cmocka_unit_test(freed_memory_comes_back_zero),
	};

	need_backend();
	if (!backend_protects())
		return cmocka_run_group_tests(unprotected, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
