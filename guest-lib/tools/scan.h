/* SPDX-License-Identifier: MIT */
#ifndef EPK_SCAN_H
#define EPK_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct image - an ELF file that is mapped for reading
 * @data: the file
 * @size: bytes
 */
struct image {
	const uint8_t *data;
	size_t size;
};

/**
 * struct segment - an executable part of an ELF file, in whole pages
 * @data: its bytes
 * @size: how many
 * @offset: where they are in the file
 * @addr: where they go, before relocation
 */
struct segment {
	const uint8_t *data;
	size_t size;
	uint64_t offset;
	uint64_t addr;
};

/**
 * struct symbol - where an address lies
 * @name: the function, or NULL if no table tells
 * @offset: of the address in it
 */
struct symbol {
	const char *name;
	uint64_t offset;
};

/* elf.c.  NULL or an explanation. */
const char *image_open(struct image *image, const char *path);
void image_close(struct image *image);
bool image_segment(const struct image *image, unsigned int nr, struct segment *segment);
struct symbol image_symbol(const struct image *image, uint64_t addr);

#endif /* EPK_SCAN_H */
