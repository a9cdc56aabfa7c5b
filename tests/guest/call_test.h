/* SPDX-License-Identifier: MIT */
/* Calls of the module with a stack pointer of the test's choice, and code on another stack. */
#ifndef CALL_TEST_H
#define CALL_TEST_H

#include <sys/syscall.h>

#include "rights_test.h"

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

static inline void make_domains(void)
{
	struct epk_domains arg = {
		.num = NR_DOMAINS, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)ids,
	};
	int i;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	for (i = 0; i < NR_DOMAINS; i++) {
		pages[i] = epk_device_map(&dev, ids[i], PAGE);
		REQUIRE(pages[i] != MAP_FAILED);
	}
}

#endif /* CALL_TEST_H */
