/* SPDX-License-Identifier: MIT */
/* Random numbers and random operations. */
#ifndef EPK_DEBUG_CHOOSE_H
#define EPK_DEBUG_CHOOSE_H

#include "model.h"

struct dice {
	uint64_t state;
};

uint64_t dice_roll(struct dice *dice);
/* 0 to sides - 1 */
uint32_t dice_below(struct dice *dice, uint32_t sides);
/* True in one of so many. */
bool dice_one_in(struct dice *dice, uint32_t sides);

/* Windows that fit, memory apart. */
struct layout choose_layout(struct dice *dice, const struct model *model);
/*
 * Operations that are likely to be valid as the model stands, mixed with values
 * at the boundaries and with plain nonsense.
 */
void choose_op(struct dice *dice, const struct model *model, struct op *op);

#endif
