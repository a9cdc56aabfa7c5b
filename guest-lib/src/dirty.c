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

/* Nothing is held, and no open() is where the thread ends. */
static inline __attribute__((always_inline)) int enter(struct epk_aside *aside, int *cancel)
{
	int err = epk_fork_check() ?: epk_hold_nothing(aside);

	if (!err)
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, cancel);
	return err;
}

static inline __attribute__((always_inline)) void leave(struct epk_aside *aside, int cancel)
{
	pthread_setcancelstate(cancel, NULL);
	epk_take_back(aside);
}

/*
 * Whoever has the lock waits for no other, and no handler interrupts it: fork() may wait for it in a handler that
 * interrupted the owner of epk_lock.
 */
static int lock(sigset_t *signals)
{
	int err;

	epk_signals_block(signals);
	err = -pthread_mutex_lock(&epk_dirty_lock);
	if (err)
		epk_signals_restore(signals);
	return err;
}

static void unlock(const sigset_t *signals)
{
	pthread_mutex_unlock(&epk_dirty_lock);
	epk_signals_restore(signals);
}

/*
 * Is a domain's memory there?  Not with the lock held.  One that is mapped meanwhile is found by the next call.  As long as
 * there are no domains nobody is waited for: a garbage collector asks that has stopped all other threads.
 */
static int check_ordinary(uintptr_t start, uintptr_t end)
{
	struct epk_mapping map;
	int err;

	if (!epk_ops())
		return 0;
	err = -pthread_mutex_lock(&epk_lock);
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
		if (each->forks == epk_dirty_forks && each->start < end && start < each->end)
			return true;
	return false;
}

static size_t pages_of(const struct epk_dirty *dirty)
{
	return (dirty->end - dirty->start) / EPK_PAGE_SIZE;
}

/* Not by malloc(), whose memory may be what is watched. */
static struct epk_dirty *make(uintptr_t start, uintptr_t end)
{
	size_t words = ((end - start) / EPK_PAGE_SIZE + 63) / 64, bytes = sizeof(struct epk_dirty) + words * 8;
	struct epk_dirty *dirty = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (dirty == MAP_FAILED)
		return NULL;
	*dirty = (struct epk_dirty){ .start = start, .end = end, .forks = epk_dirty_forks, .fd = -1, .bytes = bytes };
	return dirty;
}

/* What was written to before is not of interest. */
static int begin(struct epk_dirty *dirty)
{
	int err = epk_dirty_scan_start(dirty);

	if (err)
		return err;
	err = epk_dirty_scan_harvest(dirty);
	if (err)
		epk_dirty_scan_stop(dirty);
	else
		memset(dirty->pages, 0, (pages_of(dirty) + 63) / 64 * 8);
	return err;
}

static int start_locked(uintptr_t from, uintptr_t end, struct epk_dirty **made)
{
	struct epk_dirty *dirty;
	int err;

	if (is_watched(from, end))
		return epk_because(EPK_CAUSE_DIRTY_TWICE);
	dirty = make(from, end);
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

static int start(uintptr_t from, uintptr_t end, struct epk_dirty **made)
{
	sigset_t signals;
	int err = check_ordinary(from, end) ?: lock(&signals);

	if (err)
		return err;
	err = start_locked(from, end, made);
	unlock(&signals);
	return err;
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

/* Is it watched, and by this process? */
static int check(const struct epk_dirty *dirty)
{
	if (!*find(dirty))
		return epk_because(EPK_CAUSE_DIRTY);
	return dirty->forks == epk_dirty_forks ? 0 : epk_because(EPK_CAUSE_DIRTY_CHILD);
}

static int range_of(const struct epk_dirty *dirty, uintptr_t *start, uintptr_t *end)
{
	sigset_t signals;
	int err = lock(&signals);

	if (err)
		return err;
	err = check(dirty);
	if (!err) {
		*start = dirty->start;
		*end = dirty->end;
	}
	unlock(&signals);
	return err;
}

/* @look: the kernel is asked first. */
static int collect(struct epk_dirty *dirty, struct epk_pages *ranges, int max, bool look)
{
	uintptr_t start, end, room = (uintptr_t)ranges;
	sigset_t signals;
	int nr = check_ordinary(room, room + max * sizeof(*ranges)) ?: range_of(dirty, &start, &end) ?:
		 check_ordinary(start, end) ?: lock(&signals);

	if (nr)
		return nr;
	nr = check(dirty) ?: (look ? epk_dirty_scan_harvest(dirty) : 0) ?: tell(dirty, ranges, max);
	unlock(&signals);
	return nr;
}

static int collect_of(struct epk_dirty *dirty, struct epk_pages *ranges, int max, bool look)
{
	int saved_errno = errno, cancel, nr;
	struct epk_aside aside;

	nr = dirty && ranges && max > 0 ? enter(&aside, &cancel) : epk_because(EPK_CAUSE_DIRTY);
	if (!nr) {
		nr = collect(dirty, ranges, max, look);
		leave(&aside, cancel);
	}
	errno = saved_errno;
	return nr < 0 ? epk_explain("epk_dirty_collect", (long)dirty, nr) : nr;
}

int epk_dirty_collect(struct epk_dirty *dirty, struct epk_pages ranges[], int max)
{
	return collect_of(dirty, ranges, max, true);
}

int epk_dirty_rest(struct epk_dirty *dirty, struct epk_pages *ranges, int max)
{
	return collect_of(dirty, ranges, max, false);
}

static int stop(struct epk_dirty *dirty)
{
	struct epk_dirty **link;
	sigset_t signals;
	int err = lock(&signals);

	if (err)
		return err;
	link = find(dirty);
	if (*link) {
		*link = dirty->next;
		epk_dirty_scan_stop(dirty);
		munmap(dirty, dirty->bytes);
	} else {
		err = epk_because(EPK_CAUSE_DIRTY);
	}
	unlock(&signals);
	return err;
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
