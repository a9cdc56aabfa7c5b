// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <cpuid.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend.h"
#include "pkru.h"

/* PKEY_DISABLE_ACCESS, which not every C library has, nor the calls for keys. */
#define DISABLE_ACCESS	1ul

/* Keys that the parent's library had: fork leaves them allocated. */
static uint32_t inherited;

/* CPUID.7.0:ECX.OSPKE: the kernel has switched protection keys on. */
bool epk_pkeys_usable(void)
{
	unsigned int eax, ebx, ecx, edx;

	if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ecx & 1u << 4)
		return true;
	epk_because(EPK_CAUSE_NO_PKEYS);
	return false;
}

void epk_pkeys_inherit(uint32_t pkeys)
{
	inherited |= pkeys;
}

uint32_t epk_pkeys_take(void)
{
	uint32_t pkeys = inherited;
	int pkey;

	while ((pkey = syscall(SYS_pkey_alloc, 0, DISABLE_ACCESS)) > 0)
		pkeys |= 1u << pkey;
	inherited = 0;
	if (!pkeys)
		epk_because(EPK_CAUSE_PKEYS);
	return pkeys;
}

void epk_pkeys_give(uint32_t pkeys)
{
	int pkey;

	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++)
		if (pkeys & 1u << pkey)
			syscall(SYS_pkey_free, pkey);
}

/* No @pkey: -1. */
int epk_pkey_mprotect(void *addr, size_t len, int prot, int pkey)
{
	long got = pkey < 0 ? mprotect(addr, len, prot) :
			      syscall(SYS_pkey_mprotect, addr, len, prot, pkey);

	return got ? -errno : 0;
}

/* BMI1 and BMI2. */
bool epk_gates_run(void)
{
	unsigned int eax, ebx, ecx, edx;

	return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx & 1u << 3 && ebx & 1u << 8;
}

/* Notes @pkeys. */
void epk_pkeys_state(struct epk_state *state, uint32_t pkeys)
{
	int pkey;

	state->pkeys = pkeys;
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		if (!(pkeys & 1u << pkey))
			continue;
		state->access |= PKRU_AD(pkey);
		state->closed |= PKRU_BITS(pkey);
		state->held_bits |= PKRU_WD(pkey);
	}
}

/*
 * Which registers there are, as the kernel lets programs use them; 0 without XSAVE.  Intel SDM
 * volume 1, 13.2 and 13.3.
 */
uint32_t epk_xfeatures(void)
{
	unsigned int eax, ebx, ecx, edx, xcr0;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return 0;
	asm volatile("xgetbv" : "=a" (xcr0), "=d" (edx) : "c" (0));
	return xcr0 & ~EPK_X_PKRU;
}
