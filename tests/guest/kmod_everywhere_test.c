// SPDX-License-Identifier: MIT
/*
 * Domains that are everywhere: reached in each EPT by one key, and by that alone; nothing else has that key
 * anywhere; and who had it open has it no longer when another gets it, in whatever EPT.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/capability.h>
#include <linux/futex.h>

#define PAGE	4096ul
#define HUGE	(2ul << 20)

static struct epk_device dev;

static int alloc(unsigned int num, uint32_t flags, int *ids)
{
	struct epk_domains arg = { .num = num, .flags = flags, .ids = (uintptr_t)ids };

	return ioctl(dev.fd, EPK_IOC_ALLOC, &arg) ? -errno : 0;
}

static int everywhere(void)
{
	int id = 0;

	REQUIRE(alloc(1, EPK_ALLOC_EVERYWHERE, &id) == 0);
	CHECK_EQ(epk_device_entry(&dev, id).id, id);
	CHECK_EQ(epk_device_entry(&dev, id).ept, EPK_EPT_ALL);
	REQUIRE(epk_device_entry(&dev, id).pkey);
	return id;
}

static int ordinary(unsigned int ept)
{
	int id = 0;

	REQUIRE(alloc(1, EPK_ALLOC_AT(epk_device_ept(&dev, ept)), &id) == 0);
	CHECK_EQ(epk_device_entry(&dev, id).ept, epk_device_ept(&dev, ept));
	return id;
}

static void drop(int id)
{
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
}

static uint8_t key_of(int id)
{
	return epk_device_entry(&dev, id).pkey;
}

static bool is_at(int id, struct epk_entry was)
{
	struct epk_entry now = epk_device_entry(&dev, id);

	return now.id == was.id && now.ept == was.ept && now.pkey == was.pkey;
}

/* What is refused changes nothing, whatever it has wanted. */
static void refused(void)
{
	int nr = __builtin_popcount(dev.init.pkeys), most = nr - 2, beside[15], i;
	struct epk_stats before, now;
	static int ids[70000];

	/* Each key is somebody's. */
	REQUIRE(alloc(nr, 0, beside) == 0);
	before = epk_device_stats(&dev);

	CHECK_EQ(alloc(1, EPK_ALLOC_EVERYWHERE | EPK_ALLOC_SPILL, ids), -EINVAL);
	CHECK_EQ(alloc(1, EPK_ALLOC_EVERYWHERE | EPK_ALLOC_AT(0), ids), -EINVAL);
	CHECK_EQ(alloc(1, 4, ids), -EINVAL);
	CHECK_EQ(alloc(0, EPK_ALLOC_EVERYWHERE, ids), -EINVAL);
	CHECK_EQ(alloc(1, EPK_ALLOC_EVERYWHERE, (void *)8), -EFAULT);
	CHECK_EQ(alloc(most + 1, EPK_ALLOC_EVERYWHERE, ids), -ENOSPC);
	CHECK_EQ(alloc(70000, EPK_ALLOC_EVERYWHERE, ids), -ENOSPC);
	CHECK_EQ(ids[0], 0);
	now = epk_device_stats(&dev);
	CHECK_EQ(now.domains, before.domains);
	CHECK_EQ(now.evicted, before.evicted);
	CHECK_EQ(now.moves, before.moves);
	for (i = 0; i < nr; i++)
		CHECK(epk_device_entry(&dev, beside[i]).ept == 0 && key_of(beside[i]));
	CHECK_EQ(epk_device_free(&dev, nr, beside), 0);

	/* All that can be, at once; then none, and others have the keys again. */
	CHECK_EQ(alloc(most, EPK_ALLOC_EVERYWHERE, ids), 0);
	CHECK_EQ(alloc(1, EPK_ALLOC_EVERYWHERE, ids + most), -ENOSPC);
	for (i = 0; i < most; i++) {
		CHECK_EQ(epk_device_entry(&dev, ids[i]).ept, EPK_EPT_ALL);
		CHECK(i == 0 || key_of(ids[i]) != key_of(ids[i - 1]));
	}
	CHECK_EQ(epk_device_free(&dev, most, ids), 0);
	REQUIRE(alloc(most + 2, 0, ids) == 0);
	CHECK_EQ(epk_device_entry(&dev, ids[0]).ept, epk_device_entry(&dev, ids[most + 1]).ept);
	CHECK_EQ(epk_device_free(&dev, most + 2, ids), 0);
}

static int move(int id, unsigned int ept, uint8_t pkey)
{
	struct epk_move one = { .id = id, .ept = ept, .pkey = pkey };
	int ret = epk_device_moves(&dev, 1, &one);

	if (!ret)
		CHECK(one.ept == EPK_EPT_ALL && one.pkey == key_of(id));
	return ret;
}

static int admit_there(int id, unsigned int ept)
{
	struct epk_move one = { .id = id, .ept = ept };
	struct epk_moves arg = { .num = 1, .flags = EPK_MOVES_ADMIT, .moves = (uintptr_t)&one };
	int ret = ioctl(dev.fd, EPK_IOC_MOVE, &arg) ? -errno : 0;

	if (!ret)
		CHECK(one.ept == epk_device_entry(&dev, id).ept && one.pkey == key_of(id));
	return ret;
}

static int admit(int id, unsigned int ept)
{
	int ret = admit_there(id, ept);

	CHECK_EQ(epk_device_entry(&dev, id).ept, EPK_EPT_ALL);
	return ret;
}

/* It goes nowhere. */
static void moves(void)
{
	int id = everywhere(), other = ordinary(0);
	struct epk_entry was = epk_device_entry(&dev, id), there = epk_device_entry(&dev, other);
	struct epk_stats before = epk_device_stats(&dev);
	struct epk_move both[2] = { { .id = other, .ept = EPK_EPT_NONE }, { .id = id, .ept = EPK_EPT_NONE } };

	CHECK_EQ(move(id, EPK_EPT_NONE, 0), -EINVAL);
	CHECK_EQ(move(id, 0, was.pkey % 15 + 1), -EINVAL);
	CHECK_EQ(move(id, 0, was.pkey), 0);
	CHECK_EQ(move(id, 0, 0), 0);
	CHECK_EQ(move(id, epk_device_ept(&dev, 3), 0), 0);
	CHECK_EQ(move(id, EPK_EPT_ANY, 0), 0);
	CHECK_EQ(move(id, EPK_EPT_ALL, 0), -EINVAL);
	CHECK_EQ(admit(id, EPK_EPT_ANY), 0);
	CHECK_EQ(admit(id, 0), 0);
	CHECK_EQ(admit(id, EPK_EPT_NONE), -EINVAL);
	CHECK_EQ(admit(id, EPK_EPT_ALL), -EINVAL);
	both[1].id = id;
	CHECK_EQ(epk_device_moves(&dev, 2, both), -EINVAL);
	CHECK(is_at(other, there));
	/* What is not everywhere does not come to be so. */
	CHECK_EQ(epk_device_move(&dev, other, EPK_EPT_ALL), -EINVAL);
	both[0] = (struct epk_move) { .id = other, .ept = 0, .pkey = was.pkey };
	CHECK_EQ(epk_device_moves(&dev, 1, both), -EBUSY);
	CHECK(is_at(id, was));
	CHECK(is_at(other, there));
	CHECK_EQ(epk_device_stats(&dev).moves, before.moves);
	drop(id);
	drop(other);
}

static int note(int id, uint32_t flags, const volatile void *addr)
{
	struct epk_note arg = { .id = id, .flags = flags, .addr = (uintptr_t)addr };

	return ioctl(dev.fd, EPK_IOC_NOTE, &arg) ? -errno : 0;
}

static void notes(void)
{
	int id = everywhere();
	char *page = epk_device_map(&dev, id, PAGE);

	REQUIRE(page != MAP_FAILED);
	CHECK_EQ(note(id, EPK_NOTE_PRIVATE, page), -EINVAL);
	CHECK_EQ(note(id, EPK_NOTE_PRIVATE | EPK_NOTE_CONFINED, page), -EINVAL);
	CHECK_EQ(epk_device_entry(&dev, id).ept, EPK_EPT_ALL);
	CHECK_EQ(note(id, 0, page), 0);
	CHECK_EQ(epk_device_unmap(&dev, page, PAGE), 0);
	drop(id);
}

static char *map_file(int id)
{
	int file = memfd_create("everywhere", 0);
	struct epk_file arg = { .len = PAGE, .id = id, .fd = file, .prot = PROT_READ | PROT_WRITE };

	REQUIRE(file >= 0 && !ftruncate(file, PAGE));
	REQUIRE(ioctl(dev.fd, EPK_IOC_FILE, &arg) == 0);
	close(file);
	return (void *)arg.addr;
}

/* The signals of a read and of a write. */
static void check_touch(int line, volatile char *p, int read, int write)
{
	volatile int sig;
	volatile char was = 0;

	sig = EPK_TRY(was = *p);
	epk_check(sig == read && (!sig || epk_try_code == SEGV_PKUERR), __FILE__, line, "a read", "");
	sig = EPK_TRY(*p = was);
	epk_check(sig == write && (!sig || epk_try_code == SEGV_PKUERR), __FILE__, line, "a write", "");
}

/* Small pages, 2 MiB at once, and a file's; wherever the first touch was. */
static void reached(void)
{
	static const unsigned int epts[] = { 0, 1, 2, FAR_EPT };
	volatile unsigned int i, k;
	int id = everywhere(), others[4];
	uint32_t key = 3u << 2 * key_of(id);
	char *mem[3];

	for (i = 0; i < 4; i++)
		others[i] = ordinary(epts[i]);
	mem[0] = epk_device_map(&dev, id, 2 * PAGE);
	mem[1] = mmap((void *)(20ul << 40), HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
		      dev.fd, EPK_MMAP_DOMAIN(id));
	REQUIRE(mem[0] != MAP_FAILED && mem[1] != MAP_FAILED);
	mem[2] = map_file(id);
	for (i = 0; i < 4; i++) {
		epk_device_goto(&dev, epk_device_ept(&dev, epts[i]));
		for (k = 0; k < 3; k++) {
			epk_wrpkru(EPK_PKRU_DENY_ALL);
			check_touch(__LINE__, mem[k], SIGSEGV, SIGSEGV);
			epk_wrpkru(EPK_PKRU_DENY_ALL & key);
			check_touch(__LINE__, mem[k], SIGSEGV, SIGSEGV);
			epk_wrpkru(EPK_PKRU_DENY_ALL & ~key);
			check_touch(__LINE__, mem[k] + i, 0, 0);
			CHECK_EQ(mem[k][0], i ? 'e' : 0);
			mem[k][0] = 'e';
			epk_wrpkru((EPK_PKRU_DENY_ALL & ~key) | (key & 0xaaaaaaaa));
			check_touch(__LINE__, mem[k], 0, SIGSEGV);
		}
	}
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, mem[0], 2 * PAGE), 0);
	CHECK_EQ(epk_device_unmap(&dev, mem[1], HUGE), 0);
	CHECK_EQ(epk_device_unmap(&dev, mem[2], PAGE), 0);
	CHECK_EQ(epk_device_free(&dev, 4, others), 0);
	drop(id);
}

/* All places but one are taken, and the domains that have the key make room, with what they have. */
static void all_full(void)
{
	unsigned int places = dev.init.nr_epts * __builtin_popcount(dev.init.pkeys), i, evicted = 0;
	static int ids[8000];
	struct timespec start, end;
	volatile uint32_t *p;
	int id;

	REQUIRE(alloc(places, 0, ids) == 0);
	/* The first key is that which goes: all are in use as often. */
	p = epk_device_map(&dev, ids[0], PAGE);
	REQUIRE(p != MAP_FAILED && key_of(ids[0]) == 1);
	epk_device_enter(&dev, ids[0]);
	*p = 77;
	epk_device_enter(&dev, 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	id = everywhere();
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%ld us for %u domains that leave\n", (end.tv_sec - start.tv_sec) * 1000000 +
	       (end.tv_nsec - start.tv_nsec) / 1000, dev.init.nr_epts);
	for (i = 0; i < places; i++) {
		evicted += !key_of(ids[i]);
		CHECK(key_of(ids[i]) != key_of(id));
	}
	CHECK_EQ(evicted, dev.init.nr_epts);
	CHECK_EQ(epk_device_stats(&dev).evicted, evicted);
	CHECK_EQ(key_of(ids[0]), 0);
	epk_wrpkru(EPK_PKRU_ALLOW(1));
	CHECK_EQ(EPK_TRY((void)*p), SIGSEGV);
	epk_device_enter(&dev, 0);
	/* It comes back in another's place, never in that of what is everywhere. */
	for (i = 0; i < 15; i++) {
		CHECK_EQ(admit_there(ids[i], i % 2 ? EPK_EPT_ANY : 0), 0);
		CHECK(key_of(ids[i]) && key_of(ids[i]) != key_of(id));
	}
	CHECK_EQ(epk_device_entry(&dev, id).ept, EPK_EPT_ALL);
	CHECK_EQ(admit_there(ids[0], 0), 0);
	epk_device_enter(&dev, ids[0]);
	CHECK_EQ(*p, 77);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, PAGE), 0);
	CHECK_EQ(epk_device_free(&dev, places, ids), 0);
	drop(id);
}

/* It counts as one, wherever it is, and as no EPT's. */
static void counts(void)
{
	struct epk_stats before = epk_device_stats(&dev), now;
	int id = everywhere(), other;

	now = epk_device_stats(&dev);
	CHECK_EQ(now.domains, before.domains + 1);
	CHECK_EQ(now.epts, before.epts);
	CHECK_EQ(now.evicted, before.evicted);
	other = ordinary(2);
	CHECK_EQ(epk_device_stats(&dev).epts, before.epts + 1);
	drop(id);
	CHECK_EQ(epk_device_stats(&dev).epts, before.epts + 1);
	id = everywhere();
	drop(other);
	CHECK_EQ(epk_device_stats(&dev).epts, before.epts);
	drop(id);
	now = epk_device_stats(&dev);
	CHECK_EQ(now.domains, before.domains);
	CHECK_EQ(now.epts, before.epts);
}

/* Of places there are fewer then, and who wants more than there are makes no EPT for it. */
static void places(void)
{
	unsigned int most = dev.init.nr_epts * (__builtin_popcount(dev.init.pkeys) - 2), epts;
	static int ids[8000];
	int two[2];

	REQUIRE(alloc(2, EPK_ALLOC_EVERYWHERE, two) == 0);
	epts = epk_device_stats(&dev).vm_epts;
	CHECK_EQ(alloc(most + 1, 0, ids), -ENOSPC);
	CHECK_EQ(epk_device_stats(&dev).vm_epts, epts);
	REQUIRE(alloc(most, 0, ids) == 0);
	CHECK_EQ(epk_device_stats(&dev).evicted, 0);
	CHECK_EQ(epk_device_free(&dev, most, ids), 0);
	CHECK_EQ(epk_device_free(&dev, 2, two), 0);
}

/* Who has a key open in an EPT, by hand; and what else has it there. */
struct holder {
	pthread_t thread, thread2;
	unsigned int ept;
	uint8_t pkey;
	bool registers, spins;
	volatile int holds, go;
	int from;
	uint32_t pkru;
};

static void *hold(void *arg)
{
	struct holder *h = arg;
	char c;

	if (h->registers)
		CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_device_goto(&dev, h->ept);
	epk_wrpkru(EPK_PKRU_ALLOW(h->pkey));
	h->holds = 1;
	if (h->spins)
		while (!h->go)
			;
	else
		CHECK_EQ(read(h->from, &c, 1), 1);
	h->pkru = epk_rdpkru();
	epk_device_enter(&dev, 0);
	return NULL;
}

/* Is it closed once what had it is freed, and @next has made another that has it? */
static void closed(int id, unsigned int ept, int how, int (*next)(unsigned int ept, uint8_t pkey))
{
	struct holder h = { .ept = ept, .pkey = key_of(id), .registers = how & 1, .spins = how & 2 };
	int pipes[2], other;

	REQUIRE(pipe(pipes) == 0);
	h.from = pipes[0];
	REQUIRE(pthread_create(&h.thread, NULL, hold, &h) == 0);
	while (!h.holds)
		sched_yield();
	usleep(2000);
	drop(id);
	other = next(ept, h.pkey);
	CHECK_EQ(key_of(other), h.pkey);
	h.go = 1;
	CHECK_EQ(write(pipes[1], "", 1), 1);
	pthread_join(h.thread, NULL);
	CHECK_EQ(h.pkru & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	drop(other);
	close(pipes[0]);
	close(pipes[1]);
}

static int next_everywhere(unsigned int ept, uint8_t pkey)
{
	(void)ept;
	(void)pkey;
	return everywhere();
}

static int next_there(unsigned int ept, uint8_t pkey)
{
	struct epk_move to = { .id = ordinary(0), .ept = ept, .pkey = pkey };

	CHECK_EQ(epk_device_moves(&dev, 1, &to), 0);
	return to.id;
}

/* The first key of an EPT: of those that nobody has that is the one for what comes to be everywhere. */
static int first(unsigned int ept)
{
	struct epk_move to = { .id = ordinary(0), .ept = ept, .pkey = 1 };

	CHECK_EQ(epk_device_moves(&dev, 1, &to), 0);
	return to.id;
}

static void reused(void)
{
	unsigned int ept = epk_device_ept(&dev, 7);
	int how;

	/* So that there is this one, which the context keeps. */
	drop(ordinary(7));
	for (how = 0; how < 4; how++) {
		closed(everywhere(), 0, how, next_everywhere);
		closed(everywhere(), ept, how, next_everywhere);
		closed(everywhere(), 0, how, next_there);
		closed(everywhere(), ept, how, next_there);
		closed(first(ept), ept, how, next_everywhere);
	}
}

/* The EPTs that are not for everybody are no place to keep a key open either. */
static void in_the_last(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };
	unsigned int last = dev.init.nr_epts - 1;
	volatile char *page;
	int id, how;

	close(dev.fd);
	CHECK_EQ(syscall(SYS_capset, &head, none), 0);
	epk_device_open(&dev);
	CHECK(dev.init.nr_epts <= last);
	for (how = 0; how < 4; how++)
		closed(everywhere(), last, how, next_everywhere);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) == 0);
	id = everywhere();
	page = epk_device_map(&dev, id, PAGE);
	REQUIRE(page != MAP_FAILED);
	/* The kernel's own record of it, by what it lists. */
	epk_device_goto(&dev, last);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ | PROT_WRITE)), 0);
	check_touch(__LINE__, page, 0, 0);
	CHECK_EQ(dev.identity->ept, last);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_END, (long)id), 0);
	check_touch(__LINE__, page, SIGSEGV, SIGSEGV);
	exit(epk_test_result());
}

static void beyond(void)
{
	int status, id;
	pid_t pid;

	if (epk_device_is_alone(&dev))
		return;
	REQUIRE(alloc(1, EPK_ALLOC_AT(dev.init.nr_epts - 1), &id) == 0);
	fflush(stdout);
	pid = fork();
	if (!pid)
		in_the_last();
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	drop(id);
}

/* What all may do with it they may no longer, at once, in the thread that says so and in others. */
static char *for_all;

/* From another EPT, where it holds something. */
static void *takes(void *arg)
{
	int *pair = arg;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(pair[1], PROT_READ)), 0);
	check_touch(__LINE__, for_all, 0, 0);
	CHECK_EQ(dev.identity->ept, epk_device_entry(&dev, pair[1]).ept);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_PROTECT, EPK_BEGIN(pair[0], 0)), 0);
	check_touch(__LINE__, for_all, SIGSEGV, SIGSEGV);
	return NULL;
}

static void *may_touch(void *arg)
{
	struct holder *h = arg;
	volatile char *page = for_all;
	char c;

	check_touch(__LINE__, page, 0, 0);
	h->holds = 1;
	CHECK_EQ(read(h->from, &c, 1), 1);
	check_touch(__LINE__, page, SIGSEGV, SIGSEGV);
	return NULL;
}

static void common(void)
{
	int ids[2] = { everywhere(), ordinary(3) }, pipes[2];
	struct holder h = { 0 };

	REQUIRE(pipe(pipes) == 0);
	h.from = pipes[0];
	for_all = epk_device_map(&dev, ids[0], PAGE);
	REQUIRE(for_all != MAP_FAILED);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_PROTECT, EPK_BEGIN(ids[0], PROT_READ | PROT_WRITE)), 0);
	REQUIRE(pthread_create(&h.thread, NULL, may_touch, &h) == 0);
	while (!h.holds)
		sched_yield();
	REQUIRE(pthread_create(&h.thread2, NULL, takes, ids) == 0);
	pthread_join(h.thread2, NULL);
	CHECK_EQ(write(pipes[1], "", 1), 1);
	pthread_join(h.thread, NULL);
	CHECK_EQ(epk_device_unmap(&dev, for_all, PAGE), 0);
	CHECK_EQ(epk_device_free(&dev, 2, ids), 0);
	close(pipes[0]);
	close(pipes[1]);
}

/* A handler whose stack lies there has it, and nothing else; and what waits has it again. */
static volatile char *stack;
static volatile int handled;

static void on_stack(int sig)
{
	volatile char local = sig;

	handled = (char *)&local >= (char *)stack && (char *)&local < (char *)stack + 16 * PAGE ? local : -1;
}

static void *follows(void *arg)
{
	int *pair = arg, id = pair[0], other = pair[1];
	struct sigaction act = { .sa_handler = on_stack, .sa_flags = SA_ONSTACK };
	stack_t alt = { .ss_size = 16 * PAGE };

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS), 0);
	alt.ss_sp = (void *)stack;
	CHECK_EQ(sigaltstack(&alt, NULL), 0);
	CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(other, PROT_READ)), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ | PROT_WRITE)), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ)), -1);
	CHECK_EQ(errno, EALREADY);
	CHECK_EQ(dev.identity->ept, epk_device_entry(&dev, other).ept);
	raise(SIGUSR1);
	CHECK_EQ(handled, SIGUSR1);
	check_touch(__LINE__, stack, 0, 0);
	CHECK_EQ(dev.identity->ept, epk_device_entry(&dev, other).ept);
	/* The kernel's atomic operations on it, in that EPT. */
	*(volatile int *)stack = 0;
	CHECK_EQ(syscall(SYS_futex, stack, FUTEX_WAKE_OP_PRIVATE, 1, 0, stack, FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0)), 0);
	CHECK_EQ(*(volatile int *)stack, 5);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_END, (long)id), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_END, (long)other), 0);
	check_touch(__LINE__, stack, SIGSEGV, SIGSEGV);
	return NULL;
}

static void held(void)
{
	int ids[2] = { everywhere(), ordinary(3) };
	pthread_t thread;

	stack = epk_device_map(&dev, ids[0], 16 * PAGE);
	REQUIRE(stack != MAP_FAILED);
	REQUIRE(pthread_create(&thread, NULL, follows, ids) == 0);
	pthread_join(thread, NULL);
	CHECK_EQ(epk_device_unmap(&dev, stack, 16 * PAGE), 0);
	CHECK_EQ(epk_device_free(&dev, 2, ids), 0);
}

int main(void)
{
	struct epk_stats stats;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	refused();
	moves();
	notes();
	counts();
	reached();
	reused();
	held();
	common();
	places();
	all_full();
	beyond();
	stats = epk_device_stats(&dev);
	CHECK_EQ(stats.domains, 0);
	CHECK_EQ(stats.pages, 0);
	CHECK_EQ(stats.epts, 0);
	CHECK_EQ(stats.evicted, 0);
	return epk_test_result();
}
