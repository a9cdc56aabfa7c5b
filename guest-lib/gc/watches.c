// SPDX-License-Identifier: MIT
/*
 * What the collector has mapped is watched from the first time on that it asks about pages.  A span that has grown gets
 * one more watch; where there are too many of them, all begin anew, each for a whole span: then all was written to.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <epk.h>

#include "gc.h"

#define MOST	16
#define RANGES	128

/**
 * struct watch - a part of a span, or all of it
 * @start: first byte
 * @end: one past the last
 * @dirty: tells; NULL: nothing does, and all was written to
 * @written: a bit for each page: it was written to
 * @told: likewise: the collector has been told so
 * @words: in each of both
 */
struct watch {
	uintptr_t start;
	uintptr_t end;
	struct epk_dirty *dirty;
	uint64_t *written;
	uint64_t *told;
	size_t words;
};

static struct watch watches[MOST];
static unsigned int nr;
/* Since gc_clear(). */
static bool looked;

/* Not by mmap(), which is our own here. */
static void *map(size_t len)
{
	return (void *)syscall(SYS_mmap, NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0l);
}

/* Can it be told at all? */
int gc_try(void)
{
	struct epk_dirty *dirty;
	void *page;
	int err;

	if (epk_backend())
		return -EBUSY;
	page = map(GC_PAGE);
	if (page == MAP_FAILED)
		return -ENOMEM;
	err = epk_dirty_start(page, GC_PAGE, &dirty);
	if (!err)
		epk_dirty_stop(dirty);
	munmap(page, GC_PAGE);
	return err;
}

static void all_written(struct watch *watch)
{
	memset(watch->written, 0xff, watch->words * 8);
}

static void begin(uintptr_t start, uintptr_t end)
{
	size_t words = ((end - start) / GC_PAGE + 63) / 64;
	struct watch *watch = &watches[nr];
	void *bits = map(2 * words * 8);

	if (bits == MAP_FAILED)
		return;
	*watch = (struct watch){ start, end, NULL, bits, (uint64_t *)bits + words, words };
	if (epk_dirty_start((void *)start, end - start, &watch->dirty))
		watch->dirty = NULL;
	all_written(watch);
	nr++;
}

static void end(struct watch *watch)
{
	if (watch->dirty)
		epk_dirty_stop(watch->dirty);
	munmap(watch->written, 2 * watch->words * 8);
}

static void end_all(void)
{
	while (nr)
		end(&watches[--nr]);
}

/* From *@at on in a span what is not watched: false if all is. */
static bool next_gap(uintptr_t *at, uintptr_t *behind)
{
	uintptr_t limit = *behind;
	unsigned int i = 0;

	while (i < nr) {
		if (watches[i].start <= *at && *at < watches[i].end) {
			*at = watches[i].end;
			i = 0;
		} else {
			i++;
		}
	}
	for (i = 0; i < nr; i++)
		if (watches[i].start > *at && watches[i].start < limit)
			limit = watches[i].start;
	*behind = limit;
	return *at < limit;
}

/* False: more would be needed than there can be. */
static bool watch_gaps(void)
{
	const struct gc_span *spans;
	unsigned int i, many = gc_spans(&spans);
	uintptr_t at, behind;

	for (i = 0; i < many; i++) {
		for (at = spans[i].start; at < spans[i].end; at = behind) {
			behind = spans[i].end;
			if (!next_gap(&at, &behind))
				break;
			if (nr == MOST)
				return false;
			begin(at, behind);
		}
	}
	return true;
}

/* What is told is noted; where nothing can be, all was written to. */
static void collect(struct watch *watch)
{
	struct epk_pages ranges[RANGES];
	size_t page, behind;
	int got = -EPERM, i;

	do {
		if (watch->dirty)
			got = epk_dirty_collect(watch->dirty, ranges, RANGES);
		for (i = 0; i < got; i++) {
			page = ((uintptr_t)ranges[i].addr - watch->start) / GC_PAGE;
			behind = page + ranges[i].len / GC_PAGE;
			for (; page < behind; page++)
				watch->written[page / 64] |= 1ull << page % 64;
		}
	} while (got == RANGES);
	if (got < 0)
		all_written(watch);
	/* A forked child, which has its own memory to watch; or its descriptor was closed by other code. */
	if ((got == -EPERM || got == -EBADF) && watch->dirty) {
		epk_dirty_stop(watch->dirty);
		if (epk_dirty_start((void *)watch->start, watch->end - watch->start, &watch->dirty))
			watch->dirty = NULL;
	}
}

void gc_look(void)
{
	unsigned int i;

	if (looked)
		return;
	looked = true;
	/* A thread that is stopped may have the library's lock. */
	if (epk_backend()) {
		for (i = 0; i < nr; i++)
			all_written(&watches[i]);
		return;
	}
	if (!watch_gaps()) {
		end_all();
		watch_gaps();
	}
	for (i = 0; i < nr; i++)
		collect(&watches[i]);
}

bool gc_is_dirty(uintptr_t page)
{
	size_t at;
	unsigned int i;

	for (i = 0; i < nr && (page < watches[i].start || page >= watches[i].end); i++)
		;
	if (i == nr)
		return true;
	at = (page - watches[i].start) / GC_PAGE;
	watches[i].told[at / 64] |= 1ull << at % 64;
	return watches[i].written[at / 64] >> at % 64 & 1;
}

/* What was not told, whoever wrote it and when, is told the next time. */
void gc_clear(void)
{
	unsigned int i;
	size_t word;

	for (i = 0; i < nr; i++) {
		for (word = 0; word < watches[i].words; word++) {
			watches[i].written[word] &= ~watches[i].told[word];
			watches[i].told[word] = 0;
		}
	}
	looked = false;
}
