// SPDX-License-Identifier: MIT
/* What a thread holds, and what its end means. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>

#include "backend.h"
#include "unit.h"

static void *begin_and_exit(void *arg)
{
	int *ids = arg;

	if (domain_begin(ids[0], RW) || domain_begin(ids[1], PROT_READ))
		return (void *)1;
	return NULL;
}

static void exit_while_holding(void **state)
{
	pthread_t thread;
	void *result;
	int ids[2], i;

	(void)state;
	REQUIRE_EQ(alloc_domains(2, ids), 0);
	for (i = 0; i < 20; i++) {
		REQUIRE_EQ(pthread_create(&thread, NULL, begin_and_exit, ids), 0);
		REQUIRE_EQ(pthread_join(thread, &result), 0);
		REQUIRE(!result);
	}
	REQUIRE_EQ(domain_end(ids[0]), -EACCES);
	REQUIRE_EQ(free_domains(2, ids), 0);
}

/* In a handler that interrupted a call of the library: the lock stays that call's. */
static void *begin_under_the_lock(void *arg)
{
	int *id = arg;

	if (pthread_mutex_lock(&epk_lock))
		return (void *)1;
	if (domain_begin(*id, RW) != -EDEADLK || epk_held(NULL, 0))
		return (void *)2;
	if (pthread_mutex_lock(&epk_lock) != EDEADLK || pthread_mutex_unlock(&epk_lock))
		return (void *)3;
	return domain_begin(*id, RW) || domain_end(*id) ? (void *)4 : NULL;
}

static void first_begin_under_the_lock(void **state)
{
	int id = new_domain();
	void *const args[] = { &id };

	(void)state;
	run_threads(begin_under_the_lock, args, 1);
	free_domain(id);
}

/* A destructor of the program's begins a domain, until there are no more rounds. */
static pthread_key_t late_key;
static int late_id, late_rounds, late_wrong;

static void begin_late(void *again)
{
	int err = domain_begin(late_id, RW);

	late_rounds++;
	/* The module sees to it that the thread loses it, and nobody else has to. */
	if (err && !(err == -EALREADY && backend_is("epk")))
		late_wrong++;
	pthread_setspecific(late_key, again);
}

static void *end_late(void *unused)
{
	if (domain_begin(late_id, RW) || domain_end(late_id))
		return (void *)1;
	pthread_setspecific(late_key, &late_id);
	return unused;
}

/* What is a thread's own goes with it, and no other looks there for what it held. */
static void begin_in_destructor(void **state)
{
	size_t len = 64 * PAGE;
	pthread_attr_t attr;
	pthread_t thread;
	void *wrong, *stack;

	(void)state;
	/* The sanitizer is gone by the last round, and no function of libc can be called. */
	if (SANITIZED_THREADS)
		skip();
	late_id = new_domain();
	late_rounds = late_wrong = 0;
	/* Behind the library's own in each round. */
	REQUIRE_EQ(pthread_key_create(&late_key, begin_late), 0);
	stack = mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE_NE(stack, MAP_FAILED);
	pthread_attr_init(&attr);
	REQUIRE_EQ(pthread_attr_setstack(&attr, stack, len), 0);
	REQUIRE_EQ(pthread_create(&thread, &attr, end_late, NULL), 0);
	REQUIRE_EQ(pthread_join(thread, &wrong), 0);
	pthread_attr_destroy(&attr);
	munmap(stack, len);
	pthread_key_delete(late_key);
	REQUIRE(!wrong);
	REQUIRE_IN(late_rounds, 4, 8);
	REQUIRE_EQ(late_wrong, 0);
	REQUIRE_EQ(domain_begin(late_id, RW), 0);
	REQUIRE_EQ(domain_end(late_id), 0);
	free_domain(late_id);
}

static long return_seven(void *arg)
{
	(void)arg;
	return 7;
}

static long end_by_itself(void *arg)
{
	(void)arg;
	syscall(SYS_exit, 0);
	return 0;
}

static void *hold_call_and_end(void *arg)
{
	int *ids = arg;

	if (!domain_begin(ids[0], RW))
		epk_call(ids[1], end_by_itself, NULL, NULL);
	return arg;
}

/* More often than rights can be put aside: neither these nor what it held is kept for the dead. */
static void end_without_destructors(void **state)
{
	int ids[2], more[MPK_PLACES], i;
	pthread_t thread;

	(void)state;
	if (!backend_is_private())
		skip();
	REQUIRE_EQ(alloc_domains(2, ids), 0);
	for (i = 0; i < 1100; i++) {
		REQUIRE_EQ(pthread_create(&thread, NULL, hold_call_and_end, ids), 0);
		REQUIRE_EQ(pthread_join(thread, NULL), 0);
	}
	REQUIRE_EQ(alloc_domains(MPK_PLACES, more), 0);
	for (i = 0; i < (backend_holds_several() ? MPK_PLACES : 1); i++)
		REQUIRE_EQ(domain_begin(more[i], RW), 0);
	while (i--)
		REQUIRE_EQ(domain_end(more[i]), 0);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(epk_call(ids[1], return_seven, NULL, NULL), 0);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(free_domains(MPK_PLACES, more), 0);
	REQUIRE_EQ(free_domains(2, ids), 0);
}

/* Two threads in step: each side of the barrier is one step. */
struct steps {
	pthread_barrier_t barrier;
	int id;
	char *mem;
	int results[4];
};

static void *hold_one(void *arg)
{
	struct steps *steps = arg;

	steps->results[0] = domain_end(steps->id);
	steps->results[1] = domain_begin(steps->id, RW);
	if (!steps->results[1])
		steps->mem[0] = 42;
	pthread_barrier_wait(&steps->barrier);
	pthread_barrier_wait(&steps->barrier);
	steps->results[2] = domain_end(steps->id);
	return NULL;
}

/* Where the kernel keeps who holds what, nobody can keep another from freeing its domain. */
static void *hold_what_goes(void *arg)
{
	struct steps *steps = arg;
	char byte;

	steps->results[0] = domain_begin(steps->id, RW);
	pthread_barrier_wait(&steps->barrier);
	pthread_barrier_wait(&steps->barrier);
	steps->results[1] = try_read(steps->mem, &byte);
	steps->results[2] = domain_end(steps->id);
	return NULL;
}

static void freed_by_another(void **state)
{
	struct steps steps = { .id = new_domain() };
	pthread_t thread;

	(void)state;
	if (!backend_is("epk"))
		skip();
	steps.mem = new_pages(steps.id, 1);
	pthread_barrier_init(&steps.barrier, NULL, 2);
	REQUIRE_EQ(pthread_create(&thread, NULL, hold_what_goes, &steps), 0);
	pthread_barrier_wait(&steps.barrier);
	REQUIRE_EQ(domain_begin(steps.id, RW), 0);
	REQUIRE_EQ(free_domains(1, &steps.id), -EBUSY);
	REQUIRE_EQ(domain_end(steps.id), 0);
	REQUIRE_EQ(free_domains(1, &steps.id), 0);
	pthread_barrier_wait(&steps.barrier);
	pthread_join(thread, NULL);
	REQUIRE_EQ(steps.results[0], 0);
	REQUIRE_EQ(steps.results[1], 0);
	REQUIRE_EQ(steps.results[2], -ENOENT);
	pthread_barrier_destroy(&steps.barrier);
}

static void held_by_another(void **state)
{
	struct steps steps = { .id = new_domain() };
	char byte = 0;
	pthread_t thread;

	(void)state;
	steps.mem = new_pages(steps.id, 1);
	pthread_barrier_init(&steps.barrier, NULL, 2);
	REQUIRE_EQ(pthread_create(&thread, NULL, hold_one, &steps), 0);
	pthread_barrier_wait(&steps.barrier);

	if (!backend_is("epk"))
		REQUIRE_EQ(free_domains(1, &steps.id), -EBUSY);
	REQUIRE_EQ(domain_end(steps.id), -EACCES);
	REQUIRE_EQ(try_read(steps.mem, &byte), !backend_is_private());
	/* Both can hold it at a time. */
	REQUIRE_EQ(domain_begin(steps.id, PROT_READ), 0);
	REQUIRE(try_read(steps.mem, &byte));
	REQUIRE_EQ(byte, 42);
	REQUIRE_EQ(domain_end(steps.id), 0);

	pthread_barrier_wait(&steps.barrier);
	pthread_join(thread, NULL);
	REQUIRE_EQ(steps.results[0], -EACCES);
	REQUIRE_EQ(steps.results[1], 0);
	REQUIRE_EQ(steps.results[2], 0);
	pthread_barrier_destroy(&steps.barrier);
	free_domain(steps.id);
}

static void held_limit(void **state)
{
	int ids[EPK_MAX_HELD + 16], i, least, limit, error;

	(void)state;
	least = backend_is("mpk") ? MPK_PLACES : EPK_MAX_HELD;
	error = backend_is("mpk") ? -EAGAIN : -EMFILE;
	REQUIRE_EQ(alloc_domains(EPK_MAX_HELD + 16, ids), 0);
	for (limit = 0; limit < EPK_MAX_HELD + 15; limit++)
		if (domain_begin(ids[limit], RW))
			break;
	/* Those in the EPT that it is in are not counted as they are begun. */
	REQUIRE_IN(limit, least, least + (backend_is("epk") ? 14 : 0));
	REQUIRE_EQ(domain_begin(ids[limit], RW), error);
	REQUIRE_EQ(domain_end(ids[limit]), -EACCES);
	/* From the middle outwards: any order is right. */
	for (i = 0; i < limit; i++)
		REQUIRE_EQ(domain_end(ids[(i + limit / 2) % limit]), 0);
	REQUIRE_EQ(domain_begin(ids[limit], RW), 0);
	REQUIRE_EQ(domain_end(ids[limit]), 0);
	REQUIRE_EQ(free_domains(EPK_MAX_HELD + 16, ids), 0);
}

/* Many threads, each with domains of its own, while others allocate and free. */
static void *churn(void *arg)
{
	unsigned char *result = arg;
	int ids[3], round, i;
	char *mem[3];

	for (round = 0; round < 50; round++) {
		if (alloc_domains(3, ids))
			return NULL;
		for (i = 0; i < 3; i++) {
			mem[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
			if (mem[i] == MAP_FAILED || domain_begin(ids[i], RW))
				return NULL;
			mem[i][0] = round;
			if (domain_end(ids[i]))
				return NULL;
		}
		for (i = 0; i < 3; i++) {
			if (domain_begin(ids[i], PROT_READ) || mem[i][0] != round ||
			    domain_end(ids[i]))
				return NULL;
		}
		if (domain_munmap(mem[0], PAGE) || free_domains(3, ids))
			return NULL;
	}
	*result = 1;
	return NULL;
}

static void many_threads(void **state)
{
	struct unit_resources before;
	unsigned char results[4] = { 0 };
	pthread_t threads[4];
	int run, i;

	(void)state;
	/* The first run makes what the C library keeps for threads. */
	for (run = 0; run < 2; run++) {
		before = count_resources();
		for (i = 0; i < 4; i++)
			REQUIRE_EQ(pthread_create(&threads[i], NULL, churn, &results[i]), 0);
		for (i = 0; i < 4; i++) {
			pthread_join(threads[i], NULL);
			REQUIRE_EQ(results[i], 1);
			results[i] = 0;
		}
	}
	/* Its stacks and arenas come and go. */
	before.mappings = count_mappings();
	require_nothing_lost(before);
	REQUIRE_EQ(count_epk_mappings(), 0);
}

static char ignored;
static volatile sig_atomic_t signals, signal_errors;
static int signal_ids[40], nr_signal_ids;
static char *signal_mem[40];
static timer_t signal_timer;

static void count_signal(void)
{
	const struct itimerspec never = { { 0, 0 }, { 0, 0 } };

	/* Where handling one takes longer than the next needs to come, come to an end. */
	if (++signals == 300)
		timer_settime(signal_timer, 0, &never, NULL);
}

/* A domain per signal, from the far end: in another EPT than the loop's. */
static void begin_in_handler(int signo)
{
	int id = signal_ids[nr_signal_ids - 1 - signals % 4];

	(void)signo;
	if (domain_begin(id, RW) || domain_end(id))
		signal_errors++;
	count_signal();
}

/* Two domains, of two EPTs under "epk", and accesses to both. */
static void access_in_handler(int signo)
{
	int first = signals % 4, last = nr_signal_ids - 1 - first;

	(void)signo;
	if (domain_begin(signal_ids[first], RW) || domain_begin(signal_ids[last], RW)) {
		signal_errors++;
	} else {
		signal_mem[first][0]++;
		signal_mem[last][0]++;
		if (domain_end(signal_ids[first]) || domain_end(signal_ids[last]))
			signal_errors++;
	}
	count_signal();
}

static void storm_begin(void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec often = { { 0, 50021 }, { 0, 50021 } };
	int i;

	/* Under "mpk", those that have a key. */
	nr_signal_ids = backend_is("mpk") ? MPK_PLACES : 40;
	REQUIRE_EQ(alloc_domains(nr_signal_ids, signal_ids), 0);
	for (i = 0; i < nr_signal_ids; i++) {
		signal_mem[i] = new_pages(signal_ids[i], 1);
		REQUIRE_EQ(domain_begin(signal_ids[i], RW), 0);
		REQUIRE_EQ(domain_end(signal_ids[i]), 0);
	}
	signals = signal_errors = 0;
	REQUIRE_EQ(sigaction(SIGALRM, &action, NULL), 0);
	REQUIRE_EQ(timer_create(CLOCK_MONOTONIC, &event, &signal_timer), 0);
	REQUIRE_EQ(timer_settime(signal_timer, 0, &often, NULL), 0);
}

static void storm_end(void)
{
	timer_delete(signal_timer);
	REQUIRE_EQ(signal_errors, 0);
	REQUIRE_EQ(free_domains(nr_signal_ids, signal_ids), 0);
}

/* Begin and end work in a handler, whatever they interrupt. */
static void in_signal_handler(void **state)
{
	int round = 0;

	(void)state;
	if (backend_is("mprotect"))
		skip();
	storm_begin(begin_in_handler);
	for (; signals < 300; round++) {
		int a = round % (nr_signal_ids - 4), b = (round + nr_signal_ids / 2 - 4) % (nr_signal_ids - 4);

		REQUIRE_EQ(domain_begin(signal_ids[a], RW), 0);
		signal_mem[a][0] = a;
		REQUIRE_EQ(domain_begin(signal_ids[b], RW), 0);
		signal_mem[b][0] = b;
		REQUIRE_EQ(domain_end(signal_ids[b]), 0);
		REQUIRE_EQ(signal_mem[a][0], a);
		if (backend_protects())
			REQUIRE(!try_read(signal_mem[b], &ignored));
		REQUIRE_EQ(domain_end(signal_ids[a]), 0);
		if (backend_protects())
			REQUIRE(!try_read(signal_mem[a], &ignored));
	}
	storm_end();
}

/* Also what is not safe to call there may be interrupted. */
static void handler_interrupts_mapping(void **state)
{
	int ids[8], i;

	(void)state;
	/* "vmfunc" has no access to domains of two EPTs. */
	if (backend_is("mprotect") || backend_is("vmfunc"))
		skip();
	storm_begin(access_in_handler);
	while (signals < 300) {
		REQUIRE_EQ(alloc_domains(8, ids), 0);
		for (i = 0; i < 8; i++)
			new_pages(ids[i], 1);
		REQUIRE_EQ(free_domains(8, ids), 0);
	}
	storm_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exit_while_holding),
		cmocka_unit_test(first_begin_under_the_lock),
		cmocka_unit_test(begin_in_destructor),
		cmocka_unit_test(end_without_destructors),
		cmocka_unit_test(held_by_another),
		cmocka_unit_test(freed_by_another),
		cmocka_unit_test(held_limit),
		cmocka_unit_test(many_threads),
		cmocka_unit_test(in_signal_handler),
		cmocka_unit_test(handler_interrupts_mapping),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
