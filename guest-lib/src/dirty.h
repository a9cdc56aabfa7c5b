/* SPDX-License-Identifier: MIT */
/*
 * Which pages were written to: what the call and its engines share.  All under epk_dirty_lock, by who holds no
 * domain, as this is memory that anybody can write; so it has no pointer to a function either.
 */
#ifndef EPK_DIRTY_INTERNAL_H
#define EPK_DIRTY_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum epk_dirty_kind { EPK_DIRTY_SCAN, EPK_DIRTY_SOFT, EPK_DIRTY_NR };

/**
 * struct epk_dirty - a range that is watched
 * @kind: by which engine
 * @start: first byte
 * @end: one past the last
 * @pid: of the process whose memory it is
 * @fd: scan: its userfaultfd, which no other range has; else -1
 * @bytes: of this structure with what follows it
 * @next: in the list of all
 * @states: soft-dirty: of each page what it was like the last time, one of its own
 * @pages: a bit for each page: it is to be told
 */
struct epk_dirty {
	enum epk_dirty_kind kind;
	uintptr_t start;
	uintptr_t end;
	pid_t pid;
	int fd;
	size_t bytes;
	struct epk_dirty *next;
	uint8_t *states;
	uint64_t pages[];
};

/**
 * struct epk_dirty_engine - a way to find out
 * @name: as EPK_DIRTY has it
 * @works: does this kernel have it?
 * @start: 0 or a negated error number
 * @harvest: note what was written to up to now in @pages, where a page may be found written to that was not; from
 *	then on the kernel notes anew.  On error nothing is lost
 * @stop: end it
 */
struct epk_dirty_engine {
	const char *name;
	bool (*works)(void);
	int (*start)(struct epk_dirty *dirty);
	int (*harvest)(struct epk_dirty *dirty);
	void (*stop)(struct epk_dirty *dirty);
};

extern const struct epk_dirty_engine epk_dirty_scan, epk_dirty_soft;

/* dirty_list.c: all that are watched, a parent's among them; and what is noted of one */
extern struct epk_dirty *epk_dirty_list;
void epk_dirty_note(struct epk_dirty *dirty, uintptr_t start, uintptr_t end);

/* Of a mapping of the process, as /proc/self/maps tells. */
struct epk_map {
	uint64_t start;
	uint64_t end;
	bool shared;
	unsigned long inode;
};

/* Calls @visit for each; 0 or a negated error number. */
int epk_dirty_maps(void (*visit)(const struct epk_map *map, void *arg), void *arg);

/* In a forked child: they are the parent's. */
void epk_dirty_forget(void);

#endif /* EPK_DIRTY_INTERNAL_H */
