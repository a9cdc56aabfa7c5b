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
__thread struct epk_word epk_word __attribute__((tls_model("initial-exec"))) = {
	.held = EPK_WORD_LIST,
};

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

	epk_list_open(t);
	epk_self = NULL;
	epk_barrier();
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

/*
 * Does a signal handler ask?  The kernel closes every key for it.  Where the module
 * sees to it that the interrupted code gets its EPT back, nothing depends on it.
 */
static bool in_handler(const struct epk_thread *t)
{
	return !t->kernel_resumes && t->nr && epk_now.access && t->word->held == EPK_WORD_LIST &&
	       !(~rdpkru() & epk_now.access);
}

/* Notes the right to a domain that came from the word to the list. */
static void adopt(struct epk_thread *t, int id)
{
	int slot = epk_held_find(t, id);

	t->unnoted = id;
	if (slot < 0 || !epk_now.ops->adopt || epk_now.ops->adopt(t, &t->held[slot]))
		t->unnoted = 0;
}

/*
 * Moves what the word holds to the list, for a call that needs the list.  Every
 * thread gets here first, if only to get a list.
 */
void epk_list_open(struct epk_thread *t)
{
	union {
		uint64_t word;
		struct epk_held held;
	} u;
	bool outermost = !t->busy++ && !in_handler(t);
	int passing, id = t->unnoted;
	uint64_t word;

	epk_barrier();
	passing = t->passing;
	word = __atomic_load_n(&t->word->held, __ATOMIC_RELAXED);
	if (word != EPK_WORD_LIST) {
		__atomic_store_n(&t->passing, (int)word, __ATOMIC_RELAXED);
		/* In one step, so that a signal handler does not move it as well. */
		u.word = __atomic_exchange_n(&t->word->held, EPK_WORD_LIST, __ATOMIC_SEQ_CST);
		if (u.word != EPK_WORD_LIST && u.word != EPK_WORD_FREE) {
			u.held.prot = u.word & EPK_WORD_READ ? PROT_READ : PROT_READ | PROT_WRITE;
			epk_held_push(t, u.held);
			id = u.held.id;
		}
	}
	/* Perhaps a handler has moved it, or did so in an earlier call. */
	id = id ? id : t->unnoted;
	if (id)
		adopt(t, id);
	epk_barrier();
	__atomic_store_n(&t->passing, passing, __ATOMIC_RELAXED);
	if (!outermost && !t->nested) {
		t->nested_nr = t->nr;
		t->nested = true;
	}
}

/*
 * Gives the thread its rights, and moves the list back to the word if the gates
 * can go on with it.  A signal handler leaves it there if what it interrupted has
 * it there: its rights are noted elsewhere.  0, or the backend's error.
 */
int epk_list_close(struct epk_thread *t)
{
	bool alone = t->busy == 1 && t->nr <= 1 && epk_now.gates && !t->nested;
	union {
		struct epk_held held;
		uint64_t word;
	} u = { .word = EPK_WORD_FREE };
	unsigned int one = 1;
	int err;

	err = epk_now.ops->settle(t, alone);
	if (alone) {
		if (t->nr) {
			u.held = t->held[0];
			u.held.prot = 0;
			if (!(t->held[0].prot & PROT_WRITE))
				u.word |= EPK_WORD_READ;
		}
		t->unnoted = 0;
		__atomic_store_n(&t->changes, t->changes + 1, __ATOMIC_RELAXED);
		epk_barrier();
		__atomic_store_n(&t->word->held, u.word, __ATOMIC_RELAXED);
		epk_barrier();
		/* A signal handler may have moved the word to the list again: twice there. */
		if (!__atomic_compare_exchange_n(&t->nr, &one, 0, false, __ATOMIC_RELAXED,
						 __ATOMIC_RELAXED) && one > 1)
			epk_held_remove(t, 0);
	}
	epk_barrier();
	t->busy--;
	return err;
}

/*
 * What the thread moves between its list and its word meanwhile is found at the one or the other,
 * or while it passes from word to list, or counted.
 */
static bool holds(const struct epk_thread *t, int id)
{
	unsigned int changes;
	uint64_t held;
	bool found;

	do {
		changes = __atomic_load_n(&t->changes, __ATOMIC_ACQUIRE);
		found = epk_held_find(t, id) >= 0;
		held = __atomic_load_n(&t->word->held, __ATOMIC_ACQUIRE);
		found |= held != EPK_WORD_LIST && (int)held == id;
		found |= __atomic_load_n(&t->passing, __ATOMIC_ACQUIRE) == id;
		found |= epk_held_find(t, id) >= 0;
	} while (!found && changes != __atomic_load_n(&t->changes, __ATOMIC_ACQUIRE));
	return found;
}

/* Under epk_lock.  A begin at the same time in another thread may be missed. */
bool epk_threads_hold(int id)
{
	const struct epk_thread *t;

	for (t = threads; t; t = t->next)
		if (holds(t, id))
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
	epk_word = (struct epk_word){ .held = EPK_WORD_LIST };
	pthread_setspecific(thread_key, NULL);
}
