// SPDX-License-Identifier: MIT
/* As much of ELF as epk-scan needs; no offset of a file is trusted. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scan.h"

#define PAGE	4096ul

static const void *part(const struct image *image, uint64_t offset, uint64_t size)
{
	if (offset > image->size || size > image->size - offset)
		return NULL;
	return image->data + offset;
}

static const char *check(const struct image *image)
{
	const Elf64_Ehdr *elf = part(image, 0, sizeof(*elf));

	if (!elf || memcmp(elf->e_ident, ELFMAG, SELFMAG))
		return "not an ELF file";
	if (elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_machine != EM_X86_64)
		return "not for x86-64";
	if (elf->e_phentsize != sizeof(Elf64_Phdr) ||
	    !part(image, elf->e_phoff, (uint64_t)elf->e_phnum * sizeof(Elf64_Phdr)))
		return "has no program headers";
	return NULL;
}

const char *image_open(struct image *image, const char *path)
{
	const char *wrong = NULL;
	struct stat st;
	void *data;
	int fd;

	*image = (struct image){ 0 };
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return strerror(errno);
	if (fstat(fd, &st)) {
		wrong = strerror(errno);
	} else if (!S_ISREG(st.st_mode) || !st.st_size) {
		wrong = "not an ELF file";
	} else {
		data = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (data == MAP_FAILED) {
			wrong = strerror(errno);
		} else {
			*image = (struct image){ data, st.st_size };
			wrong = check(image);
			if (wrong)
				image_close(image);
		}
	}
	close(fd);
	return wrong;
}

void image_close(struct image *image)
{
	if (image->data)
		munmap((void *)image->data, image->size);
	*image = (struct image){ 0 };
}

/*
 * What of @ph is mapped: whole pages, with what the file has before and behind it
 * there.
 */
static void map_segment(const struct image *image, const Elf64_Phdr *ph, struct segment *segment)
{
	uint64_t margin = ph->p_offset % PAGE, end;

	*segment = (struct segment){ .offset = ph->p_offset - margin,
				     .addr = ph->p_vaddr - margin };
	if (!part(image, ph->p_offset, ph->p_filesz) || !ph->p_filesz)
		return;
	end = (ph->p_offset + ph->p_filesz + PAGE - 1) / PAGE * PAGE;
	if (end > image->size)
		end = image->size;
	segment->data = image->data + segment->offset;
	segment->size = end - segment->offset;
}

/* The executable segment @nr, counted from 0. */
bool image_segment(const struct image *image, unsigned int nr, struct segment *segment)
{
	const Elf64_Ehdr *elf = (const void *)image->data;
	const Elf64_Phdr *ph = (const void *)(image->data + elf->e_phoff);
	unsigned int i;

	for (i = 0; i < elf->e_phnum; i++) {
		if (ph[i].p_type != PT_LOAD || !(ph[i].p_flags & PF_X) || nr--)
			continue;
		map_segment(image, &ph[i], segment);
		return true;
	}
	return false;
}

/* The function in the table @sh that @addr lies in. */
static const char *find_in(const struct image *image, const Elf64_Shdr *sh,
			   const Elf64_Shdr *strings, uint64_t addr, uint64_t *offset)
{
	const Elf64_Sym *syms = part(image, sh->sh_offset, sh->sh_size);
	const char *names = part(image, strings->sh_offset, strings->sh_size);
	uint64_t i;

	if (!syms || !names || !strings->sh_size || names[strings->sh_size - 1])
		return NULL;
	for (i = 0; i < sh->sh_size / sizeof(*syms); i++) {
		if (ELF64_ST_TYPE(syms[i].st_info) != STT_FUNC || addr < syms[i].st_value ||
		    addr - syms[i].st_value >= syms[i].st_size ||
		    syms[i].st_name >= strings->sh_size)
			continue;
		*offset = addr - syms[i].st_value;
		return names + syms[i].st_name;
	}
	return NULL;
}

/* The function that @addr lies in, or NULL if no table tells. */
const char *image_symbol(const struct image *image, uint64_t addr, uint64_t *offset)
{
	const Elf64_Ehdr *elf = (const void *)image->data;
	const Elf64_Shdr *sh = part(image, elf->e_shoff,
				    (uint64_t)elf->e_shnum * sizeof(*sh));
	const char *name = NULL;
	unsigned int i;

	if (!sh || elf->e_shentsize != sizeof(*sh))
		return NULL;
	for (i = 0; i < elf->e_shnum && !name; i++)
		if ((sh[i].sh_type == SHT_SYMTAB || sh[i].sh_type == SHT_DYNSYM) &&
		    sh[i].sh_link < elf->e_shnum)
			name = find_in(image, &sh[i], &sh[sh[i].sh_link], addr, offset);
	return name;
}
