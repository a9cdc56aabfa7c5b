// SPDX-License-Identifier: MIT
/*
 * The books of a page cache: which slot has which page, and which was used when.  What is in the
 * pages it never sees.
 */
#include <string.h>

#include "sqlite_parts.h"

#define BUCKETS	1024
#define NONE	(-1)

struct cache {
	struct one {
		bool used, may_drop;
		int limit, count;
		/* Of those that nobody uses. */
		int oldest, newest;
		unsigned long max_key;
	} caches[CACHES];
	struct slot {
		unsigned long key;
		int cache, next;
		int older, newer;
		bool pinned;
	} slots[CACHE_SLOTS];
	int buckets[BUCKETS];
	int free;
};

size_t cache_bytes(void)
{
	return sizeof(struct cache);
}

void cache_init(void *mem)
{
	struct cache *all = mem;
	int i;

	memset(all->buckets, 0xff, sizeof(all->buckets));
	all->free = NONE;
	for (i = CACHE_SLOTS - 1; i >= 0; i--) {
		all->slots[i].cache = NONE;
		all->slots[i].next = all->free;
		all->free = i;
	}
}

static int *bucket(struct cache *all, int cache, unsigned long key)
{
	return &all->buckets[(key * CACHES + cache) % BUCKETS];
}

static int find(struct cache *all, int cache, unsigned long key)
{
	int slot = *bucket(all, cache, key);

	while (slot != NONE && (all->slots[slot].cache != cache || all->slots[slot].key != key))
		slot = all->slots[slot].next;
	return slot;
}

/* Into and out of the list of those that may be dropped. */

static void put_last(struct cache *all, int slot)
{
	struct one *one = &all->caches[all->slots[slot].cache];
	struct slot *this = &all->slots[slot];

	this->pinned = false;
	this->newer = NONE;
	this->older = one->newest;
	if (one->newest == NONE)
		one->oldest = slot;
	else
		all->slots[one->newest].newer = slot;
	one->newest = slot;
}

static void take_out(struct cache *all, int slot)
{
	struct one *one = &all->caches[all->slots[slot].cache];
	struct slot *this = &all->slots[slot];

	if (this->older == NONE)
		one->oldest = this->newer;
	else
		all->slots[this->older].newer = this->newer;
	if (this->newer == NONE)
		one->newest = this->older;
	else
		all->slots[this->newer].older = this->older;
	this->pinned = true;
}

static void link_slot(struct cache *all, int slot, unsigned long key)
{
	struct slot *this = &all->slots[slot];
	int *first = bucket(all, this->cache, key);

	this->key = key;
	this->next = *first;
	*first = slot;
	if (key > all->caches[this->cache].max_key)
		all->caches[this->cache].max_key = key;
}

static void unlink_slot(struct cache *all, int slot)
{
	int *at = bucket(all, all->slots[slot].cache, all->slots[slot].key);

	while (*at != slot)
		at = &all->slots[*at].next;
	*at = all->slots[slot].next;
}

static void drop(struct cache *all, int slot)
{
	struct slot *this = &all->slots[slot];

	if (!this->pinned)
		take_out(all, slot);
	unlink_slot(all, slot);
	all->caches[this->cache].count--;
	this->cache = NONE;
	this->next = all->free;
	all->free = slot;
}

/* Room for one more page; what has not been used for longest makes it. */
static bool make_room(struct cache *all, int cache, bool at_any_price)
{
	struct one *one = &all->caches[cache];
	int other;

	if (one->may_drop && one->count >= one->limit) {
		if (one->oldest != NONE)
			drop(all, one->oldest);
		else if (!at_any_price)
			return false;
	}
	for (other = 0; all->free == NONE && other < CACHES; other++)
		if (all->caches[other].used && all->caches[other].may_drop &&
		    all->caches[other].oldest != NONE)
			drop(all, all->caches[other].oldest);
	return all->free != NONE;
}

static long fetch(struct cache *all, int cache, unsigned long key, long create)
{
	int slot = find(all, cache, key);

	if (slot != NONE) {
		if (!all->slots[slot].pinned)
			take_out(all, slot);
		return 2 * slot;
	}
	if (!create || !make_room(all, cache, create == 2))
		return -1;
	slot = all->free;
	all->free = all->slots[slot].next;
	all->slots[slot] = (struct slot) { .cache = cache, .pinned = true };
	all->caches[cache].count++;
	link_slot(all, slot, key);
	return 2 * slot + 1;
}

static void truncate_from(struct cache *all, int cache, unsigned long key)
{
	int slot;

	if (key > all->caches[cache].max_key)
		return;
	for (slot = 0; slot < CACHE_SLOTS; slot++)
		if (all->slots[slot].cache == cache && all->slots[slot].key >= key)
			drop(all, slot);
	all->caches[cache].max_key = key ? key - 1 : 0;
}

static void shrink(struct cache *all, int cache)
{
	while (all->caches[cache].may_drop && all->caches[cache].oldest != NONE)
		drop(all, all->caches[cache].oldest);
}

static long create(struct cache *all, bool may_drop)
{
	int i;

	for (i = 0; i < CACHES && all->caches[i].used; i++)
		;
	if (i == CACHES)
		return -1;
	all->caches[i] = (struct one) {
		.used = true, .may_drop = may_drop, .limit = CACHE_SLOTS,
		.oldest = NONE, .newest = NONE,
	};
	return i;
}

/* A slot that is in use, as its page's. */
static long with_slot(struct cache *all, int cache, const struct part_request *request)
{
	int slot = request->a, other;

	if (request->a < 0 || request->a >= CACHE_SLOTS || all->slots[slot].cache != cache ||
	    !all->slots[slot].pinned)
		return -1;
	if (request->op == CACHE_UNPIN) {
		if (request->b || all->caches[cache].count > all->caches[cache].limit)
			drop(all, slot);
		else
			put_last(all, slot);
		return 0;
	}
	other = find(all, cache, request->b);
	if (other == slot)
		return 0;
	if (other != NONE)
		drop(all, other);
	unlink_slot(all, slot);
	link_slot(all, slot, request->b);
	return 0;
}

long cache_serve(void *mem, const struct part_request *request)
{
	struct cache *all = mem;
	int cache = request->handle;

	if (request->op == CACHE_CREATE)
		return create(all, request->a);
	if (cache < 0 || cache >= CACHES || !all->caches[cache].used)
		return -1;
	switch (request->op) {
	case CACHE_LIMIT:
		all->caches[cache].limit = request->a;
		while (all->caches[cache].may_drop && all->caches[cache].oldest != NONE &&
		       all->caches[cache].count > all->caches[cache].limit)
			drop(all, all->caches[cache].oldest);
		return 0;
	case CACHE_COUNT:
		return all->caches[cache].count;
	case CACHE_FETCH:
		return fetch(all, cache, request->a, request->b);
	case CACHE_UNPIN:
	case CACHE_REKEY:
		return with_slot(all, cache, request);
	case CACHE_TRUNCATE:
		truncate_from(all, cache, request->a);
		return 0;
	case CACHE_SHRINK:
		shrink(all, cache);
		return 0;
	case CACHE_DESTROY:
		truncate_from(all, cache, 0);
		all->caches[cache].used = false;
		return 0;
	default:
		return -1;
	}
}
