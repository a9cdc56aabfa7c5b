// SPDX-License-Identifier: MIT
/* The oracle: accesses, and what any operation must give and changes. */
#include "model.h"
#include "model_hypercall.h"

static void predict_fault(struct prediction *prediction, const struct op *op, uint64_t gpa,
			  uint32_t access)
{
	/* Keys do not restrict fetches. */
	uint32_t key = access & PF_FETCH ? 0 : PF_PK;

	prediction->fault = PF(PF_P | key | access | (op->user ? PF_U : 0));
	prediction->address = gpa;
}

static void predict_mmio(struct prediction *prediction, uint64_t gpa, bool write, uint64_t data)
{
	prediction->mmio[prediction->nr_mmio++] = (struct mmio){ gpa, data, write };
}

/* The value that is read; sets the fault if there is none. */
static uint64_t predict_read(const struct model *model, const struct op *op, uint64_t gpa,
			     struct prediction *prediction)
{
	struct target target = model_target(model, gpa);

	switch (target.kind) {
	case TARGET_WORD:
		return model->word[target.ram][target.word];
	case TARGET_IDENTITY:
		return gpa % PAGE ? 0 : model->ept | (uint64_t)KVM_EPK_VERSION << 32;
	case TARGET_MMIO:
		predict_mmio(prediction, target.gpa, false, mmio_pattern(target.gpa));
		return mmio_pattern(target.gpa);
	case TARGET_FAULT:
		predict_fault(prediction, op, gpa, 0);
		return 0;
	default:
		die("the model cannot read %#lx", gpa);
	}
}

static void predict_write(const struct model *model, const struct op *op, uint64_t gpa,
			  uint64_t value, struct prediction *prediction)
{
	struct target target = model_target(model, gpa);

	if (target.kind == TARGET_FAULT || target.kind == TARGET_IDENTITY)
		predict_fault(prediction, op, gpa, PF_W);
	else if (target.kind == TARGET_MMIO || model->flags[target.ram] & KVM_MEM_READONLY)
		predict_mmio(prediction, target.gpa, true, value);
}

static void predict_vmfunc(const struct model *model, const struct op *op,
			   struct prediction *prediction)
{
	uint32_t index = op->a[1];

	if (!model->enabled || (uint32_t)op->a[0] || index >= model->nr_epts ||
	    !model->exists[index])
		prediction->fault = UD;
}

void model_predict(const struct model *model, const struct op *op, struct prediction *prediction)
{
	struct target target;
	uint64_t value;

	memset(prediction, 0, sizeof(*prediction));
	switch (op->kind) {
	case OP_HYPERCALL:
		model_predict_hypercall(model, op, prediction);
		break;
	case OP_VMFUNC:
		predict_vmfunc(model, op, prediction);
		break;
	case OP_READ:
		value = predict_read(model, op, op->a[0], prediction);
		prediction->result = value;
		break;
	case OP_WRITE:
		predict_write(model, op, op->a[0], op->a[1], prediction);
		break;
	case OP_COPY:
		value = predict_read(model, op, op->a[0], prediction);
		if (!prediction->fault)
			predict_write(model, op, op->a[1], value, prediction);
		break;
	case OP_CALL:
		target = model_target(model, op->a[0]);
		if (target.kind == TARGET_FAULT || target.kind == TARGET_IDENTITY)
			predict_fault(prediction, op, op->a[0], PF_FETCH);
		break;
	}
}

static void apply_write(struct model *model, uint64_t gpa, uint64_t value)
{
	struct target target = model_target(model, gpa);

	if (target.kind != TARGET_WORD || model->flags[target.ram] & KVM_MEM_READONLY)
		return;
	model->word[target.ram][target.word] = value;
	model->dirty[target.ram] |= 1u << target.word / 2;
}

void model_apply(struct model *model, const struct op *op, const struct prediction *prediction)
{
	struct prediction read = { 0 };

	if (prediction->fault || prediction->nr_errors)
		return;
	if (op->kind == OP_HYPERCALL)
		model_apply_hypercall(model, op);
	else if (op->kind == OP_VMFUNC)
		model->ept = op->a[1];
	else if (op->kind == OP_WRITE)
		apply_write(model, op->a[0], op->a[1]);
	else if (op->kind == OP_COPY)
		apply_write(model, op->a[1], predict_read(model, op, op->a[0], &read));
}

const char *model_compare(const struct op *op, const struct prediction *prediction)
{
	unsigned int i;

	if (op->fault != prediction->fault)
		return "fault";
	if (op->fault)
		return (op->fault ^ PF(0)) >> 16 || op->address == prediction->address ?
			NULL : "address of a fault";
	if (op->kind == OP_READ)
		return op->result == prediction->result ? NULL : "value read";
	if (op->kind != OP_HYPERCALL)
		return NULL;
	for (i = 0; i < prediction->nr_errors; i++) {
		if (op->result == prediction->error[i])
			return NULL;
	}
	if (prediction->nr_errors)
		return "error of a hypercall";
	if (prediction->any_result)
		return op->result >= 0 ? NULL : "result of a hypercall";
	return op->result == prediction->result ? NULL : "result of a hypercall";
}
