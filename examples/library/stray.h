/* SPDX-License-Identifier: MIT */
/*
 * What a bug does, for the other examples: it reads or writes at an address, whoever may.
 *
 * Under "epk" who does that holds no domain afterwards, as after each fault that a handler leaves by
 * siglongjmp(); elsewhere what was held is to be ended.
 */
#ifndef STRAY_H
#define STRAY_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <epk.h>

static __thread sigjmp_buf stray_back;
static __thread volatile sig_atomic_t stray_tries;

static void stray_fault(int signo)
{
	if (stray_tries)
		siglongjmp(stray_back, 1);
	/* Another bug: it ends the program when the instruction is tried again. */
	signal(signo, SIG_DFL);
}

static inline bool stray_access(volatile char *at, bool write)
{
	struct sigaction action = { .sa_handler = stray_fault };
	volatile bool got = false;

	sigaction(SIGSEGV, &action, NULL);
	stray_tries = 1;
	if (!sigsetjmp(stray_back, 1)) {
		if (write)
			*at = 0;
		else
			(void)*at;
		got = true;
	}
	stray_tries = 0;
	return got;
}

/* Does it get what is there? */
static inline bool stray_read(const void *from)
{
	return stray_access((char *)from, false);
}

/* Does it change what is there? */
static inline bool stray_write(void *to)
{
	return stray_access(to, true);
}

/* "none" is there to try programs with, and keeps nothing from anybody. */
static inline bool stray_is_as_it_should_be(bool got)
{
	return got == !strcmp(epk_backend(), "none");
}

static inline const char *stray_says(bool got)
{
	return got ? "goes through" : "is refused";
}

#endif /* STRAY_H */
