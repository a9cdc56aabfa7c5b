// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/mman.h>

#include "backend.h"
#include "stack.h"

/* What functions may come to use again and again, and when they are found not to. */
#define WARM_MOST	4
#define CALM_MOST	64
/* What is taken for that where nobody counts. */
#define WARM_UNCOUNTED	1

/* From Linux 5.18 on. */
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif

/*
 * Where the address sanitizer is: what frames have left behind is no mistake of the next, and it knows
 * nothing of stacks that it is not told of.
 */
void __asan_unpoison_memory_region(const volatile void *start, size_t bytes) __attribute__((weak));
void __sanitizer_start_switch_fiber(void **fake, const void *low, size_t bytes) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void *fake, const void **low, size_t *bytes) __attribute__((weak));

#define NEVER	UINT64_MAX

static char *map(int flags)
{
	bool counted = epk_ops()->in_module;
	char *guard_pages;

	guard_pages = mmap(NULL, EPK_STACK_GUARD_BYTES + EPK_STACK_BYTES, PROT_READ,
			   MAP_PRIVATE | MAP_NORESERVE | flags | (counted ? 0 : MAP_ANONYMOUS),
			   counted ? epk_now.fd : -1, counted ? EPK_MMAP_STACK : 0);
	return guard_pages == MAP_FAILED ? NULL : guard_pages;
}

/*
 * Its lowest byte, or NULL.  Below 2 GiB where there is room: libc tells by addresses which frames
 * a longjmp() leaves, and takes it for an error to go to a lower stack.
 *
 * Before it are the guard_pages pages, and in the first of them what the module counts.
 */
char *epk_stack_map(void)
{
	char *guard_pages = map(MAP_32BIT);

	if (!guard_pages)
		guard_pages = map(0);
	if (!guard_pages)
		return NULL;
	/* What was ever writable may be a copy of the count. */
	if (mprotect(guard_pages + EPK_PAGE_SIZE, EPK_STACK_GUARD_BYTES - EPK_PAGE_SIZE,
		     PROT_NONE) ||
	    mprotect(guard_pages + EPK_STACK_GUARD_BYTES, EPK_STACK_BYTES,
		     PROT_READ | PROT_WRITE)) {
		munmap(guard_pages, EPK_STACK_GUARD_BYTES + EPK_STACK_BYTES);
		return NULL;
	}
	return guard_pages + EPK_STACK_GUARD_BYTES;
}

static void unpoison(char *low, size_t bytes)
{
	if (__asan_unpoison_memory_region)
		__asan_unpoison_memory_region(low, bytes);
}

bool epk_stack_watched(void)
{
	return __sanitizer_start_switch_fiber && __sanitizer_finish_switch_fiber;
}

/* The next function runs on the stack from @low on. */
void epk_stack_watch(struct epk_watch *watch, char *low)
{
	if (!epk_stack_watched())
		return;
	watch->left = true;
	watch->sp = __builtin_frame_address(0);
	__sanitizer_start_switch_fiber(&watch->fake, low, EPK_STACK_BYTES);
	__sanitizer_finish_switch_fiber(NULL, &watch->low, &watch->bytes);
}

/*
 * It does no longer.  Where it has not @returned, frames of both stacks are left.  What it has of the
 * sanitizer's frames ends here, so that this has none.
 */
__attribute__((no_sanitize("address"))) void epk_stack_unwatch(struct epk_watch *watch, bool returned)
{
	const char *end;

	if (!epk_stack_watched() || !watch->left)
		return;
	watch->left = false;
	__sanitizer_start_switch_fiber(NULL, watch->low, watch->bytes);
	__sanitizer_finish_switch_fiber(watch->fake, NULL, NULL);
	end = (const char *)watch->low + watch->bytes;
	if (!returned && watch->sp < end)
		unpoison(watch->sp, end - watch->sp);
}

void epk_stack_unmap(char *low)
{
	unpoison(low, EPK_STACK_BYTES);
	munmap(low - EPK_STACK_GUARD_BYTES, EPK_STACK_GUARD_BYTES + EPK_STACK_BYTES);
}

/* False if it has to be wiped, and stays: that somebody uses it again nobody counts. */
static bool give_back(char *low, char *high)
{
	if (low >= high || !madvise(low, high - low, MADV_DONTNEED) ||
	    !madvise(low, high - low, MADV_DONTNEED_LOCKED))
		return true;
	epk_wipe(low, high);
	return false;
}

void epk_stack_init(struct epk_stack *stack, char *low)
{
	*stack = (struct epk_stack){ .low = low, .quick = NEVER };
	stack->counted = epk_ops()->in_module && !__asan_unpoison_memory_region;
	if (!stack->counted)
		return;
	*(volatile char *)epk_stack_hot(low, 0) = 0;
	/* Where mlockall() has had it come at once. */
	stack->counted = give_back(low, epk_stack_hot(low, 0));
	if (!stack->counted)
		return;
	stack->wiped = epk_stack_touched(low);
	stack->quick = stack->wiped;
}

/* The whole of it was in use.  Does more or less of it belong to the hot part from now on? */
static bool adapt(struct epk_stack *stack, const char *low)
{
	if (stack->warm > WARM_MOST)
		stack->warm = 0;	/* nobody but a stray write does that */
	if (epk_stack_touched(low) != stack->wiped) {
		stack->warm += stack->warm < WARM_MOST;
		stack->calm = 0;
		return true;
	}
	if (++stack->calm < CALM_MOST)
		return false;
	stack->warm = 0;
	stack->calm = 0;
	return true;
}

void epk_stack_wipe_rest(struct epk_stack *stack, char *low, char *top)
{
	bool counted = stack && stack->counted;
	bool whole = top == epk_stack_top(low), touched = true;
	int saved_errno = errno;
	char *hot;

	unpoison(low, top - low);
	if (counted)
		touched = adapt(stack, low);
	hot = epk_stack_hot(low, counted ? stack->warm : WARM_UNCOUNTED);
	if (hot >= top)
		hot = (char *)((uintptr_t)(top - 1) & ~(EPK_PAGE_SIZE - 1));
	epk_wipe(hot, top);
	if (touched && !give_back(low, hot) && counted) {
		stack->counted = counted = false;
		stack->quick = NEVER;
	}
	if (counted && whole) {
		stack->wiped = epk_stack_touched(low);
		stack->quick = stack->warm ? NEVER : stack->wiped;
	}
	errno = saved_errno;
}
