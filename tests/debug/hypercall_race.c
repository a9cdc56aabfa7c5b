// SPDX-License-Identifier: MIT
/*
 * hypercall_race VMS SEQUENCES [SEED]: as hypercall_fuzz, but two vCPUs do it at
 * once on the same EPTs while the VMM changes memslots under them.
 *
 * What each operation gives depends on who comes first.  What must hold: no
 * result that no order of events allows, no access to the window of an EPT that
 * the vCPU is not in, and, when both have stopped, a state that adds up.
 */
#include <linux/kvm_para.h>

#include "choose.h"
#include "fuzz.h"
#include "host.h"

struct side {
	struct machine *machine;
	unsigned int number, sequences;
	struct dice dice;
	/* What this vCPU believes, having seen its own operations alone. */
	struct model model;
	/* It is in this EPT, or in EPT 0 because this one was destroyed. */
	uint32_t ept;
	pthread_t thread;
};

static struct counts {
	unsigned long sequences, ops, host, succeeded[NR_OP_KINDS], failed[NR_OP_KINDS];
} *counts;

static volatile unsigned int sides_running;

static uint64_t signature(unsigned int i, unsigned int word)
{
	return 0xface000000000000ull | i << 16 | word;
}

/* Pages with an even number are never written. */
static bool is_signed(uint64_t gpa, unsigned int *word)
{
	for (*word = 0; *word < NR_WORDS; ++*word) {
		if (gpa % GiB == word_offset(*word))
			return *word / 2 % 2 == 0;
	}
	return false;
}

static void bad(const struct side *side, const struct op *op, const char *what)
{
	printf("vCPU %u, last in EPT %u:\n", side->number, side->ept);
	op_print(op);
	die("%s", what);
}

static void check_hypercall(const struct side *side, const struct op *op)
{
	struct prediction p;
	unsigned int i;

	model_predict(&side->model, op, &p);
	for (i = 0; i < p.nr_errors; i++) {
		/* Errors that depend on nothing but the arguments. */
		bool fixed = p.error[i] == -EINVAL || p.error[i] == -KVM_ENOSYS || op->user;

		if (fixed && op->result >= 0)
			bad(side, op, "a hypercall that cannot succeed did");
	}
	if (op->result == 0 || (op->result > 0 && op->a[0] == KVM_EPK_QUERY))
		return;
	switch (op->result) {
	case -KVM_ENOSYS: case -EINVAL: case -EPERM: case -EEXIST: case -ENOENT: case -EBUSY: case -EFAULT:
		return;
	}
	bad(side, op, "result of a hypercall");
}

static void check_vmfunc(struct side *side, const struct op *op)
{
	bool possible = !(uint32_t)op->a[0] && (uint32_t)op->a[1] < side->model.nr_epts;

	if (op->fault && op->fault != UD)
		bad(side, op, "fault of VMFUNC");
	if (!op->fault && !possible)
		bad(side, op, "VMFUNC");
	if (!op->fault)
		side->ept = op->a[1];
}

/* An access at @gpa did not fault. */
static void check_reached(struct side *side, const struct op *op, uint64_t gpa)
{
	const struct model *model = &side->model;
	uint64_t slot = (gpa - model->window_base) / GiB;

	if (!model_in_windows(model, gpa))
		return;
	if (slot / model->nr_slots == side->ept)
		return;
	if (slot / model->nr_slots)
		bad(side, op, "memory of another EPT");
	side->ept = 0;
}

static void check_value(struct side *side, const struct op *op, const struct runner *runner)
{
	unsigned int word, i;

	if (op->a[0] == side->model.identity) {
		if ((uint32_t)op->result == 0)
			side->ept = 0;
		if ((uint32_t)op->result != side->ept || op->result >> 32 != KVM_EPK_VERSION)
			bad(side, op, "identity page");
	}
	if (!is_signed(op->a[0], &word) || !op->result)
		return;
	for (i = 0; i < NR_RAM; i++) {
		if ((uint64_t)op->result == signature(i, word))
			return;
	}
	for (i = 0; i < runner->nr_mmio; i++) {
		if (!runner->mmio[i].write && (uint64_t)op->result == runner->mmio[i].data)
			return;
	}
	bad(side, op, "value read");
}

static void check_access(struct side *side, const struct op *op, const struct runner *runner)
{
	const uint64_t ignored = PF_W;

	if (op->fault) {
		if ((op->fault & ~ignored) != PF(PF_P | PF_PK | (op->user ? PF_U : 0)))
			bad(side, op, "fault of an access");
		if (!model_in_windows(&side->model, op->address) &&
		    op->address / PAGE != side->model.identity / PAGE)
			bad(side, op, "a domain fault at ordinary memory");
		return;
	}
	check_reached(side, op, op->a[0]);
	if (op->kind == OP_COPY)
		check_reached(side, op, op->a[1]);
	if (op->kind == OP_READ)
		check_value(side, op, runner);
}

static void choose(struct side *side, struct op *op)
{
	unsigned int word;

	do {
		choose_op(&side->dice, &side->model, op);
		/* Fetching from a memslot that vanishes is an internal error. */
		if (op->kind == OP_CALL) {
			op->kind = OP_READ;
			op->a[0] = op->a[0] / GiB * GiB + word_offset(0);
		}
	} while ((op->kind == OP_WRITE && is_signed(op->a[0], &word)) ||
		 (op->kind == OP_COPY && is_signed(op->a[1], &word)));
}

static void one_sequence(struct side *side)
{
	struct runner *runner = &side->machine->cpu[side->number];
	unsigned int nr = 1 + dice_below(&side->dice, 12), i;

	for (i = 0; i < nr; i++)
		choose(side, &runner->ops[i]);
	runner->ops[nr].kind = OP_END;
	runner_run(runner);

	for (i = 0; i < nr; i++) {
		struct op *op = &runner->ops[i];
		struct prediction done = { .nr_errors = op->kind == OP_HYPERCALL && op->result < 0,
					   .fault = op->fault };

		if (op->kind == OP_HYPERCALL)
			check_hypercall(side, op);
		else if (op->kind == OP_VMFUNC)
			check_vmfunc(side, op);
		else
			check_access(side, op, runner);
		if (op->kind == OP_HYPERCALL || op->kind == OP_VMFUNC)
			model_apply(&side->model, op, &done);
		if (done.nr_errors || done.fault)
			__atomic_add_fetch(&counts->failed[op->kind], 1, __ATOMIC_RELAXED);
		else
			__atomic_add_fetch(&counts->succeeded[op->kind], 1, __ATOMIC_RELAXED);
	}
	__atomic_add_fetch(&counts->sequences, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&counts->ops, nr, __ATOMIC_RELAXED);
}

static void *side_main(void *arg)
{
	struct side *side = arg;
	unsigned int i;

	for (i = 0; i < side->sequences; i++)
		one_sequence(side);
	__atomic_sub_fetch(&sides_running, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Both vCPUs have stopped: take everything away and count. */
static void check_end(struct machine *machine, const struct model *model)
{
	int64_t epts = machine_hypercall(machine, KVM_EPK_QUERY, KVM_EPK_QUERY_EPTS, 0, 0);
	struct runner *other = &machine->cpu[1];
	int64_t found = 1, r;
	uint32_t i;

	for (i = 1; i < model->nr_epts; i++) {
		r = machine_hypercall(machine, KVM_EPK_DESTROY, i, 1, 0);
		if (r && r != -ENOENT)
			die("destroying EPT %u: %ld", i, r);
		found += !r;
	}
	if (found != epts)
		die("%ld EPTs by the query, %ld in fact", epts, found);
	for (i = 0; i < model->nr_slots; i++) {
		r = machine_hypercall(machine, KVM_EPK_EMPTY, 0, 1, KVM_EPK_RUN(i, 0, 1));
		if (r && r != -ENOENT)
			die("emptying slot %u of EPT 0: %ld", i, r);
	}

	other->ops[0] = (struct op){ .kind = OP_READ, .a = { model->identity } };
	other->ops[1] = (struct op){ .kind = OP_VMFUNC, .a = { 0, 1 } };
	other->ops[2] = (struct op){ .kind = OP_READ, .a = { model->window_base } };
	other->ops[3].kind = OP_END;
	runner_run(other);
	if ((uint32_t)other->ops[0].result || other->ops[1].fault != UD ||
	    other->ops[2].fault != PF(PF_P | PF_PK))
		die("an EPT outlived its end: in EPT %u, faults %#lx %#lx",
		    (uint32_t)other->ops[0].result, other->ops[1].fault, other->ops[2].fault);
}

static void one_vm(uint64_t seed, unsigned int number, unsigned int sequences)
{
	static struct side sides[2];
	static struct model model;
	struct dice dice = { .state = seed + number * 0xd1342543de82ef95ull };
	struct machine machine;
	unsigned int i, w;

	for (i = 0; i < NR_RAM; i++) {
		for (w = 0; w < NR_WORDS; w++)
			*(uint64_t *)(ram[i] + word_offset(w)) = signature(i, w);
	}
	machine_create(&machine, 2, dice_below(&dice, 2) ? 40 : 36, max_epts());
	model_init(&model, &machine);
	model_lay_out(&model, choose_layout(&dice, &model));
	while (machine_enable(&machine, model_layout(&model)) == -EBUSY)
		model_lay_out(&model, choose_layout(&dice, &model));
	model.enabled = model.exists[0] = true;
	model.epts = 1;

	sides_running = 2;
	for (i = 0; i < 2; i++) {
		sides[i] = (struct side){ .machine = &machine, .number = i, .model = model,
					  .sequences = sequences,
					  .dice = { .state = dice_roll(&dice) } };
		REQUIRE(!pthread_create(&sides[i].thread, NULL, side_main, &sides[i]));
	}
	while (sides_running) {
		host_op(&dice, &machine, &model);
		counts->host++;
		usleep(dice_below(&dice, 200));
	}
	for (i = 0; i < 2; i++)
		REQUIRE(!pthread_join(sides[i].thread, NULL));
	check_end(&machine, &model);
	machine_destroy(&machine);
}

static void print_counts(void)
{
	static const char *const names[NR_OP_KINDS] = {
		"", "hypercall", "VMFUNC", "read", "write", "copy", "call",
	};
	unsigned int i;

	printf("%lu sequences of %lu operations on two vCPUs, %lu operations of the VMM;"
	       " (done, refused):", counts->sequences, counts->ops, counts->host);
	for (i = OP_HYPERCALL; i < OP_CALL; i++)
		printf(" %s %lu %lu", names[i], counts->succeeded[i], counts->failed[i]);
	printf("\n");
}

int main(int argc, char **argv)
{
	unsigned int vms = argc > 2 ? strtoul(argv[1], NULL, 0) : 0;
	bool good;

	if (!vms)
		die("hypercall_race VMS SEQUENCES [SEED]");
	counts = fuzz_begin(argv[3], sizeof(*counts));
	good = fuzz_vms(vms, strtoul(argv[2], NULL, 0), one_vm);
	print_counts();
	return !good;
}
