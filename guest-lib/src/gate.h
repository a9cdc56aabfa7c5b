/* SPDX-License-Identifier: MIT */
/*
 * What the gates and the C files agree on: where things lie from the domain table,
 * and what PKRU is while every key of the library is closed.
 *
 *	table - 8192	PKRU values and bits by pkey, EPK_GATE_*
 *	table - 4096	the identity page
 *	table		an entry for each index that an ID can have
 *
 * All of it is read-only; a table of the library's own is written at another address.
 */
#ifndef EPK_GATE_H
#define EPK_GATE_H

#define EPK_GATE_IDENTITY	4096
#define EPK_GATE_BEFORE		8192

/* All closed but one key, for writing and for reading; as EPK_PKRU_ACCESS, and as EPK_PKRU_CLOSED. */
#define EPK_GATE_RW		0
#define EPK_GATE_RO		64
#define EPK_GATE_WORD_RW	128
#define EPK_GATE_WORD_RO	192
/* Access-disable and write-disable of a key, both, and all but these. */
#define EPK_GATE_AD		256
#define EPK_GATE_WD		320
#define EPK_GATE_BITS		384
#define EPK_GATE_MASK		448

/*
 * Keys 1 to 15: no access, as the module has it; neither access nor writing, as "mpk" has it
 * in processes that use no key of their own.
 */
#define EPK_PKRU_ACCESS		0x55555554
#define EPK_PKRU_CLOSED		0xfffffffc

/* Offsets in struct epk_word. */
#define EPK_WORD_SWITCHES	8
#define EPK_WORD_FOLLOWS	16

/* Offsets in struct epk_state. */
#define EPK_STATE_GATE_TABLE	0
#define EPK_STATE_ACCESS	8
#define EPK_STATE_INDEX_MASK	12
#define EPK_STATE_BEGIN		16
#define EPK_STATE_END		24
#define EPK_STATE_WORD_TABLE	32
#define EPK_STATE_CLOSED	40
#define EPK_STATE_MARK		44

#ifndef __ASSEMBLER__

#include <stdint.h>

/**
 * struct epk_word - what the gates keep of one thread
 * @held: what it holds, under "mpk": EPK_WORD_FREE; or the table entry of the only domain that the thread
 *	holds, with EPK_WORD_READ where it may only read; or EPK_WORD_LIST: the
 *	thread's list in struct epk_thread counts, or the thread has none yet
 * @switches: VMFUNCs that the gates executed
 * @follows: under "epk": the module knows the thread, so that what it opens is not lost
 *
 * The process can write it.  The gates grant nothing by it.
 */
struct epk_word {
	uint64_t held;
	uint64_t switches;
	uint32_t follows;
};

#define EPK_WORD_FREE		0ull
#define EPK_WORD_LIST		0xffffffffull
#define EPK_WORD_READ		(1ull << 56)

extern __thread struct epk_word epk_word __attribute__((tls_model("initial-exec")));

/* Sets PKRU.  A value that opens more keys than the thread holds ends the process. */
void epk_pkru_set(uint32_t pkru);

/* Changes the EPT, with every key of the library closed. */
void epk_ept_enter(uint32_t ept);

/* What domain_begin() and domain_end() go on with: epk_state.begin and .end. */
int epk_word_begin(int id, int prot);
int epk_word_end(int id);
/* domain.c: what the gates cannot do; called by them alone. */
int epk_begin_slow(int id, int prot);
int epk_end_slow(int id);
void epk_pkru_verify(void);

/* The gates that the module restarts. */
struct epk_gate;
extern const struct epk_gate epk_gate_list[], epk_gate_list_end[];

#endif /* __ASSEMBLER__ */

#endif /* EPK_GATE_H */
