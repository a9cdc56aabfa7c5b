/* SPDX-License-Identifier: MIT */
/* libepk: which pages of ordinary memory were written to.  A part of <epk.h>, which includes it. */
#ifndef EPK_DIRTY_H
#define EPK_DIRTY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* What is watched; one for each epk_dirty_start(). */
struct epk_dirty;

/**
 * struct epk_pages - pages that lie side by side
 * @addr: the first byte
 * @len: bytes, whole pages of 4 KiB
 */
struct epk_pages {
	void *addr;
	size_t len;
};

/**
 * epk_dirty_start() - begin to note which pages are written to
 * @addr: first byte, a multiple of 4 KiB
 * @len: bytes; rounded up to whole pages
 * @dirty: written on success
 *
 * These are addresses: what is mapped there later is watched, too.  No domain's memory may lie there.  It takes no
 * right to memory, and needs neither epk_init() nor a backend.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or
 * -EINVAL: @addr is misaligned, @len is 0, @dirty is NULL, or a domain's memory lies there;
 * -EOVERFLOW: the range passes the end of the address space;
 * -EBUSY: a part of it is watched already, by another userfaultfd of the program perhaps;
 * -EOPNOTSUPP: the kernel cannot tell, or may not;
 * -EPERM: a child of vfork(); -ENOMEM; -EMFILE or -ENFILE: no file more can be opened;
 * -EACCES or -ENOENT: /proc/self/pagemap may not be read, or is not there.
 */
int epk_dirty_start(void *addr, size_t len, struct epk_dirty **dirty);

/**
 * epk_dirty_collect() - the pages that were written to since they were told last
 * @dirty: what is watched
 * @ranges: room for @max of them, in ordinary memory
 * @max: how many; at least 1
 *
 * In the order of addresses, each page once.  If there are more than @max, the rest is told by the next call.  What
 * other threads write meanwhile is told now, or the next time: whoever reads a page after the call has read what is
 * told, or will be told again.  The man page says what is not seen.
 *
 * Pages of new mappings count as written to, and so does what has lost its contents; shared memory and files count
 * each time; a page may be told that was not.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: how many of @ranges were written, or
 * -EINVAL: @dirty or @ranges is NULL, @max is not positive, or a domain's memory lies at @ranges or in what is watched;
 * -EPERM: @dirty is the parent's, in a forked child;
 * -EBADF: the program has closed the library's userfaultfd;
 * any other error of the kernel.  After each of these nothing is forgotten.
 */
int epk_dirty_collect(struct epk_dirty *dirty, struct epk_pages ranges[], int max);

/**
 * epk_dirty_stop() - end it
 * @dirty: what is watched; no other thread uses it any more.  In a forked child, its own copy
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, -EINVAL (@dirty is NULL, or is not watched any more), -EPERM (a child of vfork()).
 */
int epk_dirty_stop(struct epk_dirty *dirty);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* EPK_DIRTY_H */
