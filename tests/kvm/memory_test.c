// SPDX-License-Identifier: MIT
/* What views take is charged to a memory cgroup, is refused at its limit, and is counted. */
#include <sys/mount.h>
#include <sys/stat.h>

#include "vmm.h"

#define CGROUPS		"/tmp/cgroup-kvm"
#define CGROUP		CGROUPS "/limited"
#define NR		510
#define NO_LIMIT	"max"

/* From here on this process may have that much more memory. */
static void limit(const char *bytes)
{
	char pid[16];

	/* What it has already is not charged to the new group; fetch the rest of the image. */
	REQUIRE(!mlockall(MCL_CURRENT));
	REQUIRE(!mkdir(CGROUPS, 0700) || errno == EEXIST);
	if (access(CGROUPS "/cgroup.procs", F_OK))
		REQUIRE(!mount("none", CGROUPS, "cgroup2", 0, NULL));
	write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	REQUIRE(!mkdir(CGROUP, 0700) || errno == EEXIST);
	write_file(CGROUP "/memory.max", bytes);
	snprintf(pid, sizeof(pid), "%d", getpid());
	write_file(CGROUP "/cgroup.procs", pid);
}

static void guest_create_all(void)
{
	epk_set_up(0);
	guest_sync(1);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, NR, 0), -ENOMEM);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 1);
	GUEST_EQ(try_vmfunc(0, 1), UD);
	guest_sync(2);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, NR, 0), 0);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), NR + 1);
	vmfunc(NR);
	GUEST_EQ(current_ept(), NR);
}

/* The guest is told, and nobody is killed. */
static void create_all(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_create_all);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(vcpu, 1);
	limit("4M");
	vcpu_run_sync(vcpu, 2);
	write_file(CGROUP "/memory.max", NO_LIMIT);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

static void guest_fill_up(void)
{
	long result = 0;
	uint32_t ept;

	epk_set_up(0);
	guest_sync(1);
	for (ept = 1; !result && ept < 512; ept++)
		result = hypercall(KVM_EPK_CREATE, ept, 1, 0);
	GUEST_EQ(result, -ENOMEM);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), ept - 1);
	guest_sync(2);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 1, ept - 2, 0), 0);
}

static void guest_enable(void)
{
	query(KVM_EPK_QUERY_EPTS);
	guest_sync(1);
	GUEST_EQ(epk_enable(), -ENOMEM);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	guest_sync(2);
	epk_set_up(1);
}

/* With nothing left, enabling and restoring are refused as well. */
static void enable_and_restore(void)
{
	struct kvm_epk_state state = {
		.version = KVM_EPK_VERSION,
		.window_slots = 1,
		.window_base = 1ull << 39,
		.identity = (1ull << 39) - PAGE,
		.nr_epts = 512,
		.epts = { 7 },
	};
	struct vm *full = vm_create(), *vm = vm_create();
	struct vcpu *filler = vcpu_add(full, guest_fill_up), *vcpu = vcpu_add(vm, guest_enable);

	vm_ram(full, 0, 0, 0, 16 * MiB);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(filler, 1);
	vcpu_run_sync(vcpu, 1);
	limit("4M");
	vcpu_run_sync(filler, 2);
	vcpu_run_sync(vcpu, 2);
	CHECK_EQ(ioctl(vm->fd, KVM_SET_EPK_STATE, &state) ? errno : 0, ENOMEM);
	vcpu_run_done(filler);
	vcpu_run_done(vcpu);
	vm_destroy(full);
	vm_destroy(vm);
}

static uint64_t counted_pages(void)
{
	unsigned long kb = 0;
	char line[128];
	FILE *f;

	/* Each CPU keeps some at hand. */
	write_file("/proc/sys/vm/stat_refresh", "1");
	f = fopen("/proc/meminfo", "r");
	REQUIRE(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "SecPageTables: %lu", &kb) == 1)
			break;
	}
	fclose(f);
	return kb / 4;
}

static void guest_count(void)
{
	epk_set_up(0);
	guest_sync(1);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, 100, 0), 0);
	guest_sync(2);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 1, 100, 0), 0);
	guest_sync(3);
}

/* Five tables each; the identity page is none. */
static void counted(void)
{
	uint64_t before = counted_pages(), some, more;
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_count);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(vcpu, 1);
	some = counted_pages();
	/* EPT 0's, and KVM's own. */
	CHECK(some >= before + 5);
	vcpu_run_sync(vcpu, 2);
	more = counted_pages();
	CHECK(more >= some + 500 && more <= some + 510);
	vcpu_run_sync(vcpu, 3);
	/* Roots stay. */
	CHECK(counted_pages() >= some + 100 && counted_pages() <= some + 110);
	vm_destroy(vm);
	CHECK(counted_pages() <= before + 10);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "create-all", create_all },
		{ "enable-and-restore", enable_and_restore },
		{ "counted", counted },
	};

	return RUN_CASES(cases, argc, argv);
}
