// SPDX-License-Identifier: MIT
/*
 * epk-scan: find the byte sequences of WRPKRU, XRSTOR and VMFUNC where they can be
 * executed, at whatever offset: a jump into the middle of an instruction executes
 * them as well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scan.h"
#include "../src/sequence.h"

static bool quiet;
static unsigned long found;
static const char *allowed[64];
static unsigned int nr_allowed;

static bool is_allowed(const char *symbol)
{
	unsigned int i;

	for (i = 0; i < nr_allowed && symbol; i++)
		if (!strcmp(symbol, allowed[i]))
			return true;
	return false;
}

/* @image may be NULL.  @link_addr: where @image has what is at @addr. */
static void report(const char *what, const char *file, uint64_t addr, const struct image *image,
		   uint64_t link_addr)
{
	struct symbol symbol = { NULL, 0 };

	if (image)
		symbol = image_symbol(image, link_addr);
	if (is_allowed(symbol.name))
		return;
	found++;
	if (quiet)
		return;
	printf("%s: %s at %#" PRIx64, file, what, addr);
	if (symbol.name)
		printf(" (%s+%#" PRIx64 ")", symbol.name, symbol.offset);
	putchar('\n');
}

static bool scan_file(const char *path)
{
	struct segment segment;
	struct image image;
	const char *wrong = image_open(&image, path), *what;
	unsigned int nr;
	size_t i;

	if (wrong) {
		fprintf(stderr, "epk-scan: %s: %s\n", path, wrong);
		return false;
	}
	for (nr = 0; image_segment(&image, nr, &segment); nr++) {
		for (i = 0; i < segment.size; i++) {
			what = epk_sequence_at(segment.data + i, segment.size - i);
			if (what)
				report(what, path, segment.addr + i, &image, segment.addr + i);
		}
	}
	image_close(&image);
	return true;
}

/**
 * struct mapping - a line of /proc/PID/maps
 * @start: first byte
 * @end: one past the last
 * @offset: of @start in the file
 * @name: the file, or what the kernel calls it, or empty
 */
struct mapping {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	char name[4096];
};

/* Where the file has, before relocation, what it has at @offset. */
static uint64_t link_address(const struct image *image, uint64_t offset)
{
	struct segment segment;
	unsigned int nr;

	for (nr = 0; image_segment(image, nr, &segment); nr++)
		if (offset >= segment.offset && offset - segment.offset < segment.size)
			return segment.addr + (offset - segment.offset);
	return 0;
}

/*
 * Scans what is mapped at @map.  @tail holds the last bytes before it, *@nr_tail of
 * them, since a sequence can begin in one mapping and end in the next.
 */
static bool scan_mapping(int mem, const struct mapping *map, uint8_t *tail, size_t *nr_tail)
{
	size_t size = map->end - map->start, keep = *nr_tail, i;
	uint8_t *bytes = malloc(keep + size);
	struct image image = { 0 };
	const char *what;
	bool has_image;
	ssize_t got;

	if (!bytes)
		return false;
	memcpy(bytes, tail, keep);
	got = pread(mem, bytes + keep, size, map->start);
	if (got != (ssize_t)size) {
		fprintf(stderr, "epk-scan: %#" PRIx64 " %s: %s\n", map->start, map->name,
			got < 0 ? strerror(errno) : "changed while it was read");
		free(bytes);
		return false;
	}
	has_image = map->name[0] == '/' && !image_open(&image, map->name);
	for (i = 0; i < keep + size; i++) {
		what = epk_sequence_at(bytes + i, keep + size - i);
		/* What is whole in what was before is told already. */
		if (what && !(i < keep && epk_sequence_at(bytes + i, keep - i)))
			report(what, map->name[0] ? map->name : "[anonymous]",
			       map->start - keep + i, has_image ? &image : NULL,
			       has_image && i >= keep ?
			       link_address(&image, map->offset + i - keep) : 0);
	}
	image_close(&image);
	*nr_tail = keep + size < EPK_SEQUENCE_BYTES - 1 ? keep + size : EPK_SEQUENCE_BYTES - 1;
	memcpy(tail, bytes + keep + size - *nr_tail, *nr_tail);
	free(bytes);
	return true;
}

static bool scan_maps(FILE *maps, int mem)
{
	uint8_t tail[EPK_SEQUENCE_BYTES - 1];
	uint64_t last_end = 0;
	struct mapping map;
	size_t nr_tail = 0;
	char line[8192], perms[5];
	bool ok = true;

	while (fgets(line, sizeof(line), maps)) {
		map.name[0] = 0;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %*s %4095[^\n]",
			   &map.start, &map.end, perms, &map.offset, map.name) < 4)
			continue;
		/* The vsyscall page is the kernel's, and unreadable. */
		if (perms[2] != 'x' || !strcmp(map.name, "[vsyscall]"))
			continue;
		if (map.start != last_end)
			nr_tail = 0;
		ok = scan_mapping(mem, &map, tail, &nr_tail) && ok;
		last_end = map.end;
	}
	return ok;
}

static bool scan_process(const char *pid)
{
	char path[64];
	FILE *maps;
	bool ok;
	int mem;

	snprintf(path, sizeof(path), "/proc/%s/maps", pid);
	maps = fopen(path, "re");
	snprintf(path, sizeof(path), "/proc/%s/mem", pid);
	mem = maps ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (!maps || mem < 0) {
		fprintf(stderr, "epk-scan: process %s: %s\n", pid, strerror(errno));
		if (maps)
			fclose(maps);
		return false;
	}
	ok = scan_maps(maps, mem);
	close(mem);
	fclose(maps);
	return ok;
}

static void usage(FILE *to)
{
	fprintf(to, "usage: epk-scan [-q] [-a SYMBOL]... FILE...\n"
		    "       epk-scan [-q] [-a SYMBOL]... -p PID\n"
		    "Find the bytes of WRPKRU, XRSTOR and VMFUNC where they can be executed.\n"
		    "  -a SYMBOL   what stands in this function is no finding\n"
		    "  -h, --help  show this\n"
		    "  -p PID      the executable memory of a process\n"
		    "  -q          say nothing; the exit status tells\n"
		    "Exit status: 0 nothing found, 1 something, 2 not all could be scanned.\n");
}

static int complain(const char *what, const char *argument)
{
	fprintf(stderr, "epk-scan: %s: %s\n", argument, what);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option help[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	const char *pid = NULL;
	bool ok = true;
	int opt;

	while ((opt = getopt_long(argc, argv, "a:hp:q", help, NULL)) != -1) {
		if (opt == 'a') {
			if (nr_allowed == sizeof(allowed) / sizeof(allowed[0]))
				return complain("too many of -a", optarg);
			allowed[nr_allowed++] = optarg;
		} else if (opt == 'p') {
			if (!*optarg || strspn(optarg, "0123456789") != strlen(optarg))
				return complain("not the number of a process", optarg);
			pid = optarg;
		} else if (opt == 'q') {
			quiet = true;
		} else {
			usage(opt == 'h' ? stdout : stderr);
			return opt == 'h' ? 0 : 2;
		}
	}
	if (!pid == (optind == argc)) {
		usage(stderr);
		return 2;
	}
	if (pid)
		ok = scan_process(pid);
	for (; optind < argc; optind++)
		ok = scan_file(argv[optind]) && ok;
	if (fflush(stdout) || ferror(stdout))
		ok = false;
	if (!ok)
		return 2;
	return found > 0;
}
