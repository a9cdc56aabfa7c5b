/* SPDX-License-Identifier: MIT */
/*
 * What a thread holds while it holds several domains, under "mpk": in memory with a key of its
 * own, which the rest of the process cannot write.  A right that
 * no call of domain_begin() asked for at this moment is given by this alone.
 *
 * Between vault_open() and vault_close() the thread has the vault's key open and no other;
 * afterwards none.
 */
#ifndef EPK_VAULT_H
#define EPK_VAULT_H

#include "backend.h"

/**
 * struct epk_right - a right to a domain
 * @id: the domain
 * @prot: PROT_READ, perhaps with PROT_WRITE
 */
struct epk_right {
	int id;
	int prot;
};

/**
 * struct epk_vault - one thread's part of the vault
 * @owner: the thread's FS base, which it alone has; 0 while nobody has the part
 * @nr: elements of @rights
 * @rights: what it holds
 */
struct epk_vault {
	uint64_t owner;
	unsigned int nr;
	struct epk_right rights[EPK_MAX_HELD];
} __attribute__((aligned(64)));

int vault_init(struct epk_state *state);
void vault_forget(const struct epk_state *old);
int vault_claim(struct epk_thread *t);
void vault_release(struct epk_thread *t);
struct epk_vault *vault_open(const struct epk_thread *t);
void vault_close(void);
void vault_clear(struct epk_vault *vault);
void vault_add(struct epk_vault *vault, int id, int prot);
void vault_remove(struct epk_vault *vault, int id);
int vault_prot(const struct epk_vault *vault, int id);

#endif /* EPK_VAULT_H */
