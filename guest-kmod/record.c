// SPDX-License-Identifier: GPL-2.0
/*
 * The record of a thread: what it holds and has not open in its PKRU, by the domains' IDs.
 *
 * rights[base..nr_rights) is for the code that runs, what is below for the code that signals
 * interrupted, and for who waits for a call to return.  PKRU is about places, those of the EPT
 * that the thread is in; epk_context.place_ids says what each is a right to.  Nothing of the code
 * that runs is in the record that has its place in that EPT: what arrives there goes into PKRU.
 *
 * While a thread is "stashed", its PKRU is not its own: the kernel is about to load it, from a
 * signal frame for example.  Then nothing is concluded from it.
 *
 * A record is its thread's own, with interrupts off; of a thread that does not run it is
 * whose who has threads_lock.
 */
#include <linux/sched.h>
#include <linux/string.h>

/* Wants struct task_struct. */
#include <asm/fsgsbase.h>
#include <asm/pkru.h>

#include "module.h"
#include "trace.h"

/* The keys whose access @deny denies, one after the other; @deny is 0 afterwards. */
#define for_each_key(pkey, deny)						\
	for (; (deny) && ((pkey) = __ffs(deny) / 2, true); (deny) &= (deny) - 1)

/* What was interrupted first will hardly go on.  What waits for a call has its room. */
static bool forget_signal(struct epk_thread *thread)
{
	unsigned int n;

	for (n = 0; n < thread->nr_interrupted; n++) {
		if (thread->interrupted[n].call)
			continue;
		epk_record_forget(thread, n);
		return true;
	}
	return false;
}

static noinline void make_room(struct epk_thread *thread)
{
	while (thread->nr_rights == EPK_RIGHTS && forget_signal(thread))
		;
}

static __always_inline void right_add(struct epk_thread *thread, int id, bool read_only)
{
	int held = epk_record_find(thread, id);

	/* Begun again while its place was taken away, perhaps: it ends by one END. */
	if (unlikely(held >= 0)) {
		thread->rights[held].read_only &= read_only;
		return;
	}
	if (unlikely(thread->nr_rights == EPK_RIGHTS))
		make_room(thread);
	if (likely(thread->nr_rights < EPK_RIGHTS))
		thread->rights[thread->nr_rights++] = (struct epk_right) {
			.id = id, .read_only = read_only,
		};
}

static void right_drop(struct epk_thread *thread, unsigned int n)
{
	thread->rights[n] = thread->rights[--thread->nr_rights];
}

/* Behind the rights of an interrupted level. */
static unsigned int level_end(const struct epk_thread *thread, unsigned int level)
{
	return level + 1 < thread->nr_interrupted ? thread->interrupted[level + 1].base :
						    thread->base;
}

/* Keys that are open for no more than a domain's common right, which an access gives again. */
static u16 commons_in(const struct epk_thread *thread, u32 ept)
{
	return thread->commons_ept == ept ? thread->commons : 0;
}

/**
 * epk_record_nr_open() - how many domains a thread holds in its PKRU
 * @thread: its record
 * @pkru: its PKRU
 * @ept: its EPT
 */
unsigned int epk_record_nr_open(const struct epk_thread *thread, u32 pkru, u32 ept)
{
	u32 open = ~pkru & thread->ctx->pkru_deny;
	u16 commons = commons_in(thread, ept);

	for (; commons; commons &= commons - 1)
		open &= ~epk_pkru_deny(__ffs(commons));
	return hweight32(open);
}

/* Open keys of @pkru become rights by ID, those that are in @keys. */
static noinline u32 stash(struct epk_thread *thread, u32 pkru, u32 ept, u32 keys)
{
	u32 open = ~pkru & thread->ctx->pkru_deny;
	u16 commons = commons_in(thread, ept);
	unsigned int pkey;
	int id;

	for_each_key(pkey, open) {
		if (!(keys & BIT(pkey)))
			continue;
		id = READ_ONCE(thread->ctx->place_ids[ept][pkey]);
		if (id && !(commons & BIT(pkey)))
			right_add(thread, id, pkru >> (2 * pkey + 1) & 1);
		pkru |= epk_pkru_deny(pkey);
	}
	if (commons)
		thread->commons &= ~keys;
	return pkru;
}

/* Evicted, or on its way, perhaps from here to here. */
static noinline unsigned int key_unlisted(const struct epk_context *ctx, int id, u32 ept,
					  u16 leaving)
{
	const int *row = ctx->place_ids[ept];
	unsigned int pkey;

	for (pkey = EPK_NR_PKEYS - 1; id && pkey; pkey--) {
		if (READ_ONCE(row[pkey]) == id && !(leaving & BIT(pkey)))
			return pkey;
	}
	return 0;
}

/* By which key a domain is in an EPT; 0 if it is not there, or about to leave. */
static __always_inline unsigned int key_in(const struct epk_context *ctx, int id, u32 ept)
{
	/* Before the IDs: see places_clear(). */
	u16 leaving = smp_load_acquire(&ctx->leaving[ept]);
	struct epk_entry entry = epk_table_read(ctx, EPK_ID_INDEX(id));

	if (unlikely(!id || entry.id != id || !entry.pkey))
		return key_unlisted(ctx, id, ept, leaving);
	return epk_is_in(entry.ept, ept) && READ_ONCE(ctx->place_ids[ept][entry.pkey]) == id &&
	       !(leaving & BIT(entry.pkey)) ? entry.pkey : 0;
}

static u32 open_key(u32 pkru, unsigned int pkey, bool read_only)
{
	return (pkru & ~(3u << 2 * pkey)) | (read_only ? 2u << 2 * pkey : 0);
}

/*
 * Rights to what is in an EPT become open keys, or are only lent to the kernel: then those to private
 * domains are not among them.  No address that a program gives it may lead it into these, unless they
 * do so themselves.
 */
static __always_inline u32 open_keys(struct epk_thread *thread, u32 pkru, u32 ept, bool lent)
{
	unsigned int n = thread->base, pkey;

	while (n < thread->nr_rights) {
		pkey = key_in(thread->ctx, thread->rights[n].id, ept);
		if (lent && epk_table_is_private(thread->ctx, thread->rights[n].id))
			pkey = 0;
		if (pkey)
			pkru = open_key(pkru, pkey, thread->rights[n].read_only);
		if (pkey && !lent) {
			epk_record_hold(thread, ept, pkey);
			right_drop(thread, n);
		} else {
			n++;
		}
	}
	return pkru;
}

static __always_inline u32 unstash(struct epk_thread *thread, u32 pkru, u32 ept)
{
	return open_keys(thread, pkru, ept, false);
}

/*
 * Closed is access-disable alone; with write-disable it has its held bit, as have all closed keys
 * or none: the record holds something.
 */
static u32 set_held_bits(const struct epk_thread *thread, u32 pkru)
{
	u32 closed = (pkru & thread->ctx->pkru_deny) << 1;

	if (!thread->follows)
		return pkru;
	if (thread->joined)
		return pkru | closed;
	return thread->nr_rights > thread->base ? pkru | closed : pkru & ~closed;
}

/**
 * epk_record_uncommon() - close keys that are open for a common right
 * @thread: its record
 * @pkru: its PKRU
 * @ept: its EPT
 * @keys: which, in its commons_ept; if it is not there, they are closed already
 *
 * Context: interrupts off, and threads_lock unless it is current's.
 * Return: what PKRU has to be.
 */
u32 epk_record_uncommon(struct epk_thread *thread, u32 pkru, u32 ept, u16 keys)
{
	u32 open = ~pkru & thread->ctx->pkru_deny, was = pkru;
	u16 commons = commons_in(thread, ept) & keys;
	unsigned int pkey;

	thread->commons &= ~keys;
	for_each_key(pkey, open) {
		if (commons & BIT(pkey))
			pkru |= epk_pkru_deny(pkey);
	}
	if (pkru == was)
		return pkru;
	epk_table_count_revocation(thread->ctx);
	trace_epk_revoke(ept, pkru & ~was);
	return thread->stashed ? pkru : set_held_bits(thread, pkru);
}

/**
 * epk_record_settle() - have PKRU and record agree
 * @thread: its record
 * @pkru: its PKRU
 * @ept: its EPT
 *
 * Return: what PKRU has to be.
 */
u32 epk_record_settle(struct epk_thread *thread, u32 pkru, u32 ept)
{
	if (!thread->follows || thread->stashed)
		return pkru;
	return set_held_bits(thread, unstash(thread, pkru, ept));
}

/**
 * epk_record_open_key() - by which key current holds a domain in its PKRU
 * @thread: the record of current
 * @id: the domain
 *
 * Return: the key; 0 if it has none open, or for the common right.
 */
unsigned int epk_record_open_key(const struct epk_thread *thread, int id)
{
	const int *row = thread->ctx->place_ids[epk_current_ept()];
	u32 open = ~read_pkru() & thread->ctx->pkru_deny;
	u16 commons = commons_in(thread, epk_current_ept());
	unsigned int pkey;

	for_each_key(pkey, open) {
		if (READ_ONCE(row[pkey]) == id && !(commons & BIT(pkey)))
			return pkey;
	}
	return 0;
}

/**
 * epk_record_has_private() - does the code that runs, or would run now, hold a private domain
 * @thread: the record of current
 */
bool epk_record_has_private(const struct epk_thread *thread)
{
	const int *row = thread->ctx->place_ids[epk_current_ept()];
	u32 open = ~read_pkru() & thread->ctx->pkru_deny;
	unsigned int pkey, n;

	for_each_key(pkey, open) {
		if (epk_table_is_private(thread->ctx, READ_ONCE(row[pkey])))
			return true;
	}
	for (n = thread->base; n < thread->nr_rights; n++) {
		if (epk_table_is_private(thread->ctx, thread->rights[n].id))
			return true;
	}
	return false;
}

/**
 * epk_record_add() - let the code that runs hold a domain, to write
 * @thread: the record of current, stashed, with room for it
 * @id: the domain
 */
void epk_record_add(struct epk_thread *thread, int id)
{
	right_add(thread, id, false);
}

/**
 * epk_record_drop() - forget a right
 * @thread: the record of current
 * @n: where it is
 */
void epk_record_drop(struct epk_thread *thread, unsigned int n)
{
	right_drop(thread, n);
}

/**
 * epk_record_has_room() - is there room for what a thread has open, so that nobody loses any right
 * @thread: its record
 * @pkru: its PKRU
 * @ept: its EPT
 */
bool epk_record_has_room(const struct epk_thread *thread, u32 pkru, u32 ept)
{
	return thread->nr_rights + epk_record_nr_open(thread, pkru, ept) <= EPK_RIGHTS;
}

/**
 * epk_record_stash() - take all rights of a thread out of its PKRU
 * @thread: its record
 * @pkru: its PKRU
 * @ept: its EPT
 *
 * Return: PKRU without them.
 */
u32 epk_record_stash(struct epk_thread *thread, u32 pkru, u32 ept)
{
	bool known = thread->stashed || !(~pkru & thread->ctx->pkru_deny);

	thread->stashed = true;
	return known ? pkru | thread->ctx->pkru_deny : stash(thread, pkru, ept, ~0u);
}

/**
 * epk_record_lend() - what a stashed thread would have open
 * @thread: its record, stashed
 * @pkru: any PKRU
 * @ept: its EPT
 *
 * For what the kernel does in its name.
 *
 * Return: PKRU, which means nothing all the same.
 */
u32 epk_record_lend(struct epk_thread *thread, u32 pkru, u32 ept)
{
	return open_keys(thread, pkru | thread->ctx->pkru_deny, ept, true);
}

/**
 * epk_record_unstash() - the other way, as far as they are in an EPT
 * @thread: its record
 * @pkru: a PKRU without rights
 * @ept: the EPT that the thread is in now
 *
 * Return: PKRU with them.
 */
u32 epk_record_unstash(struct epk_thread *thread, u32 pkru, u32 ept)
{
	thread->stashed = false;
	pkru = unstash(thread, pkru, ept);
	if (!thread->follows)
		thread->nr_rights = thread->base;
	return set_held_bits(thread, pkru);
}

static bool right_leaves(struct epk_context *ctx, int id)
{
	const struct epk_domain *domain = epk_domain_peek(ctx, id);

	return domain && domain->leaves;
}

/* Is one of these rights to what ends? */
static bool have_ending(struct epk_thread *thread, unsigned int start, unsigned int end)
{
	while (start < end) {
		if (right_leaves(thread->ctx, thread->rights[start++].id))
			return true;
	}
	return false;
}

/*
 * Private domains end, and with them the stacks of code that holds one: whatever else it holds
 * would be held by who writes a stack there.
 */
static u32 levels_end(struct epk_thread *thread, u32 pkru, u32 ept)
{
	struct epk_context *ctx = thread->ctx;
	u32 open = ~pkru & ctx->pkru_deny;
	bool ending = have_ending(thread, thread->base, thread->nr_rights);
	unsigned int n, pkey, start, end;

	for (n = 0; n < thread->nr_interrupted; n++) {
		start = thread->interrupted[n].base;
		end = level_end(thread, n);
		if (have_ending(thread, start, end))
			memset(thread->rights + start, 0, (end - start) * sizeof(*thread->rights));
	}
	for_each_key(pkey, open)
		ending |= right_leaves(ctx, ctx->place_ids[ept][pkey]);
	if (!ending)
		return pkru;
	thread->nr_rights = thread->base;
	return pkru | ctx->pkru_deny;
}

/* Has it arrived in an EPT, so that who holds it opens its key? */
static bool is_in(const struct epk_context *ctx, const struct epk_domain *domain, u32 ept)
{
	return domain->pkey && epk_is_in(domain->ept, ept) && !(ctx->leaving[ept] & BIT(domain->pkey)) &&
	       ctx->place_ids[ept][domain->pkey] == domain->id;
}

/*
 * Domains that are gone, and whose IDs come again some day; domains that move, which who does
 * not follow loses; those that are where the thread is, for code that can open them.
 */
static u32 look_through(struct epk_thread *thread, u32 pkru, u32 ept, bool opens)
{
	struct epk_context *ctx = thread->ctx;
	struct epk_domain *domain;
	unsigned int n = 0;

	while (n < thread->nr_rights) {
		domain = epk_domain_peek(ctx, thread->rights[n].id);
		if (domain && ctx->asking)
			domain->asked = ctx->batch;
		if (domain && domain->moves && domain->pkey && n >= thread->base)
			ctx->arrive_due = true;
		if (domain && domain->moves && !thread->follows)
			domain = NULL;
		if (domain && domain->leaves)
			domain = NULL;
		if (domain && n >= thread->base && opens && is_in(ctx, domain, ept)) {
			pkru = open_key(pkru, domain->pkey, thread->rights[n].read_only);
			epk_record_hold(thread, ept, domain->pkey);
			domain = NULL;
		}
		if (!domain && n >= thread->base) {
			right_drop(thread, n);
			continue;
		}
		if (!domain)
			thread->rights[n].id = 0;
		n++;
	}
	return opens ? set_held_bits(thread, pkru) : pkru;
}

/**
 * epk_record_meet() - a thread meets a batch
 * @thread: its record
 * @pkru: its PKRU
 * @ept: its EPT
 * @later: nothing can be opened now
 *
 * Context: threads_lock.  The context is locked by who waits for this.
 * Return: what PKRU has to be.
 */
u32 epk_record_meet(struct epk_thread *thread, u32 pkru, u32 ept, bool later)
{
	struct epk_context *ctx = thread->ctx;
	u16 leaving = ctx->leaving[ept];
	unsigned int pkey;
	u32 was, open;

	/* What KVM has opened again is a right to nothing.  Away from the CPU it cannot. */
	pkru |= thread->undone;
	if (!later)
		thread->undone = 0;
	was = pkru;
	if (ctx->ending)
		pkru = levels_end(thread, pkru, ept);
	open = ~pkru & ctx->pkru_deny;

	/* A debugger may have it stashed in the middle of a gate. */
	if (thread->follows)
		epk_gates_restart(ctx, thread->task);
	if (thread->follows && !thread->stashed)
		pkru = stash(thread, pkru, ept, leaving);
	for_each_key(pkey, open) {
		if (ctx->asking)
			ctx->asked_open[ept] |= BIT(pkey);
		if (leaving & BIT(pkey))
			pkru |= epk_pkru_deny(pkey);
	}
	thread->commons &= ~ctx->leaving[thread->commons_ept];
	if (pkru != was) {
		epk_table_count_revocation(ctx);
		trace_epk_revoke(ept, pkru & ~was);
	}
	/* As epk_record_settle() does. */
	return look_through(thread, pkru, ept, thread->follows && !thread->stashed && !later);
}

/**
 * epk_record_interrupt() - what is held becomes what an interrupted level holds
 * @thread: the record of current, stashed, with room for it
 * @from: the level, but for @base
 */
void epk_record_interrupt(struct epk_thread *thread, const struct epk_interrupted *from)
{
	struct epk_interrupted *top = &thread->interrupted[thread->nr_interrupted++];

	*top = *from;
	top->base = thread->base;
	thread->base = thread->nr_rights;
}

/**
 * epk_record_handled() - what was interrupted by the signal whose handler runs
 * @thread: the record of current
 *
 * Return: the level, or NULL in other code, what a handler has called among it.
 */
const struct epk_interrupted *epk_record_handled(const struct epk_thread *thread)
{
	const struct epk_interrupted *top = thread->interrupted + thread->nr_interrupted - 1;

	return thread->nr_interrupted && !top->call ? top : NULL;
}

/**
 * epk_record_inherit() - let a handler hold what is held by the code that it interrupts
 * @thread: the record of current, which runs the handler: see epk_record_handled()
 * @id: the domain; nothing happens if that code does not hold it
 */
void epk_record_inherit(struct epk_thread *thread, int id)
{
	const struct epk_interrupted *from = &thread->interrupted[thread->nr_interrupted - 1];
	unsigned int n;

	for (n = from->base; n < thread->base; n++) {
		if (thread->rights[n].id == id) {
			right_add(thread, id, thread->rights[n].read_only);
			return;
		}
	}
}

/**
 * epk_record_may_call() - is there room for what a call puts aside
 * @thread: the record of current
 * @pkru: its PKRU
 * @sp: its stack pointer
 */
bool epk_record_may_call(const struct epk_thread *thread, u32 pkru, unsigned long sp)
{
	unsigned int rights = thread->nr_rights + epk_record_nr_open(thread, pkru, epk_current_ept());
	unsigned int n, calls = 0;

	for (n = 0; n < thread->nr_interrupted; n++)
		calls += thread->interrupted[n].call && thread->interrupted[n].sp != sp;
	return calls < EPK_CALLS_MAX && rights + EPK_RIGHTS_SPARE <= EPK_RIGHTS;
}

/**
 * epk_record_call() - put aside what is held until a call returns
 * @thread: the record of current, stashed; it may call
 * @ept: its EPT
 * @sp: its stack pointer
 */
void epk_record_call(struct epk_thread *thread, u32 ept, unsigned long sp)
{
	const struct epk_interrupted from = {
		.sp = sp, .ept = ept, .key0 = read_pkru() & EPK_KEY0, .call = true,
		.fs = x86_fsbase_read_cpu(),
	};
	int n;

	/* One that was made here was left by a jump: its frame is being written over. */
	while ((n = epk_record_find_call(thread, sp)) >= 0)
		epk_record_forget(thread, n);
	epk_record_interrupt(thread, &from);
}

/**
 * epk_record_find_call() - find the last call that was made with a stack pointer
 * @thread: the record of current
 * @sp: the stack pointer
 *
 * Return: its level, or -ENOENT.
 */
int epk_record_find_call(const struct epk_thread *thread, unsigned long sp)
{
	int n;

	for (n = thread->nr_interrupted - 1; n >= 0; n--) {
		if (thread->interrupted[n].call && thread->interrupted[n].sp == sp)
			return n;
	}
	return -ENOENT;
}

/* Does the handler run, as what has the stack of that call? */
static bool is_handler(const struct epk_interrupted *from, const struct epk_interrupted *call,
		       unsigned long sp)
{
	return from->frame >= call->low && from->frame < call->top && sp <= from->frame;
}

static bool catches(const struct epk_thread *thread, unsigned int level, unsigned long sp)
{
	const struct epk_interrupted *call = &thread->interrupted[level];
	unsigned int n;

	if (!call->top || sp < call->low || sp > call->top)
		return false;
	for (n = level + 1; n < thread->nr_interrupted; n++) {
		if (!thread->interrupted[n].call && is_handler(&thread->interrupted[n], call, sp))
			return false;
	}
	return true;
}

/**
 * epk_record_find_catch() - find the call that a fault of the code that runs leaves
 * @thread: the record of current
 * @sp: the stack pointer of that code
 *
 * Handlers that were left by a jump stay in the record: they are told by where their frames were.
 *
 * Return: its level, or -ENOENT.
 */
int epk_record_find_catch(const struct epk_thread *thread, unsigned long sp)
{
	int n;

	for (n = thread->nr_interrupted - 1; n >= 0 && !thread->interrupted[n].nothing; n--) {
		if (catches(thread, n, sp))
			return n;
	}
	return -ENOENT;
}

/**
 * epk_record_catch() - a call is left, but has not returned: nothing is held
 * @thread: the record of current, stashed
 * @level: its level
 */
void epk_record_catch(struct epk_thread *thread, unsigned int level)
{
	thread->base = level_end(thread, level);
	thread->nr_rights = thread->base;
	thread->nr_interrupted = level + 1;
	thread->interrupted[level].top = 0;
}

/**
 * epk_record_last_call() - find the last call that has not returned
 * @thread: the record of current
 *
 * Return: its level, or -EACCES.
 */
int epk_record_last_call(const struct epk_thread *thread)
{
	int n = thread->nr_interrupted;

	while (n-- > 0) {
		if (thread->interrupted[n].call)
			return n;
	}
	return -EACCES;
}

/**
 * epk_record_resume() - an interrupted level goes on; what those above it hold is lost
 * @thread: the record of current, stashed
 * @level: of its interrupted levels
 */
void epk_record_resume(struct epk_thread *thread, unsigned int level)
{
	thread->nr_rights = level_end(thread, level);
	thread->base = thread->interrupted[level].base;
	thread->nr_interrupted = level;
}

/**
 * epk_record_forget() - an interrupted level will not go on
 * @thread: the record of current
 * @level: of its interrupted levels
 */
void epk_record_forget(struct epk_thread *thread, unsigned int level)
{
	unsigned int start = thread->interrupted[level].base, end = level_end(thread, level), n;

	memmove(thread->rights + start, thread->rights + end,
		(thread->nr_rights - end) * sizeof(*thread->rights));
	for (n = level + 1; n < thread->nr_interrupted; n++) {
		thread->interrupted[n - 1] = thread->interrupted[n];
		thread->interrupted[n - 1].base -= end - start;
	}
	thread->nr_interrupted--;
	thread->base -= end - start;
	thread->nr_rights -= end - start;
}
