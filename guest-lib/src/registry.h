/* SPDX-License-Identifier: MIT */
/*
 * The library's own notes on each domain: its ID, for the child that inherits
 * it, and its mappings.  No right rests on them.  All under epk_lock.
 */
#ifndef EPK_REGISTRY_H
#define EPK_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

struct epk_mapping;

/**
 * struct epk_domain - notes on one entry of the domain table
 * @id: the ID that lives there, or 0
 * @last_id: the ID that lived there last
 * @readers: threads that may read it, and
 * @writers: that may write it, under "mprotect"
 * @common: what a thread may do that does not hold it, under "mprotect" and "none"
 * @seen: scratch for finding an ID that is given twice
 * @mappings: its memory
 */
struct epk_domain {
	int id;
	int last_id;
	unsigned int readers;
	unsigned int writers;
	int common;
	bool seen;
	struct epk_mapping *mappings;
};

int epk_registry_init(uint32_t max_domains);
void epk_registry_exit(void);
void epk_registry_add(int num, const int *ids);
void epk_registry_remove(int num, const int *ids);
struct epk_domain *epk_registry_at(uint32_t index);
uint32_t epk_registry_live(void);
uint32_t epk_registry_high(void);
int epk_registry_last_id(uint32_t index);
int epk_registry_inherited_generation(void);
void epk_registry_inherit(void);

#endif /* EPK_REGISTRY_H */
