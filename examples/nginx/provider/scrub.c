// SPDX-License-Identifier: MIT
/*
 * OpenSSL's code keeps round keys in vector registers, and key stream and one-time
 * keys on the stack.  Neither may outlive the open domain.
 */
#include <alloca.h>
#include <string.h>
#include <sys/auxv.h>

#include "epk_provider.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ	51
#endif

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
#define CLEAR_MASK(n)	"kxorw %%k" #n ", %%k" #n ", %%k" #n "\n\t"

/*
 * No clobbers: this file is compiled for CPUs that do not have them.  RSA's code has in masks which
 * entry of a table it takes.
 */
static void clear_avx512(void)
{
	__asm__ volatile(CLEAR_ZMM(16) CLEAR_ZMM(17) CLEAR_ZMM(18) CLEAR_ZMM(19)
			 CLEAR_ZMM(20) CLEAR_ZMM(21) CLEAR_ZMM(22) CLEAR_ZMM(23)
			 CLEAR_ZMM(24) CLEAR_ZMM(25) CLEAR_ZMM(26) CLEAR_ZMM(27)
			 CLEAR_ZMM(28) CLEAR_ZMM(29) CLEAR_ZMM(30) CLEAR_ZMM(31)
			 CLEAR_MASK(0) CLEAR_MASK(1) CLEAR_MASK(2) CLEAR_MASK(3)
			 CLEAR_MASK(4) CLEAR_MASK(5) CLEAR_MASK(6) CLEAR_MASK(7) : : );
}

/*
 * A signal that interrupts the code below has the kernel store all registers further down,
 * beneath what that code uses.  Of such a frame the upper part may stay as it was: AMX's tiles
 * that are not in use, then all but the oldest registers.  The lower end is written: a context,
 * perhaps what the signal says, and 512 bytes of x87 and SSE.  In this there are gaps: 264 bytes
 * at most between the context's registers, 240 bytes from the end, and x87's, and 48 after
 * SSE's.  So of marks that are up to 416 bytes apart it changes one; those near find one of
 * which little is below.
 */
#define MARK		0x5ca1ab1e0ddba115ull
#define NEAR_STEP	64
#define NEAR_MARKS	4
#define FAR_STEP	384

/* With AMX there are 32 of them, at each record: so they are gone through by four. */
#define FAR_MARKS	4
#define FAR_SPAN	(FAR_MARKS * FAR_STEP)

/* Of where such a frame can be. */
static size_t frame_max;

__attribute__((constructor)) static void ask_frame_max(void)
{
	size_t told = getauxval(AT_MINSIGSTKSZ);

	/* Kernels that do not tell have no larger ones.  It begins below the red zone. */
	frame_max = (told ? told : 4096) + 128 + 64;
	frame_max = (frame_max + FAR_SPAN - 1) & ~(size_t)(FAR_SPAN - 1);
}

static char *lowest_near(char *low)
{
	return low - NEAR_MARKS * NEAR_STEP;
}

/* And lowest of all. */
static char *lowest_mark(char *low)
{
	return lowest_near(low) - frame_max;
}

static volatile uint64_t *word(char *at)
{
	return (volatile uint64_t *)at;
}

/* How far below the caller of epkp_watch(@stack) it makes marks. */
size_t epkp_watched_below(size_t stack)
{
	return stack + NEAR_MARKS * NEAR_STEP + frame_max + 2 * 64;
}

/* A stack that ends before is a fault, as nobody jumps over the page that is below it. */
static void touch(const char *from, const char *down_to)
{
	const volatile char *at;

	for (at = from; at > down_to; at -= 4096)
		(void)*at;
}

/* Before code is called that uses @stack bytes; what it returns is for epkp_scrub(). */
__attribute__((noinline)) char *epkp_watch(size_t stack)
{
	char *low = (char *)(((uintptr_t)__builtin_frame_address(0) - stack) & ~(uintptr_t)63);
	char *at;
	int i;

	touch(__builtin_frame_address(0), lowest_mark(low));
	for (i = 1; i <= NEAR_MARKS; i++)
		*word(low - i * NEAR_STEP) = MARK;
	for (at = lowest_mark(low); at < lowest_near(low); at += FAR_SPAN) {
		*word(at) = MARK;
		*word(at + FAR_STEP) = MARK;
		*word(at + 2 * FAR_STEP) = MARK;
		*word(at + 3 * FAR_STEP) = MARK;
	}
	return low;
}

/* How far down the stack has been used, as seen from the marks below @low. */
static char *lowest_used(char *low)
{
	char *at, *last = lowest_mark(low);
	uint64_t differ = 0, differ_too = 0;
	int i;

	for (i = 1; i <= NEAR_MARKS; i++)
		differ |= *word(low - i * NEAR_STEP) ^ MARK;
	for (at = last; at < lowest_near(low); at += FAR_SPAN) {
		differ |= *word(at) ^ MARK;
		differ_too |= *word(at + FAR_STEP) ^ MARK;
		differ |= *word(at + 2 * FAR_STEP) ^ MARK;
		differ_too |= *word(at + 3 * FAR_STEP) ^ MARK;
	}
	return differ | differ_too ? last : low;
}

/*
 * As long as the compiler sees that the bytes are written and then used, they are.
 * What lies above them is this call's own frame, and the caller's.
 */
static __attribute__((noinline)) void clear_stack(char *low)
{
	size_t stack = (char *)__builtin_frame_address(0) - low;
	char *bytes;

	touch(__builtin_frame_address(0), low);
	bytes = alloca(stack);
	memset(bytes, 0, stack);
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

/* First of all: from then on a signal stores nothing. */
static void clear_registers(void)
{
	if (__builtin_cpu_supports("avx"))
		clear_avx();
	else
		clear_sse();
	if (__builtin_cpu_supports("avx512f"))
		clear_avx512();
	__asm__ volatile("xor %%ecx, %%ecx\n\txor %%edx, %%edx\n\txor %%esi, %%esi\n\t"
			 "xor %%r8d, %%r8d\n\txor %%r9d, %%r9d\n\t"
			 "xor %%r10d, %%r10d\n\txor %%r11d, %%r11d"
			 : : : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "cc");
}

/* Called where epkp_watch() was, which told @low, or further up. */
void epkp_scrub(char *low)
{
	clear_registers();
	clear_stack(lowest_used(low));
}

/* Where there was no epkp_watch(): @stack bytes and a signal's frame, of one that ends at @end. */
__attribute__((noinline)) void epkp_scrub_unwatched(size_t stack, const char *end)
{
	char *here = __builtin_frame_address(0), *low = here - epkp_watched_below(stack);

	clear_registers();
	if (low < end)
		low = (char *)end;
	if (low < here)
		clear_stack(low);
}
