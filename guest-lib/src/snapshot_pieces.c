// SPDX-License-Identifier: MIT
/*
 * What memory a domain has.  Not by malloc(): a function that has faulted in it is rolled back, too, and its lock is
 * held still.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "aside.h"
#include "registry.h"
#include "snapshot.h"

#define PROT_RW		(PROT_READ | PROT_WRITE)

/* By address (Shell, A high-speed sorting procedure, 1959). */
static void sort(struct epk_piece *list, size_t nr)
{
	struct epk_piece piece;
	size_t gap, i, at;

	for (gap = nr / 2; gap; gap /= 2) {
		for (i = gap; i < nr; i++) {
			piece = list[i];
			for (at = i; at >= gap && list[at - gap].start > piece.start; at -= gap)
				list[at] = list[at - gap];
			list[at] = piece;
		}
	}
}

/* Those that touch and are alike become one. */
static void join(struct epk_pieces *pieces)
{
	struct epk_piece *list = pieces->list;
	size_t i, nr = 0;

	for (i = 0; i < pieces->nr; i++) {
		if (nr && list[nr - 1].end == list[i].start && list[nr - 1].kept == list[i].kept)
			list[nr - 1].end = list[i].end;
		else
			list[nr++] = list[i];
	}
	pieces->nr = nr;
	for (i = 0; i < nr; i++)
		if (list[i].kept)
			pieces->pages += (list[i].end - list[i].start) / EPK_PAGE_SIZE;
}

static int list_locked(int dom, struct epk_pieces *pieces)
{
	const struct epk_mapping *map, *first;
	struct epk_entry entry;
	size_t nr = 0;
	int err = epk_lookup(dom, &entry);

	if (err)
		return err;
	first = epk_registry_at(EPK_ID_INDEX(dom))->mappings;
	for (map = first; map; map = map->next, nr++)
		if (map->fd >= 0)
			return epk_because(EPK_CAUSE_SNAPSHOT_FILE);
	pieces->room = ((nr + 1) * sizeof(*pieces->list) + EPK_PAGE_SIZE - 1) & -EPK_PAGE_SIZE;
	pieces->list = mmap(NULL, pieces->room, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pieces->list == MAP_FAILED)
		return -ENOMEM;
	for (map = first; map && pieces->nr < nr; map = map->next)
		pieces->list[pieces->nr++] =
			(struct epk_piece){ map->start, map->end, map->prot == PROT_RW };
	return 0;
}

int epk_pieces_of(int dom, struct epk_pieces *pieces)
{
	struct epk_aside aside;
	int err;

	*pieces = (struct epk_pieces){ .list = MAP_FAILED };
	err = epk_notes_lock(&aside);
	if (err)
		return err;
	err = list_locked(dom, pieces);
	epk_notes_unlock(&aside);
	if (err)
		return err;
	sort(pieces->list, pieces->nr);
	join(pieces);
	return 0;
}

void epk_pieces_free(struct epk_pieces *pieces)
{
	if (pieces->list != MAP_FAILED)
		munmap(pieces->list, pieces->room);
}

/* What is in the copy is the domain's still, and can be written. */
bool epk_pieces_have(const struct epk_pieces *now, const struct epk_kept *kept)
{
	const struct epk_piece *piece = kept->pieces, *last = piece + kept->nr;
	size_t i = 0;

	for (; piece < last; piece++) {
		if (!piece->kept)
			continue;
		while (i < now->nr && now->list[i].end <= piece->start)
			i++;
		if (i == now->nr || !now->list[i].kept || now->list[i].start > piece->start ||
		    now->list[i].end < piece->end)
			return false;
	}
	return true;
}

bool epk_pieces_equal(const struct epk_pieces *now, const struct epk_kept *kept)
{
	size_t i;

	if (now->nr != kept->nr)
		return false;
	for (i = 0; i < now->nr; i++)
		if (now->list[i].start != kept->pieces[i].start || now->list[i].end != kept->pieces[i].end ||
		    now->list[i].kept != kept->pieces[i].kept)
			return false;
	return true;
}

/* Of a piece what lies in no piece of then.  What cannot go stays until the next time: nothing refers to it. */
void epk_pieces_unmap_new(const struct epk_pieces *now, const struct epk_kept *kept)
{
	uintptr_t at, end;
	size_t i, old = 0;

	for (i = 0; i < now->nr; i++) {
		for (at = now->list[i].start; at < now->list[i].end; at = end) {
			while (old < kept->nr && kept->pieces[old].end <= at)
				old++;
			end = now->list[i].end;
			if (old == kept->nr || kept->pieces[old].start >= end) {
				domain_munmap((void *)at, end - at);
			} else if (kept->pieces[old].start > at) {
				end = kept->pieces[old].start;
				domain_munmap((void *)at, end - at);
			} else if (kept->pieces[old].end < end) {
				end = kept->pieces[old].end;
			}
		}
	}
}
