/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzer of /dev/epk does in a call whose faults are caught: 0 if it was made, else it was
 * refused.
 */
#ifndef KMOD_FUZZ_CATCH_H
#define KMOD_FUZZ_CATCH_H

#include "kmod_fuzz.h"
#include "kmod_fuzz_process.h"

#include <stddef.h>

/**
 * struct caught_call - what a call is made of
 * @fd: the device
 * @cmd: EPK_IOC_CATCH
 * @end: EPK_IOC_RETURN
 * @top: of the stack that its code runs on
 * @arg: the call's
 * @result: 0 if its code has returned, 1 if it was left by a fault, or an error: it was not made
 * @returned: what EPK_IOC_RETURN says
 * @page: what its code accesses
 * @words: what it has read there
 * @value: or what it writes, if that is not 0
 */
struct caught_call {
	long fd, cmd, end;
	char *top;
	struct epk_catch arg;
	long result, returned;
	char *page;
	uint64_t words[2], value;
};

static __thread struct caught_call *caught_call;

/* Without EPK_TRY: what is not held is a fault of the call. */
__attribute__((used)) static void caught_code(void)
{
	volatile uint64_t *at = (void *)caught_call->page;

	if (caught_call->value) {
		at[0] = caught_call->value;
		at[1] = (uintptr_t)at;
		return;
	}
	caught_call->words[0] = at[0];
	caught_call->words[1] = at[1];
}

/* It has been left by a fault, and has not returned: nothing is held. */
__attribute__((used)) static void caught_fault(void)
{
	struct epk_grant list[NR_GRANTS];

	count_add(&counts->caught);
	if (ask(me, list))
		fail("what was left by a fault holds something", list[0].id, NULL);
}

/*
 * caught_try(call): both calls of the module are made with one stack pointer, which a fault brings back,
 * and nothing else.
 */
asm(
"	.text\n"
"caught_try:\n"
EPK_PUSH_SAVED
"	sub	$8, %rsp\n"
"	mov	%rdi, (%rsp)\n"
"	mov	%rdi, %rbx\n"
"	mov	(%rbx), %rdi\n"
"	mov	8(%rbx), %rsi\n"
"	lea	32(%rbx), %rdx\n"
"	mov	$16, %eax\n"
"	syscall\n"
"	mov	%rax, 56(%rbx)\n"
"	test	%rax, %rax\n"
"	jnz	2f\n"
"	mov	%rsp, %rbp\n"
"	mov	24(%rbx), %rsp\n"
"	call	caught_code\n"
"	mov	%rbp, %rsp\n"
"	jmp	1f\n"
"fuzz_caught:\n"
"	cld\n"
"	call	caught_fault\n"
"	mov	(%rsp), %rbx\n"
"	movq	$1, 56(%rbx)\n"
"1:	mov	(%rbx), %rdi\n"
"	mov	16(%rbx), %rsi\n"
"	xor	%edx, %edx\n"
"	mov	$16, %eax\n"
"	syscall\n"
"	mov	%rax, 64(%rbx)\n"
"2:	add	$8, %rsp\n"
EPK_POP_SAVED
"	ret\n"
);
extern void caught_try(struct caught_call *call);

_Static_assert(offsetof(struct caught_call, arg) == 32 &&
	       offsetof(struct caught_call, result) == 56 &&
	       offsetof(struct caught_call, returned) == 64, "as caught_try() has it");

static int op_catch(struct thread *t)
{
	static __thread char stack[1 << 15] __attribute__((aligned(16)));
	const struct thread before = *t;
	struct caught_call call = {
		.fd = t->process->dev.fd, .cmd = EPK_IOC_CATCH, .end = EPK_IOC_RETURN,
		.top = stack + sizeof(stack), .page = some_page(&t->dice),
	};
	bool private;
	int id;

	if (!t->follows || t->by_hand)
		return 1;
	if (one_in(&t->dice, 2))
		call.page = owned_page(t, &id);
	else
		id = some_id(t);
	call.arg = (struct epk_catch) {
		.id = id, .low = (uintptr_t)stack, .top = (uintptr_t)stack + sizeof(stack),
	};
	if (one_in(&t->dice, 30))
		call.arg.flags = odd(&t->dice);
	if (one_in(&t->dice, 2))
		call.value = stamp_of(id);
	private = is_private(t->process, id);
	t->holds = 0;
	forgotten = false;
	caught_call = &call;
	change_begins(t->process);
	caught_try(&call);
	change_ends(t->process);
	if (call.result < 0) {
		recheck(t);
		return 1;
	}
	if (private || call.arg.flags & ~EPK_CATCH_TELLS)
		fail("what is to be refused is called", id, NULL);
	t->nr_rights = t->entered = 0;
	note_right(t, id, PROT_READ | PROT_WRITE, false);
	if (!call.result && !call.value)
		judge(t, call.words[0], call.words[1], call.page);
	errno = -call.returned;
	has_returned(t, &before, false, call.returned != 0);
	return 0;
}

#endif /* KMOD_FUZZ_CATCH_H */
