// SPDX-License-Identifier: MIT
/*
 * epk_call(): a function runs with one domain alone, on a stack of the thread's own for such
 * functions, which is wiped afterwards.  That is ordinary memory, which signal handlers,
 * cancellation and children can use, whatever they hold.
 *
 * By a return, an exception and the end of the thread what was held before is held afterwards, and
 * the domain is not.  By longjmp() nothing is: libc calls what is registered with it for frames
 * that are left.  It tells that by addresses, so only frames are registered that lie on the
 * thread's own stack, above these stacks, or on one of them.
 */
#define _GNU_SOURCE
#include "aside.h"
#include "cleanup.h"
#include "stack.h"

/* call_stack.S */
long epk_call_on_stack(long (*fn)(void *), void *arg, void *top);
void epk_registers_clear(void);

/**
 * struct call - a call of epk_call()
 * @id: the domain
 * @inside: the function has not returned
 * @own: the stack is for this call alone
 * @registered: @cleanup is
 * @low: the stack that is used, from here
 * @top: to here
 * @before: how many functions were on the thread's stack
 * @aside: what was held before, if that was anything
 * @cleanup: libc's
 */
struct call {
	int id;
	bool inside;
	bool own;
	bool registered;
	char *low;
	char *top;
	unsigned int before;
	struct epk_aside aside;
	struct epk_cleanup cleanup;
};

/* The first of a thread, or one for a handler on another stack that has interrupted a function. */
static __attribute__((noinline)) int stack_new(struct call *call)
{
	call->low = epk_stack_map();
	if (!call->low)
		return -ENOMEM;
	call->top = call->low + EPK_STACK_BYTES;
	call->own = epk_self->stack;
	if (!epk_self->stack)
		epk_self->stack = call->low;
	return 0;
}

/* A function that calls goes on where it is. */
static inline int stack_get(struct call *call)
{
	struct epk_thread *t = epk_self;
	uintptr_t sp = epk_sp();
	int err = 0;

	call->before = t->on_stack;
	call->own = false;
	call->low = t->stack;
	if (t->stack && sp - (uintptr_t)t->stack <= EPK_STACK_BYTES)
		call->top = (char *)((sp - 512) & ~255ul);
	else if (t->stack && !t->on_stack)
		call->top = t->stack + EPK_STACK_BYTES;
	else
		err = stack_new(call);
	if (!err)
		t->on_stack = call->before + 1;
	return err;
}

/* A forked child has no threads that the library knows. */
static inline void stack_leave(const struct call *call)
{
	if (epk_self)
		epk_self->on_stack = call->before;
}

/* Nothing of a domain stays. */
static void stack_put(struct call *call)
{
	stack_leave(call);
	if (call->own)
		epk_stack_unmap(call->low);
	else
		epk_stack_wipe(call->low, call->top);
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
	epk_registers_clear();
	give_up(call);
	epk_forget_aside(&call->aside);
	stack_leave(call);
}

/* What the frame says is no reason to leave any of it out. */
static inline __attribute__((always_inline)) int leave(struct call *call)
{
	int saved_errno = errno, err;

	call->inside = false;
	if (call->registered)
		_pthread_cleanup_pop(&call->cleanup, 0);
	give_up(call);
	stack_put(call);
	err = epk_take_back(&call->aside);
	errno = saved_errno;
	return err ? -EIO : 0;
}

static inline __attribute__((always_inline)) void unwound(struct call *call)
{
	if (!call->inside)
		return;
	epk_registers_clear();
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

	return err ? err : epk_thread_ready();
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

/* Can libc tell when the frame is left? */
static inline bool can_register(const struct call *call)
{
	uintptr_t frame = (uintptr_t)&call->cleanup, low = (uintptr_t)call->low;
	const struct epk_thread *t = epk_self;

	if (low > t->own_high)
		return false;
	return (frame >= t->own_low && frame < t->own_high) ||
	       (!call->own && frame - low < EPK_STACK_BYTES);
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
	call->registered = can_register(call);
	if (call->registered)
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
