/* SPDX-License-Identifier: MIT */
/*
 * Rights that are put aside: a thread holds nothing, or one domain alone, and then again what it held.
 *
 * Where rights are in PKRU what is put aside is kept by the module, or under "mpk" with the domain
 * table, under the stack pointer that the thread has.  So both calls are made by one function and
 * inlined there.  Elsewhere it is a list.
 */
#ifndef EPK_ASIDE_H
#define EPK_ASIDE_H

#include <sys/syscall.h>

#include "backend.h"

/**
 * struct epk_aside - what is put aside in
 * @aside: something is
 * @before: if the module does not: how often something was before
 * @sp: under this stack pointer, if the module has it
 * @nr: of @held, those in use
 * @held: the list, if it is one
 */
struct epk_aside {
	bool aside;
	unsigned int before;
	uintptr_t sp;
	unsigned int nr;
	struct epk_held held[EPK_MAX_HELD];
};

/* aside.c */
int epk_soft_aside(struct epk_aside *aside, int id);
int epk_soft_back(struct epk_aside *aside, uintptr_t sp);
int epk_let_go(void);
void epk_forget_aside(struct epk_aside *aside);
int epk_thread_ready(void);

static inline __attribute__((always_inline)) uintptr_t epk_sp(void)
{
	uintptr_t sp;

	asm volatile("mov %%rsp, %0" : "=r" (sp));
	return sp;
}

/* Not by libc, whose frames are its own affair. */
static inline __attribute__((always_inline)) int epk_ioctl_here(unsigned long cmd, unsigned long arg)
{
	register long result asm("rax") = SYS_ioctl;

	asm volatile("syscall"
		     : "+r" (result)
		     : "D" ((long)epk_now.fd), "S" (cmd), "d" (arg)
		     : "rcx", "r11", "memory");
	return result;
}

/* Does the thread hold nothing, as far as PKRU and the module know? */
static inline bool epk_holds_nothing(void)
{
	return epk_now.access && (rdpkru() & epk_now.closed) == epk_now.nothing;
}

/*
 * Holds the domain @id alone, for writing, or nothing if @id is 0.  On error nothing has changed.
 */
static inline __attribute__((always_inline)) int epk_put_aside(struct epk_aside *aside, int id)
{
	const struct epk_backend *ops = epk_ops();
	int err;

	aside->sp = epk_sp();
	if (ops->in_module)
		err = epk_ioctl_here(EPK_IOC_CALL,
				     id ? EPK_BEGIN(id, PROT_READ | PROT_WRITE) : 0);
	else
		err = epk_soft_aside(aside, id);
	aside->aside = !err;
	return err;
}

/* Gives up what it holds by now, and holds what it held. */
static inline __attribute__((always_inline)) int epk_take_back(struct epk_aside *aside)
{
	const struct epk_backend *ops = epk_ops();

	if (!aside->aside || !ops)
		return 0;
	aside->aside = false;
	if (ops->in_module)
		return epk_ioctl_here(EPK_IOC_RETURN, 0);
	return epk_soft_back(aside, epk_sp());
}

/* Holds nothing until epk_take_back(), for backends where what is held is in PKRU. */
static inline __attribute__((always_inline)) int epk_hold_nothing(struct epk_aside *aside)
{
	const struct epk_backend *ops = epk_ops();
	int err;

	aside->aside = false;
	if (!ops || !(ops->in_module || ops->put_aside) || epk_holds_nothing())
		return 0;
	err = epk_put_aside(aside, 0);
	/* The module has never heard of the thread. */
	return err == -ESRCH ? 0 : err;
}

/*
 * The lock, and nothing is held where the library's notes could have it read, or write, what is:
 * anybody can write them.  -EDEADLK in a handler that interrupted its owner.
 */
static inline __attribute__((always_inline)) int epk_notes_lock(struct epk_aside *aside)
{
	int saved_errno = errno, err = epk_hold_nothing(aside);

	if (!err) {
		err = -pthread_mutex_lock(&epk_lock);
		if (err)
			epk_take_back(aside);
	}
	errno = saved_errno;
	return err;
}

/*
 * What the call was to do is done.  It was the module, or the owner of the table's key, who put aside what
 * is given back, under this frame: should that be there no more, nothing is held, and an access says so.
 */
static inline __attribute__((always_inline)) void epk_notes_unlock(struct epk_aside *aside)
{
	int saved_errno = errno;

	pthread_mutex_unlock(&epk_lock);
	epk_take_back(aside);
	errno = saved_errno;
}

#endif /* EPK_ASIDE_H */
