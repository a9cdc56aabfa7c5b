// SPDX-License-Identifier: MIT
/*
 * What a thread may do, by its PKRU and its EPT: backends "epk" and "mpk".
 *
 * Rights rest on memory that the process cannot write: the domain table, under
 * "epk" the identity page, and the vault, where a thread that holds several domains
 * notes them.  The thread's list, which the process can write, decides only which
 * EPT the thread goes to.
 *
 * Order: close every key, change the EPT, open.  So no instant has an old right in
 * a new EPT.  A signal handler that begins domains of its own leaves the thread
 * in the EPT of the last domain on its list, and returns with the PKRU of the
 * interrupted code.  So look at the identity page again after opening, before any
 * domain memory is touched.
 */
#include "pkru.h"
#include "rights.h"
#include "vault.h"

/* Far more than signals can spoil; a module that loses the EPT ends here. */
#define ENTER_TRIES	64

void rights_close_all(void)
{
	epk_pkru_set(rdpkru() | epk_now.closed);
}

/*
 * Changes when the module has closed a key of a thread because its domain moved:
 * a PKRU that was computed before that may open another domain.
 */
static inline uint32_t revocations(void)
{
	return EPK_ENTRY_REVOCATIONS(__atomic_load_n((const epk_raw_entry *)epk_now.table,
						     __ATOMIC_ACQUIRE));
}

/* @pkru with @right open if it is to a domain in @ept. */
static uint32_t open_right(struct epk_thread *t, struct epk_right right, uint32_t ept,
			   uint32_t pkru)
{
	struct epk_entry entry;
	int slot;

	if (!right.prot || !epk_entry_find(right.id, &entry) || !entry.pkey || entry.ept != ept)
		return pkru;
	slot = epk_held_find(t, right.id);
	if (slot >= 0) {
		t->held[slot].ept = entry.ept;
		t->held[slot].pkey = entry.pkey;
	}
	return pkru_open(pkru, entry.pkey, right.prot);
}

/* @pkru with every domain open that the vault says @t holds in @ept, and no other. */
uint32_t rights_open_held(struct epk_thread *t, uint32_t ept, uint32_t pkru)
{
	const struct epk_vault *vault = vault_open(t);
	unsigned int i;

	pkru |= epk_now.closed;
	for (i = 0; i < vault->nr; i++)
		pkru = open_right(t, vault->rights[i], ept, pkru);
	vault_close();
	return pkru;
}

/* The right to the only domain on the list, which is in the vault no longer then. */
static struct epk_right take_only(struct epk_thread *t)
{
	struct epk_vault *vault = vault_open(t);
	struct epk_right right = { .id = t->held[0].id };

	right.prot = vault_prot(vault, right.id);
	vault_clear(vault);
	vault_close();
	return right;
}

void rights_change_ept(struct epk_thread *t, uint32_t ept)
{
	rights_close_all();
	if (epk_current_ept() == ept)
		return;
	epk_ept_enter(ept);
	t->switches++;
}

/* Goes to @ept and opens what @t holds there: @only if that is not NULL. */
static int enter(struct epk_thread *t, uint32_t ept, const struct epk_right *only)
{
	uint32_t count, pkru;
	int tries;

	t->ept = ept;
	for (tries = 0; tries < ENTER_TRIES; tries++) {
		count = revocations();
		pkru = rdpkru() | epk_now.closed;
		pkru = only ? open_right(t, *only, ept, pkru) : rights_open_held(t, ept, pkru);
		rights_change_ept(t, ept);
		if (epk_current_ept() != ept)
			continue;
		epk_pkru_set(pkru);
		if (epk_current_ept() == ept && revocations() == count)
			return 0;
	}
	rights_close_all();
	return -EIO;
}

/* To the EPT of the last domain that @t holds, if any. */
int rights_settle(struct epk_thread *t, bool alone)
{
	struct epk_right only;
	struct epk_entry entry;
	int slot;

	if (t->nested && t->nr <= t->nested_nr) {
		/* What the signal interrupted goes on with what its PKRU opens in this EPT. */
		t->nested = false;
		rights_change_ept(t, t->nested_ept);
		return 0;
	}
	for (slot = (int)epk_held_nr(t) - 1; slot >= 0; slot--)
		if (epk_entry_find(t->held[slot].id, &entry) && entry.pkey)
			break;
	if (slot < 0) {
		rights_close_all();
		return 0;
	}
	if (!alone)
		return enter(t, entry.ept, NULL);
	only = take_only(t);
	return enter(t, entry.ept, &only);
}

/*
 * What the gates gave counts if PKRU says so.  In a signal handler it does not: the
 * kernel gives it back to the code that was interrupted.
 */
bool rights_adopt(struct epk_thread *t, const struct epk_held *held)
{
	uint32_t pkru = rdpkru(), ept = epk_current_ept();
	struct epk_entry entry;
	int id = held->id;

	if (!epk_entry_find(id, &entry) || !entry.pkey || entry.ept != ept ||
	    pkru & PKRU_AD(entry.pkey))
		return false;
	vault_add(vault_open(t), id, pkru & PKRU_WD(entry.pkey) ? PROT_READ :
		  PROT_READ | PROT_WRITE);
	vault_close();
	return true;
}

/* A right that domain_begin() gives, for rights_settle() to open. */
void rights_note(struct epk_thread *t, int id, int prot)
{
	vault_add(vault_open(t), id, prot);
	vault_close();
}

/* Forgets the right to slot @slot, and takes it off the list. */
int rights_end(struct epk_thread *t, unsigned int slot)
{
	vault_remove(vault_open(t), t->held[slot].id);
	vault_close();
	epk_held_remove(t, slot);
	return 0;
}
