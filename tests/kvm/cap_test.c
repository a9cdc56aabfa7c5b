// SPDX-License-Identifier: MIT
/* Who may use EPK: KVM_CAP_EPK, the module parameter, and how many EPTs there are. */
#include <fcntl.h>
#include <linux/kvm_para.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "vmm.h"

#define DATA	0x5000ull
#define TOTAL	512u	/* slots of all windows at 40 address bits */

/* What the guest's CPUID says. */
static bool has_feature(void)
{
	uint32_t a = 0x40000001, b, c, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	return a >> KVM_FEATURE_EPK & 1;
}

static void guest_refused(void)
{
	long op;

	GUEST_CHECK(!has_feature());
	for (op = KVM_EPK_QUERY; op <= KVM_EPK_DESTROY; op++)
		GUEST_EQ(hypercall(op, op == KVM_EPK_ENABLE ? KVM_EPK_VERSION : 1, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(try_vmfunc(0, 0), UD);
	GUEST_EQ(try_vmfunc(0, 1), UD);
}

static void guest_allowed(void)
{
	GUEST_CHECK(has_feature());
	epk_set_up(1);
	vmfunc(1);
	GUEST_EQ(current_ept(), 1);
}

/* A VM whose VMM says @epts, or nothing if that is negative. */
static void run_with(long epts, void (*guest)(void))
{
	struct vm *vm = vm_create();

	if (epts >= 0)
		CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, epts), 0);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_done(vcpu_add(vm, guest));
	vm_destroy(vm);
}

static int set_state(struct vm *vm)
{
	struct kvm_epk_state state = {};

	return ioctl(vm->fd, KVM_SET_EPK_STATE, &state) ? -errno : 0;
}

static int get_state(struct vm *vm)
{
	struct kvm_epk_state state = {};

	return ioctl(vm->fd, KVM_GET_EPK_STATE, &state) ? -errno : 0;
}

static int vcpu_state(struct vcpu *vcpu, unsigned long request)
{
	struct kvm_epk_vcpu state = {};

	return ioctl(vcpu->fd, request, &state) ? -errno : 0;
}

static void off(void)
{
	struct vcpu *vcpu;
	struct vm *vm;

	kvm_reload("epk=off");
	vm = vm_create();
	CHECK_EQ(ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK), 0);
	CHECK_EQ(ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK), 0);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 0), -EINVAL);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 1), -EINVAL);
	CHECK_EQ(get_state(vm), -ENXIO);
	CHECK_EQ(set_state(vm), -ENXIO);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu = vcpu_add(vm, guest_refused);
	CHECK_EQ(vcpu_state(vcpu, KVM_GET_EPK_VCPU), -ENXIO);
	CHECK_EQ(vcpu_state(vcpu, KVM_SET_EPK_VCPU), -ENXIO);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

static void on(void)
{
	kvm_reload("epk=on");
	run_with(-1, guest_refused);
	run_with(0, guest_refused);
	run_with(512, guest_allowed);
	run_with(2, guest_allowed);
}

static void any(void)
{
	kvm_reload("epk=any");
	run_with(-1, guest_allowed);
	run_with(0, guest_refused);
	run_with(2, guest_allowed);
}

static void wrong_parameter(void)
{
	static const char * const wrong[] = { "epk=1", "epk=Y", "epk=", "epk=onn", "epk" };
	int fd = open("/epk/kvm-intel.ko", O_RDONLY);
	unsigned int i;

	REQUIRE(!syscall(SYS_delete_module, "kvm_intel", 0));
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		CHECK_EQ(syscall(SYS_finit_module, fd, wrong[i], 0), -1);
		CHECK_EQ(errno, EINVAL);
	}
	kvm_reload("epk=on");
	close(fd);
}

static void wrong_arguments(void)
{
	struct vm *vm = vm_create();
	struct kvm_enable_cap flags = { .cap = KVM_CAP_EPK, .flags = 1, .args = { 1 } };
	struct kvm_enable_cap vcpu_cap = { .cap = KVM_CAP_EPK, .args = { 1 } };
	struct vcpu *vcpu;

	CHECK_EQ(ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK), 512);
	CHECK_EQ(ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK), 512);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 513), -EINVAL);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, ~0ull), -EINVAL);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 1ull << 32), -EINVAL);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 1ull << 32 | 1), -EINVAL);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 1ull << 63), -EINVAL);
	CHECK_EQ(ioctl(vm->fd, KVM_ENABLE_CAP, &flags) ? errno : 0, EINVAL);
	/* The last word counts. */
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 0), 0);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 2), 0);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 513), -EINVAL);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu = vcpu_add(vm, guest_allowed);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 2), -EBUSY);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 0), -EBUSY);
	CHECK_EQ(ioctl(vcpu->fd, KVM_ENABLE_CAP, &vcpu_cap) ? errno : 0, EINVAL);
	vcpu_run_done(vcpu);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 0), -EBUSY);
	vm_destroy(vm);
}

#define TDP_MMU	"/sys/module/kvm/parameters/tdp_mmu"

static void set_tdp_mmu(const char *value)
{
	int fd = open(TDP_MMU, O_WRONLY | O_CLOEXEC);

	REQUIRE(fd >= 0 && write(fd, value, 1) == 1);
	close(fd);
}

static void vm_without_tdp_mmu(void)
{
	struct vm *vm = vm_create();

	CHECK_EQ(ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK), 0);
	CHECK_EQ(ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK), 0);
	CHECK_EQ(vm_enable_cap(vm, KVM_CAP_EPK, 1), -EINVAL);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_done(vcpu_add(vm, guest_refused));
	vm_destroy(vm);
}

/* Which MMU a VM has is decided when it is created; by Linux 6.12 when KVM is loaded. */
static void without_tdp_mmu(void)
{
	struct vm *before;
	struct stat stat_;

	REQUIRE(!stat(TDP_MMU, &stat_));
	if (!(stat_.st_mode & S_IWUSR)) {
		kvm_reload_without_tdp_mmu("epk=any");
		vm_without_tdp_mmu();
		return;
	}

	before = vm_create();
	set_tdp_mmu("N");
	vm_without_tdp_mmu();
	CHECK_EQ(ioctl(before->fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK), 512);
	set_tdp_mmu("Y");
	CHECK_EQ(ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK), 512);
	vm_ram(before, 0, 0, 0, 16 * MiB);
	vcpu_run_done(vcpu_add(before, guest_allowed));
	vm_destroy(before);
}

/* Userspace neither learns of the feature bit nor says where it is. */
static void feature_bit(void)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[128];
	} cpuid = { .head.nent = 128 };
	struct vm *vm;
	struct vcpu *vcpu;
	uint32_t i, leaf = 128;

	kvm_reload("epk=on");
	vm = vm_create();
	REQUIRE(!ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid));
	for (i = 0; i < cpuid.head.nent; i++) {
		if (cpuid.entries[i].function == 0x40000001)
			leaf = i;
	}
	REQUIRE(leaf < 128);
	CHECK_EQ(cpuid.entries[leaf].eax >> KVM_FEATURE_EPK & 1, 0);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu = vcpu_add(vm, guest_refused);
	cpuid.entries[leaf].eax |= 1u << KVM_FEATURE_EPK;
	CHECK_EQ(ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid), 0);
	vcpu_run_done(vcpu);
	vm_destroy(vm);

	vm = vm_create();
	REQUIRE(!vm_enable_cap(vm, KVM_CAP_EPK, 2));
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu = vcpu_add(vm, guest_allowed);
	vcpu_run_done(vcpu);
	/* The same as before is no change for KVM. */
	CHECK_EQ(vcpu_set_cpuid(vcpu, vm->phys_bits), 0);
	vm_destroy(vm);
}

static uint32_t nr_wanted;

/* Fewer EPTs have larger windows: a run of slots, at both ends of each. */
static void guest_sizes(void)
{
	/* A power of two. */
	uint64_t slots = 1ull << (63 - __builtin_clzll(TOTAL / nr_wanted)), i;
	uint64_t nr = slots < 4 ? slots : 4;
	uint32_t ept = nr_wanted - 1;
	struct layout more;
	char *window;

	GUEST_EQ(query(KVM_EPK_QUERY_NR_EPTS), nr_wanted);
	more = upper_half(40, nr_wanted + 1);
	if (nr_wanted < TOTAL)
		GUEST_EQ(epk_enable_at(more), -EINVAL);
	GUEST_EQ(epk_enable(), 0);
	GUEST_EQ(layout.epts, nr_wanted);
	GUEST_EQ(layout.slots, slots);
	if (ept)
		GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, ept, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, nr_wanted, 1, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_FILL, ept, 1, KVM_EPK_RUN(0, 0, slots + 1)), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_FILL, ept, 1, KVM_EPK_RUN(1, 0, slots)), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_FILL, ept, 1, KVM_EPK_RUN(slots, 0, 1)), -EINVAL);
	/* The last slots of the window are blocks 0, 1, ... */
	GUEST_EQ(hypercall(KVM_EPK_FILL, ept, 1, KVM_EPK_RUN(slots - nr, 0, nr)), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, ept, 1, KVM_EPK_RUN(slots - 1, 0, 1)), -EEXIST);
	vmfunc(ept);
	window = at(layout.window_base + (ept * slots + slots - nr) * GiB);
	for (i = 0; i < nr && i < 2; i++) {
		write64(at(i * GiB + DATA), 40 + i);
		GUEST_EQ(read64(window + i * GiB + DATA), 40 + i);
	}
	/* The slot below is empty, or another's. */
	GUEST_EQ(try_read(window - 8), DOMAIN_FAULT(0));
	/* A hole in the run. */
	if (nr > 2) {
		GUEST_EQ(hypercall(KVM_EPK_EMPTY, ept, 1, KVM_EPK_RUN(slots - nr + 1, 0, 1)), 0);
		GUEST_EQ(try_read(window + GiB + DATA), DOMAIN_FAULT(0));
		GUEST_EQ(read64(window + DATA), 40);
		GUEST_EQ(hypercall(KVM_EPK_EMPTY, ept, 1, KVM_EPK_RUN(slots - nr, 0, nr)), -ENOENT);
		GUEST_EQ(read64(window + DATA), 40);
	}
}

static void sizes(void)
{
	static const uint32_t numbers[] = { 1, 2, 3, 64, 100, 256, 511, 512 };
	unsigned int i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct vm *vm = vm_create();

		nr_wanted = numbers[i];
		REQUIRE(!vm_enable_cap(vm, KVM_CAP_EPK, nr_wanted));
		vm_ram(vm, 0, 0, 0, 16 * MiB);
		vm_ram(vm, 1, 0, GiB, 2 * MiB);
		vcpu_run_done(vcpu_add(vm, guest_sizes));
		vm_destroy(vm);
	}
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "off", off },
		{ "on", on },
		{ "any", any },
		{ "wrong-parameter", wrong_parameter },
		{ "wrong-arguments", wrong_arguments },
		{ "sizes", sizes },
		{ "without-tdp-mmu", without_tdp_mmu },
		{ "feature-bit", feature_bit },
	};

	return RUN_CASES(cases, argc, argv);
}
