// SPDX-License-Identifier: MIT
/*
 * A handler of SIGSEGV is told the number of the key that has refused an access, not the CPU's.  Handlers
 * without siginfo are told nothing, and installed as ever.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>

#include "pkeys.h"

/* The CPU's, where the number cannot be told: while books change, and of a key that was freed. */
static void tell_key(siginfo_t *info)
{
	uintptr_t page = (uintptr_t)info->si_addr & -PAGE;
	struct region region;
	int value;

	if (info->si_code != SEGV_PKUERR || !pkeys_region_look(page, page + PAGE, &region))
		return;
	value = pkeys_books->keys[region.slot % SLOTS].value;
	if (value)
		info->si_pkey = value;
}

static void handler(int sig, siginfo_t *info, void *context)
{
	void (*own)(int sig, siginfo_t *info, void *context) = pkeys_books->handler;

	tell_key(info);
	own(sig, info, context);
}

static int install(const struct sigaction *action, struct sigaction *old,
		   int (*next)(int sig, const struct sigaction *action, struct sigaction *old))
{
	void (*before)(int sig, siginfo_t *info, void *context);
	struct sigaction ours = *action;
	struct pkeys_locked locked;
	int ret;

	ours.sa_sigaction = handler;
	pkeys_lock(&locked);
	before = pkeys_books->handler;
	/* Another thread's fault finds it as soon as the kernel has ours. */
	pkeys_books->handler = action->sa_sigaction;
	ret = next(SIGSEGV, &ours, old);
	if (ret)
		pkeys_books->handler = before;
	else if (old && old->sa_flags & SA_SIGINFO && old->sa_sigaction == handler)
		old->sa_sigaction = before;
	pkeys_unlock(&locked);
	return ret;
}

__attribute__((visibility("default"))) int sigaction(int sig, const struct sigaction *action,
						     struct sigaction *old)
{
	int (*next)(int sig, const struct sigaction *action, struct sigaction *old);
	int ret;

	/* A handler may ask for another: dlsym() is not for these. */
	next = pkeys_books ? pkeys_books->sigaction : NULL;
	if (!next)
		next = dlsym(RTLD_NEXT, "sigaction");
	/* What is there, as libepk asks it or installs, is its own affair. */
	if (sig == SIGSEGV && action && action->sa_flags & SA_SIGINFO && action->sa_sigaction != handler &&
	    !pkeys_inside)
		return install(action, old, next);
	ret = next(sig, action, old);
	if (!ret && sig == SIGSEGV && old && old->sa_flags & SA_SIGINFO && old->sa_sigaction == handler)
		old->sa_sigaction = pkeys_books->handler;
	return ret;
}
