// SPDX-License-Identifier: MIT
/*
 * epk_dirty_start() and its like.  What is known of a range is ordinary memory, so that whoever follows it holds no
 * domain meanwhile; and the results go to ordinary memory.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aside.h"
#include "dirty.h"

/* Where the kernel has its own. */
#define EPK_ADDRESSES	0x7ffffffff000ull

/* Not by the kinds in ranges: that is memory which others can write. */
static const struct epk_dirty_engine *const engines[EPK_DIRTY_NR] = {
	[EPK_DIRTY_SCAN] = &epk_dirty_scan,
	[EPK_DIRTY_SOFT] = &epk_dirty_soft,
};

static const struct epk_dirty_engine *engine_of(const struct epk_dirty *dirty)
{
	return engines[dirty->kind == EPK_DIRTY_SOFT ? EPK_DIRTY_SOFT : EPK_DIRTY_SCAN];
}

/* The engine that EPK_DIRTY names, or the first that works. */
static int choose(enum epk_dirty_kind *kind)
{
	const char *name = secure_getenv("EPK_DIRTY");
	int i;

	for (i = 0; name && *name && strcmp(name, engines[i]->name);)
		if (++i == EPK_DIRTY_NR)
			return epk_because(EPK_CAUSE_DIRTY_NAME);
	if (!name || !*name)
		while (i < EPK_DIRTY_NR - 1 && !engines[i]->works())
			i++;
	if (!engines[i]->works())
		return epk_because(EPK_CAUSE_DIRTY_KERNEL);
	*kind = i;
	return 0;
}

/* Nothing is held, nobody else is at work, and no open() is where the thread ends. */
static inline __attribute__((always_inline)) int enter(struct epk_aside *aside, int *cancel)
{
	int err = epk_fork_check() ?: epk_hold_nothing(aside);

	if (err)
		return err;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, cancel);
	err = -pthread_mutex_lock(&epk_dirty_lock);
	if (err) {
		pthread_setcancelstate(*cancel, NULL);
		epk_take_back(aside);
	}
	return err;
}

static inline __attribute__((always_inline)) void leave(struct epk_aside *aside, int cancel)
{
	pthread_mutex_unlock(&epk_dirty_lock);
	pthread_setcancelstate(cancel, NULL);
	epk_take_back(aside);
}

/* Is a domain's memory there? */
static int check_ordinary(uintptr_t start, uintptr_t end)
{
	struct epk_mapping map;
	int err = -pthread_mutex_lock(&epk_lock);

	if (err)
		return err;
	if (epk_mapping_next(start, &map) && map.start < end)
		err = epk_because(EPK_CAUSE_DIRTY_DOMAIN);
	pthread_mutex_unlock(&epk_lock);
	return err;
}

/* What points to it, or to NULL. */
static struct epk_dirty **find(const struct epk_dirty *dirty)
{
	struct epk_dirty **link = &epk_dirty_list;

	while (*link && *link != dirty)
		link = &(*link)->next;
	return link;
}

static bool is_watched(uintptr_t start, uintptr_t end)
{
	const struct epk_dirty *each;

	for (each = epk_dirty_list; each; each = each->next)
		if (each->pid == getpid() && each->start < end && start < each->end)
			return true;
	return false;
}

static size_t pages_of(const struct epk_dirty *dirty)
{
	return (dirty->end - dirty->start) / EPK_PAGE_SIZE;
}

/* Not by malloc(), whose memory may be what is watched. */
static struct epk_dirty *make(enum epk_dirty_kind kind, uintptr_t start, uintptr_t end)
{
	size_t pages = (end - start) / EPK_PAGE_SIZE, words = (pages + 63) / 64;
	size_t bytes = sizeof(struct epk_dirty) + words * 8 + (kind == EPK_DIRTY_SOFT ? pages : 0);
	struct epk_dirty *dirty = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (dirty == MAP_FAILED)
		return NULL;
	*dirty = (struct epk_dirty){
		.kind = kind, .start = start, .end = end, .pid = getpid(), .fd = -1, .bytes = bytes,
		.states = (uint8_t *)(dirty->pages + words),
	};
	return dirty;
}

/* What was written to before is not of interest. */
static int begin(struct epk_dirty *dirty)
{
	const struct epk_dirty_engine *engine = engine_of(dirty);
	int err = engine->start(dirty);

	if (err)
		return err;
	err = engine->harvest(dirty);
	if (err)
		engine->stop(dirty);
	else
		memset(dirty->pages, 0, (pages_of(dirty) + 63) / 64 * 8);
	return err;
}

static int start(uintptr_t from, uintptr_t end, struct epk_dirty **made)
{
	enum epk_dirty_kind kind;
	struct epk_dirty *dirty;
	int err = check_ordinary(from, end) ?: choose(&kind);

	if (!err && is_watched(from, end))
		err = epk_because(EPK_CAUSE_DIRTY_TWICE);
	if (err)
		return err;
	dirty = make(kind, from, end);
	if (!dirty)
		return -ENOMEM;
	err = begin(dirty);
	if (err) {
		munmap(dirty, dirty->bytes);
		return err;
	}
	dirty->next = epk_dirty_list;
	epk_dirty_list = dirty;
	*made = dirty;
	return 0;
}

int epk_dirty_start(void *addr, size_t len, struct epk_dirty **dirty)
{
	size_t bytes = (len + EPK_PAGE_SIZE - 1) & -EPK_PAGE_SIZE;
	struct epk_dirty *made = NULL;
	uintptr_t from = (uintptr_t)addr;
	int saved_errno = errno, cancel, err = 0;
	struct epk_aside aside;

	if (from % EPK_PAGE_SIZE)
		err = epk_because(EPK_CAUSE_PAGE);
	else if (!len)
		err = epk_because(EPK_CAUSE_LEN);
	else if (!dirty)
		err = epk_because(EPK_CAUSE_DIRTY);
	else if (bytes < len || from + bytes < from || from + bytes > EPK_ADDRESSES)
		err = -EOVERFLOW;
	if (!err)
		err = enter(&aside, &cancel);
	if (!err) {
		err = start(from, from + bytes, &made);
		leave(&aside, cancel);
	}
	if (!err)
		*dirty = made;
	errno = saved_errno;
	return epk_explain("epk_dirty_start", (long)addr, err);
}

/* The first page from @page on that is to be told, or not: at most @pages. */
static size_t next_page(const struct epk_dirty *dirty, size_t page, size_t pages, bool told)
{
	uint64_t word;

	while (page < pages) {
		word = (told ? dirty->pages[page / 64] : ~dirty->pages[page / 64]) >> page % 64;
		if (word) {
			page += __builtin_ctzll(word);
			break;
		}
		page = (page / 64 + 1) * 64;
	}
	return page < pages ? page : pages;
}

/* Tells them, and forgets that they are to be told. */
static int tell(struct epk_dirty *dirty, struct epk_pages *ranges, int max)
{
	size_t pages = pages_of(dirty), page = 0, behind, i;
	int nr;

	for (nr = 0; nr < max; nr++) {
		page = next_page(dirty, page, pages, true);
		if (page == pages)
			break;
		behind = next_page(dirty, page, pages, false);
		ranges[nr].addr = (void *)(dirty->start + page * EPK_PAGE_SIZE);
		ranges[nr].len = (behind - page) * EPK_PAGE_SIZE;
		for (i = page; i < behind; i++)
			dirty->pages[i / 64] &= ~(1ull << i % 64);
		page = behind;
	}
	return nr;
}

static int collect(struct epk_dirty *dirty, struct epk_pages *ranges, int max)
{
	uintptr_t start = (uintptr_t)ranges;
	int err = check_ordinary(start, start + max * sizeof(*ranges));

	if (err)
		return err;
	if (!*find(dirty))
		return epk_because(EPK_CAUSE_DIRTY);
	if (dirty->pid != getpid())
		return epk_because(EPK_CAUSE_DIRTY_CHILD);
	return engine_of(dirty)->harvest(dirty) ?: tell(dirty, ranges, max);
}

int epk_dirty_collect(struct epk_dirty *dirty, struct epk_pages ranges[], int max)
{
	int saved_errno = errno, cancel, nr;
	struct epk_aside aside;

	nr = dirty && ranges && max > 0 ? enter(&aside, &cancel) : epk_because(EPK_CAUSE_DIRTY);
	if (!nr) {
		nr = collect(dirty, ranges, max);
		leave(&aside, cancel);
	}
	errno = saved_errno;
	return nr < 0 ? epk_explain("epk_dirty_collect", (long)dirty, nr) : nr;
}

static int stop(struct epk_dirty *dirty)
{
	struct epk_dirty **link = find(dirty);

	if (!*link)
		return epk_because(EPK_CAUSE_DIRTY);
	*link = dirty->next;
	engine_of(dirty)->stop(dirty);
	munmap(dirty, dirty->bytes);
	return 0;
}

int epk_dirty_stop(struct epk_dirty *dirty)
{
	int saved_errno = errno, cancel, err;
	struct epk_aside aside;

	err = dirty ? enter(&aside, &cancel) : epk_because(EPK_CAUSE_DIRTY);
	if (!err) {
		err = stop(dirty);
		leave(&aside, cancel);
	}
	errno = saved_errno;
	return epk_explain("epk_dirty_stop", (long)dirty, err);
}

const char *epk_dirty_engine(void)
{
	int saved_errno = errno, cancel, err;
	enum epk_dirty_kind kind;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	err = choose(&kind);
	pthread_setcancelstate(cancel, NULL);
	errno = saved_errno;
	return err ? NULL : engines[kind]->name;
}
