/* SPDX-License-Identifier: MIT */
/*
 * int epk_gate_call(int dom_id, unsigned int entry, void *arg, long *result)
 *
 * From ordinary code, or from one component, into another.  The caller's registers are saved on its
 * own stack and cleared; the callee runs on a stack in its own domain, with that alone open; and
 * comes back to where its caller waits, and nowhere else.
 *
 * What is opened rests on the domain table and its notes, which the process cannot write, and on the
 * ID that was asked for.  All that is used after a WRPKRU comes from there, from memory of the
 * domain that it has opened, or is an argument: who jumps into the middle has made a call, or a
 * return which is told from a true one by a number that only the caller and its callee know.  A
 * check that at most one domain is open follows; that it is this one the first access to its
 * header tells.
 *
 * Where a thread is in a component its slot there says, which is found by a number that anybody can
 * write, and is the thread's if it has its FS base.
 *
 * On the way from one component to another neither's stack can be used, and signals want one: they
 * have their frames where the ordinary code waits, by which components were entered.  The module
 * finds them a place there in components, too.  Who forges epk_word.outside has frames, which
 * are written with ordinary rights, where it could write itself.
 *
 * Registers on the way: ebx the callee, ebp the entry and on the way back the error, r12 the
 * argument, rbx on the way back the value; r15d the caller, 0 if it is ordinary code, r9 the offset
 * of the thread's slot, r8 what the caller expects back: its number, or ordinary code's stack
 * pointer.  r10 the header, r11 the slot, r13 the TLS offset of epk_word, r14 the domain table.
 */
#include <asm/unistd.h>

#include "component.h"
#include "gate.h"
#include "gate_check.h"
#include "registers.h"

first_area

#define EAGAIN		11
#define EFAULT		14
#define EINVAL		22
#define EBUSY		16
#define EDEADLK		35
/* DF, AC, TF and the like are nobody's to hand over. */
#define FLAGS		0x202

/* A caller's frame, from its stack pointer. */
#define F_NUMBER	0
#define F_OUTSIDE	0
#define F_CONTROL	8
#define F_COMPONENT	16
#define F_ID		20
#define F_ENTRY		24
#define F_ARG		32
#define F_RESULT	40
#define F_SAVED		48

/*
 * To \other, if more is held, or may be, than the keys that are open; or something to read only.  EAX:
 * PKRU.
 */
.macro unmarked other
	test	%eax, epk_state_page+EPK_STATE_MARK(%rip)
	jnz	\other
.endm

/* All closed of the library's; what is marked stays that. */
.macro closed
	or	epk_state_page+EPK_STATE_ACCESS(%rip), %eax
.endm

/*
 * Opens the component \id alone, wherever it is.  To \none without one, to \away if it has no
 * place, to \marked if the module has a right of the thread's in its record.  All of it is in a gate.
 */
.macro open id, none, away, marked
	mov	\id, %esi
	and	epk_state_page+EPK_STATE_INDEX_MASK(%rip), %esi
	mov	epk_state_page+EPK_STATE_GATE_TABLE(%rip), %r14
	cmp	(%r14,%rsi,8), \id
	jne	\none
	mov	EPK_GATE_NOTES(%r14,%rsi,8), %r10
	mov	%r10d, %edi
	and	$15, %edi
	jz	\away
	xor	%ecx, %ecx
	rdpkru
	unmarked \marked
	shr	$48, %r10
	cmp	-EPK_GATE_IDENTITY(%r14), %r10w
	je	.Lhere\@
	closed
	wrpkru
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_SWITCHES(%r13), %rcx
	incq	(%rcx)
	mov	%r10d, %ecx
	xor	%eax, %eax
	vmfunc
	xor	%ecx, %ecx
	rdpkru
.Lhere\@:
	closed
	and	EPK_GATE_MASK-EPK_GATE_BEFORE(%r14,%rdi,4), %eax
	wrpkru
.endm

/* One key is open at most.  R10, R13, R14 are as they are to be from then on. */
.macro opened id
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	blsr	%eax, %eax
	jnz	.Lforged
	header \id
	mov	epk_word@gottpoff(%rip), %r13
.endm

/* R10: the header of a component.  ESI is lost. */
.macro header id
	mov	\id, %esi
	and	epk_state_page+EPK_STATE_INDEX_MASK(%rip), %esi
	mov	epk_state_page+EPK_STATE_GATE_TABLE(%rip), %r14
	mov	EPK_GATE_NOTES(%r14,%rsi,8), %r10
	and	.Laddress(%rip), %r10
.endm

/* R11: the slot at offset R9 of the header R10. */
.macro slot
	mov	EPK_COMP_MASK(%r10), %r11d
	and	%r9d, %r11d
	lea	EPK_COMP_SLOTS(%r10,%r11), %r11
.endm

/* To \other unless the slot R11 is the thread's, and it is inside.  RCX is lost. */
.macro inside other
	rdfsbase %rcx
	inc	%rcx
	cmp	%rcx, EPK_COMP_OWNER(%r11)
	jne	\other
.endm

/* R8: what a callee is told, and nobody else: of the slot R11 of the header R10. */
.macro number
	mov	$1, %eax
	lock xadd %rax, EPK_COMP_COUNT(%r11)
	movq	%rax, %xmm0
	pxor	EPK_COMP_KEYS(%r10), %xmm0
	.irp	n, 1,2,3,4,5,6,7,8,9
	aesenc	EPK_COMP_KEYS+16*\n(%r10), %xmm0
	.endr
	aesenclast EPK_COMP_KEYS+160(%r10), %xmm0
	movq	%xmm0, %r8
.endm

/* To \other if a byte of the note of \id has one of these bits.  ESI, R14 are lost. */
.macro if_confined bits, byte, id, other
	mov	\id, %esi
	and	epk_state_page+EPK_STATE_INDEX_MASK(%rip), %esi
	mov	epk_state_page+EPK_STATE_GATE_TABLE(%rip), %r14
	testb	\bits, EPK_GATE_NOTES+\byte(%r14,%rsi,8)
	jnz	\other
.endm

/* RSP: where the header R10's code waits for what comes back with R8.  RAX, RCX, RSI are lost. */
.macro waiting
	slot
	inside	.Lforged
	mov	EPK_COMP_SP(%r11), %rax
	test	%rax, %rax
	jz	.Lforged
	cmp	%r8, F_NUMBER(%rax)
	jne	.Lforged
	/* Once, and not as well by another thread that has set its FS base to this one's. */
	mov	%rax, %rcx
	xor	%esi, %esi
	lock cmpxchg %rsi, EPK_COMP_SP(%r11)
	jne	.Lforged
	mov	%rcx, %rsp
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

.macro saved_restored
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
.endm

	.text
	.globl	epk_component_gates_start, epk_component_gates_end
	.hidden	epk_component_gates_start, epk_component_gates_end
epk_component_gates_start:

/* The same, but what cannot be called at once is -EAGAIN: F_ENTRY says it. */
	.globl	epk_gate_try
	.hidden	epk_gate_try
	.type	epk_gate_try, @function
	.balign	64
epk_gate_try:
	.cfi_startproc
	mov	%esi, %esi
	bts	$32, %rsi
	jmp	.Lcall
	.cfi_endproc
	.size	epk_gate_try, . - epk_gate_try

	.globl	epk_gate_call
	.type	epk_gate_call, @function
	.balign	64
epk_gate_call:
	.cfi_startproc
	mov	%esi, %esi
.Lcall:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rcx
	sub	$F_RESULT, %rsp
	.cfi_def_cfa_offset F_SAVED + 56
	.cfi_offset %rbx, -16
	.cfi_offset %rbp, -24
	.cfi_offset %r12, -32
	.cfi_offset %r13, -40
	.cfi_offset %r14, -48
	.cfi_offset %r15, -56
	.cfi_remember_state
	mov	%rsi, F_ENTRY(%rsp)
	stmxcsr	F_CONTROL(%rsp)
	fnstcw	F_CONTROL+4(%rsp)
	mov	%edi, %ebx
	mov	%esi, %ebp
	mov	%rdx, %r12
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_COMPONENT(%r13), %r15d
	mov	%r15d, F_COMPONENT(%rsp)
	mov	%fs:EPK_WORD_PLACE(%r13), %r9d
	test	%r9d, %r9d
	jz	.Lcannot			/* its first call */
	xor	%ecx, %ecx
	rdpkru
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %r11d
	jnz	.Lfrom_component
	unmarked .Lcannot			/* a component, perhaps, which has just been evicted */
	xor	%r15d, %r15d
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %r8
	mov	%r8, F_OUTSIDE(%rsp)
	mov	%rsp, %r8
	mov	%rsp, %fs:EPK_WORD_OUTSIDE(%r13)
.Lclear:
	registers_first

.Lenter:
	open	%ebx, .Lstay, .Lstay, .Lstay
.Lentered:
	opened	%ebx
	mov	%ebx, %fs:EPK_WORD_COMPONENT(%r13)
	slot
	rdfsbase %rcx
	lea	1(%rcx), %rsi
	mov	%rcx, %rax
	lock cmpxchg %rsi, EPK_COMP_OWNER(%r11)
	jne	.Lnot_ready
.Lidle:
	xor	%eax, %eax
	mov	EPK_COMP_TOP(%r11), %rsp
.Lon_stack:
	push	%rax
	push	%r15
	push	%r9
	push	%r8
	push	EPK_COMP_FRAME(%r11)
	push	%r11
	mov	%rsp, EPK_COMP_FRAME(%r11)
	movq	$0, EPK_COMP_SP(%r11)
	cmp	EPK_COMP_NR(%r10), %ebp
	jae	.Lno_entry
	mov	EPK_COMP_ENTRIES(%r10,%rbp,8), %rax
	mov	%r12, %rdi
	xor	%ebp, %ebp
	push	$FLAGS
	popfq
	/*
	 * Each register has been written to since the caller's frame was made.  Who unwinds the stack
	 * from within comes to its end here.
	 */
	.cfi_undefined %rip
	call	*%rax
	mov	%rax, %rbx
	xor	%ebp, %ebp
	/* From its frame. */
.Lleave:
	pop	%r11
	pop	EPK_COMP_FRAME(%r11)
	pop	%r8
	pop	%r9
	pop	%r15
	pop	%r10
	registers_first
	mov	%r10, EPK_COMP_SP(%r11)
	test	%r15d, %r15d
	jnz	.Lleave_to_component
	mov	%r8, %rsp
	test	%r10, %r10
	jnz	.Lclose
	andq	$~1, EPK_COMP_OWNER(%r11)

.Lclose:
	xor	%ecx, %ecx
	rdpkru
	unmarked .Lhold_nothing
	closed
	wrpkru
.Lclosed:
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
	mov	epk_word@gottpoff(%rip), %r13
	mov	F_OUTSIDE(%r8), %rcx
	mov	%rcx, %fs:EPK_WORD_OUTSIDE(%r13)
	mov	F_COMPONENT(%r8), %r15d
	/* The caller has what it had. */
.Lreturned:
	mov	%r15d, %fs:EPK_WORD_COMPONENT(%r13)
.Lreturned_confined:
	push	$FLAGS
	popfq
	ldmxcsr	F_CONTROL(%rsp)
	fldcw	F_CONTROL+4(%rsp)
	xor	%esi, %esi
	test	%ebp, %ebp
	jnz	.Lfailed
	mov	F_RESULT(%rsp), %rdx
	test	%rdx, %rdx
	jz	.Ldone
	mov	%rbx, (%rdx)
.Ldone:
	mov	%ebp, %eax
	add	$F_SAVED, %rsp
	.cfi_restore_state
	.cfi_remember_state
	.cfi_def_cfa_offset 56
	saved_restored
	.cfi_def_cfa_offset 8
	ret
	.cfi_restore_state

/* It cannot be entered, or not so: the caller is where it was, but may have its domain closed. */
.Lstay:
	if_confined $1, 1, %ebx, .Lconfined_enter
.Lstay_here:
	mov	$-EAGAIN, %ebp
	test	%r15d, %r15d
	jnz	.Lback
	mov	epk_word@gottpoff(%rip), %r13
	mov	F_OUTSIDE(%rsp), %rcx
	mov	%rcx, %fs:EPK_WORD_OUTSIDE(%r13)
.Lcannot:
	mov	%ebx, F_ID(%rsp)
	mov	%r12, F_ARG(%rsp)
	mov	$-EAGAIN, %ebp
.Lfailed:
	cmp	$-EAGAIN, %ebp
	jne	.Ldone
	cmpl	$0, F_ENTRY+4(%rsp)
	jne	.Ldone
	mov	F_ID(%rsp), %edi
	mov	F_ENTRY(%rsp), %rsi
	mov	F_ARG(%rsp), %rdx
	mov	F_RESULT(%rsp), %rcx
	add	$F_SAVED, %rsp
	saved_restored
	jmp	*epk_state_page+EPK_STATE_CALL_SLOW(%rip)

/* The caller holds something: it is a component that has its own domain alone, or it is slow. */
.Lfrom_component:
	test	%r15d, %r15d
	jz	.Lcannot
	blsr	%r11d, %r11d
	jnz	.Lcannot
	unmarked .Lcannot
	header	%r15d
	mov	EPK_GATE_NOTES(%r14,%rsi,8), %rcx
	mov	%ecx, %edi
	and	$15, %edi
	jz	.Lfrom_confined
	test	%eax, EPK_GATE_AD-EPK_GATE_BEFORE(%r14,%rdi,4)
	jnz	.Lcannot			/* a handler has interrupted it, and holds something else */
	shr	$48, %rcx
	cmp	-EPK_GATE_IDENTITY(%r14), %cx
	jne	.Lcannot
	slot
	inside	.Lcannot
	cmpq	$0, EPK_COMP_SP(%r11)
	jne	.Lcannot
	number
	mov	%r8, F_NUMBER(%rsp)
	mov	%ebx, F_ID(%rsp)
	mov	%r12, F_ARG(%rsp)
	mov	%rsp, EPK_COMP_SP(%r11)
	/* Its stack is not there any more soon. */
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
	jmp	.Lclear

/* The slot is another thread's, or this one is inside already.  RAX: its owner. */
.Lnot_ready:
	cmp	%rsi, %rax
	je	.Linside
	test	$1, %al
	jnz	.Lbusy
	lock cmpxchg %rsi, EPK_COMP_OWNER(%r11)
	je	.Lidle
	/* Another thread was quicker. */
.Lbusy:
	mov	$-EBUSY, %ebp
	jmp	.Lrefuse
.Lno_entry:
	xor	%ebx, %ebx
	mov	$-EINVAL, %ebp
	jmp	.Lleave
.Linside:
	mov	EPK_COMP_SP(%r11), %rax
	mov	%rax, %rcx
	and	$-16, %rcx
	jz	.Lruns
	/* Not as well by another thread that has set its FS base to this one's. */
	xor	%esi, %esi
	lock cmpxchg %rsi, EPK_COMP_SP(%r11)
	jne	.Lruns
	mov	%rcx, %rsp
	jmp	.Lon_stack
.Lruns:
	mov	$-EDEADLK, %ebp
.Lrefuse:
	xor	%ebx, %ebx
	test	%r15d, %r15d
	jz	.Lclose
	jmp	.Lback

.Lleave_to_component:
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
	test	%r10, %r10
	jnz	.Lback
	andq	$~1, EPK_COMP_OWNER(%r11)
.Lback:
	open	%r15d, .Lforged, .Laway, .Lhold_nothing
.Lbacked:
	opened	%r15d
	waiting
	jmp	.Lreturned

/*
 * The module's record has rights of the thread's: the callee's own, if that moved away while it was
 * open, or to what it has not ended.  They are put aside, and that is forgotten.
 */
.Lhold_nothing:
	drop_all
	test	%r15d, %r15d
	jz	.Lclose
	jmp	.Lback

/* Who waits has lost its place, or has none for this gate. */
.Laway:
	if_confined $0xf0, 0, %r15d, .Lconfined_back
.Lbring:
	/* What the callee has is out of reach for who writes to the thread's memory meanwhile. */
	xor	%ecx, %ecx
	rdpkru
	unmarked .Lhold_nothing
	closed
	wrpkru
.Lbringing:
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
	mov	epk_word@gottpoff(%rip), %r13
	rdfsbase %rdx
	lea	EPK_WORD_MOVES(%r13,%rdx), %rdx
	lea	16(%rdx), %rcx
	mov	%rcx, 8(%rdx)
	mov	%r15d, %ecx
	movabs	$EPK_MOVE_ANY, %rax
	or	%rax, %rcx
	mov	%rcx, 16(%rdx)
	movabs	$EPK_MOVES_ADMIT_ONE, %rax
	mov	%rax, (%rdx)
	mov	epk_state_page+EPK_STATE_FD(%rip), %edi
	mov	$EPK_IOC_MOVE_NR, %esi
	mov	$__NR_ioctl, %eax
	syscall
	test	%eax, %eax
	jz	.Lback
	/* fall through */
	forged
	.cfi_endproc
	.size	epk_gate_call, . - epk_gate_call

/* In a component, with its domain open, and nothing in the registers that can be relied upon. */
	.globl	epk_gate_fault
	.hidden	epk_gate_fault
	.type	epk_gate_fault, @function
	.balign	64
epk_gate_fault:
	.cfi_startproc
	.cfi_undefined %rip
	xor	%ecx, %ecx
	rdpkru
	test	$2, %al
	jnz	.Lconfined_fault
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_COMPONENT(%r13), %ebx
	mov	%fs:EPK_WORD_PLACE(%r13), %r9d
	header	%ebx
	mov	.Laddress(%rip), %rcx
	andn	EPK_GATE_NOTES(%r14,%rsi,8), %rcx, %rcx
	jz	.Lno_way			/* that is no component, and anybody's */
	slot
	inside	.Lno_way
	cmpq	$0, EPK_COMP_SP(%r11)
	jne	.Lno_way			/* not by its code: it waits */
	mov	EPK_COMP_FRAME(%r11), %rsp
	test	%rsp, %rsp
	jz	.Lno_way
	/* A fault from here on, of a frame that is broken, leaves by the one before. */
	movq	$0, EPK_COMP_FRAME(%r11)
	xor	%ebx, %ebx
	mov	$-EFAULT, %ebp
	jmp	.Lleave
.Lno_way:
	ud2
	.cfi_endproc
	.size	epk_gate_fault, . - epk_gate_fault

/*
 * void epk_gate_release(int dom_id): the thread is not in the component any more.  Who waits there
 * for a return gets none.
 */
	.globl	epk_gate_release
	.hidden	epk_gate_release
	.type	epk_gate_release, @function
	.balign	16
epk_gate_release:
	.cfi_startproc
	push	%r13
	.cfi_def_cfa_offset 16
	.cfi_offset %r13, -16
	push	%r14
	.cfi_def_cfa_offset 24
	.cfi_offset %r14, -24
	mov	%edi, %r8d
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_PLACE(%r13), %r9d
.Lrelease:
	open	%r8d, .Lreleased, .Lreleased, .Lreleased
.Lrelease_here:
	opened	%r8d
	slot
	inside	.Lrelease_close
	movq	$0, EPK_COMP_SP(%r11)
	movq	$0, EPK_COMP_FRAME(%r11)
	andq	$~1, EPK_COMP_OWNER(%r11)
.Lrelease_close:
	xor	%ecx, %ecx
	rdpkru
	closed
	wrpkru
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
.Lreleased:
	pop	%r14
	.cfi_def_cfa_offset 16
	pop	%r13
	.cfi_def_cfa_offset 8
	ret
	.cfi_endproc
	.size	epk_gate_release, . - epk_gate_release

#include "component_confined.h"

epk_component_gates_end:

	.section .rodata
	.balign	8
.Laddress:
	.quad	0xfffffffff000

/* struct epk_gate[], behind those of gate.S. */
	.section .data.rel.ro, "aw"
	.balign	8
	.globl	epk_component_gate_list, epk_component_gate_list_end
	.hidden	epk_component_gate_list, epk_component_gate_list_end
epk_component_gate_list:
	.quad	.Lenter, .Lentered, .Lenter
	.quad	.Lback, .Lbacked, .Lback
	.quad	.Lclose, .Lclosed, .Lclose
	.quad	.Lbring, .Lbringing, .Lbring
	.quad	.Lrelease, .Lrelease_here, .Lrelease
	confined_gates
epk_component_gate_list_end:

/*
 * No note for shadow stacks: after a fault in the callee the module has the thread go on here, and the
 * returns that the callee owes are on the shadow stack still.
 */
	.section .note.GNU-stack, "", @progbits
