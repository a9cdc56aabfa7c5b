/* SPDX-License-Identifier: MIT */
/*
 * A thread; and the list of what it holds, under the backends that know by nothing else.
 *
 * Only the thread itself changes these, and a signal handler that begins and
 * ends domains in between leaves them as they were: a slot is empty before it is
 * taken, and taken before it is filled.
 */
#ifndef EPK_THREAD_H
#define EPK_THREAD_H

#include <sys/types.h>

#include "epk.h"
#include "stack.h"
#include "state_page.h"

/**
 * struct epk_held - a domain that the thread holds
 * @id: the domain, or 0 while the slot is being filled
 * @prot: PROT_READ, perhaps with PROT_WRITE
 */
struct epk_held {
	int id;
	int prot;
};

/**
 * struct epk_thread - a thread that began a domain
 * @nr: elements of @held
 * @held: what it holds
 * @slot: its slot
 * @tid: its thread ID
 * @stack: its stack for functions that epk_call() runs, if it has one
 * @records: of its confined calls, or NULL
 * @asides: how often it has put something aside and not taken it back, where that is counted
 * @aside_sps: under which stack pointers
 * @on_stack: how many such functions have not returned
 * @own_low: its own stack, from here
 * @own_bytes: so long; 0 if that is not known, or lies below @stack
 * @own_quick: the same, or 0 where the address sanitizer wants to know on which stack it is
 * @fault: the last that epk_call_caught() has caught; its size is 0 before
 * @switches: VMFUNCs outside of the gates
 * @next: next in the list of all
 * @link: what points to this one
 */
struct epk_thread {
	unsigned int nr;
	struct epk_held held[EPK_MAX_HELD];
	struct epk_slot *slot;
	pid_t tid;
	struct epk_stack stack;
	char *records;
	unsigned int asides;
	uintptr_t aside_sps[EPK_CALLS_MAX];
	unsigned int on_stack;
	uintptr_t own_low;
	size_t own_bytes;
	size_t own_quick;
	struct epk_fault fault;
	uint64_t switches;
	struct epk_thread *next;
	struct epk_thread **link;
};

/* NULL until the thread's first domain_begin(). */
extern __thread struct epk_thread *epk_self __attribute__((tls_model("initial-exec")));

int epk_membarrier(int cmd);
int epk_thread_setup(void);
int epk_thread_start(void);
bool epk_thread_is_gone(pid_t tid);
bool epk_threads_hold(int id);
bool epk_threads_pin(unsigned int pkey);
bool epk_wait_for_pins(unsigned int tries);
uint64_t epk_threads_switches(void);
void epk_threads_forget(void);

static inline void epk_barrier(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* The calling thread's.  Until its first domain_begin() that of nobody. */
static inline struct epk_slot *epk_own_slot(void)
{
	return &epk_slots[epk_word.slot / EPK_SLOT_BYTES % EPK_SLOTS];
}

/* A forged @nr must not have the library read, or write, beyond the list. */
static inline unsigned int epk_held_nr(const struct epk_thread *t)
{
	unsigned int nr = __atomic_load_n(&t->nr, __ATOMIC_RELAXED);

	return nr < EPK_MAX_HELD ? nr : EPK_MAX_HELD;
}

/* The slot of @id, or -1.  The last begun is the most likely. */
static inline int epk_held_find(const struct epk_thread *t, int id)
{
	int slot;

	for (slot = (int)epk_held_nr(t) - 1; slot >= 0; slot--)
		if (__atomic_load_n(&t->held[slot].id, __ATOMIC_RELAXED) == id)
			break;
	return slot;
}

static inline struct epk_held *epk_held_push(struct epk_thread *t, struct epk_held new_held)
{
	struct epk_held *held = &t->held[t->nr];

	__atomic_store_n(&held->id, 0, __ATOMIC_RELAXED);
	epk_barrier();
	__atomic_store_n(&t->nr, t->nr + 1, __ATOMIC_RELAXED);
	epk_barrier();
	held->prot = new_held.prot;
	epk_barrier();
	__atomic_store_n(&held->id, new_held.id, __ATOMIC_RELAXED);
	return held;
}

static inline void epk_held_remove(struct epk_thread *t, unsigned int slot)
{
	/* Others may look for an ID at the same time. */
	for (; slot + 1 < t->nr; slot++) {
		t->held[slot].prot = t->held[slot + 1].prot;
		__atomic_store_n(&t->held[slot].id, t->held[slot + 1].id, __ATOMIC_RELAXED);
	}
	epk_barrier();
	__atomic_store_n(&t->nr, slot, __ATOMIC_RELAXED);
}

#endif /* EPK_THREAD_H */
