// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "registry.h"
#include "state_page.h"

/**
 * struct domain_set - the domains of one process
 * @next: those of its parent, whose IDs are known here only to be refused
 * @domains: indexed by EPK_ID_INDEX(); reserved whole, backed where touched
 * @high: no index from here on was ever used
 * @live: number of live domains
 */
struct domain_set {
	struct domain_set *next;
	struct epk_domain *domains;
	uint32_t max;
	uint32_t high;
	uint32_t live;
};

static struct domain_set *own;
static struct domain_set *inherited;

int epk_registry_init(uint32_t max_domains)
{
	struct domain_set *set = calloc(1, sizeof(*set));

	if (!set)
		return -ENOMEM;
	set->max = max_domains;
	set->domains = mmap(NULL, max_domains * sizeof(*set->domains),
			    PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (set->domains == MAP_FAILED) {
		free(set);
		return -ENOMEM;
	}
	own = set;
	return 0;
}

void epk_registry_exit(void)
{
	munmap(own->domains, own->max * sizeof(*own->domains));
	free(own);
	own = NULL;
}

struct epk_domain *epk_registry_at(uint32_t index)
{
	return &own->domains[index];
}

void epk_registry_add(int num, const int *ids)
{
	uint32_t index;
	int i;

	for (i = 0; i < num; i++) {
		index = EPK_ID_INDEX(ids[i]);
		own->domains[index].id = ids[i];
		own->domains[index].last_id = ids[i];
		if (index >= own->high)
			own->high = index + 1;
	}
	own->live += num;
}

void epk_registry_remove(int num, const int *ids)
{
	int i;

	for (i = 0; i < num; i++) {
		own->domains[EPK_ID_INDEX(ids[i])].id = 0;
		own->domains[EPK_ID_INDEX(ids[i])].common = PROT_NONE;
	}
	own->live -= num;
}

uint32_t epk_registry_live(void)
{
	return own->live;
}

uint32_t epk_registry_high(void)
{
	return own->high;
}

/* The ID that used @index last, in this process or before the forks. */
int epk_registry_last_id(uint32_t index)
{
	struct domain_set *set;

	if (own->domains[index].last_id)
		return own->domains[index].last_id;
	for (set = inherited; set; set = set->next)
		if (index < set->high && set->domains[index].last_id)
			return set->domains[index].last_id;
	return 0;
}

/* The last generation of all IDs that were handed out before the forks. */
int epk_registry_inherited_generation(void)
{
	struct domain_set *set;
	int last = 0;
	uint32_t i;

	for (set = inherited; set; set = set->next)
		for (i = 0; i < set->high; i++)
			if (set->domains[i].last_id >> EPK_ID_INDEX_BITS > last)
				last = set->domains[i].last_id >> EPK_ID_INDEX_BITS;
	return last;
}

/* In a forked child: all that was this process's is the parent's now. */
void epk_registry_inherit(void)
{
	own->next = inherited;
	inherited = own;
	own = NULL;
}

bool epk_id_inherited(int id)
{
	uint32_t index = EPK_ID_INDEX(id);
	struct domain_set *set;

	for (set = inherited; set; set = set->next)
		if (index < set->high && set->domains[index].id == id)
			return true;
	return false;
}
