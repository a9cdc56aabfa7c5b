/* SPDX-License-Identifier: MIT */
/*
 * struct outcome epk_call_caught_on_stack(long (*fn)(void *), void *arg, void *top)
 *
 * As epk_call_on_stack(), and the module has the thread go on at epk_call_fault if fn faults, with the stack
 * pointer that the caller of this has, below which lies what has been saved here; and with what the fault was
 * in registers, as EPK_CATCH_TELLS has it.
 */
#include "gate.h"
#include "gate_check.h"
#include "registers.h"

first_area

#define EFAULT		14

	.text
	.globl	epk_call_caught_on_stack
	.hidden	epk_call_caught_on_stack
	.type	epk_call_caught_on_stack, @function
	.balign	16
epk_call_caught_on_stack:
	.cfi_startproc
	pushed	rbp,r12,r13,r14,r15
	call	epk_call_on_stack
	xor	%edx, %edx
.Lleft:
	popped	r15,r14,r13,r12,rbp
	ret
	.cfi_endproc
	.size	epk_call_caught_on_stack, . - epk_call_caught_on_stack

/* Nothing is held.  From the stack pointer down: the frame above, and that of epk_call_on_stack(). */
	.globl	epk_call_fault
	.hidden	epk_call_fault
	.type	epk_call_fault, @function
	.balign	16
epk_call_fault:
	.cfi_startproc
	.cfi_def_cfa_offset 0
	.cfi_offset %rbp, -16
	.cfi_offset %r12, -24
	.cfi_offset %r13, -32
	.cfi_offset %r14, -40
	.cfi_offset %r15, -48
	.cfi_offset %rbx, -72
	sub	$80, %rsp
	.cfi_adjust_cfa_offset 80
	mov	%rdx, %rcx
	registers_first
	/* What a compiler saves in a frame would stay on the caller's stack. */
	.irp	reg, ebx,ebp,r8d,r9d,r10d,r11d,r12d,r13d,r14d,r15d
	xor	%\reg, %\reg
	.endr
	mov	%rcx, %rdx
	call	epk_call_noted
	fldcw	(%rsp)
	ldmxcsr	4(%rsp)
	mov	8(%rsp), %rbx
	.cfi_restore %rbx
	add	$32, %rsp
	.cfi_adjust_cfa_offset -32
	xor	%eax, %eax
	scratch_first
	mov	$-EFAULT, %rdx
	jmp	.Lleft
	forged
	.cfi_endproc
	.size	epk_call_fault, . - epk_call_fault

/* No note for shadow stacks: the returns that the function owes are on it still after a fault. */
	.section .note.GNU-stack, "", @progbits
