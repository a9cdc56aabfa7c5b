// SPDX-License-Identifier: MIT
/* What changes books or memory does so alone, and with no signal's handler in between. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "pkeys.h"

static pthread_mutex_t changes = PTHREAD_MUTEX_INITIALIZER;
static uint64_t fork_signals;
__thread bool pkeys_inside;

/* Those of the C library as well, by which a thread may be cancelled at once. */
static void block(uint64_t *old)
{
	uint64_t all = ~0ull;

	pkeys_raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)old, sizeof(all), 0, 0);
}

static void restore(const uint64_t *old)
{
	pkeys_raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)old, 0, sizeof(*old), 0, 0);
}

void pkeys_lock(struct pkeys_locked *locked)
{
	block(&locked->signals);
	pthread_mutex_lock(&changes);
	pkeys_inside = true;
	if (!pkeys_books && !pkeys_books_make()) {
		pkeys_say("there is no memory for its books");
		abort();
	}
	pkeys_books_open();
}

void pkeys_unlock(struct pkeys_locked *locked)
{
	pkeys_books_close();
	pkeys_inside = false;
	pthread_mutex_unlock(&changes);
	restore(&locked->signals);
}

/* Across a fork; the parent and the child both give it up. */
void pkeys_fork_lock(void)
{
	uint64_t signals;

	block(&signals);
	pthread_mutex_lock(&changes);
	fork_signals = signals;
}

void pkeys_fork_unlock(void)
{
	uint64_t signals = fork_signals;

	pthread_mutex_unlock(&changes);
	restore(&signals);
}
