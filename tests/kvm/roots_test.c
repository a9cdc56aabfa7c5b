// SPDX-License-Identifier: MIT
/*
 * KVM's roots are invalid, as a memslot is being deleted, and views still link tables of
 * them: who deletes it waits in KVM before any link is dropped.  vCPUs go on meanwhile,
 * with a new root of KVM's.
 */
#include <fcntl.h>

#include "vmm.h"

#define DATA		0x5000ull
#define DEVICE		(512 * MiB)	/* in block 0, no memslot */
#define SLOT		1
#define SLOT_GPA	(64 * MiB)
#define DELETED		3
#define NR_EPTS		8

static pthread_t deleter;

static void *delete(void *vm)
{
	REQUIRE(!vm_memslot(vm, DELETED, 0, 128 * MiB, 0, NULL));
	return NULL;
}

static struct vm *start(void)
{
	struct vm *vm = vm_create();

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vm_ram(vm, DELETED, 0, 128 * MiB, 2 * MiB);
	return vm;
}

static void begin_deletion(struct vm *vm)
{
	hold_at("kvm_epk_unlink_all", "");
	REQUIRE(!pthread_create(&deleter, NULL, delete, vm));
	hold_wait();
}

static void end_deletion(void)
{
	hold_release();
	REQUIRE(!pthread_join(deleter, NULL));
	hold_end();
}

/* What userspace is to be asked for next. */
static volatile uint64_t device;

static void read_device(uint32_t ept, uint64_t gpa)
{
	device = gpa;
	GUEST_EQ(read64(alias(ept, gpa)), gpa);
	GUEST_EQ(read64(at(gpa)), gpa);
	/* The first access finds nothing mapped, another what KVM made of that. */
	GUEST_EQ(read64(alias(ept, gpa)), gpa);
	GUEST_EQ(read64(at(gpa)), gpa);
}

static void guest_device(void)
{
	epk_set_up(3);
	vmfunc(1);
	read_device(1, DEVICE);
	vmfunc(2);
	read_device(2, DEVICE);
	read_device(2, DEVICE + PAGE);
	read_device(2, DEVICE + 2 * PAGE);
	vmfunc(1);
	guest_sync(1);
	/* KVM's new root has no table there, and as the access is no violation makes none. */
	read_device(1, DEVICE);
	/* Now it has, but knows nothing of this page. */
	vmfunc(2);
	read_device(2, DEVICE + PAGE);
	/* This EPT has the new root's table now, that one none yet. */
	read_device(2, DEVICE + 2 * PAGE);
	vmfunc(3);
	read_device(3, DEVICE);
	guest_sync(2);
	read_device(3, DEVICE + 3 * PAGE);
	vmfunc(1);
	read_device(1, DEVICE + PAGE);
	guest_sync(3);
}

static void answer_until(struct vcpu *vcpu, uint64_t stage)
{
	struct kvm_run *run = vcpu->run;
	uint64_t answer;

	while (!vcpu_run_sync_or_exit(vcpu, stage)) {
		REQUIRE(run->exit_reason == KVM_EXIT_MMIO);
		CHECK_EQ(run->mmio.phys_addr, device);
		CHECK_EQ(run->mmio.is_write, 0);
		answer = device;
		memcpy(run->mmio.data, &answer, 8);
	}
}

/* A view's table says that there is a device, KVM's root nothing: an EPT misconfiguration. */
static void in_device(void)
{
	struct vm *vm = start();
	struct vcpu *vcpu = vcpu_add(vm, guest_device);

	answer_until(vcpu, 1);
	begin_deletion(vm);
	/* A vCPU that exits again and again takes the emulator long. */
	alarm(1);
	answer_until(vcpu, 2);
	end_deletion();
	answer_until(vcpu, 3);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

/* Each in EPTs of its own, until told to stop. */
static volatile bool over;
static volatile uint64_t rounds[2];

static void guest_round(void)
{
	int number = this_cpu()->number;
	uint64_t gpa = SLOT_GPA + number * PAGE, page;
	uint32_t ept;

	for (page = 0; !over; page = (page + 2) % 64) {
		for (ept = number; ept < NR_EPTS; ept += 2) {
			vmfunc(ept);
			write64(alias(ept, gpa + page * PAGE), ept + page);
			GUEST_EQ(read64(at(gpa + page * PAGE)), ept + page);
			GUEST_EQ(try_read(alias(ept ^ 1, gpa)), DOMAIN_FAULT(0));
			pass_time();
		}
		rounds[number]++;
	}
}

static void guest_begin(void)
{
	uint32_t ept;

	epk_set_up(NR_EPTS - 1);
	for (ept = 0; ept < NR_EPTS; ept++) {
		vmfunc(ept);
		write64(alias(ept, SLOT_GPA), 1);
	}
}

static void wait_for_rounds(void)
{
	uint64_t before[] = { rounds[0], rounds[1] };

	while (rounds[0] < before[0] + 2 || rounds[1] < before[1] + 2)
		usleep(1000);
}

/* Two vCPUs in other EPTs, which replace each other's links, and KVM's end drops the rest. */
static void in_memory(void)
{
	struct vm *vm = start();
	int i;

	vm_ram(vm, SLOT, 0, SLOT_GPA, 2 * MiB);
	vcpu_add(vm, guest_begin);
	vcpu_add(vm, guest_round);
	vcpu_run_done(&vm->vcpus[0]);
	vcpu_start_at(&vm->vcpus[0], guest_round);
	for (i = 0; i < 2; i++)
		vcpu_thread(&vm->vcpus[i]);
	wait_for_rounds();
	begin_deletion(vm);
	wait_for_rounds();
	end_deletion();
	wait_for_rounds();
	over = true;
	for (i = 0; i < 2; i++)
		vcpu_join(&vm->vcpus[i]);
	vm_destroy(vm);
}

static volatile uint64_t expected;

static void guest_see(void)
{
	uint64_t stage;
	uint32_t ept;

	epk_set_up(NR_EPTS - 1);
	for (stage = 1; stage <= 3; stage++) {
		for (ept = 0; ept < NR_EPTS; ept++) {
			vmfunc(ept);
			GUEST_EQ(read64(alias(ept, SLOT_GPA)), expected);
			GUEST_EQ(read64(at(SLOT_GPA)), expected);
		}
		guest_sync(stage);
	}
}

/*
 * The host takes a page away that only tables of the old root map: vCPUs reach these, so
 * KVM has to flush, which it need not where there are no views.
 */
static void page_replaced(void)
{
	int file = memfd_create("pages", 0);
	uint64_t value, flushes;
	struct vcpu *vcpu;
	struct vm *vm = start();
	void *memory;

	REQUIRE(file >= 0 && !ftruncate(file, 2 * PAGE));
	for (value = 1; value <= 2; value++)
		REQUIRE(pwrite(file, &value, 8, (value - 1) * PAGE) == 8);
	memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	REQUIRE(memory != MAP_FAILED);
	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, PAGE, memory));
	vcpu = vcpu_add(vm, guest_see);
	expected = 1;
	vcpu_run_sync(vcpu, 1);

	begin_deletion(vm);
	flushes = vm_stat(vm, "remote_tlb_flush_requests");
	REQUIRE(mmap(memory, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, PAGE) == memory);
	CHECK(vm_stat(vm, "remote_tlb_flush_requests") > flushes);
	expected = 2;
	vcpu_run_sync(vcpu, 2);
	end_deletion();
	vcpu_run_sync(vcpu, 3);
	vm_destroy(vm);
}

static void guest_destroy(void)
{
	epk_set_up(3);
	vmfunc(3);
	write64(alias(3, DATA), 1);
	write64(at(DATA), 2);
	vmfunc(0);
	guest_sync(1);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 3, 1, 0), 0);
	GUEST_EQ(try_vmfunc(0, 3), UD);
	GUEST_EQ(read64(alias(0, DATA)), 2);
}

/* All of KVM's roots go.  A memslot's deletion would wait for who is held in a hypercall. */
static void change_nx(const char *value)
{
	int fd = open("/sys/module/kvm/parameters/nx_huge_pages", O_WRONLY);

	REQUIRE(fd >= 0 && write(fd, value, strlen(value)) > 0);
	close(fd);
}

/*
 * An EPT is being destroyed and has its links yet, while KVM removes the tables that these
 * point to, one at a time: no link is left to a table that is freed.
 */
static void being_destroyed(void)
{
	int warnings = kernel_warnings();
	struct vm *vm = start();
	struct vcpu *vcpu = vcpu_add(vm, guest_destroy);

	vcpu_run_sync(vcpu, 1);
	hold_at("epk_view_unlink", "kvm_epk_unlink_all");
	vcpu_thread(vcpu);
	hold_wait();
	change_nx("force");
	CHECK_EQ(kernel_warnings(), warnings);
	hold_release();
	vcpu_join(vcpu);
	hold_end();
	change_nx("off");
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "device", in_device },
		{ "memory", in_memory },
		{ "page-replaced", page_replaced },
		{ "being-destroyed", being_destroyed },
	};

	return RUN_CASES(cases, argc, argv);
}
