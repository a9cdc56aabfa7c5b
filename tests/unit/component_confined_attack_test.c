// SPDX-License-Identifier: MIT
/* Confined components: who jumps out of one, or has the kernel write what it may not. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>

#include "aside.h"
#include "component.h"
#include "pkru.h"
#include "unit.h"

#define WD0	PKRU_WD(0)

/* The last is not confined. */
#define NR	3
static int ids[NR];
static long *own[NR];

/* What it may not write to. */
#define SHARED_BYTES	(1ul << 16)
static char *shared;

static void require_untouched(void)
{
	size_t i;

	for (i = 0; i < SHARED_BYTES; i++)
		REQUIRE_EQ(shared[i], 0);
}

struct jump {
	const char *to, *stack;
	uint32_t callee, caller;
};

/* To a WRPKRU, with key 0 open beside its own; and its stacks lie where it may not write. */
static long jumps(void *arg)
{
	static const uint64_t frame[128];
	char *header = (char *)EPK_NOTE_ADDR(epk_note(ids[0])) + EPK_CONF_HEADER;
	struct epk_component_slot *slot = (void *)(header + EPK_COMP_SLOTS);
	const struct jump *j = arg;
	uint32_t pkru = rdpkru() & ~WD0, i;

	for (i = 0; i < 16; i++)
		slot[i].top = (uintptr_t)shared + SHARED_BYTES / 2;
	/* What is still wanted of the compiler's registers is read before they are written. */
	asm volatile("fld1\n\tmov %c[to](%%rdi), %%r11\n\t"
		     "mov %c[stack](%%rdi), %%r10\n\t"
		     "mov %c[caller](%%rdi), %%r12d\n\tmov %c[callee](%%rdi), %%edi\n\t"
		     "mov %%edi, %%ebx\n\tmov %%rdx, %%r8\n\tmov %%rdx, %%r9\n\t"
		     "mov epk_word@gottpoff(%%rip), %%r13\n\t"
		     "mov %%fs:%c[comp_slot](%%r13), %%r15d\n\tshl $32, %%r15\n\tor %%r12, %%r15\n\t"
		     "mov %%rdx, %%r12\n\txor %%ecx, %%ecx\n\txor %%edx, %%edx\n\t"
		     "xor %%ebp, %%ebp\n\txor %%esi, %%esi\n\t"
		     "mov epk_state_page(%%rip), %%r14\n\t"
		     "mov %%r10, %%rsp\n\txor %%r10d, %%r10d\n\tjmp *%%r11"
		     : : "a"(pkru), "D"(j), "d"(frame + 64), [to] "i"(offsetof(struct jump, to)),
			 [callee] "i"(offsetof(struct jump, callee)),
			 [caller] "i"(offsetof(struct jump, caller)),
			 [comp_slot] "i"(offsetof(struct epk_word, comp_slot)),
			 [stack] "i"(offsetof(struct jump, stack))
		     : "memory");
	return 0;
}

extern const char store_and_end[];
asm(".text\nstore_and_end:\n\tmovq $-1, (%r12)\n\tud2");

/* Of a signal that there was none of, whose frame has all keys open. */
static long sigreturns(void *arg)
{
	ucontext_t *uc = (ucontext_t *)(own[0] + 64);
	greg_t *regs = uc->uc_mcontext.gregs;

	memset(uc, 0, sizeof(*uc));
	uc->uc_flags = 6;
	uc->uc_stack.ss_flags = SS_DISABLE;
	regs[REG_RIP] = (uintptr_t)store_and_end;
	regs[REG_RSP] = (uintptr_t)arg + 1024;
	regs[REG_R12] = (uintptr_t)arg;
	regs[REG_EFL] = 0x202;
	regs[REG_CSGSFS] = 0x002b000000000033;
	asm volatile("mov %0, %%rsp\n\tmov $15, %%eax\n\tsyscall" : : "r"(uc) : "memory");
	return 0;
}

/* Of a call, with nothing, where its caller holds something. */
static long forgets_call(void *arg)
{
	register long target asm("r12") = (long)arg;

	asm volatile("syscall\n\tjmp store_and_end"
		     : : "a"(SYS_ioctl), "D"(epk_now.fd), "S"(EPK_IOC_RETURN),
			 "d"(EPK_RETURN_NOTHING), "r"(target) : "rcx", "r11", "memory");
	return 0;
}

/* Where it is done by its caller; or by who has handled a signal, and called it then. */
static uintptr_t done_at;

static long returns_call(void *arg)
{
	register long target asm("r12") = (long)arg;

	asm volatile("mov %[at], %%rsp\n\tsyscall\n\tjmp store_and_end"
		     : : "a"(SYS_ioctl), "D"(epk_now.fd), "S"(EPK_IOC_RETURN), "d"(0), "r"(target),
			 [at] "r"(done_at) : "rcx", "r11", "memory");
	return 0;
}

static long returns_signal(void *arg)
{
	asm volatile("mov %0, %%rsp\n\tmov $15, %%eax\n\tsyscall" : : "r"(done_at) : "memory");
	return (long)arg;
}

/* A signal's frame would go where its stack is. */
static long pivots(void *arg)
{
	asm volatile("mov %0, %%rsp\n1:\tjmp 1b" : : "r"((char *)arg + SHARED_BYTES) : "memory");
	return 0;
}

/* The same in the gates, where the kernel is told that the stack is theirs. */
static volatile uintptr_t gate_at;

static long steps(void *arg)
{
	asm volatile("xor %%ecx, %%ecx\n\txor %%edx, %%edx\n\t"
		     "pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tmov %0, %%rsp\n\tjmp *%1"
		     : : "r"((char *)arg + SHARED_BYTES), "r"(gate_at), "a"(rdpkru())
		     : "rcx", "rdx", "memory");
	return 0;
}

/* The gate would use the stack on the way out. */
static long forges_top(void *arg)
{
	char *header = (char *)EPK_NOTE_ADDR(epk_note(ids[0])) + EPK_CONF_HEADER;
	struct epk_component_slot *slot = (void *)(header + EPK_COMP_SLOTS);
	int i;

	for (i = 0; i < 16; i++)
		slot[i].top = (uintptr_t)arg + SHARED_BYTES;
	asm volatile("fld1");
	return 0;
}

/* Until it is told to go; meanwhile nobody else is on its stack. */
#define STACK_WORDS	1024
static volatile int may_go[3];
static int stay_in;
static int inside[2];

static long stays(void *arg)
{
	volatile long mine[STACK_WORDS], which = (long)arg;
	long i, err;

	for (i = 0; i < STACK_WORDS; i++)
		mine[i] = which;
	asm volatile("syscall" : "=a"(err) : "a"(SYS_write), "D"(inside[1]), "S"(mine), "d"(1)
		     : "rcx", "r11", "memory");
	while (!may_go[which])
		;
	for (i = 0; i < STACK_WORDS; i++)
		if (mine[i] != which)
			return -1;
	return which;
}

static long scribbles(void *arg)
{
	volatile long mine[STACK_WORDS];
	long i;

	for (i = 0; i < STACK_WORDS; i++)
		mine[i] = -1;
	return mine[(long)arg];
}

enum { JUMPS, SIGRETURNS, FORGETS_CALL, RETURNS_CALL, RETURNS_SIGNAL, PIVOTS, TOP, STEPS,
	STAYS, SCRIBBLES, NR_ENTRIES };

static long (*const entries[])(void *arg) = {
	jumps, sigreturns, forgets_call, returns_call, returns_signal, pivots, forges_top, steps,
	stays, scribbles,
};

static void set_up(void)
{
	struct epk_component_options options = { .size = sizeof(options) };
	int i;

	REQUIRE(!alloc_domains(NR, ids));
	for (i = 0; i < NR; i++) {
		own[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		REQUIRE(own[i] != MAP_FAILED);
		options.flags = i == NR - 1 ? 0 : EPK_COMPONENT_CONFINED;
		REQUIRE(!epk_component_create(ids[i], entries, NR_ENTRIES, &options));
	}
}

static void require_closed(void)
{
	char byte;
	int i;

	REQUIRE(!(rdpkru() & PKRU_BITS(0)) && !epk_held(NULL, 0));
	for (i = 0; i < NR; i++)
		REQUIRE(!try_read((char *)own[i], &byte));
}

extern const char epk_component_gates_start[], epk_component_gates_end[];
static struct jump jump_now;

/* On the stack of who has called. */
static void ends(int sig)
{
	char here;

	(void)sig;
	_exit(&here < shared || &here >= shared + SHARED_BYTES ? 7 : 1);
}

static void jumping(void)
{
	signal(SIGILL, ends);
	set_up();
	if (jump_now.callee)
		jump_now.callee = ids[jump_now.callee - 1];
	if (jump_now.caller)
		jump_now.caller = ids[jump_now.caller - 1];
	epk_gate_call(ids[0], JUMPS, &jump_now, NULL);
	require_closed();
}

/* What a WRPKRU is followed by writes nothing for who has jumped to it. */
static void jumps_from_within(void **state)
{
	const char *at = epk_component_gates_start;
	int status, n, found = 0, ended = 0;

	(void)state;
	while ((at = memmem(at, epk_component_gates_end - at, "\x0f\x01\xef", 3))) {
		for (n = 0; n < 16; n++) {
			jump_now = (struct jump) { .to = at, .stack = shared + SHARED_BYTES / 2, .callee = n & 3, .caller = n >> 2 };
			status = status_of_child(jumping);
			if (status && status != 7 << 8 && !(WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV ||
								 WTERMSIG(status) == SIGILL))) {
				print_message("gates + %#lx, %d: %#x\n",
					      (long)(at - epk_component_gates_start), n, status);
				FAIL("here nothing comes by");
			}
			require_untouched();
			ended += !!status;
		}
		found++;
		at++;
	}
	/* One that has faulted before it got there has returned. */
	REQUIRE(found > 10 && ended > 8 * found);
}

static int kernel_is_asked;

static void calls(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	done_at = (uintptr_t)context;
	epk_gate_call(ids[0], RETURNS_SIGNAL, NULL, NULL);
}

/* Only who has not been confined may go on after it. */
static void signalled(void)
{
	struct sigaction act = { .sa_sigaction = calls, .sa_flags = SA_SIGINFO };
	register long target asm("r12") = (long)shared;

	REQUIRE(!sigaction(SIGUSR1, &act, NULL));
	asm volatile("syscall\n\tjmp store_and_end"
		     : : "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1), "r"(target)
		     : "rcx", "r11", "memory");
}

static void asking(void)
{
	int plain = new_domain();

	set_up();
	if (kernel_is_asked == PIVOTS) {
		struct itimerval soon = { .it_value.tv_usec = 20000 };

		signal(SIGALRM, ends);
		REQUIRE(!setitimer(ITIMER_REAL, &soon, NULL));
	}
	REQUIRE(!domain_begin(plain, RW));
	if (kernel_is_asked == RETURNS_SIGNAL)
		signalled();
	if (kernel_is_asked == RETURNS_CALL) {
		REQUIRE(!epk_ioctl_here(EPK_IOC_CALL, 0));
		done_at = epk_sp();
	}
	REQUIRE(!epk_gate_call(ids[0], kernel_is_asked, shared, NULL));
	REQUIRE(!(rdpkru() & PKRU_BITS(0)));
	_exit(7);
}

/* The process ends, or all is well; and nothing has been written. */
static void through_the_kernel(void **state)
{
	(void)state;
	for (kernel_is_asked = SIGRETURNS; kernel_is_asked <= TOP; kernel_is_asked++) {
		bool goes_on = kernel_is_asked == PIVOTS || kernel_is_asked == TOP;
		int status = status_of_child(asking);

		require_untouched();
		REQUIRE_EQ(status, goes_on ? 7 << 8 : SIGSEGV);
	}
}

/* Only in the gates it ends. */
static void stepped(int sig, siginfo_t *info, void *context)
{
	uintptr_t at = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	(void)info;
	if (at >= (uintptr_t)epk_component_gates_start && at < (uintptr_t)epk_component_gates_end)
		ends(sig);
}

static void stepping(void)
{
	struct sigaction act = { .sa_sigaction = stepped, .sa_flags = SA_SIGINFO };

	signal(SIGILL, ends);
	REQUIRE(!sigaction(SIGTRAP, &act, NULL));
	set_up();
	REQUIRE(!epk_gate_call(ids[0], STEPS, shared, NULL));
}

static void pivots_in_gates(void **state)
{
	const struct epk_gate *gate;
	int found = 0;

	(void)state;
	memset(shared, 0, SHARED_BYTES);
	for (gate = epk_component_gate_list; gate < epk_component_gate_list_end; gate++) {
		gate_at = gate->start;
		REQUIRE_EQ(status_of_child(stepping), 7 << 8);
		require_untouched();
		found += !gate->restart;
	}
	REQUIRE(found > 3);
}

static struct epk_word *words[3];

static void *stays_there(void *arg)
{
	long n = (long)arg, result = -1;

	/* Its first call says where its slot is. */
	REQUIRE(epk_gate_call(ids[NR - 1], SCRIBBLES, NULL, NULL) == 0);
	words[n] = &epk_word;
	REQUIRE(!epk_gate_call(stay_in, STAYS, (void *)n, &result));
	return (void *)result;
}

/*
 * A thread whose slot is forged while it is inside gives up no other thread's, whose stack somebody else
 * would get.
 */
static void forging_slots(void)
{
	pthread_t threads[3];
	long result = -1, n;
	void *value;
	char byte;

	set_up();
	stay_in = ids[stay_in];
	REQUIRE(!pipe(inside));
	REQUIRE(!epk_gate_call(stay_in, SCRIBBLES, NULL, NULL));
	for (n = 1; n < 3; n++) {
		REQUIRE(!pthread_create(&threads[n], NULL, stays_there, (void *)n));
		REQUIRE(read(inside[0], &byte, 1) == 1);
	}
	REQUIRE(words[1]->comp_slot != words[2]->comp_slot && epk_word.comp_slot != words[2]->comp_slot);
	words[1]->comp_slot = words[2]->comp_slot;
	may_go[1] = 1;
	REQUIRE(!pthread_join(threads[1], &value) && value == (void *)1);
	epk_word.comp_slot = words[2]->comp_slot;
	REQUIRE(epk_gate_call(stay_in, SCRIBBLES, NULL, &result) == -EBUSY);
	may_go[2] = 1;
	REQUIRE(!pthread_join(threads[2], &value) && value == (void *)2);
	REQUIRE(!epk_gate_call(stay_in, SCRIBBLES, NULL, &result) && result == -1);
}

static void forged_slots(void **state)
{
	(void)state;
	for (stay_in = 0; stay_in < NR; stay_in += NR - 1)
		run_in_child(forging_slots);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jumps_from_within),
		cmocka_unit_test(through_the_kernel),
		cmocka_unit_test(pivots_in_gates),
		cmocka_unit_test(forged_slots),
	};

	skip_if(!backend_is("epk"), "has no components");
	need_backend();
	shared = mmap(NULL, SHARED_BYTES, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
