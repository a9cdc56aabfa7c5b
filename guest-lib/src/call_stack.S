/* SPDX-License-Identifier: MIT */
/*
 * long epk_call_on_stack(long (*fn)(void *), void *arg, void *top)
 *
 * Runs fn(arg) on the stack that ends at top, and comes back with nothing of it in a register but
 * the result: what fn may change by the calling convention is cleared.  What it must not change,
 * it has restored itself.
 */
#include "gate.h"
#include "gate_check.h"
#include "registers.h"

first_area

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
	stmxcsr	4(%rsp)
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsp
	call	*%rax
	lea	-16(%rbp), %rsp		/* below rbx: the control words */
	mov	%rax, %rbx
	registers_first	.Lno_xsave
.Lcleared:
	fldcw	(%rsp)
	ldmxcsr	4(%rsp)
	mov	%rbx, %rax
	scratch_first
	add	$8, %rsp
	pop	%rbx
	pop	%rbp
	.cfi_remember_state
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_restore_state
.Lno_xsave:
	fxrstor	.Lfirst(%rip)
	jmp	.Lcleared
	forged
	.cfi_endproc
	.size	epk_call_on_stack, . - epk_call_on_stack

/* The control words stay. */
	.globl	epk_registers_clear
	.hidden	epk_registers_clear
	.type	epk_registers_clear, @function
	.balign	16
epk_registers_clear:
	.cfi_startproc
	fnstcw	-8(%rsp)
	stmxcsr	-4(%rsp)
	registers_first .Lnone
.Lfirst_again:
	fldcw	-8(%rsp)
	ldmxcsr	-4(%rsp)
	ret
.Lnone:
	fxrstor	.Lfirst(%rip)
	jmp	.Lfirst_again
	.cfi_endproc
	.size	epk_registers_clear, . - epk_registers_clear

/* void epk_wipe(void *low, void *high): zeroes what lies between; both are multiples of 512. */
	.globl	epk_wipe
	.hidden	epk_wipe
	.type	epk_wipe, @function
	.balign	16
epk_wipe:
	.cfi_startproc
	pxor	%xmm0, %xmm0
	testb	$EPK_AVX, epk_state_page+EPK_STATE_XFEATURES(%rip)
	jnz	.Lwipe_avx
.Lwipe:
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	movaps	%xmm0, 16*\n(%rdi)
	movaps	%xmm0, 16*\n+256(%rdi)
	.endr
	add	$512, %rdi
	cmp	%rsi, %rdi
	jb	.Lwipe
	ret
.Lwipe_avx:
	vpxor	%xmm0, %xmm0, %xmm0
.Lwipe_more:
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	vmovdqa	%ymm0, 32*\n(%rdi)
	.endr
	add	$512, %rdi
	cmp	%rsi, %rdi
	jb	.Lwipe_more
	ret
	.cfi_endproc
	.size	epk_wipe, . - epk_wipe

#include "note.h"
