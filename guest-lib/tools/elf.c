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

static bool begins_with(const struct image *image, const char *magic)
{
	return image->size >= strlen(magic) && !memcmp(image->data, magic, strlen(magic));
}

static const char *check_kind(const struct image *image)
{
	const Elf64_Ehdr *elf = part(image, 0, sizeof(*elf));

	if (begins_with(image, "!<arch>\n") || begins_with(image, "!<thin>\n"))
		return "an archive: scan what is linked with it";
	if (begins_with(image, "#!"))
		return "a script: scan what runs it";
	if (!begins_with(image, ELFMAG))
		return "not an ELF file";
	if (!elf)
		return "cut off in its header";
	if (elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_ident[EI_DATA] != ELFDATA2LSB ||
	    elf->e_machine != EM_X86_64)
		return "not for x86-64, or of its 32-bit kind";
	if (elf->e_type == ET_REL)
		return "an object file or a kernel module: scan what is linked with it";
	if (elf->e_type != ET_EXEC && elf->e_type != ET_DYN)
		return "neither a program nor a shared library";
	return NULL;
}

static const char *check_segment(const struct image *image, const Elf64_Phdr *ph)
{
	if (!part(image, ph->p_offset, ph->p_filesz))
		return "cut off: a segment lies outside of the file";
	if (ph->p_type == PT_LOAD &&
	    (ph->p_filesz > ph->p_memsz || (ph->p_offset - ph->p_vaddr) % PAGE))
		return "a segment cannot be mapped";
	return NULL;
}

static const char *check_segments(const struct image *image)
{
	const Elf64_Ehdr *elf = (const void *)image->data;
	const Elf64_Phdr *ph = part(image, elf->e_phoff, (uint64_t)elf->e_phnum * sizeof(*ph));
	const char *wrong = NULL;
	unsigned int i, loads = 0;

	if (!elf->e_phnum)
		return "has no segments";
	if (elf->e_phentsize != sizeof(*ph) || elf->e_phnum == PN_XNUM || elf->e_phoff % 8)
		return "has program headers of another form";
	if (!ph)
		return "cut off: its program headers lie outside of the file";
	for (i = 0; i < elf->e_phnum && !wrong; i++) {
		wrong = check_segment(image, &ph[i]);
		loads += ph[i].p_type == PT_LOAD;
	}
	return wrong || loads ? wrong : "has no segment that is loaded";
}

/* They may be missing; what there is has to be true, since a file that was cut off shows there. */
static const char *check_sections(const struct image *image)
{
	const Elf64_Ehdr *elf = (const void *)image->data;
	const Elf64_Shdr *sh = part(image, elf->e_shoff, (uint64_t)elf->e_shnum * sizeof(*sh));
	unsigned int i;

	if (!elf->e_shnum)
		return elf->e_shoff ? "has section headers of another form" : NULL;
	if (elf->e_shentsize != sizeof(*sh) || elf->e_shoff % 8)
		return "has section headers of another form";
	if (!sh)
		return "cut off: its section headers lie outside of the file";
	for (i = 0; i < elf->e_shnum; i++)
		if (sh[i].sh_type != SHT_NULL && sh[i].sh_type != SHT_NOBITS &&
		    !part(image, sh[i].sh_offset, sh[i].sh_size))
			return "cut off: a section lies outside of the file";
	return NULL;
}

static const char *check(const struct image *image)
{
	const char *wrong = check_kind(image);

	if (!wrong)
		wrong = check_segments(image);
	return wrong ? wrong : check_sections(image);
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
		wrong = S_ISREG(st.st_mode) ? "empty" : "no regular file";
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
	if (!ph->p_filesz)
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

/* In the table @sh. */
static struct symbol find_in(const struct image *image, const Elf64_Shdr *sh,
			     const Elf64_Shdr *strings, uint64_t addr)
{
	const Elf64_Sym *syms = part(image, sh->sh_offset, sh->sh_size);
	const char *names = part(image, strings->sh_offset, strings->sh_size);
	uint64_t i;

	if (!syms || !names || !strings->sh_size || names[strings->sh_size - 1])
		return (struct symbol){ NULL, 0 };
	for (i = 0; i < sh->sh_size / sizeof(*syms); i++) {
		if (ELF64_ST_TYPE(syms[i].st_info) != STT_FUNC || addr < syms[i].st_value ||
		    addr - syms[i].st_value >= syms[i].st_size ||
		    syms[i].st_name >= strings->sh_size)
			continue;
		return (struct symbol){ names + syms[i].st_name, addr - syms[i].st_value };
	}
	return (struct symbol){ NULL, 0 };
}

struct symbol image_symbol(const struct image *image, uint64_t addr)
{
	const Elf64_Ehdr *elf = (const void *)image->data;
	const Elf64_Shdr *sh = (const void *)(image->data + elf->e_shoff);
	struct symbol symbol = { NULL, 0 };
	unsigned int i;

	for (i = 0; i < elf->e_shnum && !symbol.name; i++)
		if ((sh[i].sh_type == SHT_SYMTAB || sh[i].sh_type == SHT_DYNSYM) &&
		    sh[i].sh_link < elf->e_shnum)
			symbol = find_in(image, &sh[i], &sh[sh[i].sh_link], addr);
	return symbol;
}
