// SPDX-License-Identifier: MIT
/* A guest that uses EPK and runs a guest of its own, L2. */
#include <signal.h>
#include <sys/utsname.h>

#include "vmm.h"

#define DATA		0x5000ull
#define REGIONS		0x10000ull	/* VMXON region, VMCS, both pages of guest RAM */
#define MSR_FEATURE	0x3a
#define MSR_VMX_BASIC	0x480
#define VMXE		(1ull << 13)

/* VMCS fields, as the manual numbers them. */
enum {
	GUEST_ES = 0x800, HOST_ES = 0xc00, HOST_TR = 0xc0c,
	LINK_POINTER = 0x2800,
	PIN = 0x4000, PROC = 0x4002, EXCEPTIONS = 0x4004, EXIT = 0x400c, ENTRY = 0x4012,
	REASON = 0x4402, LENGTH = 0x440c, QUALIFICATION = 0x6400,
	ES_LIMIT = 0x4800, GDT_LIMIT = 0x4810, IDT_LIMIT = 0x4812, ES_RIGHTS = 0x4814,
	GUEST_CR0 = 0x6800, GUEST_CR3 = 0x6802, GUEST_CR4 = 0x6804, ES_BASE = 0x6806,
	GDT_BASE = 0x6816, IDT_BASE = 0x6818, GUEST_DR7 = 0x681a, GUEST_RSP = 0x681c,
	GUEST_RIP = 0x681e, GUEST_RFLAGS = 0x6820,
	HOST_CR0 = 0x6c00, HOST_CR3 = 0x6c02, HOST_CR4 = 0x6c04, HOST_GS_BASE = 0x6c08,
	HOST_TR_BASE = 0x6c0a, HOST_GDT_BASE = 0x6c0c, HOST_IDT_BASE = 0x6c0e,
	HOST_RSP = 0x6c14, HOST_RIP = 0x6c16,
};

#define EXIT_VMCALL	18

static uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

#define READ_CR(n) ({							\
	uint64_t value_;						\
	asm volatile("movq %%cr" #n ", %0" : "=r"(value_));		\
	value_;								\
})

/* 0 if it succeeds, as the carry and zero flags tell. */
#define VMX(insn, inputs...) ({						\
	bool failed_;							\
	asm volatile(insn "\n\tsetbe %0" : "=rm"(failed_) : inputs : "memory", "cc"); \
	failed_;							\
})

static void vmwrite(uint64_t field, uint64_t value)
{
	GUEST_EQ(VMX("vmwrite %2, %1", "r"(field), "r"(value)), 0);
}

static uint64_t vmread(uint64_t field)
{
	uint64_t value;

	asm volatile("vmread %1, %0" : "=r"(value) : "r"(field) : "cc");
	return value;
}

/* Enter L2; 0 once it has exited. */
static bool enter(bool launch)
{
	uint64_t rsp = HOST_RSP, rip = HOST_RIP;
	bool failed;

	/* Afterwards the registers are L2's. */
	asm volatile("pushq %%rbp\n\t"
		     "vmwrite %%rsp, %[rsp]\n\t"
		     "leaq 1f(%%rip), %%rcx\n\t"
		     "vmwrite %%rcx, %[rip]\n\t"
		     "testb %%al, %%al\n\t"
		     "jz 2f\n\t"
		     "vmlaunch\n\t"
		     "jmp 3f\n"
		     "2:\tvmresume\n"
		     "3:\tmovb $1, %%al\n\t"
		     "jmp 4f\n"
		     "1:\tmovb $0, %%al\n"
		     "4:\tpopq %%rbp"
		     : "=a"(failed), [rsp] "+d"(rsp), [rip] "+S"(rip)
		     : "a"(launch)
		     : "rbx", "rcx", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
		       "memory", "cc");
	return failed;
}

/* What is asked for, with what must be and without what can't be set. */
static uint64_t controls(uint32_t msr, uint32_t wanted)
{
	uint64_t allowed = rdmsr(msr);

	return (wanted | (uint32_t)allowed) & allowed >> 32;
}

struct table {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

static uint8_t l2_stack[16384] __attribute__((aligned(16)));

/* L2 is in 64-bit mode and has L1's page tables, descriptor tables and %gs. */
static void set_up_l2(void (*l2)(void))
{
	static const uint16_t selectors[] = { 0x1b, 0x08, 0x10, 0x1b, 0x1b, 0x1b, 0, SEL_TSS };
	static const uint32_t rights[] = { 0xc0f3, 0xa09b, 0xc093, 0xc0f3, 0xc0f3, 0xc0f3,
					   0x10000, 0x8b };
	uint64_t gs = (uint64_t)this_cpu(), tss;
	struct table gdt, idt;
	int i;

	asm volatile("sgdt %0" : "=m"(gdt));
	asm volatile("sidt %0" : "=m"(idt));
	tss = *(uint64_t *)(gdt.base + SEL_TSS);
	tss = (tss >> 16 & 0xffffff) | (tss >> 56) << 24;

	vmwrite(PIN, controls(0x481, 0));
	vmwrite(PROC, controls(0x482, 0));
	vmwrite(EXIT, controls(0x483, 1 << 9));
	vmwrite(ENTRY, controls(0x484, 1 << 9));
	vmwrite(EXCEPTIONS, 0);
	vmwrite(LINK_POINTER, ~0ull);
	for (i = 0; i < 8; i++) {
		vmwrite(GUEST_ES + 2 * i, selectors[i]);
		vmwrite(ES_LIMIT + 2 * i, i == 7 ? 103 : 0xffffffff);
		vmwrite(ES_RIGHTS + 2 * i, rights[i]);
		vmwrite(ES_BASE + 2 * i, i == 5 ? gs : i == 7 ? tss : 0);
	}
	for (i = 0; i < 6; i++)
		vmwrite(HOST_ES + 2 * i, i == 1 ? SEL_CODE64 : i == 2 ? SEL_DATA : 0);
	vmwrite(HOST_TR, SEL_TSS);
	vmwrite(GDT_BASE, gdt.base);
	vmwrite(GDT_LIMIT, gdt.limit);
	vmwrite(IDT_BASE, idt.base);
	vmwrite(IDT_LIMIT, idt.limit);
	vmwrite(HOST_GDT_BASE, gdt.base);
	vmwrite(HOST_IDT_BASE, idt.base);
	vmwrite(HOST_TR_BASE, tss);
	vmwrite(HOST_GS_BASE, gs);
	vmwrite(GUEST_CR0, READ_CR(0));
	vmwrite(GUEST_CR3, READ_CR(3));
	vmwrite(GUEST_CR4, READ_CR(4));
	vmwrite(HOST_CR0, READ_CR(0));
	vmwrite(HOST_CR3, READ_CR(3));
	vmwrite(HOST_CR4, READ_CR(4));
	vmwrite(GUEST_DR7, 0x400);
	vmwrite(GUEST_RFLAGS, 2);
	vmwrite(GUEST_RSP, (uint64_t)(l2_stack + sizeof(l2_stack) - 8));
	vmwrite(GUEST_RIP, (uint64_t)l2);
}

static void vmx_on(void)
{
	uint64_t *regions = at(REGIONS), pointer = REGIONS;

	asm volatile("movq %0, %%cr4" : : "r"(READ_CR(4) | VMXE));
	regions[0] = regions[512] = (uint32_t)rdmsr(MSR_VMX_BASIC) & 0x7fffffff;
	GUEST_EQ(VMX("vmxon %1", "m"(pointer)), 0);
	pointer += PAGE;
	GUEST_EQ(VMX("vmclear %1", "m"(pointer)), 0);
	GUEST_EQ(VMX("vmptrld %1", "m"(pointer)), 0);
}

/* L2 calls L1 with a number. */
static void l2_call(uint64_t number)
{
	asm volatile("vmcall" : : "a"(number) : "memory");
}

static uint64_t l2_said;

static void l2_main(void)
{
	/* Ordinary memory is memory; windows, VMFUNC and hypercalls of EPK are not there. */
	GUEST_EQ(read64(at(DATA)), 55);
	GUEST_EQ(try_vmfunc(0, 0), UD);
	GUEST_EQ(try_vmfunc(0, 1), UD);
	l2_said = 1;
	l2_call(1);
	l2_said = 2;
	l2_call(2);
	write64(alias(3, DATA), 99);
	l2_said = 3;
	l2_call(3);
}

static void expect_vmcall(uint64_t said)
{
	GUEST_EQ(vmread(REASON), EXIT_VMCALL);
	GUEST_EQ(l2_said, said);
	vmwrite(GUEST_RIP, vmread(GUEST_RIP) + vmread(LENGTH));
}

static void guest_l1(void)
{
	epk_set_up(3);
	vmx_on();
	vmfunc(2);
	set_up_l2(l2_main);
	write64(alias(2, DATA), 55);
	GUEST_EQ(enter(true), 0);
	expect_vmcall(1);
	/* Back in the EPT that it left. */
	GUEST_EQ(current_ept(), 2);
	GUEST_EQ(read64(alias(2, DATA)), 55);
	GUEST_EQ(try_read(alias(3, DATA)), DOMAIN_FAULT(0));
	vmfunc(3);
	GUEST_EQ(read64(alias(3, DATA)), 55);
	GUEST_EQ(enter(false), 0);
	expect_vmcall(2);
	GUEST_EQ(current_ept(), 3);
	/* What L2 writes to a window is nothing to L1's memory. */
	GUEST_EQ(enter(false), 0);
	expect_vmcall(3);
	GUEST_EQ(current_ept(), 3);
	GUEST_EQ(read64(at(DATA)), 55);
	asm volatile("vmxoff");
	vmfunc(1);
	GUEST_EQ(current_ept(), 1);
}

static void let_vmx(struct vcpu *vcpu)
{
	vcpu_set_msr(vcpu, MSR_FEATURE, 5);
}

static void launch(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_l1);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	let_vmx(vcpu);
	/* To userspace, which must not emulate devices there. */
	vcpu_run_exit(vcpu, KVM_EXIT_MMIO);
	CHECK_EQ(vcpu->run->mmio.phys_addr, (1ull << 39) + 3 * GiB + DATA);
	CHECK_EQ(vcpu->run->mmio.is_write, 1);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

/* VMX operands: in a window as well, what they point to not. */
static void guest_operands(void)
{
	uint64_t *operand, region = REGIONS + PAGE, aliased;

	epk_set_up(1);
	vmx_on();
	vmfunc(1);
	operand = alias(1, DATA);
	*operand = region;
	GUEST_EQ(VMX("vmptrld %1", "m"(*operand)), 0);
	*operand = 0;
	asm volatile("vmptrst %0" : "=m"(*operand));
	GUEST_EQ(read64(at(DATA)), region);
	GUEST_EQ(TRY("vmptrld (%0)", , "r"(alias(0, DATA))), DOMAIN_FAULT(0));
	GUEST_EQ(TRY("vmptrst (%0)", , "r"(alias(0, DATA))), DOMAIN_FAULT(PF_W));

	aliased = (uint64_t)alias(1, region) - DIRECT_MAP;
	GUEST_EQ(VMX("vmptrld %1", "m"(aliased)), 1);
	asm volatile("vmxoff");
	GUEST_EQ(VMX("vmxon %1", "m"(aliased)), 1);
	GUEST_EQ(current_ept(), 1);
}

static void operands(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_operands);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	let_vmx(vcpu);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

static void l2_sync(void)
{
	guest_sync(1);
	l2_said = 1;
	l2_call(1);
}

static void guest_waits(void)
{
	epk_set_up(3);
	vmx_on();
	vmfunc(3);
	set_up_l2(l2_sync);
	GUEST_EQ(enter(true), 0);
	expect_vmcall(1);
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(try_vmfunc(0, 3), UD);
	GUEST_EQ(try_vmfunc(0, 2), 0);
}

static void guest_destroys(void)
{
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 3, 1, 0), 0);
}

/* L1's EPT goes while L2 runs. */
static void destroyed(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_waits), *other = vcpu_add(vm, guest_destroys);
	struct kvm_epk_vcpu state;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	let_vmx(vcpu);
	vcpu_run_sync(vcpu, 1);
	REQUIRE(!ioctl(vcpu->fd, KVM_GET_EPK_VCPU, &state));
	CHECK_EQ(state.ept, 3);
	vcpu_run_done(other);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

static void l2_vmfunc(void)
{
	guest_sync(1);
	GUEST_EQ(try_vmfunc(0, 0), UD);
	GUEST_EQ(try_vmfunc(0, 1), UD);
	GUEST_EQ(try_vmfunc(1, 0), UD);
	l2_said = 1;
	l2_call(1);
}

static void guest_moves(void)
{
	epk_set_up(3);
	vmx_on();
	vmfunc(3);
	set_up_l2(l2_vmfunc);
	GUEST_EQ(enter(true), 0);
	expect_vmcall(1);
	/* Userspace has not told in which EPT it was. */
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(try_vmfunc(0, 2), 0);
	GUEST_EQ(current_ept(), 2);
}

static void on_signal(int signal)
{
	(void)signal;
}

/* Have the vCPU load its root, and so get on a view, without entering the guest. */
static void load_root(struct vcpu *vcpu)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} mask = { .head.len = 8 };
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	REQUIRE(!sigaction(SIGUSR1, &action, NULL) && !sigprocmask(SIG_BLOCK, &blocked, NULL));
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask));
	REQUIRE(!raise(SIGUSR1));
	REQUIRE(ioctl(vcpu->fd, KVM_RUN, 0) && errno == EINTR);
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, NULL));
	signal(SIGUSR1, SIG_IGN);
}

/*
 * A vCPU that is on a view takes over another's L2, and only then gets its CPUID: VMFUNC
 * stays off for L2, or it would exit, of which KVM warns.  Linux 6.1 warns of itself then,
 * as VMFUNC is on there for each vCPU.
 */
static void cpuid(void)
{
	int warnings = kernel_warnings();
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_moves), *heir = vcpu_add(vm, guest_moves);
	union {
		struct kvm_nested_state state;
		uint8_t room[3 * PAGE];
	} nested = { .state.size = sizeof(nested) };
	struct utsname system;

	REQUIRE(!uname(&system));
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	let_vmx(vcpu);
	vcpu_run_sync(vcpu, 1);
	if (strncmp(system.release, "6.1.", 4)) {
		let_vmx(heir);
		load_root(heir);
		vcpu_take_over(heir, vcpu);
		REQUIRE(!ioctl(vcpu->fd, KVM_GET_NESTED_STATE, &nested));
		CHECK(nested.state.flags & KVM_STATE_NESTED_GUEST_MODE);
		REQUIRE(!ioctl(heir->fd, KVM_SET_NESTED_STATE, &nested));
		CHECK_EQ(vcpu_set_cpuid(heir, vm->phys_bits), 0);
		vcpu_run_done(heir);
	}
	CHECK_EQ(kernel_warnings(), warnings);
	vm_destroy(vm);
}

static void guest_without(void)
{
	epk_set_up(1);
	vmfunc(1);
	GUEST_EQ(TRY("vmxon (%0)", , "r"(at(DATA))), UD);
	GUEST_EQ(current_ept(), 1);
}

/* The same guest where there is no nested VMX. */
static void off(void)
{
	kvm_reload("epk=any nested=0");
	run_guest(guest_without);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "launch", launch },
		{ "operands", operands },
		{ "destroyed", destroyed },
		{ "cpuid", cpuid },
		{ "off", off },
	};

	return RUN_CASES(cases, argc, argv);
}
