// SPDX-License-Identifier: MIT
/* PKRU of the code that a signal interrupted, as it lies in the handler's frame. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <string.h>
#include <ucontext.h>

#include "backend.h"

#define XFEATURE_PKRU	9
/* All keys closed but 0. */
#define PKRU_CLOSED	0xfffffffcu

/*
 * The kernel's struct _fpx_sw_bytes, which the C libraries' headers do not let one have: in the last 48 of
 * the 512 bytes that FXSAVE knows.  It says what follows.
 */
struct legend {
	uint32_t magic;
	uint32_t bytes;
	uint64_t features;
	uint32_t xstate_bytes;
};

#define LEGEND		464
#define LEGEND_MAGIC	0x46505853u
#define HEADER		512

uint32_t epk_frame_pkru(const void *context)
{
	const char *area = (const char *)((const ucontext_t *)context)->uc_mcontext.fpregs;
	unsigned int size, offset, ecx, edx;
	struct legend legend;
	uint64_t present;
	uint32_t pkru;

	if (!area)
		return PKRU_CLOSED;
	memcpy(&legend, area + LEGEND, sizeof(legend));
	if (legend.magic != LEGEND_MAGIC || !(legend.features & 1ull << XFEATURE_PKRU) ||
	    !__get_cpuid_count(0xd, XFEATURE_PKRU, &size, &offset, &ecx, &edx) ||
	    offset + sizeof(pkru) > legend.xstate_bytes)
		return PKRU_CLOSED;
	memcpy(&present, area + HEADER, sizeof(present));
	/* As it is at first: everything is open. */
	if (!(present & 1ull << XFEATURE_PKRU))
		return 0;
	memcpy(&pkru, area + offset, sizeof(pkru));
	return pkru;
}
