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
 * puts them there in components, too.  Who forges epk_word.outside has frames, which
 * are written with ordinary rights, where it could write itself.
 *
 * Registers on the way: edi the callee, esi the entry, r8 the argument and on the way back the value,
 * ebp then the error; r15d the caller, 0 if it is ordinary code, and above it the offset of the thread's
 * slot; r9 what the caller expects back: its number, or ordinary code's stack pointer.  r10 the
 * header, r11 the slot's offset, r13 the TLS offset of epk_word, r14 the domain table.  While the callee
 * runs: rbx its slot.  It has to keep that, as any function; what it makes of it it could do itself, since
 * nothing else is open until it has been used, and of what its caller is the number tells.
 */
#include "component_macros.h"
#include "gate_check.h"
#include "registers.h"

first_area

	.text
	.globl	epk_component_gates_start, epk_component_gates_end
	.hidden	epk_component_gates_start, epk_component_gates_end
epk_component_gates_start:

/* The same, but what cannot be called at once is -EAGAIN: F_TRY says it. */
	.globl	epk_gate_try
	.hidden	epk_gate_try
	.type	epk_gate_try, @function
	.balign	64
epk_gate_try:
	.cfi_startproc
	saved
	mov	%esi, %esi
	bts	$32, %rsi
	asked
	mov	%esi, %esi
	jmp	.Lasked
	.cfi_endproc
	.size	epk_gate_try, . - epk_gate_try

	.globl	epk_gate_call
	.type	epk_gate_call, @function
	.balign	64
epk_gate_call:
	.cfi_startproc
	saved
	mov	%esi, %esi
	asked
	.cfi_remember_state
.Lasked:
	stmxcsr	F_MXCSR(%rsp)
	fnstcw	F_CONTROL(%rsp)
	mov	%rdx, %r8
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_COMPONENT(%r13), %r15
	test	%r15d, %r15d
	jnz	.Lfrom_component
	test	%r15, %r15
	jz	.Lcannot			/* its first call */
.Lfrom_outside:
	load_table
	xor	%ecx, %ecx
	rdpkru
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %r11d
	jnz	.Lcannot
	unheld .Lcannot				/* a component, perhaps, which has just been evicted */
	pushq	%fs:EPK_WORD_OUTSIDE(%r13)
	.cfi_adjust_cfa_offset 8
	pushq	%fs:EPK_WORD_COMPONENT(%r13)
	.cfi_adjust_cfa_offset 8
	mov	%rsp, %r9
	mov	%rsp, %fs:EPK_WORD_OUTSIDE(%r13)
	jmp	.Lclear

/* From one, that has its own domain alone; or it is slow. */
.Lfrom_component:
	on_asked
	index_of	%r15d, %ebx
	load_table
	mov	EPK_GATE_NOTES(%r14,%rbx,8), %r10
	pext	.Lkey(%rip), %r10, %r11
	xor	%ecx, %ecx
	rdpkru
	rorx	$48, %r10, %rbx
	cmp	-EPK_GATE_IDENTITY(%r14), %bx
	jne	.Lfrom_elsewhere
	cmp	EPK_GATE_ONLY-EPK_GATE_BEFORE(%r14,%r11,4), %eax
	jne	.Lfrom_other
.Lfrom_it:
	and	.Laddress(%rip), %r10
	slot
	inside	%rbx, SLOT(EPK_COMP_OWNER)
	jnz	.Lcannot
	number
	wait
	/* Its stack is not there any more soon. */
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
	on_outside
.Lclear:
	mov	epk_state_page+EPK_STATE_XFEATURES(%rip), %eax
	first					/* RDPKRU has cleared EDX */

.Lenter:
	index_of	%edi, %ebx
	cmp	(%r14,%rbx,8), %edi
	jne	.Lstay
	key	%rbx, %r11d, .Lstay
	open	%r11, , .Lenter_elsewhere, %edi
.Lentered:
	index_of	%edi, %ebx
	load_table
	mov	EPK_GATE_NOTES(%r14,%rbx,8), %r10
	pext	.Lkey(%rip), %r10, %r11
	cmp	EPK_GATE_ONLY-EPK_GATE_BEFORE(%r14,%r11,4), %eax
	jne	.Lentered_so
.Lentered_alone:
	and	.Laddress(%rip), %r10
	slot
	lea	EPK_COMP_SLOTS(%r10,%r11), %rbx
	owner	%rcx
	lock cmpxchg %rcx, EPK_COMP_OWNER(%rbx)
	jne	.Lnot_ready
.Lidle:
	mov	EPK_COMP_TOP(%rbx), %rsp
	on_callee
	run	.Lno_entry
.Lleave:
	/* As registers_first, whatever EDX is: XCR0 has no bit there. */
	mov	epk_state_page+EPK_STATE_XFEATURES(%rip), %eax
	first
	mov	EPK_COMP_NUMBER(%rbx), %r9
	mov	EPK_COMP_CALLER(%rbx), %r15
	test	%r15d, %r15d
	jz	.Lleave_outside
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
	on_outside
	orq	$1, EPK_COMP_OWNER(%rbx)

.Lback:
	load_table
	index_of	%r15d, %esi
	key	%rsi, %edi, .Laway
	xor	%ecx, %ecx
	open	%rdi, .Lhold_nothing, .Lback_elsewhere, %r15d
.Lbacked:
	one_open
	header	%r15d, %esi, %rsi
	waiting
	on_asked
	/* The caller has what it had. */
.Lreturned:
	push	$FLAGS
	.cfi_adjust_cfa_offset 8
	popfq
	.cfi_adjust_cfa_offset -8
	ldmxcsr	F_MXCSR(%rsp)
	fldcw	F_CONTROL(%rsp)
	andn	%ebp, %edx, %eax		/* EDX is 0 since the last RDPKRU */
	mov	F_RESULT(%rsp), %rdx
	jnz	.Lfailed
	test	%rdx, %rdx
	jz	.Ldone
	mov	%r8, (%rdx)
.Ldone:
	restored
	ret

.Lleave_outside:
	on_callee
	mov	%r9, %rsp
	on_outside
	orq	$1, EPK_COMP_OWNER(%rbx)
.Lclose:
	xor	%ecx, %ecx
	rdpkru
	unheld .Lhold_nothing
	closed
	wrpkru
.Lclosed:
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
	mov	epk_word@gottpoff(%rip), %r13
/* What the callee has left in a register is not for ordinary code. */
.Lreturn_outside:
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%r10d, %r10d
	xor	%r11d, %r11d
	pop	%rcx
	.cfi_adjust_cfa_offset -8
	mov	%ecx, %fs:EPK_WORD_COMPONENT(%r13)
	pop	%fs:EPK_WORD_OUTSIDE(%r13)
	.cfi_adjust_cfa_offset -8
	jmp	.Lreturned

/* It cannot be entered, or not so: the caller is where it was, but may have its domain closed. */
.Lstay:
	on_outside
	if_confined $1, 1, %edi, .Lconfined_enter
.Lstay_here:
	mov	$-EAGAIN, %ebp
	test	%r15d, %r15d
	jnz	.Lback
	mov	epk_word@gottpoff(%rip), %r13
	jmp	.Lreturn_outside
.Lcannot:
	on_asked
	mov	$-EAGAIN, %ebp
.Lfailed:
	mov	%ebp, %eax
	cmp	$-EAGAIN, %eax
	jne	.Ldone
	cmpw	$0, F_TRY(%rsp)
	jne	.Ldone
	mov	F_ID(%rsp), %edi
	mov	F_ENTRY(%rsp), %esi
	mov	F_ARG(%rsp), %rdx
	mov	F_RESULT(%rsp), %rcx
	restored
	jmp	*epk_state_page+EPK_STATE_CALL_SLOW(%rip)

/* In another EPT than that component; or that has lost its place. */
.Lfrom_elsewhere:
	on_asked
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %ebx
	jnz	.Lcannot
/* Nothing is open, so that this is ordinary code: a handler that has interrupted the component. */
.Lfrom_handler:
	shr	$32, %r15
	shl	$32, %r15
	jnz	.Lfrom_outside
	jmp	.Lcannot

/* The program has keys of its own, or a handler holds something, or the component is confined. */
.Lfrom_other:
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %ebx
	jz	.Lfrom_handler
	blsr	%ebx, %ebx
	jnz	.Lcannot
	unheld .Lcannot
	test	%r11d, %r11d
	jz	.Lfrom_confined
	test	%eax, EPK_GATE_AD-EPK_GATE_BEFORE(%r14,%r11,4)
	jz	.Lfrom_it
	jmp	.Lcannot

.Lenter_again:
	on_outside
	xor	%ecx, %ecx
	jmp	.Lenter

/* The program has keys of its own; or a right has gone to the module's record since the caller was looked at. */
.Lentered_so:
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %r12d
	blsr	%r12d, %r12d
	jnz	.Lforged
	test	%eax, epk_state_page+EPK_STATE_HELD_BITS(%rip)
	jz	.Lentered_alone
	/* If one closed key has its held bit, all have. */
.Lentered_held:
	xor	%ecx, %ecx
	rdpkru
	or	epk_state_page+EPK_STATE_CLOSED(%rip), %eax
	wrpkru
.Lentered_closed:
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
	jmp	.Lstay

/* The slot is another thread's, or this one is inside already.  RAX: its owner. */
.Lnot_ready:
	cmp	%rcx, %rax
	je	.Linside
	test	$1, %al
	jz	.Lbusy
	lock cmpxchg %rcx, EPK_COMP_OWNER(%rbx)
	je	.Lidle
	/* Another thread was quicker. */
.Lbusy:
	mov	$-EBUSY, %ebp
	jmp	.Lrefuse
/* It waits: on its stack, below that. */
.Linside:
	mov	EPK_COMP_EXPECT(%rbx), %rax
	test	$1, %al
	jz	.Lruns
	/* Not as well by another thread that has set its FS base to this one's. */
	xor	%edx, %edx
	lock cmpxchg %rdx, EPK_COMP_EXPECT(%rbx)
	jne	.Lruns
	mov	EPK_COMP_SP(%rbx), %rcx
	/* A fault before the frame is there would leave the call that waits. */
	cmp	EPK_COMP_LEAST(%rbx), %rcx
	jb	.Lno_room
	mov	%rcx, %rsp
	on_callee
	and	$-16, %rsp
	push	%rax
	push	%rcx
	push	EPK_COMP_CALLER(%rbx)
	push	EPK_COMP_NUMBER(%rbx)
	push	EPK_COMP_FRAME(%rbx)
	push	%rdx
	mov	%rsp, EPK_COMP_FRAME(%rbx)
	xor	%eax, %eax			/* what it waits for is not for frames of its code's signals */
	run	.Lno_nested_entry
.Lleave_nested:
	registers_first
	mov	EPK_COMP_NUMBER(%rbx), %r9
	pop	%rcx
	pop	EPK_COMP_FRAME(%rbx)
	mov	EPK_COMP_CALLER(%rbx), %r15
	pop	EPK_COMP_NUMBER(%rbx)
	pop	EPK_COMP_CALLER(%rbx)
	pop	%rcx
	pop	%rax
	mov	%rcx, EPK_COMP_SP(%rbx)
	test	%r15d, %r15d
	jz	.Lleave_nested_outside
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
	on_outside
	/* From here on it waits again. */
	mov	%rax, EPK_COMP_EXPECT(%rbx)
	jmp	.Lback
.Lleave_nested_outside:
	on_callee
	mov	%r9, %rsp
	on_outside
	mov	%rax, EPK_COMP_EXPECT(%rbx)
	jmp	.Lclose
.Lno_entry:
	on_callee
	mov	$-EINVAL, %ebp
	jmp	.Lleave
.Lno_nested_entry:
	mov	$-EINVAL, %ebp
	jmp	.Lleave_nested
.Lno_room:
	on_outside
	mov	%rax, EPK_COMP_EXPECT(%rbx)
	mov	$-ENOBUFS, %ebp
	jmp	.Lrefuse
.Lruns:
	mov	$-EDEADLK, %ebp
.Lrefuse:
	test	%r15d, %r15d
	jz	.Lclose
	jmp	.Lback

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
	unheld .Lhold_nothing
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
	forged	2
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
	mov	%fs:EPK_WORD_COMPONENT(%r13), %r15
	header	%r15d, %ebx, %rbx
	mov	.Laddress(%rip), %rcx
	andn	EPK_GATE_NOTES(%r14,%rbx,8), %rcx, %rcx
	jz	.Lno_way			/* that is no component, and anybody's */
	slot
	inside	%rcx, SLOT(EPK_COMP_OWNER)
	jnz	.Lno_way
	lea	EPK_COMP_SLOTS(%r10,%r11), %rbx
	testb	$1, EPK_COMP_EXPECT(%rbx)
	jnz	.Lno_way			/* not by its code: it waits */
	xor	%r8d, %r8d
	mov	$-EFAULT, %ebp
	mov	EPK_COMP_FRAME(%rbx), %rcx
	test	%rcx, %rcx
	jz	.Lleave
	mov	%rcx, %rsp
	/* A fault from here on, of a frame that is broken, does without. */
	movq	$0, EPK_COMP_FRAME(%rbx)
	jmp	.Lleave_nested
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
	pushed	rbx,r12,r13,r14,r15
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_COMPONENT(%r13), %r15
	load_table
.Lrelease:
	index_of	%edi, %ebx
	cmp	(%r14,%rbx,8), %edi
	jne	.Lreleased
	key	%rbx, %r11d, .Lreleased
	xor	%ecx, %ecx
	open	%r11, .Lreleased, .Lrelease_elsewhere
.Lrelease_here:
	one_open
	header	%edi, %ebx, %rbx
	slot
	inside	%rcx, SLOT(EPK_COMP_OWNER)
	jnz	.Lrelease_close
	movq	$0, SLOT(EPK_COMP_EXPECT)
	movq	$0, SLOT(EPK_COMP_FRAME)
	orq	$1, SLOT(EPK_COMP_OWNER)
.Lrelease_close:
	xor	%ecx, %ecx
	rdpkru
	closed
	wrpkru
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
.Lreleased:
	popped	r15,r14,r13,r12,rbx
	ret
	.cfi_endproc
	.size	epk_gate_release, . - epk_gate_release

#include "component_confined.h"

epk_component_gates_end:

	.section .rodata
	.balign	8
.Laddress:
	.quad	0xfffffffff000
.Lkey:
	.quad	15

/* struct epk_gate[], behind those of gate.S. */
	.section .data.rel.ro, "aw"
	.balign	8
	.globl	epk_component_gate_list, epk_component_gate_list_end
	.hidden	epk_component_gate_list, epk_component_gate_list_end
epk_component_gate_list:
	.quad	.Lenter, .Lenter_elsewhere, .Lenter
	.quad	.Lenter_elsewhere, .Lentered, .Lenter_again
	.quad	.Lentered_held, .Lentered_closed, .Lentered_held
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
