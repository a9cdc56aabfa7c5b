// SPDX-License-Identifier: MIT
/* A signal between any two instructions of a call from component to component. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <ucontext.h>
#include <unwind.h>

#include "unit.h"

#include "pkru.h"
#include "state_page.h"
#include "traced.h"

extern const char epk_component_gates_start[], epk_component_gates_end[];

enum { NOTHING, MOVES, EVICTS, EVICTS_CALLER, CALLS, HOLDS, FORKS, JUMPS, STEALS, UNWINDS };

#define NR	3
static int ids[NR], plain, what, nr_threads = 1;
static long *own[NR];
static char *plain_mem, ignored;
static bool alternate;
static sigjmp_buf back;
static volatile pid_t pid;
static volatile int turn, turns_taken, refused[256];
static uintptr_t flags_seen;
/* Which of them are, by bits. */
static int confined;
/* The program has a protection key of its own, which is open. */
static bool own_key;

static pthread_t stepping;

static bool key0_is_right(int n)
{
	return (rdpkru() & PKRU_BITS(0)) == (confined >> n & 1 ? PKRU_WD(0) : 0);
}

static long leaf(void *arg)
{
	own[1][0]++;
	if (!key0_is_right(1))
		return -1;
	/* DF and AC are not for the caller. */
	asm volatile("std\n\tpushfq\n\torl $0x40000, (%%rsp)\n\tpopfq" : : : "memory", "cc");
	return (long)arg + 1;
}

static long middle(void *arg)
{
	uintptr_t flags;
	long result = -1;
	int err;

	own[0][0]++;
	err = epk_gate_call(ids[1], 0, arg, &result);
	asm volatile("pushfq\n\tpop %0" : "=r"(flags));
	if (!(confined & 1))
		flags_seen = flags;
	else if (flags & 0x40400)
		return -1;
	own[0][1]++;
	if (!key0_is_right(0))
		return -1;
	return err ? err : result + 1;
}

static long touch(void *arg)
{
	return arg == own ? 0 : ++*(long *)arg;
}

static long holding(void *arg)
{
	long result = -1;
	int err = domain_begin(plain, RW);

	if (!err)
		err = epk_gate_call(ids[1], 2, arg, &result);
	plain_mem[0]++;
	return err ? err : result;
}

static long (*const entries[])(void *arg) = { leaf, middle, touch, holding };

static int move_one(int id, int ept)
{
	struct epk_move one = { .id = id, .ept = ept };
	struct epk_moves arg = { .num = 1, .moves = (uintptr_t)&one };

	return ioctl(epk_now.fd, EPK_IOC_MOVE, &arg);
}

static void set_up(void)
{
	struct epk_component_options options = { .size = sizeof(options), .threads = nr_threads };
	int i;

	REQUIRE(!alloc_domains(NR, ids) && !alloc_domains(1, &plain));
	plain_mem = domain_mmap(plain, NULL, PAGE, RW, 0);
	for (i = 0; i < NR; i++) {
		own[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		REQUIRE(own[i] != MAP_FAILED);
		options.flags = confined >> i & 1 ? EPK_COMPONENT_CONFINED : 0;
		REQUIRE(!epk_component_create(ids[i], entries, 4, &options));
	}
}

static void tear_down(void)
{
	REQUIRE(!free_domains(NR, ids) && !free_domains(1, &plain));
}

static void require_closed(void)
{
	int i;

	REQUIRE(!epk_held(NULL, 0));
	for (i = 0; i < NR; i++)
		REQUIRE(!try_read((char *)own[i], &ignored));
	REQUIRE(!try_read(plain_mem, &ignored));
}

static void move(int ept)
{
	int i;

	for (i = 0; i < NR; i++)
		move_one(ids[i], ept);
}

static void call_all(void)
{
	long result;
	int i, err;

	for (i = 0; i < NR; i++) {
		err = epk_gate_call(ids[i], 2, own[i], &result);
		if (err)
			refused[-err & 255]++;
		REQUIRE(!err || err == -EDEADLK || err == -EAGAIN);
	}
}

static long in_plain(void *arg)
{
	*(char *)arg = 1;
	return 0;
}

/*
 * epk_gate_call(), with a number in each register that a callee keeps, for who unwinds the stack to find.
 */
extern int call_numbered(int id, unsigned int entry, void *arg, long *result);
extern const char behind_call[];
uintptr_t sp_of_call;

#define PUSH(reg)	"push %" #reg "\n\t.cfi_adjust_cfa_offset 8\n\t.cfi_rel_offset %" #reg ", 0\n\t"
#define POP(reg)	"pop %" #reg "\n\t.cfi_adjust_cfa_offset -8\n\t.cfi_restore %" #reg "\n\t"

asm(".text\n.type call_numbered, @function\ncall_numbered:\n\t.cfi_startproc\n\t"
    PUSH(rbx) PUSH(rbp) PUSH(r12) PUSH(r13) PUSH(r14) PUSH(r15)
    "sub $8, %rsp\n\t.cfi_adjust_cfa_offset 8\n\tmov %rsp, sp_of_call(%rip)\n\t"
    "mov $1003, %ebx\n\tmov $1006, %ebp\n\tmov $1012, %r12d\n\tmov $1013, %r13d\n\t"
    "mov $1014, %r14d\n\tmov $1015, %r15d\n\tcall epk_gate_call\nbehind_call:\n\t"
    "add $8, %rsp\n\t.cfi_adjust_cfa_offset -8\n\t"
    POP(r15) POP(r14) POP(r13) POP(r12) POP(rbp) POP(rbx)
    "ret\n\t.cfi_endproc\n.size call_numbered, . - call_numbered");

/* Ends it where the call is. */
static _Unwind_Reason_Code is_call(struct _Unwind_Context *frame, void *arg)
{
	static const int kept[] = { 3, 6, 12, 13, 14, 15 };
	size_t i;

	if (_Unwind_GetIP(frame) != (uintptr_t)behind_call)
		return _URC_NO_REASON;
	REQUIRE(_Unwind_GetCFA(frame) == sp_of_call);
	for (i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		REQUIRE(_Unwind_GetGR(frame, kept[i]) == (uintptr_t)1000 + kept[i]);
	*(bool *)arg = true;
	return _URC_NORMAL_STOP;
}

static sigjmp_buf unread;

static void unreadable(int sig)
{
	(void)sig;
	siglongjmp(unread, 1);
}

/*
 * From ordinary memory the call of the ordinary code is found.  A stack in a component is closed here:
 * where that calls another it is asked for, where it is entered it ends there.
 */
static void unwind(const greg_t *regs)
{
	const char *ip = (const char *)regs[REG_RIP], *sp = (const char *)regs[REG_RSP];
	bool ordinary = try_read(sp, &ignored);
	volatile bool found = false, faulted = false;

	if (ip < epk_component_gates_start || ip >= epk_component_gates_end)
		return;
	signal(SIGSEGV, unreadable);
	if (!sigsetjmp(unread, 1))
		_Unwind_Backtrace(is_call, (void *)&found);
	else
		faulted = true;
	signal(SIGSEGV, SIG_DFL);
	if (ordinary != found)
		fprintf(stderr, "gates + %#lx: %s\n", ip - epk_component_gates_start,
			faulted ? "a fault" : "the caller is not found");
	REQUIRE(ordinary == found);
	if (faulted)
		REQUIRE(epk_domain_at(sp) == ids[0]);
}

static void interrupt(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	(void)sig;
	(void)info;
	/* The kernel leaves a handler AC, where leaf() has set it. */
	asm volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" : : : "memory", "cc");
	/* Whatever it interrupts has its stack. */
	REQUIRE(!epk_held(NULL, 0));
	/* And has its own FS base, wherever it has interrupted. */
	REQUIRE(!(rdpkru() & PKRU_BITS(0)) && pthread_self() == stepping);
	switch (what) {
	case MOVES:
		move(EPK_EPT_NONE);
		move(EPK_EPT_ANY);
		break;
	case EVICTS:
		move(EPK_EPT_NONE);
		break;
	case EVICTS_CALLER:
		move_one(ids[0], EPK_EPT_NONE);
		break;
	case CALLS:
		call_all();
		if (alternate)
			REQUIRE(!epk_call(plain, in_plain, plain_mem, NULL));
		break;
	case HOLDS:
		REQUIRE(!domain_begin(plain, RW));
		plain_mem[0] = 3;
		call_all();
		plain_mem[0] = 3;
		REQUIRE(!domain_end(plain));
		break;
	case FORKS:
		pid = fork();
		break;
	case JUMPS:
		siglongjmp(back, 1);
	case STEALS:
		__atomic_add_fetch(&turn, 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&turns_taken, __ATOMIC_SEQ_CST) != turn)
			sched_yield();
		break;
	case UNWINDS:
		unwind(((ucontext_t *)context)->uc_mcontext.gregs);
		break;
	}
	errno = saved;
}

/* Two threads that use the slots of others in turns. */
static void *thief(void *arg)
{
	int mine = (long)arg, now, i;

	for (;;) {
		now = __atomic_load_n(&turn, __ATOMIC_SEQ_CST);
		if (now == turns_taken || now % 2 != mine) {
			sched_yield();
			continue;
		}
		for (i = 0; i < 2; i++)
			epk_gate_call(ids[i], 2, own[i], NULL);
		__atomic_store_n(&turns_taken, now, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static inline void mark(void)
{
	asm volatile("int3" : : : "memory");
}

/* In two EPTs, from where no call brings them; whoever has lost its place gets one by a call. */
#ifdef APART
static void part(void)
{
	int tries, epts[2], i;

	for (tries = 0; tries < 8; tries++) {
		REQUIRE(!epk_gate_call(ids[0], 1, (void *)5, NULL));
		for (i = 0; i < 2; i++)
			epts[i] = epk_note(ids[i]) >> 48;
		if (epts[0] != epts[1])
			return;
		REQUIRE(!move_one(ids[1], epts[0] + 1));
	}
	REQUIRE(!"they lie together");
}
#else
static void part(void)
{
}
#endif

static void one_call(void)
{
	volatile int err = -77;
	int status;
	long result = -1;

	pid = -1;
	part();
	if (!sigsetjmp(back, 1)) {
		mark();
		err = call_numbered(ids[0], 1, (void *)5, &result);
		if (!pid) {
			REQUIRE(!err || err == -EPERM);
			_exit(0);
		}
		mark();
	} else {
		mark();
	}
	/* A child that was in a component has not even its stack. */
	if (pid > 0)
		REQUIRE(waitpid(pid, &status, 0) == pid &&
			(!status || (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)));
	if (what == STEALS)
		REQUIRE(!err || err == -EBUSY);
	else if (what != JUMPS)
		REQUIRE(!err);
	if (!err) {
		REQUIRE(result == 7 || (what == STEALS && result == -EBUSY));
		REQUIRE(!(flags_seen & 0x40400));
	}
	require_closed();
}

static void stepped(void)
{
	static char stack[1 << 16];
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction act = {
		.sa_sigaction = interrupt, .sa_flags = SA_SIGINFO | (alternate ? SA_ONSTACK : 0),
	};
	pthread_t thread;
	long i;

	signal(SIGSEGV, SIG_DFL);
	signal(SIGILL, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	REQUIRE(!sigaltstack(&alt, NULL));
	REQUIRE(!sigaction(SIGUSR1, &act, NULL));
	stepping = pthread_self();
	REQUIRE(!own_key || pkey_alloc(0, 0) > 0);
	set_up();
	REQUIRE(!epk_gate_call(ids[0], 1, (void *)5, NULL));
	for (i = 0; what == STEALS && i < 2; i++)
		REQUIRE(!pthread_create(&thread, NULL, thief, (void *)i));
	REQUIRE(!ptrace(PTRACE_TRACEME, 0, 0, 0));
	for (;;) {
		one_call();
		if (what == JUMPS) {
			tear_down();
			set_up();
			REQUIRE(!epk_gate_call(ids[0], 1, (void *)5, NULL));
		}
	}
}

/* The kernel takes the trap flag for the program's own behind a POPF that it has stepped over. */
static void step_ends(pid_t child)
{
	size_t at = offsetof(struct user, regs.eflags);

	ptrace(PTRACE_POKEUSER, child, at, ptrace(PTRACE_PEEKUSER, child, at, 0) & ~0x100ul);
}

#define STEPS	2000

/* Where it comes by in the gates, from mark to mark; a REP once. */
static int record(pid_t child, unsigned long *ips)
{
	unsigned long ip;
	int steps = 0;

	REQUIRE(marked(child));
	for (;;) {
		REQUIRE_EQ(ptrace(PTRACE_SINGLESTEP, child, 0, 0), 0);
		if (marked(child))
			break;
		ip = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, regs.rip), 0);
		if (ip >= (uintptr_t)epk_component_gates_start &&
		    ip < (uintptr_t)epk_component_gates_end && steps < STEPS &&
		    !(steps && ips[steps - 1] == ip))
			ips[steps++] = ip;
	}
	step_ends(child);
	REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, 0), 0);
	return steps;
}

static void break_at(pid_t child, unsigned long ip)
{
	ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[7]), 0);
	ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[0]), ip);
	REQUIRE_EQ(ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[7]),
			  ip ? 1 : 0), 0);
}

/* One round: a signal at an instruction, when it has come by so often. */
static void interrupt_at(pid_t child, unsigned long ip, int before)
{
	REQUIRE(marked(child));
	break_at(child, ip);
	do {
		REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, 0), 0);
		REQUIRE(!marked(child));
	} while (before--);
	break_at(child, 0);
	REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, SIGUSR1), 0);
	if (!marked(child)) {
		print_message("no mark behind %#lx\n",
			      ip - (unsigned long)epk_component_gates_start);
		FAIL("here nothing comes by");
	}
	REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, 0), 0);
}

static pid_t start(int do_what, bool on_alternate)
{
	pid_t child;

	what = do_what;
	alternate = on_alternate;
	fflush(NULL);
	child = fork();
	if (!child)
		stepped();
	return child;
}

static void at_each_step(int do_what, bool on_alternate)
{
	pid_t child = start(do_what, on_alternate);
	static unsigned long ips[STEPS];
	int steps, i, j, before;

	steps = record(child, ips);
	REQUIRE(steps > 200 && steps < STEPS);
	for (i = 0; i < steps; i++) {
		for (before = j = 0; j < i; j++)
			before += ips[j] == ips[i];
		interrupt_at(child, ips[i], before);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	print_message("%d instructions\n", steps);
}

#define STEPPED(name, what, alternate)		\
	static void name(void **state)		\
	{					\
		(void)state;			\
		at_each_step(what, alternate);	\
	}

#ifdef CONFINED

#define STEPPED_CONFINED(name, which, what, alternate)	\
	static void name(void **state)			\
	{						\
		(void)state;				\
		confined = (which);			\
		at_each_step(what, alternate);		\
	}

STEPPED_CONFINED(caller_here, 1, NOTHING, false)
STEPPED_CONFINED(caller_elsewhere, 1, EVICTS, true)
STEPPED_CONFINED(callee_here, 2, NOTHING, false)
STEPPED_CONFINED(callee_elsewhere, 2, EVICTS, true)
STEPPED_CONFINED(both_here, 3, NOTHING, false)
STEPPED_CONFINED(both_elsewhere, 3, NOTHING, true)
STEPPED_CONFINED(both_evicted_here, 3, EVICTS, false)
STEPPED_CONFINED(both_evicted_elsewhere, 3, EVICTS, true)
STEPPED_CONFINED(both_moved_elsewhere, 3, MOVES, true)
STEPPED_CONFINED(both_called_elsewhere, 3, CALLS, true)
STEPPED_CONFINED(both_held_elsewhere, 3, HOLDS, true)
STEPPED_CONFINED(both_forked_elsewhere, 3, FORKS, true)
STEPPED_CONFINED(both_stolen_elsewhere, 3, STEALS, true)

#else

/*
 * Whose caller loses its place when it has been looked at is not entered: a signal at each instruction of
 * what closes it again.
 */
static void caller_evicted_then_interrupted(void **state)
{
	const struct epk_gate *enter = &epk_component_gate_list[0], *closes = &epk_component_gate_list[2];
	unsigned long ip = closes->start;
	pid_t child;
	int steps = 0, i;

	(void)state;
	child = start(EVICTS_CALLER, false);
	/* It comes by .Lenter twice; the second time its caller is a component. */
	for (; ip != closes->end; steps++) {
		REQUIRE(marked(child));
		break_at(child, enter->start);
		for (i = 0; i < 2; i++) {
			REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, 0), 0);
			REQUIRE(!marked(child));
		}
		break_at(child, closes->start);
		REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, SIGUSR1), 0);
		REQUIRE(!marked(child));
		break_at(child, 0);
		for (i = 0; i < steps; i++) {
			REQUIRE_EQ(ptrace(PTRACE_SINGLESTEP, child, 0, 0), 0);
			REQUIRE(!marked(child));
		}
		ip = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, regs.rip), 0);
		REQUIRE_IN(ip, closes->start, closes->end);
		step_ends(child);
		REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, SIGUSR1), 0);
		REQUIRE(marked(child));
		REQUIRE_EQ(ptrace(PTRACE_CONT, child, 0, 0), 0);
	}
	REQUIRE(steps > 3);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void own_key_evicts_here(void **state)
{
	(void)state;
	own_key = true;
	at_each_step(EVICTS, false);
	at_each_step(EVICTS_CALLER, true);
	own_key = false;
}

STEPPED(caller_evicted_here, EVICTS_CALLER, false)
STEPPED(moves_here, MOVES, false)
STEPPED(evicts_elsewhere, EVICTS, true)
STEPPED(calls_elsewhere, CALLS, true)
STEPPED(holds_elsewhere, HOLDS, true)
#ifndef APART
STEPPED(caller_evicted_elsewhere, EVICTS_CALLER, true)
STEPPED(nothing_here, NOTHING, false)
STEPPED(nothing_elsewhere, NOTHING, true)
STEPPED(moves_elsewhere, MOVES, true)
STEPPED(evicts_here, EVICTS, false)
STEPPED(calls_here, CALLS, false)
STEPPED(holds_here, HOLDS, false)
STEPPED(forks_here, FORKS, false)
STEPPED(forks_elsewhere, FORKS, true)
STEPPED(jumps_elsewhere, JUMPS, true)
STEPPED(steals_elsewhere, STEALS, true)
STEPPED(unwinds_here, UNWINDS, false)
STEPPED(unwinds_elsewhere, UNWINDS, true)
#endif

/* What cannot be called at once in a call that could not either. */
static void holding_both(void)
{
	long result = -1;

	set_up();
	REQUIRE(!domain_begin(plain, RW));
	REQUIRE(!epk_gate_call(ids[0], 3, own[1], &result));
	REQUIRE(result == 1);
	plain_mem[0]++;
	REQUIRE(!domain_end(plain));
	require_closed();
	tear_down();
}

IN_CHILD(holding_both)

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef CONFINED
		cmocka_unit_test(caller_here),
		cmocka_unit_test(caller_elsewhere),
		cmocka_unit_test(callee_here),
		cmocka_unit_test(callee_elsewhere),
		cmocka_unit_test(both_here),
		cmocka_unit_test(both_elsewhere),
		cmocka_unit_test(both_evicted_here),
		cmocka_unit_test(both_evicted_elsewhere),
		cmocka_unit_test(both_moved_elsewhere),
		cmocka_unit_test(both_called_elsewhere),
		cmocka_unit_test(both_held_elsewhere),
		cmocka_unit_test(both_forked_elsewhere),
		cmocka_unit_test(both_stolen_elsewhere),
#else
		cmocka_unit_test(in_child_holding_both),
		cmocka_unit_test(caller_evicted_then_interrupted),
		cmocka_unit_test(own_key_evicts_here),
		cmocka_unit_test(caller_evicted_here),
		cmocka_unit_test(moves_here),
		cmocka_unit_test(evicts_elsewhere),
		cmocka_unit_test(calls_elsewhere),
		cmocka_unit_test(holds_elsewhere),
#ifndef APART
		cmocka_unit_test(caller_evicted_elsewhere),
		cmocka_unit_test(nothing_here),
		cmocka_unit_test(nothing_elsewhere),
		cmocka_unit_test(moves_elsewhere),
		cmocka_unit_test(evicts_here),
		cmocka_unit_test(calls_here),
		cmocka_unit_test(holds_here),
		cmocka_unit_test(forks_here),
		cmocka_unit_test(forks_elsewhere),
		cmocka_unit_test(jumps_elsewhere),
		cmocka_unit_test(steals_elsewhere),
		cmocka_unit_test(unwinds_here),
		cmocka_unit_test(unwinds_elsewhere),
#endif
#endif
	};

	skip_if(!backend_is("epk"), "has no components");
	need_backend();
	skip_if(!backend_is("epk"), "has no components");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
