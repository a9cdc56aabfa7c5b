// SPDX-License-Identifier: MIT
/*
 * Signals that interrupt a thread which holds a domain: what the handler can
 * reach, what it can change, and what the interrupted code gets back; frames
 * that are forged, and handlers that never return.
 */
#include "signal_test.h"
#include "owner.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ALTSTACK_BYTES	65536

static int ids[30], inner_id;
/* Of EPT 1, and where there is one EPT, just another one. */
static int far_id;
static uint32_t far_ept;
/* A third one, or the same; and where a domain goes to be out of the way. */
static uint32_t third_ept = 2, away = 20;
static uint8_t inner_pkey;
static volatile uint32_t *secret, *inner;
static uint32_t held;		/* PKRU with the key of far_id open */

/* Interrupt code that holds far_id, and say whether it still does. */
static void interrupt(void (*inside)(ucontext_t *uc))
{
	int before = handled;

	in_handler = inside;
	epk_device_enter(&dev, far_id);
	raise(SIGUSR1);
	CHECK_EQ(handled, before + 1);
	CHECK_EQ(handler_pkru & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
}

static void still_held(int line)
{
	epk_check(dev.identity->ept == far_ept, __FILE__, line, "in its EPT", "");
	epk_check(epk_rdpkru() == held, __FILE__, line, "with its keys", "");
	epk_check(EPK_TRY((void)*secret) == 0, __FILE__, line, "reads its domain", "");
	epk_device_enter(&dev, 0);
}

static void nothing(ucontext_t *uc)
{
	(void)uc;
	/* Its EPT is one VMFUNC away; the key is closed there. */
	CHECK_EQ(EPK_TRY((void)*secret), SIGSEGV);
	epk_device_goto(&dev, far_ept);
	CHECK_EQ(EPK_TRY((void)*secret), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
}

static void other_domain(ucontext_t *uc)
{
	(void)uc;
	epk_device_enter(&dev, inner_id);
	*inner = 1;
}

static void forge_all(ucontext_t *uc)
{
	*frame_pkru(uc) = 0;
}

static void forge(ucontext_t *uc)
{
	CHECK_EQ(*frame_pkru(uc), held);
	forge_all(uc);
}

/* A thread that is not registered holds nothing, and a frame gives it nothing. */
static void unregistered(void)
{
	interrupt(NULL);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	interrupt(forge_all);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	epk_device_enter(&dev, 0);
}

/* Without EPK_THREAD_SIGNALS a handler starts where it interrupts. */
static void in_its_ept(void)
{
	interrupt(NULL);
	CHECK_EQ(handler_ept, far_ept);
	still_held(__LINE__);
	interrupt(other_domain);
	still_held(__LINE__);
	interrupt(forge);
	still_held(__LINE__);
}

static void exact(void)
{
	interrupt(nothing);
	CHECK_EQ(handler_ept, 0);
	still_held(__LINE__);
	interrupt(other_domain);
	still_held(__LINE__);
	interrupt(forge);
	still_held(__LINE__);
	/* Keys of EPT 0 by the same rule. */
	in_handler = other_domain;
	epk_device_enter(&dev, ids[0]);
	raise(SIGUSR1);
	CHECK_EQ(dev.identity->ept, 0);
	CHECK_EQ(epk_rdpkru(), EPK_PKRU_ALLOW(dev.table[EPK_ID_INDEX(ids[0])].pkey));
	epk_device_enter(&dev, 0);
}

/* A signal for which there is no handler changes nothing. */
static void no_handler(void)
{
	sigset_t urgent;

	sigemptyset(&urgent);
	sigaddset(&urgent, SIGURG);
	epk_device_enter(&dev, far_id);
	/* Only a signal that was blocked is delivered to be ignored. */
	pthread_sigmask(SIG_BLOCK, &urgent, NULL);
	raise(SIGURG);
	pthread_sigmask(SIG_UNBLOCK, &urgent, NULL);
	still_held(__LINE__);
}

/* The domain goes while the handler runs, and another comes in its place. */
static void replace(ucontext_t *uc)
{
	struct epk_entry was = epk_device_entry(&dev, far_id);
	struct epk_move list[2] = {
		{ .id = far_id, .ept = away },
		{ .id = inner_id, .ept = was.ept, .pkey = was.pkey },
	};

	(void)uc;
	CHECK_EQ(epk_device_moves(&dev, 2, list), 0);
}

static void replaced(void)
{
	struct epk_entry was = epk_device_entry(&dev, far_id);
	struct epk_move list[2] = {
		{ .id = inner_id, .ept = third_ept, .pkey = inner_pkey },
		{ .id = far_id, .ept = was.ept, .pkey = was.pkey },
	};

	interrupt(replace);
	CHECK_EQ(dev.identity->ept, was.ept);
	CHECK_EQ(EPK_TRY((void)*inner), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_moves(&dev, 2, list), 0);
}

/* A frame that no signal made: all its registers are the attacker's choice. */
static sigjmp_buf forged_env;
static char forged_stack[65536] __attribute__((aligned(16)));

static void forged_arrival(void)
{
	siglongjmp(forged_env, 1);
}

static void forged_return(ucontext_t *uc)
{
	static ucontext_t copy;

	copy = *uc;
	copy.uc_mcontext.gregs[REG_RSP] = (greg_t)(forged_stack + sizeof(forged_stack) - 8);
	copy.uc_mcontext.gregs[REG_RIP] = (greg_t)forged_arrival;
	*frame_pkru(&copy) = 0;
	forge_by_syscall(&copy, SYS_rt_sigreturn);
}

static void forged(void)
{
	if (!sigsetjmp(forged_env, 1)) {
		interrupt(forged_return);
		CHECK(!"a forged frame returns to where it says");
	}
	CHECK_EQ(dev.identity->ept, 0);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	epk_device_enter(&dev, 0);
}

static sigjmp_buf jump_env;

static void jump(ucontext_t *uc)
{
	(void)uc;
	siglongjmp(jump_env, 1);
}

/* siglongjmp() leaves nothing held, and does not confuse the signals after it. */
static void jumps(void)
{
	volatile int i;

	for (i = 0; i < 40; i++) {
		if (!sigsetjmp(jump_env, 1)) {
			interrupt(jump);
			CHECK(!"siglongjmp returns elsewhere");
		}
		CHECK_EQ(dev.identity->ept, 0);
		CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	}
	interrupt(other_domain);
	still_held(__LINE__);
}

/* Many handlers that never return do not push out one that will. */
static void jump_inside(ucontext_t *uc)
{
	volatile int i;

	(void)uc;
	in_handler = jump;
	for (i = 0; i < 40; i++) {
		if (!sigsetjmp(jump_env, 1))
			raise(SIGUSR1);
	}
}

static void jumps_inside(void)
{
	handle(SIGUSR1, SA_NODEFER);
	in_handler = jump_inside;
	epk_device_enter(&dev, far_id);
	raise(SIGUSR1);
	still_held(__LINE__);
	handle(SIGUSR1, 0);
}

/* Handlers in handlers, each of which holds a domain when the next one comes. */
static volatile int depth, good, empty;

static void nest(ucontext_t *uc)
{
	(void)uc;
	if (!--depth)
		return;
	epk_device_enter(&dev, far_id);
	raise(SIGUSR1);
	if (dev.identity->ept == far_ept && epk_rdpkru() == held)
		good++;
	if (dev.identity->ept == 0 && !(~epk_rdpkru() & EPK_PKRU_DENY_ALL))
		empty++;
}

static void nested(void)
{
	depth = 10;
	handle(SIGUSR1, SA_NODEFER);
	in_handler = nest;
	epk_device_enter(&dev, far_id);
	raise(SIGUSR1);
	still_held(__LINE__);
	CHECK_EQ(good, 9);

	/* More than are remembered: the outermost get nothing back. */
	depth = 20, good = 0;
	epk_device_enter(&dev, far_id);
	raise(SIGUSR1);
	CHECK_EQ(good, 16);
	CHECK_EQ(empty, 3);
	CHECK_EQ(dev.identity->ept, 0);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	handle(SIGUSR1, 0);
}

static void altstack(void)
{
	stack_t stack = { .ss_sp = malloc(ALTSTACK_BYTES), .ss_size = ALTSTACK_BYTES };
	stack_t none = { .ss_flags = SS_DISABLE };

	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	handle(SIGUSR1, SA_ONSTACK);
	exact();
	jumps();
	CHECK_EQ(sigaltstack(&none, NULL), 0);
	handle(SIGUSR1, 0);
	free(stack.ss_sp);
}

/* Of two stacks, the handler's may be the upper one. */
static void *on_low_stack(void *unused)
{
	stack_t stack = { .ss_size = ALTSTACK_BYTES }, none = { .ss_flags = SS_DISABLE };

	stack.ss_sp = mmap(NULL, ALTSTACK_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(stack.ss_sp != MAP_FAILED && (char *)stack.ss_sp > (char *)&stack);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS), 0);
	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	handle(SIGUSR1, SA_NODEFER | SA_ONSTACK);
	depth = 3, good = 0;
	in_handler = nest;
	epk_device_enter(&dev, far_id);
	raise(SIGUSR1);
	still_held(__LINE__);
	CHECK_EQ(good, 2);
	CHECK_EQ(sigaltstack(&none, NULL), 0);
	munmap(stack.ss_sp, ALTSTACK_BYTES);
	handle(SIGUSR1, 0);
	return unused;
}

/*
 * The EPT goes that a signal interrupted.  A process keeps its own, so it is another's,
 * which the thread entered by hand.
 */
static struct owner owner;

static void end_owner(ucontext_t *uc)
{
	(void)uc;
	owner_ends(&owner);
}

static void gone(void)
{
	owner_start(&owner, FAR_EPT);
	in_handler = end_owner;
	epk_vmfunc(FAR_EPT);
	epk_wrpkru(held);
	raise(SIGUSR1);
	CHECK_EQ(dev.identity->ept, 0);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	CHECK_EQ(EPK_TRY(epk_vmfunc(FAR_EPT)), SIGILL);
	epk_device_enter(&dev, 0);
}

int main(void)
{
	epk_device_open(&dev);
	far_id = ids[epk_device_fill(&dev, ids) / 2];
	far_ept = epk_device_entry(&dev, far_id).ept;
	REQUIRE(epk_device_alloc(&dev, 1, &inner_id) == 0);
	if (epk_device_is_alone(&dev))
		third_ept = 0, away = EPK_EPT_NONE;
	else
		REQUIRE(far_ept == 1);
	CHECK_EQ(epk_device_move(&dev, inner_id, third_ept), 0);
	inner_pkey = epk_device_entry(&dev, inner_id).pkey;
	secret = epk_device_map(&dev, far_id, 4096);
	inner = epk_device_map(&dev, inner_id, 4096);
	held = EPK_PKRU_ALLOW(dev.table[EPK_ID_INDEX(far_id)].pkey);
	handle(SIGUSR1, 0);

	unregistered();
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	in_its_ept();
	forged();
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS) == 0);
	exact();
	no_handler();
	replaced();
	forged();
	jumps();
	jumps_inside();
	nested();
	altstack();
	on_stack_at(0x10000000, on_low_stack);
	if (!epk_device_is_alone(&dev))
		gone();
	return epk_test_result();
}
