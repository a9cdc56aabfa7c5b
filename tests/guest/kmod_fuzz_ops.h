/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzer of /dev/epk does, one function each: 0 if the call was done,
 * else it was refused.
 */
#ifndef KMOD_FUZZ_OPS_H
#define KMOD_FUZZ_OPS_H

#include "kmod_fuzz.h"
#include "kmod_fuzz_catch.h"
#include "kmod_fuzz_private.h"
#include "kmod_fuzz_process.h"

/* Now and then, memory that is not there.  Domain memory would be written to. */
static void *spoil(struct thread *t, void *arg)
{
	return one_in(&t->dice, 30) ? (void *)odd(&t->dice) : arg;
}

static int call(struct thread *t, unsigned long cmd, void *arg)
{
	return ioctl(t->process->dev.fd, cmd, spoil(t, arg));
}

static int op_alloc(struct thread *t)
{
	int ids[64] = { 0 }, i, ret;
	struct epk_domains arg = { .num = 1 + below(&t->dice, 20) };

	arg.ids = (uintptr_t)spoil(t, ids);
	if (one_in(&t->dice, 3))
		arg.flags = EPK_ALLOC_AT(below(&t->dice, 6));
	if (one_in(&t->dice, 2))
		arg.flags |= EPK_ALLOC_SPILL;
	if (one_in(&t->dice, 6)) {
		arg.flags = EPK_ALLOC_EVERYWHERE;
		arg.num = 1 + below(&t->dice, 3);
	}
	if (one_in(&t->dice, 30))
		arg.flags = odd(&t->dice);
	if (one_in(&t->dice, 60) && arg.ids != (uintptr_t)ids)
		arg.num = odd(&t->dice);
	ret = call(t, EPK_IOC_ALLOC, &arg);
	for (i = 0; !ret && i < (int)arg.num && i < 64; i++) {
		int *slot = &t->process->ids[below(&t->dice, NR_IDS)];
		int old = __atomic_exchange_n(slot, ids[i], __ATOMIC_RELAXED);

		/* So that there are not ever more. */
		if (old)
			epk_device_free(&t->process->dev, 1, &old);
	}
	return ret;
}

static int op_free(struct thread *t)
{
	int ids[4] = { some_id(t), some_id(t), some_id(t), some_id(t) };
	struct epk_domains arg = { .num = 1, .ids = (uintptr_t)spoil(t, ids) };

	if (one_in(&t->dice, 4))
		ids[0] = (int)(uint32_t)some_secret(t);
	if (one_in(&t->dice, 4))
		arg.num += below(&t->dice, 4);
	if (one_in(&t->dice, 40))
		arg.num = odd(&t->dice);
	if (one_in(&t->dice, 40))
		arg.flags = odd(&t->dice);
	return call(t, EPK_IOC_FREE, &arg);
}

static int op_move(struct thread *t)
{
	struct epk_move list[6];
	struct epk_moves arg = { .num = 1 + below(&t->dice, 3) };
	unsigned int i;

	arg.moves = (uintptr_t)spoil(t, list);
	for (i = 0; i < 6; i++) {
		struct epk_entry entry = epk_device_entry(&t->process->dev, some_id(t));

		/* Often to where another is, which may be in the list as well. */
		list[i] = (struct epk_move) { .id = some_id(t), .ept = below(&t->dice, 4) };
		if (one_in(&t->dice, 3))
			list[i].ept = entry.ept, list[i].pkey = entry.pkey;
		else if (one_in(&t->dice, 3))
			list[i].ept = EPK_EPT_ANY + below(&t->dice, 2);
		else if (one_in(&t->dice, 3))
			list[i].pkey = below(&t->dice, 16);
		if (one_in(&t->dice, 60))
			list[i].ept = odd(&t->dice);
		if (one_in(&t->dice, 60))
			list[i].rsvd = odd(&t->dice);
	}
	if (one_in(&t->dice, 6)) {
		arg.flags = EPK_MOVES_ADMIT;
		arg.num = 1;
	}
	if (one_in(&t->dice, 100))
		arg.flags = odd(&t->dice);
	if (one_in(&t->dice, 100))
		arg.num = 5 + below(&t->dice, 2);
	return call(t, EPK_IOC_MOVE, &arg);
}

/* Part of an area, or of several, or nothing sensible. */
static struct epk_range some_range(struct thread *t)
{
	struct epk_range range = { (uintptr_t)some_page(&t->dice), PAGE };

	if (one_in(&t->dice, 3))
		range.len += below(&t->dice, 2 * AREA_PAGES) * PAGE;
	if (one_in(&t->dice, 40))
		range.addr = odd(&t->dice);
	if (one_in(&t->dice, 40))
		range.len = odd(&t->dice);
	return range;
}

static int op_populate(struct thread *t)
{
	struct epk_range range = some_range(t);

	return call(t, EPK_IOC_POPULATE, &range);
}

/* Mappings of the file are apart, and only read: they show its stamp or zero. */
static int op_file(struct thread *t)
{
	char *area = FILE_AREAS + below(&t->dice, 4) * AREA_BYTES;
	struct process *p = t->process;
	uint64_t words[2] = { 0 }, stamp = FILE_STAMP;
	int id = some_id(t), ret;
	struct epk_file arg = {
		.addr = (uintptr_t)area, .len = (1 + below(&t->dice, 4)) * PAGE, .id = id,
		.fd = p->memfd, .prot = PROT_READ | PROT_WRITE, .flags = MAP_FIXED,
	};

	arg.offset = one_in(&t->dice, 20) ? odd(&t->dice) : below(&t->dice, 4) * PAGE;
	if (one_in(&t->dice, 30))
		arg.flags = odd(&t->dice) | MAP_FIXED;
	if (one_in(&t->dice, 30))
		arg.fd = below(&t->dice, 8);
	ret = call(t, EPK_IOC_FILE, &arg);
	if (one_in(&t->dice, 4)) {
		fallocate(p->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  below(&t->dice, 4) * PAGE, 2 * PAGE);
		pwrite(p->memfd, &stamp, sizeof(stamp), below(&t->dice, 4) * PAGE);
	}
	hold(t, id);
	if (!try_read(area, words) && words[0] && words[0] != FILE_STAMP)
		fail("no word of the file", words[0], area);
	leave(t);
	if (one_in(&t->dice, 4))
		epk_device_unmap(&p->dev, area, below(&t->dice, AREA_PAGES + 1) * PAGE);
	return ret;
}

static int op_map(struct thread *t)
{
	int id = some_id(t);
	uint64_t offset = EPK_MMAP_DOMAIN(id);
	unsigned int length = 1 + below(&t->dice, AREA_PAGES);
	char *page, *addr = AREAS + below(&t->dice, NR_AREAS * AREA_PAGES - length) * PAGE;
	int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_FIXED;

	if (one_in(&t->dice, 25)) {
		addr = BIG + below(&t->dice, NR_BIG) * BIG_BYTES;
		length = BIG_BYTES / PAGE;
	}
	if (one_in(&t->dice, 20))
		prot = below(&t->dice, 8);
	if (one_in(&t->dice, 40))
		flags = MAP_FIXED | (one_in(&t->dice, 2) ? MAP_PRIVATE : MAP_SHARED_VALIDATE);
	if (one_in(&t->dice, 8))
		flags |= MAP_POPULATE;
	if (one_in(&t->dice, 40))
		offset = odd(&t->dice) & -PAGE;
	/* Over other domain memory it is refused. */
	if (!one_in(&t->dice, 8))
		unmap_pages(t, addr, length * PAGE);
	if (mmap(addr, length * PAGE, prot, flags, t->process->dev.fd, offset) == MAP_FAILED)
		return 1;
	for (page = addr; page < addr + length * PAGE; page += page < BIG ? PAGE : BIG_BYTES)
		__atomic_store_n(owner_of(t->process, page), id, __ATOMIC_RELAXED);
	return 0;
}

/* Ordinary memory over it, which nobody can write to: it reads as zero. */
static int op_map_other(struct thread *t)
{
	struct epk_range range = some_range(t);

	if (range.addr < (uintptr_t)AREAS || range.addr >= (uintptr_t)BIG + NR_BIG * BIG_BYTES)
		return 1;
	return mmap((void *)range.addr, range.len % (64 * PAGE), PROT_READ,
		    MAP_SHARED | MAP_FIXED, t->process->zero_fd, 0) == MAP_FAILED;
}

/* Only there; elsewhere is the program. */
static bool is_ours(const struct epk_range *range)
{
	return range->addr >= (uintptr_t)AREAS && range->len <= 64 * PAGE &&
	       range->addr < (uintptr_t)ELSEWHERE;
}

static int op_unmap(struct thread *t)
{
	struct epk_range range = some_range(t);

	if (!is_ours(&range))
		return 1;
	if (one_in(&t->dice, 2))
		return unmap(t, (char *)range.addr, range.len);
	return munmap((void *)range.addr, range.len);
}

static int op_protect(struct thread *t)
{
	struct epk_range range = some_range(t);
	int prot = one_in(&t->dice, 20) ? (int)odd(&t->dice) : (int)below(&t->dice, 4);

	if (!is_ours(&range))
		return 1;
	if (one_in(&t->dice, 3))
		return pkey_mprotect((void *)range.addr, range.len, prot,
				     one_in(&t->dice, 10) ? (int)odd(&t->dice) :
				     (int)below(&t->dice, 16));
	return mprotect((void *)range.addr, range.len, prot);
}

static int op_remap(struct thread *t)
{
	struct epk_range range = some_range(t);
	char *to = ELSEWHERE + below(&t->dice, 256) * PAGE, *got;
	size_t length = below(&t->dice, AREA_PAGES) * PAGE;
	int flags = one_in(&t->dice, 4) ? 0 : MREMAP_MAYMOVE | MREMAP_FIXED;

	if (!is_ours(&range))
		return 1;
	if (one_in(&t->dice, 8))
		flags |= 4;	/* MREMAP_DONTUNMAP */
	got = (char *)syscall(SYS_mremap, range.addr, one_in(&t->dice, 8) ? 0 : range.len,
			      length, flags, to);
	if (got >= ELSEWHERE && got < FILE_AREAS)
		munmap(got, length);
	return got == MAP_FAILED;
}

static int op_advise(struct thread *t)
{
	struct epk_range range = some_range(t);
	int advice = one_in(&t->dice, 20) ? (int)odd(&t->dice) : (int)below(&t->dice, 26);

	if (!is_ours(&range) || advice == MADV_HWPOISON || advice == 101)
		return 1;
	switch (below(&t->dice, 6)) {
	case 0:
		return mlock((void *)range.addr, range.len);
	case 1:
		return munlock((void *)range.addr, range.len);
	case 2:
		return msync((void *)range.addr, range.len, 1 << below(&t->dice, 3));
	default:
		return madvise((void *)range.addr, range.len, advice);
	}
}

/* A child has nothing of it, with all keys open and in any EPT. */
static __attribute__((noreturn)) void be_child(struct thread *t)
{
	uint64_t words[2] = { 0 };
	int i;

	for (i = 0; i < 20; i++) {
		epk_wrpkru(0);
		try_vmfunc(0, below(&t->dice, 8));
		try_read(some_page(&t->dice), words);
		if (words[0])
			_exit(1);
	}
	_exit(ioctl(t->process->dev.fd, EPK_IOC_THREAD, 0) != -1 || errno != EPERM);
}

static __attribute__((noinline)) pid_t new_program(void)
{
	pid_t pid = vfork();

	if (!pid) {
		execl("/proc/self/exe", "kmod_fuzz_test", "fresh", NULL);
		_exit(3);
	}
	return pid;
}

static int op_fork(struct thread *t)
{
	bool by_exec = one_in(&t->dice, 4);
	sigset_t own, old;
	int status = 0;
	pid_t pid;

	sigemptyset(&own);
	sigaddset(&own, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &own, &old);
	pid = by_exec ? new_program() : fork();
	if (!pid)
		be_child(t);
	if (pid > 0 && (waitpid(pid, &status, 0) != pid || status))
		fail(by_exec ? "a new program has something" : "a child has something", status,
		     NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	recheck(t);
	return pid < 0;
}

static void handler(int sig)
{
	(void)sig;
	count_add(&counts->signals);
	if (!me)
		return;
	if (~epk_rdpkru() & EPK_PKRU_DENY_ALL)
		fail("a handler has a key", epk_rdpkru(), NULL);
	if (me->signals && me->process->dev.identity->ept)
		fail("a handler is in an EPT", me->process->dev.identity->ept, NULL);
}

static int op_signal(struct thread *t)
{
	struct process *p = t->process;

	if (t->signals)
		return syscall(SYS_tgkill, getpid(), p->targets[below(&t->dice, NR_THREADS)],
			       SIGUSR1);
	/* What the frame gives back may have been revoked meanwhile. */
	raise(SIGUSR1);
	leave(t);
	return 0;
}

/* Again, or with flags that do not exist; who is not registered stays so. */
static int op_thread(struct thread *t)
{
	unsigned long arg = t->signals ? EPK_THREAD_SIGNALS : 0;

	if (!t->registered || one_in(&t->dice, 4))
		arg |= odd(&t->dice) | 4;
	return ioctl(t->process->dev.fd, EPK_IOC_THREAD, arg);
}

static void *newborn(void *arg)
{
	struct thread *t = arg;

	if (t->process->dev.identity->ept || ~epk_rdpkru() & EPK_PKRU_DENY_ALL)
		fail("a new thread has something", epk_rdpkru(), NULL);
	return NULL;
}

static int op_create(struct thread *t)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, newborn, t))
		return 1;
	pthread_join(thread, NULL);
	return 0;
}

/* Keys and EPTs by hand, for as long as nothing else changes them. */
static int op_rogue(struct thread *t)
{
	uint32_t pkru = roll(&t->dice) & roll(&t->dice) & ~3u;
	unsigned int n = below(&t->dice, 6), ept = below(&t->dice, 5);
	int sig;

	leave(t);
	t->by_hand = true;
	if (one_in(&t->dice, 8))
		ept = odd(&t->dice);
	sig = 0;
	/* With one EPT there may be no such instruction. */
	if (t->process->dev.init.nr_epts > 1 || one_in(&t->dice, 8))
		sig = try_vmfunc(one_in(&t->dice, 30) ? odd(&t->dice) : 0, ept);
	epk_wrpkru(one_in(&t->dice, 4) ? 0 : pkru);
	while (n--) {
		touch(t, some_page(&t->dice), false);
		if (one_in(&t->dice, 3))
			sched_yield();
	}
	return sig;
}

static int op_hold(struct thread *t)
{
	unsigned int n = 1 + below(&t->dice, 6);
	char *page = hold_some(t);

	while (n--) {
		touch(t, page, one_in(&t->dice, 2));
		if (one_in(&t->dice, 2))
			page = some_page(&t->dice);
		if (one_in(&t->dice, 4))
			sched_yield();
	}
	return !t->holds;
}

/* Another domain as well, or one of them no longer, or to be written to as well. */
static int op_begin(struct thread *t)
{
	unsigned int i = below(&t->dice, NR_RIGHTS);
	char *page = some_page(&t->dice);
	int ret;

	if (!t->follows || t->by_hand)
		return 1;
	t->holds = 0;
	if (i < t->nr_rights && one_in(&t->dice, 2)) {
		ret = ioctl(t->process->dev.fd, EPK_IOC_END, t->rights[i].id);
		drop_right(t, i);
	} else {
		ret = begin(t, i < t->nr_rights ? t->rights[i].id : some_id(t),
			    one_in(&t->dice, 2) ? PROT_READ : PROT_READ | PROT_WRITE);
	}
	for (i = below(&t->dice, 8); i; i--) {
		touch(t, page, one_in(&t->dice, 2));
		page = some_page(&t->dice);
	}
	return ret;
}

/* What a thread reads of its own memory as another process would is never domain memory. */
static int op_read_by_kernel(struct thread *t)
{
	uint64_t value = 0;
	struct iovec to = { &value, 8 }, from = { some_page(&t->dice), 8 };
	int ret = process_vm_readv(getpid(), &to, 1, &from, 1, 0) != 8;

	if (value)
		fail("process_vm_readv", value, from.iov_base);
	return ret;
}

/* Arguments without sense, calls out of order. */
static int op_odd_call(struct thread *t)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = odd(&t->dice) };
	struct epk_stats stats;

	switch (below(&t->dice, 6)) {
	case 5:
		if (!set_gates(t->process))
			fail("gates are set twice", 0, NULL);
		return 1;
	case 0:
		if (!ioctl(t->process->dev.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING))
			fail("what was not called returns", 0, NULL);
		return 1;
	case 1:
		return call(t, EPK_IOC_INIT, &init);
	case 2:
		return call(t, EPK_IOC_STATS, &stats);
	case 3:
		return pkey_free(below(&t->dice, 16) ?: 20);
	default:
		return ioctl(t->process->dev.fd, odd(&t->dice), odd(&t->dice));
	}
}

static const struct {
	const char *name;
	int (*run)(struct thread *t);
	unsigned int weight;
	bool changes;		/* where something is */
} ops[] = {
	{ "alloc", op_alloc, 8, true }, { "free", op_free, 4, true },
	{ "move", op_move, 20, true }, { "populate", op_populate, 8, true },
	{ "file", op_file, 6, true }, { "map", op_map, 20, true },
	{ "map-other", op_map_other, 4, true }, { "unmap", op_unmap, 5, true },
	{ "protect", op_protect, 8, true }, { "remap", op_remap, 6, true },
	{ "advise", op_advise, 8, true }, { "fork", op_fork, 1, false },
	{ "signal", op_signal, 8, false }, { "thread", op_thread, 2, false },
	{ "create", op_create, 2, false }, { "rogue", op_rogue, 25, false },
	{ "hold", op_hold, 60, false }, { "begin", op_begin, 60, false },
	{ "read-by-kernel", op_read_by_kernel, 3, false },
	{ "odd-call", op_odd_call, 6, false }, { "frame", op_frame, 12, false },
	{ "call", op_call, 20, false }, { "catch", op_catch, 20, false },
	{ "note", op_note, 12, true },
	{ "enter", op_enter, 50, false }, { "shape", op_shape, 6, true },
	{ "stack", op_stack, 20, false },
	{ "debug", op_debug, 1, false }, { "copy", op_copy, 4, false },
	{ "futex", op_futex, 5, true }, { "uffd", op_uffd, 2, false },
	{ "pass", op_pass, 1, false }, { "dup", op_dup, 2, false },
	{ "share", op_share, 1, false }, { "offline", op_offline, 1, false },
	{ "unload", op_unload, 1, false },
};

#define NR_OPS	(sizeof(ops) / sizeof(*ops))

#endif /* KMOD_FUZZ_OPS_H */
