/* SPDX-License-Identifier: MIT */
/*
 * A guest that executes lists of operations, on the VMM of tests/kvm.
 *
 * Some blocks of the guest's memory have RAM, RAM_BYTES from their start; all
 * other addresses are MMIO.  RAM outlives the VMs that use it.
 */
#ifndef EPK_DEBUG_OPS_H
#define EPK_DEBUG_OPS_H

#include "vmm.h"

#define NR_RAM		5
#define RAM_BYTES	(4 * MiB)
extern const uint32_t ram_block[NR_RAM];
extern uint8_t *ram[NR_RAM];

/* A "ret" stands here in each. */
#define RAM_RET		0x180000u
/* Here, in any block, the guest may have its state saved. */
#define RAM_SAVED	0x100000u

#define MAX_OPS		24
#define MAX_MMIO	(4 * MAX_OPS)

enum op_kind {
	OP_END,
	OP_HYPERCALL,	/* a: the operation and its arguments */
	OP_VMFUNC,	/* a: leaf, index */
	OP_READ,	/* a: address */
	OP_WRITE,	/* a: address, value */
	OP_COPY,	/* a: from, to; one instruction */
	OP_CALL,	/* a: address of a "ret" */
	NR_OP_KINDS
};

/* Addresses are guest-physical ones. */
struct op {
	uint32_t kind;
	uint32_t user;		/* at CPL 3 */
	uint64_t a[4];
	/* Filled in by the guest. */
	int64_t result;		/* what a hypercall returned, what was read */
	uint64_t fault;		/* 0 or FAULT() */
	uint64_t address;	/* guest-physical, that a #PF was raised for */
};

struct mmio {
	uint64_t gpa;
	uint64_t data;
	bool write;
};

/* One vCPU: its list, and what it did to MMIO. */
struct runner {
	struct vcpu *vcpu;
	struct op *ops;
	struct mmio mmio[MAX_MMIO];
	unsigned int nr_mmio;
	bool unfinished;	/* KVM_RUN failed in the middle of the list */
};

struct machine {
	struct vm *vm;
	unsigned int nr_cpus;
	unsigned int epts;	/* for KVM_CAP_EPK, or 0 */
	struct runner cpu[2];
	/* Flags of each memslot, or NO_RAM. */
	uint32_t flags[NR_RAM];
};
#define NO_RAM		(~0u)

void ram_init(void);
/* @epts: for KVM_CAP_EPK, or 0 to leave it to the module parameter. */
void machine_create(struct machine *machine, unsigned int nr_cpus, int phys_bits,
		    unsigned int epts);
void machine_destroy(struct machine *machine);
/* Give a memslot these flags, or delete it; 0 or -errno. */
int machine_set_ram(struct machine *machine, unsigned int i, uint32_t flags);

/* What a read of MMIO gets. */
uint64_t mmio_pattern(uint64_t gpa);
/* Run the list, up to its OP_END: 0, or -errno of KVM_RUN, which may be repeated. */
int runner_try(struct runner *runner);
/* The same; dies. */
void runner_run(struct runner *runner);
void op_print(const struct op *op);

/* By the first vCPU, as the next. */
int64_t machine_enable(struct machine *machine, struct layout at);
/* One hypercall. */
int64_t machine_hypercall(struct machine *machine, uint64_t op, uint64_t a1, uint64_t a2,
			  uint64_t a3);

#endif
