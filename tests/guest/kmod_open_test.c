// SPDX-License-Identifier: MIT
/*
 * Attacks on guards and on calls that fail: the argument is which to try, none is all.
 */
#include "epk_test.h"
#include "raw/epk_raw.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>

#define SECRET		0x5ec0ffee
#define PATTERN		0x0bd1a4

static struct epk_device dev;
static int ids[2];
static volatile uint32_t *secret;
static uint32_t held;

static void prepare(void)
{
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 2, ids) == 0);
	CHECK_EQ(epk_device_move(&dev, ids[0], 1), 0);
	held = EPK_PKRU_ALLOW(epk_device_entry(&dev, ids[0]).pkey);
	secret = epk_device_map(&dev, ids[0], 4096);
	REQUIRE(secret != MAP_FAILED);
	epk_device_enter(&dev, ids[0]);
	*secret = SECRET;
	epk_device_enter(&dev, 0);
}

/*
 * A handler is left by siglongjmp(); what it interrupted is given up.  Much later the frame of
 * another handler is forged: it goes to a sigreturn at the first frame.
 */
static sigjmp_buf env, end_env;
static ucontext_t *left;

static void leave(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	left = context;
	siglongjmp(env, 1);
}

static volatile uint32_t got, got_pkru, got_ept;

static void arrival(void)
{
	got_pkru = epk_rdpkru();
	got_ept = dev.identity->ept;
	if (got_pkru == held && got_ept == 1)
		got = *secret;
	siglongjmp(end_env, 1);
}

static char arrival_stack[65536] __attribute__((aligned(16)));

static void forge(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint64_t *frame = (uint64_t *)left - 1;

	(void)sig;
	(void)info;
	left->uc_mcontext.gregs[REG_RIP] = (greg_t)arrival;
	left->uc_mcontext.gregs[REG_RSP] = (greg_t)(arrival_stack + sizeof(arrival_stack) - 8);
	/* The trampoline that every handler returns to. */
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)*frame;
	uc->uc_mcontext.gregs[REG_RSP] = (greg_t)(frame + 1);
}

static void given_up(void)
{
	static char altstack[65536];
	stack_t stack = { .ss_sp = altstack, .ss_size = sizeof(altstack) };
	struct sigaction sa = { .sa_sigaction = leave, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	CHECK_EQ(sigaction(SIGUSR1, &sa, NULL), 0);
	sa = (struct sigaction){ .sa_sigaction = forge, .sa_flags = SA_SIGINFO };
	CHECK_EQ(sigaction(SIGUSR2, &sa, NULL), 0);

	if (!sigsetjmp(env, 1)) {
		epk_device_enter(&dev, ids[0]);
		raise(SIGUSR1);
	}
	/* It has nothing now, and wants nothing. */
	epk_device_enter(&dev, 0);
	usleep(1);
	if (!sigsetjmp(end_env, 1)) {
		raise(SIGUSR2);
		CHECK(!"a forged frame returns to where it says");
	}
	CHECK_EQ(got_ept, 0);
	CHECK_EQ(got_pkru & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	CHECK_EQ(got, 0);
	epk_device_enter(&dev, 0);
}

/* mremap() makes a second mapping, is refused, and unmaps it again. */
static void refused_mremap(void)
{
	char *room = mmap(NULL, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int before = epk_count_mappings(), i;
	int file = memfd_create("file", 0);
	struct epk_file arg = { .len = 4096, .id = ids[1], .fd = file, .prot = PROT_READ };
	void *from[] = { (void *)secret, (void *)dev.identity, NULL };

	REQUIRE(room != MAP_FAILED && ftruncate(file, 4096) == 0);
	REQUIRE(munmap(room, 64 << 20) == 0);
	REQUIRE(ioctl(dev.fd, EPK_IOC_FILE, &arg) == 0);
	from[2] = (void *)(uintptr_t)arg.addr;
	before = epk_count_mappings();
	for (i = 0; i < 3; i++) {
		CHECK(mremap(from[i], 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
			     room + i * 8192) == MAP_FAILED);
		CHECK_EQ(epk_count_mappings(), before);
		/* Nothing lies there. */
		CHECK(mmap(room + i * 8192, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS |
			   MAP_FIXED, -1, 0) == room + i * 8192);
	}
	CHECK_EQ(epk_device_unmap(&dev, from[2], 4096), 0);
	close(file);
}

/* A domain goes between the attempt elsewhere and the mapping itself. */
static volatile int fleeting, stop;

static void *frees(void *unused)
{
	unsigned int random = 1;
	volatile unsigned int wait;
	int id;

	while (!stop) {
		if (epk_device_alloc(&dev, 1, &id))
			continue;
		fleeting = id;
		random = random * 1103515245 + 12345;
		for (wait = random >> 16 & 0x1fff; wait; wait--)
			;
		epk_device_free(&dev, 1, &id);
	}
	return unused;
}

static void file_race(void)
{
	volatile int i, lost = 0, mapped = 0, refused = 0;
	int file = memfd_create("file", 0);
	pthread_t thread;

	REQUIRE(file >= 0 && ftruncate(file, 4096) == 0);
	REQUIRE(!pthread_create(&thread, NULL, frees, NULL));
	while (!fleeting)
		sched_yield();
	for (i = 0; i < 4000 && !lost; i++) {
		volatile uint32_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct epk_file arg = {
			.addr = (uintptr_t)p, .len = 4096, .fd = file, .prot = PROT_READ,
			.flags = MAP_FIXED,
		};
		int last = fleeting, turn;

		*p = PATTERN;
		for (turn = 0; turn < 20000 && fleeting == last; turn++)
			;
		arg.id = fleeting;
		if (!ioctl(dev.fd, EPK_IOC_FILE, &arg)) {
			mapped++;
			CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
			continue;
		}
		refused++;
		if (EPK_TRY((void)*p) || *p != PATTERN)
			lost++;
		munmap((void *)p, 4096);
	}
	stop = 1;
	pthread_join(thread, NULL);
	printf("%d mapped, %d refused, %d lost what lay there\n", mapped, refused, lost);
	CHECK_EQ(lost, 0);
	close(file);
}

/* An INIT that fails, again and again; other threads use keys of their own meanwhile. */
static volatile unsigned long closed, denied, turns;

static void nothing(int sig)
{
	(void)sig;
}

static void *uses_keys(void *arg)
{
	int pkey = (intptr_t)arg;

	while (!stop) {
		epk_wrpkru(0);
		raise(SIGUSR1);
		if (epk_rdpkru())
			closed++;
		if (!pkey_free(pkey))
			CHECK_EQ(pkey_alloc(0, 0), pkey);
		else if (errno == EPERM)
			denied++;
		turns++;
	}
	return NULL;
}

/* INIT fails if another thread runs a virtual CPU; this one begins when INIT waits for RCU. */
static volatile uint32_t runs[2];
static volatile bool starting, idle;

static void *runs_vcpu(void *unused)
{
	struct epk_raw_vcpu vcpu = { .flags = (uintptr_t)runs };
	int raw = open(EPK_RAW_DEVICE, O_RDWR);

	REQUIRE(raw >= 0);
	while (!stop) {
		idle = true;
		if (!starting) {
			usleep(100);
			continue;
		}
		idle = false;
		usleep(500);
		CHECK_EQ(ioctl(raw, EPK_RAW_VCPU, &vcpu), 0);
	}
	close(raw);
	return unused;
}

static int init_all(int fd)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = 0xfffe };

	return ioctl(fd, EPK_IOC_INIT, &init) ? errno : 0;
}

static int init_beside_vcpu(int fd)
{
	int ret;

	while (!idle)
		usleep(100);
	runs[1] = 0;
	starting = true;
	ret = init_all(fd);
	starting = false;
	runs[1] = 1;
	return ret;
}

/* The thread with keys of its own is where it was again. */
static void turn_over(void)
{
	unsigned long before = turns;

	while (turns < before + 2)
		usleep(100);
}

static void failing_init(void)
{
	int fd = open(EPK_DEVICE, O_RDWR), busy = 0, ret, i;
	pthread_t user, runner;
	unsigned long before;

	REQUIRE(fd >= 0);
	epk_all_pkeys();
	signal(SIGUSR1, nothing);
	REQUIRE(!pthread_create(&runner, NULL, runs_vcpu, NULL));
	REQUIRE(!pthread_create(&user, NULL, uses_keys, (void *)3));
	for (i = 0; i < 200 && busy < 4; i++) {
		turn_over();
		before = closed + denied;
		ret = init_beside_vcpu(fd);
		turn_over();
		if (ret) {
			/* The other key may be free just then. */
			CHECK(ret == EBUSY || ret == EINVAL);
			CHECK_EQ(closed + denied - before, 0);
			busy += ret == EBUSY;
			continue;
		}
		close(fd);
		fd = open(EPK_DEVICE, O_RDWR);
	}
	printf("INIT failed %d times for a virtual CPU, of %d\n", busy, i);
	CHECK(busy > 0);
	stop = 1;
	pthread_join(user, NULL);
	pthread_join(runner, NULL);
	CHECK_EQ(init_all(fd), 0);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	CHECK(pkey_free(3) == -1 && errno == EPERM);
	close(fd);
}

/* What is dead lies where new memory comes, and counts until that is there. */
static void refill(void)
{
	void *p;
	int id;

	CHECK(put("/sys/module/epk/parameters/max_process_pages", "17"));
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	p = epk_device_map(&dev, id, 16 * 4096);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK(mmap(p, 16 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		   EPK_MMAP_DOMAIN(ids[1])) == p);
	CHECK_EQ(epk_device_unmap(&dev, p, 16 * 4096), 0);
	CHECK(put("/sys/module/epk/parameters/max_process_pages", "0"));
}

static const struct {
	const char *name;
	void (*attack)(void);
	bool alone;	/* without a context */
} attacks[] = {
	{ "given-up", given_up, false },
	{ "mremap", refused_mremap, false },
	{ "file-race", file_race, false },
	{ "failing-init", failing_init, true },
	{ "refill", refill, false },
};

int main(int argc, char **argv)
{
	unsigned int i;

	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	for (i = 0; i < sizeof(attacks) / sizeof(*attacks); i++) {
		int status = -1;
		pid_t pid;

		if (argc > 1 && strcmp(argv[1], attacks[i].name))
			continue;
		pid = fork();
		if (!pid) {
			epk_failures = 0;
			epk_try_init();
			if (!attacks[i].alone)
				prepare();
			attacks[i].attack();
			fflush(stdout);
			_exit(epk_failures != 0);
		}
		CHECK(waitpid(pid, &status, 0) == pid);
		epk_check(status == 0, __FILE__, __LINE__, attacks[i].name, "");
	}
	return epk_test_result();
}
