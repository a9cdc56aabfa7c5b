/* SPDX-License-Identifier: MIT */
/*
 * For tests of signals: a handler that notes what it finds.
 */
#ifndef SIGNAL_TEST_H
#define SIGNAL_TEST_H

#include "forge.h"

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

#endif /* SIGNAL_TEST_H */
