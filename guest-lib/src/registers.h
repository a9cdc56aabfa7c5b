/* SPDX-License-Identifier: MIT */
/*
 * For the assembly files: registers that others may have left something in.
 *
 * XGETBV with ECX 1 says which parts of the registers are not as they are at first, which is
 * all zero.  Intel SDM volume 1, 13.6.
 */
#ifndef EPK_REGISTERS_H
#define EPK_REGISTERS_H

/*
 * What others may have left in registers for vectors, masks and floating point is gone; the control
 * words stay.  EAX, ECX, EDX and EDI are lost.
 */
.macro registers_clear
	mov	epk_state_page+EPK_STATE_XFEATURES(%rip), %edi
	mov	%edi, %eax
	test	$EPK_XINUSE, %edi
	jnz	.Lask\@
	xor	%ecx, %ecx
	xor	%edx, %edx
	jmp	.Lwhatever\@
.Lask\@:
	mov	$1, %ecx
	xgetbv
	and	%edi, %eax
.Lwhatever\@:
	test	$EPK_X87, %al
	jz	.Lsse\@
	fnstcw	-8(%rsp)
	fninit
	.irp	n, 0,1,2,3,4,5,6,7
	pxor	%mm\n, %mm\n
	.endr
	emms
	fldcw	-8(%rsp)
.Lsse\@:
	test	$EPK_AVX, %dil
	jz	.Lno_avx\@
	vzeroall
	test	$EPK_ZMM_HIGH, %al
	jz	.Lmasks\@
	.irp	n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	vpxord	%zmm\n, %zmm\n, %zmm\n
	.endr
.Lmasks\@:
	test	$EPK_OPMASK, %al
	jz	.Lcleared\@
	.irp	n, 0,1,2,3,4,5,6,7
	kxorw	%k\n, %k\n, %k\n
	.endr
	jmp	.Lcleared\@
.Lno_avx\@:
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	pxor	%xmm\n, %xmm\n
	.endr
.Lcleared\@:
.endm

#endif /* EPK_REGISTERS_H */
