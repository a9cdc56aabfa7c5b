// SPDX-License-Identifier: MIT
#include "choose.h"
#include "model_hypercall.h"

/* EPTs that most operations are about, so that they meet. */
#define HOT_EPTS	12

/* splitmix64, by its author's description (Steele, Lea, Flood, OOPSLA 2014). */
uint64_t dice_roll(struct dice *dice)
{
	uint64_t z = dice->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint32_t dice_below(struct dice *dice, uint32_t sides)
{
	return (dice_roll(dice) >> 32) * sides >> 32;
}

bool dice_one_in(struct dice *dice, uint32_t sides)
{
	return !dice_below(dice, sides);
}

/* A number that is wrong, or nearly. */
static uint64_t odd_number(struct dice *dice, uint64_t limit)
{
	const uint64_t odd[] = {
		0, 1, limit - 1, limit, limit + 1, 511, 512, 513, 0xffff, 0xffffffff,
		0x100000000, 0x100000001, 1ull << 63, ~0ull, -limit, 1ull << 40,
	};

	if (dice_one_in(dice, 4))
		return dice_roll(dice) >> dice_below(dice, 64);
	return odd[dice_below(dice, sizeof(odd) / sizeof(odd[0]))];
}

static uint32_t hot_ept(struct dice *dice, const struct model *model)
{
	uint32_t hot = model->nr_epts < HOT_EPTS ? model->nr_epts : HOT_EPTS;

	return dice_one_in(dice, 8) ? dice_below(dice, model->nr_epts) : dice_below(dice, hot);
}

/* An EPT that exists, or does not; 0 and any if there is none. */
static uint32_t ept_that(struct dice *dice, const struct model *model, bool exists)
{
	uint32_t ept, tries;

	for (tries = 0; tries < 8; tries++) {
		ept = hot_ept(dice, model);
		if (model->exists[ept] == exists)
			return ept;
	}
	return ept;
}

static uint64_t some_run(struct dice *dice, const struct model *model, bool fill)
{
	uint64_t slot = dice_below(dice, model->nr_slots);
	uint64_t nr = 1 + dice_below(dice, model->nr_slots - slot);
	uint64_t block = fill ? ram_block[dice_below(dice, NR_RAM)] : 0;

	if (dice_one_in(dice, 8))
		slot = odd_number(dice, model->nr_slots) & 0xffff;
	if (fill && dice_one_in(dice, 8))
		block = odd_number(dice, dice_one_in(dice, 2) ? model->identity / GiB :
						model->window_base / GiB) & 0xffffff;
	else if (fill && dice_one_in(dice, 8))
		block = dice_below(dice, 1u << (model->phys_bits - 30));
	if (dice_one_in(dice, 16))
		nr = odd_number(dice, model->nr_slots) & 0xffffff;
	if (dice_one_in(dice, 64))
		return odd_number(dice, model->nr_slots);
	return KVM_EPK_RUN(slot, block, nr);
}

static void choose_range(struct dice *dice, const struct model *model, struct op *op)
{
	bool fill = op->a[0] == KVM_EPK_FILL, run = fill || op->a[0] == KVM_EPK_EMPTY;
	uint32_t slots = model->nr_slots, tries;

	for (tries = 0; tries < 4; tries++) {
		op->a[1] = ept_that(dice, model, op->a[0] != KVM_EPK_CREATE);
		/* Emptying wants a slot that is full, filling one that is not. */
		if (!run || fill != !!model->block[op->a[1] * slots])
			break;
	}
	op->a[2] = dice_one_in(dice, 4) ? 1 + dice_below(dice, 4) : 1;
	if (run)
		op->a[3] = some_run(dice, model, fill);
	/* All of them is slow. */
	if (dice_one_in(dice, 1000)) {
		op->a[1] = op->a[0] == KVM_EPK_CREATE || op->a[0] == KVM_EPK_DESTROY;
		op->a[2] = model->nr_epts - op->a[1];
	}
	if (dice_one_in(dice, 12))
		op->a[1] = odd_number(dice, model->nr_epts);
	if (dice_one_in(dice, 12))
		op->a[2] = odd_number(dice, model->nr_epts);
	if (dice_one_in(dice, 50))
		op->a[3] ^= odd_number(dice, slots);
}

/* Of the pages of a block, one where no RAM is. */
static uint64_t some_page(struct dice *dice)
{
	return RAM_BYTES + PAGE + (uint64_t)dice_below(dice, (GiB - RAM_BYTES) / PAGE - 1) * PAGE;
}

struct layout choose_layout(struct dice *dice, const struct model *model)
{
	uint32_t blocks = 1u << (model->phys_bits - 30), epts;
	struct layout at;

	do {
		at.slots = 1u << dice_below(dice, 10);
		epts = MAX_SLOTS / at.slots < model->max_epts ? MAX_SLOTS / at.slots :
								model->max_epts;
		at.epts = 1 + dice_below(dice, dice_one_in(dice, 4) ? 4 : epts);
		/* Often where memory ends, or at the end. */
		at.window_base = dice_below(dice, blocks) / at.slots * at.slots * GiB;
		if (dice_one_in(dice, 4))
			at.window_base = at.slots < 8 ? 8 * GiB : at.slots * GiB;
		else if (dice_one_in(dice, 4))
			at.window_base = (blocks - at.epts * at.slots) * GiB;
		at.identity = dice_below(dice, blocks) * GiB + some_page(dice);
		if (dice_one_in(dice, 4))
			at.identity = at.window_base - GiB + some_page(dice);
	} while (!layout_valid(model, at) ||
		 at.window_base + at.epts * at.slots * GiB > blocks * GiB);
	return at;
}

static void choose_enable(struct dice *dice, const struct model *model, struct op *op)
{
	struct layout at = model_layout(model), made;

	op->a[1] = KVM_EPK_VERSION;
	if (dice_one_in(dice, 3))
		at = choose_layout(dice, model);
	op->a[2] = KVM_EPK_WINDOWS(at.window_base / GiB, at.epts, at.slots);
	op->a[3] = at.identity;
	if (dice_one_in(dice, 4))
		op->a[1] = odd_number(dice, KVM_EPK_VERSION);
	if (dice_one_in(dice, 4))
		op->a[2] ^= 1ull << dice_below(dice, 64);
	if (dice_one_in(dice, 8))
		op->a[2] = odd_number(dice, 1u << 18);
	if (dice_one_in(dice, 8))
		op->a[3] = odd_number(dice, 1ull << model->phys_bits);
	if (dice_one_in(dice, 8))
		op->a[3] ^= 1ull << dice_below(dice, 64);
	made = enable_layout(op);
	/* The model has no room for more, and knows of no page among RAM. */
	if (layout_valid(model, made) &&
	    (made.epts * made.slots > MAX_SLOTS || made.identity % GiB < RAM_BYTES))
		op->a[1] = KVM_EPK_VERSION + 1;
}

static void choose_hypercall(struct dice *dice, const struct model *model, struct op *op)
{
	static const uint8_t common[] = {
		KVM_EPK_CREATE, KVM_EPK_CREATE, KVM_EPK_CREATE, KVM_EPK_FILL, KVM_EPK_FILL,
		KVM_EPK_FILL, KVM_EPK_FILL, KVM_EPK_EMPTY, KVM_EPK_EMPTY, KVM_EPK_DESTROY,
		KVM_EPK_DESTROY, KVM_EPK_QUERY, KVM_EPK_SAVE_AT,
	};
	unsigned int i;

	op->kind = OP_HYPERCALL;
	op->user = dice_one_in(dice, 40);
	op->a[0] = common[dice_below(dice, sizeof(common))];
	if (!model->enabled && dice_one_in(dice, 3))
		op->a[0] = KVM_EPK_ENABLE;
	if (dice_one_in(dice, 60))
		op->a[0] = KVM_EPK_ENABLE;
	if (dice_one_in(dice, 100)) {
		for (i = 0; i < 4; i++)
			op->a[i] = odd_number(dice, KVM_EPK_SAVE_AT);
		if (op->a[0] == KVM_EPK_ENABLE)
			choose_enable(dice, model, op);
	} else if (op->a[0] == KVM_EPK_ENABLE) {
		choose_enable(dice, model, op);
	} else if (op->a[0] == KVM_EPK_QUERY) {
		op->a[1] = dice_below(dice, KVM_EPK_QUERY_STAT_FAULTS + 2);
		if (dice_one_in(dice, 8))
			op->a[1 + dice_below(dice, 3)] = odd_number(dice, 9);
	} else if (op->a[0] == KVM_EPK_SAVE_AT) {
		op->a[1] = ram_block[dice_below(dice, NR_RAM)] * GiB + RAM_SAVED;
		if (dice_one_in(dice, 8))
			op->a[1 + dice_below(dice, 3)] = odd_number(dice, 1ull << 48);
		if (dice_one_in(dice, 8))
			op->a[1] ^= 1ull << dice_below(dice, 64);
	} else {
		choose_range(dice, model, op);
	}
	/* There the model knows what is where. */
	if (op->a[0] == KVM_EPK_SAVE_AT && op->a[1] % GiB < RAM_BYTES &&
	    op->a[1] % GiB != RAM_SAVED && op->a[1] % PAGE == 0)
		op->a[1] = 0;
}

/* An offset in a block: of a word that the model follows, or, rarely, of MMIO. */
static uint32_t some_offset(struct dice *dice)
{
	if (dice_one_in(dice, 40))
		return 0x20000000 + dice_below(dice, 1024) * 0x1000;
	return word_offset(dice_below(dice, NR_WORDS));
}

static uint64_t some_window(struct dice *dice, const struct model *model, uint32_t ept)
{
	uint64_t slot = (uint64_t)ept * model->nr_slots + dice_below(dice, model->nr_slots);

	return model->window_base + slot * GiB;
}

static uint64_t some_address(struct dice *dice, const struct model *model)
{
	const uint64_t odd[] = {
		model->window_base - 8, model->identity - 8,
		model->window_base + (uint64_t)model->nr_epts * model->nr_slots * GiB - 8,
		/* Where no RAM is either, should it be in that block. */
		model->identity / GiB * GiB + RAM_BYTES, model->identity / GiB * GiB - 8,
		(1ull << model->phys_bits) - 8, some_window(dice, model, 0) + GiB - 8,
		some_window(dice, model, model->ept) + GiB - 8,
	};

	switch (dice_below(dice, 16)) {
	case 0: case 1: case 2:
		return ram_block[dice_below(dice, NR_RAM)] * GiB + some_offset(dice);
	case 3:
		return model->identity + (dice_one_in(dice, 3) ? 0 : 8 * dice_below(dice, 512));
	case 4: case 5: case 6:
		return some_window(dice, model, hot_ept(dice, model)) + some_offset(dice);
	case 7:
		if (dice_one_in(dice, 4))
			return odd[dice_below(dice, sizeof(odd) / sizeof(odd[0]))];
		return some_window(dice, model, dice_below(dice, model->nr_epts)) +
		       some_offset(dice);
	default:
		return some_window(dice, model, model->ept) + some_offset(dice);
	}
}

static void choose_vmfunc(struct dice *dice, const struct model *model, struct op *op)
{
	op->kind = OP_VMFUNC;
	op->a[1] = ept_that(dice, model, true);
	if (dice_one_in(dice, 10))
		op->a[1] = odd_number(dice, model->nr_epts);
	if (dice_one_in(dice, 40))
		op->a[0] = odd_number(dice, 64);
}

/*
 * A fetch of MMIO is an internal error.  What is copied to or from MMIO goes
 * through the emulator, which cannot read the identity page.
 */
static bool fits(const struct model *model, const struct op *op)
{
	struct target target = model_target(model, op->a[0]);

	if (op->kind == OP_CALL)
		return target.kind != TARGET_MMIO;
	return op->kind != OP_COPY || target.kind != TARGET_IDENTITY;
}

static void choose_access(struct dice *dice, const struct model *model, struct op *op)
{
	do {
		memset(op->a, 0, sizeof(op->a));
		op->a[0] = some_address(dice, model);
		switch (dice_below(dice, 12)) {
		case 0:
			op->kind = OP_CALL;
			op->a[0] = op->a[0] / GiB * GiB + RAM_RET;
			break;
		case 1: case 2:
			op->kind = OP_COPY;
			op->a[1] = some_address(dice, model);
			break;
		case 3: case 4: case 5: case 6:
			op->kind = OP_WRITE;
			op->a[1] = dice_roll(dice);
			break;
		default:
			op->kind = OP_READ;
		}
	} while (!fits(model, op));
}

void choose_op(struct dice *dice, const struct model *model, struct op *op)
{
	uint32_t kind = dice_below(dice, 10);

	memset(op, 0, sizeof(*op));
	if (kind < 4) {
		choose_hypercall(dice, model, op);
		return;
	}
	op->user = dice_below(dice, 2);
	if (kind < 6)
		choose_vmfunc(dice, model, op);
	else
		choose_access(dice, model, op);
}
