/* SPDX-License-Identifier: MIT */
/* libepk: memory as it was.  A part of <epk.h>, which includes it. */
#ifndef EPK_SNAPSHOT_H
#define EPK_SNAPSHOT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/**
 * epk_snapshot() - keep what ordinary memory has, to be brought back
 * @addr: first byte, a multiple of 4 KiB
 * @len: bytes; rounded up to whole pages
 *
 * The copy lies in a domain of its own, which nobody holds: code that overruns memory does not reach it.  It counts as a
 * domain does.  From now on it is noted which pages are written to, as by epk_dirty_start() where that can be had.
 * Initialises the library as alloc_domains() does.
 *
 * Thread-safe; not async-signal-safe.  What other threads write meanwhile is in it or is not.
 *
 * Return: the snapshot, a positive number, or
 * -EINVAL: @addr is misaligned, @len is 0, a part is not mapped, or is a domain's memory or the library's own;
 * -EOVERFLOW: the range passes the end of the address space;
 * -EACCES: a part cannot be read;
 * -EPERM: a child of vfork();
 * errors of alloc_domains(), domain_mmap() and domain_begin().
 */
int epk_snapshot(void *addr, size_t len);

/**
 * epk_snapshot_domain() - keep what a domain has, to be brought back
 * @dom_id: the domain, which the caller holds
 *
 * All its memory that its holders may write, its heap among it.  The copy lies in another domain, beside it if there is room.
 *
 * Thread-safe; not async-signal-safe.  No other thread writes to the domain, or maps its memory, meanwhile.
 *
 * Return: the snapshot, a positive number, or
 * -EINVAL, -ENOENT, -EPERM: as for domain_begin();
 * -EACCES: the caller does not hold it;
 * -EOPNOTSUPP: it has memory of a file, or code; or the backend is "vmfunc";
 * errors of alloc_domains(), domain_mmap() and domain_begin().
 */
int epk_snapshot_domain(int dom_id);

/**
 * epk_snapshot_renew() - keep what the same memory has now
 * @snapshot: which
 *
 * What was kept before is forgotten.  It costs as epk_rollback() does.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or an error, after which what is kept is what was:
 * -ESTALE: memory has come to the domain since, or has gone: take another snapshot;
 * any other error of epk_rollback().
 */
int epk_snapshot_renew(int snapshot);

/**
 * epk_rollback() - bring back what memory had
 * @snapshot: which; it stays, and can bring it back again
 *
 * Of ordinary memory the pages are looked at that were written to, of a domain all, and what differs is written.  What has
 * been mapped in the domain since is unmapped.  Who calls it holds the domain to write; his stack does not lie in what is
 * brought back.
 *
 * Thread-safe; not async-signal-safe.  Other threads do not use the memory meanwhile.
 *
 * Return: 0, or an error, after which nothing has changed:
 * -EINVAL: @snapshot is none, or the caller's stack lies in it; or a part of the memory is not mapped, or not the domain's, any more;
 * -ENOENT, -EPERM: as for domain_begin(), of @snapshot or the domain;
 * -EACCES: the caller does not hold the domain to write, or a part of the memory cannot be read or written any more;
 * -EBUSY: the snapshot is in use; or the domain had no heap then, and has one now;
 * -ENOMEM: no memory; and errors of domain_begin().
 */
int epk_rollback(int snapshot);

/**
 * epk_snapshot_free() - what is kept is wanted no more
 * @snapshot: which; no other thread uses it any more
 *
 * The memory that it is of stays as it is.  The copy is wiped.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or
 * -EINVAL: @snapshot is none;
 * -ENOENT, -EPERM: freed already; inherited by fork;
 * -EBUSY: it is in use, or held; errors of domain_begin().
 */
int epk_snapshot_free(int snapshot);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* EPK_SNAPSHOT_H */
