// SPDX-License-Identifier: MIT
/* The VMs that run, and what KVM counts of each: its statistics in debugfs, which are root's. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

#define STATISTICS	"/sys/kernel/debug/kvm"

static const struct {
	const char *file, *name, *head;
} numbers[] = {
	{ "epk_views", "epts", "EPTS" },
	{ "epk_links", "links", "LINKS" },
	{ "epk_domain_faults", "domain_faults", "FAULTS" },
	{ "epk_refused_vmfuncs", "refused_vmfuncs", "REFUSED" },
};
#define NR_NUMBERS	(sizeof(numbers) / sizeof(*numbers))

/*
 * What the VM is called, by its process's arguments, as QEMU has them: "-name guest=N,..." or "-name N,...".
 * They are the process's to say, so they can be anything.
 */
static void name_of(unsigned int pid, char *name, size_t size)
{
	static char args[1 << 18];
	char path[64], *at, *end;
	ssize_t n = 0, got;
	size_t out = 0;
	int fd;

	*name = 0;
	snprintf(path, sizeof(path), "/proc/%u/cmdline", pid);
	fd = open(on_machine(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	while (fd >= 0 && n < (ssize_t)sizeof(args) - 2 && (got = read(fd, args + n, sizeof(args) - 2 - n)) > 0)
		n += got;
	if (fd >= 0)
		close(fd);
	/* The last argument ends, and another, empty one is behind it. */
	args[n] = args[n + 1] = 0;
	end = args + n;
	for (at = args; at < end && strcmp(at, "-name") && strcmp(at, "--name"); at += strlen(at) + 1)
		;
	if (at >= end)
		return;
	at += strlen(at) + 1;
	if (!strncmp(at, "guest=", 6))
		at += 6;
	/* Two commas stand for one. */
	for (; *at && out < size - 1 && (*at != ',' || *++at == ','); at++)
		name[out++] = *at;
	name[out] = 0;
}

/* @error stays 0 if the file is not there: another KVM, or a VM that has ended. */
static bool number_of(const char *vm, const char *file, unsigned long *value, int *error)
{
	char path[512], line[64];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), STATISTICS "/%s/%s", vm, file);
	fd = open(on_machine(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		n = read(fd, line, sizeof(line) - 1);
	if (n < 0 && errno != ENOENT)
		*error = errno;
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	line[n] = 0;
	return sscanf(line, "%lu", value) == 1;
}

static void say_vm(unsigned int pid, const char *name, const unsigned long *values, const bool *known)
{
	static bool others;
	size_t i;
	int columns;

	if (facts_json) {
		printf("%s\n  {\"pid\": %u, \"name\": ", others ? "," : "", pid);
		put_json(name);
		for (i = 0; i < NR_NUMBERS; i++) {
			printf(", \"%s\": ", numbers[i].name);
			if (known[i])
				printf("%lu", values[i]);
			else
				printf("null");
		}
		putchar('}');
	} else {
		if (!others) {
			printf("%8s", "PID");
			for (i = 0; i < NR_NUMBERS; i++)
				printf(" %12s", numbers[i].head);
			printf("  NAME\n");
		}
		printf("%8u", pid);
		for (i = 0; i < NR_NUMBERS; i++) {
			if (known[i])
				printf(" %12lu", values[i]);
			else
				printf(" %12s", "-");
		}
		printf("  ");
		columns = put_text(stdout, name);
		printf("%s\n", columns ? "" : "(it has none)");
	}
	others = true;
}

static bool is_vm(const char *name, unsigned int *pid)
{
	int end = 0;

	return isdigit((unsigned char)*name) && sscanf(name, "%9u-%*9u%n", pid, &end) == 1 && end && !name[end];
}

int host_status(void)
{
	DIR *vms = opendir(on_machine(STATISTICS));
	int error = vms ? 0 : errno, of_file = 0;
	unsigned long values[NR_NUMBERS];
	unsigned int pid, nr = 0, nr_epk = 0;
	bool known[NR_NUMBERS];
	struct dirent *entry;
	char name[256];
	size_t i;

	if (facts_json)
		printf("{\"vms\": [");
	while (vms && (entry = readdir(vms))) {
		if (!is_vm(entry->d_name, &pid))
			continue;
		for (i = 0; i < NR_NUMBERS; i++)
			known[i] = number_of(entry->d_name, numbers[i].file, &values[i], &of_file);
		name_of(pid, name, sizeof(name));
		say_vm(pid, name, values, known);
		nr++;
		nr_epk += known[0] && values[0];
	}
	if (vms)
		closedir(vms);
	error = error ? error : of_file;
	if (facts_json)
		printf("\n], \"complete\": %s}\n", error ? "false" : "true");
	else if (!error)
		printf("%u VM%s, %u with EPK\n", nr, nr == 1 ? "" : "s", nr_epk);
	if (error == ENOENT && module_loaded("kvm"))
		return fail(LACKING, STATISTICS ": %s; mount -t debugfs none /sys/kernel/debug", strerror(error));
	if (error == ENOENT)
		return fail(LACKING, STATISTICS ": %s; KVM is not loaded, so there are no VMs", strerror(error));
	if (error)
		return fail(LACKING, STATISTICS ": %s; %s", strerror(error), geteuid() ?
			    "VMs and statistics are for root to see" : "does Secure Boot lock the kernel down?");
	return DONE;
}
