// SPDX-License-Identifier: MIT
/*
 * A forked child has a copy of all memory, with its keys, and the rights of the thread that forked.  Domains
 * are not inherited: the parent leaves the contents of its memory in a file without a name, which both close before
 * fork() returns, and the child makes domains of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pkeys.h"

static int file = -1;

/* No calls of the C library, in which a thread can be cancelled. */
static bool page_io(long nr, const char *page, off_t offset)
{
	return pkeys_raw(nr, file, (long)page, PAGE, offset, 0, 0) == (long)PAGE;
}

static void close_file(void)
{
	if (file >= 0)
		pkeys_raw(SYS_close, file, 0, 0, 0, 0, 0);
	file = -1;
}

/* Pages that are zero are holes. */
static bool write_pages(const char *from, size_t len, off_t offset)
{
	static const char zero[PAGE];
	size_t at;

	for (at = 0; at < len; at += PAGE)
		if (memcmp(from + at, zero, PAGE) && !page_io(SYS_pwrite64, from + at, offset + at))
			return false;
	return true;
}

/* What is not the key's memory is not read: nobody could tell of a fault, with signals blocked. */
static bool save_region(const struct region *region, off_t offset)
{
	int id = pkeys_books->keys[region->slot].id;
	size_t len = region->end - region->start;
	bool readable = region->prot & PROT_READ, saved;
	struct hold held;

	if (epk_domain_at((void *)region->start) != id || pkeys_hold(&held, id, PROT_READ, 0))
		return false;
	saved = readable || !epk_mprotect((void *)region->start, len, PROT_READ);
	if (saved)
		saved = write_pages((const char *)region->start, len, offset);
	if (!readable)
		epk_mprotect((void *)region->start, len, region->prot);
	pkeys_unhold(&held);
	return saved;
}

/* What the thread may do, for the child. */
static void save_rights(void)
{
	unsigned int slot;
	int id;

	for (slot = 1; slot < SLOTS; slot++) {
		id = pkeys_books->keys[slot].id;
		pkeys_books->held[slot] = id ? epk_held_prot(id) : PROT_NONE;
	}
}

/* Beyond RLIMIT_FSIZE there is a signal, too, that nobody has asked for. */
static void give_up(void)
{
	pkeys_too_large();
	close_file();
}

static void save(void)
{
	const struct region *region = pkeys_books->regions;
	off_t offset = 0;
	unsigned int n;

	file = pkeys_raw(SYS_memfd_create, (long)"libepk-pkeys", MFD_CLOEXEC, 0, 0, 0, 0);
	if (file < 0)
		return;
	for (n = 0; n < pkeys_books->nr_regions; n++, region++) {
		if (!save_region(region, offset)) {
			give_up();
			return;
		}
		offset += region->end - region->start;
	}
	if (pkeys_raw(SYS_ftruncate, file, offset, 0, 0, 0, 0))
		give_up();
}

static bool is_in_use(void)
{
	return pkeys_books && pkeys_books->nr_slots;
}

static void prepare(void)
{
	pkeys_fork_lock();
	if (!is_in_use())
		return;
	pkeys_inside = true;
	pkeys_books_open();
	save_rights();
	if (pkeys_books->nr_regions)
		save();
	pkeys_books_close();
}

static void drop_file(void)
{
	close_file();
	pkeys_inside = false;
	pkeys_fork_unlock();
}

/* Only what is not a hole: memory that is zero needs none. */
static bool read_pages(char *to, size_t len, off_t offset)
{
	off_t at = offset, end = offset + len, stop;

	while (at < end) {
		at = pkeys_raw(SYS_lseek, file, at, SEEK_DATA, 0, 0, 0);
		if (at < 0)
			return at == -ENXIO;
		if (at >= end)
			return true;
		stop = at + PAGE;
		if (!page_io(SYS_pread64, to + (at - offset), at))
			return false;
		at = stop;
	}
	return true;
}

static bool load_region(const struct region *region, off_t offset)
{
	int id = pkeys_books->keys[region->slot].id;
	size_t len = region->end - region->start;
	struct hold held;
	bool loaded;

	if (domain_mmap(id, (void *)region->start, len, RW, MAP_FIXED) == MAP_FAILED)
		return false;
	loaded = !pkeys_hold(&held, id, RW, 0) && read_pages((char *)region->start, len, offset);
	pkeys_unhold(&held);
	if (loaded && region->prot != RW)
		loaded = !epk_mprotect((void *)region->start, len, region->prot & RW);
	/* Not a part of it. */
	if (!loaded)
		epk_munmap_reserve((void *)region->start, len);
	return loaded;
}

/* Nothing else of the child's may come where the parent's memory is; unless it has already. */
static bool reserve_all(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
	const struct region *region = pkeys_books->regions;
	unsigned int n;

	for (n = 0; n < pkeys_books->nr_regions; n++, region++)
		if (pkeys_raw(SYS_mmap, region->start, region->end - region->start, PROT_NONE, flags,
			      -1, 0) != (long)region->start)
			return false;
	return true;
}

/* A domain for each key. */
static bool load_keys(void)
{
	const struct epk_options options = { .size = sizeof(options), .flags = EPK_NO_SIGNAL_HANDLER };
	int id, err = epk_init(&options);
	unsigned int slot;

	if (err && err != -EALREADY)
		return false;
	for (slot = 1; slot < SLOTS; slot++) {
		if (!pkeys_books->keys[slot].id)
			continue;
		if (alloc_domains(1, &id))
			return false;
		pkeys_key_write(slot, pkeys_books->keys[slot].value, id);
		pkeys_books->slot_of[(unsigned int)id % INDICES] = slot;
	}
	return true;
}

static bool load(void)
{
	const struct region *region = pkeys_books->regions;
	unsigned int n, slot;
	off_t offset = 0;

	if (!reserve_all() || !load_keys() || (pkeys_books->nr_regions && file < 0))
		return false;
	for (n = 0; n < pkeys_books->nr_regions; n++, region++) {
		if (!load_region(region, offset))
			return false;
		offset += region->end - region->start;
	}
	for (slot = 1; slot < SLOTS; slot++)
		if (pkeys_books->held[slot])
			pkeys_rights_set(pkeys_books->keys[slot].id, pkeys_books->held[slot]);
	return true;
}

/* What is no domain's memory has no key, and what has no domain is no key. */
static void forget_rest(void)
{
	struct region region;
	unsigned int slot;
	uintptr_t at = 0;
	int ept;

	for (; pkeys_region_find(at, UINTPTR_MAX, &region); at = region.end)
		if (!epk_domain_at((void *)region.start))
			pkeys_region_note(region.start, region.end, PROT_NONE, NO_SLOT);
	for (slot = 1; slot < SLOTS; slot++) {
		if (!pkeys_books->keys[slot].id || !epk_domain_place(pkeys_books->keys[slot].id, &ept, NULL))
			continue;
		pkeys_key_write(slot, 0, 0);
		pkeys_books->nr_slots--;
	}
}

static void child(void)
{
	if (is_in_use()) {
		pkeys_books_open();
		if (!load()) {
			forget_rest();
			pkeys_say("a forked child has not all of its parent's memory with keys: what it lacks is inaccessible");
		}
		pkeys_books_close();
	}
	drop_file();
}

void pkeys_fork_setup(void)
{
	pthread_atfork(prepare, drop_file, child);
}
