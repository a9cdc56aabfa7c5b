/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What each begin, fault and context switch asks first: short, and so inline.  Part of module.h.
 */
#ifndef EPK_LOOKUP_H
#define EPK_LOOKUP_H

#include <linux/mman.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>

/**
 * epk_thread_find() - the record of a thread
 * @task: current, or the thread that this CPU is about to switch out
 *
 * Context: preemption disabled.
 * Return: the record, or NULL if it is not registered.
 */
static inline struct epk_thread *epk_thread_find(struct task_struct *task)
{
	struct preempt_notifier *notifier;

	lockdep_assert_preemption_disabled();
	hlist_for_each_entry(notifier, &task->preempt_notifiers, link) {
		if (notifier->ops == &epk_thread_ops)
			return container_of(notifier, struct epk_thread, notifier);
	}
	return NULL;
}

/**
 * epk_thread_runs_vcpu() - has a thread a virtual CPU loaded
 * @task: current
 *
 * KVM's notifier is in its list so long, and KVM sets its PKRU to what that was before.
 *
 * Context: preemption disabled.
 */
static inline bool epk_thread_runs_vcpu(struct task_struct *task)
{
	struct preempt_notifier *notifier;

	hlist_for_each_entry(notifier, &task->preempt_notifiers, link) {
		if (notifier->ops != &epk_thread_ops && notifier != &epk_unregistered_node)
			return true;
	}
	return false;
}

/* A domain's note is written before anybody can find that it is private. */
static inline u64 epk_note_read(const struct epk_chunk *chunk, u32 index)
{
	/* Pairs with epk_notes_get(). */
	const u64 *notes = smp_load_acquire(&chunk->notes);

	return notes ? READ_ONCE(notes[index % EPK_CHUNK_ENTRIES]) : 0;
}

/**
 * epk_table_read() - where a domain is, as tables show it
 * @ctx: a context that is ready
 * @index: the entry, below EPK_TABLE_ENTRIES
 *
 * Two reads, for a private domain or an unlisted one: in between the place can become another's.  Who goes by it
 * finds that in place_ids.
 *
 * Context: any.
 * Return: the entry; of what has never been used, an empty one.
 */
static inline struct epk_entry epk_table_read(const struct epk_context *ctx, u32 index)
{
	const struct epk_chunk *chunk;
	union {
		u64 word;
		struct epk_entry entry;
	} u = { .word = 0 }, where;
	const u64 *unlisted;
	u64 note;

	/* Pairs with epk_chunk_get(). */
	chunk = smp_load_acquire(&ctx->chunks[index / EPK_CHUNK_ENTRIES]);
	if (!chunk)
		return u.entry;
	u.word = READ_ONCE(*(const u64 *)&chunk->table[index % EPK_CHUNK_ENTRIES]);
	if (unlikely(u.entry.id && u.entry.ept == EPK_EPT_NONE)) {
		note = epk_note_read(chunk, index);
		if (EPK_NOTE_PKEY(note)) {
			u.entry.ept = EPK_NOTE_EPT(note);
			u.entry.pkey = EPK_NOTE_PKEY(note);
		}
		/* Pairs with epk_unlisted_get(). */
		unlisted = smp_load_acquire(&chunk->unlisted);
		if (unlisted) {
			where.word = READ_ONCE(unlisted[index % EPK_CHUNK_ENTRIES]);
			if (where.entry.id == u.entry.id)
				u = where;
		}
	}
	return u.entry;
}

/**
 * epk_table_is_private() - is it a private domain
 * @ctx: a context that is ready
 * @id: an ID of its, or 0
 *
 * Context: any.
 */
static inline bool epk_table_is_private(const struct epk_context *ctx, int id)
{
	u32 index = EPK_ID_INDEX(id);
	const struct epk_chunk *chunk;
	u64 note;

	/* Pairs with epk_chunk_get(). */
	chunk = smp_load_acquire(&ctx->chunks[index / EPK_CHUNK_ENTRIES]);
	if (!id || !chunk)
		return false;
	note = epk_note_read(chunk, index);
	return note != EPK_NOTE_ADDR(note) &&
	       READ_ONCE(chunk->table[index % EPK_CHUNK_ENTRIES].id) == id;
}

/**
 * epk_is_in() - is what lies in an EPT, or everywhere, in another
 * @where: an EPT's index, EPK_EPT_ALL or EPK_EPT_NONE
 * @ept: an EPT's index
 */
static inline bool epk_is_in(u32 where, u32 ept)
{
	return where == ept || where == EPK_EPT_ALL;
}

/**
 * epk_record_find() - find what the code that runs holds by the record
 * @thread: the record of current
 * @id: the domain
 *
 * Return: where it is, or -ENOENT.
 */
static inline int epk_record_find(const struct epk_thread *thread, int id)
{
	unsigned int n;

	for (n = thread->nr_rights; n-- > thread->base; ) {
		if (thread->rights[n].id == id)
			return n;
	}
	return -ENOENT;
}

/**
 * epk_record_hold() - what a key is open for is more than a common right
 * @thread: the record of current, or of who does not run
 * @ept: its EPT
 * @pkey: the key
 */
static inline void epk_record_hold(struct epk_thread *thread, u32 ept, u8 pkey)
{
	if (thread->commons_ept == ept)
		thread->commons &= ~BIT(pkey);
}

/**
 * epk_record_allows() - is a right enough for an access
 * @thread: the record of current
 * @n: where it is
 * @write: to write, else to read
 */
static inline bool epk_record_allows(const struct epk_thread *thread, unsigned int n, bool write)
{
	return !write || !thread->rights[n].read_only;
}

/**
 * epk_record_prot() - what the code that runs holds of a domain by the record
 * @thread: the record of current
 * @id: the domain
 *
 * Return: PROT_READ, perhaps with PROT_WRITE; or 0.
 */
static inline int epk_record_prot(const struct epk_thread *thread, int id)
{
	int n = epk_record_find(thread, id);

	if (n < 0)
		return 0;
	return epk_record_allows(thread, n, true) ? PROT_READ | PROT_WRITE : PROT_READ;
}

/**
 * epk_gates_restart() - what a thread has read may be old by now
 * @ctx: its context
 * @task: current, or a thread that cannot come to run before this is through
 *
 * Who is executing a program has the registers of that already, which start where @ctx must have
 * no say, and a record until a little later.
 */
static inline void epk_gates_restart(const struct epk_context *ctx, struct task_struct *task)
{
	struct pt_regs *regs = task_pt_regs(task);

	/* Pairs with epk_gates_set().  Of most code that is all there is to ask. */
	if (!smp_load_acquire(&ctx->nr_gates) || regs->ip < ctx->gates_start ||
	    regs->ip >= ctx->gates_end || READ_ONCE(task->mm) != ctx->mm)
		return;
	epk_gates_go_back(ctx, regs);
}

#endif /* EPK_LOOKUP_H */
