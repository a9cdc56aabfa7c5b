// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend.h"
#include "pkru.h"

__thread struct epk_thread *epk_self __attribute__((tls_model("initial-exec")));
__thread struct epk_word epk_word __attribute__((tls_model("initial-exec")));

int epk_membarrier(int cmd)
{
	return syscall(SYS_membarrier, cmd, 0, 0) ? -errno : 0;
}

static pthread_key_t thread_key;
static bool have_key;
static struct epk_thread *threads;
static uint64_t past_switches;

static void thread_exit(void *arg)
{
	const stack_t none = { .ss_flags = SS_DISABLE };
	struct epk_thread *t = arg;

	epk_self = NULL;
	epk_barrier();
	if (epk_ops()->thread_stop)
		epk_ops()->thread_stop(t);
	pthread_mutex_lock(&epk_lock);
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	past_switches += t->switches + t->word->switches;
	pthread_mutex_unlock(&epk_lock);
	if (t->alternate) {
		sigaltstack(&none, NULL);
		free(t->alternate);
	}
	free(t);
}

int epk_thread_setup(void)
{
	int err;

	if (have_key)
		return 0;
	err = pthread_key_create(&thread_key, thread_exit);
	have_key = !err;
	return -err;
}

/* A library that is unloaded must not leave its destructor with the threads. */
__attribute__((destructor)) static void thread_unload(void)
{
	if (have_key)
		pthread_key_delete(thread_key);
}

/* Gets the calling thread ready for its first domain. */
int epk_thread_start(void)
{
	const struct epk_backend *ops = epk_ops();
	struct epk_thread *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->word = &epk_word;
	err = ops->thread_start ? ops->thread_start(t) : 0;
	if (err)
		goto free_thread;
	err = -pthread_setspecific(thread_key, t);
	if (err)
		goto free_thread;
	pthread_mutex_lock(&epk_lock);
	t->next = threads;
	t->link = &threads;
	if (threads)
		threads->link = &t->next;
	threads = t;
	pthread_mutex_unlock(&epk_lock);
	epk_self = t;
	return 0;

free_thread:
	free(t);
	return err;
}

/* Under epk_lock.  A begin at the same time in another thread may be missed. */
bool epk_threads_hold(int id)
{
	const struct epk_thread *t;

	for (t = threads; t; t = t->next)
		if (epk_held_find(t, id) >= 0)
			return true;
	return false;
}

/* Under epk_lock. */
bool epk_threads_pin(unsigned int pkey)
{
	const struct epk_thread *t;

	for (t = threads; t; t = t->next)
		if (__atomic_load_n(&t->word->pins[pkey], __ATOMIC_RELAXED))
			return true;
	return false;
}

/* Under epk_lock. */
uint64_t epk_threads_switches(void)
{
	uint64_t sum = past_switches;
	const struct epk_thread *t;

	for (t = threads; t; t = t->next)
		sum += __atomic_load_n(&t->switches, __ATOMIC_RELAXED) +
		       __atomic_load_n(&t->word->switches, __ATOMIC_RELAXED);
	return sum;
}

/* In a forked child: only the calling thread exists, and it holds nothing. */
void epk_threads_forget(void)
{
	struct epk_thread *t;

	while ((t = threads)) {
		threads = t->next;
		free(t);
	}
	past_switches = 0;
	epk_self = NULL;
	epk_word = (struct epk_word){ 0 };
	pthread_setspecific(thread_key, NULL);
}
