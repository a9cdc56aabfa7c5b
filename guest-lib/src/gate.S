/* SPDX-License-Identifier: MIT */
/*
 * The gates of backend "epk": domain_begin() and domain_end().
 *
 * A right is a bit of PKRU, or an entry of the record that the module keeps of the thread; see
 * EPK_THREAD_FOLLOWS in <linux/epk.h>.  Nothing in memory that the process can write says what a
 * thread holds.  What is opened rests on the domain table and the identity page, which the
 * process cannot write, and on the ID that was asked for.
 *
 * Here are: any domain in the EPT that the thread is in, whatever else it holds; and
 * one in another EPT if it has no key open and no closed key has its held bit, which says that
 * it holds nothing.  All else is asked of the module, or of another backend.
 *
 * The module restarts a gate that is interrupted before its WRPKRU, or whose domain moves: see
 * epk_gate_list.  So what was read from the table is true when the key opens.
 *
 * After a WRPKRU with a constant comes a check that rests on no register from before it: a
 * jump to the instruction with a PKRU of one's own leaves at most one domain
 * open, which is what a call of domain_begin() gives.  A jump to VMFUNC meets the same WRPKRU.
 * Where other keys stay open, the value is compared with what was noted on the stack: who can write
 * there and jump to the WRPKRU can have any keys of the EPT, as who calls domain_begin() for each can.
 *
 * VMFUNC leaf 0 is EPTP switching, Intel SDM volume 3C, 26.5.6.3.  An index
 * without an EPT, or a CPU without VMFUNC, raises SIGILL.
 *
 * Needs BMI1 and BMI2, which all CPUs with protection keys have; epk_gates_run() looks.  Where they cannot
 * be used, the table has no entry: see state_page.c.
 *
 * Registers: edi id, esi its index, r8 its entry and then its pkey, r9 its EPT, r10 the table, eax
 * PKRU, ecx and edx 0 for it.  An entry without a place has an EPT that no thread is in, and what is everywhere
 * another: both are above all that there are.
 */
#include "gate.h"
#include "gate_check.h"

	.text
	.globl	epk_gates_start, epk_gates_end
	.hidden	epk_gates_start, epk_gates_end
epk_gates_start:

.macro find id, other
	mov	\id, %esi
	and	epk_state_page+EPK_STATE_INDEX_MASK(%rip), %esi
	mov	epk_state_page+EPK_STATE_GATE_TABLE(%rip), %r10
	mov	(%r10,%rsi,8), %r8
	cmp	\id, %r8d
	jne	\other
	rorx	$32, %r8, %r9
	cmp	-EPK_GATE_IDENTITY(%r10), %r9w
.endm

/* To the domain's EPT, and count it. */
.macro switch_to_r9
	movzx	%r9w, %ecx
	xor	%eax, %eax
	vmfunc
	mov	epk_word@gottpoff(%rip), %rcx
	mov	%fs:EPK_WORD_SWITCHES(%rcx), %rcx
	incq	(%rcx)
.endm

/* At most one key of the library is open, and the answer is 0. */
.macro check_one
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %eax
	blsr	%eax, %eax
	jnz	.Lforged
	ret
.endm

/*
 * Where bpftrace and its like can have the kernel tell of each call, in the form of SystemTap's
 * sys/sdt.h but for its nop: at a function's first instruction, when nothing has been opened yet, a
 * trap does no harm.  It costs nothing while nobody listens.  The first argument is the domain.
 */
.macro probe name, more
.Lprobe\@:
	.pushsection .note.stapsdt, "", "note"
	.balign	4
	.long	.Lprobe_is\@ - .Lprobe_of\@, .Lprobe_end\@ - .Lprobe_is\@, 3
.Lprobe_of\@:
	.asciz	"stapsdt"
.Lprobe_is\@:
	.quad	.Lprobe\@, 0, 0	/* no other base, nobody to be told of listeners */
	.asciz	"epk"
	.asciz	"\name"
	.asciz	"-4@%edi\more"
.Lprobe_end\@:
	.balign	4
	.popsection
.endm

.macro begin name, rights, prot
	.globl	\name
	.type	\name, @function
	.balign	64
\name:
.Lfirst_\name:
	.cfi_startproc
	probe	begin, " -4@$\prot"
	find	%edi, .Lslow_\name
	jne	.Lother_\name
	shr	$48, %r8
.Lhere_\name:
	xor	%ecx, %ecx
	rdpkru
	cmp	$EPK_PKRU_ACCESS, %eax
	jne	.Lnested_\name
	mov	\rights-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	wrpkru
.Lopen1_\name:
	check_one

.Lnested_\name:
	test	%eax, EPK_GATE_AD-EPK_GATE_BEFORE(%r10,%r8,4)
	jz	.Lslow_\name			/* open already */
	mov	epk_word@gottpoff(%rip), %r9
	cmpl	$0, %fs:EPK_WORD_FOLLOWS(%r9)
	je	.Lslow_\name			/* what it opens would be lost */
	and	EPK_GATE_MASK-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	.if \prot == 1
	or	EPK_GATE_WD-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	.endif
	note_pkru
	wrpkru
.Lopen2_\name:
	check_pkru
	ret

/* The upper bit of its EPT is in the carry flag.  Everywhere, or evicted, or on its way. */
.Lnowhere_\name:
	jnz	.Lhere_\name
	jmp	.Lslow_\name

.Lother_\name:
	shr	$48, %r8
	jbe	.Lnowhere_\name
	xor	%ecx, %ecx
	rdpkru
	cmp	$EPK_PKRU_ACCESS, %eax
	jne	.Lmasked_\name
	switch_to_r9
	mov	\rights-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	xor	%ecx, %ecx
	wrpkru
.Lopen3_\name:
	check_one

/* The same beside keys of the program's. */
.Lmasked_\name:
	andn	epk_state_page+EPK_STATE_ACCESS(%rip), %eax, %r11d
	jnz	.Lslow_\name			/* something is open */
	test	%eax, epk_state_page+EPK_STATE_HELD_BITS(%rip)
	jnz	.Lslow_\name			/* a held bit */
	mov	%eax, %r11d
	switch_to_r9
	mov	%r11d, %eax
	and	EPK_GATE_MASK-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	.if \prot == 1
	or	EPK_GATE_WD-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	.endif
	xor	%ecx, %ecx
	wrpkru
.Lopen4_\name:
	check_one

.Lslow_\name:
	mov	$\prot, %esi
	jmp	*epk_state_page+EPK_STATE_BEGIN(%rip)
	.cfi_endproc
	.size	\name, . - \name
.endm

	.globl	domain_begin
	.type	domain_begin, @function
	.balign	64
domain_begin:
	.cfi_startproc
	cmp	$3, %esi
	je	epk_begin_write
	cmp	$1, %esi
	je	epk_begin_read
	cmp	$2, %esi
	je	epk_begin_write
	jmp	*epk_state_page+EPK_STATE_BEGIN(%rip)
	.cfi_endproc
	.size	domain_begin, . - domain_begin

	begin	epk_begin_write, EPK_GATE_RW, 3
	begin	epk_begin_read, EPK_GATE_RO, 1

	.globl	domain_end
	.type	domain_end, @function
	.balign	64
domain_end:
.Lend_first:
	.cfi_startproc
	probe	end
	find	%edi, .Lend_slow
	jne	.Lend_other
	shr	$48, %r8
.Lend_here:
	xor	%ecx, %ecx
	rdpkru
	cmp	EPK_GATE_RW-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	jne	.Lend_nested
	mov	$EPK_PKRU_ACCESS, %eax
	wrpkru
.Lclosed1:
	sub	$EPK_PKRU_ACCESS, %eax
	jne	.Lforged
	ret

.Lend_other:
	shr	$48, %r8
	jz	.Lend_slow			/* evicted, or on its way */
	jc	.Lend_here			/* everywhere, as above */
	jmp	.Lend_slow

/* Something else is open, or held: all closed keys have their held bits, and this one is to. */
.Lend_nested:
	test	%eax, EPK_GATE_AD-EPK_GATE_BEFORE(%r10,%r8,4)
	jnz	.Lend_slow			/* not open here */
	lea	(%rax,%rax), %r11d
	and	%eax, %r11d			/* of each closed key the other bit */
	test	%r11d, epk_state_page+EPK_STATE_HELD_BITS(%rip)
	jz	.Lend_unheld
	or	EPK_GATE_BITS-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	note_pkru
	wrpkru
.Lclosed2:
	check_pkru
	ret

.Lend_unheld:
	test	%eax, epk_state_page+EPK_STATE_ACCESS(%rip)
	jz	.Lend_slow			/* no closed key to look at */
	/* If it was open for reading, it has its held bit now: who asks is told otherwise. */
	or	EPK_GATE_AD-EPK_GATE_BEFORE(%r10,%r8,4), %eax
	note_pkru
	wrpkru
.Lclosed3:
	check_pkru
	ret

.Lend_slow:
	jmp	*epk_state_page+EPK_STATE_END(%rip)
	.cfi_endproc
	.size	domain_end, . - domain_end

/* int epk_close(void) */
	.globl	epk_close
	.hidden	epk_close
	.type	epk_close, @function
	.balign	16
epk_close:
	.cfi_startproc
	xor	%ecx, %ecx
	rdpkru
	lea	(%rax,%rax), %r11d
	and	%eax, %r11d			/* of each closed key the other bit */
	test	%r11d, epk_state_page+EPK_STATE_HELD_BITS(%rip)
	jnz	epk_close_unknown
	test	%eax, epk_state_page+EPK_STATE_ACCESS(%rip)
	jz	epk_close_unknown		/* no closed key to look at */
	mov	epk_state_page+EPK_STATE_CLOSED(%rip), %r11d
	andn	%eax, %r11d, %eax
	or	epk_state_page+EPK_STATE_NOTHING(%rip), %eax
	wrpkru
.Lclosed4:
	check_closed
	ret

	forged
	.cfi_endproc
	.size	epk_close, . - epk_close

epk_gates_end:

/*
 * struct epk_gate[]: from the look at the table to the WRPKRU.  By names that nobody takes the
 * place of, as a program that has functions called so does of those that are exported.
 */
	.section .data.rel.ro, "aw"
	.balign	8
	.globl	epk_gate_list, epk_gate_list_end
	.hidden	epk_gate_list, epk_gate_list_end
epk_gate_list:
	.irp	name, epk_begin_write, epk_begin_read
	.quad	.Lfirst_\name, .Lopen1_\name, .Lfirst_\name
	.quad	.Lnested_\name, .Lopen2_\name, .Lfirst_\name
	.quad	.Lnowhere_\name, .Lopen3_\name, .Lfirst_\name
	.quad	.Lmasked_\name, .Lopen4_\name, .Lfirst_\name
	.endr
	.quad	.Lend_first, .Lclosed1, .Lend_first
	.quad	.Lend_other, .Lclosed2, .Lend_first
	.quad	.Lend_unheld, .Lclosed3, .Lend_first
	.quad	epk_close, .Lclosed4, epk_close
epk_gate_list_end:

#include "note.h"
