// SPDX-License-Identifier: MIT
/* The oracle: addresses and accesses. */
#include "model.h"
#include "model_hypercall.h"

/* Sixteen pages on two pages of 2 MiB, the first and the last word of each. */
uint32_t word_offset(unsigned int word)
{
	uint32_t page = word / 2;

	return (page < 8 ? 0x80000 : 0x200000) + page * 0x1000 + (word % 2 ? 0xff8 : 0);
}

void model_init(struct model *model, struct machine *machine)
{
	unsigned int i, w;

	memset(model, 0, sizeof(*model));
	model->phys_bits = machine_hypercall(machine, KVM_EPK_QUERY, KVM_EPK_QUERY_PHYS_BITS, 0, 0);
	model->max_epts = machine_hypercall(machine, KVM_EPK_QUERY, KVM_EPK_QUERY_NR_EPTS, 0, 0);
	if (model->phys_bits != machine->vm->phys_bits || !model->max_epts ||
	    model->max_epts > KVM_EPK_MAX_EPTS)
		die("%u EPTs at most, %d bits", model->max_epts, model->phys_bits);
	model_lay_out(model, upper_half(model->phys_bits, model->max_epts));

	for (i = 0; i < NR_RAM; i++) {
		model->flags[i] = machine->flags[i];
		for (w = 0; w < NR_WORDS; w++)
			memcpy(&model->word[i][w], ram[i] + word_offset(w), 8);
	}
}

void model_lay_out(struct model *model, struct layout at)
{
	model->window_base = at.window_base;
	model->identity = at.identity;
	model->nr_epts = at.epts;
	model->nr_slots = at.slots;
}

struct layout model_layout(const struct model *model)
{
	return (struct layout){ model->window_base, model->identity, model->nr_slots,
				model->nr_epts };
}

bool model_in_windows(const struct model *model, uint64_t gpa)
{
	return gpa >= model->window_base &&
	       (gpa - model->window_base) / GiB < (uint64_t)model->nr_epts * model->nr_slots;
}

bool model_ordinary_blocks(const struct model *model, uint64_t block, uint64_t nr)
{
	const uint64_t window = model->window_base / GiB, identity = model->identity / GiB;

	return block + nr <= 1 << 18 && (identity < block || identity >= block + nr) &&
	       (block + nr <= window || block >= window + model->nr_epts * model->nr_slots);
}

/* What is at an address that is no window's. */
static struct place ordinary_place(const struct model *model, uint64_t gpa)
{
	struct place place = { .kind = PLACE_MMIO, .gpa = gpa };
	unsigned int i, w;

	for (i = 0; i < NR_RAM; i++) {
		if (gpa / GiB == ram_block[i] && gpa % GiB < RAM_BYTES &&
		    model->flags[i] != NO_RAM)
			break;
	}
	if (i == NR_RAM)
		return place;
	place.ram = i;
	if (gpa % GiB == RAM_RET) {
		place.kind = PLACE_RET;
		return place;
	}
	for (w = 0; w < NR_WORDS; w++) {
		if (gpa % GiB == word_offset(w)) {
			place.kind = PLACE_WORD;
			place.word = w;
			return place;
		}
	}
	die("the model does not know what is at %#lx", gpa);
}

bool model_writable(const struct model *model, uint64_t gpa, uint64_t size)
{
	unsigned int i;

	for (i = 0; i < NR_RAM; i++) {
		if (gpa / GiB == ram_block[i])
			return !(model->flags[i] & KVM_MEM_READONLY) && gpa % GiB < RAM_BYTES &&
			       size <= RAM_BYTES - gpa % GiB;
	}
	return false;
}

struct place model_place(const struct model *model, uint64_t gpa)
{
	struct place fault = { .kind = PLACE_FAULT, .gpa = gpa };
	uint64_t slot;

	if (!model->enabled)
		return ordinary_place(model, gpa);
	if (gpa / PAGE == model->identity / PAGE)
		return (struct place){ .kind = PLACE_IDENTITY, .gpa = gpa };
	if (!model_in_windows(model, gpa))
		return ordinary_place(model, gpa);

	slot = (gpa - model->window_base) / GiB;
	if (slot / model->nr_slots != model->ept || !model->block[slot])
		return fault;
	return ordinary_place(model, (model->block[slot] - 1) * GiB + gpa % GiB);
}

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
	struct place place = model_place(model, gpa);

	switch (place.kind) {
	case PLACE_WORD:
		return model->word[place.ram][place.word];
	case PLACE_IDENTITY:
		return gpa % PAGE ? 0 : model->ept | (uint64_t)KVM_EPK_VERSION << 32;
	case PLACE_MMIO:
		predict_mmio(prediction, place.gpa, false, mmio_pattern(place.gpa));
		return mmio_pattern(place.gpa);
	case PLACE_FAULT:
		predict_fault(prediction, op, gpa, 0);
		return 0;
	default:
		die("the model cannot read %#lx", gpa);
	}
}

static void predict_write(const struct model *model, const struct op *op, uint64_t gpa,
			  uint64_t value, struct prediction *prediction)
{
	struct place place = model_place(model, gpa);

	if (place.kind == PLACE_FAULT || place.kind == PLACE_IDENTITY)
		predict_fault(prediction, op, gpa, PF_W);
	else if (place.kind == PLACE_MMIO || model->flags[place.ram] & KVM_MEM_READONLY)
		predict_mmio(prediction, place.gpa, true, value);
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
	struct place place;
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
		place = model_place(model, op->a[0]);
		if (place.kind == PLACE_FAULT || place.kind == PLACE_IDENTITY)
			predict_fault(prediction, op, op->a[0], PF_FETCH);
		break;
	}
}

static void apply_write(struct model *model, uint64_t gpa, uint64_t value)
{
	struct place place = model_place(model, gpa);

	if (place.kind != PLACE_WORD || model->flags[place.ram] & KVM_MEM_READONLY)
		return;
	model->word[place.ram][place.word] = value;
	model->dirty[place.ram] |= 1u << place.word / 2;
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

void model_set_ram(struct model *model, unsigned int i, uint32_t flags)
{
	/* A log starts empty. */
	if (flags == NO_RAM || !(model->flags[i] & KVM_MEM_LOG_DIRTY_PAGES))
		model->dirty[i] = 0;
	model->flags[i] = flags;
}

void model_forget(struct model *model, unsigned int i, unsigned int word)
{
	model->word[i][word] = 0;
}
