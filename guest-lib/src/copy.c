// SPDX-License-Identifier: MIT
/*
 * Two copies of the library in a process, one linked to the program and one to a plugin, or in
 * two namespaces of dlmopen(3), would each take the keys that are left, and the second none.  They
 * share no symbol.  So a mapping says that there is one: of a file of that name, with nothing in it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "copy.h"
#include "state_page.h"

#define NAME	"libepk"
/* As a line of maps ends. */
#define LINE	"/memfd:" NAME " (deleted)\n"

static void *map_claim(void)
{
	int fd = memfd_create(NAME, MFD_CLOEXEC);
	void *claim;

	if (fd < 0)
		return MAP_FAILED;
	claim = mmap(NULL, EPK_PAGE_SIZE, PROT_NONE, MAP_PRIVATE, fd, 0);
	close(fd);
	return claim;
}

/* How many claims there are; 0 if that cannot be found out. */
static unsigned int count_claims(void)
{
	const size_t len = strlen(LINE);
	unsigned int nr = 0, matched = 0;
	char buffer[1024];
	ssize_t got, i;
	int fd;

	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	/* A slash begins LINE, and stands nowhere else in it. */
	while ((got = read(fd, buffer, sizeof(buffer))) > 0) {
		for (i = 0; i < got; i++) {
			if (buffer[i] != LINE[matched])
				matched = 0;
			if (buffer[i] == LINE[matched])
				matched++;
			if (matched == len) {
				nr++;
				matched = 0;
			}
		}
	}
	close(fd);
	return nr;
}

/* Of two that come at once, none may go on.  A child has none of its parent's. */
int epk_copy_claim(void **claim)
{
	int err;

	*claim = map_claim();
	if (*claim == MAP_FAILED)
		return -errno;
	err = madvise(*claim, EPK_PAGE_SIZE, MADV_DONTFORK) ? -errno : 0;
	if (!err && count_claims() > 1)
		err = epk_because(EPK_CAUSE_COPY);
	if (err)
		epk_copy_release(*claim);
	return err;
}

void epk_copy_release(void *claim)
{
	munmap(claim, EPK_PAGE_SIZE);
}
