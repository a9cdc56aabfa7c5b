// SPDX-License-Identifier: MIT
/* epk_snapshot() and its like: snapshots come and go, and are found by their numbers. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "aside.h"
#include "dirty.h"
#include "heap.h"
#include "snapshot.h"

#define PROT_RW		(PROT_READ | PROT_WRITE)
/* Where the kernel has its own. */
#define EPK_ADDRESSES	0x7ffffffff000ull

/* A thread that is cancelled ends behind a call, not in it, where it holds the copy and the snapshot is in use. */
struct before {
	int saved_errno;
	int cancel;
};

static struct before call_begin(void)
{
	struct before before = { .saved_errno = errno };

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before.cancel);
	return before;
}

static int call_end(const struct before *before, const char *call, long of, int err)
{
	errno = before->saved_errno;
	err = err < 0 ? epk_explain(call, of, err) : err;
	pthread_setcancelstate(before->cancel, NULL);
	return err;
}

static size_t whole_pages(size_t bytes)
{
	return (bytes + EPK_PAGE_SIZE - 1) & -EPK_PAGE_SIZE;
}

/* Of the domain @id, which the thread holds.  @magic: or what else it may be. */
static int find(int id, uint64_t magic, struct epk_kept **kept)
{
	uint64_t note = epk_note(id);

	*kept = (struct epk_kept *)(note + EPK_KEPT_AT);
	/* Others keep something else there, or nothing; or, in a heap, what may have come from anywhere. */
	if (!note || note % EPK_PAGE_SIZE || !epk_heap_is_bare((struct heap *)note) ||
	    ((*kept)->magic != EPK_KEPT && (*kept)->magic != magic))
		return epk_because(EPK_CAUSE_SNAPSHOT);
	if (__atomic_exchange_n(&(*kept)->busy, 1, __ATOMIC_ACQUIRE))
		return epk_because(EPK_CAUSE_SNAPSHOT_BUSY);
	return 0;
}

/* What is known of it, and the thread holds its domain, until leave(). */
static int enter(int id, uint64_t magic, struct epk_kept **kept)
{
	struct epk_entry entry;
	int err = epk_lookup(id, &entry);

	if (err)
		return err;
	if (epk_note_is_private(id))
		return epk_because(EPK_CAUSE_SNAPSHOT);
	/* Of what is held already somebody makes use as of a domain. */
	err = domain_begin(id, PROT_RW);
	if (err)
		return epk_because_of(err);
	err = find(id, magic, kept);
	if (err)
		domain_end(id);
	return err;
}

static void leave(int id, struct epk_kept *kept)
{
	__atomic_store_n(&kept->busy, 0, __ATOMIC_RELEASE);
	domain_end(id);
}

/* Room for the copy and the books, in the domain @id, which the thread holds. */
static int make_kept(int id, const struct epk_pieces *pieces, struct epk_kept **kept)
{
	size_t list = whole_pages(pieces->nr * sizeof(*pieces->list)), bits = whole_pages((pieces->pages + 63) / 64 * 8);
	struct heap *heap = epk_heap_index(id);
	size_t bytes = list + bits + pieces->pages * EPK_PAGE_SIZE;
	char *area;

	if (!heap)
		return epk_because_of_call();
	area = domain_mmap(id, NULL, bytes ? bytes : EPK_PAGE_SIZE, PROT_RW, 0);
	if (area == MAP_FAILED)
		return epk_because_of_call();
	*kept = (struct epk_kept *)((char *)heap + EPK_KEPT_AT);
	**kept = (struct epk_kept){
		.magic = EPK_KEPT, .busy = 1, .pieces = (struct epk_piece *)area, .nr = pieces->nr, .pages = pieces->pages,
		.pending = (uint64_t *)(area + list), .copy = area + list + bits, .bytes = bytes,
	};
	memcpy(area, pieces->list, pieces->nr * sizeof(*pieces->list));
	/* All is to be copied. */
	memset((*kept)->pending, 0xff, bits);
	return epk_heap_set(id, heap);
}

static int take_first(int id, int dom, const struct epk_pieces *pieces)
{
	size_t len = pieces->list->end - pieces->list->start;
	struct epk_dirty *dirty = NULL;
	struct epk_kept *kept = NULL;
	int err = make_kept(id, pieces, &kept);

	if (err)
		return err;
	kept->dom = dom;
	if (dom) {
		kept->note = epk_note(dom);
	} else if (!epk_dirty_start((void *)pieces->list->start, len, &dirty)) {
		/* What is written to from now on is told. */
		epk_dirty_own(dirty);
		kept->dirty = dirty;
	}
	err = epk_kept_copy(kept, false);
	if (err && dirty)
		epk_dirty_stop(dirty);
	__atomic_store_n(&kept->busy, 0, __ATOMIC_RELEASE);
	return err;
}

/* Returns the snapshot. */
static int take(int dom, const struct epk_pieces *pieces)
{
	int id, err = epk_fork_check();

	if (err)
		return err;
	err = dom ? epk_alloc_beside(1, &id, dom) : alloc_domains(1, &id);
	if (err)
		return epk_because_of(err);
	err = domain_begin(id, PROT_RW);
	if (err) {
		err = epk_because_of(err);
	} else {
		err = take_first(id, dom, pieces);
		domain_end(id);
	}
	if (!err)
		return id;
	free_domains(1, &id);
	return err;
}

/* The library goes by it meanwhile. */
static bool has_own(uintptr_t start, uintptr_t end)
{
	uintptr_t own[] = { (uintptr_t)&epk_lock, (uintptr_t)&epk_dirty_lock, (uintptr_t)&epk_dirty_list };
	unsigned int i;

	for (i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (start <= own[i] && own[i] < end)
			return true;
	/* What threads hold would be what they held. */
	return start < (uintptr_t)(epk_slots + EPK_SLOTS) && (uintptr_t)epk_slots < end;
}

int epk_snapshot(void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;
	struct epk_piece all = { .start = start, .end = start + whole_pages(len), .kept = true };
	struct epk_pieces pieces = { .list = &all, .nr = 1, .pages = whole_pages(len) / EPK_PAGE_SIZE };
	struct before before = call_begin();
	int err = 0;

	if (start % EPK_PAGE_SIZE)
		err = epk_because(EPK_CAUSE_PAGE);
	else if (!len)
		err = epk_because(EPK_CAUSE_LEN);
	else if (whole_pages(len) < len || all.end < start || all.end > EPK_ADDRESSES)
		err = -EOVERFLOW;
	else if (has_own(start, all.end))
		err = epk_because(EPK_CAUSE_SNAPSHOT_OWN);
	/* Before there is anything that could come to lie in a gap of it. */
	err = err ?: epk_fork_check() ?: epk_plain_check(start, all.end) ?: take(0, &pieces);
	return call_end(&before, "epk_snapshot", (long)addr, err);
}

/* The caller may read it, and reach two domains at a time. */
static int check_domain(int dom)
{
	struct epk_entry entry;
	int err = epk_lookup(dom, &entry), prot;

	if (err)
		return err;
	if (epk_note_is_private(dom))
		return -EPERM;
	if (!epk_now.ops->in_module && epk_now.fd >= 0)
		return epk_because(EPK_CAUSE_SNAPSHOT_ONE);
	prot = epk_held_prot(dom);
	return prot > 0 ? 0 : prot ?: -EACCES;
}

int epk_snapshot_domain(int dom_id)
{
	struct before before = call_begin();
	int err = check_domain(dom_id);
	struct epk_pieces pieces;

	if (!err) {
		err = epk_pieces_of(dom_id, &pieces) ?: take(dom_id, &pieces);
		epk_pieces_free(&pieces);
	}
	return call_end(&before, "epk_snapshot_domain", dom_id, err);
}

static int copy(const char *call, int id, bool back)
{
	struct before before = call_begin();
	struct epk_kept *kept;
	int err = enter(id, EPK_KEPT, &kept);

	if (!err) {
		err = epk_kept_copy(kept, back);
		leave(id, kept);
	}
	return call_end(&before, call, id, err);
}

int epk_snapshot_renew(int snapshot)
{
	return copy("epk_snapshot_renew", snapshot, false);
}

int epk_rollback(int snapshot)
{
	return copy("epk_rollback", snapshot, true);
}

/* The module zeroes what it frees. */
static void wipe(struct epk_kept *kept)
{
	if (!epk_now.ops->in_module)
		explicit_bzero(kept->copy, kept->pages * EPK_PAGE_SIZE);
}

/* What cannot be freed now brings nothing back any more, but can be freed later. */
static int release(int id)
{
	struct epk_dirty *dirty;
	struct epk_kept *kept;
	int err = enter(id, EPK_KEPT_WIPED, &kept);

	if (err)
		return err;
	wipe(kept);
	dirty = kept->dirty;
	kept->dirty = NULL;
	kept->pages = 0;
	kept->magic = EPK_KEPT_WIPED;
	leave(id, kept);
	if (dirty)
		epk_dirty_stop(dirty);
	err = free_domains(1, &id);
	return err ? epk_because_of(err) : 0;
}

int epk_snapshot_free(int snapshot)
{
	struct before before = call_begin();

	return call_end(&before, "epk_snapshot_free", snapshot, release(snapshot));
}
