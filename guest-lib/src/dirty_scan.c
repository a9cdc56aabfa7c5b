// SPDX-License-Identifier: MIT
/*
 * Which pages were written to, by later kernels: userfaultfd write-protects the pages, the kernel resolves
 * the first write to each by itself (UFFD_FEATURE_WP_ASYNC), and PAGEMAP_SCAN tells and protects again in one
 * step, page by page, under the page table's lock.  So threads may run.
 *
 * A mapping that is made later, or moved here, does not belong to the userfaultfd: that is how it is told from
 * others, and counts as written to.  What has no page and no mark of the userfaultfd either has lost what it
 * had, by MADV_DONTNEED for example.  Linux 6.7 did not tell that; where the kernel does not, this is no engine.
 * Of a private mapping of a file no kernel tells, as the mark stays, and so all of that counts as written to each time.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dirty.h"
#include "state.h"

/* <linux/fs.h> and <linux/userfaultfd.h> of Linux 6.7. */
struct page_region_67 {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

struct pm_scan_67 {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define PAGEMAP_SCAN_67		_IOWR('f', 16, struct pm_scan_67)
#define SCAN_PROTECT		(1u << 0)
#define IS_OURS			(1u << 0)
#define IS_WRITTEN		(1u << 1)
#define IS_PRESENT		(1u << 3)
#define IS_SWAPPED		(1u << 4)
#define FEATURE_WP_UNPOPULATED	(1ull << 13)
#define FEATURE_WP_ASYNC	(1ull << 15)
#define USER_MODE_ONLY		1
/* It has a whole page table's range. */
#define PROBE			(4ul << 20)

/* A userfaultfd, or an error.  It handles no fault, so that who may have it for faults in user mode alone may have it. */
static int open_uffd(void)
{
	uint64_t features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY), err;

	if (fd < 0)
		return -errno;
	if (!ioctl(fd, UFFDIO_API, &api) && (api.features & features) == features)
		return fd;
	err = errno;
	syscall(SYS_close, fd);
	return err == EINVAL ? -EOPNOTSUPP : -err;
}

/* Each time anew: what other code closes and opens meanwhile is its own affair. */
static int open_pagemap(void)
{
	int fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/*
 * Does the kernel tell pages that are not there, and not protected, beside one that is and where no page
 * table is?
 */
static bool tells_missing(int fd, int pagemap, char *room)
{
	struct uffdio_register area = {
		.range = { (uintptr_t)room, PROBE }, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct page_region_67 regions[2] = { 0 };
	struct pm_scan_67 scan = {
		.size = sizeof(scan), .start = area.range.start, .end = area.range.start + PROBE,
		.vec = (uintptr_t)regions, .vec_len = 2, .category_mask = IS_OURS | IS_WRITTEN,
		.return_mask = IS_WRITTEN,
	};

	if (madvise(room, PROBE, MADV_NOHUGEPAGE) && errno != EINVAL)
		return false;
	*(volatile char *)room = 1;
	return !ioctl(fd, UFFDIO_REGISTER, &area) && ioctl(pagemap, PAGEMAP_SCAN_67, &scan) == 1 &&
	       regions[0].start == scan.start && regions[0].end == scan.end;
}

static bool works(void)
{
	char *room = mmap(NULL, PROBE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int saved_errno = errno, fd = open_uffd(), pagemap = open_pagemap();
	bool does = fd >= 0 && pagemap >= 0 && room != MAP_FAILED && tells_missing(fd, pagemap, room);

	if (room != MAP_FAILED)
		munmap(room, PROBE);
	if (pagemap >= 0)
		syscall(SYS_close, pagemap);
	if (fd >= 0)
		syscall(SYS_close, fd);
	errno = saved_errno;
	return does;
}

/* What of a range is a private mapping of a file. */
struct search {
	uint64_t start, end;
	bool found;
};

static void look_at_map(const struct epk_map *map, void *arg)
{
	struct search *search = arg;

	search->found |= map->start < search->end && map->end > search->start && !map->shared && map->inode;
}

/* Or a negated error number. */
static int has_private_file(uint64_t start, uint64_t end)
{
	struct search search = { start, end, false };
	int err = epk_dirty_maps(look_at_map, &search);

	return err ?: search.found;
}

/* From now on the kernel notes writes there, or does not: then the next look finds that. */
static int protect(struct epk_dirty *dirty, uint64_t start, uint64_t end)
{
	struct uffdio_writeprotect arg = {
		.range = { start, end - start }, .mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return ioctl(dirty->fd, UFFDIO_WRITEPROTECT, &arg);
}

/*
 * What the kernel cannot watch counts as written to each time.  What lies there by now may be another mapping: then
 * it does not belong to the userfaultfd, or it did already when the maps were read.
 */
static int adopt(struct epk_dirty *dirty, uint64_t start, uint64_t end)
{
	struct uffdio_register arg = {
		.range = { start, end - start }, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	int private;

	epk_dirty_note(dirty, start, end);
	private = has_private_file(start, end);
	if (private)
		return private < 0 ? private : 0;
	if (ioctl(dirty->fd, UFFDIO_REGISTER, &arg))
		return errno == ENOTTY || errno == EBADF ? -EBADF : 0;
	private = has_private_file(start, end);
	if (!private)
		return protect(dirty, start, end) && errno == ENOTTY ? -EBADF : 0;
	ioctl(dirty->fd, UFFDIO_UNREGISTER, &arg.range);
	return private < 0 ? private : 0;
}

static int written(struct epk_dirty *dirty, uint64_t start, uint64_t end)
{
	epk_dirty_note(dirty, start, end);
	return 0;
}

/* Calls @found for all that @scan finds. */
static int look(struct epk_dirty *dirty, int pagemap, struct pm_scan_67 *scan,
		int (*found)(struct epk_dirty *dirty, uint64_t start, uint64_t end))
{
	struct page_region_67 regions[64];
	int nr, i, err = 0;

	scan->size = sizeof(*scan);
	scan->vec = (uintptr_t)regions;
	scan->vec_len = sizeof(regions) / sizeof(regions[0]);
	scan->return_mask = IS_OURS | IS_WRITTEN;
	scan->end = dirty->end;
	for (scan->start = dirty->start; !err && scan->start < scan->end; scan->start = scan->walk_end) {
		scan->walk_end = 0;
		nr = ioctl(pagemap, PAGEMAP_SCAN_67, scan);
		if (nr < 0) {
			err = -errno;
			/* It may have protected some, and says not which. */
			epk_dirty_note(dirty, scan->start, scan->end);
		}
		for (i = 0; i < nr; i++)
			err = found(dirty, regions[i].start, regions[i].end) ?: err;
	}
	return err;
}

/* First those that are new: what is mapped later than that is found the next time. */
static int harvest(struct epk_dirty *dirty)
{
	struct pm_scan_67 strange = { .category_inverted = IS_OURS, .category_mask = IS_OURS };
	struct pm_scan_67 dirtied = { .flags = SCAN_PROTECT, .category_mask = IS_OURS | IS_WRITTEN };
	int pagemap = open_pagemap(), err;

	if (pagemap < 0)
		return pagemap;
	err = look(dirty, pagemap, &strange, adopt);
	if (!err)
		err = look(dirty, pagemap, &dirtied, written);
	syscall(SYS_close, pagemap);
	return err;
}

static int start(struct epk_dirty *dirty)
{
	dirty->fd = open_uffd();
	return dirty->fd < 0 ? dirty->fd : 0;
}

/* With it the kernel forgets what it has protected.  What has been closed, and is another file now, stays. */
static void stop(struct epk_dirty *dirty)
{
	struct uffdio_range none = { 0, 0 };

	if (dirty->fd >= 0 && ioctl(dirty->fd, UFFDIO_WAKE, &none) && errno == EINVAL)
		syscall(SYS_close, dirty->fd);
	dirty->fd = -1;
}

const struct epk_dirty_engine epk_dirty_scan = {
	.name = "scan", .works = works, .start = start, .harvest = harvest, .stop = stop,
};
