/* SPDX-License-Identifier: MIT */
/*
 * Memory as it was.  A snapshot is a domain: its ID is the snapshot's number, its note says where a page of it lies with what
 * is known of the copy, and that and the copy lie in it, so that nobody reads or forges either who does not hold it.
 */
#ifndef EPK_SNAPSHOT_INTERNAL_H
#define EPK_SNAPSHOT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct epk_dirty;

/**
 * struct epk_piece - memory without a gap
 * @start: first byte
 * @end: one past the last
 * @kept: it can be written, and so is in the copy
 */
struct epk_piece {
	uintptr_t start;
	uintptr_t end;
	bool kept;
};

/**
 * struct epk_pieces - what a domain has, in the order of addresses, as long as can be
 * @list: in ordinary memory
 * @nr: of them
 * @pages: in those that are to be kept
 * @room: bytes of @list
 */
struct epk_pieces {
	struct epk_piece *list;
	size_t nr;
	size_t pages;
	size_t room;
};

/**
 * struct epk_kept - what is known of a snapshot, in its own memory
 * @magic: EPK_KEPT, or EPK_KEPT_WIPED
 * @dom: whose memory it is of; 0: ordinary memory
 * @busy: a thread is at it
 * @note: the domain's then
 * @dirty: tells what was written to; NULL: all may have been
 * @pieces: of memory, in order
 * @nr: how many
 * @pages: in the copy
 * @pending: a bit for each page of ordinary memory: it may differ from the copy
 * @copy: of the pieces that are kept, one behind the other
 * @bytes: from @pieces on, with all of the above
 */
struct epk_kept {
	uint64_t magic;
	int dom;
	unsigned int busy;
	uint64_t note;
	struct epk_dirty *dirty;
	struct epk_piece *pieces;
	size_t nr;
	size_t pages;
	uint64_t *pending;
	char *copy;
	size_t bytes;
};

#define EPK_KEPT	0x7370616e73206b70ull
/* It was to be freed, and could not be. */
#define EPK_KEPT_WIPED	0x2d70616e73206b70ull
/* In the page that the note is of: before it lies an empty heap that does not grow, for who takes it for a domain. */
#define EPK_KEPT_AT	(EPK_PAGE_SIZE - 1024)

/* snapshot_pieces.c: a domain's memory at this moment.  Not with the library's lock. */
int epk_pieces_of(int dom, struct epk_pieces *pieces);
void epk_pieces_free(struct epk_pieces *pieces);
/* The caller holds the domain of @kept and its own. */
bool epk_pieces_have(const struct epk_pieces *now, const struct epk_kept *kept);
bool epk_pieces_equal(const struct epk_pieces *now, const struct epk_kept *kept);
void epk_pieces_unmap_new(const struct epk_pieces *now, const struct epk_kept *kept);

/* snapshot_copy.c: is all of it mapped, and none a domain's? */
int epk_plain_check(uintptr_t start, uintptr_t end);

/*
 * snapshot_copy.c: @back: the memory becomes as the copy is, else the copy as the memory.  All is checked before
 * anything is written.  The caller holds what @kept lies in, and the domain.
 */
int epk_kept_copy(struct epk_kept *kept, bool back);

#endif /* EPK_SNAPSHOT_INTERNAL_H */
