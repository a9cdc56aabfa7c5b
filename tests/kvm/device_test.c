// SPDX-License-Identifier: MIT
/* Devices: reached through windows at their ordinary address, and not in them. */
#include <sys/eventfd.h>

#include "vmm.h"

#define DEVICE		(512 * MiB)	/* in block 0, no memslot */
#define FAR_DEVICE	(300 * GiB)	/* above all RAM */
#define APIC_BASE	0xfee00000ull
#define APIC_VERSION	0x30
#define WINDOW_BASE	(1ull << 39)
#define WINDOW_END	(WINDOW_BASE + 256 * GiB)

static void guest_mmio(void)
{
	epk_set_up(2);
	vmfunc(1);
	/* The first access finds nothing mapped, the second what KVM made of that. */
	GUEST_EQ(read64(alias(1, DEVICE)), 1);
	GUEST_EQ(read64(alias(1, DEVICE)), 2);
	GUEST_EQ(read64(at(DEVICE)), 3);
	write64(alias(1, DEVICE + 8), 0x1234);
	vmfunc(2);
	GUEST_EQ(read64(alias(2, DEVICE)), 4);
	GUEST_EQ(try_read(alias(1, DEVICE)), DOMAIN_FAULT(0));
	GUEST_EQ(try_write(alias(1, DEVICE), 0), DOMAIN_FAULT(PF_W));
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 2, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(try_read(alias(2, DEVICE)), DOMAIN_FAULT(0));
	GUEST_EQ(hypercall(KVM_EPK_FILL, 2, 1, KVM_EPK_RUN(0, FAR_DEVICE / GiB, 1)), 0);
	GUEST_EQ(read64(alias(2, FAR_DEVICE)), 5);
	GUEST_EQ(read64(at(FAR_DEVICE)), 6);
}

/* A device that userspace emulates hears its own address. */
static void mmio(void)
{
	static const uint64_t gpas[] = { DEVICE, DEVICE, DEVICE, DEVICE, FAR_DEVICE, FAR_DEVICE };
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_mmio);
	struct kvm_run *run = vcpu->run;
	uint64_t reads = 0, writes = 0;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	while (!vcpu_run_done_or_exit(vcpu)) {
		REQUIRE(run->exit_reason == KVM_EXIT_MMIO);
		CHECK_EQ(run->mmio.len, 8);
		if (run->mmio.is_write) {
			CHECK_EQ(run->mmio.phys_addr, DEVICE + 8);
			CHECK_EQ(*(uint64_t *)run->mmio.data, 0x1234);
			writes++;
			continue;
		}
		REQUIRE(reads < 6);
		CHECK_EQ(run->mmio.phys_addr, gpas[reads]);
		reads++;
		memcpy(run->mmio.data, &reads, 8);
	}
	CHECK_EQ(reads, 6);
	CHECK_EQ(writes, 1);
	vm_destroy(vm);
}

static int add_eventfd(struct vm *vm, int fd, uint64_t gpa, uint32_t len, uint32_t flags)
{
	struct kvm_ioeventfd event = { .addr = gpa, .len = len, .fd = fd, .flags = flags };

	return ioctl(vm->fd, KVM_IOEVENTFD, &event) ? -errno : 0;
}

static uint64_t events(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, 8) == 8 ? n : 0;
}

static void guest_ring(void)
{
	uint32_t ept;

	epk_set_up(3);
	for (ept = 0; ept < 4; ept++) {
		vmfunc(ept);
		write64(alias(ept, DEVICE), 0);
		write64(alias(ept, DEVICE + PAGE), 0);
		write64(at(DEVICE), 0);
		GUEST_EQ(try_write(alias((ept + 1) & 3, DEVICE), 0), DOMAIN_FAULT(PF_W));
		GUEST_EQ(try_write(alias((ept + 1) & 3, DEVICE + PAGE), 0), DOMAIN_FAULT(PF_W));
	}
}

/* Bells that KVM itself rings; the one of no length goes the fast way. */
static void eventfds(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_ring);
	int sized = eventfd(0, EFD_NONBLOCK), fast = eventfd(0, EFD_NONBLOCK);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	CHECK_EQ(add_eventfd(vm, sized, DEVICE, 8, 0), 0);
	CHECK_EQ(add_eventfd(vm, fast, DEVICE + PAGE, 0, 0), 0);
	vcpu_run_done(vcpu);
	CHECK_EQ(events(sized), 8);
	CHECK_EQ(events(fast), 4);
	vm_destroy(vm);
}

static void guest_enable(void)
{
	guest_sync(1);
	GUEST_EQ(epk_enable(), -EBUSY);
	guest_sync(2);
	epk_set_up(1);
	guest_sync(3);
	vmfunc(1);
	GUEST_EQ(try_write(alias(0, 0), 0), DOMAIN_FAULT(PF_W));
	write64(alias(1, 0), 0);
}

/* No device of KVM's where the windows are to be, nor where they are. */
static void in_windows(void)
{
	static const struct {
		uint64_t gpa;
		uint32_t len;
	} there[] = {
		{ WINDOW_BASE, 8 }, { WINDOW_BASE + GiB, 8 }, { WINDOW_BASE - 8, 8 },
		{ WINDOW_END - 8, 8 },
		/* From the first to the last; those of no length are for writes of any. */
		{ WINDOW_BASE - GiB, 1 }, { WINDOW_BASE - GiB, 0 }, { WINDOW_BASE, 0 },
		{ WINDOW_END - 1, 1 }, { WINDOW_END - 1, 0 }, { WINDOW_BASE - GiB - 4, 8 },
		{ WINDOW_END - 4, 8 },
	}, beside[] = {
		{ WINDOW_BASE - GiB - 8, 8 }, { WINDOW_BASE - GiB - 32, 0 }, { WINDOW_END, 8 },
		{ WINDOW_END + 64, 0 }, { 1ull << 48, 8 }, { ~0ull - 15, 8 },
		/* From what views reach to what they do not. */
		{ (1ull << 48) - 4, 8 }, { (1ull << 48) - 1, 0 },
	};
	struct kvm_coalesced_mmio_zone zone = { .addr = WINDOW_BASE - GiB - PAGE, .size = 2 * PAGE };
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_enable);
	int fd = eventfd(0, EFD_NONBLOCK);
	unsigned int i;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	wanted = (struct layout){ .window_base = WINDOW_BASE, .identity = WINDOW_BASE - PAGE,
				  .slots = 1, .epts = 256 };
	for (i = 0; i < sizeof(there) / sizeof(there[0]); i++) {
		vcpu_start_at(vcpu, guest_enable);
		vcpu_run_sync(vcpu, 1);
		CHECK_EQ(add_eventfd(vm, fd, there[i].gpa, there[i].len, 0), 0);
		vcpu_run_sync(vcpu, 2);
		CHECK_EQ(add_eventfd(vm, fd, there[i].gpa, there[i].len,
				     KVM_IOEVENTFD_FLAG_DEASSIGN), 0);
	}
	/* Next to them: no harm. */
	CHECK_EQ(add_eventfd(vm, fd, WINDOW_BASE - GiB - 16, 8, 0), 0);
	vcpu_run_sync(vcpu, 3);
	/* None comes later, but beside them, or to a bus of no memory. */
	for (i = 0; i < sizeof(there) / sizeof(there[0]); i++)
		CHECK_EQ(add_eventfd(vm, fd, there[i].gpa, there[i].len, 0), -EINVAL);
	for (i = 0; i < sizeof(beside) / sizeof(beside[0]); i++)
		CHECK_EQ(add_eventfd(vm, fd, beside[i].gpa, beside[i].len, 0), 0);
	CHECK_EQ(ioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &zone) ? errno : 0, EINVAL);
	zone.size = PAGE;
	CHECK_EQ(ioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &zone), 0);
	CHECK_EQ(add_eventfd(vm, fd, WINDOW_BASE, 1, KVM_IOEVENTFD_FLAG_PIO), 0);
	vcpu_run_done(vcpu);
	CHECK_EQ(events(fd), 0);
	vm_destroy(vm);
}

static void guest_apic(void)
{
	uint32_t version = *(volatile uint32_t *)at(APIC_BASE + APIC_VERSION);

	epk_set_up(1);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 1, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, KVM_EPK_RUN(0, APIC_BASE / GiB, 1)), 0);
	vmfunc(1);
	GUEST_CHECK(version);
	GUEST_EQ(*(volatile uint32_t *)at(APIC_BASE + APIC_VERSION), version);
	GUEST_EQ(*(volatile uint32_t *)alias(1, APIC_BASE + APIC_VERSION), version);
	vmfunc(0);
	GUEST_EQ(try_read(alias(1, APIC_BASE + APIC_VERSION)), DOMAIN_FAULT(0));
}

/* The page of the local APIC, which KVM or the CPU emulates. */
static void apic(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu;

	REQUIRE(!ioctl(vm->fd, KVM_CREATE_IRQCHIP));
	vcpu = vcpu_add(vm, guest_apic);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "mmio", mmio },
		{ "eventfds", eventfds },
		{ "in-windows", in_windows },
		{ "apic", apic },
	};

	return RUN_CASES(cases, argc, argv);
}
