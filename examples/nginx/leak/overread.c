// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "overread.h"

struct overread_faults overread_faults;

static struct sigaction old_action;

extern const char overread_load[] __attribute__((visibility("hidden")));
extern const char overread_end[] __attribute__((visibility("hidden")));

/*
 * One instruction that counts down in rcx, so that the handler can step over
 * it.  A jump out of the handler would lose the right that the interrupted
 * code holds; a return from it puts PKRU back.
 */
__asm__(".text\n"
	".type overread, @function\n"
	".globl overread\n"
	".hidden overread\n"
	"overread:\n"
	"	mov	%rdx, %rcx\n"
	"	mov	%rdx, %rax\n"
	"overread_load:\n"
	"	rep movsb\n"
	"overread_end:\n"
	"	sub	%rcx, %rax\n"
	"	ret\n"
	".size overread, . - overread\n");

static void segv(int sig, siginfo_t *info, void *ucontext)
{
	greg_t *regs = ((ucontext_t *)ucontext)->uc_mcontext.gregs;

	if (regs[REG_RIP] != (greg_t)(uintptr_t)overread_load) {
		/* Not ours: let it happen again, for the one it is meant for. */
		sigaction(sig, &old_action, NULL);
		return;
	}
	if (info->si_code == SEGV_PKUERR)
		overread_faults.pkey++;
	else
		overread_faults.other++;
	regs[REG_RIP] = (greg_t)(uintptr_t)overread_end;
}

int overread_start(void)
{
	struct sigaction action = { .sa_sigaction = segv, .sa_flags = SA_SIGINFO };

	memset(&overread_faults, 0, sizeof(overread_faults));
	return sigaction(SIGSEGV, &action, &old_action);
}

int overread_stop(void)
{
	return sigaction(SIGSEGV, &old_action, NULL);
}
