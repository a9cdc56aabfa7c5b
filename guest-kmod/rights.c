// SPDX-License-Identifier: GPL-2.0
/*
 * Beginning and ending domains, and calls, for threads that hold domains in any EPT, where the
 * process cannot do it by itself.  A thread goes to the EPT of the domain that it begins, or accesses;
 * what it has open in the one that it leaves goes into its record, and what its record has for
 * the other becomes open there.
 */
#include <linux/fs.h>
#include <linux/mman.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>

#include <asm/fsgsbase.h>
#include <asm/pkru.h>

#include "module.h"
#include "mapping.h"

/* Rounds in which others can take a domain's place away again. */
#define ADMIT_TRIES	64

/*
 * Go to an EPT with all that is held there.  No key is open in between.  Bits of PKRU change when
 * that is done: those of a domain that is begun.
 */
static __always_inline int go(struct epk_thread *thread, u32 ept, u32 allow, u32 deny)
{
	u32 from = epk_current_ept(), pkru = read_pkru();

	if (ept == from) {
		write_pkru((epk_record_settle(thread, pkru, ept) & ~allow) | deny);
		return 0;
	}
	pkru = epk_record_stash(thread, pkru, from);
	write_pkru(pkru);
	if (!epk_vmfunc(ept)) {
		write_pkru(epk_record_unstash(thread, pkru, from));
		return -EIO;
	}
	write_pkru((epk_record_unstash(thread, pkru, ept) & ~allow) | deny);
	return 0;
}

static unsigned int nr_held(const struct epk_thread *thread)
{
	return thread->nr_rights - thread->base +
	       epk_record_nr_open(thread, read_pkru(), epk_current_ept());
}

/* All that is held is put aside but @kept, and what is in an EPT can be held alone. */
static noinline int call(struct epk_thread *thread, u32 ept, unsigned long sp, int kept)
{
	u32 from = epk_current_ept();

	write_pkru(epk_record_stash(thread, read_pkru(), from));
	if (ept != from && !epk_vmfunc(ept)) {
		write_pkru(epk_record_unstash(thread, read_pkru(), from));
		return -EIO;
	}
	epk_record_call(thread, from, sp);
	if (kept)
		epk_record_add(thread, kept);
	write_pkru(epk_record_unstash(thread, read_pkru(), ept));
	return 0;
}

/* A batch that takes the place away waits for this CPU. */
static __always_inline bool is_placed(const struct epk_context *ctx, struct epk_entry entry)
{
	return entry.pkey && READ_ONCE(ctx->place_ids[entry.ept][entry.pkey]) == entry.id;
}

/* What is everywhere is where current is.  Interrupts are off. */
static __always_inline struct epk_entry where(const struct epk_context *ctx, int id)
{
	struct epk_entry entry = epk_table_read(ctx, EPK_ID_INDEX(id));

	if (unlikely(entry.ept == EPK_EPT_ALL))
		entry.ept = epk_current_ept();
	return entry;
}

/*
 * Nobody is registered, and loses what is open by hand, for what fails.  -ESRCH once there is no more
 * to be asked.
 */
static noinline int first_begin(struct epk_context *ctx, const struct epk_thread *thread, int id, bool calls)
{
	struct epk_entry entry = where(ctx, id);

	if (thread && thread->ctx != ctx)
		return -ENXIO;
	if (entry.id != id)
		return -ENOENT;
	if (epk_table_is_private(ctx, id))
		return -EPERM;
	if (thread && calls && !epk_record_may_call(thread, read_pkru(), task_pt_regs(current)->sp))
		return -EMFILE;
	return is_placed(ctx, entry) ? -ESRCH : -EAGAIN;
}

/* Interrupts are off.  -EAGAIN if it has no place, or is on its way to one; see first_begin(). */
static int begin(struct epk_context *ctx, int id, int prot, bool calls)
{
	unsigned long sp = task_pt_regs(current)->sp;
	struct epk_thread *thread = epk_thread_find(current);
	struct epk_entry entry = where(ctx, id);
	u32 deny, allow;
	bool elsewhere;
	int held, ret;

	if (!thread || !thread->follows || thread->joined)
		return first_begin(ctx, thread, id, calls);
	if (thread->ctx != ctx)
		return -ENXIO;
	if (entry.id != id)
		return -ENOENT;
	if (epk_table_is_private(ctx, id))
		return -EPERM;
	/* Its key can be open only where tables show it. */
	elsewhere = entry.pkey && entry.ept != epk_current_ept();
	held = calls ? 0 : elsewhere ? epk_record_prot(thread, id) : epk_held_prot(thread, id);
	if (held && !(prot & ~held))
		return -EALREADY;
	if (calls ? !epk_record_may_call(thread, read_pkru(), sp) :
		    !held && nr_held(thread) >= EPK_HELD_MAX)
		return -EMFILE;
	if (!is_placed(ctx, entry))
		return -EAGAIN;
	allow = 3u << 2 * entry.pkey;
	deny = prot & PROT_WRITE ? 0 : 2u << 2 * entry.pkey;
	if (!calls) {
		ret = go(thread, entry.ept, allow, deny);
		if (!ret)
			epk_record_hold(thread, entry.ept, entry.pkey);
		return ret ? ret : held != 0;
	}
	ret = call(thread, entry.ept, sp, 0);
	if (ret)
		return ret;
	write_pkru((read_pkru() & ~allow) | deny);
	epk_record_hold(thread, entry.ept, entry.pkey);
	return 0;
}

/* The private domain in which current has its stack and which it holds, or 0; or -EINTR. */
static int private_stack(struct epk_context *ctx)
{
	int id;

	if (!READ_ONCE(ctx->nr_private))
		return 0;
	if (mmap_read_lock_killable(ctx->mm))
		return -EINTR;
	id = epk_mapping_id_at(ctx->mm, task_pt_regs(current)->sp);
	mmap_read_unlock(ctx->mm);
	return epk_table_is_private(ctx, id) && epk_rights_may_shape(ctx, id) ? id : 0;
}

/**
 * epk_rights_begin() - let current hold a domain
 * @file: an open /dev/epk of current's address space, ready
 * @id: the domain
 * @prot: PROT_READ, perhaps with PROT_WRITE
 * @call: hold that alone, until epk_rights_return()
 *
 * Return: see EPK_BEGIN(), EPK_CALLS_MAX; -EIO if its EPT is gone.
 */
int epk_rights_begin(struct file *file, int id, int prot, bool call)
{
	struct epk_context *ctx = file->private_data;
	int ret, tries;

	if (prot & PROT_WRITE)
		prot |= PROT_READ;
	if (id <= 0)
		return -ENOENT;
	if (prot != PROT_READ && prot != (PROT_READ | PROT_WRITE))
		return -EINVAL;
	/* The caller's stack would be out of reach. */
	ret = call ? private_stack(ctx) : 0;
	if (ret)
		return ret < 0 ? ret : -EPERM;
	for (tries = 0; tries < ADMIT_TRIES; tries++) {
		local_irq_disable();
		ret = begin(ctx, id, prot, call);
		local_irq_enable();
		if (ret == -ESRCH)
			ret = epk_thread_register(file, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS);
		else if (ret == -EAGAIN)
			ret = epk_admit(ctx, id, EPK_EPT_ANY);
		else
			return ret;
		if (ret)
			return ret;
	}
	return -ENOSPC;
}

/**
 * epk_rights_call_nothing() - let current hold nothing until epk_rights_return()
 * @ctx: the context of current->mm
 *
 * But a private domain in which it has its stack.
 *
 * Return: 0; see EPK_CALLS_MAX.
 */
int epk_rights_call_nothing(struct epk_context *ctx)
{
	unsigned long sp = task_pt_regs(current)->sp;
	struct epk_thread *thread;
	int ret, kept = private_stack(ctx);

	if (kept < 0)
		return kept;
	local_irq_disable();
	thread = epk_thread_find(current);
	/* It may have lost it just now. */
	if (kept && !epk_rights_hold(thread, kept, true))
		kept = 0;
	if (!thread || !thread->follows)
		ret = -ESRCH;
	else if (thread->ctx != ctx)
		ret = -ENXIO;
	else if (!epk_record_may_call(thread, read_pkru(), sp))
		ret = -EMFILE;
	else
		ret = call(thread, epk_current_ept(), sp, kept);
	if (!ret)
		thread->interrupted[thread->nr_interrupted - 1].nothing = true;
	local_irq_enable();
	return ret;
}

/**
 * epk_rights_call_caught() - let current hold a domain alone, and go on here if it faults
 * @file: an open /dev/epk of current's address space, ready
 * @req: the domain and a stack
 *
 * Return: see struct epk_catch.
 */
int epk_rights_call_caught(struct file *file, const struct epk_catch *req)
{
	const struct epk_context *ctx = file->private_data;
	struct epk_interrupted *made;
	struct epk_thread *thread;
	int ret;

	/* Pairs with epk_gates_set(). */
	if (req->flags & ~EPK_CATCH_TELLS || !smp_load_acquire(&ctx->nr_gates) || !ctx->caught)
		return -EINVAL;
	ret = epk_rights_begin(file, req->id, PROT_READ | PROT_WRITE, true);
	if (ret)
		return ret;
	local_irq_disable();
	thread = epk_thread_find(current);
	made = &thread->interrupted[thread->nr_interrupted - 1];
	made->low = req->low;
	made->top = req->top;
	made->tells = req->flags & EPK_CATCH_TELLS;
	local_irq_enable();
	return 0;
}

/**
 * epk_rights_catch() - let current go on where it has called what faults
 * @thread: the record of current
 * @regs: its registers
 * @trap: what it has done, for who wants to be told
 *
 * It has no right when it does, and cannot have written to where its stack pointer is kept.
 *
 * Context: interrupts off.
 * Return: false if nobody has called it so.
 */
bool epk_rights_catch(struct epk_thread *thread, struct pt_regs *regs, const struct epk_trap *trap)
{
	int level = epk_record_find_catch(thread, regs->sp);

	if (level < 0 || epk_rights_confined(thread, level))
		return false;
	if (thread->interrupted[level].tells) {
		regs->di = regs->ip;
		regs->si = trap->addr;
		regs->dx = (unsigned long)(u32)trap->code << 32 | trap->prot << 8 | trap->sig;
	}
	regs->sp = thread->interrupted[level].sp;
	regs->ip = thread->ctx->caught;
	thread->stashed = true;
	epk_record_catch(thread, level);
	write_pkru(read_pkru() | thread->ctx->pkru_deny);
	write_pkru(epk_record_unstash(thread, read_pkru(), epk_current_ept()));
	return true;
}

/* Interrupts are off. */
static int end(struct epk_context *ctx, int id)
{
	struct epk_thread *thread = epk_thread_find(current);
	unsigned int pkey;
	int n;

	if (!thread || !thread->follows)
		return -EACCES;
	if (thread->ctx != ctx)
		return -ENXIO;
	pkey = epk_record_open_key(thread, id);
	n = epk_record_find(thread, id);
	if (id <= 0 || (!pkey && n < 0))
		return -EACCES;
	if (n >= 0)
		epk_record_drop(thread, n);
	if (pkey)
		write_pkru(read_pkru() | epk_pkru_deny(pkey));
	write_pkru(epk_record_settle(thread, read_pkru(), epk_current_ept()));
	return 0;
}

/**
 * epk_rights_end() - let current hold a domain no longer
 * @ctx: the context of current->mm
 * @id: the domain
 *
 * Return: 0, -EACCES, -ENXIO.
 */
int epk_rights_end(struct epk_context *ctx, int id)
{
	int ret;

	local_irq_disable();
	ret = end(ctx, id);
	local_irq_enable();
	return ret;
}

/**
 * epk_rights_confined() - is current confined, and who has put something aside not
 * @thread: the record of current
 * @level: what was put aside
 *
 * Gates are not confined any more when they return.  Who is goes on as nobody else: where, it
 * says itself.
 *
 * Context: interrupts off.
 */
bool epk_rights_confined(const struct epk_thread *thread, int level)
{
	return read_pkru() & EPK_KEY0 & ~thread->interrupted[level].key0;
}

/**
 * epk_rights_resume() - what was put aside is held again, and nothing of what is held now
 * @thread: the record of current
 * @level: what was put aside, or negative: then nothing is, neither now nor later
 *
 * Key 0, and if that was write-disabled the FS base, become what they were with that, or stay as they are.
 *
 * Context: interrupts off.
 */
void epk_rights_resume(struct epk_thread *thread, int level)
{
	u32 ept = 0, key0 = read_pkru() & EPK_KEY0;

	thread->stashed = true;
	if (level >= 0) {
		ept = thread->interrupted[level].ept;
		key0 = thread->interrupted[level].key0;
		if (key0)
			x86_fsbase_write_cpu(thread->interrupted[level].fs);
		epk_record_resume(thread, level);
	} else {
		thread->nr_interrupted = 0;
		thread->nr_rights = 0;
		thread->base = 0;
	}
	write_pkru((read_pkru() & ~EPK_KEY0) | key0);
	write_pkru(read_pkru() | thread->ctx->pkru_deny);
	if (epk_current_ept() != ept && !epk_vmfunc(ept))
		epk_vmfunc(0);
	write_pkru(epk_record_unstash(thread, read_pkru(), epk_current_ept()));
}

/**
 * epk_rights_return() - let current hold what it held before a call
 * @ctx: the context of current->mm
 *
 * Return: 0, -EACCES, -ENXIO.
 */
int epk_rights_return(struct epk_context *ctx)
{
	struct epk_thread *thread;
	int level = -EACCES;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (thread && thread->ctx != ctx) {
		local_irq_enable();
		return -ENXIO;
	}
	if (thread) {
		level = epk_record_find_call(thread, task_pt_regs(current)->sp);
		if (level >= 0 && epk_rights_confined(thread, level))
			level = -EACCES;
		epk_rights_resume(thread, level);
	} else {
		write_pkru(read_pkru() | epk_context_pkru_closed(current->mm));
		if (epk_current_ept())
			epk_vmfunc(0);
	}
	local_irq_enable();
	return level < 0 ? -EACCES : 0;
}

/**
 * epk_rights_forget_call() - let current hold nothing, and a call not return
 * @ctx: the context of current->mm
 * @sp: the stack pointer that it was made with; 0: the last of all
 *
 * Return: 0, -EACCES, -ENXIO, where nothing has changed.
 */
int epk_rights_forget_call(struct epk_context *ctx, unsigned long sp)
{
	struct epk_thread *thread;
	unsigned long fs;
	int level = -EACCES;
	u32 key0;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (thread && thread->ctx != ctx)
		level = -ENXIO;
	else if (thread)
		level = sp ? epk_record_find_call(thread, sp) : epk_record_last_call(thread);
	if (level >= 0) {
		/* Who called may be confined, or not: it does not go on. */
		key0 = read_pkru() & EPK_KEY0;
		fs = x86_fsbase_read_cpu();
		epk_rights_resume(thread, level);
		x86_fsbase_write_cpu(fs);
		epk_record_stash(thread, read_pkru(), epk_current_ept());
		thread->nr_rights = thread->base;
		write_pkru(epk_record_unstash(thread, (read_pkru() & ~EPK_KEY0) | key0 |
						      thread->ctx->pkru_deny, epk_current_ept()));
	}
	local_irq_enable();
	return level == -ENOENT ? -EACCES : min(level, 0);
}

/* In the middle of a signal PKRU is only lent, and the EPT is nobody's. */
static bool lend(struct epk_thread *thread, int id, u32 ept)
{
	if (ept != epk_current_ept()) {
		if (epk_record_find(thread, id) < 0)
			return false;
		write_pkru(read_pkru() | thread->ctx->pkru_deny);
		if (!epk_vmfunc(ept))
			return false;
	}
	write_pkru(epk_record_lend(thread, read_pkru(), ept));
	return true;
}

/**
 * epk_rights_go() - have current in an EPT, with all that it holds there
 * @thread: the record of current, not stashed
 * @ept: the EPT
 *
 * Context: interrupts off.
 * Return: 0, -EIO if it cannot go there.
 */
int epk_rights_go(struct epk_thread *thread, u32 ept)
{
	/* In another EPT the PKRU that KVM gives back is a right to other domains. */
	return epk_thread_runs_vcpu(current) ? -EIO : go(thread, ept, 0, 0);
}

/**
 * epk_rights_reach() - make an access of current possible that it has a right to
 * @thread: the record of current
 * @id: the domain
 * @ept: where it is; if it can leave, because the mmap lock is not held,
 * @pkey: the access may be refused again
 * @write: to write, else to read
 *
 * Context: interrupts off.
 * Return: true if it is possible now.
 */
bool epk_rights_reach(struct epk_thread *thread, int id, u32 ept, u8 pkey, bool write)
{
	int n;

	if (thread->stashed)
		return lend(thread, id, ept) && epk_pkru_allows(read_pkru(), pkey, write);
	if (ept == epk_current_ept() && epk_pkru_allows(read_pkru(), pkey, write))
		return true;
	n = epk_record_find(thread, id);
	return n >= 0 && epk_record_allows(thread, n, write) && !epk_rights_go(thread, ept);
}
