/* SPDX-License-Identifier: MIT */
/* A child that is stepped through, and traps where it comes by a mark. */
#ifndef EPK_TRACED_H
#define EPK_TRACED_H

#include <signal.h>
#include <stdbool.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

/* Waits until @child ends or traps: the status.  Other signals are its own affair. */
static inline int wait_for(pid_t child)
{
	int status, sig;

	for (;;) {
		REQUIRE_EQ(waitpid(child, &status, 0), child);
		sig = WSTOPSIG(status);
		if (!WIFSTOPPED(status) || sig == SIGTRAP)
			return status;
		REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, sig), 0);
	}
}

/* Waits for a trap: is it a mark? */
static inline bool marked(pid_t child)
{
	int status = wait_for(child);
	siginfo_t info;

	if (!WIFSTOPPED(status))
		print_message("status %#x\n", status);
	REQUIRE(WIFSTOPPED(status));
	REQUIRE_EQ(ptrace(PTRACE_GETSIGINFO, child, 0, &info), 0);
	return info.si_code == SI_KERNEL;
}

#endif /* EPK_TRACED_H */
