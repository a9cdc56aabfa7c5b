// SPDX-License-Identifier: MIT
/* domain_begin() and domain_end(), as far as no gate does it. */
#include "aside.h"
#include "backend.h"

#define PROT_RW		(PROT_READ | PROT_WRITE)

/* A thread's first begin.  Kept apart, so that the others stay short. */
static __attribute__((noinline)) int first_begin(void)
{
	int saved_errno = errno;
	int err = epk_thread_ready();

	errno = saved_errno;
	return err;
}

/* What was held to be read only can be written to. */
static int widen(struct epk_held *held, int prot)
{
	struct epk_held old = *held;
	int err;

	held->prot = prot;
	err = epk_now.ops->widen ? epk_now.ops->widen(&old) : 0;
	if (err)
		held->prot = old.prot;
	return err;
}

/* What goes wrong changes neither list nor rights. */
static int begin(struct epk_thread *t, int id, int prot)
{
	int err, slot = epk_held_find(t, id);
	struct epk_held *held;

	if (slot >= 0)
		return prot & ~t->held[slot].prot ? widen(&t->held[slot], prot) : -EALREADY;
	if (t->nr >= EPK_MAX_HELD)
		return -EMFILE;
	held = epk_held_push(t, (struct epk_held){ .id = id, .prot = prot });
	err = epk_now.ops->begin ? epk_now.ops->begin(t, held) : 0;
	if (err)
		epk_held_remove(t, held - t->held);
	return err;
}

static int settle(struct epk_thread *t)
{
	return epk_now.ops->settle ? epk_now.ops->settle(t) : 0;
}

static int end_slow(int id)
{
	struct epk_thread *t = epk_self;
	struct epk_entry entry;
	int slot, settled, err = 0;

	/* Whatever the thread's memory says: what is open is closed. */
	if (id > 0 && epk_now.ops && epk_now.ops->drop) {
		err = epk_now.ops->drop(id);
		settled = err ? epk_lookup(id, &entry) : 0;
		return settled ? settled : err;
	}
	if (!t || id <= 0) {
		err = epk_lookup(id, &entry);
		return err ? err : -EACCES;
	}
	slot = epk_held_find(t, id);
	if (slot >= 0) {
		err = epk_now.ops->end(t, slot);
	} else {
		err = epk_lookup(id, &entry);
		if (!err)
			err = -EACCES;
	}
	settled = settle(t);
	return err ? err : settled;
}

static int begin_slow(int id, int prot)
{
	struct epk_entry entry;
	struct epk_thread *t;
	int err, settled;

	if (!prot || prot & ~PROT_RW)
		return epk_because(EPK_CAUSE_PROT);
	if (prot & PROT_WRITE)
		prot = PROT_RW;
	err = epk_lookup(id, &entry);
	if (err)
		return err;
	if (!epk_self) {
		err = first_begin();
		if (err)
			return err;
	}
	if (epk_now.ops->take)
		return epk_now.ops->take(id, prot);
	t = epk_self;
	err = begin(t, id, prot);
	settled = settle(t);
	if (err || !settled)
		return err;
	/* No right without the EPT that it belongs to. */
	end_slow(id);
	return settled;
}

int epk_begin_slow(int id, int prot)
{
	return epk_explain("domain_begin", id, begin_slow(id, prot));
}

int epk_end_slow(int id)
{
	return epk_explain("domain_end", id, end_slow(id));
}
