// SPDX-License-Identifier: MIT
/*
 * Domains of the kernel module: (EPT, pkey) pairs.
 *
 * rights.c has how a thread gets a right, place.c how a domain comes elsewhere, and
 * here is which of the two an access to a domain in another EPT needs.
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "backend.h"
#include "fault.h"
#include "pkru.h"
#include "place.h"
#include "rights.h"
#include "vault.h"

/* Where @id is: if it is nowhere, it gets a place, near @ept if that is easy. */
static int find_place(int id, uint32_t ept, struct epk_entry *entry)
{
	int saved_errno = errno;
	int err = 0;

	*entry = epk_entry_load(EPK_ID_INDEX(id));
	if (entry->id == id && !entry->pkey) {
		err = -pthread_mutex_lock(&epk_lock);
		if (!err) {
			err = epk_place_admit(id, ept);
			pthread_mutex_unlock(&epk_lock);
		}
		*entry = epk_entry_load(EPK_ID_INDEX(id));
	}
	errno = saved_errno;
	if (entry->id != id)
		return -ENOENT;
	return entry->pkey ? 0 : err ? err : -EAGAIN;
}

static int epk_begin(struct epk_thread *t, struct epk_held *held)
{
	int err, id = held->id, prot = held->prot;
	struct epk_entry entry;

	err = find_place(id, t->nr > 1 ? t->ept : EPK_EPT_ANY, &entry);
	if (err)
		return err;
	t->stuck = 0;
	if (t->nr > 1 && entry.ept != t->ept)
		epk_fault_arm();
	rights_note(t, id, prot);
	return 0;
}

/* What the interrupted code goes on with: in @ept, with all that @t holds there. */
static int resume(struct epk_thread *t, uint32_t ept, const struct epk_fault *fault)
{
	uint32_t pkru = rights_open_held(t, ept, *fault->pkru);

	t->ept = ept;
	if (t->kernel_resumes) {
		struct epk_resume arg = { .ept = ept, .pkru = pkru };

		t->switches++;
		return ioctl(epk_now.fd, EPK_IOC_RESUME, &arg) ? -errno : 0;
	}
	rights_change_ept(t, ept);
	*fault->pkru = pkru;
	return 0;
}

/* The EPT that has most of what @t holds; of several such the first. */
static uint32_t main_ept(const struct epk_thread *t)
{
	unsigned int held = epk_held_nr(t), i, j, nr, most = 0;
	uint32_t best = t->ept;

	for (i = 0; i < held; i++) {
		for (j = 0, nr = 0; j < held; j++)
			nr += t->held[j].ept == t->held[i].ept;
		if (nr > most || (nr == most && t->held[i].ept < best)) {
			most = nr;
			best = t->held[i].ept;
		}
	}
	return best;
}

/*
 * A first access goes to the domain's EPT.  If the same instruction wanted another
 * domain just now, it may need both at once; if accesses keep going to and fro,
 * they will go on so.  Then the domain moves to where most of the others are.
 */
static void consider_move(struct epk_thread *t, int id, const struct epk_fault *fault,
			  struct epk_entry *entry)
{
	bool both = fault->rip == t->last_rip && id != t->last_id;
	bool move = both || t->repeats > 2;
	uint32_t ept = main_ept(t);

	if (move && (both || entry->ept != ept) && !pthread_mutex_lock(&epk_lock)) {
		int err = epk_place_beside(id, ept, both ? t->last_id : 0);

		/* Another thread may need this one where it is: bring the other here. */
		if (both && err)
			err = epk_place_beside(t->last_id, entry->ept, id);
		if (!err)
			t->repeats = 0;
		pthread_mutex_unlock(&epk_lock);
		*entry = epk_entry_load(EPK_ID_INDEX(id));
	} else {
		t->repeats++;
	}
	t->last_rip = fault->rip;
	t->last_id = id;
}

/* Did a domain that @t opened get another place since? */
static bool lost_one(const struct epk_thread *t)
{
	struct epk_entry entry;
	unsigned int i, nr = epk_held_nr(t);

	for (i = 0; i < nr; i++)
		if (epk_entry_find(t->held[i].id, &entry) &&
		    (entry.ept != t->held[i].ept || entry.pkey != t->held[i].pkey))
			return true;
	return false;
}

/*
 * An instruction that needs more than one EPT takes a few rounds, and other threads
 * can undo what a round did: then wait for them, 1 ms a round, and give up at last.
 */
#define STUCK_WAIT	64
#define STUCK		1000

static void wait_a_little(void)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	nanosleep(&pause, NULL);
}

static int epk_fault(struct epk_thread *t, int id, const struct epk_fault *fault)
{
	uint32_t ept = epk_current_ept();
	int saved_errno = errno;
	struct epk_entry entry;
	int err = -EACCES, prot;

	/* A signal handler has no domain open, and gets none of what it interrupted. */
	if (!(~*fault->pkru & epk_now.access) && !lost_one(t))
		return 0;
	t->stuck = fault->state == t->last_state ? t->stuck + 1 : 0;
	t->last_state = fault->state;
	if (t->stuck > STUCK_WAIT)
		wait_a_little();
	prot = vault_prot(vault_open(t), id);
	vault_close();
	if (prot & (fault->write ? PROT_WRITE : PROT_READ) && t->stuck <= STUCK)
		err = find_place(id, t->ept, &entry);
	if (!err) {
		consider_move(t, id, fault, &entry);
		err = entry.id == id && entry.pkey ? resume(t, entry.ept, fault) : -EAGAIN;
	}
	/* The program's handler, and what it returns to, find the EPT as it was. */
	if (err)
		rights_change_ept(t, ept);
	errno = saved_errno;
	return !err;
}

static int epk_init_backend(struct epk_state *state)
{
	uint32_t pkeys = 0;
	int err;

	err = epk_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
	if (err)
		return -ENODEV;
	err = epk_module_open(state, &pkeys);
	if (err)
		return err;
	epk_pkeys_state(state, pkeys);
	err = vault_init(state);
	if (err)
		epk_module_close(state, pkeys);
	return err;
}

static int epk_alloc(int num, int *ids, int beside)
{
	struct epk_entry entry;
	uint32_t flags = EPK_ALLOC_SPILL;

	if (beside && epk_entry_find(beside, &entry) && entry.pkey)
		flags |= EPK_ALLOC_AT(entry.ept);
	return epk_module_alloc(num, ids, flags);
}

static int epk_thread_enrol(struct epk_thread *t)
{
	int err;

	rights_close_all();
	err = epk_module_enrol(t);
	return err ? err : vault_claim(t);
}

static void epk_thread_stop(struct epk_thread *t)
{
	rights_close_all();
	vault_release(t);
}

/* The module's memory is not inherited, the vault included. */
static void epk_forget(const struct epk_state *old)
{
	close(old->fd);
	vault_forget(old);
	epk_pkeys_inherit(old->pkeys);
}

const struct epk_backend epk_backend_epk = {
	.name = "epk",
	.init = epk_init_backend,
	.alloc = epk_alloc,
	.free = epk_module_free,
	.mmap = epk_module_mmap,
	.munmap = epk_module_munmap,
	.thread_start = epk_thread_enrol,
	.thread_stop = epk_thread_stop,
	.begin = epk_begin,
	.end = rights_end,
	.adopt = rights_adopt,
	.settle = rights_settle,
	.fault = epk_fault,
	.counts = epk_module_counts,
	.forget = epk_forget,
};
