// SPDX-License-Identifier: MIT
/* epk_malloc() and its like: hold the domain, find its heap, check what is asked. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "backend.h"
#include "component.h"
#include "heap.h"

#define MAX_SIZE	(1ul << 46)
#define MAX_ALIGN	(1ul << 30)

/* Holds @id for writing.  1: the thread did so already. */
int epk_heap_hold(int id)
{
	int held = epk_held_prot(id);

	if (held > 0)
		return held & PROT_WRITE ? 1 : epk_because(EPK_CAUSE_READ_ONLY);
	held = domain_begin(id, PROT_READ | PROT_WRITE);
	return likely(!held) ? 0 : epk_because_of(held);
}

void epk_heap_unhold(int id, int held)
{
	if (!held)
		domain_end(id);
}

/* Where it is said where the heap of @id lies, which the thread holds: in a component's header. */
static struct heap **heap_word(int id)
{
	return epk_note_is_private(id) ? &epk_component_of(id)->heap : NULL;
}

/* NULL if it has none yet. */
struct heap *epk_heap_find(int id)
{
	struct heap **word = heap_word(id);

	return word ? __atomic_load_n(word, __ATOMIC_ACQUIRE) : (struct heap *)epk_note(id);
}

/* -EBUSY if another thread is quicker. */
int epk_heap_set(int id, struct heap *heap)
{
	struct heap **word = heap_word(id), *none = NULL;

	if (!word)
		return epk_ops()->note(id, (uintptr_t)heap);
	return __atomic_compare_exchange_n(word, &none, heap, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE) ? 0 : -EBUSY;
}

static struct heap *heap_of(int id)
{
	struct heap *heap = epk_heap_find(id);
	int err;

	if (heap)
		return heap;
	heap = epk_heap_make(id, EPK_PAGE_SIZE, false);
	if (!heap)
		return NULL;
	err = epk_heap_set(id, heap);
	if (err) {
		/* Another thread is quicker, or has freed the domain. */
		epk_heap_unmake(heap, EPK_PAGE_SIZE);
		heap = err == -EBUSY ? epk_heap_find(id) : NULL;
		errno = -err;
	}
	return heap;
}

static void *failed(int id, int err)
{
	errno = -epk_explain("an allocation", id, err);
	return NULL;
}

static void *allocate(int id, size_t align, size_t size)
{
	int saved_errno = errno, held;
	struct heap *heap;
	void *got = NULL;

	if (size > MAX_SIZE)
		return failed(id, -ENOMEM);
	held = epk_heap_hold(id);
	if (held < 0)
		return failed(id, held);
	heap = heap_of(id);
	if (heap) {
		epk_heap_lock(heap);
		got = epk_heap_alloc(heap, id, align, size);
		epk_heap_unlock(heap);
	}
	epk_heap_unhold(id, held);
	if (got)
		errno = saved_errno;
	return got;
}

void *epk_malloc(int dom_id, size_t size)
{
	return allocate(dom_id, 0, size);
}

void *epk_calloc(int dom_id, size_t nr, size_t size)
{
	size_t bytes;
	void *got;
	int held;

	if (__builtin_mul_overflow(nr, size, &bytes))
		return failed(dom_id, -ENOMEM);
	held = epk_heap_hold(dom_id);
	if (held < 0)
		return failed(dom_id, held);
	got = allocate(dom_id, 0, bytes);
	if (got)
		memset(got, 0, bytes);
	epk_heap_unhold(dom_id, held);
	return got;
}

void *epk_memalign(int dom_id, size_t align, size_t size)
{
	if (!align || align & (align - 1) || align > MAX_ALIGN)
		return failed(dom_id, epk_because(EPK_CAUSE_ALIGN));
	return allocate(dom_id, align, size);
}

int epk_free(int dom_id, void *ptr)
{
	int saved_errno = errno, held, err = 0;
	struct heap *heap;

	if (!ptr)
		return 0;
	held = epk_heap_hold(dom_id);
	if (held < 0)
		return epk_explain("epk_free", dom_id, held);
	heap = epk_heap_find(dom_id);
	if (heap) {
		epk_heap_lock(heap);
		err = epk_heap_free(heap, ptr);
		epk_heap_unlock(heap);
	}
	epk_heap_unhold(dom_id, held);
	if (!heap || err == -EINVAL)
		err = epk_because(EPK_CAUSE_POINTER);
	errno = saved_errno;
	return epk_explain("epk_free", dom_id, err);
}

/* How long the allocation @ptr is, or 0 if it is none. */
static size_t size_of(int id, void *ptr)
{
	struct heap *heap = epk_heap_find(id);
	size_t size;

	if (!heap)
		return 0;
	epk_heap_lock(heap);
	size = epk_heap_size(heap, ptr);
	epk_heap_unlock(heap);
	return size;
}

void *epk_realloc(int dom_id, void *ptr, size_t size)
{
	void *got;
	size_t old;
	int held;

	if (!ptr)
		return epk_malloc(dom_id, size);
	held = epk_heap_hold(dom_id);
	if (held < 0)
		return failed(dom_id, held);
	old = size_of(dom_id, ptr);
	got = old ? ptr : NULL;
	if (!old)
		failed(dom_id, epk_because(EPK_CAUSE_POINTER));
	else if (size > old)
		got = allocate(dom_id, 0, size);
	if (got && got != ptr) {
		memcpy(got, ptr, old);
		epk_free(dom_id, ptr);
	}
	epk_heap_unhold(dom_id, held);
	return got;
}

size_t epk_usable_size(int dom_id, void *ptr)
{
	int saved_errno = errno, held;
	size_t size;

	if (!ptr)
		return 0;
	held = epk_heap_hold(dom_id);
	if (held < 0) {
		failed(dom_id, held);
		return 0;
	}
	size = size_of(dom_id, ptr);
	epk_heap_unhold(dom_id, held);
	errno = saved_errno;
	if (!size)
		failed(dom_id, epk_because(EPK_CAUSE_POINTER));
	return size;
}
