// SPDX-License-Identifier: MIT
/*
 * Where the stack ends on which secrets are computed.
 *
 * What is watched and wiped below a computation can be more than the stack has, and what lies below that
 * is somebody's: not every stack has a page that would be a fault.  So a secret is used only where the
 * stack is known to go down far enough.  A thread's is asked for once; that of a signal's handler
 * (sigaltstack()) each time.  Nobody tells of others: coroutines', and those of OpenSSL's jobs
 * (SSL_MODE_ASYNC), which have 32 KiB of the heap.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <unistd.h>

#include "epk_provider.h"

/* Of frames between a check and epkp_watch(), and of what the linker takes for looking for a function. */
#define ROOM	4096

/* Bounds of a stack; of no size where it is not known. */
struct bounds {
	uintptr_t end;
	size_t size;
};

/* Each record asks for it. */
static __thread struct bounds of_this_thread __attribute__((tls_model("initial-exec")));

static bool holds(const struct bounds *b, uintptr_t at)
{
	return at - b->end < b->size;
}

/*
 * Without /proc, as in a chroot, the C library does not know where the first thread's is.  It begins
 * behind the program's name, and the kernel has it grow to the limit.
 */
static struct bounds ask_kernel(void)
{
	uintptr_t name = getauxval(AT_EXECFN), begin;
	struct rlimit limit;
	struct bounds b = { 0 };

	if (!name || gettid() != getpid() || getrlimit(RLIMIT_STACK, &limit))
		return b;
	begin = (name + strlen((const char *)name) + 4096) & ~(uintptr_t)4095;
	b.size = limit.rlim_cur < begin ? limit.rlim_cur : begin;
	b.end = begin - b.size;
	return b;
}

static struct bounds ask_thread(void)
{
	struct bounds b = { 0 };
	pthread_attr_t attr;
	void *end;

	if (pthread_getattr_np(pthread_self(), &attr))
		return ask_kernel();
	if (!pthread_attr_getstack(&attr, &end, &b.size))
		b.end = (uintptr_t)end;
	pthread_attr_destroy(&attr);
	return b.end ? b : ask_kernel();
}

static struct bounds ask_signals(void)
{
	struct bounds b = { 0 };
	stack_t stack;

	if (!sigaltstack(NULL, &stack) && stack.ss_flags & SS_ONSTACK) {
		b.end = (uintptr_t)stack.ss_sp;
		b.size = stack.ss_size;
	}
	return b;
}

/* The limit of the first thread's may have changed, too. */
static __attribute__((noinline)) struct bounds find_bounds(uintptr_t here)
{
	struct bounds b;

	of_this_thread = ask_thread();
	b = holds(&of_this_thread, here) ? of_this_thread : ask_signals();
	return holds(&b, here) ? b : (struct bounds){ 0 };
}

static bool fits(const struct bounds *b, uintptr_t here, size_t wanted)
{
	return holds(b, here) && here - b->end >= wanted;
}

/* Whether epkp_watch(@stack) finds all that it marks to be of this stack. */
bool epkp_stack_has(size_t stack)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	size_t wanted = epkp_watched_below(stack) + ROOM;
	struct bounds b;

	if (fits(&of_this_thread, here, wanted))
		return true;
	b = find_bounds(here);
	return fits(&b, here, wanted);
}

bool epkp_stack_suffices(struct provider *prov, size_t stack)
{
	struct bounds b;

	if (epkp_stack_has(stack))
		return true;
	b = find_bounds((uintptr_t)__builtin_frame_address(0));
	if (b.size)
		return raise(prov, EPK_R_STACK, "%zu bytes are needed",
			     epkp_watched_below(stack) + ROOM);
	return raise(prov, EPK_R_STACK, "where it ends is not known: it is no thread's, but a "
		     "coroutine's or one of OpenSSL's jobs', which need SSL_MODE_ASYNC");
}

/* Down to where it can be wiped; where that is not known, not at all. */
char *epkp_stack_end(void)
{
	char *here = __builtin_frame_address(0);
	struct bounds b = of_this_thread;

	if (!holds(&b, (uintptr_t)here))
		b = find_bounds((uintptr_t)here);
	return b.size ? (char *)b.end + ROOM : here;
}
