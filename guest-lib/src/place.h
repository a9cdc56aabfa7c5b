/* SPDX-License-Identifier: MIT */
/* Where domains of the kernel module lie, and how they come elsewhere. */
#ifndef EPK_PLACE_H
#define EPK_PLACE_H

#include "state.h"

int epk_place_admit(int id, uint32_t ept);
int epk_place_beside(int id, uint32_t ept, int keep);

#endif /* EPK_PLACE_H */
