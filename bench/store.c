// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>

#include "store.h"

#define RW	(PROT_READ | PROT_WRITE)

/* Depends on each bit of all three.  Steele's and others' SplitMix64. */
static uint64_t check_of(uint64_t key, const struct store_version *version)
{
	uint64_t x = key * 0x9e3779b97f4a7c15u ^ version->number;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u ^ version->value;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return (x ^ x >> 31) | 1;
}

static int fits(const struct store_record *record, int i)
{
	const struct store_version *version = &record->version[i];

	return version->check == check_of(record->key, version);
}

/* Which version counts; -1 if none does. */
static int newest(const struct store_record *record)
{
	int first = fits(record, 0), second = fits(record, 1);

	if (first && second)
		return record->version[1].number > record->version[0].number;
	return first ? 0 : second ? 1 : -1;
}

/* Each store in its place: what a killed process has stored are the first so many of these. */
static void write_in_order(uint64_t *to, uint64_t value)
{
	__atomic_store_n(to, value, __ATOMIC_RELEASE);
}

int store_open(struct store *store, int domain, int fd, uint64_t offset, uint64_t nr)
{
	struct store_record *records;
	uint64_t i;
	int err;

	records = epk_mmap_file(domain, NULL, nr * sizeof(*records), RW, MAP_SHARED, fd, offset);
	if (records == MAP_FAILED)
		return -errno;
	*store = (struct store) { .domain = domain, .records = records, .nr = nr };
	store->index = epk_calloc(domain, 1, sizeof(*store->index));
	if (!store->index)
		return -errno;
	err = domain_begin(domain, RW);
	for (i = 0; i < nr && !err && newest(&records[i]) >= 0; i++)
		if (!hash_put(domain, store->index, records[i].key, i))
			err = -ENOMEM;
	store->used = i;
	domain_end(domain);
	return err;
}

int store_get(struct store *store, uint64_t key, uint64_t *value)
{
	struct hash_item *item = hash_get(store->index, key);
	const struct store_record *record;

	if (!item)
		return -ENOENT;
	record = &store->records[item->value];
	*value = record->version[newest(record)].value;
	return 0;
}

int store_put(struct store *store, uint64_t key, uint64_t value)
{
	struct hash_item *item = hash_get(store->index, key);
	uint64_t at = item ? item->value : store->used;
	struct store_record *record = &store->records[at];
	struct store_version *version;
	int now;

	if (at == store->nr)
		return -ENOSPC;
	if (!item && !hash_put(store->domain, store->index, key, at))
		return -ENOMEM;
	now = item ? newest(record) : -1;
	version = &record->version[now == 0];
	/* From the number on, until the check is written, it does not fit. */
	if (!item)
		write_in_order(&record->key, key);
	write_in_order(&version->number, now < 0 ? 1 : record->version[now].number + 1);
	write_in_order(&version->value, value);
	write_in_order(&version->check, check_of(key, version));
	store->used += !item;
	return 0;
}
