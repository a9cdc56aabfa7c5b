// SPDX-License-Identifier: MIT
/*
 * All bytes that the library made and that the process can write: its .data and .bss, its
 * thread-local variables, what it has allocated with malloc() (with malloc's own word before
 * that) or mapped, and libc's slots for thread-specific data.  Nothing here knows what the
 * library keeps where; names come from its symbol table, if it has one.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../try.h"
#include "overwrite.h"

#define MAX_BLOCKS	1024
#define MAX_MAPS	1024
/* Of pages that nothing has touched. */
#define UNTOUCHED	256ul

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t nr, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);
extern void *__libc_memalign(size_t align, size_t size);
extern void __libc_free(void *ptr);

struct block {
	uintptr_t start;
	size_t size;
	uintptr_t caller;
};

struct map {
	uintptr_t start;
	uintptr_t end;
};

static struct block blocks[MAX_BLOCKS];
static unsigned int nr_blocks;
static volatile bool recording;

static struct map maps_before[MAX_MAPS], maps_after[MAX_MAPS];
static unsigned int nr_before;

/* The library. */
static uintptr_t base, text_start, text_end, data_start, data_end;
static size_t tls_bytes;
static const char *elf;
static const Elf64_Sym *symbols;
static size_t nr_symbols;
static const char *symbol_names;
static int pagemap = -1;

static void note_block(void *ptr, size_t size, void *caller)
{
	if (!recording || !ptr || nr_blocks == MAX_BLOCKS)
		return;
	blocks[nr_blocks++] = (struct block) { (uintptr_t)ptr, size, (uintptr_t)caller };
}

static void forget_block(const void *ptr)
{
	unsigned int i;

	for (i = 0; recording && i < nr_blocks; i++) {
		if (blocks[i].start == (uintptr_t)ptr) {
			blocks[i] = blocks[--nr_blocks];
			return;
		}
	}
}

/* In place of libc's, for the library, too. */
void *malloc(size_t size)
{
	void *got = __libc_malloc(size);

	note_block(got, size, __builtin_return_address(0));
	return got;
}

void *calloc(size_t nr, size_t size)
{
	void *got = __libc_calloc(nr, size);

	note_block(got, nr * size, __builtin_return_address(0));
	return got;
}

void *realloc(void *ptr, size_t size)
{
	void *got = __libc_realloc(ptr, size);

	if (got)
		forget_block(ptr);
	note_block(got, size, __builtin_return_address(0));
	return got;
}

void *memalign(size_t align, size_t size)
{
	void *got = __libc_memalign(align, size);

	note_block(got, size, __builtin_return_address(0));
	return got;
}

void *aligned_alloc(size_t align, size_t size)
{
	return memalign(align, size);
}

int posix_memalign(void **ptr, size_t align, size_t size)
{
	*ptr = memalign(align, size);
	return *ptr ? 0 : ENOMEM;
}

void free(void *ptr)
{
	forget_block(ptr);
	__libc_free(ptr);
}

/* While @on, what is allocated is the library's. */
void memory_library_made(bool on)
{
	recording = on;
}

/* Writable mappings, but for the stack and malloc()'s own. */
static unsigned int read_maps(struct map *maps)
{
	static char text[256 * 1024];
	unsigned int nr = 0;
	size_t len = 0;
	ssize_t got;
	char *line;
	int fd = open("/proc/self/maps", O_RDONLY);

	while ((got = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += got;
	close(fd);
	text[len] = 0;
	for (line = text; *line; line = strchrnul(line, '\n') + 1) {
		unsigned long start, end;
		char prot[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, prot) != 3 || nr == MAX_MAPS)
			break;
		if (prot[1] == 'w' && !memchr(line, '[', strchrnul(line, '\n') - line))
			maps[nr++] = (struct map) { start, end };
	}
	return nr;
}

static int find_library(struct dl_phdr_info *info, size_t size, void *arg)
{
	int i;

	(void)size;
	(void)arg;
	if (!strstr(info->dlpi_name, "libepk"))
		return 0;
	base = info->dlpi_addr;
	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type == PT_TLS)
			tls_bytes = ph->p_memsz;
		if (ph->p_type != PT_LOAD)
			continue;
		if (ph->p_flags & PF_X) {
			text_start = base + ph->p_vaddr;
			text_end = text_start + ph->p_memsz;
		}
		if (ph->p_flags & PF_W) {
			data_start = base + ph->p_vaddr;
			data_end = data_start + ph->p_memsz;
		}
	}
	elf = info->dlpi_name;
	return 1;
}

static void read_symbols(void)
{
	const Elf64_Ehdr *ehdr;
	const Elf64_Shdr *sh;
	struct stat st;
	int fd = open(elf, O_RDONLY), i;

	if (fd < 0 || fstat(fd, &st))
		return;
	ehdr = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (ehdr == MAP_FAILED)
		return;
	sh = (const void *)((const char *)ehdr + ehdr->e_shoff);
	for (i = 0; i < ehdr->e_shnum; i++) {
		if (sh[i].sh_type != SHT_SYMTAB)
			continue;
		symbols = (const void *)((const char *)ehdr + sh[i].sh_offset);
		nr_symbols = sh[i].sh_size / sizeof(*symbols);
		symbol_names = (const char *)ehdr + sh[sh[i].sh_link].sh_offset;
	}
}

/* Before the library is used, in the process that all workers come from. */
void memory_start(void)
{
	if (!dl_iterate_phdr(find_library, NULL) || !data_start) {
		printf("where is the library?\n");
		exit(1);
	}
	read_symbols();
	/* One touched page is not to be 512. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	nr_before = read_maps(maps_before);
}

static const Elf64_Sym *symbol_at(unsigned int type, uintptr_t offset)
{
	size_t i;

	for (i = 0; i < nr_symbols; i++)
		if (ELF64_ST_TYPE(symbols[i].st_info) == type && symbols[i].st_shndx &&
		    offset >= symbols[i].st_value &&
		    offset < symbols[i].st_value + symbols[i].st_size)
			return &symbols[i];
	return NULL;
}

static bool touched(uintptr_t addr)
{
	uint64_t entry = 0;

	if (pagemap < 0)
		pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (pread(pagemap, &entry, 8, addr / PAGE * 8) != 8)
		return true;
	return entry >> 63;
}

/* As it is. */
bool can_write(uintptr_t addr)
{
	char value;

	return try_read((void *)addr, &value) && try_write((void *)addr, value);
}

static void add(uintptr_t start, uintptr_t end, const char *name)
{
	struct area *area;
	uintptr_t addr;

	start = (start + 7) & ~7ul;
	if (start >= end || shared->nr_areas == MAX_AREAS)
		return;
	area = &shared->areas[shared->nr_areas];
	area->start = start;
	area->end = end;
	snprintf(area->name, sizeof(area->name), "%s", name);
	for (addr = start; addr < end && shared->nr_words < MAX_WORDS; addr += 8)
		shared->words[shared->nr_words++] = (struct word) {
			.addr = addr, .area = shared->nr_areas,
		};
	shared->nr_areas++;
}

/* Page by page: what cannot be written is left out, and most of what was never touched. */
static void add_pages(uintptr_t start, uintptr_t end, const char *name)
{
	bool was_touched = true;
	uintptr_t next;

	for (; start < end; start = next) {
		bool now_touched = touched(start);

		next = (start + PAGE) & -PAGE;
		if (next > end)
			next = end;
		if (now_touched && can_write(start))
			add(start, next, name);
		else if (!now_touched && was_touched && can_write(start))
			add(start, start + UNTOUCHED < next ? start + UNTOUCHED : next, name);
		was_touched = now_touched;
	}
}

void memory_area(const void *start, size_t len, const char *name)
{
	add((uintptr_t)start, (uintptr_t)start + len, name);
}

/* Symbol by symbol, and what lies between them. */
static void add_data(void)
{
	uintptr_t at = data_start, next;
	char name[64];

	while (at < data_end) {
		const Elf64_Sym *symbol = symbol_at(STT_OBJECT, at - base);

		if (symbol) {
			next = base + symbol->st_value + symbol->st_size;
			snprintf(name, sizeof(name), "%s", symbol_names + symbol->st_name);
		} else {
			for (next = at + 1; next < data_end && next % 8; next++)
				;
			while (next < data_end && !symbol_at(STT_OBJECT, next - base))
				next += 8;
			snprintf(name, sizeof(name), ".data+%#lx", (long)(at - data_start));
		}
		if (next > data_end)
			next = data_end;
		/* Several in one word are written over as one, and named after the last. */
		add_pages(at & -8ul, (next + 7) & -8ul, name);
		at = (next + 7) & -8ul;
	}
}

static int find_tls(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	if (info->dlpi_addr != base)
		return 0;
	*(uintptr_t *)arg = (uintptr_t)info->dlpi_tls_data;
	return 1;
}

static void add_tls(void)
{
	uintptr_t tls = 0, at, next;
	char name[64];

	dl_iterate_phdr(find_tls, &tls);
	for (at = tls; tls && at < tls + tls_bytes; at = next) {
		const Elf64_Sym *symbol = symbol_at(STT_TLS, at - tls);

		next = symbol ? tls + symbol->st_value + symbol->st_size : at + 8;
		snprintf(name, sizeof(name), "TLS %s",
			 symbol ? symbol_names + symbol->st_name : "?");
		add(at, next, name);
	}
}

/* libc's own, found by what the test puts there itself. */
static void add_specific(void)
{
	const uintptr_t magic = 0x6b6579206d616769;
	uintptr_t *self = (uintptr_t *)pthread_self();
	pthread_key_t key;
	unsigned int i;

	if (pthread_key_create(&key, NULL) || pthread_setspecific(key, (void *)magic))
		return;
	for (i = 0; i < 256 && self[i] != magic; i++)
		;
	/* A slot is a sequence number and the pointer; keys are given out in order. */
	if (i < 256)
		add((uintptr_t)&self[i + 1 - 2 * (key + 1)], (uintptr_t)&self[i - 1],
		    "pthread_setspecific");
	pthread_key_delete(key);
}

static void add_blocks(void)
{
	char name[64];
	unsigned int i;

	for (i = 0; i < nr_blocks; i++) {
		const Elf64_Sym *from = symbol_at(STT_FUNC, blocks[i].caller - base);
		bool own = blocks[i].caller >= text_start && blocks[i].caller < text_end;

		snprintf(name, sizeof(name), "malloc %u in %s", i,
			 own && from ? symbol_names + from->st_name : own ? "libepk" : "libc");
		add(blocks[i].start - 8, blocks[i].start + blocks[i].size, name);
	}
}

static bool was_mapped(uintptr_t page)
{
	unsigned int i;

	for (i = 0; i < nr_before; i++)
		if (page >= maps_before[i].start && page < maps_before[i].end)
			return true;
	return false;
}

static void add_mapped(void)
{
	unsigned int nr = read_maps(maps_after), i;
	uintptr_t start, end;
	char name[64];

	for (i = 0; i < nr; i++) {
		for (start = maps_after[i].start; start < maps_after[i].end; start = end) {
			end = start + PAGE;
			if (was_mapped(start) || memory_is_domain(start))
				continue;
			while (end < maps_after[i].end && !was_mapped(end) &&
			       !memory_is_domain(end))
				end += PAGE;
			snprintf(name, sizeof(name), "mmap %u", i);
			add_pages(start, end, name);
		}
	}
}

/* Tells whether two processes have allocated the same. */
uint64_t memory_blocks(void)
{
	uint64_t sum = nr_blocks;
	unsigned int i;

	for (i = 0; i < nr_blocks; i++)
		sum = sum * 31 + blocks[i].start + blocks[i].size;
	return sum;
}

/* In a worker that has set up all and holds nothing. */
void memory_find(void)
{
	shared->nr_areas = 0;
	shared->nr_words = 0;
	add_tls();
	add_specific();
	add_blocks();
	add_mapped();
	add_data();
}

static uint64_t kept[MAX_WORDS];

/* Called before the calls are made, and after. */
void memory_find_live(void)
{
	unsigned int i;

	for (i = 0; i < shared->nr_words; i++) {
		uint64_t now = *(volatile uint64_t *)shared->words[i].addr;

		if (now || now != kept[i])
			shared->words[i].live = true;
		kept[i] = now;
	}
}

const char *memory_describe(uintptr_t addr)
{
	static char text[2][80];
	static int turn;
	unsigned int i;

	turn = !turn;
	for (i = 0; i < shared->nr_areas; i++) {
		const struct area *area = &shared->areas[i];

		if (addr < area->start || addr >= area->end)
			continue;
		snprintf(text[turn], sizeof(text[turn]), "%s+%lu", area->name,
			 (long)(addr - area->start));
		return text[turn];
	}
	snprintf(text[turn], sizeof(text[turn]), "%#lx", (long)addr);
	return text[turn];
}
