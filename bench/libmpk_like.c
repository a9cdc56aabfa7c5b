// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "libmpk_like.h"

#define BUCKETS	1024

struct entry {
	int vkey;
	int pkey;		/* 0: none */
	int users;
	void *mem;
	size_t len;
	struct entry *chain;
	struct entry *newer;
	struct entry *older;
};

static struct entry *table[BUCKETS];
/* Of those that have a key. */
static struct entry lru = { .newer = &lru, .older = &lru };
static int first_key, nr_keys, keys_given;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void lru_add(struct entry *entry)
{
	entry->newer = &lru;
	entry->older = lru.older;
	lru.older->newer = entry;
	lru.older = entry;
}

static void lru_remove(struct entry *entry)
{
	entry->newer->older = entry->older;
	entry->older->newer = entry->newer;
}

static struct entry *find(int vkey)
{
	struct entry *entry;

	for (entry = table[vkey % BUCKETS]; entry; entry = entry->chain)
		if (entry->vkey == vkey)
			return entry;
	return NULL;
}

/* A real key that is free, or the least recently used one that nobody uses; 0 if there is none. */
static int take_key(void)
{
	struct entry *entry;
	int pkey;

	if (keys_given < nr_keys)
		return first_key + keys_given++;
	for (entry = lru.newer; entry != &lru && entry->users; entry = entry->newer)
		;
	if (entry == &lru || (entry->len && pkey_mprotect(entry->mem, entry->len, PROT_NONE, 0)))
		return 0;
	lru_remove(entry);
	pkey = entry->pkey;
	entry->pkey = 0;
	return pkey;
}

static int give_key(struct entry *entry)
{
	int pkey = take_key();

	if (!pkey)
		return -1;
	entry->pkey = pkey;
	lru_add(entry);
	return entry->len ? pkey_mprotect(entry->mem, entry->len, PROT_READ | PROT_WRITE, pkey) : 0;
}

void libmpk_keys(int first, int nr)
{
	first_key = first;
	nr_keys = nr;
}

int libmpk_add(int vkey, void *mem, size_t len)
{
	struct entry *entry = calloc(1, sizeof(*entry));

	if (!entry || (len && mprotect(mem, len, PROT_NONE)))
		return -1;
	*entry = (struct entry) {
		.vkey = vkey, .mem = mem, .len = len, .chain = table[vkey % BUCKETS],
	};
	table[vkey % BUCKETS] = entry;
	return 0;
}

void libmpk_init(int nr)
{
	int i;

	libmpk_keys(1, nr);
	for (i = 1; i <= nr; i++)
		if (libmpk_add(i, NULL, 0) || give_key(find(i)))
			abort();
}

int libmpk_begin(int vkey, int prot)
{
	struct entry *entry;
	int pkey = -1;

	pthread_mutex_lock(&lock);
	entry = find(vkey);
	if (entry && (entry->pkey || !give_key(entry))) {
		entry->users++;
		lru_remove(entry);
		lru_add(entry);
		pkey = entry->pkey;
	}
	pthread_mutex_unlock(&lock);
	return pkey < 0 ? -1 : pkey_set(pkey, prot & PROT_WRITE ? 0 : PKEY_DISABLE_WRITE);
}

int libmpk_end(int vkey)
{
	struct entry *entry;
	int pkey = -1;

	pthread_mutex_lock(&lock);
	entry = find(vkey);
	if (entry && entry->users) {
		entry->users--;
		pkey = entry->pkey;
	}
	pthread_mutex_unlock(&lock);
	return pkey < 0 ? -1 : pkey_set(pkey, PKEY_DISABLE_ACCESS);
}
