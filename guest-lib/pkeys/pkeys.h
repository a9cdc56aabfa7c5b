/* SPDX-License-Identifier: MIT */
/*
 * libepk-pkeys: the C library's calls for protection keys, by domains.
 *
 * A key is a domain, and its value a number that says nothing about that.  What the library knows, which
 * number is which domain and which memory has which key, is read-only but while it changes.
 */
#ifndef EPK_PKEYS_H
#define EPK_PKEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include <epk.h>

#define PAGE		4096ul
#define RW		(PROT_READ | PROT_WRITE)

/* Keys at a time; as a value says the slot, some more slots, so that a free one is soon found. */
#define KEYS_MOST	8192
#define SLOTS		16384
/* What pkey_alloc(), pkey_set() and pkey_get() take and give. */
#define DISABLE_ACCESS	1u
#define DISABLE_WRITE	2u
#define DISABLE		(DISABLE_ACCESS | DISABLE_WRITE)

#define REGIONS_MOST	(1u << 18)
#define INDICES		(1u << 17)
/* No key: ordinary memory. */
#define NO_SLOT		0u

/**
 * union key - a slot; slot 0 is no key's
 * @value: what the program calls it; 0: it has no such key, or no more
 * @id: the domain; 0: the slot is free.  A key that was freed while it had memory keeps its domain
 */
union key {
	struct {
		int value;
		int id;
	};
	uint64_t raw;
};

/**
 * struct region - memory that has a key
 * @start: first byte
 * @end: one past the last
 * @slot: the key
 * @prot: as mprotect() said
 */
struct region {
	uintptr_t start;
	uintptr_t end;
	uint32_t slot;
	int prot;
};

/**
 * struct books - what the library knows
 * @keys: by slot
 * @bytes: by slot: how much memory it has
 * @slot_of: by the index in a domain's ID: its slot
 * @held: by slot: what the thread that forks may do
 * @nr_slots: slots in use
 * @nr_regions: regions in use
 * @changes: of the list of regions, counted as they begin and as they end
 * @handler: the program's, of SIGSEGV
 * @sigaction: the C library's
 * @pthread_create: likewise
 * @regions: by address
 */
struct books {
	union key keys[SLOTS];
	size_t bytes[SLOTS];
	uint16_t slot_of[INDICES];
	uint8_t held[SLOTS];
	unsigned int nr_slots;
	unsigned int nr_regions;
	unsigned int changes;
	void (*handler)(int sig, siginfo_t *info, void *context);
	int (*sigaction)(int sig, const struct sigaction *action, struct sigaction *old);
	int (*pthread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *arg),
			      void *arg);
	struct region regions[REGIONS_MOST];
};

/* raw.c */
void pkeys_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void pkeys_too_large(void);
long pkeys_raw(long nr, long a, long b, long c, long d, long e, long f);

/* books.c: to change them, the lock of changes is held. */
extern struct books *pkeys_books;
bool pkeys_books_make(void);
void pkeys_books_open(void);
void pkeys_books_close(void);
bool pkeys_region_find(uintptr_t start, uintptr_t end, struct region *first);
bool pkeys_region_look(uintptr_t start, uintptr_t end, struct region *first);
bool pkeys_regions_have_room(void);
void pkeys_region_note(uintptr_t start, uintptr_t end, int prot, unsigned int slot);
union key pkeys_key_find(int value);
void pkeys_key_write(unsigned int slot, int value, int id);
unsigned int pkeys_key_slot_of(int id);

/* lock.c */
/* In the library's own calls of others; what these call of the C library is not the program's. */
extern __thread bool pkeys_inside __attribute__((tls_model("initial-exec")));

/**
 * struct pkeys_locked - what comes back when the lock of changes is given up
 * @signals: that were blocked, as the kernel has them
 */
struct pkeys_locked {
	uint64_t signals;
};

void pkeys_lock(struct pkeys_locked *locked);
void pkeys_unlock(struct pkeys_locked *locked);
void pkeys_fork_lock(void);
void pkeys_fork_unlock(void);

/* rights.c: what a thread may do, PROT_NONE, PROT_READ or RW. */
int pkeys_rights_set(int id, int prot);

/**
 * struct hold - what is held for a moment
 * @id: the domain
 * @before: what was held of it
 * @lent: a domain that makes room meanwhile, or 0
 * @lent_prot: what was held of that
 */
struct hold {
	int id;
	int before;
	int lent;
	int lent_prot;
};

int pkeys_hold(struct hold *hold, int id, int prot, int other);
void pkeys_unhold(struct hold *hold);

/* memory.c: under the lock of changes.  All return 0 or a negative error number. */
int pkeys_memory_key(uintptr_t start, uintptr_t end, int prot, unsigned int slot);
int pkeys_memory_protect(uintptr_t start, uintptr_t end, int prot);
int pkeys_memory_drop(uintptr_t start, uintptr_t end, bool reserve);
void pkeys_key_release(unsigned int slot);

/* Of addresses that are those of pages. */
static inline size_t page_up(size_t len)
{
	return (len + PAGE - 1) & -PAGE;
}

/* maps.c */
/**
 * struct vma - a line of /proc/self/maps
 * @start: first byte
 * @end: one past the last
 * @prot: what may be done
 * @shared: MAP_SHARED
 * @special: it is the kernel's, or a stack
 * @file: it has a name, perhaps of a file
 */
struct vma {
	uintptr_t start;
	uintptr_t end;
	int prot;
	bool shared;
	bool special;
	bool file;
};

bool pkeys_vma_find(uintptr_t addr, struct vma *vma);

/* calls.c: is who called none of the program's own?  Then the kernel has the call as it is. */
bool pkeys_is_ours(uintptr_t caller);
/* As the C library has it, with errno. */
long pkeys_answer(long ret);
int pkeys_unmap(void *addr, size_t len, uintptr_t caller);
int pkeys_protect(void *addr, size_t len, int prot, uintptr_t caller);
void *pkeys_move(void *addr, size_t len, size_t new_len, int flags, void *to, uintptr_t caller);

/* scan.c, fork.c */
void pkeys_scan(void);
void pkeys_fork_setup(void);

#endif /* EPK_PKEYS_H */
