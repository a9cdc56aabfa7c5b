// SPDX-License-Identifier: MIT
/*
 * Which pages were written to: userfaultfd write-protects the pages, the kernel resolves the first write to each
 * by itself (UFFD_FEATURE_WP_ASYNC), and PAGEMAP_SCAN tells and protects again in one step, page by page, under
 * the page table's lock.  So threads may run.
 *
 * A mapping that is made later, or moved here, does not belong to the userfaultfd: that is how it is told from
 * others, and counts as written to.  What has no page and no marker of the userfaultfd either has lost what it
 * had, by MADV_DONTNEED for example.  Linux 6.7 did not tell that; where the kernel does not, this is not offered.
 * Of private mappings of files the marker stays, and shared memory changes past this process's page tables, by
 * MADV_REMOVE or ftruncate(): all of these count as written to each time.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "causes.h"
#include "dirty.h"
#include "state_page.h"

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
/* Of some userfaultfd with WP_ASYNC; that there is no other is looked at first. */
#define IS_OURS			(1u << 0)
#define IS_WRITTEN		(1u << 1)
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

/* What the error number of a system call here means. */
static int explain(int err)
{
	switch (err) {
	case -EMFILE:
		return epk_because(EPK_CAUSE_DIRTY_FILES);
	case -EACCES:
		return epk_because(EPK_CAUSE_DIRTY_ACCESS);
	case -ENOENT:
		return epk_because(EPK_CAUSE_DIRTY_PROC);
	case -EBADF:
		return epk_because(EPK_CAUSE_DIRTY_CLOSED);
	default:
		return err;
	}
}

/* Likewise while it is tried what the kernel has: what is short, or refused for now, is not what it lacks. */
static int explain_trial(int err)
{
	switch (err) {
	case -ENOSYS:
	case -EINVAL:
	case -EOPNOTSUPP:
	case -ENOTTY:
	case -EPERM:
		return epk_because(EPK_CAUSE_DIRTY_KERNEL);
	default:
		return err;
	}
}

/*
 * Does the kernel tell pages that are not there, and not protected, beside one that is and where no page
 * table is?
 */
static int try_missing(int fd, int pagemap, char *room)
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
	int nr;

	if (madvise(room, PROBE, MADV_NOHUGEPAGE) && errno != EINVAL)
		return -errno;
	*(volatile char *)room = 1;
	if (ioctl(fd, UFFDIO_REGISTER, &area))
		return -errno;
	nr = ioctl(pagemap, PAGEMAP_SCAN_67, &scan);
	if (nr < 0)
		return -errno;
	return nr == 1 && regions[0].start == scan.start && regions[0].end == scan.end ? 0 : -EOPNOTSUPP;
}

static int try_kernel(int fd, int pagemap)
{
	char *room = mmap(NULL, PROBE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int err;

	if (room == MAP_FAILED)
		return -errno;
	err = explain_trial(try_missing(fd, pagemap, room));
	munmap(room, PROBE);
	return err;
}

/* A piece of a range that does not belong to its userfaultfd. */
struct piece {
	struct epk_dirty *dirty;
	uint64_t start, end;
};

/* What of it @map has; false: nothing. */
static bool narrow(struct piece *piece, const struct epk_map *map)
{
	piece->start = piece->start > map->start ? piece->start : map->start;
	piece->end = piece->end < map->end ? piece->end : map->end;
	return piece->start < piece->end;
}

/* Not what another userfaultfd has. */
static int take(const struct piece *piece)
{
	struct uffdio_register arg = {
		.range = { piece->start, piece->end - piece->start }, .mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(piece->dirty->fd, UFFDIO_REGISTER, &arg) ? -errno : 0;
}

/* What is taken first is nobody else's: kernels let each unregister what is another's. */
static int let_go(const struct piece *piece)
{
	struct uffdio_range range = { piece->start, piece->end - piece->start };

	return take(piece) ?: ioctl(piece->dirty->fd, UFFDIO_UNREGISTER, &range) ? -errno : 0;
}

static int let_go_of_other(const struct epk_map *map, void *arg)
{
	struct piece piece = *(struct piece *)arg;

	if (!map->anonymous && narrow(&piece, map))
		let_go(&piece);
	return 0;
}

/*
 * What lay there when the maps were read may be another mapping since.  One that is made after it was taken does not
 * belong to the userfaultfd.
 */
static int take_anonymous(const struct epk_map *map, void *arg)
{
	struct piece piece = *(struct piece *)arg;
	int err;

	if (!map->anonymous || !narrow(&piece, map))
		return 0;
	err = take(&piece);
	if (!err)
		return epk_dirty_maps(let_go_of_other, &piece);
	return err == -ENOTTY || err == -EBADF ? -EBADF : 0;
}

/* What cannot be taken counts as written to each time; of what is, the look at what was written to finds all. */
static int adopt(struct epk_dirty *dirty, uint64_t start, uint64_t end)
{
	struct piece piece = { dirty, start, end };

	epk_dirty_note(dirty, start, end);
	return epk_dirty_maps(take_anonymous, &piece);
}

static int written(struct epk_dirty *dirty, uint64_t start, uint64_t end)
{
	epk_dirty_note(dirty, start, end);
	return 0;
}

static int refuse(struct epk_dirty *dirty, uint64_t start, uint64_t end)
{
	(void)dirty;
	(void)start;
	(void)end;
	return epk_because(EPK_CAUSE_DIRTY_FOREIGN);
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
		/* So it is where only a part of a hugetlb page is asked for: that can be no one's but another userfaultfd's. */
		if (nr >= 0 && scan->walk_end <= scan->start) {
			scan->walk_end = scan->start + EPK_PAGE_SIZE;
			epk_dirty_note(dirty, scan->start, scan->walk_end);
		}
	}
	return err;
}

static int look_both(struct epk_dirty *dirty, int pagemap)
{
	struct pm_scan_67 strange = { .category_inverted = IS_OURS, .category_mask = IS_OURS };
	struct pm_scan_67 dirtied = { .flags = SCAN_PROTECT, .category_mask = IS_OURS | IS_WRITTEN };

	/* First those that are new: what is mapped later than that is found the next time. */
	return look(dirty, pagemap, &strange, adopt) ?: look(dirty, pagemap, &dirtied, written);
}

int epk_dirty_scan_harvest(struct epk_dirty *dirty)
{
	int pagemap = epk_dirty_has_fd(dirty) ? open_pagemap() : -EBADF, err = pagemap;

	if (pagemap >= 0) {
		err = look_both(dirty, pagemap);
		syscall(SYS_close, pagemap);
	}
	return explain(err);
}

/* Is it somebody's already, whose writes and protections would be taken for this one's? */
static int look_for_foreign(struct epk_dirty *dirty, int pagemap)
{
	struct pm_scan_67 foreign = { .category_mask = IS_OURS };

	return look(dirty, pagemap, &foreign, refuse);
}

int epk_dirty_scan_start(struct epk_dirty *dirty)
{
	int pagemap = open_pagemap(), err;
	struct stat file;

	if (pagemap < 0)
		return explain(pagemap);
	dirty->fd = open_uffd();
	err = dirty->fd < 0 ? explain_trial(dirty->fd) : 0;
	if (!err && fstat(dirty->fd, &file))
		err = -errno;
	if (!err) {
		dirty->dev = file.st_dev;
		dirty->ino = file.st_ino;
		err = try_kernel(dirty->fd, pagemap) ?: look_for_foreign(dirty, pagemap);
	}
	syscall(SYS_close, pagemap);
	if (err)
		epk_dirty_scan_stop(dirty);
	return explain(err);
}

static int let_go_of_all(const struct epk_map *map, void *arg)
{
	struct piece piece = *(struct piece *)arg;

	if (map->anonymous && narrow(&piece, map))
		let_go(&piece);
	return 0;
}

/*
 * With its last descriptor the kernel forgets what it has protected; a child of a raw clone() may have one.  A number
 * that is another file's now stays.
 */
void epk_dirty_scan_stop(struct epk_dirty *dirty)
{
	struct piece all = { dirty, dirty->start, dirty->end };

	if (epk_dirty_has_fd(dirty)) {
		epk_dirty_maps(let_go_of_all, &all);
		syscall(SYS_close, dirty->fd);
	}
	dirty->fd = -1;
}
