// SPDX-License-Identifier: MIT
/*
 * A handler's return that sleeps while the kernel reads its frame: what the handler holds then is
 * nobody's any more, and what the frame opens opens nothing to the kernel.
 */
#include "epk_test.h"

#include "forge.h"

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/utsname.h>

#define PAGE		4096ul
#define SECRET		0x5ec4e7000ul
#define STACK_BYTES	(16 * PAGE)
/* Levels that hold as many domains each as may be: then no record has room for more. */
#define FULL_LEVELS	6

static struct epk_device dev;
static int first, more[EPK_HELD_MAX - 1];

/* The alternate stack, and the page in it where the state of the FPU begins; the frame is before. */
static char *stack, *state;
static size_t above;
static int uffd;
static volatile int level, returned;

static void begin(int id)
{
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ | PROT_WRITE)), 0);
}

static unsigned int nr_held(void)
{
	struct epk_grants arg = { .num = 0 };

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &arg), 0);
	return arg.num;
}

static void hold_all(void)
{
	unsigned int i;

	for (i = 0; i < EPK_HELD_MAX - 1; i++)
		begin(more[i]);
	/* Last, so that it is open where handlers begin, too. */
	begin(first);
	CHECK_EQ(epk_device_entry(&dev, first).ept, 0);
	CHECK_EQ(nr_held(), EPK_HELD_MAX);
}

static void use_stack(size_t bytes)
{
	stack_t alternate = { .ss_sp = stack, .ss_size = bytes };

	REQUIRE(!sigaltstack(&alternate, NULL));
}

/* How much there is above the beginning of the FPU's state. */
static void measure(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	above = stack + STACK_BYTES - (char *)((ucontext_t *)context)->uc_mcontext.fpregs;
}

static char state_copy[2 * PAGE];
static ucontext_t *frame;

/* The frame opens all keys. */
static bool forges;

/* Its state is not there when it returns. */
static void innermost(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	CHECK((char *)uc->uc_mcontext.fpregs == state);
	CHECK((char *)uc >= state - PAGE && (char *)&uc->uc_sigmask + 8 <= state);
	CHECK_EQ(nr_held(), 0);
	if (forges)
		*frame_pkru(uc) = 0;
	else
		begin(first);
	memcpy(state_copy, state, sizeof(state_copy));
	frame = uc;
	CHECK_EQ(madvise(state, sizeof(state_copy), MADV_DONTNEED), 0);
}

static void fill(const char *page, const void *bytes)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)page, .src = (uintptr_t)bytes, .len = PAGE,
	};

	CHECK_EQ(ioctl(uffd, UFFDIO_COPY, &copy), 0);
}

static void wait_for(const char *page)
{
	struct uffd_msg message;

	REQUIRE(read(uffd, &message, sizeof(message)) == sizeof(message));
	REQUIRE((message.arg.pagefault.address & ~(PAGE - 1)) == (uintptr_t)page);
}

/* The place goes of what the handler holds. */
static void *evicts(void *unused)
{
	wait_for(state);
	CHECK_EQ(epk_device_move(&dev, first, EPK_EPT_NONE), 0);
	fill(state + PAGE, state_copy + PAGE);
	fill(state, state_copy);
	return unused;
}

/*
 * The frame goes as well, whose end is read when PKRU is loaded; and where that is there is a
 * domain's page by then.
 */
static void *replaces(void *unused)
{
	struct uffdio_range all = { .start = (uintptr_t)state - PAGE, .len = PAGE };
	ucontext_t *secret;

	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) == 0);
	wait_for(state);
	CHECK_EQ(madvise(state - PAGE, PAGE, MADV_DONTNEED), 0);
	fill(state + PAGE, state_copy + PAGE);
	fill(state, state_copy);
	wait_for(state - PAGE);
	REQUIRE(mmap(state - PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		     EPK_MMAP_DOMAIN(first)) == state - PAGE);
	begin(first);
	CHECK_EQ(epk_device_entry(&dev, first).ept, 0);
	secret = frame;
	secret->uc_stack = (stack_t) { .ss_sp = (void *)SECRET, .ss_size = STACK_BYTES };
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_END, (long)first), 0);
	CHECK_EQ(ioctl(uffd, UFFDIO_WAKE, &all), 0);
	return unused;
}

/* Holds as much as may be, and has it still when the handlers above have returned. */
static void outer(int sig)
{
	(void)sig;
	hold_all();
	if (++level < FULL_LEVELS)
		raise(SIGUSR1);
	else
		raise(SIGUSR2);
	CHECK_EQ(nr_held(), EPK_HELD_MAX);
	returned++;
}

static void stands(void)
{
	struct sigaction inner = { .sa_sigaction = measure, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct sigaction middle = { .sa_handler = outer, .sa_flags = SA_NODEFER };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	pthread_t evicter;

	stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(stack != MAP_FAILED);
	use_stack(STACK_BYTES);
	REQUIRE(!sigaction(SIGUSR2, &inner, NULL));
	raise(SIGUSR2);
	state = stack + STACK_BYTES - 2 * PAGE;
	REQUIRE(above && above <= 2 * PAGE);
	use_stack(state + above - stack);
	/* All of it is there but what is taken away. */
	memset(stack, 1, STACK_BYTES);

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0)
		EPK_SKIP("no userfaultfd");
	REQUIRE(ioctl(uffd, UFFDIO_API, &api) == 0);
	range.range.start = (uintptr_t)state - PAGE;
	range.range.len = 3 * PAGE;
	REQUIRE(ioctl(uffd, UFFDIO_REGISTER, &range) == 0);
	inner.sa_sigaction = innermost;
	REQUIRE(!sigaction(SIGUSR2, &inner, NULL) && !sigaction(SIGUSR1, &middle, NULL));

	REQUIRE(!pthread_create(&evicter, NULL, evicts, NULL));
	outer(0);
	pthread_join(evicter, NULL);
	CHECK_EQ(returned, FULL_LEVELS);
}

static bool kernel_since(int version, int patchlevel)
{
	struct utsname name;
	int is, of;

	REQUIRE(!uname(&name) && sscanf(name.release, "%d.%d", &is, &of) == 2);
	return is > version || (is == version && of >= patchlevel);
}

static void leaks(void)
{
	stack_t now;
	pthread_t replacer;

	CHECK_EQ(epk_device_free(&dev, EPK_HELD_MAX - 1, more), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_END, (long)first), 0);
	CHECK_EQ(nr_held(), 0);
	CHECK_EQ(epk_device_move(&dev, first, 0), 0);
	forges = true;
	REQUIRE(!pthread_create(&replacer, NULL, replaces, NULL));
	CHECK_EQ(EPK_TRY_ONLY(raise(SIGUSR2)), SIGSEGV);
	pthread_join(replacer, NULL);
	CHECK(!sigaltstack(NULL, &now) && now.ss_sp != (void *)SECRET);
	CHECK_EQ(epk_rdpkru(), EPK_PKRU_DENY_ALL);
}

int main(void)
{
	struct epk_domains arg = {
		.num = EPK_HELD_MAX - 1, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)more,
	};

	epk_device_open(&dev);
	REQUIRE(epk_device_alloc(&dev, 1, &first) == 0);
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) == 0);
	stands();
	/*
	 * The other emulator has its kernel read what a key denies.  From 6.12 on the kernel has read all
	 * of the frame before it loads PKRU.
	 */
	if (epk_device_is_alone(&dev) && !kernel_since(6, 12))
		leaks();
	return epk_test_result();
}
