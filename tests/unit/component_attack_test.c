// SPDX-License-Identifier: MIT
/* Who jumps into the gates of components, or forges what a thread keeps of them. */
#define _GNU_SOURCE
#include <alloca.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <ucontext.h>

#include "unit.h"

#include "component.h"
#include "state_page.h"

extern const char epk_component_gates_start[], epk_component_gates_end[];

#define NR	3
enum { TOUCH, FAULT_BESIDE, TELLS_ERROR, ASKS, DIVES, DIVES_BACK, ASKS_STEPPED, STAYS, ASKS_STAYER,
	LOOPS, NR_ENTRIES };
static int ids[NR], plain;
static long *own[NR];
static char *plain_mem, ignored;

static long touch(void *arg)
{
	return ++*(long *)arg;
}

/* Holds what anybody can write to, and faults. */
static long fault_beside(void *arg)
{
	domain_begin(plain, RW);
	plain_mem[0]++;
	epk_word.component = plain;
	return *(volatile long *)arg;
}

/* Says that it was busy, in a register that it has to keep. */
extern long tells_error(void *arg);
asm(".text\ntells_error:\n\tmov $-16, %ebp\n\tmov $5, %eax\n\tret");

static long asks(void *arg)
{
	long result = -1;
	int err = epk_gate_call(*(int *)arg, TELLS_ERROR, NULL, &result);

	return err ? err : result;
}

/* Two that call each other until the first has no stack left. */
static long dives_back(void *arg)
{
	long result = -1;
	int err = epk_gate_call(ids[0], DIVES, arg, &result);

	return err ? err : result;
}

static long dives(void *arg)
{
	volatile char *more = alloca(*(size_t *)arg);
	long result = -1;
	int err;

	more[0] = 1;
	err = epk_gate_call(ids[1], DIVES_BACK, arg, &result);
	return err ? err : result + !more[0];
}

/* What a component expects of its callee, as it stands in a signal's frame. */
uint64_t seen_number;
uint32_t return_to;

static void sees_number(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig;
	(void)info;
	if ((uint64_t)regs[REG_RIP] != epk_component_gate_list[0].start)
		return;
	seen_number = regs[REG_R9];
	regs[REG_EFL] &= ~0x100l;
}

static long asks_stepped(void *arg)
{
	long result = -1;
	int err;

	asm volatile("pushfq\n\torl $0x100, (%%rsp)\n\tpopfq" : : : "memory", "cc");
	err = epk_gate_call(ids[1], ASKS, arg, &result);
	return err ? err : result;
}

/* Where TELLS_ERROR is in others.  As if it had been called by who has called its caller; RBX: its slot. */
extern long returns_past(void *arg);
asm(".text\nreturns_past:\n\tmov seen_number(%rip), %rax\n\tmov %rax, 40(%rbx)\n\t"
    "mov return_to(%rip), %eax\n\tmov %eax, 56(%rbx)\n\t"
    "mov $666, %eax\n\tret");

static volatile bool is_inside, may_go;

static long stays(void *arg)
{
	is_inside = true;
	while (!may_go)
		;
	return (long)arg;
}

static long asks_stayer(void *arg)
{
	long result = -1;
	int err = epk_gate_call(ids[1], STAYS, arg, &result);

	return err ? err : result + 1;
}

/* Tells nobody, since it may be confined. */
static long loops(void *arg)
{
	while (!may_go)
		;
	return (long)arg;
}

static long (*const entries[])(void *arg) = {
	touch, fault_beside, tells_error, asks, dives, dives_back, asks_stepped, stays, asks_stayer,
	loops,
};
static long (*const third_entries[])(void *arg) = { touch, touch, returns_past };

/*
 * Likewise.  First it leaves as if it could not be entered, with somebody else in the registers that say who
 * was asked for; then it says so.
 */
const char *way_back;
uint64_t asked_first, other_id;
long *other_arg;
extern long comes_again(void *arg);
asm(".text\ncomes_again:\n\tmov $77, %eax\n\tbtsq $0, asked_first(%rip)\n\tjc 1f\n\t"
    "mov 40(%rbx), %r9\n\tmov 56(%rbx), %r15\n\torq $1, (%rbx)\n\tmov $-11, %ebp\n\t"
    "mov other_id(%rip), %edi\n\tmovd %edi, %xmm0\n\txor %esi, %esi\n\tmovd %esi, %xmm1\n\t"
    "mov other_arg(%rip), %r8\n\tmov %r8, %rdx\n\tjmp *way_back(%rip)\n1:\tret");
static long (*const again_entries[])(void *arg) = { touch, touch, comes_again };

static void set_up(void)
{
	struct epk_component_options options = { .size = sizeof(options) };
	int i;

	REQUIRE(!alloc_domains(NR, ids) && !alloc_domains(1, &plain));
	plain_mem = domain_mmap(plain, NULL, 2 * PAGE, RW, 0);
	for (i = 0; i < NR; i++) {
		own[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		REQUIRE(own[i] != MAP_FAILED);
		/* The last. */
		options.flags = i == NR - 1 ? EPK_COMPONENT_CONFINED : 0;
		REQUIRE(!epk_component_create(ids[i], entries, NR_ENTRIES, &options));
		REQUIRE(!epk_gate_call(ids[i], 0, own[i], NULL));
	}
}

static struct {
	const char *addr;
	uint64_t rax, callee, rcx, caller, entry;
} jump_to;

/* What suits the attacker. */
static void jump(void)
{
	uint64_t frame[64] = { 0 };

	/* The frame first: it may be in any register. */
	asm volatile("mov %[frame], %%r9\n\tmov %%r9, %%r8\n\tmov %%r9, %%r12\n\t"
		     "mov %[rax], %%rax\n\tmov %[rdi], %%rdi\n\tmov %[rcx], %%rcx\n\t"
		     "mov epk_word@gottpoff(%%rip), %%r13\n\t"
		     "mov %%fs:%c[comp_slot](%%r13), %%r15d\n\tshl $32, %%r15\n\tor %[r15], %%r15\n\t"
		     "xor %%edx, %%edx\n\txor %%ebp, %%ebp\n\tmov %[rsi], %%rsi\n\t"
		     "mov epk_state_page(%%rip), %%r14\n\tmov %%rdi, %%rbx\n\t"
		     "mov $1, %%r10d\n\tmov %[slot], %%r11\n\t"
		     "jmp *%[addr]"
		     : : [rax] "m"(jump_to.rax), [rdi] "m"(jump_to.callee), [rcx] "m"(jump_to.rcx),
			 [r15] "m"(jump_to.caller), [addr] "m"(jump_to.addr), [frame] "r"(frame + 8),
			 [rsi] "m"(jump_to.entry), [slot] "m"(own[0]),
			 [comp_slot] "i"(offsetof(struct epk_word, comp_slot))
		     : "memory");
}

static void look(void)
{
	long was = 0;
	int i;

	for (i = 0; i < NR; i++)
		if (try_read((char *)own[i], &ignored))
			_exit(1);
	/* Nor has the gate written there. */
	_exit(!epk_gate_call(ids[0], 0, own[0] + 1, &was) && was != 1);
}

static void killed(int sig)
{
	(void)sig;
	look();
}

static void jump_and_look(void)
{
	static char stack[1 << 16];
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction act = { .sa_handler = killed, .sa_flags = SA_ONSTACK | SA_RESETHAND };

	set_up();
	if (jump_to.callee)
		jump_to.callee = ids[jump_to.callee == 1 ? 0 : NR - 1];
	if (jump_to.caller)
		jump_to.caller = ids[1];
	sigaltstack(&alt, NULL);
	sigaction(SIGILL, &act, NULL);
	jump();
	look();
}

static int jump_each(const char *bytes, uint32_t eax)
{
	/* Some as if the module had a record, some of which no key is to be open. */
	static const uint32_t values[] = { 0, 0xaaaaaaa8, 0x55555550, 0x55555544, 0x55555514,
					   0xfffffff0, 0xffffffcc, 0xffffffff };
	const char *at = epk_component_gates_start;
	int found = 0, status;
	unsigned int i;

	while ((at = memmem(at, epk_component_gates_end - at, bytes, 3))) {
		for (i = 0; i < 6 * sizeof(values) / sizeof(*values); i++) {
			jump_to.addr = at;
			jump_to.rax = bytes[2] == '\xd4' ? 0 : values[i / 6] | eax;
			jump_to.rcx = 0;
			jump_to.callee = i % 3;
			jump_to.caller = i / 3 & 1;
			status = status_of_child(jump_and_look);
			REQUIRE(!status || (WIFSIGNALED(status) &&
					    (WTERMSIG(status) == SIGSEGV ||
					     WTERMSIG(status) == SIGILL)));
		}
		found++;
		at++;
	}
	return found;
}

static void jumps(void **state)
{
	(void)state;
	REQUIRE_EQ(jump_each("\x0f\x01\xef", 0), 22);
	REQUIRE_EQ(jump_each("\x0f\x01\xd4", 0), 6);
	/* With PKRU among what is to be as at first. */
	REQUIRE_EQ(jump_each("\x0f\xae\x2d", 0x200), 5);
}

/* A slot of the attacker's, whose frame has the gate write where the component alone can. */
static void forge_fault(void)
{
	struct epk_note note = { .flags = 0 };
	struct epk_component_slot *slot;
	uint64_t fs, *frame;

	signal(SIGILL, SIG_DFL);
	set_up();
	note.id = plain;
	note.addr = (uintptr_t)plain_mem;
	asm volatile("rdfsbase %0" : "=r"(fs));
	REQUIRE(!ioctl(epk_now.fd, EPK_IOC_NOTE, &note));
	REQUIRE(!domain_begin(plain, RW));
	frame = (uint64_t *)(plain_mem + 512);
	/* Its mask is 0, so that each slot is the first. */
	slot = &((struct epk_component *)plain_mem)->slots[0];
	slot->owner = fs;
	slot->frame = (uintptr_t)frame;
	/* Where it waits is what is written over. */
	frame[1] = 0x5ec2e7;
	frame[2] = (uintptr_t)frame;
	frame[4] = 0x5ec2e7;
	REQUIRE(!domain_end(plain));
	/* By another thread, or a handler, but here it is simpler. */
	epk_gate_call(ids[0], FAULT_BESIDE, (void *)16, NULL);
}

static void forged_fault(void **state)
{
	int status = status_of_child(forge_fault);

	(void)state;
	REQUIRE(WIFSIGNALED(status));
	REQUIRE(WTERMSIG(status) == SIGILL);
}

/*
 * An entry beyond what the header has, where only its lower half is small: 32 GiB below there is a
 * pointer of the attacker's.
 */
static void taken(void)
{
	_exit(try_read((char *)own[0], &ignored) ? 1 : 0);
}

static void jump_to_far_entry(void)
{
	static char stack[1 << 16];
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction act = { .sa_handler = killed, .sa_flags = SA_ONSTACK | SA_RESETHAND };
	struct epk_component *header;
	uint64_t note;
	void *page;

	set_up();
	note = epk_note(ids[0]);
	header = epk_component_of(ids[0]);
	page = mmap((char *)header - (1ul << 35), PAGE, RW,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	REQUIRE(page == (char *)header - (1ul << 35));
	*(void (**)(void))((char *)page + EPK_COMP_ENTRIES) = taken;
	jump_to.callee = ids[0];
	jump_to.caller = 0;
	jump_to.entry = -1ul << 32;
	jump_to.rcx = 0;
	jump_to.rax = EPK_PKRU_ACCESS & ~(3u << 2 * EPK_NOTE_PKEY(note));
	sigaltstack(&alt, NULL);
	sigaction(SIGILL, &act, NULL);
	sigaction(SIGSEGV, &act, NULL);
	jump();
	_exit(0);
}

static void far_entry(void **state)
{
	const char *at = epk_component_gates_start;
	int status;

	(void)state;
	while ((at = memmem(at, epk_component_gates_end - at, "\x0f\x01\xef", 3))) {
		jump_to.addr = at++;
		status = status_of_child(jump_to_far_entry);
		REQUIRE(!status || (WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV ||
							    WTERMSIG(status) == SIGILL)));
	}
}

static void told_errors(void)
{
	long result;
	int i;

	set_up();
	for (i = 0; i < NR; i++) {
		result = -1;
		REQUIRE(!epk_gate_call(ids[i], TELLS_ERROR, NULL, &result));
		REQUIRE(result == 5);
		result = -1;
		REQUIRE(!epk_gate_call(ids[0], ASKS, &ids[i], &result));
		REQUIRE(result == 5);
	}
}

IN_CHILD(told_errors)

/* However much is left when it is entered for the last time: each call comes back, and to who made it. */
static void dived(void)
{
	int no_room = 0;
	size_t more;
	long result;

	set_up();
	for (more = 16; more <= 1024; more += 16) {
		result = -1;
		REQUIRE(!epk_gate_call(ids[0], DIVES, &more, &result));
		REQUIRE(result == -EFAULT || result == -ENOBUFS);
		no_room += result == -ENOBUFS;
		REQUIRE(!epk_gate_call(ids[0], TOUCH, own[0], &result));
		REQUIRE(!epk_gate_call(ids[1], TOUCH, own[1], &result));
	}
	/* Told from what begins and faults, and with the cure. */
	REQUIRE(no_room && no_room < 64);
	REQUIRE(strstr(epk_strerror(-ENOBUFS), "stack_bytes"));
}

IN_CHILD(dived)

/* This is not stopped: see docs/security.md. */
static void returned_past(void)
{
	struct sigaction act = { .sa_sigaction = sees_number, .sa_flags = SA_SIGINFO };
	long result = -1;
	int third;

	set_up();
	REQUIRE(!alloc_domains(1, &third));
	REQUIRE(!epk_component_create(third, third_entries, 3, NULL));
	return_to = ids[0];
	REQUIRE(!sigaction(SIGTRAP, &act, NULL));
	REQUIRE(!epk_gate_call(ids[0], ASKS_STEPPED, &third, &result));
	REQUIRE(result == 666);
	/* But once: the gate ends the process. */
	signal(SIGILL, SIG_DFL);
	epk_gate_call(third, TELLS_ERROR, NULL, NULL);
}

/* Who called has its own call repeated: what it asked for is in no register of the callee's. */
static void came_again(void)
{
	long result = -1, had;
	int third;

	set_up();
	REQUIRE(!epk_gate_call(ids[1], TOUCH, own[1], &had));
	REQUIRE(!alloc_domains(1, &third));
	REQUIRE(!epk_component_create(third, again_entries, 3, NULL));
	way_back = (const char *)(uintptr_t)epk_component_gate_list[3].start;
	other_id = ids[1];
	other_arg = own[1];
	REQUIRE(!epk_gate_call(ids[0], ASKS, &third, &result));
	REQUIRE(result == 77 && asked_first == 1);
	REQUIRE(!epk_gate_call(ids[1], TOUCH, own[1], &result) && result == had + 1);
}

IN_CHILD(came_again)

static void ends(int sig)
{
	(void)sig;
	_exit(1);
}

static void numbers_in_frames(void **state)
{
	int status;

	(void)state;
	signal(SIGILL, ends);
	status = status_of_child(returned_past);
	signal(SIGILL, SIG_DFL);
	REQUIRE(WIFSIGNALED(status));
	REQUIRE_EQ(WTERMSIG(status), SIGILL);
}

/* epk_gate_try() by who has the FS base of another thread. */
extern int call_as(int id, unsigned int entry, void *arg, long *result, uint64_t fs);
asm(".text\ncall_as:\n\tpush %rbx\n\trdfsbase %rbx\n\twrfsbase %r8\n\tcall epk_gate_try\n\t"
    "wrfsbase %rbx\n\tpop %rbx\n\tret");

static int stays_by;
static uint64_t fs_inside;

static void *stays_inside(void *arg)
{
	long result = -1;

	asm("rdfsbase %0" : "=r"(fs_inside));
	REQUIRE(!epk_gate_call(ids[0], stays_by, arg, &result));
	return (void *)result;
}

/* It has that thread's slot, if that waits, for a call; and disturbs nobody. */
static void as_another(void)
{
	bool waits = stays_by == ASKS_STAYER;
	long result = -1;
	pthread_t thread;
	void *value;

	set_up();
	REQUIRE(!pthread_create(&thread, NULL, stays_inside, (void *)5));
	while (!is_inside)
		;
	REQUIRE(call_as(ids[0], TOUCH, own[0], &result, fs_inside) == (waits ? 0 : -EDEADLK));
	REQUIRE(result == (waits ? 2 : -1));
	if (waits)
		REQUIRE(call_as(ids[1], TOUCH, own[1], &result, fs_inside) == -EDEADLK);
	REQUIRE(!try_read((char *)own[0], &ignored) && !try_read((char *)own[1], &ignored));
	may_go = true;
	REQUIRE(!pthread_join(thread, &value) && value == (void *)(waits ? 6l : 5l));
	REQUIRE(!epk_gate_call(ids[0], TOUCH, own[0], &result) && result == (waits ? 3 : 2));
}

extern void release_as(int id, uint64_t fs);
asm(".text\nrelease_as:\n\tpush %rbx\n\trdfsbase %rbx\n\twrfsbase %rsi\n\tcall epk_gate_release\n\t"
    "wrfsbase %rbx\n\tpop %rbx\n\tret");

/* This is not stopped: see docs/security.md.  It has the stack of who runs there, as if that had ended. */
static void released_another(void)
{
	long result = -1;
	pthread_t thread;

	set_up();
	REQUIRE(!pthread_create(&thread, NULL, stays_inside, (void *)5));
	while (!is_inside)
		;
	REQUIRE(call_as(ids[0], TOUCH, own[0], &result, fs_inside) == -EDEADLK);
	release_as(ids[0], fs_inside);
	REQUIRE(!call_as(ids[0], TOUCH, own[0], &result, fs_inside) && result == 2);
	_exit(0);
}

static void another_fs_base(void **state)
{
	(void)state;
	for (stays_by = STAYS; stays_by <= ASKS_STAYER; stays_by++)
		run_in_child(as_another);
	stays_by = STAYS;
	run_in_child(released_another);
}

static struct epk_word *volatile word_inside;
static int looped_in;

static void *loops_inside(void *arg)
{
	(void)arg;
	asm("rdfsbase %0" : "=r"(fs_inside));
	REQUIRE(!epk_gate_call(ids[looped_in], TOUCH, own[looped_in], NULL));
	word_inside = &epk_word;
	epk_gate_call(ids[looped_in], LOOPS, NULL, NULL);
	return NULL;
}

/* One less than that of a thread which runs inside, and what the gates are to find there. */
static void with_odd_fs_base(void)
{
	struct epk_word forged;
	pthread_t thread;

	signal(SIGILL, SIG_DFL);
	set_up();
	REQUIRE(!pthread_create(&thread, NULL, loops_inside, NULL));
	while (!word_inside || *(volatile uint32_t *)&word_inside->component != (uint32_t)ids[looped_in])
		;
	usleep(50000);
	forged = epk_word;
	forged.comp_slot = word_inside->comp_slot;
	memcpy((char *)word_inside - 1, &forged, sizeof(forged));
	REQUIRE(call_as(ids[looped_in], TOUCH, own[looped_in], NULL, fs_inside - 1) == -EBUSY);
	_exit(0);
}

static uint32_t comp_slot;

static void *loops_with_odd_fs_base(void *arg)
{
	static char block[1 << 16];
	struct epk_word forged;
	long result = -1;
	uint64_t fs;
	char *word;

	(void)arg;
	asm("rdfsbase %0" : "=r"(fs));
	REQUIRE(!epk_gate_call(ids[0], TOUCH, own[0], NULL));
	word = block + sizeof(block) / 2 + 1 + ((uint64_t)&epk_word - fs);
	REQUIRE(word > block);
	forged = epk_word;
	forged.comp_slot = comp_slot;
	memcpy(word, &forged, sizeof(forged));
	word_inside = (struct epk_word *)word;
	REQUIRE(!call_as(ids[0], LOOPS, (void *)7, &result, (uint64_t)block + sizeof(block) / 2 + 1));
	REQUIRE(result == 7);
	return NULL;
}

/* Its slot looks idle to nobody. */
static void beside_odd_fs_base(void)
{
	pthread_t thread;

	set_up();
	comp_slot = epk_word.comp_slot;
	REQUIRE(!pthread_create(&thread, NULL, loops_with_odd_fs_base, NULL));
	while (!word_inside || *(volatile uint32_t *)&word_inside->component != (uint32_t)ids[0])
		;
	usleep(50000);
	REQUIRE(epk_gate_try(ids[0], TOUCH, own[0], NULL) == -EBUSY);
	may_go = true;
	REQUIRE(!pthread_join(thread, NULL));
	REQUIRE(!epk_gate_try(ids[0], TOUCH, own[0], NULL));
}

/* Bit 0 of a slot's owner is the gates': with that set, a thread would have the stack of who is inside. */
static void odd_fs_base(void **state)
{
	(void)state;
	run_in_child(with_odd_fs_base);
	looped_in = NR - 1;
	run_in_child(with_odd_fs_base);
	run_in_child(beside_odd_fs_base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jumps),
		cmocka_unit_test(forged_fault),
		cmocka_unit_test(far_entry),
		cmocka_unit_test(in_child_told_errors),
		cmocka_unit_test(in_child_dived),
		cmocka_unit_test(in_child_came_again),
		cmocka_unit_test(numbers_in_frames),
		cmocka_unit_test(another_fs_base),
		cmocka_unit_test(odd_fs_base),
	};

	skip_if(!backend_is("epk"), "has no components");
	need_backend();
	skip_if(!backend_is("epk"), "has no components");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
