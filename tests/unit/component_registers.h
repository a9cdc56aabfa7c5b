/* SPDX-License-Identifier: MIT */
/* What a component has in its registers when it is left. */
#ifndef EPK_COMPONENT_REGISTERS_H
#define EPK_COMPONENT_REGISTERS_H

#define SECRET	0x5ec2e75ec2e7ul

/* Entries: one returns, with all that a function may change; one faults, with all that there is. */
extern long spills(void *arg), spills_and_faults(void *arg);
asm(".text\n"
    "spills_and_faults:\n\t"
    "movabs $0x5ec2e75ec2e7, %rbx\n\tmov %rbx, %rbp\n\tmov %rbx, %r12\n\tmov %rbx, %r13\n\t"
    "mov %rbx, %r14\n\tmov %rbx, %r15\n\t"
    "spills:\n\t"
    "movabs $0x5ec2e75ec2e7, %rcx\n\tmov %rcx, %rdx\n\tmov %rcx, %rsi\n\tmov %rcx, %rdi\n\t"
    "mov %rcx, %r8\n\tmov %rcx, %r9\n\tmov %rcx, %r10\n\tmov %rcx, %r11\n\t"
    "movq %rcx, %xmm3\n\tmovq %rcx, %xmm13\n\t"
    "xor %eax, %eax\n\tcmp %rcx, %rbx\n\tje 1f\n\tret\n1:\tud2");

/* How many have it, where this comes back from one. */
static inline int spilt(int id, unsigned int entry)
{
	unsigned long found[16], n = 0, i;
	int err;

	asm volatile("mov %[found], %%rbx\n\txor %%ecx, %%ecx\n\tmov %%rsp, %%r12\n\t"
		     "sub $128, %%rsp\n\tand $-16, %%rsp\n\tcall epk_gate_call\n\tmov %%r12, %%rsp\n\t"
		     "mov %%rcx, (%%rbx)\n\tmov %%rdx, 8(%%rbx)\n\tmov %%rsi, 16(%%rbx)\n\t"
		     "mov %%rdi, 24(%%rbx)\n\tmov %%r8, 32(%%rbx)\n\tmov %%r9, 40(%%rbx)\n\t"
		     "mov %%r10, 48(%%rbx)\n\tmov %%r11, 56(%%rbx)\n\t"
		     "movq %%xmm3, 64(%%rbx)\n\tmovq %%xmm13, 72(%%rbx)\n\t"
		     "mov %%r12, 80(%%rbx)\n\tmov %%r13, 88(%%rbx)\n\tmov %%r14, 96(%%rbx)\n\t"
		     "mov %%r15, 104(%%rbx)"
		     : "=a"(err), "+D"(id), "+S"(entry)
		     : [found] "r"(found), "d"(0l)
		     : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "xmm3", "xmm13", "memory", "cc");
	for (i = 0; i < 14; i++)
		n += found[i] == SECRET;
	return err && err != -14 ? err : (int)n;
}

#endif /* EPK_COMPONENT_REGISTERS_H */
