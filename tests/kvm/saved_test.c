// SPDX-License-Identifier: MIT
/*
 * A VMM that does not know of EPK moves a VM: what KVM keeps in the guest's memory, and the
 * MSR that says where.
 */
#include <linux/userfaultfd.h>

#include "moved.h"

#define SAVED_AT		0x100000ull
#define ROWS			(SAVED_AT + KVM_EPK_SAVED_SLOTS)
#define POLL_CONTROL		0x4b564d05
#define FEATURE_POLL_CONTROL	12
/* What the guest has in the MSR from the start. */
#define POLLS			1ull

static uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static uint32_t try_wrmsr(uint32_t msr, uint64_t value)
{
	return TRY("wrmsr", , "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static void guest_set_up(void)
{
	epk_set_up(0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 5, 2, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 5, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 0, 0), 0);
	/* And what comes after that. */
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 9, 3, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 9, 3, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 10, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 11, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 511, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 511, 1, KVM_EPK_RUN(0, 1, 1)), 0);
}

static void guest_first(void)
{
	guest_set_up();
	vmfunc(5);
	write64(alias(5, DATA), 55);
	guest_sync(1);
	GUEST_EQ(current_ept(), 5);
	GUEST_EQ(read64(alias(5, DATA)), 55);
	GUEST_EQ(try_read(alias(511, DATA)), DOMAIN_FAULT(0));
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 6);
	GUEST_EQ(try_vmfunc(0, 11), UD);
	GUEST_EQ(try_vmfunc(0, 10), 0);
	GUEST_EQ(try_read(alias(10, DATA)), DOMAIN_FAULT(0));
	GUEST_EQ(try_vmfunc(0, 9), 0);
	GUEST_EQ(read64(alias(9, DATA)), 55);
	GUEST_EQ(epk_enable_at(layout), -EEXIST);
	/* It is kept from here on, too. */
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 7, 1, 0), 0);
	GUEST_CHECK(((struct kvm_epk_saved *)at(SAVED_AT))->state.epts[0] >> 7 & 1);
}

static struct vm *machine(void)
{
	struct vm *vm = vm_create();

	give_memory(vm);
	vcpu_add(vm, guest_first);
	vcpu_add(vm, guest_second);
	return vm;
}

static struct vm *running(void)
{
	struct vm *vm = machine();

	vcpu_run_sync(&vm->vcpus[0], 1);
	vcpu_run_sync(&vm->vcpus[1], 1);
	return vm;
}

static struct kvm_epk_saved *saved(void)
{
	return (void *)((char *)memory[0] + SAVED_AT);
}

static uint32_t *rows(void)
{
	return (void *)((char *)memory[0] + ROWS);
}

static uint64_t get_msr(struct vcpu *vcpu)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry.index = POLL_CONTROL };

	REQUIRE(ioctl(vcpu->fd, KVM_GET_MSRS, &msrs) == 1);
	return msrs.entry.data;
}

/* Is it taken?  With another MSR before and one after it, as VMMs do. */
static bool set_msr(struct vcpu *vcpu, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[3];
	} msrs = { .head.nmsrs = 3 };
	int set;

	msrs.entries[0].index = msrs.entries[2].index = 0x174;	/* SYSENTER_CS */
	msrs.entries[1].index = POLL_CONTROL;
	msrs.entries[1].data = value;
	set = ioctl(vcpu->fd, KVM_SET_MSRS, &msrs);
	CHECK(set == 1 || set == 3);
	return set == 3;
}

static uint64_t value_of(uint64_t addr, uint32_t ept)
{
	return KVM_EPK_MSR_SET | addr | (uint64_t)ept << 48 | POLLS;
}

static struct kvm_epk_state state_of(struct vm *vm)
{
	struct {
		struct kvm_epk_state head;
		struct kvm_epk_run runs[16];
	} state = { .head.nr_runs = 16 };

	REQUIRE(!ioctl(vm->fd, KVM_GET_EPK_STATE, &state));
	return state.head;
}

static void take_over(struct vm *vm, struct vm *from)
{
	int i;

	for (i = 0; i < 2; i++)
		vcpu_take_over(&vm->vcpus[i], &from->vcpus[i]);
}

static void end(struct vm *vm)
{
	vcpu_run_done(&vm->vcpus[1]);
	vcpu_run_done(&vm->vcpus[0]);
	vm_destroy(vm);
}

/* Two vCPUs in EPTs go on elsewhere, whichever of them is first. */
static void move_from(int first)
{
	struct vm *from = running(), *to = machine();
	struct kvm_epk_state old = state_of(from), new;
	int i, n;

	CHECK_EQ(saved()->magic, KVM_EPK_SAVED_MAGIC);
	old.nr_runs = 0;
	CHECK_EQ(memcmp(&saved()->state, &old, sizeof(old)), 0);
	CHECK_EQ(rows()[0] | rows()[5] | rows()[9], 1);
	CHECK_EQ(rows()[6] | rows()[10] | rows()[11], 0);
	CHECK_EQ(rows()[511], 2);
	for (n = 0; n < 2; n++) {
		i = n ^ first;
		CHECK_EQ(get_msr(&from->vcpus[i]), value_of(SAVED_AT, where[i]));
		CHECK_EQ(get_msr(&to->vcpus[i]), n ? value_of(SAVED_AT, 0) : POLLS);
		CHECK(set_msr(&to->vcpus[i], value_of(SAVED_AT, where[i])));
		CHECK_EQ(get_msr(&to->vcpus[i]), value_of(SAVED_AT, where[i]));
	}
	/* Nothing happens when they are set again. */
	CHECK(set_msr(&to->vcpus[0], value_of(SAVED_AT, where[0])));
	CHECK_EQ(get_msr(&to->vcpus[1]), value_of(SAVED_AT, where[1]));
	new = state_of(to);
	new.nr_runs = 0;
	CHECK_EQ(memcmp(&new, &old, sizeof(new)), 0);
	take_over(to, from);
	vm_destroy(from);
	end(to);
}

static void moves(void)
{
	move_from(0);
	move_from(1);
}

static void guest_looks(void)
{
	GUEST_EQ(rdmsr(POLL_CONTROL), POLLS);
	GUEST_EQ(try_wrmsr(POLL_CONTROL, value_of(SAVED_AT, 0)), GP);
	GUEST_EQ(try_wrmsr(POLL_CONTROL, KVM_EPK_MSR_SET), GP);
	GUEST_EQ(try_wrmsr(POLL_CONTROL, 2), GP);
	guest_set_up();
	GUEST_EQ(rdmsr(POLL_CONTROL), POLLS);
	GUEST_EQ(try_wrmsr(POLL_CONTROL, value_of(SAVED_AT, 0)), GP);
	GUEST_EQ(try_wrmsr(POLL_CONTROL, 0), 0);
	GUEST_EQ(rdmsr(POLL_CONTROL), 0);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 6);
}

/* The guest neither sees nor changes what is not its own. */
static void hidden(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_looks);

	give_memory(vm);
	vcpu_run_done(vcpu);
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0) & ~POLLS);
	vm_destroy(vm);
}

static void guest_not_saved(void)
{
	guest_sync(1);
	epk_set_up(0);
	guest_sync(2);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 0, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	guest_sync(3);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, 1, 0), 0);
	guest_sync(4);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 0, 0), 0);
	guest_sync(5);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, 0, 0, 0), 0);
}

/* Where there is something to lose and nowhere to save it, no KVM takes it. */
static void not_saved(void)
{
	static const bool lost[] = { false, true, false, true, false };
	struct vm *vm = vm_create(), *other = machine();
	struct vcpu *vcpu = vcpu_add(vm, guest_not_saved);
	int stage;

	give_memory(vm);
	for (stage = 1; stage <= 4; stage++) {
		vcpu_run_sync(vcpu, stage);
		CHECK_EQ(get_msr(vcpu), (lost[stage - 1] ? KVM_EPK_MSR_SET : 0) | POLLS);
		CHECK_EQ(set_msr(&other->vcpus[0], get_msr(vcpu)), !lost[stage - 1]);
	}
	vcpu_run_sync(vcpu, 5);
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
	CHECK_EQ(saved()->magic, KVM_EPK_SAVED_MAGIC);
	vcpu_run_done(vcpu);
	CHECK_EQ(get_msr(vcpu), KVM_EPK_MSR_SET | POLLS);
		CHECK_EQ(saved()->magic, 0);
	CHECK_EQ(state_of(other).version, 0);
	vm_destroy(vm);
	vm_destroy(other);
}

/* Whatever lies there, or is said of it: it is refused, and nothing is set up. */
static void hostile(void)
{
	struct vm *from = running(), *to = machine();
	struct vcpu *vcpu = &to->vcpus[0];
	char copy[8192];
	struct kvm_epk_state *s = &saved()->state;

	memcpy(copy, saved(), sizeof(copy));
#define BAD(change) do {						\
	change;								\
	if (set_msr(vcpu, value_of(SAVED_AT, 5)))				\
		check_failed(__FILE__, __LINE__, #change " is taken", 0, 1); \
	CHECK_EQ(state_of(to).version, 0);				\
	CHECK_EQ(get_msr(vcpu), POLLS);					\
	memcpy(saved(), copy, sizeof(copy));				\
} while (0)
	BAD(saved()->magic ^= 1);
	BAD(memset(saved(), 0xff, sizeof(copy)));
	BAD(s->version--);
	BAD(s->version++);
	BAD(s->nr_runs = 1);
	BAD(s->reserved = 1);
	BAD(s->window_base = 0);
	BAD(s->window_base = 3 * GiB);
	BAD(s->window_base += PAGE);
	BAD(s->window_base += GiB);
	BAD(s->window_base *= 2);
	BAD(s->window_base = -GiB);
	BAD(s->window_slots = 0);
	BAD(s->window_slots = 2);
	BAD((s->window_slots = 3, s->nr_epts = 2));
	BAD(s->window_slots = ~0u);
	BAD(s->nr_epts = 511);
	BAD(s->nr_epts = 513);
	BAD(s->nr_epts = ~0u);
	BAD(s->identity = 0);
	BAD(s->identity += 8);
	BAD(s->identity = s->window_base);
	BAD(s->identity = -PAGE);
	BAD(s->epts[0] &= ~1ull);
	/* One that has slots; one that lies beyond. */
	BAD(s->epts[0] &= ~(1ull << 5));
	BAD(s->epts[0] &= ~(1ull << 9));
	BAD((s->nr_epts = 256, s->window_base = 256 * GiB, s->identity = 200 * GiB));
	/* A slot that aliases a window, what no memory can be, what a run cannot say. */
	BAD(rows()[5] = (s->window_base >> 30) + 1);
	BAD(rows()[5] = (s->identity >> 30) + 1);
	BAD(rows()[5] = (1u << 18) + 1);
	BAD(rows()[5] = ~0u);
	BAD(rows()[5] = 1u << 31 | 1);
	BAD(rows()[400] = 1);
	/* Where the windows were is taken. */
	REQUIRE(!vm_memslot(to, 2, 0, 1ull << 39, PAGE, memory[0]));
	BAD(;);
	REQUIRE(!vm_memslot(to, 2, 0, 1ull << 39, 0, NULL));

	CHECK(!set_msr(vcpu, value_of(SAVED_AT, 512)));
	CHECK(!set_msr(vcpu, value_of(SAVED_AT, 0x7fff)));
	CHECK(!set_msr(vcpu, value_of(0, 5)));
	CHECK(!set_msr(vcpu, value_of(8 * MiB, 5)));
	CHECK(!set_msr(vcpu, value_of(4 * MiB - PAGE, 5)));
	CHECK(!set_msr(vcpu, value_of((1ull << 48) - PAGE, 5)));
	CHECK(!set_msr(vcpu, value_of(SAVED_AT, 5) & ~KVM_EPK_MSR_SET));
	CHECK(!set_msr(vcpu, value_of(SAVED_AT, 5) | 0x800));
	CHECK(!set_msr(vcpu, 2));
	CHECK_EQ(state_of(to).version, 0);
	/* It was all of that.  An EPT that was destroyed meanwhile is no reason to stop. */
	CHECK(set_msr(vcpu, value_of(SAVED_AT, 7)));
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
	CHECK(set_msr(vcpu, value_of(SAVED_AT, 5)));
	CHECK(set_msr(&to->vcpus[1], value_of(SAVED_AT, 511)));
	take_over(to, from);
	vm_destroy(from);
	end(to);
}

static void guest_arguments(void)
{
	const uint64_t top = 4 * MiB - KVM_EPK_SAVED_BYTES(512, 1);

	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 0, 0), -EPERM);
	epk_set_up(1);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 0, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 1, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 0, 1), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT + 8, 0, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, 1ull << 48, 0, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, (1ull << 48) - PAGE, 0, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, -PAGE, 0, 0), -EINVAL);
	/* No memory, or not all of it; a window; the identity page. */
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, 8 * MiB, 0, 0), -EFAULT);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, 4 * MiB - PAGE, 0, 0), -EFAULT);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, layout.window_base, 0, 0), -EFAULT);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, layout.identity, 0, 0), -EFAULT);
	guest_sync(1);
	/* The end of memory, if that is where a page begins. */
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, top & -PAGE, 0, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 0, 0), 0);
	guest_sync(2);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 2, 1, 0), 0);
	guest_sync(3);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 3, 1, 0), 0);
}

/* What fails leaves the old address; what cannot be written is not kept. */
static void arguments(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_arguments);

	give_memory(vm);
	vcpu_run_sync(vcpu, 1);
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
	vcpu_run_sync(vcpu, 2);
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
	REQUIRE(!vm_memslot(vm, 0, 0, 0, 0, NULL));
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
	vcpu_run_sync(vcpu, 3);
	CHECK_EQ(get_msr(vcpu), KVM_EPK_MSR_SET | POLLS);
	/* It is not taken up again by itself: what lies there is out of date. */
	REQUIRE(!vm_memslot(vm, 0, 0, 0, 4 * MiB, memory[0]));
	vcpu_run_done(vcpu);
	CHECK_EQ(get_msr(vcpu), KVM_EPK_MSR_SET | POLLS);
	vm_destroy(vm);
}

static void guest_goes_on(void)
{
	guest_set_up();
	vmfunc(5);
	guest_sync(1);
	vmfunc(0);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 5, 2, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 100, 20, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 0, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	vmfunc(100);
	guest_sync(2);
}

static void guest_as_before(void)
{
	GUEST_EQ(current_ept(), 5);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 6);
	GUEST_EQ(try_vmfunc(0, 100), UD);
	GUEST_EQ(read64(alias(5, DATA)), 55);
	vmfunc(0);
	GUEST_EQ(read64(alias(0, DATA)), 55);
}

/* A snapshot is loaded into the VM that it was made of, as QEMU does it: a reset first. */
static void snapshot(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_goes_on);
	char copy[8192], now[8192];
	struct kvm_epk_state before, after;
	uint64_t value;
	int i;

	give_memory(vm);
	*(uint64_t *)((char *)memory[0] + DATA) = 55;
	vcpu_run_sync(vcpu, 1);
	value = get_msr(vcpu);
	before = state_of(vm);
	memcpy(copy, saved(), sizeof(copy));
	vcpu_run_sync(vcpu, 2);
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 100));

	CHECK(set_msr(vcpu, POLLS));
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
	/* Ones that are no snapshots of this VM, first: it has what it had. */
	memcpy(now, saved(), sizeof(now));
	for (i = 0; i < 4; i++) {
		memcpy(saved(), copy, sizeof(copy));
		if (i == 0)
			saved()->state.identity -= PAGE;
		else if (i == 1)
			rows()[100] = 1;
		else if (i == 2)
			rows()[5] = (saved()->state.window_base >> 30) + 1;
		else
			rows()[9] = ~0u;
		CHECK(!set_msr(vcpu, value));
		memcpy(saved(), now, sizeof(now));
		CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
		CHECK_EQ(state_of(vm).epts[1], 0xfffffull << 36);
	}
	memcpy(saved(), copy, sizeof(copy));
	CHECK(set_msr(vcpu, value));
	after = state_of(vm);
	CHECK_EQ(memcmp(&before, &after, sizeof(before)), 0);
	CHECK_EQ(get_msr(vcpu), value);
	vcpu_start_at(vcpu, guest_as_before);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

static void guest_again(void)
{
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 6);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, 2 * SAVED_AT, 0, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 5, 1, 0), 0);
}

/* A guest that was reset, by a VMM that does not know of EPK. */
static void reset(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_first);

	give_memory(vm);
	vcpu_run_sync(vcpu, 1);
	/* Without a reset nobody else uses that memory. */
	saved()->magic = 0;
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 5));
	saved()->magic = KVM_EPK_SAVED_MAGIC;
	CHECK(set_msr(vcpu, POLLS));
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
	rows()[9] ^= 1;
	CHECK_EQ(get_msr(vcpu), POLLS);
	rows()[9] ^= 1;
	CHECK_EQ(get_msr(vcpu), value_of(SAVED_AT, 0));
	/* No memory is not the same as another kernel's. */
	REQUIRE(!vm_memslot(vm, 0, 0, 0, 0, NULL));
	CHECK_EQ(get_msr(vcpu), KVM_EPK_MSR_SET | POLLS);
	REQUIRE(!vm_memslot(vm, 0, 0, 0, 4 * MiB, memory[0]));
	memset(saved(), 0x5a, 8192);
	CHECK_EQ(get_msr(vcpu), POLLS);
	vcpu_start_at(vcpu, guest_again);
	vcpu_run_done(vcpu);
	CHECK_EQ(get_msr(vcpu), value_of(2 * SAVED_AT, 0));
	/* What the next kernel has where the last one's area was is its own. */
	CHECK_EQ(saved()->magic, 0x5a5a5a5a5a5a5a5a);
	CHECK_EQ(rows()[5], 0x5a5a5a5a);
	vm_destroy(vm);
}

struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[128];
};

/* KVM's features in a vCPU's CPUID. */
static uint32_t *features(struct vcpu *vcpu, struct cpuid *cpuid)
{
	struct kvm_cpuid_entry2 *entry = cpuid->entries;

	cpuid->head.nent = 128;
	REQUIRE(!ioctl(vcpu->fd, KVM_GET_CPUID2, cpuid));
	while (entry < cpuid->entries + cpuid->head.nent && entry->function != 0x40000001)
		entry++;
	REQUIRE(entry < cpuid->entries + cpuid->head.nent);
	return &entry->eax;
}

static bool has_feature(struct vcpu *vcpu)
{
	static struct cpuid cpuid;

	return *features(vcpu, &cpuid) >> KVM_FEATURE_EPK & 1;
}

/* As QEMU does for a vCPU model that does not name it. */
static void without_feature(struct vcpu *vcpu)
{
	static struct cpuid cpuid;

	*features(vcpu, &cpuid) &= ~(1u << FEATURE_POLL_CONTROL);
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid));
}

static void guest_is_offered_none(void)
{
	GUEST_EQ(query(KVM_EPK_QUERY_VERSION), -1000);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, KVM_EPK_WINDOWS(512, 512, 1), 8 * GiB),
		 -1000);
}

/* Who would not carry the MSR must not have a guest that needs it. */
static void offer(void)
{
	struct vm *vm = vm_create(), *knows = vm_create();
	struct vcpu *vcpu;

	give_memory(vm);
	give_memory(knows);
	vcpu = vcpu_add(vm, guest_is_offered_none);
	CHECK(has_feature(vcpu));
	without_feature(vcpu);
	CHECK(!has_feature(vcpu));
	vcpu_run_done(vcpu);

	REQUIRE(!vm_enable_cap(knows, KVM_CAP_EPK, 512));
	vcpu = vcpu_add(knows, guest_set_up);
	without_feature(vcpu);
	CHECK(has_feature(vcpu));
	vcpu_run_done(vcpu);
	vm_destroy(vm);
	vm_destroy(knows);
}

/* A VMM that asks for the state is not told twice, nor takes it twice. */
static void knowing_vmm(void)
{
	struct vm *vm = vm_create(), *other;
	struct vcpu *vcpu;

	give_memory(vm);
	REQUIRE(!vm_enable_cap(vm, KVM_CAP_EPK, 512));
	vcpu = vcpu_add(vm, guest_set_up);
	vcpu_run_done(vcpu);
	CHECK_EQ(saved()->magic, KVM_EPK_SAVED_MAGIC);
	CHECK_EQ(get_msr(vcpu), POLLS);
	CHECK(set_msr(vcpu, POLLS));
	CHECK(!set_msr(vcpu, value_of(SAVED_AT, 0)));

	other = vm_create();
	give_memory(other);
	REQUIRE(!vm_enable_cap(other, KVM_CAP_EPK, 0));
	vcpu = vcpu_add(other, guest_first);
	CHECK(!set_msr(vcpu, value_of(SAVED_AT, 0)));
	vm_destroy(vm);
	vm_destroy(other);
}

/* Hosts that are not like the one that it comes from. */
static void elsewhere(void)
{
	static const char *const modes[] = { "epk=off", "epk=on" };
	struct vm *from = running(), *to;
	unsigned int i;

	vm_destroy(from);
	to = vm_create_narrow(39);
	give_memory(to);
	CHECK(!set_msr(vcpu_add(to, guest_first), value_of(SAVED_AT, 5)));
	CHECK_EQ(state_of(to).version, 0);
	vm_destroy(to);
	for (i = 0; i < 2; i++) {
		close(kvm_fd);
		kvm_fd = -1;
		kvm_reload(modes[i]);
		to = machine();
		CHECK(!set_msr(&to->vcpus[0], value_of(SAVED_AT, 5)));
		CHECK_EQ(get_msr(&to->vcpus[0]), POLLS);
		vm_destroy(to);
	}
}

/* A VMM that goes on after a refusal does not get far; as a new VM it may be run. */
static void lost(void)
{
	struct vm *from = running(), *to = machine();
	int i;

	saved()->magic ^= 1;
	CHECK(!set_msr(&to->vcpus[0], value_of(SAVED_AT, 5)));
	for (i = 0; i < 2; i++) {
		CHECK(ioctl(to->vcpus[i].fd, KVM_RUN, 0) && errno == EIO);
		CHECK_EQ(state_of(to).version, 0);
	}
	saved()->magic ^= 1;
	CHECK(set_msr(&to->vcpus[0], POLLS));
	vcpu_start_at(&to->vcpus[0], guest_set_up);
	vcpu_run_done(&to->vcpus[0]);
	vm_destroy(from);
	vm_destroy(to);
}

static void guest_dirties(void)
{
	epk_set_up(1);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 0, 0), 0);
	guest_sync(1);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 2, 1, 0), 0);
	guest_sync(2);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 2, 1, KVM_EPK_RUN(0, 1, 1)), 0);
	guest_sync(3);
}

static uint64_t dirty(struct vm *vm)
{
	static uint64_t bitmap[4 * MiB / PAGE / 64];
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bitmap };

	REQUIRE(!ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	return bitmap[SAVED_AT / PAGE / 64] >> SAVED_AT / PAGE % 64 & 3;
}

/* What KVM writes goes to the other host, however late. */
static void logged(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_dirties);

	give_memory(vm);
	vcpu_run_sync(vcpu, 1);
	REQUIRE(!vm_memslot(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 4 * MiB, memory[0]));
	dirty(vm);
	CHECK_EQ(dirty(vm), 0);
	vcpu_run_sync(vcpu, 2);
	CHECK_EQ(dirty(vm), 1);
	vcpu_run_sync(vcpu, 3);
	CHECK_EQ(dirty(vm), 2);
	vm_destroy(vm);
}

static void guest_fills_all(void)
{
	epk_set_up(1);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 2, 510, 0), 0);
	guest_sync(1);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT, SAVED_AT, 0, 0), 0);
	guest_sync(2);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 2, 510, KVM_EPK_RUN(0, 1, 1)), 0);
	guest_sync(3);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 2, 510, 0), 0);
	guest_sync(4);
}

/* A page is in a dirty ring once for each hypercall, which so cannot make it run over. */
static void ring(void)
{
	const unsigned int size = 1024;
	struct kvm_dirty_gfn *entries;
	unsigned int i, stage, last = 0, in_area;
	struct vcpu *vcpu;
	struct vm *vm;

	/* What one hypercall may log has to fit; what hardware logs would fill this ring, too. */
	kvm_reload("epk=any pml=0");
	vm = vm_create();
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, 256 * sizeof(*entries)), -EINVAL);
	REQUIRE(!vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, size * sizeof(*entries)));
	vcpu = vcpu_add(vm, guest_fills_all);
	entries = mmap(NULL, size * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd,
		       KVM_DIRTY_LOG_PAGE_OFFSET * PAGE);
	REQUIRE(entries != MAP_FAILED);
	give_memory(vm);
	REQUIRE(!vm_memslot(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 4 * MiB, memory[0]));
	for (stage = 1; stage <= 4; stage++) {
		vcpu_run_sync(vcpu, stage);
		for (in_area = 0, i = last; i < size && entries[i].flags & KVM_DIRTY_GFN_F_DIRTY; i++)
			in_area += entries[i].offset - SAVED_AT / PAGE < 2;
		last = i;
		CHECK_EQ(in_area, stage == 1 ? 0 : stage == 3 ? 1 : 2);
	}
	munmap(entries, size * sizeof(*entries));
	vm_destroy(vm);
}

struct late {
	struct vcpu *vcpu;
	bool taken;
};

static void *set_late(void *arg)
{
	struct late *late = arg;

	late->taken = set_msr(late->vcpu, value_of(SAVED_AT, 5));
	return NULL;
}

/* The page with the rows comes when KVM asks for it: post-copy. */
static void page_comes_late(void)
{
	struct vm *from = running(), *to;
	struct late late = { .taken = false };
	struct uffdio_copy copy;
	struct uffd_msg msg;
	pthread_t thread;
	void *page = malloc(PAGE);
	int fd;

	to = machine();
	late.vcpu = &to->vcpus[0];
	memcpy(page, rows(), PAGE);
	REQUIRE(!madvise(rows(), PAGE, MADV_DONTNEED));
	fd = hold_page(rows());
	REQUIRE(!pthread_create(&thread, NULL, set_late, &late));
	REQUIRE(read(fd, &msg, sizeof(msg)) == sizeof(msg));
	CHECK_EQ(msg.arg.pagefault.address & -PAGE, (uint64_t)rows());
	copy = (struct uffdio_copy) {
		.dst = (uint64_t)rows(), .src = (uint64_t)page, .len = PAGE,
	};
	REQUIRE(!ioctl(fd, UFFDIO_COPY, &copy));
	pthread_join(thread, NULL);
	CHECK(late.taken);
	CHECK(set_msr(&to->vcpus[1], value_of(SAVED_AT, 511)));
	take_over(to, from);
	vm_destroy(from);
	end(to);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "moves", moves },
		{ "hidden", hidden },
		{ "not-saved", not_saved },
		{ "hostile", hostile },
		{ "arguments", arguments },
		{ "snapshot", snapshot },
		{ "reset", reset },
		{ "offer", offer },
		{ "knowing-vmm", knowing_vmm },
		{ "elsewhere", elsewhere },
		{ "lost", lost },
		{ "logged", logged },
		{ "ring", ring },
		{ "page-comes-late", page_comes_late },
	};

	return RUN_CASES(cases, argc, argv);
}
