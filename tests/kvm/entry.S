/* SPDX-License-Identifier: MIT */
/* The guest's way in and out of exceptions, of user mode and of 32-bit code. */
#include "offsets.h"

	.text

/* One entry of 16 bytes for each exception. */
	.globl exception_entries
	.balign 16
exception_entries:
	.set vector, 0
	.rept 32
	.balign 16
	/* These push an error code by themselves. */
	.if !((0x60227d00 >> vector) & 1)
	pushq $0
	.endif
	pushq $vector
	jmp exception_common
	.set vector, vector + 1
	.endr

exception_common:
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movq %rsp, %rdi
	call guest_exception
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq

/* long run_user(long (*function)(long), long arg) */
	.globl run_user
run_user:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, %gs:CPU_KERNEL_STACK
	movq %rdi, %rax
	movq %rsi, %rdi
	pushq $SEL_USER_DATA
	pushq %gs:CPU_USER_STACK
	pushq $0x3202			/* IOPL 3, IF */
	pushq $SEL_USER_CODE64
	pushq $1f
	iretq
1:	call *%rax
	int $USER_RETURN_VECTOR

	.globl user_return_entry
user_return_entry:
	movq %gs:CPU_KERNEL_STACK, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

/* Change to 32-bit code and back; the caller's registers stay. */
	.macro enter_compat
	pushq $SEL_CODE32
	pushq $1f
	lretq
	.code32
1:
	.endm

	.macro leave_compat
	ljmp $SEL_CODE64, $2f
	.code64
2:
	.endm

/* long hypercall_compat(nr, a0, a1, a2, a3) */
	.globl hypercall_compat
hypercall_compat:
	pushq %rbx
	movl %edi, %eax
	movl %esi, %ebx
	xchgl %edx, %ecx
	movl %r8d, %esi
	enter_compat
	vmcall
	leave_compat
	cltq
	popq %rbx
	ret

/* uint32_t vmfunc_compat(leaf, index) */
	.globl vmfunc_compat
vmfunc_compat:
	movl %edi, %eax
	movl %esi, %ecx
	leaq 3f(%rip), %r11
	movq %r11, %gs:CPU_RECOVER
	movq $0, %gs:CPU_OUTCOME
	enter_compat
	.byte 0x0f, 0x01, 0xd4
	leave_compat
3:	movq $0, %gs:CPU_RECOVER
	movl %gs:CPU_OUTCOME, %eax
	ret

	.section .note.GNU-stack, "", @progbits
