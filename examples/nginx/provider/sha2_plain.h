/* SPDX-License-Identifier: MIT */
/*
 * The compression function of one size of SHA-2 (FIPS 180-4, 6.2.2 and 6.4.2), for any CPU.
 * Included once for each, with the registers and numbers of that size: see sha2.S.
 *
 *	void NAME(WORD state[8], const uint8_t *message_block, WORD schedule[ROUNDS])
 *
 * a to h are in registers throughout, and what is added to them never leaves these.
 */
	.macro	sha2_round a, b, c, d, e, f, g, h, x, y, i
	/* h += Sigma1(e) + Ch(e, f, g) + K + W; @x is b ^ c, and @y will be a ^ b */
	add	\i*BYTES(%rsi), %\h
	mov	%\e, %T
	mov	%\f, %U
	add	\i*BYTES(%rbp), %\h
	ror	$(SUM1_C - SUM1_B), %T
	xor	%\g, %U
	xor	%\e, %T
	and	%\e, %U
	ror	$(SUM1_B - SUM1_A), %T
	xor	%\g, %U
	xor	%\e, %T
	add	%U, %\h
	ror	$SUM1_A, %T
	mov	%\a, %U
	add	%T, %\h
	mov	%\a, %\y
	add	%\h, %\d
	/* h += Sigma0(a) + Maj(a, b, c) */
	ror	$(SUM0_C - SUM0_B), %U
	xor	%\b, %\y
	xor	%\a, %U
	and	%\y, %\x
	ror	$(SUM0_B - SUM0_A), %U
	xor	%\b, %\x
	xor	%\a, %U
	add	%\x, %\h
	ror	$SUM0_A, %U
	add	%U, %\h
	.endm

	.globl	NAME
	.hidden	NAME
	.type	NAME, @function
	.balign	16
NAME:
	.cfi_startproc
	endbr64
	.irp	reg, rbx, rbp, r12, r13, r14, r15, rdi
	push	%\reg
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset \reg, 0
	.endr

	/* The message's words, and those that follow from them. */
	xor	%ecx, %ecx
1:	mov	(%rsi,%rcx,BYTES), %A
	bswap	%A
	mov	%A, (%rdx,%rcx,BYTES)
	inc	%ecx
	cmp	$16, %ecx
	jb	1b
2:	mov	-15*BYTES(%rdx,%rcx,BYTES), %A
	mov	-2*BYTES(%rdx,%rcx,BYTES), %B
	mov	%A, %E
	mov	%A, %F
	mov	%B, %G
	mov	%B, %H
	ror	$LOW0_A, %A
	ror	$LOW0_B, %E
	shr	$LOW0_SHIFT, %F
	ror	$LOW1_A, %B
	ror	$LOW1_B, %G
	shr	$LOW1_SHIFT, %H
	xor	%E, %A
	xor	%G, %B
	xor	%F, %A
	xor	%H, %B
	add	-16*BYTES(%rdx,%rcx,BYTES), %A
	add	-7*BYTES(%rdx,%rcx,BYTES), %B
	add	%B, %A
	mov	%A, (%rdx,%rcx,BYTES)
	inc	%ecx
	cmp	$ROUNDS, %ecx
	jb	2b

	mov	%rdx, %rsi
	lea	CONSTANTS(%rip), %rbp
	mov	0*BYTES(%rdi), %A
	mov	1*BYTES(%rdi), %B
	mov	2*BYTES(%rdi), %C
	mov	3*BYTES(%rdi), %D
	mov	4*BYTES(%rdi), %E
	mov	5*BYTES(%rdi), %F
	mov	6*BYTES(%rdi), %G
	mov	7*BYTES(%rdi), %H
	mov	%B, %X
	xor	%C, %X
	mov	$ROUNDS/8, %edi
3:	sha2_round A, B, C, D, E, F, G, H, X, Y, 0
	sha2_round H, A, B, C, D, E, F, G, Y, X, 1
	sha2_round G, H, A, B, C, D, E, F, X, Y, 2
	sha2_round F, G, H, A, B, C, D, E, Y, X, 3
	sha2_round E, F, G, H, A, B, C, D, X, Y, 4
	sha2_round D, E, F, G, H, A, B, C, Y, X, 5
	sha2_round C, D, E, F, G, H, A, B, X, Y, 6
	sha2_round B, C, D, E, F, G, H, A, Y, X, 7
	add	$8*BYTES, %rsi
	add	$8*BYTES, %rbp
	dec	%edi
	jnz	3b

	pop	%rdi
	.cfi_adjust_cfa_offset -8
	.cfi_restore rdi
	add	%A, 0*BYTES(%rdi)
	add	%B, 1*BYTES(%rdi)
	add	%C, 2*BYTES(%rdi)
	add	%D, 3*BYTES(%rdi)
	add	%E, 4*BYTES(%rdi)
	add	%F, 5*BYTES(%rdi)
	add	%G, 6*BYTES(%rdi)
	add	%H, 7*BYTES(%rdi)
	.irp	reg, r15, r14, r13, r12, rbp, rbx
	pop	%\reg
	.cfi_adjust_cfa_offset -8
	.cfi_restore \reg
	.endr
	ret
	.cfi_endproc
	.size	NAME, . - NAME

	.purgem	sha2_round

#undef NAME
#undef CONSTANTS
#undef BYTES
#undef ROUNDS
#undef A
#undef B
#undef C
#undef D
#undef E
#undef F
#undef G
#undef H
#undef T
#undef U
#undef X
#undef Y
#undef LOW0_A
#undef LOW0_B
#undef LOW0_SHIFT
#undef LOW1_A
#undef LOW1_B
#undef LOW1_SHIFT
#undef SUM0_A
#undef SUM0_B
#undef SUM0_C
#undef SUM1_A
#undef SUM1_B
#undef SUM1_C
