// SPDX-License-Identifier: MIT
/* What the calling thread may do with a key: nothing, read, or read and write. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "pkeys.h"

/* Under "mpk" what a handler that has not returned had open is to be ended as well. */
#define ENDS_MOST	64

static void close_all(int id)
{
	int n;

	for (n = 0; n < ENDS_MOST && !domain_end(id); n++)
		;
}

/* What a thread can have open, but for what hold() wants for a moment. */
#define OPEN_MOST	(EPK_MAX_HELD - 4)

/* So many may be opened before it is worth a system call to count. */
static __thread int budget __attribute__((tls_model("initial-exec")));

static bool may_open(void)
{
	if (budget <= 0)
		budget = OPEN_MOST - epk_held(NULL, 0);
	return budget-- > 0;
}

/* 0, or a negative error number: then it may do nothing more than before, perhaps less. */
int pkeys_rights_set(int id, int prot)
{
	int now = epk_held_prot(id), err = 0;

	if (now < 0)
		return now;
	if (prot && prot == now)
		return 0;
	/* Nothing narrows what is open but an end. */
	if (!prot || now == RW)
		close_all(id);
	if (prot)
		err = now || may_open() ? domain_begin(id, prot) : -EMFILE;
	return err == -EALREADY ? 0 : err;
}

/* Takes what @hold->id needs from another domain that the thread holds, but @other. */
static bool make_room(struct hold *hold, int other)
{
	int ids[EPK_MAX_HELD], n, nr = epk_held(ids, EPK_MAX_HELD);

	for (n = 0; n < nr && n < EPK_MAX_HELD; n++) {
		if (ids[n] == other || ids[n] == hold->id || !pkeys_key_slot_of(ids[n]))
			continue;
		hold->lent = ids[n];
		hold->lent_prot = epk_held_prot(ids[n]);
		close_all(ids[n]);
		return true;
	}
	return false;
}

/*
 * At least @prot, until pkeys_unhold().  A thread has room for so many keys: another one makes some, if it has
 * to, but not @other.
 */
int pkeys_hold(struct hold *hold, int id, int prot, int other)
{
	int err;

	memset(hold, 0, sizeof(*hold));
	hold->id = id;
	hold->before = epk_held_prot(id);
	if (hold->before < 0)
		return hold->before;
	if (!(prot & ~hold->before))
		return 0;
	err = domain_begin(id, prot);
	if ((err == -EMFILE || err == -EAGAIN) && make_room(hold, other)) {
		err = domain_begin(id, prot);
		if (err)
			pkeys_unhold(hold);
	}
	return err;
}

/* What cannot come back is closed, and an access says so. */
void pkeys_unhold(struct hold *hold)
{
	pkeys_rights_set(hold->id, hold->before);
	if (hold->lent)
		pkeys_rights_set(hold->lent, hold->lent_prot);
	hold->lent = 0;
}
