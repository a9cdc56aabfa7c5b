/* SPDX-License-Identifier: MIT */
/*
 * Which pages were written to: what the call and its engine share.  All under epk_dirty_lock, by who holds no
 * domain, as this is memory that anybody can write; so it has no pointer to a function either.
 */
#ifndef EPK_DIRTY_INTERNAL_H
#define EPK_DIRTY_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct epk_pages;

/**
 * struct epk_dirty - a range that is watched
 * @start: first byte
 * @end: one past the last
 * @forks: epk_dirty_forks of the process whose memory it is
 * @fd: its userfaultfd, which no other range has; else -1
 * @dev: of its file, as other code may close it and have another file under its number
 * @ino: likewise; each userfaultfd has one of its own
 * @bytes: of this structure with what follows it
 * @own: the library watches it for itself, so that no child gives it back
 * @next: in the list of all
 * @pages: a bit for each page: it is to be told
 */
struct epk_dirty {
	uintptr_t start;
	uintptr_t end;
	unsigned long forks;
	int fd;
	dev_t dev;
	ino_t ino;
	size_t bytes;
	bool own;
	struct epk_dirty *next;
	uint64_t pages[];
};

/* dirty.c: what epk_dirty_collect() had no room for.  The kernel is not asked again. */
int epk_dirty_rest(struct epk_dirty *dirty, struct epk_pages *ranges, int max);

/* dirty_list.c: all that are watched, a parent's among them; and what is noted of one */
extern struct epk_dirty *epk_dirty_list;
void epk_dirty_note(struct epk_dirty *dirty, uintptr_t start, uintptr_t end);

/* How many forks lie between the first process and this one: PIDs can be alike, in namespaces of their own. */
extern unsigned long epk_dirty_forks;

/* Has its number still its userfaultfd? */
bool epk_dirty_has_fd(const struct epk_dirty *dirty);

void epk_dirty_own(struct epk_dirty *dirty);

/* In a forked child: they are the parent's. */
void epk_dirty_forget(void);

/* Of a mapping of the process, as /proc/self/maps tells: private, and of no file?  Of those alone the kernel tells all. */
struct epk_map {
	uint64_t start;
	uint64_t end;
	bool anonymous;
};

/* Calls @visit for each until that returns an error; 0 or a negated error number. */
int epk_dirty_maps(int (*visit)(const struct epk_map *map, void *arg), void *arg);

/*
 * dirty_scan.c.  Harvest notes what was written to up to now in @pages, where a page may be found written to that was
 * not; from then on the kernel notes anew.  On error nothing is lost.  0 or a negated error number.
 */
int epk_dirty_scan_start(struct epk_dirty *dirty);
int epk_dirty_scan_harvest(struct epk_dirty *dirty);
void epk_dirty_scan_stop(struct epk_dirty *dirty);

#endif /* EPK_DIRTY_INTERNAL_H */
