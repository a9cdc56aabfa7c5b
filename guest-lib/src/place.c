// SPDX-License-Identifier: MIT
/*
 * Moves of domains, by the kernel module.  What moves must be held by no thread
 * of the library's knowledge, or be the domain that the caller wants.  A thread
 * that begins it at the same moment faults, and the handler puts it right.  So
 * nothing but time depends on the guesses made here.
 */
#define _GNU_SOURCE
#include <sys/ioctl.h>

#include "backend.h"
#include "place.h"
#include "registry.h"

/* Where the search for a domain that can give up its place goes on. */
static uint32_t cursor;

static int move(struct epk_move *moves, unsigned int num)
{
	struct epk_moves arg = { .num = num, .moves = (uintptr_t)moves };

	return ioctl(epk_now.fd, EPK_IOC_MOVE, &arg) ? -errno : 0;
}

/*
 * A domain that has a place, in @ept or anywhere, and can give it up: one that no
 * thread holds, or @held: that any thread holds but @keep.
 */
static bool find_idle(uint32_t ept, bool held, int keep, struct epk_entry *idle)
{
	uint32_t high = epk_registry_high(), tries;

	for (tries = 0; tries < high; tries++) {
		if (++cursor >= high)
			cursor = 1;
		*idle = epk_entry_load(cursor);
		if (idle->id <= 0 || !idle->pkey || idle->id != epk_registry_at(cursor)->id ||
		    (ept != EPK_EPT_ANY && idle->ept != ept))
			continue;
		if (held ? idle->id != keep && !epk_threads_word(idle->id) :
			   !epk_threads_hold(idle->id))
			return true;
	}
	return false;
}

/*
 * Gives the evicted domain @id a place, in @ept if that is easy.  Under epk_lock.
 * -EAGAIN: threads hold all domains that have one.
 */
int epk_place_admit(int id, uint32_t ept)
{
	struct epk_move moves[2] = { { .id = id, .ept = ept } };
	struct epk_entry idle;
	int err;

	epk_threads_moving();
	err = move(moves, 1);
	if (err == -ENOSPC && ept != EPK_EPT_ANY) {
		moves[0] = (struct epk_move){ .id = id, .ept = EPK_EPT_ANY };
		err = move(moves, 1);
	}
	if (err != -ENOSPC)
		return err;
	if (!find_idle(EPK_EPT_ANY, false, 0, &idle))
		return -EAGAIN;
	moves[0] = (struct epk_move){ .id = idle.id, .ept = EPK_EPT_NONE };
	moves[1] = (struct epk_move){ .id = id, .ept = idle.ept };
	return move(moves, 2);
}

/*
 * Puts @id into @ept, if that is full in exchange for one that nobody holds
 * there, or else for any but @keep if that is not 0: who holds it gets it again by
 * a fault.  Under epk_lock.
 */
int epk_place_beside(int id, uint32_t ept, int keep)
{
	struct epk_entry from = epk_entry_load(EPK_ID_INDEX(id)), idle;
	struct epk_move moves[2] = { { .id = id, .ept = ept } };
	int err;

	epk_threads_moving();
	if (epk_threads_word(id))
		return -EBUSY;
	err = move(moves, 1);
	if (err != -ENOSPC)
		return err;
	if (!find_idle(ept, false, 0, &idle) && !(keep && find_idle(ept, true, keep, &idle)))
		return -EAGAIN;
	moves[0] = (struct epk_move){ .id = idle.id, .ept = from.ept };
	moves[1] = (struct epk_move){ .id = id, .ept = ept };
	return move(moves, 2);
}
