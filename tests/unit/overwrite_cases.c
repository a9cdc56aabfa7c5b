// SPDX-License-Identifier: MIT
/* What is written where, by the number of the case and the seed alone. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overwrite.h"

#define MAX_POKES	48
#define REDIRECT_CASES	40
#define RANDOM_CASES	100
#define RACE_CASES	40

/* A value that is written over one to eight bytes. */
struct poke {
	uintptr_t addr;
	uint64_t value;
	uint64_t old;
	unsigned int size;
	const char *how;
};

static struct {
	struct poke list[MAX_POKES];
	unsigned int nr;
} pokes;

/* As the tests in the guest have it, unless an argument says more. */
uint64_t seed = 1, percent = 30;

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
	random_state = mix(random_state);
	return random_state % limit;
}

static void poke(uintptr_t addr, unsigned int size, uint64_t value, const char *how)
{
	if (pokes.nr < MAX_POKES)
		pokes.list[pokes.nr++] = (struct poke) {
			.addr = addr, .size = size, .value = value, .how = how,
		};
}

static uint64_t get(uintptr_t addr, unsigned int size)
{
	uint64_t value = 0;

	memcpy(&value, (void *)addr, size);
	return value;
}

/* One store, as a single write of an attacker's is. */
static void put(uintptr_t addr, unsigned int size, uint64_t value)
{
	switch (size) {
	case 1:
		*(volatile uint8_t *)addr = value;
		break;
	case 4:
		*(volatile uint32_t *)addr = value;
		break;
	default:
		*(volatile uint64_t *)addr = value;
	}
}

void case_note_old(void)
{
	unsigned int i;

	for (i = 0; i < pokes.nr; i++)
		pokes.list[i].old = get(pokes.list[i].addr, pokes.list[i].size);
}

/* The values of the case, or what was there before. */
void case_write(bool old)
{
	unsigned int i;

	for (i = 0; i < pokes.nr; i++)
		put(pokes.list[i].addr, pokes.list[i].size,
		    old ? pokes.list[i].old : pokes.list[i].value);
}

void case_apply(void)
{
	case_note_old();
	case_write(false);
}

/* False: the library has written there itself. */
bool case_take_back(void)
{
	bool same = true;
	unsigned int i;

	for (i = pokes.nr; i-- > 0;) {
		const struct poke *p = &pokes.list[i];

		if (get(p->addr, p->size) == p->value)
			put(p->addr, p->size, p->old);
		else if (get(p->addr, p->size) != p->old)
			same = false;
	}
	return same;
}

const char *case_describe(void)
{
	static char text[200];
	unsigned int i;
	int len = 0;

	len = pokes.nr > 3 ? snprintf(text, sizeof(text), "%u words, ", pokes.nr) : 0;
	text[len] = 0;
	for (i = 0; i < pokes.nr && len < (int)sizeof(text) - 1; i++)
		len += snprintf(text + len, sizeof(text) - len, "%s%s := %s", i ? ", " : "",
				memory_describe(pokes.list[i].addr), pokes.list[i].how);
	return text;
}

static bool is_planted(const struct word *word)
{
	return word->addr - (uintptr_t)victim.planted < PAGE;
}

static const struct word *any_word(bool live)
{
	const struct word *word;

	do {
		word = &shared->words[random_below(shared->nr_words)];
	} while (is_planted(word) || (live && !word->live));
	return word;
}

/* What somebody would write there who knows what he wants. */
static uint64_t plausible(unsigned int which, uintptr_t addr, const char **how)
{
	const struct range *range = NULL;
	unsigned int i;

	for (i = 0; i < victim.nr_ranges; i++)
		if (victim.ranges[i].domain == USED && victim.ranges[i].fake &&
		    (!range || random_below(2)))
			range = &victim.ranges[i];
	switch (which) {
	case 0:
		*how = "an unheld domain's secret";
		return (uintptr_t)(victim.secrets[USED] + 4);
	case 1:
		*how = "an unheld domain's heap";
		return (uintptr_t)(victim.in_heap[USED] + 2) & -16ul;
	case 2:
		*how = "a held domain's secret";
		return (uintptr_t)(victim.secrets[HELD] + 4);
	case 3:
		*how = "a fake heap";
		return range ? range->fake : (uintptr_t)victim.fake;
	case 4:
		*how = "zeroes";
		return (uintptr_t)victim.fake + 8 * PAGE;
	case 5:
		*how = "itself";
		return addr;
	case 6:
		*how = "0";
		return 0;
	case 7:
		*how = "all ones";
		return UINT64_MAX;
	default:
		*how = "another word's value";
		return get(any_word(true)->addr, 8);
	}
}

#define NR_PLAUSIBLE	12

static uint64_t plausible_half(unsigned int which, const char **how)
{
	switch (which) {
	case 0:
		*how = "an unheld domain's ID";
		return victim.ids[USED];
	case 1:
		*how = "another domain's ID";
		return victim.ids[OTHER];
	case 2:
		*how = "a held domain's ID";
		return victim.ids[HELD];
	case 3:
		*how = "3";
		return 3;
	case 4:
		*how = "INT_MIN";
		return 0x80000000;
	default:
		*how = "a small number";
		return random_below(20);
	}
}

#define NR_HALVES	6

/* A byte's values, the last ones at random. */
#define NR_VALUES	6

static void one_byte(const struct word *word, unsigned int byte, unsigned int value)
{
	uintptr_t addr = word->addr + byte;
	uint8_t old = get(addr, 1), values[NR_VALUES] = {
		0xff, 0, old ^ 1, old ^ 0x80, old ^ 1u << random_below(8), random_below(256),
	};
	static const char *const how[NR_VALUES] = {
		"0xff", "0", "its bit 0 flipped", "its bit 7 flipped", "a bit flipped",
		"a random byte",
	};

	poke(addr, 1, values[value], how[value]);
}

/*
 * Each kind of case is a function that makes number @i.  False: not this time.
 */
static bool planted_case(uint64_t i)
{
	poke((uintptr_t)&victim.planted->door[i / 2], 1, i % 2 ? 0xff : 1, i % 2 ? "0xff" : "1");
	return true;
}

/*
 * Each byte with one value, and more of what is not always zero; or a part, and less of the rest.
 */
static bool single_case(uint64_t i)
{
	const struct word *word = &shared->words[i / (8 * NR_VALUES)];
	unsigned int value = i % NR_VALUES;
	bool each = percent >= 100;
	bool chosen = mix(i / NR_VALUES ^ seed << 32) % NR_VALUES == value;
	uint64_t part = percent;

	if (is_planted(word))
		return false;
	if (word->live && percent >= 100)
		part = percent > 100 ? percent : 0;
	if (!(each && chosen) &&
	    mix(i ^ seed << 32) % (word->live ? 600 : 60000) >= part)
		return false;
	one_byte(word, i / NR_VALUES % 8, value);
	return true;
}

static bool pointer_case(uint64_t i)
{
	const struct word *word = &shared->words[i / NR_PLAUSIBLE];
	const char *how;
	uint64_t value;

	if (is_planted(word) || mix(i ^ seed << 33) % (word->live ? 800 : 16000) >= percent)
		return false;
	value = plausible(i % NR_PLAUSIBLE, word->addr, &how);
	poke(word->addr, 8, value, how);
	return true;
}

static bool half_case(uint64_t i)
{
	const struct word *word = &shared->words[i / (2 * NR_HALVES)];
	const char *how;
	uint64_t value;

	if (is_planted(word) || mix(i ^ seed << 34) % (word->live ? 800 : 16000) >= percent)
		return false;
	value = plausible_half(i % NR_HALVES, &how);
	poke(word->addr + i / NR_HALVES % 2 * 4, 4, value, how);
	return true;
}

#define NR_PLACES	4

/*
 * What says where USED's memory is, says that it is elsewhere: in the copy, in a domain, or
 * everywhere.
 */
struct redirect {
	uintptr_t addr;
	uint64_t value[NR_PLACES];
};

static struct redirect redirects[64];
static unsigned int nr_redirects;
static const char *const redirected[NR_PLACES] = {
	"the fake", "the other domain's", "the held domain's", "all memory",
};

static const struct range *range_of(int domain, unsigned int which)
{
	unsigned int i;

	for (i = 0; i < victim.nr_ranges; i++)
		if (victim.ranges[i].domain == domain && !which--)
			return &victim.ranges[i];
	return NULL;
}

void cases_find_redirects(void)
{
	unsigned int w, which;

	nr_redirects = 0;
	for (w = 0; w < shared->nr_words; w++) {
		uint64_t value = get(shared->words[w].addr, 8);
		const struct range *range, *to;

		for (which = 0; (range = range_of(USED, which)); which++) {
			struct redirect *r = &redirects[nr_redirects];

			if (value < range->start || value > range->end || nr_redirects == 64 ||
			    !range->fake)
				continue;
			*r = (struct redirect) {
				.addr = shared->words[w].addr,
				.value = {
					value - range->start + range->fake, value, value,
					value == range->start ? PAGE : 0x7fffffffe000,
				},
			};
			to = range_of(OTHER, which);
			if (to)
				r->value[1] += to->start - range->start;
			to = range_of(HELD, which);
			if (to)
				r->value[2] += to->start - range->start;
			nr_redirects++;
			break;
		}
	}
	shared->nr_redirects = nr_redirects;
}

static void redirect(unsigned int i, unsigned int where)
{
	poke(redirects[i].addr, 8, redirects[i].value[where], redirected[where]);
}

/* One, and all others. */
static void redirect_one_and_all(unsigned int one, unsigned int where, unsigned int others)
{
	unsigned int i;

	for (i = 0; i < nr_redirects; i++)
		redirect(i, i == one ? where : others);
}

/* One alone; one, where the others say that the domain is everywhere, or somewhere else; some. */
static bool redirect_case(uint64_t i)
{
	unsigned int n = nr_redirects, k;

	if (!n)
		return false;
	if (i < n * NR_PLACES) {
		redirect(i / NR_PLACES, i % NR_PLACES);
		return true;
	}
	i -= n * NR_PLACES;
	if (i < n * NR_PLACES * NR_PLACES) {
		if (i % NR_PLACES != 3 && mix(i ^ seed << 35) % 600 >= percent)
			return false;
		redirect_one_and_all(i / NR_PLACES / NR_PLACES, i / NR_PLACES % NR_PLACES,
				     i % NR_PLACES);
		return true;
	}
	for (k = 0; k < n; k++)
		if (random_below(3))
			redirect(k, random_below(NR_PLACES));
	return true;
}

static void random_poke(void)
{
	const struct word *word = any_word(random_below(4));
	const char *how;
	uint64_t value;

	switch (random_below(4)) {
	case 0:
		one_byte(word, random_below(8), random_below(NR_VALUES));
		break;
	case 1:
		value = plausible_half(random_below(NR_HALVES), &how);
		poke(word->addr + random_below(2) * 4, 4, value, how);
		break;
	case 2:
		if (nr_redirects) {
			redirect(random_below(nr_redirects), random_below(NR_PLACES));
			break;
		}
		__attribute__((fallthrough));
	default:
		value = plausible(random_below(NR_PLAUSIBLE), word->addr, &how);
		poke(word->addr, 8, value, how);
	}
}

static bool random_case(uint64_t i)
{
	unsigned int nr = 2 + random_below(i % 2 ? 4 : 14);

	while (nr--)
		random_poke();
	return true;
}

static bool race_case(uint64_t i)
{
	unsigned int nr = 1 + random_below(i % 2 ? 1 : 4), n = nr_redirects;

	if (n && i % 4 == 3) {
		for (nr = 0; nr < n; nr++)
			redirect(nr, i / 4 % NR_PLACES);
		return true;
	}
	while (nr--)
		random_poke();
	return true;
}

struct plan plans[] = {
	{ .name = "planted", .fill = planted_case },
	{ .name = "single bytes", .fill = single_case, .resumes = 1 },
	{ .name = "words", .fill = pointer_case, .resumes = 1 },
	{ .name = "half words", .fill = half_case, .resumes = 1 },
	{ .name = "redirected", .fill = redirect_case, .resumes = 30 },
	{ .name = "random groups", .fill = random_case, .resumes = 2 },
	{ .name = "from another thread", .fill = race_case, .race = true },
};

_Static_assert(sizeof(plans) == NR_PLANS * sizeof(plans[0]), "as it says");


/* False: not this time. */
bool case_fill(const struct plan *plan, uint64_t i)
{
	pokes.nr = 0;
	random_state = mix(seed ^ mix(i) ^ (uint64_t)(plan - plans) << 56);
	return plan->fill(i);
}

void cases_count(void)
{
	uint64_t n = shared->nr_redirects;

	plans[0].nr = 2 * NR_KINDS;
	plans[1].nr = shared->nr_words * 8ul * NR_VALUES;
	plans[2].nr = shared->nr_words * NR_PLAUSIBLE;
	plans[3].nr = shared->nr_words * 2ul * NR_HALVES;
	plans[4].nr = n * NR_PLACES * (NR_PLACES + 1) + percent * REDIRECT_CASES / 100;
	plans[5].nr = percent * RANDOM_CASES / 100;
	plans[6].nr = percent * RACE_CASES / 100;
}
