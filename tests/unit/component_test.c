// SPDX-License-Identifier: MIT
/* Components: what is in one is reached by its entries alone. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/ioctl.h>
#include <ucontext.h>

#include "component_registers.h"
#include "faults.h"
#include "registry.h"
#include "state_page.h"
#include "unit.h"

enum { ADD, SUM, WHERE, CHAIN, BAD, HOLD, GROW, REGISTERS, TOUCH, LEAVE, WAIT,
	SPILLS, SPILLS_AND_FAULTS, ASKS, ALLOCATE, PEEK, BREAKS, ASKS_BREAKER, NR_ENTRIES };

/* Each has a page of its own. */
#define NR	3
static int ids[NR], plain;
static long *own[NR];
static char *plain_mem;

static long add(void *arg)
{
	own[0][0] += (long)arg;
	return own[0][0];
}

struct sum {
	int nr;
	long words[4];
};

static long sum(void *arg)
{
	struct sum *s = arg;
	long total = 0;
	int i;

	for (i = 0; i < s->nr; i++)
		total += s->words[i];
	return total;
}

static long where(void *arg)
{
	char here = 0;

	(void)arg;
	return epk_domain_at(&here);
}

struct chain {
	int depth;
	int next[8];
	int at;
	bool faults;
	long seen;
};

static int number_of(int id)
{
	int i;

	for (i = 0; i < NR && ids[i] != id; i++)
		;
	return i;
}

static long chain(void *arg)
{
	struct chain *c = arg;
	volatile long before = c->at;
	int me = number_of(c->next[c->at]), err;
	long result = 0;

	own[me][1]++;
	if (c->at + 1 == c->depth) {
		if (c->faults)
			*(volatile int *)nowhere = 0;
		return 1;
	}
	c->at++;
	err = epk_gate_call(c->next[c->at], CHAIN, c, &result);
	own[me][2]++;
	if (before != --c->at)
		return -1;
	return (err ? err : result) + 1 - !!err;
}

static long bad(void *arg)
{
	if ((long)arg == 5)
		*(volatile char *)own[1] = 1;
	return fault((long)arg);
}

static long hold(void *arg)
{
	if (domain_begin(plain, RW))
		return -1;
	plain_mem[0]++;
	/* And not ended. */
	return (long)arg;
}

static long grow(void *arg)
{
	char *got = epk_malloc(ids[0], (size_t)arg);

	if (!got || epk_domain_at(got) != ids[0])
		return -1;
	memset(got, 1, (size_t)arg);
	return epk_free(ids[0], got);
}

/* What is in none is not from the caller. */
static long registers(void *arg)
{
	unsigned long found[24], n = 0;
	int i;

	(void)arg;
	asm volatile("mov %%rax, (%0)\n\tmov %%rbx, 8(%0)\n\tmov %%rcx, 16(%0)\n\t"
		     "mov %%rdx, 24(%0)\n\tmov %%rsi, 32(%0)\n\tmov %%rbp, 40(%0)\n\t"
		     "mov %%r8, 48(%0)\n\tmov %%r9, 56(%0)\n\tmov %%r10, 64(%0)\n\t"
		     "mov %%r11, 72(%0)\n\tmov %%r12, 80(%0)\n\tmov %%r13, 88(%0)\n\t"
		     "mov %%r14, 96(%0)\n\tmov %%r15, 104(%0)\n\tmovq %%xmm3, 112(%0)\n\t"
		     "movq %%xmm13, 120(%0)\n\tmovq %%mm4, 128(%0)\n\temms"
		     : : "D"(found) : "memory");
	for (i = 0; i < 17; i++)
		n += found[i] == SECRET;
	return n;
}

/* Everywhere, as far as a call may have it so. */
static long call_with_secrets(int id, int entry)
{
	register long result asm("rax");
	long value = -1;

	asm volatile("push %%rbx\n\tpush %%rbp\n\tpush %%r12\n\tpush %%r13\n\tpush %%r14\n\t"
		     "push %%r15\n\t"
		     "mov %[secret], %%rbx\n\tmov %%rbx, %%rbp\n\tmov %%rbx, %%r12\n\t"
		     "mov %%rbx, %%r13\n\tmov %%rbx, %%r14\n\tmov %%rbx, %%r15\n\t"
		     "mov %%rbx, %%r8\n\tmov %%rbx, %%r9\n\tmov %%rbx, %%r10\n\t"
		     "mov %%rbx, %%r11\n\tmov %%rbx, %%rax\n\tmovq %%rbx, %%xmm3\n\t"
		     "movq %%rbx, %%xmm13\n\tmovq %%rbx, %%mm4\n\temms\n\t"
		     "sub $8, %%rsp\n\tcall epk_gate_call\n\tadd $8, %%rsp\n\t"
		     "pop %%r15\n\tpop %%r14\n\tpop %%r13\n\tpop %%r12\n\tpop %%rbp\n\tpop %%rbx"
		     : "=a"(result)
		     : "D"((long)id), "S"((long)entry), "d"(0l), "c"(&value), [secret] "i"(SECRET)
		     : "r8", "r9", "r10", "r11", "memory", "xmm3", "xmm13", "cc");
	return result ? result : value;
}

static long touch(void *arg)
{
	return *(volatile char *)arg & 0;
}

static long leave(void *arg)
{
	own[0][3]++;
	if (arg)
		longjmp(*(jmp_buf *)arg, 1);
	pthread_exit(NULL);
}

static long wait_there(void *arg);

/* The library writes down what it is given. */
static long allocate(void *arg)
{
	int id;

	(void)arg;
	return alloc_domains(1, &id) ? -1 : id;
}

static long peek(void *arg)
{
	return own[0][(long)arg];
}

/* Of another, from within this. */
static long asks(void *arg)
{
	return spilt(ids[1], (long)arg);
}

/**
 * struct broken - what a callee does with a register that it has to keep
 * @value: it is that afterwards
 * @register_nr: as in DWARF
 * @faults: its caller faults then
 */
struct broken {
	uint64_t value;
	long register_nr;
	bool faults;
};

extern long breaks(void *arg);
#define BREAK(nr, reg)	"cmpq $" #nr ", 8(%rdi)\n\tcmove (%rdi), %" #reg "\n\t"
asm(".text\nbreaks:\n\t"
    BREAK(3, rbx) BREAK(6, rbp) BREAK(12, r12) BREAK(13, r13) BREAK(14, r14) BREAK(15, r15)
    "mov $7, %eax\n\tret");

static long asks_breaker(void *arg)
{
	struct broken *b = arg;
	long result = -1;
	int err = epk_gate_call(ids[0], BREAKS, b, &result);

	if (b->faults)
		*(volatile int *)nowhere = 0;
	if (err != (b->register_nr == 3 ? -EFAULT : 0) || (!err && result != 7))
		return err;
	/* It can call again. */
	err = epk_gate_call(ids[2], TOUCH, b, &result);
	return err ? err : 1;
}

static long (*const entries[])(void *arg) = {
	add, sum, where, chain, bad, hold, grow, registers, touch,
	leave, wait_there, spills, spills_and_faults, asks, allocate, peek,
	breaks, asks_breaker,
};

static void set_up(void)
{
	struct epk_component_options options = { .size = sizeof(options) };
	int i;

	REQUIRE_EQ(alloc_domains(NR, ids), 0);
	REQUIRE_EQ(alloc_domains(1, &plain), 0);
	plain_mem = domain_mmap(plain, NULL, PAGE, RW, 0);
	for (i = 0; i < NR; i++) {
		own[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		REQUIRE(own[i] != MAP_FAILED);
		/* What is not stopped: until then it is anybody's. */
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		own[i][9] = 99;
		REQUIRE_EQ(domain_end(ids[i]), 0);
		REQUIRE_EQ(epk_component_create(ids[i], entries, NR_ENTRIES, &options), 0);
	}
}

static void tear_down(void)
{
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	REQUIRE_EQ(free_domains(NR, ids), 0);
	REQUIRE_EQ(free_domains(1, &plain), 0);
}

static long call(int n, int entry, long arg)
{
	long result = -77;
	int err = epk_gate_call(ids[n], entry, (void *)arg, &result);

	return err ? err : result;
}

/* Which of the components' memory, and the plain domain's, can be read from within one. */
static long reach_from(int n)
{
	long mask = 0, err;
	int i;

	for (i = 0; i <= NR; i++) {
		err = call(n, TOUCH, (long)(i < NR ? (char *)own[i] : plain_mem));
		REQUIRE(!err || err == -EFAULT);
		mask |= (long)!err << i;
	}
	return mask;
}

static long reach(void)
{
	long mask = 0;
	char byte;
	int i;

	for (i = 0; i < NR; i++)
		mask |= (long)try_read((char *)own[i], &byte) << i;
	return mask | (long)try_read(plain_mem, &byte) << NR;
}

static void calls(void **state)
{
	struct sum s = { .nr = 4, .words = { 1, 2, 3, 4 } };

	(void)state;
	set_up();
	REQUIRE_EQ(call(0, ADD, 5), 5);
	REQUIRE_EQ(call(0, ADD, 6), 11);
	REQUIRE_EQ(epk_gate_call(ids[0], ADD, NULL, NULL), 0);
	REQUIRE_EQ(call(1, SUM, (long)&s), 10);
	REQUIRE_EQ(call(2, WHERE, 0), ids[2]);
	REQUIRE_EQ(call(0, PEEK, 9), 99);
	REQUIRE_EQ(reach_from(1), 2);
	REQUIRE_EQ(reach(), 0);
	tear_down();
}

/* Where a word of the heap is, as who writes over memory finds it, too. */
static uintptr_t *find_in_heap(uintptr_t word)
{
	uintptr_t *at, *end = sbrk(0);

	for (at = (uintptr_t *)((uintptr_t)end - (128 << 10)); at < end; at++)
		if (*at == word)
			return at;
	return NULL;
}

/* What is not stopped: a component stays open while it has the library follow forged notes. */
static void forged_notes(void **state)
{
	uintptr_t *notes, was;
	uint32_t next;
	long id;

	(void)state;
	set_up();
	REQUIRE_EQ(call(0, PEEK, 8), 0);
	was = (uintptr_t)epk_registry_at(0);
	notes = find_in_heap(was);
	REQUIRE(notes);
	next = EPK_ID_INDEX(plain) + 1;
	*notes = (uintptr_t)(own[0] + 8) - next * sizeof(struct epk_domain);
	id = call(0, ALLOCATE, 0);
	*notes = was;
	REQUIRE_EQ(EPK_ID_INDEX(id), next);
	REQUIRE_EQ((int)call(0, PEEK, 8), id);
	epk_registry_add(1, (int []){ id });
	free_domain(id);
	tear_down();
}

static void closed(void **state)
{
	(void)state;
	set_up();
	REQUIRE_EQ(domain_begin(ids[0], RW), -EPERM);
	REQUIRE_EQ(domain_begin(ids[0] | 1 << 31, RW), -EINVAL);
	REQUIRE_EQ(epk_component_create(ids[0], entries, NR_ENTRIES, NULL), -EBUSY);
	REQUIRE_EQ(reach(), 0);
	tear_down();
}

/* What is longer says nothing, or is from a later version; no member is there in part. */
static void options(void **state)
{
	struct {
		struct epk_component_options known;
		uint64_t later[2];
	} o = { .known.size = 0 };
	int id = new_domain();
	size_t size;

	(void)state;
	for (size = 0; size < sizeof(o.known); size++) {
		o.known.size = size;
		if (size != 8 && size != 16 && size != 24)
			REQUIRE_EQ(epk_component_create(id, entries, 1, &o.known), -EINVAL);
	}
	o.known.size = 5000;
	REQUIRE_EQ(epk_component_create(id, entries, 1, &o.known), -E2BIG);
	o.known.size = sizeof(o);
	o.later[1] = 1;
	REQUIRE_EQ(epk_component_create(id, entries, 1, &o.known), -E2BIG);
	o.later[1] = 0;
	o.known.flags = 2;
	REQUIRE_EQ(epk_component_create(id, entries, 1, &o.known), -EINVAL);
	o.known.flags = 0;
	o.known.threads = 1025;
	REQUIRE_EQ(epk_component_create(id, entries, 1, &o.known), -EINVAL);
	o.known.threads = 3;
	o.known.stack_bytes = 16383;
	REQUIRE_EQ(epk_component_create(id, entries, 1, &o.known), -EINVAL);
	o.known.stack_bytes = 0;
	REQUIRE_EQ(epk_component_create(id, entries, 0, NULL), -EINVAL);
	REQUIRE_EQ(epk_component_create(id, entries, 65, NULL), -EINVAL);
	REQUIRE_EQ(epk_component_create(id, NULL, 1, NULL), -EINVAL);
	/* None of which has changed anything. */
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(epk_component_create(id, entries, 1, &o.known), 0);
	free_domain(id);
	for (size = 8; size <= 16; size += 8) {
		id = new_domain();
		o.known.size = size;
		o.known.flags = 7;
		o.known.heap_bytes = -1;
		REQUIRE_EQ(epk_component_create(id, entries, 1, &o.known), 0);
		free_domain(id);
	}
}

static void errors(void **state)
{
	(void)state;
	set_up();
	REQUIRE_EQ(call(0, NR_ENTRIES, 0), -EINVAL);
	REQUIRE_EQ(call(0, -1, 0), -EINVAL);
	REQUIRE_EQ(epk_gate_call(plain, 0, NULL, NULL), -EINVAL);
	REQUIRE_EQ(epk_gate_call(0, 0, NULL, NULL), -EINVAL);
	REQUIRE_EQ(epk_gate_call(-1, 0, NULL, NULL), -EINVAL);
	REQUIRE_EQ(epk_gate_call(0x7fffffff, 0, NULL, NULL), -ENOENT);
	tear_down();
}

static void beside_what_is_held(void **state)
{
	(void)state;
	set_up();
	REQUIRE_EQ(domain_begin(plain, RW), 0);
	REQUIRE_EQ(reach_from(1), 2);
	REQUIRE_EQ(reach(), 1 << NR);
	REQUIRE_EQ(domain_end(plain), 0);
	/* What the callee does not end, it does not leave behind. */
	REQUIRE_EQ(call(0, HOLD, 3), 3);
	REQUIRE_EQ(reach(), 0);
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	tear_down();
}

static void chains(void **state)
{
	struct chain c;
	int i, depth, err;
	long result;

	(void)state;
	set_up();
	for (depth = 1; depth <= 16; depth++) {
		c = (struct chain) { .depth = (depth + 1) / 2, .faults = depth % 2 };
		for (i = 0; i < 8; i++)
			c.next[i] = ids[i * i % NR];
		result = 0;
		err = epk_gate_call(c.next[0], CHAIN, &c, &result);
		if (c.depth == 1 && c.faults) {
			REQUIRE_EQ(err, -EFAULT);
			continue;
		}
		REQUIRE_EQ(err, 0);
		/* Who called what faulted is told. */
		REQUIRE_EQ(result, c.faults ? -EFAULT + c.depth - 2 : c.depth);
	}
	REQUIRE_EQ(reach(), 0);
	tear_down();
}

static void faults(void **state)
{
	long i;

	(void)state;
	set_up();
	for (i = 0; i < 7; i++) {
		REQUIRE_EQ(call(0, BAD, i), -EFAULT);
		REQUIRE_EQ(reach(), 0);
		REQUIRE_EQ(reach_from(0), 1);
	}
	tear_down();
}

static void heaps(void **state)
{
	long size;

	(void)state;
	set_up();
	for (size = 16; size < 1 << 20; size *= 3)
		REQUIRE_EQ(call(0, GROW, size), 0);
	tear_down();
}

static void clean_registers(void **state)
{
	(void)state;
	set_up();
	REQUIRE_EQ(call_with_secrets(ids[0], REGISTERS), 0);
	REQUIRE_EQ(spilt(ids[0], SPILLS), 0);
	REQUIRE_EQ(spilt(ids[0], SPILLS_AND_FAULTS), 0);
	REQUIRE_EQ(call(0, ASKS, SPILLS), 0);
	REQUIRE_EQ(call(0, ASKS, SPILLS_AND_FAULTS), 0);
	tear_down();
}

/* Who called such a callee has what it had, or an error. */
static void broken_registers(void **state)
{
	static const int nrs[] = { 3, 6, 12, 13, 14, 15 };
	static uint64_t room[64];
	struct broken b;
	uint64_t fs;
	size_t i;
	int n;

	(void)state;
	set_up();
	asm("rdfsbase %0" : "=r"(fs));
	for (i = 0; i < sizeof(nrs) / sizeof(nrs[0]); i++) {
		for (n = 0; n < 6; n++) {
			b = (struct broken) { .register_nr = nrs[i], .faults = n & 1 };
			/* Nowhere, and as if the thread's words were where anybody can write. */
			b.value = n < 2 ? 1ul << 63 : n < 4 ? (uintptr_t)&room[32] - fs : 0;
			if (nrs[i] == 3)
				b.value = n < 2 ? 1ul << 63 : 0;
REQUIRE_EQ(call(1, ASKS_BREAKER, (long)&b), b.faults ? -EFAULT : 1);
			REQUIRE_EQ(call(0, BREAKS, (long)&b), nrs[i] == 3 ? -EFAULT : 7);
			REQUIRE_EQ(reach_from(0), 1);
			REQUIRE_EQ(reach(), 0);
		}
	}
	tear_down();
}

/* As if its slot were elsewhere: it does not come back from that. */
static void lose_slot(void)
{
	static uint64_t room[64];
	struct broken b = { .register_nr = 3, .value = (uintptr_t)room };

	set_up();
	epk_gate_call(ids[0], BREAKS, &b, NULL);
}

static void lost_slot(void **state)
{
	int status = status_of_child(lose_slot);

	(void)state;
	REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static int evict(int id)
{
	struct epk_move move = { .id = id, .ept = EPK_EPT_NONE };
	struct epk_moves moves = { .num = 1, .moves = (uintptr_t)&move };

	return ioctl(epk_now.fd, EPK_IOC_MOVE, &moves);
}

static void *end_inside(void *arg)
{
	jmp_buf back;

	if (arg && !setjmp(back))
		call(0, LEAVE, (long)back);
	/* Or it has no place by then. */
	if (arg) {
		REQUIRE(!evict(ids[0]));
		return NULL;
	}
	call(0, LEAVE, 0);
	return NULL;
}

static void *call_once(void *arg)
{
	*(long *)arg = call(0, ADD, 1);
	return NULL;
}

/* More threads than it has places, one after the other, that never return from it. */
static void ends_of_threads(void **state)
{
	pthread_t id;
	long result;
	int i;

	(void)state;
	set_up();
	for (i = 0; i < 40; i++) {
		REQUIRE_EQ(pthread_create(&id, NULL, end_inside, (void *)(long)(i & 1)), 0);
		REQUIRE_EQ(pthread_join(id, NULL), 0);
		REQUIRE_EQ(reach(), 0);
	}
	REQUIRE_EQ(pthread_create(&id, NULL, call_once, &result), 0);
	REQUIRE_EQ(pthread_join(id, NULL), 0);
	REQUIRE_EQ(result, 1);
	REQUIRE_EQ(call(0, ADD, 1), 2);
	tear_down();
}

static pthread_barrier_t barrier;

static long wait_there(void *arg)
{
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return (long)arg;
}

static void *stay_inside(void *arg)
{
	*(long *)arg = call(0, WAIT, 5);
	return NULL;
}

/* As many threads in it as it has places, and one more. */
static void threads(void **state)
{
	pthread_t id[16];
	long result[16];
	int i, busy = 0;

	(void)state;
	set_up();
	pthread_barrier_init(&barrier, NULL, 16 + 1);
	for (i = 0; i < 16; i++)
		REQUIRE_EQ(pthread_create(&id[i], NULL, stay_inside, &result[i]), 0);
	pthread_barrier_wait(&barrier);
	busy = call(0, ADD, 1) == -EBUSY;
	pthread_barrier_wait(&barrier);
	for (i = 0; i < 16; i++) {
		REQUIRE_EQ(pthread_join(id[i], NULL), 0);
		REQUIRE_EQ(result[i], 5);
	}
	REQUIRE(busy);
	REQUIRE_EQ(call(0, ADD, 1), 1);
	tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forged_notes),
		cmocka_unit_test(calls),
		cmocka_unit_test(closed),
		cmocka_unit_test(options),
		cmocka_unit_test(errors),
		cmocka_unit_test(beside_what_is_held),
		cmocka_unit_test(chains),
		cmocka_unit_test(faults),
		cmocka_unit_test(heaps),
		cmocka_unit_test(clean_registers),
		cmocka_unit_test(broken_registers),
		cmocka_unit_test(lost_slot),
		cmocka_unit_test(ends_of_threads),
		cmocka_unit_test(threads),
	};

	skip_if(!backend_is("epk"), "has no components");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
