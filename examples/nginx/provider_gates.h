/* SPDX-License-Identifier: MIT */
/*
 * Is the vault open, or any domain, and does anybody wait meanwhile?  The gates that the provider
 * calls are led through here, as is what may wait.
 */
#ifndef PROVIDER_GATES_H
#define PROVIDER_GATES_H

#include <dlfcn.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <epk.h>

#include "provider/epk_provider.h"

static int vault;
/* The vault's EPT, and that of what was opened last while it was, just before: it may be moved for it. */
static int vaults_ept, besides_ept;
/* Each domain counts, and not the vault alone. */
static bool watches_all;
static __thread volatile int nr_open;
static volatile bool is_slow;
static size_t nr_openings, nr_waits;

static int note_vault(int dom, void *addr, size_t len, void *arg)
{
	(void)addr;
	(void)arg;
	if (len != BOX_LEN)
		vault = dom;
	return 0;
}

#define REAL(fn)									\
	static __typeof__(&fn) real;							\
											\
	if (!real)									\
		real = (__typeof__(&fn))dlsym(RTLD_NEXT, #fn)

#define EXPORT	__attribute__((visibility("default")))

#undef domain_begin

static bool is_stepping;

static void set_trap(bool on)
{
	if (on)
		__asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" : : : "memory", "cc");
	else
		__asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" : : : "memory", "cc");
}

/* What the module has begin anew after a signal never ends if there is one after each instruction. */
static int call_gate(int (*gate)(int), int dom)
{
	bool stops = is_stepping && !strcmp(epk_backend(), "epk");
	int err;

	if (stops)
		set_trap(false);
	err = gate(dom);
	if (stops)
		set_trap(true);
	return err;
}

static int note_epts(int dom)
{
	return epk_domain_place(vault, &vaults_ept, NULL) ?:
	       epk_domain_place(dom, &besides_ept, NULL);
}

static bool is_watched(int dom)
{
	return watches_all || dom == vault;
}

static void note_wait(void)
{
	if (nr_open)
		__atomic_fetch_add(&nr_waits, 1, __ATOMIC_RELAXED);
}

/* In place of libepk's, for the provider.  While this thread sleeps others want a slot there. */
EXPORT int epk_begin_write(int dom)
{
	int err;

	REAL(epk_begin_write);
	if (nr_open)
		call_gate(note_epts, dom);
	err = call_gate(real, dom);
	if (err || !is_watched(dom))
		return err;
	nr_open++;
	__atomic_fetch_add(&nr_openings, 1, __ATOMIC_RELAXED);
	if (is_slow && dom == vault)
		usleep(1000);
	return 0;
}

EXPORT int domain_end(int dom)
{
	REAL(domain_end);
	if (is_watched(dom))
		nr_open--;
	return call_gate(real, dom);
}

EXPORT int sched_yield(void)
{
	REAL(sched_yield);
	note_wait();
	return real();
}

extern void *__libc_malloc(size_t len);

/* A thread's first use of what is its own allocates that. */
EXPORT void *malloc(size_t len)
{
	note_wait();
	return __libc_malloc(len);
}

#endif /* PROVIDER_GATES_H */
