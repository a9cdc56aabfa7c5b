// SPDX-License-Identifier: MIT
/* Confined components: what runs in one changes nothing of ordinary memory, whatever it does. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>

#include "component.h"
#include "pkru.h"
#include "unit.h"

#define WD0	PKRU_WD(0)

/* The last is not confined. */
#define NR	3
#define PLAIN	2
static int ids[NR], zero_fd;
static long *own[NR];

struct targets {
	long data, zero[8], *heap, *stack, *fresh;
};

static long data_word[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
static long bss_word[8];
static __thread long tls_word[8];
static volatile long ticks;

enum { STORE, STRING, ATOMIC, SSE, AVX, X87, SAVE, PUSH, READ, NR_WAYS };
static const char *const ways[] = {
	"store", "string", "atomic", "SSE", "AVX", "x87", "xsave", "push", "read(2)",
};

struct write {
	int how;
	char *at;
};

static long system_call(long nr, long a, long b, long c)
{
	long result = nr;

	asm volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
}

static long writes(void *arg)
{
	const struct write *w = arg;
	char *to = w->at;
	long n = 8, from[8] = { -1, -1 };
	const char *src = (char *)from;

	own[0][0]++;
	switch (w->how) {
	case STORE:
		*(volatile long *)to = -1;
		break;
	case STRING:
		asm volatile("rep movsb" : "+D"(to), "+S"(src), "+c"(n) : : "memory");
		break;
	case ATOMIC:
		__atomic_fetch_add((long *)to, 1, __ATOMIC_SEQ_CST);
		break;
	case SSE:
		asm volatile("movups (%1), %%xmm0\n\tmovups %%xmm0, (%0)"
			     : : "r"(to), "r"(src) : "memory", "xmm0");
		break;
	case AVX:
		asm volatile("vmovups (%1), %%ymm0\n\tvmovups %%ymm0, (%0)"
			     : : "r"(to), "r"(src) : "memory", "xmm0");
		break;
	case X87:
		asm volatile("fldpi\n\tfstpl (%0)" : : "r"(to) : "memory");
		break;
	case SAVE:
		asm volatile("fxsave64 (%0)" : : "r"((uintptr_t)to & -16ul) : "memory");
		break;
	case PUSH:
		asm volatile("mov %%rsp, %%rbx\n\tlea 8(%0), %%rsp\n\tpush %0\n\tmov %%rbx, %%rsp"
			     : : "r"(to) : "memory", "rbx");
		break;
	case READ:
		return system_call(SYS_read, zero_fd, (long)to, 8);
	}
	return 0;
}

/* Its own, and new at each call. */
static long sets_errno(void *arg)
{
	char *end;

	if (tls_word[1] || errno != (long)arg || pthread_self() != *(pthread_t *)&tls_word[2])
		tls_word[1] = 1;
	errno = 0;
	tls_word[0] = strtol("99999999999999999999999", &end, 10) == LONG_MAX && !*end;
	return tls_word[0] && tls_word[1] ? errno : -1;
}

/* Numbers between commas; it writes as it reads. */
static long parses(void *arg)
{
	const char *at = arg;
	long sum = 0, n = 0;

	for (; ; at++) {
		if (*at >= '0' && *at <= '9') {
			n = 10 * n + *at - '0';
			continue;
		}
		own[0][1]++;
		sum += n;
		n = 0;
		if (!*at)
			return sum;
	}
}

static long pkru_there(void *arg)
{
	(void)arg;
	return rdpkru() & PKRU_BITS(0);
}

/* Ticks of signals, and what it would write then. */
static long waits_for(void *arg)
{
	long until = ticks + 3;

	while (ticks < until)
		own[0][2]++;
	if ((rdpkru() & PKRU_BITS(0)) != WD0)
		return 1;
	if (arg)
		*(volatile long *)arg = -1;
	return 0;
}

static long runs_for(void *arg)
{
	struct timespec start, now;
	long n = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		own[0][3] = ++n;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (own[0][3] != n || (rdpkru() & PKRU_BITS(0)) != WD0)
			return -1;
	} while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 <
		 (long)arg);
	return n;
}

static long allocates(void *arg)
{
	char *first = epk_malloc(ids[0], 100), *second = epk_malloc(ids[0], (size_t)arg);

	if (!first || !second || epk_domain_at(first) >= 0)
		return -1;
	memset(second, 1, (size_t)arg);
	return epk_free(ids[0], first) || epk_free(ids[0], second);
}

static long mallocs(void *arg)
{
	char *first = epk_malloc(ids[0], 100), *second = epk_malloc(ids[0], (size_t)arg);

	if (!first || !second)
		return epk_free(ids[0], first) ? -2 : -1;
	memset(second, 1, (size_t)arg);
	return epk_free(ids[0], first) || epk_free(ids[0], second);
}

enum { RETURNS, FAULTS };

/* Its own slot, but for where its stack is, and all that is above on its stack. */
static long smashes(void *arg)
{
	char *header = (char *)EPK_NOTE_ADDR(epk_note(ids[0])) + EPK_CONF_HEADER;
	struct epk_component_slot *slot = (void *)(header + EPK_COMP_SLOTS);
	volatile char *stack = __builtin_frame_address(0);
	int i;

	for (i = 0; i < 16; i++) {
		slot[i].owner = 0x4141414141414141;
		slot[i].sp = slot[i].frame = slot[i].number = (uintptr_t)data_word;
	}
	if ((long)arg == RETURNS)
		return 5;
	for (;;)
		*stack++ = 0x41;
}

/* Calls another, which says what it is to do; and would write itself. */
struct nested {
	int to;
	int entry;
	void *arg;
	long *writes;
};

static long nests(void *arg)
{
	const struct nested *n = arg;
	long result = -77;
	int err = epk_gate_call(ids[n->to], n->entry, n->arg, &result);

	if (n->writes)
		*(volatile long *)n->writes = -1;
	return err ? err : result;
}

static long adds(void *arg)
{
	return ++*(long *)arg;
}

static long forks(void *arg)
{
	(void)arg;
	return system_call(SYS_fork, 0, 0, 0);
}

struct asked {
	long nr, args[6];
};

static long asks(void *arg)
{
	const struct asked *asked = arg;
	register long r10 asm("r10") = asked->args[3];
	register long r8 asm("r8") = asked->args[4];
	register long r9 asm("r9") = asked->args[5];
	long result = asked->nr;

	asm volatile("syscall" : "+a"(result)
		     : "D"(asked->args[0]), "S"(asked->args[1]), "d"(asked->args[2]), "r"(r10),
		       "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return result;
}

/* Which key it has open beside the ordinary one. */
static long key_there(void *arg)
{
	uint32_t pkru = rdpkru();
	int key;

	(void)arg;
	for (key = 1; key < 16 && pkru & PKRU_BITS(key); key++)
		;
	return key;
}

static long stores(void *arg)
{
	*(volatile char *)arg = 42;
	return 0;
}

enum { WRITES, ERRNO, PARSES, PKRU, WAITS, RUNS, ALLOCATES, MALLOCS, SMASHES, NESTS, ADDS, FORKS,
	ASKS, KEY, STORES, NR_ENTRIES };

static long (*const entries[])(void *arg) = {
	writes, sets_errno, parses, pkru_there, waits_for, runs_for, allocates, mallocs, smashes,
	nests, adds, forks, asks, key_there, stores,
};

static void set_up(void)
{
	struct epk_component_options options = { .size = sizeof(options), .heap_bytes = 20000 };
	int i;

	REQUIRE(!alloc_domains(NR, ids));
	for (i = 0; i < NR; i++) {
		own[i] = domain_mmap(ids[i], NULL, PAGE, RW, 0);
		REQUIRE(own[i] != MAP_FAILED);
		options.flags = i == PLAIN ? 0 : EPK_COMPONENT_CONFINED;
		REQUIRE(!epk_component_create(ids[i], entries, NR_ENTRIES, &options));
	}
}

static void require_open(void)
{
	char byte;
	int i;

	REQUIRE(!(rdpkru() & PKRU_BITS(0)));
	REQUIRE(!epk_held(NULL, 0));
	for (i = 0; i < NR; i++)
		REQUIRE(!try_read((char *)own[i], &byte));
}

static void tear_down(void)
{
	require_open();
	REQUIRE(!free_domains(NR, ids));
}

static long call(int n, int entry, void *arg)
{
	long result = -77;
	int err = epk_gate_call(ids[n], entry, arg, &result);

	return err ? err : result;
}

static void parsing(void)
{
	char text[] = "12,34,5";

	set_up();
	REQUIRE(call(0, PARSES, text) == 51);
	REQUIRE(call(0, PARSES, text) == 51);
	REQUIRE(call(0, PKRU, NULL) == WD0);
	REQUIRE(call(PLAIN, PKRU, NULL) == 0);
	REQUIRE(call(0, NR_ENTRIES, NULL) == -EINVAL);
	REQUIRE(domain_begin(ids[0], RW) == -EPERM);
	tear_down();
}

static char *new_page(void)
{
	char *page = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(page != MAP_FAILED);
	page[0] = 1;
	return page;
}

static void taken_over(int sig)
{
	ticks += sig;
}

#define ASK(...)	call(0, ASKS, &(struct asked) { __VA_ARGS__ })

/* What is not stopped: system calls that do more than write as the thread itself does. */
static void asking(void)
{
	static char memory[16384];
	/* As the kernel has it. */
	const long action[4] = { (long)taken_over };
	struct sigaction was;
	stack_t stack = { .ss_sp = memory, .ss_size = sizeof(memory) }, now;
	struct iovec from = { "2", 1 }, to = { NULL, 1 };
	char *page = new_page(), byte;

	set_up();
	REQUIRE(ASK(SYS_munmap, { (long)page, PAGE }) == 0);
	REQUIRE(!try_read(page, &byte));

	page = new_page();
	REQUIRE(ASK(SYS_mmap, { (long)page, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1 }) ==
		(long)page);
	REQUIRE(page[0] == 0);

	page = to.iov_base = new_page();
	REQUIRE(ASK(SYS_process_vm_writev, { getpid(), (long)&from, 1, (long)&to, 1 }) == 1);
	REQUIRE(page[0] == '2');

	/* It is the domain's then, as far as a key says so. */
	page = new_page();
	REQUIRE(call(0, STORES, page) == -EFAULT);
	REQUIRE(ASK(SYS_pkey_mprotect, { (long)page, PAGE, RW, call(0, KEY, NULL) }) == 0);
	REQUIRE(call(0, STORES, page) == 0);
	REQUIRE(ASK(SYS_pkey_mprotect, { (long)page, PAGE, RW, 0 }) == 0);
	REQUIRE(page[0] == 42);

	/* Where the kernel goes on. */
	REQUIRE(!sigaction(SIGWINCH, NULL, &was) && was.sa_handler == SIG_DFL);
	REQUIRE(ASK(SYS_rt_sigaction, { SIGWINCH, (long)action, 0, 8 }) == 0);
	REQUIRE(!sigaction(SIGWINCH, NULL, &was) && was.sa_handler == taken_over);
	REQUIRE(ASK(SYS_sigaltstack, { (long)&stack }) == 0);
	REQUIRE(!sigaltstack(NULL, &now) && now.ss_sp == memory);
	tear_down();
}

static bool has_avx(void)
{
	unsigned int eax, ebx, ecx, edx;

	return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_OSXSAVE && ecx & bit_AVX;
}

static void each_way_to(const char *what, char *at)
{
	struct write w = { .at = at };
	char before[1024];
	int i;

	memcpy(before, (char *)((uintptr_t)at & -16ul), 64);
	for (w.how = 0; w.how < NR_WAYS; w.how++) {
		if (w.how == AVX && !has_avx())
			continue;
		for (i = 0; i < 3; i++)
			if (call(0, WRITES, &w) != -EFAULT) {
				printf("%s: %s\n", what, ways[w.how]);
				_exit(1);
			}
		if (memcmp(before, (char *)((uintptr_t)at & -16ul), 64)) {
			printf("%s changed by %s\n", what, ways[w.how]);
			_exit(1);
		}
		require_open();
	}
}

static void writing(void)
{
	char *heap = malloc(1000), *fresh;
	long local[64] = { 5 }, before;
	struct write w = { .how = STORE };

	set_up();
	zero_fd = open("/dev/zero", O_RDONLY);
	REQUIRE(zero_fd >= 0);
	fresh = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	each_way_to("heap", heap + 200);
	each_way_to("data", (char *)(data_word + 2));
	each_way_to("bss", (char *)bss_word);
	each_way_to("thread-local", (char *)tls_word);
	each_way_to("stack", (char *)(local + 8));
	each_way_to("new page", fresh);
	each_way_to("stdio", (char *)stdout + 32);
	each_way_to("the library's word", (char *)&epk_word + 16);
	each_way_to("records", epk_word.confined + EPK_CONF_BYTES);
	for (w.how = 0; w.how < NR_WAYS; w.how++) {
		/* Each of them can be done. */
		w.at = (char *)(own[0] + 100);
		if (w.how != AVX || has_avx())
			REQUIRE(call(0, WRITES, &w) == (w.how == READ ? 8 : 0));
		w.at = (char *)data_word;
		before = data_word[0];
		if (w.how != AVX || has_avx())
			REQUIRE(call(PLAIN, WRITES, &w) == -EFAULT);
		REQUIRE(data_word[0] == before);
	}
	tear_down();
}

static void thread_local_words(void)
{
	pthread_t self = pthread_self();
	int i;

	set_up();
	for (i = 0; i < 3; i++) {
		errno = 7;
		memcpy(&tls_word[2], &self, sizeof(self));
		REQUIRE(call(0, ERRNO, (void *)7) == ERANGE);
		REQUIRE(errno == 7 && !tls_word[0] && !tls_word[1]);
		REQUIRE(pthread_self() == self);
	}
	tear_down();
}

static void heaps(void)
{
	set_up();
	REQUIRE(call(0, MALLOCS, (void *)10000) == 0);
	REQUIRE(call(0, MALLOCS, (void *)10000) == 0);
	/* It cannot grow. */
	REQUIRE(call(0, MALLOCS, (void *)100000) == -1);
	REQUIRE(call(0, MALLOCS, (void *)10000) == 0);
	/* The library's notes are ordinary memory, and locked. */
	REQUIRE(call(0, ALLOCATES, (void *)10) == -EFAULT);
	tear_down();
}

static void smashing(void)
{
	int i;

	set_up();
	for (i = 0; i < 20; i++) {
		REQUIRE(call(0, SMASHES, (void *)RETURNS) == 5);
		/* What was other threads' is lost to them. */
		REQUIRE(call(0, SMASHES, (void *)FAULTS) == -EFAULT);
		require_open();
	}
	REQUIRE(call(0, PARSES, "1,2") == 3);
	tear_down();
}

static void nesting(void)
{
	long word = 5, target = 6;
	struct nested n = { .to = PLAIN, .entry = ADDS, .arg = &word };
	struct nested two = { .to = 0, .entry = NESTS, .arg = &n };
	struct nested three = { .to = 1, .entry = NESTS, .arg = &two };
	struct nested writes;
	int i;

	set_up();
	/* What the other may, and itself not. */
	REQUIRE(call(0, NESTS, &n) == 6 && word == 6);
	REQUIRE(call(1, NESTS, &n) == 7 && word == 7);
	n.writes = &target;
	REQUIRE(call(0, NESTS, &n) == -EFAULT && word == 8 && target == 6);
	n.writes = NULL;
	REQUIRE(call(1, NESTS, &two) == 9 && word == 9);
	writes = two;
	writes.writes = &target;
	REQUIRE(call(1, NESTS, &writes) == -EFAULT && word == 10 && target == 6);
	n.writes = &target;
	REQUIRE(call(1, NESTS, &two) == -EFAULT && word == 11 && target == 6);
	/* One that is not confined, after what is. */
	writes = (struct nested) { .to = 0, .entry = PKRU, .writes = &target };
	REQUIRE(call(PLAIN, NESTS, &writes) == WD0 && target == -1);
	target = 6;
	n.writes = NULL;
	REQUIRE(call(PLAIN, NESTS, &three) == 12 && word == 12);
	/* Faults below. */
	writes = (struct nested) { .to = 1, .entry = ADDS, .arg = &word };
	REQUIRE(call(0, NESTS, &writes) == -EFAULT);
	writes.writes = &target;
	REQUIRE(call(PLAIN, NESTS, &writes) == -EFAULT && target == -1);
	target = 6;
	writes = (struct nested) { .to = 0, .entry = PKRU };
	two = (struct nested) { .to = 1, .entry = NESTS, .arg = &writes };
	/* Once in a thread. */
	REQUIRE(call(0, NESTS, &writes) == -EDEADLK);
	REQUIRE(call(0, NESTS, &two) == -EDEADLK);
	REQUIRE(call(0, PKRU, NULL) == WD0);
	for (i = 0; i < 100; i++)
		REQUIRE(call(i % NR, NESTS, &n) >= 0 || i % NR == PLAIN);
	tear_down();
}

static long signal_target[4] = { 1, 2, 3, 4 };
static volatile int forge;

static size_t pkru_offset(void)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid_count(0xd, 9, eax, ebx, ecx, edx);
	return ebx;
}

static void tick(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint32_t *pkru = (uint32_t *)((char *)uc->uc_mcontext.fpregs + pkru_offset());

	(void)sig;
	(void)info;
	if (rdpkru() & PKRU_BITS(0))
		_exit(3);
	if (forge)
		*pkru = forge == 1 ? 0 : *pkru | WD0;
	signal_target[1]++;
	ticks++;
}

static volatile bool stop;

static void *other_thread(void *arg)
{
	const struct timespec pause = { .tv_nsec = 3000000 };

	while (!stop) {
		nanosleep(&pause, NULL);
		pthread_kill(*(pthread_t *)arg, SIGUSR1);
	}
	return NULL;
}

static void signals_on(int flags)
{
	static char stack[1 << 16];
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction act = { .sa_sigaction = tick, .sa_flags = flags | SA_SIGINFO };
	pthread_t thread, me = pthread_self();
	long before;

	REQUIRE(!sigaltstack(&alt, NULL));
	REQUIRE(!sigaction(SIGUSR1, &act, NULL));
	set_up();
	REQUIRE(!pthread_create(&thread, NULL, other_thread, &me));
	for (forge = 0; forge < 3; forge++) {
		REQUIRE(call(0, WAITS, NULL) == 0);
		REQUIRE(call(0, WAITS, signal_target) == -EFAULT);
		REQUIRE(signal_target[0] == 1);
	}
	/* And ordinary code stays what it is. */
	for (forge = 1; forge < 3; forge++)
		for (before = ticks; ticks < before + 3; )
			signal_target[2]++;
	forge = 0;
	stop = true;
	REQUIRE(!pthread_join(thread, NULL));
	tear_down();
}

static void signals_here(void)
{
	signals_on(0);
}

static void signals_elsewhere(void)
{
	signals_on(SA_ONSTACK);
}

static void *spins(void *arg)
{
	(void)arg;
	while (!stop)
		;
	return NULL;
}

static void on_one_cpu(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	REQUIRE(!sched_setaffinity(0, sizeof(one), &one));
}

/* The kernel says on which CPU the thread goes on. */
static void preemption(void)
{
	pthread_t thread;

	on_one_cpu();
	set_up();
	REQUIRE(!pthread_create(&thread, NULL, spins, NULL));
	REQUIRE(call(0, RUNS, (void *)1500) > 0);
	stop = true;
	REQUIRE(!pthread_join(thread, NULL));
	tear_down();
}

static void *moves_it(void *arg)
{
	int ept = EPK_EPT_NONE;

	(void)arg;
	while (!stop) {
		struct epk_move move = { .id = ids[0], .ept = ept };
		struct epk_moves moves = { .num = 1, .moves = (uintptr_t)&move };

		ioctl(epk_now.fd, EPK_IOC_MOVE, &moves);
		ept = ept == EPK_EPT_NONE ? EPK_EPT_ANY : EPK_EPT_NONE;
		sched_yield();
	}
	return NULL;
}

static void moving(void)
{
	pthread_t thread;
	int i;

	set_up();
	REQUIRE(!pthread_create(&thread, NULL, moves_it, NULL));
	REQUIRE(call(0, RUNS, (void *)500) > 0);
	for (i = 0; i < 300; i++)
		REQUIRE(call(0, PARSES, "1,2") == 3);
	stop = true;
	REQUIRE(!pthread_join(thread, NULL));
	tear_down();
}

static void *calls_often(void *arg)
{
	struct write w = { .how = STORE, .at = (char *)data_word };
	int i;

	(void)arg;
	for (i = 0; i < 200; i++) {
		REQUIRE(call(0, PARSES, "1,2") == 3);
		REQUIRE(call(0, WRITES, &w) == -EFAULT);
	}
	return NULL;
}

/* More than it has places, one set after the other. */
static void threads(void)
{
	pthread_t id[8];
	int i, round;

	set_up();
	for (round = 0; round < 4; round++) {
		for (i = 0; i < 8; i++)
			REQUIRE(!pthread_create(&id[i], NULL, calls_often, NULL));
		for (i = 0; i < 8; i++)
			REQUIRE(!pthread_join(id[i], NULL));
	}
	REQUIRE(data_word[0] == 1);
	tear_down();
}

static void forking(void)
{
	int status;
	long pid;

	set_up();
	pid = call(0, FORKS, NULL);
	REQUIRE(pid > 0);
	REQUIRE(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	REQUIRE(WTERMSIG(status) == SIGSEGV);
	tear_down();
}

IN_CHILD(parsing)
IN_CHILD(asking)
IN_CHILD(writing)
IN_CHILD(thread_local_words)
IN_CHILD(heaps)
IN_CHILD(smashing)
IN_CHILD(nesting)
IN_CHILD(signals_here)
IN_CHILD(signals_elsewhere)
IN_CHILD(preemption)
IN_CHILD(moving)
IN_CHILD(threads)
IN_CHILD(forking)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_child_parsing),
		cmocka_unit_test(in_child_asking),
		cmocka_unit_test(in_child_writing),
		cmocka_unit_test(in_child_thread_local_words),
		cmocka_unit_test(in_child_heaps),
		cmocka_unit_test(in_child_smashing),
		cmocka_unit_test(in_child_nesting),
		cmocka_unit_test(in_child_signals_here),
		cmocka_unit_test(in_child_signals_elsewhere),
		cmocka_unit_test(in_child_preemption),
		cmocka_unit_test(in_child_moving),
		cmocka_unit_test(in_child_threads),
		cmocka_unit_test(in_child_forking),
	};

	skip_if(!backend_is("epk"), "has no components");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
