// SPDX-License-Identifier: MIT
/*
 * An attacker who can write all memory that the thread can, or who can choose
 * where the thread jumps: on backends with gates.
 */
#define _GNU_SOURCE
#include <signal.h>

#include "unit.h"

#include "rights.h"
#include "vault.h"

#define NR	20

extern const char epk_gates_start[], epk_gates_end[];
extern const char epk_word_gates_start[], epk_word_gates_end[];

static int ids[NR];
static char *mem[NR], ignored;

static void expect_closed(int but)
{
	int i;

	for (i = 0; i < NR; i++)
		EXPECT(i == but || !try_read(mem[i], &ignored));
}

static void set_up(void)
{
	int i;

	EXPECT(!alloc_domains(NR, ids));
	for (i = 0; i < NR; i++) {
		mem[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		EXPECT(mem[i] != MAP_FAILED);
		EXPECT(!domain_begin(ids[i], RW));
		mem[i][0] = i;
		EXPECT(!domain_end(ids[i]));
	}
	expect_closed(-1);
}

static uint64_t entry_of(int i)
{
	int ept, pkey;

	EXPECT(!epk_domain_place(ids[i], &ept, &pkey));
	return (uint32_t)ids[i] | (uint64_t)ept << 32 | (uint64_t)pkey << 48;
}

/* The word says that something else is held, or nothing while something is. */
static void forge_word(void)
{
	int i;

	/* Others have no word. */
	if (!backend_is("mpk"))
		return;
	set_up();
	for (i = 2; i < NR; i++) {
		EXPECT(!domain_begin(ids[i], PROT_READ));
		epk_word.held = EPK_WORD_FREE;
		EXPECT(!domain_begin(ids[1], PROT_READ));
		expect_closed(1);
		EXPECT(!domain_end(ids[1]));
		expect_closed(-1);

		epk_word.held = entry_of(i);
		EXPECT(!domain_end(ids[i]));
		expect_closed(-1);
		EXPECT(!domain_begin(ids[1], PROT_READ));
		expect_closed(1);
		EXPECT(!domain_end(ids[1]));
		expect_closed(-1);

		/* A place of the attacker's choice for an ID of the victim's. */
		epk_word.held = entry_of(i) & ~0xffffffffull;
		domain_begin(ids[1], PROT_READ);
		expect_closed(1);
		epk_word.held = entry_of(1);
		EXPECT(!domain_end(ids[1]));
		expect_closed(-1);
	}
}

/* The domain that the attacker is after. */
static int prey;

/*
 * The list says that other domains are held: neither an access, which the library's
 * handler sees, nor a call that reads the list gives a right to them.
 */
static void forge_list(void)
{
	struct epk_held true_held[2];
	uint64_t entry;

	set_up();
	EXPECT(!domain_begin(ids[0], RW));
	EXPECT(!domain_begin(ids[NR - 1], PROT_READ));
	EXPECT(epk_word.held == EPK_WORD_LIST && epk_self->nr == 2);
	memcpy(true_held, epk_self->held, sizeof(true_held));

	entry = entry_of(prey);
	memcpy(&epk_self->held[0], &entry, sizeof(entry));
	epk_self->held[0].prot = RW;
	EXPECT(!try_read(mem[prey], &ignored));
	epk_self->held[0].pkey = 0;
	EXPECT(!try_read(mem[prey], &ignored));
	if (prey != 5) {
		EXPECT(!domain_begin(ids[5], RW));
		EXPECT(!try_read(mem[prey], &ignored));
		EXPECT(!domain_end(ids[5]));
		EXPECT(!try_read(mem[prey], &ignored));
	}
	memcpy(epk_self->held, true_held, sizeof(true_held));
	EXPECT(try_read(mem[0], &ignored) && try_read(mem[NR - 1], &ignored));
	EXPECT(!domain_end(ids[0]));
	EXPECT(!domain_end(ids[NR - 1]));
	expect_closed(-1);
}

/* A right to read is no right to write. */
static void forge_right(void)
{
	set_up();
	EXPECT(!domain_begin(ids[0], RW));
	EXPECT(!domain_begin(ids[NR - 1], PROT_READ));
	epk_self->held[1].prot = RW;
	EXPECT(!try_write(mem[NR - 1], 1));
}

/*
 * The list is forged while the library opens what the vault says, as another thread
 * can: it begins where it likes, and is so long that the last of it lies in the vault.
 */
static void forge_long_list(void)
{
	struct epk_thread *forged;
	struct epk_vault *vault;
	const char *right;
	char *room;
	int prot;

	set_up();
	EXPECT(!domain_begin(ids[0], RW));
	EXPECT(!domain_begin(ids[NR - 1], PROT_READ));
	vault = (struct epk_vault *)epk_now.vaults + epk_self->vault;
	right = (const char *)&vault->rights[1];
	room = mmap((char *)epk_now.vaults - (1ul << 30), 2 * PAGE, RW,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	EXPECT(room != MAP_FAILED);
	/* As rights lie in the vault, and lists not. */
	forged = (struct epk_thread *)(room + (uintptr_t)right % sizeof(long));
	memcpy(forged, epk_self, sizeof(*forged));
	forged->nr = (right - (char *)forged->held) / sizeof(forged->held[0]) + 1;
	rights_open_held(forged, UINT32_MAX);
	prot = vault_prot(vault_open(epk_self), ids[NR - 1]);
	vault_close();
	EXPECT(prot == PROT_READ);
}

/* Nothing is held, and the list says that all is. */
static void forge_list_of_idle(void)
{
	uint64_t entry;

	set_up();
	entry = entry_of(prey);
	memcpy(&epk_self->held[0], &entry, sizeof(entry));
	epk_self->held[0].prot = RW;
	epk_self->nr = 1;
	epk_word.held = EPK_WORD_LIST;
	EXPECT(!try_read(mem[prey], &ignored));
	EXPECT(domain_begin(ids[(prey + 1) % NR], RW) == 0);
	EXPECT(!try_read(mem[prey], &ignored));
	EXPECT(!domain_end(ids[(prey + 1) % NR]));
	expect_closed(-1);
}

/*
 * In a child: what is expected of it holds as far as it gets.  The library may end
 * a process whose list contradicts what the thread was given.
 */
static void attack(void (*body)(void))
{
	int status = status_of_child(body);

	if (WIFSIGNALED(status))
		assert_int_equal(WTERMSIG(status), SIGABRT);
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

/* Jump to @addr with EAX = @eax and whatever else suits the attacker. */
static void jump(const char *addr, uint32_t eax, uint32_t ecx)
{
	register const void *table asm("r10") = &epk_word;
	register uint64_t entry asm("r8") = epk_word.held;

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
static void expect_useless(const char *addr, uint32_t eax, uint32_t ecx)
{
	int status;

	jump_arguments.addr = addr;
	jump_arguments.eax = eax;
	jump_arguments.ecx = ecx;
	status = status_of_child(jump_and_look);
	if (WIFSIGNALED(status))
		assert_true(WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGABRT ||
			    WTERMSIG(status) == SIGSEGV);
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

/* How often the three bytes stand between these two. */
static int jump_to(const char *at, const char *end, const char *bytes, uint32_t eax, uint32_t ecx)
{
	int found = 0;

	while ((at = memmem(at, end - at, bytes, 3))) {
		expect_useless(at, eax, ecx);
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
		assert_true(jump_to(epk_gates_start, epk_gates_end, "\x0f\x01\xef",
				    values[i], 0) >= 10);
		assert_true(jump_to(epk_word_gates_start, epk_word_gates_end, "\x0f\x01\xef",
				    values[i], 0) >= 6);
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
		assert_true(jump_to(epk_gates_start, epk_gates_end, "\x0f\x01\xd4", 0, ecx) >= 4);
		assert_true(jump_to(epk_word_gates_start, epk_word_gates_end, "\x0f\x01\xd4", 0,
				    ecx) >= 1);
	}
}

static void write_to_list(void **state)
{
	(void)state;
	/* Others have no list. */
	if (!backend_is("mpk"))
		return;
	for (prey = 0; prey < NR; prey++) {
		if (prey && prey < NR - 1)
			attack(forge_list);
		attack(forge_list_of_idle);
	}
	attack(forge_right);
	run_in_child(forge_long_list);
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
	EXPECT(!epk_now.soft == !backend_is("mpk"));
	for (held = 0; held < 3; held++) {
		for (i = 0; i < 3; i++)
			EXPECT(try_read(kept[i], &ignored) && !try_write(kept[i], 1));
		EXPECT(!epk_now.vaults == !backend_is("mpk"));
		EXPECT(!epk_now.vaults || (!try_read(epk_now.vaults, &ignored) &&
					   !try_write(epk_now.vaults, 1)));
		/* Where the library writes its own table, and what it has behind that. */
		for (i = 0; i < 2 && epk_now.soft; i++) {
			entry = (char *)epk_now.soft + i * EPK_TABLE_ROOM;
			EXPECT(!try_read(entry, &ignored) && !try_write(entry, 1));
		}
		EXPECT(held == 2 || !domain_begin(ids[held], RW));
	}
}

IN_CHILD(write_to_what_counts)
IN_CHILD(forge_word)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_child_forge_word),
		cmocka_unit_test(write_to_list),
		cmocka_unit_test(in_child_write_to_what_counts),
		cmocka_unit_test(jump_to_wrpkru),
		cmocka_unit_test(jump_to_vmfunc),
	};

	skip_if(!backend_is("epk") && !backend_is("mpk"), "has no gates");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
