// SPDX-License-Identifier: MIT
/* No protection at all, but the same bookkeeping and the same errors. */
#include "backend.h"
#include "registry.h"

static int none_mmap(struct epk_mapping *map, void *addr, int flags)
{
	size_t len = map->end - map->start;
	int err = epk_anon_mmap(map, &addr, map->prot, flags);

	if (err)
		return err;
	map->start = (uintptr_t)addr;
	map->end = map->start + len;
	return 0;
}

static int none_protect(const struct epk_mapping *map, int prot)
{
	return mprotect((void *)map->start, map->end - map->start, prot) ? -errno : 0;
}

static int none_common(int id, int prot)
{
	int err = -pthread_mutex_lock(&epk_lock);
	struct epk_entry entry;

	if (err)
		return err;
	err = epk_lookup(id, &entry);
	if (!err)
		epk_registry_at(EPK_ID_INDEX(id))->common = prot;
	pthread_mutex_unlock(&epk_lock);
	return err;
}

static int none_end(struct epk_thread *t, unsigned int slot)
{
	epk_held_remove(t, slot);
	return 0;
}

const struct epk_backend epk_backend_none = {
	.name = "none",
	.init = epk_soft_table_init,
	.alloc = epk_soft_table_alloc,
	.free = epk_soft_table_free,
	.mmap = none_mmap,
	.munmap = epk_anon_munmap,
	.reserve = epk_anon_reserve,
	.fill = epk_anon_fill,
	.protect = none_protect,
	.note = epk_soft_table_note,
	.end = none_end,
	.common = none_common,
	.common_prot = epk_anon_common_prot,
};
