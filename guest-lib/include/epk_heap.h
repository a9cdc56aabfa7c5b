/* SPDX-License-Identifier: MIT */
/* Heaps in domains: a part of <epk.h>. */
#ifndef EPK_HEAP_CALLS_H
#define EPK_HEAP_CALLS_H

#ifndef EPK_H
#error "include <epk.h>, which includes this"
#endif

/**
 * epk_malloc() - allocate memory of a domain
 * epk_calloc() - the same, zeroed
 * epk_memalign() - the same, at a multiple of @align
 * epk_realloc() - change the size of an allocation; its contents stay
 * @dom_id: the domain.  The thread need not hold it: then it is held for the
 *	call.  If it does, for writing
 * @size: bytes; 0 is as good as 1
 * @nr: that many times @size
 * @align: a power of two, at most 1 GiB.  Without it, 16
 * @ptr: what one of these returned for the same domain, or NULL
 *
 * The heap lies in the domain with all that it knows about itself.  Memory goes
 * back to the system with free_domains().
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: the memory, or NULL with errno set to
 * EINVAL: @dom_id is not positive, @align is no power of two or too large, or @ptr
 *	is no allocation of this domain;
 * ENOMEM: no memory, or @nr times @size overflows;
 * EACCES: the thread holds the domain for reading only;
 * ENOENT, EPERM, EMFILE, EAGAIN, ENOSPC, EIO: as for domain_begin().
 */
void *epk_malloc(int dom_id, size_t size);
void *epk_calloc(int dom_id, size_t nr, size_t size);
void *epk_memalign(int dom_id, size_t align, size_t size);
void *epk_realloc(int dom_id, void *ptr, size_t size);

/**
 * epk_free() - give an allocation back
 * @dom_id: the domain that it was made in; held or not, as for epk_malloc()
 * @ptr: what epk_malloc() and its like returned, or NULL
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or
 * -EINVAL: @dom_id is not positive, or @ptr is no allocation of this domain, or
 *	was given back already;
 * -EACCES, -ENOENT, -EPERM, -EMFILE, -EAGAIN, -ENOSPC, -EIO: as for epk_malloc().
 */
int epk_free(int dom_id, void *ptr);

/**
 * epk_usable_size() - how many bytes an allocation has
 * @dom_id: the domain that it was made in; held or not, as for epk_malloc()
 * @ptr: what epk_malloc() and its like returned, or NULL
 *
 * At least what was asked for; all of them may be used.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: the bytes; 0 for NULL, and with errno set, as by epk_realloc(), where it is no allocation.
 */
size_t epk_usable_size(int dom_id, void *ptr);

/**
 * epk_heap_choose() - say whose heap the calling thread allocates in by epk_malloc_here() and its like
 * @dom_id: the domain, held or not, as for epk_malloc(); or 0: the one that it holds to be written
 *
 * Thread-safe; async-signal-safe.
 *
 * Return: what was chosen before, perhaps 0; or -EINVAL, -ENOENT or -EPERM as for domain_end().
 */
int epk_heap_choose(int dom_id);

/**
 * epk_heap_open() - have a domain's heap in a file, and find it there again
 * @dom_id: a domain without a heap; held or not, as for epk_malloc()
 * @fd: a regular file, as for epk_mmap_file(), open to be read and written; can be closed afterwards
 * @bytes: how large the file is to be, if it is empty, up to 1 TiB.  It stays so
 * @root: where the address of a pointer is stored that lies in the file: NULL in a new heap, and
 *	then what the program writes to it, holding the domain
 *
 * epk_malloc() and its like then allocate in the file, which lies at the same address each time, so that pointers
 * from one allocation to another stay good.  free_domains() unmaps it; the file keeps what was allocated.
 *
 * A process may be killed at any instruction: the heap is whole afterwards, all that was allocated and not given
 * back is there, and at most one allocation more, that nobody was told of.  What the program was about to write
 * is its own affair: make it reachable from the root by one store.  Memory reaches the disk by fsync() and
 * whenever the kernel likes, in any order: what is there after a crash of the machine need not be whole.
 *
 * One domain of one process at a time has the file, which is locked for that (fcntl(2), F_OFD_SETLK) by a
 * descriptor of its own, made by way of /proc: the process has to be allowed to open it.
 *
 * Who can write to the file can make the program and the library read and write anywhere, and who makes it
 * shorter ends a thread by SIGBUS wherever it touches the heap, perhaps with the heap's lock.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0: the file had a heap, perhaps of a process that was killed before it stored a root: look whether
 * there is one; 1: it had none, and has a new one; or
 * -EINVAL: @dom_id is not positive, @root is NULL, @bytes is 0 or too large for a file that is empty, or
 *	the file is neither empty nor such a heap, or damaged;
 * -EEXIST: something is mapped where the file was before;
 * -EACCES: @fd is not open for both, or the process may not open the file;
 * -EBUSY: the domain has a heap, or the file is open as one already;
 * -ENOSPC: the disk has no room for @bytes, or as for domain_begin();
 * -EOPNOTSUPP: there is no /proc;
 * those of epk_malloc() and epk_mmap_file(), of posix_fallocate(), open() and fcntl(), and of reading and
 * writing @fd.
 */
int epk_heap_open(int dom_id, int fd, size_t bytes, void ***root);

/**
 * epk_malloc_here() - epk_malloc() for code that knows of no domain
 * epk_calloc_here() - epk_calloc(), likewise
 * epk_realloc_here() - epk_realloc()
 * epk_free_here() - epk_free()
 * epk_usable_size_here() - epk_usable_size()
 * @nr: as for epk_calloc()
 * @size: likewise
 * @ptr: what one of these returned, or one of the calls that name the domain; or NULL
 *
 * For the hooks by which libraries let one choose an allocator.  What is allocated lies in the domain that
 * epk_heap_choose() has chosen, or in the only one that the thread holds to be written.  What is given back,
 * or changes its size, does so in the domain that it lies in.  errno says what went wrong with epk_free_here().
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: as the call of the domain's name, or with errno set to
 * EINVAL: nothing is chosen, and the thread holds no domain to be written, or several; or @ptr lies in none.
 */
void *epk_malloc_here(size_t size);
void *epk_calloc_here(size_t nr, size_t size);
void *epk_realloc_here(void *ptr, size_t size);
void epk_free_here(void *ptr);
size_t epk_usable_size_here(void *ptr);

#endif /* EPK_HEAP_CALLS_H */
