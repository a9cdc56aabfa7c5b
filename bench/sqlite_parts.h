/* SPDX-License-Identifier: MIT */
/*
 * Two parts of a database engine that know nothing of it nor of each other: files in memory, and the
 * books of a page cache.  All that they have lies in memory that they are given, and each call is one
 * request, whoever carries it: a function call, a gate or a socket.
 */
#ifndef SQLITE_PARTS_H
#define SQLITE_PARTS_H

#include <stdbool.h>
#include <stddef.h>

enum part_op {
	/* Files. */
	FILE_OPEN,	/* @data, a name; @a: whether to create it: a handle, or -1 */
	FILE_READ,	/* @len bytes from @a to @data: how many there were */
	FILE_WRITE,	/* @len bytes of @data to @a: 0, or -1 */
	FILE_TRUNCATE,	/* to @a bytes */
	FILE_SYNC,
	FILE_SIZE,
	FILE_LOCK,	/* by level @a, or to what is left of it */
	FILE_LOCKED,	/* whether anybody has more than read it */
	FILE_REMOVE,	/* @data, a name */
	FILE_EXISTS,	/* likewise */
	/* Page caches. */
	CACHE_CREATE,	/* @a: whether pages may be dropped: a handle, or -1 */
	CACHE_LIMIT,	/* of @a pages */
	CACHE_COUNT,
	CACHE_FETCH,	/* page @a, by SQLite's createFlag @b: 2 * slot, 1 more if new; or -1 */
	CACHE_UNPIN,	/* slot @a; @b: and drop it */
	CACHE_REKEY,	/* slot @a to page @b */
	CACHE_TRUNCATE,	/* drop the pages from @a on */
	CACHE_SHRINK,
	CACHE_DESTROY,
};

/**
 * struct part_request - a call
 * @op: of enum part_op
 * @handle: of an open file, of a cache
 * @a: as above
 * @b: likewise
 * @len: bytes of @data
 * @data: the caller's
 */
struct part_request {
	int op;
	int handle;
	long a, b;
	long len;
	void *data;
};

#define FILE_NAME	64
#define FILES		4
#define FILE_MOST	(1l << 20)
#define CACHES		4
#define CACHE_SLOTS	1024

/* What each needs, zeroed at first. */
size_t files_bytes(void);
size_t cache_bytes(void);
void cache_init(void *mem);

/*
 * What a request comes to, with the part's memory at @mem.  Whatever it says, no byte of @mem changes
 * or is told but what it is to; its data is the caller's to have checked.
 */
long files_serve(void *mem, const struct part_request *request);
long cache_serve(void *mem, const struct part_request *request);

#endif /* SQLITE_PARTS_H */
