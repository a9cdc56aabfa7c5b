// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "stack.h"
#include "state.h"

#define GUARD_BYTES	(64ul * 1024)
/* So much is wiped by stores; what is below goes back to the system. */
#define SHALLOW		4096ul

/* call_stack.S */
void epk_wipe(void *low, void *high);

/* Where the address sanitizer is: what frames have left behind is no mistake of the next. */
void __asan_unpoison_memory_region(const volatile void *start, size_t bytes) __attribute__((weak));

static char *map(int flags)
{
	char *low = mmap(NULL, GUARD_BYTES + EPK_STACK_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	return low == MAP_FAILED ? NULL : low;
}

/*
 * Its lowest byte, or NULL.  Below 2 GiB where there is room: libc tells by addresses which frames
 * a longjmp() leaves, and takes it for an error to go to a lower stack.
 */
char *epk_stack_map(void)
{
	char *low = map(MAP_32BIT);

	if (!low)
		low = map(0);
	if (!low)
		return NULL;
	if (mprotect(low, GUARD_BYTES, PROT_NONE)) {
		munmap(low, GUARD_BYTES + EPK_STACK_BYTES);
		return NULL;
	}
	return low + GUARD_BYTES;
}

void epk_stack_unmap(char *low)
{
	munmap(low - GUARD_BYTES, GUARD_BYTES + EPK_STACK_BYTES);
}

/* Nothing stays of what was on it below @top, a multiple of 256. */
void epk_stack_wipe(char *low, char *top)
{
	char *shallow = (char *)((uintptr_t)(top - SHALLOW) & ~(EPK_PAGE_SIZE - 1));

	if (shallow < low)
		shallow = low;
	if (__asan_unpoison_memory_region)
		__asan_unpoison_memory_region(low, top - low);
	epk_wipe(shallow, top);
	if (shallow > low)
		madvise(low, shallow - low, MADV_DONTNEED);
}
