// SPDX-License-Identifier: GPL-2.0
/*
 * Gates: code of the process that reads from the table where a domain is, and opens its key.
 * The kernel restarts it, as it does restartable sequences, where what it has read may be old.
 */
#include <linux/mm.h>
#include <linux/ptrace.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>

#include "module.h"

/* Not one byte of it is the program's to change.  The mmap lock is held. */
static bool is_text(struct mm_struct *mm, u64 start, u64 end)
{
	struct vm_area_struct *vma;

	if (start >= end || end > TASK_SIZE)
		return false;
	for (; start < end; start = vma->vm_end) {
		vma = find_vma(mm, start);
		if (!vma || vma->vm_start > start ||
		    (vma->vm_flags & (VM_EXEC | VM_WRITE)) != VM_EXEC)
			return false;
	}
	return true;
}

static int gates_check(struct mm_struct *mm, const struct epk_gates *req,
		       const struct epk_gate *gates)
{
	unsigned int n;
	int ret = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for (n = 0; n < req->num && !ret; n++) {
		if (!is_text(mm, gates[n].start, gates[n].end) ||
		    (gates[n].restart && !is_text(mm, gates[n].restart, gates[n].restart + 1)))
			ret = -EINVAL;
	}
	if ((req->fault && !is_text(mm, req->fault, req->fault + 1)) ||
	    (req->caught && !is_text(mm, req->caught, req->caught + 1)))
		ret = -EINVAL;
	mmap_read_unlock(mm);
	return ret;
}

/**
 * epk_gates_set() - say where the gates of a process are
 * @ctx: the context of current->mm
 * @req: how many, 1 to EPK_GATES_MAX, and what else it says
 * @gates: the gates
 *
 * Return: see struct epk_gates.
 */
int epk_gates_set(struct epk_context *ctx, const struct epk_gates *req,
		  const struct epk_gate *gates)
{
	int ret = gates_check(ctx->mm, req, gates);
	unsigned int n;

	if (ret)
		return ret;
	mutex_lock(&ctx->lock);
	if (ctx->nr_gates) {
		ret = -EBUSY;
	} else {
		memcpy(ctx->gates, gates, req->num * sizeof(*gates));
		ctx->gates_start = U64_MAX;
		ctx->gates_end = 0;
		for (n = 0; n < req->num; n++) {
			ctx->gates_start = min(ctx->gates_start, gates[n].start);
			ctx->gates_end = max(ctx->gates_end, gates[n].end);
		}
		ctx->fault = req->fault;
		ctx->caught = req->caught;
		ctx->stack = req->stack;
		/* Pairs with gate_find(), and with whoever reads these. */
		smp_store_release(&ctx->nr_gates, req->num);
	}
	mutex_unlock(&ctx->lock);
	return ret;
}

/* The gate of a kind that an instruction is in, or NULL. */
static const struct epk_gate *gate_find(const struct epk_context *ctx, unsigned long ip,
					bool restarted)
{
	/* Pairs with epk_gates_set(). */
	unsigned int n, num = smp_load_acquire(&ctx->nr_gates);

	/* Of most code that is all there is to ask. */
	if (!num || ip < ctx->gates_start || ip >= ctx->gates_end)
		return NULL;
	for (n = 0; n < num; n++) {
		if (ip >= ctx->gates[n].start && ip < ctx->gates[n].end &&
		    !ctx->gates[n].restart != restarted)
			return &ctx->gates[n];
	}
	return NULL;
}

/**
 * epk_gates_have() - is an instruction in a gate, or in what leaves a domain after a fault
 * @ctx: a context whose gates are set
 * @ip: its address
 */
bool epk_gates_have(const struct epk_context *ctx, unsigned long ip)
{
	return gate_find(ctx, ip, true) || gate_find(ctx, ip, false) ||
	       (ctx->fault && ip - ctx->fault < EPK_FAULT_BYTES);
}

/**
 * epk_gates_go_back() - a thread that is in a gate starts it again
 * @ctx: its context
 * @regs: its registers
 */
void epk_gates_go_back(const struct epk_context *ctx, struct pt_regs *regs)
{
	const struct epk_gate *gate = gate_find(ctx, regs->ip, true);

	if (gate)
		regs->ip = gate->restart;
}
