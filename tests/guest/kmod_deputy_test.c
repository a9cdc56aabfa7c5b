// SPDX-License-Identifier: MIT
/*
 * Calls that change what lies at the address of a secret, a thread that is born while it is
 * held, and what the kernel itself does for a thread.  As in kmod_attack_test.c, each is made
 * on a page with a plain protection key first.
 */
#include "epk_test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "raw/epk_raw.h"

#define SECRET		0x5ec0ffee
#define CHOSEN		0xc405e4

static struct epk_device dev;
static int raw;

/* The page, whose it is: a domain's in EPT 1, or without one a plain key's. */
static volatile uint64_t *target;
static int id, pkey;
/* Where domain @id is. */
static uint32_t far_ept;
static uint64_t loot;

static void hold(void)
{
	if (id)
		epk_device_enter(&dev, id);
	else
		epk_wrpkru(EPK_PKRU_ALLOW(pkey));
}

static void leave(void)
{
	if (id)
		epk_device_enter(&dev, 0);
	else
		epk_wrpkru(EPK_PKRU_DENY_ALL);
}

static void target_drop(void)
{
	if (id)
		CHECK_EQ(epk_device_unmap(&dev, target, 4096), 0);
	munmap((char *)target - 4096, 3 * 4096);
}

/* Between two pages that nobody needs. */
static void target_make(void)
{
	char *room = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(room != MAP_FAILED);
	target = mmap(room + 4096, 4096, PROT_READ | PROT_WRITE,
		      MAP_FIXED | (id ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS),
		      id ? dev.fd : -1, id ? EPK_MMAP_DOMAIN(id) : 0);
	REQUIRE(target != MAP_FAILED);
	if (!id) {
		REQUIRE(pkey_mprotect((void *)target, 4096, PROT_READ | PROT_WRITE, pkey) == 0);
	}
	hold();
	*target = SECRET;
	leave();
}

/* What its owner finds there. */
static uint64_t content(void)
{
	volatile uint64_t value = 0;

	hold();
	CHECK_EQ(EPK_TRY(value = *target), 0);
	leave();
	return value;
}

static bool by_remap(void)
{
	void *got = mremap((void *)target, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
			   (char *)target + (1 << 30));

	if (got == MAP_FAILED)
		return content() != SECRET;
	munmap(got, 4096);
	return true;
}

static bool by_protect(void)
{
	CHECK_EQ(mprotect((void *)target, 4096, PROT_NONE), 0);
	CHECK_EQ(mprotect((void *)target, 4096, PROT_READ | PROT_WRITE), 0);
	if (id)
		epk_device_goto(&dev, far_ept);
	return !EPK_TRY(loot = *target) || content() != SECRET;
}

/* Code of the attacker's choice, or of the owner's? */
static bool by_exec(void)
{
	return !mprotect((void *)target, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
}

static bool by_dontneed(void)
{
	return !madvise((void *)target, 4096, MADV_DONTNEED) || content() != SECRET;
}

static bool by_free(void)
{
	return !madvise((void *)target, 4096, MADV_FREE);
}

/* The owner wanted no child to have it. */
static bool by_dofork(void)
{
	int status;
	pid_t pid;

	CHECK_EQ(madvise((void *)target, 4096, MADV_DONTFORK), 0);
	madvise((void *)target, 4096, MADV_DOFORK);
	pid = fork();
	if (!pid) {
		epk_wrpkru(0);
		if (id)
			epk_device_goto(&dev, far_ept);
		_exit(EPK_TRY(loot = *target) || loot != SECRET);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	return !status;
}

/* What lies where the secret was. */
static bool by_unmap(void)
{
	return !munmap((void *)target, 4096) || errno != EPERM;
}

/* Other memory in its place, to which the owner writes the next secret. */
static bool shows_next(void *got)
{
	if (got != target)
		return content() != SECRET;
	hold();
	*target = CHOSEN;
	leave();
	return !EPK_TRY(loot = *target) && loot == CHOSEN;
}

static bool by_fixed(void)
{
	return shows_next(mmap((void *)target, 4096, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

/* More than the target, from below it to above. */
static bool by_wide_fixed(void)
{
	void *got = mmap((char *)target - 4096, 3 * 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	return shows_next(got == MAP_FAILED ? NULL : (void *)target);
}

static bool by_remap_onto(void)
{
	void *other = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			   0);

	return shows_next(mremap(other, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, target));
}

static bool by_shmat(void)
{
	int shm = shmget(IPC_PRIVATE, 4096, 0600);
	void *got = shmat(shm, (void *)target, SHM_REMAP);

	shmctl(shm, IPC_RMID, NULL);
	return shows_next(got);
}

/* It changes which part of a file lies there, and for that maps anew. */
static bool by_remap_file_pages(void)
{
	return !syscall(SYS_remap_file_pages, target, 4096, 0, 0, 0) || content() != SECRET;
}

static bool by_shrink(void)
{
	return mremap((void *)target, 4096, 0, 0) != MAP_FAILED || content() != SECRET;
}

/* The heap ends below what it has lain on. */
static bool by_brk(void)
{
	char *end = (char *)(((uintptr_t)sbrk(0) + 4095) & -4096ul);
	volatile uint64_t *there = (void *)end, *was = target;
	bool got;

	CHECK_EQ(syscall(SYS_brk, end + 2 * 4096), (long)(end + 2 * 4096));
	if (id) {
		CHECK(mmap(end, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
			   EPK_MMAP_DOMAIN(id)) == there);
	} else {
		CHECK_EQ(pkey_mprotect(end, 4096, PROT_READ | PROT_WRITE, pkey), 0);
	}
	target = there;
	hold();
	*target = SECRET;
	leave();
	got = syscall(SYS_brk, end) == (long)end;
	if (!got) {
		CHECK_EQ(content(), SECRET);
		CHECK_EQ(epk_device_unmap(&dev, there, 4096), 0);
		CHECK_EQ(syscall(SYS_brk, end), (long)end);
	}
	target = was;
	return got;
}

static void *newborn(void *got)
{
	if (id)
		epk_device_goto(&dev, far_ept);
	*(bool *)got = !EPK_TRY(loot = *target);
	return NULL;
}

static bool by_thread(void)
{
	pthread_t thread;
	bool got = false;

	hold();
	CHECK_EQ(pthread_create(&thread, NULL, newborn, &got), 0);
	pthread_join(thread, NULL);
	leave();
	return got;
}

/* Both ends of a connection over the loopback device, to be sent to by reference. */
static void connection(int fds[2])
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	socklen_t len = sizeof(addr);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	REQUIRE(listener >= 0 && !bind(listener, (void *)&addr, len) && !listen(listener, 1));
	REQUIRE(getsockname(listener, (void *)&addr, &len) == 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	REQUIRE(connect(fds[0], (void *)&addr, sizeof(addr)) == 0);
	fds[1] = accept(listener, NULL, NULL);
	REQUIRE(fds[1] >= 0);
	REQUIRE(setsockopt(fds[0], SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) == 0);
	close(listener);
}

static bool sends(const int fds[2], const volatile void *from, int flags)
{
	struct iovec iov = { (void *)from, 4096 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	static char page[4096];

	if (sendmsg(fds[0], &msg, flags) != 4096)
		return false;
	CHECK_EQ(recv(fds[1], page, 4096, MSG_WAITALL), 4096);
	memcpy(&loot, page, 8);
	return true;
}

static bool by_zerocopy(void)
{
	static char ordinary[4096] __attribute__((aligned(4096)));
	int fds[2];
	bool got;

	connection(fds);
	/* The test of the test. */
	CHECK(sends(fds, ordinary, MSG_ZEROCOPY));
	got = sends(fds, target, MSG_ZEROCOPY);
	close(fds[0]);
	close(fds[1]);
	return got;
}

static const struct {
	const char *name;
	bool (*attack)(void);
	bool plain, domain;	/* does it succeed */
	bool spoils;		/* the target is gone */
} attacks[] = {
	{ "A4 mremap", by_remap, true, false, false },
	{ "A4 mprotect", by_protect, false, false, false },
	{ "A4 mprotect for execution", by_exec, true, false, false },
	{ "A4 MADV_DONTNEED", by_dontneed, true, false, false },
	{ "A4 MADV_FREE", by_free, true, false, false },
	{ "A4 MADV_DOFORK", by_dofork, true, false, false },
	{ "A4 munmap", by_unmap, true, false, false },
	{ "A4 MAP_FIXED", by_fixed, true, false, false },
	{ "A4 MAP_FIXED over more than it", by_wide_fixed, true, false, false },
	{ "A4 mremap onto it", by_remap_onto, true, false, false },
	{ "A4 mremap to nothing", by_shrink, false, false, false },
	{ "A4 shmat(SHM_REMAP)", by_shmat, true, false, false },
	{ "A4 remap_file_pages", by_remap_file_pages, false, false, false },
	{ "A4 brk", by_brk, true, false, false },
	{ "A7 a new thread", by_thread, true, false, false },
	{ "A10 MSG_ZEROCOPY", by_zerocopy, false, false, false },
};

static void attack(const char *on)
{
	unsigned int i;

	for (i = 0; i < sizeof(attacks) / sizeof(*attacks); i++) {
		bool succeeds = id ? attacks[i].domain : attacks[i].plain;

		target_make();
		loot = 0;
		epk_check(attacks[i].attack() == succeeds, __FILE__, __LINE__, attacks[i].name,
			  on);
		if (!succeeds && !attacks[i].spoils)
			CHECK_EQ(content(), SECRET);
		leave();
		target_drop();
	}
}

static bool followed(const volatile void *at)
{
	struct epk_raw_follow req = { .addr = (uintptr_t)at };

	return !ioctl(raw, EPK_RAW_FOLLOW, &req);
}

/* Page frames, which no key protects: KVM would show them to a guest, VFIO to a device. */
static void page_frames(void)
{
	target_make();
	/* What a device's memory is to them. */
	(void)dev.identity->ept;
	CHECK(followed(dev.identity));
	CHECK(!followed(target));
	hold();
	(void)*target;
	CHECK(!followed(target));
	leave();
	target_drop();
}

/* By value, which is as the thread's own access: who holds it may, and nobody else. */
static void sending(void)
{
	int fds[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	target_make();
	CHECK(!sends(fds, target, 0) && errno == EFAULT);
	hold();
	CHECK(sends(fds, target, 0) && loot == SECRET);
	leave();
	connection(fds);
	hold();
	CHECK(!sends(fds, target, MSG_ZEROCOPY) && errno == EFAULT);
	leave();
	close(fds[0]);
	close(fds[1]);
	target_drop();
}

/* 0 or an error, @value read or written. */
static int copied(enum epk_raw_who who, volatile uint64_t *at, bool write, uint64_t *value)
{
	struct epk_raw_copy req = { .addr = (uintptr_t)at, .value = *value, .who = who,
				    .write = write };
	int ret = ioctl(raw, EPK_RAW_COPY, &req) ? errno : 0;

	*value = req.value;
	return ret;
}

/* Whether threads that the kernel makes have all keys open from their first moment on. */
static void keys_of_kthreads(bool open)
{
	REQUIRE(put("/sys/kernel/debug/x86/init_pkru", open ? "0" : "0x55555554"));
}

/*
 * A thread of the kernel holds nothing, whoever it works for; a softirq has what the thread has
 * that it interrupts.
 */
static void kernel_work(void)
{
	static volatile uint64_t ordinary;
	unsigned int who;
	uint64_t value;

	target_make();
	for (who = 0; who < EPK_RAW_NR_WHO; who++) {
		int held = who == EPK_RAW_SOFTIRQ ? 0 : EFAULT;

		value = ordinary = who + 1;
		CHECK_EQ(copied(who, &ordinary, true, &value), 0);
		value = 0;
		CHECK_EQ(copied(who, &ordinary, false, &value), 0);
		CHECK_EQ(value, who + 1);

		value = CHOSEN;
		CHECK_EQ(copied(who, target, false, &value), EFAULT);
		CHECK_EQ(copied(who, target, true, &value), EFAULT);
		CHECK_EQ(value, CHOSEN);
		hold();
		CHECK_EQ(copied(who, target, false, &value), held);
		CHECK_EQ(value, held ? CHOSEN : SECRET);
		CHECK_EQ(copied(who, target, true, &value), held);
		CHECK_EQ(dev.identity->ept, far_ept);
		leave();
	}
	CHECK_EQ(content(), SECRET);
	target_drop();
}

static bool looked(enum epk_raw_how how, const volatile uint64_t *at, uint64_t *value)
{
	struct epk_raw_look req = { .addr = (uintptr_t)at, .how = how };
	bool ok = !ioctl(raw, EPK_RAW_LOOK, &req);

	*value = req.value;
	return ok;
}

/* A thread that holds a domain is in the middle of its work when somebody looks on. */
static void onlookers(void)
{
	static uint64_t ordinary[2];
	enum epk_raw_how how;
	uint64_t value;

	target_make();
	hold();
	target[0] = ordinary[0] = SECRET;
	target[1] = ordinary[1] = CHOSEN;
	leave();
	for (how = 0; how < EPK_RAW_NR_HOW; how++) {
		CHECK(looked(how, ordinary, &value));
		CHECK_EQ(value, how == EPK_RAW_LENGTH ? 5 : how == EPK_RAW_STACK ? CHOSEN : SECRET);
		hold();
		CHECK(!looked(how, target, &value) && errno == EFAULT);
		CHECK_EQ(value, 0);
		/* Where a key is open, what is the domain's cannot be told from the rest. */
		CHECK(!looked(how, ordinary, &value));
		leave();
	}
	/* What is not stopped: who has a module loaded, root, has all of memory. */
	if (epk_device_is_alone(&dev))
		CHECK(looked(EPK_RAW_KERNEL, target, &value) && value == SECRET);
	CHECK_EQ(content(), SECRET);
	target_drop();
}

int main(void)
{
	static volatile uint64_t ordinary = SECRET;

	epk_try_init();
	raw = open(EPK_RAW_DEVICE, O_RDWR | O_CLOEXEC);
	REQUIRE(raw >= 0);
	pkey = pkey_alloc(0, PKEY_DISABLE_ACCESS);
	REQUIRE(pkey > 0);
	attack(" on a plain key");
	CHECK_EQ(pkey_free(pkey), 0);

	/* One that is there before there are domains. */
	keys_of_kthreads(true);
	CHECK(!copied(EPK_RAW_KEEPER, &ordinary, false, &loot) && loot == SECRET);
	keys_of_kthreads(false);
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	id = epk_device_alloc_far(&dev);
	far_ept = epk_device_entry(&dev, id).ept;
	attack(" on a domain");
	sending();
	kernel_work();
	keys_of_kthreads(true);
	kernel_work();
	keys_of_kthreads(false);
	page_frames();
	onlookers();
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	return epk_test_result();
}
