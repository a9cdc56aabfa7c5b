// SPDX-License-Identifier: MIT
/*
 * The oracle: hypercalls, by the words of kvm_epk.h.  Where several errors
 * apply, the interface does not say which one is returned: any of them is right.
 */
#include <linux/kvm_para.h>

#include "model_hypercall.h"

static void add_error(struct prediction *prediction, int64_t error)
{
	unsigned int i;

	for (i = 0; i < prediction->nr_errors; i++) {
		if (prediction->error[i] == error)
			return;
	}
	if (prediction->nr_errors == MAX_ERRORS)
		die("MAX_ERRORS");
	prediction->error[prediction->nr_errors++] = error;
}

/* The range of EPTs, and of slots for those that take a run. */
static bool ranges_valid(const struct model *model, const struct op *op)
{
	uint64_t run = op->a[3], slot = KVM_EPK_RUN_SLOT(run), nr = KVM_EPK_RUN_COUNT(run);

	if (!op->a[2] || op->a[1] >= model->nr_epts || op->a[2] > model->nr_epts - op->a[1])
		return false;
	if (op->a[0] != KVM_EPK_FILL && op->a[0] != KVM_EPK_EMPTY)
		return !run;
	if (!nr || nr > model->nr_slots || slot > model->nr_slots - nr)
		return false;
	if (op->a[0] == KVM_EPK_FILL)
		return model_ordinary_blocks(model, KVM_EPK_RUN_BLOCK(run), nr);
	return !KVM_EPK_RUN_BLOCK(run);
}

static void predict_slot(const struct model *model, const struct op *op, uint32_t slot,
			 struct prediction *prediction)
{
	if (op->a[0] == KVM_EPK_EMPTY) {
		if (!model->block[slot])
			add_error(prediction, -ENOENT);
		return;
	}
	if (model->block[slot])
		add_error(prediction, -EEXIST);
}

static void predict_range(const struct model *model, const struct op *op,
			  struct prediction *prediction)
{
	uint64_t run = op->a[3], i, n;

	if (!model->enabled)
		add_error(prediction, -KVM_EPERM);
	if (!ranges_valid(model, op) || (op->a[0] == KVM_EPK_DESTROY && !op->a[1]))
		add_error(prediction, -KVM_EINVAL);
	if (prediction->nr_errors)
		return;

	for (i = op->a[1]; i < op->a[1] + op->a[2]; i++) {
		if (op->a[0] == KVM_EPK_CREATE && model->exists[i])
			add_error(prediction, -EEXIST);
		if (op->a[0] != KVM_EPK_CREATE && !model->exists[i])
			add_error(prediction, -ENOENT);
		if (op->a[0] != KVM_EPK_FILL && op->a[0] != KVM_EPK_EMPTY)
			continue;
		for (n = 0; n < KVM_EPK_RUN_COUNT(run); n++)
			predict_slot(model, op, i * model->nr_slots + KVM_EPK_RUN_SLOT(run) + n,
				     prediction);
	}
}

static void predict_query(const struct model *model, const struct op *op,
			  struct prediction *prediction)
{
	if (op->a[2] || op->a[3])
		add_error(prediction, -KVM_EINVAL);
	switch (op->a[1]) {
	case KVM_EPK_QUERY_VERSION:
		prediction->result = KVM_EPK_VERSION;
		break;
	case KVM_EPK_QUERY_NR_EPTS:
		prediction->result = model->enabled ? model->nr_epts : model->max_epts;
		break;
	case KVM_EPK_QUERY_PHYS_BITS:
		prediction->result = model->phys_bits;
		break;
	case KVM_EPK_QUERY_WINDOW_BASE:
		prediction->result = model->enabled ? model->window_base : 0;
		break;
	case KVM_EPK_QUERY_WINDOW_SLOTS:
		prediction->result = model->enabled ? model->nr_slots : 0;
		break;
	case KVM_EPK_QUERY_IDENTITY_GPA:
		prediction->result = model->enabled ? model->identity : 0;
		break;
	case KVM_EPK_QUERY_EPTS:
		prediction->result = model->epts;
		break;
	case KVM_EPK_QUERY_STAT_EXITS:
	case KVM_EPK_QUERY_STAT_LINKS:
	case KVM_EPK_QUERY_STAT_FAULTS:
		prediction->any_result = true;
		break;
	default:
		add_error(prediction, -KVM_EINVAL);
	}
}

struct layout enable_layout(const struct op *op)
{
	return (struct layout){
		.window_base = (op->a[2] & 0xffffff) * GiB,
		.identity = op->a[3],
		.epts = op->a[2] >> 24 & 0xffff,
		.slots = op->a[2] >> 40,
	};
}

bool layout_valid(const struct model *model, struct layout at)
{
	uint64_t first = at.window_base / GiB, nr;

	if (!at.epts || at.epts > model->max_epts || !at.slots || at.slots > 512 ||
	    at.slots & (at.slots - 1) || at.identity % PAGE)
		return false;
	nr = at.epts * at.slots;
	return first >= 4 && first % at.slots == 0 && first + nr <= 1 << 18 &&
	       at.identity / GiB >= 4 && at.identity / GiB < 1 << 18 &&
	       (at.identity / GiB < first || at.identity / GiB >= first + nr);
}

static void predict_enable(const struct model *model, const struct op *op,
			   struct prediction *prediction)
{
	struct layout at = enable_layout(op);
	uint64_t end = 1ull << model->phys_bits;
	struct model enabled;
	unsigned int i;

	if (model->enabled)
		add_error(prediction, -EEXIST);
	if (op->a[1] != KVM_EPK_VERSION || !layout_valid(model, at)) {
		add_error(prediction, -KVM_EINVAL);
		return;
	}
	if (at.window_base + at.epts * at.slots * GiB > end || at.identity >= end)
		add_error(prediction, -EDOM);
	model_lay_out(&enabled, at);
	for (i = 0; i < NR_RAM; i++) {
		if (model->flags[i] != NO_RAM && !model_ordinary_blocks(&enabled, ram_block[i], 1))
			add_error(prediction, -EBUSY);
	}
}

static uint64_t saved_bytes(const struct model *model)
{
	return 4096 + 4ull * model->nr_epts * model->nr_slots;
}

static void predict_save_at(const struct model *model, const struct op *op,
			    struct prediction *prediction)
{
	const uint64_t end = 1ull << 48;

	if (!model->enabled)
		add_error(prediction, -KVM_EPERM);
	if (op->a[2] || op->a[3] || op->a[1] % PAGE || op->a[1] >= end)
		add_error(prediction, -KVM_EINVAL);
	if (prediction->nr_errors)
		return;
	if (saved_bytes(model) > end - op->a[1])
		add_error(prediction, -KVM_EINVAL);
	else if (op->a[1] && !model_writable(model, op->a[1], saved_bytes(model)))
		add_error(prediction, -KVM_EFAULT);
}

void model_predict_hypercall(const struct model *model, const struct op *op,
			     struct prediction *prediction)
{
	if (op->user) {
		add_error(prediction, -KVM_EPERM);
		return;
	}
	switch (op->a[0]) {
	case KVM_EPK_QUERY:
		predict_query(model, op, prediction);
		break;
	case KVM_EPK_ENABLE:
		predict_enable(model, op, prediction);
		break;
	case KVM_EPK_CREATE:
	case KVM_EPK_FILL:
	case KVM_EPK_EMPTY:
	case KVM_EPK_DESTROY:
		predict_range(model, op, prediction);
		break;
	case KVM_EPK_SAVE_AT:
		predict_save_at(model, op, prediction);
		break;
	default:
		add_error(prediction, -KVM_ENOSYS);
	}
}

static void apply_slots(struct model *model, const struct op *op, uint32_t ept)
{
	uint64_t run = op->a[3], n;

	for (n = 0; n < KVM_EPK_RUN_COUNT(run); n++) {
		uint32_t slot = ept * model->nr_slots + KVM_EPK_RUN_SLOT(run) + n;

		if (op->a[0] == KVM_EPK_FILL) {
			model->block[slot] = KVM_EPK_RUN_BLOCK(run) + n + 1;
			continue;
		}
		model->block[slot] = 0;
	}
}

static void apply_destroy(struct model *model, uint32_t ept)
{
	uint32_t slot;

	model->exists[ept] = false;
	model->epts--;
	for (slot = ept * model->nr_slots; slot < (ept + 1) * model->nr_slots; slot++)
		model->block[slot] = 0;
	if (model->ept == ept)
		model->ept = 0;
}

void model_apply_hypercall(struct model *model, const struct op *op)
{
	uint64_t i;

	switch (op->a[0]) {
	case KVM_EPK_ENABLE:
		model_lay_out(model, enable_layout(op));
		model->enabled = true;
		model->exists[0] = true;
		model->epts = 1;
		model->ept = 0;
		return;
	case KVM_EPK_QUERY:
		return;
	case KVM_EPK_SAVE_AT:
		model->saved_at = op->a[1];
		return;
	}
	/* What cannot be written is not saved any more. */
	if (!model_writable(model, model->saved_at, saved_bytes(model)))
		model->saved_at = 0;
	for (i = op->a[1]; i < op->a[1] + op->a[2]; i++) {
		if (op->a[0] == KVM_EPK_CREATE) {
			model->exists[i] = true;
			model->epts++;
		} else if (op->a[0] == KVM_EPK_DESTROY) {
			apply_destroy(model, i);
		} else {
			apply_slots(model, op, i);
		}
	}
}
