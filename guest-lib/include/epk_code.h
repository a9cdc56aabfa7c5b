/* SPDX-License-Identifier: MIT */
/* libepk: code that only who holds a domain writes.  A part of <epk.h>, which includes it. */
#ifndef EPK_CODE_MEMORY_H
#define EPK_CODE_MEMORY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/**
 * epk_mmap_code() - map memory for code into a domain
 * @dom_id: the domain
 * @len: bytes; rounded up to whole pages of 4 KiB
 * @prot: PROT_READ with PROT_WRITE; with PROT_EXEC besides, it can be run at once, and while it is written
 * @run: where it is run is stored there
 *
 * Each byte has two addresses.  At the one that is returned it is the domain's: who holds that writes it, and nobody can run
 * it.  At the other it is ordinary memory that all threads can run and read, in all domains and in none, and nobody
 * can write, nor have mprotect(2) make it so.  As far from @run as from the address that is returned lies the same byte.
 *
 * Only after epk_init() with EPK_CODE.  epk_mprotect() of what was returned says what can be done with both:
 * PROT_READ with PROT_EXEC: it is run, and no holder can write; before, what could write has ended, and the code is
 *	inspected: refused if it has WRPKRU, XRSTOR or VMFUNC wherever an instruction may begin, or ends with what could
 *	begin one of them.  In the moment of that it does not run;
 * PROT_READ with PROT_WRITE: holders write, and it is not run;
 * all three: both.  It is not inspected;
 * PROT_READ, PROT_NONE: neither.
 *
 * What is written by one address and was run by the other is to be run again after an instruction that serializes,
 * as CPUID, in each thread that runs it.
 *
 * When that fails, none of it runs.  domain_munmap() and free_domains() take both away.  A child has neither.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: the address, or MAP_FAILED with errno set to
 * EOPNOTSUPP: epk_init() was not called with EPK_CODE;
 * EINVAL: @dom_id is not positive, @len is 0, @prot is another, or @run is NULL;
 * ENOMEM: all code of the process would take more than 1 GiB; no memory or mappings left;
 * EMFILE, ENFILE: no file more can be opened;
 * any other error of domain_mmap(), of memfd_create(2), or of what seals it.
 */
void *epk_mmap_code(int dom_id, size_t len, int prot, void **run);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* EPK_CODE_MEMORY_H */
