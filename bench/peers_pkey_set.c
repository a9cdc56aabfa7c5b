// SPDX-License-Identifier: MIT
/* How libmpk changes PKRU where other systems' programs are measured. */
#include <stdint.h>

#include "pkru.h"

int pkey_set(int pkey, unsigned int rights);

/* In place of glibc's for libmpk: in the program's own text, where it is counted. */
int pkey_set(int pkey, unsigned int rights)
{
	uint32_t pkru = (rdpkru() & ~PKRU_BITS(pkey)) | rights << (2 * pkey);

	asm volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
	return 0;
}
