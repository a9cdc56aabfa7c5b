/* SPDX-License-Identifier: MIT */
/*
 * A persistent hash table: records in a file that is mapped into a domain, and an index of uthash
 * in the domain's heap, which is made anew when the file is opened.
 *
 * A record keeps two versions of its value, and a put overwrites the older one: so whenever the
 * process is killed, the file has the value before the put or that after it.  What has been
 * written to the mapping outlives the process; that it outlives the machine takes msync(2).
 */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include <stdint.h>

#include "hash_table.h"

/**
 * struct store_version - a value, if @check fits
 * @number: which of the two is newer: the larger
 * @value: of the key
 * @check: of both and of the key; written last
 */
struct store_version {
	uint64_t number;
	uint64_t value;
	uint64_t check;
};

/* A record is in use if one of its versions fits. */
struct store_record {
	uint64_t key;
	struct store_version version[2];
	uint64_t unused;
};

/**
 * struct store - a table
 * @domain: that it lies in
 * @records: in the file
 * @nr: how many there can be
 * @used: how many there are
 * @index: by key, the record's number
 */
struct store {
	int domain;
	struct store_record *records;
	uint64_t nr;
	uint64_t used;
	struct hash_table *index;
};

/*
 * 0 or a negative error number.  @fd has room for @nr records from @offset on, a multiple of
 * 4 KiB, and may be closed afterwards.
 */
int store_open(struct store *store, int domain, int fd, uint64_t offset, uint64_t nr);

/* These want the domain held.  -ENOENT, -ENOSPC, -ENOMEM, or 0. */
int store_get(struct store *store, uint64_t key, uint64_t *value);
int store_put(struct store *store, uint64_t key, uint64_t value);

#endif /* BENCH_STORE_H */
