// SPDX-License-Identifier: MIT
/*
 * Guards cannot be taken away: not by the switches of ftrace and kprobes, before the module
 * is loaded or after, nor by tracers that come and go on the same functions.  And
 * the module can be unloaded while threads are where it guards.
 */
#include "signal_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/userfaultfd.h>

#define MODULE		"/epk/epk.ko"
#define FTRACE		"/proc/sys/kernel/ftrace_enabled"
#define KPROBES		"/sys/kernel/debug/kprobes/enabled"
#define TRACING		"/sys/kernel/debug/tracing/"
#define SECRET		0x5ec0ffee

static int id;
static volatile uint32_t *secret;
static uint32_t held;
static const char *when = "";

static bool check(bool ok, int line, const char *what)
{
	return epk_check(ok, __FILE__, line, what, when);
}

#define GUARD(condition)	check(condition, __LINE__, #condition)

/* Signals, whose frames are forged. */
static void forge(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	*frame_pkru(context) = 0;
}

static sigjmp_buf elsewhere;
static char stack[65536] __attribute__((aligned(16)));

static void arrival(void)
{
	siglongjmp(elsewhere, 1);
}

/* A frame where no signal has put one. */
static void forge_all(int sig, siginfo_t *info, void *context)
{
	static ucontext_t copy;

	(void)sig;
	(void)info;
	copy = *(ucontext_t *)context;
	copy.uc_mcontext.gregs[REG_RSP] = (greg_t)(stack + sizeof(stack) - 8);
	copy.uc_mcontext.gregs[REG_RIP] = (greg_t)arrival;
	*frame_pkru(&copy) = 0;
	forge_by_syscall(&copy, SYS_rt_sigreturn);
}

static void raise_to(void (*handler)(int sig, siginfo_t *info, void *context))
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	sigaction(SIGUSR1, &sa, NULL);
	raise(SIGUSR1);
}

/* What would be open to an attacker if one guard were not there. */
static void guards(void)
{
	volatile uint32_t value = 0;
	int pkey;

	for (pkey = 1; pkey < 16; pkey += 7)
		GUARD(pkey_free(pkey) == -1 && errno == EPERM);
	GUARD(munmap((void *)secret, 4096) == -1 && errno == EPERM);
	GUARD(mmap((void *)secret, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == MAP_FAILED && errno == EPERM);
	GUARD(mmap((void *)dev.table, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == MAP_FAILED && errno == EPERM);

	epk_device_enter(&dev, 0);
	raise_to(forge);
	GUARD(epk_rdpkru() == EPK_PKRU_DENY_ALL);
	if (!sigsetjmp(elsewhere, 1)) {
		epk_device_enter(&dev, id);
		raise_to(forge_all);
		GUARD(!"a forged frame returns to where it says");
	}
	GUARD(dev.identity->ept == 0);
	GUARD((epk_rdpkru() & EPK_PKRU_DENY_ALL) == EPK_PKRU_DENY_ALL);
	epk_device_enter(&dev, id);
	raise_to(forge);
	GUARD(epk_rdpkru() == held);
	GUARD(!EPK_TRY(value = *secret) && value == SECRET);
	epk_device_enter(&dev, 0);
}

static void domain_make(void)
{
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	CHECK_EQ(epk_device_move(&dev, id, 1), 0);
	held = EPK_PKRU_ALLOW(epk_device_entry(&dev, id).pkey);
	secret = epk_device_map(&dev, id, 4096);
	REQUIRE(secret != MAP_FAILED);
	epk_device_enter(&dev, id);
	*secret = SECRET;
	epk_device_enter(&dev, 0);
}

static bool can(const char *path)
{
	return !access(path, W_OK);
}

static bool has_tracer(const char *name)
{
	char text[256] = "";
	int fd = open(TRACING "available_tracers", O_RDONLY);

	if (fd < 0)
		return false;
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return strstr(text, name);
}

static void switches(void)
{
	when = " with ftrace_enabled written to";
	GUARD(!put(FTRACE, "0") && errno == EBUSY);
	guards();
	if (can(KPROBES)) {
		when = " without kprobes";
		GUARD(put(KPROBES, "0"));
		guards();
		GUARD(put(KPROBES, "1"));
	}
	when = " with tracing off";
	GUARD(put(TRACING "tracing_on", "0"));
	guards();
	GUARD(put(TRACING "tracing_on", "1"));
}

static void tracers(void)
{
	when = " with all functions traced";
	GUARD(put(TRACING "current_tracer", "function"));
	guards();
	when = " with all functions traced, and tracing off";
	GUARD(put(TRACING "tracing_on", "0"));
	guards();
	GUARD(!put(FTRACE, "0") && errno == EBUSY);
	GUARD(put(TRACING "current_tracer", "nop"));
	when = " with a guarded function traced";
	GUARD(put(TRACING "set_ftrace_filter", "mmap_region"));
	GUARD(put(TRACING "current_tracer", "function"));
	GUARD(put(TRACING "tracing_on", "1"));
	guards();
	when = " with guarded functions excluded";
	GUARD(put(TRACING "set_ftrace_filter", "*sigreturn"));
	GUARD(put(TRACING "set_ftrace_notrace", "mmap_region"));
	guards();
	GUARD(put(TRACING "set_ftrace_filter", "\n"));
	GUARD(put(TRACING "set_ftrace_notrace", "\n"));
	GUARD(put(TRACING "current_tracer", "nop"));
	when = " after tracers";
	guards();
	if (has_tracer("function_graph")) {
		when = " with a graph of calls traced";
		GUARD(put(TRACING "set_graph_function", "mmap_region"));
		GUARD(put(TRACING "current_tracer", "function_graph"));
		guards();
		GUARD(put(TRACING "current_tracer", "nop"));
		GUARD(put(TRACING "set_graph_function", "\n"));
	}
	when = "";
}

/* The same while tracers come and go. */
static volatile int stop;

static void *come_and_go(void *unused)
{
	while (!stop) {
		put(TRACING "set_ftrace_filter", "*sigreturn pkey_free mmap_region *munmap");
		put(TRACING "current_tracer", "function");
		CHECK(!put(FTRACE, "0"));
		put(TRACING "set_ftrace_filter", "mmap_region");
		put(TRACING "current_tracer", "nop");
		put(KPROBES, "0");
		put(KPROBES, "1");
	}
	put(TRACING "set_ftrace_filter", "\n");
	return unused;
}

static void meanwhile(void)
{
	pthread_t thread;
	int i;

	when = " while tracers come and go";
	REQUIRE(!pthread_create(&thread, NULL, come_and_go, NULL));
	for (i = 0; i < 20; i++) {
		guards();
		sched_yield();
	}
	stop = 1;
	pthread_join(thread, NULL);
	when = "";
}

static int load(void)
{
	int module = open(MODULE, O_RDONLY), ret;

	REQUIRE(module >= 0);
	ret = syscall(SYS_finit_module, module, "", 0) ? errno : 0;
	close(module);
	return ret;
}

static int unload(void)
{
	return syscall(SYS_delete_module, "epk", O_NONBLOCK) ? errno : 0;
}

/* Without ftrace there is nothing to guard with, and no device. */
static void refused(void)
{
	CHECK_EQ(unload(), 0);
	CHECK(put(FTRACE, "0"));
	CHECK(load() != 0);
	CHECK(access(EPK_DEVICE, F_OK));
	CHECK(put(FTRACE, "1"));
	CHECK_EQ(load(), 0);
	CHECK(!access(EPK_DEVICE, F_OK));
}

/* Threads of a process that has nothing to do with domains, wherever it is guarded. */
static unsigned long turns;

static unsigned long turns_now(void)
{
	return __atomic_load_n(&turns, __ATOMIC_RELAXED);
}

static void nothing(int sig)
{
	(void)sig;
}

static void *works(void *unused)
{
	unsigned int turn;
	int pkey;
	void *p;

	for (turn = 1; !stop; turn++) {
		raise(SIGUSR2);
		pkey = pkey_alloc(0, 0);
		CHECK(pkey > 0 && !pkey_free(pkey));
		p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(mmap(p, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
		CHECK_EQ(munmap(p, 8192), 0);
		__atomic_fetch_add(&turns, 1, __ATOMIC_RELAXED);
		/* Who unloads waits for each task to sleep, or to be in user mode at a tick. */
		if (turn % 8 == 0)
			usleep(5000);
	}
	return unused;
}

static void unloaded_under_work(void)
{
	pthread_t threads[3];
	int i;

	stop = 0;
	signal(SIGUSR2, nothing);
	for (i = 0; i < 3; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, works, NULL));
	for (i = 0; i < 2; i++) {
		unsigned long before = turns_now();

		CHECK_EQ(unload(), 0);
		while (turns_now() < before + 20)
			usleep(1000);
		before = turns_now();
		CHECK_EQ(load(), 0);
		while (turns_now() < before + 20)
			usleep(1000);
	}
	stop = 1;
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* One that stands in a sigreturn for as long as its frame is not there to be read. */
static union {
	struct {
		uint64_t pretcode;
		ucontext_t uc;
	};
	char page[4096];
} frame;
static char *absent;
static volatile int in_sigreturn, back, unloaded;

static void stand(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	frame.uc = *(ucontext_t *)context;
	in_sigreturn = 1;
	forge_by_syscall(absent + 8, SYS_rt_sigreturn);
}

static void *stands(void *unused)
{
	raise_to(stand);
	back = 1;
	return unused;
}

static void *unloads(void *unused)
{
	CHECK_EQ(unload(), 0);
	unloaded = 1;
	return unused;
}

static void unloaded_under_sleep(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_copy copy = { .src = (uintptr_t)&frame, .len = 4096 };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	pthread_t stander, unloader;
	int i;

	if (uffd < 0) {
		puts("no userfaultfd: nothing stands in a sigreturn");
		return;
	}
	REQUIRE(ioctl(uffd, UFFDIO_API, &api) == 0);
	absent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(absent != MAP_FAILED);
	range.range.start = copy.dst = (uintptr_t)absent;
	range.range.len = 4096;
	REQUIRE(ioctl(uffd, UFFDIO_REGISTER, &range) == 0);

	REQUIRE(!pthread_create(&stander, NULL, stands, NULL));
	while (!in_sigreturn)
		sched_yield();
	usleep(1000);
	REQUIRE(!pthread_create(&unloader, NULL, unloads, NULL));
	for (i = 0; i < 20; i++)
		usleep(10000);
	/* Its text is needed. */
	CHECK(!back && !unloaded);
	CHECK_EQ(ioctl(uffd, UFFDIO_COPY, &copy), 0);
	pthread_join(stander, NULL);
	CHECK(back);
	pthread_join(unloader, NULL);
	CHECK(access(EPK_DEVICE, F_OK));
	CHECK_EQ(load(), 0);
	close(uffd);
}

static void apart_named(const char *name, void (*what)(void))
{
	struct timespec now;
	int status = -1;
	pid_t pid;

	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%ld.%02ld s: %s\n", now.tv_sec, now.tv_nsec / 10000000, name);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		epk_failures = 0;
		epk_try_init();
		what();
		fflush(stdout);
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

#define apart(what)	apart_named(#what, what)

static void guarded(void)
{
	domain_make();
	guards();
	switches();
	if (has_tracer("function")) {
		tracers();
		meanwhile();
	}
}

static void guarded_again(void)
{
	domain_make();
	guards();
}

int main(void)
{
	epk_try_init();
	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	apart(guarded);
	refused();
	apart(unloaded_under_work);
	apart(unloaded_under_sleep);
	apart(guarded_again);
	return epk_test_result();
}
