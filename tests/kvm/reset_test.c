// SPDX-License-Identifier: MIT
/* INIT, reset by registers, vCPUs that come late: in which EPT each finds itself. */
#include "vmm.h"

#define DATA		0x5000ull
#define START		0x8000ull	/* real-mode code, by SIPI */
#define PORT		0x99

#define MSR_APIC_BASE	0x1b
#define MSR_X2APIC_ICR	0x830
#define ICR_INIT	(1ull << 32 | 0x4500)
#define ICR_STARTUP	(1ull << 32 | 0x4600 | START / PAGE)

static void wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

/* Signals the host, goes to EPT 5 from real mode, signals again. */
static const uint8_t real_mode_code[] = {
	0xe6, PORT,				/* out %al, $PORT */
	0x66, 0x31, 0xc0,			/* xor %eax, %eax */
	0x66, 0xb9, 0x05, 0x00, 0x00, 0x00,	/* mov $5, %ecx */
	0x0f, 0x01, 0xd4,			/* vmfunc */
	0xe6, PORT,
	0xf4,					/* hlt */
};

static void guest_sender(void)
{
	/* Enabled, in x2APIC mode, of the first CPU. */
	wrmsr(MSR_APIC_BASE, 0xfee00d00);
	epk_set_up(6);
	guest_sync(1);
	wrmsr(MSR_X2APIC_ICR, ICR_INIT);
	wrmsr(MSR_X2APIC_ICR, ICR_STARTUP);
	guest_sync(2);
}

static void guest_target(void)
{
	vmfunc(6);
	GUEST_EQ(current_ept(), 6);
	guest_sync(1);
	GUEST_CHECK(false);
}

static void guest_again(void)
{
	/* Set by the code in real mode. */
	GUEST_EQ(current_ept(), 5);
	GUEST_EQ(read64(alias(5, DATA)), 77);
	GUEST_EQ(try_read(alias(6, DATA)), DOMAIN_FAULT(0));
}

static uint32_t ept_of(struct vcpu *vcpu)
{
	struct kvm_epk_vcpu state;

	REQUIRE(!ioctl(vcpu->fd, KVM_GET_EPK_VCPU, &state));
	return state.ept;
}

static void run_to_port(struct vcpu *vcpu)
{
	vcpu_run_exit(vcpu, KVM_EXIT_IO);
	CHECK_EQ(vcpu->run->io.port, PORT);
}

/* INIT and SIPI from another vCPU; what runs then is real-mode code in EPT 0. */
static void init(void)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct vm *vm = vm_create();
	struct vcpu *sender, *target;
	uint8_t *ram;

	REQUIRE(!ioctl(vm->fd, KVM_CREATE_IRQCHIP));
	sender = vcpu_add(vm, guest_sender);
	target = vcpu_add(vm, guest_target);
	ram = vm_ram(vm, 0, 0, 0, 16 * MiB);
	memcpy(ram + START, real_mode_code, sizeof(real_mode_code));
	*(uint64_t *)(ram + DATA) = 77;
	REQUIRE(!ioctl(target->fd, KVM_SET_MP_STATE, &runnable));
	vcpu_run_sync(sender, 1);
	vcpu_run_sync(target, 1);
	CHECK_EQ(ept_of(target), 6);
	vcpu_run_sync(sender, 2);
	run_to_port(target);
	CHECK_EQ(ept_of(target), 0);
	run_to_port(target);
	CHECK_EQ(ept_of(target), 5);
	vcpu_start_at(target, guest_again);
	vcpu_run_done(target);
	vm_destroy(vm);
}

static void guest_before(void)
{
	epk_set_up(2);
	vmfunc(2);
	guest_sync(1);
}

static void guest_rebooted(void)
{
	/* EPK and the EPT outlast a reset that only sets registers. */
	GUEST_EQ(epk_enable_at(layout), -EEXIST);
	GUEST_EQ(current_ept(), 2);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 3);
	/* How a guest gets rid of what another left. */
	vmfunc(0);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 1, 2, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 0, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 1);
}

static void set_registers(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_before);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(vcpu, 1);
	vcpu_start_at(vcpu, guest_rebooted);
	vcpu_run_done(vcpu);
	CHECK_EQ(ept_of(vcpu), 0);
	vm_destroy(vm);
}

static void guest_late(void)
{
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(try_vmfunc(0, 2), 0);
	GUEST_EQ(read64(alias(2, DATA)), 78);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 9, 1, 0), 0);
}

static void guest_sees(void)
{
	GUEST_EQ(current_ept(), 2);
	GUEST_EQ(try_vmfunc(0, 9), 0);
	GUEST_EQ(current_ept(), 9);
}

/* A vCPU that is created when others run in EPTs. */
static void hotplug(void)
{
	struct vm *vm = vm_create();
	struct vcpu *first = vcpu_add(vm, guest_before), *late;
	uint64_t *ram = vm_ram(vm, 0, 0, 0, 16 * MiB);

	ram[DATA / 8] = 78;
	vcpu_run_sync(first, 1);
	late = vcpu_add(vm, guest_late);
	CHECK_EQ(ept_of(late), 0);
	vcpu_run_done(late);
	CHECK_EQ(ept_of(late), 2);
	vcpu_start_at(first, guest_sees);
	vcpu_run_done(first);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "init", init },
		{ "set-registers", set_registers },
		{ "hotplug", hotplug },
	};

	return RUN_CASES(cases, argc, argv);
}
