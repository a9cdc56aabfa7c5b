// SPDX-License-Identifier: MIT
/*
 * What a fault at a domain's memory was, in a line for people.  All of it may run in a signal handler that
 * interrupted anything, the library and malloc() too, on a small stack: so it starts nothing, allocates
 * nothing, and waits for no lock as long as its owner may wait for this thread.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "aside.h"
#include "backend.h"
#include "component.h"

/* So many of what the thread holds are named, of so many that are looked at. */
#define NAMED		8
#define LISTED		EPK_MAX_HELD

/* Milliseconds to wait for who has the books. */
#define PATIENCE	200

/* Page fault; bits of its error code: Intel SDM volume 3A, 4.7. */
#define TRAP_PAGE	14
#define CODE_WRITE	2
#define CODE_FETCH	16

/**
 * struct fault - where it was
 * @addr: the address
 * @map: a mapping that it is in, or beside
 * @write: it was to write
 * @jump: it was to run what is there
 * @access: in words
 * @held: what the interrupted code holds
 * @nr: how many
 */
struct fault {
	uintptr_t addr;
	struct epk_mapping map;
	bool write;
	bool jump;
	const char *access;
	struct epk_held held[LISTED];
	int nr;
};

struct line {
	char text[256];
	size_t used;
};

static __attribute__((format(printf, 2, 3))) void add(struct line *line, const char *format, ...)
{
	size_t room = sizeof(line->text) - line->used;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line->text + line->used, room, format, args);
	va_end(args);
	if (len > 0)
		line->used += (size_t)len < room ? (size_t)len : room - 1;
}

static void add_held(struct line *line, const struct fault *fault)
{
	int i;

	if (!fault->nr) {
		add(line, "; it holds nothing");
		return;
	}
	add(line, "; it holds");
	for (i = 0; i < fault->nr && i < NAMED; i++)
		add(line, "%s %d%s", i ? "," : "", fault->held[i].id,
		    fault->held[i].prot & PROT_WRITE ? "" : " (to be read)");
	if (fault->nr > NAMED)
		add(line, " and %d more", fault->nr - NAMED);
}

static int held_prot(const struct fault *fault)
{
	int i;

	for (i = 0; i < fault->nr && i < LISTED; i++)
		if (fault->held[i].id == fault->map.id)
			return fault->held[i].prot;
	return 0;
}

/* What it may do with what it does not hold: see epk_protect(). */
static int common_prot(int id)
{
	const struct epk_backend *ops = epk_ops();
	int prot = ops->common ? ops->common_prot(id) : 0;

	return prot > 0 ? prot : 0;
}

static const char *reason_common(const struct fault *fault, int prot)
{
	if (fault->write && !(prot & PROT_WRITE))
		return "which all threads may read only, and the thread does not hold";
	if (fault->write && !(fault->map.prot & PROT_WRITE))
		return "which is mapped to be read only";
	return "which all threads may access so";
}

static const char *reason(const struct fault *fault, int signo)
{
	int prot = held_prot(fault), common = prot ? 0 : common_prot(fault->map.id);

	if (signo == SIGBUS)
		return "for which there is no memory, or which its file does not have";
	if (fault->jump)
		return "and no domain's memory can be run";
	if (!prot && fault->nr > LISTED)
		return "which the thread may not hold";
	if (!prot && epk_note_is_private(fault->map.id))
		return "which is a component that the thread is not in";
	if (common)
		return reason_common(fault, common);
	if (!prot)
		return "which the thread does not hold";
	if (fault->write && !(prot & PROT_WRITE))
		return "which the thread holds to be read only";
	if (fault->write && !(fault->map.prot & PROT_WRITE))
		return "which is mapped to be read only";
	return "which the thread holds";
}

static void add_where(struct line *line, const struct fault *fault)
{
	const struct epk_mapping *map = &fault->map;
	size_t len = map->end - map->start;

	if (fault->addr >= map->end)
		add(line, "%zu bytes behind the end of", fault->addr - map->end + 1);
	else if (fault->addr < map->start)
		add(line, "%zu bytes before the start of", map->start - fault->addr);
	else
		add(line, "byte %zu of", fault->addr - map->start);
	add(line, " the %zu at %#lx of domain %d", len, map->start, map->id);
}

static void tell(const struct fault *fault, int signo)
{
	const struct epk_mapping *map = &fault->map;
	struct line line = { .used = 0 };

	add(&line, "fault: %s at %#lx, ", fault->access, fault->addr);
	add_where(&line, fault);
	if (fault->addr >= map->start && fault->addr < map->end)
		add(&line, ", %s", reason(fault, signo));
	add_held(&line, fault);
	epk_say(EPK_LEVEL_FAULT, line.text);
}

/* In the domain's memory, or on the pages beside it: where one too many is read. */
static bool find(uintptr_t addr, struct epk_mapping *map)
{
	uintptr_t page = addr & -EPK_PAGE_SIZE;

	return epk_mapping_find(addr, map) || (page && epk_mapping_find(page - 1, map)) ||
	       epk_mapping_find(page + EPK_PAGE_SIZE, map);
}

static int list_held(const struct epk_backend *ops, struct epk_held *list, int max, const void *context)
{
	int i, nr = epk_self ? (int)epk_held_nr(epk_self) : 0;

	if (ops->interrupted)
		return ops->interrupted(list, max, context);
	for (i = 0; i < nr && i < max; i++)
		list[i] = epk_self->held[i];
	return nr;
}

static void read_access(struct fault *fault, const ucontext_t *context)
{
	const greg_t *regs = context->uc_mcontext.gregs;
	bool known = regs[REG_TRAPNO] == TRAP_PAGE;

	fault->write = known && regs[REG_ERR] & CODE_WRITE;
	fault->access = "an access";
	if (known)
		fault->access = fault->write ? "a write" : "a read";
	fault->jump = known && regs[REG_ERR] & CODE_FETCH;
	if (fault->jump)
		fault->access = "a jump";
}

/*
 * Its owner may want a lock that this thread has, malloc()'s for example: nobody waits for it for ever.
 * Who has it and was interrupted gets EDEADLK, and leaves the books alone, which may be half written.
 */
static int try_lock(void)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	int err, tries = 0;

	while ((err = pthread_mutex_trylock(&epk_lock)) == EBUSY && tries++ < PATIENCE)
		nanosleep(&ms, NULL);
	return err;
}

/*
 * Anybody can write the books: what is held while they are followed could be read by what they say.  A
 * handler holds nothing, unless it has begun something itself; then it is not told.
 */
static bool look(uintptr_t addr, struct epk_mapping *map)
{
	const struct epk_backend *ops = epk_ops();
	bool found = false;
	sigset_t old;

	if ((ops->in_module || ops->put_aside) && (rdpkru() & epk_now.access) != epk_now.access)
		return false;
	/* No other handler leaves it locked. */
	epk_signals_block(&old);
	if (!try_lock()) {
		found = find(addr, map);
		pthread_mutex_unlock(&epk_lock);
	}
	epk_signals_restore(&old);
	return found;
}

int epk_handle_fault(int signo, void *info, void *context)
{
	const struct epk_backend *ops = epk_ops();
	const siginfo_t *what = info;
	int saved_errno = errno;
	struct fault fault;

	if (!what || !context || (signo != SIGSEGV && signo != SIGBUS) || what->si_code <= 0 || !ops)
		return 0;
	fault.addr = (uintptr_t)what->si_addr;
	if (look(fault.addr, &fault.map)) {
		fault.nr = list_held(ops, fault.held, LISTED, context);
		if (fault.nr < 0)
			fault.nr = 0;
		read_access(&fault, context);
		tell(&fault, signo);
	}
	errno = saved_errno;
	return 0;
}

static const char *words_of(const struct epk_fault *what)
{
	switch (what->prot) {
	case PROT_READ:
		return "a read";
	case PROT_WRITE:
		return "a write";
	case PROT_EXEC:
		return "a jump";
	}
	switch (what->signal) {
	case SIGFPE:
		return "a division or another sum that fails";
	case SIGILL:
		return "no instruction of this CPU";
	default:
		return "an access to no address";
	}
}

/* Of one that was caught, and by whom no longer matters: what the thread held then is not known any more. */
void epk_fault_caught(const struct epk_fault *what)
{
	struct fault fault = { .addr = (uintptr_t)what->addr };
	struct line line = { .used = 0 };

	if (!epk_now.debug && !epk_printing())
		return;
	add(&line, "fault: caught: %s, by the instruction at %#lx", words_of(what),
	    (uintptr_t)what->instruction);
	if (what->prot)
		add(&line, ", at %#lx", fault.addr);
	if (what->prot && look(fault.addr, &fault.map)) {
		add(&line, ", ");
		add_where(&line, &fault);
	}
	epk_say(EPK_LEVEL_FAULT, line.text);
}

/*
 * The program dies of it all the same: of this very signal, since not each is of an instruction that
 * would be tried again.  It is blocked until the handler returns.
 */
static void explain(int signo, siginfo_t *info, void *context)
{
	epk_handle_fault(signo, info, context);
	signal(signo, SIG_DFL);
	if (syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signo, info))
		raise(signo);
}

/* Where the program has a handler, that is its own affair. */
void epk_fault_explain(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS };
	struct sigaction old, own = {
		.sa_sigaction = explain, .sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	unsigned int i;

	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (!sigaction(signals[i], NULL, &old) && !(old.sa_flags & SA_SIGINFO) &&
		    old.sa_handler == SIG_DFL)
			sigaction(signals[i], &own, NULL);
}
