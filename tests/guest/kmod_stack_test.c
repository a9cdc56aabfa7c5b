// SPDX-License-Identifier: MIT
/*
 * Code whose stack lies in a domain that it holds: a handler whose frame lies there, too, has that
 * domain and nothing else, be it the kernel that needs it, or the domain elsewhere by then.  Who
 * points a stack at a domain, or a frame into one, gains nothing that was not held.
 */
#include "call_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "forge.h"

#define STACK	(32 * PAGE)

/* x: where the stack lies; y: in another EPT, or nowhere, and held as well; z: nobody's. */
static int x, y, z;
static char *stack;

static void *top(void)
{
	return stack + STACK - 256;
}

static void set_up(void)
{
	int *two;

	make_domains();
	REQUIRE(follow() == 0);
	CHECK_EQ(begin(ids[0]), 0);
	CHECK_EQ(end(ids[0]), 0);
	two = apart();
	x = two[0], y = two[1];
	for (z = 0; z == x || z == y; z++)
		;
	stack = epk_device_map(&dev, ids[x], STACK);
	REQUIRE(stack != MAP_FAILED);
	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(begin_prot(ids[y], PROT_READ), 0);
}

static volatile int handled;
static void (*volatile in_handler)(ucontext_t *uc);

static void handler(int sig, siginfo_t *info, void *context)
{
	char room[2 * PAGE];

	(void)sig;
	(void)info;
	asm volatile("" : : "r"(room) : "memory");
	handled++;
	if (in_handler)
		in_handler(context);
}

static void handle(int sig, int flags)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	REQUIRE(!sigaction(sig, &action, NULL));
}

static void holds_both(int line)
{
	list(ids[x], PROT_READ | PROT_WRITE, ids[y], PROT_READ);
	epk_check(reaches(x) && reaches(y) && !reaches(z), __FILE__, line, "holds both", "");
}

static void has_stack_only(ucontext_t *uc)
{
	(void)uc;
	list(ids[x], PROT_READ | PROT_WRITE, 0, 0);
	CHECK(reaches(x) && !reaches(y) && !reaches(z));
	CHECK_EQ(dev.identity->ept, epk_device_entry(&dev, ids[x]).ept);
}

static void once(void)
{
	int before = handled;

	in_handler = has_stack_only;
	raise(SIGUSR1);
	CHECK_EQ(handled, before + 1);
	holds_both(__LINE__);
	/* Its own, which ends with it. */
	CHECK_EQ(begin(ids[x]), -EALREADY);
	CHECK_EQ(touch(pages[y], 0), 0);
	raise(SIGUSR1);
	CHECK_EQ(handled, before + 2);
	holds_both(__LINE__);
}

static volatile int depth;

static void nest(ucontext_t *uc)
{
	has_stack_only(uc);
	if (--depth) {
		raise(SIGUSR1);
		has_stack_only(uc);
	}
}

static void nested(void)
{
	handle(SIGUSR1, SA_NODEFER);
	in_handler = nest;
	depth = 6;
	handled = 0;
	raise(SIGUSR1);
	CHECK_EQ(handled, 6);
	holds_both(__LINE__);
	handle(SIGUSR1, 0);
}

/* Of two pending signals the second interrupts the first one's handler before it begins. */
static void two_at_once(void)
{
	sigset_t both, old;

	sigemptyset(&both);
	sigaddset(&both, SIGUSR1);
	sigaddset(&both, SIGUSR2);
	in_handler = has_stack_only;
	handled = 0;
	sigprocmask(SIG_BLOCK, &both, &old);
	raise(SIGUSR1);
	raise(SIGUSR2);
	CHECK_EQ(handled, 0);
	sigprocmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(handled, 2);
	holds_both(__LINE__);
}

/* What happens while the stack's domain is where the thread is not. */
static uint64_t usr = 1ul << (SIGUSR1 - 1) | 1ul << (SIGUSR2 - 1);
static struct epk_move gone_move;
static struct epk_moves gone_moves = { .num = 1, .moves = (uintptr_t)&gone_move };

static struct step block(void)
{
	return (struct step) { .nr = SYS_rt_sigprocmask, .args = { SIG_BLOCK, (long)&usr, 0, 8 } };
}

static struct step unblock(void)
{
	return (struct step) { .nr = SYS_rt_sigprocmask, .args = { SIG_UNBLOCK, (long)&usr, 0, 8 } };
}

static struct step send(int sig)
{
	return (struct step) { .nr = SYS_tgkill, .args = { getpid(), gettid(), sig } };
}

static struct step moved_to(unsigned int ept)
{
	gone_move = (struct epk_move) { .id = ids[x], .ept = ept };
	return (struct step) { .nr = SYS_ioctl, .args = { dev.fd, EPK_IOC_MOVE, (long)&gone_moves } };
}

static struct step touched(int i)
{
	return (struct step) { .touch = pages[i] };
}

static void elsewhere_with(struct step there)
{
	static struct step steps[5];

	steps[0] = block();
	steps[1] = send(SIGUSR1);
	steps[2] = send(SIGUSR2);
	steps[3] = there;
	steps[4] = unblock();
	in_handler = has_stack_only;
	handled = 0;
	run_steps(steps, 5);
	CHECK_EQ(handled, 2);
	if (!there.touch)
		CHECK_EQ(steps[3].ret, 0);
	CHECK_EQ(steps[4].ret, 0);
	holds_both(__LINE__);
}

static void elsewhere(void)
{
	CHECK_EQ(touch(pages[x], 0), 0);
	elsewhere_with(touched(y));
	elsewhere_with(moved_to(EPK_EPT_NONE));
	if (!epk_device_is_alone(&dev))
		elsewhere_with(moved_to(FAR_EPT));
	if (!epk_device_is_alone(&dev))
		CHECK_EQ(epk_device_move(&dev, ids[y], FAR_EPT), 0);
	elsewhere_with(touched(y));
}

/* A handler that leaves its stack to the kernel: it makes one call, perhaps, and returns. */
asm(
"	.text\n"
"stackless:\n"
"	incl	stackless_count(%rip)\n"
"	mov	stackless_cmd(%rip), %esi\n"
"	test	%esi, %esi\n"
"	jz	1f\n"
"	mov	stackless_fd(%rip), %edi\n"
"	lea	stackless_moves(%rip), %rdx\n"
"	mov	$16, %eax\n"
"	syscall\n"
"	mov	%eax, stackless_ret(%rip)\n"
"1:	lea	8(%rsp), %rsp\n"
"	mov	$15, %eax\n"
"	syscall\n"
"	ud2\n"
);
extern void stackless(int sig);
__attribute__((used)) volatile int stackless_count, stackless_cmd, stackless_fd, stackless_ret;
__attribute__((used)) struct epk_moves stackless_moves;

static void returns_alone(void)
{
	struct sigaction action = { .sa_handler = stackless }, old;
	const uint32_t epts[] = { EPK_EPT_NONE, EPK_EPT_ANY, FAR_EPT };
	unsigned int i;

	REQUIRE(!sigaction(SIGUSR1, &action, &old));
	stackless_fd = dev.fd;
	stackless_moves = gone_moves;
	for (i = 0; i < 4; i++) {
		if (i > 2 && epk_device_is_alone(&dev))
			break;
		stackless_cmd = i ? (int)EPK_IOC_MOVE : 0;
		if (i)
			gone_move = (struct epk_move) { .id = ids[x], .ept = epts[i - 1] };
		stackless_count = 0;
		raise(SIGUSR1);
		CHECK_EQ(stackless_count, 1);
		CHECK_EQ(stackless_ret, 0);
		holds_both(__LINE__);
	}
	REQUIRE(!sigaction(SIGUSR1, &old, NULL));
}

/* What the handler calls has what is called, and not the stack. */
static void calls(ucontext_t *uc)
{
	static struct step steps[4];

	(void)uc;
	steps[0] = (struct step) { .nr = SYS_ioctl, .args = { dev.fd, EPK_IOC_CALL,
		EPK_BEGIN(ids[z], PROT_READ | PROT_WRITE) } };
	steps[1] = (struct step) { .touch = pages[x] };
	steps[2] = (struct step) { .touch = pages[z] };
	steps[3] = (struct step) { .nr = SYS_ioctl, .args = { dev.fd, EPK_IOC_RETURN, 0 } };
	run_steps(steps, 4);
	CHECK_EQ(steps[0].ret, 0);
	CHECK_EQ(steps[1].ret, -EFAULT);
	CHECK_EQ(steps[2].ret, 0);
	CHECK_EQ(steps[3].ret, 0);
	has_stack_only(uc);
}

static void called(void)
{
	in_handler = calls;
	raise(SIGUSR1);
	holds_both(__LINE__);
}

/* On an ordinary stack a handler has nothing, whatever it interrupts. */
static void has_nothing(ucontext_t *uc)
{
	(void)uc;
	holds_nothing(__LINE__);
	CHECK(!reaches(x) && !reaches(y) && !reaches(z));
	CHECK_EQ(touch(pages[x], 0), SIGSEGV);
	CHECK_EQ(touch((uint64_t *)stack, 0), SIGSEGV);
	holds_nothing(__LINE__);
}

static void alternate(void)
{
	static char ordinary[1 << 16];
	stack_t stack_of = { .ss_sp = ordinary, .ss_size = sizeof(ordinary) };
	stack_t old;

	CHECK_EQ(sigaltstack(&stack_of, &old), 0);
	handle(SIGUSR1, SA_ONSTACK);
	in_handler = has_nothing;
	raise(SIGUSR1);
	holds_both(__LINE__);
	CHECK_EQ(sigaltstack(&old, NULL), 0);
	handle(SIGUSR1, 0);
}

/* Out of the handler: on the same stack its domain is there; on an ordinary one until it ends. */
static sigjmp_buf jump_env;

static void jump(ucontext_t *uc)
{
	(void)uc;
	siglongjmp(jump_env, 1);
}

static void jumps(void)
{
	in_handler = jump;
	if (!sigsetjmp(jump_env, 1)) {
		raise(SIGUSR1);
		CHECK(!"siglongjmp goes elsewhere");
	}
	has_stack_only(NULL);
	CHECK_EQ(begin_prot(ids[y], PROT_READ), 0);
	in_handler = has_stack_only;
	raise(SIGUSR1);
	holds_both(__LINE__);
}

static void raise_jump(void)
{
	in_handler = jump;
	raise(SIGUSR1);
}

static void jumps_out(void)
{
	if (!sigsetjmp(jump_env, 1))
		run_on(top(), raise_jump);
	/* What the handler had it still has, as any code that is left by a jump. */
	has_stack_only(NULL);
	CHECK_EQ(end(ids[x]), 0);
	has_nothing(NULL);
	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(begin_prot(ids[y], PROT_READ), 0);
}

/* While another thread has the stack's domain go and come. */
static volatile bool stop;

static void *mover(void *unused)
{
	unsigned int i;

	for (i = 0; !stop; i++) {
		epk_device_move(&dev, ids[x], EPK_EPT_NONE);
		if (i % 3)
			epk_device_move(&dev, ids[x], EPK_EPT_ANY);
		if (i % 5 == 0)
			sched_yield();
	}
	return unused;
}

static void counts_only(ucontext_t *uc)
{
	(void)uc;
	if (handled % 8 == 1)
		sched_yield();
}

static void race(void)
{
	struct timespec since;
	pthread_t thread;
	int i;

	stop = false;
	handled = 0;
	in_handler = counts_only;
	clock_gettime(CLOCK_MONOTONIC, &since);
	REQUIRE(!pthread_create(&thread, NULL, mover, NULL));
	for (i = 0; race_goes_on(i, 400, &since); i++)
		raise(SIGUSR1);
	stop = true;
	pthread_join(thread, NULL);
	CHECK_EQ(handled, i);
	holds_both(__LINE__);
}

/* What follows ends the process that tries it, or is to gain nothing. */
static int in_child(void (*what)(void), bool dies)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		epk_failures = 0;
		alarm(20);
		set_up();
		if (dies)
			signal(SIGSEGV, SIG_DFL);
		what();
		_exit(epk_failures != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return status;
}

static bool died(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void raise_only(void)
{
	static struct step steps[1];

	/* The emulator lets the kernel write past access-disable alone. */
	epk_wrpkru(epk_rdpkru() | (epk_rdpkru() & EPK_PKRU_DENY_ALL) << 1);
	steps[0] = send(SIGUSR1);
	run_steps(steps, 1);
}

/* Raise a signal, not the one that may be handled just now, with a stack pointer of one's own. */
static void raise_at(void *sp)
{
	static struct step steps[1];
	static void *at, *saved;

	at = sp;
	steps[0] = send(SIGUSR2);
	epk_wrpkru(epk_rdpkru() | (epk_rdpkru() & EPK_PKRU_DENY_ALL) << 1);
	asm volatile("mov	%%rsp, %[saved]\n\t"
		     "mov	%[at], %%rsp\n\t"
		     "mov	0(%%rbx), %%rax\n\t"
		     "mov	8(%%rbx), %%rdi\n\t"
		     "mov	16(%%rbx), %%rsi\n\t"
		     "mov	24(%%rbx), %%rdx\n\t"
		     "syscall\n\t"
		     "mov	%[saved], %%rsp"
		     : [saved] "+m"(saved) : [at] "m"(at), "b"(steps)
		     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc", "memory");
}

static void exits(ucontext_t *uc)
{
	(void)uc;
	_exit(3);
}

/* In a domain that is not held. */
static void points_to_other(void)
{
	char *other = epk_device_map(&dev, ids[z], STACK);

	REQUIRE(other != MAP_FAILED);
	CHECK_EQ(begin(ids[z]), 0);
	CHECK_EQ(end(ids[z]), 0);
	CHECK_EQ(epk_device_populate(&dev, other, STACK), 0);
	in_handler = exits;
	raise_at(other + STACK - 256);
	_exit(2);
}

/* The same in a handler that has its stack's domain. */
static void points_from_handler(ucontext_t *uc)
{
	(void)uc;
	points_to_other();
}

static void raises_points(void)
{
	in_handler = points_from_handler;
	raise(SIGUSR1);
}

static void handler_points(void)
{
	run_on(top(), raises_points);
}

/* A handler on an ordinary stack points its stack there. */
static void nothing(void)
{
}

static void points_to_stack(ucontext_t *uc)
{
	(void)uc;
	run_on(top(), nothing);
	_exit(2);
}

static void alternate_points(void)
{
	stack_t stack_of = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };

	CHECK_EQ(sigaltstack(&stack_of, NULL), 0);
	handle(SIGUSR1, SA_ONSTACK);
	in_handler = points_to_stack;
	raise(SIGUSR1);
}

/* The handler of a domain's code goes to who holds nothing; that points its stack there again. */
static void points_back(void)
{
	jumps_out();
	CHECK_EQ(end(ids[x]), 0);
	CHECK_EQ(end(ids[y]), 0);
	/* The last handler to be left interrupted code that held nothing. */
	in_handler = jump;
	if (!sigsetjmp(jump_env, 1))
		raise(SIGUSR1);
	holds_nothing(__LINE__);
	signal(SIGSEGV, SIG_DFL);
	run_on(top(), raise_only);
	_exit(2);
}

/* A frame in a domain that is not held, and one that no signal made in the one that is. */
static char *forged_at;

static void arrival(void)
{
	_exit(epk_rdpkru() == EPK_PKRU_DENY_ALL ? 4 : 3);
}

static void returns_from_there(ucontext_t *uc)
{
	static ucontext_t copy;

	copy = *uc;
	copy.uc_mcontext.gregs[REG_RIP] = (greg_t)arrival;
	copy.uc_mcontext.gregs[REG_RSP] = (greg_t)top() - 4096;
	*frame_pkru(&copy) = 0;
	if (begin(ids[z]) == 0) {
		memcpy(forged_at, &copy, sizeof(copy));
		CHECK_EQ(end(ids[z]), 0);
	}
	forge_by_syscall(forged_at, SYS_rt_sigreturn);
}

static void raises_forged(void)
{
	in_handler = returns_from_there;
	raise(SIGUSR1);
}

static void forged_in_other(void)
{
	forged_at = epk_device_map(&dev, ids[z], STACK);
	REQUIRE(forged_at != MAP_FAILED);
	run_on(top(), raises_forged);
}

static void forged_in_own(void)
{
	forged_at = stack;
	run_on(top(), raises_forged);
}

/* The frame's lower part is ordinary memory, below the domain's. */
static void has_nothing_and_ends(ucontext_t *uc)
{
	has_nothing(uc);
	_exit(epk_failures ? 1 : 5);
}

static char *at_border(bool domain_below)
{
	char *room = mmap(NULL, 2 * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			  0);
	char *here = room + (domain_below ? 0 : STACK);

	REQUIRE(room != MAP_FAILED);
	REQUIRE(mmap(here, STACK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		     EPK_MMAP_DOMAIN(ids[x])) == here);
	return room + STACK;
}

static void below_border(void)
{
	in_handler = has_nothing_and_ends;
	raise_at(at_border(false) + 256);
	_exit(2);
}

/* Its upper part is ordinary, and what lies below is the domain's: that is the stack. */
static void has_stack_and_ends(ucontext_t *uc)
{
	has_stack_only(uc);
	_exit(epk_failures ? 1 : 5);
}

static void above_border(void)
{
	in_handler = has_stack_and_ends;
	raise_at(at_border(true) + 256);
	_exit(2);
}

/* In the middle of the domain's mapping something else lies now. */
static void in_a_hole(void)
{
	CHECK_EQ(epk_device_unmap(&dev, stack + STACK / 4, STACK / 2), 0);
	REQUIRE(mmap(stack + STACK / 4, STACK / 2, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == stack + STACK / 4);
	in_handler = has_nothing_and_ends;
	raise_at(stack + STACK / 4 * 3 - 256);
	_exit(2);
}

/* And another domain's memory, which is not held. */
static void in_other_hole(void)
{
	CHECK_EQ(epk_device_unmap(&dev, stack + STACK / 4, STACK / 2), 0);
	REQUIRE(mmap(stack + STACK / 4, STACK / 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		     dev.fd, EPK_MMAP_DOMAIN(ids[z])) == stack + STACK / 4);
	in_handler = exits;
	raise_at(stack + STACK / 4 * 3 - 256);
	_exit(2);
}

/* Read-only, the kernel can write no frame there. */
static void held_to_read(void)
{
	CHECK_EQ(end(ids[x]), 0);
	CHECK_EQ(begin_prot(ids[x], PROT_READ), 0);
	in_handler = exits;
	raise_at(top());
	_exit(2);
}

/* Freed by the handler, whose stack it is. */
static void frees(ucontext_t *uc)
{
	static struct step steps[2];
	static struct epk_domains arg = { .num = 1 };

	(void)uc;
	arg.ids = (uintptr_t)&ids[x];
	steps[0] = (struct step) { .nr = SYS_ioctl, .args = { dev.fd, EPK_IOC_FREE, (long)&arg } };
	steps[1] = (struct step) { .touch = stack };
	run_steps(steps, 2);
	_exit(2);
}

static void raises_frees(void)
{
	signal(SIGBUS, SIG_DFL);
	in_handler = frees;
	raise(SIGUSR1);
}

static void freed(void)
{
	run_on(top(), raises_frees);
}

static void attacks(void)
{
	int status;

	CHECK(died(in_child(points_to_other, true)));
	CHECK(died(in_child(handler_points, true)));
	CHECK(died(in_child(alternate_points, true)));
	CHECK(died(in_child(points_back, false)));
	CHECK(died(in_child(forged_in_other, true)));
	/* It arrives, on a stack that it does not have any more. */
	CHECK(died(in_child(forged_in_own, true)));
	status = in_child(below_border, false);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
	status = in_child(above_border, false);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
	status = in_child(in_a_hole, false);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
	CHECK(died(in_child(in_other_hole, true)));
	CHECK(died(in_child(held_to_read, true)));
	status = in_child(freed, false);
	CHECK(WIFSIGNALED(status));
}

static void on_stack(void)
{
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	RUN(once());
	RUN(nested());
	RUN(two_at_once());
	RUN(elsewhere());
	RUN(returns_alone());
	RUN(called());
	RUN(alternate());
	RUN(jumps());
	RUN(race());
}

int main(void)
{
	set_up();
	handle(SIGUSR1, 0);
	handle(SIGUSR2, 0);
	run_on(top(), on_stack);
	RUN(jumps_out());
	RUN(attacks());
	return epk_test_result();
}
