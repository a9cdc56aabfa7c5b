/* SPDX-License-Identifier: MIT */
/*
 * The gates of backends that keep what a thread holds in a word of the thread and in a list: "mpk";
 * and the two instructions for what is done in C, there and under "vmfunc".
 *
 * domain_begin() of a thread that holds nothing, and domain_end() of the only
 * domain that it holds, run here; all else goes on in C.  What is opened rests
 * on the domain table, which the process cannot write, and on the ID that was asked for; memory of
 * the thread decides only whether to go on in C.
 *
 * After each WRPKRU comes a check that rests on no register from before it: a
 * jump to the instruction with a PKRU of one's own leaves at most one domain
 * open, which is what a call of domain_begin() gives.  VMFUNC is followed by a look at PKRU.
 *
 * Needs BMI1 and BMI2, which all CPUs with protection keys have; epk_gates_run() looks.
 */
#include "gate.h"

#define SLOT_FREE	0
#define INDEX_MASK	0x1ffff
#define PKEY_FIELD	0x830		/* BEXTR: 8 bits from bit 48 */

	.section .rodata
	.balign	4
access:	.long	EPK_PKRU_ACCESS

	.text
	.globl	epk_word_gates_start, epk_word_gates_end
	.hidden	epk_word_gates_start, epk_word_gates_end
epk_word_gates_start:

/*
 * Registers: edi id, esi its index, r8 its entry, r9 the thread's word, r10 the
 * table, r11 the pkey.
 *
 * A word that is not free makes the compare of the IDs fail, or else their
 * indices were equal and the entry free: then the last look finds it so.
 * EPK_WORD_LIST has no pkey, for an ID of -1.
 *
 * No ID has index 0, and at that index is either 1, which is no such ID, or an
 * entry without a key.
 *
 * The entry is looked at again at the end: if the domain was freed or moved in
 * between, its key there may be another's.  So is the address of the table: who
 * takes that away and has all threads see it, finds the word of each thread that
 * comes past this point (thread.c).
 */
.macro begin name, rights, prot
	.type	\name, @function
	.balign	64
\name:
	.cfi_startproc
	mov	%edi, %esi
	and	$INDEX_MASK, %esi
	mov	epk_word@gottpoff(%rip), %r9
	mov	epk_state_page+EPK_STATE_WORD_TABLE(%rip), %r10
	mov	(%r10,%rsi,8), %r8
	xor	%fs:(%r9), %r8
	cmp	%edi, %r8d
	jne	.Lslow\@
	mov	$PKEY_FIELD, %ecx
	bextr	%rcx, %r8, %r11
	jz	.Lslow\@			/* evicted */
	mov	%r8, %fs:(%r9)
	.if \prot == 1
	movb	$1, %fs:7(%r9)
	.endif
	mov	\rights-EPK_GATE_BEFORE(%r10,%r11,4), %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	wrpkru
	andn	access(%rip), %eax, %eax
	blsr	%eax, %eax
	jnz	.Lbad\@
	mov	epk_state_page+EPK_STATE_WORD_TABLE(%rip), %r10
	cmp	(%r10,%rsi,8), %r8
	jne	.Lbad\@
	ret
.Lbad\@:
	mov	$EPK_PKRU_CLOSED, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	wrpkru
	cmp	$EPK_PKRU_CLOSED, %eax
	jne	.Lbad\@
	mov	epk_word@gottpoff(%rip), %r9
	movq	$SLOT_FREE, %fs:(%r9)
.Lslow\@:
	mov	$\prot, %esi
	jmp	epk_begin_slow
	.cfi_endproc
	.size	\name, . - \name
.endm

	begin	word_begin_write, EPK_GATE_WORD_RW, 3
	begin	word_begin_read, EPK_GATE_WORD_RO, 1

/* int epk_word_begin(int id, int prot) */
	.globl	epk_word_begin
	.hidden	epk_word_begin
	.type	epk_word_begin, @function
	.balign	16
epk_word_begin:
	.cfi_startproc
	cmp	$3, %esi
	je	word_begin_write
	cmp	$1, %esi
	je	word_begin_read
	cmp	$2, %esi
	je	word_begin_write
	jmp	epk_begin_slow
	.cfi_endproc
	.size	epk_word_begin, . - epk_word_begin

/* int epk_word_end(int id).  A word that is free or a list must not pass for ID 0 or -1. */
	.globl	epk_word_end
	.hidden	epk_word_end
	.type	epk_word_end, @function
	.balign	64
epk_word_end:
	.cfi_startproc
	mov	epk_word@gottpoff(%rip), %r9
	cmp	%edi, %fs:(%r9)
	jne	epk_end_slow
	test	%edi, %edi
	jle	epk_end_slow
	mov	$EPK_PKRU_CLOSED, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	wrpkru
	sub	$EPK_PKRU_CLOSED, %eax
	jne	.Lforged
	mov	%rax, %fs:(%r9)
	ret
.Lforged:
	mov	$EPK_PKRU_CLOSED, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	wrpkru
	cmp	$EPK_PKRU_CLOSED, %eax
	jne	.Lforged
	ud2
	.cfi_endproc
	.size	epk_word_end, . - epk_word_end

/*
 * void epk_pkru_set(uint32_t pkru).  At most one key of the library open needs
 * no further look.
 */
	.globl	epk_pkru_set
	.hidden	epk_pkru_set
	.type	epk_pkru_set, @function
	.balign	16
epk_pkru_set:
	.cfi_startproc
	mov	%edi, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	wrpkru
	not	%eax
	and	epk_state_page+EPK_STATE_ACCESS(%rip), %eax
	lea	-1(%rax), %edx
	test	%edx, %eax
	jnz	epk_pkru_verify
	ret
	.cfi_endproc
	.size	epk_pkru_set, . - epk_pkru_set

/* void epk_ept_enter(uint32_t ept).  Every key of the library has to be closed. */
	.globl	epk_ept_enter
	.hidden	epk_ept_enter
	.type	epk_ept_enter, @function
	.balign	16
epk_ept_enter:
	.cfi_startproc
	mov	%edi, %ecx
	xor	%eax, %eax
	vmfunc
	xor	%ecx, %ecx
	rdpkru
	not	%eax
	and	epk_state_page+EPK_STATE_ACCESS(%rip), %eax
	jnz	.Lforged
	ret
	.cfi_endproc
	.size	epk_ept_enter, . - epk_ept_enter

epk_word_gates_end:

	.section .note.GNU-stack, "", @progbits
