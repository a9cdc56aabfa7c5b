// SPDX-License-Identifier: MIT
/*
 * What the collector calls to learn of writes: it opens /proc/PID/pagemap and clear_refs, seeks and reads in the former, and
 * writes to the latter.  Both are files without contents here, so that seeking, closing and flags are the kernel's affair;
 * what is read is made by watches.c.  All other callers, and all other files, have what they have without this.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <epk.h>

#include "gc.h"

#define SHOWN		__attribute__((visibility("default")))
#define COLLECTOR	"libgc.so."
#define SOFT_DIRTY	(1ull << 55)
#define ENTRY		sizeof(uint64_t)

/* The C library's. */
static struct {
	int (*open)(const char *path, int flags, ...);
	ssize_t (*read)(int fd, void *buf, size_t len);
	ssize_t (*write)(int fd, const void *buf, size_t len);
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
} real;

__attribute__((constructor)) static void find_real(void)
{
	if (real.mmap)
		return;
	real.open = dlsym(RTLD_NEXT, "open");
	real.read = dlsym(RTLD_NEXT, "read");
	real.write = dlsym(RTLD_NEXT, "write");
	real.mmap = dlsym(RTLD_NEXT, "mmap");
}

/* A file of ours: its number may be another's by now. */
static struct own {
	int fd;
	dev_t dev;
	ino_t ino;
} pagemap = { .fd = -1 }, clear_refs = { .fd = -1 };

static bool is_own(const struct own *own, int fd)
{
	int saved_errno = errno;
	struct stat file;
	bool same;

	if (fd < 0 || fd != own->fd)
		return false;
	same = !fstat(fd, &file) && file.st_dev == own->dev && file.st_ino == own->ino;
	errno = saved_errno;
	return same;
}

static int open_own(struct own *own, const char *name)
{
	struct stat file;
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd >= 0 && fstat(fd, &file)) {
		close(fd);
		fd = -1;
	}
	if (fd >= 0)
		*own = (struct own){ fd, file.st_dev, file.st_ino };
	return fd;
}

/* Without a lock: other threads may have been stopped with the loader's. */
static bool is_collector(const void *caller)
{
	struct dl_find_object found;
	const char *name, *slash;

	if (_dl_find_object((void *)caller, &found))
		return false;
	name = found.dlfo_link_map->l_name;
	slash = strrchr(name, '/');
	return !strncmp(slash ? slash + 1 : name, COLLECTOR, strlen(COLLECTOR));
}

static void say(const char *text, const char *why)
{
	char line[400];
	int len = snprintf(line, sizeof(line), "libepk-gc[%d]: %s%s\n", getpid(), text, why);

	if (len > (int)sizeof(line) - 1)
		len = sizeof(line) - 1;
	if (real.write(STDERR_FILENO, line, len) < 0)
		return;	/* nobody listens */
}

/* Said once; then the collector does what it would do without this. */
static bool can_tell(void)
{
	static int tells;
	int err;

	if (!tells) {
		err = gc_try();
		tells = err ? -1 : 1;
		if (epk_backend())
			say("the collector goes on as without it: ", "the program uses domains");
		else if (err)
			say("the collector goes on as without it: ", epk_strerror(err));
		else if (getenv("EPK_DEBUG"))
			say("tells the collector which pages are written to", "");
	}
	return tells > 0;
}

/* The file that @path, which the collector opens, is to be; NULL: what it says. */
static struct own *own_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	char mine[40];

	snprintf(mine, sizeof(mine), "/proc/%d/", getpid());
	if (!slash || (size_t)(slash + 1 - path) != strlen(mine) || strncmp(path, mine, strlen(mine)))
		return NULL;
	if (!strcmp(slash, "/pagemap"))
		return &pagemap;
	return strcmp(slash, "/clear_refs") ? NULL : &clear_refs;
}

static int open_for(const void *caller, const char *path, int flags, mode_t mode)
{
	struct own *own;

	find_real();
	own = path && is_collector(caller) ? own_of(path) : NULL;
	if (!own || !can_tell())
		return real.open(path, flags, mode);
	return open_own(own, own == &pagemap ? "pagemap" : "clear_refs");
}

static mode_t mode_of(int flags, va_list list)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

SHOWN int open(const char *path, int flags, ...)
{
	va_list list;
	mode_t mode;

	va_start(list, flags);
	mode = mode_of(flags, list);
	va_end(list);
	return open_for(__builtin_return_address(0), path, flags, mode);
}

/* The same where off_t has 64 bits. */
SHOWN int open64(const char *path, int flags, ...) __attribute__((alias("open")));

/* With _FORTIFY_SOURCE, where flags are no constant. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);

SHOWN int __open_2(const char *path, int flags)
{
	return open_for(__builtin_return_address(0), path, flags, 0);
}

SHOWN int __open64_2(const char *path, int flags) __attribute__((alias("__open_2")));

/* From where the descriptor stands on, and as far as @len goes. */
static ssize_t read_pagemap(int fd, uint64_t *entries, size_t len)
{
	off_t at = lseek(fd, 0, SEEK_CUR);
	size_t nr = len / ENTRY, i;

	if (at < 0 || at % ENTRY || len % ENTRY) {
		errno = EINVAL;
		return -1;
	}
	gc_look();
	for (i = 0; i < nr; i++)
		entries[i] = gc_is_dirty((at / ENTRY + i) * GC_PAGE) ? SOFT_DIRTY : 0;
	return lseek(fd, at + len, SEEK_SET) < 0 ? -1 : (ssize_t)len;
}

SHOWN ssize_t read(int fd, void *buf, size_t len)
{
	find_real();
	return is_own(&pagemap, fd) ? read_pagemap(fd, buf, len) : real.read(fd, buf, len);
}

SHOWN ssize_t write(int fd, const void *buf, size_t len)
{
	find_real();
	if (!is_own(&clear_refs, fd))
		return real.write(fd, buf, len);
	gc_clear();
	return len;
}

SHOWN void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *got;

	find_real();
	got = real.mmap(addr, len, prot, flags, fd, offset);
	if (got != MAP_FAILED && fd < 0 && is_collector(__builtin_return_address(0)))
		gc_span_add((uintptr_t)got, (uintptr_t)got + ((len + GC_PAGE - 1) & -GC_PAGE));
	return got;
}
