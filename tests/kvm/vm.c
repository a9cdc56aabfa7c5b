// SPDX-License-Identifier: MIT
/* VMs, their memslots and statistics. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>

#include "vmm.h"

/* Guests see at most this: the direct map holds all of it. */
#define MAX_PHYS_BITS	40

int kvm_fd = -1;
static struct vm vms[MAX_VMS];

static int host_phys_bits(void)
{
	uint32_t a = 0x80000008, b, c, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	return (a & 0xff) < MAX_PHYS_BITS ? (int)(a & 0xff) : MAX_PHYS_BITS;
}

struct vm *vm_create_narrow(int phys_bits)
{
	struct vm *vm = vms;

	while (vm < vms + MAX_VMS && vm->tables)
		vm++;
	REQUIRE(vm < vms + MAX_VMS);
	if (kvm_fd < 0)
		kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	REQUIRE(kvm_fd >= 0);

	vm->phys_bits = phys_bits;
	vm->nr_vcpus = 0;
	vm->fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	REQUIRE(vm->fd >= 0);
	vm->stats_fd = ioctl(vm->fd, KVM_GET_STATS_FD);
	REQUIRE(vm->stats_fd >= 0);
	/* Where KVM keeps pages of its own for real mode; out of everybody's way. */
	REQUIRE(!ioctl(vm->fd, KVM_SET_TSS_ADDR, 0x3effd000ul));
	pages_init(vm);
	REQUIRE(!vm_memslot(vm, IMAGE_SLOT, 0, IMAGE_GPA, image_size(), image_start()));
	return vm;
}

struct vm *vm_create(void)
{
	return vm_create_narrow(host_phys_bits());
}

void vm_destroy(struct vm *vm)
{
	int i;

	for (i = 0; i < vm->nr_vcpus; i++) {
		munmap(vm->vcpus[i].run, ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0));
		close(vm->vcpus[i].stats_fd);
		close(vm->vcpus[i].fd);
		/* Its area is free for another, unless that took it over. */
		if (vm->vcpus[i].cpu->owner == &vm->vcpus[i])
			vm->vcpus[i].cpu->self = NULL;
	}
	close(vm->stats_fd);
	close(vm->fd);
	pages_free(vm);
}

int vm_memslot(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size,
	       void *memory)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uint64_t)memory,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) ? -errno : 0;
}

void *huge_aligned_memory(uint64_t size)
{
	char *p = mmap(NULL, size + 2 * MiB, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	REQUIRE(p != MAP_FAILED);
	return (void *)(((uint64_t)p + 2 * MiB - 1) & ~(2 * MiB - 1));
}

int hold_page(void *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register hold = {
		.range = { (uint64_t)page, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE(!ioctl(fd, UFFDIO_API, &api));
	REQUIRE(!ioctl(fd, UFFDIO_REGISTER, &hold));
	return fd;
}

void *vm_ram(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size)
{
	void *memory = huge_aligned_memory(size);
	int err = vm_memslot(vm, slot, flags, gpa, size, memory);

	if (err)
		die("memslot %u: %s", slot, strerror(-err));
	return memory;
}

int vm_enable_cap(struct vm *vm, uint32_t cap, uint64_t arg0)
{
	struct kvm_enable_cap enable = { .cap = cap, .args = { arg0 } };

	return ioctl(vm->fd, KVM_ENABLE_CAP, &enable) ? -errno : 0;
}

static uint64_t read_stat(int fd, const char *name)
{
	struct kvm_stats_header header;
	struct {
		struct kvm_stats_desc desc;
		char name[64];
	} entry;
	size_t size;
	uint64_t value;
	uint32_t i;

	REQUIRE(pread(fd, &header, sizeof(header), 0) == sizeof(header));
	size = sizeof(entry.desc) + header.name_size;
	REQUIRE(size <= sizeof(entry));
	for (i = 0; i < header.num_desc; i++) {
		REQUIRE(pread(fd, &entry, size, header.desc_offset + i * size) == (ssize_t)size);
		if (strcmp(entry.desc.name, name))
			continue;
		REQUIRE(pread(fd, &value, 8, header.data_offset + entry.desc.offset) == 8);
		return value;
	}
	die("KVM has no statistic %s", name);
}

uint64_t vm_stat(struct vm *vm, const char *name)
{
	return read_stat(vm->stats_fd, name);
}

uint64_t vcpu_stat(struct vcpu *vcpu, const char *name)
{
	return read_stat(vcpu->stats_fd, name);
}
