/* SPDX-License-Identifier: MIT */
/*
 * libepk-gc.so: answers the soft-dirty reads of Debian's Boehm collector (libgc.so.1) by epk_dirty_collect().
 *
 * The collector has its own lock whenever it calls, and no other thread runs while it asks: so nothing here has a lock, or
 * allocates.
 */
#ifndef EPK_GC_H
#define EPK_GC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GC_PAGE		4096ul

/**
 * struct gc_span - memory that the collector has mapped
 * @start: first byte
 * @end: one past the last
 */
struct gc_span {
	uintptr_t start;
	uintptr_t end;
};

/* spans.c: those that touch are one.  What there is no room for is not noted. */
void gc_span_add(uintptr_t start, uintptr_t end);
unsigned int gc_spans(const struct gc_span **list);

/*
 * watches.c: what was written to since gc_clear(), where it was not told before that.  What is not watched, or cannot be
 * asked about, is written to.
 */
int gc_try(void);
void gc_look(void);
bool gc_is_dirty(uintptr_t page);
void gc_clear(void);

#endif /* EPK_GC_H */
