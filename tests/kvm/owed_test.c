// SPDX-License-Identifier: MIT
/*
 * KVM checks itself: with kvm.epk_debug=1 a vCPU that is about to enter the
 * guest without an invalidation that it owes is stopped, with EIO.  A probe
 * leaves out one kind of invalidation at a time.
 *
 * KVM's own flushes pay as well: when roots are invalidated each vCPU loads a new one
 * and flushes.  So a vCPU has to have done that before what is left out is due; who
 * deletes a memslot waits meanwhile.
 */
#include <sys/klog.h>

#include "vmm.h"

#define EPT		5
#define DELETED		3	/* the memslot */

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

static void expect_stop(struct vcpu *vcpu)
{
	/* The warning is what this is for; the log must not fail the run. */
	klogctl(6, NULL, 0);
	CHECK(stopped(vcpu));
	klogctl(7, NULL, 0);
	leave_nothing_out();
}

/* Leave out @why before the guest goes on from @stage. */
static void omission(enum invalidation why, uint64_t stage)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_change);
	uint64_t i;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	for (i = 0; i <= stage; i++)
		vcpu_run_sync(vcpu, i);

	leave_out(why);
	expect_stop(vcpu);
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

static void guest_touch(void)
{
	epk_set_up(EPT);
	vmfunc(EPT);
	write64(alias(EPT, 0x5000), 1);
	guest_sync(0);
	guest_sync(1);
	/* Not in the old root, so that the new one's table is linked. */
	write64(alias(EPT, 8 * MiB), 1);
	guest_sync(2);
	guest_sync(3);
}

static void *delete(void *vm)
{
	REQUIRE(!vm_memslot(vm, DELETED, 0, 128 * MiB, 0, NULL));
	return NULL;
}

/* A memslot is being deleted: vCPUs have a new root, and views still link the old one's tables. */
static struct vm *start_deletion(struct vcpu **vcpu, pthread_t *thread, const char *skip)
{
	struct vm *vm = vm_create();

	*vcpu = vcpu_add(vm, guest_touch);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vm_ram(vm, DELETED, 0, 128 * MiB, 2 * MiB);
	vcpu_run_sync(*vcpu, 0);
	hold_at("kvm_epk_unlink_all", skip);
	REQUIRE(!pthread_create(thread, NULL, delete, vm));
	hold_wait();
	vcpu_run_sync(*vcpu, 1);
	return vm;
}

static void end_deletion(pthread_t thread)
{
	hold_release();
	REQUIRE(!pthread_join(thread, NULL));
	hold_end();
}

/* Of all links at the end of a deletion, or of one table at a time. */
static void omission_by_deletion(enum invalidation why, const char *skip)
{
	struct vcpu *vcpu;
	pthread_t thread;
	struct vm *vm = start_deletion(&vcpu, &thread, skip);

	leave_out(why);
	end_deletion(thread);
	expect_stop(vcpu);
	vm_destroy(vm);
}

static void roots_invalidated(void)
{
	omission_by_deletion(ROOTS_INVALIDATED, "");
}

static void table_removed(void)
{
	omission_by_deletion(TABLE_REMOVED, "kvm_epk_unlink_all");
}

static void link_replaced(void)
{
	struct vcpu *vcpu;
	pthread_t thread;
	struct vm *vm = start_deletion(&vcpu, &thread, "");

	leave_out(LINK_REPLACED);
	expect_stop(vcpu);
	end_deletion(thread);
	vm_destroy(vm);
}

/* Nothing is left out, as often as something is above. */
static void complete_by_deletion(void)
{
	const char * const skips[] = { "", "kvm_epk_unlink_all" };
	struct vcpu *vcpu;
	pthread_t thread;
	struct vm *vm;
	int i;

	for (i = 0; i < 2; i++) {
		vm = start_deletion(&vcpu, &thread, skips[i]);
		vcpu_run_sync(vcpu, 2);
		end_deletion(thread);
		vcpu_run_sync(vcpu, 3);
		vcpu_run_done(vcpu);
		vm_destroy(vm);
	}
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
		{ "complete-by-deletion", complete_by_deletion },
		{ "roots-invalidated", roots_invalidated },
		{ "table-removed", table_removed },
		{ "link-replaced", link_replaced },
	};

	return RUN_CASES(cases, argc, argv);
}
