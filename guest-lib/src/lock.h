/* SPDX-License-Identifier: MIT */
#ifndef EPK_LOCK_H
#define EPK_LOCK_H

#include <pthread.h>
#include <signal.h>

/*
 * Protects the registry, the mappings, the list of threads and initialisation.  In a
 * signal handler that interrupted its owner, EDEADLK: mappings can be read then.
 */
extern pthread_mutex_t epk_lock;
/* Protects what is watched, see dirty.h.  Whoever has it takes no other. */
extern pthread_mutex_t epk_dirty_lock;

/* Makes them anew, free. */
void epk_lock_init(void);

/* For what no signal handler of this thread may find half done. */
void epk_signals_block(sigset_t *old);
void epk_signals_restore(const sigset_t *old);

#endif
