/* SPDX-License-Identifier: MIT */
/* A hash table, uthash's, that lies in a domain with all that it allocates. */
#ifndef BENCH_HASH_TABLE_H
#define BENCH_HASH_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <epk.h>

/* Whose heap uthash takes memory from; the thread holds it. */
static __thread int hash_domain;

#define uthash_malloc(bytes)		epk_malloc(hash_domain, bytes)
#define uthash_free(mem, bytes)		epk_free(hash_domain, mem)
#define uthash_fatal(why)		abort()
#include <uthash.h>

struct hash_item {
	uint64_t key;
	uint64_t value;
	UT_hash_handle hh;
};

struct hash_table {
	struct hash_item *items;
};

/* All of these want the domain held. */

static inline struct hash_item *hash_get(struct hash_table *table, uint64_t key)
{
	struct hash_item *item;

	HASH_FIND(hh, table->items, &key, sizeof(key), item);
	return item;
}

/* A new value for a key that may be new, too; false if there is no memory. */
static inline int hash_put(int domain, struct hash_table *table, uint64_t key, uint64_t value)
{
	struct hash_item *item = hash_get(table, key);

	if (!item) {
		hash_domain = domain;
		item = epk_malloc(domain, sizeof(*item));
		if (!item)
			return 0;
		item->key = key;
		HASH_ADD(hh, table->items, key, sizeof(key), item);
	}
	item->value = value;
	return 1;
}

#endif /* BENCH_HASH_TABLE_H */
