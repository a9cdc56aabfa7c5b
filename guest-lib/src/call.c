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
#include <string.h>

#include "aside.h"
#include "cleanup.h"
#include "stack.h"

/* call_stack.S */
long epk_call_on_stack(long (*fn)(void *), void *arg, void *top);
void epk_registers_clear(void);

/**
 * struct outcome - how a function was left
 * @value: what it returned
 * @error: or -EFAULT, and epk_call_noted() has been told
 */
struct outcome {
	long value;
	long error;
};

/* call_caught.S */
struct outcome epk_call_caught_on_stack(long (*fn)(void *), void *arg, void *top);

/**
 * struct call - a call of epk_call()
 * @id: the domain
 * @inside: the function has not returned
 * @plain: the caller held nothing and is on its own stack, the thread's stack is used for the first
 *	time at the moment, and @cleanup is registered
 * @own: the stack is for this call alone
 * @registered: @cleanup is
 * @watch: of the stack that was left, if it is not @plain
 * @low: the stack that is used, from here
 * @top: to here
 * @before: how many functions were on the thread's stack
 * @aside: what was held before, if that was anything
 * @cleanup: libc's
 */
struct call {
	int id;
	bool inside;
	bool plain;
	bool own;
	bool registered;
	struct epk_watch watch;
	char *low;
	char *top;
	unsigned int before;
	struct epk_aside aside;
	struct epk_cleanup cleanup;
};

/* The first of a thread, or one for a handler on another stack that has interrupted a function. */
static int stack_new(struct call *call)
{
	struct epk_thread *t = epk_self;

	call->low = epk_stack_map();
	if (!call->low)
		return -ENOMEM;
	call->top = epk_stack_top(call->low);
	call->own = t->stack.low;
	if (!call->own) {
		epk_stack_init(&t->stack, call->low);
		/* Then libc cannot tell. */
		if ((uintptr_t)call->low > t->own_low)
			t->own_bytes = t->own_quick = 0;
	}
	return 0;
}

/* Can libc tell when the frame is left? */
static bool can_register(const struct call *call)
{
	const struct epk_thread *t = epk_self;
	uintptr_t frame = (uintptr_t)&call->cleanup;

	if (!t->own_bytes || (uintptr_t)call->low > t->own_low)
		return false;
	return frame - t->own_low < t->own_bytes ||
	       (!call->own && frame - (uintptr_t)call->low < EPK_STACK_BYTES);
}

/*
 * The caller is on another stack than its own, or the thread has none for functions.  Where nobody tells
 * that a call which @catches is left, what goes on must not come to that call's stack: it is taken for
 * what was called.
 */
static __attribute__((noinline)) int stack_get_elsewhere(struct call *call, uintptr_t sp, bool catches)
{
	struct epk_thread *t = epk_self;
	int saved_errno = errno, err = 0;
	bool on_it = call->low && sp - (uintptr_t)call->low <= EPK_STACK_BYTES;
	bool here = on_it && (!catches || (EPK_JUMPS_ARE_TOLD && can_register(call)));

	call->plain = false;
	call->watch.left = false;
	if (here)
		call->top = (char *)((sp - 512) & ~(EPK_STACK_STEP - 1));
	else if (call->low && !call->before && !on_it)
		call->top = epk_stack_top(call->low);
	else
		err = stack_new(call);
	if (!err) {
		t->on_stack = call->before + 1;
		call->registered = can_register(call);
		if (!here)
			epk_stack_watch(&call->watch, call->low);
	}
	errno = saved_errno;
	return err;
}

/* A function that calls goes on where it is. */
static inline __attribute__((always_inline)) int stack_get(struct call *call, bool catches)
{
	struct epk_thread *t = epk_self;

	call->before = t->on_stack;
	call->own = false;
	/* Whatever is forged: a wipe that faults halfway can be jumped out of. */
	call->low = (char *)((uintptr_t)t->stack.low & -EPK_PAGE_SIZE);
	if (unlikely(!call->low || call->before ||
		     (uintptr_t)&call->cleanup - t->own_low >= t->own_quick))
		return stack_get_elsewhere(call, epk_sp(), catches);
	call->top = epk_stack_top(call->low);
	call->registered = true;
	call->plain = !call->aside.aside;
	t->on_stack = 1;
	return 0;
}

/* A forked child has no threads that the library knows. */
static inline void stack_leave(unsigned int before)
{
	if (epk_self)
		epk_self->on_stack = before;
}

/* Nothing of a domain stays. */
static inline __attribute__((always_inline)) void stack_put(struct call *call, unsigned int before,
							    bool own)
{
	struct epk_thread *t = epk_self;

	stack_leave(before);
	if (own)
		epk_stack_unmap(call->low);
	else
		epk_stack_wipe(t ? &t->stack : NULL, call->low, call->top);
}

/* Whoever has changed what is on the stack meanwhile: nothing stays open. */
static inline void give_up(const struct call *call)
{
	if (likely(!epk_now.close()))
		return;
	domain_end(call->id);
	if (!epk_holds_nothing())
		epk_let_go();
}

/*
 * The frame is left by longjmp(), and this runs on the stack that is left, too: what is in use of
 * it is wiped after the next call.
 */
static __attribute__((no_sanitize("address"))) void jumped(void *arg)
{
	struct call *call = arg;

	if (!call->inside)
		return;
	call->inside = false;
	epk_registers_clear();
	give_up(call);
	epk_forget_aside(&call->aside);
	stack_leave(call->before);
	if (!call->plain)
		epk_stack_unwatch(&call->watch, false);
}

/* What the frame says is no reason to leave any of it out. */
static inline __attribute__((always_inline)) int leave(struct call *call, bool returned)
{
	int saved_errno, err;

	call->inside = false;
	if (likely(call->plain)) {
		_pthread_cleanup_pop(&call->cleanup, 0);
		give_up(call);
		stack_put(call, 0, false);
		return 0;
	}
	if (call->registered)
		_pthread_cleanup_pop(&call->cleanup, 0);
	give_up(call);
	epk_stack_unwatch(&call->watch, returned);
	stack_put(call, call->before, call->own);
	saved_errno = errno;
	err = epk_take_back(&call->aside);
	errno = saved_errno;
	return err ? -EIO : 0;
}

static inline __attribute__((always_inline)) void unwound(struct call *call)
{
	if (!call->inside)
		return;
	epk_registers_clear();
	leave(call, false);
}

/* What is held to be read is not written to by the way. */
static __attribute__((noinline)) int may_write(int id)
{
	int held = epk_held_prot(id);

	if (held < 0)
		return epk_because_of(held);
	return held && !(held & PROT_WRITE) ? epk_because(EPK_CAUSE_READ_ONLY) : 0;
}

/* So that the thread gives back its stack at its end. */
static __attribute__((noinline)) int first_call(int id)
{
	struct epk_entry entry;
	int saved_errno = errno, err = epk_lookup(id, &entry);

	if (!err)
		err = epk_thread_ready();
	errno = saved_errno;
	return err;
}

static inline __attribute__((always_inline)) int hold(struct call *call)
{
	int saved_errno, err;

	call->aside.aside = false;
	if (unlikely(!epk_self)) {
		err = first_call(call->id);
		if (err)
			return err;
	}
	if (likely(epk_holds_nothing()))
		return domain_begin(call->id, PROT_READ | PROT_WRITE);
	saved_errno = errno;
	err = may_write(call->id);
	if (!err)
		err = epk_put_aside(&call->aside, call->id);
	errno = saved_errno;
	return err;
}

static inline __attribute__((always_inline)) int enter(struct call *call)
{
	int err = hold(call);

	if (err)
		return err;
	err = stack_get(call, false);
	if (unlikely(err)) {
		give_up(call);
		epk_take_back(&call->aside);
		return err;
	}
	if (likely(call->registered))
		_pthread_cleanup_push(&call->cleanup, jumped, call);
	call->inside = true;
	return 0;
}

/* The module has the thread go on in the function that this is inlined in. */
static inline __attribute__((always_inline)) int put_aside_caught(struct call *call)
{
	const struct epk_catch arg = {
		.id = call->id, .flags = EPK_CATCH_TELLS, .low = (uintptr_t)call->low - EPK_STACK_GUARD_BYTES,
		.top = (uintptr_t)call->top,
	};
	int err = epk_ioctl_here(EPK_IOC_CATCH, (uintptr_t)&arg);

	call->aside.sp = epk_sp();
	call->aside.aside = !err;
	return err;
}

static __attribute__((noinline)) int may_catch(int id)
{
	const struct epk_backend *ops = epk_ops();
	int err = ops && ops->in_module ? 0 : epk_because(EPK_CAUSE_CATCH);

	if (!ops)
		return -ENOENT;
	if (!err && !epk_self)
		err = first_call(id);
	return err ? err : may_write(id);
}

static inline __attribute__((always_inline)) int enter_caught(struct call *call)
{
	int saved_errno = errno, err;

	call->aside.aside = false;
	err = may_catch(call->id);
	if (!err)
		err = stack_get(call, true);
	call->plain = false;
	errno = saved_errno;
	if (err)
		return err;
	err = put_aside_caught(call);
	if (err) {
		stack_leave(call->before);
		if (call->own)
			epk_stack_unmap(call->low);
		return err;
	}
	if (call->registered)
		_pthread_cleanup_push(&call->cleanup, jumped, call);
	call->inside = true;
	return 0;
}

/*
 * The library's books are open for good if that is where the fault was: this is how a process ends
 * in which they are forged.
 */
static void end_if_locked(void)
{
	sigset_t old;
	int err;

	/* A handler that finds it locked here would be taken for such a fault. */
	epk_signals_block(&old);
	err = pthread_mutex_trylock(&epk_lock);
	if (!err)
		pthread_mutex_unlock(&epk_lock);
	else if (err == EDEADLK)
		__builtin_trap();
	epk_signals_restore(&old);
}

/*
 * While nothing is held, so that the books can be looked at.  Without a thread it is a forked child's, which
 * had none.
 */
static void tell_fault(void)
{
	if (epk_self)
		epk_fault_caught(&epk_self->fault);
}

int epk_last_fault(struct epk_fault *fault)
{
	const struct epk_thread *t = epk_self;
	size_t size = fault ? fault->size : 0, known;
	int err = 0;

	if (size < sizeof(size) || size % sizeof(size) || size > EPK_SIZE_MAX)
		err = epk_because(EPK_CAUSE_FAULT);
	else if (!t || !t->fault.size)
		err = epk_because(EPK_CAUSE_NO_FAULT);
	if (err)
		return epk_explain("epk_last_fault", size, err);
	known = size < sizeof(t->fault) ? size : sizeof(t->fault);
	memcpy(fault, &t->fault, known);
	memset((char *)fault + known, 0, size - known);
	fault->size = size;
	return 0;
}

int epk_call_caught(int dom_id, long (*fn)(void *arg), void *arg, long *result)
{
	struct call call __attribute__((cleanup(unwound)));
	struct outcome outcome;
	int err;

	call.id = dom_id;
	call.inside = false;
	err = fn ? enter_caught(&call) : epk_because(EPK_CAUSE_FUNCTION);
	if (!err) {
		outcome = epk_call_caught_on_stack(fn, arg, call.top);
		if (outcome.error)
			tell_fault();
		err = leave(&call, !outcome.error);
		if (outcome.error)
			end_if_locked();
		if (!err)
			err = outcome.error ? epk_because(EPK_CAUSE_FAULTED) : 0;
		if (result && !outcome.error)
			*result = outcome.value;
	}
	return likely(!err) ? 0 : epk_explain("epk_call_caught", dom_id, err);
}

/* The begin has told its cause, and that as its own. */
static __attribute__((noinline)) int failed(const char *call, int id, int err)
{
	if (id <= 0 && err == -EINVAL)
		epk_because(EPK_CAUSE_ID);
	return epk_explain(call, id, err);
}

int epk_call(int dom_id, long (*fn)(void *arg), void *arg, long *result)
{
	struct call call __attribute__((cleanup(unwound)));
	long value;
	int err;

	call.id = dom_id;
	call.inside = false;
	err = fn ? enter(&call) : epk_because(EPK_CAUSE_FUNCTION);
	if (likely(!err)) {
		value = epk_call_on_stack(fn, arg, call.top);
		err = leave(&call, true);
		if (result)
			*result = value;
	}
	return likely(!err) ? 0 : failed("epk_call", dom_id, err);
}
