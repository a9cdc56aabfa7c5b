// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>

#include "state_page.h"
#include "tls.h"

/* Larger ones are allocated elsewhere, when they are first used. */
#define TLS_MOST	(1ul << 20)
/* What lies so low is there in each thread. */
#define TLS_ALIGN	64ul

static int find_lowest(struct dl_phdr_info *info, size_t size, void *lowest)
{
	uintptr_t at = (uintptr_t)info->dlpi_tls_data, *low = lowest;

	if (size >= offsetof(struct dl_phdr_info, dlpi_tls_data) + sizeof(at) &&
	    at < *low && epk_fs_base() - at < TLS_MOST)
		*low = at;
	return 0;
}

/* Of all that is loaded by now. */
uint32_t epk_tls_below(void)
{
	uintptr_t lowest = (uintptr_t)&epk_word;

	dl_iterate_phdr(find_lowest, &lowest);
	return epk_fs_base() - (lowest & -TLS_ALIGN);
}
