/* SPDX-License-Identifier: MIT */
/*
 * What libc calls for a frame that is left by the end of the thread, or, in glibc, by longjmp().  It is
 * what pthread_cleanup_push() was made of once, and part of its ABI.
 */
#ifndef EPK_CLEANUP_H
#define EPK_CLEANUP_H

#include <pthread.h>

/**
 * struct epk_cleanup - on the stack, in the frame
 * @routine: called with
 * @arg: this
 * @canceltype: libc's
 * @prev: libc's
 */
struct epk_cleanup {
	void (*routine)(void *arg);
	void *arg;
	int canceltype;
	struct epk_cleanup *prev;
};

#ifdef __GLIBC__

#define EPK_JUMPS_ARE_TOLD	true

void _pthread_cleanup_push(struct epk_cleanup *cleanup, void (*routine)(void *arg), void *arg);
void _pthread_cleanup_pop(struct epk_cleanup *cleanup, int execute);

#else

#define EPK_JUMPS_ARE_TOLD	false

/*
 * musl calls nothing for longjmp(), and would go by a frame that is gone at the end of the thread:
 * that is where the thread gives up what it holds.
 */
static inline void _pthread_cleanup_push_none(struct epk_cleanup *cleanup, void (*routine)(void *arg),
					      void *arg)
{
	*cleanup = (struct epk_cleanup){ .routine = routine, .arg = arg };
}

static inline void _pthread_cleanup_pop_none(struct epk_cleanup *cleanup, int execute)
{
	(void)cleanup;
	(void)execute;
}

#define _pthread_cleanup_push	_pthread_cleanup_push_none
#define _pthread_cleanup_pop	_pthread_cleanup_pop_none

#endif

#endif /* EPK_CLEANUP_H */
