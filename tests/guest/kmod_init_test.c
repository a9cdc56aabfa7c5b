// SPDX-License-Identifier: MIT
/*
 * EPK_IOC_INIT against other threads that free, allocate and open keys; and calls that
 * fail: they have changed nothing, neither keys nor what lies at a fixed address.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PATTERN		0x0bd1a4
#define SECRET		0x5ec0ffee
#define ROUNDS		6
/* Where two CPUs go in step, one of the keys is free nearly each time. */
#define ROUNDS_MOST	600
/* Those that the context gets, and one that it does not get. */
#define SOME_PKEYS	0x01fe
#define OTHER_PKEY	12

static struct epk_device dev;

static int init_with(int fd, uint32_t version, uint32_t pkeys, uint32_t generation)
{
	struct epk_init init = { .version = version, .pkeys = pkeys, .generation = generation };

	return ioctl(fd, EPK_IOC_INIT, &init) ? errno : 0;
}

static int open_new(void)
{
	int fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);

	REQUIRE(fd >= 0);
	return fd;
}

static void wait_for(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

/* Each in a process of its own: an address space has one context. */
static void apart_named(const char *name, void (*what)(void))
{
	pid_t pid;

	puts(name);
	fflush(stdout);
	pid = fork();

	if (!pid) {
		epk_failures = 0;
		epk_try_init();
		epk_all_pkeys();
		what();
		fflush(stdout);
		_exit(epk_failures != 0);
	}
	wait_for(pid);
}

#define apart(what)	apart_named(#what, what)

/* Keys that come and go while INIT wants them all.  @ready: the round, if it has started. */
static volatile unsigned int ready, stop;
static volatile unsigned int frees, refused;

static void *keys_come_and_go(void *arg)
{
	unsigned int random = (intptr_t)arg, was_ready;
	int pkey = (intptr_t)arg, got;
	volatile unsigned int wait;

	while (!stop) {
		/* Now and then no thread is in the middle of it. */
		random = random * 1103515245 + 12345;
		for (wait = random >> 16 & 0x7ff; wait; wait--)
			;
		was_ready = ready;
		if (pkey_free(pkey)) {
			if (errno == EPERM)
				refused++;
			else
				CHECK_EQ(errno, EINVAL);
		} else {
			frees++;
			/* The context may have been closed since. */
			CHECK(!was_ready || ready != was_ready);
		}
		was_ready = ready;
		got = pkey_alloc(0, 0);
		if (got > 0) {
			/* All keys are the context's, and none of them is free. */
			CHECK(!was_ready || ready != was_ready);
			pkey = got;
			epk_wrpkru(EPK_PKRU_DENY_ALL);
		}
		if (was_ready)
			sched_yield();
	}
	return NULL;
}

static void keys_race(void)
{
	unsigned int round, started = 0, i;
	pthread_t threads[2];
	int fd, ret;

	for (i = 0; i < 2; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, keys_come_and_go,
					(void *)(intptr_t)(i + 4)));
	for (round = 0; round < ROUNDS || (round < ROUNDS_MOST && !(started && refused)); round++) {
		fd = open_new();
		ret = init_with(fd, EPK_ABI_VERSION, 0xfffe, 0);
		if (!ret) {
			unsigned int before = refused;

			ready = round + 1;
			started++;
			/* Who yields may go on at once. */
			for (i = 0; i < 100 && refused - before < 4; i++)
				usleep(100);
			CHECK_EQ(pkey_alloc(0, 0), -1);
			for (i = 1; i < 16; i++)
				CHECK(pkey_free(i) == -1 && errno == EPERM);
			ready = 0;
		} else {
			CHECK_EQ(ret, EINVAL);
			for (i = 0; i < round * 97; i++)
				asm volatile("pause");
			sched_yield();
		}
		close(fd);
	}
	stop = 1;
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	CHECK(started > 0);
	CHECK(refused > 0);
	printf("%u of %u starts, %u keys freed, %u not\n", started, round, frees, refused);
}

/* Threads that have keys open when it comes. */
struct opener {
	pthread_t thread;
	int wake[2];
	volatile bool spins, open, go, done;
	volatile uint32_t pkru;
	char stack[16384] __attribute__((aligned(16)));
};

static int has_keys_open(void *arg)
{
	struct opener *o = arg;
	char c;

	epk_wrpkru(0);
	o->open = true;
	if (o->spins) {
		while (!o->go)
			;
	} else if (syscall(SYS_read, o->wake[0], &c, 1) != 1) {
		return 1;
	}
	o->pkru = epk_rdpkru();
	o->done = true;
	return 0;
}

static void *thread_has_keys_open(void *arg)
{
	has_keys_open(arg);
	return NULL;
}

static struct opener openers[4];

static void openers_start(void)
{
	unsigned int i;

	memset(openers, 0, sizeof(openers));
	for (i = 0; i < 4; i++) {
		struct opener *o = &openers[i];

		o->spins = i == 0;
		REQUIRE(pipe(o->wake) == 0);
		/* The last is a process of its own in the same address space. */
		if (i < 3)
			REQUIRE(!pthread_create(&o->thread, NULL, thread_has_keys_open, o));
		else
			REQUIRE(clone(has_keys_open, o->stack + sizeof(o->stack),
				      CLONE_VM | SIGCHLD, o) > 0);
		while (!o->open)
			sched_yield();
	}
	/* Those that sleep do. */
	usleep(1000);
}

/* What each of them has now, by the bits of @mask. */
static void openers_have(uint32_t mask, uint32_t expected)
{
	unsigned int i;

	for (i = 0; i < 4; i++) {
		struct opener *o = &openers[i];

		o->go = true;
		CHECK_EQ(write(o->wake[1], "", 1), 1);
		while (!o->done)
			sched_yield();
		CHECK_EQ(o->pkru & mask, expected);
		if (i < 3)
			pthread_join(o->thread, NULL);
		else
			CHECK(wait(NULL) > 0);
		close(o->wake[0]);
		close(o->wake[1]);
	}
}

static uint32_t deny(uint32_t pkeys)
{
	uint32_t pkru = 0;
	int pkey;

	for (pkey = 1; pkey < 16; pkey++) {
		if (pkeys & 1u << pkey)
			pkru |= 1u << 2 * pkey;
	}
	return pkru;
}

static void closes_keys(void)
{
	uint32_t mask = deny(SOME_PKEYS);

	openers_start();
	epk_wrpkru(0);
	CHECK_EQ(init_with(open_new(), EPK_ABI_VERSION, SOME_PKEYS, 0), 0);
	CHECK_EQ(epk_rdpkru() & mask, mask);
	CHECK_EQ(epk_rdpkru() & deny(1u << OTHER_PKEY), 0);
	openers_have(mask | deny(1u << OTHER_PKEY), mask);
	CHECK(pkey_free(1) == -1 && errno == EPERM);
	CHECK_EQ(pkey_free(OTHER_PKEY), 0);
	epk_wrpkru(EPK_PKRU_DENY_ALL);
}

/* Alone, which is another way through it. */
static void closes_own_keys(void)
{
	uint32_t mask = deny(SOME_PKEYS);

	epk_wrpkru(0);
	CHECK_EQ(init_with(open_new(), EPK_ABI_VERSION, SOME_PKEYS, 0), 0);
	CHECK_EQ(epk_rdpkru(), mask * 3);
	usleep(1);
	CHECK_EQ(epk_rdpkru() & mask, mask);
}

static void fail_at(int fd, unsigned int which)
{
	static const struct epk_init good = { .version = EPK_ABI_VERSION, .pkeys = 0xfffe };
	void *page;

	switch (which) {
	case 0:
		CHECK_EQ(init_with(fd, EPK_ABI_VERSION + 1, 0xfffe, 0), EINVAL);
		break;
	case 1:
		CHECK_EQ(init_with(fd, EPK_ABI_VERSION, 0, 0), EINVAL);
		break;
	case 2:
		CHECK_EQ(init_with(fd, EPK_ABI_VERSION, 0xffff, 0), EINVAL);
		break;
	case 3:
		CHECK_EQ(init_with(fd, EPK_ABI_VERSION, 0x1fffe, 0), EINVAL);
		break;
	case 4:
		CHECK_EQ(init_with(fd, EPK_ABI_VERSION, 0xfffe, EPK_GENERATION_MAX + 1), EINVAL);
		break;
	case 5:
		/* A key that nobody has. */
		CHECK_EQ(pkey_free(9), 0);
		CHECK_EQ(init_with(fd, EPK_ABI_VERSION, 0xfffe, 0), EINVAL);
		CHECK_EQ(pkey_alloc(0, 0), 9);
		break;
	case 6:
		CHECK(ioctl(fd, EPK_IOC_INIT, NULL) == -1 && errno == EFAULT);
		break;
	case 7:
		/* It could not tell how large the table is. */
		page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		REQUIRE(page != MAP_FAILED);
		memcpy(page, &good, sizeof(good));
		CHECK_EQ(mprotect(page, 4096, PROT_READ), 0);
		CHECK(ioctl(fd, EPK_IOC_INIT, page) == -1 && errno == EFAULT);
		munmap(page, 4096);
		break;
	}
}

#define NR_FAILURES	8

/* All keys are open before and after, and nobody's. */
static void failure_changes_nothing(void)
{
	unsigned int which;
	int fd = open_new(), pkey;

	for (which = 0; which < NR_FAILURES; which++) {
		openers_start();
		epk_wrpkru(0);
		fail_at(fd, which);
		CHECK_EQ(epk_rdpkru(), 0);
		openers_have(~0u, 0);
		usleep(1);
		CHECK_EQ(epk_rdpkru(), 0);
		for (pkey = 1; pkey < 16; pkey++)
			CHECK_EQ(pkey_free(pkey), 0);
		CHECK_EQ(epk_all_pkeys(), 0xfffe);
	}
	CHECK_EQ(init_with(fd, EPK_ABI_VERSION, 0xfffe, 0), 0);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
}

/* A second context wants the keys that the first did not get. */
static void second_changes_nothing(void)
{
	uint32_t others = 0xfffe & ~SOME_PKEYS;
	int second = open_new(), first = open_new(), i;

	CHECK_EQ(init_with(first, EPK_ABI_VERSION, SOME_PKEYS, 0), 0);
	openers_start();
	for (i = 0; i < 2; i++) {
		epk_wrpkru(deny(SOME_PKEYS));
		CHECK_EQ(init_with(i ? first : second, EPK_ABI_VERSION, others, 0), EBUSY);
		CHECK_EQ(epk_rdpkru(), deny(SOME_PKEYS));
	}
	openers_have(deny(others), 0);
	CHECK_EQ(pkey_free(OTHER_PKEY), 0);
	CHECK(pkey_free(1) == -1 && errno == EPERM);
	close(first);
	CHECK_EQ(pkey_alloc(0, 0), OTHER_PKEY);
	CHECK_EQ(init_with(second, EPK_ABI_VERSION, 0xfffe, 0), 0);
}

/* Two threads start the same open, and two opens: one of them each time. */
static pthread_barrier_t barrier;

static void *starts(void *fd)
{
	pthread_barrier_wait(&barrier);
	return (void *)(intptr_t)init_with((intptr_t)fd, EPK_ABI_VERSION, 0xfffe, 0);
}

static void starts_at_once(void)
{
	pthread_t threads[2];
	unsigned int round, i, good;
	void *ret;

	pthread_barrier_init(&barrier, NULL, 2);
	for (round = 0; round < 20; round++) {
		int fds[2] = { open_new(), open_new() };

		if (round & 1) {
			close(fds[1]);
			fds[1] = fds[0];
		}
		for (i = 0; i < 2; i++)
			REQUIRE(!pthread_create(&threads[i], NULL, starts,
						(void *)(intptr_t)fds[i]));
		for (good = 0, i = 0; i < 2; i++) {
			pthread_join(threads[i], &ret);
			good += !ret;
			CHECK(!ret || (intptr_t)ret == EBUSY);
		}
		CHECK_EQ(good, 1);
		close(fds[0]);
		if (fds[1] != fds[0])
			close(fds[1]);
	}
}

/* What lies at an address, and lies there still when something at it has failed. */
static volatile uint32_t *there;
static int id, live_id;

enum lies { ORDINARY, FILE_PAGE, DOMAIN, NR_LIES };

static void lay(enum lies lies)
{
	int file;

	switch (lies) {
	case ORDINARY:
		there = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		break;
	case FILE_PAGE:
		file = memfd_create("there", 0);
		REQUIRE(file >= 0 && ftruncate(file, 4096) == 0);
		there = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		close(file);
		break;
	case DOMAIN:
	case NR_LIES:
		there = epk_device_map(&dev, live_id, 4096);
		break;
	}
	REQUIRE(there != MAP_FAILED);
	epk_device_enter(&dev, live_id);
	*there = PATTERN;
	epk_device_enter(&dev, 0);
}

static void still_lies(const char *why)
{
	volatile uint32_t value = 0;

	epk_device_enter(&dev, live_id);
	epk_check(!EPK_TRY(value = *there) && value == PATTERN, __FILE__, __LINE__,
		  "what lay there still does: ", why);
	epk_device_enter(&dev, 0);
}

static void take_away(void)
{
	if (munmap((void *)there, 4096))
		CHECK_EQ(epk_device_unmap(&dev, there, 4096), 0);
}

static void fixed(int error, const char *why, size_t len, int prot, int flags, int fd,
		  uint64_t offset)
{
	void *got;

	errno = 0;
	got = mmap((void *)there, len, prot, flags | MAP_FIXED, fd, offset);
	epk_check(got == MAP_FAILED, __FILE__, __LINE__, "fails: ", why);
	epk_check(errno == error, __FILE__, __LINE__, strerrorname_np(errno), why);
	still_lies(why);
}

/* @lies: a live domain is EPERM before anything else is looked at. */
static void fixed_fails(enum lies lies)
{
	int other = open_new(), none = id + 5;
#define E(error)	(lies == DOMAIN ? EPERM : (error))

	lay(lies);
	fixed(E(ENOENT), "no such domain", 4096, PROT_READ, MAP_SHARED, dev.fd,
	      EPK_MMAP_DOMAIN(none));
	fixed(E(EACCES), "execution", 4096, PROT_READ | PROT_EXEC, MAP_SHARED, dev.fd,
	      EPK_MMAP_DOMAIN(id));
	fixed(E(EINVAL), "private", 4096, PROT_READ, MAP_PRIVATE, dev.fd, EPK_MMAP_DOMAIN(id));
	fixed(E(EINVAL), "inside a domain's offsets", 4096, PROT_READ, MAP_SHARED, dev.fd,
	      EPK_MMAP_DOMAIN(id) + 4096);
	fixed(E(EINVAL), "no offset of anything", 4096, PROT_READ, MAP_SHARED, dev.fd, 4096);
	fixed(E(EINVAL), "part of the table", 4096, PROT_READ, MAP_SHARED, dev.fd,
	      EPK_MMAP_TABLE);
	fixed(E(EACCES), "a writable identity page", 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
	      dev.fd, EPK_MMAP_IDENTITY);
	fixed(E(EINVAL), "a private identity page", 4096, PROT_READ, MAP_PRIVATE, dev.fd,
	      EPK_MMAP_IDENTITY);
	fixed(E(ENXIO), "before it is started", 4096, PROT_READ, MAP_SHARED, other,
	      EPK_MMAP_DOMAIN(id));
	fixed(E(ENXIO), "its identity page before it is started", 4096, PROT_READ, MAP_SHARED,
	      other, EPK_MMAP_IDENTITY);
	take_away();
	close(other);
}

/* Also as a part of what is replaced. */
static void fixed_over_more(void)
{
	char *low = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(low != MAP_FAILED);
	memset(low, 0x5a, 3 * 4096);
	CHECK(mmap(low, 3 * 4096, PROT_READ, MAP_SHARED | MAP_FIXED, dev.fd,
		   EPK_MMAP_DOMAIN(id + 5)) == MAP_FAILED && errno == ENOENT);
	CHECK(!EPK_TRY((void)*(volatile char *)low) && low[3 * 4096 - 1] == 0x5a);
	/* And it does work. */
	CHECK(mmap(low + 4096, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		   EPK_MMAP_DOMAIN(id)) == low + 4096);
	epk_device_enter(&dev, id);
	*(volatile uint32_t *)(low + 4096) = SECRET;
	epk_device_enter(&dev, 0);
	CHECK(low[4095] == 0x5a && low[2 * 4096] == 0x5a);
	CHECK_EQ(EPK_TRY((void)*(volatile char *)(low + 4096)), SIGSEGV);
	/* The parts around it can go, it cannot with them. */
	CHECK(munmap(low, 3 * 4096) == -1 && errno == EPERM);
	CHECK(low[4095] == 0x5a && low[2 * 4096] == 0x5a);
	CHECK_EQ(epk_device_unmap(&dev, low + 4096, 4096), 0);
	CHECK_EQ(munmap(low, 3 * 4096), 0);
}

static void file_at(int error, const char *why, size_t len, int fd, uint64_t offset, int prot,
		    int domain, int flags)
{
	struct epk_file arg = {
		.addr = (uintptr_t)there, .len = len, .offset = offset, .id = domain, .fd = fd,
		.prot = prot, .flags = flags,
	};

	errno = 0;
	epk_check(ioctl(dev.fd, EPK_IOC_FILE, &arg) == -1, __FILE__, __LINE__, "fails: ", why);
	epk_check(errno == error, __FILE__, __LINE__, strerrorname_np(errno), why);
	still_lies(why);
}

static void file_fails(enum lies lies)
{
	int file = memfd_create("file", MFD_ALLOW_SEALING), readable, sealed, dir;
	char path[32];

	sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
	dir = open("/tmp", O_RDONLY);
	REQUIRE(file >= 0 && sealed >= 0 && dir >= 0);
	REQUIRE(ftruncate(file, 4096) == 0 && ftruncate(sealed, 4096) == 0);
	CHECK_EQ(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	readable = open(path, O_RDONLY);
	REQUIRE(readable >= 0);

	lay(lies);
	file_at(ENOENT, "file: no such domain", 4096, file, 0, PROT_READ, id + 5, MAP_FIXED);
	file_at(ENOENT, "file: a freed domain's generation", 4096, file, 0, PROT_READ,
		id + (1 << EPK_ID_INDEX_BITS), MAP_FIXED);
	file_at(EINVAL, "file: execution", 4096, file, 0, PROT_READ | PROT_EXEC, id, MAP_FIXED);
	file_at(EINVAL, "file: private", 4096, file, 0, PROT_READ, id, MAP_FIXED | MAP_PRIVATE);
	file_at(EINVAL, "file: no bytes", 0, file, 0, PROT_READ, id, MAP_FIXED);
	file_at(EINVAL, "file: wrong offset", 4096, file, 512, PROT_READ, id, MAP_FIXED);
	file_at(EPERM, "file: sealed", 4096, sealed, 0, PROT_READ | PROT_WRITE, id, MAP_FIXED);
	file_at(EACCES, "file: read only", 4096, readable, 0, PROT_READ | PROT_WRITE, id,
		MAP_FIXED);
	file_at(EBADF, "file: none", 4096, -1, 0, PROT_READ, id, MAP_FIXED);
	file_at(EOPNOTSUPP, "file: a directory", 4096, dir, 0, PROT_READ, id, MAP_FIXED);
	file_at(EOPNOTSUPP, "file: the device", 4096, dev.fd, 0, PROT_READ, id, MAP_FIXED);
	file_at(EEXIST, "file: not over anything", 4096, file, 0, PROT_READ, id,
		MAP_FIXED_NOREPLACE);
	if (lies == DOMAIN)
		file_at(EPERM, "file: over a domain", 4096, file, 0, PROT_READ, id, MAP_FIXED);
	take_away();
	close(file);
	close(readable);
	close(sealed);
	close(dir);
}

/* And none of all these attempts has left a mapping behind. */
static void fixed_failures(void)
{
	struct epk_stats before, after;
	unsigned int mappings;
	int ids[2], lies;

	epk_device_open(&dev);
	/* What it holds has to survive that it leaves the CPU. */
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 2, ids) == 0);
	id = ids[0];
	live_id = ids[1];
	lay(ORDINARY);
	before = epk_device_stats(&dev);
	mappings = epk_count_mappings();
	for (lies = 0; lies < NR_LIES; lies++) {
		fixed_fails(lies);
		file_fails(lies);
	}
	fixed_over_more();
	CHECK_EQ(epk_count_mappings(), mappings);
	after = epk_device_stats(&dev);
	CHECK_EQ(after.pages, before.pages);
	CHECK_EQ(after.domains, before.domains);
}

/* Of a process that may not lock more, and one that was forked. */
static void fixed_limits(void)
{
	struct rlimit limit = { 65536, 65536 };
	unsigned int i;
	void *full;
	int ids[2];

	epk_device_open(&dev);
	/* What it holds has to survive that it leaves the CPU. */
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 2, ids) == 0);
	id = ids[0];
	live_id = ids[1];
	REQUIRE(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	REQUIRE(setuid(65534) == 0);
	there = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(there != MAP_FAILED);
	*there = PATTERN;
	full = epk_device_map(&dev, id, 65536);
	REQUIRE(full != MAP_FAILED);
	for (i = 0; i < 3; i++)
		fixed(ENOMEM, "over the limit", 4096, PROT_READ | PROT_WRITE, MAP_SHARED, dev.fd,
		      EPK_MMAP_DOMAIN(id));
	CHECK_EQ(epk_device_unmap(&dev, full, 65536), 0);
	/* What was refused, and what is refused for another reason, does not count. */
	for (i = 0; i < 20; i++)
		CHECK(mmap((void *)there, 65536, PROT_READ, MAP_SHARED | MAP_FIXED, dev.fd,
			   EPK_MMAP_DOMAIN(id + 5)) == MAP_FAILED && errno == ENOENT);
	full = mmap((void *)there, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		    EPK_MMAP_DOMAIN(id));
	CHECK(full == there);
	CHECK_EQ(epk_device_unmap(&dev, full, 65536), 0);
}

static void fixed_in_child(void)
{
	pid_t pid;
	int ids[1];

	epk_device_open(&dev);
	/* What it holds has to survive that it leaves the CPU. */
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, ids) == 0);
	id = ids[0];
	pid = fork();
	if (!pid) {
		volatile uint32_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		*p = PATTERN;
		CHECK(mmap((void *)p, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, dev.fd,
			   EPK_MMAP_DOMAIN(id)) == MAP_FAILED && errno == EPERM);
		CHECK(mmap((void *)p, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, dev.fd,
			   EPK_MMAP_IDENTITY) == MAP_FAILED && errno == EPERM);
		CHECK(!EPK_TRY((void)*p) && *p == PATTERN);
		fflush(stdout);
		_exit(epk_failures != 0);
	}
	wait_for(pid);
}

/* A start that fails has told nothing, nor has one whose answer is half out of reach. */
static void init_tells_nothing(void)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = 0xfffe, .nr_epts = 77 };
	struct epk_init was = init, *half;
	int fd = open_new();
	char *pages;

	CHECK_EQ(pkey_free(7), 0);
	CHECK(ioctl(fd, EPK_IOC_INIT, &init) == -1 && errno == EINVAL);
	CHECK(!memcmp(&init, &was, sizeof(init)));
	CHECK_EQ(pkey_alloc(0, PKEY_DISABLE_ACCESS), 7);

	pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(pages != MAP_FAILED);
	half = (struct epk_init *)(pages + 4096 - offsetof(struct epk_init, table_bytes));
	*half = was;
	CHECK_EQ(mprotect(pages + 4096, 4096, PROT_READ), 0);
	CHECK(ioctl(fd, EPK_IOC_INIT, half) == -1 && errno == EFAULT);
	CHECK(!memcmp(half, &was, sizeof(was)));
	CHECK_EQ(ioctl(fd, EPK_IOC_INIT, &init), 0);
	CHECK(init.nr_epts != 77);
}

/* A list of moves in what moves, of a thread that does not follow it. */
static void moves_out_of_reach(void)
{
	struct epk_moves arg = { .num = 1 };
	struct epk_move *list;

	list = epk_device_map(&dev, id, 4096);
	REQUIRE(list != MAP_FAILED);
	epk_device_enter(&dev, id);
	*list = (struct epk_move) { .id = id, .ept = EPK_EPT_NONE };
	arg.moves = (uintptr_t)list;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_MOVE, &arg), 0);
	CHECK(EPK_TRY(*(volatile uint32_t *)list) == SIGSEGV);
	CHECK_EQ(epk_device_entry(&dev, id).ept, EPK_EPT_NONE);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY), 0);
	CHECK_EQ(epk_device_unmap(&dev, list, 4096), 0);
}

/* What asks for a mapping lies where it comes. */
static void file_over_request(int file)
{
	unsigned int mappings = epk_count_mappings();
	struct epk_file *request = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(request != MAP_FAILED);
	*request = (struct epk_file) {
		.addr = (uintptr_t)request, .len = 4096, .id = id, .fd = file,
		.prot = PROT_READ | PROT_WRITE, .flags = MAP_FIXED,
	};
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_FILE, request), 0);
	CHECK_EQ(epk_count_mappings(), mappings + 1);
	CHECK_EQ(epk_device_unmap(&dev, request, 4096), 0);
}

/* The page of answers comes and goes. */
static void *answers_come_and_go(void *page)
{
	while (!stop) {
		CHECK_EQ(mprotect(page, 4096, PROT_READ), 0);
		CHECK_EQ(mprotect(page, 4096, PROT_READ | PROT_WRITE), 0);
	}
	return NULL;
}

static void __attribute__((noinline)) ask_file(struct epk_file *page, int file)
{
	const struct epk_file request = {
		.len = 4096, .id = id, .fd = file, .prot = PROT_READ | PROT_WRITE,
	};

	while (EPK_TRY(*(volatile struct epk_file *)page = request))
		;
}

static void answers_race(int file)
{
	unsigned int mappings = epk_count_mappings(), domains = epk_device_stats(&dev).domains;
	struct epk_domains alloc = { .num = 3 };
	unsigned int failed[2] = { 0 }, i;
	struct epk_file *page;
	pthread_t thread;

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(page != MAP_FAILED);
	alloc.ids = (uintptr_t)(page + 1);
	stop = 0;
	REQUIRE(!pthread_create(&thread, NULL, answers_come_and_go, page));
	for (i = 0; i < 40; i++) {
		ask_file(page, file);
		if (ioctl(dev.fd, EPK_IOC_FILE, page)) {
			CHECK_EQ(errno, EFAULT);
			failed[0]++;
		} else {
			CHECK_EQ(epk_device_unmap(&dev, (void *)(uintptr_t)page->addr, 4096), 0);
		}
		if (ioctl(dev.fd, EPK_IOC_ALLOC, &alloc)) {
			CHECK_EQ(errno, EFAULT);
			failed[1]++;
		} else {
			CHECK_EQ(epk_device_free(&dev, 3, (int *)(page + 1)), 0);
		}
	}
	stop = 1;
	pthread_join(thread, NULL);
	printf("no answer: %u mappings, %u allocations, of %u\n", failed[0], failed[1], i);
	/* It may be none where one CPU does one after the other. */
	CHECK_EQ(epk_count_mappings(), mappings);
	CHECK_EQ(epk_device_stats(&dev).domains, domains);
}

/* What cannot be told has not been done, or is. */
static void answers(void)
{
	int file = memfd_create("file", 0);

	REQUIRE(file >= 0 && ftruncate(file, 4096) == 0);
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	moves_out_of_reach();
	file_over_request(file);
	answers_race(file);
}

int main(void)
{
	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	apart(closes_own_keys);
	apart(closes_keys);
	apart(failure_changes_nothing);
	apart(second_changes_nothing);
	apart(starts_at_once);
	apart(fixed_failures);
	apart(fixed_limits);
	apart(fixed_in_child);
	apart(init_tells_nothing);
	apart(answers);
	apart(keys_race);
	return epk_test_result();
}
