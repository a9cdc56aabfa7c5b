// SPDX-License-Identifier: MIT
/* epk_last_fault(): where the function has faulted that epk_call_caught() has left. */
#define _GNU_SOURCE
#include <signal.h>

#include "call_unit.h"

/* What each kind is to say; an address of 1 is that of the instruction, 2 and 3 are mem[0] and mem[2]. */
extern const char where_write[], where_wrong[], where_div[], where_read[], where_domain[], where_odd[];

static const struct {
	const char *instruction;
	uintptr_t addr;
	int signal, code, prot;
	const char *text;
} kinds[] = {
	{ where_write, 16, SIGSEGV, SEGV_MAPERR, PROT_WRITE, "fault: caught: a write, by the instruction at 0x" },
	{ where_wrong, 1, SIGILL, ILL_ILLOPN, 0, "fault: caught: no instruction of this CPU, by the instruction at 0x" },
	{ where_div, 1, SIGFPE, FPE_INTDIV, 0, "fault: caught: a division or another sum that fails, by" },
	{ (char *)16, 16, SIGSEGV, SEGV_MAPERR, PROT_EXEC, "fault: caught: a jump, by the instruction at 0x10, at 0x10\n" },
	{ where_read, 2, SIGSEGV, SEGV_PKUERR, PROT_READ, ", byte 0 of the 4096 at 0x" },
	{ where_domain, 3, SIGSEGV, SEGV_PKUERR, PROT_WRITE, ", byte 0 of the 4096 at 0x" },
	{ where_odd, 0, SIGSEGV, SI_KERNEL, 0, "fault: caught: an access to no address, by the instruction at 0x" },
};

#define KINDS	(sizeof(kinds) / sizeof(*kinds))

/* With registers full of what the caller might take for an answer. */
#define FULL	"mov $0x77, %%edi\n\tmov $0x77, %%esi\n\tmov $0x77, %%edx\n\t"
#define LOST	"rdi", "rsi", "rdx", "rax", "memory", "cc"

static __attribute__((noinline, noclone)) long goes_wrong(void *arg)
{
	/* There it could be written to, if it lay there. */
	struct epk_fault forged = { .size = sizeof(forged), .addr = (void *)77 };

	epk_last_fault(&forged);
	switch ((long)arg) {
	case 0:
		asm volatile(FULL "where_write: movl $1, 16" : : : LOST);
		break;
	case 1:
		asm volatile(FULL "where_wrong: ud2" : : : LOST);
		break;
	case 2:
		asm volatile(FULL "xor %%ecx, %%ecx\n\twhere_div: idivl %%ecx" : : : LOST, "rcx");
		break;
	case 3:
		asm volatile(FULL "mov $16, %%ecx\n\tjmp *%%rcx" : : : LOST, "rcx");
		break;
	case 4:
		asm volatile(FULL "where_read: cmpb $0, (%0)" : : "r"(mem[0]) : LOST);
		break;
	case 5:
		asm volatile(FULL "where_domain: movb $0, (%0)" : : "r"(mem[2]) : LOST);
		break;
	default:
		asm volatile(FULL "where_odd: movabs 0x8888000000000000, %%al" : : : LOST);
	}
	return 0;
}

static long works(void *arg)
{
	mem[1][1]++;
	return (long)arg;
}

static char printed[512];

static void print_fault(enum epk_level level, const char *text)
{
	if (level == EPK_LEVEL_FAULT)
		snprintf(printed, sizeof(printed), "%s", text);
}

static void check(unsigned int kind)
{
	struct epk_fault fault = { .size = sizeof(fault), .reserved = 7 };
	uintptr_t addr = kinds[kind].addr;

	if (addr == 1)
		addr = (uintptr_t)kinds[kind].instruction;
	if (addr == 2 || addr == 3)
		addr = (uintptr_t)mem[addr == 2 ? 0 : 2];
	REQUIRE_EQ(epk_last_fault(&fault), 0);
	REQUIRE_EQ(fault.size, sizeof(fault));
	REQUIRE_EQ(fault.addr, addr);
	REQUIRE_EQ(fault.instruction, kinds[kind].instruction);
	REQUIRE_EQ(fault.signal, kinds[kind].signal);
	REQUIRE_EQ(fault.code, kinds[kind].code);
	REQUIRE_EQ(fault.prot, kinds[kind].prot);
	REQUIRE_EQ(fault.reserved, 0);
}

/* With a print function, and with something held. */
static void says_where(void **state)
{
	unsigned int i, kind;

	(void)state;
	set_up();
	for (i = 0; i < 4 * KINDS; i++) {
		kind = i / 4;
		epk_set_print(i & 2 ? print_fault : NULL);
		printed[0] = 0;
		if (i & 1)
			REQUIRE_EQ(domain_begin(ids[0], RW), 0);
		REQUIRE_EQ(epk_call_caught(ids[1], goes_wrong, (void *)(long)kind, NULL), -EFAULT);
		REQUIRE(strstr(epk_strerror(-EFAULT), "epk_last_fault()"));
		check(kind);
		REQUIRE_EQ(!strstr(printed, kinds[kind].text), !(i & 2));
		/* Neither what returns nor what is refused is a fault. */
		REQUIRE_EQ(epk_call_caught(ids[1], works, NULL, NULL), 0);
		REQUIRE_EQ(epk_call_caught(ids[1], NULL, NULL, NULL), -EINVAL);
		check(kind);
		check_reach(i & 1, false, false);
		if (i & 1)
			REQUIRE_EQ(domain_end(ids[0]), 0);
	}
	epk_set_print(NULL);
	tear_down();
}

static void sizes(void **state)
{
	struct { struct epk_fault fault; size_t more; } large = { { .size = sizeof(large) }, 7 };
	struct epk_fault fault = { .size = sizeof(fault) }, small = { .size = 16, .instruction = &small };

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call_caught(ids[1], goes_wrong, NULL, NULL), -EFAULT);
	REQUIRE_EQ(epk_last_fault(&large.fault), 0);
	REQUIRE_EQ(large.more, 0);
	REQUIRE_EQ(large.fault.size, sizeof(large));
	REQUIRE_EQ(epk_last_fault(&small), 0);
	REQUIRE_EQ(small.addr, 16);
	REQUIRE_EQ(small.instruction, &small);
	fault.size = 0;
	REQUIRE_EQ(epk_last_fault(&fault), -EINVAL);
	fault.size = 17;
	REQUIRE_EQ(epk_last_fault(&fault), -EINVAL);
	REQUIRE_EQ(epk_last_fault(NULL), -EINVAL);
	REQUIRE(strstr(epk_strerror(-EINVAL), "sizeof(struct epk_fault)"));
	tear_down();
}

/* Other threads' faults are theirs; before the first there is none, nor in a child. */
static void *has_none(void *arg)
{
	struct epk_fault fault = { .size = sizeof(fault) };
	int err = epk_last_fault(&fault);

	if (err == -ENOENT && !epk_call_caught(ids[1], works, NULL, NULL))
		err = epk_last_fault(&fault);
	return err == -ENOENT ? arg : NULL;
}

static void is_the_threads(void **state)
{
	pthread_t thread;
	int status;
	pid_t pid;
	void *got;

	(void)state;
	set_up();
	REQUIRE_EQ(epk_call_caught(ids[1], goes_wrong, NULL, NULL), -EFAULT);
	REQUIRE_EQ(pthread_create(&thread, NULL, has_none, mem), 0);
	REQUIRE_EQ(pthread_join(thread, &got), 0);
	REQUIRE_EQ(got, mem);
	check(0);
	pid = fork();
	if (!pid)
		_exit(epk_last_fault(&(struct epk_fault) { .size = sizeof(struct epk_fault) }) != -ENOENT);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	tear_down();
}

/* What a component does is its own affair: its addresses are computed from its secrets. */
static long in_component(void *arg)
{
	return *(volatile char *)arg;
}

static void not_of_components(void **state)
{
	long (*const entries[])(void *arg) = { in_component };
	int component;

	(void)state;
	set_up();
	component = new_domain();
	REQUIRE_EQ(epk_component_create(component, entries, 1, NULL), 0);
	REQUIRE_EQ(epk_call_caught(ids[1], goes_wrong, NULL, NULL), -EFAULT);
	REQUIRE_EQ(epk_gate_call(component, 0, (void *)0x1234, NULL), -EFAULT);
	check(0);
	free_domain(component);
	tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_where),
		cmocka_unit_test(sizes),
		cmocka_unit_test(is_the_threads),
		cmocka_unit_test(not_of_components),
	};

	need_backend();
	skip_if(!backend_is("epk"), "catches no fault");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
