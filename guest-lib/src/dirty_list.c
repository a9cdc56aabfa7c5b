// SPDX-License-Identifier: MIT
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dirty.h"
#include "state_page.h"

struct epk_dirty *epk_dirty_list;
unsigned long epk_dirty_forks;

/* Pages of the range from @start to @end are to be told. */
void epk_dirty_note(struct epk_dirty *dirty, uintptr_t start, uintptr_t end)
{
	size_t page, last;

	start = start > dirty->start ? start : dirty->start;
	end = end < dirty->end ? end : dirty->end;
	if (start >= end)
		return;
	last = (end - dirty->start) / EPK_PAGE_SIZE;
	for (page = (start - dirty->start) / EPK_PAGE_SIZE; page < last; page++) {
		if (page % 64 == 0 && last - page >= 64) {
			dirty->pages[page / 64] = ~0ull;
			page += 63;
		} else {
			dirty->pages[page / 64] |= 1ull << page % 64;
		}
	}
}

bool epk_dirty_has_fd(const struct epk_dirty *dirty)
{
	struct stat file;

	return dirty->fd >= 0 && !fstat(dirty->fd, &file) && file.st_dev == dirty->dev && file.st_ino == dirty->ino;
}

void epk_dirty_own(struct epk_dirty *dirty)
{
	dirty->own = true;
}

/*
 * The child's copies of their descriptors watch, and can write, the parent's memory.  They stay in the list, where
 * @forks says whose they are, until epk_dirty_stop() gives their memory back.
 */
void epk_dirty_forget(void)
{
	struct epk_dirty **link = &epk_dirty_list, *dirty;

	epk_dirty_forks++;
	while ((dirty = *link)) {
		if (epk_dirty_has_fd(dirty))
			syscall(SYS_close, dirty->fd);
		dirty->fd = -1;
		if (dirty->own) {
			*link = dirty->next;
			munmap(dirty, dirty->bytes);
		} else {
			link = &dirty->next;
		}
	}
}
