// SPDX-License-Identifier: MIT
/*
 * EPK_WITH().  Nothing is registered with libc for longjmp(): where setjmp() was called in the same
 * function, libc cannot tell whether the statement is left, and would keep what is gone.
 */
#include "backend.h"

/* In @before: it was held like that already, and stays so. */
#define AS_BEFORE	-1

static int begin(struct epk_scope *scope, int prot)
{
	int held = epk_held_prot(scope->dom_id), err;

	scope->before = AS_BEFORE;
	if (held > 0 && prot && !(prot & ~held))
		return 0;
	err = domain_begin(scope->dom_id, prot);
	if (!err)
		scope->before = held > 0 ? held : 0;
	return err;
}

struct epk_scope *epk_scope_enter(struct epk_scope *scope, int prot)
{
	scope->error = begin(scope, prot);
	return scope;
}

void epk_scope_leave(struct epk_scope *scope)
{
	if (scope->before == AS_BEFORE)
		return;
	/* Whatever the frame says, no more is held than before this. */
	if (!domain_end(scope->dom_id) && scope->before)
		domain_begin(scope->dom_id, PROT_READ);
}
