/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzer of /dev/epk knows and what must hold, whatever it does.
 *
 * Each word that a thread writes into a domain says whose it is: which process,
 * which domain, which address.  A thread that holds one domain, and has seen in
 * the table that it does, may try any address: what it can read is that domain's
 * or zero.  With keys that it opened by hand it may reach more, but at a moment in
 * which no call is under way only domains that are where it is.
 */
#ifndef KMOD_FUZZ_H
#define KMOD_FUZZ_H

#include "epk_test.h"

#include <pthread.h>

#define PAGE		4096ul
#define NR_IDS		40
#define NR_AREAS	16
#define AREA_PAGES	8
/* Where no mmap() without MAP_FIXED ever looks, so that holes stay holes. */
#define AREAS		((char *)(1ul << 40))
#define AREA_BYTES	(AREA_PAGES * PAGE)
/* Two that are large enough for 2 MiB pages. */
#define NR_BIG		2
#define BIG		((char *)(1ul << 41))
#define BIG_BYTES	(4ul << 20)
/* For what mremap() moves, and for mappings of a file, which nobody writes to. */
#define ELSEWHERE	((char *)(1ul << 42))
#define FILE_AREAS	((char *)(1ul << 43))
#define NR_THREADS	3
#define ZEROES		"/tmp/zeroes"

#define STAMP_MAGIC	0x5ec0000000000000ull
#define FILE_STAMP	0xf11e5ec0f11e5ec0ull

struct dice {
	uint64_t state;
};

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
static inline uint64_t roll(struct dice *dice)
{
	uint64_t z = dice->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline uint32_t below(struct dice *dice, uint32_t sides)
{
	return (roll(dice) >> 32) * sides >> 32;
}

static inline bool one_in(struct dice *dice, uint32_t sides)
{
	return !below(dice, sides);
}

/* A number that is wrong, or nearly. */
static inline uint64_t odd(struct dice *dice)
{
	static const uint64_t numbers[] = {
		0, 1, 2, 15, 16, 17, 511, 512, 513, 1024, 1025, 4095, 4096, 0xfffe, 0xffff,
		0x10000, 0x1ffff, 0x20000, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
		1ull << 40, 0x7fffffffe000, 0x7ffffffff000, 0x800000000000, 1ull << 60,
		1ull << 63, ~0ull - 4095, ~0ull,
	};

	if (one_in(dice, 4))
		return roll(dice) >> below(dice, 64);
	return numbers[below(dice, sizeof(numbers) / sizeof(*numbers))];
}

/* In memory that all processes share. */
struct counts {
	unsigned long ops, done[64], refused[64];
	unsigned long reads, zeros, writes, faults, judged, signals, killed;
	unsigned long failures;
	/* Signals after which all was as before; frames that were forged, in each ABI. */
	unsigned long restored, forged[4];
	/* CPUs that went and came back, and whether one is away. */
	unsigned long offlined, offline;
	unsigned long reloads, executed, exited;
	/* Bochs lets the kernel read what a key denies. */
	bool kernel_has_keys;
};

/* One process, its context and what its threads share. */
struct process {
	struct epk_device dev;
	int ids[NR_IDS];
	/* What is probably where; others map meanwhile. */
	int owners[NR_AREAS * AREA_PAGES + NR_BIG];
	int memfd, zero_fd;
	/* Threads that may be sent signals, by number. */
	volatile pid_t targets[NR_THREADS];
	/* All threads. */
	volatile pid_t tids[NR_THREADS];
	/* Calls that change where anything is: begun, and ended. */
	unsigned long begun, ended;
};

enum death { KILLED, EXECUTES, EXITS, NR_DEATHS };

/* One thread. @holds is the domain that it has seen to be at @place, where it is. */
struct thread {
	struct process *process;
	struct dice dice;
	int number;
	bool registered, signals;
	/* After how many operations it ends the process, and how; -1 if it does not. */
	int dies_after;
	enum death death;
	int holds;
	struct epk_entry place;
	/* Where it forges frames. */
	char *low;
};

extern struct counts *counts;
static __thread struct thread *me;

static inline void count_add(unsigned long *what)
{
	__atomic_fetch_add(what, 1, __ATOMIC_RELAXED);
}

/* Of the process that opened the device; another may share its memory. */
static pid_t opener;

static inline uint64_t stamp_of(int id)
{
	return STAMP_MAGIC ^ (uint64_t)opener << 32 ^ (uint32_t)id;
}

static inline char *some_page(struct dice *dice)
{
	if (one_in(dice, 8))
		return BIG + below(dice, NR_BIG * BIG_BYTES / PAGE) * PAGE;
	return AREAS + below(dice, NR_AREAS * AREA_PAGES) * PAGE;
}

static inline int *owner_of(struct process *p, const char *page)
{
	if (page >= BIG)
		return &p->owners[NR_AREAS * AREA_PAGES + (page - BIG) / BIG_BYTES];
	return &p->owners[(page - AREAS) / PAGE];
}

static inline int some_id(struct thread *t)
{
	int id = __atomic_load_n(&t->process->ids[below(&t->dice, NR_IDS)], __ATOMIC_RELAXED);

	return one_in(&t->dice, 50) ? (int)odd(&t->dice) : id;
}

/* What may fault, apart: siglongjmp() spoils local variables.  Each gives the signal or 0. */
static __attribute__((noinline)) int try_read(char *page, uint64_t *words)
{
	volatile uint64_t *from = (void *)page;

	return EPK_TRY(words[0] = from[0]; words[1] = from[1]);
}

static __attribute__((noinline)) int try_write(char *page, uint64_t value)
{
	volatile uint64_t *to = (void *)page;

	return EPK_TRY(to[0] = value; to[1] = (uintptr_t)page);
}

static __attribute__((noinline)) int try_vmfunc(uint32_t leaf, uint32_t ept)
{
	return EPK_TRY(epk_vmfunc_leaf(leaf, ept));
}

static inline void fail(const char *what, uint64_t value, const void *addr)
{
	char text[96];

	snprintf(text, sizeof(text), ": %#lx at %p, PKRU %#x", value, addr, epk_rdpkru());
	epk_check(false, "fuzz", 0, what, text);
	count_add(&counts->failures);
}

static inline uint32_t open_keys(void)
{
	return ~epk_rdpkru() & EPK_PKRU_DENY_ALL;
}

/* Hold nothing, in EPT 0. */
static inline void leave(struct thread *t)
{
	t->holds = 0;
	epk_device_enter(&t->process->dev, 0);
}

/*
 * After each WRPKRU: is what it opened still there, and the thread too?  If the
 * domain goes later, the module closes the key before another comes.
 */
static inline void recheck(struct thread *t)
{
	struct epk_entry now;

	if (!t->holds)
		return;
	if (open_keys() & ~(3u << 2 * t->place.pkey))
		fail("a key that was not opened", open_keys(), NULL);
	now = epk_device_entry(&t->process->dev, t->holds);
	if (now.id != t->holds || now.ept != t->place.ept || now.pkey != t->place.pkey ||
	    t->process->dev.identity->ept != now.ept)
		leave(t);
}

static inline void hold(struct thread *t, int id)
{
	struct epk_entry entry = epk_device_entry(&t->process->dev, id);

	leave(t);
	if (!id || entry.id != id || !entry.pkey)
		return;
	if (t->process->dev.identity->ept != entry.ept && try_vmfunc(0, entry.ept))
		return;
	t->holds = id;
	t->place = entry;
	epk_wrpkru(EPK_PKRU_ALLOW(entry.pkey));
	recheck(t);
}

/* Hold mostly the domain that a page belongs to, which is returned. */
static inline char *hold_some(struct thread *t)
{
	struct process *p = t->process;
	int owner, tries = 8;
	char *page;

	do {
		page = some_page(&t->dice);
		owner = __atomic_load_n(owner_of(p, page), __ATOMIC_RELAXED);
	} while ((!owner || epk_device_entry(&p->dev, owner).id != owner) && --tries);
	hold(t, one_in(&t->dice, 8) ? some_id(t) : owner);
	return page;
}

/* Is a domain where this thread is, with its key open? */
static inline bool is_here(struct thread *t, int id, uint32_t ept, uint32_t pkru)
{
	struct epk_entry entry = epk_device_entry(&t->process->dev, id);

	return entry.id == id && entry.pkey && entry.ept == ept &&
	       !(pkru & 1u << 2 * entry.pkey);
}

/* What a thread may have read at @page. */
static inline void judge(struct thread *t, uint64_t value, uint64_t where, char *page)
{
	if (where && where != (uintptr_t)page)
		fail("a word of another address", where, page);
	if (!value) {
		count_add(&counts->zeros);
		return;
	}
	count_add(&counts->reads);
	if ((value ^ stamp_of(0)) >> 32)
		fail("no word of this process", value, page);
	else if (t->holds && value != stamp_of(t->holds))
		fail("a word of a domain that is not held", value, page);
}

/* Read a page with what the thread has, whatever it is; or write, if that is known. */
static inline void touch(struct thread *t, char *page, bool write)
{
	struct process *p = t->process;
	unsigned long begun = __atomic_load_n(&p->begun, __ATOMIC_SEQ_CST);
	bool quiet = begun == __atomic_load_n(&p->ended, __ATOMIC_SEQ_CST);
	uint32_t ept = p->dev.identity->ept, pkru = epk_rdpkru();
	uint64_t words[2] = { 0 };
	bool here;
	int sig;

	if (write && t->holds) {
		sig = try_write(page, stamp_of(t->holds));
		count_add(sig ? &counts->faults : &counts->writes);
		recheck(t);
		return;
	}
	sig = try_read(page, words);
	if (sig)
		count_add(&counts->faults);
	else
		judge(t, words[0], words[1], page);
	recheck(t);
	if (sig || !words[0] || (words[0] ^ stamp_of(0)) >> 32)
		return;
	here = is_here(t, (uint32_t)words[0], ept, pkru);
	/* Nothing moved until it was looked up, and this thread was in one EPT all the time. */
	quiet &= __atomic_load_n(&p->begun, __ATOMIC_SEQ_CST) == begun;
	if (!quiet || p->dev.identity->ept != ept)
		return;
	count_add(&counts->judged);
	if (!here)
		fail("a word of a domain elsewhere", words[0], page);
}

#endif /* KMOD_FUZZ_H */
