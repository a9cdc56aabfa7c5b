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
/* Behind the table, for each index the domain's note. */
#define EPK_GATE_NOTES		0x100000

/* All closed but one key, for writing and for reading. */
#define EPK_GATE_RW		0
#define EPK_GATE_RO		64
/* Access-disable and write-disable of a key, both, and all but these. */
#define EPK_GATE_AD		128
#define EPK_GATE_WD		192
#define EPK_GATE_BITS		256
#define EPK_GATE_MASK		320
/* As EPK_GATE_RW; of key 0 what no PKRU is. */
#define EPK_GATE_ONLY		384

/* Keys 1 to 15: no access, as the module has it; "mpk" denies writing to what is closed as well. */
#define EPK_PKRU_ACCESS		0x55555554

/* Offsets in struct epk_word and in struct epk_slot, of which there are so many. */
#define EPK_WORD_SWITCHES	0
#define EPK_WORD_FOLLOWS	8
#define EPK_WORD_SLOT		12
#define EPK_WORD_COMPONENT	16
#define EPK_WORD_COMP_SLOT	20
#define EPK_WORD_OUTSIDE	24
#define EPK_WORD_MOVES		32
#define EPK_WORD_CONFINED	56
#define EPK_SLOT_PINS		0
#define EPK_SLOT_BYTES		128
#define EPK_SLOTS		32768

/* The bits of an ID that are its index, as EPK_ID_INDEX() of <linux/epk.h> has them. */
#define EPK_GATE_INDEX_MASK	0x1ffff

/* Offsets in struct epk_state. */
#define EPK_STATE_GATE_TABLE	0
#define EPK_STATE_ACCESS	8
#define EPK_STATE_INDEX_MASK	12
#define EPK_STATE_BEGIN		16
#define EPK_STATE_END		24
#define EPK_STATE_PIN_TABLE	32
#define EPK_STATE_CLOSED	40
#define EPK_STATE_HELD_BITS	44
#define EPK_STATE_NOTHING	48
#define EPK_STATE_XFEATURES	52
#define EPK_STATE_FD		56
#define EPK_STATE_TLS_BELOW	60
#define EPK_STATE_BEGIN_SLOW	64
#define EPK_STATE_END_SLOW	72
#define EPK_STATE_CALL_SLOW	80

/* Bits of XCR0. */
#define EPK_AVX			0x04
#define EPK_X_PKRU		0x200

#ifndef __ASSEMBLER__

#include <stdint.h>

/**
 * struct epk_slot - what all threads may read of one
 * @pins: under "mpk": how often the thread, signal handlers included, has opened each key
 * @tid: whose it is, or 0
 * @switches: VMFUNCs that the gates executed
 *
 * It outlives the thread, whose own memory does not.  The process can write it.
 */
struct epk_slot {
	uint32_t pins[16];
	uint32_t tid;
	uint64_t switches;
} __attribute__((aligned(EPK_SLOT_BYTES)));

/* The first is of threads that have none, and stays empty. */
extern struct epk_slot epk_slots[EPK_SLOTS];

/**
 * struct epk_word - what the gates keep of one thread
 * @switches: that of its slot; written while no key is open
 * @follows: the module, or under "mpk" the library, knows the thread, so that what it opens is not
 *	lost
 * @slot: where its slot is in @epk_slots, in bytes
 * @component: the component that the thread is in, or 0; see component_gate.S
 * @comp_slot: where its slot is in components, in bytes; 0 before its first call of one; read with the former
 * @outside: the stack pointer of the ordinary code that has called a component last, and waits: below
 *	it signals have their frames while the thread is in one, or on the way
 * @moves: room for struct epk_moves, and struct epk_move
 * @confined: the last record of a confined call, see component_confined.h; or NULL
 *
 * The process can write it.  The gates grant nothing by it, and write nothing but the
 * slots while something is open; those of components to this, too.
 */
struct epk_word {
	uint64_t *switches;
	uint32_t follows;
	uint32_t slot;
	uint32_t component;
	uint32_t comp_slot;
	char *outside;
	uint64_t moves[3];
	char *confined;
};

extern __thread struct epk_word epk_word __attribute__((tls_model("initial-exec")));

/* Sets PKRU.  A value that opens more than one key of the library ends the process. */
void epk_pkru_set(uint32_t pkru);

/* Changes the EPT, with every key of the library closed. */
void epk_ept_enter(uint32_t ept);

/* What domain_begin() and domain_end() go on with: epk_state.begin and .end. */
int epk_pin_begin(int id, int prot);
int epk_pin_end(int id);
/* hold.c: what the gates cannot do: epk_state.begin_slow and .end_slow. */
int epk_begin_slow(int id, int prot);
int epk_end_slow(int id);

/*
 * epk_state.close: closes all that the thread holds.  Not 0, and nothing has changed, if the thread
 * may hold more than its PKRU says.
 */
int epk_close(void);
int epk_close_unknown(void);

/* The gates that the module restarts. */
struct epk_gate;
extern const struct epk_gate epk_gate_list[], epk_gate_list_end[];
extern const struct epk_gate epk_component_gate_list[], epk_component_gate_list_end[];

#endif /* __ASSEMBLER__ */

#endif /* EPK_GATE_H */
