/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Extended Protection Keys, guest module: what its files share.
 *
 * Lock order: mmap_lock, epk_context.lock, the EPT mutex in ept.c.  User
 * memory is never touched under one of the last two.  epk_context.threads_lock is
 * taken with interrupts off, under a run queue's lock as well; nothing is taken under it.
 */
#ifndef EPK_MODULE_H
#define EPK_MODULE_H

#include <linux/bitmap.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/pkeys.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/xarray.h>

#include <asm/asm.h>
#include <asm/kvm_epk.h>
#include <linux/epk.h>

#include "compat.h"

/* Entries of a domain table; index 0 stays unused, so that no ID is 0. */
#define EPK_TABLE_ENTRIES	(1u << EPK_ID_INDEX_BITS)
#define EPK_TABLE_BYTES		(EPK_TABLE_ENTRIES * sizeof(struct epk_entry))
/* Keys that stay for domains that are in one EPT: a component needs another beside its own. */
#define EPK_PKEYS_ELSEWHERE	2u
/* A page of the table and what belongs to its entries. */
#define EPK_CHUNK_ENTRIES	(PAGE_SIZE / sizeof(struct epk_entry))
#define EPK_CHUNKS		(EPK_TABLE_ENTRIES / EPK_CHUNK_ENTRIES)

/* The page frames of a block of RAM, and of a slot that aliases it. */
#define EPK_BLOCK_PFN_BITS	(KVM_EPK_BLOCK_SHIFT - PAGE_SHIFT)
#define EPK_BLOCK_PFN_MASK	((1UL << EPK_BLOCK_PFN_BITS) - 1)

#define EPK_NR_PKEYS		16
/* Key 0 is every other page's and never a domain's. */
#define EPK_PKEYS		GENMASK(EPK_NR_PKEYS - 1, 1)
/* Its bits of PKRU.  Who is confined may not write by it: see EPK_NOTE_CONFINED. */
#define EPK_KEY0		3u

/**
 * struct epk_host - what the host told at load, constant from then on
 * @alone: it offers nothing: there is EPT 0, a page's alias is the page, and no windows
 * @nr_epts: EPT indices run from 0 to this minus 1
 * @slots: slots in each window
 * @window_pfn: guest page frame at which the window of EPT 0 starts
 * @identity_pfn: guest page frame of the identity page
 * @identity: the identity page: reads tell in which EPT the CPU is
 */
struct epk_host {
	bool alone;
	unsigned int nr_epts;
	unsigned int slots;
	unsigned long window_pfn;
	unsigned long identity_pfn;
	const struct kvm_epk_identity *identity;
};

extern struct epk_host epk_host;

/**
 * struct epk_counters - what exists in the whole guest
 * @domains: live domains
 * @pages: pages of domain memory
 * @mapped: pages of address space that domains have
 * @contexts: open files of /dev/epk
 * @threads: threads with a record
 */
struct epk_counters {
	atomic_long_t domains;
	atomic_long_t pages;
	atomic_long_t mapped;
	atomic_long_t contexts;
	atomic_long_t threads;
};

extern struct epk_counters epk_counters;
DECLARE_PER_CPU(unsigned long, epk_rescues);

/**
 * struct epk_user - what the processes of one user have between them
 * @node: in the hash of users
 * @uid: the user
 * @nr_contexts: open files of /dev/epk
 * @domains: domains
 * @mapped: pages of address space that they have
 * @nr_epts: EPTs that contexts of it hold; under the EPT mutex, as is what follows
 * @holds: for each EPT, how many of its contexts hold it
 * @epts_paid: when as many EPTs could have been made steadily as were at once; so long the
 *	user is remembered
 */
struct epk_user {
	struct hlist_node node;
	kuid_t uid;
	unsigned int nr_contexts;
	atomic_long_t domains;
	atomic_long_t mapped;
	unsigned int nr_epts;
	unsigned int holds[KVM_EPK_MAX_EPTS];
	u64 epts_paid;
};

/**
 * struct epk_domain - one live domain
 * @mappings: its mappings
 * @id: its ID
 * @ept: the EPT whose window its pages are mapped through, or EPK_EPT_NONE; EPK_EPT_ALL: they are mapped
 *	as they are in each, and it never moves
 * @pkey: the protection key of its pages, 0 if it is evicted
 * @chosen: set while a call checks its list, to find an ID given twice
 * @moves: it is on its way, and who holds it has no key of its new place yet
 * @private: see EPK_NOTE_PRIVATE
 * @confined: see EPK_NOTE_CONFINED
 * @leaves: in this batch, who has a right to it loses it
 * @unlisted: the table shows it as evicted, so that begin and end come here: see common.c
 * @common: what who does not hold it may do: PROT_READ, perhaps with PROT_WRITE, or 0; it changes under
 *	the context's lock, and is read with interrupts off
 * @asked: the last batch in which threads were asked and one held it
 */
struct epk_domain {
	struct list_head mappings;
	int id;
	u16 ept;
	u8 pkey;
	bool chosen;
	bool moves;
	bool private;
	bool confined;
	bool leaves;
	bool unlisted;
	u8 common;
	u64 asked;
};

/**
 * struct epk_chunk - a page of the domain table
 * @table: the page, which the process can map
 * @notes: another, with the notes of the same domains; NULL if none of it has been used
 * @unlisted: where those are that the table unlists; NULL if there never was one
 * @domains: the domain of each entry, or NULL
 * @generations: the last generation given out for each entry
 */
struct epk_chunk {
	struct epk_entry *table;
	u64 *notes;
	u64 *unlisted;
	struct epk_domain *domains[EPK_CHUNK_ENTRIES];
	u16 generations[EPK_CHUNK_ENTRIES];
};

/**
 * enum epk_phase - how far an open of /dev/epk has come
 * @EPK_NEW: it can do nothing but EPK_IOC_INIT
 * @EPK_STARTING: that is under way
 * @EPK_READY: it can have domains
 */
enum epk_phase { EPK_NEW, EPK_STARTING, EPK_READY };

/**
 * struct epk_context - one open of /dev/epk
 * @phase: how far it has come; READY is read without the lock, and stays
 * @mm: the opener's address space; pinned, but not kept in use
 * @user: the opener
 * @epts: EPT indices that it may have run from 0 to this minus 1
 * @pid: the opener's process, for the statistics
 * @comm: its name then
 * @node: in the hash of initialised contexts
 * @rcu: frees the context after the readers of that hash
 * @lock: protects all that follows, except the atomic counters
 * @pkeys: the keys that EPK_IOC_INIT gave; from when it is STARTING, so that they are
 *	guarded before they are looked at
 * @nr_pkeys: number of these
 * @pkru_deny: the access-disable bits of these; 0 as long as that may fail
 * @generation: behind which those of its IDs begin
 * @chunks: the domain table; what is NULL has never been used nor looked at
 * @indices: the indices in use
 * @next_index: where the search for a free index starts
 * @used: for each EPT, the keys that carry a domain there
 * @everywhere: of these the ones that carry the same in each
 * @vacated: for each EPT, the keys that threads may have open since the domain
 *	before was there
 * @vacated_epts: the EPTs in which there are such
 * @place_ids: for each EPT and key, what an open key there is a right to: a domain's ID, or 0.
 *	It changes under @lock, and is read with interrupts off
 * @leaving: for each EPT, the keys whose places are being taken away; likewise
 * @by_free: for each number of keys not in @used, the EPTs that have so many
 * @revoke_due: a key in @vacated has been given to a domain
 * @batch: counts revocations; written under @lock
 * @arrive_due: some thread holds a domain that arrives
 * @ending: private domains end in this batch: code that has a right to one loses all that it has
 * @asking: threads say in this batch what they hold
 * @asked_open: for each EPT, the keys that some have open
 * @retractions: counts how often a common right has become less; written under @lock
 * @retract_ept: the EPT of the last,
 * @retract_keys: and its keys there; both under @lock
 * @hand: where the search for a domain that makes room goes on
 * @nr_gates: of @gates, those in use; set once, last
 * @gates: see struct epk_gate
 * @gates_start: no gate starts before; set before @nr_gates
 * @gates_end: nor ends behind; likewise
 * @fault: see struct epk_gates; likewise
 * @caught: likewise
 * @stack: likewise
 * @threads_lock: protects the next, and the records of those that do not run
 * @threads: registered threads
 * @cpus: CPUs that may run a thread of @mm in user mode; each sets its own bit before it
 *	looks at @batch, and clears it when it is asked and runs none
 * @prepared: the mapping of a mmap() that was checked before it replaces something; under
 *	the mmap lock, held for writing
 * @held: EPTs that this context keeps in existence
 * @nr_domains: live domains
 * @nr_private: of those, the private ones; it grows under the mmap lock
 * @nr_placed: of those, the ones that have a place
 * @nr_epts: EPTs that carry at least one
 * @pages: pages of domain memory
 * @mapped: pages of address space that its domains have
 * @moves: changes of place so far
 * @page_faults: faults that mapped memory so far
 * @huge_faults: of those, the ones that mapped 2 MiB
 * @revocations: keys of threads closed so far
 */
struct epk_context {
	enum epk_phase phase;
	struct mm_struct *mm;
	struct epk_user *user;
	unsigned int epts;
	pid_t pid;
	char comm[TASK_COMM_LEN];
	struct hlist_node node;
	struct rcu_head rcu;
	struct mutex lock;
	u32 pkeys;
	u32 nr_pkeys;
	u32 pkru_deny;
	u32 generation;
	struct epk_chunk *chunks[EPK_CHUNKS];
	DECLARE_BITMAP(indices, EPK_TABLE_ENTRIES);
	unsigned int next_index;
	u16 used[KVM_EPK_MAX_EPTS];
	u16 everywhere;
	u16 vacated[KVM_EPK_MAX_EPTS];
	DECLARE_BITMAP(vacated_epts, KVM_EPK_MAX_EPTS);
	int (*place_ids)[EPK_NR_PKEYS];
	u16 leaving[KVM_EPK_MAX_EPTS];
	DECLARE_BITMAP(by_free[EPK_NR_PKEYS], KVM_EPK_MAX_EPTS);
	bool revoke_due;
	u64 batch;
	bool arrive_due;
	bool ending;
	bool asking;
	u16 asked_open[KVM_EPK_MAX_EPTS];
	u64 retractions;
	u32 retract_ept;
	u16 retract_keys;
	unsigned int hand;
	unsigned int nr_gates;
	struct epk_gate gates[EPK_GATES_MAX];
	u64 gates_start;
	u64 gates_end;
	u64 fault;
	u64 caught;
	s64 stack;
	raw_spinlock_t threads_lock;
	struct list_head threads;
	struct cpumask cpus;
	struct epk_mapping *prepared;
	DECLARE_BITMAP(held, KVM_EPK_MAX_EPTS);
	unsigned int nr_domains;
	unsigned int nr_private;
	unsigned int nr_placed;
	unsigned int nr_epts;
	atomic_long_t pages;
	atomic_long_t mapped;
	atomic_long_t moves;
	atomic_long_t page_faults;
	atomic_long_t huge_faults;
	atomic_long_t revocations;
};

/* Signals that can interrupt each other's handlers before the first is forgotten. */
#define EPK_SIGNALS		16

/**
 * struct epk_interrupted - what a signal interrupted, or what waits for a call to return
 * @frame: where the signal's handler has its frame, by which its return is recognised
 * @sp: its stack pointer, by which a call's is
 * @base: where its rights begin in the record
 * @ept: its EPT
 * @key0: its EPK_KEY0 of PKRU
 * @fs: its FS base, if that says that it is confined
 * @own_stack: its frame goes where nobody who is confined has said
 * @call: it is a call's
 * @nothing: of nothing
 * @low: the stack of what it calls begins here, if its faults are caught
 * @top: and ends here; else 0
 * @tells: who goes on after such a fault is told what it was
 */
struct epk_interrupted {
	unsigned long frame;
	unsigned long sp;
	unsigned long fs;
	unsigned long low;
	unsigned long top;
	u32 base;
	u16 ept;
	u8 key0;
	bool own_stack;
	bool call;
	bool nothing;
	bool tells;
};

/**
 * struct epk_trap - an exception, as its signal would tell it
 * @sig: the signal
 * @code: its si_code
 * @addr: its si_addr
 * @prot: of a page fault what was wanted, as one of PROT_READ, PROT_WRITE and PROT_EXEC; else 0
 */
struct epk_trap {
	int sig;
	int code;
	unsigned long addr;
	unsigned int prot;
};

/* Rights in a record.  Far more than are held at a time; what finds no room is lost. */
#define EPK_RIGHTS		384
/* As many as code can hold, with what it opens by itself, so that a call leaves room for all. */
#define EPK_RIGHTS_SPARE	(EPK_HELD_MAX + EPK_NR_PKEYS)

/* So many domains, which is what an access moves, are moved without memory for their list. */
#define EPK_MOVES_FEW		2

/**
 * struct epk_right - a right to a domain, wherever that is
 * @id: the domain's ID
 * @read_only: not to write
 */
struct epk_right {
	int id;
	bool read_only;
};

/**
 * struct epk_accessed - memory of a domain that a thread has accessed
 * @id: the domain
 * @start: the mapping, as it was then
 * @end: and the first address behind it
 */
struct epk_accessed {
	int id;
	unsigned long start;
	unsigned long end;
};

/**
 * struct epk_faults - the last accesses of a thread that were resolved
 * @ip: where the last one came from that went to another EPT
 * @recent: what was accessed so, the last first
 * @returns: how many went to one that was among the last, one after the other
 * @same_ip: where the last one came from that had nothing in its way
 * @addr: where it went
 * @seen: the last batch that the thread had met then
 * @same: how many had all of these, one after the other
 * @hash: of the thread's registers when a domain was last brought to it
 * @last: that domain
 * @brought: how often another was then, with the same registers
 */
struct epk_faults {
	unsigned long ip;
	struct epk_accessed recent[4];
	unsigned int returns;
	unsigned long same_ip;
	unsigned long addr;
	u64 seen;
	unsigned int same;
	u32 hash;
	int last;
	unsigned int brought;
};

/**
 * struct epk_thread - the record of a registered thread
 * @notifier: in the thread's list, which is where the record is found
 * @node: in the context's list
 * @task: the thread
 * @file: what it was registered with, referenced
 * @ctx: the file's context
 * @ept: the EPT in which it was switched out; 0 while it runs
 * @seen: the last of @ctx's batches that it has met
 * @undone: keys that were revoked while it ran a virtual CPU; KVM opens them again
 * @signals: it has EPK_THREAD_SIGNALS
 * @follows: what it holds goes where the domain goes
 * @joined: an access has registered it, and no begin: the library has nothing of it yet
 * @commons: in @commons_ept, the keys that are open without its holding the domain.  They are forgotten when it leaves
 *	that, and may be closed by now
 * @commons_ept: see there
 * @retracted: of @ctx's retractions, the last that it has met, if there are @commons
 * @fs: its FS base when it was registered last: that of its handlers, if they interrupt who is confined
 * @arrives: @arriving counts: a signal is about to be handled
 * @stashed: all its rights are in the record; PKRU means nothing
 * @stack: the stack pointer whose rights these are, as long as it is stashed
 * @arriving: what it interrupts
 * @arriving_pkru: PKRU then, without rights
 * @nr_interrupted: of @interrupted, those in use, the innermost last
 * @interrupted: what the signals interrupted whose handlers have not returned, and what the calls
 *	have put aside that have not
 * @base: where the rights of the code begin that runs; below are those of what is interrupted
 * @nr_rights: of @rights, those in use
 * @rights: what is held and not open in PKRU
 * @faults: the last accesses that were resolved
 */
struct epk_thread {
	struct preempt_notifier notifier;
	struct list_head node;
	struct task_struct *task;
	struct file *file;
	struct epk_context *ctx;
	u32 ept;
	u64 seen;
	u32 undone;
	bool signals;
	bool follows;
	bool joined;
	u16 commons;
	u32 commons_ept;
	u64 retracted;
	bool arrives;
	bool stashed;
	unsigned long fs;
	unsigned long stack;
	struct epk_interrupted arriving;
	u32 arriving_pkru;
	unsigned int nr_interrupted;
	struct epk_interrupted interrupted[EPK_SIGNALS + EPK_CALLS_MAX];
	unsigned int base;
	unsigned int nr_rights;
	struct epk_right rights[EPK_RIGHTS];
	struct epk_faults faults;
};

/* host.c */
int epk_host_init(void);
void epk_host_exit(void);
void epk_host_resumed(void);
long epk_host_query(enum kvm_epk_query what);

/* hypercall.c */
long epk_hc_query(enum kvm_epk_query what);
int epk_hc_enable(u64 windows, u64 identity);
int epk_hc_save_at(u64 addr);
int epk_hc_create(unsigned int ept);
int epk_hc_destroy(unsigned int ept, unsigned int count);
int epk_hc_fill(unsigned int ept, u64 run);
int epk_hc_empty(unsigned int ept, u64 run);

/* user.c */
struct epk_user *epk_user_open(void);
void epk_user_close(struct epk_user *user);
int epk_user_add_domains(struct epk_user *user, unsigned int num);
void epk_user_sub_domains(struct epk_user *user, unsigned int num);
bool epk_user_add_pages(struct epk_user *user, unsigned long pages, unsigned long going);
void epk_user_sub_pages(struct epk_user *user, unsigned long pages);
bool epk_user_may_hold(const struct epk_user *user, unsigned int ept);
unsigned int epk_user_epts(unsigned int host);
void epk_user_made_ept(struct epk_user *user);
int epk_user_wait(const struct epk_user *user);
void epk_users_init(void);
void epk_users_exit(void);

/* ept.c */
int epk_epts_init(void);
void epk_epts_exit(void);
int epk_ept_get(struct epk_user *user, unsigned int ept);
void epk_epts_put(struct epk_context *ctx, const unsigned long *epts);
int epk_ept_alias_known(unsigned int ept, unsigned long pfn, unsigned long *alias);
int epk_ept_alias(unsigned int ept, unsigned long pfn, unsigned long *alias);

/* place.c */
void epk_place_init(struct epk_context *ctx);
void epk_place_exit(struct epk_context *ctx);
int epk_place_pick(struct epk_context *ctx, unsigned int want);
int epk_place_pick_held(struct epk_context *ctx, unsigned int want);
unsigned int epk_place_free(struct epk_context *ctx, unsigned int ept);
bool epk_place_is_free(struct epk_context *ctx, unsigned int ept, u8 pkey);
u8 epk_place_take(struct epk_context *ctx, unsigned int ept);
void epk_place_take_key(struct epk_context *ctx, unsigned int ept, u8 pkey);
unsigned int epk_place_spare_keys(const struct epk_context *ctx);
unsigned int epk_place_left(const struct epk_context *ctx);
u8 epk_place_pick_key(struct epk_context *ctx);
void epk_place_take_everywhere(struct epk_context *ctx, u8 pkey);
void epk_place_vacate(struct epk_context *ctx, unsigned int ept, u8 pkey);
void epk_place_put(struct epk_context *ctx, unsigned int ept, u8 pkey);
void epk_place_take_back(struct epk_context *ctx, unsigned int ept, u8 pkey);
void epk_place_show(struct epk_context *ctx, const struct epk_domain *domain);
void epk_place_hide(struct epk_context *ctx, const struct epk_domain *domain);

/* revoke.c */
void epk_revoke(struct epk_context *ctx);
void epk_retract(struct epk_context *ctx, u32 ept, u16 keys);

/* record.c */
unsigned int epk_record_nr_open(const struct epk_thread *thread, u32 pkru, u32 ept);
bool epk_record_has_room(const struct epk_thread *thread, u32 pkru, u32 ept);
u32 epk_record_stash(struct epk_thread *thread, u32 pkru, u32 ept);
u32 epk_record_lend(struct epk_thread *thread, u32 pkru, u32 ept);
u32 epk_record_unstash(struct epk_thread *thread, u32 pkru, u32 ept);
u32 epk_record_meet(struct epk_thread *thread, u32 pkru, u32 ept, bool later);
u32 epk_record_uncommon(struct epk_thread *thread, u32 pkru, u32 ept, u16 keys);
u32 epk_record_settle(struct epk_thread *thread, u32 pkru, u32 ept);
unsigned int epk_record_open_key(const struct epk_thread *thread, int id);
bool epk_record_has_private(const struct epk_thread *thread);
void epk_record_add(struct epk_thread *thread, int id);
void epk_record_drop(struct epk_thread *thread, unsigned int n);
void epk_record_interrupt(struct epk_thread *thread, const struct epk_interrupted *from);
const struct epk_interrupted *epk_record_handled(const struct epk_thread *thread);
void epk_record_inherit(struct epk_thread *thread, int id);
bool epk_record_may_call(const struct epk_thread *thread, u32 pkru, unsigned long sp);
void epk_record_call(struct epk_thread *thread, u32 ept, unsigned long sp);
int epk_record_find_catch(const struct epk_thread *thread, unsigned long sp);
void epk_record_catch(struct epk_thread *thread, unsigned int level);
int epk_record_last_call(const struct epk_thread *thread);
int epk_record_find_call(const struct epk_thread *thread, unsigned long sp);
void epk_record_resume(struct epk_thread *thread, unsigned int level);
void epk_record_forget(struct epk_thread *thread, unsigned int level);

/* gates.c */
int epk_gates_set(struct epk_context *ctx, const struct epk_gates *req,
		  const struct epk_gate *gates);
bool epk_gates_have(const struct epk_context *ctx, unsigned long ip);
void epk_gates_go_back(const struct epk_context *ctx, struct pt_regs *regs);

/* common.c */
int epk_common_set(struct epk_context *ctx, int id, int prot);
int epk_common_prot(struct epk_context *ctx, int id);
bool epk_common_open(struct epk_thread *thread, int id, u32 ept, u8 pkey, int prot);

/* rights.c */
int epk_rights_begin(struct file *file, int id, int prot, bool call);
int epk_rights_call_caught(struct file *file, const struct epk_catch *req);
bool epk_rights_catch(struct epk_thread *thread, struct pt_regs *regs, const struct epk_trap *trap);
int epk_rights_return(struct epk_context *ctx);
int epk_rights_call_nothing(struct epk_context *ctx);
int epk_rights_forget_call(struct epk_context *ctx, unsigned long sp);
bool epk_rights_confined(const struct epk_thread *thread, int level);
void epk_rights_resume(struct epk_thread *thread, int level);
int epk_rights_end(struct epk_context *ctx, int id);
int epk_rights_go(struct epk_thread *thread, u32 ept);
bool epk_rights_reach(struct epk_thread *thread, int id, u32 ept, u8 pkey, bool write);

/* held.c */
int epk_held_prot(const struct epk_thread *thread, int id);
unsigned int epk_rights_list(struct epk_context *ctx, struct epk_grant *list, unsigned int max);
unsigned int epk_rights_list_interrupted(struct epk_context *ctx, struct epk_grant *list, unsigned int max);
bool epk_rights_hold(const struct epk_thread *thread, int id, bool write);
bool epk_rights_may_shape(const struct epk_context *ctx, int id);

/* admit.c */
int epk_admit(struct epk_context *ctx, int id, u32 ept);

/* table.c */
int epk_table_init(struct epk_context *ctx);
void epk_table_exit(struct epk_context *ctx);
struct epk_chunk *epk_chunk_get(struct epk_context *ctx, u32 index);
void epk_table_write(struct epk_context *ctx, const struct epk_domain *domain);
void epk_table_unlist(struct epk_context *ctx, const struct epk_domain *domain);
void epk_table_clear(struct epk_context *ctx, u32 index);
void epk_table_count_revocation(struct epk_context *ctx);
u64 *epk_unlisted_get(struct epk_context *ctx, u32 index);
u64 *epk_notes_get(struct epk_context *ctx, u32 index);
void epk_note_clear(struct epk_context *ctx, u32 index);
struct epk_domain *epk_domain_at(struct epk_context *ctx, u32 index);
struct epk_domain *epk_domain_find(struct epk_context *ctx, int id);
struct epk_domain *epk_domain_peek(struct epk_context *ctx, int id);

/* table_mapping.c */
void epk_table_mmap(struct vm_area_struct *vma);
void epk_notes_mmap(struct vm_area_struct *vma);
void epk_identity_mmap(struct vm_area_struct *vma);
bool epk_vma_is_table_mapping(const struct vm_area_struct *vma);
int epk_vma_mremap(struct vm_area_struct *vma);
int epk_vma_insert_pfn(struct vm_area_struct *vma, unsigned long addr, unsigned long pfn,
		       pgprot_t prot);

/* stack.c */
int epk_stack_mmap(struct vm_area_struct *vma);

/* note.c */
int epk_note_set(struct epk_context *ctx, int id, u64 addr, u32 flags, int (*arm)(void));

/* domain.c */
int epk_domains_init(struct epk_context *ctx, u32 generation);
void epk_domains_cancel(struct epk_context *ctx);
void epk_domains_exit(struct epk_context *ctx);
void epk_domain_show(struct epk_context *ctx, const struct epk_domain *domain);
int epk_domains_create(struct epk_context *ctx, unsigned int num, u32 flags, int *ids);
void epk_domains_destroy(struct epk_context *ctx, unsigned int num, const int *ids);
int epk_domains_alloc(struct epk_context *ctx, unsigned int num, u32 flags, int *ids);
int epk_domains_free(struct epk_context *ctx, unsigned int num, const int *ids);
int epk_domains_hold_ept(struct epk_context *ctx, unsigned int ept, unsigned long *fresh);
void epk_domains_drop_epts(struct epk_context *ctx, const unsigned long *fresh);

/* everywhere.c */
int epk_domains_alloc_everywhere(struct epk_context *ctx, unsigned int num, int *ids);

/* move.c */
int epk_domains_lock(struct epk_context *ctx);
void epk_domains_unlock(struct epk_context *ctx);
int epk_domains_move_locked(struct epk_context *ctx, unsigned int num, struct epk_move *moves);
int epk_domains_move(struct epk_context *ctx, unsigned int num, struct epk_move *moves);

/* memory.c */
int epk_mmap(struct file *file, struct vm_area_struct *vma);
int epk_mmap_prepare(struct file *file, unsigned long addr, unsigned long len,
		     unsigned long flags, unsigned long pgoff);
void epk_mmap_unprepare(struct file *file, unsigned long len);
int epk_populate(struct mm_struct *mm, u64 addr, u64 len);
int epk_fill(struct mm_struct *mm, unsigned long addr, const void *from, int *id);
bool epk_file_is_device(const struct file *file);

/* remap.c */
void epk_domain_unmap(struct epk_context *ctx, struct epk_domain *domain);
bool epk_domain_fits(struct epk_domain *domain, unsigned int ept);
void epk_domain_zap(struct epk_context *ctx, struct epk_domain *domain);
void epk_domain_map(struct epk_context *ctx, struct epk_domain *domain);
void epk_domain_rewrite(struct epk_context *ctx, struct epk_domain *domain);
void epk_flush(struct mm_struct *mm);

/* file.c */
int epk_file_map(struct file *dev, struct epk_file *req);
struct file *epk_file_device(struct file *file);

/* context.c */
struct epk_context *epk_context_create(void);
void epk_context_destroy(struct epk_context *ctx);
int epk_context_start(struct epk_context *ctx, u32 pkeys, u32 generation);

/* process.c */
int epk_context_publish(struct epk_context *ctx);
void epk_context_withdraw(struct epk_context *ctx);
bool epk_context_exists(const struct mm_struct *mm);
u32 epk_context_pkru_deny(const struct mm_struct *mm);
u32 epk_context_pkru_closed(const struct mm_struct *mm);
u32 epk_context_enter(const struct mm_struct *mm);
void epk_context_restart_gate(struct task_struct *task);
u32 epk_context_pkeys(const struct mm_struct *mm, bool *starting);
void epk_contexts_show(struct seq_file *m);

/* device.c */
int epk_device_init(void);
void epk_device_exit(void);

/* probe.c */
int epk_threads_init(void);
void epk_threads_exit(void);

/* thread.c */
extern struct preempt_ops epk_thread_ops;
/* With epk_thread_register(): it is an access that does it. */
#define EPK_THREAD_JOINS	BIT(30)
int epk_thread_register(struct file *file, unsigned long flags);
void epk_thread_switch(const struct kvm_epk_identity *identity, bool preempt,
		       struct task_struct *prev, struct task_struct *next);
void epk_thread_drop(void);
void epk_thread_revoke(struct epk_context *ctx);
void epk_thread_retract(struct epk_context *ctx);
void epk_revoke_waiting(struct epk_thread *thread);
void epk_thread_close(struct epk_context *ctx);
unsigned long epk_thread_rescues(void);

/* unregistered.c */
extern struct preempt_notifier epk_unregistered_node;
void epk_unregistered_add(struct task_struct *task);
void epk_unregistered_drop(struct task_struct *task);
int epk_unregistered_add_all(struct mm_struct *mm);
void epk_unregistered_exit(void);

/* switch.c */
void epk_probe_switch(void *identity, bool preempt, struct task_struct *prev,
		      struct task_struct *next, unsigned int prev_state);

/* signal.c */
void epk_signal_deliver(struct epk_thread *thread);

/* power.c */
int epk_power_init(void);
void epk_power_exit(void);

/*
 * Between two steps that a lock or a barrier is to keep from being seen apart: on debug
 * kernels there is time to see it, if it does not.
 */
static inline void epk_dawdle(void)
{
	if (IS_ENABLED(CONFIG_PROVE_LOCKING))
		udelay(20);
}

/* The bit of PKRU that denies all access by a key. */
static inline u32 epk_pkru_deny(unsigned int pkey)
{
	return 1u << (pkey * 2);
}

/* Does PKRU allow an access by a key? */
static inline bool epk_pkru_allows(u32 pkru, unsigned int pkey, bool write)
{
	return !(pkru & (write ? 3u : 1u) << 2 * pkey);
}

/**
 * epk_current_ept() - in which EPT is this CPU
 *
 * Call with preemption disabled, or take the answer as a hint.
 */
static inline u32 epk_current_ept(void)
{
	return READ_ONCE(epk_host.identity->ept);
}

/**
 * epk_vmfunc() - enter an EPT
 * @ept: its index
 *
 * Context: preemption disabled.
 * Return: false if there is no such EPT any more: #UD, and the CPU stays where
 * it was.
 */
static inline bool epk_vmfunc(unsigned int ept)
{
	asm goto("1:	.byte 0x0f, 0x01, 0xd4\n"	/* vmfunc */
		 _ASM_EXTABLE(1b, %l[invalid])
		 : : "a" (0), "c" (ept) : "memory" : invalid);
	return true;
invalid:
	return false;
}

/**
 * epk_context_note_cpu() - this CPU is about to run a thread of a context's address space
 * @ctx: the context
 *
 * Context: interrupts off, until the thread runs.
 */
static inline void epk_context_note_cpu(struct epk_context *ctx)
{
	int cpu = smp_processor_id();

	if (likely(cpumask_test_cpu(cpu, &ctx->cpus)))
		return;
	cpumask_set_cpu(cpu, &ctx->cpus);
	/* Pairs with the barrier in epk_revoke(): it sees this CPU, or this CPU its batch. */
	smp_mb__after_atomic();
}

static inline bool epk_context_is_ready(const struct epk_context *ctx)
{
	/* Pairs with the release in epk_context_start(). */
	return smp_load_acquire(&ctx->phase) == EPK_READY;
}

#include "lookup.h"

#endif /* EPK_MODULE_H */
