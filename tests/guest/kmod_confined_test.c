// SPDX-License-Identifier: MIT
/*
 * Key 0 write-disabled, as a confined domain wants it: signals and calls put it aside and give it back,
 * whatever a frame says; frames are not written where the code could not; and a switch of threads is no
 * fault.
 */
#include "private_test.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "forge.h"

#define KEY0	3u
#define WD0	2u

/*
 * All of it writes to no memory while key 0 is write-disabled, and gives it back as it was.
 * confined_until(flag, value): reads until *flag is as much, with an FS base of its own; PKRU then, or 0 if
 * that has changed.
 * confined_calls(fd): PKRU within a call, and, in bits 2 and 3, behind it.
 * confined_returns(fd, arg): PKRU behind a return from no call, or with EPK_RETURN_NOTHING from the last.
 * returns_confined(fd): PKRU behind a return from a call that was made before.
 * signalled(pid, sig): PKRU behind a signal.
 * sigreturns_confined(context): from its handler.
 */
#define RDPKRU	"	xor	%ecx, %ecx\n	.byte	0x0f, 0x01, 0xee\n"
#define WRPKRU	"	xor	%ecx, %ecx\n	xor	%edx, %edx\n	.byte	0x0f, 0x01, 0xef\n"
#define CONFINE	RDPKRU "	or	$2, %eax\n" WRPKRU
#define OPEN	RDPKRU "	and	$~2, %eax\n" WRPKRU
asm(
"	.text\n"
"confined_until:\n"
	CONFINE
"	rdfsbase %r10\n"
"	lea	64(%r10), %r11\n"
"	wrfsbase %r11\n"
"confined_loop:\n"
"	cmp	%esi, (%rdi)\n"
"	jl	confined_loop\n"
"confined_loop_end:\n"
	RDPKRU
"	mov	%eax, %r8d\n"
"	xor	%ecx, %ecx\n"
"	rdfsbase %r9\n"
"	cmp	%r9, %r11\n"
"	cmovne	%ecx, %r8d\n"
"	wrfsbase %r10\n"
	OPEN
"confined_until_end:\n"
"	mov	%r8d, %eax\n"
"	ret\n"
"confined_calls:\n"
	CONFINE
"	mov	$0x45ef, %esi\n"
"	xor	%edx, %edx\n"
"	mov	$16, %eax\n"
"	syscall\n"
"	mov	%eax, %r8d\n"
	RDPKRU
"	and	$3, %eax\n"
"	or	%eax, %r8d\n"
	OPEN
"	mov	$0x45f0, %esi\n"
"	xor	%edx, %edx\n"
"	mov	$16, %eax\n"
"	syscall\n"
"	or	%eax, %r8d\n"
	RDPKRU
"	and	$3, %eax\n"
"	shl	$2, %eax\n"
"	or	%eax, %r8d\n"
	OPEN
"	mov	%r8d, %eax\n"
"	ret\n"
"confined_returns:\n"
"	mov	%rsi, %r8\n"
	CONFINE
"	mov	$0x45f0, %esi\n"
"	mov	%r8, %rdx\n"
"	mov	$16, %eax\n"
"	syscall\n"
	RDPKRU
"	mov	%eax, %r8d\n"
	OPEN
"	mov	%r8d, %eax\n"
"	ret\n"
"returns_confined:\n"
"	mov	$0x45ef, %esi\n"
"	xor	%edx, %edx\n"
"	mov	$16, %eax\n"
"	syscall\n"
	CONFINE
"	mov	$0x45f0, %esi\n"
"	xor	%edx, %edx\n"
"	mov	$16, %eax\n"
"	syscall\n"
"	jmp	1f\n"
"signalled:\n"
"	mov	$62, %eax\n"
"	syscall\n"
"1:"	RDPKRU
"	mov	%eax, %r8d\n"
	OPEN
"	mov	%r8d, %eax\n"
"	ret\n"
"sigreturns_confined:\n"
	CONFINE
"	mov	%rdi, %rsp\n"
"	mov	$15, %eax\n"
"	syscall\n"
);
extern uint32_t confined_until(const volatile int *flag, int value);
extern const char confined_until_end[], confined_loop[], confined_loop_end[];
extern uint32_t confined_calls(int fd);
extern uint32_t confined_returns(int fd, unsigned long arg);
extern uint32_t returns_confined(int fd);
extern uint32_t signalled(pid_t pid, int sig);
extern void sigreturns_confined(void *context) __attribute__((noreturn));

/* All ticks, and those that have met confined_until() where it waits: on a slow machine others do not. */
static volatile int ticks, confined_ticks, forge;
/* Where a word says that frames go. */
static char below[1 << 16] __attribute__((aligned(16)));
static uintptr_t below_end = (uintptr_t)(below + sizeof(below));
static volatile bool has_below;
static uintptr_t own_fs;

static uintptr_t fs_base(void)
{
	uintptr_t fs;

	asm volatile("rdfsbase %0" : "=r"(fs));
	return fs;
}

static bool was_confined(const ucontext_t *uc)
{
	const char *at = (const char *)uc->uc_mcontext.gregs[REG_RIP];

	return at >= confined_loop && at < confined_loop_end;
}

static void tick(int sig, siginfo_t *info, void *context)
{
	bool confined = was_confined(context);

	(void)sig;
	(void)info;
	CHECK_EQ(epk_rdpkru() & KEY0, 0);
	CHECK_EQ(fs_base() - own_fs, 0);
	if (has_below && confined)
		CHECK((char *)context >= below && (char *)context < below + sizeof(below));
	if (forge == 1)
		*frame_pkru(context) &= ~KEY0;
	if (forge == 2)
		*frame_pkru(context) |= WD0;
	ticks++;
	confined_ticks += confined;
}

static void tick_each(long usec, int flags)
{
	static char stack[1 << 16];
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction sa = { .sa_sigaction = tick, .sa_flags = SA_SIGINFO | flags };
	struct itimerval timer = { { 0, usec }, { 0, usec } };

	REQUIRE(!sigaltstack(&alt, NULL));
	REQUIRE(!sigaction(SIGALRM, &sa, NULL));
	REQUIRE(!setitimer(ITIMER_REAL, &timer, NULL));
}

/* Is armed what threads that are confined need, and what all programs go through then? */
static bool is_armed(void)
{
	char names[4096] = { 0 };
	int fd = open("/sys/module/epk/parameters/hooks", O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0 && read(fd, names, sizeof(names) - 1) > 0);
	close(fd);
	return strstr(names, "rseq");
}

/* As if nobody had ever been confined. */
static void load_anew(void)
{
	int fd = open("/epk/epk.ko", O_RDONLY | O_CLOEXEC);
	const char *defect = epk_module_defect();

	REQUIRE(fd >= 0 && !syscall(SYS_delete_module, "epk", O_NONBLOCK));
	REQUIRE(!syscall(SYS_finit_module, fd, defect, 0));
	close(fd);
	CHECK(!is_armed());
}

/* A note that is refused, for whatever reason, arms nothing. */
static void refused_notes_arm_nothing(void)
{
	const uint32_t confined = EPK_NOTE_PRIVATE | EPK_NOTE_CONFINED;
	char *mem[2], *plain;
	int id[2], i;

	for (i = 0; i < 2; i++)
		id[i] = new_domain(&mem[i], 1);
	plain = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(plain != MAP_FAILED);
	CHECK_EQ(note_flags(id[0], mem[0], EPK_NOTE_CONFINED), -EINVAL);
	CHECK_EQ(note_flags(id[0], mem[0], confined | 4), -EINVAL);
	CHECK_EQ(note_flags(id[0], mem[0] + 8, confined), -EINVAL);
	CHECK_EQ(note_flags(id[0], mem[1], confined), -EINVAL);
	CHECK_EQ(note_flags(id[0], plain, confined), -EINVAL);
	CHECK_EQ(note_flags(id[0], (void *)~4095ul, confined), -EINVAL);
	CHECK_EQ(note_flags(id[0] + (1 << EPK_ID_INDEX_BITS), mem[0], confined), -ENOENT);
	CHECK_EQ(note_flags(0, mem[0], confined), -ENOENT);
	REQUIRE(ioctl(dev.fd, EPK_IOC_PROTECT, EPK_BEGIN(id[0], PROT_READ)) == 0);
	CHECK_EQ(note_flags(id[0], mem[0], confined), -EBUSY);
	REQUIRE(ioctl(dev.fd, EPK_IOC_PROTECT, EPK_BEGIN(id[0], 0)) == 0);
	CHECK_EQ(note_flags(id[1], mem[1], 0), 0);
	CHECK_EQ(note_flags(id[1], mem[1], confined), -EBUSY);
	CHECK_EQ(make_private(id[0], mem[0]), 0);
	CHECK_EQ(note_flags(id[0], mem[0], confined), -EPERM);
	CHECK(!is_armed());
	for (i = 0; i < 2; i++)
		done_with(id[i], mem[i], 1);
	munmap(plain, PAGE);
}

static void notes_say_it(void)
{
	char *mem;
	int id = new_domain(&mem, 1);
	struct epk_move move = { .ept = EPK_EPT_ANY };

	CHECK_EQ(note_flags(id, mem, EPK_NOTE_CONFINED), -EINVAL);
	CHECK_EQ(note_flags(id, mem, EPK_NOTE_PRIVATE | EPK_NOTE_CONFINED), 0);
	CHECK(is_armed());
	CHECK_EQ(EPK_NOTE_ADDR(note_of(id)), (uintptr_t)mem);
	/* Who knows nothing of it finds no key. */
	CHECK_EQ(note_of(id) & 15, 0);
	CHECK_EQ(private_gate(&notes[EPK_ID_INDEX(id)]), 0);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK(note_of(id) & EPK_NOTE_IS_CONFINED);
	CHECK_EQ(EPK_NOTE_PKEY(note_of(id)), 0);
	CHECK_EQ(admit(id, &move), 0);
	CHECK(note_of(id) & EPK_NOTE_IS_CONFINED);
	CHECK_EQ(EPK_NOTE_PKEY(note_of(id)), move.pkey);
	CHECK_EQ(EPK_NOTE_EPT(note_of(id)), move.ept);
	done_with(id, mem, 1);
}

static void signals(void)
{
	int round, before;

	tick_each(5000, SA_ONSTACK);
	for (forge = 0; forge < 3; forge++) {
		for (round = 0; round < 3; round++)
			CHECK_EQ(confined_until(&confined_ticks, confined_ticks + 2) & KEY0,
				 WD0);
		/* And nobody is confined by a frame. */
		for (before = ticks; ticks < before + 2; )
			if (epk_rdpkru() & KEY0)
				break;
		CHECK_EQ(epk_rdpkru() & KEY0, 0);
	}
	forge = 0;
	tick_each(0, SA_ONSTACK);
}

static void calls(void)
{
	CHECK_EQ(confined_calls(dev.fd), WD0 | WD0 << 2);
	CHECK_EQ(confined_returns(dev.fd, 0) & KEY0, WD0);
	REQUIRE(!ioctl(dev.fd, EPK_IOC_CALL, 0));
	CHECK_EQ(confined_returns(dev.fd, EPK_RETURN_NOTHING) & KEY0, WD0);
	CHECK_EQ(epk_rdpkru() & KEY0, 0);
}

static void goes_back(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	sigreturns_confined(context);
}

/* Nobody gets rid of it by going on as who has been there before. */
static void returns(void)
{
	struct sigaction sa = { .sa_sigaction = goes_back, .sa_flags = SA_SIGINFO };

	CHECK_EQ(returns_confined(dev.fd) & KEY0, WD0);
	REQUIRE(!sigaction(SIGUSR1, &sa, NULL));
	CHECK_EQ(signalled(getpid(), SIGUSR1) & KEY0, WD0);
}

/* A stack pointer is not to be trusted, in no gate either: who has no word has no frame. */
static void frame_of(bool word)
{
	struct epk_gate gates[] = {
		{ (uintptr_t)private_gate, (uintptr_t)private_gate_end, (uintptr_t)private_gate },
		{ (uintptr_t)confined_until, (uintptr_t)confined_until_end, 0 },
	};
	struct epk_gates arg = {
		.num = 2, .gates = (uintptr_t)gates,
		.stack = word ? (uintptr_t)&below_end - own_fs : 0,
	};
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		epk_failures = 0;
		close(dev.fd);
		make_domains();
		REQUIRE(ioctl(dev.fd, EPK_IOC_GATES, &arg) == 0);
		REQUIRE(follow() == 0);
		has_below = word;
		/* Not once more, on the alternate stack. */
		signal(SIGSEGV, SIG_DFL);
		tick_each(20000, 0);
		CHECK_EQ(confined_until(&confined_ticks, confined_ticks + 2) & KEY0, WD0);
		has_below = false;
		_exit(epk_failures != 0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(word ? !status : WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static volatile int stop;

static void *runs_too(void *unused)
{
	while (!stop) {
		ticks++;
		sched_yield();
	}
	return unused;
}

/* Each time the kernel writes on which CPU the thread goes on. */
static void switches(void)
{
	pthread_t thread;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	REQUIRE(!sched_setaffinity(0, sizeof(one), &one));
	REQUIRE(!pthread_create(&thread, NULL, runs_too, NULL));
	CHECK_EQ(confined_until(&ticks, ticks + 50) & KEY0, WD0);
	stop = 1;
	pthread_join(thread, NULL);
}

int main(void)
{
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	own_fs = fs_base();
	load_anew();
	private_init(0);
	RUN(refused_notes_arm_nothing());
	RUN(notes_say_it());
	RUN(signals());
	RUN(calls());
	RUN(returns());
	RUN(frame_of(true));
	RUN(frame_of(false));
	RUN(switches());
	return epk_test_result();
}
