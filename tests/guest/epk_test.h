/* SPDX-License-Identifier: MIT */
/*
 * For tests that use /dev/epk itself, without the library: checks, the two
 * instructions, and memory accesses that may fail.
 *
 * A test program returns epk_test_result(): 0 passed, 1 failed; EPK_SKIP() exits 77.
 */
#ifndef EPK_TEST_H
#define EPK_TEST_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <asm/kvm_epk.h>
#include <linux/epk.h>

static int epk_checks, epk_failures;

#define CHECK(condition)							\
	epk_check(condition, __FILE__, __LINE__, #condition, "")

#define CHECK_EQ(a, b)								\
	do {									\
		long long a_ = (a), b_ = (b);					\
		char text_[64];							\
										\
		snprintf(text_, sizeof(text_), ": %lld, %lld", a_, b_);		\
		epk_check(a_ == b_, __FILE__, __LINE__, #a " == " #b, text_);	\
	} while (0)

/* For what the rest of the program builds on. */
#define REQUIRE(condition)							\
	do {									\
		if (!CHECK(condition)) {					\
			perror("errno");					\
			exit(1);						\
		}								\
	} while (0)

#define EPK_SKIP(reason)							\
	do {									\
		puts(reason);							\
		exit(77);							\
	} while (0)

static inline bool epk_check(bool ok, const char *file, int line, const char *what,
			     const char *text)
{
	__atomic_fetch_add(&epk_checks, 1, __ATOMIC_RELAXED);
	if (ok)
		return true;
	/* A test that goes wrong everywhere says so often enough. */
	if (__atomic_add_fetch(&epk_failures, 1, __ATOMIC_RELAXED) <= 30)
		printf("%s:%d: failed: %s%s\n", file, line, what, text);
	fflush(stdout);
	return false;
}

static inline int epk_test_result(void)
{
	printf("%d checks, %d failed\n", epk_checks, epk_failures);
	return epk_failures || !epk_checks;
}

static inline uint32_t epk_rdpkru(void)
{
	uint32_t eax, edx;

	asm volatile(".byte 0x0f, 0x01, 0xee" : "=a"(eax), "=d"(edx) : "c"(0));
	return eax;
}

static inline void epk_wrpkru(uint32_t pkru)
{
	asm volatile(".byte 0x0f, 0x01, 0xef" : : "a"(pkru), "c"(0), "d"(0) : "memory");
}

static inline void epk_vmfunc_leaf(uint32_t leaf, uint32_t index)
{
	asm volatile(".byte 0x0f, 0x01, 0xd4" : : "a"(leaf), "c"(index) : "memory");
}

static inline void epk_vmfunc(uint32_t index)
{
	epk_vmfunc_leaf(0, index);
}

/* Write to a file of the kernel's; false and errno if it does not take it. */
static inline bool put(const char *path, const char *text)
{
	ssize_t len = strlen(text), n;
	int fd = open(path, O_WRONLY), saved;

	if (fd < 0)
		return false;
	n = write(fd, text, len);
	saved = errno;
	close(fd);
	errno = saved;
	return n == len;
}

/* For who loads the module anew: the defect that it has, if tests/guest/mutations has put one in. */
static inline const char *epk_module_defect(void)
{
	static char parameter[32] = "mutation=";
	const size_t name = strlen("mutation=");
	int fd = open("/sys/module/epk/parameters/mutation", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, parameter + name, sizeof(parameter) - name - 1);

	close(fd);
	if (n <= 0)
		return "";
	parameter[name + n] = 0;
	return parameter;
}

/* How many mappings the process has of the device, and of memfds. */
static inline unsigned int epk_count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned int lines = 0;
	char line[512];

	REQUIRE(maps);
	while (fgets(line, sizeof(line), maps))
		lines += strstr(line, EPK_DEVICE) || strstr(line, "memfd");
	fclose(maps);
	return lines;
}

/*
 * Whether a race is to go on that has had @done rounds of @rounds.  From Linux 6.6 on, who yields
 * waits until all others have had their time, and a quarter of the rounds takes as long.
 */
static inline bool race_goes_on(long done, long rounds, const struct timespec *since)
{
	struct timespec now;

	if (done < rounds / 4)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return done < rounds && (now.tv_sec - since->tv_sec) * 1000000000l + now.tv_nsec -
		since->tv_nsec < 500000000;
}

/* An EPT that every host has, and that no test fills so far. */
#define FAR_EPT		200

#define EPK_PKRU_DENY_ALL	0x55555554u
#define EPK_PKRU_ALLOW(pkey)	(EPK_PKRU_DENY_ALL & ~(3u << 2 * (pkey)))

/*
 * Run something that may raise a signal.  EPK_TRY() gives the signal or 0;
 * the thread's PKRU is afterwards what it was before.
 */
static __thread sigjmp_buf epk_try_env;
static __thread volatile sig_atomic_t epk_trying, epk_try_code;

static inline void epk_try_handler(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!epk_trying) {
		dprintf(STDOUT_FILENO, "unexpected signal %d, code %d, at address %p\n", sig,
			info->si_code, info->si_addr);
		signal(sig, SIG_DFL);
		return;
	}
	epk_try_code = info->si_code;
	siglongjmp(epk_try_env, sig);
}

static inline void epk_try_init(void)
{
	struct sigaction sa = { .sa_sigaction = epk_try_handler, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGILL, &sa, NULL);
}

/* Leaves PKRU and EPT as they are then. */
#define EPK_TRY_ONLY(...)							\
	({									\
		int sig_ = sigsetjmp(epk_try_env, 1);				\
										\
		epk_try_code = sig_ ? epk_try_code : 0;				\
		epk_trying = 1;							\
		if (!sig_) {							\
			__VA_ARGS__;						\
		}								\
		epk_trying = 0;							\
		sig_;								\
	})

#define EPK_TRY(...)							\
	({									\
		uint32_t pkru_ = epk_rdpkru();					\
		int tried_ = EPK_TRY_ONLY(__VA_ARGS__);				\
										\
		epk_wrpkru(pkru_);						\
		tried_;								\
	})

/* An open /dev/epk with all its keys, and its two pages mapped. */
struct epk_device {
	int fd;
	struct epk_init init;
	const volatile struct epk_entry *table;
	const volatile struct kvm_epk_identity *identity;
};

static inline uint32_t epk_all_pkeys(void)
{
	static uint32_t pkeys;	/* a forked child inherits them */
	int pkey;

	while ((pkey = pkey_alloc(0, PKEY_DISABLE_ACCESS)) > 0)
		pkeys |= 1u << pkey;
	return pkeys;
}

/* With some of all keys. */
static inline void epk_device_open_keys(struct epk_device *dev, uint32_t keys)
{
	memset(dev, 0, sizeof(*dev));
	epk_try_init();
	dev->fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);
	if (dev->fd < 0 && errno == ENOENT)
		EPK_SKIP("no " EPK_DEVICE);
	REQUIRE(dev->fd >= 0);
	dev->init.version = EPK_ABI_VERSION;
	REQUIRE(epk_all_pkeys() == 0xfffe);
	dev->init.pkeys = keys;
	REQUIRE(ioctl(dev->fd, EPK_IOC_INIT, &dev->init) == 0);
	dev->table = mmap(NULL, dev->init.table_bytes, PROT_READ, MAP_SHARED, dev->fd,
			  EPK_MMAP_TABLE);
	REQUIRE(dev->table != MAP_FAILED);
	dev->identity = mmap(NULL, 4096, PROT_READ, MAP_SHARED, dev->fd, EPK_MMAP_IDENTITY);
	REQUIRE(dev->identity != MAP_FAILED);
}

static inline void epk_device_open(struct epk_device *dev)
{
	epk_device_open_keys(dev, 0xfffe);
}

/* For assembly: what a function leaves as it was. */
#define EPK_PUSH_SAVED	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
#define EPK_POP_SAVED	"pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"

/* Does a key keep the kernel from a page, when it copies for this process?  Bochs lets it read. */
static inline bool epk_kernel_has_keys(void)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pkey = pkey_alloc(0, PKEY_DISABLE_ACCESS), fds[2];
	bool has;

	REQUIRE(page != MAP_FAILED && pkey > 0 && !pipe(fds));
	*page = 1;
	REQUIRE(!pkey_mprotect(page, 4096, PROT_READ | PROT_WRITE, pkey));
	has = write(fds[1], page, 1) < 0;
	close(fds[0]);
	close(fds[1]);
	munmap(page, 4096);
	pkey_free(pkey);
	return has;
}

static inline int epk_device_alloc(struct epk_device *dev, unsigned int num, int *ids)
{
	struct epk_domains arg = { .num = num, .ids = (uintptr_t)ids };

	return ioctl(dev->fd, EPK_IOC_ALLOC, &arg) ? -errno : 0;
}

static inline int epk_device_free(struct epk_device *dev, unsigned int num, const int *ids)
{
	struct epk_domains arg = { .num = num, .ids = (uintptr_t)ids };

	return ioctl(dev->fd, EPK_IOC_FREE, &arg) ? -errno : 0;
}

static inline int epk_device_moves(struct epk_device *dev, unsigned int num,
				   struct epk_move *moves)
{
	struct epk_moves arg = { .num = num, .moves = (uintptr_t)moves };

	return ioctl(dev->fd, EPK_IOC_MOVE, &arg) ? -errno : 0;
}

static inline bool epk_device_is_alone(const struct epk_device *dev)
{
	return dev->init.nr_epts == 1;
}

/* An EPT that every host has; where there is one, that. */
static inline unsigned int epk_device_ept(const struct epk_device *dev, unsigned int ept)
{
	return epk_device_is_alone(dev) && ept < KVM_EPK_MAX_EPTS ? 0 : ept;
}

/* Move one domain, with any key; EPK_EPT_NONE evicts it. */
static inline int epk_device_move(struct epk_device *dev, int id, unsigned int ept)
{
	struct epk_move move = { .id = id, .ept = epk_device_ept(dev, ept) };

	return epk_device_moves(dev, 1, &move);
}

static inline int epk_device_populate(struct epk_device *dev, const volatile void *addr,
				      size_t len)
{
	struct epk_range range = { .addr = (uintptr_t)addr, .len = len };

	return ioctl(dev->fd, EPK_IOC_POPULATE, &range) ? -errno : 0;
}

/* Unmap domain memory, as who owns it may; -1 and errno if not. */
static inline int epk_device_unmap(struct epk_device *dev, const volatile void *addr, size_t len)
{
	struct epk_range range = { .addr = (uintptr_t)addr, .len = len };

	return ioctl(dev->fd, EPK_IOC_UNMAP, &range);
}

/* What there is of it between @addr and there, whatever else lies in between. */
static inline void epk_device_unmap_pages(struct epk_device *dev, char *addr, size_t len)
{
	char *page;

	for (page = addr; page < addr + len; page += 4096)
		epk_device_unmap(dev, page, 4096);
}

static inline struct epk_entry epk_device_entry(struct epk_device *dev, int id)
{
	union {
		uint64_t word;
		struct epk_entry entry;
	} u = { .word = *(const volatile uint64_t *)&dev->table[EPK_ID_INDEX(id)] };

	return u.entry;
}

static inline void *epk_device_map(struct epk_device *dev, int id, size_t len)
{
	return mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, dev->fd,
		    EPK_MMAP_DOMAIN(id));
}

static inline struct epk_stats epk_device_stats(struct epk_device *dev)
{
	struct epk_stats stats = { 0 };

	CHECK(ioctl(dev->fd, EPK_IOC_STATS, &stats) == 0);
	return stats;
}

/* What a file of /proc says of memory, in KiB. */
static inline long epk_kib_of(const char *file, const char *what)
{
	FILE *f = fopen(file, "r");
	char line[128], *value;
	long kib = -1;

	REQUIRE(f);
	while (kib < 0 && fgets(line, sizeof(line), f)) {
		value = strstr(line, what);
		if (value)
			kib = atol(value + strlen(what));
	}
	fclose(f);
	REQUIRE(kib >= 0);
	return kib;
}

/* Where there is one EPT, there may be no such instruction. */
static inline void epk_device_goto(struct epk_device *dev, uint32_t ept)
{
	if (!epk_device_is_alone(dev))
		epk_vmfunc(ept);
}

/* Fill EPT 0 and EPT 1; where there is one EPT, all but one key.  How many domains that makes. */
static inline int epk_device_fill(struct epk_device *dev, int ids[30])
{
	int num = epk_device_is_alone(dev) ? 14 : 30;

	REQUIRE(epk_device_alloc(dev, num, ids) == 0);
	return num;
}

/* A domain that is not in EPT 0; where there is no other EPT, one more than a domain there. */
static inline int epk_device_alloc_far(struct epk_device *dev)
{
	int ids[30], num = epk_device_fill(dev, ids);

	REQUIRE(epk_device_is_alone(dev) || epk_device_entry(dev, ids[num / 2]).ept == 1);
	return ids[num / 2];
}

/* Hold exactly one domain, or with id 0 none, in EPT 0. */
static inline void epk_device_enter(struct epk_device *dev, int id)
{
	struct epk_entry entry = { .ept = 0 };

	if (id)
		entry = epk_device_entry(dev, id);
	/* An EPT has a number, too. */
	if (id && !(id >> EPK_ID_INDEX_BITS))
		epk_check(false, __FILE__, __LINE__, "it is a domain's ID", "");
	epk_wrpkru(EPK_PKRU_DENY_ALL);
	/* An evicted domain cannot be entered. */
	epk_device_goto(dev, entry.pkey ? entry.ept : 0);
	if (entry.pkey)
		epk_wrpkru(EPK_PKRU_ALLOW(entry.pkey));
}

#endif /* EPK_TEST_H */
