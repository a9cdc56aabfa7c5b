/* SPDX-License-Identifier: MIT */
/* Which memory belongs to which domain.  All under epk_lock. */
#ifndef EPK_MAPPING_H
#define EPK_MAPPING_H

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct epk_mapping - one range of domain memory
 * @start: first byte
 * @end: one past the last
 * @id: the domain
 * @prot: the most that a holder can do with it
 * @fd: while it is mapped: the file that it shows, or -1 for none
 * @offset: likewise: where in the file
 * @node: in the tree of all
 * @next: next mapping of the same domain
 * @link: what points to this one in the domain's list
 */
struct epk_mapping {
	uintptr_t start;
	uintptr_t end;
	int id;
	int prot;
	int fd;
	uint64_t offset;
	RB_ENTRY(epk_mapping) node;
	struct epk_mapping *next;
	struct epk_mapping **link;
};

/* Of all of them that are no file's. */
size_t epk_mapping_bytes(void);
size_t epk_mapping_nr(void);
int epk_mapping_at(uintptr_t addr);
bool epk_mapping_find(uintptr_t addr, struct epk_mapping *copy);
bool epk_mapping_next(uintptr_t addr, struct epk_mapping *copy);
struct epk_mapping *epk_mapping_new(const struct epk_mapping *what);
void epk_mapping_cancel(struct epk_mapping *map);
void epk_mapping_insert(struct epk_mapping *map);
int epk_mapping_unmap(uintptr_t start, uintptr_t end, int (*unmap)(void *addr, size_t len));
int epk_mapping_protect(uintptr_t start, uintptr_t end, int prot,
			int (*protect)(const struct epk_mapping *map, int prot));
int epk_mapping_unmap_domain(int id, int (*unmap)(void *addr, size_t len), bool gone);
void epk_mapping_forget(void);

#endif /* EPK_MAPPING_H */
