// SPDX-License-Identifier: MIT
/*
 * OpenSSL's code keeps round keys in vector registers, and key stream and one-time
 * keys on the stack.  Neither may outlive the open domain.
 */
#include <alloca.h>
#include <string.h>

#include "epk_provider.h"

static void clear_sse(void)
{
	__asm__ volatile("pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\t"
			 "pxor %%xmm2, %%xmm2\n\tpxor %%xmm3, %%xmm3\n\t"
			 "pxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\t"
			 "pxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\t"
			 "pxor %%xmm8, %%xmm8\n\tpxor %%xmm9, %%xmm9\n\t"
			 "pxor %%xmm10, %%xmm10\n\tpxor %%xmm11, %%xmm11\n\t"
			 "pxor %%xmm12, %%xmm12\n\tpxor %%xmm13, %%xmm13\n\t"
			 "pxor %%xmm14, %%xmm14\n\tpxor %%xmm15, %%xmm15"
			 : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
			       "xmm15");
}

/* All of the first 16, however wide. */
static void clear_avx(void)
{
	__asm__ volatile("vzeroall"
			 : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
			       "xmm15");
}

#define CLEAR_ZMM(n)	"vpxord %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"

/* No clobbers: this file is compiled for CPUs that do not have them. */
static void clear_avx512_upper(void)
{
	__asm__ volatile(CLEAR_ZMM(16) CLEAR_ZMM(17) CLEAR_ZMM(18) CLEAR_ZMM(19)
			 CLEAR_ZMM(20) CLEAR_ZMM(21) CLEAR_ZMM(22) CLEAR_ZMM(23)
			 CLEAR_ZMM(24) CLEAR_ZMM(25) CLEAR_ZMM(26) CLEAR_ZMM(27)
			 CLEAR_ZMM(28) CLEAR_ZMM(29) CLEAR_ZMM(30) CLEAR_ZMM(31) : : );
}

/*
 * As long as the compiler sees that @stack bytes are written and then used, they are.
 * What lies above them is this call's own frame, and the caller's.
 */
static __attribute__((noinline)) void clear_stack(size_t stack)
{
	char *bytes = alloca(stack);

	memset(bytes, 0, stack);
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

/* Called where the code that used @stack bytes was called, or further up. */
void scrub(size_t stack)
{
	clear_stack(stack);
	if (__builtin_cpu_supports("avx"))
		clear_avx();
	else
		clear_sse();
	if (__builtin_cpu_supports("avx512f"))
		clear_avx512_upper();
	__asm__ volatile("xor %%ecx, %%ecx\n\txor %%edx, %%edx\n\txor %%esi, %%esi\n\t"
			 "xor %%edi, %%edi\n\txor %%r8d, %%r8d\n\txor %%r9d, %%r9d\n\t"
			 "xor %%r10d, %%r10d\n\txor %%r11d, %%r11d"
			 : : : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc");
}
