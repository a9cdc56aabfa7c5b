// SPDX-License-Identifier: GPL-2.0
/*
 * Accesses that the CPU refuses although the thread holds the domain: it is in another EPT than
 * that, or the domain is nowhere.  Here the kernel has found that there is no fault to handle,
 * holds no lock any more and is about to send a signal, or to let a copy of its own fail.
 * Instead the thread goes where the domain is, or the domain comes, and the access is tried
 * again.
 *
 * A handler whose frame the kernel has written to a domain, because the interrupted code has its
 * stack there, holds that domain when it first wants it, be it its own first push, the frame of the
 * next signal, or its return.  No frame is in a private domain.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/jhash.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/uaccess.h>

#include <asm/pkru.h>
#include <asm/trap_pf.h>

#include "module.h"
#include "guard.h"
#include "hook.h"
#include "mapping.h"
#include "trace.h"

/*
 * One access that is refused so often in a row, with nothing in its way, never succeeds; nor does
 * one instruction that has been brought domains so often in turns.
 */
#define SAME_MOST	1000
/* After how many returns to a domain it comes where the others are. */
#define RETURNS_MOST	5

/* What is accessed. */
struct access {
	const struct pt_regs *regs;
	unsigned long addr;
	bool write;
};

static bool was_among(const struct epk_faults *faults, int id)
{
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(faults->recent); n++) {
		if (faults->recent[n].id == id)
			return true;
	}
	return false;
}

/* Do its accesses go to and fro, or does one instruction want two domains? */
static bool wants_both(struct epk_faults *faults, const struct access *access,
		       const struct epk_accessed *to)
{
	bool same = to->id == faults->recent[0].id, again = same || was_among(faults, to->id);
	bool both = again && access->regs->ip == faults->ip && !same;

	faults->ip = access->regs->ip;
	faults->returns = again && !same ? faults->returns + 1 : 0;
	if (!same)
		memmove(faults->recent + 1, faults->recent,
			sizeof(faults->recent) - sizeof(faults->recent[0]));
	faults->recent[0] = *to;
	if (!both && faults->returns < RETURNS_MOST)
		return false;
	faults->returns = 0;
	return true;
}

/* Has nothing happened to the thread since it was refused this for no reason, again and again? */
static bool is_hopeless(struct epk_thread *thread, const struct access *access)
{
	struct epk_faults *faults = &thread->faults;

	faults->same = access->regs->ip == faults->same_ip && access->addr == faults->addr &&
		       thread->seen == faults->seen ? faults->same + 1 : 0;
	faults->same_ip = access->regs->ip;
	faults->addr = access->addr;
	faults->seen = thread->seen;
	return faults->same > SAME_MOST;
}

/*
 * What the kernel begins anew until it has found all words where they are to be: futex() on two,
 * futex_waitv(), in each ABI.  No other call is of one of these numbers and wants so much.
 */
static bool in_futex(const struct pt_regs *regs)
{
	switch (regs->orig_ax & 0xffff) {
	case 202:
	case 240:
	case 422:
	case 449:
		return true;
	}
	return false;
}

/*
 * Does one instruction want domains that cannot be together, and drive each other out: of one key,
 * or of memory that one window cannot show?  Whatever gets on changes a register, but for an
 * instruction that wants many, one after the other.  A futex call is such an instruction.
 */
static bool is_torn(struct epk_faults *faults, const struct access *access, int id)
{
	const struct pt_regs *user = task_pt_regs(current);
	const struct pt_regs *regs = in_futex(user) ? user : access->regs;
	u32 hash = jhash(regs, offsetof(struct pt_regs, orig_ax), regs->ip);

	if (hash != faults->hash)
		faults->brought = 0;
	else if (id != faults->last)
		faults->brought++;
	faults->hash = hash;
	faults->last = id;
	if (faults->brought <= SAME_MOST)
		return false;
	/* Who handles the signal may have made room. */
	faults->brought = 0;
	return true;
}

/*
 * NOWHERE: refused, and the domain has no place, or none that is of use.  JOIN: the thread needs a
 * record before it can be answered.
 */
enum answer { REFUSED, NOWHERE, REACHED, BRING_IN, BRING_HERE, JOIN };

static bool lies_in(int id, unsigned long addr)
{
	return epk_mapping_id_at(current->mm, addr) == id;
}

/* What is wanted may be the stack of the handler that runs: not only its frame has to lie there. */
static void inherit(struct epk_thread *thread, int id, bool write)
{
	unsigned long sp = thread->stashed ? thread->stack : task_pt_regs(current)->sp;
	const struct epk_interrupted *from = epk_record_handled(thread);

	if (!from || epk_rights_hold(thread, id, write) || !lies_in(id, from->frame))
		return;
	if (!lies_in(id, sp))
		return;
	epk_record_inherit(thread, id);
	write_pkru(epk_record_settle(thread, read_pkru(), epk_current_ept()));
}

/*
 * The thread goes where the domain is, if it holds it; or the domain comes to it.  Interrupts are
 * off, so that nobody has the domain's place before the thread has lost its right to that.
 */
static enum answer go_there(struct epk_thread *thread, const struct access *access,
			    const struct epk_accessed *to, u32 ept, u8 pkey)
{
	int n = epk_record_find(thread, to->id);

	if (n < 0 || ept == epk_current_ept() || !epk_record_allows(thread, n, access->write))
		return epk_rights_reach(thread, to->id, ept, pkey, access->write) ? REACHED : REFUSED;
	if (wants_both(&thread->faults, access, to))
		return is_torn(&thread->faults, access, to->id) ? NOWHERE : BRING_HERE;
	if (thread->stashed)
		return epk_rights_reach(thread, to->id, ept, pkey, access->write) ? REACHED : REFUSED;
	return epk_rights_go(thread, ept) ? REFUSED : REACHED;
}

/* The same for who does not hold the domain, and may do this all the same, as everybody may. */
static enum answer go_common(struct epk_thread *thread, const struct access *access,
			     const struct epk_accessed *to, u32 ept, u8 pkey, int prot)
{
	if (ept != epk_current_ept() && wants_both(&thread->faults, access, to))
		return is_torn(&thread->faults, access, to->id) ? NOWHERE : BRING_HERE;
	return epk_common_open(thread, to->id, ept, pkey, prot) ? REACHED : REFUSED;
}

/* No thread of the program's, or none any more. */
static bool is_none(void)
{
	return current->flags & (PF_KTHREAD | PF_IO_WORKER | EPK_PF_USER_WORKER | PF_EXITING);
}

/* What may be done with it without being held, if that is enough and is what counts. */
static int common_prot(const struct epk_thread *thread, const struct epk_mapping *mapping,
		       bool write)
{
	int prot = epk_common_prot(mapping->ctx, mapping->id);

	if (!(prot & (write ? PROT_WRITE : PROT_READ)) || is_none())
		return 0;
	return thread && (thread->stashed || epk_held_prot(thread, mapping->id)) ? 0 : prot;
}

/* What an access wants. */
struct wanted {
	struct epk_context *ctx;
	int id;
	u32 here;
	struct file *file;
};

/* Interrupts are off, and the mmap lock is held. */
static enum answer look(const struct vm_area_struct *vma, const struct access *access,
			struct wanted *wanted)
{
	const struct epk_mapping *mapping = vma->vm_private_data;
	const struct epk_accessed to = { mapping->id, vma->vm_start, vma->vm_end };
	struct epk_thread *thread = epk_thread_find(current);
	u32 here = epk_current_ept(), pkru = read_pkru(), ept = mapping->ept;
	enum answer answer;
	int common;

	if (ept == EPK_EPT_ALL)
		ept = here;

	if (mapping->dead)
		return REFUSED;
	*wanted = (struct wanted) { mapping->ctx, mapping->id, here };
	if (!thread || !thread->follows || thread->ctx != mapping->ctx) {
		if (!(thread && thread->ctx != mapping->ctx) &&
		    common_prot(NULL, mapping, access->write)) {
			wanted->file = get_file(epk_file_device(vma->vm_file));
			return JOIN;
		}
		return ept == EPK_EPT_NONE ? NOWHERE : REFUSED;
	}
	inherit(thread, mapping->id, access->write);
	common = common_prot(thread, mapping, access->write);
	if (ept == EPK_EPT_NONE)
		return (epk_record_find(thread, mapping->id) < 0 && !common) ||
		       is_torn(&thread->faults, access, mapping->id) ? NOWHERE : BRING_IN;
	if (common)
		answer = go_common(thread, access, &to, ept, vma_pkey((void *)vma), common);
	else
		answer = go_there(thread, access, &to, ept, vma_pkey((void *)vma));
	if (answer == REACHED && ept == here && read_pkru() == pkru && is_hopeless(thread, access))
		return REFUSED;
	return answer;
}

static enum answer look_up(const struct access *access, struct wanted *wanted)
{
	struct mm_struct *mm = current->mm;
	enum answer answer = REFUSED;
	struct vm_area_struct *vma;

	if (mmap_read_lock_killable(mm))
		return REFUSED;
	vma = find_vma(mm, access->addr);
	if (vma && vma->vm_start <= access->addr && vma_has_mapping(vma)) {
		local_irq_disable();
		answer = look(vma, access, wanted);
		local_irq_enable();
	}
	mmap_read_unlock(mm);
	return answer;
}

static const struct epk_accessed *recent_find(const struct epk_faults *faults, unsigned long addr)
{
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(faults->recent); n++) {
		if (addr >= faults->recent[n].start && addr < faults->recent[n].end)
			return &faults->recent[n];
	}
	return NULL;
}

/*
 * Most accesses go where one went before.  What is remembered of that may be untrue by now: then
 * the thread goes where it could go anyway, is refused there as well, and is looked at in full.
 * Interrupts are off.
 */
static enum answer go_again(const struct access *access, struct wanted *wanted)
{
	struct epk_thread *thread = epk_thread_find(current);
	const struct epk_accessed *known;
	struct epk_accessed to;
	struct epk_entry entry;

	if (!thread || !thread->follows || thread->stashed || thread->ctx->mm != current->mm)
		return REFUSED;
	known = recent_find(&thread->faults, access->addr);
	if (!known)
		return REFUSED;
	to = *known;
	entry = epk_table_read(thread->ctx, EPK_ID_INDEX(to.id));
	*wanted = (struct wanted) { thread->ctx, to.id, epk_current_ept() };
	if (entry.id != to.id || !entry.pkey || epk_is_in(entry.ept, wanted->here))
		return REFUSED;
	return go_there(thread, access, &to, entry.ept, entry.pkey);
}

/* REACHED: the access is to be tried again; or why not. */
static enum answer resolve(const struct access *access)
{
	struct wanted wanted = { };
	enum answer answer;

	local_irq_disable();
	answer = go_again(access, &wanted);
	local_irq_enable();
	if (answer == REFUSED)
		answer = look_up(access, &wanted);

	if (answer == JOIN) {
		answer = epk_thread_register(wanted.file, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS |
					     EPK_THREAD_JOINS) ? REFUSED : REACHED;
		fput(wanted.file);
	}
	/* The context is that of current's record, and stays. */
	if (answer == BRING_IN)
		return epk_admit(wanted.ctx, wanted.id, EPK_EPT_ANY) ? NOWHERE : REACHED;
	if (answer == BRING_HERE) {
		epk_admit(wanted.ctx, wanted.id, wanted.here);
		/* If it cannot come, the next access goes there. */
		return REACHED;
	}
	return answer;
}

static void gates_restart(void)
{
	struct epk_thread *thread;

	local_irq_disable();
	thread = epk_thread_find(current);
	if (thread)
		epk_gates_restart(thread->ctx, current);
	local_irq_enable();
}

/* Of a system call the instruction is where the program has made it. */
static void tell_refused(const struct access *access)
{
	int id;

	if (mmap_read_lock_killable(current->mm))
		return;
	id = epk_mapping_id_at(current->mm, access->addr);
	mmap_read_unlock(current->mm);
	if (id)
		trace_epk_refused(id, access->addr, task_pt_regs(current)->ip, access->write);
}

typedef void (*bad_area_fn)(struct pt_regs *regs, unsigned long error_code, unsigned long addr,
			    u32 pkey, int si_code);

static void guarded_bad_area(struct pt_regs *regs, unsigned long error_code, unsigned long addr,
			     u32 pkey, int si_code);

/*
 * Not for what interrupts or NMIs do in its name.  Each thread of a process with domains has a
 * record or the node of the unregistered.
 */
static void notrace before_bad_area(struct epk_hook *hook, struct ftrace_regs *fregs)
{
	struct pt_regs *regs = (struct pt_regs *)epk_hook_regs(fregs)->di;

	if (!current->mm || hlist_empty(&current->preempt_notifiers) || in_nmi())
		return;
	if (user_mode(regs) || regs->flags & X86_EFLAGS_IF)
		epk_hook_divert(fregs, guarded_bad_area);
}

static struct epk_hook fault_hooks[] = {
	{ .symbol = "__bad_area_nosemaphore", .before = before_bad_area },
};

static void guarded_bad_area(struct pt_regs *regs, unsigned long error_code, unsigned long addr,
			     u32 pkey, int si_code)
{
	struct access access = {
		.regs = regs, .addr = addr, .write = error_code & X86_PF_WRITE,
	};
	struct epk_trap trap = {
		.sig = SIGSEGV, .addr = addr, .prot = epk_trap_prot(error_code),
	};
	bool may_sleep = !(faulthandler_disabled() || irqs_disabled());
	/* In user mode it ends anyway. */
	bool dies = !user_mode(regs) && fatal_signal_pending(current);
	enum answer answer = REFUSED;

	epk_hook_enter();
	if (may_sleep && !dies && addr < TASK_SIZE && !(error_code & X86_PF_INSTR) &&
	    (si_code == SEGV_PKUERR || si_code == SEGV_MAPERR))
		answer = resolve(&access);
	/* It is elsewhere now. */
	if (answer == REACHED && user_mode(regs))
		gates_restart();
	/* One kind of violation, wherever the domain is. */
	if (answer == NOWHERE)
		si_code = SEGV_PKUERR;
	if (answer != REACHED && may_sleep && !dies && trace_epk_refused_enabled())
		tell_refused(&access);
	trap.code = si_code;
	if (answer != REACHED && error_code & X86_PF_USER && epk_trap_leave(regs, &trap))
		answer = REACHED;
	if (answer != REACHED)
		epk_hook_original(&fault_hooks[0], bad_area_fn)(regs, error_code, addr, pkey,
								si_code);
	epk_hook_leave();
}

int __init epk_guard_fault_init(void)
{
	return epk_hooks_add(fault_hooks, ARRAY_SIZE(fault_hooks));
}
