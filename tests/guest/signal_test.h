/* SPDX-License-Identifier: MIT */
/*
 * For tests of signals: a handler that notes what it finds, and where PKRU is in its frame.
 */
#ifndef SIGNAL_TEST_H
#define SIGNAL_TEST_H

#include "epk_test.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <ucontext.h>

static struct epk_device dev;

static volatile int handled, handler_ept;
static volatile uint32_t handler_pkru;
static void (*volatile in_handler)(ucontext_t *uc);

static inline void handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	handler_ept = dev.identity->ept;
	handler_pkru = epk_rdpkru();
	handled++;
	if (in_handler)
		in_handler(context);
}

static inline void handle(int sig, int flags)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	CHECK_EQ(sigaction(sig, &sa, NULL), 0);
}

/* In an XSAVE area. */
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

/* A sigreturn from where no signal has put a frame. */
static inline void forged_sigreturn(void *frame)
{
	asm volatile("movq %0, %%rsp\n\tmovl %1, %%eax\n\tsyscall\n\tud2"
		     : : "r"(frame), "i"(SYS_rt_sigreturn) : "memory");
	__builtin_unreachable();
}

#endif /* SIGNAL_TEST_H */
