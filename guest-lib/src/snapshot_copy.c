// SPDX-License-Identifier: MIT
/*
 * From memory to the copy, and back.  In both ways only what differs is written, so that who asks twice pays once, and
 * what was not written to stays as it is to the kernel.
 *
 * Ordinary memory is first brought in, to be read and, where it differs, to be written (MADV_POPULATE_READ and its like):
 * the kernel says by that whether it can be, and nothing has changed yet.  A domain's the books tell of; and where the
 * module has it, that writes, so that nothing of a domain goes to memory that is none of it by then.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "aside.h"
#include "dirty.h"
#include "snapshot.h"

/* <linux/mman.h> of Linux 5.14. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif

/* Rounds in which others can take the domain's place away again, of as many in the module. */
#define FILL_TRIES	64

typedef long long vector __attribute__((vector_size(16), may_alias));

/*
 * A page and its copy.  Other threads may write to the page: each byte of it is read once, so that "equal" means that each was,
 * at some time in between.  memcmp() reads the first that differs twice, and takes for equal, with all behind it, what has become
 * equal there by then.
 */
static bool is_equal(const char *page, const char *copy)
{
	const volatile vector *now = (const volatile vector *)page;
	const vector *then = (const vector *)copy, *end = then + EPK_PAGE_SIZE / sizeof(vector);
	vector differs;

	for (; then < end; now += 8, then += 8) {
		differs = (now[0] ^ then[0]) | (now[1] ^ then[1]) | (now[2] ^ then[2]) | (now[3] ^ then[3]) |
			  (now[4] ^ then[4]) | (now[5] ^ then[5]) | (now[6] ^ then[6]) | (now[7] ^ then[7]);
		if (differs[0] | differs[1])
			return false;
	}
	return true;
}

static bool is_pending(const struct epk_kept *kept, size_t page)
{
	return kept->pending[page / 64] >> page % 64 & 1;
}

static void set_pending(struct epk_kept *kept, size_t page, bool pending)
{
	if (pending)
		kept->pending[page / 64] |= 1ull << page % 64;
	else
		kept->pending[page / 64] &= ~(1ull << page % 64);
}

static void set_all_pending(struct epk_kept *kept)
{
	memset(kept->pending, 0xff, (kept->pages + 63) / 64 * 8);
}

/* From *@page on: where the next run of pages that are pending begins, and how long it is; 0: there is none. */
static size_t next_run(const struct epk_kept *kept, size_t *page)
{
	size_t end;

	while (*page < kept->pages && !is_pending(kept, *page))
		*page = *page % 64 || kept->pending[*page / 64] ? *page + 1 : *page + 64;
	for (end = *page; end < kept->pages && is_pending(kept, end); end++)
		;
	return *page < kept->pages ? end - *page : 0;
}

/*
 * What was written to since the last time; all that may have been, if that is not told.  The kernel is asked once: threads that
 * write to many pages would have it tell as many again each time.
 */
static void collect(struct epk_kept *kept)
{
	uintptr_t start = kept->pieces->start;
	struct epk_pages ranges[64];
	size_t page, behind;
	int nr, i;

	nr = kept->dirty ? epk_dirty_collect(kept->dirty, ranges, 64) : -1;
	for (; nr > 0; nr = nr < 64 ? 0 : epk_dirty_rest(kept->dirty, ranges, 64)) {
		for (i = 0; i < nr; i++) {
			page = ((uintptr_t)ranges[i].addr - start) / EPK_PAGE_SIZE;
			behind = page + ranges[i].len / EPK_PAGE_SIZE;
			for (; page < behind && page < kept->pages; page++)
				set_pending(kept, page, true);
		}
	}
	if (nr < 0)
		set_all_pending(kept);
}

int epk_plain_check(uintptr_t start, uintptr_t end)
{
	struct epk_mapping map;
	struct epk_aside aside;
	int err = epk_notes_lock(&aside);

	if (err)
		return err;
	if (epk_mapping_next(start, &map) && map.start < end)
		err = epk_because(EPK_CAUSE_SNAPSHOT_DOMAIN);
	epk_notes_unlock(&aside);
	if (!err && msync((void *)start, end - start, MS_ASYNC))
		err = errno == ENOMEM ? epk_because(EPK_CAUSE_SNAPSHOT_HOLE) : -errno;
	return err;
}

/* All that is pending can be read, or written. */
static int populate(const struct epk_kept *kept, int advice)
{
	char *mem = (char *)kept->pieces->start;
	size_t page, nr;

	for (page = 0; (nr = next_run(kept, &page)); page += nr) {
		if (!madvise(mem + page * EPK_PAGE_SIZE, nr * EPK_PAGE_SIZE, advice))
			continue;
		return errno == EINVAL || errno == EFAULT ? epk_because(EPK_CAUSE_SNAPSHOT_ACCESS) : -errno;
	}
	return 0;
}

static void drop_equal(struct epk_kept *kept)
{
	char *mem = (char *)kept->pieces->start;
	size_t page, nr, i;

	for (page = 0; (nr = next_run(kept, &page)); page += nr)
		for (i = page; i < page + nr; i++)
			if (is_equal(mem + i * EPK_PAGE_SIZE, kept->copy + i * EPK_PAGE_SIZE))
				set_pending(kept, i, false);
}

/* What other threads write from now on is pending the next time, and so is what this writes to memory. */
static int copy_plain(struct epk_kept *kept, bool back)
{
	char *mem = (char *)kept->pieces->start, *copy = kept->copy;
	size_t page, nr, at, i;
	int err;

	collect(kept);
	err = epk_plain_check(kept->pieces->start, kept->pieces->end) ?: populate(kept, MADV_POPULATE_READ);
	if (err)
		return err;
	drop_equal(kept);
	err = back ? populate(kept, MADV_POPULATE_WRITE) : 0;
	if (err)
		return err;
	for (page = 0; (nr = next_run(kept, &page)); page += nr) {
		at = page * EPK_PAGE_SIZE;
		memcpy(back ? mem + at : copy + at, back ? copy + at : mem + at, nr * EPK_PAGE_SIZE);
		for (i = page; i < page + nr; i++)
			set_pending(kept, i, false);
	}
	return 0;
}

static int write_back(char *mem, const char *copy, size_t len)
{
	int err, tries = 0;

	if (!epk_now.ops->in_module) {
		memcpy(mem, copy, len);
		return 0;
	}
	do
		err = epk_now.ops->fill(mem, copy, len);
	while (err == -ENOSPC && ++tries < FILL_TRIES);
	return err;
}

/* A piece of a domain.  Runs of pages that differ go at once. */
static int copy_piece(char *mem, char *copy, size_t len, bool back)
{
	size_t at, end;
	int err = 0;

	for (at = 0; !err && at < len; at = end + EPK_PAGE_SIZE) {
		for (end = at; end < len && !is_equal(mem + end, copy + end); end += EPK_PAGE_SIZE)
			;
		if (end > at && back)
			err = write_back(mem + at, copy + at, end - at);
		else if (end > at)
			memcpy(copy + at, mem + at, end - at);
	}
	return err;
}

static int copy_domain(struct epk_kept *kept, bool back)
{
	char *copy = kept->copy;
	size_t i, len;
	int err = 0;

	for (i = 0; i < kept->nr && !err; i++) {
		if (!kept->pieces[i].kept)
			continue;
		len = kept->pieces[i].end - kept->pieces[i].start;
		err = copy_piece((char *)kept->pieces[i].start, copy, len, back);
		copy += len;
	}
	return err;
}

static int check_domain(const struct epk_kept *kept, const struct epk_pieces *now, bool back)
{
	if (!back)
		return epk_pieces_equal(now, kept) && epk_note(kept->dom) == kept->note ?
		       0 : epk_because(EPK_CAUSE_SNAPSHOT_STALE);
	/* The page that the note is of would go, and the note cannot. */
	if (epk_note(kept->dom) != kept->note)
		return epk_because(EPK_CAUSE_SNAPSHOT_HEAP);
	return epk_pieces_have(now, kept) ? 0 : epk_because(EPK_CAUSE_SNAPSHOT_GONE);
}

static int check_right(int dom, bool back)
{
	int prot = epk_held_prot(dom);

	if (prot < 0)
		return prot;
	if (prot & PROT_WRITE || (prot && !back))
		return 0;
	return prot ? epk_because(EPK_CAUSE_READ_ONLY) : -EACCES;
}

/* Not where its own frames would be written over, or unmapped. */
static bool has_stack(const struct epk_piece *pieces, size_t nr)
{
	uintptr_t sp = epk_sp();
	size_t i;

	for (i = 0; i < nr; i++)
		if (pieces[i].start <= sp && sp < pieces[i].end)
			return true;
	return false;
}

int epk_kept_copy(struct epk_kept *kept, bool back)
{
	struct epk_pieces now;
	int err;

	if (back && has_stack(kept->pieces, kept->nr))
		return epk_because(EPK_CAUSE_SNAPSHOT_STACK);
	if (!kept->dom)
		return copy_plain(kept, back);
	err = check_right(kept->dom, back) ?: epk_pieces_of(kept->dom, &now);
	if (err)
		return err;
	if (back && has_stack(now.list, now.nr))
		err = epk_because(EPK_CAUSE_SNAPSHOT_STACK);
	err = err ?: check_domain(kept, &now, back) ?: copy_domain(kept, back);
	if (!err && back)
		epk_pieces_unmap_new(&now, kept);
	epk_pieces_free(&now);
	return err;
}
