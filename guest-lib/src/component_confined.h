/* SPDX-License-Identifier: MIT */
/*
 * For component_gate.S: components in which a thread can change no ordinary memory, since key 0 is
 * write-disabled in the PKRU that opens them.
 *
 * No instruction has such a component open and key 0 as well.  So whatever its code has done to registers,
 * to its stack and to its header, it can have nothing written that it could not write itself; and the way
 * back rests on nothing of that: which component it is, who called it and the stack pointer of
 * ordinary code stand in ordinary memory (struct epk_confined_call), where they are found from the FS base.
 * That is the GS base while such a component runs, whose own FS base is that of a copy of the thread's block
 * in its domain, made at each call: so it has errno and other thread-local variables.
 * While a component is open nothing is read from there but by the FS base, as that could be forged to lie in it.
 *
 * The note of such a component has its key elsewhere, and a page before its header: the other
 * gates do not open it, and a jump to their WRPKRU finds no header.  From here, a jump to the
 * WRPKRU that opens meets a check of key 0.
 *
 * From the WRPKRU to the change of stacks, and on the way back, the stack pointer is in memory that
 * cannot be written to.  Signals have their frames below epk_word.outside, here as in the component: so
 * whoever jumps in here with a stack pointer of his own has nothing written there.
 *
 * It is entered once by a thread: while it waits it cannot be called.
 */

#define EMFILE		24

/* R10: the header of a confined component.  RSI is lost. */
.macro header_confined id
	header	\id, %esi, %rsi
	add	$EPK_CONF_HEADER, %r10
.endm

/* R11: the slot at offset R9 of the header R10. */
.macro slot_confined
	mov	EPK_COMP_MASK(%r10), %r11d
	and	%r9d, %r11d
	lea	EPK_COMP_SLOTS(%r10,%r11), %r11
.endm

/* In R15, above the caller, the offset of the thread's slot.  RAX is lost. */
.macro caller_slot
	mov	%fs:EPK_WORD_COMP_SLOT(%r13), %eax
	shl	$32, %rax
	or	%rax, %r15
.endm

/* To \held, or nothing is open, and key 0 is. */
.macro leave_all held
	xor	%ecx, %ecx
	rdpkru
	unheld \held
	closed
	and	$~2, %eax
	wrpkru
.endm

.macro left_all
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
	mov	epk_word@gottpoff(%rip), %r13
.endm

/* As "open", and key 0 is write-disabled. */
.macro confine id, none, away, held
	mov	\id, %esi
	and	epk_state_page+EPK_STATE_INDEX_MASK(%rip), %esi
	mov	epk_state_page+EPK_STATE_GATE_TABLE(%rip), %r14
	cmp	(%r14,%rsi,8), \id
	jne	\none
	mov	EPK_GATE_NOTES(%r14,%rsi,8), %r10
	mov	%r10d, %edi
	shr	$4, %edi
	and	$15, %edi
	jz	\away
	xor	%ecx, %ecx
	rdpkru
	unheld \held
	mov	epk_word@gottpoff(%rip), %r13
	shr	$48, %r10
	cmp	-EPK_GATE_IDENTITY(%r14), %r10w
	je	.Lhere\@
	closed
	wrpkru
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	jnz	.Lforged
	mov	%fs:EPK_WORD_SWITCHES(%r13), %rcx
	incq	(%rcx)
	mov	%r10d, %ecx			/* EAX is 0 by the check */
	vmfunc
	xor	%ecx, %ecx
	rdpkru
.Lhere\@:
	mov	\id, %fs:EPK_WORD_COMPONENT(%r13)
	closed
	and	EPK_GATE_MASK-EPK_GATE_BEFORE(%r14,%rdi,4), %eax
	or	$2, %eax
	wrpkru
.endm

.macro confined id
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %ecx
	blsr	%ecx, %ecx
	jnz	.Lforged
	test	$2, %al
	jz	.Lforged
	header_confined \id
	mov	epk_word@gottpoff(%rip), %r13
.endm

/* R11: the record of the last call of the component \id.  Nothing is open. */
.macro record id
	mov	%fs:EPK_WORD_CONFINED(%r13), %r11
.Lrecord\@:
	test	$EPK_CONF_ROOM-1, %r11d
	jz	.Lforged
	cmp	\id, EPK_CONF_CALLEE(%r11)
	je	.Lfound\@
	sub	$EPK_CONF_BYTES, %r11
	jmp	.Lrecord\@
.Lfound\@:
.endm

	.type	confined_gate, @function
	.balign	64
confined_gate:
	.cfi_startproc
	.cfi_undefined %rip
/*
 * As .Lenter.  A component that calls is left first: what follows a pointer could be made to write there.
 * From here on: ebx the callee, ebp the entry, r12 the argument, r8 what the caller expects, r9 the offset
 * of the thread's slot, and on the way back rbx the value.
 */
.Lconfined_enter:
	mov	%edi, %ebx
	mov	%esi, %ebp
	mov	%r8, %r12
	mov	%r9, %r8
	rorx	$32, %r15, %r9
	test	%r15d, %r15d
	jz	.Lconfined_push
.Lconfined_ahead:
	leave_all .Lconfined_stay
.Lconfined_ready:
	left_all
.Lconfined_push:
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_CONFINED(%r13), %r11
	add	$EPK_CONF_BYTES, %r11
	test	$EPK_CONF_ROOM-1, %r11d
	jz	.Lconfined_full
	/* First: a handler that interrupts this takes the next. */
	mov	%r11, %fs:EPK_WORD_CONFINED(%r13)
	mov	%r15d, EPK_CONF_CALLER(%r11)
	mov	%ebx, EPK_CONF_CALLEE(%r11)
	rdgsbase %rax
	mov	%rax, EPK_CONF_GS(%r11)
	rdfsbase %rax
	wrgsbase %rax
	test	%r15d, %r15d
	jnz	.Lconfine
	mov	%r8, EPK_CONF_SP(%r11)
.Lconfine:
	confine	%ebx, .Lconfined_cannot, .Lconfined_cannot, .Lconfined_cannot
.Lconfined:
	confined %ebx
	slot_confined
	owner	%rsi
	lock cmpxchg %rsi, EPK_COMP_OWNER(%r11)
	jne	.Lconfined_not_ready
.Lconfined_idle:
	mov	EPK_COMP_TOP(%r11), %rsp
.Lconfined_on_stack:
	mov	%r8, EPK_COMP_NUMBER(%r11)
	movq	$0, EPK_COMP_EXPECT(%r11)
	mov	EPK_COMP_TLS(%r11), %rdx
	mov	epk_state_page+EPK_STATE_TLS_BELOW(%rip), %eax
	rdfsbase %rsi
	mov	%rdx, %rdi
	sub	%rax, %rsi
	sub	%rax, %rdi
	lea	EPK_TLS_ABOVE(%rax), %ecx
	cld
	rep movsb
	/* Where it finds itself, by the ABI and in the C library. */
	mov	%rdx, (%rdx)
	mov	%rdx, 16(%rdx)
	wrfsbase %rdx
	cmp	EPK_COMP_NR(%r10), %rbp
	jae	.Lconfined_no_entry
	mov	EPK_COMP_ENTRIES(%r10,%rbp,8), %rax
	mov	%r12, %rdi
	xor	%ebp, %ebp
	push	$FLAGS
	popfq
	call	*%rax
	mov	%rax, %rbx
	xor	%ebp, %ebp
/* Of all registers only RBX and RBP count.  A fault may come from a jump that has opened key 0. */
.Lconfined_leave:
	xor	%ecx, %ecx
	rdpkru
	test	$2, %al
	jz	.Lforged
	rdgsbase %rcx
	wrfsbase %rcx
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_COMPONENT(%r13), %r12d
	mov	%fs:EPK_WORD_COMP_SLOT(%r13), %r9d
	header_confined %r12d
	slot_confined
	registers_first
	mov	EPK_COMP_NUMBER(%r11), %r9
	mov	%rbx, %r8
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
	inside	%rcx, EPK_COMP_OWNER(%r11)
	jne	.Lconfined_close		/* another's: somebody has written to epk_word.comp_slot */
	movq	$0, EPK_COMP_EXPECT(%r11)
	inc	%rcx
.Lconfined_off_stack:
	/* From here on the slot may be a handler's. */
	mov	%rcx, EPK_COMP_OWNER(%r11)
.Lconfined_close:
	leave_all .Lconfined_drop
.Lconfined_closed:
	left_all
	record	%r12d
	mov	EPK_CONF_GS(%r11), %rax
	wrgsbase %rax
	mov	EPK_CONF_CALLER(%r11), %r15d
	mov	EPK_CONF_SP(%r11), %rcx
	sub	$EPK_CONF_BYTES, %r11
	mov	%r11, %fs:EPK_WORD_CONFINED(%r13)
	caller_slot
	test	%r15d, %r15d
	jnz	.Lback
	mov	%rcx, %rsp
	xor	%r9d, %r9d
	jmp	.Lreturn_outside

.Lconfined_drop:
	drop_all
	jmp	.Lconfined_close

/* In what has just been entered, by who may not. */
.Lconfined_not_ready:
	cmp	%rsi, %rax
	je	.Lconfined_inside
	test	$1, %al
	jz	.Lconfined_busy
	lock cmpxchg %rsi, EPK_COMP_OWNER(%r11)
	je	.Lconfined_idle
.Lconfined_busy:
	mov	$-EBUSY, %ebp
	jmp	.Lconfined_refuse
.Lconfined_inside:
	mov	$-EDEADLK, %ebp
.Lconfined_refuse:
	mov	%r8, %r9
	mov	%ebx, %r12d
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
	jmp	.Lconfined_close

/* It cannot be entered as yet; nothing of it is open. */
.Lconfined_cannot:
	mov	epk_word@gottpoff(%rip), %r13
	mov	%fs:EPK_WORD_CONFINED(%r13), %r11
	mov	EPK_CONF_GS(%r11), %rax
	wrgsbase %rax
	subq	$EPK_CONF_BYTES, %fs:EPK_WORD_CONFINED(%r13)
.Lconfined_stay:
	mov	%r8, %r9
	jmp	.Lstay_here
.Lconfined_full:
	mov	$-EMFILE, %ebp
	mov	%r8, %r9
	test	%r15d, %r15d
	jnz	.Lback
	jmp	.Lclose
.Lconfined_full_end:

.Lconfined_no_entry:
	mov	$-EINVAL, %ebp
	jmp	.Lconfined_leave
.Lconfined_fault:
	xor	%ebx, %ebx
	mov	$-EFAULT, %ebp
	jmp	.Lconfined_leave

/* As .Lfrom_component, for a caller that is confined: what has been looked at is its own block. */
.Lfrom_confined:
	test	$2, %al
	jz	.Lcannot			/* a handler on its stack */
	mov	%edi, %ebx
	mov	%esi, %ebp
	rdfsbase %r12
	rdgsbase %rcx
	wrfsbase %rcx
	mov	%fs:EPK_WORD_COMPONENT(%r13), %r15
	header_confined %r15d
	mov	EPK_GATE_NOTES(%r14,%rsi,8), %rcx
	mov	%ecx, %edi
	shr	$4, %edi
	and	$15, %edi
	jz	.Lconfined_stays
	test	%eax, EPK_GATE_AD-EPK_GATE_BEFORE(%r14,%rdi,4)
	jnz	.Lconfined_stays
	shr	$48, %rcx
	cmp	-EPK_GATE_IDENTITY(%r14), %cx
	jne	.Lconfined_stays
	slot
	inside	%rcx, SLOT(EPK_COMP_OWNER)
	jnz	.Lconfined_stays
	number
	mov	%ebx, %edi
	wait
	mov	%edi, %ebx
	registers_first
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
.Lconfined_depart:
	leave_all .Lconfined_drop_depart
.Lconfined_departed:
	left_all
	record	%r15d
	mov	EPK_CONF_GS(%r11), %rax
	wrgsbase %rax
	mov	%ebx, %edi
	mov	%ebp, %esi
	jmp	.Lenter
.Lconfined_drop_depart:
	drop_all
	jmp	.Lconfined_depart
.Lconfined_depart_end:
.Lconfined_stays:
	wrfsbase %r12
	jmp	.Lcannot

/* As .Lback, to a caller that is confined. */
.Lconfined_back:
	leave_all .Lhold_nothing
.Lconfined_backing:
	left_all
	record	%r15d
	mov	%fs:EPK_WORD_OUTSIDE(%r13), %rsp
	mov	%r11, %fs:EPK_WORD_CONFINED(%r13)
	rdfsbase %rcx
	rdgsbase %rax
	cmp	%rax, %rcx
	je	.Lconfine_back			/* it has been here before */
	mov	%rax, EPK_CONF_GS(%r11)
	wrgsbase %rcx
.Lconfine_back:
	confine	%r15d, .Lforged, .Lbring, .Lhold_nothing
.Lconfined_home:
	confined %r15d
	waiting
.Lconfined_home_end:
	mov	SLOT(EPK_COMP_TLS), %rcx
	wrfsbase %rcx
	jmp	.Lreturned
	.size	confined_gate, . - confined_gate

/* As epk_gate_release(). */
	.globl	epk_gate_release_confined
	.hidden	epk_gate_release_confined
	.type	epk_gate_release_confined, @function
	.balign	16
epk_gate_release_confined:
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%edi, %r8d
	mov	epk_word@gottpoff(%rip), %r13
	pushq	%fs:EPK_WORD_OUTSIDE(%r13)
	mov	%rsp, %fs:EPK_WORD_OUTSIDE(%r13)
	mov	%fs:EPK_WORD_COMPONENT(%r13), %r15
.Lconfine_release:
	confine	%r8d, .Lconfined_released, .Lconfined_released, .Lconfined_released
.Lconfined_release:
	confined %r8d
	slot
	inside	%rcx, SLOT(EPK_COMP_OWNER)
	jnz	.Lconfined_release_close
	movq	$0, SLOT(EPK_COMP_EXPECT)
	orq	$1, SLOT(EPK_COMP_OWNER)
.Lconfined_release_close:
	leave_all .Lforged
	left_all
.Lconfined_released:
	mov	epk_word@gottpoff(%rip), %r13
	pop	%fs:EPK_WORD_OUTSIDE(%r13)
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	ret
	.cfi_endproc
	.size	epk_gate_release_confined, . - epk_gate_release_confined
.Lconfined_release_end:

/*
 * Those that are restarted; and what no fault leaves by what a component has said.
 */
.macro confined_gates
	.quad	.Lconfined_ahead, .Lconfined_ready, .Lconfined_ahead
	.quad	.Lconfine, .Lconfined, .Lconfine
	.quad	.Lconfined_close, .Lconfined_closed, .Lconfined_close
	.quad	.Lconfined_depart, .Lconfined_departed, .Lconfined_depart
	.quad	.Lconfined_back, .Lconfined_backing, .Lconfined_back
	.quad	.Lconfine_back, .Lconfined_home, .Lconfine_back
	.quad	.Lconfine_release, .Lconfined_release, .Lconfine_release
	.quad	.Lconfined_leave, .Lconfined_off_stack, .Lconfined_leave
	.quad	.Lconfined_enter, .Lconfined_on_stack, 0
	.quad	.Lconfined_off_stack, .Lconfined_full_end, 0
	.quad	.Lconfined_depart, .Lconfined_depart_end, 0
	.quad	.Lconfined_back, .Lconfined_home_end, 0
	.quad	epk_gate_release_confined, .Lconfined_release_end, 0
.endm
