// SPDX-License-Identifier: MIT
/*
 * Threads with EPK_THREAD_FOLLOWS: what they hold in any EPT, and while domains move, they reach
 * without a signal, themselves and by system calls; and nothing else.
 */
#include "rights_places.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

static void answers(void)
{
	int *two = apart(), i;

	CHECK_EQ(begin(0), -ENOENT);
	CHECK_EQ(begin(-1), -ENOENT);
	CHECK_EQ(begin(0x7fffffff), -ENOENT);
	CHECK_EQ(begin(ids[0] + (1 << EPK_ID_INDEX_BITS)), -ENOENT);
	CHECK_EQ(begin_prot(ids[0], 0), -EINVAL);
	CHECK_EQ(begin_prot(ids[0], PROT_EXEC), -EINVAL);
	CHECK_EQ(begin_prot(ids[0], 8), -EINVAL);
	CHECK(ioctl(dev.fd, EPK_IOC_END, 1ul << 32 | (unsigned int)ids[0]) == -1 &&
	      errno == EINVAL);
	for (i = 0; i < 2; i++) {
		int id = ids[two[i]];

		CHECK_EQ(end(id), -EACCES);
		CHECK_EQ(begin_prot(id, PROT_READ), 0);
		CHECK_EQ(begin_prot(id, PROT_READ), -EALREADY);
		CHECK_EQ(begin(id), 1);
		CHECK_EQ(begin(id), -EALREADY);
		CHECK_EQ(begin_prot(id, PROT_READ), -EALREADY);
		CHECK_EQ(begin_prot(id, PROT_WRITE), -EALREADY);
		CHECK_EQ(end(id), 0);
		CHECK_EQ(end(id), -EACCES);
		holds_nothing(__LINE__);
		CHECK_EQ(begin_prot(id, PROT_WRITE), 0);
		CHECK_EQ(touch(pages[two[i]], 1), 0);
		CHECK_EQ(end(id), 0);
	}
}

/* The same of one that is held in another EPT. */
static void answers_far(void)
{
	int *two = apart(), x = ids[two[0]], y = ids[two[1]];

	list(x, 0, y, 0);
	CHECK_EQ(begin_prot(x, PROT_READ), 0);
	list(x, PROT_READ, y, 0);
	CHECK_EQ(begin(y), 0);
	list(x, PROT_READ, y, PROT_READ | PROT_WRITE);
	CHECK_EQ(epk_device_move(&dev, x, EPK_EPT_NONE), 0);
	list(x, PROT_READ, y, PROT_READ | PROT_WRITE);
	CHECK_EQ(begin_prot(x, PROT_READ), -EALREADY);
	CHECK_EQ(begin(x), 1);
	CHECK_EQ(touch(pages[two[0]], 1), 0);
	CHECK_EQ(end(y), 0);
	CHECK_EQ(end(y), -EACCES);
	CHECK_EQ(end(x), 0);
	holds_nothing(__LINE__);
}

static void reaches(void)
{
	int *two = apart(), x = two[0], y = two[1], i;

	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(closed_bits(), 0);
	CHECK_EQ(begin(ids[y]), 0);
	for (i = 0; i < 20; i++) {
		CHECK_EQ(touch(pages[x], 1), 0);
		CHECK_EQ(touch(pages[y], 1), 0);
	}
	CHECK_EQ(end(ids[x]), 0);
	CHECK_EQ(touch(pages[y], 1), 0);
	CHECK_EQ(touch(pages[x], 0), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	/* A handler that does not return takes all with it. */
	CHECK_EQ(end(ids[y]), -EACCES);
	holds_nothing(__LINE__);
}

/* Until they are together the closed keys say that there is more. */
static void held_bits(void)
{
	int *two = apart(), x = two[0], y = two[1];
	uint32_t pkru;

	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(begin(ids[y]), 0);
	if (epk_device_is_alone(&dev))
		CHECK_EQ(epk_device_move(&dev, ids[x], EPK_EPT_NONE), 0);
	if (epk_device_entry(&dev, ids[x]).ept != dev.identity->ept) {
		pkru = epk_rdpkru();
		CHECK_EQ(closed_bits(), pkru & EPK_PKRU_DENY_ALL);
		CHECK_EQ(pkru & EPK_PKRU_DENY_ALL,
			 EPK_PKRU_ALLOW(epk_device_entry(&dev, ids[y]).pkey));
	}
	CHECK_EQ(end(ids[x]), 0);
	CHECK_EQ(closed_bits(), 0);
	CHECK_EQ(end(ids[y]), 0);
}

static void only_reads(void)
{
	int *two = apart(), x = two[0], y = two[1];

	CHECK_EQ(begin_prot(ids[x], PROT_READ), 0);
	CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(touch(pages[x], 0), 0);
	CHECK_EQ(touch(pages[y], 1), 0);
	CHECK_EQ(touch(pages[x], 1), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	end_all();
}

/* One system call on memory of as many EPTs as there are, and of domains without a place. */
static void system_calls(void)
{
	struct iovec iov[3];
	int pipes[2], i, n;

	REQUIRE(pipe(pipes) == 0);
	for (i = 0; i < 3; i++) {
		n = i * (NR_DOMAINS - 1) / 2;
		CHECK_EQ(begin(ids[n]), 0);
		CHECK_EQ(touch(&pages[n][1], 1), 0);
		iov[i] = (struct iovec) { &pages[n][1], 8 };
	}
	for (n = 0; n < 6; n++) {
		CHECK_EQ(writev(pipes[1], iov, 3), 24);
		CHECK_EQ(readv(pipes[0], iov, 3), 24);
		CHECK_EQ(write(pipes[1], iov[n % 3].iov_base, 8), 8);
		CHECK_EQ(read(pipes[0], iov[(n + 1) % 3].iov_base, 8), 8);
	}
	for (i = 0; i < 3; i++)
		CHECK_EQ(end(ids[i * (NR_DOMAINS - 1) / 2]), 0);
	holds_nothing(__LINE__);
	/* The other emulator has its kernel read what a key denies. */
	if (epk_device_is_alone(&dev))
		CHECK(write(pipes[1], iov[0].iov_base, 8) == -1 && errno == EFAULT);
	close(pipes[0]);
	close(pipes[1]);
}

/* One instruction that wants two domains. */
static void both_at_once(void)
{
	int *two = apart(), x = two[0], y = two[1];
	void *to = pages[x], *from = pages[y];
	unsigned long n = 64;

	CHECK_EQ(begin(ids[y]), 0);
	memset(from, 0x5a, 64);
	CHECK_EQ(begin(ids[x]), 0);
	memset(to, 0, 64);
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	CHECK(!memcmp(pages[x], pages[y], 64));
	CHECK_EQ(epk_device_entry(&dev, ids[x]).ept, epk_device_entry(&dev, ids[y]).ept);
	CHECK_EQ(end(ids[x]), 0);
	CHECK_EQ(end(ids[y]), 0);
	holds_nothing(__LINE__);
}

/* Two that are used together lie together before long, and nothing happens from then on. */
static void comes_together(void)
{
	int *two = apart(), x = two[0], y = two[1], i;
	unsigned long moves;

	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(begin(ids[y]), 0);
	for (i = 0; i < 4; i++) {
		CHECK_EQ(touch(pages[x], 1), 0);
		CHECK_EQ(touch(pages[y], 1), 0);
	}
	CHECK_EQ(epk_device_entry(&dev, ids[x]).ept, epk_device_entry(&dev, ids[y]).ept);
	moves = epk_device_stats(&dev).moves;
	for (i = 0; i < 50; i++) {
		CHECK_EQ(touch(pages[x], 1), 0);
		CHECK_EQ(touch(pages[y], 1), 0);
	}
	CHECK_EQ(epk_device_stats(&dev).moves, moves);
	CHECK_EQ(end(ids[x]), 0);
	CHECK_EQ(end(ids[y]), 0);
}

static void *mover(void *arg)
{
	int id = *(int *)arg, i;

	for (i = 0; i < 200; i++) {
		switch (i % 3) {
		case 0:
			epk_device_move(&dev, id, EPK_EPT_NONE);
			break;
		case 1:
			epk_device_move(&dev, id, i % dev.init.nr_epts);
			break;
		default: {
			struct epk_move list[2] = {
				{ .id = ids[20], .ept = EPK_EPT_NONE },
				{ .id = id, .ept = i % 3 % dev.init.nr_epts },
			};

			epk_device_moves(&dev, 2, list);
		}
		}
	}
	return NULL;
}

/* What moves all the time is held all the time. */
static void holds_what_moves(bool with_another)
{
	int *two = apart(), x = two[0], y = two[1], i, id = ids[x];
	volatile uint64_t *word = pages[x];
	pthread_t thread;
	uint64_t seen;

	if (with_another)
		CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(begin(id), 0);
	*word = 0;
	REQUIRE(!pthread_create(&thread, NULL, mover, &id));
	for (i = 0; i < 3000; i++) {
		seen = *word;
		if (seen != (uint64_t)i)
			break;
		*word = i + 1;
		if (with_another)
			pages[y][0]++;
		if (i % 16 == 0)
			sched_yield();
	}
	CHECK_EQ(i, 3000);
	pthread_join(thread, NULL);
	CHECK_EQ(begin(id), -EALREADY);
	CHECK_EQ(end(id), 0);
	if (with_another)
		CHECK_EQ(end(ids[y]), 0);
	holds_nothing(__LINE__);
	CHECK_EQ(touch(pages[x], 0), SIGSEGV);
	holds_nothing(__LINE__);
}

/* Who moves what it holds has it still, and not what comes in its place. */
static void moves_itself(void)
{
	int *two = apart(), x = two[0], y = two[1];
	struct epk_move list_of[2];
	struct epk_entry place;

	CHECK_EQ(begin(ids[x]), 0);
	place = epk_device_entry(&dev, ids[x]);
	list_of[0] = (struct epk_move) { .id = ids[x], .ept = EPK_EPT_NONE };
	list_of[1] = (struct epk_move) { .id = ids[y], .ept = place.ept, .pkey = place.pkey };
	CHECK_EQ(epk_device_moves(&dev, 2, list_of), 0);
	list(ids[x], PROT_READ | PROT_WRITE, ids[y], 0);
	CHECK_EQ(touch(pages[x], 1), 0);
	CHECK_EQ(touch(pages[y], 0), SIGSEGV);
	holds_nothing(__LINE__);
}

/* Another in the EPT of a domain that has a place. */
static int beside(int x)
{
	int i;

	for (i = 0; i < NR_DOMAINS; i++) {
		struct epk_entry other = epk_device_entry(&dev, ids[i]);

		if (i != x && other.pkey && other.ept == epk_device_entry(&dev, ids[x]).ept)
			break;
	}
	REQUIRE(i < NR_DOMAINS);
	return i;
}

/*
 * What is held and comes to where the thread is, is open at once: a gate is not to open it a
 * second time.  It comes to where nothing was, and in another's place.
 */
static void comes_back(bool in_its_place)
{
	struct epk_move list_of[2];
	struct epk_entry place;
	int x = apart()[0], y;

	CHECK_EQ(begin(ids[x]), 0);
	place = epk_device_entry(&dev, ids[x]);
	y = beside(x);
	CHECK_EQ(epk_device_move(&dev, ids[x], EPK_EPT_NONE), 0);
	CHECK(!(~epk_rdpkru() & EPK_PKRU_DENY_ALL));
	if (in_its_place)
		place = epk_device_entry(&dev, ids[y]);
	list_of[0] = (struct epk_move) { .id = ids[x], .ept = place.ept, .pkey = place.pkey };
	list_of[1] = (struct epk_move) { .id = ids[y], .ept = EPK_EPT_NONE };
	CHECK_EQ(epk_device_moves(&dev, in_its_place ? 2 : 1, list_of), 0);
	CHECK_EQ(~epk_rdpkru() & EPK_PKRU_DENY_ALL, 1u << 2 * place.pkey);
	CHECK_EQ(end(ids[x]), 0);
	holds_nothing(__LINE__);
}

static int changes_keys[2];

static void change_keys(int sig)
{
	struct epk_entry x = epk_device_entry(&dev, ids[changes_keys[0]]);
	struct epk_entry y = epk_device_entry(&dev, ids[changes_keys[1]]);
	struct epk_move list_of[2] = {
		{ .id = x.id, .ept = y.ept, .pkey = y.pkey },
		{ .id = y.id, .ept = x.ept, .pkey = x.pkey },
	};

	(void)sig;
	CHECK_EQ(epk_device_moves(&dev, 2, list_of), 0);
}

/* A thread that does not follow loses what moves while it handles a signal. */
static void *does_not_follow(void *unused)
{
	struct epk_entry x = epk_device_entry(&dev, ids[changes_keys[0]]);

	(void)unused;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS), 0);
	epk_device_goto(&dev, x.ept);
	epk_wrpkru(epk_rdpkru() & ~(3u << 2 * x.pkey));
	CHECK_EQ(touch(pages[changes_keys[0]], 1), 0);
	raise(SIGUSR2);
	CHECK(!(~epk_rdpkru() & EPK_PKRU_DENY_ALL));
	CHECK_EQ(touch(pages[changes_keys[0]], 0), SIGSEGV);
	return NULL;
}

static void loses_what_moves(void)
{
	struct sigaction sa = { .sa_handler = change_keys };
	pthread_t thread;

	CHECK_EQ(begin(ids[0]), 0);
	CHECK_EQ(end(ids[0]), 0);
	changes_keys[1] = beside(0);
	REQUIRE(!sigaction(SIGUSR2, &sa, NULL));
	REQUIRE(!pthread_create(&thread, NULL, does_not_follow, NULL));
	pthread_join(thread, NULL);
}

/* Who holds it when it is freed holds nothing, nor what comes in its place. */
static void freed(void)
{
	int *two = apart(), y = two[1], id, next;
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)&id };
	struct epk_entry place;
	uint64_t *page;

	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	page = epk_device_map(&dev, id, PAGE);
	REQUIRE(page != MAP_FAILED);
	CHECK_EQ(begin(id), 0);
	place = epk_device_entry(&dev, id);
	CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(epk_device_unmap(&dev, page, PAGE), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	arg.flags = EPK_ALLOC_AT(place.ept);
	arg.ids = (uintptr_t)&next;
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	page = epk_device_map(&dev, next, PAGE);
	CHECK_EQ(begin(id), -ENOENT);
	CHECK_EQ(touch(page, 0), SIGSEGV);
	end_all();
	epk_device_unmap(&dev, page, PAGE);
	CHECK_EQ(epk_device_free(&dev, 1, &next), 0);
}

static volatile int in_handler, handler_held;
static int handler_x, handler_y;

static void handler(int sig)
{
	(void)sig;
	in_handler++;
	handler_held = epk_rdpkru() != EPK_PKRU_DENY_ALL || dev.identity->ept;
	CHECK_EQ(end(ids[handler_x]), -EACCES);
	CHECK_EQ(begin(ids[handler_x]), 0);
	CHECK_EQ(begin(ids[handler_y]), 0);
	pages[handler_x][0]++;
	pages[handler_y][0]++;
	if (in_handler == 1)
		raise(SIGUSR1);
	/* These are left open. */
}

static void signals(void)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_NODEFER };
	int *two = apart(), x = two[0], y = two[1];

	handler_x = x;
	handler_y = y;
	REQUIRE(!sigaction(SIGUSR1, &action, NULL));
	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(begin_prot(ids[y], PROT_READ), 0);
	in_handler = 0;
	raise(SIGUSR1);
	CHECK_EQ(in_handler, 2);
	CHECK_EQ(handler_held, 0);
	CHECK_EQ(begin(ids[x]), -EALREADY);
	CHECK_EQ(touch(pages[x], 1), 0);
	CHECK_EQ(touch(pages[y], 0), 0);
	CHECK_EQ(begin_prot(ids[y], PROT_READ), -EALREADY);
	CHECK_EQ(touch(pages[y], 1), SIGSEGV);
	end_all();
}

static void *newborn(void *arg)
{
	/* With the held bits, so that it asks. */
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL * 3, EPK_PKRU_DENY_ALL * 3);
	CHECK_EQ(end(ids[0]), -EACCES);
	CHECK(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_FOLLOWS) == -1 && errno == EINVAL);
	if (arg)
		CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS), 0);
	CHECK_EQ(end(ids[0]), -EACCES);
	CHECK_EQ(begin(ids[0]), 0);
	CHECK_EQ(begin(ids[1]), 0);
	CHECK_EQ(end(ids[1]), 0);
	CHECK_EQ(touch(pages[0], 0), 0);
	return NULL;
}

static void threads(void)
{
	int *two = apart();
	pthread_t thread;

	CHECK_EQ(begin(ids[two[0]]), 0);
	CHECK_EQ(begin(ids[two[1]]), 0);
	REQUIRE(!pthread_create(&thread, NULL, newborn, NULL));
	pthread_join(thread, NULL);
	REQUIRE(!pthread_create(&thread, NULL, newborn, ids));
	pthread_join(thread, NULL);
	end_all();
}

/*
 * A gate that dawdles: it reads an entry, waits as long as it is told to, and opens the key of the
 * place that it has read, where that is.  void slow_gate(const volatile void *entry)
 */
asm(
"	.text\n"
"	.balign	64\n"
"slow_gate:\n"
"	mov	(%rdi), %r8\n"
"1:	mov	gate_entered(%rip), %eax\n"
"	inc	%eax\n"
"	mov	%eax, gate_entered(%rip)\n"
"2:	pause\n"
"	cmpl	$0, gate_waits(%rip)\n"
"	jne	2b\n"
"	mov	%r8, %rcx\n"
"	shr	$48, %rcx\n"
"	and	$0xff, %ecx\n"
"	jz	3f\n"
"	add	%ecx, %ecx\n"
"	mov	$3, %r9d\n"
"	shl	%cl, %r9d\n"
"	not	%r9d\n"
"	xor	%ecx, %ecx\n"
"	rdpkru\n"
"	and	%r9d, %eax\n"
"	wrpkru\n"
"slow_gate_end:\n"
"3:	ret\n"
);
extern const char slow_gate[], slow_gate_end[];
__attribute__((used)) volatile int gate_entered, gate_waits;

static void wrong_gates(void)
{
	static struct epk_gate gate;
	struct epk_gates arg = { .num = 1, .gates = (uintptr_t)&gate };
	uintptr_t start = (uintptr_t)slow_gate, data = (uintptr_t)&gate;
	const struct epk_gate wrong[] = {
		{ start, start, start }, { start + 1, start, start }, { data, data + 8, start },
		{ start, start + 8, data }, { start, start + 8, 1 }, { 0, 8, start },
		{ start, ~0ull, start }, { 1ull << 63, (1ull << 63) + 8, start },
	};
	unsigned int i;

	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		gate = wrong[i];
		CHECK(ioctl(dev.fd, EPK_IOC_GATES, &arg) == -1 && errno == EINVAL);
	}
	gate = (struct epk_gate) { start, (uintptr_t)slow_gate_end, start };
	arg.num = 0;
	CHECK(ioctl(dev.fd, EPK_IOC_GATES, &arg) == -1 && errno == EINVAL);
	arg.num = EPK_GATES_MAX + 1;
	CHECK(ioctl(dev.fd, EPK_IOC_GATES, &arg) == -1 && errno == EINVAL);
	arg.num = 1;
	arg.rsvd = 1;
	CHECK(ioctl(dev.fd, EPK_IOC_GATES, &arg) == -1 && errno == EINVAL);
	arg.rsvd = 0;
	arg.gates = 8;
	CHECK(ioctl(dev.fd, EPK_IOC_GATES, &arg) == -1 && errno == EFAULT);
	arg.gates = (uintptr_t)&gate;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_GATES, &arg), 0);
	CHECK(ioctl(dev.fd, EPK_IOC_GATES, &arg) == -1 && errno == EBUSY);
}

enum { IN_GATE, PASSED, LOOK, CLOSED = 4, OPEN = 8, WRONG = 16 };

static volatile int gate_done;
static bool gate_registers = true;

static void *in_gate(void *arg)
{
	int i = *(int *)arg;

	if (gate_registers)
		CHECK_EQ(follow(), 0);
	epk_device_goto(&dev, epk_device_entry(&dev, ids[i]).ept);
	((void (*)(const volatile void *))slow_gate)(&dev.table[EPK_ID_INDEX(ids[i])]);
	gate_done = PASSED;
	while (gate_done == PASSED)
		;
	if (epk_rdpkru() == EPK_PKRU_DENY_ALL)
		gate_done = CLOSED;
	else
		gate_done = epk_rdpkru() == EPK_PKRU_ALLOW(epk_device_entry(&dev, ids[i]).pkey) ?
			    OPEN : WRONG;
	return NULL;
}

static void handle_nothing(int sig)
{
	(void)sig;
}

/* @meet: what makes the gate start again; @outcome: one of these. */
static void gate(int x, void (*meet)(pthread_t thread, int id), int outcome)
{
	pthread_t thread;
	int entered;

	gate_entered = 0;
	gate_done = IN_GATE;
	gate_waits = 1;
	REQUIRE(!pthread_create(&thread, NULL, in_gate, &x));
	while (!gate_entered)
		sched_yield();
	entered = gate_entered;
	meet(thread, ids[x]);
	while (gate_entered == entered && !gate_done)
		sched_yield();
	CHECK(gate_entered > entered);
	gate_waits = 0;
	while (gate_done != PASSED)
		sched_yield();
	gate_done = LOOK;
	pthread_join(thread, NULL);
	/* Who is not registered has nothing for long. */
	CHECK(gate_done & outcome || !gate_registers);
}

static void by_signal(pthread_t thread, int id)
{
	(void)id;
	pthread_kill(thread, SIGUSR2);
}

static void by_eviction(pthread_t thread, int id)
{
	(void)thread;
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
}

static void by_free_place(pthread_t thread, int id)
{
	struct epk_entry entry = epk_device_entry(&dev, id);
	struct epk_move move = { .id = id, .ept = entry.ept };

	(void)thread;
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
}

/* What a gate has read is not what it opens, if a domain has moved since. */
static void gates(void)
{
	struct sigaction action = { .sa_handler = handle_nothing };
	struct epk_move move = { .id = ids[1], .ept = EPK_EPT_ANY };

	REQUIRE(!sigaction(SIGUSR2, &action, NULL));
	epk_device_move(&dev, ids[NR_DOMAINS - 1], EPK_EPT_NONE);
	epk_device_moves(&dev, 1, &move);
	REQUIRE(epk_device_entry(&dev, ids[1]).pkey);
	gate(1, by_signal, OPEN);
	gate(1, by_eviction, CLOSED);
	epk_device_moves(&dev, 1, &move);
	/* It may have looked while the domain was nowhere. */
	gate(1, by_free_place, OPEN | CLOSED);

	/* Nor of a thread that is not registered, if its memory has it go through a gate. */
	gate_registers = false;
	epk_device_moves(&dev, 1, &move);
	gate(1, by_signal, OPEN);
	gate(1, by_eviction, CLOSED);
	gate_registers = true;
}

/* Where no program begins, unless somebody sends it there. */
__asm__(".text\n"
	"led_astray:\n"
	"	mov	$60, %eax\n"
	"	mov	$7, %edi\n"
	"	syscall\n"
	"	ud2\n");
extern const char led_astray[], _start[];

/* Another process of this address space, whose threads meet one batch after the other. */
static volatile int moving_on;

static int moves_on(void *arg)
{
	pid_t parent = *(pid_t *)arg;

	while (getppid() == parent) {
		epk_device_move(&dev, ids[0], EPK_EPT_NONE);
		epk_device_move(&dev, ids[0], EPK_EPT_ANY);
		moving_on = 1;
	}
	_exit(0);
}

/* A program is executed by a thread whose gate is where that begins. */
static void executes(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	struct epk_gate gate = {
		(uintptr_t)_start, (uintptr_t)_start + 1, (uintptr_t)led_astray,
	};
	struct epk_gates arg = { .num = 1, .gates = (uintptr_t)&gate };
	pid_t self = getpid();

	epk_device_open(&dev);
	if (epk_device_alloc(&dev, 1, ids) || ioctl(dev.fd, EPK_IOC_GATES, &arg) || follow() ||
	    clone(moves_on, stack + sizeof(stack), CLONE_VM, &self) < 0)
		_exit(2);
	while (!moving_on)
		sched_yield();
	execl("/proc/self/exe", "kmod_rights_test", "executed", NULL);
	_exit(3);
}

/* What a program that is executed starts with is its own. */
static void executed(void)
{
	struct timespec since;
	int i, status;

	/* What moves on comes here. */
	REQUIRE(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	clock_gettime(CLOCK_MONOTONIC, &since);
	for (i = 0; race_goes_on(i, 40, &since); i++) {
		pid_t pid = fork();

		if (!pid)
			executes();
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
		while (waitpid(-1, NULL, __WALL) > 0)
			;
	}
}

/* The same access goes to another EPT each time. */
static void again_and_again(void)
{
	int *two = apart(), x = two[0], y = two[1], i, sig = 0;

	if (!epk_device_is_alone(&dev))
		CHECK_EQ(epk_device_move(&dev, ids[y], FAR_EPT), 0);
	CHECK_EQ(begin(ids[x]), 0);
	for (i = 0; i < 1100 && !sig; i++) {
		REQUIRE(begin(ids[y]) == 0);
		REQUIRE(touch(pages[y], 1) == 0);
		REQUIRE(end(ids[y]) == 0);
		sig = touch(pages[x], 1);
	}
	CHECK_EQ(sig, 0);
	CHECK_EQ(i, 1100);
	end_all();
}

static void as_many_as_may_be(void)
{
	int more[EPK_HELD_MAX], i;
	struct epk_domains arg = {
		.num = EPK_HELD_MAX, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)more,
	};

	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	for (i = 0; i < EPK_HELD_MAX; i++)
		CHECK_EQ(begin(more[i]), 0);
	CHECK_EQ(begin(ids[0]), -EMFILE);
	CHECK_EQ(begin(more[0]), -EALREADY);
	CHECK_EQ(end(more[5]), 0);
	CHECK_EQ(begin(ids[0]), 0);
	CHECK_EQ(touch(pages[0], 1), 0);
	CHECK_EQ(end(ids[0]), 0);
	for (i = 0; i < EPK_HELD_MAX; i++)
		CHECK_EQ(end(more[i]), i == 5 ? -EACCES : 0);
	holds_nothing(__LINE__);
	CHECK_EQ(epk_device_free(&dev, EPK_HELD_MAX, more), 0);
}

int main(int argc, char **argv)
{
	struct epk_domains arg = {
		.num = NR_DOMAINS, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)ids,
	};
	int i;

	if (argc > 1 && !strcmp(argv[1], "executed"))
		return 0;
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	for (i = 0; i < NR_DOMAINS; i++) {
		pages[i] = epk_device_map(&dev, ids[i], PAGE);
		REQUIRE(pages[i] != MAP_FAILED);
	}
	REQUIRE(follow() == 0);
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	RUN(answers());
	RUN(answers_far());
	RUN(reaches());
	RUN(held_bits());
	RUN(only_reads());
	RUN(system_calls());
	RUN(both_at_once());
	RUN(comes_together());
	RUN(holds_what_moves(false));
	RUN(holds_what_moves(true));
	RUN(vacated(0));
	RUN(vacated(1));
	RUN(vacated(2));
	RUN(vacated(FAR_EPT));
	RUN(moves_itself());
	RUN(comes_back(false));
	RUN(comes_back(true));
	RUN(loses_what_moves());
	RUN(freed());
	RUN(signals());
	RUN(threads());
	RUN(again_and_again());
	RUN(as_many_as_may_be());
	RUN(wrong_gates());
	RUN(gates());
	RUN(executed());
	return epk_test_result();
}
