// SPDX-License-Identifier: MIT
/*
 * Domains of the kernel module: (EPT, pkey) pairs.
 *
 * Rights rest on two pages that only the kernel and the hypervisor write: the
 * domain table and the identity page.
 *
 * Order: close every key, change the EPT, open.  So no instant has an old right in
 * a new EPT, except that a signal handler that begins domains of its own leaves
 * the thread in the EPT of the last domain on its list, and returns with the
 * PKRU of the interrupted code.  So compute PKRU afresh from the list, and look
 * at the identity page again afterwards, before any domain memory is touched.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "pkru.h"

/* Far more than signals can spoil; a module that loses the EPT ends here. */
#define ENTER_TRIES	64

static inline void close_all(void)
{
	epk_pkru_set(rdpkru() | epk_now.closed);
}

/*
 * Changes when the module has closed a key of a thread because its domain moved:
 * a PKRU that was computed before that may open another domain.
 */
static inline uint32_t revocations(void)
{
	return EPK_ENTRY_REVOCATIONS(__atomic_load_n((const epk_raw_entry *)epk_now.table,
						     __ATOMIC_ACQUIRE));
}

/* @pkru with every domain open that @t holds in @ept, and no other. */
static uint32_t open_held(struct epk_thread *t, uint32_t ept, uint32_t pkru)
{
	struct epk_held *held;
	struct epk_entry entry;
	unsigned int i;

	pkru |= epk_now.closed;
	for (i = 0; i < t->nr; i++) {
		held = &t->held[i];
		if (!epk_entry_find(held->id, &entry) || !entry.pkey || entry.ept != ept)
			continue;
		held->ept = entry.ept;
		held->pkey = entry.pkey;
		pkru = pkru_open(pkru, entry.pkey, held->prot);
	}
	return pkru;
}

/* Goes to @ept and opens what @t holds there. */
static int enter(struct epk_thread *t, uint32_t ept)
{
	uint32_t count;
	int tries;

	for (tries = 0; tries < ENTER_TRIES; tries++) {
		if (epk_current_ept() != ept) {
			close_all();
			epk_ept_enter(ept);
			t->switches++;
		}
		if (epk_current_ept() != ept)
			continue;
		count = revocations();
		epk_pkru_set(open_held(t, ept, rdpkru()));
		if (likely(epk_current_ept() == ept && revocations() == count))
			return 0;
	}
	close_all();
	return -EIO;
}

/* Back to the EPT of the last domain that @t still holds, if any. */
static int enter_last(struct epk_thread *t)
{
	struct epk_entry entry;
	int slot;

	for (slot = (int)t->nr - 1; slot >= 0; slot--)
		if (epk_entry_find(t->held[slot].id, &entry) && entry.pkey)
			return enter(t, entry.ept);
	close_all();
	return 0;
}

static int epk_begin(struct epk_thread *t, struct epk_held *held)
{
	struct epk_entry entry, again;
	int err;

	again = epk_entry_load(EPK_ID_INDEX(held->id));
	do {
		entry = again;
		if (entry.id != held->id || !entry.pkey)
			return -ENOENT;
		err = enter(t, entry.ept);
		if (err)
			return err;
		again = epk_entry_load(EPK_ID_INDEX(held->id));
	} while (memcmp(&again, &entry, sizeof(entry)));
	return 0;
}

static int epk_end(struct epk_thread *t, unsigned int slot)
{
	epk_held_remove(t, slot);
	return enter_last(t);
}

/* The region below goes away with all that is mapped over it. */
static int map_over(int fd, const void *addr, size_t len, off_t offset)
{
	void *got = mmap((void *)addr, len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, offset);

	return got == MAP_FAILED ? -errno : 0;
}

/* Fills in @state from the context of @fd and the process's free pkeys. */
static int epk_setup(struct epk_state *state, int fd)
{
	struct epk_init init = { .version = EPK_ABI_VERSION };
	int err;

	init.pkeys = epk_pkeys_take();
	if (!init.pkeys)
		return -ENOSPC;
	if (ioctl(fd, EPK_IOC_INIT, &init)) {
		err = -errno;
		goto give_pkeys;
	}
	if (init.table_bytes > EPK_TABLE_ROOM) {
		err = -ENODEV;
		goto give_pkeys;
	}
	err = map_over(fd, state->table, init.table_bytes, EPK_MMAP_TABLE);
	if (!err)
		err = map_over(fd, (const char *)state->table - EPK_GATE_IDENTITY, EPK_PAGE_SIZE,
			       EPK_MMAP_IDENTITY);
	if (err)
		goto give_pkeys;
	epk_pkeys_state(state, init.pkeys);
	state->fd = fd;
	return 0;

give_pkeys:
	epk_pkeys_give(init.pkeys);
	return err;
}

static int epk_init_backend(struct epk_state *state)
{
	int fd, err;

	fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENXIO ? -ENODEV : -errno;
	if (!epk_pkeys_usable()) {
		err = -ENODEV;
		goto close_fd;
	}
	err = epk_setup(state, fd);
	if (err)
		goto close_fd;
	return 0;

close_fd:
	close(fd);
	return err;
}

static int epk_alloc(int num, int *ids)
{
	struct epk_domains arg = { .num = num, .ids = (uintptr_t)ids };

	return ioctl(epk_now.fd, EPK_IOC_ALLOC, &arg) ? -errno : 0;
}

static int epk_free(int num, const int *ids)
{
	struct epk_domains arg = { .num = num, .ids = (uintptr_t)ids };

	return ioctl(epk_now.fd, EPK_IOC_FREE, &arg) ? -errno : 0;
}

static int epk_mmap(struct epk_mapping *map, void *addr, int flags)
{
	size_t len = map->end - map->start;
	int keep = flags & MAP_FIXED_NOREPLACE;
	void *got;

	got = mmap(addr, len, map->prot, MAP_SHARED | keep, epk_now.fd,
		   EPK_MMAP_DOMAIN(map->id));
	if (got == MAP_FAILED)
		return -errno;
	map->start = (uintptr_t)got;
	map->end = map->start + len;
	return 0;
}

static int epk_thread_enrol(struct epk_thread *t)
{
	(void)t;
	close_all();
	return ioctl(epk_now.fd, EPK_IOC_THREAD, 0) ? -errno : 0;
}

static void epk_thread_stop(struct epk_thread *t)
{
	(void)t;
	close_all();
}

static int epk_read_counts(struct epk_counts *counts)
{
	struct epk_stats stats;

	if (ioctl(epk_now.fd, EPK_IOC_STATS, &stats))
		return -errno;
	counts->epts = stats.epts;
	counts->pages = stats.pages;
	counts->vm_domains = stats.vm_domains;
	counts->vm_epts = stats.vm_epts;
	counts->vm_pages = stats.vm_pages;
	counts->vm_exits = stats.vm_exits;
	counts->vm_faults = stats.vm_faults;
	return 0;
}

static void epk_forget(const struct epk_state *old)
{
	close(old->fd);
	epk_pkeys_inherit(old->pkeys);
}

const struct epk_backend epk_backend_epk = {
	.name = "epk",
	.init = epk_init_backend,
	.alloc = epk_alloc,
	.free = epk_free,
	.mmap = epk_mmap,
	.munmap = epk_anon_munmap,
	.thread_start = epk_thread_enrol,
	.thread_stop = epk_thread_stop,
	.begin = epk_begin,
	.end = epk_end,
	.refresh = enter_last,
	.counts = epk_read_counts,
	.forget = epk_forget,
};
