/* SPDX-License-Identifier: MIT */
/*
 * SHA-2's compression functions, of which no stack sees anything.
 *
 * libcrypto's keep what they add to each round, the message's words and a public constant,
 * on the stack: of a HMAC's key, and of all that is hashed after it.  These keep their working
 * variables in registers, and the message's words in memory of the caller's.  No compiler
 * decides what goes where, so they are in assembly.  No branch and no address depends on
 * the message.
 */
	.section .rodata
	.balign	16
.Lsha256_constants:
	.long	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1
	.long	0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3
	.long	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786
	.long	0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da
	.long	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147
	.long	0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13
	.long	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b
	.long	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070
	.long	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a
	.long	0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208
	.long	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
	.balign	16
.Lsha512_constants:
	.quad	0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc
	.quad	0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118
	.quad	0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2
	.quad	0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694
	.quad	0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65
	.quad	0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5
	.quad	0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4
	.quad	0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70
	.quad	0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df
	.quad	0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b
	.quad	0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30
	.quad	0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8
	.quad	0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8
	.quad	0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3
	.quad	0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec
	.quad	0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b
	.quad	0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178
	.quad	0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b
	.quad	0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c
	.quad	0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817
	.balign	16
.Lswap:
	.quad	0x0405060700010203, 0x0c0d0e0f08090a0b

	.text
/*
 * void epkp_sha256_ni(uint32_t state[8], const uint8_t *message_block): with the instructions for
 * it, which need no schedule.  xmm1 and xmm2 are ABEF and CDGH, xmm3 to xmm6 four words of the
 * message each.
 */
	.macro	ni_rounds m, i
	movdqa	\i*16(%rax), %xmm0
	paddd	%\m, %xmm0
	sha256rnds2 %xmm0, %xmm1, %xmm2
	pshufd	$0x0e, %xmm0, %xmm0
	sha256rnds2 %xmm0, %xmm2, %xmm1
	.endm

	/* @m is what it was 16 words ago, and becomes what follows @p. */
	.macro	ni_words m, n, o, p
	sha256msg1 %\n, %\m
	movdqa	%\p, %xmm7
	palignr	$4, %\o, %xmm7
	paddd	%xmm7, %\m
	sha256msg2 %\p, %\m
	.endm

	.macro	ni_next i, j, k, l
	ni_words xmm3, xmm4, xmm5, xmm6
	ni_rounds xmm3, \i
	ni_words xmm4, xmm5, xmm6, xmm3
	ni_rounds xmm4, \j
	ni_words xmm5, xmm6, xmm3, xmm4
	ni_rounds xmm5, \k
	ni_words xmm6, xmm3, xmm4, xmm5
	ni_rounds xmm6, \l
	.endm

	.globl	epkp_sha256_ni
	.hidden	epkp_sha256_ni
	.type	epkp_sha256_ni, @function
	.balign	16
epkp_sha256_ni:
	.cfi_startproc
	endbr64
	lea	.Lsha256_constants(%rip), %rax
	movdqa	.Lswap(%rip), %xmm7
	.irp	n, 0, 1, 2, 3
	movdqu	16*\n(%rsi), %xmm0
	pshufb	%xmm7, %xmm0
	.if	\n == 0
	movdqa	%xmm0, %xmm3
	.elseif	\n == 1
	movdqa	%xmm0, %xmm4
	.elseif	\n == 2
	movdqa	%xmm0, %xmm5
	.else
	movdqa	%xmm0, %xmm6
	.endif
	.endr
	movdqu	(%rdi), %xmm1
	movdqu	16(%rdi), %xmm2
	pshufd	$0xb1, %xmm1, %xmm0
	pshufd	$0x1b, %xmm2, %xmm2
	movdqa	%xmm0, %xmm1
	palignr	$8, %xmm2, %xmm1
	pblendw	$0xf0, %xmm0, %xmm2
	movdqa	%xmm1, %xmm8
	movdqa	%xmm2, %xmm9

	ni_rounds xmm3, 0
	ni_rounds xmm4, 1
	ni_rounds xmm5, 2
	ni_rounds xmm6, 3
	ni_next 4, 5, 6, 7
	ni_next 8, 9, 10, 11
	ni_next 12, 13, 14, 15

	paddd	%xmm8, %xmm1
	paddd	%xmm9, %xmm2
	pshufd	$0x1b, %xmm1, %xmm0
	pshufd	$0xb1, %xmm2, %xmm2
	movdqa	%xmm0, %xmm1
	pblendw	$0xf0, %xmm2, %xmm1
	palignr	$8, %xmm0, %xmm2
	movdqu	%xmm1, (%rdi)
	movdqu	%xmm2, 16(%rdi)
	ret
	.cfi_endproc
	.size	epkp_sha256_ni, . - epkp_sha256_ni

#define NAME		epkp_sha256_plain
#define CONSTANTS	.Lsha256_constants
#define BYTES		4
#define ROUNDS		64
#define A	eax
#define B	ebx
#define C	ecx
#define D	edx
#define E	r8d
#define F	r9d
#define G	r10d
#define H	r11d
#define T	r12d
#define U	r13d
#define X	r14d
#define Y	r15d
#define LOW0_A	7
#define LOW0_B	18
#define LOW0_SHIFT 3
#define LOW1_A	17
#define LOW1_B	19
#define LOW1_SHIFT 10
#define SUM0_A	2
#define SUM0_B	13
#define SUM0_C	22
#define SUM1_A	6
#define SUM1_B	11
#define SUM1_C	25
#include "sha2_plain.h"

#define NAME	epkp_sha512_plain
#define CONSTANTS	.Lsha512_constants
#define BYTES	8
#define ROUNDS	80
#define A	rax
#define B	rbx
#define C	rcx
#define D	rdx
#define E	r8
#define F	r9
#define G	r10
#define H	r11
#define T	r12
#define U	r13
#define X	r14
#define Y	r15
#define LOW0_A	1
#define LOW0_B	8
#define LOW0_SHIFT 7
#define LOW1_A	19
#define LOW1_B	61
#define LOW1_SHIFT 6
#define SUM0_A	28
#define SUM0_B	34
#define SUM0_C	39
#define SUM1_A	14
#define SUM1_B	18
#define SUM1_C	41
#include "sha2_plain.h"

	.section .note.GNU-stack, "", @progbits
