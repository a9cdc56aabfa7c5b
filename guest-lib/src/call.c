// SPDX-License-Identifier: MIT
/*
 * epk_call(): a function's stack lies in the domain that it works on, so that
 * what it leaves there stays there.  A domain keeps its stacks for later calls,
 * each linked to the next by its lowest word.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "backend.h"
#include "registry.h"

#define STACK_BYTES	(128ul * 1024)
#define ALTERNATE_BYTES	(64ul * 1024)

struct stack {
	struct stack *next;
	char room[STACK_BYTES - sizeof(struct stack *)];
};

long epk_call_on_stack(long (*fn)(void *), void *arg, void *top, unsigned int wide);

/* A signal handler cannot use a stack that it may not touch. */
static int alternate_stack(struct epk_thread *t)
{
	stack_t now;
	int err;

	if (t->alternate || (!sigaltstack(NULL, &now) && !(now.ss_flags & SS_DISABLE)))
		return 0;
	now = (stack_t){ .ss_sp = malloc(ALTERNATE_BYTES), .ss_size = ALTERNATE_BYTES };
	if (!now.ss_sp)
		return -ENOMEM;
	if (sigaltstack(&now, NULL)) {
		err = -errno;
		free(now.ss_sp);
		return err;
	}
	t->alternate = now.ss_sp;
	return 0;
}

/* Of a domain that the thread holds for writing. */
static struct stack *stack_get(int id)
{
	struct epk_domain *dom;
	struct stack *stack;
	char *mem;
	int err;

	pthread_mutex_lock(&epk_lock);
	dom = epk_registry_at(EPK_ID_INDEX(id));
	stack = dom->stacks;
	if (stack && epk_mapping_at((uintptr_t)stack) == id)
		dom->stacks = stack->next;
	else
		stack = NULL;
	pthread_mutex_unlock(&epk_lock);
	if (stack)
		return stack;
	mem = domain_mmap(id, NULL, EPK_PAGE_SIZE + STACK_BYTES, PROT_READ | PROT_WRITE, 0);
	if (mem == MAP_FAILED)
		return NULL;
	/* What runs off the end is to fault, not to find something else. */
	pthread_mutex_lock(&epk_lock);
	err = epk_mapping_forbid((uintptr_t)mem, EPK_PAGE_SIZE);
	pthread_mutex_unlock(&epk_lock);
	if (err) {
		domain_munmap(mem, EPK_PAGE_SIZE + STACK_BYTES);
		errno = -err;
		return NULL;
	}
	return (struct stack *)(mem + EPK_PAGE_SIZE);
}

static void stack_put(int id, struct stack *stack)
{
	struct epk_domain *dom;

	pthread_mutex_lock(&epk_lock);
	dom = epk_registry_at(EPK_ID_INDEX(id));
	stack->next = dom->stacks;
	dom->stacks = stack;
	pthread_mutex_unlock(&epk_lock);
}

static int call(int id, long (*fn)(void *), void *arg, long *result)
{
	unsigned int wide;
	struct stack *stack;
	int err;

	err = epk_self ? alternate_stack(epk_self) : 0;
	if (err)
		return err;
	stack = stack_get(id);
	if (!stack)
		return -errno;
	wide = (__builtin_cpu_supports("avx") ? 1 : 0) | (__builtin_cpu_supports("avx512f") ? 2 : 0);
	*result = epk_call_on_stack(fn, arg, stack + 1, wide);
	stack_put(id, stack);
	return 0;
}

int epk_call(int dom_id, long (*fn)(void *arg), void *arg, long *result)
{
	int saved_errno = errno, err;
	long ignored;
	int held;

	if (!fn)
		return epk_explain("epk_call", dom_id, -EINVAL);
	held = epk_held_prot(dom_id);
	if (held <= 0)
		err = domain_begin(dom_id, PROT_READ | PROT_WRITE);
	else
		err = held & PROT_WRITE ? 0 : -EACCES;
	if (err)
		return epk_explain("epk_call", dom_id, err);
	err = call(dom_id, fn, arg, result ? result : &ignored);
	if (held <= 0)
		domain_end(dom_id);
	errno = saved_errno;
	return epk_explain("epk_call", dom_id, err);
}
