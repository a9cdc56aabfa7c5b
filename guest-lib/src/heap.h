/* SPDX-License-Identifier: MIT */
/* The heap in a domain.  The caller holds the domain and, but for make, the lock. */
#ifndef EPK_HEAP_H
#define EPK_HEAP_H

#include <stdbool.h>
#include <stddef.h>

struct heap;

struct heap *epk_heap_make(int id, size_t bytes, bool fixed);
struct heap *epk_heap_index(int id);
/* One of epk_heap_index() that has no memory: nothing of what the program stores lies in its page. */
bool epk_heap_is_bare(const struct heap *heap);
void epk_heap_format(struct heap *heap, char *start, size_t bytes);
bool epk_heap_recover(struct heap *heap, char *start, size_t bytes);
void epk_heap_unmake(struct heap *heap, size_t bytes);
void epk_heap_lock(struct heap *heap);
void epk_heap_unlock(struct heap *heap);
void *epk_heap_alloc(struct heap *heap, int id, size_t align, size_t size);
int epk_heap_free(struct heap *heap, void *ptr);
size_t epk_heap_size(const struct heap *heap, void *ptr);

/* malloc.c: the domain is held to be written, 1: it was before, and is given up; its heap, if it has one. */
int epk_heap_hold(int id);
void epk_heap_unhold(int id, int held);
struct heap *epk_heap_find(int id);
int epk_heap_set(int id, struct heap *heap);

#endif /* EPK_HEAP_H */
