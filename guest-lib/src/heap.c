// SPDX-License-Identifier: MIT
/*
 * A heap in each domain.  All that it knows, its lock too, lies in the domain's own memory, so
 * that only who may write the domain can change it; where it lies is in the domain's note.
 *
 * Chunks of memory are cut into blocks.  Each has its own length and that of the
 * block before it in front (boundary tags; Knuth, The Art of Computer Programming,
 * volume 1, 2.5), so that free neighbours become one.  Free blocks hang in lists by
 * length, four for each power of two; one of the first list is taken in which all
 * are long enough (good fit; Masmano et al., TLSF, ECRTS 2004), so that no list is searched.
 * What has not been used of the last chunk is cut from its front, and not touched before.
 *
 * One may lie in a file.  A process can be killed between any two stores there, and the next one finds
 * the blocks by their lengths alone: so what becomes several blocks does so by one store, the length of the
 * first, when the others are there; and what becomes one by one.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "backend.h"
#include "heap.h"

#define ALIGN		16ul
#define IN_USE		1ul
/* The first chunk is a page; up to this, each is as large as all before it, then half as large. */
#define DOUBLED		(256ul * 1024)
#define MIN_BLOCK	(2 * sizeof(struct block))
#define MIN_LOG		5
#define NR_BINS		(4 * 43)
#define NR_WORDS	((NR_BINS + 63) / 64)
#define MAX_SIZE	(1ul << 46)
/* Enough for MAX_SIZE. */
#define NR_CHUNKS	60

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
_Static_assert(MIN_BLOCK >= 1ul << MIN_LOG, "the first list has the smallest blocks");

#define HEADER		offsetof(struct block, next)

struct chunk {
	char *start;
	size_t bytes;
};

/**
 * struct heap - at the start of a domain's first chunk
 * @lock: of all the heap
 * @made: what is here was written.  The domain's note tells so, but is read at another address than it is
 *	written at, so that the thread sanitizer does not know
 * @top: from here on the last chunk is not in use
 * @end: to here; there is room for one more header
 * @last: length of the block before @top, which is in use; 0 if there is none
 * @total: bytes of all chunks
 * @nr_chunks: of @chunks, those in use
 * @fixed: it gets no more: a confined component's, where domain_mmap() would be a fault, and a file
 * @chunks: the memory
 * @filled: bit n of it says that @bins[n] is not empty
 * @bins: free blocks
 */
struct heap {
	pthread_mutex_t lock;
	bool made;
	char *top;
	char *end;
	size_t last;
	size_t total;
	unsigned int nr_chunks;
	bool fixed;
	struct chunk chunks[NR_CHUNKS];
	uint64_t filled[NR_WORDS];
	struct block *bins[NR_BINS];
};

#define HEAP_BYTES	((sizeof(struct heap) + ALIGN - 1) & ~(ALIGN - 1))
_Static_assert(HEAP_BYTES + 1024 < EPK_PAGE_SIZE, "the first page has room for small allocations");

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

	return (log - MIN_LOG) * 4 + ((length >> (log - 2)) & 3);
}

/* The first list in which all are at least so long. */
static unsigned int bin_from(size_t length)
{
	unsigned int log = 63 - __builtin_clzl(length);

	return bin_of(length + (1ul << (log - 2)) - 1);
}

static void bin_add(struct heap *heap, struct block *block)
{
	unsigned int n = bin_of(block->length);
	struct block **bin = &heap->bins[n];

	block->prev = NULL;
	block->next = *bin;
	if (*bin)
		(*bin)->prev = block;
	*bin = block;
	heap->filled[n / 64] |= 1ul << n % 64;
}

static void bin_remove(struct heap *heap, struct block *block)
{
	unsigned int n = bin_of(block->length);

	if (block->prev)
		block->prev->next = block->next;
	else
		heap->bins[n] = block->next;
	if (block->next)
		block->next->prev = block->prev;
	if (!heap->bins[n])
		heap->filled[n / 64] &= ~(1ul << n % 64);
}

/* Takes a free block out of its list, or NULL. */
static struct block *find_fit(struct heap *heap, size_t length)
{
	unsigned int n = bin_from(length), word = n / 64;
	struct block *block = heap->bins[bin_of(length)];
	uint64_t bits;

	/* Of its own list the first, which was given back last, may do. */
	if (!block || block->length < length) {
		if (n >= NR_BINS)
			return NULL;
		bits = heap->filled[word] & ~0ul << n % 64;
		while (!bits && ++word < NR_WORDS)
			bits = heap->filled[word];
		if (!bits)
			return NULL;
		block = heap->bins[word * 64 + __builtin_ctzl(bits)];
	}
	bin_remove(heap, block);
	return block;
}

/* @block, which has been in use, is free, and one with its neighbours. */
static void release(struct heap *heap, struct block *block)
{
	struct block *other = after(block);

	block->length = length_of(block);
	if ((char *)other != heap->top && !(other->length & IN_USE)) {
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
	if ((char *)after(block) == heap->top) {
		heap->top = (char *)block;
		heap->last = block->before;
		return;
	}
	after(block)->before = block->length;
	bin_add(heap, block);
}

/* Says how long the block in front of @next is. */
static void set_before(struct heap *heap, struct block *next, size_t length)
{
	if ((char *)next == heap->top)
		heap->last = length;
	else
		next->before = length;
}

/* A header, of which nobody knows yet. */
static struct block *write_block(void *at, size_t before, size_t length)
{
	struct block *block = at;

	block->before = before;
	block->length = length;
	return block;
}

/*
 * Cuts @block, of which nobody else knows or which is free, in up to three: a free one of @gap bytes, one
 * in use, which is returned, and what is left behind @length bytes of that, free.
 */
static struct block *carve(struct heap *heap, struct block *block, size_t gap, size_t length)
{
	size_t rest = length_of(block) - gap - length;
	struct block *next = after(block), *used = block, *left = NULL;

	if (!gap && rest < MIN_BLOCK) {
		block->length |= IN_USE;
		return block;
	}
	if (rest >= MIN_BLOCK)
		left = write_block((char *)block + gap + length, length, rest);
	else
		length += rest;
	if (gap)
		used = write_block((char *)block + gap, gap, length | IN_USE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	block->length = gap ? gap : length | IN_USE;
	set_before(heap, next, left ? rest : length);
	if (left)
		release(heap, left);
	if (gap)
		release(heap, block);
	return used;
}

/* The last chunk gets no more: what is left of it is a free block, and ends with a header in use. */
static void retire(struct heap *heap)
{
	struct block *rest = (struct block *)heap->top, *last = rest;
	size_t length = heap->end - heap->top;

	if (length >= MIN_BLOCK)
		last = (struct block *)heap->end;
	last->before = heap->last;
	last->length = HEADER | IN_USE;
	heap->top = NULL;
	heap->end = NULL;
	if (last == rest)
		return;
	rest->before = heap->last;
	rest->length = length | IN_USE;
	last->before = length;
	release(heap, rest);
}

static void chunk_use(struct heap *heap, char *chunk, size_t bytes, size_t skip)
{
	heap->chunks[heap->nr_chunks++] = (struct chunk) { .start = chunk, .bytes = bytes };
	heap->total += bytes;
	heap->top = chunk + skip;
	heap->end = chunk + bytes - HEADER;
	heap->last = 0;
}

static int grow(struct heap *heap, int id, size_t need)
{
	size_t least = (need + HEADER + EPK_PAGE_SIZE - 1) & ~(EPK_PAGE_SIZE - 1), bytes;
	char *chunk = MAP_FAILED;

	if (heap->fixed || heap->nr_chunks == NR_CHUNKS)
		return -ENOMEM;
	bytes = heap->total < DOUBLED ? heap->total : heap->total / 2;
	bytes &= ~(EPK_PAGE_SIZE - 1);
	/* Where limits are near, less will do. */
	while (bytes > least) {
		chunk = domain_mmap(id, NULL, bytes, PROT_READ | PROT_WRITE, 0);
		if (chunk != MAP_FAILED)
			break;
		bytes = bytes / 2 & ~(EPK_PAGE_SIZE - 1);
	}
	if (chunk == MAP_FAILED) {
		bytes = least;
		chunk = domain_mmap(id, NULL, bytes, PROT_READ | PROT_WRITE, 0);
	}
	if (chunk == MAP_FAILED)
		return -errno;
	retire(heap);
	chunk_use(heap, chunk, bytes, 0);
	return 0;
}

/* A new block in use, or NULL with errno set. */
static struct block *cut(struct heap *heap, int id, size_t length)
{
	struct block *block;
	int err;

	if ((size_t)(heap->end - heap->top) < length) {
		err = grow(heap, id, length);
		if (err) {
			errno = -err;
			return NULL;
		}
	}
	block = (struct block *)heap->top;
	block->before = heap->last;
	block->length = length | IN_USE;
	heap->top += length;
	heap->last = length;
	return block;
}

/* How long the free block is that lies in front of an aligned one. */
static size_t gap_before(const struct block *block, size_t align)
{
	uintptr_t start = (uintptr_t)block + HEADER;

	if (align <= ALIGN || !(start % align))
		return 0;
	return ((start + MIN_BLOCK + align - 1) & -align) - start;
}

void *epk_heap_alloc(struct heap *heap, int id, size_t align, size_t size)
{
	size_t length, all;
	struct block *block;

	length = (size + HEADER + ALIGN - 1) & ~(ALIGN - 1);
	if (length < MIN_BLOCK)
		length = MIN_BLOCK;
	all = length + (align > ALIGN ? align + MIN_BLOCK : 0);
	block = find_fit(heap, all);
	if (!block)
		block = cut(heap, id, all);
	if (!block)
		return NULL;
	return (char *)carve(heap, block, gap_before(block, align), length) + HEADER;
}

static const struct chunk *chunk_of(const struct heap *heap, uintptr_t addr)
{
	unsigned int n = heap->nr_chunks;

	while (n--) {
		if (addr - (uintptr_t)heap->chunks[n].start < heap->chunks[n].bytes)
			return &heap->chunks[n];
	}
	return NULL;
}

/*
 * The block of @ptr, or NULL if it is none, or free already.  @ptr may be anything:
 * look at nothing that is not the heap's.
 */
static struct block *block_of(const struct heap *heap, void *ptr)
{
	uintptr_t addr = (uintptr_t)ptr - HEADER, end;
	struct block *block = (struct block *)addr;
	const struct chunk *chunk;
	size_t length;

	chunk = addr % ALIGN ? NULL : chunk_of(heap, addr);
	if (!chunk || (addr >= (uintptr_t)heap && addr < (uintptr_t)heap + HEAP_BYTES))
		return NULL;
	end = (uintptr_t)chunk->start + chunk->bytes - HEADER;
	if (chunk == &heap->chunks[heap->nr_chunks - 1] && heap->top)
		end = (uintptr_t)heap->top;
	if (addr + MIN_BLOCK > end)
		return NULL;
	length = length_of(block);
	if (!(block->length & IN_USE) || length < MIN_BLOCK || length % ALIGN ||
	    length > end - addr)
		return NULL;
	if ((char *)after(block) == heap->top)
		return heap->last == length ? block : NULL;
	return after(block)->before == length ? block : NULL;
}

/* How long the allocation @ptr is, or 0 if it is none. */
size_t epk_heap_size(const struct heap *heap, void *ptr)
{
	const struct block *block = block_of(heap, ptr);

	return block ? length_of(block) - HEADER : 0;
}

int epk_heap_free(struct heap *heap, void *ptr)
{
	struct block *block = block_of(heap, ptr);

	if (!block)
		return -EINVAL;
	release(heap, block);
	return 0;
}

/* A page for what is known of a heap that lies elsewhere; NULL with errno set. */
struct heap *epk_heap_index(int id)
{
	struct heap *heap = domain_mmap(id, NULL, EPK_PAGE_SIZE, PROT_READ | PROT_WRITE, 0);

	if (heap == MAP_FAILED)
		return NULL;
	pthread_mutex_init(&heap->lock, NULL);
	heap->fixed = true;
	__atomic_store_n(&heap->made, true, __ATOMIC_RELEASE);
	return heap;
}

bool epk_heap_is_bare(const struct heap *heap)
{
	return heap->fixed && !heap->nr_chunks;
}

/* @bytes at @start, which nobody has used, are its memory: one free block, and a header in use at the end. */
void epk_heap_format(struct heap *heap, char *start, size_t bytes)
{
	chunk_use(heap, start, bytes, 0);
	retire(heap);
}

/* Is what says so a block of a chunk that ends at @end, or that end? */
static bool is_sane(const struct block *block, const char *end)
{
	size_t length = length_of(block), room = end - (char *)block;

	if (!room)
		return block->length == (HEADER | IN_USE);
	return length >= MIN_BLOCK && length % ALIGN == 0 && length <= room;
}

/*
 * So they are anew.  Of what is there only the lengths are believed, and only if they add up: false
 * if they do not, and nothing has been written.
 */
bool epk_heap_recover(struct heap *heap, char *start, size_t bytes)
{
	char *end = start + bytes - HEADER;
	struct block *block, *last = NULL;
	size_t before = 0;

	for (block = (struct block *)start; (char *)block != end; block = after(block))
		if (!is_sane(block, end))
			return false;
	if (!is_sane(block, end))
		return false;
	chunk_use(heap, start, bytes, 0);
	heap->top = NULL;
	heap->end = NULL;
	for (block = (struct block *)start; (char *)block != end; block = after(block)) {
		if (last && !(last->length & IN_USE) && !(block->length & IN_USE)) {
			last->length += block->length;
			block = last;
		} else {
			block->before = before;
			last = block;
		}
		before = length_of(block);
	}
	block->before = before;
	for (block = (struct block *)start; (char *)block != end; block = after(block))
		if (!(block->length & IN_USE))
			bin_add(heap, block);
	return true;
}

/* NULL with errno set.  It is the domain's when the domain's note says so.  @bytes are whole pages. */
struct heap *epk_heap_make(int id, size_t bytes, bool fixed)
{
	char *chunk = domain_mmap(id, NULL, bytes, PROT_READ | PROT_WRITE, 0);
	struct heap *heap = (struct heap *)chunk;

	if (chunk == MAP_FAILED)
		return NULL;
	pthread_mutex_init(&heap->lock, NULL);
	heap->fixed = fixed;
	chunk_use(heap, chunk, bytes, HEAP_BYTES);
	__atomic_store_n(&heap->made, true, __ATOMIC_RELEASE);
	return heap;
}

void epk_heap_unmake(struct heap *heap, size_t bytes)
{
	domain_munmap(heap, bytes);
}

void epk_heap_lock(struct heap *heap)
{
	(void)__atomic_load_n(&heap->made, __ATOMIC_ACQUIRE);
	pthread_mutex_lock(&heap->lock);
}

void epk_heap_unlock(struct heap *heap)
{
	pthread_mutex_unlock(&heap->lock);
}
