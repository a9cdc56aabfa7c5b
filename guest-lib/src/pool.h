/* SPDX-License-Identifier: MIT */
/*
 * Memory for the library's own notes.  It does not come from malloc(), which the program may
 * have built on domains.
 */
#ifndef EPK_POOL_H
#define EPK_POOL_H

#include <stddef.h>

/**
 * struct epk_pool - objects of one size; all zero at first.  Under epk_lock
 * @size: bytes of an object, at least those of a pointer
 * @free: the first object that was given back; each begins with the address of the next
 * @unused: memory that has not been touched
 * @left: bytes of it
 */
struct epk_pool {
	size_t size;
	void *free;
	char *unused;
	size_t left;
};

void *epk_pool_get(struct epk_pool *pool);
void epk_pool_put(struct epk_pool *pool, void *object);

#endif /* EPK_POOL_H */
