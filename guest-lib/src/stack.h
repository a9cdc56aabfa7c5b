/* SPDX-License-Identifier: MIT */
/*
 * Stacks for functions that epk_call() runs: ordinary memory, of which nothing stays from one
 * function to the next.  Most use little of it.  The rest is given back to the system only if it
 * was touched, which the module tells where there is one.
 */
#ifndef EPK_STACK_H
#define EPK_STACK_H

#include <stdbool.h>
#include <stdint.h>

#include "state_page.h"

#define EPK_STACK_BYTES		(128ul * 1024)
/* So much is wiped after each function.  It begins with a page. */
#define EPK_STACK_HOT		1024ul
#define EPK_STACK_STEP		512ul
/* Below it: what nobody can touch, but for the first page. */
#define EPK_STACK_GUARD_BYTES	(64ul * 1024)

/**
 * struct epk_stack - the stack of a thread
 * @low: its lowest byte, or NULL
 * @counted: somebody counts how many of its pages are touched
 * @wiped: how many were when nothing was in use below the hot part
 * @quick: the same, as long as the hot part is the first page's alone; else what it will never be
 * @warm: how many pages below belong to the hot part, too, since functions have used them
 * @calm: how many functions since then have used no more
 */
struct epk_stack {
	char *low;
	bool counted;
	uint64_t wiped;
	uint64_t quick;
	unsigned int warm;
	unsigned int calm;
};

/* Where functions start. */
static inline char *epk_stack_top(char *low)
{
	return low + EPK_STACK_BYTES - 4096 + EPK_STACK_HOT;
}

/**
 * struct epk_watch - what the address sanitizer had of the stack that was left for one of these
 * @left: it was told so
 * @low: the stack, from here
 * @bytes: so long
 * @sp: in use from here
 * @fake: frames that it keeps elsewhere
 */
struct epk_watch {
	bool left;
	const void *low;
	size_t bytes;
	char *sp;
	void *fake;
};

bool epk_stack_watched(void);
void epk_stack_watch(struct epk_watch *watch, char *low);
void epk_stack_unwatch(struct epk_watch *watch, bool returned);

static inline char *epk_stack_hot(char *low, unsigned int warm)
{
	return low + EPK_STACK_BYTES - 4096 * (warm + 1ul);
}

/* How many of its pages have been touched so far; 0 where nobody counts. */
static inline uint64_t epk_stack_touched(const char *low)
{
	return *(const volatile uint64_t *)(low - EPK_STACK_GUARD_BYTES);
}

/* call_caught.S: where the module has a thread go on whose epk_call_caught() has faulted. */
extern const char epk_call_fault[];

/* call_stack.S */
void epk_wipe(void *low, void *high);

char *epk_stack_map(void);
void epk_stack_unmap(char *low);
void epk_stack_init(struct epk_stack *stack, char *low);
void epk_stack_wipe_rest(struct epk_stack *stack, char *low, char *top);

/*
 * Nothing stays of what was on it below @top, a multiple of EPK_STACK_STEP.  @stack is NULL in a
 * forked child, which has what its parent had.
 */
static inline void epk_stack_wipe(struct epk_stack *stack, char *low, char *top)
{
	char *hot = epk_stack_hot(low, 0);

	if (likely(hot < top))
		epk_wipe(hot, top);
	if (unlikely(!stack || epk_stack_touched(low) != stack->quick))
		epk_stack_wipe_rest(stack, low, top);
}

#endif /* EPK_STACK_H */
