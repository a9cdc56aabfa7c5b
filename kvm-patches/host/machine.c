// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <asm/kvm_epk.h>

#include "host.h"

const char *machine_root = "";

const char *on_machine(const char *path)
{
	static char paths[4][PATH_MAX];
	static unsigned int next;
	char *full = paths[next++ % 4];

	snprintf(full, PATH_MAX, "%s%s", machine_root, path);
	return full;
}

/* The line of a made-up device that begins so; false if there is none. */
static bool device_says(const char *device, const char *start, char *rest, size_t size)
{
	FILE *file = open_file(on_machine(device));
	size_t length = strlen(start);
	char line[256];
	bool ok = false;

	while (file && !ok && fgets(line, sizeof(line), file)) {
		ok = !strncmp(line, start, length) && line[length] == ' ';
		if (ok) {
			line[strcspn(line, "\n")] = 0;
			snprintf(rest, size, "%s", line + length + 1);
		}
	}
	if (file)
		fclose(file);
	return ok;
}

struct registers cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct registers r = { };
	char start[32], rest[256];

	if (*machine_root) {
		snprintf(start, sizeof(start), "%08x %u", leaf, subleaf);
		if (!device_says("/dev/cpu/0/cpuid", start, rest, sizeof(rest)) ||
		    sscanf(rest, "%x %x %x %x", &r.eax, &r.ebx, &r.ecx, &r.edx) != 4)
			memset(&r, 0, sizeof(r));
		return r;
	}
	/* Of the hypervisor's leaves, __get_cpuid_count() knows nothing. */
	if ((leaf & 0xf0000000) == 0x40000000)
		__cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
	else if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx))
		memset(&r, 0, sizeof(r));
	return r;
}

static bool msr_of(const char *cpu, uint32_t number, uint64_t *value)
{
	char path[300], start[16], rest[256];
	bool ok;
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%s/msr", cpu);
	if (*machine_root) {
		snprintf(start, sizeof(start), "%x", number);
		return device_says(path, start, rest, sizeof(rest)) && sscanf(rest, "%lx", value) == 1;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ok = fd >= 0 && pread(fd, value, sizeof(*value), number) == sizeof(*value);
	if (fd >= 0)
		close(fd);
	return ok;
}

/*
 * A CPU that does not have the register, beside one that has it, has none of its bits.  KVM looks at
 * each CPU likewise.
 */
bool msr(uint32_t number, uint64_t *value)
{
	DIR *cpus = opendir(on_machine("/dev/cpu"));
	struct dirent *entry;
	bool some = false;
	uint64_t all = ~0ull, one;

	while (cpus && (entry = readdir(cpus))) {
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
			continue;
		if (!msr_of(entry->d_name, number, &one))
			one = 0;
		else
			some = true;
		all &= one;
	}
	if (cpus)
		closedir(cpus);
	*value = some ? all : 0;
	return some;
}

struct kvm kvm_ask(void)
{
	struct kvm kvm = { };
	char rest[256];
	int fd;

	if (*machine_root) {
		if (access(on_machine("/dev/kvm"), F_OK))
			kvm.error = errno;
		else if (device_says("/dev/kvm", "error", rest, sizeof(rest)))
			kvm.error = atoi(rest);
		if (device_says("/dev/kvm", "api", rest, sizeof(rest)))
			kvm.api = atoi(rest);
		if (device_says("/dev/kvm", "epts", rest, sizeof(rest)))
			kvm.epts = atoi(rest);
		return kvm;
	}
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		kvm.error = errno;
		return kvm;
	}
	kvm.api = ioctl(fd, KVM_GET_API_VERSION, 0);
	kvm.epts = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK);
	close(fd);
	return kvm;
}

bool module_loaded(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	return !access(on_machine(path), F_OK);
}

bool parameter(const char *module, const char *name, char *value, size_t size)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	return line_of(on_machine(path), value, size);
}

bool program_says(char *const argv[], char *line, size_t size)
{
	int out[2], status = -1;
	ssize_t got, n = 0;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC))
		return false;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(null, 0);
		dup2(null, 2);
		dup2(out[1], 1);
		/* One that does not answer is as one that is not there. */
		alarm(20);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(out[1]);
	while (pid > 0 && n < (ssize_t)size - 1 && (got = read(out[0], line + n, size - 1 - n)) > 0)
		n += got;
	/* The rest, so that it does not end for having nobody to tell. */
	while (pid > 0 && read(out[0], (char[512]){ }, 512) > 0)
		;
	close(out[0]);
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return !status;
}

/* The other half of the space is left to RAM and devices.  Beyond 48 bits KVM's page tables have no more. */
unsigned int epts_of(unsigned int bits, unsigned int *gib)
{
	unsigned int half, epts;

	bits = bits > MAX_BITS ? MAX_BITS : bits;
	half = bits > KVM_EPK_BLOCK_SHIFT ? 1u << (bits - 1 - KVM_EPK_BLOCK_SHIFT) : 0;
	epts = half < KVM_EPK_MAX_EPTS ? half : KVM_EPK_MAX_EPTS;
	*gib = epts ? half / epts : 0;
	return epts;
}

unsigned int address_bits(void)
{
	return cpuid(0x80000008, 0).eax & 0xff;
}
