/* SPDX-License-Identifier: MIT */
#ifndef EPK_DEBUG_MODEL_HYPERCALL_H
#define EPK_DEBUG_MODEL_HYPERCALL_H

#include "model.h"

void model_predict_hypercall(const struct model *model, const struct op *op,
			     struct prediction *prediction);
void model_apply_hypercall(struct model *model, const struct op *op);

#endif
