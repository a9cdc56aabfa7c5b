// SPDX-License-Identifier: MIT
/*
 * A heap in each domain.  All that it knows lies in the domain's own memory, so
 * that only who may write the domain can change it.
 *
 * Chunks of memory are cut into blocks.  Each has its own length and that of the
 * block before it in front (boundary tags; Knuth, The Art of Computer Programming,
 * volume 1, 2.5), so that free neighbours become one.  Free blocks hang in lists by
 * length, four for each power of two, and the first that fits is taken.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "backend.h"
#include "heap.h"
#include "registry.h"

#define ALIGN		16ul
#define IN_USE		1ul
#define CHUNK		(256ul * 1024)
#define MIN_BLOCK	(2 * sizeof(struct block))
#define NR_BINS		(4 * 48)
#define MAX_SIZE	(1ul << 46)

/**
 * struct block - what lies before the bytes that the program gets
 * @before: length of the block before it, 0 for a chunk's first
 * @length: its own with this header, a multiple of ALIGN; IN_USE in bit 0
 * @next: while it is free: the next in its list
 * @prev: the previous
 */
struct block {
	size_t before;
	size_t length;
	struct block *next;
	struct block *prev;
};

#define HEADER		offsetof(struct block, next)

/**
 * struct heap - at the start of a domain's first chunk
 * @lock: of all the heap
 * @bins: free blocks
 */
struct heap {
	pthread_mutex_t lock;
	struct block *bins[NR_BINS];
};

#define HEAP_BYTES	((sizeof(struct heap) + ALIGN - 1) & ~(ALIGN - 1))

static size_t length_of(const struct block *block)
{
	return block->length & ~IN_USE;
}

static struct block *after(const struct block *block)
{
	return (struct block *)((char *)block + length_of(block));
}

static unsigned int bin_of(size_t length)
{
	unsigned int log = 63 - __builtin_clzl(length);

	return (log - 4) * 4 + ((length >> (log - 2)) & 3);
}

static void bin_add(struct heap *heap, struct block *block)
{
	struct block **bin = &heap->bins[bin_of(block->length)];

	block->prev = NULL;
	block->next = *bin;
	if (*bin)
		(*bin)->prev = block;
	*bin = block;
}

static void bin_remove(struct heap *heap, struct block *block)
{
	if (block->prev)
		block->prev->next = block->next;
	else
		heap->bins[bin_of(block->length)] = block->next;
	if (block->next)
		block->next->prev = block->prev;
}

/* Makes @block @length long, and a free one of the rest.  What is behind it is in use. */
static void trim(struct heap *heap, struct block *block, size_t length)
{
	size_t rest = length_of(block) - length;
	struct block *second;

	if (rest < MIN_BLOCK)
		return;
	block->length = length | (block->length & IN_USE);
	second = after(block);
	second->before = length;
	second->length = rest;
	after(second)->before = rest;
	bin_add(heap, second);
}

/* One free block from @start to @end, and a header in use that ends the chunk. */
static struct block *chunk_format(char *start, char *end)
{
	struct block *block = (struct block *)start, *last;

	block->before = 0;
	block->length = end - start - HEADER;
	last = after(block);
	last->before = block->length;
	last->length = HEADER | IN_USE;
	return block;
}

static struct block *chunk_get(int id, size_t need)
{
	size_t bytes = need + 2 * HEADER + HEAP_BYTES;
	char *chunk;

	bytes = (bytes + CHUNK - 1) & ~(CHUNK - 1);
	chunk = domain_mmap(id, NULL, bytes, PROT_READ | PROT_WRITE, 0);
	if (chunk == MAP_FAILED)
		return NULL;
	return chunk_format(chunk, chunk + bytes);
}

static struct block *find_fit(struct heap *heap, size_t length)
{
	struct block *block;
	unsigned int bin;

	for (bin = bin_of(length); bin < NR_BINS; bin++)
		for (block = heap->bins[bin]; block; block = block->next)
			if (block->length >= length)
				return block;
	return NULL;
}

void *epk_heap_alloc(struct heap *heap, int id, size_t align, size_t size)
{
	size_t length, gap;
	struct block *block, *second;

	length = (size + HEADER + ALIGN - 1) & ~(ALIGN - 1);
	if (length < MIN_BLOCK)
		length = MIN_BLOCK;
	gap = align > ALIGN ? align + MIN_BLOCK : 0;
	block = find_fit(heap, length + gap);
	if (block) {
		bin_remove(heap, block);
	} else {
		block = chunk_get(id, length + gap);
		if (!block)
			return NULL;
	}
	/* Leave a free block in front that reaches up to the aligned one. */
	if (gap && ((uintptr_t)block + HEADER) % align) {
		uintptr_t at = ((uintptr_t)block + HEADER + MIN_BLOCK + align - 1) & -align;

		second = (struct block *)(at - HEADER);
		second->before = (char *)second - (char *)block;
		second->length = block->length - second->before;
		after(second)->before = second->length;
		block->length = second->before;
		bin_add(heap, block);
		block = second;
	}
	block->length |= IN_USE;
	trim(heap, block, length);
	return (char *)block + HEADER;
}

static bool is_memory_of(int id, const void *start, size_t length)
{
	bool covers;

	pthread_mutex_lock(&epk_lock);
	covers = epk_mapping_covers(id, (uintptr_t)start, (uintptr_t)start + length);
	pthread_mutex_unlock(&epk_lock);
	return covers;
}

/*
 * The block of @ptr, or NULL if it is none, or free already.  @ptr may be anything:
 * look at nothing that is not the domain's.
 */
static struct block *block_of(int id, void *ptr)
{
	struct block *block = (struct block *)((char *)ptr - HEADER);

	if ((uintptr_t)ptr % ALIGN || !is_memory_of(id, block, MIN_BLOCK) ||
	    !(block->length & IN_USE) || length_of(block) < MIN_BLOCK ||
	    length_of(block) > MAX_SIZE || length_of(block) % ALIGN ||
	    !is_memory_of(id, block, length_of(block) + HEADER) ||
	    after(block)->before != length_of(block))
		return NULL;
	return block;
}

/* How long the allocation @ptr is, or 0 if it is none. */
size_t epk_heap_size(int id, void *ptr)
{
	struct block *block = block_of(id, ptr);

	return block ? length_of(block) - HEADER : 0;
}

int epk_heap_free(struct heap *heap, int id, void *ptr)
{
	struct block *block = block_of(id, ptr), *other;

	if (!block)
		return -EINVAL;
	block->length &= ~IN_USE;
	other = after(block);
	if (!(other->length & IN_USE)) {
		bin_remove(heap, other);
		block->length += other->length;
	}
	if (block->before) {
		other = (struct block *)((char *)block - block->before);
		if (!(other->length & IN_USE)) {
			bin_remove(heap, other);
			other->length += block->length;
			block = other;
		}
	}
	after(block)->before = block->length;
	bin_add(heap, block);
	return 0;
}

struct heap *epk_heap_make(int id)
{
	char *chunk = domain_mmap(id, NULL, CHUNK, PROT_READ | PROT_WRITE, 0);
	struct heap *heap = (struct heap *)chunk;

	if (chunk == MAP_FAILED)
		return NULL;
	pthread_mutex_init(&heap->lock, NULL);
	bin_add(heap, chunk_format(chunk + HEAP_BYTES, chunk + CHUNK));
	return heap;
}

void epk_heap_lock(struct heap *heap)
{
	pthread_mutex_lock(&heap->lock);
}

void epk_heap_unlock(struct heap *heap)
{
	pthread_mutex_unlock(&heap->lock);
}
