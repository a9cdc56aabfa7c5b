/* SPDX-License-Identifier: MIT */
/* What opens keys or goes to another EPT, by its bytes. */
#ifndef EPK_SEQUENCE_H
#define EPK_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* By what it begins: the escape to opcode map 1, or APX's prefix REX2, which has that map for a bit of its second byte. */
#define EPK_ESCAPE		0x0f
#define EPK_REX2		0xd5
#define EPK_REX2_MAP_1		0x80
/* Of the longest. */
#define EPK_SEQUENCE_BYTES	4

/* Where the opcode is, or would be if there were so many bytes; 0: none of them begins so. */
static inline size_t epk_sequence_opcode(const uint8_t *at, size_t left)
{
	if (left && at[0] == EPK_ESCAPE)
		return 1;
	return left && at[0] == EPK_REX2 && (left == 1 || at[1] & EPK_REX2_MAP_1) ? 2 : 0;
}

/*
 * Intel SDM volume 2: map 1's 01 EF, 01 D4, AE /5 with an operand in memory.  A CPU without APX has none with REX2; one
 * that has it refuses XRSTOR after that by its specification, but not the others.
 */
static inline const char *epk_sequence_at(const uint8_t *at, size_t left)
{
	size_t opcode = epk_sequence_opcode(at, left);

	if (!opcode || left < opcode + 2)
		return NULL;
	at += opcode;
	if (at[0] == 0x01 && at[1] == 0xef)
		return "wrpkru";
	if (at[0] == 0x01 && at[1] == 0xd4)
		return "vmfunc";
	if (at[0] == 0xae && (at[1] >> 3 & 7) == 5 && at[1] >> 6 != 3)
		return "xrstor";
	return NULL;
}

/* Could what is left of something go on as one of them? */
static inline bool epk_sequence_begun(const uint8_t *at, size_t left)
{
	size_t opcode = epk_sequence_opcode(at, left);

	return opcode && (left <= opcode || (left == opcode + 1 && (at[opcode] == 0x01 || at[opcode] == 0xae)));
}

/* The first one with that first byte, or NULL. */
static inline const uint8_t *epk_sequence_find(const uint8_t *at, const uint8_t *end, uint8_t first)
{
	for (; at < end && (at = memchr(at, first, end - at)); at++)
		if (epk_sequence_at(at, end - at))
			return at;
	return NULL;
}

#endif /* EPK_SEQUENCE_H */
