// SPDX-License-Identifier: MIT
/*
 * Memory gets a key, another one, or none, at the same address and with its contents.  What another thread
 * does there meanwhile faults: nothing that it writes is lost.  All under the lock of changes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "pkeys.h"

static uintptr_t min(uintptr_t left, uintptr_t right)
{
	return left < right ? left : right;
}

static long raw_mprotect(uintptr_t start, size_t len, int prot)
{
	return pkeys_raw(SYS_mprotect, start, len, prot, 0, 0, 0);
}

static long raw_move(uintptr_t from, size_t len, uintptr_t to)
{
	return pkeys_raw(SYS_mremap, from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to, 0);
}

static void raw_munmap(uintptr_t start, size_t len)
{
	pkeys_raw(SYS_munmap, start, len, 0, 0, 0, 0);
}

static bool failed(long ret)
{
	return ret < 0 && ret > -4096;
}

static bool is_zero(const char *page)
{
	static const char zero[PAGE];

	return !memcmp(page, zero, PAGE);
}

/* To new memory: what is zero is so already, and needs none. */
static void copy_pages(char *to, const char *from, size_t len)
{
	size_t at;

	for (at = 0; at < len; at += PAGE)
		if (!is_zero(from + at))
			memcpy(to + at, from + at, PAGE);
}

/*
 * New memory that nobody can access, of a domain that is held to write: what it is to have, and what it may be from
 * then on.  What is zero is so already.
 */
static int fill(uintptr_t start, const char *from, size_t len, int prot)
{
	size_t at, end;
	int err;

	for (at = 0; at < len; at = end) {
		end = at + PAGE;
		if (is_zero(from + at))
			continue;
		while (end < len && !is_zero(from + end))
			end += PAGE;
		err = epk_fill((void *)(start + at), from + at, end - at);
		if (err)
			return err;
	}
	return prot ? epk_mprotect((void *)start, len, prot) : 0;
}

/* Of a file, by a system call: where the file has ended there is nothing, and no SIGBUS. */
static bool copy_file_pages(uintptr_t to, uintptr_t from, size_t len)
{
	long pid = pkeys_raw(SYS_getpid, 0, 0, 0, 0, 0, 0), ret = 0;
	size_t at;

	for (at = 0; at < len && (ret >= 0 || ret == -EFAULT); at += PAGE) {
		struct iovec source = { (void *)(from + at), PAGE }, target = { (void *)(to + at), PAGE };

		ret = pkeys_raw(SYS_process_vm_writev, pid, (long)&source, 1, (long)&target, 1, 0);
	}
	return ret >= 0 || ret == -EFAULT;
}

/*
 * To where nobody can access anything, and nothing is.  Near the most mappings that there can be the kernel moves
 * nothing: then it is copied.
 */
static bool move_to(uintptr_t start, uintptr_t aside, size_t len, int prot, bool file)
{
	bool copied;

	if (!failed(raw_move(aside, len, start)))
		return !failed(raw_mprotect(start, len, prot));
	copied = !failed(raw_mprotect(aside, len, PROT_READ)) && !failed(raw_mprotect(start, len, RW));
	if (copied && file)
		copied = copy_file_pages(start, aside, len);
	else if (copied)
		copy_pages((char *)start, (const char *)aside, len);
	raw_munmap(aside, len);
	return !failed(raw_mprotect(start, len, copied ? prot : PROT_NONE)) && copied;
}

/* What is there goes aside, page table entries and all, and comes back if the domain has no room. */
static int move_in(const struct vma *vma, uintptr_t start, size_t len, int prot, int id)
{
	long aside;
	int err;

	if (failed(raw_mprotect(start, len, PROT_NONE)))
		return -ENOMEM;
	aside = pkeys_raw(SYS_mremap, start, len, len, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0, 0);
	if (failed(aside)) {
		err = aside == -ENOMEM ? -ENOMEM : -EACCES;
		goto protect;
	}
	if (failed(raw_mprotect(aside, len, PROT_READ))) {
		err = -ENOMEM;
		goto move_back;
	}
	/* Where the file has an end before that of its memory, there is nothing to copy. */
	if (vma->file && failed(pkeys_raw(SYS_madvise, aside, len, MADV_POPULATE_READ, 0, 0, 0))) {
		err = -EACCES;
		goto move_back;
	}
	if (domain_mmap(id, (void *)start, len, PROT_NONE, MAP_FIXED) == MAP_FAILED) {
		err = -errno;
		goto move_back;
	}
	err = fill(start, (const char *)aside, len, prot);
	/* What stays the domain's is for nobody else to lie over. */
	if (err && !epk_munmap_reserve((void *)start, len))
		goto move_back;
	raw_munmap(aside, len);
	return err;

move_back:
	move_to(start, aside, len, vma->prot, vma->file);
	return err;
protect:
	raw_mprotect(start, len, vma->prot);
	return err;
}

/* Ordinary memory gets a key. */
static int adopt(uintptr_t start, uintptr_t end, int prot, unsigned int slot)
{
	int id = pkeys_books->keys[slot].id, err;
	struct vma vma;
	struct hold held;
	uintptr_t stop;

	for (; start < end; start = stop) {
		if (!pkeys_vma_find(start, &vma) || vma.start > start)
			return -ENOMEM;
		stop = min(vma.end, end);
		if (vma.shared || vma.special)
			return -EACCES;
		if (!pkeys_regions_have_room())
			return -ENOMEM;
		err = pkeys_hold(&held, id, RW, 0);
		if (err)
			return err;
		err = move_in(&vma, start, stop - start, prot, id);
		pkeys_unhold(&held);
		if (!err)
			pkeys_region_note(start, stop, prot, slot);
		else if (epk_domain_at((void *)start) == id)
			pkeys_region_note(start, stop, PROT_NONE, slot);
		if (err)
			return err;
	}
	return 0;
}

/* What filling @mem takes, which nobody can access yet, is there: the domain's memory, and a way to write to it. */
static int try_fill(char *mem)
{
	static const char zero[PAGE];

	return epk_fill(mem, zero, PAGE);
}

/*
 * By way of more memory of the domain that it goes to: nobody reads it in between.  As long as the contents are
 * where they were, an error leaves them there; after that they are nowhere that a program finds them.
 */
static int move_over(const struct region *region, int prot, int id)
{
	size_t len = region->end - region->start;
	void *start = (void *)region->start;
	char *between = domain_mmap(id, NULL, len, PROT_NONE, 0);
	int err;

	if (between == MAP_FAILED)
		return -errno;
	err = try_fill(between);
	if (!err)
		err = epk_mprotect(between, len, RW);
	if (err)
		goto unmap;
	/* Who writes there now is told. */
	err = epk_mprotect(start, len, PROT_READ);
	if (err)
		goto unmap;
	copy_pages(between, start, len);
	err = epk_munmap_reserve(start, len);
	if (err) {
		epk_mprotect(start, len, region->prot & RW);
		goto unmap;
	}
	if (domain_mmap(id, start, len, PROT_NONE, MAP_FIXED) == MAP_FAILED) {
		err = -errno;
		goto unmap;
	}
	err = fill(region->start, between, len, prot);
	/* Not a part of it. */
	if (err)
		epk_munmap_reserve(start, len);
unmap:
	domain_munmap(between, len);
	return err;
}

static int rekey(const struct region *region, int prot, unsigned int slot)
{
	int from = pkeys_books->keys[region->slot].id, to = pkeys_books->keys[slot].id, err;
	struct hold source, target;

	err = pkeys_hold(&source, from, PROT_READ, to);
	if (err)
		return err;
	err = pkeys_hold(&target, to, RW, from);
	if (!err) {
		err = move_over(region, prot, to);
		pkeys_unhold(&target);
	}
	pkeys_unhold(&source);
	return err;
}

static int move_out(const struct region *region, int prot)
{
	size_t len = region->end - region->start;
	void *start = (void *)region->start;
	long aside = pkeys_raw(SYS_mmap, 0, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err;

	if (failed(aside))
		return -ENOMEM;
	err = epk_mprotect(start, len, PROT_READ);
	if (err)
		goto unmap;
	copy_pages((char *)aside, start, len);
	err = failed(raw_mprotect(aside, len, prot)) ? -ENOMEM : epk_munmap_reserve(start, len);
	if (!err)
		return move_to(region->start, aside, len, prot, false) ? 0 : -ENOMEM;
	epk_mprotect(start, len, region->prot & RW);
unmap:
	raw_munmap(aside, len);
	return err;
}

static int expel(const struct region *region, int prot)
{
	struct hold source;
	int err;

	err = pkeys_hold(&source, pkeys_books->keys[region->slot].id, PROT_READ, 0);
	if (err)
		return err;
	err = move_out(region, prot);
	pkeys_unhold(&source);
	return err;
}

/* A region, or what of it lies in the range. */
static void clip(struct region *region, uintptr_t start, uintptr_t end)
{
	if (region->start < start)
		region->start = start;
	region->end = min(region->end, end);
}

/* After an error: the books say what there is. */
static void note_what_is(const struct region *region, unsigned int slot)
{
	int id = epk_domain_at((void *)region->start);

	if (id < 0 || id == pkeys_books->keys[region->slot].id)
		return;
	if (!id || id != pkeys_books->keys[slot].id)
		slot = NO_SLOT;
	pkeys_region_note(region->start, region->end, PROT_NONE, slot);
}

/* One that has a key already. */
static int change(const struct region *region, int prot, unsigned int slot)
{
	int err;

	if (!pkeys_regions_have_room())
		return -ENOMEM;
	if (slot == region->slot)
		err = epk_mprotect((void *)region->start, region->end - region->start, prot & RW);
	else
		err = slot ? rekey(region, prot, slot) : expel(region, prot);
	if (err)
		note_what_is(region, slot);
	else
		pkeys_region_note(region->start, region->end, prot, slot);
	if (slot != region->slot)
		pkeys_key_release(region->slot);
	return err;
}

/* Is all of it mapped, and of a kind that can have a key? */
static int check(uintptr_t start, uintptr_t end)
{
	uintptr_t here = (uintptr_t)&start;
	struct region region;
	struct vma vma;

	/* Nobody could go on without the stack that this runs on. */
	if (here >= start && here < end)
		return -EACCES;
	while (start < end) {
		if (pkeys_region_find(start, start + PAGE, &region)) {
			start = region.end;
			continue;
		}
		if (!pkeys_vma_find(start, &vma) || vma.start > start)
			return -ENOMEM;
		if (vma.shared || vma.special)
			return -EACCES;
		start = pkeys_region_find(start, vma.end, &region) ? region.start : vma.end;
	}
	return 0;
}

/* Where the part at @start ends: the @region that begins there, or what lies before the next. */
static uintptr_t next_part(uintptr_t start, uintptr_t end, struct region *region)
{
	if (!pkeys_region_find(start, end, region)) {
		region->start = end;
		region->end = end;
	}
	clip(region, start, end);
	return region->start > start ? region->start : region->end;
}

/* pkey_mprotect(); NO_SLOT for key 0. */
int pkeys_memory_key(uintptr_t start, uintptr_t end, int prot, unsigned int slot)
{
	struct region region;
	uintptr_t stop;
	int err;

	err = slot ? check(start, end) : 0;
	for (; !err && start < end; start = stop) {
		stop = next_part(start, end, &region);
		if (region.start == start)
			err = change(&region, prot, slot);
		else if (slot)
			err = adopt(start, stop, prot, slot);
		else
			err = failed(raw_mprotect(start, stop - start, prot)) ? -ENOMEM : 0;
	}
	return err;
}

/* mprotect(): the keys stay. */
int pkeys_memory_protect(uintptr_t start, uintptr_t end, int prot)
{
	struct region region;
	uintptr_t stop;
	long ret;

	for (; start < end; start = stop) {
		stop = next_part(start, end, &region);
		if (region.start == start && prot & PROT_EXEC)
			return -EACCES;
		ret = region.start == start ? change(&region, prot, region.slot) :
					      raw_mprotect(start, stop - start, prot);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* munmap() of all of it; or only of what has a key, whose place is kept for what is to lie there. */
int pkeys_memory_drop(uintptr_t start, uintptr_t end, bool reserve)
{
	struct region region;
	uintptr_t stop;
	long ret = 0;

	for (; start < end; start = stop) {
		stop = next_part(start, end, &region);
		if (region.start == start) {
			if (!pkeys_regions_have_room())
				return -ENOMEM;
			ret = reserve ? epk_munmap_reserve((void *)start, stop - start) :
					domain_munmap((void *)start, stop - start);
			if (!ret)
				pkeys_region_note(start, stop, 0, NO_SLOT);
			pkeys_key_release(region.slot);
		} else if (!reserve) {
			ret = pkeys_raw(SYS_munmap, start, stop - start, 0, 0, 0, 0);
		}
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* A key that was freed, and has no memory any more. */
void pkeys_key_release(unsigned int slot)
{
	const union key key = pkeys_books->keys[slot];
	int id = key.id;

	if (key.value || !id || pkeys_books->bytes[slot])
		return;
	pkeys_rights_set(id, PROT_NONE);
	/* "mpk": another thread has it open. */
	if (free_domains(1, &id))
		return;
	pkeys_key_write(slot, 0, 0);
	pkeys_books->nr_slots--;
}
