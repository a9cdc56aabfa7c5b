// SPDX-License-Identifier: MIT
/*
 * Faults of code that holds a private domain: whatever its instruction has done, the thread goes on
 * where the process has said, with its registers; and a signal it is where the code holds none,
 * where somebody else sends it, in a handler, and in what leaves the domain.
 */
#include "private_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <ucontext.h>

/*
 * private_try(what, arg): 0, or 1 if @what came to private_fault, which notes what it has found.
 * Behind that there is nothing else for EPK_FAULT_BYTES.
 */
asm(
"	.text\n"
"private_try:\n"
EPK_PUSH_SAVED
"	sub	$8, %rsp\n"
"	mov	%rsp, %fs:private_sp@tpoff\n"
"	mov	%rdi, %rax\n"
"	mov	%rsi, %rdi\n"
"	call	*%rax\n"
"	xor	%eax, %eax\n"
"private_leave:\n"
"	fninit\n"
"	add	$8, %rsp\n"
EPK_POP_SAVED
"	ret\n"
"	.balign	256\n"
"private_fault:\n"
"	cmpl	$0, private_ends(%rip)\n"
"	jne	1f\n"
"2:	mov	%rsp, %fs:private_found@tpoff\n"
"	mov	%r12, %fs:private_found@tpoff + 8\n"
"	mov	%rdx, %fs:private_found@tpoff + 16\n"
"	mov	%fs:private_sp@tpoff, %rsp\n"
"	pushfq\n"
"	pop	%rax\n"
"	mov	%rax, %fs:private_found@tpoff + 24\n"
"	cld\n"
"	xor	%ecx, %ecx\n"
"	.byte	0x0f, 0x01, 0xee\n"	/* rdpkru */
"	mov	%rax, %fs:private_found@tpoff + 32\n"
"	mov	$1, %eax\n"
"	jmp	private_leave\n"
"1:	cmpl	$1, private_ends(%rip)\n"
"	je	3f\n"
"	ud2\n"
"3:	mov	private_nowhere(%rip), %rax\n"
"	mov	(%rax), %rax\n"
"	jmp	2b\n"
"	.balign	256\n"
"private_behind:\n"
"	ud2\n"
"	ret\n"
);
extern int private_try(void (*what)(long arg), long arg);
extern const char private_fault[];
extern void private_behind(long arg);

struct found {
	uint64_t sp, r12, rdx, flags, pkru;
};

__attribute__((used)) __thread uintptr_t private_sp;
__attribute__((used)) __thread struct found private_found;
__attribute__((used)) volatile int private_ends;
__attribute__((used)) void *private_nowhere;

static int id, x;
static char *mem, *mem_x, *short_file, *text;

/* Faults of each kind. */
static void reads_nothing(long arg)
{
	(void)*(volatile char *)arg;
}

static void writes_text(long arg)
{
	*(volatile char *)arg = 1;
}

static void jumps(long arg)
{
	((void (*)(void))arg)();
}

static void not_canonical(long arg)
{
	asm volatile("movabs $0x8000000000000000, %%rax\n\tmov (%%rax), %%rax" : : "r"(arg) : "rax");
}

static void stack_not_canonical(long arg)
{
	asm volatile("mov	%%rsp, %%r12\n\t"
		     "movabs	$0x8000000000000000, %%rsp\n\t"
		     "push	%%rax\n\t"
		     "mov	%%r12, %%rsp" : : "r"(arg) : "r12", "memory");
}

static void divides(long arg)
{
	asm volatile("xor %%edx, %%edx\n\tmov $1, %%eax\n\tdivl %0" : : "r"((int)arg) :
		     "rax", "rdx");
}

static void undefined(long arg)
{
	(void)arg;
	asm volatile("ud2");
}

static void privileged(long arg)
{
	(void)arg;
	asm volatile("hlt");
}

static void sse(long arg)
{
	uint32_t all = 0;
	float zero = arg;

	asm volatile("ldmxcsr %0\n\tmovss %1, %%xmm0\n\tdivss %%xmm0, %%xmm0" : : "m"(all),
		     "m"(zero) : "xmm0");
}

static void x87(long arg)
{
	uint16_t all = 0x340;

	(void)arg;
	asm volatile("fninit\n\tfldcw %0\n\tfldz\n\tfldz\n\tfdivp\n\tfwait" : : "m"(all));
}

static void unaligned(long arg)
{
	asm volatile("pushfq\n\torl $0x40000, (%%rsp)\n\tpopfq\n\tmov 1(%0), %%eax\n\t"
		     "pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" : : "r"(arg) : "rax", "memory");
}

static void no_such_key(long arg)
{
	epk_wrpkru(epk_rdpkru());
	(void)*(volatile char *)arg;
}

static void bad_xsave(long arg)
{
	asm volatile("movaps (%0), %%xmm0" : : "r"(arg + 1) : "xmm0");
}

/* Where the instruction pointer may be anything, and so may the stack. */
static void try_or_skip(int sig, siginfo_t *info, void *context)
{
	/* The kernel starts a handler with AC as it is, and a jump out of it keeps that. */
	asm volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" : : : "memory", "cc");
	if (epk_trying)
		epk_try_handler(sig, info, context);
	else
		skip_or_try(sig, info, context);
}

static void handle_all(void)
{
	struct sigaction action = {
		.sa_sigaction = try_or_skip, .sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	unsigned int i;

	for (i = 0; i < 4; i++)
		REQUIRE(!sigaction(signals[i], &action, NULL));
}

/* What emulators may not raise, or by another signal, has @unsure set. */
static struct kind {
	const char *name;
	void (*what)(long arg);
	char **arg;
	int sig;
	bool unsure;
} kinds[] = {
	{ "a read of nothing", reads_nothing, NULL, SIGSEGV, false },
	{ "a read behind the end of a file", reads_nothing, &short_file, SIGBUS, false },
	{ "a read of a domain that is not held", no_such_key, &mem_x, SIGSEGV, false },
	{ "a write to what is read only", writes_text, &text, SIGSEGV, false },
	{ "a jump to nothing", jumps, NULL, SIGSEGV, false },
	{ "a jump to data", jumps, &mem, SIGSEGV, false },
	{ "an address that is none", not_canonical, NULL, SIGSEGV, false },
	{ "a stack that is none", stack_not_canonical, NULL, SIGBUS, true },
	{ "a vector that is not aligned", bad_xsave, &mem, SIGSEGV, false },
	{ "a division by 0", divides, NULL, SIGFPE, false },
	{ "a division of vectors", sse, NULL, SIGFPE, true },
	{ "a division by the coprocessor", x87, NULL, SIGFPE, false },
	{ "an instruction that is none", undefined, NULL, SIGILL, false },
	{ "an instruction of the kernel's", privileged, NULL, SIGSEGV, false },
	{ "a word that is not aligned", unaligned, &text, SIGBUS, true },
};

#define NR_KINDS	(sizeof(kinds) / sizeof(*kinds))

static long arg_of(const struct kind *kind)
{
	return kind->arg ? (long)*kind->arg : 0;
}

/* The signal that came; the key is open until then. */
static int signal_of(const struct kind *kind, bool *came)
{
	*came = false;
	return EPK_TRY_ONLY(*came = private_try(kind->what, arg_of(kind)));
}

static void comes_to_fault(const struct kind *kind)
{
	uint32_t pkru;
	bool came;
	int sig;

	pkru = epk_rdpkru();
	private_found = (struct found){ 0 };
	sig = signal_of(kind, &came);
	epk_check(came && !sig, __FILE__, __LINE__, kind->name, " comes to fault");
	CHECK_EQ(private_found.pkru, pkru);
	CHECK_EQ(private_found.flags & 0x40500, 0);
	CHECK_EQ(epk_rdpkru(), pkru);
}

static void raises(const struct kind *kind, int line)
{
	bool came;
	int sig = signal_of(kind, &came);

	epk_check(!came && sig == kind->sig, __FILE__, line, kind->name, " raises its signal");
	asm volatile("fninit");
}

static void each(void)
{
	unsigned int i;
	bool came;

	for (i = 0; i < NR_KINDS; i++) {
		if (kinds[i].unsure)
			kinds[i].sig = signal_of(&kinds[i], &came);
		printf("%s: signal %d\n", kinds[i].name, kinds[i].sig);
		fflush(stdout);
		if (!kinds[i].sig)
			continue;
		/* Nothing is held; an ordinary domain is; a private one. */
		raises(&kinds[i], __LINE__);
		if (kinds[i].arg != &mem_x) {
			CHECK_EQ(begin(x), 0);
			raises(&kinds[i], __LINE__);
			end(x);
		}
		enter(id);
		comes_to_fault(&kinds[i]);
		comes_to_fault(&kinds[i]);
		CHECK_EQ(end(id), 0);
		raises(&kinds[i], __LINE__);
		holds_nothing(__LINE__);
	}
	/* Held by the record, in another EPT or in none. */
	enter(id);
	CHECK_EQ(begin(x), 0);
	if (epk_device_is_alone(&dev))
		CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	else
		CHECK_EQ(epk_device_move(&dev, x, FAR_EPT), 0);
	CHECK(can_read(mem_x));
	comes_to_fault(&kinds[0]);
	comes_to_fault(&kinds[NR_KINDS - 3]);
	CHECK_EQ(end(x), 0);
	CHECK(can_read(mem));
	CHECK_EQ(end(id), 0);
	holds_nothing(__LINE__);
}

/* All registers as they were, but for three flags. */
static void faults_with_registers(long arg)
{
	asm volatile("mov	%%rsp, %%r13\n\t"
		     "sub	$0x1230, %%rsp\n\t"
		     "mov	$0x5678, %%r12d\n\t"
		     "mov	$0x9abc, %%edx\n\t"
		     "lea	-128(%%r13), %%rsp\n\t"
		     "pushfq\n\t"
		     "orl	$0x40500, (%%rsp)\n\t"
		     "popfq\n\t"
		     "mov	(%0), %%rax"
		     : : "r"(arg) : "rax", "rdx", "r12", "r13", "memory");
}

static void registers(void)
{
	enter(id);
	CHECK_EQ(private_try(faults_with_registers, 0), 1);
	CHECK_EQ(private_found.r12, 0x5678);
	CHECK_EQ(private_found.rdx, 0x9abc);
	CHECK(private_found.sp < private_sp && private_found.sp > private_sp - 512);
	CHECK_EQ(private_found.flags & 0x40500, 0);
	CHECK_EQ(private_found.flags & 0x202, 0x202);
	CHECK_EQ(end(id), 0);
}

/* What is sent is a signal. */
static volatile int handled, handled_code;

static void counts(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	handled++;
	handled_code = info->si_code;
}

static void sends(long sig)
{
	syscall(SYS_tgkill, getpid(), gettid(), sig);
}

static void breakpoint(long arg)
{
	(void)arg;
	asm volatile("int3");
}

static void steps(long arg)
{
	asm volatile("pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tnop\n\t"
		     "pushfq\n\tandl $~0x100, (%%rsp)\n\tpopfq" : : "r"(arg) : "memory");
}

static void sent(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGUSR1 };
	struct sigaction action = { .sa_sigaction = counts, .sa_flags = SA_SIGINFO }, old;
	unsigned int i;

	for (i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		REQUIRE(!sigaction(signals[i], &action, &old));
		enter(id);
		/* Whatever came before. */
		CHECK_EQ(private_try(reads_nothing, 0), 1);
		handled = 0;
		CHECK_EQ(private_try(sends, signals[i]), 0);
		CHECK_EQ(handled, 1);
		CHECK_EQ(handled_code, SI_TKILL);
		if (signals[i] == SIGTRAP) {
			CHECK_EQ(private_try(breakpoint, 0), 0);
			CHECK_EQ(handled, 2);
			CHECK_EQ(private_try(steps, 0), 0);
			CHECK(handled > 2);
		}
		list(id, PROT_READ | PROT_WRITE, 0, 0);
		CHECK_EQ(end(id), 0);
		REQUIRE(!sigaction(signals[i], &old, NULL));
	}
}

/* In a handler that interrupts such code, and has entered the domain itself. */
static void enters_in_handler(int sig)
{
	(void)sig;
	handled++;
	raises(&kinds[0], __LINE__);
	enter(id);
	comes_to_fault(&kinds[0]);
}

/* It has interrupted code with its stack there, and has nothing: its faults are its own. */
static void faults_in_handler(int sig)
{
	(void)sig;
	CHECK(!can_read(mem));
	CHECK(!can_read(NULL));
	handled++;
}

static char *inner_stack;

static void raise_inside(void)
{
	raise(SIGUSR1);
}

static void handlers(void)
{
	static char outside[1 << 16];
	struct sigaction action = { .sa_handler = enters_in_handler };
	char *inner;
	int own = new_private(&inner, 32);

	REQUIRE(!sigaction(SIGUSR1, &action, NULL));
	enter(id);
	handled = 0;
	raise(SIGUSR1);
	CHECK_EQ(handled, 1);
	list(id, PROT_READ | PROT_WRITE, 0, 0);
	comes_to_fault(&kinds[0]);
	CHECK_EQ(end(id), 0);

	inner_stack = inner + 32 * PAGE - 256;
	private_outside = outside + sizeof(outside);
	action.sa_handler = faults_in_handler;
	REQUIRE(!sigaction(SIGUSR1, &action, NULL));
	enter(own);
	run_on(inner_stack, raise_inside);
	CHECK_EQ(handled, 2);
	list(own, PROT_READ | PROT_WRITE, 0, 0);
	comes_to_fault(&kinds[0]);
	CHECK_EQ(end(own), 0);
	done_with(own, inner, 32);
}

static void gate_of_nothing(long arg)
{
	private_gate((const volatile uint64_t *)arg);
}

/* What leaves the domain faults, at its beginning and behind it: it ends by a signal. */
static void never_ends(void)
{
	volatile int i;
	int sig;

	for (i = 1; i <= 2; i++) {
		enter(id);
		private_ends = i;
		sig = EPK_TRY_ONLY(private_try(reads_nothing, 0));
		CHECK_EQ(sig, i == 1 ? SIGSEGV : SIGILL);
		private_ends = 0;
		end(id);
	}
	/* A gate reads what is not there. */
	enter(id);
	sig = EPK_TRY_ONLY(private_try(gate_of_nothing, 0));
	CHECK_EQ(sig, SIGSEGV);
	end(id);
	enter(id);
	sig = EPK_TRY_ONLY(private_try((void (*)(long))private_fault + 255, 0));
	CHECK(sig);
	end(id);
	enter(id);
	CHECK_EQ(private_try(private_behind, 0), 1);
	CHECK_EQ(end(id), 0);
}

/*
 * To __USER32_CS: there what leaves the domain would be other instructions.  By a jump: of a far
 * return, Debian's QEMU has the kernel's rights read the stack, for which the kernel oopses.
 */
static void runs_32_bit(long arg)
{
	struct {
		uint32_t offset;
		uint16_t segment;
	} to = { arg, 0x23 };

	asm volatile("ljmpl	*%0" : : "m"(to) : "memory");
}

static void of_32_bit(void)
{
	unsigned char *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	volatile bool came = false;
	int sig;

	REQUIRE(code != MAP_FAILED);
	memcpy(code, "\x0f\x0b", 2);	/* ud2 */
	enter(id);
	sig = EPK_TRY_ONLY(came = private_try(runs_32_bit, (long)code));
	CHECK_EQ(sig, SIGILL);
	CHECK(!came);
	end(id);
	munmap(code, PAGE);
}

/* Often, with nothing else in between. */
static void again(void)
{
	int i, came = 0;

	enter(id);
	for (i = 0; i < 5000; i++)
		came += private_try(kinds[i % 2 ? 0 : 9].what, 0);
	CHECK_EQ(came, 5000);
	CHECK_EQ(end(id), 0);
}

/* On a stack in the domain, in several threads, which it moves under. */
static volatile int stop;

static void faults_once(long arg)
{
	*(volatile long *)(private_sp - 8 - (arg & 0)) = 1;
	(void)*(volatile char *)(arg & 0);
}

static void *faults(void *place)
{
	int i;

	(void)place;
	REQUIRE(follow() == 0);
	for (i = 0; i < 200; i++) {
		enter(id);
		CHECK_EQ(private_try(faults_once, i), 1);
		CHECK(can_read(mem));
		CHECK_EQ(end(id), 0);
	}
	return NULL;
}

static void *moves(void *unused)
{
	unsigned int i;

	for (i = 0; !stop; i++) {
		epk_device_move(&dev, id, i % 2 ? EPK_EPT_ANY : EPK_EPT_NONE);
		sched_yield();
	}
	return unused;
}

static void together(void)
{
	pthread_t threads[3];
	int i;

	stop = 0;
	for (i = 0; i < 3; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, i ? faults : moves, NULL));
	pthread_join(threads[1], NULL);
	pthread_join(threads[2], NULL);
	stop = 1;
	pthread_join(threads[0], NULL);
}

/* A stack there cannot be used any more: nothing of it is needed to come to fault. */
static void overflows(void)
{
	asm volatile("1: push %%rax\n\tjmp 1b" : : : "memory");
}

static void on_inner(long arg)
{
	(void)arg;
	run_on(inner_stack + PAGE * 3, overflows);
}

static void overflow(void)
{
	char *room = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *inner = room + 4 * PAGE;
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_SPILL };
	int own;

	arg.ids = (uintptr_t)&own;
	REQUIRE(room != MAP_FAILED && ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	REQUIRE(mmap(inner, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		     EPK_MMAP_DOMAIN(own)) == inner);
	REQUIRE(make_private(own, inner) == 0);
	enter(own);
	inner_stack = inner;
	CHECK_EQ(private_try(on_inner, 0), 1);
	CHECK(private_found.sp <= (uintptr_t)inner && private_found.sp > (uintptr_t)room);
	CHECK_EQ(end(own), 0);
	done_with(own, inner, 4);
}

/* A child that has said nothing of where to go. */
static void not_asked(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		epk_failures = 0;
		close(dev.fd);
		private_init(0);
		handle_all();
		id = new_private(&mem, 1);
		enter(id);
		raises(&kinds[0], __LINE__);
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
}

static void wrong_fault(void)
{
	struct epk_gate gate = {
		(uintptr_t)private_gate, (uintptr_t)private_gate_end, (uintptr_t)private_gate,
	};
	const uint64_t wrong[] = {
		1, (uintptr_t)&gate, (uintptr_t)mem, ~0ull, 1ull << 63, 0x7ffffffff000,
	};
	struct epk_gates arg = { .num = 1, .gates = (uintptr_t)&gate };
	unsigned int i;

	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		arg.fault = wrong[i];
		CHECK(ioctl(dev.fd, EPK_IOC_GATES, &arg) == -1 && errno == EINVAL);
	}
}

static void set_up(void)
{
	int file = memfd_create("short", 0);

	handle_all();
	id = new_private(&mem, 1);
	x = new_domain(&mem_x, 1);
	enter(id);
	memset(mem, 0xc3, PAGE);
	CHECK_EQ(end(id), 0);
	short_file = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0);
	REQUIRE(short_file != MAP_FAILED);
	text = (char *)private_try;
}

int main(void)
{
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	private_init((uintptr_t)private_fault);
	set_up();
	RUN(wrong_fault());
	RUN(each());
	RUN(registers());
	RUN(sent());
	RUN(handlers());
	RUN(never_ends());
	RUN(of_32_bit());
	RUN(again());
	RUN(together());
	RUN(overflow());
	RUN(not_asked());
	return epk_test_result();
}
