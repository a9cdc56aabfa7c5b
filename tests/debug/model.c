// SPDX-License-Identifier: MIT
/* The oracle: what there is at addresses. */
#include "model.h"

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
static struct target ordinary_target(const struct model *model, uint64_t gpa)
{
	struct target target = { .kind = TARGET_MMIO, .gpa = gpa };
	unsigned int i, w;

	for (i = 0; i < NR_RAM; i++) {
		if (gpa / GiB == ram_block[i] && gpa % GiB < RAM_BYTES &&
		    model->flags[i] != NO_RAM)
			break;
	}
	if (i == NR_RAM)
		return target;
	target.ram = i;
	if (gpa % GiB == RAM_RET) {
		target.kind = TARGET_RET;
		return target;
	}
	for (w = 0; w < NR_WORDS; w++) {
		if (gpa % GiB == word_offset(w)) {
			target.kind = TARGET_WORD;
			target.word = w;
			return target;
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

struct target model_target(const struct model *model, uint64_t gpa)
{
	struct target fault = { .kind = TARGET_FAULT, .gpa = gpa };
	uint64_t slot;

	if (!model->enabled)
		return ordinary_target(model, gpa);
	if (gpa / PAGE == model->identity / PAGE)
		return (struct target){ .kind = TARGET_IDENTITY, .gpa = gpa };
	if (!model_in_windows(model, gpa))
		return ordinary_target(model, gpa);

	slot = (gpa - model->window_base) / GiB;
	if (slot / model->nr_slots != model->ept || !model->block[slot])
		return fault;
	return ordinary_target(model, (model->block[slot] - 1) * GiB + gpa % GiB);
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
