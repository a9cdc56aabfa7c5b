/* SPDX-License-Identifier: MIT */
/*
 * The calls of libmpk (USENIX ATC'19), by libepk: a program that is written to them links with -lepk-mpk -lepk.
 *
 * A page group is the memory of one virtual key, a number that the program chooses, from 0 up; each is a domain of
 * libepk's, so there are thousands.  libepk-mpk(7) says what the calls do, and where they differ.
 *
 * Calls that return int return 0, or -1 with errno set.
 */
#ifndef LIBMPK_H
#define LIBMPK_H

#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* Page groups at a time; of all their mappings, those not to be written; a thread's begins that have not ended. */
#define MPK_GROUPS_MAX	8192
#define MPK_NARROW_MAX	65536
#define MPK_BEGINS_MAX	64

/* Before all else; again, it does nothing.  @evict_rate is not needed: what has no key takes turns. */
int mpk_init(double evict_rate);

/*
 * Memory for a page group, which is made if there is none.  Nobody can access it until mpk_begin() or mpk_mprotect();
 * then @prot is the most that can be done.  MAP_FAILED with errno set on failure.
 */
void *mpk_mmap(int vkey, void *addr, size_t len, int prot, int flags, int fd, off_t offset);

/*
 * The same of memory that is run at *@run, and written by who has begun the page group at the address that is returned:
 * epk_mmap_code(3), of which @prot is the argument.  Not in the paper, whose code has one address.
 */
void *mpk_mmap_code(int vkey, size_t len, int prot, void **run);

/* Ends a page group and unmaps all of its memory; the number can be used anew. */
int mpk_munmap(int vkey);

/* The thread alone may access the page group, until as many mpk_end() as there were mpk_begin(). */
int mpk_begin(int vkey, int prot);
int mpk_end(int vkey);

/* What every thread may do, while it has not begun the page group; at first nothing. */
int mpk_mprotect(int vkey, int prot);

/* Memory of a page group's heap; NULL with errno set on failure. */
void *mpk_malloc(int vkey, size_t size);
int mpk_free(void *ptr);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* LIBMPK_H */
