/* SPDX-License-Identifier: MIT */
/*
 * For the gates: what follows a WRPKRU whose value is not a constant.  It is compared with what was
 * noted on the stack before; a jump to the WRPKRU hardly finds this there.
 */
#ifndef EPK_GATE_CHECK_H
#define EPK_GATE_CHECK_H

#define SALT	0x2b992ddf

/* R8 is lost. */
.macro note_pkru
	lea	SALT(%rax), %r8d
	mov	%r8d, -8(%rsp)
.endm

/* EAX is 0 afterwards. */
.macro check_pkru
	lea	SALT(%rax), %eax
	sub	-8(%rsp), %eax
	jne	.Lforged
.endm

/* By PKRU's value, in EAX, which is 0 afterwards: none of the library's keys is open. */
.macro check_closed
	not	%eax
	and	epk_state_page+EPK_STATE_ACCESS(%rip), %eax
	jnz	.Lforged
.endm

/*
 * Somebody jumped to a WRPKRU: no key stays open; nor, with \key0, key 0 to write, since it may have
 * been a confined component, with a stack pointer of its choice for the frame of the signal.
 */
.macro forged key0=0
.Lforged:
	mov	epk_state_page+EPK_STATE_CLOSED(%rip), %eax
	or	$EPK_PKRU_ACCESS + \key0, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	wrpkru
	not	%eax
.if \key0
	test	$\key0, %al
	jnz	.Lforged
.endif
	and	epk_state_page+EPK_STATE_ACCESS(%rip), %eax
	jnz	.Lforged
	ud2
.endm

#endif /* EPK_GATE_CHECK_H */
