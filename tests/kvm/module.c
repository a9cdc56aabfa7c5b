// SPDX-License-Identifier: MIT
/* Load KVM's modules with other parameters; the testbed keeps them in /epk. */
#include <fcntl.h>
#include <sys/syscall.h>

#include "vmm.h"

#define MODULE		"/epk/kvm-intel.ko"
#define PARAMETERS	"/sys/module/kvm_intel/parameters/"

/* What topics change. */
static const char * const names[] = { "epk", "pml", "eptad", "nested" };

#define NR_NAMES	(int)(sizeof(names) / sizeof(names[0]))

void kvm_parameter(const char *name, char value[16])
{
	char path[128];
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		n = read(fd, value, 15);
		close(fd);
	}
	value[n > 0 ? n : 0] = 0;
	value[strcspn(value, "\n")] = 0;
}

void kvm_parameters(char values[KVM_PARAMETERS])
{
	int i, n = 0;
	char value[16];

	values[0] = 0;
	for (i = 0; i < NR_NAMES; i++) {
		kvm_parameter(names[i], value);
		if (value[0])
			n += snprintf(values + n, KVM_PARAMETERS - n, "%s=%s ", names[i], value);
	}
}

void kvm_reload(const char *parameters)
{
	int fd = open(MODULE, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	if (kvm_fd >= 0)
		close(kvm_fd);
	kvm_fd = -1;
	REQUIRE(syscall(SYS_delete_module, "kvm_intel", 0) == 0 || errno == ENOENT);
	if (syscall(SYS_finit_module, fd, parameters, 0))
		die("kvm-intel.ko does not load with %s: %s", parameters, strerror(errno));
	close(fd);
}

void kvm_restore(const char values[KVM_PARAMETERS])
{
	char now[KVM_PARAMETERS];

	kvm_parameters(now);
	if (strcmp(now, values))
		kvm_reload(values);
}
