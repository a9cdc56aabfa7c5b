/* SPDX-License-Identifier: MIT */
/* Which virtual key is which domain. */
#ifndef EPK_MPK_GROUPS_H
#define EPK_MPK_GROUPS_H

#include <stdbool.h>

/**
 * struct group_prots - what may be done with a group
 * @pages: by who may, with each of its mappings
 * @common: by who has not begun it
 */
struct group_prots {
	unsigned char pages;
	unsigned char common;
};

/* All return 0 or a negative error number; a domain's ID is positive.  Without the lock: */
int group_find(int vkey);

/* With it: to change them. */
int groups_lock(void);
void groups_unlock(void);
int group_add(int vkey, int id, int prot);
void group_remove(int vkey);
struct group_prots group_prots(int vkey);
void group_set_prots(int vkey, struct group_prots prots);

/* calls.c: a forked child has begun nothing. */
void begins_forget(void);

#endif /* EPK_MPK_GROUPS_H */
