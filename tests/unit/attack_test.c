// SPDX-License-Identifier: MIT
/*
 * An attacker who can write all memory that the thread can, or who can choose
 * where the thread jumps: on backends with gates.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>

#include "unit.h"

#include "stack.h"
#include "state_page.h"

#define NR	20

extern const char epk_gates_start[], epk_gates_end[];
extern const char epk_pin_gates_start[], epk_pin_gates_end[];
long epk_call_on_stack(long (*fn)(void *), void *arg, void *top);

static int ids[NR];
static char *mem[NR], ignored;

static void require_closed(int but)
{
	int i;

	for (i = 0; i < NR; i++)
		REQUIRE(i == but || !try_read(mem[i], &ignored));
}

static void set_up(void)
{
	int i;

	REQUIRE(!alloc_domains(NR, ids));
	for (i = 0; i < NR; i++) {
		mem[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		REQUIRE(mem[i] != MAP_FAILED);
		REQUIRE(!domain_begin(ids[i], RW));
		mem[i][0] = i;
		REQUIRE(!domain_end(ids[i]));
	}
	require_closed(-1);
}

/*
 * What the thread has counted of its keys, and whether it is known, is written over: neither
 * gives a right.  At worst there seems to be no key left.
 */
static void forge_word(void)
{
	static const uint32_t counts[] = { 0, 1, UINT32_MAX };
	struct epk_slot *slot;
	int err, i, pkey;
	unsigned int n;

	/* Others count nothing. */
	if (!backend_is("mpk"))
		return;
	set_up();
	slot = (struct epk_slot *)((char *)epk_slots + epk_word.slot);
	REQUIRE(slot->tid == (uint32_t)gettid());
	for (n = 0; n < sizeof(counts) / sizeof(*counts); n++) {
		for (i = 1; i < NR; i++) {
			for (pkey = 0; pkey < 16; pkey++)
				slot->pins[pkey] = counts[n];
			epk_word.follows = i % 2;
			require_closed(-1);
			err = domain_begin(ids[i], PROT_READ);
			REQUIRE(!err || (n && err == -EAGAIN));
			require_closed(err ? -1 : i);
			REQUIRE(err || !try_write(mem[i], 1));
			REQUIRE(err || !domain_end(ids[i]));
			require_closed(-1);
		}
	}
}

/* The same of a thread that the library does not know yet. */
static void *be_known(void *arg)
{
	(void)arg;
	epk_word.follows = 1;
	require_closed(-1);
	REQUIRE(!domain_begin(ids[1], PROT_READ));
	require_closed(1);
	domain_end(ids[1]);
	require_closed(-1);
	return NULL;
}

static void forge_word_of_another(void)
{
	pthread_t thread;

	set_up();
	REQUIRE(!domain_begin(ids[1], RW) && !domain_end(ids[1]));
	REQUIRE(!pthread_create(&thread, NULL, be_known, NULL));
	REQUIRE(!pthread_join(thread, NULL));
}

/* Jump to @addr with EAX = @eax and whatever else suits the attacker. */
static void jump(const char *addr, uint32_t eax, uint32_t ecx)
{
	register const void *table asm("r10") = &epk_word;
	register uint64_t entry asm("r8") = 0;

	asm volatile("xor %%esi, %%esi\n\t"
		     "xor %%edx, %%edx\n\t"
		     "xor %%edi, %%edi\n\t"
		     "xor %%r11d, %%r11d\n\t"
		     "mov epk_word@gottpoff(%%rip), %%r9\n\t"
		     "sub $128, %%rsp\n\t"
		     "call *%[addr]\n\t"
		     "add $128, %%rsp"
		     : "+a"(eax), "+c"(ecx), "+r"(table), "+r"(entry)
		     : [addr] "b"(addr)
		     : "rdx", "rsi", "rdi", "r9", "r11", "memory", "cc");
}

static struct {
	const char *addr;
	uint32_t eax;
	uint32_t ecx;
} jump_arguments;

static void jump_and_look(void)
{
	int i, readable = 0;

	set_up();
	signal(SIGABRT, SIG_DFL);
	signal(SIGILL, SIG_DFL);
	jump(jump_arguments.addr, jump_arguments.eax, jump_arguments.ecx);
	for (i = 0; i < NR; i++)
		readable += try_read(mem[i], &ignored);
	_exit(readable > 1);
}

/* In a child, since some gates end the process.  What it must not do is return 1. */
static void require_useless(const char *addr, uint32_t eax, uint32_t ecx)
{
	int status;

	jump_arguments.addr = addr;
	jump_arguments.eax = eax;
	jump_arguments.ecx = ecx;
	status = status_of_child(jump_and_look);
	if (WIFSIGNALED(status))
		REQUIRE(WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGABRT ||
			WTERMSIG(status) == SIGSEGV);
	else
		REQUIRE_EQ(WEXITSTATUS(status), 0);
}

/* How often the three bytes stand between these two. */
static int jump_to(const char *at, const char *end, const char *bytes, uint32_t eax, uint32_t ecx)
{
	int found = 0;

	while ((at = memmem(at, end - at, bytes, 3))) {
		require_useless(at, eax, ecx);
		found++;
		at++;
	}
	return found;
}

static void jump_to_wrpkru(void **state)
{
	static const uint32_t values[] = { 0, 0xaaaaaaa8, 0x55555500 };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(values) / sizeof(*values); i++) {
		REQUIRE(jump_to(epk_gates_start, epk_gates_end, "\x0f\x01\xef",
				values[i], 0) >= 10);
		REQUIRE(jump_to(epk_pin_gates_start, epk_pin_gates_end, "\x0f\x01\xef",
				values[i], 0) >= 5);
	}
}

/* The child holds nothing open: what is tried is to get into any EPT by a jump. */
static void jump_to_vmfunc(void **state)
{
	int ecx;

	(void)state;
	if (!backend_is("epk"))
		return;
	for (ecx = 0; ecx < 2; ecx++) {
		REQUIRE(jump_to(epk_gates_start, epk_gates_end, "\x0f\x01\xd4", 0, ecx) >= 4);
		REQUIRE(jump_to(epk_pin_gates_start, epk_pin_gates_end, "\x0f\x01\xd4", 0,
				ecx) >= 1);
	}
}

/* PKRU is among what XRSTOR can load, where it does not leave out what its area leaves out. */
static void jump_to_xrstor(void **state)
{
	static const uint32_t parts[] = { 0x200, 0x207, UINT32_MAX };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(parts) / sizeof(*parts); i++)
		REQUIRE_EQ(jump_to((const char *)epk_call_on_stack, (const char *)epk_wipe,
				   "\x0f\xae\x2d", parts[i], 0), 2);
}

/* What rights rest on cannot be written, whoever holds what. */
static void write_to_what_counts(void)
{
	char *entry, *kept[3];
	int i, held;

	set_up();
	entry = (char *)&epk_now.table[EPK_ID_INDEX(ids[0])];
	kept[0] = entry;
	kept[1] = (char *)&epk_state_page;
	kept[2] = (char *)epk_now.table - EPK_GATE_BEFORE;
	REQUIRE(!epk_now.soft == !backend_is("mpk"));
	for (held = 0; held < 3; held++) {
		for (i = 0; i < 3; i++)
			REQUIRE(try_read(kept[i], &ignored) && !try_write(kept[i], 1));
		/* Where the library writes its own table, and what it has behind that. */
		for (i = 0; i < 2 && epk_now.soft; i++) {
			entry = (char *)epk_now.soft + i * EPK_TABLE_ROOM;
			REQUIRE(!try_read(entry, &ignored) && !try_write(entry, 1));
		}
		REQUIRE(held == 2 || !domain_begin(ids[held], RW));
	}
}

IN_CHILD(write_to_what_counts)
IN_CHILD(forge_word)
IN_CHILD(forge_word_of_another)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_child_forge_word),
		cmocka_unit_test(in_child_forge_word_of_another),
		cmocka_unit_test(in_child_write_to_what_counts),
		cmocka_unit_test(jump_to_wrpkru),
		cmocka_unit_test(jump_to_vmfunc),
		cmocka_unit_test(jump_to_xrstor),
	};

	skip_if(!backend_is("epk") && !backend_is("mpk"), "has no gates");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
