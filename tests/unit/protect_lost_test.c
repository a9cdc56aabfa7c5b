// SPDX-License-Identifier: MIT
/* What all threads may do is taken away from them, wherever they are. */
#define _GNU_SOURCE
#include <linux/epk.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

#include "protect_unit.h"
#include "state_page.h"

#define ROUNDS	60
#define SLEEPERS	6

static atomic_long rounds[2];
static atomic_bool stop;

/* Counts in the domain as long as it can. */
static void *count(void *arg)
{
	volatile char *at = arg;
	char n;

	while (!stop) {
		if (try_read(at, &n))
			try_write(at, n + 1);
		/* Not all of a time slice, which an emulator takes its time for. */
		if (++rounds[at - mem] % 8 == 0)
			sched_yield();
	}
	return NULL;
}

static void wait_for_rounds(int nr)
{
	long until[] = { rounds[0] + nr, rounds[1] + nr };

	while (rounds[0] < until[0] || rounds[1] < until[1])
		sched_yield();
}

static char read_held(char *at)
{
	char n;

	REQUIRE_EQ(domain_begin(id, PROT_READ), 0);
	n = *(volatile char *)at;
	REQUIRE_EQ(domain_end(id), 0);
	return n;
}

/* When it returns, what runs has lost it. */
static void running_threads_lose_it_at_once(void **state)
{
	pthread_t threads[2];
	char before, after;
	int i, changed = 0;

	(void)state;
	stop = false;
	for (i = 0; i < 2; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, count, mem + i), 0);
	for (i = 0; i < ROUNDS; i++) {
		char first = read_held(mem);

		REQUIRE_EQ(epk_protect(id, RW), 0);
		wait_for_rounds(3);
		REQUIRE_EQ(epk_protect(id, i & 1 ? PROT_NONE : PROT_READ), 0);
		before = read_held(mem);
		changed += before != first;
		wait_for_rounds(3);
		after = read_held(mem);
		if (backend_is_private() && before != after)
			break;
	}
	stop = true;
	REQUIRE_EQ(pthread_join(threads[0], NULL), 0);
	REQUIRE_EQ(pthread_join(threads[1], NULL), 0);
	REQUIRE_EQ(i, ROUNDS);
	/* Or there was nothing to lose. */
	REQUIRE(changed > ROUNDS / 10);
}

static sem_t asleep, awake;

static void *use_and_sleep(void *arg)
{
	int *found = arg;

	found[0] = may(mem);
	sem_post(&asleep);
	while (sem_wait(&awake))
		;
	found[1] = may(mem);
	return NULL;
}

static void sleeping_threads_lose_it(void **state)
{
	int found[SLEEPERS][2], i, prot;
	pthread_t threads[SLEEPERS];

	(void)state;
	for (prot = PROT_NONE; prot <= PROT_READ; prot++) {
		sem_init(&asleep, 0, 0);
		sem_init(&awake, 0, 0);
		REQUIRE_EQ(epk_protect(id, RW), 0);
		for (i = 0; i < SLEEPERS; i++)
			REQUIRE_EQ(pthread_create(&threads[i], NULL, use_and_sleep, found[i]), 0);
		for (i = 0; i < SLEEPERS; i++)
			sem_wait(&asleep);
		REQUIRE_EQ(epk_protect(id, prot), 0);
		for (i = 0; i < SLEEPERS; i++)
			sem_post(&awake);
		for (i = 0; i < SLEEPERS; i++) {
			REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
			REQUIRE_EQ(found[i][0], RW);
			REQUIRE_EQ(found[i][1], expected(prot));
		}
	}
}

/**
 * struct caller - a thread that sleeps where its right is taken away
 * @fds: a pipe, which it waits for
 * @tid: its number, when it is about to wait
 * @found: what it may do before,
 * @handled: at the end of the handler that has waited,
 * @after: and at last
 * @result: of the system call
 */
struct caller {
	int fds[2];
	atomic_int tid;
	int found, handled, after;
	long result;
};

static struct caller *in_call;

/* Until it sleeps there. */
static void wait_until_asleep(struct caller *who)
{
	char path[64], line[256], *state = line;
	FILE *file;

	while (!who->tid)
		sched_yield();
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", who->tid);
	do {
		usleep(1000);
		file = fopen(path, "r");
		REQUIRE(file);
		REQUIRE(fgets(line, sizeof(line), file));
		fclose(file);
		state = strrchr(line, ')');
		REQUIRE(state);
	} while (state[2] != 'S');
}

static void lose_while_asleep(struct caller *who, void *(*run)(void *))
{
	pthread_t thread;

	*who = (struct caller) { .found = -1, .handled = -1, .after = -1 };
	in_call = who;
	REQUIRE_EQ(pipe(who->fds), 0);
	REQUIRE_EQ(epk_protect(id, RW), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, run, who), 0);
	wait_until_asleep(who);
	REQUIRE_EQ(epk_protect(id, PROT_NONE), 0);
	REQUIRE_EQ(write(who->fds[1], "x", 1), 1);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	close(who->fds[0]);
	close(who->fds[1]);
	REQUIRE_EQ(who->found, RW);
	REQUIRE_EQ(who->after, expected(PROT_NONE));
}

static void *read_into_it(void *arg)
{
	struct caller *me = arg;

	me->found = may(mem);
	me->tid = gettid();
	me->result = read(me->fds[0], mem, 1) == 1 ? 0 : -errno;
	me->after = may(mem);
	return NULL;
}

/* What the kernel writes for it when the right has gone. */
static void blocked_in_a_call(void **state)
{
	struct caller reader;

	(void)state;
	lose_while_asleep(&reader, read_into_it);
	if (system_calls_count())
		REQUIRE_EQ(reader.result, -EFAULT);
}

static void wait_in_handler(int sig)
{
	struct caller *me = in_call;
	char byte;

	(void)sig;
	me->found &= may(mem);
	me->tid = gettid();
	me->result = read(me->fds[0], &byte, 1);
	me->handled = may(mem);
}

static void *wait_inside_a_handler(void *arg)
{
	struct caller *me = arg;

	me->found = may(mem);
	raise(SIGUSR1);
	me->after = may(mem) | epk_held_prot(id);
	return NULL;
}

/* Neither has the handler any of it, nor what it has interrupted. */
static void inside_a_handler(void **state)
{
	struct caller handler;

	(void)state;
	signal(SIGUSR1, wait_in_handler);
	lose_while_asleep(&handler, wait_inside_a_handler);
	REQUIRE_EQ(handler.result, 1);
	REQUIRE_EQ(handler.handled, expected(PROT_NONE));
}

#define LOSSES	150

static atomic_int gates, wrong_gates;

/* Its gates read PKRU and write it back, with and without the right to the other domain. */
static void *begin_and_end(void *arg)
{
	char n;
	int k;

	while (!stop) {
		try_read(mem, &n);
		for (k = 0; k < 40; k++)
			if (domain_begin(other, RW) || domain_end(other))
				return "gate";
		wrong_gates += epk_held_prot(id) != 0;
		if (domain_begin(id, PROT_READ))
			return "begin";
		wrong_gates += epk_held_prot(id) != PROT_READ;
		if (domain_end(id))
			return "end";
		wrong_gates += epk_held_prot(id) != 0;
		gates++;
	}
	return arg;
}

/* What is taken away in the middle of a gate does not come back with it, as if it were begun. */
static void in_the_middle_of_gates(void **state)
{
	pthread_t thread;
	void *result;
	int i, before;

	(void)state;
	stop = false;
	gates = wrong_gates = 0;
	REQUIRE_EQ(pthread_create(&thread, NULL, begin_and_end, NULL), 0);
	for (i = 0; i < LOSSES && !wrong_gates; i++) {
		REQUIRE_EQ(epk_protect(id, RW), 0);
		before = gates;
		do
			sched_yield();
		while (gates == before && !wrong_gates);
		REQUIRE_EQ(epk_protect(id, i & 1 ? PROT_READ : PROT_NONE), 0);
	}
	stop = true;
	REQUIRE_EQ(pthread_join(thread, &result), 0);
	REQUIRE(!result);
	REQUIRE_EQ(wrong_gates, 0);
	REQUIRE(gates >= LOSSES);
}

static int move(int dom, uint16_t ept, uint32_t flags)
{
	struct epk_move to = { .id = dom, .ept = ept };
	struct epk_moves moves = { .num = 1, .flags = flags, .moves = (uintptr_t)&to };

	return ioctl(epk_now.fd, EPK_IOC_MOVE, &moves) ? -errno : 0;
}

static int looked[2];
static bool looks_no_more;

/* Looks at both domains each time it is told. */
static void *look_when_told(void *arg)
{
	for (;;) {
		while (sem_wait(&awake))
			;
		if (looks_no_more)
			return arg;
		looked[0] = may(mem);
		looked[1] = may(other_mem);
		sem_post(&asleep);
	}
}

static int other_thread_may(void)
{
	looked[0] = looked[1] = -1;
	sem_post(&awake);
	while (sem_wait(&asleep))
		;
	REQUIRE_EQ(looked[1], PROT_NONE);
	return looked[0];
}

/* It has lost it where the domain was, where it is and where it comes to. */
static void a_domain_that_has_moved(void **state)
{
	pthread_t thread;

	(void)state;
	if (!backend_is("epk"))
		return;
	sem_init(&asleep, 0, 0);
	sem_init(&awake, 0, 0);
	looks_no_more = false;
	REQUIRE_EQ(pthread_create(&thread, NULL, look_when_told, NULL), 0);
	/* Elsewhere; nowhere; nowhere, and then there again. */
	REQUIRE_EQ(epk_protect(id, RW), 0);
	REQUIRE_EQ(other_thread_may(), RW);
	REQUIRE_EQ(move(id, EPK_EPT_NONE, 0), 0);
	REQUIRE_EQ(move(other, EPK_EPT_NONE, 0), 0);
	REQUIRE_EQ(move(other, EPK_EPT_ANY, EPK_MOVES_ADMIT), 0);
	REQUIRE_EQ(move(id, EPK_EPT_ANY, EPK_MOVES_ADMIT), 0);
	REQUIRE_EQ(epk_protect(id, PROT_READ), 0);
	REQUIRE_EQ(other_thread_may(), PROT_READ);
	REQUIRE_EQ(move(id, EPK_EPT_NONE, 0), 0);
	REQUIRE_EQ(epk_protect(id, PROT_NONE), 0);
	REQUIRE_EQ(other_thread_may(), PROT_NONE);
	REQUIRE_EQ(epk_protect(id, RW), 0);
	REQUIRE_EQ(other_thread_may(), RW);
	REQUIRE_EQ(move(id, EPK_EPT_NONE, 0), 0);
	REQUIRE_EQ(epk_protect(id, PROT_NONE), 0);
	REQUIRE_EQ(move(id, EPK_EPT_ANY, EPK_MOVES_ADMIT), 0);
	REQUIRE_EQ(other_thread_may(), PROT_NONE);
	looks_no_more = true;
	sem_post(&awake);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MEMORY(running_threads_lose_it_at_once),
		WITH_MEMORY(sleeping_threads_lose_it),
		WITH_MEMORY(blocked_in_a_call),
		WITH_MEMORY(inside_a_handler),
		WITH_MEMORY(in_the_middle_of_gates),
		WITH_MEMORY(a_domain_that_has_moved),
	};

	need_backend();
	skip_if(backend_is("mpk") || backend_is("vmfunc"), "refuses it: see protect_test.c");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
