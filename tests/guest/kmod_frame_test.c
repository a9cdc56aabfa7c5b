// SPDX-License-Identifier: MIT
/*
 * Every way in which a signal loads PKRU or changes the EPT: frames that are forged in each
 * ABI of the kernel, that cannot be written, that lie in a domain; handlers whose stacks are
 * not in the order of time; a kernel that starts handlers with all keys open.
 */
#include "signal_test.h"

#include <elf.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define STACK_BYTES	65536

static int ids[30];
/* In (EPT 0, key k) and (EPT 1, key k); where there is one EPT, of another key. */
static int low_id, high_id;
static uint32_t high_ept;
static volatile uint64_t *low, *high;
static uint32_t held;

static void *stack_make(void)
{
	void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	REQUIRE(stack != MAP_FAILED);
	return stack;
}

static void holds_nothing(int line)
{
	epk_check((epk_rdpkru() & EPK_PKRU_DENY_ALL) == EPK_PKRU_DENY_ALL, __FILE__, line,
		  "no key is open", "");
	epk_check(EPK_TRY((void)*low) == SIGSEGV, __FILE__, line, "EPT 0's domain is closed", "");
	epk_device_goto(&dev, high_ept);
	epk_check(EPK_TRY((void)*high) == SIGSEGV, __FILE__, line, "the other domain is closed", "");
	epk_device_enter(&dev, 0);
}

static void holds_high(int line)
{
	epk_check(dev.identity->ept == high_ept && epk_rdpkru() == held, __FILE__, line,
		  "holds what it held", "");
	epk_check(EPK_TRY((void)*high) == 0, __FILE__, line, "reads its domain", "");
	epk_device_enter(&dev, 0);
}

/* Where frames are forged, and where they go on. */
static char *forgery;
static sigjmp_buf forged_env;
static volatile enum forge_abi forged_abi;

static void forged_arrival(void)
{
	siglongjmp(forged_env, 1);
}

static void forges(ucontext_t *uc)
{
	forge_return(forged_abi, forgery, uc, 0, forged_arrival);
}

static void forged(bool registered)
{
	volatile unsigned int i;

	in_handler = forges;
	for (i = 0; i < NR_FORGE_ABIS; i++) {
		if (!forge_can(i)) {
			printf("no %s here\n", forge_names[i]);
			continue;
		}
		/* What is held when the frame is forged is no matter. */
		forged_abi = i;
		if (!sigsetjmp(forged_env, 1)) {
			epk_device_enter(&dev, i % 2 ? high_id : 0);
			raise(SIGUSR1);
			CHECK(!"a forged frame returns to where it says");
		}
		/* One that is not registered loses its EPT with the CPU. */
		epk_check(dev.identity->ept == 0 || !registered, __FILE__, __LINE__, forge_names[i],
			  ": in EPT 0");
		epk_check((epk_rdpkru() & EPK_PKRU_DENY_ALL) == EPK_PKRU_DENY_ALL, __FILE__,
			  __LINE__, forge_names[i], ": no key");
		holds_nothing(__LINE__);
	}
}

/* Without a record a thread holds nothing, and no frame changes that. */
static void *not_registered(void *unused)
{
	forged(false);
	return unused;
}

/* The first handler never returns; the second one's frame says that it is the first. */
static sigjmp_buf left_env;
static greg_t first_sp, first_ip;

static void leave(ucontext_t *uc)
{
	first_sp = uc->uc_mcontext.gregs[REG_RSP];
	first_ip = uc->uc_mcontext.gregs[REG_RIP];
	siglongjmp(left_env, 1);
}

static void return_to_first(ucontext_t *uc)
{
	static greg_t own;

	own = uc->uc_mcontext.gregs[REG_RSP];
	uc->uc_mcontext.gregs[REG_RSP] = first_sp;
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)forged_arrival;
	*frame_pkru(uc) = held;
	CHECK(own != first_sp);
}

static __attribute__((noinline)) void raise_deeper(void)
{
	char room[4096];

	/* Kept, and so is the frame: no tail call. */
	asm volatile("" : : "r"(room) : "memory");
	raise(SIGUSR2);
	asm volatile("" : : "r"(room) : "memory");
}

/* A frame like the handler's own, with the same stack to go on with, but elsewhere. */
static void returns_from_copy(ucontext_t *uc)
{
	static ucontext_t copy;

	copy = *uc;
	copy.uc_mcontext.gregs[REG_RIP] = (greg_t)forged_arrival;
	forge_by_syscall(&copy, SYS_rt_sigreturn);
}

static void copied(void)
{
	in_handler = returns_from_copy;
	if (!sigsetjmp(forged_env, 1)) {
		epk_device_enter(&dev, high_id);
		raise(SIGUSR1);
		CHECK(!"the frame returns to where it says");
	}
	holds_nothing(__LINE__);
}

static void given_up(void)
{
	handle(SIGUSR1, SA_NODEFER);
	handle(SIGUSR2, SA_NODEFER);
	in_handler = leave;
	if (!sigsetjmp(left_env, 1)) {
		epk_device_enter(&dev, high_id);
		raise(SIGUSR1);
	}
	holds_nothing(__LINE__);
	/* Given up, and another signal, whose frame is elsewhere. */
	in_handler = return_to_first;
	if (!sigsetjmp(forged_env, 1)) {
		raise_deeper();
		CHECK(!"the frame returns to where it says");
	}
	holds_nothing(__LINE__);
	handle(SIGUSR1, 0);
}

/* A frame that cannot be written: SIGSEGV instead, whose handler starts with nothing. */
static void unwritable(void)
{
	stack_t bad = { .ss_size = STACK_BYTES }, none = { .ss_flags = SS_DISABLE };
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO }, old;
	int before = handled;

	bad.ss_sp = mmap(NULL, STACK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(bad.ss_sp != MAP_FAILED);
	CHECK_EQ(sigaltstack(&bad, NULL), 0);
	handle(SIGUSR1, SA_ONSTACK);
	CHECK_EQ(sigaction(SIGSEGV, &sa, &old), 0);
	in_handler = NULL;
	epk_device_enter(&dev, high_id);
	raise(SIGUSR1);
	CHECK_EQ(handled, before + 1);
	CHECK_EQ(handler_ept, 0);
	CHECK_EQ(handler_pkru & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	CHECK_EQ(sigaction(SIGSEGV, &old, NULL), 0);
	holds_high(__LINE__);
	CHECK_EQ(sigaltstack(&none, NULL), 0);
	munmap(bad.ss_sp, STACK_BYTES);
	handle(SIGUSR1, 0);
}

/* The alternate stack lies in a domain of the same key in another EPT, or in the same EPT. */
static void dies_of_frame(int hold)
{
	stack_t bad = { .ss_size = STACK_BYTES };
	int status, i;
	pid_t pid = fork();

	if (!pid) {
		/* A child has domains of its own, at the same places. */
		struct epk_device own;
		int mine[30];
		char *mem;

		epk_failures = 0;
		epk_device_open(&own);
		epk_device_fill(&own, mine);
		REQUIRE(ioctl(own.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS) == 0);
		mem = epk_device_map(&own, mine[0], STACK_BYTES);
		REQUIRE(mem != MAP_FAILED);
		CHECK_EQ(epk_device_populate(&own, mem, STACK_BYTES), 0);
		bad.ss_sp = mem;
		CHECK_EQ(sigaltstack(&bad, NULL), 0);
		handle(SIGUSR1, SA_ONSTACK);
		epk_device_enter(&own, hold ? mine[hold] : 0);
		/* The emulator lets the kernel write past access-disable alone. */
		epk_wrpkru(epk_rdpkru() | (epk_rdpkru() & EPK_PKRU_DENY_ALL) << 1);
		epk_try_init();
		i = sigsetjmp(epk_try_env, 1);
		if (!i) {
			epk_trying = 1;
			raise(SIGUSR1);
			_exit(2);
		}
		CHECK_EQ(i, SIGSEGV);
		epk_device_enter(&own, mine[0]);
		for (i = 0; i < STACK_BYTES; i++) {
			if (mem[i])
				_exit(3);
		}
		_exit(epk_failures ? 1 : 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	epk_check(status == 0, __FILE__, __LINE__, "no frame in a domain that is not held", "");
}

static void frame_in_domain(void)
{
	/* Nothing held; another key of EPT 0; the same key of EPT 1. */
	dies_of_frame(0);
	dies_of_frame(1);
	if (!epk_device_is_alone(&dev))
		dies_of_frame(15);
}

/* A handler whose stack disarms itself and lies above all others, and one inside it. */
static volatile int depth, good;

static void nest(ucontext_t *uc)
{
	(void)uc;
	if (!--depth)
		return;
	epk_device_enter(&dev, high_id);
	raise(SIGUSR1);
	if (dev.identity->ept == high_ept && epk_rdpkru() == held)
		good++;
}

/* On a stack far below the alternate one. */
static void *autodisarm(void *unused)
{
	stack_t stack = { .ss_size = STACK_BYTES, .ss_flags = 1u << 31 /* SS_AUTODISARM */ };
	stack_t none = { .ss_flags = SS_DISABLE };

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS), 0);
	stack.ss_sp = stack_make();
	REQUIRE((char *)stack.ss_sp > (char *)&stack);
	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	handle(SIGUSR1, SA_NODEFER | SA_ONSTACK);
	depth = 5, good = 0;
	in_handler = nest;
	epk_device_enter(&dev, high_id);
	raise(SIGUSR1);
	holds_high(__LINE__);
	CHECK_EQ(good, 4);
	CHECK_EQ(sigaltstack(&none, NULL), 0);
	handle(SIGUSR1, 0);
	return unused;
}

/* The handler goes on on a stack above, holds a domain there, and another signal comes. */
static ucontext_t in_middle, back_again;

static void on_other_stack(void)
{
	in_handler = NULL;
	epk_device_enter(&dev, high_id);
	raise(SIGUSR1);
	good = dev.identity->ept == high_ept && epk_rdpkru() == held;
	epk_device_enter(&dev, 0);
}

static void change_stacks(ucontext_t *uc)
{
	(void)uc;
	swapcontext(&back_again, &in_middle);
}

static void *coroutine(void *unused)
{
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS), 0);
	getcontext(&in_middle);
	in_middle.uc_stack.ss_sp = stack_make();
	in_middle.uc_stack.ss_size = STACK_BYTES;
	in_middle.uc_link = &back_again;
	REQUIRE((char *)in_middle.uc_stack.ss_sp > (char *)&unused);
	makecontext(&in_middle, on_other_stack, 0);
	handle(SIGUSR1, SA_NODEFER);
	good = 0;
	in_handler = change_stacks;
	epk_device_enter(&dev, high_id);
	raise(SIGUSR1);
	holds_high(__LINE__);
	CHECK_EQ(good, 1);
	handle(SIGUSR1, 0);
	return unused;
}

/* Root can have every handler start with all keys open. */
static void init_pkru(void)
{
	const char *file = "/sys/kernel/debug/x86/init_pkru";

	REQUIRE(put(file, "0"));
	in_handler = NULL;
	epk_device_enter(&dev, high_id);
	raise(SIGUSR1);
	CHECK_EQ(handler_ept, 0);
	CHECK_EQ(handler_pkru & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	holds_high(__LINE__);
	forged(true);
	REQUIRE(put(file, "0x55555554"));
}

/* A debugger writes PKRU with all other state. */
static void debugged(bool context)
{
	static unsigned char state[16384] __attribute__((aligned(64)));
	struct iovec io = { state, sizeof(state) };
	uint32_t *pkru = (uint32_t *)(state + pkru_offset());
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct epk_device own;
		uint32_t want = context ? EPK_PKRU_DENY_ALL : 0;

		if (context)
			epk_device_open(&own);
		epk_wrpkru(EPK_PKRU_DENY_ALL);
		if (context)
			ioctl(own.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit((epk_rdpkru() & EPK_PKRU_DENY_ALL) != want);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	CHECK_EQ(ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &io), 0);
	CHECK_EQ(*pkru & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	*pkru = 0;
	/* The state says which of its parts count. */
	*(uint64_t *)(state + 512) |= 1 << 9;
	CHECK_EQ(ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &io), 0);
	CHECK_EQ(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	epk_check(status == 0, __FILE__, __LINE__, "PKRU as a debugger sets it",
		  context ? ", in a process with domains" : ", without");
}

int main(void)
{
	pthread_t thread;

	epk_device_open(&dev);
	high_id = ids[epk_device_fill(&dev, ids) / 2];
	low_id = ids[0];
	high_ept = epk_device_entry(&dev, high_id).ept;
	if (!epk_device_is_alone(&dev)) {
		REQUIRE(epk_device_entry(&dev, low_id).pkey ==
			epk_device_entry(&dev, high_id).pkey);
		REQUIRE(!epk_device_entry(&dev, low_id).ept && high_ept == 1);
	}
	low = epk_device_map(&dev, low_id, 4096);
	high = epk_device_map(&dev, high_id, 4096);
	REQUIRE(low != MAP_FAILED && high != MAP_FAILED);
	held = EPK_PKRU_ALLOW(epk_device_entry(&dev, high_id).pkey);
	handle(SIGUSR1, 0);
	forgery = forge_make(FORGE_LOW);

	CHECK_EQ(pthread_create(&thread, NULL, not_registered, NULL), 0);
	pthread_join(thread, NULL);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS) == 0);
	forged(true);
	copied();
	given_up();
	unwritable();
	frame_in_domain();
	on_stack_at(FORGE_LOW + 0x10000000, autodisarm);
	on_stack_at(FORGE_LOW + 0x10000000, coroutine);
	init_pkru();
	debugged(false);
	debugged(true);
	return epk_test_result();
}
