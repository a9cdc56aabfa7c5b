// SPDX-License-Identifier: MIT
/*
 * vfork(), posix_spawn() and system() by code whose stack lies in a domain, and whose arguments do:
 * the child may access what its parent holds while that waits for it, and nothing else; and
 * no other process or thread may that shares the memory.
 */
#include "call_test.h"

#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define STACK	(32 * PAGE)

extern char **environ;

/* x: where the stack lies; y: in another EPT, or nowhere, and held to read; z: nobody's. */
static int x, y, z;
static char *stack;
static char ordinary[3][1 << 16] __attribute__((aligned(64)));

static void *top(void)
{
	return stack + STACK - 256;
}

static void *ordinary_top(int n)
{
	return ordinary[n] + sizeof(ordinary[n]) - 256;
}

static void set_up(void)
{
	int *two;

	make_domains();
	REQUIRE(follow() == 0);
	CHECK_EQ(begin(ids[0]), 0);
	CHECK_EQ(end(ids[0]), 0);
	two = apart();
	x = two[0], y = two[1];
	for (z = 0; z == x || z == y; z++)
		;
	stack = epk_device_map(&dev, ids[x], STACK);
	REQUIRE(stack != MAP_FAILED);
	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(begin_prot(ids[y], PROT_READ), 0);
}

static void holds_both(int line)
{
	list(ids[x], PROT_READ | PROT_WRITE, ids[y], PROT_READ);
	epk_check(reaches(x) && reaches(y) && !reaches(z), __FILE__, line, "holds both", "");
}

static bool exited(pid_t pid, int with)
{
	int status = -1;

	return waitpid(pid, &status, __WALL) == pid && WIFEXITED(status) &&
	       WEXITSTATUS(status) == with;
}

static void executes(void)
{
	char path[] = "/proc/self/exe", number[] = "7";
	char *args[] = { path, "executed", number, NULL };
	pid_t pid = vfork();

	if (!pid) {
		execv(path, args);
		_exit(1);
	}
	CHECK(exited(pid, 7));
	holds_both(__LINE__);
}

static void spawns(void)
{
	char path[] = "/proc/self/exe", number[] = "8";
	char *args[] = { path, "executed", number, NULL };
	posix_spawnattr_t attr;
	sigset_t none;
	pid_t pid;

	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attr, &none);
	CHECK_EQ(posix_spawn(&pid, path, NULL, &attr, args, environ), 0);
	CHECK(exited(pid, 8));
	path[1] = 'x';
	CHECK_EQ(posix_spawn(&pid, path, NULL, &attr, args, environ), ENOENT);
	holds_both(__LINE__);
}

static void shell(void)
{
	char command[] = "exit 9";
	int status;

	if (access("/bin/sh", X_OK)) {
		puts("no shell here");
		return;
	}
	status = system(command);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
	holds_both(__LINE__);
}

/* What the child finds, in the memory that it shares. */
static volatile bool found[8];

static void child_only(void)
{
	pid_t pid;

	memset((void *)found, 0, sizeof(found));
	pid = vfork();
	if (!pid) {
		found[0] = reaches(x) && can_write(pages[x]);
		found[1] = reaches(y);
		found[2] = !can_write(pages[y]);
		found[3] = !reaches(z);
		found[4] = getpid() != getppid() && begin(ids[z]) == 0 && can_write(pages[z]);
		_exit(10);
	}
	CHECK(exited(pid, 10));
	CHECK(found[0]);
	CHECK(found[1]);
	CHECK(found[2]);
	CHECK(found[3]);
	CHECK(found[4]);
	/* What the child began it has taken with it. */
	holds_both(__LINE__);
}

static void nested(void)
{
	pid_t pid;

	memset((void *)found, 0, sizeof(found));
	pid = vfork();
	if (!pid) {
		pid_t inner = vfork();

		if (!inner) {
			/* Its parent has not touched y. */
			found[0] = reaches(x);
			found[1] = !reaches(y);
			_exit(0);
		}
		found[2] = exited(inner, 0);
		found[3] = reaches(y);
		_exit(11);
	}
	CHECK(exited(pid, 11));
	CHECK(found[0] && found[1] && found[2] && found[3]);
	holds_both(__LINE__);
}

/* The parent's domains go while the child runs. */
static void moved(void)
{
	uint32_t ept = epk_device_is_alone(&dev) ? EPK_EPT_ANY : FAR_EPT;
	pid_t pid;

	memset((void *)found, 0, sizeof(found));
	pid = vfork();
	if (!pid) {
		found[0] = !epk_device_move(&dev, ids[x], EPK_EPT_NONE) && reaches(x);
		found[1] = !epk_device_move(&dev, ids[y], EPK_EPT_NONE) && reaches(y);
		found[2] = !epk_device_move(&dev, ids[x], ept) && can_write(pages[x]);
		found[3] = !epk_device_move(&dev, ids[y], EPK_EPT_NONE);
		_exit(12);
	}
	CHECK(exited(pid, 12));
	CHECK(found[0] && found[1] && found[2] && found[3]);
	holds_both(__LINE__);
}

/* In what the child calls, and in its handlers on an ordinary stack, there is nothing. */
static void in_handler(int sig)
{
	(void)sig;
	found[2] = !reaches(x) && !reaches(y);
}

static void calls(void)
{
	static struct step steps[4];
	struct sigaction action = { .sa_handler = in_handler, .sa_flags = SA_ONSTACK }, old;
	stack_t alternate = { .ss_sp = ordinary[0], .ss_size = sizeof(ordinary[0]) };
	stack_t old_stack;
	pid_t pid;

	memset((void *)found, 0, sizeof(found));
	REQUIRE(!sigaction(SIGUSR1, &action, &old));
	CHECK_EQ(sigaltstack(&alternate, &old_stack), 0);
	pid = vfork();
	if (!pid) {
		/* A new process has no alternate stack, but the child of vfork() has. */
		steps[0] = (struct step) { .nr = SYS_ioctl, .args = { dev.fd, EPK_IOC_CALL,
			EPK_BEGIN(ids[z], PROT_READ | PROT_WRITE) } };
		steps[1] = (struct step) { .touch = pages[x] };
		steps[2] = (struct step) { .touch = pages[z] };
		steps[3] = (struct step) { .nr = SYS_ioctl,
			.args = { dev.fd, EPK_IOC_RETURN, 0 } };
		run_steps(steps, 4);
		found[0] = !steps[0].ret && !steps[3].ret && reaches(x);
		found[1] = steps[1].ret == -EFAULT && steps[2].ret == 0;
		raise(SIGUSR1);
		found[3] = reaches(x) && reaches(y);
		_exit(13);
	}
	CHECK(exited(pid, 13));
	CHECK(found[0]);
	CHECK(found[1]);
	CHECK(found[2]);
	CHECK(found[3]);
	CHECK_EQ(sigaltstack(&old_stack, NULL), 0);
	REQUIRE(!sigaction(SIGUSR1, &old, NULL));
	holds_both(__LINE__);
}

/* A handler on the stack that lies in a domain, before the child has touched anything there. */
static volatile int handled;

static void count(int sig)
{
	(void)sig;
	handled++;
}

static void signals(void)
{
	struct sigaction action = { .sa_handler = count }, old;
	sigset_t usr, before;
	pid_t pid;

	REQUIRE(!sigaction(SIGUSR1, &action, &old));
	sigemptyset(&usr);
	sigaddset(&usr, SIGUSR1);
	handled = 0;
	pid = vfork();
	if (!pid) {
		raise(SIGUSR1);
		sigprocmask(SIG_BLOCK, &usr, &before);
		raise(SIGUSR1);
		sigprocmask(SIG_SETMASK, &before, NULL);
		_exit(14);
	}
	CHECK(exited(pid, 14));
	CHECK_EQ(handled, 2);
	raise(SIGUSR1);
	CHECK_EQ(handled, 3);
	REQUIRE(!sigaction(SIGUSR1, &old, NULL));
	holds_both(__LINE__);
}

static volatile bool stop;

static void *mover(void *unused)
{
	unsigned int i;

	for (i = 0; !stop; i++) {
		epk_device_move(&dev, ids[i % 2 ? x : y], EPK_EPT_NONE);
		if (i % 3)
			epk_device_move(&dev, ids[x], EPK_EPT_ANY);
		if (i % 5 == 0)
			sched_yield();
	}
	return unused;
}

static void race(void)
{
	struct timespec since;
	pthread_t thread;
	int i;

	stop = false;
	clock_gettime(CLOCK_MONOTONIC, &since);
	REQUIRE(!pthread_create(&thread, NULL, mover, NULL));
	for (i = 0; race_goes_on(i, 100, &since); i++) {
		pid_t pid = vfork();

		if (!pid)
			_exit(reaches(x) && reaches(y) && !reaches(z) ? 15 : 1);
		CHECK(exited(pid, 15));
	}
	stop = true;
	pthread_join(thread, NULL);
	holds_both(__LINE__);
}

/* On an ordinary stack, it touches nothing by itself. */
static int tries(void *exit_by)
{
	found[0] = true;
	found[1] = reaches(x);
	found[2] = reaches(y);
	found[3] = can_read(stack);
	syscall(exit_by ? SYS_exit : SYS_exit_group, 0);
	return 0;
}

static int try_child(int flags)
{
	pid_t pid;

	memset((void *)found, 0, sizeof(found));
	pid = clone(tries, ordinary_top(0), flags, flags & CLONE_THREAD ? (void *)1 : NULL);
	CHECK(pid > 0);
	if (!(flags & (CLONE_THREAD | CLONE_PARENT)))
		CHECK(exited(pid, 0));
	while (!found[0])
		sched_yield();
	usleep(1000);
	return found[1] + found[2] + found[3];
}

static void others(void)
{
	/* The contrast, and each way in which it is not that. */
	CHECK_EQ(try_child(CLONE_VM | CLONE_VFORK | SIGCHLD), 3);
	CHECK_EQ(try_child(CLONE_VM | SIGCHLD), 0);
	CHECK_EQ(try_child(CLONE_VM | CLONE_VFORK | CLONE_PARENT), 0);
	CHECK_EQ(try_child(CLONE_VM | CLONE_VFORK | CLONE_SIGHAND | CLONE_THREAD | CLONE_FILES), 0);
	holds_both(__LINE__);
}

/* A sister that the child makes, while their parent waits for the child. */
static int makes_sister(void *unused)
{
	(void)unused;
	found[4] = reaches(x);
	clone(tries, ordinary_top(1), CLONE_VM | CLONE_VFORK | CLONE_PARENT, NULL);
	_exit(16);
}

static void sister(void)
{
	pid_t pid;

	memset((void *)found, 0, sizeof(found));
	pid = clone(makes_sister, ordinary_top(0), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	CHECK(exited(pid, 16));
	CHECK(found[0] && found[4]);
	CHECK(!found[1] && !found[2] && !found[3]);
	while (waitpid(-1, NULL, __WALL) > 0)
		;
	holds_both(__LINE__);
}

/* The child of one that does not wait for it, made by one that holds nothing. */
static int makes_child(void *unused)
{
	(void)unused;
	clone(tries, ordinary_top(1), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	_exit(17);
}

static void granddaughter(void)
{
	pid_t pid;

	memset((void *)found, 0, sizeof(found));
	pid = clone(makes_child, ordinary_top(0), CLONE_VM | SIGCHLD, NULL);
	CHECK(exited(pid, 17));
	CHECK(found[0] && !found[1] && !found[2] && !found[3]);
	holds_both(__LINE__);
}

/* A thread that the child makes has nothing, though the child has. */
static int makes_thread(void *unused)
{
	(void)unused;
	found[4] = reaches(x);
	clone(tries, ordinary_top(1), CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_FILES,
	      (void *)1);
	while (!found[0])
		sched_yield();
	usleep(1000);
	_exit(18);
}

static void thread(void)
{
	pid_t pid;

	memset((void *)found, 0, sizeof(found));
	pid = clone(makes_thread, ordinary_top(0), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	CHECK(exited(pid, 18));
	CHECK(found[0] && found[4] && !found[1] && !found[2] && !found[3]);
	holds_both(__LINE__);
}

/* The parent is killed: what the child has not wanted before it cannot have. */
static volatile bool *outcome;

static int orphan(void *unused)
{
	pid_t parent = getppid();

	(void)unused;
	outcome[0] = reaches(x);
	kill(parent, SIGKILL);
	while (getppid() == parent)
		usleep(1000);
	outcome[1] = !reaches(y);
	outcome[2] = true;
	_exit(19);
}

static void killed(void)
{
	pid_t pid;

	outcome = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(outcome != MAP_FAILED);
	REQUIRE(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid = fork();
	if (!pid) {
		set_up();
		clone(orphan, ordinary_top(0), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
		_exit(1);
	}
	while (waitpid(-1, NULL, __WALL) > 0)
		;
	CHECK(outcome[0]);
	CHECK(outcome[1]);
	CHECK(outcome[2]);
}

/* A parent that is not registered, or whose rights do not follow, lends nothing. */
static void lends_nothing(void)
{
	int i;

	for (i = 0; i < 2; i++) {
		pid_t pid = fork();

		if (!pid) {
			epk_failures = 0;
			make_domains();
			x = 0, y = 1;
			stack = (char *)pages[0];
			if (i)
				CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS), 0);
			epk_device_enter(&dev, ids[x]);
			CHECK_EQ(try_child(CLONE_VM | CLONE_VFORK | SIGCHLD), 0);
			_exit(epk_failures ? 1 : 20);
		}
		CHECK(exited(pid, 20));
	}
}

static void on_stack(void)
{
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	RUN(executes());
	RUN(spawns());
	RUN(shell());
	RUN(child_only());
	RUN(nested());
	RUN(moved());
	RUN(calls());
	RUN(signals());
	RUN(race());
}

/* What makes children of its parent's is a process of its own. */
static void in_process(void (*what)(void))
{
	pid_t pid;

	/* What its children are not, comes here. */
	REQUIRE(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid = fork();
	if (!pid) {
		epk_failures = 0;
		alarm(20);
		set_up();
		what();
		_exit(epk_failures ? 1 : 21);
	}
	CHECK(exited(pid, 21));
	while (waitpid(-1, NULL, __WALL) > 0)
		;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "executed"))
		return atoi(argv[2]);
	set_up();
	run_on(top(), on_stack);
	RUN(in_process(others));
	RUN(in_process(sister));
	RUN(in_process(granddaughter));
	RUN(in_process(thread));
	RUN(killed());
	RUN(lends_nothing());
	return epk_test_result();
}
