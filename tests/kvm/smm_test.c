// SPDX-License-Identifier: MIT
/* System management mode: without VMFUNC, and back where it came from. */
#include "vmm.h"

#define SMM_RAM		(256 * 1024ull)
#define HANDLER		0x38000ull
#define UD_HANDLER	0x38100ull
#define TABLE		0x38200ull	/* what LIDT reads */
#define IN_SMM		0x98		/* ports */
#define REFUSED		0x99
#define NOT_REFUSED	0x9a

/* Real-mode code, segment 0x3000 as in RESET's SMBASE. */
static const uint8_t handler[] = {
	0xe6, IN_SMM,				/* out */
	0x2e, 0x0f, 0x01, 0x1e, 0x00, 0x82,	/* lidt %cs:0x8200 */
	0x66, 0x31, 0xc0,			/* xor %eax, %eax */
	0x66, 0xb9, 0x02, 0x00, 0x00, 0x00,	/* mov $2, %ecx */
	0x0f, 0x01, 0xd4,			/* vmfunc */
	0xe6, NOT_REFUSED,
	0x0f, 0xaa,				/* rsm */
};

static const uint8_t ud_handler[] = { 0xe6, REFUSED, 0x0f, 0xaa };

static void guest_interrupted(void)
{
	epk_set_up(2);
	vmfunc(1);
	write64(alias(1, 0x5000), 5);
	guest_sync(1);
	GUEST_EQ(current_ept(), 1);
	GUEST_EQ(read64(alias(1, 0x5000)), 5);
	GUEST_EQ(try_read(alias(2, 0x5000)), DOMAIN_FAULT(0));
	GUEST_EQ(try_vmfunc(0, 2), 0);
	guest_sync(2);
	/* Destroyed while this vCPU was in SMM. */
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(try_vmfunc(0, 2), UD);
	GUEST_EQ(try_vmfunc(0, 1), 0);
}

static void guest_destroy(void)
{
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 2, 1, 0), 0);
}

static uint32_t ept_of(struct vcpu *vcpu)
{
	struct kvm_epk_vcpu state;

	REQUIRE(!ioctl(vcpu->fd, KVM_GET_EPK_VCPU, &state));
	return state.ept;
}

static void run_to_port(struct vcpu *vcpu, uint16_t port)
{
	vcpu_run_exit(vcpu, KVM_EXIT_IO);
	CHECK_EQ(vcpu->run->io.port, port);
	CHECK(vcpu->run->flags & KVM_RUN_X86_SMM);
}

static void smi(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_interrupted), *other = vcpu_add(vm, guest_destroy);
	uint8_t *ram;

	REQUIRE(ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) == 1);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	ram = vm_ram(vm, SMM_SPACE | 0, 0, 0, SMM_RAM);
	memcpy(ram + HANDLER, handler, sizeof(handler));
	memcpy(ram + UD_HANDLER, ud_handler, sizeof(ud_handler));
	*(uint16_t *)(ram + TABLE) = 0x3ff;
	/* #UD goes to 0x3000:0x8100. */
	*(uint32_t *)(ram + 6 * 4) = 0x30008100;

	vcpu_run_sync(vcpu, 1);
	REQUIRE(!ioctl(vcpu->fd, KVM_SMI));
	run_to_port(vcpu, IN_SMM);
	CHECK_EQ(ept_of(vcpu), 1);
	run_to_port(vcpu, REFUSED);
	vcpu_run_sync(vcpu, 2);
	CHECK_EQ(ept_of(vcpu), 2);

	REQUIRE(!ioctl(vcpu->fd, KVM_SMI));
	run_to_port(vcpu, IN_SMM);
	CHECK_EQ(ept_of(vcpu), 2);
	vcpu_run_done(other);
	run_to_port(vcpu, REFUSED);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "smi", smi },
	};

	return RUN_CASES(cases, argc, argv);
}
