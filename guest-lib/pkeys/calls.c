// SPDX-License-Identifier: MIT
/*
 * Calls of the C library that find memory with a key.
 * What libepk calls is its own affair, told by its text.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "pkeys.h"

#define EXPORT	__attribute__((visibility("default")))
#define CALLER	((uintptr_t)__builtin_return_address(0))

/* libepk's text. */
static uintptr_t text_start, text_end;

static int find_text(struct dl_phdr_info *info, size_t size, void *arg)
{
	const uintptr_t inside = (uintptr_t)dlsym(RTLD_DEFAULT, "epk_version");
	int n;

	(void)size;
	(void)arg;
	for (n = 0; n < info->dlpi_phnum; n++) {
		const ElfW(Phdr) *header = info->dlpi_phdr + n;
		uintptr_t start = info->dlpi_addr + header->p_vaddr;

		if (header->p_type != PT_LOAD || !(header->p_flags & PF_X) || inside < start ||
		    inside >= start + header->p_memsz)
			continue;
		text_start = start;
		text_end = start + header->p_memsz;
		return 1;
	}
	return 0;
}

/* Not the program's own. */
bool pkeys_is_ours(uintptr_t caller)
{
	return pkeys_inside || (caller >= text_start && caller < text_end);
}

long pkeys_answer(long ret)
{
	if (ret >= 0 || ret < -4095)
		return ret;
	errno = -ret;
	return -1;
}

static bool has_key(const void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;
	struct region region;

	return !(start % PAGE) && len && start + page_up(len) > start &&
	       pkeys_region_look(start, start + page_up(len), &region);
}

static int drop(void *addr, size_t len, bool reserve)
{
	struct pkeys_locked locked;
	int saved_errno = errno, err;

	pkeys_lock(&locked);
	err = pkeys_memory_drop((uintptr_t)addr, (uintptr_t)addr + page_up(len), reserve);
	pkeys_unlock(&locked);
	errno = saved_errno;
	return err;
}

int pkeys_unmap(void *addr, size_t len, uintptr_t caller)
{
	if (pkeys_is_ours(caller) || !has_key(addr, len))
		return pkeys_answer(pkeys_raw(SYS_munmap, (long)addr, len, 0, 0, 0, 0));
	return pkeys_answer(drop(addr, len, false));
}

int pkeys_protect(void *addr, size_t len, int prot, uintptr_t caller)
{
	struct pkeys_locked locked;
	int saved_errno = errno, err;

	if (pkeys_is_ours(caller) || !has_key(addr, len))
		return pkeys_answer(pkeys_raw(SYS_mprotect, (long)addr, len, prot, 0, 0, 0));
	if (prot & ~(RW | PROT_EXEC))
		return pkeys_answer(-EINVAL);
	pkeys_lock(&locked);
	err = pkeys_memory_protect((uintptr_t)addr, (uintptr_t)addr + page_up(len),
				   prot & PROT_WRITE ? prot | PROT_READ : prot);
	pkeys_unlock(&locked);
	errno = saved_errno;
	return pkeys_answer(err == -EINVAL || err == -EACCES || !err ? err : -ENOMEM);
}

static void *map(void *addr, size_t len, int prot, int flags, int fd, off_t offset, uintptr_t caller)
{
	long elsewhere, err;

	if (pkeys_is_ours(caller) || (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != MAP_FIXED ||
	    !has_key(addr, len))
		return (void *)pkeys_answer(pkeys_raw(SYS_mmap, (long)addr, len, prot, flags, fd, offset));
	/* What cannot be mapped costs nothing that is there. */
	elsewhere = pkeys_raw(SYS_mmap, 0, len, prot, flags & ~(MAP_FIXED | MAP_POPULATE), fd, offset);
	if (elsewhere < 0 && elsewhere > -4096)
		return (void *)pkeys_answer(elsewhere);
	err = drop(addr, len, true);
	pkeys_raw(SYS_munmap, elsewhere, len, 0, 0, 0, 0);
	if (!err)
		err = pkeys_raw(SYS_mmap, (long)addr, len, prot, flags, fd, offset);
	return (void *)pkeys_answer(err);
}

/* Memory with a key stays where it is and as large as it is. */
void *pkeys_move(void *addr, size_t len, size_t new_len, int flags, void *to, uintptr_t caller)
{
	if (!pkeys_is_ours(caller) && (has_key(addr, len ? len : 1) ||
				       (flags & MREMAP_FIXED && has_key(to, new_len))))
		return (void *)pkeys_answer(-ENOMEM);
	return (void *)pkeys_answer(pkeys_raw(SYS_mremap, (long)addr, len, new_len, flags, (long)to, 0));
}

EXPORT int munmap(void *addr, size_t len)
{
	return pkeys_unmap(addr, len, CALLER);
}

EXPORT int mprotect(void *addr, size_t len, int prot)
{
	return pkeys_protect(addr, len, prot, CALLER);
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return map(addr, len, prot, flags, fd, offset, CALLER);
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
	return map(addr, len, prot, flags, fd, offset, CALLER);
}

EXPORT void *mremap(void *addr, size_t len, size_t new_len, int flags, ...)
{
	void *to = NULL;
	va_list args;

	va_start(args, flags);
	if (flags & MREMAP_FIXED)
		to = va_arg(args, void *);
	va_end(args);
	return pkeys_move(addr, len, new_len, flags, to, CALLER);
}

/* Before anything else of the program: what others' constructors call may come before this one. */
__attribute__((constructor(101))) static void set_up(void)
{
	struct pkeys_locked locked;

	dl_iterate_phdr(find_text, NULL);
	pkeys_lock(&locked);
	pkeys_books->sigaction = dlsym(RTLD_NEXT, "sigaction");
	pkeys_books->pthread_create = dlsym(RTLD_NEXT, "pthread_create");
	pkeys_unlock(&locked);
	pkeys_scan();
	pkeys_fork_setup();
}
