/* SPDX-License-Identifier: MIT */
/* The one way into private domains: a gate that goes by the note. */
#ifndef PRIVATE_GATE_H
#define PRIVATE_GATE_H

#include <stdint.h>

/*
 * private_gate(note): open the key that the note says, beside what is open; 0 if the domain has no
 * place.  Nothing is open in another EPT.
 */
asm(
"	.text\n"
"private_gate:\n"
"	mov	(%rdi), %r8\n"
"	mov	%r8d, %ecx\n"
"	and	$15, %ecx\n"
"	jz	3f\n"
"	add	%ecx, %ecx\n"
"	mov	$3, %r9d\n"
"	shl	%cl, %r9d\n"
"	not	%r9d\n"
"	cmpl	$0, private_alone(%rip)\n"
"	jne	2f\n"
"	mov	%r8, %rcx\n"
"	shr	$48, %rcx\n"
"	xor	%eax, %eax\n"
"	.byte	0x0f, 0x01, 0xd4\n"	/* vmfunc */
"2:	xor	%ecx, %ecx\n"
"	.byte	0x0f, 0x01, 0xee\n"	/* rdpkru */
"	and	%r9d, %eax\n"
"	xor	%edx, %edx\n"
"	.byte	0x0f, 0x01, 0xef\n"	/* wrpkru */
"private_gate_end:\n"
"	mov	$1, %eax\n"
"	ret\n"
"3:	xor	%eax, %eax\n"
"	ret\n"
);
extern int private_gate(const volatile uint64_t *note);
extern const char private_gate_end[];
__attribute__((used)) int private_alone;

#endif /* PRIVATE_GATE_H */
