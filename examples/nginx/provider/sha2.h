/* SPDX-License-Identifier: MIT */
/*
 * The compression functions of sha2.S.  Nothing of a message comes to the stack: what is not in
 * registers is in @schedule, which the caller wipes.
 */
#ifndef SHA2_H
#define SHA2_H

#include <stdint.h>

void epkp_sha256_ni(uint32_t value[8], const uint8_t *message_block);
void epkp_sha256_plain(uint32_t value[8], const uint8_t *message_block, uint32_t schedule[64]);
void epkp_sha512_plain(uint64_t value[8], const uint8_t *message_block, uint64_t schedule[80]);

#endif /* SHA2_H */
