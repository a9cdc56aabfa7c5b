// SPDX-License-Identifier: MIT
/*
 * A heap in a file: its blocks, and a pointer of the program's.  What else is known of a heap is not in the
 * file, and made anew from its blocks.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend.h"
#include "heap.h"

#define MAX_BYTES	(1ul << 40)
#define MAGIC		"EPKHEAP1"

enum { MAKING = 1, READY = 2 };

/**
 * struct file_head - what the file starts with
 * @magic: says that it is one
 * @progress: MAKING: it is none yet
 * @addr: where it lies in each process, so that pointers into it stay what they are
 * @bytes: so long
 * @root: the program's
 */
struct file_head {
	char magic[8];
	uint64_t progress;
	uint64_t addr;
	uint64_t bytes;
	void *root;
	char unused[24];
};
_Static_assert(sizeof(struct file_head) == 64, "blocks begin behind it");

/*
 * The file once more, locked for as long as it is mapped by that: who opens it, here or in another
 * process, finds it locked.  A lock on the caller's would be everybody's who has that, as children do.
 * Returns a descriptor.
 */
static int open_locked(int fd)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int mode = fcntl(fd, F_GETFL), own, err;
	char path[32];
	struct stat file;

	if (mode < 0 || fstat(fd, &file))
		return -errno;
	if ((mode & O_ACCMODE) != O_RDWR)
		return epk_because(EPK_CAUSE_HEAP_MODE);
	if (!S_ISREG(file.st_mode))
		return epk_because(EPK_CAUSE_HEAP_FILE);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDWR | O_CLOEXEC);
	if (own < 0 && errno == ENOENT)
		return epk_because(EPK_CAUSE_HEAP_PROC);
	if (own < 0)
		return errno == EACCES ? epk_because(EPK_CAUSE_HEAP_MODE) : -errno;
	if (!fcntl(own, F_OFD_SETLK, &all))
		return own;
	err = errno == EAGAIN || errno == EACCES ? epk_because(EPK_CAUSE_HEAP_OPEN) : -errno;
	close(own);
	return err;
}

/* 1: there is none, and nothing else.  Nobody is asked to lose what a file has. */
static int read_head(int fd, struct file_head *head)
{
	struct stat file;
	ssize_t got;

	if (fstat(fd, &file))
		return -errno;
	if (!file.st_size)
		return 1;
	got = pread(fd, head, sizeof(*head), 0);
	if (got < 0)
		return -errno;
	if (got != sizeof(*head) || memcmp(head->magic, MAGIC, sizeof(head->magic)))
		return epk_because(EPK_CAUSE_HEAP_FILE);
	if (head->progress == MAKING)
		return 1;
	if (head->progress != READY || !head->addr || head->addr % EPK_PAGE_SIZE || !head->bytes ||
	    head->bytes % EPK_PAGE_SIZE || head->bytes > MAX_BYTES ||
	    head->bytes > (uint64_t)file.st_size)
		return epk_because(EPK_CAUSE_HEAP_FILE);
	return 0;
}

/* Of a file that may be written: what else forbids it is a seal. */
static int cannot_write(int error)
{
	return error == EPERM ? epk_because(EPK_CAUSE_SEAL) : -error;
}

/* No touch will find that the disk has no room: a copy may have holes where there were zeros. */
static int take_room(int fd, size_t bytes)
{
	int error;

	do
		error = posix_fallocate(fd, 0, bytes);
	while (error == EINTR);
	return cannot_write(error);
}

static int make_file(int fd, size_t bytes, struct file_head *head)
{
	ssize_t put;

	if (!bytes || bytes > MAX_BYTES)
		return epk_because(EPK_CAUSE_LEN);
	*head = (struct file_head) { .magic = MAGIC, .progress = MAKING };
	head->bytes = (bytes + EPK_PAGE_SIZE - 1) & ~(EPK_PAGE_SIZE - 1);
	put = pwrite(fd, head, sizeof(*head), 0);
	if (put != sizeof(*head))
		return put < 0 ? cannot_write(errno) : -ENOSPC;
	return 0;
}

static char *map_at(int id, int fd, const struct file_head *head, uint64_t addr)
{
	return epk_mmap_file(id, (void *)addr, head->bytes, PROT_READ | PROT_WRITE,
			     addr ? MAP_FIXED_NOREPLACE : 0, fd, 0);
}

/* Where little else comes to lie, so that it is free the next time. */
static char *map_anywhere(int id, int fd, const struct file_head *head)
{
	char *mem = MAP_FAILED;
	uint16_t random;
	int i;

	for (i = 0; i < 8 && mem == MAP_FAILED; i++) {
		if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
			break;
		mem = map_at(id, fd, head, (1ul << 45) + ((random & 0x1ffful) << 32));
	}
	return mem == MAP_FAILED ? map_at(id, fd, head, 0) : mem;
}

/* The domain is held. */
static int fill(struct heap *heap, char *mem, const struct file_head *head, bool made)
{
	struct file_head *there = (struct file_head *)mem;
	char *start = mem + sizeof(*there);
	size_t bytes = head->bytes - sizeof(*there);

	if (!made)
		return epk_heap_recover(heap, start, bytes) ? 0 : epk_because(EPK_CAUSE_HEAP_FILE);
	epk_heap_format(heap, start, bytes);
	there->addr = (uintptr_t)mem;
	there->bytes = head->bytes;
	there->root = NULL;
	__atomic_store_n(&there->progress, READY, __ATOMIC_RELEASE);
	return 0;
}

/* The domain is held, and the file locked.  Returns as epk_heap_open(). */
static int open_own(int id, int fd, size_t bytes, void ***root)
{
	struct file_head head;
	struct heap *heap;
	int err, made;
	char *mem;

	made = read_head(fd, &head);
	err = made > 0 ? make_file(fd, bytes, &head) : made;
	if (!err)
		err = take_room(fd, head.bytes);
	if (err)
		return err;
	heap = epk_heap_index(id);
	if (!heap)
		return epk_because_of_call();
	mem = made ? map_anywhere(id, fd, &head) : map_at(id, fd, &head, head.addr);
	if (mem == MAP_FAILED) {
		err = epk_because_of_call();
		goto unmake;
	}
	err = fill(heap, mem, &head, made);
	if (!err)
		err = epk_heap_set(id, heap);
	if (!err) {
		*root = &((struct file_head *)mem)->root;
		return made;
	}
	domain_munmap(mem, head.bytes);
unmake:
	epk_heap_unmake(heap, EPK_PAGE_SIZE);
	return err;
}

/* The mapping keeps the lock. */
static int open_held(int id, int fd, size_t bytes, void ***root)
{
	int own, made;

	if (epk_heap_find(id))
		return epk_because(EPK_CAUSE_USED);
	own = open_locked(fd);
	if (own < 0)
		return own;
	made = open_own(id, own, bytes, root);
	close(own);
	return made;
}

int epk_heap_open(int dom_id, int fd, size_t bytes, void ***root)
{
	int saved_errno = errno, held, made, cancel;

	if (!root)
		return epk_explain("epk_heap_open", dom_id, epk_because(EPK_CAUSE_ROOT));
	/* Who is cancelled ends where he reads a file, with the domain. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	held = epk_heap_hold(dom_id);
	made = held < 0 ? held : open_held(dom_id, fd, bytes, root);
	if (held >= 0)
		epk_heap_unhold(dom_id, held);
	pthread_setcancelstate(cancel, NULL);
	errno = saved_errno;
	return made < 0 ? epk_explain("epk_heap_open", dom_id, made) : made;
}
