// SPDX-License-Identifier: MIT
/*
 * EPK_IOC_CATCH: a fault of what is called has the thread go on where the process has said, with the
 * stack pointer of who called, and holding nothing; and a signal it is wherever that is not what was called.
 */
#include "call_test.h"

#include <pthread.h>
#include <sys/wait.h>

/*
 * catch_try(arg, top, what): EPK_IOC_CATCH with @arg; then @what runs on the stack that ends at @top.
 * What comes to catch_caught is noted, and returns as @what does; 1, or if @what has returned 0, or the
 * error of the call.  catch_landing is what it comes to twice.
 */
asm(
"	.text\n"
"catch_try:\n"
EPK_PUSH_SAVED
"	sub	$8, %rsp\n"
"	mov	%rsi, %r12\n"
"	mov	%rdx, %r13\n"
"	mov	%rsp, %r14\n"
"	mov	%rdi, %rdx\n"
"	mov	catch_fd(%rip), %edi\n"
"	mov	catch_cmd(%rip), %esi\n"
"	mov	$16, %eax\n"
"	syscall\n"
"	test	%rax, %rax\n"
"	jnz	1f\n"
"	mov	%r12, %rsp\n"
"	call	*%r13\n"
"	mov	%r14, %rsp\n"
"	xor	%eax, %eax\n"
"1:	fninit\n"
"	add	$8, %rsp\n"
EPK_POP_SAVED
"	ret\n"
"catch_caught:\n"
"	cmpl	$0, catch_lands(%rip)\n"
"	jne	2f\n"
"3:	mov	%rsp, catch_found(%rip)\n"
"	mov	%rdi, catch_found+24(%rip)\n"
"	mov	%rsi, catch_found+32(%rip)\n"
"	mov	%rdx, catch_found+40(%rip)\n"
"	pushfq\n"
"	pop	%rax\n"
"	mov	%rax, catch_found+8(%rip)\n"
"	xor	%ecx, %ecx\n"
"	.byte	0x0f, 0x01, 0xee\n"	/* rdpkru */
"	mov	%rax, catch_found+16(%rip)\n"
"	cld\n"
"	mov	$1, %eax\n"
"	jmp	1b\n"
"2:	decl	catch_lands(%rip)\n"
"	mov	16, %rax\n"
"	ud2\n"
);
extern long catch_try(const struct epk_catch *arg, void *top, void (*what)(void));
extern const char catch_caught[];

__attribute__((used)) int catch_fd;
__attribute__((used)) unsigned int catch_cmd = EPK_IOC_CATCH;
__attribute__((used)) volatile int catch_lands;
__attribute__((used)) volatile uint64_t catch_found[6];
static volatile uint64_t catch_nowhere = 16;

enum { X, Y, Z };

static char stack[1 << 16] __attribute__((aligned(16)));
static char other[1 << 14] __attribute__((aligned(16)));
static volatile int signals;
static sigjmp_buf back;

static void leave_signal(int sig)
{
	signals++;
	siglongjmp(back, sig);
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = leave_signal, .sa_flags = SA_ONSTACK };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGILL, &action, NULL);
}

static struct epk_catch in_stack(int id)
{
	return (struct epk_catch) {
		.id = id, .low = (uintptr_t)stack, .top = (uintptr_t)stack + sizeof(stack),
	};
}

static void faults(void)
{
	asm volatile("orl $0, 16" : : : "memory", "cc");
}

static void flags(void)
{
	asm volatile("std\n\tpushfq\n\torl $0x40000, (%rsp)\n\tpopfq\n\tud2");
}

/* There is no @fault whose surroundings this could be. */
static void jumps_to_nothing(void)
{
	((void (*)(void))(uintptr_t)catch_nowhere)();
}

static void reaches_x(void)
{
	pages[X][0]++;
}

static void goes_elsewhere(void)
{
	asm volatile("mov %0, %%rsp\n\torl $0, 16" : : "r"(other + sizeof(other) / 2) : "memory");
}

static void works(void)
{
	pages[Z][0]++;
}

static long run(int id, void (*what)(void))
{
	struct epk_catch arg = in_stack(id);
	volatile long ret = 0;

	signals = 0;
	if (!sigsetjmp(back, 1))
		ret = catch_try(&arg, stack + sizeof(stack), what);
	return signals ? -100 : ret;
}

static void hold(int i)
{
	CHECK_EQ(begin(ids[i]), 0);
}

static void drop_held(void)
{
	end(ids[X]);
	end(ids[Y]);
	end(ids[Z]);
}

static void expect_held(int line, bool x, bool z)
{
	struct epk_grant list[8];
	struct epk_grants arg = { .num = 8, .list = (uintptr_t)list };

	REQUIRE(!ioctl(dev.fd, EPK_IOC_HELD, &arg));
	epk_check(arg.num == (unsigned int)(x + z), __FILE__, line, "held", "");
}

static void answers(void)
{
	struct epk_catch arg = in_stack(ids[Z]);

	arg.flags = ~EPK_CATCH_TELLS;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_CATCH, &arg), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_CATCH, 8), -1);
	CHECK_EQ(errno, EFAULT);
	arg.flags = 0;
	arg.id = 0;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_CATCH, &arg), -1);
	CHECK_EQ(errno, ENOENT);
	arg.id = ~0u;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_CATCH, &arg), -1);
	CHECK_EQ(errno, ENOENT);
	expect_held(__LINE__, false, false);
	/* That was no call. */
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING), -1);
	CHECK_EQ(errno, EACCES);
}

static void caught(void)
{
	void (*const what[])(void) = { faults, flags, reaches_x, jumps_to_nothing };
	unsigned int i, beside;

	for (i = 0; i < 8; i++) {
		beside = i & 1;
		if (beside)
			hold(X);
		CHECK_EQ(run(ids[Z], what[i / 2]), 1);
		CHECK_EQ(catch_found[1] & 0x40500, 0);
		expect_held(__LINE__, false, false);
		/* The call has not returned: it does by this. */
		CHECK_EQ(call_return((void *)(uintptr_t)catch_found[0]), 0);
		expect_held(__LINE__, beside, false);
		drop_held();
	}
	CHECK_EQ(run(ids[Z], works), 0);
	expect_held(__LINE__, false, true);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING), 0);
	expect_held(__LINE__, false, false);
}

/* Instructions, each with registers that say something else, and where they are. */
#define TOLD(name, instruction)							\
	asm("	.text\n"							\
	    #name ":\n"							\
	    "	mov	$0xd1, %edi\n"						\
	    "	mov	$0x51, %esi\n"						\
	    "	mov	$0xd, %edx\n"						\
	    "	mov	$1, %eax\n"						\
	    #name "_at:	" instruction "\n"					\
	    "	ret\n");							\
	extern const char name##_at[];						\
	void name(void)

TOLD(told_read, "cmpl $0, 0x123");
TOLD(told_write, "movl $0, 0x1234");
TOLD(told_domain, "mov told_page(%rip), %rcx\n told_domain_there: movl $0, (%rcx)");
TOLD(told_jump, "mov $0x2345, %ecx\n jmp *%rcx");
TOLD(told_kernel, "movabs 0xffff888000000000, %al");
TOLD(told_odd, "movabs 0x8888000000000000, %al");
TOLD(told_ud2, "ud2");
TOLD(told_div, "xor %ecx, %ecx\n told_div_there: idivl %ecx");
TOLD(told_file, "mov told_page(%rip), %rcx\n told_file_there: cmpb $0, (%rcx)");
extern const char told_domain_there[], told_div_there[], told_file_there[];

__attribute__((used)) char *told_page;

static void told(void (*what)(void), const char *ip, const void *addr, int sig, int code, int prot)
{
	struct epk_catch arg = in_stack(ids[Z]);
	volatile unsigned int tells;

	for (tells = 0; tells < 2; tells++) {
		arg.flags = tells ? EPK_CATCH_TELLS : 0;
		signals = 0;
		if (!sigsetjmp(back, 1))
			CHECK_EQ(catch_try(&arg, stack + sizeof(stack), what), 1);
		CHECK_EQ(signals, 0);
		CHECK_EQ(call_return((void *)(uintptr_t)catch_found[0]), 0);
		CHECK_EQ(catch_found[3], tells ? (uintptr_t)ip : 0xd1);
		CHECK_EQ(catch_found[4], tells ? (uintptr_t)addr : 0x51);
		if (!tells) {
			CHECK_EQ(catch_found[5], 0xd);
			continue;
		}
		CHECK_EQ(EPK_CAUGHT_SIGNAL(catch_found[5]), sig);
		CHECK_EQ(EPK_CAUGHT_CODE(catch_found[5]), code);
		CHECK_EQ(EPK_CAUGHT_PROT(catch_found[5]), prot);
	}
}

/* Of a file that is shorter, by which a page fault is SIGBUS. */
static char *behind_a_file(void)
{
	int fd = memfd_create("empty", 0);
	char *mem = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);

	REQUIRE(fd >= 0 && mem != MAP_FAILED);
	close(fd);
	return mem;
}

static void tells(void)
{
	told(told_read, told_read_at, (void *)0x123, SIGSEGV, SEGV_MAPERR, PROT_READ);
	told(told_write, told_write_at, (void *)0x1234, SIGSEGV, SEGV_MAPERR, PROT_WRITE);
	told_page = (char *)pages[X];
	told(told_domain, told_domain_there, pages[X], SIGSEGV, SEGV_PKUERR, PROT_WRITE);
	told(told_jump, (char *)0x2345, (void *)0x2345, SIGSEGV, SEGV_MAPERR, PROT_EXEC);
	told(told_kernel, told_kernel_at, (void *)0xffff888000000000, SIGSEGV, SEGV_MAPERR, PROT_READ);
	told(told_odd, told_odd_at, NULL, SIGSEGV, SI_KERNEL, 0);
	told(told_ud2, told_ud2_at, told_ud2_at, SIGILL, ILL_ILLOPN, 0);
	told(told_div, told_div_there, told_div_there, SIGFPE, FPE_INTDIV, 0);
	told_page = behind_a_file();
	told(told_file, told_file_there, told_page, SIGBUS, BUS_ADRERR, PROT_READ);
	munmap(told_page, 4096);
	drop_held();
}

/* What leaves by a fault and faults has its signal, and does not come back to it. */
static void lands_once(void)
{
	/* Where it lands is on that stack, too. */
	struct epk_catch arg = { .id = ids[Z], .top = ~0ull };

	hold(X);
	catch_lands = 1000;
	signals = 0;
	if (!sigsetjmp(back, 1))
		catch_try(&arg, stack + sizeof(stack), faults);
	CHECK_EQ(signals, 1);
	CHECK_EQ(catch_lands, 999);
	catch_lands = 0;
	/* The handler was left. */
	expect_held(__LINE__, false, false);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING), 0);
	drop_held();
}

static void elsewhere(void)
{
	struct epk_catch arg = in_stack(ids[Z]);

	CHECK_EQ(run(ids[Z], goes_elsewhere), -100);
	/* It may still go on: who has left by a jump is not it. */
	signals = 0;
	if (!sigsetjmp(back, 1))
		faults();
	CHECK_EQ(signals, 1);
	arg.top = arg.low = 0;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING), 0);
	signals = 0;
	if (!sigsetjmp(back, 1))
		catch_try(&arg, stack + sizeof(stack), faults);
	CHECK_EQ(signals, 1);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING), 0);
	drop_held();
}

/* A plain call in it is a part of it, and a call of nothing is not. */
static void calls_and_faults(void)
{
	CHECK_EQ(call(stack + sizeof(stack) - 4096, ids[Y]), 0);
	faults();
}

static void calls_nothing_and_faults(void)
{
	CHECK_EQ(ioctl_at(stack + sizeof(stack) - 4096, EPK_IOC_CALL, 0), 0);
	faults();
}

static void inner_calls(void)
{
	hold(X);
	CHECK_EQ(run(ids[Z], calls_and_faults), 1);
	CHECK_EQ(call_return((void *)(uintptr_t)catch_found[0]), 0);
	expect_held(__LINE__, true, false);
	CHECK_EQ(run(ids[Z], calls_nothing_and_faults), -100);
	/* Both are left by the jump that left the first. */
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, stack), -1);
	CHECK_EQ(errno, EACCES);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, catch_found[0]), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING), -1);
	CHECK_EQ(errno, EACCES);
	drop_held();
}

/* A handler that interrupts it, on its stack and on another. */
static volatile int in_handler;

static void faulty_handler(int sig)
{
	(void)sig;
	in_handler++;
	faults();
}

static void raises(void)
{
	raise(SIGUSR1);
}

static void handlers(void)
{
	struct sigaction action = { .sa_handler = faulty_handler };
	int on;

	for (on = 0; on < 2; on++) {
		in_handler = 0;
		action.sa_flags = on ? SA_ONSTACK : 0;
		sigaction(SIGUSR1, &action, NULL);
		CHECK_EQ(run(ids[Z], raises), -100);
		CHECK_EQ(in_handler, 1);
		CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING), 0);
	}
	drop_held();
}

static void wrong_place(void)
{
	struct epk_gate gate = {
		(uintptr_t)catch_try, (uintptr_t)catch_try + 1, (uintptr_t)catch_try,
	};
	const uint64_t wrong[] = { 1, (uintptr_t)&gate, ~0ull, 1ull << 63 };
	struct epk_gates arg = { .num = 1, .gates = (uintptr_t)&gate };
	struct epk_catch catch = in_stack(ids[Z]);
	unsigned int i;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_CATCH, &catch), -1);
	CHECK_EQ(errno, EINVAL);
	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		arg.caught = wrong[i];
		CHECK(ioctl(dev.fd, EPK_IOC_GATES, &arg) == -1 && errno == EINVAL);
	}
	arg.caught = (uintptr_t)catch_caught;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_GATES, &arg), 0);
}

int main(void)
{
	make_domains();
	catch_fd = dev.fd;
	catch_signals();
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	RUN(wrong_place());
	RUN(answers());
	RUN(caught());
	RUN(tells());
	RUN(lands_once());
	RUN(elsewhere());
	RUN(inner_calls());
	RUN(handlers());
	return epk_test_result();
}
