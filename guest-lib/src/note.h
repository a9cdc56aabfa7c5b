/* SPDX-License-Identifier: MIT */
/*
 * At the end of assembly files whose every return goes back to its call, on whatever stack: shadow
 * stacks are fine.
 *
 * Not indirect branch tracking: it would want an ENDBR64 where each gate begins, two instructions
 * more for a pair, 51 across EPTs where the limit is 49; and no Linux has it for programs.
 */
	.section .note.GNU-stack, "", @progbits

	.section .note.gnu.property, "a"
	.balign	8
	.long	4, 16, 5			/* NT_GNU_PROPERTY_TYPE_0 */
	.asciz	"GNU"
	.long	0xc0000002, 4, 2, 0		/* GNU_PROPERTY_X86_FEATURE_1_AND: SHSTK */
