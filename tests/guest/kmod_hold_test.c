// SPDX-License-Identifier: MIT
/*
 * All that a thread holds, as EPK_IOC_HELD tells it; and what it holds and no instruction can have
 * at once.
 */
#include "rights_test.h"

#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/futex.h>

/* More than any thread holds. */
#define ROOM		(2 * NR_DOMAINS)

static int prots[NR_DOMAINS];
/* EPK_HELD_INTERRUPTED, while that is what is asked for. */
static unsigned int of_whom;

static unsigned int held(struct epk_grant *list, unsigned int room)
{
	struct epk_grants arg = { .num = room, .flags = of_whom, .list = (uintptr_t)list };

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &arg), 0);
	return arg.num;
}

static unsigned int how_many(void)
{
	unsigned int num = 0, i;

	for (i = 0; i < NR_DOMAINS; i++)
		num += !!prots[i];
	return num;
}

/* Each that is held, once, as it is held, and no other; as many as there is room for. */
static void lists_all(void)
{
	unsigned int num = how_many(), i, room;
	struct epk_grant list[ROOM];
	int seen[NR_DOMAINS] = { 0 };

	for (room = 0; room < ROOM; room += room < num ? num - room : ROOM) {
		memset(list, 0x77, sizeof(list));
		CHECK_EQ(held(list, room), num);
		CHECK_EQ(list[room].id, 0x77777777);
	}
	CHECK_EQ(held(list, ROOM), num);
	CHECK_EQ(list[num].id, 0x77777777);
	for (i = 0; i < num; i++) {
		int n = 0;

		while (n < NR_DOMAINS && ids[n] != list[i].id)
			n++;
		if (!CHECK(n < NR_DOMAINS))
			continue;
		seen[n]++;
		CHECK_EQ(list[i].prot, prots[n]);
	}
	for (i = 0; i < NR_DOMAINS; i++)
		CHECK_EQ(seen[i], !!prots[i]);
}

/* In its key, by the record, without a place, with the key opened by itself. */
static void held_in_all_ways(void)
{
	struct epk_entry entry;
	int i;

	lists_all();
	for (i = 0; i < NR_DOMAINS; i++) {
		prots[i] = i % 3 ? PROT_READ : PROT_READ | PROT_WRITE;
		CHECK_EQ(begin_prot(ids[i], prots[i]), 0);
	}
	lists_all();
	for (i = 0; i < NR_DOMAINS; i += 5) {
		CHECK_EQ(end(ids[i]), 0);
		prots[i] = 0;
	}
	lists_all();
	for (i = 1; i < NR_DOMAINS; i += 7)
		CHECK_EQ(epk_device_move(&dev, ids[i], EPK_EPT_NONE), 0);
	lists_all();
	/* What is open is held, and what is closed is not. */
	for (i = 0; i < NR_DOMAINS; i++) {
		entry = epk_device_entry(&dev, ids[i]);
		if (prots[i] && entry.pkey && entry.ept == dev.identity->ept)
			break;
	}
	REQUIRE(i < NR_DOMAINS);
	epk_wrpkru(epk_rdpkru() | 1u << 2 * entry.pkey);
	prots[i] = 0;
	lists_all();
	epk_wrpkru(epk_rdpkru() & ~(3u << 2 * entry.pkey));
	prots[i] = PROT_READ | PROT_WRITE;
	lists_all();
}

/* Room that cannot be written, a field that must be zero: nothing is told. */
static void wrong_lists(void)
{
	struct epk_grants arg = { .num = 1, .list = 8 };

	CHECK(ioctl(dev.fd, EPK_IOC_HELD, &arg) == -1 && errno == EFAULT);
	arg.num = 0;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &arg), 0);
	CHECK_EQ(arg.num, how_many());
	arg.flags = EPK_HELD_INTERRUPTED << 1;
	CHECK(ioctl(dev.fd, EPK_IOC_HELD, &arg) == -1 && errno == EINVAL);
	arg.flags = ~EPK_HELD_INTERRUPTED;
	CHECK(ioctl(dev.fd, EPK_IOC_HELD, &arg) == -1 && errno == EINVAL);
	arg.flags = EPK_HELD_INTERRUPTED;
	arg.num = 1;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &arg), 0);
	CHECK_EQ(arg.num, 0);
	CHECK(ioctl(dev.fd, EPK_IOC_HELD, 8) == -1 && errno == EFAULT);
	lists_all();
}

/* As @prots says, which another handler may have changed. */
static void lists_interrupted(void)
{
	of_whom = EPK_HELD_INTERRUPTED;
	lists_all();
	of_whom = 0;
}

/* The innermost: of the code it interrupted, which is a handler. */
static void in_inner_handler(int sig)
{
	(void)sig;
	lists_interrupted();
}

static void in_handler(int sig)
{
	int saved[NR_DOMAINS], none[NR_DOMAINS] = { 0 };

	(void)sig;
	lists_interrupted();
	memcpy(saved, prots, sizeof(prots));
	memset(prots, 0, sizeof(prots));
	lists_all();
	CHECK_EQ(begin_prot(ids[3], PROT_READ), 0);
	prots[3] = PROT_READ;
	lists_all();
	raise(SIGUSR2);
	/* What it calls is no handler. */
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_CALL, EPK_BEGIN(ids[4], PROT_READ)), 0);
	memcpy(prots, none, sizeof(prots));
	lists_interrupted();
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, 0), 0);
	memcpy(prots, saved, sizeof(prots));
	/* What it holds itself is nothing to the code that it interrupted. */
	lists_interrupted();
}

/* Freed by another thread, say: it is held no more. */
static void in_freeing_handler(int sig)
{
	(void)sig;
	CHECK_EQ(epk_device_free(&dev, 1, &ids[NR_DOMAINS - 1]), 0);
	prots[NR_DOMAINS - 1] = 0;
	lists_interrupted();
}

/* A handler and what is called hold what they begin. */
static void held_inside(void)
{
	int saved[NR_DOMAINS];

	REQUIRE(signal(SIGUSR1, in_handler) != SIG_ERR);
	REQUIRE(signal(SIGUSR2, in_inner_handler) != SIG_ERR);
	raise(SIGUSR1);
	lists_all();
	of_whom = EPK_HELD_INTERRUPTED;
	CHECK_EQ(held(NULL, 0), 0);
	of_whom = 0;
	REQUIRE(signal(SIGUSR1, in_freeing_handler) != SIG_ERR);
	if (!prots[NR_DOMAINS - 1])
		CHECK_EQ(begin_prot(ids[NR_DOMAINS - 1], PROT_READ), 0);
	prots[NR_DOMAINS - 1] = PROT_READ;
	raise(SIGUSR1);
	lists_all();
	memcpy(saved, prots, sizeof(prots));
	memset(prots, 0, sizeof(prots));
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_CALL, EPK_BEGIN(ids[4], PROT_READ)), 0);
	prots[4] = PROT_READ;
	lists_all();
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_RETURN, 0), 0);
	memcpy(prots, saved, sizeof(prots));
	lists_all();
}

static void hold_all(void)
{
	struct epk_domains arg = {
		.num = NR_DOMAINS, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)ids,
	};

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	REQUIRE(follow() == 0);
	held_in_all_ways();
	wrong_lists();
	held_inside();
}

static void hold_two_of_one_key(void)
{
	struct epk_domains arg = {
		.num = 2, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)ids,
	};
	int i;

	epk_device_open_keys(&dev, 1u << 5);
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	REQUIRE(follow() == 0);
	for (i = 0; i < 2; i++) {
		pages[i] = epk_device_map(&dev, ids[i], PAGE);
		REQUIRE(pages[i] != MAP_FAILED);
		CHECK_EQ(begin(ids[i]), 0);
	}
}

/* Two that share the only key, however many EPTs there are: to copy takes both. */
static void one_key(void)
{
	void *to, *from;
	int i;

	hold_two_of_one_key();
	/* One after the other. */
	for (i = 0; i < 20; i++)
		CHECK_EQ(touch(pages[i % 2], 1), 0);
	for (i = 0; i < 2; i++) {
		to = pages[0];
		from = pages[1];
		CHECK_EQ(EPK_TRY_ONLY(asm volatile("movsb" : "+D"(to), "+S"(from) : : "memory")),
			 SIGSEGV);
		CHECK_EQ(epk_try_code, SEGV_PKUERR);
		/* Left by a jump, it holds nothing. */
		CHECK_EQ(begin(ids[0]), 0);
		CHECK_EQ(begin(ids[1]), 0);
	}
	for (i = 0; i < 20; i++)
		CHECK_EQ(touch(pages[i % 2], 1), 0);
}

static long futex(volatile uint32_t *word, int op, uint32_t val, volatile uint32_t *word2,
		  uint32_t val3)
{
	return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, val, 1ul, word2, val3);
}

static volatile uint32_t *evicted(void)
{
	CHECK_EQ(epk_device_move(&dev, ids[0], EPK_EPT_NONE), 0);
	return (volatile uint32_t *)pages[0];
}

/* Held, and without a place: the kernel writes there as the program would. */
static void futexes(void)
{
	struct epk_domains arg = { .num = 1, .ids = (uintptr_t)ids };
	uint32_t own = 0;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	REQUIRE(follow() == 0);
	pages[0] = epk_device_map(&dev, ids[0], PAGE);
	REQUIRE(pages[0] != MAP_FAILED);
	CHECK_EQ(begin_prot(ids[0], PROT_READ), 0);
	CHECK(futex(evicted(), FUTEX_TRYLOCK_PI, 0, NULL, 0) == -1 && errno == EFAULT);
	CHECK_EQ(begin(ids[0]), 1);
	CHECK_EQ(futex(evicted(), FUTEX_TRYLOCK_PI, 0, NULL, 0), 0);
	CHECK_EQ(*evicted(), getpid());
	CHECK_EQ(futex(evicted(), FUTEX_UNLOCK_PI, 0, NULL, 0), 0);
	CHECK_EQ(*evicted(), 0);
	CHECK_EQ(futex(&own, FUTEX_WAKE_OP, 1, evicted(),
		       FUTEX_OP(FUTEX_OP_SET, 7, FUTEX_OP_CMP_EQ, 0)), 0);
	CHECK_EQ(*evicted(), 7);
	CHECK_EQ(end(ids[0]), 0);
	CHECK(futex(evicted(), FUTEX_TRYLOCK_PI, 0, NULL, 0) == -1 && errno == EFAULT);
}

static long waitv(int x, int y)
{
	struct futex_waitv list[2] = {
		{ .uaddr = (uintptr_t)pages[x], .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG },
		{ .uaddr = (uintptr_t)pages[y], .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG },
	};
	struct timespec now = { 0 };

	return syscall(SYS_futex_waitv, list, 2, 0, &now, CLOCK_MONOTONIC) ? errno : 0;
}

/* Looks at both words, whether anybody waits or not. */
static long requeue(int x, int y)
{
	return futex((volatile uint32_t *)pages[x], FUTEX_CMP_REQUEUE_PI, 1,
		     (volatile uint32_t *)pages[y], 0) ? errno : 0;
}

/* A call that wants both, wherever they are, brings them together. */
static void futexes_apart(void)
{
	struct epk_domains arg = {
		.num = NR_DOMAINS, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)ids,
	};
	int *two, i;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	REQUIRE(follow() == 0);
	two = apart();
	for (i = 0; i < 2; i++) {
		pages[two[i]] = epk_device_map(&dev, ids[two[i]], PAGE);
		REQUIRE(pages[two[i]] != MAP_FAILED);
		CHECK_EQ(begin(ids[two[i]]), 0);
	}
	CHECK_EQ(requeue(two[0], two[1]), 0);
	CHECK_EQ(waitv(two[0], two[1]), ETIMEDOUT);
	CHECK_EQ(waitv(two[1], two[0]), ETIMEDOUT);
	CHECK_EQ(requeue(two[1], two[0]), 0);
}

/* A call that wants both, of the only key, has neither. */
static void futexes_of_one_key(void)
{
	int i;

	hold_two_of_one_key();
	for (i = 0; i < 2; i++) {
		CHECK_EQ(waitv(i, !i), EFAULT);
		CHECK_EQ(requeue(i, !i), EFAULT);
		CHECK_EQ(waitv(i, i), ETIMEDOUT);
	}
	for (i = 0; i < 20; i++)
		CHECK_EQ(touch(pages[i % 2], 1), 0);
}

static unsigned int where(int i)
{
	return epk_device_entry(&dev, ids[i]).ept;
}

/* The thread holds both, has gone from one to the other, and is not where the first one is. */
static void go_to_and_fro(void)
{
	int i;

	CHECK_EQ(begin(ids[0]), 0);
	CHECK_EQ(begin(ids[1]), 0);
	for (i = 0; i < 4; i++)
		CHECK_EQ(touch(pages[i % 2], 1), 0);
	/* The module brings together what is used so. */
	do {
		CHECK_EQ(epk_device_move(&dev, ids[0], 3), 0);
		CHECK_EQ(epk_device_move(&dev, ids[1], 4), 0);
		CHECK_EQ(touch(pages[1], 1), 0);
	} while (where(0) == where(1));
}

static void map_at(volatile void *addr, int id)
{
	/* What of the domains lies there goes by its owner's way alone. */
	if (epk_device_unmap(&dev, addr, PAGE))
		munmap((void *)addr, PAGE);
	CHECK(mmap((void *)addr, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		   EPK_MMAP_DOMAIN(id)) == addr);
	CHECK_EQ(epk_device_populate(&dev, addr, PAGE), 0);
}

static void refused(volatile uint64_t *word, int write, int code)
{
	CHECK_EQ(touch(word, write), SIGSEGV);
	CHECK_EQ(epk_try_code, code);
}

static void it_has_moved(void)
{
	int i;

	go_to_and_fro();
	for (i = 0; i < 4; i++) {
		CHECK_EQ(epk_device_move(&dev, ids[0], 5 + i % 2), 0);
		CHECK_EQ(touch(pages[1], 1), 0);
		CHECK_EQ(touch(pages[0], 1), 0);
	}
	CHECK_EQ(epk_device_move(&dev, ids[0], EPK_EPT_NONE), 0);
	CHECK_EQ(touch(pages[0], 1), 0);
	CHECK_EQ(end(ids[0]), 0);
	CHECK_EQ(end(ids[1]), 0);
}

/* Any more, or to be read alone. */
static void it_is_not_held(void)
{
	go_to_and_fro();
	CHECK_EQ(end(ids[0]), 0);
	refused(pages[0], 0, SEGV_PKUERR);
	go_to_and_fro();
	CHECK_EQ(end(ids[0]), 0);
	CHECK_EQ(begin_prot(ids[0], PROT_READ), 0);
	CHECK_EQ(touch(pages[1], 1), 0);
	refused(pages[0], 1, SEGV_PKUERR);
}

/* It is not held, or is. */
static void another_lies_there(void)
{
	go_to_and_fro();
	map_at(pages[0], ids[2]);
	refused(pages[0], 0, SEGV_PKUERR);
	CHECK_EQ(begin(ids[2]), 0);
	CHECK_EQ(begin(ids[1]), 0);
	CHECK_EQ(touch(pages[0], 1), 0);
	CHECK_EQ(touch(pages[1], 1), 0);
	CHECK_EQ(touch(pages[0], 1), 0);
	end_all();
}

/* Ordinary memory does; nothing does; and then the domain is gone. */
static void none_lies_there(void)
{
	map_at(pages[0], ids[0]);
	go_to_and_fro();
	CHECK_EQ(epk_device_unmap(&dev, pages[0], PAGE), 0);
	CHECK(mmap(pages[0], PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	      pages[0]);
	refused(pages[0], 0, SEGV_ACCERR);
	map_at(pages[0], ids[0]);
	go_to_and_fro();
	CHECK_EQ(epk_device_unmap(&dev, pages[0], PAGE), 0);
	refused(pages[0], 0, SEGV_MAPERR);

	map_at(pages[0], ids[0]);
	go_to_and_fro();
	CHECK_EQ(epk_device_free(&dev, 1, ids), 0);
	CHECK(touch(pages[0], 0) != 0);
}

/* What lay at an address, and where, is another thing by now. */
static void remembered(void)
{
	int i;

	epk_device_open(&dev);
	if (epk_device_is_alone(&dev))
		return;
	REQUIRE(epk_device_alloc(&dev, 3, ids) == 0);
	REQUIRE(follow() == 0);
	for (i = 0; i < 3; i++) {
		CHECK_EQ(epk_device_move(&dev, ids[i], i == 1 ? 4 : 3), 0);
		pages[i] = epk_device_map(&dev, ids[i], PAGE);
		REQUIRE(pages[i] != MAP_FAILED);
	}
	it_has_moved();
	it_is_not_held();
	another_lies_there();
	none_lies_there();
}

static void run(const char *name, void (*test)(void))
{
	int status = -1;
	pid_t pid;

	puts(name);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		/* What goes round for ever ends. */
		alarm(60);
		test();
		fflush(stdout);
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	epk_check(status == 0, __FILE__, __LINE__, name, "");
}

int main(void)
{
	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	run("all that is held", hold_all);
	run("two domains of one key", one_key);
	run("futexes without a place", futexes);
	run("futexes apart", futexes_apart);
	run("futexes of one key", futexes_of_one_key);
	run("what was remembered", remembered);
	return epk_test_result();
}
