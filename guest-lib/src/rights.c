// SPDX-License-Identifier: MIT
/*
 * What a thread may do, by its PKRU: backend "mpk".
 *
 * Rights rest on memory that the process cannot write: the domain table and the vault, where a
 * thread that holds several domains notes them.  The thread's list, which the process can write,
 * decides only what the library looks for there.
 */
#include "pkru.h"
#include "rights.h"
#include "vault.h"

void rights_close_all(void)
{
	epk_pkru_set(rdpkru() | epk_now.closed);
}

/* @pkru with @right open, if it is to a domain that has a key. */
static uint32_t open_right(struct epk_thread *t, struct epk_right right, uint32_t pkru)
{
	struct epk_entry entry;
	int slot;

	if (!right.prot || !epk_entry_find(right.id, &entry) || !entry.pkey)
		return pkru;
	slot = epk_held_find(t, right.id);
	if (slot >= 0)
		t->held[slot].pkey = entry.pkey;
	return pkru_open(pkru, entry.pkey, right.prot);
}

/* @pkru with every domain open that the vault says @t holds, and no other. */
uint32_t rights_open_held(struct epk_thread *t, uint32_t pkru)
{
	const struct epk_vault *vault = vault_open(t);
	unsigned int i;

	pkru |= epk_now.closed;
	for (i = 0; i < vault->nr; i++)
		pkru = open_right(t, vault->rights[i], pkru);
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

/* Opens what @t holds: what the list says, but by the vault's word. */
int rights_settle(struct epk_thread *t, bool alone)
{
	uint32_t pkru = rdpkru() | epk_now.closed;

	if (t->nested && t->nr <= t->nested_nr) {
		/* What the signal interrupted goes on with what its PKRU opens. */
		t->nested = false;
		rights_close_all();
	} else if (!epk_held_nr(t)) {
		rights_close_all();
	} else {
		epk_pkru_set(alone ? open_right(t, take_only(t), pkru) :
				     rights_open_held(t, pkru));
	}
	return 0;
}

/*
 * What the gates gave counts if PKRU says so.  In a signal handler it does not: the
 * kernel gives it back to the code that was interrupted.
 */
bool rights_adopt(struct epk_thread *t, const struct epk_held *held)
{
	uint32_t pkru = rdpkru();
	struct epk_entry entry;
	int id = held->id;

	if (!epk_entry_find(id, &entry) || !entry.pkey || pkru & PKRU_AD(entry.pkey))
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
