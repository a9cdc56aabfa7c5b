// SPDX-License-Identifier: MIT
#include "lock.h"

pthread_mutex_t epk_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t epk_dirty_lock = PTHREAD_MUTEX_INITIALIZER;

/*
 * With priority inheritance, the word that is locked says by whom from the first
 * moment on, so that a handler never waits for the thread it interrupted.  No static
 * initialiser makes such a mutex.
 */
__attribute__((constructor(101))) void epk_lock_init(void)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&epk_lock, &attr);
	pthread_mutex_init(&epk_dirty_lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

void epk_signals_block(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	/* A fault in here is to show as what it is. */
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &all, old);
}

void epk_signals_restore(const sigset_t *old)
{
	pthread_sigmask(SIG_SETMASK, old, NULL);
}
