/* SPDX-License-Identifier: MIT */
/* Calls of the module with a stack pointer of the test's choice, and code on another stack. */
#ifndef CALL_TEST_H
#define CALL_TEST_H

#include "rights_test.h"

#include <sys/syscall.h>
#include <ucontext.h>

/*
 * An access that may be refused without anything else happening: the handler of SIGSEGV skips it,
 * and returns.  It is known by what stands behind it, which does nothing.
 */
#define SKIP_MARK	".byte 0x0f, 0x1f, 0x80, 0x6b, 0x70, 0x65, 0x00\n\t"

static inline void skip_or_try(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	const unsigned char *ip = (const unsigned char *)regs[REG_RIP];

	/* mov (%r9), %rax, or the other way */
	if (ip[0] == 0x49 && ip[2] == 1 && !memcmp(ip + 3, "\x0f\x1f\x80\x6b\x70\x65", 7)) {
		regs[REG_RAX] = -EFAULT;
		regs[REG_RIP] += 3;
		return;
	}
	epk_try_handler(sig, info, context);
}

/* On an ordinary stack: that of the code may be what is refused. */
static inline void skip_init(void)
{
	static char room[1 << 16];
	stack_t stack = { .ss_sp = room, .ss_size = sizeof(room) };
	struct sigaction action = {
		.sa_sigaction = skip_or_try, .sa_flags = SA_SIGINFO | SA_ONSTACK,
	};

	sigaltstack(&stack, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

static inline bool can_read(const volatile void *addr)
{
	register const volatile void *from asm("r9") = addr;
	long value;

	asm volatile("mov	(%%r9), %%rax\n\t" SKIP_MARK
		     : "=a"(value) : "r"(from) : "memory");
	return value != -EFAULT;
}

/* It writes 0. */
static inline bool can_write(volatile void *addr)
{
	register volatile void *to asm("r9") = addr;
	long value = 0;

	asm volatile("mov	%%rax, (%%r9)\n\t" SKIP_MARK
		     : "+a"(value) : "r"(to) : "memory");
	return value != -EFAULT;
}

/* The kernel finds the same when it copies; but the other emulator lets it read more. */
static inline bool reaches(int i)
{
	bool reached = can_read(pages[i]);
	static int pipes[2];
	char c;

	if (!pipes[1])
		REQUIRE(pipe(pipes) == 0);
	if (write(pipes[1], (void *)pages[i], 1) == 1) {
		REQUIRE(read(pipes[0], &c, 1) == 1);
		CHECK(reached || !epk_device_is_alone(&dev));
	} else {
		CHECK(!reached);
	}
	return reached;
}

/* The stack pointer that the kernel sees, with room below it for a signal. */
static inline long ioctl_at(void *sp, unsigned int cmd, unsigned long arg)
{
	register long saved asm("r12");
	long ret;

	asm volatile("mov	%%rsp, %%r12\n\t"
		     "mov	%[sp], %%rsp\n\t"
		     "syscall\n\t"
		     "mov	%%r12, %%rsp"
		     : "=a"(ret), "=&r"(saved)
		     : "0"((long)SYS_ioctl), "D"((long)dev.fd), "S"((long)cmd), "d"(arg),
		       [sp] "r"(sp)
		     : "rcx", "r11", "memory");
	return ret;
}

static inline int call_prot(void *sp, int id, int prot)
{
	return ioctl_at(sp, EPK_IOC_CALL, EPK_BEGIN(id, prot));
}

static inline int call(void *sp, int id)
{
	return call_prot(sp, id, PROT_READ | PROT_WRITE);
}

static inline int call_return(void *sp)
{
	return ioctl_at(sp, EPK_IOC_RETURN, 0);
}

/* Run something on another stack. */
static inline void run_on(void *sp, void (*what)(void))
{
	register void (*func)(void) asm("r13") = what;
	register void *saved asm("r12") = sp;

	asm volatile("xchg	%%rsp, %%r12\n\t"
		     "call	*%%r13\n\t"
		     "mov	%%r12, %%rsp"
		     : "+r"(saved), "+r"(func)
		     : : "rax", "rcx", "rdx", "rbx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r14",
		       "r15", "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
		       "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
		       "xmm15");
}

/* A system call, or if @touch is set, a load from there as above; the stack is left alone. */
struct step {
	long nr, args[4], ret;
	const volatile void *touch;
};

static inline void run_steps(struct step *steps, long num)
{
	register long count asm("r12") = num;

	asm volatile("1:	mov	48(%%rbx), %%r9\n\t"
		     "mov	0(%%rbx), %%rax\n\t"
		     "mov	8(%%rbx), %%rdi\n\t"
		     "mov	16(%%rbx), %%rsi\n\t"
		     "mov	24(%%rbx), %%rdx\n\t"
		     "mov	32(%%rbx), %%r10\n\t"
		     "test	%%r9, %%r9\n\t"
		     "jz	2f\n\t"
		     "mov	(%%r9), %%rax\n\t" SKIP_MARK
		     "jmp	3f\n\t"
		     "2:	syscall\n\t"
		     "3:	mov	%%rax, 40(%%rbx)\n\t"
		     "add	$56, %%rbx\n\t"
		     "dec	%%r12\n\t"
		     "jnz	1b"
		     : "+b"(steps), "+r"(count)
		     : : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc",
		       "memory");
}

static inline void make_domains(void)
{
	struct epk_domains arg = {
		.num = NR_DOMAINS, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)ids,
	};
	int i;

	epk_device_open(&dev);
	skip_init();
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	for (i = 0; i < NR_DOMAINS; i++) {
		pages[i] = epk_device_map(&dev, ids[i], PAGE);
		REQUIRE(pages[i] != MAP_FAILED);
	}
}

#endif /* CALL_TEST_H */
