/* SPDX-License-Identifier: MIT */
/*
 * For the assembly files: registers that others may have left something in.
 *
 * XRSTOR of an area whose header says that nothing is in it sets whatever it is asked for to what it
 * is at first: all zero but for the control words.  Intel SDM volume 1, 13.8.  PKRU would be among
 * that, and all keys open: a jump to the instruction with other bits in EAX is found by what follows.
 */
#ifndef EPK_REGISTERS_H
#define EPK_REGISTERS_H

/* What a function keeps for its caller, for who unwinds the stack, too; and back, from the last to the first. */
.macro pushed regs:vararg
	.irp	reg, \regs
	push	%\reg
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %\reg, 0
	.endr
.endm

.macro popped regs:vararg
	.irp	reg, \regs
	pop	%\reg
	.cfi_adjust_cfa_offset -8
	.cfi_restore %\reg
	.endr
.endm

/* For registers_first: of what EDX:EAX has bits for. */
.macro first
	xrstor	.Lfirst(%rip)
	test	$EPK_X_PKRU, %eax
	jnz	.Lforged
.endm

/*
 * Registers for vectors, masks, tiles and floating point are as they are at first, control words
 * too.  Without XSAVE, and so without keys, FXRSTOR does: that is for \other, or is left out.  EAX
 * and EDX are lost.
 */
.macro registers_first other
	mov	epk_state_page+EPK_STATE_XFEATURES(%rip), %eax
.ifnb \other
	test	%eax, %eax
	jz	\other
.endif
	xor	%edx, %edx
	first
.endm

/* What a function may leave in the others, but for RAX and RDX, where its value is. */
.macro scratch_first
	.irp	reg, ecx,esi,edi,r8d,r9d,r10d,r11d
	xor	%\reg, %\reg
	.endr
.endm

/* All as FXRSTOR reads it, and the header. */
.macro first_area
	.pushsection .rodata
	.balign	64
.Lfirst:
	.long	0x37f
	.zero	20
	.long	0x1f80
	.zero	512 + 64 - 28
	.popsection
.endm

#endif /* EPK_REGISTERS_H */
