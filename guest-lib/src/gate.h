/* SPDX-License-Identifier: MIT */
/*
 * What gate.S and the C files agree on: where things lie from the domain table,
 * and what PKRU is while every key of the library is closed.
 *
 *	table - 8192	PKRU values by pkey, EPK_GATE_RW and EPK_GATE_RO
 *	table - 4096	the identity page
 *	table		an entry for each index that an ID can have
 *
 * All of it is read-only; a table of the library's own is written at another address.
 */
#ifndef EPK_GATE_H
#define EPK_GATE_H

#define EPK_GATE_IDENTITY	4096
#define EPK_GATE_BEFORE		8192
#define EPK_GATE_RW		0
#define EPK_GATE_RO		64

/*
 * Keys 1 to 15: neither access nor writing; the access part of it.  The gates
 * serve processes that use no key of their own.
 */
#define EPK_PKRU_CLOSED		0xfffffffc
#define EPK_PKRU_ACCESS		0x55555554

#ifndef __ASSEMBLER__

#include <stdint.h>

/**
 * struct epk_word - what one thread holds, as far as the gates can tell
 * @held: EPK_WORD_FREE; or the table entry of the only domain that the thread
 *	holds, with EPK_WORD_READ where it may only read; or EPK_WORD_LIST: the
 *	thread's list in struct epk_thread counts, or the thread has none yet
 * @switches: VMFUNCs that the gates executed
 *
 * The process can write it.  The gates grant nothing by it: they open the one
 * domain that they are asked for, and close all others.
 */
struct epk_word {
	uint64_t held;
	uint64_t switches;
};

#define EPK_WORD_FREE		0ull
#define EPK_WORD_LIST		0xffffffffull
#define EPK_WORD_READ		(1ull << 56)

extern __thread struct epk_word epk_word __attribute__((tls_model("initial-exec")));

/* Sets PKRU.  A value that opens more keys than the thread holds ends the process. */
void epk_pkru_set(uint32_t pkru);

/* Changes the EPT, with every key of the library closed. */
void epk_ept_enter(uint32_t ept);

/* domain.c: what the gates cannot do; called by them alone. */
int epk_begin_slow(int id, int prot);
int epk_end_slow(int id);
void epk_pkru_verify(void);

#endif /* __ASSEMBLER__ */

#endif /* EPK_GATE_H */
