/* SPDX-License-Identifier: MIT */
/*
 * libepk: thousands of memory domains in one process.
 *
 * A domain is memory that a thread can touch only between its own
 * domain_begin() and domain_end().  epk(7) explains the concepts; each call
 * has a man page of its own.
 *
 * Calls that return int return 0 (or what they say) or a negative error
 * number, and leave errno alone.  epk_strerror() turns the number into words.
 */
#ifndef EPK_H
#define EPK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Users may compile with hidden visibility; these stay visible. */
#pragma GCC visibility push(default)

/* What the program was compiled against; epk_version() tells what it runs with. */
#define EPK_VERSION_MAJOR 1
#define EPK_VERSION_MINOR 0

/* Domains that one thread can hold at a time. */
#define EPK_MAX_HELD 64

/* The six calls of the EPK paper (USENIX ATC'22). */

/**
 * alloc_domains() - allocate domain IDs that are cheap to hold together
 * @num: how many
 * @dom_ids: room for @num IDs; written only on success.  IDs are positive
 *
 * All or none.  The domains have no memory yet.  The IDs of one call share an
 * EPT where they fit, so that holding several of them needs PKRU alone.
 * Initialises the library as epk_init(NULL) does if nothing has yet.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or
 * -EINVAL: @num is not positive, @dom_ids is NULL, or EPK_BACKEND names no
 *	backend;
 * -ENOSPC: that many domains do not fit;
 * -EDQUOT: the user's processes have as many domains as they may (backend "epk");
 * -ENOMEM: no memory for the bookkeeping or for the page tables;
 * -ENODEV: the backend that EPK_BACKEND names does not work here; any other
 *	error of epk_init() or of the kernel module, passed on.
 */
int alloc_domains(int num, int dom_ids[]);

/**
 * free_domains() - free domains and unmap all their memory
 * @num: how many
 * @dom_ids: their IDs; the array stays the caller's
 *
 * All or none: every ID is checked before anything is freed.  A freed ID is
 * never valid again in practice: the domain that reuses its index gets
 * another ID until 16,383 others have used that index.
 *
 * Thread-safe; not async-signal-safe.  A thread that begins one of the domains
 * during the call is a bug in the program.
 *
 * Return: 0, or
 * -EINVAL: @num is not positive, @dom_ids is NULL, an ID is not positive, or
 *	one ID stands twice in @dom_ids;
 * -ENOENT: an ID was never allocated, or is freed already;
 * -EPERM: an ID was inherited by fork and belongs to the parent;
 * -EBUSY: the calling thread holds one of the domains; under backends other than "epk",
 *	any thread ("mpk" waits some 50 ms for another one to end it);
 * -ENOMEM: the kernel could not unmap: no domain is freed, but some memory may be gone.
 */
int free_domains(int num, int dom_ids[]);

/**
 * domain_mmap() - map zeroed memory into a domain
 * @dom_id: the domain
 * @addr: hint, or the exact address with MAP_FIXED_NOREPLACE or MAP_FIXED
 * @len: bytes; rounded up to whole pages of 4 KiB
 * @prot: PROT_NONE, PROT_READ, or PROT_READ with PROT_WRITE: the most that a
 *	holder can do.  PROT_WRITE alone means both
 * @flags: 0 or any of MAP_ANONYMOUS, MAP_PRIVATE or MAP_SHARED (not both; they
 *	mean the same), MAP_POPULATE (a hint), MAP_FIXED_NOREPLACE, MAP_FIXED
 *
 * MAP_FIXED replaces ordinary memory in one step, which may be gone if the call fails; not a domain's.
 * The memory is not inherited by fork.  Release it with domain_munmap() or
 * free_domains(), never with munmap(): the library would unmap the range a
 * second time, whoever owns it by then.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: the address, or MAP_FAILED with errno set to
 * EINVAL: @dom_id is not positive, @len is 0, @prot or @flags has another bit
 *	(PROT_EXEC among them), or @addr is misaligned with MAP_FIXED_NOREPLACE or MAP_FIXED;
 * EOVERFLOW: @len rounded up does not fit in a size_t;
 * ENOENT, EPERM: as for free_domains();
 * EEXIST: MAP_FIXED_NOREPLACE and something is mapped there, or MAP_FIXED and a domain's memory is;
 * ENOMEM: no memory, address space or mappings left, or (backend "epk") more
 *	than RLIMIT_MEMLOCK allows;
 * any other error of mmap(2), passed on.
 */
void *domain_mmap(int dom_id, void *addr, size_t len, int prot, int flags);

/**
 * epk_mmap_file() - map a file into a domain
 * @dom_id: the domain
 * @addr: hint, or the exact address with MAP_FIXED_NOREPLACE
 * @len: bytes; rounded up to whole pages of 4 KiB
 * @prot: as for domain_mmap()
 * @flags: 0, MAP_SHARED (which it is in any case), MAP_FIXED_NOREPLACE
 * @fd: the file, which can be closed afterwards
 * @offset: byte in the file, a multiple of 4 KiB
 *
 * The memory is the file's, as with mmap(2) and MAP_SHARED: whoever maps or reads
 * the file sees what is written, and msync(2) brings it to the disk.  Where the file
 * has no page any more, or the disk is full, an access raises SIGBUS.  The domain
 * protects this mapping; the file itself is protected by who may open it.
 *
 * Backend "epk": files of ext4, XFS and tmpfs, and memfds.  They do not count against
 * RLIMIT_MEMLOCK.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: the address, or MAP_FAILED with errno set as by domain_mmap(), or to
 * EBADF: @fd is no open file;
 * EINVAL: @offset is not a multiple of 4 KiB;
 * EACCES: @fd is not open for reading, or not for writing and @prot has PROT_WRITE;
 * EPERM: a seal of the memfd forbids it;
 * EOPNOTSUPP: a file of another kind or filesystem, or DAX (backend "epk");
 * ENODEV: a file that cannot be mapped (other backends).
 */
void *epk_mmap_file(int dom_id, void *addr, size_t len, int prot, int flags, int fd,
		    uint64_t offset);

/**
 * domain_munmap() - unmap domain memory
 * @addr: first byte, a multiple of 4 KiB
 * @len: bytes; rounded up to whole pages
 *
 * The range may be a part of a mapping, or several that touch.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or
 * -EINVAL: @addr is misaligned, @len is 0, or some byte is not domain memory;
 * -EOVERFLOW: the range passes the end of the address space;
 * -ENOMEM: no memory to split a mapping; nothing is unmapped.
 */
int domain_munmap(void *addr, size_t len);

#include <epk_place.h>
#include <epk_remap.h>
#include <epk_code.h>
#include <epk_dirty.h>
#include <epk_snapshot.h>

/**
 * domain_begin() - get the access permission of a domain
 * @dom_id: the domain
 * @prot: PROT_READ, or PROT_READ with PROT_WRITE.  PROT_WRITE alone means both
 *
 * The right is the calling thread's alone.  A thread that holds domains of
 * several EPTs can access them in any order, even in one instruction, and so can its
 * system calls: where an access goes to another EPT than the thread is in, the kernel
 * module takes the thread there, or has the domain come if that happens again and again.
 * No signal is raised.
 *
 * What is held to be read only becomes writable by a call that asks for that.
 *
 * Thread-safe.  Under the backend "epk" async-signal-safe, except for the
 * first call of a thread; under "mpk" not.
 *
 * Return: 0, or
 * -EINVAL: @dom_id is not positive, or @prot is none of the above;
 * -ENOENT: never allocated, or freed;
 * -EPERM: a component; inherited by fork, belongs to the parent; or in a child of vfork(2), whose
 *	parent has begun nothing yet;
 * -EALREADY: the thread holds the domain already, with all that is asked for;
 * -EMFILE: the thread holds EPK_MAX_HELD domains (under "epk" perhaps some more of one EPT);
 * -EAGAIN: threads hold as many domains as there are keys (backend "mpk", after some 50 ms
 *	unless the caller holds them all);
 * -ENOSPC: the domain has no place, and no EPT can show the RAM that its memory lies in
 *	(guests with more RAM than a window has slots);
 * -EINTR: a fatal signal (backend "epk");
 * -EDEADLK: in a signal handler that interrupted a call of the library: it is the thread's
 *	first call; or the domain has no key, and what gives it one was interrupted
 *	(backend "mpk");
 * -ENOMEM: no memory for a thread's first call, 32,767 threads have made theirs, or (backend
 *	"mpk") no memory to split a mapping;
 * -EIO: the EPT did not stay the one that was chosen; no right is left open.
 */
int domain_begin(int dom_id, int prot);

/**
 * domain_end() - give up the access permission of a domain
 * @dom_id: the domain
 *
 * The thread stays in the EPT that it is in.
 *
 * Thread-safe.  Async-signal-safe as domain_begin() is.
 *
 * Return: 0, or
 * -EINVAL: @dom_id is not positive;
 * -ENOENT: never allocated, or freed;
 * -EPERM: inherited by fork, belongs to the parent;
 * -EACCES: the calling thread does not hold it; under "mpk" a signal handler that ends what
 *	the interrupted code holds is not told so, and must not do it;
 * -ENOMEM: under "mprotect": it could not be closed, and is held still;
 * -EIO: the domain is given up, but going back failed; no right is left open.
 */
int domain_end(int dom_id);

/**
 * epk_protect() - say what each thread may do with a domain that it does not hold
 * @dom_id: the domain
 * @prot: PROT_NONE, as it is at first; PROT_READ; or PROT_READ with PROT_WRITE.  PROT_WRITE alone means both
 *
 * For all threads of the process, those to come too, and their signal handlers.  What is less is in force in all of
 * them when it returns.  Who holds the domain may do what it has begun, no more and no less, and
 * after domain_end() what each thread may.  A mapping allows what domain_mmap() and epk_mprotect() say, at most.
 *
 * Backend "epk": the cost does not depend on how much memory the domain has.  A thread's first access in an EPT costs
 * a fault; domain_begin() and domain_end() of such a domain are system calls.  Under "mprotect" rights are the
 * process's, as ever.
 *
 * Thread-safe.  Under the backend "epk" async-signal-safe.
 *
 * Return: 0, or an error, after which nothing has changed:
 * -EINVAL: @dom_id is not positive, or @prot is none of the above;
 * -ENOENT, -EPERM: as for domain_begin();
 * -EOPNOTSUPP: the backend is "mpk" or "vmfunc", where nobody can change what other threads may do;
 * -ENOMEM: no memory, or (backend "mprotect") none to split a mapping.
 */
int epk_protect(int dom_id, int prot);

/**
 * epk_begin_write() - domain_begin() with PROT_READ and PROT_WRITE
 * epk_begin_read() - domain_begin() with PROT_READ
 * @dom_id: the domain
 *
 * The compiler calls these in place of domain_begin() where it knows the @prot.
 *
 * Return: as domain_begin().
 */
int epk_begin_write(int dom_id);
int epk_begin_read(int dom_id);

/* In epk_options.flags: no handler of SIGSEGV and SIGBUS, not even where errors are explained. */
#define EPK_NO_SIGNAL_HANDLER	1u
/*
 * "mpk", "mprotect" and "none" refuse these of the things that "epk" would: memory beyond RLIMIT_MEMLOCK, mappings
 * beyond vm.max_map_count, files that are not ordinary ones of ext4, XFS or tmpfs, epk_call() in 64 of its like; and
 * what needs the module, where the program has closed all descriptors.  For tests.
 */
#define EPK_STRICT		2u
/* There is memory of domains that can be run: epk_mmap_code(). */
#define EPK_CODE		4u

/* What a line is about that the library has to say. */
enum epk_level {
	/* Something protects less than one may think. */
	EPK_LEVEL_WARNING,
	/* Domain memory was touched, and that was refused. */
	EPK_LEVEL_FAULT,
	/* A call failed, and why: with EPK_DEBUG=1, or for who has called epk_set_print(). */
	EPK_LEVEL_DEBUG,
};

/**
 * typedef epk_print_fn - gets the lines that the library has to say
 * @level: what it is about
 * @line: the line, with its end; no longer there after the call
 *
 * It may be called in a signal handler, by any thread, and while the library is at work: it must be
 * async-signal-safe, and call nothing of the library.
 */
typedef void (*epk_print_fn)(enum epk_level level, const char *line);

/**
 * epk_set_print() - say what there is to say to a function, instead of on standard error
 * @print: the function; or NULL, standard error again
 *
 * Before the library is initialised it works, too.  With a function all is said, as with EPK_DEBUG=1.  The
 * one before may still be called for a moment by another thread.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: the function before, or NULL.
 */
epk_print_fn epk_set_print(epk_print_fn print);

/**
 * struct epk_options - what epk_init() can be told; zero means default
 * @size: sizeof(struct epk_options), so that later versions can add fields
 * @backend: "epk", "mpk", "vmfunc", "mprotect", "none", or NULL: EPK_BACKEND, or
 *	what the machine has
 * @flags: 0, or any of EPK_NO_SIGNAL_HANDLER, EPK_STRICT and EPK_CODE
 * @reserved: zero
 */
struct epk_options {
	size_t size;
	const char *backend;
	unsigned int flags;
	unsigned int reserved;
};

/**
 * epk_init() - choose a backend and get the library ready
 * @options: NULL for all defaults; stays the caller's
 *
 * Optional: the first alloc_domains() does it.  Takes every protection key that
 * is free (backends "epk" and "mpk").  The environment variable EPK_BACKEND
 * counts unless @options names a backend or the program runs setuid.  With
 * neither: "epk" if /dev/epk works, else "mpk"; "none" if the CPU or the kernel has no
 * protection keys.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or
 * -EINVAL: the backend's name is unknown, @options->size is less than its own or ends within a
 *	member, a flag is unknown, or @options->reserved is not zero;
 * -E2BIG: @options is from a later version and uses what this one lacks, or its size is over 4096;
 * -EALREADY: the library is initialised, whatever for; nothing changes;
 * -EBUSY: another copy of the library is at work in this process (as far as /proc tells);
 * -EPERM: in a child of vfork(2), which would leave its parent without descriptors, or of another
 *	call that makes a process and that the C library does not know;
 * -ENODEV: the machine lacks what the named backend needs;
 * -ENOSPC: the process has used up its protection keys itself (backend "mpk": all
 *	but one);
 * -ENOMEM, -EMFILE: no memory, no file descriptors;
 * any other error of opening or asking /dev/epk, passed on.
 */
int epk_init(const struct epk_options *options);

/**
 * epk_version() - the version of the library that is in use
 *
 * Thread-safe and async-signal-safe.
 *
 * Return: EPK_VERSION_MAJOR << 16 | EPK_VERSION_MINOR, as it was compiled.
 */
unsigned int epk_version(void);

/**
 * epk_backend() - the backend in use
 *
 * Thread-safe and async-signal-safe.
 *
 * Return: "epk", "mpk", "vmfunc", "mprotect" or "none"; NULL while the library is not initialised.
 */
const char *epk_backend(void);

/**
 * epk_handle_fault() - say what a fault was, if it was at a domain's memory
 * @signo: what a handler of SIGSEGV or SIGBUS that was installed with SA_SIGINFO
 * @info: is called with,
 * @context: all three
 *
 * Says in a line whether it was a read or a write, where, at which byte of which domain, why that is
 * refused, and what the thread holds; of other faults nothing.  What becomes of the thread is the program's own
 * affair: nothing that it may do faults.  With EPK_DEBUG=1, or epk_set_print(), epk_init() installs a handler that
 * does this, where there is none, after which the program ends as without it.
 *
 * Nothing is said in a handler that itself holds something, or that interrupted the library at work; or if another
 * thread does not give up the library's lock within 0.2 s.
 *
 * Thread-safe; async-signal-safe.  Takes up to 6 KiB of the stack.
 *
 * Return: 0: it is not handled.
 */
int epk_handle_fault(int signo, void *info, void *context);

/**
 * epk_strerror() - what an error number means when it comes from this library
 * @error: as returned (negative) or as in errno (positive)
 *
 * If it is the number of the last call that failed in this thread, with the cause that it had then: what
 * the number can mean otherwise.
 *
 * Thread-safe and async-signal-safe.
 *
 * Return: a constant string, never NULL.
 */
const char *epk_strerror(int error);

/**
 * struct epk_counts - what the library counts for this process
 * @size: sizeof(struct epk_counts), set by the caller, so that later versions can add counters
 * @domains: live domains
 * @epts: EPTs that hold at least one of them (0 unless the backend is "epk")
 * @pages: domain pages that are backed by memory now, 4 KiB each; of a file, those that are in
 *	the page cache (backend "epk": that the process has touched)
 * @ept_switches: VMFUNCs that the library executed, all threads
 * @vm_domains: live domains in the whole guest
 * @vm_epts: EPTs that exist in the VM
 * @vm_pages: domain pages in the whole guest
 * @vm_exits: VM exits that EPK has caused in the VM so far
 * @vm_faults: domain faults in the VM so far
 *
 * The vm_ members are 0 unless the backend is "epk" and the process has CAP_SYS_ADMIN.
 */
struct epk_counts {
	size_t size;
	uint64_t domains;
	uint64_t epts;
	uint64_t pages;
	uint64_t ept_switches;
	uint64_t vm_domains;
	uint64_t vm_epts;
	uint64_t vm_pages;
	uint64_t vm_exits;
	uint64_t vm_faults;
};

/**
 * epk_counts() - read the counters
 * @counts: filled in as far as @counts->size goes, which stays; all zero while the library is
 *	not initialised, and what only a later version counts is
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, -EINVAL (@counts is NULL, or @counts->size is 0, over 4096 or no multiple of 8), or an
 * error of the kernel module.
 */
int epk_counts(struct epk_counts *counts);

/**
 * epk_domain_at() - which domain an address belongs to
 * @addr: any address
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: the domain's ID, 0 if it is no domain's memory, or, of a thread that holds something, an
 * error of putting that aside: -EMFILE, -ENOMEM.
 */
int epk_domain_at(const void *addr);

/**
 * epk_held() - which domains the calling thread holds
 * @dom_ids: room for @max IDs, in no order; may be NULL if @max is 0
 * @max: at most so many are stored
 *
 * Thread-safe; async-signal-safe.
 *
 * Return: how many it holds, or -EINVAL: @max is negative, or @dom_ids is NULL and
 * @max is not 0.
 */
int epk_held(int dom_ids[], int max);

/**
 * epk_held_prot() - what the calling thread may do with a domain
 * @dom_id: the domain
 *
 * Thread-safe; async-signal-safe.
 *
 * Return: PROT_READ, PROT_READ | PROT_WRITE, 0 if the thread does not hold it,
 * or -EINVAL, -ENOENT or -EPERM as for domain_end().
 */
int epk_held_prot(int dom_id);

#include "epk_heap.h"

/**
 * epk_call() - run a function with one domain alone
 * @dom_id: the domain, which is held for writing meanwhile
 * @fn: the function
 * @arg: its argument
 * @result: what it returned; may be NULL
 *
 * Whatever else the thread holds, @fn has @dom_id only, and what it begins itself.  It may use
 * the whole library, epk_call() too, fork, and be interrupted by signals.
 *
 * @fn runs on a stack of 128 KiB that the thread has for this, in ordinary memory; one that is
 * called by another such function goes on where that is.  Afterwards the stack is wiped, and what
 * @fn may have left in registers is.
 *
 * A thread that is cancelled may run its cleanup handlers in a signal handler, where it holds nothing.
 *
 * @fn may be left by a return, a C++ exception and the end of the thread, pthread_cancel()
 * included: then the thread holds what it held before the call, and @dom_id no more, unless it
 * did before.  If @fn is left by longjmp() or siglongjmp(), with glibc, and the call was made on the
 * thread's own stack, the thread holds nothing at all, and what is in use of the stack is wiped after
 * the next call.  On another stack, a coroutine's for example, @dom_id stays held: end it.
 *
 * A fault of @fn is a signal, as of any other code: see epk_call_caught().  What is not to write to
 * ordinary memory either is called in a component that is confined: epk_gate_call(3) shows how.
 *
 * Thread-safe; not async-signal-safe under "mpk" and "mprotect".
 *
 * Return: 0, or
 * -EINVAL: @dom_id is not positive, or @fn is NULL;
 * -EACCES: the thread holds the domain for reading only;
 * -EMFILE: calls and signals have put aside what the thread held too often;
 * -ENOENT, -EPERM, -EAGAIN, -ENOSPC: as for domain_begin(); -EPERM also where it is called in a
 *	component, whose stack the function could not return to;
 * -ENOMEM: no memory for a stack;
 * -EIO: @fn has run, but what was held before could not be given back: nothing is held.
 */
int epk_call(int dom_id, long (*fn)(void *arg), void *arg, long *result);

/**
 * epk_call_caught() - epk_call() of a function that may fault
 * @dom_id: as for epk_call()
 * @fn: the function
 * @arg: its argument
 * @result: what it returned, and not written to if it faults; may be NULL
 *
 * As epk_call(), but for two system calls: and what an instruction of @fn does that raises SIGSEGV, SIGBUS,
 * SIGILL or SIGFPE is no signal.  @fn is left there, and the call returns -EFAULT: the thread holds what it
 * held before the call, the stack is wiped, registers are as they are after a return.  No handler of the program's
 * sees it; whatever other code does, and what kill() sends, is its own affair as ever.
 *
 * @fn is left as by longjmp(): no destructor and no cleanup handler runs, what it has locked stays so, a heap of
 * malloc() or of the domain among it.  What it has written to ordinary memory stays written: a component that
 * is confined is for code that is not trusted with that, see epk_gate_call().
 *
 * A function that @fn calls by epk_call() is part of it.  What is not, and gets its signal as ever: a handler
 * of a signal; code on another stack than @fn was given, a coroutine's for example; a child of fork(); what the
 * library does to its own books.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: as epk_call(), or
 * -EFAULT: @fn has faulted: epk_last_fault() says where;
 * -EOPNOTSUPP: the backend is none that can tell, "epk" can.
 */
int epk_call_caught(int dom_id, long (*fn)(void *arg), void *arg, long *result);

/**
 * struct epk_fault - an instruction's fault
 * @size: sizeof(struct epk_fault), set by the caller, so that later versions can add members
 * @addr: as si_addr: what was accessed, if @prot is not 0; else the instruction, or NULL
 * @instruction: where the instruction is
 * @signal: SIGSEGV, SIGBUS, SIGILL or SIGFPE, which it would have been
 * @code: its si_code, as SEGV_PKUERR for a domain that was not held
 * @prot: PROT_READ, PROT_WRITE or PROT_EXEC, which was wanted of @addr; 0: it was no access, or to no
 *	address that there can be
 */
struct epk_fault {
	size_t size;
	void *addr;
	void *instruction;
	int signal;
	int code;
	int prot;
	int reserved;
};

/**
 * epk_last_fault() - where the function faulted that epk_call_caught() has left
 * @fault: its size says how large it is; filled in
 *
 * It is what the kernel has seen, and of the thread's last call of epk_call_caught() that has returned
 * -EFAULT; in a handler of a signal, too.  Addresses are the function's own, computed from what it has read,
 * its domain's secrets perhaps: they are for who may know these.  What a component has done is not told.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0, or
 * -EINVAL: @fault is NULL, or its size is none;
 * -ENOENT: no call has returned that, as ever under other backends than "epk", or since fork().
 */
int epk_last_fault(struct epk_fault *fault);

/**
 * struct epk_component_options - what a component is to have
 * @size: of this structure
 * @stack_bytes: of the stack of each thread in it, with a guard page; at least 16 KiB;
 *	0: 32 KiB
 * @threads: that can be in it at a time, up to 1,024; 0: 16
 * @flags: EPK_COMPONENT_CONFINED or 0
 * @heap_bytes: of a heap that it has from the start, with what that needs itself; 0: none
 */
struct epk_component_options {
	size_t size;
	size_t stack_bytes;
	unsigned int threads;
	unsigned int flags;
	size_t heap_bytes;
};

/*
 * Code in it can read ordinary memory, and write to none: globals, the heap, the caller's stack.  An attempt
 * is a fault, and a system call's EFAULT.  errno and other thread-local variables are a copy, made at each
 * call.  It allocates in its domain what @heap_bytes leave, as a heap cannot grow from within; and other
 * components that it calls are not confined by that.  Link the program with "-z now", since symbols that are bound when they
 * are first called are written to memory then.
 */
#define EPK_COMPONENT_CONFINED	1u

/**
 * epk_component_create() - let a domain be entered at its entries only
 * @dom_id: a domain without a heap; what it has mapped, it keeps
 * @entries: functions that can be called in it by epk_gate_call(), as long as it lives
 * @nr: how many, up to 64
 * @options: or NULL
 *
 * From then on nobody can begin the domain, the creator neither: its memory is reached by its
 * entries alone.  They run on stacks in the domain, one for each thread, and may hold other domains,
 * allocate in their own, and call other components and themselves.  Who holds it, or waits for it,
 * loses it.  free_domains() ends it.
 *
 * Its stacks and 4 KiB for each 64 threads are domain memory, and count against RLIMIT_MEMLOCK.
 *
 * Return: 0.
 * Errors: EINVAL, E2BIG wrong @nr, @entries or @options; ENOENT, EPERM no such domain; EBUSY it has
 * a heap or a right by epk_protect(), or is a component; EOPNOTSUPP the backend is not "epk", or has but one protection key, or
 * the CPU lacks AES-NI, or the kernel RDFSBASE; ENODEV it cannot be confined any more; ENOMEM; and those of domain_begin().
 */
int epk_component_create(int dom_id, long (*const entries[])(void *arg), unsigned int nr,
			 const struct epk_component_options *options);

/**
 * epk_gate_call() - call into a component that does not trust its caller, nor is trusted
 * @dom_id: the component
 * @entry: index of the function
 * @arg: its argument
 * @result: what it returned; may be NULL
 *
 * The function holds its own domain alone.  The caller's domains, its stack, if it is a
 * component's, and its registers are out of reach, and so are the callee's afterwards; only code of
 * the callee can come back from the call, and only to here.  Floating point and vector registers
 * are as at the start of a thread.
 *
 * A function that faults is left by -EFAULT.  One that is left by longjmp() or the end of the thread
 * holds its slot in the component until the thread ends.
 *
 * Return: 0.
 * Errors: ENOENT, EPERM no such domain; EINVAL it is no component, or has no such entry; EBUSY as
 * many threads are in it as can be; EDEADLK it is called by a signal handler that interrupted it,
 * or is confined and waits; EMFILE the thread is in 15 confined calls, or has put too much aside;
 * EFAULT it has faulted; ENOBUFS it waits, and has too little stack left to be entered; EIO it has run, but what was held before could not be given back; EAGAIN,
 * ENOSPC it has no place, and cannot get one; ENOMEM.
 */
int epk_gate_call(int dom_id, unsigned int entry, void *arg, long *result);

/**
 * epk_may_access() - would an access be refused
 * @addr: its first byte
 * @len: bytes
 * @prot: PROT_READ, or PROT_READ with PROT_WRITE.  PROT_WRITE alone means both
 *
 * Looks at domains alone: memory of none is the program's own affair.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: 0: the calling thread holds each domain that a part of it is memory of, for that; or
 * -EACCES: not all of them, or the mapping is to be read only, or not even that;
 * -EINVAL: @prot is none of the above;
 * -EOVERFLOW: the range passes the end of the address space;
 * -EMFILE, -ENOMEM: an error of putting aside what the thread holds.
 */
int epk_may_access(const void *addr, size_t len, int prot);

/**
 * struct epk_scope - what EPK_WITH() keeps on the stack
 * @dom_id: the domain
 * @error: why it is not held, or 0
 * @done: the body has run
 * @before: what the thread held of it before
 */
struct epk_scope {
	int dom_id;
	int error;
	int done;
	int before;
};

/**
 * epk_scope_enter() - begin what EPK_WITH() holds
 * epk_scope_leave() - end it
 * @scope: on the stack; @scope->dom_id says which domain
 * @prot: as for domain_begin()
 *
 * For EPK_WITH() alone.
 *
 * Return: @scope.
 */
struct epk_scope *epk_scope_enter(struct epk_scope *scope, int prot);
void epk_scope_leave(struct epk_scope *scope);

/**
 * EPK_WITH() - hold a domain for the statement that follows
 * @dom_id: the domain
 * @prot: as for domain_begin()
 *
 * Afterwards the thread holds of the domain what it did before, nothing or something, however
 * the statement is left: at its end, by return, break, goto or a C++ exception; by the end of
 * the thread in any case.  So one may stand in another for the same domain.  Only longjmp() leaves
 * it held: what is to be left so is called by epk_call().
 * The statement does not run at all if domain_begin() fails; EPK_WITH_ERROR() stores why.
 */
#define EPK_WITH(dom_id, prot)							\
	for (struct epk_scope epk_scope_ __attribute__((__cleanup__(epk_scope_leave))) =	\
		     { (dom_id), -1, 0, -1 },				\
		     *epk_in_ = epk_scope_enter(&epk_scope_, (prot));		\
	     !epk_in_->error && !epk_in_->done; epk_in_->done = 1)

/**
 * EPK_WITH_ERROR() - EPK_WITH() that tells what domain_begin() returned
 * @error: an int variable
 * @dom_id: the domain
 * @prot: as for domain_begin()
 *
 * That the thread holds the domain already is no error.
 */
#define EPK_WITH_ERROR(error_, dom_id, prot)					\
	for (struct epk_scope epk_scope_ __attribute__((__cleanup__(epk_scope_leave))) =	\
		     { (dom_id), -1, 0, -1 },				\
		     *epk_in_ = epk_scope_enter(&epk_scope_, (prot));		\
	     ((error_) = epk_in_->error) == 0 && !epk_in_->done; epk_in_->done = 1)

/**
 * epk_for_each_mapping() - visit all live mappings of all domains
 * @visit: called for each, without locks held, until it returns non-zero
 * @arg: handed to @visit
 *
 * The list is a snapshot: @visit may call the library.
 *
 * Thread-safe; not async-signal-safe.
 *
 * Return: what the last @visit returned, 0 if there was none, -EINVAL (@visit
 * is NULL) or -ENOMEM.
 */
int epk_for_each_mapping(int (*visit)(int dom_id, void *addr, size_t len, void *arg),
			 void *arg);

#ifdef __OPTIMIZE__
extern inline int __attribute__((__gnu_inline__, __always_inline__))
domain_begin(int dom_id, int prot)
{
	int epk_begin_any(int dom_id, int prot) __asm__("domain_begin");

	if (__builtin_constant_p(prot) && prot == PROT_READ)
		return epk_begin_read(dom_id);
	if (__builtin_constant_p(prot) && prot == (PROT_READ | PROT_WRITE))
		return epk_begin_write(dom_id);
	return epk_begin_any(dom_id, prot);
}
#endif

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* EPK_H */
