// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pkru.h"
#include "vault.h"

/* The most threads at a time.  Memory is mapped for a chunk of them at a time. */
#define CHUNK_BYTES	65536ul
#define VAULT_BYTES	(256 * CHUNK_BYTES)
#define VAULTS		((uint32_t)(VAULT_BYTES / sizeof(struct epk_vault)))

/* How much of the vault's address space has memory.  Under epk_lock. */
static size_t mapped_bytes;

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

static int map_chunk(char *vaults, int fd, int id)
{
	void *got = mmap(vaults + mapped_bytes, CHUNK_BYTES, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, EPK_MMAP_DOMAIN(id));

	if (got == MAP_FAILED)
		return -errno;
	mapped_bytes += CHUNK_BYTES;
	return 0;
}

/*
 * The table does not show the domain's ID, so no gate and no call finds it.  On
 * error the caller closes the context, and with it goes the domain.
 */
int vault_init(struct epk_state *state)
{
	int id = 0, err;
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_HIDDEN, .ids = (uintptr_t)&id };
	struct epk_entry entry;
	void *room;

	if (ioctl(state->fd, EPK_IOC_ALLOC, &arg))
		return -errno;
	state->vault_id = id;
	room = mmap(NULL, VAULT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (room == MAP_FAILED)
		return -ENOMEM;
	mapped_bytes = 0;
	err = map_chunk(room, state->fd, id);
	if (err) {
		munmap(room, VAULT_BYTES);
		return err;
	}
	entry = state->table[EPK_ID_INDEX(id)];
	state->vaults = room;
	state->vault_ept = entry.ept;
	state->vault_pkey = entry.pkey;
	state->rdfsbase = has_rdfsbase();
	return 0;
}

/* Under "mpk": memory with the key state->vault_pkey. */
int vault_init_pkey(struct epk_state *state)
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
	mapped_bytes = VAULT_BYTES;
	state->vaults = room;
	state->rdfsbase = has_rdfsbase();
	return 0;
}

/* In a forked child.  Where the module's memory was, something else may be by now. */
void vault_forget(const struct epk_state *old)
{
	size_t gone = old->vault_id ? mapped_bytes : 0;

	munmap((char *)old->vaults + gone, VAULT_BYTES - gone);
}

/* Memory for more threads, if @index has none. */
static int grow(uint32_t index)
{
	int err = 0;

	pthread_mutex_lock(&epk_lock);
	while (!err && (index + 1) * sizeof(struct epk_vault) > mapped_bytes)
		err = map_chunk(epk_now.vaults, epk_now.fd, epk_now.vault_id);
	pthread_mutex_unlock(&epk_lock);
	return err;
}

static struct epk_vault *open_vault(uint32_t index)
{
	uint32_t pkru = rdpkru() | epk_now.closed;

	epk_pkru_set(pkru);
	if (epk_current_ept() != epk_now.vault_ept)
		epk_ept_enter(epk_now.vault_ept);
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
	int err;

	for (index = 0; index < VAULTS; index++) {
		err = grow(index);
		if (err)
			return err;
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
