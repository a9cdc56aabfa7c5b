/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Extended Protection Keys: the interface between /dev/epk and a process.
 *
 * Opening /dev/epk gives a context that belongs to the opener's address space.
 * Calls from any other address space (a forked child's, say) fail with EPERM, whatever they
 * are; an unknown call with ENOTTY; all but EPK_IOC_INIT and EPK_IOC_STATS with ENXIO before
 * EPK_IOC_INIT has succeeded, mmap() too.
 *
 * One user's processes may have only so much between them, by the module's parameters
 * max_user_*; who has CAP_SYS_RESOURCE may have more.  Beyond that open() and EPK_IOC_ALLOC
 * fail with EDQUOT and mmap() with ENOMEM; an EPT is then one without a free key.
 */
#ifndef _UAPI_LINUX_EPK_H
#define _UAPI_LINUX_EPK_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define EPK_DEVICE		"/dev/epk"
#define EPK_ABI_VERSION		5

/*
 * A domain ID is a positive int: an index into the domain table in the low
 * bits, a generation (1 upwards) above it, so that a freed ID is never taken
 * for the domain that reuses its index.
 */
#define EPK_ID_INDEX_BITS	17
#define EPK_ID_INDEX(id)	((__u32)(id) & ((1u << EPK_ID_INDEX_BITS) - 1))
#define EPK_GENERATION_MAX	((1u << (31 - EPK_ID_INDEX_BITS)) - 1)

/**
 * struct epk_entry - one domain in the read-only domain table
 * @id: the domain's ID, or 0 while this index is free
 * @ept: the EPT that maps the domain's window, EPK_EPT_ALL or EPK_EPT_NONE
 * @pkey: the protection key of the domain's pages in that EPT; 0 while the
 *	domain is evicted: it keeps its memory, but nobody can reach it there
 * @rsvd: zero
 *
 * Written by the module as one aligned 8-byte store; read it as one load.
 *
 * Entry 0 is no domain's.  Its @id is 1, an index in itself, so that who compares
 * it with an ID finds none there.  Its upper 32 bits, EPK_ENTRY_REVOCATIONS(), count how
 * often the module has closed keys of vacated places in the PKRU of threads, so
 * that another domain could have the place.  Who reads PKRU, changes a bit and
 * writes it back may undo that: if the count changed meanwhile, compute PKRU
 * afresh from the table.
 */
struct epk_entry {
	__s32 id;
	__u16 ept;
	__u8 pkey;
	__u8 rsvd;
};

#define EPK_ENTRY_REVOCATIONS(word)	((__u32)((__u64)(word) >> 32))

/* In place of an EPT index: none (evicted), whichever has room, and each: see EPK_ALLOC_EVERYWHERE. */
#define EPK_EPT_NONE		0xffff
#define EPK_EPT_ANY		0xfffe
#define EPK_EPT_ALL		0xfffd

/**
 * struct epk_init - argument of EPK_IOC_INIT, once for each context
 * @version: in: EPK_ABI_VERSION
 * @pkeys: in: bit k set: pkey k (1-15) was allocated by the caller with
 *	pkey_alloc() and is the module's to place domains on from now on
 * @max_domains: out: entries of the domain table; domains at a time are one
 *	fewer, of which as many as there are (EPT, pkey) pairs have a place
 * @nr_epts: out: EPTs at a time; fewer than there are for who opened without
 *	CAP_SYS_RESOURCE
 * @table_bytes: out: size of the domain table's mapping
 * @generation: in: generations of IDs begin behind this one, 0 to
 *	EPK_GENERATION_MAX: a forked child's IDs are then none of its parent's
 */
struct epk_init {
	__u32 version;
	__u32 pkeys;
	__u32 max_domains;
	__u32 nr_epts;
	__u32 table_bytes;
	__u32 generation;
};

/**
 * struct epk_domains - argument of EPK_IOC_ALLOC and EPK_IOC_FREE
 * @num: in: number of IDs, at least 1
 * @flags: in: EPK_ALLOC_SPILL, EPK_ALLOC_AT() or EPK_ALLOC_EVERYWHERE for EPK_IOC_ALLOC, else zero
 * @ids: pointer to @num IDs of type __s32; out for EPK_IOC_ALLOC, in for
 *	EPK_IOC_FREE.  All or none
 *
 * Errors of EPK_IOC_ALLOC: EINVAL wrong @flags or no @num; ENOSPC no key is free, or the
 * table is full; EDQUOT the user has as many domains as it may; ENOMEM; EINTR a fatal signal.
 * Of EPK_IOC_FREE: ENOENT no such domain; EINVAL one stands twice; EINTR.
 */
struct epk_domains {
	__u32 num;
	__u32 flags;
	__u64 ids;
};

/* What finds no place is made evicted; without this, it is -ENOSPC. */
#define EPK_ALLOC_SPILL		1u
/* Fill this EPT first, so that the new domains lie beside those in it. */
#define EPK_ALLOC_AT(ept)	(((__u32)(ept) + 1) << 16)
/*
 * With no other flag: each has a key to itself in all EPTs, so that it is reached beside whatever else is
 * held, and never moves: it cannot be evicted, nor be private.  Whatever has that key leaves its place.  Two
 * keys stay for others, or it is ENOSPC.  The table shows EPK_EPT_ALL.
 */
#define EPK_ALLOC_EVERYWHERE	2u

/**
 * struct epk_move - where a domain goes
 * @id: in: the domain
 * @ept: in: an EPT index, EPK_EPT_ANY, or EPK_EPT_NONE to evict it; out: where
 *	it is now
 * @pkey: in: 0, or the key that it must get there; out: the key that it has now,
 *	0 if it is evicted
 * @rsvd: in: zero
 *
 * A domain that is in @ept already, and on @pkey if that is not 0, stays where
 * it is; with EPK_EPT_ANY only an evicted one moves.  What is everywhere is in
 * each EPT already, and cannot be evicted.
 */
struct epk_move {
	__s32 id;
	__u16 ept;
	__u8 pkey;
	__u8 rsvd;
};

/**
 * struct epk_moves - argument of EPK_IOC_MOVE
 * @num: in: elements of @moves, 1 to EPK_MOVES_MAX; each ID once
 * @flags: in: 0 or EPK_MOVES_ADMIT
 * @moves: pointer to struct epk_move
 *
 * All domains leave their places, then each gets its new one in the order of
 * the array: two can change places, one can make room for another.  All or none.
 * An access by another thread sees the old place or the new one or waits; it
 * never reaches another domain's pages, nor these pages by another domain's key.
 * The table shows them as evicted for a moment.  Afterwards keys of old places are
 * closed, at the latest before another domain gets the place; a thread with
 * EPK_THREAD_FOLLOWS holds what it held all the same.  An access to an evicted domain that
 * is not held raises SIGSEGV with SEGV_PKUERR, as to any other.  If @moves cannot be written any more
 * when all is done, the call succeeds all the same.
 *
 * Errors: ENOENT no such domain; EINVAL one stands twice, a wrong index or key,
 * a field that must be zero; ENOSPC no key is free there, or the window has no
 * slot left for the block of RAM that a page lies in, or the user may not have the EPT;
 * EBUSY the asked for key is taken; ENOMEM; EINTR a fatal signal.
 *
 * With EPK_MOVES_ADMIT there is one element, without a key, and if no place is free another domain
 * makes room, as for EPK_IOC_BEGIN: one that nobody holds, or else has open, if there is one.
 */
struct epk_moves {
	__u32 num;
	__u32 flags;
	__u64 moves;
};

#define EPK_MOVES_MAX		1024
#define EPK_MOVES_ADMIT		1u

/**
 * struct epk_range - argument of EPK_IOC_POPULATE, EPK_IOC_UNMAP and EPK_IOC_RESERVE
 * @addr: first byte, on a page boundary
 * @len: bytes, whole pages
 *
 * EPK_IOC_POPULATE gives domain memory its pages before they are touched; MAP_POPULATE and
 * MADV_POPULATE_WRITE cannot.  EINVAL: not whole pages, or something else or an
 * evicted domain lies there; ENOMEM: nothing is mapped there, or no memory; EINTR: a
 * fatal signal.  What it has done when it fails stays.
 */
struct epk_range {
	__u64 addr;
	__u64 len;
};

/**
 * struct epk_fill - argument of EPK_IOC_FILL
 * @addr: first byte of domain memory, on a page boundary
 * @len: bytes, whole pages
 * @from: what to write there
 *
 * Writes to memory of domains that the thread holds to write, also where its mapping is to be read only, or not even
 * that: so nobody else sees it, or writes there, before all of it is there.
 *
 * Errors: EINVAL not whole pages, or something else lies there, a file's memory among it; EACCES the thread does
 * not hold it; EFAULT; ENOMEM; ENOSPC it has no place, and cannot have one; ENOENT the domain was freed meanwhile; EINTR
 * a fatal signal.  What is written when it fails stays.
 */
struct epk_fill {
	__u64 addr;
	__u64 len;
	__u64 from;
};

/**
 * struct epk_file - argument of EPK_IOC_FILE
 * @addr: in: hint, or the exact address with MAP_FIXED_NOREPLACE or MAP_FIXED;
 *	out: where the mapping is
 * @len: in: bytes; rounded up to whole pages
 * @offset: in: byte in the file, on a page boundary
 * @id: in: the domain
 * @fd: in: an ordinary file on ext4, XFS or tmpfs, a memfd among them, open for
 *	reading, and for writing if @prot or a later mprotect() says so
 * @prot: in: as for mmap(): PROT_READ, PROT_WRITE, both or neither
 * @flags: in: 0, MAP_FIXED_NOREPLACE or MAP_FIXED
 *
 * Maps a file into a domain, as mmap(MAP_SHARED) maps it into a process; @fd can be
 * closed.  Everybody who has the file mapped, or reads it, sees the same.  msync() and
 * fsync() write back what was written here.  What truncation or hole punching takes
 * from the file leaves the mapping: SIGBUS behind the end of the file, zeros in a hole.
 * The domain protects this mapping, not the file.
 *
 * Where MAP_FIXED fails, what lies there stays; but, as with mmap(), not if kernel memory runs out
 * or the file is sealed at the last moment.
 *
 * The pages count in epk_stats while they are mapped.  They can be reclaimed, so they
 * do not count against RLIMIT_MEMLOCK.
 *
 * Errors: EBADF; EOPNOTSUPP another kind of file, or DAX; ENOENT no such domain; EINVAL
 * a wrong @prot or @flags; and those of mmap(): EACCES not open for this @prot; EPERM a
 * seal forbids it, or see EPK_NOTE_PRIVATE; EINVAL; EEXIST; ENOMEM; EINTR a fatal signal.
 * A touch raises SIGBUS if the window has no slot left for the block of RAM that the
 * page lies in.
 */
struct epk_file {
	__u64 addr;
	__u64 len;
	__u64 offset;
	__s32 id;
	__s32 fd;
	__u32 prot;
	__u32 flags;
};

/**
 * struct epk_stats - answer of EPK_IOC_STATS
 * @domains: domains of this context
 * @epts: EPTs that hold at least one domain of this context
 * @pages: domain pages of this context, 4 KiB each
 * @vm_domains: domains in the whole guest
 * @vm_epts: EPTs that exist in the VM, EPT 0 included
 * @vm_pages: domain pages in the whole guest
 * @vm_exits: VM exits that EPK has caused, as the host counts them
 * @vm_faults: of those, the ones that raised a domain fault
 * @rescues: times that a thread left the CPU in an EPT and had to be brought
 *	back to EPT 0 (and, if registered, into its EPT when it came back)
 * @evicted: of @domains, those that have no place now
 * @moves: changes of place so far, evictions and readmissions included
 * @page_faults: faults that mapped domain memory so far
 * @revocations: see EPK_ENTRY_REVOCATIONS()
 * @huge_faults: of @page_faults, those that mapped 2 MiB at once
 * @rsvd: zero
 *
 * @vm_domains to @rescues are 0 for who has not CAP_SYS_ADMIN.
 */
struct epk_stats {
	__u64 domains;
	__u64 epts;
	__u64 pages;
	__u64 vm_domains;
	__u64 vm_epts;
	__u64 vm_pages;
	__u64 vm_exits;
	__u64 vm_faults;
	__u64 rescues;
	__u64 evicted;
	__u64 moves;
	__u64 page_faults;
	__u64 revocations;
	__u64 huge_faults;
	__u64 rsvd[2];
};

/*
 * A signal handler starts with all keys of the context closed.  When it returns, a registered
 * thread has exactly the EPT and the keys of the context back that were held, less those
 * revoked meanwhile, whatever PKRU the frame says.  A sigreturn from where no handler has its
 * frame, or with another stack pointer than the one that was interrupted, gives EPT 0
 * and no key, then and to the handlers around it; so does one behind more than 16 nested
 * signals.  A thread that is not registered has no key of the context in a handler nor
 * after it.
 *
 * With EPK_THREAD_SIGNALS the handler starts in EPT 0, else in the one that was interrupted.
 * A handler that is left by siglongjmp() leaves the thread there with no key: the
 * program opens what it wants from there.
 */
#define EPK_THREAD_SIGNALS	1ul

/*
 * With EPK_THREAD_FOLLOWS as well, a thread holds domains wherever they are.  What it began
 * with EPK_IOC_BEGIN, or by opening a key, it holds until EPK_IOC_END or until it closes
 * the key: in any number of EPTs, and while domains move, are evicted and come back.  In the EPT
 * in which the thread is, its PKRU says so, elsewhere a record that the module keeps.  An access
 * to what is in the record takes the thread to the domain's EPT, or brings the domain
 * here, and raises no signal; system calls that read or write it, too.
 *
 * In such a thread a key of the context is closed by its access-disable bit alone.  While the
 * record holds something for the code that runs, all closed keys have the write-disable
 * bit as well: who opens a domain in another EPT, or ends what is not open in this one, has to
 * ask the module then, and if no key is closed.  So are they in a thread that is not registered.
 */
#define EPK_THREAD_FOLLOWS	2ul

/*
 * Arguments of EPK_IOC_BEGIN: a domain, and PROT_READ, perhaps with PROT_WRITE.  The thread is in
 * the domain's EPT afterwards and has its key open, whatever else it holds.  What was held to
 * be read only can be written to now; then the answer is 1.  A thread that is not registered with
 * EPK_THREAD_FOLLOWS is so then.
 *
 * Errors: ENOENT no such domain; EPERM it is private; EALREADY it is held, with all that is asked
 * for; EINVAL; ENXIO the thread is registered with another open; EMFILE it holds EPK_HELD_MAX;
 * ENOSPC, ENOMEM the domain is evicted, and cannot have a place; EINTR a fatal signal.
 */
#define EPK_BEGIN(id, prot)	((__u32)(id) | (__u64)(prot) << 32)

/*
 * EPK_IOC_CALL and EPK_IOC_RETURN, for code that runs in the name of one domain alone and knows
 * nothing of its caller's.  All that the thread holds is put aside by a call, as by a signal; then
 * it holds the one domain of EPK_BEGIN(), the argument, as by EPK_IOC_BEGIN.  A return, whose
 * argument is 0, gives up what is held, and what was put aside is held again, in the EPT in which
 * it was; less what was freed meanwhile.
 *
 * Which call it returns from says the stack pointer: of all calls that were made with the one that
 * the thread has now, the last.  So who returns continues where the stack of who called says, with
 * what lies there.  Calls and signals inside of that one are forgotten.  If there is no such call,
 * the answer is EACCES; the thread is in EPT 0 and holds nothing, and all that its calls and
 * signals have put aside is forgotten.  A call is forgotten, too, when the handler of a signal
 * returns that came before it, and when the same stack pointer makes another.  What sigreturn gives
 * no EPK_IOC_RETURN does, nor the other way round.
 *
 * With an argument of 0 a call leaves the thread with nothing at all; ESRCH if it is not registered
 * with EPK_THREAD_FOLLOWS, since it holds nothing then.  A thread whose stack pointer lies in a
 * private domain that it holds to write keeps that domain then, as it goes on with its stack; another call
 * is EPERM there, as the caller's stack would be out of reach.  EPK_RETURN_NOTHING as the argument
 * of a return is for who leaves a call by a jump: the last call, wherever it was made, is forgotten with
 * all that it had put aside, and the thread holds nothing.  Any other argument is the stack pointer of the
 * call, of all with that the last; those inside of it are forgotten, too.
 *
 * Errors of EPK_IOC_CALL, which leave all as it was: those of EPK_IOC_BEGIN but EALREADY; EMFILE
 * EPK_CALLS_MAX calls have not returned, or together they have put hundreds of domains aside.
 * Of EPK_IOC_RETURN: EACCES; EINVAL, ENXIO, where nothing has changed.
 */
#define EPK_CALLS_MAX		64

/**
 * struct epk_catch - argument of EPK_IOC_CATCH
 * @id: in: the domain
 * @flags: in: EPK_CATCH_*
 * @low: in: the first byte of the stack that what is called has, and of what lies below to guard it
 * @top: in: behind its last
 *
 * EPK_IOC_CALL to write, and a fault of what is called is no signal: the thread goes on at @caught of
 * struct epk_gates, with the stack pointer of who called, TF, DF and AC cleared and its other registers
 * as they were, but for those of EPK_CATCH_TELLS.  It holds nothing.  EPK_IOC_RETURN there gives back what was put aside.  What calls and
 * signals have put aside since then is forgotten.
 *
 * What counts as a fault is as in a private domain: see struct epk_gates.  The stack pointer has to be from
 * @low to @top then: who has gone to another stack, or has left by a jump what has been called, gets a
 * signal.  So does a handler of a signal, as long as it runs, and what a call of nothing has called;
 * and what leaves the call: a call is left so once.  A call that catches nothing leaves it to that which has
 * called it.
 *
 * Errors: those of EPK_IOC_CALL; EINVAL @flags is unknown, or there is no @caught; EFAULT.
 */
struct epk_catch {
	__u32 id;
	__u32 flags;
	__u64 low;
	__u64 top;
};

/*
 * Three registers say what the fault was, in the words that a signal would have: RDI the instruction's
 * address, RSI si_addr, RDX EPK_CAUGHT_*() of si_signo, si_code and, of a page fault, PROT_READ,
 * PROT_WRITE or PROT_EXEC for what it wanted, else 0.
 */
#define EPK_CATCH_TELLS		1
#define EPK_CAUGHT_SIGNAL(rdx)	((rdx) & 0xff)
#define EPK_CAUGHT_PROT(rdx)	((rdx) >> 8 & 0xff)
#define EPK_CAUGHT_CODE(rdx)	((__s32)((rdx) >> 32))

/*
 * Domains that a thread can hold at a time and begin another by EPK_IOC_BEGIN; a signal handler
 * and what is called count anew.  Keys that the thread opens by itself count when it calls.
 */
#define EPK_HELD_MAX		64

/**
 * struct epk_grant - a domain that a thread holds
 * @id: the domain
 * @prot: PROT_READ, perhaps with PROT_WRITE
 */
struct epk_grant {
	__s32 id;
	__u32 prot;
};

/**
 * struct epk_grants - argument of EPK_IOC_HELD
 * @num: in: elements of @list; out: how many domains the thread holds, perhaps more
 * @flags: in: EPK_HELD_INTERRUPTED, or zero
 * @list: pointer to struct epk_grant, filled as far as it goes, in no order
 *
 * With EPK_HELD_INTERRUPTED, in a signal handler of a thread with EPK_THREAD_SIGNALS: what the code
 * holds that the signal interrupted, and will hold again; nothing elsewhere.
 *
 * Errors: EINVAL, EFAULT, ENOMEM.
 */
struct epk_grants {
	__u32 num;
	__u32 flags;
	__u64 list;
};

#define EPK_HELD_INTERRUPTED	1u

/**
 * struct epk_gate - code that must not be left with what it has read
 * @start: its first byte
 * @end: behind its last
 * @restart: where it starts; 0: it goes on where it is
 *
 * Code that opens a key reads from the domain table where the domain is, and sets PKRU.  If
 * domains move in between, or a signal is handled, a thread that is found from @start to before
 * @end goes on at @restart.  So nothing follows the instruction that sets PKRU, and no
 * key is opened by what the table said before.
 *
 * A fault in a gate is a signal: see struct epk_gates.  That is all that one with 0 is for, which may lie
 * over others.
 */
struct epk_gate {
	__u64 start;
	__u64 end;
	__u64 restart;
};

/**
 * struct epk_gates - argument of EPK_IOC_GATES
 * @num: in: elements of @gates, 1 to EPK_GATES_MAX
 * @rsvd: in: zero
 * @gates: pointer to struct epk_gate
 * @fault: in: where a thread goes on that faults in a private domain; 0: nowhere
 * @caught: in: where a thread goes on whose EPK_IOC_CATCH is left by a fault; 0: nowhere
 * @stack: in: how far from a thread's FS base there is a word that says where signals may have their
 *	frames below, while the thread's stack lies in a private domain, or it has key 0
 *	write-disabled; 0: nowhere.  Its FS base is then that which it had when it was registered last
 *
 * A registered thread that holds a private domain gets no signal for what one of its own
 * instructions has done: SIGSEGV and SIGBUS of a page fault, SIGILL, SIGFPE, SIGSEGV and SIGBUS of
 * other exceptions.  It goes on at @fault, with all registers and PKRU as they were, but TF, DF and
 * AC cleared.
 *
 * A fault from @fault to before @fault + EPK_FAULT_BYTES, or in a gate, gets its signal: what
 * leaves a private domain lies there, and nothing else does, so that it does not come to @fault
 * again and again.  So do breakpoints and single steps, 32-bit code, and memory that is corrupt.
 *
 * No handler has a private domain of the code that it interrupts, nor is a frame written to one:
 * not on the interrupted stack, nor where sigaltstack() or @stack says.  What cannot have its frame
 * ends in SIGSEGV.
 *
 * Once for each open.  Errors: EBUSY there are gates; EINVAL a wrong number, or a gate, @fault or @caught is
 * not in memory that can be executed and not written to; EFAULT; EINTR a fatal signal.
 */
struct epk_gates {
	__u32 num;
	__u32 rsvd;
	__u64 gates;
	__u64 fault;
	__u64 caught;
	__s64 stack;
};

#define EPK_GATES_MAX		32
#define EPK_FAULT_BYTES		256

/**
 * struct epk_note - argument of EPK_IOC_NOTE
 * @id: the domain
 * @flags: 0 or EPK_NOTE_PRIVATE, perhaps with EPK_NOTE_CONFINED
 * @addr: a page of the domain's memory, not of a file's
 *
 * Writes the address into the table of notes, where it stays as long as the domain lives: once for
 * each domain.  When the domain is freed it is 0 before anybody can get that index again, and
 * before anything else can lie at the address.  It stays if that page is unmapped by EPK_IOC_UNMAP,
 * so who unmaps it must not go by it.
 *
 * Errors: ENOENT no such domain; EPERM it is private, and not held to write; EBUSY it has a note, or is to be private and has a common right;
 * EINVAL @flags, or no such page; ENOMEM; EINTR a fatal signal.
 */
struct epk_note {
	__s32 id;
	__u32 flags;
	__u64 addr;
};

/*
 * The domain is private from then on, for its life: nobody can begin or call it.  The domain table
 * shows it as evicted, and its note says, beside the address, where it is, so that only code that
 * looks there finds its key.  While it is evicted or on its way the note has pkey 0 and
 * EPK_EPT_NONE.  Such code is a gate: see struct epk_gate.  EPK_MOVES_ADMIT brings the domain in.
 *
 * All threads that hold the domain hold it no longer when the call returns, what signals have
 * interrupted and what waits for a call to return included.  If it fails, nobody has lost it.
 *
 * Who does not hold a private domain to write gets EPERM for each EPK_IOC_UNMAP of its
 * memory, mmap(), EPK_IOC_FILE, EPK_IOC_NOTE and mprotect().  While there is one, EPK_IOC_UNMAP
 * leaves the tables and the identity page where they are: EPERM.  When it is freed, all code that holds it, what is
 * interrupted or waits included, holds nothing at all from then on, before other memory can lie
 * where its stack was.
 */
#define EPK_NOTE_PRIVATE	1u

/*
 * Code that holds the domain is to have key 0 write-disabled as well, so that it can change no ordinary
 * memory.  The note says so by EPK_NOTE_IS_CONFINED, for the domain's life, and has the domain's key at
 * another place, so that a gate which knows nothing of it finds none.
 *
 * Key 0 as the thread has it is part of what a signal or a call puts aside, and comes back with that,
 * whatever the signal's frame says; a return that gives nothing back leaves it as it is.  Handlers start
 * with key 0 open, and what the kernel writes for restartable sequences is written.
 *
 * Errors of EPK_IOC_NOTE then, too: ENODEV the kernel cannot do that any more.
 */
#define EPK_NOTE_CONFINED	2u

#define EPK_NOTE_IS_CONFINED	0x100ull
#define EPK_NOTE_CONFINED_SHIFT	4

#define EPK_NOTE_ADDR(note)	((__u64)(note) & 0xfffffffff000ull)
#define EPK_NOTE_PKEY(note) \
	((__u32)((note) >> ((note) & EPK_NOTE_IS_CONFINED ? EPK_NOTE_CONFINED_SHIFT : 0)) & 0xf)
#define EPK_NOTE_EPT(note)	((__u32)((__u64)(note) >> 48))

#define EPK_IOC_INIT		_IOWR('E', 0xe0, struct epk_init)
#define EPK_IOC_ALLOC		_IOWR('E', 0xe1, struct epk_domains)
#define EPK_IOC_FREE		_IOW('E', 0xe2, struct epk_domains)
/*
 * Registers the calling thread, so that its EPT and the context's keys that it opens
 * from then on survive a context switch; a thread that is not registered comes back in EPT 0
 * with none.  What it has open is closed.  The argument is 0, EPK_THREAD_SIGNALS, perhaps with
 * EPK_THREAD_FOLLOWS; a thread can add them later, and keeps what it has open then.
 */
#define EPK_IOC_THREAD		_IO('E', 0xe3)
#define EPK_IOC_STATS		_IOR('E', 0xe4, struct epk_stats)
#define EPK_IOC_MOVE		_IOW('E', 0xe5, struct epk_moves)
#define EPK_IOC_POPULATE	_IOW('E', 0xe7, struct epk_range)
#define EPK_IOC_FILE		_IOWR('E', 0xe8, struct epk_file)
/*
 * Unmaps domain memory, the tables or the identity page.  munmap(), mmap() with MAP_FIXED,
 * mremap(), brk(), shmat() and remap_file_pages() fail with EPERM where the memory of
 * a live domain lies, and, while there is a domain, the others.  Errors: EINVAL not whole
 * pages; EPERM something else lies there, or see EPK_NOTE_PRIVATE; and those of munmap().
 */
#define EPK_IOC_UNMAP		_IOW('E', 0xe9, struct epk_range)
#define EPK_IOC_GATES		_IOW('E', 0xea, struct epk_gates)
/* The argument is EPK_BEGIN(). */
#define EPK_IOC_BEGIN		_IO('E', 0xeb)
/* The argument is a domain's ID.  Errors: EACCES the thread does not hold it; ENXIO as above. */
#define EPK_IOC_END		_IO('E', 0xec)
/*
 * What each thread of the process may do with a domain while it does not hold it.  The argument is EPK_BEGIN(),
 * where the protection can be 0, as it is at first: nothing.  Less is in force in all threads before the call
 * returns; more is given by the access that wants it, which registers its thread if need be.  Who holds the
 * domain may do what it has begun, no more.  The frame of a signal is not written there, and workers of io_uring
 * have no such right; who is confined (EPK_NOTE_CONFINED) has none to write.  While there is one the table
 * shows the domain as evicted.  With EPK_PROTECT_ASK nothing changes; the answer is what each thread may do, as
 * PROT_READ and PROT_WRITE, and 0 for a private domain.
 *
 * Errors, which leave all as it was: ENOENT no such domain; EPERM it is private, or who calls is confined and
 * does not only ask; EINVAL; ENOMEM.
 */
#define EPK_IOC_PROTECT		_IO('E', 0xf8)
#define EPK_PROTECT_ASK		0x80000000u
#define EPK_IOC_HELD		_IOWR('E', 0xed, struct epk_grants)
#define EPK_IOC_NOTE		_IOW('E', 0xee, struct epk_note)
#define EPK_IOC_CALL		_IO('E', 0xef)
#define EPK_IOC_RETURN		_IO('E', 0xf0)
#define EPK_RETURN_NOTHING	1ul
#define EPK_IOC_CATCH		_IOW('E', 0xf1, struct epk_catch)
/*
 * EPK_IOC_UNMAP, and what was unmapped is private memory then that nobody can access, so that nothing else
 * comes to lie there before something is mapped over it.  Errors: those of EPK_IOC_UNMAP and of mmap().
 */
#define EPK_IOC_RESERVE		_IOW('E', 0xf2, struct epk_range)
#define EPK_IOC_FILL		_IOW('E', 0xf3, struct epk_fill)

/*
 * Offsets for mmap() of the device, with MAP_SHARED but for EPK_MMAP_STACK.  The domain table, the table of notes, which has one
 * __u64 for each entry of that and is as large, and the identity page (struct kvm_epk_identity in
 * <asm/kvm_epk.h>) map with PROT_READ only.
 * Domain memory takes PROT_READ and PROT_WRITE; its pages are zero at first.
 *
 * With MAP_PRIVATE, EPK_MMAP_STACK gives memory that is no domain's, and ordinary but for its first
 * page: a __u64 there, followed by nothing, counts how many pages have come to the rest by a touch,
 * each after it was mapped, or given back by madvise(MADV_DONTNEED); by that of a debugger, too, but
 * not by a core dump.  In a forked child, which inherits it, both count.  Who has not seen it change
 * knows that no more of the memory is in use than before.  Who writes to the first page has a copy,
 * in which nothing changes any more.
 */
#define EPK_MMAP_TABLE		0ull
#define EPK_MMAP_IDENTITY	(1ull << 32)
#define EPK_MMAP_NOTES		(2ull << 32)
#define EPK_MMAP_STACK		(3ull << 32)
#define EPK_STACK_BYTES_MAX	(1ull << 30)
#define EPK_MMAP_DOMAIN(id)	(1ull << 60 | (__u64)EPK_ID_INDEX(id) << 40)

#endif /* _UAPI_LINUX_EPK_H */
