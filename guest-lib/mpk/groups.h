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
 * @next: in the list of its group, or of what is free: its index and 1; 0 for none
 * @prot: what may be done by who may
 */
struct narrow {
	uintptr_t start;
	uintptr_t end;
	uint32_t next;
	int prot;
};

/* All return 0 or a negative error number; a domain's ID is positive.  Without the lock: */
int mpk_group_find(int vkey);

/* With it: to change them. */
int mpk_groups_lock(void);
void mpk_groups_unlock(void);
int mpk_groups_room(bool fresh, bool narrow);
void mpk_group_add(int vkey, int id);
void mpk_group_remove(int vkey);
int mpk_group_common(int vkey);

/* The last that was mapped first; NULL after the last. */
const struct narrow *mpk_narrow_first(int vkey);
const struct narrow *mpk_narrow_next(const struct narrow *narrow);
void mpk_narrow_add(int vkey, uintptr_t start, uintptr_t end, int prot);
/* Of @id, what it has no longer. */
void mpk_narrow_forget(int vkey, int id);
/* @prot is what all threads may do, and each of its mappings allows that. */
void mpk_group_set_common(int vkey, int prot);

/* begins.c, of the calling thread: is there room for another?  Then it is noted with what was held of @id before. */
bool mpk_begins_have_room(void);
void mpk_begins_add(int id, int before);
/* The last of @id ends; 0 or a negative error number. */
int mpk_begins_end(int id);
/* A forked child has begun nothing. */
void mpk_begins_forget(void);

#endif /* EPK_MPK_GROUPS_H */
