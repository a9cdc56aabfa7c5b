/* SPDX-License-Identifier: MIT */
/* What opens keys or goes to another EPT, by its bytes. */
#ifndef EPK_SEQUENCE_H
#define EPK_SEQUENCE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that tell one of them. */
#define EPK_SEQUENCE_BYTES	3

/* Intel SDM volume 2: 0F 01 EF, 0F 01 D4, 0F AE /5 with an operand in memory. */
static inline const char *epk_sequence_at(const uint8_t *at)
{
	if (at[0] == 0x0f && at[1] == 0x01 && at[2] == 0xef)
		return "wrpkru";
	if (at[0] == 0x0f && at[1] == 0x01 && at[2] == 0xd4)
		return "vmfunc";
	if (at[0] == 0x0f && at[1] == 0xae && (at[2] >> 3 & 7) == 5 && at[2] >> 6 != 3)
		return "xrstor";
	return NULL;
}

#endif /* EPK_SEQUENCE_H */
