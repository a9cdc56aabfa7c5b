/* SPDX-License-Identifier: MIT */
/*
 * What libc calls for a frame that is left by the end of the thread, or, in glibc, by longjmp().  It is
 * what pthread_cleanup_push() was made of once, and part of its ABI.
 */
#ifndef EPK_CLEANUP_H
#define EPK_CLEANUP_H

#include <pthread.h>

#ifdef __GLIBC__

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

void _pthread_cleanup_push(struct epk_cleanup *cleanup, void (*routine)(void *arg), void *arg);
void _pthread_cleanup_pop(struct epk_cleanup *cleanup, int execute);

#else

/* musl declares its own.  It is not called for longjmp(). */
#define epk_cleanup	__ptcb

#endif

#endif /* EPK_CLEANUP_H */
