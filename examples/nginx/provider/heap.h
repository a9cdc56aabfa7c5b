/* SPDX-License-Identifier: MIT */
/*
 * libcrypto's memory while it computes with a private key: a part of the key's own domain.
 */
#ifndef HEAP_H
#define HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>

struct arena;

/* Leads libcrypto's allocations to heap.c, tries @md; @why says what is not as it has to be. */
bool epkp_heap_start(const EVP_MD *md, const char **why);
/* The program brought a heap of its own for OpenSSL. */
bool epkp_heap_is_programs(void);

/* Of @size bytes at @mem, all zero, in a domain that is open here and where it is used. */
struct arena *epkp_arena_make(void *mem, size_t size);
void *epkp_arena_get(struct arena *arena, size_t size);
void epkp_arena_put(struct arena *arena, void *ptr);
size_t epkp_arena_used(const struct arena *arena);

/* From here on what this thread has libcrypto allocate lies in @arena; not nested. */
void epkp_heap_enter(struct arena *arena);
void epkp_heap_leave(void);

/* The next that this thread asks for in that file of OpenSSL's is not to be had; NULL: it is. */
void epkp_heap_refuse_next(const char *file);

#endif /* HEAP_H */
