/* SPDX-License-Identifier: MIT */
/*
 * libmpk (USENIX ATC'19) as its paper describes it: virtual keys over real ones.  A virtual key is
 * looked up in a hash table under a lock, becomes the most recently used, counts its users,
 * and is opened or closed in PKRU.  If it has no real key, the least recently used one that nobody
 * uses gives its own up: its memory gets key 0 and no access.
 *
 * Written anew for comparison; nothing of libmpk's source is in it.
 */
#ifndef LIBMPK_LIKE_H
#define LIBMPK_LIKE_H

#include <stddef.h>

/* Real keys to give out, @first and those that follow. */
void libmpk_keys(int first, int nr);

/* Another virtual key, with its memory, which nobody can touch before a begin; @len may be 0. */
int libmpk_add(int vkey, void *mem, size_t len);

/* Real keys 1 to @nr, each with a virtual one of the same number and no memory. */
void libmpk_init(int nr);

/* 0, or -1: unknown, or all keys are in use. */
int libmpk_begin(int vkey, int prot);
int libmpk_end(int vkey);

#endif /* LIBMPK_LIKE_H */
