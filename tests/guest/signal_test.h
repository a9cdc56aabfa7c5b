/* SPDX-License-Identifier: MIT */
/*
 * For tests of signals: a handler that notes what it finds.
 */
#ifndef SIGNAL_TEST_H
#define SIGNAL_TEST_H

#include "forge.h"

#include <pthread.h>

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

/* In a thread whose stack lies there, below all others. */
static inline void on_stack_at(unsigned long base, void *(*func)(void *))
{
	void *stack = mmap((void *)base, 1 << 20, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	pthread_attr_t attr;
	pthread_t thread;

	REQUIRE(stack != MAP_FAILED);
	pthread_attr_init(&attr);
	CHECK_EQ(pthread_attr_setstack(&attr, stack, 1 << 20), 0);
	CHECK_EQ(pthread_create(&thread, &attr, func, NULL), 0);
	pthread_join(thread, NULL);
	munmap(stack, 1 << 20);
}

#endif /* SIGNAL_TEST_H */
