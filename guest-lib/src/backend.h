/* SPDX-License-Identifier: MIT */
#ifndef EPK_BACKEND_H
#define EPK_BACKEND_H

#include "mapping.h"
#include "pkru.h"
#include "thread.h"

/**
 * struct epk_backend - how domains are made and kept
 * @name: what EPK_BACKEND calls it
 * @init: fills in the state; on error nothing is left
 * @alloc: @num new domains, near the live domain @beside if that is not 0; all or none
 * @alloc_everywhere: the same, near all others.  NULL: as all are
 * @free: frees live, unheld, unmapped domains; all or none
 * @gather: brings live domains together; all or none.  NULL: they are
 * @mmap: maps memory into a live domain
 * @munmap: unmaps a range of domain memory
 * @reserve: the same, and memory that nobody can access lies there instead, at once
 * @fill: writes whole pages of what the caller holds to write, whatever mappings allow; without the lock
 * @protect: holders can do @prot with a mapping from now on
 * @note: sets a live domain's note, which is 0 until then, to memory of it; -EBUSY if it has one
 * @thread_start: gets the calling thread ready for its first begin; may be NULL
 * @thread_stop: drops whatever the calling thread holds; may be NULL
 * @begin: notes the right to @held, which is on the thread's list already; may be NULL
 * @widen: what was held as @old, to be read only, can be written to; if @begin does not do it
 * @end: forgets the right to slot @slot, and takes it off the list
 * @settle: the list is as it should be: gives the thread the rights to that; may be NULL
 * @take: the thread is to hold a domain, as domain_begin() is asked; for backends that do
 *	without the list.  They have none of the four calls above, but
 * @drop: it is not to hold it any longer, as domain_end() is asked
 * @held: fills in up to @max of what the thread holds; how many it holds
 * @interrupted: as @held, in a handler of a signal, of the code that it interrupted; of which this is
 *	the third argument.  NULL: what is on the list
 * @held_prot: what it holds of a live domain, 0 if nothing
 * @common: all threads may do @prot with a live domain that they do not hold, from now on; without the
 *	lock.  NULL: it cannot be had
 * @common_prot: what they may; if there is @common
 * @in_module: the module puts rights aside; see aside.h
 * @put_aside: puts all rights of the thread aside until it has this stack pointer again, and holds
 *	the domain alone, or nothing for 0; for backends that do without the list
 * @forget_aside: forgets what the thread put aside last
 * @take_back: gives up what is held, and gives back what was put aside under this stack pointer
 * @pinned: -EBUSY: the domain cannot be freed, since the caller holds it; -EAGAIN: since another
 *	thread does, or has it pinned for a moment; may be NULL
 * @counts: fills in what the library does not know itself; may be NULL
 * @forget: in a forked child: lets go of what belongs to the parent; may be NULL
 *
 * @alloc, @alloc_everywhere, @free, @mmap, @munmap, @reserve, @protect and @forget run under epk_lock.  All return 0
 * or a negative error number.
 */
struct epk_backend {
	const char *name;
	int (*init)(struct epk_state *state);
	int (*alloc)(int num, int *ids, int beside);
	int (*alloc_everywhere)(int num, int *ids);
	int (*free)(int num, const int *ids);
	int (*gather)(int num, const int *ids);
	int (*mmap)(struct epk_mapping *map, void *addr, int flags);
	int (*munmap)(void *addr, size_t len);
	int (*reserve)(void *addr, size_t len);
	int (*fill)(void *addr, const void *from, size_t len);
	int (*protect)(const struct epk_mapping *map, int prot);
	int (*note)(int id, uint64_t addr);
	int (*thread_start)(struct epk_thread *t);
	void (*thread_stop)(struct epk_thread *t);
	int (*begin)(struct epk_thread *t, struct epk_held *held);
	int (*widen)(const struct epk_held *old);
	int (*end)(struct epk_thread *t, unsigned int slot);
	int (*settle)(struct epk_thread *t);
	int (*take)(int id, int prot);
	int (*drop)(int id);
	int (*held)(struct epk_held *list, int max);
	int (*interrupted)(struct epk_held *list, int max, const void *context);
	int (*held_prot)(int id);
	int (*pinned)(int id);
	int (*common)(int id, int prot);
	int (*common_prot)(int id);
	bool in_module;
	int (*put_aside)(int id, uintptr_t sp);
	int (*take_back)(uintptr_t sp);
	void (*forget_aside)(void);
	int (*counts)(struct epk_counts *counts);
	void (*forget)(const struct epk_state *old);
};

extern const struct epk_backend epk_backend_epk;
extern const struct epk_backend epk_backend_mpk;
extern const struct epk_backend epk_backend_vmfunc;
extern const struct epk_backend epk_backend_mprotect;
extern const struct epk_backend epk_backend_none;

/* soft_table.c: the domain table of the backends that have no kernel module. */
int epk_soft_table_init(struct epk_state *state);
int epk_soft_table_alloc(int num, int *ids, int beside);
int epk_soft_table_free(int num, const int *ids);
int epk_soft_table_note(int id, uint64_t addr);
int epk_soft_table_push(uintptr_t sp, uint32_t pkru, const uint32_t pins[EPK_NR_PKEYS]);
int epk_soft_table_pop(uintptr_t sp, uint32_t *pkru, uint32_t pins[EPK_NR_PKEYS]);
bool epk_soft_table_aside(unsigned int pkey);
void epk_soft_table_set_pkey(int id, uint8_t pkey);
void epk_soft_table_owners(int owners[EPK_NR_PKEYS]);
void epk_soft_table_set_owner(unsigned int pkey, int id);

/* module.c: domains of the kernel module. */
int epk_module_open(struct epk_state *state, uint32_t *pkeys);
void epk_module_close(struct epk_state *state, uint32_t pkeys);
int epk_module_alloc(int num, int *ids, uint32_t flags);
int epk_module_free(int num, const int *ids);
int epk_module_mmap(struct epk_mapping *map, void *addr, int flags);
int epk_module_munmap(void *addr, size_t len);
int epk_module_reserve(void *addr, size_t len);
int epk_module_fill(void *addr, const void *from, size_t len);
int epk_module_protect(const struct epk_mapping *map, int prot);
int epk_module_note(int id, uint64_t addr);
void epk_module_forget(const struct epk_state *old);
int epk_module_enrol(void);
int epk_module_gates(const struct epk_state *state);
int epk_module_counts(struct epk_counts *counts);
int epk_module_common(int id, int prot);
int epk_module_common_prot(int id);

/* gather.c */
int epk_module_gather(int num, const int *ids);

/* frame.c */
uint32_t epk_frame_pkru(const void *context);

/* memlock.c: are so many bytes more beyond RLIMIT_MEMLOCK, as the kernel counts, and @own besides? */
bool epk_memlock_reached(size_t more, size_t own);

/* strict.c: would the module refuse anything, now that it is gone?  Would it refuse to map this? */
int epk_strict_check(void);
int epk_strict_map(const struct epk_mapping *map);

/* Under epk_lock. */
static inline int epk_strict(void)
{
	return unlikely(epk_now.strict) ? epk_strict_check() : 0;
}

/* anon.c: their memory. */
int epk_anon_mmap(const struct epk_mapping *map, void **addr, int prot, int flags);
void epk_anon_undo(void *addr, size_t len, int flags);
int epk_anon_munmap(void *addr, size_t len);
int epk_anon_reserve(void *addr, size_t len);
int epk_anon_common_prot(int id);
int epk_anon_fill(void *addr, const void *from, size_t len);

/* pkeys.c: the process's protection keys.  Key 0 is everybody's. */
bool epk_pkeys_usable(void);
void epk_pkeys_inherit(uint32_t pkeys);
uint32_t epk_pkeys_take(void);
void epk_pkeys_give(uint32_t pkeys);
int epk_pkey_mprotect(void *addr, size_t len, int prot, int pkey);
void epk_pkeys_state(struct epk_state *state, uint32_t pkeys);
bool epk_gates_run(void);
uint32_t epk_xfeatures(void);

#endif /* EPK_BACKEND_H */
