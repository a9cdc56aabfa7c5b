// SPDX-License-Identifier: MIT
/*
 * Preloaded into Bochs 2.7: what it says of the PKRU state.  It leaves sub-leaf 9 of CPUID leaf
 * 0DH empty and counts 64 bytes for it, so that Linux gives up XSAVE and protection keys.
 * PKRU has 8 bytes at 2688.  A kernel that is not built here cannot be told otherwise.
 *
 * And how many cores share a cache, leaf 4: more than there are processors by leaf 1, of which
 * Linux 6.12 warns.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define VTABLE_ENTRIES 16
#define PKRU (1U << 9)
#define PKRU_OFFSET 2688U
#define PKRU_SIZE 8U

struct leaf {
	uint32_t eax, ebx, ecx, edx;
};

typedef void leaf_function(const void *cpuid, uint32_t leaf, uint32_t subleaf, struct leaf *out);
static leaf_function *bochs_leaf;

static void correct_cores(const void *cpuid, struct leaf *cache)
{
	uint32_t processors;
	struct leaf one;

	bochs_leaf(cpuid, 1, 0, &one);
	processors = one.ebx >> 16 & 0xff;
	/* The last sub-leaf is of no type of cache. */
	if (cache->eax & 0x1f && processors)
		cache->eax = (cache->eax & 0x03ffffff) | (processors - 1) << 26;
}

static void corrected_leaf(const void *cpuid, uint32_t leaf, uint32_t subleaf, struct leaf *out)
{
	bochs_leaf(cpuid, leaf, subleaf, out);
	if (leaf == 4)
		correct_cores(cpuid, out);
	if (leaf != 0xd)
		return;

	if (subleaf == 0 && out->eax & PKRU) {
		/* What is enabled takes less while PKRU is not. */
		if (out->ebx > PKRU_OFFSET)
			out->ebx = PKRU_OFFSET + PKRU_SIZE;
		out->ecx = PKRU_OFFSET + PKRU_SIZE;
	} else if (subleaf == 9) {
		struct leaf all;

		bochs_leaf(cpuid, 0xd, 0, &all);
		if (all.eax & PKRU)
			*out = (struct leaf){ .eax = PKRU_SIZE, .ebx = PKRU_OFFSET };
	}
}

/* The model that bochsrc names; in other programs nothing is done. */
__attribute__((constructor)) static void correct(void)
{
	void **vtable = dlsym(RTLD_DEFAULT, "_ZTV16corei7_icelake_t");
	uintptr_t page = sysconf(_SC_PAGESIZE);
	int i;

	bochs_leaf = (leaf_function *)dlsym(RTLD_DEFAULT,
		"_ZNK16corei7_icelake_t14get_cpuid_leafEjjP16cpuid_function_t");
	if (!vtable || !bochs_leaf)
		return;

	for (i = 0; i < VTABLE_ENTRIES && vtable[i] != (void *)bochs_leaf; i++)
		;
	if (i == VTABLE_ENTRIES ||
	    mprotect((void *)((uintptr_t)&vtable[i] & -page), page, PROT_READ | PROT_WRITE)) {
		fprintf(stderr, "bochs_cpuid: this is not Bochs 2.7\n");
		exit(1);
	}
	vtable[i] = (void *)corrected_leaf;
	mprotect((void *)((uintptr_t)&vtable[i] & -page), page, PROT_READ);
}
