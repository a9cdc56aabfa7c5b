/* SPDX-License-Identifier: MIT */
/*
 * Signal frames that no signal made, in each ABI of the kernel: from a handler, a return to
 * anywhere, with a PKRU of one's own.
 */
#ifndef FORGE_H
#define FORGE_H

#include "epk_test.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <ucontext.h>

#define X32		0x40000000

/*
 * Frames of the 32-bit ABIs are read at addresses below 4 GiB, and return there: to code that
 * takes the thread's FS back, which these ABIs load, and jumps to where the thread goes on.
 * Each thread that forges has such a place of its own.
 */
#define FORGE_BYTES	(17 * 4096ul)
/* Below 2 GiB, and above the heap, which begins anywhere in the first GiB behind a program that is not PIE. */
#define FORGE_LOW	0x60000000ul
#define FORGE_FP(low)	((low) + 4096)
#define FORGE_CODE(low)	((low) + 3 * 4096)
#define FORGE_STACK(low) ((low) + 16 * 4096 - 8)
#define FREGS_BYTES	112

enum forge_abi { FORGE_64, FORGE_IA32, FORGE_IA32_RT, FORGE_X32, NR_FORGE_ABIS };

static const char *const forge_names[NR_FORGE_ABIS] = {
	"64-bit rt_sigreturn", "ia32 sigreturn", "ia32 rt_sigreturn", "x32 rt_sigreturn",
};

/* struct sigcontext_32 of <asm/sigcontext.h> */
struct sigcontext_ia32 {
	uint16_t gs, gsh, fs, fsh, es, esh, ds, dsh;
	uint32_t di, si, bp, sp, bx, dx, cx, ax, trapno, err, ip;
	uint16_t cs, csh;
	uint32_t flags, sp_at_signal;
	uint16_t ss, ssh;
	uint32_t fpstate, oldmask, cr2;
};

/* The XSAVE area of a frame, and where PKRU is in it. */
static inline unsigned int xsave_bytes(void)
{
	unsigned int a, b, c, d;

	__cpuid_count(0xd, 0, a, b, c, d);
	return b;
}

static inline unsigned int pkru_offset(void)
{
	unsigned int size, offset, c, d;

	__cpuid_count(0xd, 9, size, offset, c, d);
	return offset;
}

static inline uint32_t *frame_pkru(ucontext_t *uc)
{
	return (uint32_t *)((char *)uc->uc_mcontext.fpregs + pkru_offset());
}

/* A kernel may have no x32, or have it switched off. */
static inline bool forge_can(enum forge_abi abi)
{
	return abi != FORGE_X32 || syscall(X32 | SYS_getpid) == getpid();
}

/* A place at @at, which is below 4 GiB. */
static inline char *forge_make(uintptr_t at)
{
	char *low = mmap((void *)at, FORGE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	REQUIRE(low == (char *)at);
	return low;
}

static inline void forge_code(char *low, void (*arrival)(void))
{
	/* arch_prctl(ARCH_SET_FS, ...), then the jump */
	unsigned char code[] = {
		0x48, 0xbe, 0, 0, 0, 0, 0, 0, 0, 0, 0xbf, 0x02, 0x10, 0, 0, 0xb8, 158, 0, 0, 0,
		0x0f, 0x05, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0,
	};
	uintptr_t fs, to = (uintptr_t)arrival;

	asm("movq %%fs:0, %0" : "=r"(fs));
	memcpy(code + 2, &fs, sizeof(fs));
	memcpy(code + 24, &to, sizeof(to));
	memcpy(FORGE_CODE(low), code, sizeof(code));
}

/* The registers of the interrupted code, but for these; no signal comes before the arrival. */
static inline void forge_ia32(struct sigcontext_ia32 *sc, char *low, ucontext_t *uc,
			      uint32_t pkru, void (*arrival)(void))
{
	memcpy(FORGE_FP(low) + FREGS_BYTES, uc->uc_mcontext.fpregs, xsave_bytes() + 4);
	memcpy(FORGE_FP(low) + FREGS_BYTES + pkru_offset(), &pkru, sizeof(pkru));
	forge_code(low, arrival);
	memset(sc, 0, sizeof(*sc));
	sc->ip = (uintptr_t)FORGE_CODE(low);
	sc->sp = (uintptr_t)FORGE_STACK(low);
	sc->cs = 0x33;
	sc->ss = sc->ds = sc->es = 0x2b;
	sc->flags = 0x202;
	sc->fpstate = (uintptr_t)FORGE_FP(low);
	sc->oldmask = ~0u;
}

static inline __attribute__((noreturn)) void forge_by_int80(char *sp, long nr)
{
	asm volatile("movq %0, %%rsp\n\tint $0x80\n\tud2" : : "r"(sp), "a"(nr) : "memory");
	__builtin_unreachable();
}

static inline __attribute__((noreturn)) void forge_by_syscall(void *sp, long nr)
{
	asm volatile("movq %0, %%rsp\n\tsyscall\n\tud2" : : "r"(sp), "a"(nr) : "memory");
	__builtin_unreachable();
}

/**
 * forge_return() - from a handler, return with a frame that no signal made
 * @abi: in which ABI
 * @low: from forge_make(), of this thread alone
 * @uc: the handler's own frame, whose other registers are taken
 * @pkru: what the frame gives
 * @arrival: where it goes on, on a stack of its own, with signals blocked
 */
static inline __attribute__((noreturn)) void
forge_return(enum forge_abi abi, char *low, ucontext_t *uc, uint32_t pkru,
	     void (*arrival)(void))
{
	static __thread char frame[8192] __attribute__((aligned(64)));
	static __thread ucontext_t copy;

	memset(low, 0, 4096);
	switch (abi) {
	case FORGE_IA32:
		/* struct sigframe_ia32: the return address, the number, then the context */
		forge_ia32((void *)(low + 8), low, uc, pkru, arrival);
		forge_by_int80(low + 8, 119);
	case FORGE_IA32_RT:
		/* struct rt_sigframe_ia32: four words, siginfo of 128 bytes, ucontext */
		forge_ia32((void *)(low + 16 + 128 + 20), low, uc, pkru, arrival);
		memset(low + 16 + 128 + 20 + sizeof(struct sigcontext_ia32), 0xff, 8);
		/* uc_stack.ss_flags: SS_DISABLE */
		*(uint32_t *)(low + 16 + 128 + 12) = 2;
		forge_by_int80(low + 4, 173);
	default:
		break;
	}
	copy = *uc;
	copy.uc_mcontext.gregs[REG_RSP] = (greg_t)FORGE_STACK(low);
	copy.uc_mcontext.gregs[REG_RIP] = (greg_t)arrival;
	*frame_pkru(&copy) = pkru;
	memset(&copy.uc_sigmask, 0xff, 8);
	if (abi == FORGE_64)
		forge_by_syscall(&copy, SYS_rt_sigreturn);
	/* As the 64-bit ABI's, but uc_link and uc_stack have 4 bytes for each 8. */
	memset(frame, 0, sizeof(frame));
	memcpy(frame, &copy.uc_flags, 4);
	/* uc_flags, uc_link, then ss_sp, ss_flags, ss_size */
	*(uint32_t *)(frame + 12) = 2;
	memcpy(frame + 24, &copy.uc_mcontext, sizeof(copy.uc_mcontext));
	memset(frame + 24 + sizeof(copy.uc_mcontext), 0xff, 8);
	forge_by_syscall(frame, X32 | 513);
}

#endif /* FORGE_H */
