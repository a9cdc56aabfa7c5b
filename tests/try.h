/* SPDX-License-Identifier: MIT */
/*
 * Memory accesses that may fail, in programs that use the library.
 *
 * The handler resumes the interrupted code behind the access, by sigreturn:
 * the thread keeps the PKRU that it had.  Works without protection keys too.
 * It is installed anew for each access, since cmocka installs its own.
 */
#ifndef EPK_TRY_H
#define EPK_TRY_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

static __thread volatile uintptr_t try_resume;
static __thread volatile int try_signal, try_code, try_pkey;

static inline void try_handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	if (!try_resume) {
		signal(sig, SIG_DFL);
		return;
	}
	try_signal = sig;
	try_code = info->si_code;
	try_pkey = info->si_code == SEGV_PKUERR ? (int)info->si_pkey : -1;
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)try_resume;
	try_resume = 0;
}

static inline void try_setup(void)
{
	struct sigaction sa = { .sa_sigaction = try_handler, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

/* False, and try_signal, try_code and try_pkey say why, if it faulted. */
static inline bool try_read(const volatile void *addr, char *value)
{
	char got = 0, ok = 0;

	try_setup();
	try_signal = 0;
	asm volatile("leaq 1f(%%rip), %%rcx\n\t"
		     "movq %%rcx, %[resume]\n\t"
		     "movb (%[addr]), %[got]\n\t"
		     "movb $1, %[ok]\n"
		     "1:\tmovq $0, %[resume]"
		     : [got] "+&q"(got), [ok] "+m"(ok), [resume] "=m"(try_resume)
		     : [addr] "r"(addr)
		     : "rcx", "memory");
	if (ok)
		*value = got;
	return ok;
}

static inline bool try_write(volatile void *addr, char value)
{
	char ok = 0;

	try_setup();
	try_signal = 0;
	asm volatile("leaq 1f(%%rip), %%rcx\n\t"
		     "movq %%rcx, %[resume]\n\t"
		     "movb %[value], (%[addr])\n\t"
		     "movb $1, %[ok]\n"
		     "1:\tmovq $0, %[resume]"
		     : [ok] "+m"(ok), [resume] "=m"(try_resume)
		     : [addr] "r"(addr), [value] "q"(value)
		     : "rcx", "memory");
	return ok;
}

#endif /* EPK_TRY_H */
