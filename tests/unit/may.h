/* SPDX-License-Identifier: MIT */
/* What a thread may do with memory. */
#ifndef MAY_H
#define MAY_H

#include "unit.h"

/* What @addr is to the thread as it is: RW, PROT_READ or nothing. */
static inline int may(volatile char *addr)
{
	char was;

	if (!try_read(addr, &was))
		return PROT_NONE;
	return try_write(addr, was) ? RW : PROT_READ;
}

struct may_look {
	volatile char *addr;
	int prot;
};

static inline void *may_look(void *arg)
{
	struct may_look *look = arg;

	look->prot = may(look->addr);
	return NULL;
}

/* The same to a new thread. */
static inline int new_thread_may(volatile char *addr)
{
	struct may_look look = { addr, -1 };

	run_threads(may_look, &(void *){ &look }, 1);
	return look.prot;
}

/* @prot, where each thread's rights are its own and are kept. */
static inline int expected(int prot)
{
	return backend_protects() ? prot : RW;
}

#endif /* MAY_H */
