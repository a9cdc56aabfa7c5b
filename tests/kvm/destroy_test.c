// SPDX-License-Identifier: MIT
/* A vCPU whose EPT is destroyed while it does not run, and made again. */
#include "vmm.h"

#define EPT	5
#define SECRET	0x7000

/* Sits in EPT, and finds itself in EPT 0: not in the new EPT of that index. */
static void guest_old(void)
{
	vmfunc(EPT);
	write64(alias(EPT, SECRET), 1);
	guest_sync(1);
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(try_read(alias(EPT, SECRET)), DOMAIN_FAULT(0));
	GUEST_EQ(try_vmfunc(0, EPT), 0);
	GUEST_EQ(current_ept(), EPT);
	GUEST_EQ(read64(alias(EPT, SECRET)), 2);
	guest_sync(2);
}

static void guest_new(void)
{
	epk_set_up(EPT);
	guest_sync(1);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, EPT, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, EPT, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, EPT, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	vmfunc(EPT);
	write64(alias(EPT, SECRET), 2);
	guest_sync(2);
	/* It has not been destroyed again. */
	GUEST_EQ(current_ept(), EPT);
	GUEST_EQ(read64(alias(EPT, SECRET)), 2);
	guest_sync(3);
}

static uint32_t ept_of(struct vcpu *vcpu)
{
	struct kvm_epk_vcpu state;

	REQUIRE(!ioctl(vcpu->fd, KVM_GET_EPK_VCPU, &state));
	return state.ept;
}

static void made_again(void)
{
	struct vm *vm = vm_create();
	struct vcpu *new = vcpu_add(vm, guest_new), *old = vcpu_add(vm, guest_old);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(new, 1);
	vcpu_run_sync(old, 1);
	CHECK_EQ(ept_of(old), EPT);
	vcpu_run_sync(new, 2);
	CHECK_EQ(ept_of(old), 0);
	CHECK_EQ(ept_of(new), EPT);
	vcpu_run_sync(old, 2);
	CHECK_EQ(ept_of(old), EPT);
	vcpu_run_sync(new, 3);
	vm_destroy(vm);
}

static void guest_mmio(void)
{
	vmfunc(EPT);
	GUEST_EQ(read64(alias(EPT, 512 * MiB)), 42);
	GUEST_EQ(current_ept(), 0);
	guest_sync(1);
}

/* The same while the VMM emulates a device for it: what it began ends well. */
static void during_mmio(void)
{
	struct vm *vm = vm_create();
	struct vcpu *new = vcpu_add(vm, guest_new), *old = vcpu_add(vm, guest_mmio);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(new, 1);
	vcpu_run_exit(old, KVM_EXIT_MMIO);
	CHECK_EQ(old->run->mmio.phys_addr, 512 * MiB);
	vcpu_run_sync(new, 2);
	*(uint64_t *)old->run->mmio.data = 42;
	vcpu_run_sync(old, 1);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "made-again", made_again },
		{ "during-mmio", during_mmio },
	};

	return RUN_CASES(cases, argc, argv);
}
