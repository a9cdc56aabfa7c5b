/* SPDX-License-Identifier: MIT */
/*
 * The begin and end of libmpk (USENIX ATC'19) as its paper describes them, on a
 * hit: the virtual key is looked up in a hash table under a lock, its entry becomes
 * the most recently used, counts its users, and the key is opened or closed in PKRU.
 * Written anew for comparison; nothing of libmpk's source is in it.
 */
#ifndef LIBMPK_LIKE_H
#define LIBMPK_LIKE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#define LIBMPK_BUCKETS	64

struct libmpk_entry {
	int vkey;
	int pkey;
	int users;
	struct libmpk_entry *chain;
	struct libmpk_entry *newer;
	struct libmpk_entry *older;
};

static struct libmpk_entry libmpk_entries[16];
static struct libmpk_entry *libmpk_table[LIBMPK_BUCKETS];
static struct libmpk_entry libmpk_lru;
static pthread_mutex_t libmpk_lock = PTHREAD_MUTEX_INITIALIZER;

static void libmpk_lru_add(struct libmpk_entry *entry)
{
	entry->newer = &libmpk_lru;
	entry->older = libmpk_lru.older;
	libmpk_lru.older->newer = entry;
	libmpk_lru.older = entry;
}

/* Virtual keys 1 to @nr, with a key each. */
static inline void libmpk_init(int nr)
{
	int i;

	libmpk_lru.newer = &libmpk_lru;
	libmpk_lru.older = &libmpk_lru;
	for (i = 1; i <= nr; i++) {
		struct libmpk_entry *entry = &libmpk_entries[i];

		entry->vkey = i;
		entry->pkey = i;
		entry->chain = libmpk_table[i % LIBMPK_BUCKETS];
		libmpk_table[i % LIBMPK_BUCKETS] = entry;
		libmpk_lru_add(entry);
	}
}

static struct libmpk_entry *libmpk_find(int vkey)
{
	struct libmpk_entry *entry;

	for (entry = libmpk_table[vkey % LIBMPK_BUCKETS]; entry; entry = entry->chain)
		if (entry->vkey == vkey)
			return entry;
	return NULL;
}

static __attribute__((noipa)) int libmpk_begin(int vkey, int prot)
{
	struct libmpk_entry *entry;
	int pkey = -1;

	pthread_mutex_lock(&libmpk_lock);
	entry = libmpk_find(vkey);
	if (entry) {
		entry->users++;
		entry->newer->older = entry->older;
		entry->older->newer = entry->newer;
		libmpk_lru_add(entry);
		pkey = entry->pkey;
	}
	pthread_mutex_unlock(&libmpk_lock);
	return pkey < 0 ? -1 : pkey_set(pkey, prot & PROT_WRITE ? 0 : PKEY_DISABLE_WRITE);
}

static __attribute__((noipa)) int libmpk_end(int vkey)
{
	struct libmpk_entry *entry;
	int pkey = -1;

	pthread_mutex_lock(&libmpk_lock);
	entry = libmpk_find(vkey);
	if (entry) {
		entry->users--;
		pkey = entry->pkey;
	}
	pthread_mutex_unlock(&libmpk_lock);
	return pkey < 0 ? -1 : pkey_set(pkey, PKEY_DISABLE_ACCESS);
}

#endif /* LIBMPK_LIKE_H */
