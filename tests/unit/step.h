/* SPDX-License-Identifier: MIT */
/* Single steps through the gates. */
#ifndef EPK_STEP_H
#define EPK_STEP_H

#define TRAP_FLAG	0x100

extern const char epk_gates_start[], epk_gates_end[];
extern const char epk_pin_gates_start[], epk_pin_gates_end[];

static inline bool is_gate(const char *ip)
{
	return (ip >= epk_gates_start && ip < epk_gates_end) ||
	       (ip >= epk_pin_gates_start && ip < epk_pin_gates_end);
}

/* The trap flag; no signal comes behind the instruction that clears it. */
static inline void set_trap(bool on)
{
	if (on)
		asm volatile("pushfq\n\torl $0x100, (%%rsp)\n\tpopfq" : : : "memory", "cc");
	else
		asm volatile("pushfq\n\tandl $~0x100, (%%rsp)\n\tpopfq" : : : "memory", "cc");
}

/*
 * In a handler of SIGTRAP: whether the interrupted instruction is in a gate.  Ends the steps behind
 * the gates: there are system calls, with which Bochs's steps do not go well.
 */
static inline bool step_in_gate(ucontext_t *context)
{
	static bool before;
	greg_t *gregs = context->uc_mcontext.gregs;
	bool now = is_gate((const char *)gregs[REG_RIP]);

	if (before && !now)
		gregs[REG_EFL] &= ~TRAP_FLAG;
	before = now;
	return now;
}

#endif /* EPK_STEP_H */
