/* SPDX-License-Identifier: MIT */
/* For component_gate.S, which says what the registers hold: a caller's frame, and the steps of a call. */
#ifndef EPK_COMPONENT_MACROS_H
#define EPK_COMPONENT_MACROS_H

#include <asm/unistd.h>

#include "component.h"
#include "gate.h"

#define EAGAIN		11
#define EFAULT		14
#define EINVAL		22
#define EBUSY		16
#define EDEADLK		35
#define ENOBUFS		105
/* DF, AC, TF and the like are nobody's to hand over. */
#define FLAGS		0x202

/*
 * A caller's frame, from its stack pointer: what it asked for as well, since registers may be the callee's
 * on the way back.  Above the entry: is it epk_gate_try()?
 */
#define F_ID		0
#define F_MXCSR		4
#define F_ENTRY		8
#define F_TRY		12
#define F_CONTROL	14
#define F_ARG		16
#define F_RESULT	24
#define F_SAVED		32

/*
 * To \other, if more is held, or may be, than the keys that are open; or something to read only.  EAX:
 * PKRU.
 */
.macro unheld other
	test	%eax, epk_state_page+EPK_STATE_HELD_BITS(%rip)
	jnz	\other
.endm

/* All closed of the library's; what has its held bit keeps it. */
.macro closed
	or	epk_state_page+EPK_STATE_ACCESS(%rip), %eax
.endm

/* The index of an ID: PEXT is AND here, to another register. */
.macro index_of id, to
	pext	epk_state_page+EPK_STATE_INDEX_MASK(%rip), \id, \to
.endm

.macro load_table
	mov	epk_state_page+EPK_STATE_GATE_TABLE(%rip), %r14
.endm

/*
 * The key of the component whose index is \index, and what else its note says in R10.  To \away if it has
 * no place.
 */
.macro key index, key, away
	mov	EPK_GATE_NOTES(%r14,\index,8), %r10
	mov	%r10d, \key
	and	$15, \key
	jz	\away
.endm

/* With all closed, to the EPT that R12 ends in.  EAX is 0 by the check: leaf 0. */
.macro away
	wrpkru
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
	mov	%fs:EPK_WORD_SWITCHES(%r13), %rcx
	incq	(%rcx)
	movzwl	%r12w, %ecx
	vmfunc
	xor	%ecx, %ecx
	rdpkru
.endm

/*
 * Opens a component alone, wherever it is, by what "key" has found.  ECX is 0.  To \held if the module
 * has a right of the thread's in its record; without that, who has just looked looks again after it.  All
 * of it is in a gate; what starts at \elsewhere has another ECX.
 */
.macro open key, held, elsewhere, id
	rdpkru
	.ifnb \held
	unheld \held
	.endif
	rorx	$48, %r10, %r12
	closed
	cmp	-EPK_GATE_IDENTITY(%r14), %r12w
	je	.Lhere\@
\elsewhere:
	away
.Lhere\@:
	and	EPK_GATE_MASK-EPK_GATE_BEFORE(%r14,\key,4), %eax
	.ifnb \id
	mov	\id, %fs:EPK_WORD_COMPONENT(%r13)
	.endif
	wrpkru
.endm

/* One key is open at most. */
.macro one_open
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	blsr	%eax, %eax
	jnz	.Lforged
.endm

/* R10: the header of a component, R14 the table.  \index, of 64 bits, is lost. */
.macro header id, index, index64
	index_of	\id, \index
	load_table
	mov	EPK_GATE_NOTES(%r14,\index64,8), %r10
	and	.Laddress(%rip), %r10
.endm

/* R11: the offset of the thread's slot in the header R10. */
.macro slot
	rorx	$32, %r15, %r11
	and	EPK_COMP_MASK(%r10), %r11d
.endm

#define SLOT(member)	EPK_COMP_SLOTS+member(%r10,%r11)

/* Is the slot whose owner is \owner the thread's, and is it inside?  \fs: where its FS base comes. */
.macro inside fs, owner:vararg
	rdfsbase \fs
	cmp	\owner, \fs
.endm

/*
 * \fs: the owner of what the thread is inside, its FS base; RAX: of an idle slot that it has used.  Bit 0 is
 * the gates': who has that in the FS base is no other thread inside, nor are its own slots idle.
 */
.macro owner fs
	rdfsbase \fs
	and	$-2, \fs
	lea	1(\fs), %rax
.endm

/* R9: what a callee is told, and nobody else: of the slot R11 of the header R10, whose code runs. */
.macro number
	incq	SLOT(EPK_COMP_COUNT)
	movq	SLOT(EPK_COMP_COUNT), %xmm0
	pxor	EPK_COMP_KEYS(%r10), %xmm0
	.irp	n, 1,2,3,4,5,6,7,8,9
	aesenc	EPK_COMP_KEYS+16*\n(%r10), %xmm0
	.endr
	aesenclast EPK_COMP_KEYS+160(%r10), %xmm0
	movq	%xmm0, %r9
.endm

/*
 * The code of the slot R11 of the header R10 waits for the number R9, and has its stack for who is to
 * enter it meanwhile.  What it expects is odd while it waits, whatever the number.  RBX is lost.
 */
.macro wait
	mov	%rsp, SLOT(EPK_COMP_SP)
	lea	1(%r9,%r9), %rbx
	mov	%rbx, SLOT(EPK_COMP_EXPECT)
.endm

/*
 * RSP: where the header R10's code waits for what comes back with R9.  Once, and not as well by another
 * thread that has set its FS base to this one's.  EDX is 0, so that RDX is even.  RAX, RCX are lost.
 */
.macro waiting
	slot
	inside	%rcx, SLOT(EPK_COMP_OWNER)
	jnz	.Lforged
	lea	1(%r9,%r9), %rax
	lock cmpxchg %rdx, SLOT(EPK_COMP_EXPECT)
	jne	.Lforged
	mov	SLOT(EPK_COMP_SP), %rsp
.endm

/* To \other if a byte of the note of \id has one of these bits.  RBX, R14 are lost. */
.macro if_confined bits, byte, id, other
	index_of	\id, %ebx
	load_table
	testb	\bits, EPK_GATE_NOTES+\byte(%r14,%rbx,8)
	jnz	\other
.endm

/*
 * Runs the entry RSI of the header R10 on RSP, and comes back with its value in R8.  Each register has
 * been written to since the caller's frame was made.  All of RSI is compared, since it may be from who
 * has jumped to a WRPKRU.
 */
.macro run no_entry
	mov	%r15, EPK_COMP_CALLER(%rbx)
	mov	%r9, EPK_COMP_NUMBER(%rbx)
	cmp	EPK_COMP_NR(%r10), %rsi
	jae	\no_entry
	mov	%r8, %rdi
	xor	%ebp, %ebp
	push	$FLAGS
	popfq
	call	*EPK_COMP_ENTRIES(%r10,%rsi,8)
	mov	%rax, %r8
	xor	%ebp, %ebp			/* no error is the callee's to tell */
.endm

/* What the module has of rights of the thread's is forgotten. */
.macro drop_all
	mov	epk_state_page+EPK_STATE_FD(%rip), %edi
	mov	$EPK_IOC_CALL_NR, %esi
	xor	%edx, %edx
	mov	$__NR_ioctl, %eax
	syscall
	test	%eax, %eax
	jnz	.Lforged
	mov	$EPK_IOC_RETURN_NR, %esi
	mov	$EPK_RETURNS_NOTHING, %edx
	mov	$__NR_ioctl, %eax
	syscall
	test	%eax, %eax
	jnz	.Lforged
.endm

.macro saved
	pushed	rbx,rbp,r12,r13,r14,r15
.endm

.macro asked
	.irp	reg, rcx,rdx,rsi,rdi
	push	%\reg
	.cfi_adjust_cfa_offset 8
	.endr
.endm

/* What "asked" and "saved" have pushed; all is pushed again at the next of the following. */
.macro restored
	add	$F_SAVED, %rsp
	.cfi_adjust_cfa_offset -F_SAVED
	popped	r15,r14,r13,r12,rbp,rbx
.endm

/*
 * For who unwinds the stack, what RSP is from here on: the frame of who calls; below that of the ordinary
 * code, and what .Lfrom_outside has pushed; or the callee's stack, where it ends.
 */
.macro on_asked
	.cfi_restore_state
	.cfi_remember_state
.endm
.macro on_outside
	on_asked
	.cfi_adjust_cfa_offset 16
.endm
.macro on_callee
	on_asked
	.cfi_undefined %rip
.endm

#endif /* EPK_COMPONENT_MACROS_H */
