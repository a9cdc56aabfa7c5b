/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What room.c has for host.c.
 */
#ifndef EPK_ROOM_H
#define EPK_ROOM_H

#include "choose.h"

int epk_room_find(unsigned int phys_bits, unsigned int max_epts, struct epk_layout *layout);
int epk_room_keep(unsigned int phys_bits, const struct epk_layout *layout);
void epk_room_release(void);

#endif /* EPK_ROOM_H */
