// SPDX-License-Identifier: MIT
/* More domains than keys. */
#define _GNU_SOURCE
#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>
#include <ucontext.h>

#include "backend.h"
#include "unit.h"
#include "step.h"

#define NR	40
#define KEYS	MPK_PLACES

static int ids[NR];
static char *mem[NR];
static __thread char ignored;

static int key_of(int i)
{
	int pkey;

	REQUIRE_EQ(epk_domain_place(ids[i], NULL, &pkey), 0);
	return pkey;
}

static void touch(int i)
{
	char byte;

	REQUIRE_EQ(domain_begin(ids[i], RW), 0);
	REQUIRE(try_read(mem[i], &byte));
	REQUIRE_EQ(byte, i + 1);
	REQUIRE(try_write(mem[i] + PAGE, i));
	REQUIRE_EQ(domain_end(ids[i]), 0);
}

static int set_up(void **state)
{
	(void)state;
	fill_domains(NR, ids, mem, 2);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free_all_domains(NR, ids);
	return 0;
}

/* Never more than one domain a key, and nobody reads the evicted ones. */
static void evict_all_round(void **state)
{
	int round, i, j;

	(void)state;
	for (round = 0; round < 3; round++) {
		for (i = 0; i < NR; i++) {
			unsigned int used = 0;

			touch(i);
			for (j = 0; j < NR; j++) {
				int pkey = key_of(j);

				REQUIRE(!try_read(mem[j], &ignored));
				REQUIRE_EQ(try_code, pkey ? SEGV_PKUERR : SEGV_ACCERR);
				REQUIRE(!(pkey && used & 1u << pkey));
				used |= pkey ? 1u << pkey : 0;
			}
			REQUIRE_EQ(used, MPK_PKEYS);
		}
	}
}

/* Who got its key first gives it up first, unless a thread holds it. */
static void evict_in_turn(void **state)
{
	int i;

	(void)state;
	for (i = 2 * KEYS; i < 3 * KEYS && i < NR; i++)
		touch(i);
	for (i = 0; i < KEYS; i++)
		touch(i);
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
	touch(KEYS);
	REQUIRE(key_of(0));
	REQUIRE(!key_of(1));
	touch(KEYS + 1);
	REQUIRE(!key_of(2));
	REQUIRE(key_of(3));
	REQUIRE_EQ(domain_end(ids[0]), 0);
}

static void never_evict_held(void **state)
{
	int i;

	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	for (i = 1; i < NR; i++)
		touch(i);
	REQUIRE(try_write(mem[0] + PAGE, 3));
	REQUIRE_EQ(domain_end(ids[0]), 0);
}

static long sleeps(void)
{
	struct rusage usage;

	REQUIRE_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_nvcsw;
}

/* There is nobody to wait for. */
static void begin_all_keys_held(void **state)
{
	long before;
	int i;

	(void)state;
	for (i = 0; i < KEYS; i++)
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
	before = sleeps();
	for (i = 0; i < ERROR_REPEATS; i++)
		REQUIRE_EQ(domain_begin(ids[KEYS], RW), -EAGAIN);
	for (i = 0; i < ERROR_REPEATS; i++)
		REQUIRE_EQ(free_domains(1, &ids[0]), -EBUSY);
	REQUIRE_IN(sleeps() - before, 0, ERROR_REPEATS / 2);
	REQUIRE_EQ(domain_end(ids[3]), 0);
	REQUIRE_EQ(domain_begin(ids[KEYS], RW), 0);
	REQUIRE(!key_of(3));
	for (i = 0; i <= KEYS; i++)
		REQUIRE_EQ(domain_end(ids[i]), i == 3 ? -EACCES : 0);
}

/* What a gate does that finds the domain's key gone once it has pinned it, at length. */
static sem_t want_pin, pinned;
static int passing_key;

static void *pass_by(void *unused)
{
	struct epk_slot *slot;

	if (domain_begin(ids[0], RW) || domain_end(ids[0]))
		return (void *)1;
	slot = epk_own_slot();
	while (!sem_wait(&want_pin) && passing_key) {
		__atomic_fetch_add(&slot->pins[passing_key], 1, __ATOMIC_RELAXED);
		sem_post(&pinned);
		usleep(2000);
		__atomic_fetch_sub(&slot->pins[passing_key], 1, __ATOMIC_RELAXED);
	}
	return unused;
}

static void pass(int pkey)
{
	passing_key = pkey;
	sem_post(&want_pin);
	if (pkey)
		sem_wait(&pinned);
}

/* Nobody holds anything that is in the way. */
static void pins_that_pass(void **state)
{
	int id, i, round;
	pthread_t thread;
	void *wrong;

	(void)state;
	sem_init(&want_pin, 0, 0);
	sem_init(&pinned, 0, 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, pass_by, NULL), 0);
	for (round = 0; round < 5; round++) {
		id = new_domain();
		REQUIRE_EQ(domain_begin(id, RW), 0);
		REQUIRE_EQ(domain_end(id), 0);
		REQUIRE_EQ(epk_domain_place(id, NULL, &i), 0);
		pass(i);
		REQUIRE_EQ(free_domains(1, &id), 0);
	}
	for (round = 0; round < 5; round++) {
		for (i = 1; i < KEYS; i++)
			REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		touch(0);
		REQUIRE(key_of(0));
		pass(key_of(0));
		REQUIRE_EQ(domain_begin(ids[KEYS], RW), 0);
		REQUIRE(!key_of(0));
		for (i = 1; i <= KEYS; i++)
			REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	pass(0);
	pthread_join(thread, &wrong);
	REQUIRE(!wrong);
}

static void free_returns_key(void **state)
{
	int more[KEYS], i, pkey;

	(void)state;
	for (i = 0; i < 4 * KEYS; i++) {
		more[0] = new_domain();
		REQUIRE_EQ(domain_begin(more[0], RW), 0);
		REQUIRE_EQ(domain_end(more[0]), 0);
		free_domain(more[0]);
	}
	/* No more than one other has lost its key to all of these. */
	REQUIRE_EQ(alloc_domains(KEYS, more), 0);
	for (i = 0; i < KEYS; i++) {
		REQUIRE_EQ(domain_begin(more[i], RW), 0);
		REQUIRE_EQ(epk_domain_place(more[i], NULL, &pkey), 0);
		REQUIRE(pkey);
	}
	for (i = 0; i < KEYS; i++)
		REQUIRE_EQ(domain_end(more[i]), 0);
	REQUIRE_EQ(free_domains(KEYS, more), 0);
}

/* Memory mapped while the domain has no key, and while it has one. */
static void mmap_without_and_with_key(void **state)
{
	char *without, *with;
	int i;

	(void)state;
	for (i = 1; i <= KEYS; i++)
		touch(i);
	REQUIRE(!key_of(0));
	without = domain_mmap(ids[0], NULL, PAGE, RW, MAP_POPULATE);
	REQUIRE_NE(without, MAP_FAILED);
	REQUIRE(!try_read(without, &ignored));
	touch(0);
	REQUIRE(key_of(0));
	with = domain_mmap(ids[0], NULL, PAGE, PROT_READ, 0);
	REQUIRE_NE(with, MAP_FAILED);
	REQUIRE(!try_read(with, &ignored));
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE(try_write(without, 1));
	REQUIRE(try_read(with, &ignored));
	REQUIRE(!try_write(with, 1));
	REQUIRE_EQ(domain_end(ids[0]), 0);
	/* A round trip through no key keeps each mapping's own protection. */
	for (i = 1; i < NR; i++)
		touch(i);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE(try_write(without, 1));
	REQUIRE(!try_write(with, 1));
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(domain_munmap(with, PAGE), 0);
	REQUIRE_EQ(domain_munmap(without, PAGE), 0);
}

/* Several threads over all domains: keys go round, and rights stay apart. */
static void *sweep(void *arg)
{
	long wrong = 0, start = (long)arg, round;
	char byte;

	for (round = 0; round < 400; round++) {
		int i = (start + round * 7) % NR, err;

		err = domain_begin(ids[i], PROT_READ);
		if (err) {
			wrong++;
			continue;
		}
		if (!try_read(mem[i], &byte) || byte != i + 1)
			wrong++;
		if (backend_is_private() && try_write(mem[i], 99))
			wrong++;
		if (domain_end(ids[i]))
			wrong++;
		if (backend_is_private() && try_read(mem[i], &ignored))
			wrong++;
	}
	return (void *)wrong;
}

static void threads_share_keys(void **state)
{
	void *const starts[] = { (void *)0, (void *)13, (void *)26 };

	(void)state;
	run_threads(sweep, starts, 3);
}

/* The same without faults: as fast as it goes, and each holds what it began until it ends it. */
static void *cycle(void *arg)
{
	long wrong = 0, seed = (long)arg;
	int i, round, look;

	for (round = 0; round < 500; round++) {
		seed = seed * 1103515245 + 12345;
		i = (seed >> 16 & 0x7fff) % NR;
		if (domain_begin(ids[i], RW)) {
			wrong++;
			continue;
		}
		for (look = 0; look < 20; look++)
			wrong += *(volatile char *)mem[i] != i + 1;
		*(volatile char *)(mem[i] + PAGE) = i;
		wrong += domain_end(ids[i]) != 0;
	}
	return (void *)wrong;
}

static void threads_take_keys(void **state)
{
	void *const seeds[] = { (void *)1, (void *)2, (void *)3, (void *)4 };

	(void)state;
	run_threads(cycle, seeds, 4);
}

static int handled;

static void use_all_keys(int sig)
{
	int i;

	(void)sig;
	handled = 1;
	if (free_domains(1, &ids[0]) != -EBUSY)
		handled = -1;
	/* It is another right than that of the code that goes on. */
	if (domain_begin(ids[0], PROT_READ) || epk_held_prot(ids[0]) != PROT_READ ||
	    domain_end(ids[0]) || epk_held_prot(ids[0]))
		handled = -2;
	for (i = 1; i < NR; i++)
		if (domain_begin(ids[i], RW) || domain_end(ids[i]))
			handled = -3;
}

/* What a signal interrupts keeps its keys, whatever its handler does. */
static void handler_takes_keys(void **state)
{
	(void)state;
	signal(SIGUSR1, use_all_keys);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	raise(SIGUSR1);
	REQUIRE_EQ(handled, 1);
	REQUIRE(key_of(0));
	REQUIRE_EQ(epk_held_prot(ids[0]), RW);
	REQUIRE_EQ(*mem[0], 1);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(domain_end(ids[0]), -EACCES);
	signal(SIGUSR1, SIG_DFL);
}

static int steps, chosen;

/* All keys go round. */
static void step(int sig, siginfo_t *info, void *context)
{
	int i;

	(void)sig;
	(void)info;
	if (!step_in_gate(context) || ++steps != chosen)
		return;
	for (i = 1; i < NR; i++)
		if (!domain_begin(ids[i], RW))
			domain_end(ids[i]);
}

/* Between two instructions of a begin and an end keys go elsewhere: between any two, in turn. */
static void keys_go_at_each_step(void **state)
{
	struct sigaction sa = { .sa_sigaction = step, .sa_flags = SA_SIGINFO };
	int began, ended, held, prot, i;
	bool mine;

	(void)state;
	REQUIRE_EQ(sigaction(SIGTRAP, &sa, NULL), 0);
	for (chosen = 1, steps = 1; chosen <= steps; chosen++) {
		touch(0);
		steps = 0;
		set_trap(true);
		began = domain_begin(ids[0], RW);
		set_trap(false);
		held = epk_held(NULL, 0);
		prot = epk_held_prot(ids[0]);
		mine = !began && *(volatile char *)mem[0] == 1;
		set_trap(true);
		ended = domain_end(ids[0]);
		set_trap(false);
		REQUIRE_EQ(began, 0);
		REQUIRE_EQ(held, 1);
		REQUIRE_EQ(prot, RW);
		REQUIRE(mine);
		REQUIRE_EQ(ended, 0);
		REQUIRE_EQ(epk_held(NULL, 0), 0);
		for (i = 0; i < NR; i++)
			REQUIRE(!try_read(mem[i], &ignored));
	}
	signal(SIGTRAP, SIG_DFL);
	REQUIRE(chosen > 40);
	/* Every key is free again. */
	for (i = 0; i < KEYS; i++)
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
	for (i = 0; i < KEYS; i++)
		REQUIRE_EQ(domain_end(ids[i]), 0);
}

/*
 * Who takes a key away clears the domain's entry, and puts it back if a thread has the key: what
 * is held meanwhile is held, and can be ended and widened.
 */
static void held_while_looked_at(void **state)
{
	int pkey;

	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
	pkey = key_of(0);
	epk_soft_table_set_pkey(ids[0], 0);
	REQUIRE_EQ(epk_held_prot(ids[0]), PROT_READ);
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), -EALREADY);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	epk_soft_table_set_pkey(ids[0], pkey);
	REQUIRE_EQ(epk_held_prot(ids[0]), 0);
	REQUIRE_EQ(domain_end(ids[0]), -EACCES);
	REQUIRE(!try_read(mem[0], &ignored));
}

/* As a handler finds it that has interrupted a call of the library. */
static void held_beside_the_lock(void **state)
{
	(void)state;
	touch(0);
	REQUIRE_EQ(pthread_mutex_lock(&epk_lock), 0);
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), -EALREADY);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	pthread_mutex_unlock(&epk_lock);
}

/* What a new thread has of its creator's, it does not hold, and an end closes it all the same. */
static void *end_inherited(void *unused)
{
	(void)unused;
	if (epk_held_prot(ids[0]) || epk_held(NULL, 0) || domain_end(ids[0]) != -EACCES)
		return (void *)1;
	return (void *)(long)try_read(mem[0], &ignored);
}

static void begin_and_end_another(int sig)
{
	(void)sig;
	handled = domain_begin(ids[1], RW) || domain_end(ids[1]) ? -1 : 1;
}

/* Its first begin is in a handler: what it had comes back behind that. */
static void *begin_in_handler(void *unused)
{
	(void)unused;
	signal(SIGUSR1, begin_and_end_another);
	raise(SIGUSR1);
	if (handled != 1 || epk_held_prot(ids[0]) || epk_held(NULL, 0))
		return (void *)1;
	if (domain_begin(ids[0], RW) || *mem[0] != 1 || domain_end(ids[0]))
		return (void *)2;
	return (void *)(long)try_read(mem[0], &ignored);
}

static void inherited(void **state)
{
	void *const unused[] = { NULL };
	int i;

	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	run_threads(end_inherited, unused, 1);
	run_threads(begin_in_handler, unused, 1);
	signal(SIGUSR1, SIG_DFL);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	/* No key was lost. */
	for (i = 0; i < KEYS; i++)
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
	for (i = 0; i < KEYS; i++)
		REQUIRE_EQ(domain_end(ids[i]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(held_while_looked_at),
		cmocka_unit_test(held_beside_the_lock),
		cmocka_unit_test(inherited),
		cmocka_unit_test(keys_go_at_each_step),
		cmocka_unit_test(threads_take_keys),
		cmocka_unit_test(handler_takes_keys),
		cmocka_unit_test(evict_all_round),
		cmocka_unit_test(evict_in_turn),
		cmocka_unit_test(never_evict_held),
		cmocka_unit_test(begin_all_keys_held),
		cmocka_unit_test(pins_that_pass),
		cmocka_unit_test(free_returns_key),
		cmocka_unit_test(mmap_without_and_with_key),
		cmocka_unit_test(threads_share_keys),
	};

	const struct CMUnitTest others[] = {
		cmocka_unit_test(threads_share_keys),
	};

	need_backend();
	if (!backend_is("mpk"))
		return cmocka_run_group_tests(others, set_up, tear_down);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
