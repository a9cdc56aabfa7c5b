// SPDX-License-Identifier: MIT
/* epk-host: what operators of a host of EPK's guests need: epk-host(8). */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <epk.h>

#include "host.h"

#define MODULES		LIBEXEC "/host-modules"

static void usage(FILE *to)
{
	fprintf(to, "usage: epk-host check [--json] [--epts N] [--address-bits N]\n"
		    "       epk-host run [OPTION]... IMAGE [-- QEMU-ARGUMENT...]\n"
		    "       epk-host status [--json]\n"
		    "       epk-host modules install|load|restore\n"
		    "       epk-host hook NAME OPERATION SUBOPERATION...\n"
		    "check    what this host gives guests that use memory domains (EPK), and what to do\n"
		    "         about what is missing\n"
		    "run      start a guest, its console on this terminal, from a disk image (qcow2, raw)\n"
		    "         or from a kernel\n"
		    "status   the VMs that run, and what KVM counts of EPK in each; for root\n"
		    "modules  KVM's modules with EPK: install, load, or restore the kernel's own\n"
		    "hook     for libvirt: may the domain, whose XML is on standard input, start here?\n"
		    "  -h, --help      show this\n"
		    "  -V, --version   show the version\n"
		    "  --json          as JSON, for programs\n"
		    "Options of check:\n"
		    "  --epts N          for a guest that has so many\n"
		    "  --address-bits N  likewise\n"
		    "Options of run:\n"
		    "  --memory MIB    the guest's memory (1024)\n"
		    "  --cpus N        virtual CPUs (1)\n"
		    "  --format F      the disk image is qcow2 or raw, whatever its name\n"
		    "  --backing       the qcow2 image may have QEMU read other files\n"
		    "  --initrd FILE   the kernel's initial RAM disk\n"
		    "  --append ARGS   the kernel's arguments, in addition to console=ttyS0\n"
		    "  --disk FILE     a raw disk for the kernel: /dev/vda\n"
		    "  --emulate       in QEMU's own emulation: keys, and one EPT\n"
		    "  --dry-run       print the line that would start it\n"
		    "Exit status: 0 done, or nothing is missing; 1 something is missing; 2 wrong arguments or image.\n");
}

static int host_modules(int argc, char **argv)
{
	static const char *const words[] = { "install", "load", "restore" };
	const char *path = on_machine(MODULES);
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (argc == 2 && !strcmp(argv[1], words[i])) {
			execl(path, path, words[i], (char *)NULL);
			return fail(LACKING, "%s: %s; the package epk-kvm-dkms has it", path, strerror(errno));
		}
	}
	return fail(WRONG, "modules wants one of install, load, restore; see epk-host --help");
}

/* As a guest has it elsewhere, so that it can be asked here before it moves. */
static int check(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' }, { "epts", required_argument, NULL, 'e' },
		{ "address-bits", required_argument, NULL, 'a' }, { }
	};
	struct geometry guest = { };
	unsigned int *number;
	char *end;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'j':
			facts_json = true;
			break;
		case 'e':
		case 'a':
			number = opt == 'e' ? &guest.epts : &guest.bits;
			*number = strtoul(optarg, &end, 10);
			if (*optarg < '1' || *optarg > '9' || *end || end > optarg + 3)
				return fail(WRONG, "--%s is a number, not %s", opt == 'e' ? "epts" : "address-bits", optarg);
			break;
		default:
			usage(stderr);
			return WRONG;
		}
	}
	if (optind == argc)
		return host_check(&guest);
	usage(stderr);
	return WRONG;
}

int main(int argc, char **argv)
{
	/* --root is for tests. */
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' },
		{ "json", no_argument, NULL, 'j' }, { "root", required_argument, NULL, 'r' }, { }
	};
	const char *command;
	int opt, ret;

	/* The command's own options are not for here: "+". */
	while ((opt = getopt_long(argc, argv, "+hV", options, NULL)) != -1) {
		switch (opt) {
		case 'h':
			usage(stdout);
			return DONE;
		case 'V':
			printf("epk-host %u.%u\n", EPK_VERSION_MAJOR, EPK_VERSION_MINOR);
			return DONE;
		case 'j':
			facts_json = true;
			break;
		case 'r':
			machine_root = optarg;
			break;
		default:
			usage(stderr);
			return WRONG;
		}
	}
	argc -= optind;
	argv += optind;
	command = argc ? argv[0] : "";
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		usage(stdout);
		return DONE;
	}
	if (!strcmp(command, "run") || !strcmp(command, "modules")) {
		if (facts_json || (*command == 'm' && !strcmp(argv[argc - 1], "--json")))
			return fail(WRONG, "%s has no --json: check and status do", command);
		return *command == 'r' ? host_run(argc, argv) : host_modules(argc, argv);
	}
	if (!strcmp(command, "hook"))
		return host_hook(argc, argv);
	if (argc == 2 && !strcmp(argv[1], "--json"))
		facts_json = true;
	else if (argc != 1 && strcmp(command, "check"))
		command = "";
	if (!strcmp(command, "check")) {
		ret = check(argc, argv);
	} else if (!strcmp(command, "status")) {
		ret = host_status();
	} else {
		usage(stderr);
		return WRONG;
	}
	if (fflush(stdout) || ferror(stdout))
		return fail(WRONG, "standard output: %s", strerror(errno));
	return ret;
}
