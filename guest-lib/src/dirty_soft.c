// SPDX-License-Identifier: MIT
/*
 * Which pages were written to, by soft-dirty bits: /proc/self/pagemap tells them and /proc/self/clear_refs clears
 * them, of the whole process.  What is written in between is lost, and so no other thread may run.  All ranges
 * are looked at before the bits are cleared.
 *
 * The bits say nothing of a page that is gone, by MADV_DONTNEED for example, and reads as zeros now: that is seen by
 * what has become of it since the last look.  Pages of files and of shared memory can leave the page tables, and
 * their bits are lost: all of these count as written to each time.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "dirty.h"
#include "causes.h"
#include "state.h"

#define IS_SOFT_DIRTY	(1ull << 55)
#define IS_EXCLUSIVE	(1ull << 56)
#define IS_SWAPPED	(1ull << 62)
#define IS_PRESENT	(1ull << 63)

/*
 * What a page was like.  ZERO: not the process's alone, and zeros; as nothing but the kernel's own such page comes
 * where nothing was.  SHARED: with a forked child, or merged.  GONE: nothing is mapped.
 */
enum state { NONE, ZERO, SHARED, OWN, SWAPPED, GONE };

static int open_file(const char *name, int flags)
{
	int fd = syscall(SYS_openat, AT_FDCWD, name, flags | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int read_entries(int fd, uintptr_t start, uint64_t *entries, size_t nr)
{
	ssize_t got = syscall(SYS_pread64, fd, entries, nr * 8, start / EPK_PAGE_SIZE * 8);

	if (got == (ssize_t)(nr * 8))
		return 0;
	return got < 0 ? -errno : -EIO;
}

static int clear_bits(void)
{
	int fd = open_file("/proc/self/clear_refs", O_WRONLY), err = 0;

	if (fd < 0)
		return fd;
	if (syscall(SYS_write, fd, "4", 1) != 1)
		err = -errno;
	syscall(SYS_close, fd);
	return err;
}

/* A page that has just come is soft-dirty; kernels that do not have the bits never say so. */
static bool works(void)
{
	char *page = mmap(NULL, EPK_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int saved_errno = errno, fd = open_file("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	if (page != MAP_FAILED && fd >= 0) {
		*(volatile char *)page = 1;
		if (read_entries(fd, (uintptr_t)page, &entry, 1))
			entry = 0;
	}
	if (page != MAP_FAILED)
		munmap(page, EPK_PAGE_SIZE);
	if (fd >= 0)
		syscall(SYS_close, fd);
	errno = saved_errno;
	return entry & IS_SOFT_DIRTY && !access("/proc/self/clear_refs", W_OK);
}

/* A thread that has been joined is there a little longer. */
#define TRIES	50

/* One link for each thread, and two of a directory's own. */
static int check_alone(void)
{
	struct timespec little = { 0, 1000000 };
	struct stat task;
	int i;

	for (i = 0; i < TRIES; i++) {
		if (stat("/proc/self/task", &task))
			return -errno;
		if (task.st_nlink == 3)
			return 0;
		nanosleep(&little, NULL);
	}
	return epk_because(EPK_CAUSE_DIRTY_THREADS);
}

/* Not where the program itself may not read. */
static bool is_zeros(uintptr_t addr)
{
	uint64_t words[EPK_PAGE_SIZE / 8];
	struct iovec to = { words, sizeof(words) }, from = { (void *)addr, sizeof(words) };
	size_t i = 0;

	if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != sizeof(words))
		return false;
	while (i < EPK_PAGE_SIZE / 8 && !words[i])
		i++;
	return i == EPK_PAGE_SIZE / 8;
}

static enum state state_of(uint64_t entry, uintptr_t addr, enum state before)
{
	if (entry & IS_SWAPPED)
		return SWAPPED;
	if (!(entry & IS_PRESENT))
		return NONE;
	if (entry & IS_EXCLUSIVE)
		return OWN;
	if (!(entry & IS_SOFT_DIRTY) && (before == NONE || before == ZERO))
		return ZERO;
	return is_zeros(addr) ? ZERO : SHARED;
}

/* Without its bit: can it have the same contents only? */
static bool is_same(enum state before, enum state now)
{
	switch (before) {
	case NONE:
	case ZERO:
		return now == NONE || now == ZERO;
	case OWN:
	case SWAPPED:
		return now == OWN || now == SWAPPED;
	default:
		/* A shared page can have become one of zeros. */
		return false;
	}
}

static bool is_mapped(uintptr_t addr)
{
	unsigned char there;

	return !mincore((void *)addr, EPK_PAGE_SIZE, &there) || errno != ENOMEM;
}

static void look_at(struct epk_dirty *dirty, uintptr_t addr, uint64_t entry)
{
	uint8_t *state = &dirty->states[(addr - dirty->start) / EPK_PAGE_SIZE];
	enum state before = *state, now = state_of(entry, addr, before);

	if (!(entry & IS_SOFT_DIRTY) && is_same(before, now))
		*state = now;
	else if (now == NONE && !(entry & IS_SOFT_DIRTY) && !is_mapped(addr))
		*state = GONE;
	else {
		epk_dirty_note(dirty, addr, addr + EPK_PAGE_SIZE);
		*state = now;
	}
}

static void note_shared(const struct epk_map *map, void *arg)
{
	if (map->shared || map->inode)
		epk_dirty_note(arg, map->start, map->end);
}

static int look(struct epk_dirty *dirty, int fd)
{
	uint64_t entries[512];
	int err = epk_dirty_maps(note_shared, dirty);
	uintptr_t addr;
	size_t i, nr;

	for (addr = dirty->start; !err && addr < dirty->end; addr += nr * EPK_PAGE_SIZE) {
		nr = (dirty->end - addr) / EPK_PAGE_SIZE;
		nr = nr < 512 ? nr : 512;
		err = read_entries(fd, addr, entries, nr);
		for (i = 0; !err && i < nr; i++)
			look_at(dirty, addr + i * EPK_PAGE_SIZE, entries[i]);
	}
	return err;
}

/* Those of all, as their bits go with this one's. */
static int harvest(struct epk_dirty *dirty)
{
	struct epk_dirty *each;
	int err = check_alone(), fd;

	if (err)
		return err;
	fd = open_file("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		return fd;
	err = look(dirty, fd);
	for (each = epk_dirty_list; !err && each; each = each->next)
		if (each != dirty && each->kind == EPK_DIRTY_SOFT && each->pid == dirty->pid)
			err = look(each, fd);
	syscall(SYS_close, fd);
	return err ?: clear_bits();
}

static int start(struct epk_dirty *dirty)
{
	(void)dirty;
	return check_alone();
}

static void stop(struct epk_dirty *dirty)
{
	(void)dirty;
}

const struct epk_dirty_engine epk_dirty_soft = {
	.name = "soft-dirty", .works = works, .start = start, .harvest = harvest, .stop = stop,
};
