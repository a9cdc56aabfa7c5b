// SPDX-License-Identifier: MIT
/* Domain memory of the backends that use plain memory: anonymous, or a file's. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "registry.h"

/*
 * Anonymous memory is private whatever @flags say: nobody inherits it, so that shared
 * is the same.  A file's is shared.
 */
int epk_anon_mmap(const struct epk_mapping *map, void **addr, int prot, int flags)
{
	int keep = flags & (MAP_POPULATE | MAP_FIXED_NOREPLACE | MAP_FIXED);
	int kind = map->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	size_t len = map->end - map->start;
	void *want = *addr, *got;
	int err;

	got = mmap(want, len, prot, kind | keep, map->fd, map->offset);
	if (got == MAP_FAILED)
		return -errno;
	if (keep & MAP_FIXED_NOREPLACE && got != want) {
		/* Kernels before 4.17 take the address as a hint. */
		err = -EEXIST;
		goto unmap;
	}
	if (madvise(got, len, MADV_DONTFORK) || madvise(got, len, MADV_DONTDUMP)) {
		err = -errno;
		goto unmap;
	}
	*addr = got;
	return 0;

unmap:
	epk_anon_undo(got, len, flags);
	return err;
}

/* What epk_anon_mmap() has mapped: what it has replaced leaves no hole, in which others' memory could come to lie. */
void epk_anon_undo(void *addr, size_t len, int flags)
{
	if (flags & MAP_FIXED)
		epk_anon_reserve(addr, len);
	else
		munmap(addr, len);
}

int epk_anon_munmap(void *addr, size_t len)
{
	return munmap(addr, len) ? -errno : 0;
}

int epk_anon_reserve(void *addr, size_t len)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

	return mmap(addr, len, PROT_NONE, flags, -1, 0) == MAP_FAILED ? -errno : 0;
}

/* As a debugger does: by the kernel, which asks neither for what is mapped nor for keys. */
int epk_anon_fill(void *addr, const void *from, size_t len)
{
	int fd = open("/proc/self/mem", O_WRONLY | O_CLOEXEC), err = 0;
	ssize_t wrote;
	size_t done;

	if (fd < 0)
		return -errno;
	/* No call writes more than some 2 GiB. */
	for (done = 0; done < len && !err; done += wrote) {
		wrote = pwrite(fd, (const char *)from + done, len - done, (off_t)((uintptr_t)addr + done));
		if (wrote <= 0)
			err = wrote < 0 ? -errno : -EIO;
	}
	close(fd);
	return err;
}

/* Under epk_lock: what any thread may do with a domain, as far as the books say. */
int epk_anon_common_prot(int id)
{
	return epk_registry_at(EPK_ID_INDEX(id))->common;
}
