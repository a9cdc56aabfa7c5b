// SPDX-License-Identifier: MIT
/* The kernel's own calls by way of syscall(3), where they are the same ones. */
#define _GNU_SOURCE
#include <sys/syscall.h>

#include "pkeys.h"

#define CALLER	((uintptr_t)__builtin_return_address(0))

int pkey_alloc(unsigned int flags, unsigned int rights);
int pkey_free(int pkey);
int pkey_mprotect(void *addr, size_t len, int prot, int pkey);

/* Those that syscall() below does not make itself. */
__attribute__((used)) long pkeys_syscall(long nr, long a, long b, long c, long d, long e)
{
	uintptr_t caller = CALLER;

	switch (nr) {
	case SYS_munmap:
		return pkeys_unmap((void *)a, b, caller);
	case SYS_mprotect:
		return pkeys_protect((void *)a, b, c, caller);
	case SYS_mremap:
		return (long)pkeys_move((void *)a, b, c, d, (void *)e, caller);
	}
	if (pkeys_is_ours(caller))
		return pkeys_answer(pkeys_raw(nr, a, b, c, d, 0, 0));
	if (nr == SYS_pkey_alloc)
		return pkey_alloc(a, b);
	return nr == SYS_pkey_free ? pkey_free(a) : pkey_mprotect((void *)a, b, c, d);
}

__attribute__((used)) long pkeys_failed(long ret)
{
	return pkeys_answer(ret);
}

/* All else as the C library does it, whose frame is the caller's. */
asm(".pushsection .text\n"
    ".globl syscall\n"
    ".type syscall, @function\n"
    "syscall:\n"
    "	cmpq $10, %rdi\n"		/* mprotect, munmap */
    "	je 1f\n"
    "	cmpq $11, %rdi\n"
    "	je 1f\n"
    "	cmpq $25, %rdi\n"		/* mremap */
    "	je 1f\n"
    "	leaq -329(%rdi), %rax\n"	/* pkey_mprotect, pkey_alloc, pkey_free */
    "	cmpq $2, %rax\n"
    "	jbe 1f\n"
    "	movq %rdi, %rax\n"
    "	movq %rsi, %rdi\n"
    "	movq %rdx, %rsi\n"
    "	movq %rcx, %rdx\n"
    "	movq %r8, %r10\n"
    "	movq %r9, %r8\n"
    "	movq 8(%rsp), %r9\n"
    "	syscall\n"
    "	cmpq $-4095, %rax\n"
    "	jae 2f\n"
    "	ret\n"
    "2:	movq %rax, %rdi\n"
    "	jmp pkeys_failed\n"
    "1:	jmp pkeys_syscall\n"
    ".size syscall, .-syscall\n"
    ".popsection\n");

_Static_assert(SYS_mprotect == 10 && SYS_munmap == 11 && SYS_mremap == 25 && SYS_pkey_mprotect == 329 &&
	       SYS_pkey_alloc == 330 && SYS_pkey_free == 331, "as above");
