/* SPDX-License-Identifier: MIT */
/* libepk: where domains lie.  A part of <epk.h>, which includes it. */
#ifndef EPK_PLACE_H
#define EPK_PLACE_H

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/**
 * epk_alloc_beside() - allocate domain IDs that are cheap to hold with another
 * @num: how many
 * @dom_ids: room for @num IDs; written only on success
 * @beside: a domain in whose EPT the new ones go first, as far as they fit
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: as alloc_domains(); besides, for @beside, -EINVAL, -ENOENT or -EPERM as
 * for domain_end().
 */
int epk_alloc_beside(int num, int dom_ids[], int beside);

/**
 * epk_alloc_everywhere() - allocate domain IDs that are cheap to hold with any other
 * @num: how many
 * @dom_ids: room for @num IDs; written only on success
 *
 * Each has a key in every EPT, which no other domain of the process can have then: for the few that most of
 * a program's work is done with, beside one of many.  Others that have the key leave their places for a moment.
 * No component can have one.  With few keys left, one instruction or system call that wants more other domains
 * than there are keys is refused.  Backends but "epk" have nothing to spare, and make ordinary ones.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: as alloc_domains(); besides, -ENOSPC: fewer than two keys would be left for others.
 */
int epk_alloc_everywhere(int num, int dom_ids[]);

/**
 * epk_gather() - bring domains together, so that it is cheap to hold them at a time
 * @num: how many; at most as many as an EPT has keys, 15 or what the program has left of them
 * @dom_ids: their IDs, each once; held or not
 *
 * All or none.  They go where most of them are, or to where there is room; if there is none, other domains
 * change places with them.  It takes a system call, and flushes TLBs: for what is held together for long.  Backends but
 * "epk" have nothing to gather, and check the arguments.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or
 * -EINVAL: @num is not positive, @dom_ids is NULL, or one ID stands twice;
 * -ENOENT, -EPERM: as for domain_end();
 * -ENOSPC: an EPT has not so many keys; or no EPT can show the RAM of all of them (guests with more RAM
 *	than a window has slots);
 * -ENOMEM, -EINTR, -EMFILE: as for domain_begin().
 */
int epk_gather(int num, const int dom_ids[]);

/* In place of an EPT index: in each. */
#define EPK_EVERYWHERE	(-2)

/**
 * epk_domain_place() - where a domain lies at this moment
 * @dom_id: the domain
 * @ept: set to its EPT index, EPK_EVERYWHERE, or -1 if it has no place now (backends without
 *	EPTs: 0); may be NULL
 * @pkey: set to its protection key, or 0 if it has none now; may be NULL
 *
 * Thread-safe and async-signal-safe.
 *
 * Return: 0, or -EINVAL, -ENOENT or -EPERM as for domain_end().
 */
int epk_domain_place(int dom_id, int *ept, int *pkey);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* EPK_PLACE_H */
