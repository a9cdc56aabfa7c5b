// SPDX-License-Identifier: MIT
/* The memory of domains: its arguments and the books; the rest is the backend's. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "aside.h"
#include "backend.h"
#include "code.h"

#define PROT_RW		(PROT_READ | PROT_WRITE)
#define MMAP_FLAGS	(MAP_ANONYMOUS | MAP_PRIVATE | MAP_SHARED | MAP_POPULATE | \
			 MAP_FIXED_NOREPLACE | MAP_FIXED)

/* Rounds up to whole pages. */
static int page_len(size_t *len)
{
	if (!*len)
		return epk_because(EPK_CAUSE_LEN);
	if (*len > SIZE_MAX - EPK_PAGE_SIZE + 1)
		return -EOVERFLOW;
	*len = (*len + EPK_PAGE_SIZE - 1) & ~(EPK_PAGE_SIZE - 1);
	return 0;
}

static int check_mmap(void *addr, size_t *len, int *prot, int flags)
{
	if (*prot & ~PROT_RW)
		return epk_because(EPK_CAUSE_PROT);
	if (flags & ~MMAP_FLAGS || (flags & MAP_PRIVATE && flags & MAP_SHARED))
		return epk_because(EPK_CAUSE_FLAGS);
	if (flags & (MAP_FIXED_NOREPLACE | MAP_FIXED) && (uintptr_t)addr % EPK_PAGE_SIZE)
		return epk_because(EPK_CAUSE_PAGE);
	if (*prot & PROT_WRITE)
		*prot = PROT_RW;
	return page_len(len);
}

static __attribute__((noinline)) int strict(const struct epk_mapping *what)
{
	int err = epk_strict_check();

	return !err && epk_now.soft ? epk_strict_map(what) : err;
}

static int map_locked(const struct epk_mapping *what, void *addr, int flags, void **got)
{
	struct epk_mapping *map, there;
	struct epk_entry entry;
	int err;

	err = epk_lookup(what->id, &entry);
	if (err)
		return err;
	/* The module's are checked by itself. */
	err = unlikely(epk_now.strict) ? strict(what) : 0;
	if (err)
		return err;
	/* What is a domain's goes by its own calls alone; it may begin before the range. */
	if (flags & MAP_FIXED && epk_mapping_next((uintptr_t)addr, &there) &&
	    (there.start <= (uintptr_t)addr || there.start - (uintptr_t)addr < what->end))
		return -EEXIST;
	map = epk_mapping_new(what);
	if (!map)
		return -ENOMEM;
	err = epk_ops()->mmap(map, addr, flags);
	if (err) {
		epk_mapping_cancel(map);
		return err == -ENODEV && what->fd >= 0 ? epk_because(EPK_CAUSE_FILE) : err;
	}
	epk_mapping_insert(map);
	*got = (void *)map->start;
	return 0;
}

/* Of @what: what is to be mapped, the length in @end. */
static void *map_memory(const char *call, const struct epk_mapping *what, void *addr, int flags)
{
	int saved_errno = errno;
	struct epk_aside aside;
	void *got = NULL;
	int err;

	err = epk_notes_lock(&aside);
	if (!err) {
		err = map_locked(what, addr, flags, &got);
		epk_notes_unlock(&aside);
	}
	errno = err ? -epk_explain(call, what->id, err) : saved_errno;
	return err ? MAP_FAILED : got;
}

void *domain_mmap(int dom_id, void *addr, size_t len, int prot, int flags)
{
	int err = check_mmap(addr, &len, &prot, flags);
	struct epk_mapping what = { .end = len, .id = dom_id, .prot = prot, .fd = -1 };

	if (err) {
		errno = -epk_explain("domain_mmap", dom_id, err);
		return MAP_FAILED;
	}
	return map_memory("domain_mmap", &what, addr, flags);
}

/* What a backend that maps later, or nothing but PROT_NONE, would not find. */
static int check_file(int fd, int prot, int flags, uint64_t offset)
{
	int mode = fcntl(fd, F_GETFL), seals;

	if (mode < 0)
		return -errno;
	if (flags & ~(MAP_SHARED | MAP_FIXED_NOREPLACE))
		return epk_because(EPK_CAUSE_FLAGS);
	if (offset % EPK_PAGE_SIZE)
		return epk_because(EPK_CAUSE_PAGE);
	if ((mode & O_ACCMODE) == O_WRONLY ||
	    (prot & PROT_WRITE && (mode & O_ACCMODE) != O_RDWR))
		return epk_because(EPK_CAUSE_FILE_MODE);
	/* Files that can have none give an error. */
	seals = fcntl(fd, F_GET_SEALS);
	if (seals > 0 && prot & PROT_WRITE && seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return epk_because(EPK_CAUSE_SEAL);
	return 0;
}

void *epk_mmap_file(int dom_id, void *addr, size_t len, int prot, int flags, int fd,
		    uint64_t offset)
{
	int saved_errno = errno;
	int err = check_mmap(addr, &len, &prot, flags);
	struct epk_mapping what = {
		.end = len, .id = dom_id, .prot = prot, .fd = fd, .offset = offset,
	};

	if (!err)
		err = check_file(fd, prot, flags, offset);
	if (err) {
		errno = -epk_explain("epk_mmap_file", dom_id, err);
		return MAP_FAILED;
	}
	errno = saved_errno;
	return map_memory("epk_mmap_file", &what, addr, flags);
}

/* Under the lock: where it is written, then where it is run. */
static int map_code(const struct epk_mapping *what, bool runs, void **got)
{
	uintptr_t at = epk_code_room(what->end);
	int err;

	if (!at)
		return epk_because(EPK_CAUSE_CODE_ROOM);
	err = map_locked(what, (void *)at, MAP_FIXED, got);
	if (err) {
		epk_code_fill(at, what->end);
		return err;
	}
	err = epk_code_show(at, what->end, what->fd, runs);
	/* What cannot go, does not run, and goes with the domain. */
	if (err)
		epk_mapping_unmap(at, at + what->end, epk_code_munmap);
	return err;
}

/* Under the lock, without which no child is made that has the file, too. */
static int map_code_file(struct epk_mapping *what, bool runs, void **got)
{
	int cancel, err;

	what->fd = epk_code_file(what->end);
	if (what->fd < 0)
		return what->fd;
	err = map_code(what, runs, got);
	/* It is where a thread that is cancelled ends. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	close(what->fd);
	pthread_setcancelstate(cancel, NULL);
	return err;
}

void *epk_mmap_code(int dom_id, size_t len, int prot, void **run)
{
	bool runs = prot & PROT_EXEC;
	struct epk_mapping what = { .id = dom_id, .prot = PROT_RW };
	int saved_errno = errno, err = 0;
	struct epk_aside aside;
	void *got = NULL;

	if (!run || (prot | PROT_EXEC) != (PROT_RW | PROT_EXEC))
		err = epk_because(EPK_CAUSE_CODE_PROT);
	else if (!epk_now.code)
		err = epk_because(EPK_CAUSE_NO_CODE);
	if (!err)
		err = page_len(&len);
	what.end = len;
	if (!err)
		err = epk_notes_lock(&aside);
	if (!err) {
		err = map_code_file(&what, runs, &got);
		epk_notes_unlock(&aside);
	}
	errno = err ? -epk_explain("epk_mmap_code", dom_id, err) : saved_errno;
	if (err)
		return MAP_FAILED;
	*run = epk_code_run((uintptr_t)got);
	return got;
}

static int unmap(uintptr_t start, uintptr_t end, int prot)
{
	(void)prot;
	return epk_mapping_unmap(start, end, epk_code_munmap);
}

static int reserve(uintptr_t start, uintptr_t end, int prot)
{
	(void)prot;
	return epk_mapping_unmap(start, end, epk_code_at(start) ? epk_code_munmap : epk_ops()->reserve);
}

static int protect(uintptr_t start, uintptr_t end, int prot)
{
	if (epk_code_at(start))
		return epk_code_protect(start, end, prot);
	if (prot & PROT_EXEC)
		return epk_because(EPK_CAUSE_PROT);
	return epk_mapping_protect(start, end, prot, epk_ops()->protect);
}

/* Whole pages of domain memory. */
static int change(const char *call, void *addr, size_t len, int prot,
		  int (*act)(uintptr_t start, uintptr_t end, int prot))
{
	uintptr_t start = (uintptr_t)addr;
	int saved_errno = errno;
	struct epk_aside aside;
	int err;

	err = start % EPK_PAGE_SIZE ? epk_because(EPK_CAUSE_PAGE) : page_len(&len);
	if (!err && start + len < start)
		err = -EOVERFLOW;
	if (err)
		return epk_explain(call, (long)addr, err);
	err = epk_notes_lock(&aside);
	if (!err) {
		err = epk_ops() ? epk_strict() : epk_because(EPK_CAUSE_MEMORY);
		if (!err)
			err = act(start, start + len, prot);
		epk_notes_unlock(&aside);
	}
	errno = saved_errno;
	return epk_explain(call, (long)addr, err);
}

int domain_munmap(void *addr, size_t len)
{
	return change("domain_munmap", addr, len, 0, unmap);
}

int epk_munmap_reserve(void *addr, size_t len)
{
	return change("epk_munmap_reserve", addr, len, 0, reserve);
}

/* Elsewhere the module does. */
static int check_fill(uintptr_t start, uintptr_t end)
{
	int id, prot;

	for (; start < end; start += EPK_PAGE_SIZE) {
		id = epk_domain_at((void *)start);
		if (!id)
			return epk_because(EPK_CAUSE_MEMORY);
		prot = epk_held_prot(id);
		if (!(prot & PROT_WRITE))
			return prot < 0 ? prot : -EACCES;
	}
	return 0;
}

int epk_fill(void *addr, const void *from, size_t len)
{
	const struct epk_backend *ops = epk_ops();
	uintptr_t start = (uintptr_t)addr;
	int saved_errno = errno, cancel, err = 0;

	if (start % EPK_PAGE_SIZE || len % EPK_PAGE_SIZE)
		err = epk_because(EPK_CAUSE_PAGE);
	else if (!len)
		err = epk_because(EPK_CAUSE_LEN);
	else if (start + len < start)
		err = -EOVERFLOW;
	else if (!ops)
		err = epk_because(EPK_CAUSE_MEMORY);
	else if (!ops->in_module)
		err = check_fill(start, start + len);
	if (!err) {
		/* open() is where a thread that is cancelled ends. */
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
		err = ops->fill(addr, from, len);
		pthread_setcancelstate(cancel, NULL);
	}
	errno = saved_errno;
	return epk_explain("epk_fill", (long)addr, err);
}

int epk_mprotect(void *addr, size_t len, int prot)
{
	if (prot & ~(PROT_RW | PROT_EXEC))
		return epk_explain("epk_mprotect", (long)addr, epk_because(EPK_CAUSE_PROT));
	if (prot)
		prot |= PROT_READ;
	return change("epk_mprotect", addr, len, prot, protect);
}
