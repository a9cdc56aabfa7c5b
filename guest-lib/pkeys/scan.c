// SPDX-License-Identifier: MIT
/*
 * A program that sets PKRU by its own instructions has the CPU's keys in mind, and could open any domain.
 * It is not run.  The C library's WRPKRU is that of calls that are not called here.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../src/sequence.h"
#include "pkeys.h"

/* Whose own are known. */
static const char *const known[] = { "libc.so.", "ld-linux", "libepk.so.", "libepk-pkeys.so" };

static bool is_known(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t n;

	for (n = 0; n < sizeof(known) / sizeof(known[0]); n++)
		if (!strncmp(name, known[n], strlen(known[n])))
			return true;
	return false;
}

/* Of the segment, in whole pages; where it is, or NULL. */
static const uint8_t *find_in(const uint8_t *start, const uint8_t *end, const char **what)
{
	static const uint8_t firsts[] = { EPK_ESCAPE, EPK_REX2 };
	const uint8_t *at;
	size_t n;

	for (n = 0; n < sizeof(firsts); n++) {
		for (at = start; (at = epk_sequence_find(at, end, firsts[n])); at++) {
			*what = epk_sequence_at(at, end - at);
			/* XRSTOR stands in ordinary code by chance. */
			if (strcmp(*what, "xrstor"))
				return at;
		}
	}
	return NULL;
}

/* 1: something was found, and told. */
static int scan(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *name = info->dlpi_name[0] ? info->dlpi_name : "the program", *what = NULL;
	const uint8_t *at;
	int n;

	(void)size;
	(void)arg;
	for (n = 0; n < info->dlpi_phnum && !is_known(name); n++) {
		const ElfW(Phdr) *header = info->dlpi_phdr + n;
		uintptr_t start = info->dlpi_addr + header->p_vaddr;

		if (header->p_type != PT_LOAD || (header->p_flags & (PF_X | PF_R)) != (PF_X | PF_R))
			continue;
		at = find_in((const uint8_t *)(start & -PAGE),
			     (const uint8_t *)page_up(start + header->p_memsz), &what);
		if (!at)
			continue;
		pkeys_say("%s has a %s of its own, at %#lx as it is linked: its keys cannot be had so; "
			  "EPK_PKEYS_SCAN=no lets it run", name, what, (uintptr_t)at - info->dlpi_addr);
		return 1;
	}
	return 0;
}

void pkeys_scan(void)
{
	const char *wanted = secure_getenv("EPK_PKEYS_SCAN");

	if (wanted && !strcmp(wanted, "no"))
		return;
	if (dl_iterate_phdr(scan, NULL))
		_exit(126);
}
