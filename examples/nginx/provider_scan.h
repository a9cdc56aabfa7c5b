/* SPDX-License-Identifier: MIT */
/*
 * Looks for secrets in the memory of another process, as an attacker would who knows them
 * all and reads whatever that process may read with no domain held.
 */
#ifndef PROVIDER_SCAN_H
#define PROVIDER_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

#define NEEDLES_MAX	256
#define NEEDLE_MAX	64
#define NAME_MAX_LEN	64
#define PIECE_LEN	12

/**
 * struct needle - a secret that is looked for
 * @found: where it has been so far
 * @allowed: it is there on purpose
 */
struct needle {
	char name[NAME_MAX_LEN];
	uint8_t bytes[NEEDLE_MAX];
	size_t len;
	unsigned int found;
	bool allowed;
};

static struct needle needles[NEEDLES_MAX];
static size_t nr_needles;

static inline void add_needle(const char *name, const uint8_t *bytes, size_t len, bool allowed)
{
	struct needle *n = &needles[nr_needles];
	size_t i;

	for (i = 0; i < nr_needles; i++)
		if (needles[i].len == len && !memcmp(needles[i].bytes, bytes, len))
			return;
	/* IVs of TLS 1.2 have four bytes, which are everywhere. */
	if (len < PIECE_LEN && allowed)
		return;
	if (len < PIECE_LEN || len > NEEDLE_MAX || nr_needles == NEEDLES_MAX) {
		fprintf(stderr, "%s of %zu bytes cannot be looked for\n", name, len);
		abort();
	}
	snprintf(n->name, sizeof(n->name), "%s", name);
	memcpy(n->bytes, bytes, len);
	n->len = len;
	n->found = 0;
	n->allowed = allowed;
	nr_needles++;
}

/* ---- pieces of them, in the forms that code gives them */

#define PIECES_MAX	(NEEDLES_MAX * 24)

struct piece {
	uint8_t bytes[PIECE_LEN];
	struct needle *needle;
	int next;
};

static struct piece pieces[PIECES_MAX];
static int nr_pieces, first_piece[65536];

static inline unsigned int hash_of(const uint8_t *bytes)
{
	uint32_t word;

	memcpy(&word, bytes, sizeof(word));
	return (word * 2654435761u) >> 16;
}

static inline void add_piece(struct needle *n, const uint8_t *bytes)
{
	struct piece *p = &pieces[nr_pieces];
	unsigned int hash = hash_of(bytes);

	if (nr_pieces == PIECES_MAX)
		abort();
	memcpy(p->bytes, bytes, PIECE_LEN);
	p->needle = n;
	p->next = first_piece[hash];
	first_piece[hash] = nr_pieces++;
}

static inline void add_form(struct needle *n, const uint8_t *bytes)
{
	/* Not the first byte nor the last: some of x25519's are changed. */
	add_piece(n, bytes + (n->len > PIECE_LEN));
	if (n->len >= PIECE_LEN + 4)
		add_piece(n, bytes + n->len - PIECE_LEN - 3);
}

/* As it is, backwards (a number), or by words (a hash's state), with what HMAC mixes in. */
static inline void add_forms(struct needle *n)
{
	static const uint8_t swaps[] = { 0, 3, 7, 0xff }, mixed[] = { 0, 0x36, 0x5c };
	uint8_t form[NEEDLE_MAX];
	size_t i, s, m, from;

	for (s = 0; s < sizeof(swaps); s++) {
		if ((swaps[s] == 3 || swaps[s] == 7) && n->len % 8)
			continue;
		for (m = 0; m < sizeof(mixed); m++) {
			for (i = 0; i < n->len; i++) {
				from = swaps[s] == 0xff ? n->len - 1 - i : i ^ swaps[s];
				form[i] = n->bytes[from] ^ mixed[m];
			}
			add_form(n, form);
		}
	}
}

static inline void cut_needles(void)
{
	size_t i;

	nr_pieces = 0;
	memset(first_piece, 0xff, sizeof(first_piece));
	for (i = 0; i < nr_needles; i++)
		add_forms(&needles[i]);
}

static inline void scan_bytes(const uint8_t *bytes, size_t len)
{
	size_t at;
	int i;

	for (at = 0; at + PIECE_LEN <= len; at++)
		for (i = first_piece[hash_of(bytes + at)]; i >= 0; i = pieces[i].next)
			if (!memcmp(pieces[i].bytes, bytes + at, PIECE_LEN))
				pieces[i].needle->found++;
}

/* ---- where */

struct range {
	uintptr_t start, end;
};

/* What of a process is no domain's; its bytes, as they were. */
struct image {
	struct part {
		struct range range;
		uint8_t *bytes;
		size_t len;
	} parts[4096];
	size_t nr;
	size_t missed;
};

/* Of what is @shared, others may have written pages that the process itself has not touched. */
typedef void part_fn(void *arg, pid_t pid, uintptr_t start, uintptr_t end, bool shared);

/* Without what lies in @domains, which are sorted. */
static inline void go_around(pid_t pid, uintptr_t start, uintptr_t end, bool shared,
			     const struct range *domains, size_t nr_domains, part_fn *fn, void *arg)
{
	size_t i;

	for (i = 0; i < nr_domains; i++) {
		if (domains[i].end <= start || domains[i].start >= end)
			continue;
		if (start < domains[i].start)
			fn(arg, pid, start, domains[i].start, shared);
		start = domains[i].end;
	}
	if (start < end)
		fn(arg, pid, start, end, shared);
}

/* All that the process may read, and that is not a file's as it is. */
static inline bool for_each_part(pid_t pid, const struct range *domains, size_t nr_domains,
				 part_fn *fn, void *arg)
{
	char path[64], line[512], prot[5], name[256];
	unsigned long start, end;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "r");
	if (!maps)
		return false;
	while (fgets(line, sizeof(line), maps)) {
		name[0] = 0;
		if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %255s", &start, &end, prot, name) < 3)
			continue;
		/* What nobody could have written to is the file. */
		if (prot[0] == 'r' && strncmp(name, "[v", 2) && (prot[1] == 'w' || *name != '/'))
			go_around(pid, start, end, prot[3] == 's', domains, nr_domains, fn, arg);
	}
	fclose(maps);
	return true;
}

static inline void take_part(void *arg, pid_t pid, uintptr_t start, uintptr_t end, bool shared)
{
	struct image *img = arg;
	struct part *p = &img->parts[img->nr];
	struct iovec to, from = { (void *)start, end - start };
	ssize_t got;

	(void)shared;
	img->missed += end - start;
	if (img->nr == sizeof(img->parts) / sizeof(img->parts[0]))
		return;
	p->bytes = malloc(end - start);
	to = (struct iovec){ p->bytes, end - start };
	got = p->bytes ? process_vm_readv(pid, &to, 1, &from, 1, 0) : -1;
	if (got <= 0) {
		free(p->bytes);
		return;
	}
	p->range = (struct range){ start, start + got };
	p->len = got;
	img->missed -= got;
	img->nr++;
}

static inline bool take_image(struct image *img, pid_t pid, const struct range *domains,
			      size_t nr_domains)
{
	img->nr = img->missed = 0;
	if (!for_each_part(pid, domains, nr_domains, take_part, img))
		return false;
	if (img->missed)
		fprintf(stderr, "%zu bytes could not be read\n", img->missed);
	return img->nr && !img->missed;
}

static inline void drop_image(struct image *img)
{
	while (img->nr)
		free(img->parts[--img->nr].bytes);
}

static inline size_t scan_image(const struct image *img)
{
	size_t i, len = 0;

	cut_needles();
	for (i = 0; i < nr_needles; i++)
		needles[i].found = 0;
	for (i = 0; i < img->nr; i++) {
		scan_bytes(img->parts[i].bytes, img->parts[i].len);
		len += img->parts[i].len;
	}
	return len;
}

#endif /* PROVIDER_SCAN_H */
