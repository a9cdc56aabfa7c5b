/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzer of /dev/epk knows and what must hold, whatever it does.
 *
 * Each word that a thread writes into a domain says whose it is: which process,
 * which domain, which address.  A thread that holds one domain, and has seen in
 * the table that it does, may try any address: what it can read is that domain's
 * or zero.  With keys that it opened by hand it may reach more, but at a moment in
 * which no call is under way only domains that are where it is.  A thread with
 * EPK_THREAD_FOLLOWS holds what it has begun until it ends that, wherever it goes.
 *
 * Nobody begins a private domain: who had begun it holds it no longer, and who holds it has come
 * through the gate.  When it is freed all goes that was held with it.  Only who holds it changes
 * its memory's shape, and has faults that raise no signal.
 */
#ifndef KMOD_FUZZ_H
#define KMOD_FUZZ_H

#include "epk_test.h"
#include "private_gate.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>

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
#define NR_SECRETS	6
#define STACK_PAGES	9
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
	unsigned long reads, zeros, writes, faults, judged, signals, killed, followed;
	unsigned long failures;
	/* Signals after which all was as before, and calls; frames that were forged, in each ABI. */
	unsigned long restored, returned, forged[4];
	/* CPUs that went and came back, and whether one is away. */
	unsigned long offlined, offline;
	unsigned long reloads, executed, exited;
	/* Faults that raised no signal, and frees that took all of somebody's rights. */
	unsigned long redirected, ended;
	/* Calls that were left by a fault. */
	unsigned long caught;
	/* Pages that came to stacks. */
	unsigned long touched;
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
	/* Calls and faults that change where anything is: begun, and ended. */
	unsigned long begun, ended;
	/* Debuggers so far, each of which may have taken a thread's rights away. */
	unsigned long debuggers;
	const volatile uint64_t *notes;
	/* The last domains that became private, with @shaped then in the upper half; or 0. */
	uint64_t secrets[NR_SECRETS];
	/* How often somebody has unmapped memory who may hold a private domain. */
	uint32_t shaped;
};

/* A thread's own EPK_MMAP_STACK: the first page counts.  Of the others, which are there, with what. */
struct stack {
	char *at;
	uint64_t count, words[STACK_PAGES];
	bool there[STACK_PAGES];
	/* The last things that were done to it, with the count before; for who looks for a fault. */
	struct {
		const char *what;
		unsigned int page, pages;
		int with;
		uint64_t count;
	} past[8];
	unsigned int nr_past;
	/* Where the one before was, and what it counted. */
	char *last_at;
	uint64_t last_count;
};

enum death { KILLED, EXECUTES, EXITS, NR_DEATHS };

/* That a thread with EPK_THREAD_FOLLOWS begins at a time; by hand it may open more. */
#define NR_RIGHTS	6
#define NR_GRANTS	512

/* One thread. @holds is the domain that it has seen to be at @place, where it is. */
struct thread {
	struct process *process;
	struct dice dice;
	int number;
	bool registered, signals, follows;
	/*
	 * What it has begun, if it follows.  With keys that it opened by hand it may hold others
	 * as well, and may have lost some after frames that were forged.
	 */
	struct epk_grant rights[NR_RIGHTS];
	unsigned int nr_rights;
	/* Of these, by bits: private domains, by the gate; what was held with all of those. */
	unsigned int entered, settled;
	bool by_hand, may_lose;
	unsigned long debuggers;
	/* After how many operations it ends the process, and how; -1 if it does not. */
	int dies_after;
	enum death death;
	int holds;
	struct epk_entry place;
	/* Where it forges frames. */
	char *low;
	struct stack stack;
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

static inline struct epk_grant *grant_of(struct epk_grant *list, unsigned int num, int id)
{
	unsigned int i;

	for (i = 0; i < num && list[i].id != id; i++)
		;
	return i < num ? &list[i] : NULL;
}

/* No ID comes twice. */
static inline bool is_gone(struct process *p, int id)
{
	return epk_device_entry(&p->dev, id).id != id;
}

static inline bool is_private(struct process *p, int id)
{
	uint64_t note = p->notes[EPK_ID_INDEX(id)];

	return note != EPK_NOTE_ADDR(note) && !is_gone(p, id);
}

/* The table's entry, of a private domain with the place from its note. */
static inline struct epk_entry place_of(struct process *p, int id)
{
	struct epk_entry entry = epk_device_entry(&p->dev, id);
	uint64_t note = p->notes[EPK_ID_INDEX(id)];

	if (entry.id == id && !entry.pkey && EPK_NOTE_PKEY(note)) {
		entry.ept = EPK_NOTE_EPT(note);
		entry.pkey = EPK_NOTE_PKEY(note);
	}
	return entry;
}

/* The same, and what is everywhere is where the thread is. */
static inline struct epk_entry place_here(struct process *p, int id)
{
	struct epk_entry entry = place_of(p, id);

	if (entry.ept == EPK_EPT_ALL)
		entry.ept = p->dev.identity->ept;
	return entry;
}

/* Perhaps it holds a domain, or with ID 0 any private one, or has until just now. */
static inline bool may_hold(struct thread *t, int id)
{
	struct process *p = t->process;
	unsigned int i;

	if (t->by_hand || (!t->follows && t->holds && (!id || id == t->holds)))
		return true;
	if (id)
		return grant_of(t->rights, t->nr_rights, id);
	for (i = 0; i < t->nr_rights; i++) {
		if (is_private(p, t->rights[i].id) || is_gone(p, t->rights[i].id))
			return true;
	}
	return false;
}

static inline void fail(const char *what, uint64_t value, const void *addr)
{
	char text[96];

	snprintf(text, sizeof(text), ": %#lx at %p, PKRU %#x", value, addr, epk_rdpkru());
	epk_check(false, "fuzz", 0, what, text);
	count_add(&counts->failures);
}

/* In place of a signal: what is held is held on. */
#define FAULTED		1000

/* Where a thread comes that faults in a private domain. */
__attribute__((used, noreturn)) static void fuzz_faulted(void)
{
	count_add(&counts->redirected);
	if (!may_hold(me, 0))
		fail("a fault outside of private domains raises no signal", 0, NULL);
	if (!epk_trying) {
		fail("an unexpected fault in a private domain", 0, NULL);
		_exit(1);
	}
	siglongjmp(epk_try_env, FAULTED);
}

/* Nothing else lies in its EPK_FAULT_BYTES. */
asm(
"	.text\n"
"	.balign 256\n"
"fuzz_fault:\n"
"	cld\n"
"	and	$-16, %rsp\n"
"	call	fuzz_faulted\n"
"	.balign 256\n"
);
extern const char fuzz_fault[];

/*
 * What may fault, apart: siglongjmp() spoils local variables.  Each gives the signal, FAULTED
 * or 0.
 */
static __attribute__((noinline)) int follow_read(char *page, uint64_t *words)
{
	volatile uint64_t *from = (void *)page;

	return EPK_TRY_ONLY(words[0] = from[0]; words[1] = from[1]);
}

static __attribute__((noinline)) int follow_write(char *page, uint64_t value)
{
	volatile uint64_t *to = (void *)page;

	return EPK_TRY_ONLY(to[0] = value; to[1] = (uintptr_t)page);
}

/* The same with PKRU as it was. */
static int try_read(char *page, uint64_t *words)
{
	uint32_t pkru = epk_rdpkru();
	int sig = follow_read(page, words);

	epk_wrpkru(pkru);
	return sig;
}

static int try_write(char *page, uint64_t value)
{
	uint32_t pkru = epk_rdpkru();
	int sig = follow_write(page, value);

	epk_wrpkru(pkru);
	return sig;
}

static __attribute__((noinline)) int try_vmfunc(uint32_t leaf, uint32_t ept)
{
	return EPK_TRY(epk_vmfunc_leaf(leaf, ept));
}

static inline uint32_t open_keys(void)
{
	return ~epk_rdpkru() & EPK_PKRU_DENY_ALL;
}

static inline void change_begins(struct process *p)
{
	__atomic_fetch_add(&p->begun, 1, __ATOMIC_SEQ_CST);
}

static inline void change_ends(struct process *p)
{
	__atomic_fetch_add(&p->ended, 1, __ATOMIC_SEQ_CST);
}

/* What the module says that a thread holds that follows. */
static inline unsigned int ask(struct thread *t, struct epk_grant *list)
{
	struct epk_grants arg = { .num = NR_GRANTS, .list = (uintptr_t)list };

	if (ioctl(t->process->dev.fd, EPK_IOC_HELD, &arg) || arg.num > NR_GRANTS) {
		fail("what is held", errno, NULL);
		return 0;
	}
	return arg.num;
}

/* Hold nothing, in EPT 0. */
static inline void leave(struct thread *t)
{
	struct epk_grant list[NR_GRANTS];
	unsigned int i, num;

	t->holds = 0;
	if (t->follows) {
		num = ask(t, list);
		for (i = 0; i < num; i++)
			ioctl(t->process->dev.fd, EPK_IOC_END, list[i].id);
		/* To a key that was opened by hand another may come meanwhile. */
		if (ask(t, list) && !t->by_hand)
			fail("it is held after its end", list[0].id, NULL);
		t->nr_rights = t->entered = 0;
		t->may_lose = false;
		t->debuggers = __atomic_load_n(&t->process->debuggers, __ATOMIC_SEQ_CST);
	}
	t->by_hand = false;
	epk_device_enter(&t->process->dev, 0);
}

/* May something have been taken away from it, or does it hold more than is known? */
static inline bool is_unsure(struct thread *t)
{
	return t->by_hand || t->may_lose ||
	       t->debuggers != __atomic_load_n(&t->process->debuggers, __ATOMIC_SEQ_CST);
}

/* What is not held any more is being freed. */
static inline bool goes(struct process *p, int id)
{
	int tries;

	for (tries = 0; !is_gone(p, id) && tries < 10000; tries++)
		sched_yield();
	return is_gone(p, id);
}

/* Was a private domain freed that it has entered, and does not hold by a list? */
static inline bool has_ended(struct thread *t, struct epk_grant *list, unsigned int num)
{
	unsigned int i;

	for (i = 0; i < t->nr_rights; i++) {
		if (t->entered & 1u << i && !grant_of(list, num, t->rights[i].id))
			return goes(t->process, t->rights[i].id);
	}
	return false;
}

/* Then nothing is left of what it held together with that. */
static inline void end_with(struct thread *t)
{
	struct epk_grant list[NR_GRANTS];
	unsigned int i, n = 0, num = ask(t, list);

	count_add(&counts->ended);
	for (i = 0; i < t->nr_rights; i++) {
		if (!grant_of(list, num, t->rights[i].id))
			continue;
		if (t->settled & 1u << i)
			fail("it is held after a private domain's end", t->rights[i].id, NULL);
		t->rights[n++] = t->rights[i];
	}
	t->nr_rights = n;
	t->entered = t->settled = 0;
}

/* Does the module say the same as this program, about a thread that follows? */
static inline void recheck_rights(struct thread *t)
{
	struct process *p = t->process;
	struct epk_grant list[NR_GRANTS], *grant;
	unsigned int i, num, placed = 0;

	/* What shows its place has been private for so long that who had begun it has lost it. */
	for (i = 0; i < t->nr_rights; i++) {
		if (!(t->entered & 1u << i) &&
		    EPK_NOTE_PKEY(p->notes[EPK_ID_INDEX(t->rights[i].id)]))
			placed |= 1u << i;
	}
	num = ask(t, list);
	for (i = 0; i < num && !t->by_hand; i++) {
		grant = grant_of(t->rights, t->nr_rights, list[i].id);
		if (!grant || list[i].prot & ~grant->prot)
			fail("more is held than was begun", list[i].id, NULL);
		else if (placed & 1u << (grant - t->rights))
			fail("what has become private is held", list[i].id, NULL);
	}
	if (is_unsure(t))
		return;
	if (has_ended(t, list, num)) {
		end_with(t);
		return;
	}
	t->settled = (1u << t->nr_rights) - 1;
	for (i = 0; i < t->nr_rights; i++) {
		grant = grant_of(list, num, t->rights[i].id);
		if (grant && !(t->rights[i].prot & ~grant->prot))
			continue;
		if (!is_gone(p, t->rights[i].id) &&
		    (t->entered & 1u << i || !is_private(p, t->rights[i].id)))
			fail("less is held than was begun", t->rights[i].id, NULL);
	}
}

/* It holds one more, or one of them anew. */
static inline void note_right(struct thread *t, int id, int prot, bool entered)
{
	struct epk_grant *right = grant_of(t->rights, t->nr_rights, id);
	unsigned int bit;

	if (!right) {
		right = &t->rights[t->nr_rights++];
		*right = (struct epk_grant){ id, 0 };
	}
	right->prot |= prot;
	bit = 1u << (right - t->rights);
	t->settled &= ~bit;
	t->entered = entered ? t->entered | bit : t->entered & ~bit;
}

static inline void drop_right(struct thread *t, unsigned int i)
{
	unsigned int last = --t->nr_rights, bit = 1u << i;

	t->rights[i] = t->rights[last];
	t->settled = (t->settled & ~bit) | (t->settled >> last & 1) << i;
	t->entered = (t->entered & ~bit) | (t->entered >> last & 1) << i;
	t->entered &= (1u << last) - 1;
}

/* What signals and calls have put aside. */
static inline void restore_rights(struct thread *t, const struct thread *before)
{
	memcpy(t->rights, before->rights, sizeof(t->rights));
	t->nr_rights = before->nr_rights;
	t->entered = before->entered;
	t->settled = before->settled;
}

/* 0 if it holds the domain now. */
static inline int begin(struct thread *t, int id, int prot)
{
	struct epk_grant *right = grant_of(t->rights, t->nr_rights, id);
	struct process *p = t->process;
	bool private = is_private(p, id);
	int ret;

	if (!right && t->nr_rights == NR_RIGHTS)
		return 1;
	change_begins(p);
	ret = ioctl(p->dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, prot));
	change_ends(p);
	if (private && (ret >= 0 || errno == EALREADY))
		fail("a private domain is begun", id, NULL);
	if (ret < 0) {
		if (errno == EALREADY && !t->by_hand && (!right || prot & ~right->prot))
			fail("it was never begun", id, NULL);
		return 1;
	}
	note_right(t, id, prot, false);
	return 0;
}

/*
 * After each WRPKRU: is what it opened still there, and the thread too?  If the
 * domain goes later, the module closes the key before another comes.
 */
static inline void recheck(struct thread *t)
{
	struct epk_entry now;

	if (t->follows)
		recheck_rights(t);
	if (!t->holds || t->follows)
		return;
	if (open_keys() & ~(3u << 2 * t->place.pkey))
		fail("a key that was not opened", open_keys(), NULL);
	now = place_here(t->process, t->holds);
	if (now.id != t->holds || now.ept != t->place.ept || now.pkey != t->place.pkey ||
	    t->process->dev.identity->ept != now.ept)
		leave(t);
}

static inline void hold(struct thread *t, int id)
{
	struct epk_entry entry = epk_device_entry(&t->process->dev, id);

	leave(t);
	if (t->follows) {
		if (!begin(t, id, PROT_READ | (one_in(&t->dice, 4) ? 0 : PROT_WRITE)))
			t->holds = id;
		return;
	}
	if (!id || entry.id != id || !entry.pkey)
		return;
	if (entry.ept == EPK_EPT_ALL)
		entry.ept = t->process->dev.init.nr_epts > 1 ? below(&t->dice, 5) : 0;
	if (t->process->dev.identity->ept != entry.ept && try_vmfunc(0, entry.ept))
		return;
	t->holds = id;
	t->place = entry;
	epk_wrpkru(EPK_PKRU_ALLOW(entry.pkey));
	recheck(t);
}

/* A page that a domain has, probably. */
static inline char *owned_page(struct thread *t, int *owner)
{
	struct process *p = t->process;
	int tries = 8;
	char *page;

	do {
		page = some_page(&t->dice);
		*owner = __atomic_load_n(owner_of(p, page), __ATOMIC_RELAXED);
	} while ((!*owner || is_gone(p, *owner)) && --tries);
	return page;
}

/* Hold mostly the domain that a page belongs to, which is returned. */
static inline char *hold_some(struct thread *t)
{
	int owner;
	char *page = owned_page(t, &owner);

	hold(t, one_in(&t->dice, 8) ? some_id(t) : owner);
	return page;
}

/* Is a domain where this thread is, with its key open? */
static inline bool is_here(struct thread *t, int id, uint32_t ept, uint32_t pkru)
{
	struct epk_entry entry = place_of(t->process, id);

	return entry.id == id && entry.pkey && (entry.ept == ept || entry.ept == EPK_EPT_ALL) &&
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
	else if (t->follows && !t->by_hand && !grant_of(t->rights, t->nr_rights, (uint32_t)value))
		fail("a word of a domain that was not begun", value, page);
	else if (!t->follows && t->holds && value != stamp_of(t->holds))
		fail("a word of a domain that is not held", value, page);
}

/* Is one being freed that it has entered? */
static inline bool entered_goes(struct thread *t)
{
	unsigned int i, all = t->nr_rights;

	for (i = 0; i < 2 * all; i++) {
		int id = t->rights[i % all].id;

		if (t->entered & 1u << i % all &&
		    (i < all ? is_gone(t->process, id) : goes(t->process, id)))
			return true;
	}
	return false;
}

/* touch(), of a thread that follows.  It may move domains. */
static inline void touch_following(struct thread *t, char *page, bool write)
{
	struct epk_grant before[NR_GRANTS], after[NR_GRANTS];
	unsigned int nr_before = 0, nr_after;
	struct process *p = t->process;
	uint64_t words[2] = { 0 };
	unsigned long begun;
	bool quiet;
	int sig;

	write = write && t->nr_rights == 1 && !t->by_hand;
	if (t->by_hand)
		nr_before = ask(t, before);
	quiet = __atomic_load_n(&p->ended, __ATOMIC_SEQ_CST) ==
		(begun = __atomic_load_n(&p->begun, __ATOMIC_SEQ_CST));
	change_begins(p);
	sig = write ? follow_write(page, stamp_of(t->rights[0].id)) : follow_read(page, words);
	change_ends(p);
	if (sig && sig != FAULTED) {
		if (t->entered && !is_unsure(t) && !entered_goes(t))
			fail("a fault in a private domain raises a signal", sig, page);
		/* The handler was left by a jump. */
		t->nr_rights = t->entered = 0;
		t->by_hand = false;
		recheck_rights(t);
	}
	if (write && !sig && !(t->rights[0].prot & PROT_WRITE))
		fail("a write to what is held to be read", t->rights[0].id, page);
	count_add(sig ? &counts->faults : write ? &counts->writes : &counts->followed);
	if (sig || write)
		return;
	judge(t, words[0], words[1], page);
	if (!t->by_hand || !words[0] || (words[0] ^ stamp_of(0)) >> 32)
		return;
	nr_after = ask(t, after);
	quiet &= __atomic_load_n(&p->begun, __ATOMIC_SEQ_CST) == begun + 1;
	if (!quiet)
		return;
	count_add(&counts->judged);
	if (!grant_of(before, nr_before, (uint32_t)words[0]) &&
	    !grant_of(after, nr_after, (uint32_t)words[0]))
		fail("a word of what is not held", words[0], page);
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

	if (t->follows) {
		touch_following(t, page, write);
		return;
	}
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

/* Wait for a child; signals meanwhile are as good. */
static inline int status_of(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) != pid) {
		if (errno != EINTR)
			return -1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#endif /* KMOD_FUZZ_H */
