/* SPDX-License-Identifier: MIT */
/*
 * A component: a private domain, which is entered at its entries only.  Its header, its threads'
 * stacks and its heap lie in the domain; where the header lies, the domain's note says.
 */
#ifndef EPK_COMPONENT_H
#define EPK_COMPONENT_H

/* Offsets in struct epk_component, for component_gate.S. */
#define EPK_COMP_NR		0
#define EPK_COMP_KEYS		16
#define EPK_COMP_ENTRIES	192
#define EPK_COMP_ENTRIES_MAX	64
#define EPK_COMP_MASK		704
#define EPK_COMP_SLOTS		4096

/* Offsets in struct epk_component_slot. */
#define EPK_COMP_OWNER		0
#define EPK_COMP_SP		8
#define EPK_COMP_FRAME		16
#define EPK_COMP_COUNT		24
#define EPK_COMP_TOP		32
#define EPK_COMP_NUMBER		40
#define EPK_COMP_TLS		48
#define EPK_COMP_CALLER		56
#define EPK_COMP_EXPECT		64
#define EPK_COMP_LEAST		72
#define EPK_COMP_SLOT_BYTES	128
/* What the gate puts on the stack of a component that is entered while it waits. */
#define EPK_COMP_NESTED		64

/*
 * Offsets in a record of a confined call.  So many can be under way in a thread, less one; the room is
 * aligned, so that the first, which is none, is known by its address.
 */
#define EPK_CONF_SP		0
#define EPK_CONF_CALLER		8
#define EPK_CONF_CALLEE		12
#define EPK_CONF_GS		16
#define EPK_CONF_BYTES		32
#define EPK_CONF_RECORDS	16
#define EPK_CONF_ROOM		512

/* What is copied of a thread's block from its FS base on: what the C library keeps of it first. */
#define EPK_TLS_ABOVE		768

/* From the address in the note of a confined component to its header: a page that nobody can touch. */
#define EPK_CONF_HEADER		4096

/* EPK_IOC_*; one struct epk_moves with EPK_MOVES_ADMIT, and what is added to an ID for any EPT. */
#define EPK_IOC_CALL_NR		0x45ef
#define EPK_IOC_RETURN_NR	0x45f0
#define EPK_RETURNS_NOTHING	1
#define EPK_IOC_MOVE_NR		0x401045e5
#define EPK_MOVES_ADMIT_ONE	0x100000001
#define EPK_MOVE_ANY		0xfffe00000000

#ifndef __ASSEMBLER__

#include "state_page.h"

struct heap;

/**
 * struct epk_confined_call - what the way back from a confined callee rests on
 * @sp: the caller's stack pointer, if it is ordinary code
 * @caller: the calling component, or 0
 * @callee: the component
 * @gs: the GS base of who called, or of what the callee has called
 *
 * In ordinary memory, which the callee cannot write to.
 */
struct epk_confined_call {
	uint64_t sp;
	uint32_t caller;
	uint32_t callee;
	uint64_t gs;
	uint64_t unused;
};

/**
 * struct epk_component_slot - a thread in a component
 * @owner: the FS base of the thread that is inside, or with bit 0 of who has used it; 1 if none has
 * @sp: its stack pointer while it is in another component, called from this one
 * @frame: if it has been entered while it was: what to leave by, where the rest of this stands as it was
 * @count: of the calls that it makes
 * @top: where its stack begins
 * @number: what its caller expects back: a number, or ordinary code its stack pointer
 * @tls: in a confined one: its FS base there
 * @caller: the caller's ID, or 0, and above it the thread's epk_word.comp_slot
 * @expect: of who is to come back to @sp the number, twice and 1 more; even while nobody is
 * @least: it can be entered while it waits if @sp is not below
 */
struct epk_component_slot {
	uint64_t owner;
	uint64_t sp;
	uint64_t frame;
	uint64_t count;
	uint64_t top;
	uint64_t number;
	uint64_t tls;
	uint64_t caller;
	uint64_t expect;
	uint64_t least;
	uint64_t unused[6];
};

/**
 * struct epk_component - at the address in the domain's note
 * @nr: of @entries, those in use
 * @heap: the domain's heap, or NULL
 * @keys: of AES: what tells a return from a forged one is its cipher of the call's number
 * @entries: where it can be entered
 * @mask: offsets of @slots lie in it
 * @slots: a power of two of them
 */
struct epk_component {
	uint64_t nr;
	struct heap *heap;
	uint64_t keys[22];
	long (*entries[EPK_COMP_ENTRIES_MAX])(void *arg);
	uint32_t mask;
	char unused[EPK_COMP_SLOTS - EPK_COMP_MASK - 4];
	struct epk_component_slot slots[];
};

#define EPK_COMP_AT(type, member, offset) \
	_Static_assert(__builtin_offsetof(struct type, member) == (offset), "as above")
EPK_COMP_AT(epk_component, nr, EPK_COMP_NR);
EPK_COMP_AT(epk_component, mask, EPK_COMP_MASK);
EPK_COMP_AT(epk_component, keys, EPK_COMP_KEYS);
EPK_COMP_AT(epk_component, entries, EPK_COMP_ENTRIES);
EPK_COMP_AT(epk_component, slots, EPK_COMP_SLOTS);
EPK_COMP_AT(epk_component_slot, owner, EPK_COMP_OWNER);
EPK_COMP_AT(epk_component_slot, sp, EPK_COMP_SP);
EPK_COMP_AT(epk_component_slot, frame, EPK_COMP_FRAME);
EPK_COMP_AT(epk_component_slot, count, EPK_COMP_COUNT);
EPK_COMP_AT(epk_component_slot, top, EPK_COMP_TOP);
EPK_COMP_AT(epk_component_slot, number, EPK_COMP_NUMBER);
EPK_COMP_AT(epk_component_slot, tls, EPK_COMP_TLS);
EPK_COMP_AT(epk_component_slot, caller, EPK_COMP_CALLER);
EPK_COMP_AT(epk_component_slot, expect, EPK_COMP_EXPECT);
EPK_COMP_AT(epk_component_slot, least, EPK_COMP_LEAST);
_Static_assert(sizeof(struct epk_component_slot) == EPK_COMP_SLOT_BYTES, "as above");

EPK_COMP_AT(epk_confined_call, sp, EPK_CONF_SP);
EPK_COMP_AT(epk_confined_call, caller, EPK_CONF_CALLER);
EPK_COMP_AT(epk_confined_call, callee, EPK_CONF_CALLEE);
EPK_COMP_AT(epk_confined_call, gs, EPK_CONF_GS);
_Static_assert(sizeof(struct epk_confined_call) == EPK_CONF_BYTES &&
	       EPK_CONF_RECORDS * EPK_CONF_BYTES == EPK_CONF_ROOM, "as above");

/* The header of a private domain, which has one and lives. */
static inline struct epk_component *epk_component_of(int id)
{
	uint64_t note = epk_note(id);
	uint64_t off = note & EPK_NOTE_IS_CONFINED ? EPK_CONF_HEADER : 0;

	return (struct epk_component *)(EPK_NOTE_ADDR(note) + off);
}

/* component.c: what component_gate.S cannot do alone: epk_state.call_slow. */
int epk_gate_call_slow(int dom_id, unsigned int entry, void *arg, long *result);

/* epk_gate_call(), or -EAGAIN if that is to be made possible first. */
int epk_gate_try(int dom_id, unsigned int entry, void *arg, long *result);
void epk_gate_release(int dom_id);
void epk_gate_release_confined(int dom_id);
void epk_components_release(void);

/* Where the module has a thread go on that faults in a component. */
extern const char epk_gate_fault[];

#endif /* __ASSEMBLER__ */

#endif /* EPK_COMPONENT_H */
