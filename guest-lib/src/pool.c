// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "pool.h"

#define POOL_BYTES	(64ul * 1024)

/* NULL without memory. */
static void *cut(struct epk_pool *pool)
{
	void *object;

	if (pool->left < pool->size) {
		object = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (object == MAP_FAILED)
			return NULL;
		pool->unused = object;
		pool->left = POOL_BYTES;
	}
	object = pool->unused;
	pool->unused += pool->size;
	pool->left -= pool->size;
	return object;
}

/* Zeroed, or NULL without memory. */
void *epk_pool_get(struct epk_pool *pool)
{
	void *object = pool->free;

	if (!object)
		return cut(pool);
	memcpy(&pool->free, object, sizeof(pool->free));
	memset(object, 0, pool->size);
	return object;
}

void epk_pool_put(struct epk_pool *pool, void *object)
{
	memcpy(object, &pool->free, sizeof(pool->free));
	pool->free = object;
}
