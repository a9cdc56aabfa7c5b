/* SPDX-License-Identifier: MIT */
/* Which virtual key is which domain. */
#ifndef EPK_MPK_GROUPS_H
#define EPK_MPK_GROUPS_H

#include <stdbool.h>
#include <stdint.h>

/**
 * struct narrow - memory of mpk_mmap()'s that allows less than all: what else a group has, its heap too, is not noted
 * @start: first byte
 * @end: one past the last
 * @next: in the list of its group, or of what is free: its place and 1; 0 for none
 * @prot: what may be done by who may
 */
struct narrow {
	uintptr_t start;
	uintptr_t end;
	uint32_t next;
	int prot;
};

/* All return 0 or a negative error number; a domain's ID is positive.  Without the lock: */
int group_find(int vkey);

/* With it: to change them. */
int groups_lock(void);
void groups_unlock(void);
int groups_room(bool fresh, bool narrow);
void group_add(int vkey, int id);
void group_remove(int vkey);
int group_common(int vkey);

/* The last that was mapped first; NULL after the last. */
const struct narrow *narrow_first(int vkey);
const struct narrow *narrow_next(const struct narrow *narrow);
void narrow_add(int vkey, uintptr_t start, uintptr_t end, int prot);
/* Of @id, what it has no longer. */
void narrow_forget(int vkey, int id);
/* @prot is what all threads may do, and each of its mappings allows that. */
void group_set_common(int vkey, int prot);

/* begins.c, of the calling thread: is there room for another?  Then it is noted with what was held of @id before. */
bool begins_have_room(void);
void begins_add(int id, int before);
/* The last of @id ends; 0 or a negative error number. */
int begins_end(int id);
/* A forked child has begun nothing. */
void begins_forget(void);

#endif /* EPK_MPK_GROUPS_H */
