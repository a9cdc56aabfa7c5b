// SPDX-License-Identifier: MIT
/* The guest's page tables: the image where it is linked, and the direct map. */
#include "vmm.h"

#define NR_TABLES	64

struct page_tables {
	uint64_t table[NR_TABLES][512];
	int used;
} __attribute__((aligned(PAGE)));

static struct page_tables pools[MAX_VMS];

extern char __executable_start[], _end[];

void *image_start(void)
{
	return __executable_start;
}

uint64_t image_size(void)
{
	return ((uint64_t)_end - (uint64_t)__executable_start + PAGE - 1) & ~(PAGE - 1);
}

uint64_t image_gpa(const void *p)
{
	uint64_t offset = (uint64_t)p - (uint64_t)__executable_start;

	REQUIRE(offset < image_size());
	return IMAGE_GPA + offset;
}

static uint64_t *table_at(uint64_t gpa)
{
	return (uint64_t *)(__executable_start + (gpa - IMAGE_GPA));
}

/* The entry of @gva at @level; makes the tables above it. */
static uint64_t *entry_of(struct vm *vm, uint64_t gva, int level)
{
	struct page_tables *pool = vm->tables;
	uint64_t *table = pool->table[0], *entry;
	int l;

	for (l = 4; ; l--) {
		entry = &table[gva >> (12 + 9 * (l - 1)) & 511];
		if (l == level)
			return entry;
		if (!*entry) {
			REQUIRE(pool->used < NR_TABLES);
			*entry = image_gpa(pool->table[pool->used++]) | PTE_P | PTE_W | PTE_U;
		}
		table = table_at(*entry & ~0xfffull);
	}
}

/* Map 4 KiB (level 1), 2 MiB (2) or 1 GiB (3). */
static void pages_map(struct vm *vm, uint64_t gva, uint64_t gpa, int level, uint64_t flags)
{
	*entry_of(vm, gva, level) = gpa | flags | (level > 1 ? PTE_PS : 0);
}

void pages_map_table(struct vm *vm, uint64_t gva, uint64_t table, int level)
{
	*entry_of(vm, gva, level) = table | PTE_P | PTE_W | PTE_U;
}

void pages_init(struct vm *vm)
{
	uint64_t offset, gpa;
	int i;

	for (i = 0; i < MAX_VMS; i++) {
		if (!pools[i].used)
			break;
	}
	REQUIRE(i < MAX_VMS);
	vm->tables = &pools[i];
	memset(vm->tables, 0, sizeof(*vm->tables));
	vm->tables->used = 1;

	for (offset = 0; offset < image_size(); offset += PAGE)
		pages_map(vm, (uint64_t)__executable_start + offset, IMAGE_GPA + offset, 1,
			  PTE_P | PTE_W | PTE_U);
	for (gpa = 0; gpa >> vm->phys_bits == 0; gpa += GiB)
		pages_map(vm, DIRECT_MAP + gpa, gpa, 3, PTE_P | PTE_W | PTE_U);
}

void pages_free(struct vm *vm)
{
	vm->tables->used = 0;
	vm->tables = NULL;
}

uint64_t pages_cr3(struct vm *vm)
{
	return image_gpa(vm->tables->table[0]);
}
