// SPDX-License-Identifier: MIT
#include "ops.h"

const uint32_t ram_block[NR_RAM] = { 0, 1, 2, 4, 7 };
uint8_t *ram[NR_RAM];

static struct op lists[2][MAX_OPS + 1];

/* The guest's half: one operation, at whatever CPL the caller has. */
static long guest_op(long arg)
{
	struct op *op = (struct op *)arg;
	uint64_t value = 0;

	switch (op->kind) {
	case OP_HYPERCALL:
		op->result = hypercall(op->a[0], op->a[1], op->a[2], op->a[3]);
		break;
	case OP_VMFUNC:
		op->fault = try_vmfunc(op->a[0], op->a[1]);
		break;
	case OP_READ:
		op->fault = TRY("movq (%1), %0", "+&r"(value), "r"(at(op->a[0])));
		op->result = value;
		break;
	case OP_WRITE:
		op->fault = try_write(at(op->a[0]), op->a[1]);
		break;
	case OP_COPY:
		op->fault = TRY("movsq", , "S"(at(op->a[0])), "D"(at(op->a[1])));
		break;
	case OP_CALL:
		op->fault = try_fetch(at(op->a[0]));
		break;
	}
	if (op->fault)
		op->address = this_cpu()->fault_address - DIRECT_MAP;
	return 0;
}

static void guest(void)
{
	struct op *op;

	for (;;) {
		for (op = lists[this_cpu()->number]; op->kind != OP_END; op++) {
			if (op->user)
				run_user(guest_op, (long)op);
			else
				guest_op((long)op);
		}
		guest_sync(1);
	}
}

uint64_t mmio_pattern(uint64_t gpa)
{
	return gpa * 0x9e3779b97f4a7c15ull ^ 0x5a5a5a5a5a5a5a5aull;
}

void ram_init(void)
{
	int i;

	for (i = 0; i < NR_RAM; i++) {
		ram[i] = huge_aligned_memory(RAM_BYTES);
		ram[i][RAM_RET] = 0xc3;
	}
}

int machine_set_ram(struct machine *machine, unsigned int i, uint32_t flags)
{
	bool gone = flags == NO_RAM;
	int r = vm_memslot(machine->vm, i, gone ? 0 : flags, ram_block[i] * GiB,
			   gone ? 0 : RAM_BYTES, ram[i]);

	if (!r)
		machine->flags[i] = flags;
	return r;
}

void machine_create(struct machine *machine, unsigned int nr_cpus, int phys_bits,
		    unsigned int epts)
{
	unsigned int i;

	*machine = (struct machine){ .vm = vm_create_narrow(phys_bits), .nr_cpus = nr_cpus,
				      .epts = epts };
	if (epts)
		REQUIRE(!vm_enable_cap(machine->vm, KVM_CAP_EPK, epts));
	for (i = 0; i < NR_RAM; i++)
		REQUIRE(!machine_set_ram(machine, i, 0));
	for (i = 0; i < nr_cpus; i++) {
		machine->cpu[i].vcpu = vcpu_add(machine->vm, guest);
		machine->cpu[i].ops = lists[i];
	}
}

void machine_destroy(struct machine *machine)
{
	vm_destroy(machine->vm);
}

static int do_mmio(struct runner *runner)
{
	struct kvm_run *run = runner->vcpu->run;
	struct mmio *mmio = &runner->mmio[runner->nr_mmio];

	if (runner->nr_mmio == MAX_MMIO || run->mmio.len != 8)
		return -EPROTO;
	runner->nr_mmio++;
	mmio->gpa = run->mmio.phys_addr;
	mmio->write = run->mmio.is_write;
	mmio->data = mmio_pattern(mmio->gpa);
	if (mmio->write)
		memcpy(&mmio->data, run->mmio.data, 8);
	else
		memcpy(run->mmio.data, &mmio->data, 8);
	return 0;
}

int runner_try(struct runner *runner)
{
	struct kvm_run *run = runner->vcpu->run;

	runner->unfinished = true;
	for (;;) {
		if (ioctl(runner->vcpu->fd, KVM_RUN, 0))
			return -errno;
		if (run->exit_reason == KVM_EXIT_MMIO && !do_mmio(runner))
			continue;
		if (run->exit_reason == KVM_EXIT_IO && run->io.port == GUEST_PORT &&
		    *(uint32_t *)((char *)run + run->io.data_offset) == GUEST_SYNC) {
			runner->unfinished = false;
			return 0;
		}
		return -EPROTO;
	}
}

void runner_run(struct runner *runner)
{
	struct kvm_run *run = runner->vcpu->run;
	int r;

	runner->nr_mmio = 0;
	r = runner_try(runner);
	if (r)
		die("KVM_RUN: %s; exit reason %u, MMIO %#llx of %u bytes, internal error %u",
		    strerror(-r), run->exit_reason, run->mmio.phys_addr, run->mmio.len,
		    run->internal.suberror);
}

int64_t machine_hypercall(struct machine *machine, uint64_t op, uint64_t a1, uint64_t a2,
			  uint64_t a3)
{
	struct op *ops = machine->cpu[0].ops;

	ops[0] = (struct op){ .kind = OP_HYPERCALL, .a = { op, a1, a2, a3 } };
	ops[1] = (struct op){ .kind = OP_END };
	runner_run(&machine->cpu[0]);
	return ops[0].result;
}

void op_print(const struct op *op)
{
	static const char *const names[NR_OP_KINDS] = {
		"end", "hypercall", "vmfunc", "read", "write", "copy", "call",
	};

	printf("  %s%s %#lx %#lx %#lx %#lx: %ld (%#lx), fault %#lx at %#lx\n", names[op->kind],
	       op->user ? " (user)" : "", op->a[0], op->a[1], op->a[2], op->a[3], op->result,
	       op->result, op->fault, op->address);
}

int64_t machine_enable(struct machine *machine, struct layout at)
{
	return machine_hypercall(machine, KVM_EPK_ENABLE, KVM_EPK_VERSION,
				 KVM_EPK_WINDOWS(at.window_base / GiB, at.epts, at.slots),
				 at.identity);
}
