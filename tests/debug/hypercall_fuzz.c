// SPDX-License-Identifier: MIT
/*
 * hypercall_fuzz SEQUENCES [SEED [VM]]: random sequences of hypercalls, VMFUNCs
 * and accesses on VMs of one vCPU, each compared with the model.
 *
 * Everything follows from the seed.  A SEED of 0 stands for a random one.  Each
 * VM has a process of its own and random numbers of its own: VM alone is what
 * it takes to see a failure again.
 */
#include "choose.h"
#include "fuzz.h"
#include "host.h"

/* Making a VM and changing its memslots take most of the time. */
#define SEQUENCES_PER_VM	1000

/* Shared with the processes of the VMs. */
static struct counts {
	unsigned long sequences, ops;
	unsigned long hypercalls[KVM_EPK_DESTROY + 2][2];	/* failed, succeeded */
	unsigned long vmfuncs[2];
	unsigned long accesses[2];
	unsigned long mmio;
	unsigned long host[NR_HOST_OPS];
	/* Time stamps, i.e. instructions in the emulator. */
	unsigned long vm_time, host_time, sequence_time;
} *counts;

static void count_op(const struct op *op)
{
	uint64_t nr = op->a[0] > KVM_EPK_DESTROY ? KVM_EPK_DESTROY + 1 : op->a[0];

	counts->ops++;
	if (op->kind == OP_HYPERCALL)
		counts->hypercalls[nr][op->result >= 0]++;
	else if (op->kind == OP_VMFUNC)
		counts->vmfuncs[!op->fault]++;
	else
		counts->accesses[!op->fault]++;
}

static void check_mmio(const struct runner *runner, const struct mmio *expected,
		       unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr && i < runner->nr_mmio; i++) {
		const struct mmio *a = &expected[i], *b = &runner->mmio[i];

		if (a->gpa != b->gpa || a->write != b->write || a->data != b->data)
			break;
	}
	if (i < nr || i < runner->nr_mmio)
		die("MMIO %u of %u (%u expected): %s %#lx %#lx, not %s %#lx %#lx", i,
		    runner->nr_mmio, nr, runner->mmio[i].write ? "write" : "read",
		    runner->mmio[i].gpa, runner->mmio[i].data,
		    expected[i].write ? "write" : "read", expected[i].gpa, expected[i].data);
	counts->mmio += nr;
}

static void one_sequence(struct dice *dice, struct machine *machine, struct model *model)
{
	struct prediction predictions[MAX_OPS];
	struct runner *runner = &machine->cpu[0];
	unsigned int nr = 1 + dice_below(dice, 12), i, nr_mmio = 0;
	struct mmio expected[MAX_MMIO];
	const char *what;

	for (i = 0; i < nr; i++) {
		struct prediction *p = &predictions[i];

		choose_op(dice, model, &runner->ops[i]);
		model_predict(model, &runner->ops[i], p);
		model_apply(model, &runner->ops[i], p);
		memcpy(expected + nr_mmio, p->mmio, p->nr_mmio * sizeof(p->mmio[0]));
		nr_mmio += p->nr_mmio;
	}
	runner->ops[nr].kind = OP_END;
	runner_run(runner);

	for (i = 0; i < nr; i++) {
		what = model_compare(&runner->ops[i], &predictions[i]);
		if (what) {
			printf("predicted: result %ld, %u errors (%ld), fault %#lx at %#lx; got:\n",
			       predictions[i].result, predictions[i].nr_errors,
			       predictions[i].error[0], predictions[i].fault,
			       predictions[i].address);
			for (nr = 0; nr <= i; nr++)
				op_print(&runner->ops[nr]);
			die("wrong %s in operation %u", what, i);
		}
		count_op(&runner->ops[i]);
	}
	check_mmio(runner, expected, nr_mmio);
	counts->sequences++;
}

/* Physical bits of the guest; with 33, memslots leave little room. */
static int some_phys_bits(struct dice *dice)
{
	const int bits[] = { 40, 40, 40, 40, 39, 38, 36, 33 };

	return bits[dice_below(dice, sizeof(bits) / sizeof(bits[0]))];
}

static void one_vm(uint64_t seed, unsigned int number, unsigned int sequences)
{
	struct dice dice = { .state = seed + number * 0xd1342543de82ef95ull };
	struct machine machine;
	static struct model model;
	unsigned int epts = max_epts(), i;
	uint64_t start = rdtsc();

	if (epts && dice_below(&dice, 2))
		epts = 1 + dice_below(&dice, epts);
	machine_create(&machine, 1, some_phys_bits(&dice), epts);
	model_init(&model, &machine);
	model_lay_out(&model, choose_layout(&dice, &model));
	counts->vm_time += rdtsc() - start;
	for (i = 0; i < sequences; i++) {
		start = rdtsc();
		if (dice_one_in(&dice, 32))
			counts->host[host_op(&dice, &machine, &model)]++;
		counts->host_time += rdtsc() - start;
		start = rdtsc();
		one_sequence(&dice, &machine, &model);
		counts->sequence_time += rdtsc() - start;
	}
	start = rdtsc();
	machine_destroy(&machine);
	counts->vm_time += rdtsc() - start;
}

static void print_counts(void)
{
	static const char *const names[] = {
		"query", "enable", "create", "fill", "empty", "destroy", "unknown",
	};
	unsigned int i;

	printf("%lu sequences of %lu operations; hypercalls (done, refused):", counts->sequences,
	       counts->ops);
	for (i = 0; i < KVM_EPK_DESTROY + 2; i++)
		printf(" %s %lu %lu", names[i], counts->hypercalls[i][1], counts->hypercalls[i][0]);
	printf("; VMFUNC %lu %lu; accesses (done, faults) %lu %lu; MMIO %lu; host:",
	       counts->vmfuncs[1], counts->vmfuncs[0], counts->accesses[1], counts->accesses[0],
	       counts->mmio);
	for (i = 0; i < NR_HOST_OPS; i++)
		printf(" %s %lu", host_op_names[i], counts->host[i]);
	printf("\nmillions of instructions: VMs %lu, sequences %lu, host %lu\n",
	       counts->vm_time / 1000000, counts->sequence_time / 1000000,
	       counts->host_time / 1000000);
}

int main(int argc, char **argv)
{
	unsigned int sequences = argc > 1 ? strtoul(argv[1], NULL, 0) : 0, vms;
	bool good;

	if (!sequences)
		die("hypercall_fuzz SEQUENCES [SEED [VM]]");
	counts = fuzz_begin(argv[2], sizeof(*counts));
	if (argc > 3)
		return !fuzz_vm(strtoul(argv[3], NULL, 0), SEQUENCES_PER_VM, one_vm);

	vms = (sequences + SEQUENCES_PER_VM - 1) / SEQUENCES_PER_VM;
	good = fuzz_vms(vms, sequences < SEQUENCES_PER_VM ? sequences : SEQUENCES_PER_VM, one_vm);
	print_counts();
	return !good;
}
