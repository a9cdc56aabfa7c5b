// SPDX-License-Identifier: MIT
/*
 * The victim: domains with secrets in them, and what is looked at after its calls.  What may be
 * accessed is what the victim knows that it holds, by what its own calls have returned, and nothing
 * that the library says later.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <epk.h>

#include "../try.h"
#include "overwrite.h"

#define FAKE_PART	(4 * PAGE)
#define FAKE_BYTES	(2048 * 1024ul)
/* Before the copies. */
#define FAKE_PLAIN	(16 * PAGE)

struct victim victim;
struct called called;
int held[NR_DOMAINS];
int differs;
int file_fd = -1;
static int event_fd = -1;

uint64_t canary(int domain, int i)
{
	return CANARY << 32 | (uint64_t)domain << 16 | (uint64_t)i;
}

/* The kernel reads user memory with the thread's own rights, and raises no signal. */
bool can_read(const void *addr)
{
	return write(event_fd, addr, 8) == 8 || errno != EFAULT;
}

uint32_t open_keys(void)
{
	uint32_t eax, edx;

	asm volatile("rdpkru" : "=a" (eax), "=d" (edx) : "c" (0));
	return ~eax & 0x55555555;
}

void keep_finding(const struct finding *finding)
{
	unsigned int i;

	shared->reports++;
	for (i = 0; i < shared->nr_findings; i++) {
		struct finding *known = &shared->findings[i];

		if (known->kind == finding->kind && known->step == finding->step &&
		    !strcmp(known->what, finding->what)) {
			known->times++;
			return;
		}
	}
	if (i == MAX_FINDINGS)
		return;
	shared->findings[i] = *finding;
	shared->findings[i].times = 1;
	shared->nr_findings++;
}

/* The first of a case is kept, if it is looked at closely. */
void report(enum kind kind, int domain, const char *format, ...)
{
	struct finding *last = &shared->last;
	va_list args;
	size_t len;

	if (shared->found)
		return;
	*last = (struct finding) { .kind = kind, .step = shared->step, .domain = domain };
	va_start(args, format);
	vsnprintf(last->what, sizeof(last->what), format, args);
	va_end(args);
	len = strlen(last->what);
	snprintf(last->what + len, sizeof(last->what) - len, ": %s", case_describe());
	shared->found = true;
	if (shared->closely)
		keep_finding(last);
}

int begin(int domain, int prot)
{
	int err = domain_begin(victim.ids[domain], prot);

	if (!err)
		held[domain] = prot;
	return err;
}

/* Who cannot give a domain up knows that he has it. */
int end(int domain)
{
	int err = domain_end(victim.ids[domain]);

	if (!err)
		held[domain] = 0;
	else if (held[domain])
		held[domain] = UNKNOWN;
	return err;
}

void use(int domain)
{
	want(*(volatile uint64_t *)victim.secrets[domain] == canary(domain, 0));
}

bool look_at(int domain)
{
	if (!held[domain] && can_read(victim.secrets[domain])) {
		report(OPEN, domain, "domain %d can be read", domain);
		return false;
	}
	if (held[domain] == PROT_READ && can_write((uintptr_t)victim.secrets[domain])) {
		report(OPEN, domain, "domain %d can be written", domain);
		return false;
	}
	return true;
}

bool have_parts(void)
{
	return !strcmp(epk_backend(), "epk");
}

static bool is_whole(int domain, const uint64_t *secrets)
{
	int i;

	for (i = 0; i < CANARY_WORDS; i++)
		if (secrets[i] != canary(domain, i))
			return false;
	return true;
}

/* In a part, which may not be able to write down what it sees: a bit for each domain that is open. */
#define NOT_WHOLE	(1ul << 40)
#define FAILED		(1ul << 41)

static long looks(void *arg)
{
	const struct asked *asked = arg;
	long seen = is_whole(PART(asked->part), victim.in_part[asked->part]) ? 0 : NOT_WHOLE, more = 0;
	int i;

	if (asked->next && epk_gate_call(victim.parts[asked->next->part], asked->next->entry,
					 (void *)asked->next, &more) &&
	    asked->next->entry == LOOKS)
		seen |= FAILED;
	for (i = 0; i < NR_DOMAINS; i++)
		if (can_read(victim.secrets[i]))
			seen |= 1ul << i;
	for (i = 0; i < NR_PARTS; i++)
		if (i != asked->part && can_read(victim.in_part[i]))
			seen |= 1ul << PART(i);
	return seen | more;
}

static char *volatile nowhere = (char *)16;

static long part_faults(void *arg)
{
	(void)arg;
	return *(volatile char *)nowhere;
}

static long (*const part_entries[PART_ENTRIES])(void *arg) = { looks, part_faults };

int make_part(int id, bool confined)
{
	struct epk_component_options options = {
		.size = sizeof(options), .flags = confined ? EPK_COMPONENT_CONFINED : 0,
	};

	return epk_component_create(id, part_entries, PART_ENTRIES, &options);
}

/* Whatever the caller holds, in a part nothing is open but that. */
int ask_part(const struct asked *asked)
{
	long seen = 0;
	int err = epk_gate_call(victim.parts[asked->part], asked->entry, (void *)asked, &seen), i;

	if (err)
		return err;
	if (seen & NOT_WHOLE)
		report(CHANGED, PART(asked->part), "a component's secret was written over");
	for (i = 0; i < PART(NR_PARTS); i++)
		if (seen >> i & 1)
			report(OPEN, i, "in a component domain %d can be read", i);
	return seen & FAILED ? -1 : 0;
}

static bool look_at_part(int n)
{
	if (!victim.in_part[n] || !can_read(victim.in_part[n]))
		return true;
	report(OPEN, PART(n), "component %d can be read", n);
	return false;
}

/* Whatever is not held is refused. */
bool victim_look_at_all(void)
{
	bool closed = true;
	int i;

	for (i = 0; i < NR_DOMAINS; i++)
		closed &= look_at(i);
	for (i = 0; i < NR_PARTS; i++)
		closed &= look_at_part(i);
	return closed;
}

/* From a thread that never began a domain. */
void victim_look_from_another(void)
{
	int i;

	for (i = 0; i < NR_DOMAINS; i++)
		if (victim.secrets[i] && can_read(victim.secrets[i]))
			report(OPEN, i, "another thread can read domain %d", i);
	for (i = 0; i < NR_PARTS; i++)
		look_at_part(i);
}

int domain_at(uintptr_t addr)
{
	unsigned int i;

	for (i = 0; i < victim.nr_ranges; i++)
		if (addr >= victim.ranges[i].start && addr < victim.ranges[i].end)
			return victim.ranges[i].domain;
	return -1;
}

bool memory_is_domain(uintptr_t addr)
{
	return domain_at(addr) >= 0;
}

static bool overlaps(const void *addr, size_t len, const void *other)
{
	uintptr_t a = (uintptr_t)addr, b = (uintptr_t)other;

	return a < b + CANARY_WORDS * 8 && b < a + len;
}

/* What was given out for a @domain that the thread does not hold is no one's but the domain's. */
void check_memory(int domain, char *mem, size_t len)
{
	int of = domain_at((uintptr_t)mem);

	if (!mem || mem == MAP_FAILED) {
		differs++;
		return;
	}
	if (can_read(mem) || can_read(mem + len - 8))
		report(OUTSIDE, domain, "memory for domain %d can be read", domain);
	else if (of >= 0 && of != domain)
		report(OUTSIDE, domain, "memory for domain %d is domain %d's", domain, of);
	if (overlaps(mem, len, victim.secrets[domain]) ||
	    (domain < NR_HEAPS && overlaps(mem, len, victim.in_heap[domain]))) {
		report(CHANGED, domain, "memory that domain %d uses is given out again", domain);
		return;
	}
	want(!begin(domain, RW));
	*(volatile uint64_t *)mem = canary(domain, CANARY_WORDS);
	want(!end(domain));
}

static bool scan(const void *start, size_t len)
{
	const uint64_t *word = start, *stop = word + len / 8;

	for (; word < stop; word++) {
		if (*word >> 32 != CANARY)
			continue;
		report(COPIED, *word >> 16 & 0xffff, "domain %d's secret is at %s",
		       (int)(*word >> 16 & 0xffff), memory_describe((uintptr_t)word));
		return false;
	}
	return true;
}

/* Ordinary memory that the library could have copied a secret to. */
static bool scan_all(void)
{
	bool none = scan(victim.fake, FAKE_PLAIN);
	unsigned int i;

	for (i = 0; i < shared->nr_areas; i++)
		none &= scan((void *)shared->areas[i].start,
			     shared->areas[i].end - shared->areas[i].start);
	for (i = 0; i < victim.nr_ranges; i++) {
		const struct range *range = &victim.ranges[i];
		size_t len = range->end - range->start;

		if (range->fake)
			none &= scan((void *)range->fake, len < FAKE_PART ? len : FAKE_PART);
	}
	return none;
}

/* What was written stands there still. */
static bool look_into(int domain)
{
	bool whole = true, had = held[domain];

	if (held[domain] == UNKNOWN)
		return true;
	if (!had && begin(domain, PROT_READ)) {
		differs++;
		return true;
	}
	whole &= is_whole(domain, victim.secrets[domain]);
	if (domain < NR_HEAPS)
		whole &= is_whole(domain, victim.in_heap[domain]);
	if (!had)
		want(!end(domain));
	if (!whole)
		report(CHANGED, domain, "domain %d's secret was written over", domain);
	return whole;
}

static bool look_into_part(int n)
{
	const struct asked asked = { .entry = LOOKS, .part = n };
	int err = have_parts() ? ask_part(&asked) : 0;

	want(!err);
	return !shared->found;
}

static bool check(int nr_into)
{
	bool well = scan_all();
	int i;

	well &= victim_look_at_all();
	for (i = 0; i < nr_into; i++)
		well &= look_into(i);
	for (i = 0; i < NR_PARTS; i++)
		well &= look_into_part(i);
	return well;
}

long in_domain(void *arg)
{
	volatile uint64_t local[8];
	int domain = *(int *)arg, i;

	for (i = 0; i < 8; i++)
		local[i] = canary(domain, i);
	called.stack = (char *)local;
	return (long)(local[1] >> 16 & 0xffff);
}

/*
 * Before the process ends: what a call has copied is there for other threads to see.  Whatever was
 * held is closed in here.
 */
static void on_fault(int sig)
{
	scan_all();
	if (shared->found)
		_exit(0);
	signal(sig, SIG_DFL);
	raise(sig);
}

void victim_catch(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGILL };
	const struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK | SA_NODEFER };
	size_t i;

	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
}

/* While it is written over, after each call. */
void victim_look_around(void)
{
	check(NR_HEAPS);
}

/* True: nothing is to be seen, and everything is where it was. */
bool victim_check(void)
{
	differs = 0;
	return check(NR_HEAPS) && !differs;
}

static int note_range(int id, void *addr, size_t len, void *arg)
{
	struct range *range = &victim.ranges[victim.nr_ranges];
	int i, n;

	(void)arg;
	for (i = 0; i < NR_DOMAINS && victim.ids[i] != id; i++)
		;
	for (n = 0; n < NR_PARTS; n++)
		if (victim.parts[n] == id)
			i = PART(n);
	if (victim.nr_ranges == MAX_RANGES || i == NR_DOMAINS)
		return 1;
	*range = (struct range) { (uintptr_t)addr, (uintptr_t)addr + len, i, 0 };
	victim.nr_ranges++;
	return 0;
}

/*
 * A copy of a part of USED's memory, as somebody could make it who knows how a heap looks.  There
 * are no secrets in it, and what pointed into the domain points into the copy.
 */
static void copy_part(uintptr_t from, uintptr_t to, size_t len)
{
	const uint64_t *source = (const uint64_t *)from;
	uint64_t *copy = (uint64_t *)to;
	unsigned int r;
	size_t i;
	char byte;

	if (!try_read(source, &byte))
		return;
	for (i = 0; i < len / 8; i++) {
		uint64_t value = source[i];

		for (r = 0; r < victim.nr_ranges; r++)
			if (victim.ranges[r].fake && value >= victim.ranges[r].start &&
			    value <= victim.ranges[r].end)
				value += victim.ranges[r].fake - victim.ranges[r].start;
		if (value >> 32 == CANARY)
			value = 0;
		if (copy[i] != value)
			copy[i] = value;
	}
}

static void make_fakes(void)
{
	uintptr_t next = (uintptr_t)victim.fake + FAKE_PLAIN;
	unsigned int i;

	for (i = 0; i < victim.nr_ranges; i++) {
		struct range *range = &victim.ranges[i];

		if (range->domain != USED ||
		    next + range->end - range->start > (uintptr_t)victim.fake + FAKE_BYTES)
			continue;
		range->fake = next;
		next += range->end - range->start;
	}
	victim.fake_bytes = next - (uintptr_t)victim.fake;
	if (begin(USED, PROT_READ))
		_exit(1);
	for (i = 0; i < victim.nr_ranges; i++) {
		const struct range *range = &victim.ranges[i];
		size_t len = range->end - range->start;

		if (!range->fake)
			continue;
		copy_part(range->start, range->fake, len < FAKE_PART ? len : FAKE_PART);
		if (len > FAKE_PART)
			copy_part(range->end - PAGE, range->fake + len - PAGE, PAGE);
	}
	end(USED);
}

/* Once, in the process that all workers come from. */
void victim_start(void)
{
	victim.fake = mmap(NULL, FAKE_BYTES, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			   0);
	victim.planted = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	file_fd = memfd_create("overwrite", MFD_CLOEXEC);
	if (victim.fake == MAP_FAILED || victim.planted == MAP_FAILED || event_fd < 0 ||
	    file_fd < 0 || ftruncate(file_fd, PAGE)) {
		printf("no memory\n");
		exit(1);
	}
}

#define SET_UP(cond)							\
	do {								\
		if (!(cond)) {						\
			printf("%s:%d: %s\n", __FILE__, __LINE__, #cond);	\
			fflush(stdout);					\
			_exit(1);					\
		}							\
	} while (0)

static void fill(int domain)
{
	int i;

	SET_UP(!begin(domain, RW));
	for (i = 0; i < CANARY_WORDS; i++) {
		victim.secrets[domain][i] = canary(domain, i);
		if (domain < NR_HEAPS)
			victim.in_heap[domain][i] = canary(domain, i);
	}
	SET_UP(!end(domain));
}

static void set_up_part(int n)
{
	const struct asked asked = { .entry = LOOKS, .part = n };
	int id, i;

	SET_UP(!alloc_domains(1, &victim.parts[n]));
	id = victim.parts[n];
	victim.in_part[n] = domain_mmap(id, NULL, PAGE, RW, 0);
	SET_UP(victim.in_part[n] != MAP_FAILED && !domain_begin(id, RW));
	for (i = 0; i < CANARY_WORDS; i++)
		victim.in_part[n][i] = canary(PART(n), i);
	SET_UP(!domain_end(id) && !make_part(id, n));
	SET_UP(!ask_part(&asked));
}

/* In each worker. */
void victim_set_up(void)
{
	static char signal_stack[64 * 1024];
	const stack_t stack = { .ss_sp = signal_stack, .ss_size = sizeof(signal_stack) };
	int i;

	/* So that the library makes none, which would be many bytes that it does not read. */
	SET_UP(!sigaltstack(&stack, NULL));
	memory_library_made(true);
	SET_UP(!alloc_domains(NR_DOMAINS, victim.ids));
	for (i = 0; i < NR_DOMAINS; i++) {
		victim.secrets[i] = domain_mmap(victim.ids[i], NULL, PAGE, RW, 0);
		SET_UP(victim.secrets[i] != MAP_FAILED);
	}
	for (i = 0; i < NR_HEAPS; i++) {
		victim.in_heap[i] = epk_malloc(victim.ids[i], CANARY_WORDS * 8);
		SET_UP(victim.in_heap[i]);
		SET_UP(!epk_call(victim.ids[i], in_domain, &i, NULL));
		victim.stack[i] = called.stack;
	}
	for (i = 0; i < NR_PARTS && have_parts(); i++)
		set_up_part(i);
	memory_library_made(false);
	for (i = NR_DOMAINS - 1; i >= 0; i--)
		fill(i);
	SET_UP(!epk_for_each_mapping(note_range, NULL));
	make_fakes();
}

/* From then on these two are held. */
void victim_hold(void)
{
	SET_UP(!begin(HELD, RW) && !begin(HELD_READ, PROT_READ));
}
