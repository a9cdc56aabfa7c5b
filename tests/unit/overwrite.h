/* SPDX-License-Identifier: MIT */
/*
 * What the parts of overwrite_test share: what is written over (overwrite_memory.c), what is
 * done meanwhile and looked at afterwards (overwrite_calls.c), and in which order
 * (overwrite_test.c).
 */
#ifndef EPK_OVERWRITE_H
#define EPK_OVERWRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE		4096ul
#define RW		(PROT_READ | PROT_WRITE)

#define MAX_AREAS	512
#define MAX_WORDS	65536
#define MAX_FINDINGS	256

/**
 * struct area - bytes that the library made, and that the process can write
 * @name: a symbol, or where it was allocated
 */
struct area {
	uintptr_t start;
	uintptr_t end;
	char name[48];
};

/**
 * struct word - eight of these bytes
 * @addr: a multiple of 8
 * @area: index of its area
 * @live: it is not zero, or the calls have changed it
 */
struct word {
	uintptr_t addr;
	uint16_t area;
	bool live;
};

/* What a finding is. */
enum kind {
	OPEN,		/* a domain that is not held can be read or written */
	OUTSIDE,	/* memory that was to be the domain's is not */
	COPIED,		/* a secret stands in ordinary memory */
	CHANGED,	/* a secret was written over */
	NR_KINDS,
};

/* How a case ended.  The middle three are denials of service. */
enum end {
	SAME,		/* each call did what it does otherwise */
	REFUSED,	/* some returned errors, or something else than otherwise */
	KILLED,		/* a signal ended the process */
	WAITED,		/* nothing went on any more */
	FOUND,		/* there is a finding */
	NR_ENDS,
};

#define NR_DOMAINS	18
#define NR_HEAPS	5
#define MAX_RANGES	64
#define CANARY		0xc0de5ec2ull
#define CANARY_WORDS	16

/* What the test itself knows of the memory of domains. */
struct range {
	uintptr_t start;
	uintptr_t end;
	int domain;
	uintptr_t fake;
};

/* The library of the test's own, with a hole of each kind. */
struct planted {
	uint64_t door[NR_KINDS];
};

/* Under "epk", components with secrets; the second is confined.  As domains they are these. */
#define NR_PARTS	2
#define PART(n)		(NR_DOMAINS + 1 + (n))

struct victim {
	int ids[NR_DOMAINS];
	int parts[NR_PARTS];
	uint64_t *in_part[NR_PARTS];
	uint64_t *secrets[NR_DOMAINS];
	uint64_t *in_heap[NR_HEAPS];
	void *stack[NR_HEAPS];
	struct range ranges[MAX_RANGES];
	unsigned int nr_ranges;
	char *fake;
	size_t fake_bytes;
	struct planted *planted;
};

/* Held all the time, to write and to read; what most is about; what has no key any more. */
enum { HELD = 0, HELD_READ = 1, USED = 2, OTHER = 3, FOURTH = 4, COLD = NR_DOMAINS - 1 };

/* In memory that the processes share. */
struct finding {
	enum kind kind;
	int step;
	int domain;
	char what[256];
	unsigned int times;
};

struct shared {
	/* What the worker is at. */
	volatile uint64_t at;
	volatile int step;
	volatile int first_step;
	volatile bool found;
	volatile bool closely;
	struct finding last;
	/* What it has done. */
	uint64_t ends[NR_ENDS];
	uint64_t processes;
	uint64_t calls;
	uint64_t reports;
	unsigned int nr_findings;
	struct finding findings[MAX_FINDINGS];
	/* What can be written over. */
	unsigned int nr_areas;
	unsigned int nr_words;
	unsigned int nr_redirects;
	struct victim victim;
	uint64_t blocks;
	struct area areas[MAX_AREAS];
	struct word words[MAX_WORDS];
};

extern struct shared *shared;

/* overwrite_memory.c */
void memory_start(void);
void memory_library_made(bool on);
uint64_t memory_blocks(void);
void memory_find(void);
void memory_find_live(void);
void memory_area(const void *start, size_t len, const char *name);
bool memory_is_domain(uintptr_t addr);
const char *memory_describe(uintptr_t addr);
bool can_write(uintptr_t addr);

/* overwrite_victim.c */
extern struct victim victim;

void victim_start(void);
void victim_set_up(void);
void victim_hold(void);
void victim_catch(void);
bool victim_check(void);
void victim_look_around(void);
bool victim_look_at_all(void);
void victim_look_from_another(void);
void keep_finding(const struct finding *finding);
void report(enum kind kind, int domain, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * By domain: 0, what is held, or UNKNOWN: it could not be given up.  A call that does not do what
 * it does otherwise counts in "differs".
 */
#define UNKNOWN	-1
extern int held[NR_DOMAINS];
extern int differs;
#define want(cond)	((void)((cond) || differs++))

/* Where in_domain() had its stack. */
extern struct called {
	char *stack;
} called;
extern int file_fd;

uint64_t canary(int domain, int i);
bool can_read(const void *addr);
uint32_t open_keys(void);
int begin(int domain, int prot);
int end(int domain);
void use(int domain);
bool look_at(int domain);
/* What is asked of a part, and another is asked by that. */
struct asked {
	unsigned int entry;
	int part;
	const struct asked *next;
};

/* Its entries. */
enum { LOOKS, PART_FAULTS, PART_ENTRIES };

bool have_parts(void);
int make_part(int id, bool confined);
int ask_part(const struct asked *asked);
int domain_at(uintptr_t addr);
void check_memory(int domain, char *mem, size_t len);
long in_domain(void *arg);

/* overwrite_calls.c */
bool victim_run(int first, bool closely, uint64_t luck);
const char *step_name(int step);
int step_count(void);

/* overwrite_cases.c */
#define NR_PLANS	7

/**
 * struct plan - cases of one kind
 * @fill: makes one
 * @nr: how many there are
 * @race: another thread writes
 * @resumes: how often a case is resumed behind a call that killed it
 */
struct plan {
	const char *name;
	bool (*fill)(uint64_t i);
	uint64_t nr;
	bool race;
	unsigned int resumes;
};

extern struct plan plans[NR_PLANS];
extern uint64_t seed, percent;

void cases_find_redirects(void);
void cases_count(void);
bool case_fill(const struct plan *plan, uint64_t i);
uint64_t mix(uint64_t x);
void case_apply(void);
bool case_take_back(void);
void case_write(bool old);
void case_note_old(void);

/* What the case writes, in words. */
const char *case_describe(void);

#endif /* EPK_OVERWRITE_H */
