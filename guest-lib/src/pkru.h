/* SPDX-License-Identifier: MIT */
/*
 * The PKRU register: two bits a key, access disable (AD) below write disable
 * (WD).  Intel SDM volume 3A, 4.6.2.  WRPKRU stands in the gates alone.
 */
#ifndef EPK_PKRU_H
#define EPK_PKRU_H

#include <stdint.h>
#include <sys/mman.h>

#define EPK_NR_PKEYS	16

#define PKRU_AD(pkey)	(1u << (2 * (pkey)))
#define PKRU_WD(pkey)	(2u << (2 * (pkey)))
#define PKRU_BITS(pkey)	(3u << (2 * (pkey)))

static inline uint32_t rdpkru(void)
{
	uint32_t eax, edx;

	asm volatile("rdpkru" : "=a" (eax), "=d" (edx) : "c" (0));
	return eax;
}

/* The bits of @pkru that stay set for a right of @prot to @pkey. */
static inline uint32_t pkru_open(uint32_t pkru, unsigned int pkey, int prot)
{
	pkru &= ~PKRU_BITS(pkey);
	return prot & PROT_WRITE ? pkru : pkru | PKRU_WD(pkey);
}

/* What @pkru lets do with @pkey: PROT_READ, perhaps with PROT_WRITE; 0. */
static inline int pkru_prot(uint32_t pkru, unsigned int pkey)
{
	if (pkru & PKRU_AD(pkey))
		return 0;
	return pkru & PKRU_WD(pkey) ? PROT_READ : PROT_READ | PROT_WRITE;
}

static inline uint32_t pkru_close(uint32_t pkru, unsigned int pkey)
{
	return pkru | PKRU_BITS(pkey);
}

#endif /* EPK_PKRU_H */
