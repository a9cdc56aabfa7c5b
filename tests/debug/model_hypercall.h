/* SPDX-License-Identifier: MIT */
#ifndef EPK_DEBUG_MODEL_HYPERCALL_H
#define EPK_DEBUG_MODEL_HYPERCALL_H

#include "model.h"

/* What KVM_EPK_ENABLE asks for. */
struct layout enable_layout(const struct op *op);
/* Might a VM have it, if its vCPUs reach it and nothing is in the way? */
bool layout_valid(const struct model *model, struct layout at);

void model_predict_hypercall(const struct model *model, const struct op *op,
			     struct prediction *prediction);
void model_apply_hypercall(struct model *model, const struct op *op);

#endif
