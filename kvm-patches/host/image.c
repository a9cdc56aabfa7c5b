// SPDX-License-Identifier: MIT
/*
 * What is to be launched: a disk image, a bzImage or a kernel as an ELF file; whole, and for this machine.
 *
 * Of a raw image the guest writes all, its first sector too.  So that a header which it has put there is never
 * followed to other files of the host, an image is qcow2 only if its name, or the user, says so as well.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

#define SECTOR		512

/* arch/x86/boot/header.S; Documentation/x86/boot.rst */
#define BOOT_SECTORS	0x1f1
#define BOOT_SIZE	0x1f4	/* in 16 bytes */
#define BOOT_SIGNATURE	0x1fe
#define BOOT_MAGIC	0x202	/* "HdrS" */
#define BOOT_VERSION	0x206
#define BOOT_XLOADFLAGS	0x236
#define XLF_KERNEL_64	1

/* docs/interop/qcow2.txt of QEMU; all big-endian */
#define QCOW2_BACKING	8
#define QCOW2_FEATURES	72	/* from version 3 */
#define QCOW2_CORRUPT	(1 << 1)
#define QCOW2_DATA_FILE	(1 << 2)

/* How an ELF kernel says where QEMU is to enter it (PVH). */
#define XEN_ELFNOTE_PHYS32_ENTRY	18

static uint64_t get(const unsigned char *at, int bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | at[bytes];
	return value;
}

/* At most so much of it, from there on; what is not there reads as 0. */
static bool read_at(int fd, uint64_t offset, void *to, size_t size)
{
	ssize_t n = pread(fd, to, size, offset);

	if (n < (ssize_t)size)
		memset((char *)to + (n > 0 ? n : 0), 0, size - (n > 0 ? n : 0));
	return n == (ssize_t)size;
}

/* A file that can be read, open; else -1, and it has said why. */
static int open_image(const char *path, const char *what, uint64_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	off_t end;

	if (fd < 0) {
		fail(WRONG, "%s %s: %s", what, path, strerror(errno));
		return -1;
	}
	end = fstat(fd, &st) ? -1 : lseek(fd, 0, SEEK_END);
	if (end < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		fail(WRONG, "%s %s: %s", what, path, S_ISDIR(st.st_mode) ? "is a directory" : "is neither file nor disk");
	else if (!end)
		fail(WRONG, "%s %s: is empty", what, path);
	else
		goto is_one;
	close(fd);
	return -1;
is_one:
	*size = end;
	return fd;
}

int file_judge(const char *path, const char *what)
{
	uint64_t size;
	int fd = open_image(path, what, &size);

	if (fd < 0)
		return WRONG;
	close(fd);
	return DONE;
}

static int judge_bzimage(const char *path, const unsigned char *head, uint64_t size)
{
	unsigned int sectors = head[BOOT_SECTORS] ? head[BOOT_SECTORS] : 4;
	uint64_t whole = (sectors + 1) * SECTOR + get(head + BOOT_SIZE, 4) * 16;

	if (get(head + BOOT_VERSION, 2) < 0x20c || !(get(head + BOOT_XLOADFLAGS, 2) & XLF_KERNEL_64))
		return fail(WRONG, "%s: is a kernel for 32 bits", path);
	if (size < whole)
		return fail(WRONG, "%s: a kernel that is cut off: %lu bytes of %lu", path, size, whole);
	return DONE;
}

static bool notes_have_entry(int fd, const Elf64_Phdr *segment)
{
	unsigned char notes[4096];
	size_t size = segment->p_filesz < sizeof(notes) ? segment->p_filesz : sizeof(notes), at = 0;

	if (!read_at(fd, segment->p_offset, notes, size))
		return false;
	while (at + 16 <= size) {
		size_t name = get(notes + at, 4), text = get(notes + at + 4, 4);

		if (get(notes + at + 8, 4) == XEN_ELFNOTE_PHYS32_ENTRY && name == 4 && !memcmp(notes + at + 12, "Xen", 4))
			return true;
		if (name > size || text > size)
			return false;
		at += 12 + (name + 3) / 4 * 4 + (text + 3) / 4 * 4;
	}
	return false;
}

static int judge_elf(const char *path, int fd, uint64_t size)
{
	Elf64_Phdr segment;
	bool entry = false;
	Elf64_Ehdr head;
	int i;

	if (!read_at(fd, 0, &head, sizeof(head)))
		return fail(WRONG, "%s: an ELF file that is cut off", path);
	if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB || head.e_machine != EM_X86_64)
		return fail(WRONG, "%s: is for another machine than x86-64", path);
	if (head.e_phentsize != sizeof(segment) || (head.e_type != ET_EXEC && head.e_type != ET_DYN))
		return fail(WRONG, "%s: is an ELF file, but no program", path);
	for (i = 0; i < head.e_phnum; i++) {
		if (!read_at(fd, head.e_phoff + i * sizeof(segment), &segment, sizeof(segment)) ||
		    segment.p_offset > size || segment.p_filesz > size - segment.p_offset)
			return fail(WRONG, "%s: an ELF file that is cut off", path);
		entry |= segment.p_type == PT_NOTE && notes_have_entry(fd, &segment);
	}
	if (!entry)
		return fail(WRONG, "%s: is no kernel that QEMU can enter (CONFIG_PVH); take the bzImage", path);
	return DONE;
}

/* Do its partitions end within the image?  A GPT has a copy of itself in the last sector. */
static int judge_raw(const char *path, int fd, const unsigned char *head, uint64_t size)
{
	unsigned char gpt[SECTOR];
	uint64_t sectors = size / SECTOR, end;
	int i;

	if (get(head + BOOT_SIGNATURE, 2) != 0xaa55 && !memcmp(head, "QFI\xfb", 4))
		return fail(WRONG, "%s: is a qcow2 image, but not by its name; if it was one before it ran, say --format qcow2",
			    path);
	if (size % SECTOR)
		return fail(WRONG, "%s: is no disk image, or cut off: %lu bytes are no whole sectors", path, size);
	if (get(head + BOOT_SIGNATURE, 2) != 0xaa55)
		return fail(WRONG, "%s: is neither a kernel nor an image to boot from: no boot sector", path);
	if (read_at(fd, SECTOR, gpt, sizeof(gpt)) && !memcmp(gpt, "EFI PART", 8)) {
		end = get(gpt + 32, 8);
		if (end >= sectors)
			return fail(WRONG, "%s: a disk image that is cut off: %lu sectors, its GPT ends at %lu", path, sectors, end);
		return DONE;
	}
	/* A disk that is one filesystem has code there: of partitions the first byte is 0, or 0x80. */
	for (i = 0; i < 4; i++) {
		if (head[446 + i * 16] & 0x7f)
			return DONE;
	}
	for (i = 0; i < 4; i++) {
		const unsigned char *part = head + 446 + i * 16;

		end = get(part + 8, 4) + get(part + 12, 4);
		if (part[4] && end > sectors)
			return fail(WRONG, "%s: a disk image that is cut off: %lu sectors, partition %d ends at %lu", path,
				    sectors, i + 1, end);
	}
	return DONE;
}

const char *driver_of(const char *path)
{
	struct stat st;

	return stat(path, &st) || !S_ISBLK(st.st_mode) ? "file" : "host_device";
}

/* Run qemu-img on an image that may be hostile; its exit status, and the first line that it says. */
static int qemu_img(const char *command, const char *path, char *line, size_t size)
{
	/* OpenStack's bounds. */
	const struct rlimit memory = { 1 << 30, 1 << 30 }, seconds = { 30, 30 };
	ssize_t got, n = 0;
	int out[2], status = -1;
	char *options = NULL;
	pid_t pid;

	/* No part of the path is taken for a protocol. */
	if (asprintf(&options, "driver=qcow2,file.driver=%s,file.filename=%s", driver_of(path), doubled(path)) < 0)
		return -1;
	if (pipe2(out, O_CLOEXEC))
		return -1;
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		dup2(out[1], 2);
		setrlimit(RLIMIT_AS, &memory);
		setrlimit(RLIMIT_CPU, &seconds);
		execlp("qemu-img", "qemu-img", command, "--output=json", "--image-opts", options, (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	free(options);
	do {
		got = read(out[0], line + n, size - 1 - n);
		n += got > 0 ? got : 0;
	} while (pid > 0 && got > 0 && n < (ssize_t)size - 1);
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	/* The rest, so that it does not end for having nobody to tell. */
	while (pid > 0 && read(out[0], (char[512]){ }, 512) > 0)
		;
	close(out[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int judge_qcow2(const struct image *image, const unsigned char *head)
{
	unsigned int version = be32toh(get(head + 4, 4));
	uint64_t features = version > 2 ? be64toh(get(head + QCOW2_FEATURES, 8)) : 0;
	char said[256];
	int status;

	if (memcmp(head, "QFI\xfb", 4) || version < 2)
		return fail(WRONG, "%s: is no qcow2 image%s", image->path, image->format ? "" : ", as its name says");
	if (features & QCOW2_CORRUPT)
		return fail(WRONG, "%s: a qcow2 image that QEMU has marked as corrupt; qemu-img check -r all repairs some",
			    image->path);
	if (!image->backing && (get(head + QCOW2_BACKING, 8) || features & QCOW2_DATA_FILE))
		return fail(WRONG, "%s: a qcow2 image that has QEMU read another file; with --backing it may, if you know which "
			    "(qemu-img info)", image->path);
	status = qemu_img("info", image->path, said, sizeof(said));
	if (status == 127)
		return fail(LACKING, "no qemu-img is found, which judges images: apt-get install qemu-utils");
	if (status)
		return fail(WRONG, "%s: qemu-img says: %s", image->path, said);
	/* 2: damaged.  3: clusters that nobody uses, which does no harm.  Else it cannot tell, or the image is in use. */
	status = qemu_img("check", image->path, said, sizeof(said));
	if (status == 2)
		return fail(WRONG, "%s: a qcow2 image that is damaged or cut off: see qemu-img check", image->path);
	if (status && status != 3)
		return fail(WRONG, "%s: qemu-img check says: %s", image->path, *said ? said : "nothing, and was ended");
	return DONE;
}

static bool ends_in(const char *path, const char *end)
{
	size_t length = strlen(path), of_end = strlen(end);

	return length > of_end && !strcmp(path + length - of_end, end);
}

/* Formats and kernels that are taken for something else, or for nothing. */
static const char *not_for_us(const unsigned char *head)
{
	if (!memcmp(head + 0x38, "ARM\x64", 4))
		return "is a kernel for ARM";
	if (!memcmp(head + 0x30, "RISCV", 5) || !memcmp(head + 0x38, "RSC\x05", 4))
		return "is a kernel for RISC-V";
	if (!memcmp(head, "KDMV", 4) || !memcmp(head, "vhdxfile", 8) || !memcmp(head, "conectix", 8) ||
	    !memcmp(head + 0x40, "\x7f\x10\xda\xbe", 4))
		return "is an image of another hypervisor; qemu-img convert -O qcow2 makes one of it";
	if (!memcmp(head, "\x1f\x8b", 2) || !memcmp(head, "\xfd" "7zXZ", 5) || !memcmp(head, "\x28\xb5\x2f\xfd", 4) ||
	    !memcmp(head, "BZh", 3) || !memcmp(head, "PK\x03\x04", 4))
		return "is compressed; unpack it first";
	return NULL;
}

int image_judge(struct image *image)
{
	unsigned char head[1024];
	const char *is;
	uint64_t size;
	int fd = open_image(image->path, "image", &size), ret;

	if (fd < 0)
		return WRONG;
	read_at(fd, 0, head, sizeof(head));
	is = not_for_us(head);
	image->kind = DISK;
	if (!image->format && !memcmp(head + BOOT_MAGIC, "HdrS", 4)) {
		image->kind = BZIMAGE;
		ret = judge_bzimage(image->path, head, size);
	} else if (!image->format && !memcmp(head, ELFMAG, SELFMAG)) {
		image->kind = ELF;
		ret = judge_elf(image->path, fd, size);
	} else if (is) {
		ret = fail(WRONG, "%s: %s", image->path, is);
	} else if (image->format ? !strcmp(image->format, "qcow2") : ends_in(image->path, ".qcow2")) {
		ret = judge_qcow2(image, head);
		image->format = "qcow2";
	} else {
		ret = judge_raw(image->path, fd, head, size);
		image->format = "raw";
	}
	close(fd);
	return ret;
}
