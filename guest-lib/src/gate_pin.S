/* SPDX-License-Identifier: MIT */
/*
 * The gates of backend "mpk": domain_begin() and domain_end() where no module knows what threads
 * hold; and the two instructions for what is done in C, there and under "vmfunc".
 *
 * A right is a bit of PKRU.  Besides, each thread counts, for each key, how often it has opened it:
 * a key that a thread has pinned is not taken from its domain.  What is opened rests on the
 * domain table, which the process cannot write, and on the ID that was asked for.
 *
 * The entry is looked at again after the key is pinned: who takes the key away clears the entry,
 * has all threads see that by membarrier(2), and then looks for pins.
 *
 * What they cannot do goes on in C: the thread's first domain, a domain without a key, one that is
 * open already.
 *
 * A handler may fork in the middle of a gate.  The child comes back to it with all its pins gone and
 * the same table, empty: so no more pins are taken away than there are.
 *
 * Registers: edi id, esi its index, r8 its entry, r9 the thread's word and then its slot, r10 the
 * table, r11 the pkey, eax PKRU, ecx and edx 0 for it.
 */
#include "gate.h"
#include "gate_check.h"

#define SLOT_MASK	((EPK_SLOTS - 1) * EPK_SLOT_BYTES)

	.text
	.globl	epk_pin_gates_start, epk_pin_gates_end
	.hidden	epk_pin_gates_start, epk_pin_gates_end
epk_pin_gates_start:

/*
 * No ID has index 0, where an entry without a key is.  Key 0 has no bits that deny anything, and
 * no pins.
 */
.macro find other
	mov	%edi, %esi
	and	$EPK_GATE_INDEX_MASK, %esi
	mov	epk_state_page+EPK_STATE_PIN_TABLE(%rip), %r10
	mov	(%r10,%rsi,8), %r8
	cmp	%edi, %r8d
	jne	\other
	mov	%r8, %r11
	shr	$48, %r11
	mov	epk_word@gottpoff(%rip), %r9
	xor	%ecx, %ecx
	rdpkru
	test	%eax, EPK_GATE_AD-EPK_GATE_BEFORE(%r10,%r11,4)
.endm

/* Whatever the thread's memory says, it is a slot. */
.macro slot
	mov	%fs:EPK_WORD_SLOT(%r9), %r9d
	and	$SLOT_MASK, %r9d
	add	.Lslots(%rip), %r9
.endm

/* One pin less.  EAX and ECX are lost. */
.macro unpin
	mov	EPK_SLOT_PINS(%r9,%r11,4), %eax
.Lagain\@:
	test	%eax, %eax
	jz	.Lnone\@
	lea	-1(%rax), %ecx
	cmpxchg	%ecx, EPK_SLOT_PINS(%r9,%r11,4)
	jne	.Lagain\@
.Lnone\@:
.endm

.macro begin name, prot
	.type	\name, @function
	.balign	64
\name:
	.cfi_startproc
	find	.Lslow\@
	jz	.Lslow\@			/* open already, or no key */
	cmpl	$0, %fs:EPK_WORD_FOLLOWS(%r9)
	je	.Lslow\@			/* nobody would see the pin */
	slot
	incl	EPK_SLOT_PINS(%r9,%r11,4)
	cmp	(%r10,%rsi,8), %r8
	jne	.Lgone\@
	and	EPK_GATE_MASK-EPK_GATE_BEFORE(%r10,%r11,4), %eax
	.if \prot == 1
	or	EPK_GATE_WD-EPK_GATE_BEFORE(%r10,%r11,4), %eax
	.endif
	note_pkru
	wrpkru
	check_pkru
	ret
.Lgone\@:
	unpin
.Lslow\@:
	mov	$\prot, %esi
	jmp	*epk_state_page+EPK_STATE_BEGIN_SLOW(%rip)
	.cfi_endproc
	.size	\name, . - \name
.endm

	begin	pin_begin_write, 3
	begin	pin_begin_read, 1

/* int epk_pin_begin(int id, int prot) */
	.globl	epk_pin_begin
	.hidden	epk_pin_begin
	.type	epk_pin_begin, @function
	.balign	16
epk_pin_begin:
	.cfi_startproc
	cmp	$3, %esi
	je	pin_begin_write
	cmp	$1, %esi
	je	pin_begin_read
	cmp	$2, %esi
	je	pin_begin_write
	jmp	*epk_state_page+EPK_STATE_BEGIN_SLOW(%rip)
	.cfi_endproc
	.size	epk_pin_begin, . - epk_pin_begin

/* int epk_pin_end(int id).  The pin goes when the key is closed. */
	.globl	epk_pin_end
	.hidden	epk_pin_end
	.type	epk_pin_end, @function
	.balign	64
epk_pin_end:
	.cfi_startproc
	find	.Lend_slow
	jnz	.Lend_slow			/* closed */
	slot
	cmpl	$0, EPK_SLOT_PINS(%r9,%r11,4)
	je	.Lend_slow			/* not begun */
	or	EPK_GATE_BITS-EPK_GATE_BEFORE(%r10,%r11,4), %eax
	note_pkru
	wrpkru
	check_pkru
	unpin
	xor	%eax, %eax
	ret
.Lend_slow:
	jmp	*epk_state_page+EPK_STATE_END_SLOW(%rip)
	.cfi_endproc
	.size	epk_pin_end, . - epk_pin_end

/*
 * void epk_pkru_set(uint32_t pkru).  It opens one key of the library at most with each call.
 */
	.globl	epk_pkru_set
	.hidden	epk_pkru_set
	.type	epk_pkru_set, @function
	.balign	16
epk_pkru_set:
	.cfi_startproc
	xor	%ecx, %ecx
	rdpkru
	mov	%edi, %r8d
	not	%r8d
	and	%r8d, %eax
	and	epk_state_page+EPK_STATE_ACCESS(%rip), %eax
	lea	-1(%rax), %r8d
	test	%r8d, %eax
	jnz	.Lforged
	mov	%edi, %eax
	note_pkru
	wrpkru
	check_pkru
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
	check_closed
	ret
	forged
	.cfi_endproc
	.size	epk_ept_enter, . - epk_ept_enter

epk_pin_gates_end:

	.section .data.rel.ro, "aw"
	.balign	8
.Lslots:
	.quad	epk_slots

#include "note.h"
