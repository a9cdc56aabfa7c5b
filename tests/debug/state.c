// SPDX-License-Identifier: MIT
/* Save and restore of what a guest has set up, against the model. */
#include "host.h"

#define POLL_CONTROL	0x4b564d05

/* As many VMs can follow one another in a process; see tests/kvm/vcpu.c. */
#define MAX_RESTORES	6

struct full_state {
	struct kvm_epk_state state;
	struct kvm_epk_run runs[MAX_SLOTS];
};

static struct full_state saved;

/* What its runs fill slots with, by EPT and slot; ends if there is no such slot, or it is filled twice. */
static uint32_t *blocks_of(const struct full_state *full)
{
	uint32_t slots = full->state.window_slots, i, ept, n;
	uint32_t *block = calloc((uint64_t)full->state.nr_epts * slots + 1, sizeof(*block));

	REQUIRE(block);
	for (i = 0; i < full->state.nr_runs; i++) {
		const struct kvm_epk_run *run = &full->runs[i];
		uint32_t slot = KVM_EPK_RUN_SLOT(run->run), nr = KVM_EPK_RUN_COUNT(run->run);

		if ((uint64_t)run->first + run->count > full->state.nr_epts || slot + nr > slots)
			die("run %u: EPTs %u+%u, %#llx", i, run->first, run->count, run->run);
		for (ept = run->first; ept < run->first + run->count; ept++) {
			for (n = 0; n < nr; n++) {
				uint32_t *to = &block[ept * slots + slot + n];

				if (*to || !(full->state.epts[ept / 64] >> ept % 64 & 1))
					die("run %u fills slot %u of EPT %u", i, slot + n, ept);
				*to = KVM_EPK_RUN_BLOCK(run->run) + n + 1;
			}
		}
	}
	return block;
}

/* Every slot that a saved run fills must be filled so, and no other. */
static void check_runs(const struct model *model)
{
	uint32_t *block = blocks_of(&saved), i;

	for (i = 0; i < model->nr_epts * model->nr_slots; i++) {
		if (block[i] != model->block[i])
			die("slot %u is saved with block %d, not %d", i, (int)block[i] - 1,
			    (int)model->block[i] - 1);
	}
	free(block);
}

static void save(struct machine *machine, const struct model *model)
{
	uint32_t i, nr_runs;
	int r;

	saved.state.nr_runs = 0;
	r = ioctl(machine->vm->fd, KVM_GET_EPK_STATE, &saved);
	if (r && errno != E2BIG)
		die("KVM_GET_EPK_STATE: %s", strerror(errno));
	nr_runs = saved.state.nr_runs;
	if (nr_runs > MAX_SLOTS || !!r != !!nr_runs)
		die("KVM_GET_EPK_STATE returns %d and %u runs", r, nr_runs);
	if (r)
		REQUIRE(!ioctl(machine->vm->fd, KVM_GET_EPK_STATE, &saved));
	if (saved.state.nr_runs != nr_runs || saved.state.version != (model->enabled ? KVM_EPK_VERSION : 0))
		die("saved state: %u runs, version %u", saved.state.nr_runs, saved.state.version);
	if (!model->enabled)
		return;
	if (saved.state.window_base != model->window_base ||
	    saved.state.window_slots != model->nr_slots ||
	    saved.state.nr_epts != model->nr_epts || saved.state.identity != model->identity)
		die("saved layout: %u EPTs of %u slots from %#llx, identity page %#llx",
		    saved.state.nr_epts, saved.state.window_slots, saved.state.window_base,
		    saved.state.identity);
	for (i = 0; i < KVM_EPK_MAX_EPTS; i++) {
		if ((saved.state.epts[i / 64] >> i % 64 & 1) != model->exists[i])
			die("EPT %u is saved as %sexisting", i, model->exists[i] ? "not " : "");
	}
	check_runs(model);
}

static uint64_t msr_of(struct machine *machine)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry.index = POLL_CONTROL };

	REQUIRE(ioctl(machine->cpu[0].vcpu->fd, KVM_GET_MSRS, &msrs) == 1);
	return msrs.entry.data & ~1ull;
}

static bool set_msr(int vcpu, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry = { .index = POLL_CONTROL, .data = value | 1 } };
	int r = ioctl(vcpu, KVM_SET_MSRS, &msrs);

	if (r != 0 && r != 1)
		die("KVM_SET_MSRS: %d", r);
	return r;
}

/* Does the guest have anything that it could lose? */
static bool model_trivial(const struct model *model)
{
	uint32_t i;

	for (i = 0; i < model->nr_epts * model->nr_slots; i++) {
		if (model->block[i])
			return false;
	}
	return model->epts <= 1;
}

/* For who does not know of EPK, in a machine that has the capability from the module parameter. */
static uint64_t model_msr(const struct model *model)
{
	if (model->saved_at)
		return KVM_EPK_MSR_SET | model->saved_at | (uint64_t)model->ept << 48;
	return model->enabled && !model_trivial(model) ? KVM_EPK_MSR_SET : 0;
}

static void *saved_in_ram(const struct model *model)
{
	unsigned int i;

	for (i = 0; ram_block[i] != model->saved_at / GiB; i++)
		;
	return ram[i] + model->saved_at % GiB;
}

/* What lies in the guest's memory says the same. */
static void check_saved(struct machine *machine, const struct model *model)
{
	const struct kvm_epk_saved *in_ram;
	uint64_t msr = msr_of(machine), wanted = machine->epts ? 0 : model_msr(model);
	struct kvm_epk_state head = saved.state;

	if (msr != wanted)
		die("the MSR has %#lx, not %#lx", msr, wanted);
	if (!model->saved_at)
		return;
	in_ram = saved_in_ram(model);
	head.nr_runs = 0;
	if (in_ram->magic != KVM_EPK_SAVED_MAGIC || memcmp(&in_ram->state, &head, sizeof(head)))
		die("what is saved at %#lx is another state", model->saved_at);
	if (memcmp((char *)in_ram + KVM_EPK_SAVED_SLOTS, model->block,
		   4ul * model->nr_epts * model->nr_slots))
		die("what is saved at %#lx are other slots", model->saved_at);
}

static uint32_t vcpu_ept(struct machine *machine)
{
	struct kvm_epk_vcpu vcpu;

	REQUIRE(!ioctl(machine->cpu[0].vcpu->fd, KVM_GET_EPK_VCPU, &vcpu));
	return vcpu.ept;
}

void state_check(struct machine *machine, const struct model *model)
{
	save(machine, model);
	if (vcpu_ept(machine) != model->ept)
		die("the vCPU is in EPT %u, not %u", vcpu_ept(machine), model->ept);
	check_saved(machine, model);
}

/* The guest goes on in another VM. */
bool state_move(struct machine *machine, struct model *model)
{
	struct kvm_epk_vcpu vcpu = { .ept = model->ept };
	int phys_bits = machine->vm->phys_bits;
	static unsigned int restores;
	uint32_t flags[NR_RAM], i;

	if (restores++ == MAX_RESTORES)
		return false;
	state_check(machine, model);
	memcpy(flags, machine->flags, sizeof(flags));
	machine_destroy(machine);
	machine_create(machine, 1, phys_bits, machine->epts);
	for (i = 0; i < NR_RAM; i++) {
		if (flags[i] != machine->flags[i])
			REQUIRE(!machine_set_ram(machine, i, NO_RAM) &&
				(flags[i] == NO_RAM || !machine_set_ram(machine, i, flags[i])));
	}
	/* While its memory is there, by the MSR, too. */
	if (model->saved_at && !machine->epts && restores % 2 &&
	    model_writable(model, model->saved_at, PAGE)) {
		if (!set_msr(machine->cpu[0].vcpu->fd, model_msr(model)))
			die("a saved state is refused");
	} else {
		if (ioctl(machine->vm->fd, KVM_SET_EPK_STATE, &saved))
			die("KVM_SET_EPK_STATE: %s", strerror(errno));
		REQUIRE(!ioctl(machine->cpu[0].vcpu->fd, KVM_SET_EPK_VCPU, &vcpu));
		model->saved_at = 0;
	}
	/* What was written is not part of it. */
	memset(model->dirty, 0, sizeof(model->dirty));
	state_check(machine, model);
	return true;
}

void state_set_ept(struct dice *dice, struct machine *machine, struct model *model)
{
	struct kvm_epk_vcpu vcpu = { .ept = dice_below(dice, model->nr_epts + 2) };
	int expected = 0, r;

	if (dice_below(dice, 2))
		vcpu.ept = dice_below(dice, 8);
	if (vcpu.ept >= KVM_EPK_MAX_EPTS)
		expected = -EINVAL;
	else if (model->enabled ? !model->exists[vcpu.ept] : vcpu.ept)
		expected = -ENOENT;
	r = ioctl(machine->cpu[0].vcpu->fd, KVM_SET_EPK_VCPU, &vcpu) ? -errno : 0;
	if (r != expected)
		die("KVM_SET_EPK_VCPU to EPT %u: %d, not %d", vcpu.ept, r, expected);
	if (!r)
		model->ept = vcpu.ept;
}

/* Is it what was given, to its last slot?  The runs may be others. */
static void check_restored(const struct full_state *again)
{
	uint32_t slots = saved.state.nr_epts * saved.state.window_slots;
	struct kvm_epk_state given = saved.state, there = again->state;
	uint32_t *wanted, *block;

	given.nr_runs = there.nr_runs = 0;
	if (memcmp(&given, &there, sizeof(given)))
		die("a state that was taken is not there");
	wanted = blocks_of(&saved);
	block = blocks_of(again);
	if (memcmp(block, wanted, slots * sizeof(*block)))
		die("a state that was taken is there in part");
	free(wanted);
	free(block);
}

/* A VM that has nothing yet takes what it is given, all of it, or has nothing still. */
static void restore_anew(uint32_t epts)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EPK, .args = { epts } };
	static struct full_state again;
	int vm = ioctl(kvm_fd, KVM_CREATE_VM, 0), r;
	bool all;

	REQUIRE(vm >= 0 && (!epts || !ioctl(vm, KVM_ENABLE_CAP, &cap)));
	r = ioctl(vm, KVM_SET_EPK_STATE, &saved);
	again.state.nr_runs = MAX_SLOTS;
	all = !ioctl(vm, KVM_GET_EPK_STATE, &again);
	if (!all && errno != E2BIG)
		die("KVM_GET_EPK_STATE of a new VM: %s", strerror(errno));
	if (r && (again.state.version || again.state.nr_runs))
		die("a state that was refused is there");
	/* Other runs may be more of them. */
	if (!r && all)
		check_restored(&again);
	close(vm);
}

/* The same with what lies in memory, some of it wrong: a new VM takes it, or has nothing still. */
static void restore_spoilt(struct dice *dice, const struct model *model)
{
	uint32_t size = 4096 + 4 * model->nr_epts * model->nr_slots, i;
	uint64_t msr = model_msr(model);
	uint8_t *in_ram = saved_in_ram(model), *copy = malloc(size);
	struct kvm_epk_state after = { 0 };
	int vm, vcpu, slot;
	bool taken;

	memcpy(copy, in_ram, size);
	for (i = dice_below(dice, 4); i; i--)
		in_ram[dice_below(dice, 2) ? dice_below(dice, sizeof(struct kvm_epk_saved)) :
					    dice_below(dice, size)] ^= 1 << dice_below(dice, 8);
	if (dice_one_in(dice, 4))
		msr ^= 1ull << dice_below(dice, 63);
	vm = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	REQUIRE(vm >= 0);
	for (slot = 0; slot < NR_RAM; slot++) {
		struct kvm_userspace_memory_region region = {
			.slot = slot, .guest_phys_addr = ram_block[slot] * GiB,
			.memory_size = RAM_BYTES, .userspace_addr = (uint64_t)ram[slot],
		};

		REQUIRE(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region));
	}
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	REQUIRE(vcpu >= 0);
	taken = set_msr(vcpu, msr & ~1ull);
	if (ioctl(vm, KVM_GET_EPK_STATE, &after) && errno != E2BIG)
		die("KVM_GET_EPK_STATE of a new VM: %s", strerror(errno));
	if (!taken && (after.version || after.nr_runs))
		die("a saved state that was refused is there");
	close(vcpu);
	close(vm);
	memcpy(in_ram, copy, size);
	free(copy);
}

/* A layout that is one, or nearly. */
static void spoil_layout(struct dice *dice)
{
	saved.state.window_base = (uint64_t)dice_roll(dice) >> (16 + dice_below(dice, 33)) << 30;
	saved.state.window_slots = 1u << dice_below(dice, 11);
	saved.state.nr_epts = dice_below(dice, KVM_EPK_MAX_EPTS + 2);
	saved.state.identity = (uint64_t)dice_roll(dice) >> (15 + dice_below(dice, 17)) << 12;
	saved.state.nr_runs = dice_below(dice, saved.state.nr_runs + 1);
	if (dice_below(dice, 2))
		memset(saved.state.epts + 1, 0, sizeof(saved.state.epts) - 8);
}

/* What a VM must not accept; whatever it says, nothing changes. */
void state_spoil(struct dice *dice, struct machine *machine, struct model *model)
{
	uint8_t *bytes = (uint8_t *)&saved;
	uint32_t i;

	save(machine, model);
	if (model->saved_at && dice_below(dice, 2))
		restore_spoilt(dice, model);
	if (model->enabled && dice_below(dice, 2))
		spoil_layout(dice);
	for (i = dice_below(dice, 4); i; i--)
		bytes[dice_below(dice, sizeof(saved.state) + 64)] ^= 1 << dice_below(dice, 8);
	if (saved.state.nr_runs > MAX_SLOTS)
		saved.state.nr_runs = MAX_SLOTS;
	restore_anew(machine->epts);
	/* A guest that has enabled EPK keeps what it has. */
	if (model->enabled && !ioctl(machine->vm->fd, KVM_SET_EPK_STATE, &saved))
		die("KVM_SET_EPK_STATE on a guest that has enabled EPK");
	state_check(machine, model);
}
