// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pkru.h"
#include "vault.h"

/* The most threads at a time. */
#define VAULT_BYTES	(256 * 65536ul)
#define VAULTS		((uint32_t)(VAULT_BYTES / sizeof(struct epk_vault)))

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE	2
#endif

static bool has_rdfsbase(void)
{
	return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
}

/* From the register: a copy in memory could be forged. */
static uint64_t fs_base(void)
{
	uint64_t base = 0;

	if (epk_now.rdfsbase)
		asm("rdfsbase %0" : "=r"(base));
	else
		syscall(SYS_arch_prctl, ARCH_GET_FS, &base);
	return base;
}

/* Memory with the key state->vault_pkey.  A child finds it empty. */
int vault_init(struct epk_state *state)
{
	void *room = mmap(NULL, VAULT_BYTES, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return -ENOMEM;
	if (pkey_mprotect(room, VAULT_BYTES, PROT_READ | PROT_WRITE, state->vault_pkey) ||
	    madvise(room, VAULT_BYTES, MADV_WIPEONFORK) ||
	    madvise(room, VAULT_BYTES, MADV_DONTDUMP)) {
		munmap(room, VAULT_BYTES);
		return -ENOMEM;
	}
	state->vaults = room;
	state->rdfsbase = has_rdfsbase();
	return 0;
}

/* In a forked child. */
void vault_forget(const struct epk_state *old)
{
	munmap(old->vaults, VAULT_BYTES);
}

static struct epk_vault *open_vault(uint32_t index)
{
	uint32_t pkru = rdpkru() | epk_now.closed;

	epk_pkru_set(pkru_open(pkru, epk_now.vault_pkey, PROT_READ | PROT_WRITE));
	/* Never out of the vault's memory, whatever the thread's record says. */
	return (struct epk_vault *)epk_now.vaults + index % VAULTS;
}

struct epk_vault *vault_open(const struct epk_thread *t)
{
	struct epk_vault *vault = open_vault(t->vault);

	if (vault->owner == fs_base())
		return vault;
	vault_close();
	abort();
}

void vault_close(void)
{
	epk_pkru_set(rdpkru() | epk_now.closed);
}

/* Rights of an earlier owner may be in a vault that nobody released. */
void vault_clear(struct epk_vault *vault)
{
	memset(vault->rights, 0, sizeof(vault->rights));
	epk_barrier();
	__atomic_store_n(&vault->nr, 0, __ATOMIC_RELAXED);
}

int vault_claim(struct epk_thread *t)
{
	uint64_t owner = fs_base(), none;
	struct epk_vault *vault;
	uint32_t index;

	for (index = 0; index < VAULTS; index++) {
		vault = open_vault(index);
		none = 0;
		/* Its own may be left from a thread that ended without a word. */
		if (vault->owner == owner ||
		    __atomic_compare_exchange_n(&vault->owner, &none, owner, false,
						__ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			vault_clear(vault);
			vault_close();
			t->vault = index;
			return 0;
		}
		vault_close();
	}
	return -ENOMEM;
}

void vault_release(struct epk_thread *t)
{
	struct epk_vault *vault = vault_open(t);

	vault_clear(vault);
	__atomic_store_n(&vault->owner, 0, __ATOMIC_RELEASE);
	vault_close();
}

/*
 * A signal handler that adds and removes something of its own in between leaves
 * what is below @nr as it was: so take the room before it is filled, and give it
 * up after it is copied.  What is not below @nr is zero, no right and nobody's: the
 * handler may find such an element where room was just taken.
 */
void vault_add(struct epk_vault *vault, int id, int prot)
{
	unsigned int i;

	for (i = 0; i < vault->nr && vault->rights[i].id != id; i++)
		;
	if (i == EPK_MAX_HELD)
		return;
	if (i == vault->nr)
		__atomic_store_n(&vault->nr, i + 1, __ATOMIC_RELAXED);
	epk_barrier();
	vault->rights[i] = (struct epk_right){ .id = id, .prot = prot };
	epk_barrier();
}

void vault_remove(struct epk_vault *vault, int id)
{
	unsigned int i, last;

	for (i = 0; i < vault->nr; i++) {
		if (vault->rights[i].id != id)
			continue;
		last = vault->nr - 1;
		vault->rights[i] = vault->rights[last];
		epk_barrier();
		__atomic_store_n(&vault->nr, last, __ATOMIC_RELAXED);
		epk_barrier();
		vault->rights[last] = (struct epk_right){ 0 };
	}
	epk_barrier();
}

/* What the thread may do with @id, 0 if it does not hold it. */
int vault_prot(const struct epk_vault *vault, int id)
{
	unsigned int i;

	for (i = 0; i < vault->nr; i++)
		if (vault->rights[i].id == id)
			return vault->rights[i].prot;
	return 0;
}
