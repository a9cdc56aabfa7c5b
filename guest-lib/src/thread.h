/* SPDX-License-Identifier: MIT */
/*
 * What one thread holds.
 *
 * Only the thread itself changes its list, and a signal handler that begins and
 * ends domains in between leaves it as it was: a slot is taken before it is
 * filled, and emptied after it is given up.
 */
#ifndef EPK_THREAD_H
#define EPK_THREAD_H

#include "epk.h"
#include "state.h"

/**
 * struct epk_held - a domain that the thread holds
 * @id: the domain, or 0 while the slot is being filled
 * @ept: its EPT and
 * @pkey: its pkey when it began; good for dropping the right, not for granting
 * @prot: PROT_READ, perhaps with PROT_WRITE
 */
struct epk_held {
	int id;
	uint16_t ept;
	uint8_t pkey;
	uint8_t prot;
};

struct epk_thread {
	unsigned int nr;
	struct epk_held held[EPK_MAX_HELD];
	uint64_t switches;
	struct epk_thread *next;
	struct epk_thread **link;
};

/* NULL until the thread's first domain_begin(). */
extern __thread struct epk_thread *epk_self __attribute__((tls_model("initial-exec")));

int epk_thread_setup(void);
int epk_thread_start(void);
bool epk_threads_hold(int id);
uint64_t epk_threads_switches(void);
void epk_threads_forget(void);

static inline void epk_barrier(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* The slot of @id, or -1.  The last begun is the most likely. */
static inline int epk_held_find(const struct epk_thread *t, int id)
{
	int slot;

	for (slot = (int)t->nr - 1; slot >= 0; slot--)
		if (t->held[slot].id == id)
			break;
	return slot;
}

static inline struct epk_held *epk_held_push(struct epk_thread *t, struct epk_entry entry,
					     int prot)
{
	struct epk_held *held = &t->held[t->nr];

	__atomic_store_n(&t->nr, t->nr + 1, __ATOMIC_RELAXED);
	epk_barrier();
	held->ept = entry.ept;
	held->pkey = entry.pkey;
	held->prot = prot;
	epk_barrier();
	__atomic_store_n(&held->id, entry.id, __ATOMIC_RELAXED);
	return held;
}

static inline void epk_held_remove(struct epk_thread *t, unsigned int slot)
{
	for (; slot + 1 < t->nr; slot++)
		t->held[slot] = t->held[slot + 1];
	epk_barrier();
	__atomic_store_n(&t->nr, slot, __ATOMIC_RELAXED);
	epk_barrier();
	__atomic_store_n(&t->held[slot].id, 0, __ATOMIC_RELAXED);
}

#endif /* EPK_THREAD_H */
