// SPDX-License-Identifier: MIT
/*
 * A forked child has none of the domains.  It refuses their IDs, keeps the
 * protection keys (fork leaves them allocated), and may initialise anew.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "backend.h"
#include "dirty.h"
#include "pkru.h"
#include "registry.h"

/* Whose memory this is.  A child of vfork() works on its parent's, with descriptors of its own. */
static pid_t owner;

/* Forks in signal handlers that interrupted this thread with the lock. */
static unsigned int nested, nested_dirty;

/* This order: see lock() in dirty.c.  No userfaultfd is made meanwhile that the child would not know of. */
static void lock(void)
{
	if (pthread_mutex_lock(&epk_lock))
		nested++;
	if (pthread_mutex_lock(&epk_dirty_lock))
		nested_dirty++;
}

static void unlock(void)
{
	if (nested_dirty)
		nested_dirty--;
	else
		pthread_mutex_unlock(&epk_dirty_lock);
	if (nested)
		nested--;
	else
		pthread_mutex_unlock(&epk_lock);
}

static void child(void)
{
	struct epk_state old = epk_now;

	owner = getpid();
	if (old.ops) {
		if (old.closed)
			epk_pkru_set(rdpkru() | old.closed);
		epk_state_page_clear();
		if (old.ops->forget)
			old.ops->forget(&old);
		epk_table_area_forget(&old);
		epk_threads_forget();
		epk_mapping_forget();
		epk_registry_inherit();
	}
	epk_dirty_forget();
	/* Their owner has another thread ID now, or is not here. */
	epk_lock_init();
	nested = nested_dirty = 0;
}

int epk_fork_setup(void)
{
	static bool done;
	int err;

	if (done)
		return 0;
	err = pthread_atfork(lock, unlock, child);
	done = !err;
	return -err;
}

/* What fails here is tried again by who initialises. */
__attribute__((constructor)) static void note_owner(void)
{
	owner = getpid();
	epk_fork_setup();
}

int epk_fork_check(void)
{
	return getpid() == owner ? 0 : epk_because(EPK_CAUSE_VFORK);
}
