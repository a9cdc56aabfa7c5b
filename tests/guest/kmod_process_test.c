// SPDX-License-Identifier: MIT
/*
 * fork, vfork, exec, exit, death and new threads while in an EPT and holding
 * a domain: what comes into being holds nothing and is in EPT 0, what was
 * there stays as it is, and nothing is left behind.
 */
#include "epk_test.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>

static struct epk_device dev;
static int ids[30];
static volatile int *secret;
static const char *self;

/* A record or context that its owner left behind shows here. */
static long count(const char *name)
{
	FILE *f = fopen("/sys/kernel/debug/epk/stats", "r");
	char word[32];
	long value;

	if (!f)
		EPK_SKIP("no /sys/kernel/debug/epk/stats");
	while (fscanf(f, "%31s %ld", word, &value) == 2) {
		if (!strcmp(word, name)) {
			fclose(f);
			return value;
		}
	}
	fclose(f);
	CHECK(!"the counter exists");
	return -1;
}

static void check_wait(pid_t pid, int expected)
{
	int status = -1;

	REQUIRE(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, expected);
}

static void check_parent(void)
{
	CHECK_EQ(dev.identity->ept, 1);
	CHECK_EQ(*secret, 42);
}

static void after_fork(void)
{
	pid_t pid = fork();

	if (!pid) {
		struct epk_domains arg = { .num = 1, .ids = (uintptr_t)ids };
		struct epk_device own;

		epk_failures = 0;
		/* Neither the domain nor the two pages are inherited... */
		CHECK_EQ(EPK_TRY((void)*secret), SIGSEGV);
		CHECK_EQ(EPK_TRY((void)dev.identity->ept), SIGSEGV);
		CHECK_EQ(EPK_TRY((void)dev.table->id), SIGSEGV);
		/* ...nor the context. */
		errno = 0;
		CHECK_EQ(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), -1);
		CHECK_EQ(errno, EPERM);
		errno = 0;
		CHECK_EQ(ioctl(dev.fd, EPK_IOC_FREE, &arg), -1);
		CHECK_EQ(errno, EPERM);
		errno = 0;
		CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), -1);
		CHECK_EQ(errno, EPERM);
		errno = 0;
		CHECK(epk_device_map(&dev, ids[15], 4096) == MAP_FAILED);
		CHECK_EQ(errno, EPERM);

		epk_device_open(&own);
		CHECK_EQ(own.identity->ept, 0);
		_exit(epk_failures != 0);
	}
	check_wait(pid, 0);
	check_parent();
}

static void after_vfork(void)
{
	pid_t pid = vfork();

	if (!pid) {
		execl(self, self, "fresh", NULL);
		_exit(1);
	}
	check_wait(pid, 0);
	check_parent();
}

/* A thread that is not registered stays where it goes until it leaves the CPU. */
static void go_rogue(void)
{
	do
		epk_vmfunc(1);
	while (dev.identity->ept != 1);
}

/* A child that ends in EPT 1, which it entered by hand. */
static pid_t rogue_child(void (*end)(void))
{
	pid_t pid = fork();

	if (!pid) {
		epk_device_open(&dev);
		REQUIRE(epk_device_alloc(&dev, 30, ids) == 0);
		go_rogue();
		end();
		_exit(1);
	}
	return pid;
}

/* A child that goes into EPT 1 with a record and a domain of its own. */
static pid_t child_in_ept(void (*end)(void))
{
	pid_t pid = fork();

	if (!pid) {
		epk_device_open(&dev);
		REQUIRE(epk_device_alloc(&dev, 30, ids) == 0);
		REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
		secret = epk_device_map(&dev, ids[15], 4096);
		epk_device_enter(&dev, ids[15]);
		REQUIRE(dev.identity->ept == 1);
		*secret = 1;
		end();
		_exit(1);
	}
	return pid;
}

static void end_exec(void)
{
	execl(self, self, "fresh", NULL);
}

static void end_exec_fails(void)
{
	execl("/nonexistent", "nonexistent", NULL);
	_exit(dev.identity->ept == 1 && *secret == 1 ? 0 : 1);
}

static void end_exit(void)
{
	_exit(0);
}

static void end_kill(void)
{
	kill(getpid(), SIGKILL);
}

static void end_fault(void)
{
	signal(SIGSEGV, SIG_DFL);
	*(volatile int *)NULL = 0;
}

/* With @arg it is a rogue. */
static void *thread_loop(void *arg)
{
	int i;

	if (!arg)
		ioctl(dev.fd, EPK_IOC_THREAD, 0);
	for (;;) {
		epk_vmfunc(1);
		for (i = 0; i < 100; i++)
			getppid();
	}
	return NULL;
}

/* Dies with other threads in EPTs, registered ones and rogues. */
static void end_threads(void)
{
	pthread_t thread;
	int i;

	for (i = 0; i < 4; i++)
		pthread_create(&thread, NULL, thread_loop, i % 2 ? &thread : NULL);
	usleep(20000);
	_exit(0);
}

/* execve() by another than the main thread kills the others. */
static void *exec_thread(void *arg)
{
	ioctl(dev.fd, EPK_IOC_THREAD, 0);
	epk_vmfunc(1);
	execl(self, self, "fresh", NULL);
	return arg;
}

static void end_thread_exec(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, exec_thread, NULL);
	pthread_join(thread, NULL);
}

/* Many threads at a time, each in an EPT of its own with a domain that it holds. */
#define MANY		200

static pthread_barrier_t barrier;
static volatile int many_bad;

static void *one_of_many(void *arg)
{
	int number = (long)arg, id = 0, i;
	struct epk_domains alloc = {
		.num = 1, .flags = EPK_ALLOC_AT(2 + number), .ids = (uintptr_t)&id,
	};
	volatile int *page = MAP_FAILED;

	if (!ioctl(dev.fd, EPK_IOC_THREAD, 0) && !ioctl(dev.fd, EPK_IOC_ALLOC, &alloc))
		page = epk_device_map(&dev, id, 4096);
	REQUIRE(page != MAP_FAILED);
	epk_device_enter(&dev, id);
	*page = number;
	pthread_barrier_wait(&barrier);
	for (i = 0; i < 5; i++) {
		if ((int)dev.identity->ept != 2 + number || *page != number)
			__atomic_fetch_add(&many_bad, 1, __ATOMIC_RELAXED);
		sched_yield();
	}
	pthread_barrier_wait(&barrier);
	return NULL;
}

static void end_many(void)
{
	long threads = count("threads"), i;
	pthread_t all[MANY];
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 2 * PTHREAD_STACK_MIN);
	pthread_barrier_init(&barrier, NULL, MANY + 1);
	for (i = 0; i < MANY; i++)
		REQUIRE(pthread_create(&all[i], &attr, one_of_many, (void *)i) == 0);
	pthread_barrier_wait(&barrier);
	CHECK_EQ(count("threads"), threads + MANY);
	CHECK_EQ(dev.identity->ept, 1);
	pthread_barrier_wait(&barrier);
	for (i = 0; i < MANY; i++)
		pthread_join(all[i], NULL);
	CHECK_EQ(many_bad, 0);
	/* Joining does not wait for a thread's last steps in the kernel. */
	for (i = 0; i < 2000 && count("threads") != threads; i++)
		usleep(1000);
	CHECK_EQ(count("threads"), threads);
	_exit(epk_failures != 0);
}

/* A new thread starts in EPT 0, with no right that its creator held. */
static void *new_thread(void *arg)
{
	CHECK_EQ(dev.identity->ept, 0);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	CHECK_EQ(EPK_TRY((void)*secret), SIGSEGV);
	epk_vmfunc(1);
	CHECK_EQ(EPK_TRY((void)*secret), SIGSEGV);
	return arg;
}

static void after_clone(void)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, new_thread, NULL), 0);
	pthread_join(thread, NULL);
	check_parent();
}

/* What this program does as the new program after an exec. */
static int fresh(void)
{
	epk_device_open(&dev);
	CHECK_EQ(dev.identity->ept, 0);
	CHECK_EQ(epk_rdpkru(), 3 * EPK_PKRU_DENY_ALL);
	CHECK_EQ(epk_device_stats(&dev).domains, 0);
	return epk_failures != 0;
}

int main(int argc, char *argv[])
{
	long contexts, threads;
	struct epk_stats before, after;

	self = argv[0];
	if (argc > 1)
		return fresh();

	epk_device_open(&dev);
	REQUIRE(epk_device_alloc(&dev, 30, ids) == 0);
	CHECK_EQ(dev.table[EPK_ID_INDEX(ids[15])].ept, 1);
	secret = epk_device_map(&dev, ids[15], 4096);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_device_enter(&dev, ids[15]);
	*secret = 42;
	before = epk_device_stats(&dev);
	contexts = count("contexts");
	threads = count("threads");
	check_parent();

	after_fork();
	after_vfork();
	check_wait(child_in_ept(end_exec), 0);
	check_wait(child_in_ept(end_exec_fails), 0);
	check_wait(child_in_ept(end_exit), 0);
	check_wait(child_in_ept(end_kill), SIGKILL);
	check_wait(child_in_ept(end_fault), SIGSEGV);
	check_wait(child_in_ept(end_threads), 0);
	check_wait(child_in_ept(end_thread_exec), 0);
	check_wait(child_in_ept(end_many), 0);
	check_wait(rogue_child(end_exec), 0);
	check_wait(rogue_child(end_exit), 0);
	check_wait(rogue_child(end_kill), SIGKILL);
	check_wait(rogue_child(end_fault), SIGSEGV);
	check_wait(rogue_child(end_threads), 0);
	check_wait(rogue_child(end_thread_exec), 0);
	after_clone();
	check_parent();

	after = epk_device_stats(&dev);
	CHECK_EQ(after.vm_domains, before.vm_domains);
	CHECK_EQ(after.vm_pages, before.vm_pages);
	CHECK_EQ(after.vm_epts, before.vm_epts);
	CHECK_EQ(count("contexts"), contexts);
	CHECK_EQ(count("threads"), threads);
	return epk_test_result();
}
