// SPDX-License-Identifier: MIT
/* Memslots come, go, move and change under a guest in any of its EPTs. */
#include "vmm.h"

#define SLOT		1
#define SLOT_GPA	(64 * MiB)
#define MOVED_GPA	(96 * MiB)
#define SLOT_SIZE	(4 * MiB)
#define NR_SOME		5

static const uint32_t some[NR_SOME] = { 0, 1, 255, 256, 511 };

/* What the guest is to find at @expect_gpa in each EPT, at the alias and below. */
static uint64_t expect_gpa, expect;

static void see_in_all(void)
{
	uint32_t ept;

	for (ept = 0; ept < 512; ept++) {
		vmfunc(ept);
		GUEST_EQ(read64(at(expect_gpa)), expect);
		GUEST_EQ(read64(alias(ept, expect_gpa)), expect);
	}
}

static void guest_see(void)
{
	uint64_t stage;

	epk_set_up(511);
	for (stage = 0; ; stage++) {
		guest_sync(stage);
		see_in_all();
	}
}

static struct vm *start(struct vcpu **vcpu, void (*guest)(void))
{
	struct vm *vm = vm_create();

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	*vcpu = vcpu_add(vm, guest);
	return vm;
}

static uint64_t *new_memory(uint64_t value)
{
	uint64_t *memory = huge_aligned_memory(SLOT_SIZE);

	*memory = value;
	return memory;
}

/* Created, replaced, moved, replaced by read-only: see it everywhere at once. */
static void change(void)
{
	uint64_t *memory[3] = { new_memory(100), new_memory(101), new_memory(102) };
	struct vcpu *vcpu;
	struct vm *vm = start(&vcpu, guest_see);

	vcpu_run_sync(vcpu, 0);
	expect_gpa = SLOT_GPA;
	expect = 100;
	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, SLOT_SIZE, memory[0]));
	vcpu_run_sync(vcpu, 1);

	expect = 101;
	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, 0, NULL));
	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, SLOT_SIZE, memory[1]));
	vcpu_run_sync(vcpu, 2);

	expect_gpa = MOVED_GPA;
	REQUIRE(!vm_memslot(vm, SLOT, 0, MOVED_GPA, SLOT_SIZE, memory[1]));
	vcpu_run_sync(vcpu, 3);

	expect_gpa = SLOT_GPA;
	expect = 100;
	REQUIRE(!vm_memslot(vm, SLOT + 1, 0, SLOT_GPA, SLOT_SIZE, memory[0]));
	vcpu_run_sync(vcpu, 4);

	/* Two neighbours, of which one makes room for another. */
	expect = 102;
	REQUIRE(!vm_memslot(vm, SLOT + 1, 0, SLOT_GPA, 0, NULL));
	REQUIRE(!vm_memslot(vm, SLOT + 1, KVM_MEM_READONLY, SLOT_GPA, SLOT_SIZE, memory[2]));
	vcpu_run_sync(vcpu, 5);
	vm_destroy(vm);
}

/* Through each EPT, by its window and by the ordinary address, first one and all. */
static void guest_touch(void)
{
	int i;

	epk_set_up(511);
	for (i = 0; i < NR_SOME; i++) {
		vmfunc(some[i]);
		GUEST_EQ(read64(alias(some[i], SLOT_GPA)), 100);
		GUEST_EQ(read64(at(SLOT_GPA)), 100);
	}
	guest_sync(1);
	for (i = 0; i < NR_SOME; i++) {
		vmfunc(some[i]);
		GUEST_EQ(read64(alias(some[i], SLOT_GPA + 24)), 0x1234 + i);
		GUEST_EQ(read64(at(SLOT_GPA + 24)), 0x5678 + i);
		write64(alias(some[i], SLOT_GPA + 32), i);
		write64(at(SLOT_GPA + 40), i);
	}
	guest_sync(2);
}

static void mmio_read(struct vcpu *vcpu, uint64_t gpa, uint64_t answer)
{
	vcpu_run_exit(vcpu, KVM_EXIT_MMIO);
	CHECK_EQ(vcpu->run->mmio.phys_addr, gpa);
	CHECK_EQ(vcpu->run->mmio.len, 8);
	CHECK_EQ(vcpu->run->mmio.is_write, 0);
	memcpy(vcpu->run->mmio.data, &answer, 8);
}

static void mmio_write(struct vcpu *vcpu, uint64_t gpa, uint64_t value)
{
	vcpu_run_exit(vcpu, KVM_EXIT_MMIO);
	CHECK_EQ(vcpu->run->mmio.phys_addr, gpa);
	CHECK_EQ(vcpu->run->mmio.is_write, 1);
	CHECK_EQ(*(uint64_t *)vcpu->run->mmio.data, value);
}

/* Once deleted, an access is MMIO at the ordinary address, wherever it came from. */
static void delete(void)
{
	uint64_t *memory = new_memory(100);
	struct vcpu *vcpu;
	struct vm *vm = start(&vcpu, guest_touch);
	int i;

	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, SLOT_SIZE, memory));
	vcpu_run_sync(vcpu, 1);
	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, 0, NULL));
	for (i = 0; i < NR_SOME; i++) {
		mmio_read(vcpu, SLOT_GPA + 24, 0x1234 + i);
		mmio_read(vcpu, SLOT_GPA + 24, 0x5678 + i);
		mmio_write(vcpu, SLOT_GPA + 32, i);
		mmio_write(vcpu, SLOT_GPA + 40, i);
	}
	vcpu_run_sync(vcpu, 2);
	CHECK_EQ(memory[3] | memory[4] | memory[5], 0);
	vm_destroy(vm);
}

static void guest_read_only(void)
{
	int i;

	epk_set_up(511);
	for (i = 0; i < NR_SOME; i++) {
		vmfunc(some[i]);
		GUEST_EQ(read64(alias(some[i], SLOT_GPA)), 100);
		write64(alias(some[i], SLOT_GPA), i);
		write64(at(SLOT_GPA + 8), i);
		GUEST_EQ(read64(alias(some[i], SLOT_GPA)), 100);
	}
	guest_sync(1);
	for (i = 0; i < NR_SOME; i++) {
		vmfunc(some[i]);
		write64(alias(some[i], SLOT_GPA + 8 * i), i);
		GUEST_EQ(read64(at(SLOT_GPA + 8 * i)), i);
	}
	guest_sync(2);
}

static void read_only(void)
{
	uint64_t *memory = new_memory(100);
	struct vcpu *vcpu;
	struct vm *vm = start(&vcpu, guest_read_only);
	int i;

	REQUIRE(!vm_memslot(vm, SLOT, KVM_MEM_READONLY, SLOT_GPA, SLOT_SIZE, memory));
	for (i = 0; i < NR_SOME; i++) {
		mmio_write(vcpu, SLOT_GPA, i);
		mmio_write(vcpu, SLOT_GPA + 8, i);
	}
	vcpu_run_sync(vcpu, 1);
	CHECK_EQ(memory[0], 100);
	CHECK_EQ(memory[1], 0);
	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, 0, NULL));
	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, SLOT_SIZE, memory));
	vcpu_run_sync(vcpu, 2);
	vm_destroy(vm);
}

static void guest_enable(void)
{
	epk_set_up(1);
	guest_sync(1);
	vmfunc(1);
	GUEST_EQ(read64(alias(1, 0)), 0);
	guest_sync(2);
}

/* No memslot where the windows are, once they are there. */
static void in_windows(void)
{
	const uint64_t window = 1ull << 39, end = window - GiB;
	struct vcpu *vcpu;
	struct vm *vm = start(&vcpu, guest_enable);
	void *memory = huge_aligned_memory(SLOT_SIZE);

	REQUIRE(!vm_memslot(vm, 2, 0, GiB, SLOT_SIZE, memory));
	vcpu_run_sync(vcpu, 1);
	CHECK_EQ(vm_memslot(vm, SLOT, 0, window, SLOT_SIZE, memory), -EINVAL);
	CHECK_EQ(vm_memslot(vm, SLOT, 0, window - PAGE, PAGE, memory), -EINVAL);
	CHECK_EQ(vm_memslot(vm, SLOT, 0, end, PAGE, memory), -EINVAL);
	CHECK_EQ(vm_memslot(vm, SLOT, 0, end - PAGE, 2 * PAGE, memory), -EINVAL);
	CHECK_EQ(vm_memslot(vm, SLOT, 0, (1ull << 40) - PAGE, PAGE, memory), -EINVAL);
	/* Nor where views do not reach. */
	CHECK_EQ(vm_memslot(vm, SLOT, 0, 1ull << 48, PAGE, memory), -EINVAL);
	CHECK_EQ(vm_memslot(vm, SLOT, 0, (1ull << 48) - PAGE, 2 * PAGE, memory), -EINVAL);
	/* Nor by a move. */
	CHECK_EQ(vm_memslot(vm, 2, 0, window + GiB, SLOT_SIZE, memory), -EINVAL);
	CHECK_EQ(vm_memslot(vm, SLOT, 0, end - PAGE, PAGE, memory), 0);
	vcpu_run_sync(vcpu, 2);
	vm_destroy(vm);
}

static volatile uint64_t stop, seen[2];

static void guest_spin(void)
{
	uint32_t ept = 0;
	uint64_t value;

	epk_set_up(511);
	while (!stop) {
		ept = (ept + 1) & 511;
		vmfunc(ept);
		value = read64(alias(ept, SLOT_GPA));
		/* One memory or the other, or what MMIO answers. */
		GUEST_CHECK(value == 100 || value == 101 || value == ~0ull);
		if (value == 100 || value == 101)
			seen[value - 100]++;
		pass_time();
	}
}

static void *spin(void *arg)
{
	struct vcpu *vcpu = arg;

	while (!vcpu_run_done_or_exit(vcpu)) {
		REQUIRE(vcpu->run->exit_reason == KVM_EXIT_MMIO);
		memset(vcpu->run->mmio.data, 0xff, 8);
	}
	return NULL;
}

/* While a vCPU goes round all EPTs; it sees one memslot or the other. */
static void under_way(void)
{
	uint64_t *memory[2] = { new_memory(100), new_memory(101) };
	struct vcpu *vcpu;
	struct vm *vm = start(&vcpu, guest_spin);
	uint64_t before;
	int i;

	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, SLOT_SIZE, memory[0]));
	REQUIRE(!pthread_create(&vcpu->thread, NULL, spin, vcpu));
	for (i = 1; i <= 4; i++) {
		REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, 0, NULL));
		REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, SLOT_SIZE, memory[i & 1]));
		/* From here on only the new one. */
		before = seen[i & 1];
		while (seen[i & 1] < before + 3)
			sched_yield();
		before = seen[!(i & 1)];
		usleep(2000);
		CHECK(seen[!(i & 1)] - before <= 1);
	}
	stop = 1;
	vcpu_join(vcpu);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "change", change },
		{ "delete", delete },
		{ "read-only", read_only },
		{ "in-windows", in_windows },
		{ "under-way", under_way },
	};

	return RUN_CASES(cases, argc, argv);
}
