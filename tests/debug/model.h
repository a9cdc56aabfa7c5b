/* SPDX-License-Identifier: MIT */
/*
 * What a VM with one vCPU has to do: an oracle for struct op.
 *
 * model_predict() says what an operation must give; model_apply() makes the
 * change that it makes if it succeeds.
 */
#ifndef EPK_DEBUG_MODEL_H
#define EPK_DEBUG_MODEL_H

#include "ops.h"

#define MAX_SLOTS	4096

/* The words of RAM that operations touch: the same in each block's RAM. */
#define NR_WORDS	32
uint32_t word_offset(unsigned int word);

struct model {
	int phys_bits;
	uint32_t max_epts;
	/* As EPK is enabled, or as it may be soon. */
	uint64_t window_base, identity;
	uint32_t nr_epts, nr_slots;
	bool enabled;
	uint32_t ept;			/* of the vCPU */
	uint32_t epts;			/* that exist */
	bool exists[KVM_EPK_MAX_EPTS];
	uint64_t saved_at;		/* or 0 */
	/* By nr_slots * EPT + slot: block + 1, or 0. */
	uint32_t block[MAX_SLOTS];
	uint32_t flags[NR_RAM];		/* of the memslots, or NO_RAM */
	uint64_t word[NR_RAM][NR_WORDS];
	/* Pages that the guest wrote since the log was read; bit: word / 2. */
	uint32_t dirty[NR_RAM];
};

#define MAX_ERRORS	6

/* What an operation must give. */
struct prediction {
	/* Of a hypercall: any of these errors, or, if there are none, the result. */
	int64_t error[MAX_ERRORS];
	unsigned int nr_errors;
	bool any_result;
	int64_t result;
	/* 0 or FAULT(); the address of a #PF. */
	uint64_t fault, address;
	struct mmio mmio[2];
	unsigned int nr_mmio;
};

enum target_kind { TARGET_WORD, TARGET_RET, TARGET_IDENTITY, TARGET_FAULT, TARGET_MMIO };

/* What is at a guest-physical address, in the EPT that the vCPU is in. */
struct target {
	enum target_kind kind;
	uint64_t gpa;		/* without windows */
	unsigned int ram, word;
};

/* Ask the VM what it may have; its windows will be the upper half. */
void model_init(struct model *model, struct machine *machine);
void model_lay_out(struct model *model, struct layout at);
struct layout model_layout(const struct model *model);
bool model_in_windows(const struct model *model, uint64_t gpa);
/* Are these blocks, at least one, neither windows nor the identity page's, and in reach of views? */
bool model_ordinary_blocks(const struct model *model, uint64_t block, uint64_t nr);
/* Is there memory that KVM can write to? */
bool model_writable(const struct model *model, uint64_t gpa, uint64_t size);
struct target model_target(const struct model *model, uint64_t gpa);
void model_predict(const struct model *model, const struct op *op, struct prediction *prediction);
void model_apply(struct model *model, const struct op *op, const struct prediction *prediction);
/* What is wrong, or NULL. */
const char *model_compare(const struct op *op, const struct prediction *prediction);
/* Memslots and host memory changed behind the guest. */
void model_set_ram(struct model *model, unsigned int i, uint32_t flags);
void model_forget(struct model *model, unsigned int i, unsigned int word);

#endif
