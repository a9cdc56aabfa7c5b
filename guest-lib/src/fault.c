// SPDX-License-Identifier: MIT
/*
 * What a fault at a domain's memory was, in a line for people.  All of it may run in a signal handler
 * that interrupted the library.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <ucontext.h>

#include "aside.h"
#include "backend.h"
#include "component.h"

/* So many of what the thread holds are named. */
#define NAMED		8

/* Page fault; bits of its error code: Intel SDM volume 3A, 4.7. */
#define TRAP_PAGE	14
#define CODE_WRITE	2
#define CODE_FETCH	16

/**
 * struct fault - where it was
 * @addr: the address
 * @map: a mapping that it is in, or beside
 * @write: it was to write
 * @access: in words
 * @held: what the interrupted code holds
 * @nr: how many
 */
struct fault {
	uintptr_t addr;
	struct epk_mapping map;
	bool write;
	const char *access;
	struct epk_held held[2 * EPK_MAX_HELD];
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

	for (i = 0; i < fault->nr; i++)
		if (fault->held[i].id == fault->map.id)
			return fault->held[i].prot;
	return 0;
}

static const char *reason(const struct fault *fault, int signo)
{
	int prot = held_prot(fault);

	if (signo == SIGBUS)
		return "for which there is no memory, or which its file does not have";
	if (!prot && epk_note_is_private(fault->map.id))
		return "which is a component that the thread is not in";
	if (!prot)
		return "which the thread does not hold";
	if (fault->write && !(prot & PROT_WRITE))
		return "which the thread holds to be read only";
	if (fault->write && !(fault->map.prot & PROT_WRITE))
		return "which is mapped to be read only";
	return "which the thread holds";
}

static void tell(const struct fault *fault, int signo)
{
	const struct epk_mapping *map = &fault->map;
	size_t len = map->end - map->start;
	struct line line = { .used = 0 };

	add(&line, "fault: %s at %#lx, ", fault->access, fault->addr);
	if (fault->addr >= map->end)
		add(&line, "%zu bytes behind the end of", fault->addr - map->end + 1);
	else if (fault->addr < map->start)
		add(&line, "%zu bytes before the start of", map->start - fault->addr);
	else
		add(&line, "byte %zu of", fault->addr - map->start);
	add(&line, " the %zu at %#lx of domain %d", len, map->start, map->id);
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

static int list_held(struct epk_held *list, int max, const void *context)
{
	int i, nr = epk_self ? (int)epk_held_nr(epk_self) : 0;

	if (epk_now.ops->interrupted)
		return epk_now.ops->interrupted(list, max, context);
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
	if (known && regs[REG_ERR] & CODE_FETCH)
		fault->access = "a jump";
}

int epk_handle_fault(int signo, void *info, void *context)
{
	const siginfo_t *what = info;
	int saved_errno = errno, err;
	struct epk_aside aside;
	struct fault fault;
	bool found;

	if (!what || !context || (signo != SIGSEGV && signo != SIGBUS) || what->si_code <= 0 || !epk_ops())
		return 0;
	fault.addr = (uintptr_t)what->si_addr;
	/* Whose handler interrupted the owner finds the books as they are between two steps. */
	err = epk_notes_lock(&aside);
	found = (!err || err == -EDEADLK) && find(fault.addr, &fault.map);
	if (!err)
		epk_notes_unlock(&aside);
	if (found) {
		fault.nr = list_held(fault.held, 2 * EPK_MAX_HELD, context);
		if (fault.nr < 0)
			fault.nr = 0;
		if (fault.nr > 2 * EPK_MAX_HELD)
			fault.nr = 2 * EPK_MAX_HELD;
		read_access(&fault, context);
		tell(&fault, signo);
	}
	errno = saved_errno;
	return 0;
}

/* The program dies of it all the same, at the instruction that it was. */
static void explain(int signo, siginfo_t *info, void *context)
{
	epk_handle_fault(signo, info, context);
	signal(signo, SIG_DFL);
	if (info->si_code <= 0)
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
