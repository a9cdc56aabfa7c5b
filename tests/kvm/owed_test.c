// SPDX-License-Identifier: MIT
/*
 * KVM checks itself: with kvm.epk_debug=1 a vCPU that is about to enter the
 * guest without an invalidation that it owes is stopped, with EIO.  A probe
 * leaves out one kind of invalidation at a time.
 *
 * Not here, as nothing brings them about on this CPU: links that are replaced
 * (needs roots of two depths), tables that are removed from a root in use.
 * When roots are invalidated each vCPU loads a new one, which flushes as well.
 */
#include <fcntl.h>
#include <sys/klog.h>
#include <sys/syscall.h>

#include "vmm.h"

#define OMIT_MODULE	"/epk/epk_omit.ko"
#define EPT		5

/* enum kvm_epk_invalidation */
#define VIEW_CREATED	0
#define VIEW_DESTROYED	1
#define SLOT_EMPTIED	2
#define NOTHING		(-1)

static void leave_out(int why)
{
	char parameter[16];
	int fd = open(OMIT_MODULE, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	snprintf(parameter, sizeof(parameter), "why=%d", why);
	if (syscall(SYS_finit_module, fd, parameter, 0))
		die(OMIT_MODULE " does not load: %s", strerror(errno));
	close(fd);
}

static void leave_nothing_out(void)
{
	REQUIRE(!syscall(SYS_delete_module, "epk_omit", 0));
}

static void guest_change(void)
{
	epk_set_up(EPT);
	vmfunc(EPT);
	write64(alias(EPT, 0x5000), 1);
	vmfunc(1);
	guest_sync(0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, EPT + 1, 1, 0), 0);
	guest_sync(1);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, EPT, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	guest_sync(2);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, EPT, 1, 0), 0);
	guest_sync(3);
}

/* KVM_RUN fails for good, at the latest after the exit that was under way. */
static bool stopped(struct vcpu *vcpu)
{
	int i;

	for (i = 0; i < 3; i++) {
		if (ioctl(vcpu->fd, KVM_RUN, 0) < 0)
			return errno == EIO;
	}
	return false;
}

/* Leave out @why before the guest goes on from @stage. */
static void omission(int why, uint64_t stage)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_change);
	uint64_t i;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	for (i = 0; i <= stage; i++)
		vcpu_run_sync(vcpu, i);

	leave_out(why);
	/* The warning is what this is for; the log must not fail the run. */
	klogctl(6, NULL, 0);
	CHECK(stopped(vcpu));
	klogctl(7, NULL, 0);
	leave_nothing_out();
	vm_destroy(vm);
}

static void created(void)
{
	omission(VIEW_CREATED, 0);
}

static void emptied(void)
{
	omission(SLOT_EMPTIED, 1);
}

static void destroyed(void)
{
	omission(VIEW_DESTROYED, 2);
}

static void complete(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_change);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	leave_out(NOTHING);
	vcpu_run_sync(vcpu, 0);
	vcpu_run_sync(vcpu, 1);
	vcpu_run_sync(vcpu, 2);
	vcpu_run_sync(vcpu, 3);
	vcpu_run_done(vcpu);
	leave_nothing_out();
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "complete", complete },
		{ "view-created", created },
		{ "slot-emptied", emptied },
		{ "view-destroyed", destroyed },
	};

	return RUN_CASES(cases, argc, argv);
}
