// SPDX-License-Identifier: MIT
/*
 * Launch a guest.  The line for a kernel on KVM is qemu-configs/microvm.sh's; here is that for what boots
 * from a disk by firmware, and for QEMU's own emulation, in which a microvm has no clock to go by.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

#define MICROVM		LIBEXEC "/microvm.sh"
#define MOST_ARGS	256

struct launch {
	struct image image;
	const char *initrd, *append, *disk, *memory, *cpus;
	bool emulate, dry;
	char **more;		/* for QEMU, as they are */
	int nr_more;
};

static char *args[MOST_ARGS + 1];
static int nr_args;

static void add(const char *arg)
{
	if (nr_args < MOST_ARGS)
		args[nr_args++] = (char *)arg;
}

static void add_pair(const char *name, const char *value)
{
	add(name);
	add(value);
}

static char __attribute__((format(printf, 1, 2))) *text(const char *format, ...)
{
	char *made;
	va_list list;
	int n;

	va_start(list, format);
	n = vasprintf(&made, format, list);
	va_end(list);
	if (n < 0)
		exit(fail(WRONG, "%s", strerror(ENOMEM)));
	return made;
}

static void add_disk(const char *path, const char *format)
{
	add_pair("-blockdev", text("driver=%s,node-name=disk,file.driver=%s,file.filename=%s", format, driver_of(path),
				   doubled(path)));
	add_pair("-device", "virtio-blk-pci,drive=disk");
}

/* A q35 with its console on the terminal, and no network but what the user asks for. */
static void add_q35(const struct launch *launch)
{
	const struct image *image = &launch->image;

	add(QEMU);
	add_pair("-machine", launch->emulate ? "q35,accel=tcg" : "q35,accel=kvm");
	add_pair("-cpu", launch->emulate ? "max" : "host");
	add_pair("-smp", launch->cpus);
	add_pair("-m", launch->memory);
	add("-nodefaults");
	add("-no-user-config");
	add_pair("-display", "none");
	add_pair("-serial", "mon:stdio");
	if (image->kind == DISK) {
		add_disk(image->path, image->format);
		return;
	}
	add("-no-reboot");
	add_pair("-kernel", image->path);
	add_pair("-append", text("console=ttyS0 %s", launch->append));
	if (launch->initrd)
		add_pair("-initrd", launch->initrd);
	if (launch->disk)
		add_disk(launch->disk, "raw");
}

static void add_microvm(const struct launch *launch)
{
	add(on_machine(MICROVM));
	add_pair("--kernel", launch->image.path);
	if (launch->initrd)
		add_pair("--initrd", launch->initrd);
	if (launch->disk)
		add_pair("--disk", launch->disk);
	add_pair("--append", launch->append);
	add_pair("--memory", launch->memory);
	add_pair("--cpus", launch->cpus);
	add_pair("--serial", "mon:stdio");
	if (launch->dry)
		add("--dry-run");
	add("--");
}

/* So that a shell makes the same of it. */
static void print_line(void)
{
	const char *at;
	int i;

	for (i = 0; i < nr_args; i++) {
		if (*args[i] && !args[i][strspn(args[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
						"-_=.,/:+")]) {
			printf("%s%s", i ? " " : "", args[i]);
			continue;
		}
		printf("%s'", i ? " " : "");
		for (at = args[i]; *at; at++) {
			if (*at == '\'')
				printf("'\\''");
			else
				putchar(*at);
		}
		putchar('\'');
	}
	putchar('\n');
}

/* Can guests have EPK here?  If not, what they can have. */
static int judge_host(void)
{
	struct kvm kvm = kvm_ask();
	char value[16] = "";

	parameter("kvm_intel", "epk", value, sizeof(value));
	if (!kvm.error && kvm.epts > 0 && !strcmp(value, "any"))
		return DONE;
	if (kvm.error)
		fail(LACKING, "/dev/kvm: %s; epk-host check says more", strerror(kvm.error));
	else
		fail(LACKING, "KVM offers no EPTs to QEMU's guests (kvm_intel.epk: %s); epk-host check says more",
		     *value ? value : "there is none");
	return fail(LACKING, "without: --emulate, QEMU's own emulation, where the guest's module has 15 keys and one EPT; "
		    "or, in the project's sources, make demo, which emulates a host with all of it");
}

static bool is_number(const char *value, unsigned long least, unsigned long most)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(value, &end, 10);
	return *value >= '0' && *value <= '9' && !*end && !errno && number >= least && number <= most;
}

static int launch_it(struct launch *launch)
{
	bool microvm;
	int i, ret;

	ret = image_judge(&launch->image);
	if (!ret && launch->initrd)
		ret = file_judge(launch->initrd, "initrd");
	if (!ret && launch->disk)
		ret = file_judge(launch->disk, "disk");
	if (ret)
		return ret;
	if (launch->image.kind == DISK && (launch->initrd || *launch->append || launch->disk))
		return fail(WRONG, "%s is a disk image: --initrd, --append and --disk go with a kernel", launch->image.path);
	if (!launch->emulate && !launch->dry) {
		ret = judge_host();
		if (ret)
			return ret;
	}
	microvm = launch->image.kind != DISK && !launch->emulate;
	if (microvm)
		add_microvm(launch);
	else
		add_q35(launch);
	for (i = 0; i < launch->nr_more; i++)
		add(launch->more[i]);
	if (nr_args >= MOST_ARGS)
		return fail(WRONG, "too many arguments");
	if (launch->dry && !microvm) {
		print_line();
		return DONE;
	}
	fflush(stdout);
	execvp(args[0], args);
	return fail(LACKING, "%s: %s; %s", args[0], strerror(errno), microvm ? "the package epk-host has it" :
		    "apt-get install qemu-system-x86");
}

int host_run(int argc, char **argv)
{
	enum { INITRD = 256, APPEND, DISK_FILE, MEMORY, CPUS, FORMAT, BACKING, EMULATE, DRY };
	static const struct option options[] = {
		{ "initrd", required_argument, NULL, INITRD }, { "append", required_argument, NULL, APPEND },
		{ "disk", required_argument, NULL, DISK_FILE }, { "memory", required_argument, NULL, MEMORY },
		{ "cpus", required_argument, NULL, CPUS }, { "format", required_argument, NULL, FORMAT },
		{ "backing", no_argument, NULL, BACKING }, { "emulate", no_argument, NULL, EMULATE },
		{ "dry-run", no_argument, NULL, DRY }, { }
	};
	struct launch launch = { .append = "", .memory = "1024", .cpus = "1" };
	int opt, last = 0;

	/* What comes after -- is not ours. */
	while (last < argc && strcmp(argv[last], "--"))
		last++;
	if (last < argc) {
		launch.more = argv + last + 1;
		launch.nr_more = argc - last - 1;
		argv[last] = NULL;
	}
	optind = 0;
	while ((opt = getopt_long(last, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case INITRD: launch.initrd = optarg; break;
		case APPEND: launch.append = optarg; break;
		case DISK_FILE: launch.disk = optarg; break;
		case MEMORY: launch.memory = optarg; break;
		case CPUS: launch.cpus = optarg; break;
		case FORMAT: launch.image.format = optarg; break;
		case BACKING: launch.image.backing = true; break;
		case EMULATE: launch.emulate = true; break;
		case DRY: launch.dry = true; break;
		default: return fail(WRONG, "see epk-host --help");
		}
	}
	if (optind != last - 1)
		return fail(WRONG, "run wants one image or kernel; see epk-host --help");
	launch.image.path = argv[optind];
	if (launch.image.format && strcmp(launch.image.format, "qcow2") && strcmp(launch.image.format, "raw"))
		return fail(WRONG, "--format is qcow2 or raw, not %s", launch.image.format);
	if (!is_number(launch.memory, 16, 1ul << 30))
		return fail(WRONG, "--memory is a number of MiB, not %s", launch.memory);
	if (!is_number(launch.cpus, 1, 4096))
		return fail(WRONG, "--cpus is a number, not %s", launch.cpus);
	return launch_it(&launch);
}
