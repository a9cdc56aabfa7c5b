/* SPDX-License-Identifier: MIT */
/*
 * Why calls fail, where one error number has several reasons: each with what to do about it.  What an
 * error number means without a cause, error.c says.  A thread's last cause is kept as a number, since
 * anybody could change a pointer.
 */
#ifndef EPK_CAUSES_H
#define EPK_CAUSES_H

#define EPK_CAUSES(CAUSE)							\
	CAUSE(EPK_CAUSE_NUM, EINVAL, "num is not positive, or dom_ids is NULL")		\
	CAUSE(EPK_CAUSE_ID, EINVAL, "an ID of a domain is positive: look at what alloc_domains() returned")		\
	CAUSE(EPK_CAUSE_TWICE, EINVAL, "an ID stands twice in dom_ids")			\
	CAUSE(EPK_CAUSE_PROT, EINVAL, "prot is PROT_READ, perhaps with PROT_WRITE; no domain's memory can be run")	\
	CAUSE(EPK_CAUSE_COMMON, EINVAL, "prot is PROT_NONE, PROT_READ, or PROT_READ with PROT_WRITE")	\
	CAUSE(EPK_CAUSE_FLAGS, EINVAL, "a flag that this memory cannot have; MAP_FIXED is for domain_mmap() alone")	\
	CAUSE(EPK_CAUSE_LEN, EINVAL, "len is 0")						\
	CAUSE(EPK_CAUSE_PAGE, EINVAL, "the address, or the offset in the file, is no multiple of 4096")	\
	CAUSE(EPK_CAUSE_MEMORY, EINVAL, "a part of it is no domain's memory: domain_mmap() and epk_mmap_file() give that")	\
	CAUSE(EPK_CAUSE_ALIGN, EINVAL, "align is a power of two, and at most 1 GiB")	\
	CAUSE(EPK_CAUSE_POINTER, EINVAL, "no allocation of this domain's heap, or given back already")	\
	CAUSE(EPK_CAUSE_FUNCTION, EINVAL, "there is no function to call")			\
	CAUSE(EPK_CAUSE_ENTRIES, EINVAL, "a component has 1 to 64 entries, none of them NULL")	\
	CAUSE(EPK_CAUSE_ENTRY, EINVAL, "the domain is no component, or has no such entry")	\
	CAUSE(EPK_CAUSE_COUNTS, EINVAL, "epk_counts.size is to be sizeof(struct epk_counts)")	\
	CAUSE(EPK_CAUSE_FAULT, EINVAL, "epk_fault.size is to be sizeof(struct epk_fault)")	\
	CAUSE(EPK_CAUSE_NO_FAULT, ENOENT, "no epk_call_caught() of this thread has returned -EFAULT")	\
	CAUSE(EPK_CAUSE_VISIT, EINVAL, "there is no function to visit with")		\
	CAUSE(EPK_CAUSE_BACKEND, EINVAL, "the backends are epk, mpk, vmfunc, mprotect and none")	\
	CAUSE(EPK_CAUSE_SIZE, EINVAL, "options.size is to be the sizeof() of their structure")	\
	CAUSE(EPK_CAUSE_OPTION, EINVAL, "a flag of the options is unknown, a reserved member not 0, or a value out of range")	\
	CAUSE(EPK_CAUSE_VERSION, EINVAL, "the kernel module is of another version than libepk: load the one that belongs to it")	\
	CAUSE(EPK_CAUSE_HEAP, EINVAL, "which domain's heap: epk_heap_choose() says so where not exactly one is held to be written")	\
	CAUSE(EPK_CAUSE_HEAP_FILE, EINVAL, "the file is not empty, and has no heap that epk_heap_open() has made, or it is damaged")	\
	CAUSE(EPK_CAUSE_ROOT, EINVAL, "there is no place for the address of the root")	\
	CAUSE(EPK_CAUSE_DIRTY, EINVAL, "there is no place for the result, or nothing that is watched")	\
	CAUSE(EPK_CAUSE_DIRTY_DOMAIN, EINVAL, "a domain's memory lies there: ordinary memory can be watched, and take the result")	\
	CAUSE(EPK_CAUSE_DIRTY_TWICE, EBUSY, "a part of it is watched already: epk_dirty_stop() ends that")	\
	CAUSE(EPK_CAUSE_DIRTY_FOREIGN, EBUSY, "another userfaultfd with WP_ASYNC has a part of it: nobody else's writes can be told there")	\
	CAUSE(EPK_CAUSE_DIRTY_CHILD, EPERM, "it is the parent's memory that is watched: epk_dirty_start() does it here")	\
	CAUSE(EPK_CAUSE_DIRTY_KERNEL, EOPNOTSUPP, "the kernel cannot tell what is written to, or may not: it takes userfaultfd with WP_ASYNC, and PAGEMAP_SCAN, as Debian's 6.12 has them")	\
	CAUSE(EPK_CAUSE_DIRTY_FILES, EMFILE, "the process has as many files open as RLIMIT_NOFILE allows")	\
	CAUSE(EPK_CAUSE_DIRTY_ACCESS, EACCES, "/proc/self/pagemap is root's after a change of user: prctl(PR_SET_DUMPABLE) gives it back")	\
	CAUSE(EPK_CAUSE_DIRTY_PROC, ENOENT, "there is no /proc/self/pagemap: /proc has to be mounted")	\
	CAUSE(EPK_CAUSE_DIRTY_CLOSED, EBADF, "the program has closed the library's userfaultfd: epk_dirty_stop(), and start anew")	\
	CAUSE(EPK_CAUSE_SNAPSHOT, EINVAL, "no snapshot: its number is what epk_snapshot() or epk_snapshot_domain() has returned")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_DOMAIN, EINVAL, "a domain's memory lies there: epk_snapshot_domain() is for that")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_OWN, EINVAL, "memory of libepk's own lies there: give it memory that is for the program's data alone")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_HOLE, EINVAL, "a part of the memory is not mapped: what was unmapped cannot be brought back")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_GONE, EINVAL, "a part of the memory is the domain's no more, or cannot be written: it cannot be brought back")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_STACK, EINVAL, "the caller's stack lies in what is to be brought back: call it from another")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_ACCESS, EACCES, "a part of the memory cannot be read, or not be written to bring it back: mprotect() it before")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_STALE, ESTALE, "the domain has other memory than it had then: epk_snapshot_free(), and take another snapshot")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_BUSY, EBUSY, "the snapshot is in use, by another thread or what a signal handler has interrupted")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_HEAP, EBUSY, "the domain has got its heap since: allocate something in it before the snapshot is taken")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_FILE, EOPNOTSUPP, "the domain has memory of a file, or code, which others see: that cannot be brought back")	\
	CAUSE(EPK_CAUSE_SNAPSHOT_ONE, EOPNOTSUPP, "this backend lets a thread reach one domain at a time: epk lets it reach the copy, too")	\
	CAUSE(EPK_CAUSE_CLOSED, EBADF, "the program has closed the library's descriptor, of /dev/epk: it is to close its own alone")	\
	CAUSE(EPK_CAUSE_INITIALISED, EALREADY, "epk_init() comes before all other calls, and once")	\
	CAUSE(EPK_CAUSE_COPY, EBUSY, "another copy of libepk is at work in this process: link it once, as a shared object")	\
	CAUSE(EPK_CAUSE_HEAP_OPEN, EBUSY, "the file is locked: its heap is open already, here or in another process")	\
	CAUSE(EPK_CAUSE_USED, EBUSY, "it is a component already, has a heap, or what epk_protect() gives: make it one before")	\
	CAUSE(EPK_CAUSE_READ_ONLY, EACCES, "held to be read only: domain_begin() with PROT_WRITE widens that")	\
	CAUSE(EPK_CAUSE_FILE_MODE, EACCES, "the file is not open for reading, or not for writing and prot has PROT_WRITE")	\
	CAUSE(EPK_CAUSE_HEAP_MODE, EACCES, "a heap's file is opened anew to be locked: the process may not, or its descriptor is not for both")	\
	CAUSE(EPK_CAUSE_DEVICE, EACCES, "this user may not open /dev/epk: its group may, see epk-check(1)")	\
	CAUSE(EPK_CAUSE_VFORK, EPERM, "a child of vfork() has its parent's memory: its parent is to begin a domain first")	\
	CAUSE(EPK_CAUSE_SEAL, EPERM, "a seal of the memfd forbids it")			\
	CAUSE(EPK_CAUSE_NO_DEVICE, ENODEV, "there is no /dev/epk: load the kernel module, epk")	\
	CAUSE(EPK_CAUSE_NO_PKEYS, ENODEV, "no protection keys: \"ospke\" is not in /proc/cpuinfo")	\
	CAUSE(EPK_CAUSE_FILE, ENODEV, "the file cannot be mapped, as a pipe or a directory: give an ordinary one")	\
	CAUSE(EPK_CAUSE_PKEYS, ENOSPC, "no protection key is free: the program has allocated them all")	\
	CAUSE(EPK_CAUSE_EVERYWHERE, ENOSPC, "fewer than two keys would be left for domains that are not everywhere, or the table is full: make fewer")	\
	CAUSE(EPK_CAUSE_GATHER, ENOSPC, "so many cannot be together: an EPT has as many as the process has keys, 15 at most")	\
	CAUSE(EPK_CAUSE_GATHER_ROOM, ENOSPC, "no EPT has room for all: components, and what epk_protect() gives to all, stay where they are, RAM perhaps, too: gather first")	\
	CAUSE(EPK_CAUSE_MEMLOCK, ENOMEM, "RLIMIT_MEMLOCK is reached: raise it (ulimit -l, LimitMEMLOCK=), or use less domain memory")	\
	CAUSE(EPK_CAUSE_MAPPINGS, ENOMEM, "the process has as many mappings as vm.max_map_count allows: raise it, or map fewer and larger ones")	\
	CAUSE(EPK_CAUSE_HEAP_PROC, EOPNOTSUPP, "a heap's file is opened anew to be locked, by /proc, which is not there")	\
	CAUSE(EPK_CAUSE_CATCH, EOPNOTSUPP, "this backend cannot tell a fault of the function: epk can")	\
	CAUSE(EPK_CAUSE_PROTECT, EOPNOTSUPP, "this backend cannot change what other threads may do: epk can")	\
	CAUSE(EPK_CAUSE_FAULTED, EFAULT, "the function has faulted, and was left there: epk_last_fault() says where; what it had locked stays locked")	\
	CAUSE(EPK_CAUSE_CODE, EACCES, "the code has the bytes of WRPKRU, XRSTOR or VMFUNC in it: have other ones there")	\
	CAUSE(EPK_CAUSE_CODE_END, EACCES, "the code's last bytes could begin WRPKRU, XRSTOR or VMFUNC: put a NOP behind them")	\
	CAUSE(EPK_CAUSE_CODE_PROT, EINVAL, "prot is PROT_READ with PROT_WRITE, perhaps with PROT_EXEC, and there is a place for the other address")	\
	CAUSE(EPK_CAUSE_CODE_ROOM, ENOMEM, "all code of a process together takes 1 GiB at most")	\
	CAUSE(EPK_CAUSE_NO_CODE, EOPNOTSUPP, "no memory of domains can be run: epk_init() with EPK_CODE has some that can")	\
	CAUSE(EPK_CAUSE_COMPONENT, EOPNOTSUPP, "components are for the backend epk, with two keys, AES-NI and RDFSBASE")

#define EPK_CAUSE_NAME(cause, error, text)	cause,
enum epk_cause {
	EPK_CAUSE_NONE,
	EPK_CAUSES(EPK_CAUSE_NAME)
	EPK_NR_CAUSES
};
#undef EPK_CAUSE_NAME

/*
 * error.c: the calling thread's call fails for this; returns the error number, negative.  Cold: what
 * succeeds, as allocations do, saves no registers for it.
 */
__attribute__((cold)) int epk_because(enum epk_cause cause);
/* The same, for that of a call of the library's that has just set errno. */
__attribute__((cold)) int epk_because_of_call(void);
/* Or that has just returned @err. */
__attribute__((cold)) int epk_because_of(int err);

#endif /* EPK_CAUSES_H */
