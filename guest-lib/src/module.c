// SPDX-License-Identifier: MIT
/* What the backends "epk" and "vmfunc" ask the kernel module for. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "backend.h"
#include "component.h"
#include "registry.h"
#include "stack.h"
#include "tls.h"

/* The area below goes away with all that is mapped over it. */
static int map_over(int fd, const void *addr, size_t len, off_t offset)
{
	void *got = mmap((void *)addr, len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, offset);

	return got == MAP_FAILED ? -errno : 0;
}

static int set_up(struct epk_state *state, int fd, uint32_t pkeys)
{
	struct epk_init init = {
		.version = EPK_ABI_VERSION,
		.pkeys = pkeys,
		.generation = epk_registry_inherited_generation(),
	};
	int err;

	if (ioctl(fd, EPK_IOC_INIT, &init)) {
		err = -errno;
		return err == -EINVAL ? epk_because(EPK_CAUSE_VERSION) : err;
	}
	if (init.table_bytes > EPK_TABLE_ROOM)
		return -ENODEV;
	err = map_over(fd, state->table, init.table_bytes, EPK_MMAP_TABLE);
	if (err)
		return err;
	err = map_over(fd, (const char *)state->table + EPK_TABLE_ROOM, init.table_bytes,
		       EPK_MMAP_NOTES);
	if (err)
		return err;
	return map_over(fd, (const char *)state->table - EPK_GATE_IDENTITY, EPK_PAGE_SIZE,
			EPK_MMAP_IDENTITY);
}

static int open_device(void)
{
	int fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC), err = -errno;

	if (fd >= 0)
		return fd;
	if (err == -ENOENT || err == -ENXIO)
		return epk_because(EPK_CAUSE_NO_DEVICE);
	return err == -EACCES ? epk_because(EPK_CAUSE_DEVICE) : err;
}

/*
 * Opens a context with all free pkeys, or with the first of them if *@pkeys is 1
 * on entry; *@pkeys becomes those that it has.
 */
int epk_module_open(struct epk_state *state, uint32_t *pkeys)
{
	bool one = *pkeys == 1;
	int fd, err;

	fd = open_device();
	if (fd < 0)
		return fd;
	err = epk_pkeys_usable() ? 0 : -ENODEV;
	if (err)
		goto close_fd;
	*pkeys = epk_pkeys_take();
	if (!*pkeys) {
		err = -ENOSPC;
		goto close_fd;
	}
	if (one) {
		epk_pkeys_give(*pkeys & (*pkeys - 1));
		*pkeys &= -*pkeys;
	}
	state->fd = fd;
	err = set_up(state, fd, *pkeys);
	if (err)
		epk_module_close(state, *pkeys);
	return err;

close_fd:
	close(fd);
	return err;
}

/* Has it restart the gates. */
int epk_module_gates(const struct epk_state *state)
{
	unsigned int nr = epk_gate_list_end - epk_gate_list;
	unsigned int more = epk_component_gate_list_end - epk_component_gate_list;
	struct epk_gate all[EPK_GATES_MAX];
	struct epk_gates arg = {
		.num = nr + more, .gates = (uintptr_t)all, .fault = (uintptr_t)epk_gate_fault,
		.caught = (uintptr_t)epk_call_fault,
		.stack = (uintptr_t)&epk_word.outside - epk_fs_base(),
	};

	if (nr + more > EPK_GATES_MAX)
		return -E2BIG;
	memcpy(all, epk_gate_list, nr * sizeof(*all));
	memcpy(all + nr, epk_component_gate_list, more * sizeof(*all));

	return ioctl(state->fd, EPK_IOC_GATES, &arg) ? -errno : 0;
}

/* The module keeps the keys as long as anything of the context is open or mapped. */
void epk_module_close(struct epk_state *state, uint32_t pkeys)
{
	bool cleared = epk_table_area_clear(state->table);

	close(state->fd);
	state->fd = -1;
	if (cleared)
		epk_pkeys_give(pkeys);
}

/* As errno has it.  Of what these are asked nothing else is a descriptor. */
static int failed(void)
{
	return errno == EBADF ? epk_because(EPK_CAUSE_CLOSED) : -errno;
}

int epk_module_alloc(int num, int *ids, uint32_t flags)
{
	struct epk_domains arg = { .num = num, .flags = flags, .ids = (uintptr_t)ids };

	return ioctl(epk_now.fd, EPK_IOC_ALLOC, &arg) ? failed() : 0;
}

int epk_module_free(int num, const int *ids)
{
	struct epk_domains arg = { .num = num, .ids = (uintptr_t)ids };

	return ioctl(epk_now.fd, EPK_IOC_FREE, &arg) ? failed() : 0;
}

static int map_file(struct epk_mapping *map, void *addr, int flags)
{
	struct epk_file arg = {
		.addr = (uintptr_t)addr,
		.len = map->end - map->start,
		.offset = map->offset,
		.id = map->id,
		.fd = map->fd,
		.prot = map->prot,
		.flags = flags,
	};

	if (ioctl(epk_now.fd, EPK_IOC_FILE, &arg))
		return -errno;
	map->start = arg.addr;
	map->end = arg.addr + arg.len;
	return 0;
}

/* One mapping more, that is joined with no other: what is to be locked as well has another error. */
static bool can_map(void)
{
	void *more = mmap(NULL, EPK_PAGE_SIZE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool can = more != MAP_FAILED || errno != ENOMEM;

	if (more != MAP_FAILED)
		munmap(more, EPK_PAGE_SIZE);
	errno = ENOMEM;
	return can;
}

int epk_module_mmap(struct epk_mapping *map, void *addr, int flags)
{
	struct epk_range range = { .len = map->end - map->start };
	int keep = flags & (MAP_FIXED_NOREPLACE | MAP_FIXED);
	void *got;

	if (map->fd >= 0)
		return map_file(map, addr, keep);
	got = mmap(addr, range.len, map->prot, MAP_SHARED | keep, epk_now.fd,
		   EPK_MMAP_DOMAIN(map->id));
	if (got == MAP_FAILED && errno == ENOMEM && !can_map())
		return epk_because(EPK_CAUSE_MAPPINGS);
	if (got == MAP_FAILED && errno == ENOMEM && epk_memlock_reached(range.len, 0))
		return epk_because(EPK_CAUSE_MEMLOCK);
	if (got == MAP_FAILED)
		return failed();
	map->start = (uintptr_t)got;
	map->end = map->start + range.len;
	/* A hint: what it cannot do, touches will. */
	range.addr = map->start;
	if (flags & MAP_POPULATE && map->prot)
		ioctl(epk_now.fd, EPK_IOC_POPULATE, &range);
	return 0;
}

/* munmap() is for who does not own it, and refused. */
int epk_module_munmap(void *addr, size_t len)
{
	struct epk_range range = { .addr = (uintptr_t)addr, .len = len };

	return ioctl(epk_now.fd, EPK_IOC_UNMAP, &range) ? failed() : 0;
}

int epk_module_reserve(void *addr, size_t len)
{
	struct epk_range range = { .addr = (uintptr_t)addr, .len = len };

	return ioctl(epk_now.fd, EPK_IOC_RESERVE, &range) ? failed() : 0;
}

int epk_module_fill(void *addr, const void *from, size_t len)
{
	struct epk_fill fill = {
		.addr = (uintptr_t)addr, .len = len, .from = (uintptr_t)from,
	};

	return ioctl(epk_now.fd, EPK_IOC_FILL, &fill) ? -errno : 0;
}

/* The key stays. */
int epk_module_protect(const struct epk_mapping *map, int prot)
{
	return mprotect((void *)map->start, map->end - map->start, prot) ? -errno : 0;
}

int epk_module_note(int id, uint64_t addr)
{
	struct epk_note arg = { .id = id, .addr = addr };

	return ioctl(epk_now.fd, EPK_IOC_NOTE, &arg) ? failed() : 0;
}

/* The module's memory is not inherited. */
void epk_module_forget(const struct epk_state *old)
{
	close(old->fd);
	epk_pkeys_inherit(old->pkeys);
}

/* Has the calling thread's EPT survive context switches and signals. */
int epk_module_enrol(void)
{
	return ioctl(epk_now.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS) ? failed() : 0;
}

int epk_module_counts(struct epk_counts *counts)
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

/* What each thread may do with a domain that it does not hold. */
int epk_module_common(int id, int prot)
{
	return ioctl(epk_now.fd, EPK_IOC_PROTECT, EPK_BEGIN(id, prot)) ? -errno : 0;
}

int epk_module_common_prot(int id)
{
	int prot = ioctl(epk_now.fd, EPK_IOC_PROTECT, EPK_BEGIN(id, EPK_PROTECT_ASK));

	return prot < 0 ? -errno : prot;
}
