// SPDX-License-Identifier: MIT
/*
 * epk_call(): a function runs with one domain alone, on a stack of the thread's own for such
 * functions, which is wiped afterwards.  That is ordinary memory, which signal handlers,
 * cancellation and children can use, whatever they hold.
 *
 * However the function is left, what was held before is held afterwards, and the domain is not: by
 * a return, an exception and the end of the thread as the frames are unwound; by longjmp(), where
 * libc calls what is registered with it for frames that are left, nothing is.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#include "aside.h"
#include "call.h"
#include "cleanup.h"

#define STACK_BYTES	(128ul * 1024)
/* Below it nothing is. */
#define GUARD_BYTES	(64ul * 1024)
/* Of a stack, so much is wiped by stores; what is below goes back to the system. */
#define SHALLOW		4096ul

long epk_call_on_stack(long (*fn)(void *), void *arg, void *top);
void epk_wipe(void *low, void *high);

/* Where the calling thread has its stack for such functions: its lowest byte. */
static __thread char *stack;
/* Functions are on it. */
static __thread unsigned int users;

/**
 * struct call - a call of epk_call()
 * @id: the domain
 * @inside: it is held, or was when the function started
 * @low: the stack that is used, from here
 * @top: to here
 * @own: it is for this call alone
 * @before: what @users was
 * @aside: what was held before, if that was anything
 * @cleanup: libc's
 */
struct call {
	int id;
	bool inside;
	char *low;
	char *top;
	bool own;
	unsigned int before;
	struct epk_aside aside;
	struct epk_cleanup cleanup;
};

static char *stack_map(void)
{
	char *low = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (low == MAP_FAILED)
		return NULL;
	if (mprotect(low, GUARD_BYTES, PROT_NONE)) {
		munmap(low, GUARD_BYTES + STACK_BYTES);
		return NULL;
	}
	return low + GUARD_BYTES;
}

static void stack_unmap(char *low)
{
	munmap(low - GUARD_BYTES, GUARD_BYTES + STACK_BYTES);
}

/* At the end of a thread. */
void epk_call_stack_free(void)
{
	if (stack)
		stack_unmap(stack);
	stack = NULL;
	users = 0;
}

/* The first of a thread, or one for a handler on another stack that has interrupted a function. */
static __attribute__((noinline)) int stack_new(struct call *call)
{
	call->low = stack_map();
	if (!call->low)
		return -ENOMEM;
	call->top = call->low + STACK_BYTES;
	call->own = stack;
	if (!stack)
		stack = call->low;
	return 0;
}

/* A function that calls goes on where it is. */
static inline int stack_get(struct call *call)
{
	uintptr_t sp = epk_sp();
	int err = 0;

	call->before = users;
	call->own = false;
	call->low = stack;
	if (stack && sp - (uintptr_t)stack <= STACK_BYTES)
		call->top = (char *)((sp - 512) & ~255ul);
	else if (stack && !users)
		call->top = stack + STACK_BYTES;
	else
		err = stack_new(call);
	if (!err)
		users = call->before + 1;
	return err;
}

/* Nothing of a domain stays. */
static void stack_put(struct call *call)
{
	char *shallow = (char *)((uintptr_t)(call->top - SHALLOW) & ~(EPK_PAGE_SIZE - 1));

	users = call->before;
	if (call->own) {
		stack_unmap(call->low);
		return;
	}
	if (shallow < call->low)
		shallow = call->low;
	epk_wipe(shallow, call->top);
	if (shallow > call->low)
		madvise(call->low, shallow - call->low, MADV_DONTNEED);
}

/* Whoever has changed what is on the stack meanwhile: nothing stays open. */
static inline void give_up(const struct call *call)
{
	domain_end(call->id);
	if (!epk_holds_nothing())
		epk_let_go();
}

/*
 * The frame is left by longjmp(), and this runs on the stack that is left, too: what is in use of
 * it is wiped after the next call.
 */
static void jumped(void *arg)
{
	struct call *call = arg;

	if (!call->inside)
		return;
	call->inside = false;
	give_up(call);
	epk_forget_aside(&call->aside);
	users = call->before;
}

static inline __attribute__((always_inline)) int leave(struct call *call)
{
	int saved_errno = errno, err = 0;

	if (!call->inside)
		return 0;
	call->inside = false;
	_pthread_cleanup_pop(&call->cleanup, 0);
	give_up(call);
	stack_put(call);
	err = epk_take_back(&call->aside);
	errno = saved_errno;
	return err ? -EIO : 0;
}

static inline __attribute__((always_inline)) void unwound(struct call *call)
{
	leave(call);
}

/* What is held to be read is not written to by the way. */
static __attribute__((noinline)) int may_write(int id)
{
	int held = epk_held_prot(id);

	if (held < 0)
		return held;
	return held && !(held & PROT_WRITE) ? -EACCES : 0;
}

/* So that the thread gives back its stack at its end. */
static __attribute__((noinline)) int first_call(int id)
{
	struct epk_entry entry;
	int err = epk_lookup(id, &entry);

	return err ? err : epk_thread_start();
}

static inline __attribute__((always_inline)) int hold(struct call *call)
{
	int err;

	call->aside.aside = false;
	if (!epk_self) {
		err = first_call(call->id);
		if (err)
			return err;
	}
	if (epk_holds_nothing())
		return domain_begin(call->id, PROT_READ | PROT_WRITE);
	err = may_write(call->id);
	return err ? err : epk_put_aside(&call->aside, call->id);
}

static inline __attribute__((always_inline)) int enter(struct call *call)
{
	int err = hold(call);

	if (err)
		return err;
	err = stack_get(call);
	if (err) {
		give_up(call);
		epk_take_back(&call->aside);
		return err;
	}
	_pthread_cleanup_push(&call->cleanup, jumped, call);
	call->inside = true;
	return 0;
}

int epk_call(int dom_id, long (*fn)(void *arg), void *arg, long *result)
{
	struct call call __attribute__((cleanup(unwound)));
	int saved_errno = errno, err;
	long value;

	call.id = dom_id;
	call.inside = false;
	err = fn ? enter(&call) : -EINVAL;
	if (!err) {
		value = epk_call_on_stack(fn, arg, call.top);
		err = leave(&call);
		if (result)
			*result = value;
	}
	errno = saved_errno;
	return epk_explain("epk_call", dom_id, err);
}
