// SPDX-License-Identifier: MIT
/* What lies at an address, as the kernel says.  Nothing is allocated: an allocator may be asking. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "pkeys.h"

static void parse(const char *line, struct vma *vma)
{
	char may[5] = "";
	const char *name;

	memset(vma, 0, sizeof(*vma));
	if (sscanf(line, "%lx-%lx %4s", &vma->start, &vma->end, may) != 3)
		return;
	vma->prot = (may[0] == 'r' ? PROT_READ : 0) | (may[1] == 'w' ? PROT_WRITE : 0) |
		    (may[2] == 'x' ? PROT_EXEC : 0);
	vma->shared = may[3] == 's';
	vma->file = strchr(line, '/');
	/* Names stand far to the right. */
	name = strstr(line, "  [");
	vma->special = name && strncmp(name + 2, "[heap]", 6) && strncmp(name + 2, "[anon", 5);
}

/* The mapping that has @addr, or the next one behind it. */
bool pkeys_vma_find(uintptr_t addr, struct vma *vma)
{
	long fd = pkeys_raw(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0, 0, 0);
	char buffer[2048], line[256];
	size_t used = 0;
	bool found = false;
	long got, n;

	if (fd < 0)
		return false;
	while (!found && (got = pkeys_raw(SYS_read, fd, (long)buffer, sizeof(buffer), 0, 0, 0)) > 0) {
		for (n = 0; n < got && !found; n++) {
			if (buffer[n] != '\n') {
				if (used < sizeof(line) - 1)
					line[used++] = buffer[n];
				continue;
			}
			line[used] = 0;
			used = 0;
			parse(line, vma);
			found = vma->end > addr;
		}
	}
	pkeys_raw(SYS_close, fd, 0, 0, 0, 0, 0);
	return found;
}
