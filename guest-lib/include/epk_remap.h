/* SPDX-License-Identifier: MIT */
/* libepk: domain memory that changes in place.  A part of <epk.h>, which includes it. */
#ifndef EPK_REMAP_H
#define EPK_REMAP_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/**
 * epk_munmap_reserve() - unmap domain memory, and keep its addresses
 * @addr: first byte, a multiple of 4 KiB
 * @len: bytes; rounded up to whole pages
 *
 * As domain_munmap(), but ordinary memory that nobody can access (PROT_NONE) lies there afterwards, without a
 * moment in which another thread's mmap(2) could get that place.  Map over it with MAP_FIXED, or unmap it with
 * munmap(2).
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or an error of domain_munmap(), after which nothing has changed; or an error of mmap(2).
 */
int epk_munmap_reserve(void *addr, size_t len);

/**
 * epk_mprotect() - change the most that holders can do with domain memory
 * @addr: first byte, a multiple of 4 KiB
 * @len: bytes; rounded up to whole pages
 * @prot: as for domain_mmap(); of epk_mmap_code()'s, as there
 *
 * The range may be a part of a mapping, or several that touch.  Who does not hold the domain can do
 * nothing as before, and who holds it to be read only cannot write.  Use this and not mprotect(2), of which the
 * library would not know.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or an error, after which nothing has changed:
 * -EINVAL: @prot has another bit, or as for domain_munmap();
 * -EOVERFLOW: as for domain_munmap();
 * -EACCES: of a file that is not open for writing; of code, see epk_mmap_code();
 * -EPERM: a component's memory (backend "epk");
 * -ENOMEM: no memory to split a mapping.
 */
int epk_mprotect(void *addr, size_t len, int prot);
/**
 * epk_fill() - write to domain memory, whatever its mapping allows
 * @addr: first byte, a multiple of 4 KiB
 * @from: what to write
 * @len: bytes, whole pages
 *
 * The caller holds the domain to write.  What is mapped with PROT_READ or PROT_NONE is written all the same, so that
 * other holders see none of it before epk_mprotect() opens it, and write nothing that is lost.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or an error, after which a part may be written:
 * -EINVAL: not whole pages, @len is 0, or some byte is not domain memory, or that of a file (backend "epk");
 * -EOVERFLOW: the range passes the end of the address space;
 * -EACCES: the caller does not hold the domain to write, or the process cannot be dumped (other backends);
 * -EFAULT: @from cannot be read;
 * -ENOMEM, -ENOSPC: no memory, no place for the domain;
 * -ENOENT: the domain was freed meanwhile (backend "epk"), or there is no /proc (other backends);
 * -EMFILE, -ENFILE: no file more can be opened (other backends);
 * -EIO: a file's memory that cannot be written (other backends).
 */
int epk_fill(void *addr, const void *from, size_t len);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* EPK_REMAP_H */
