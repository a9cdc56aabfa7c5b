// SPDX-License-Identifier: MIT
/* Load KVM's modules with other parameters; the testbed keeps them in /epk. */
#include <fcntl.h>
#include <sys/syscall.h>

#include "vmm.h"

#define MODULE		"/epk/kvm-intel.ko"
#define PARAMETERS	"/sys/module/kvm_intel/parameters/"
/* What both vendors' modules have in common, and what it is loaded with by init. */
#define COMMON		"/epk/kvm.ko"
#define COMMON_USUAL	"epk_debug=1"
#define TDP_MMU		"/sys/module/kvm/parameters/tdp_mmu"

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

static void load(const char *module, const char *parameters)
{
	int fd = open(module, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	if (syscall(SYS_finit_module, fd, parameters, 0))
		die("%s does not load with %s: %s", module, parameters, strerror(errno));
	close(fd);
}

static void unload(void)
{
	if (kvm_fd >= 0)
		close(kvm_fd);
	kvm_fd = -1;
	REQUIRE(syscall(SYS_delete_module, "kvm_intel", 0) == 0 || errno == ENOENT);
}

void kvm_reload(const char *parameters)
{
	unload();
	load(MODULE, parameters);
}

static void reload_both(const char *common, const char *parameters)
{
	unload();
	REQUIRE(syscall(SYS_delete_module, "kvm", 0) == 0 || errno == ENOENT);
	load(COMMON, common);
	load(MODULE, parameters);
}

void kvm_reload_without_tdp_mmu(const char *parameters)
{
	reload_both(COMMON_USUAL " tdp_mmu=0", parameters);
}

static bool has_tdp_mmu(void)
{
	int fd = open(TDP_MMU, O_RDONLY | O_CLOEXEC);
	char value = 'N';

	if (fd < 0 || read(fd, &value, 1) != 1)
		value = 'N';
	if (fd >= 0)
		close(fd);
	return value == 'Y';
}

void kvm_restore(const char values[KVM_PARAMETERS])
{
	char now[KVM_PARAMETERS];

	kvm_parameters(now);
	if (!has_tdp_mmu())
		reload_both(COMMON_USUAL, values);
	else if (strcmp(now, values))
		kvm_reload(values);
}
