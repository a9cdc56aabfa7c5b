/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The map count of a page of a file, as mm/rmap.c keeps it for one PTE.  It exports
 * nothing of it.
 */
#ifndef EPK_MAP_COUNT_H
#define EPK_MAP_COUNT_H

#include <linux/mm.h>
#include <linux/vmstat.h>

#ifdef EPK_HAVE_LARGE_MAPCOUNT

/* mm/internal.h: from here on the count means that a folio is mapped as a whole. */
#define ENTIRELY_MAPPED		0x800000

static inline void page_map_count_inc(struct page *page)
{
	struct folio *folio = page_folio(page);
	bool first = atomic_inc_and_test(&page->_mapcount);

	if (folio_test_large(folio)) {
		if (first)
			first = atomic_inc_return(&folio->_nr_pages_mapped) < ENTIRELY_MAPPED;
		atomic_inc(&folio->_large_mapcount);
	}
	if (first)
		mod_lruvec_page_state(page, NR_FILE_MAPPED, 1);
}

static inline void page_map_count_dec(struct page *page)
{
	struct folio *folio = page_folio(page);
	bool last;

	if (folio_test_large(folio))
		atomic_dec(&folio->_large_mapcount);
	last = atomic_add_negative(-1, &page->_mapcount);
	if (last && folio_test_large(folio))
		last = atomic_dec_return(&folio->_nr_pages_mapped) < ENTIRELY_MAPPED;
	if (last)
		mod_lruvec_page_state(page, NR_FILE_MAPPED, -1);
}

#else

static inline void page_map_count_inc(struct page *page)
{
	if (atomic_inc_and_test(&page->_mapcount))
		mod_lruvec_page_state(page, NR_FILE_MAPPED, 1);
}

static inline void page_map_count_dec(struct page *page)
{
	if (atomic_add_negative(-1, &page->_mapcount))
		mod_lruvec_page_state(page, NR_FILE_MAPPED, -1);
}

#endif

#endif /* EPK_MAP_COUNT_H */
