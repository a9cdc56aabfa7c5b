/* SPDX-License-Identifier: MIT */
/*
 * long epk_call_on_stack(long (*fn)(void *), void *arg, void *top, unsigned int wide)
 *
 * Runs fn(arg) on the stack that ends at top, and comes back with nothing of it
 * in a register but the result: what fn may change by the calling convention is
 * cleared.  What it must not change, it has restored itself.  wide: bit 0 the CPU
 * has AVX, bit 1 it has AVX-512.
 */
	.text
	.globl	epk_call_on_stack
	.hidden	epk_call_on_stack
	.type	epk_call_on_stack, @function
	.balign	16
epk_call_on_stack:
	.cfi_startproc
	push	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	push	%rbx
	.cfi_offset %rbx, -24
	sub	$8, %rsp
	fnstcw	(%rsp)
	mov	%ecx, %ebx
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsp
	call	*%rax
	lea	-16(%rbp), %rsp		/* below rbx: the control word */
	fninit
	fldcw	(%rsp)
	test	$1, %bl
	jz	.Lsse
	vzeroall
	test	$2, %bl
	jz	.Lclear
	.irp	n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	vpxord	%zmm\n, %zmm\n, %zmm\n
	.endr
	.irp	n, 0,1,2,3,4,5,6,7
	kxorw	%k\n, %k\n, %k\n
	.endr
	jmp	.Lclear
.Lsse:
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	pxor	%xmm\n, %xmm\n
	.endr
.Lclear:
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	xor	%r10d, %r10d
	xor	%r11d, %r11d
	add	$8, %rsp
	pop	%rbx
	pop	%rbp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size	epk_call_on_stack, . - epk_call_on_stack

	.section .note.GNU-stack, "", @progbits
