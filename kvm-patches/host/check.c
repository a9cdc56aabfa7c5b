// SPDX-License-Identifier: MIT
/*
 * What this host gives guests that use EPK, a line for each fact, from the CPU up to QEMU.  What KVM
 * itself wants stands in arch/x86/kvm/vmx/epk.c of the series.  Nothing is changed by looking.
 */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <asm/kvm_epk.h>

#include "host.h"

#define BIT(n)		(1ull << (n))

/* Model-specific registers, and what is looked at in them. */
#define FEATURE_CONTROL		0x3a
#define FEATURE_LOCKED		BIT(0)
#define FEATURE_VMX		(BIT(1) | BIT(2))	/* within and outside of trusted execution */
#define VMX_PROCBASED2		0x48b
#define VMX_ALLOWED_EPT		BIT(32 + 1)
#define VMX_ALLOWED_VMFUNC	BIT(32 + 13)
#define VMX_EPT_CAP		0x48c
#define VMX_EPT_4_LEVELS	BIT(6)
#define VMX_EPT_WB		BIT(14)
#define VMX_EPT_INVEPT_ALL	BIT(26)
#define VMX_VMFUNC		0x491
#define VMFUNC_EPTP_SWITCHING	BIT(0)

#define CPUID_VMX		BIT(5)		/* leaf 1, ecx */
#define CPUID_HYPERVISOR	BIT(31)
#define CPUID_PKU		BIT(3)		/* leaf 7, ecx */
#define CPUID_OSPKE		BIT(4)

#define LEAST_QEMU	702	/* 7.2 */
#define KVM_API		12

static const char *const as_root = "as root, after modprobe msr, there is more to see";
static bool has_vmx;

static bool cpuinfo_has(const char *name, const char *word)
{
	char words[MAX_LINE];

	return value_of(on_machine("/proc/cpuinfo"), name, words, sizeof(words)) && has_word(words, word);
}

static bool is_vendor(const char *name)
{
	struct registers r = cpuid(0, 0);
	char vendor[13] = "";

	memcpy(vendor, &r.ebx, 4);
	memcpy(vendor + 4, &r.edx, 4);
	memcpy(vendor + 8, &r.ecx, 4);
	return !strcmp(vendor, name);
}

static void check_cpu(void)
{
	char model[128] = "a CPU that does not say its name";

	value_of(on_machine("/proc/cpuinfo"), "model name", model, sizeof(model));
	if (is_vendor("GenuineIntel"))
		say(OK, "cpu", NULL, "%s", model);
	else if (is_vendor("AuthenticAMD") || is_vendor("HygonGenuine"))
		say(MISSING, "cpu", "guests have no EPTs here; the module can be alone in them, with 15 keys for each process",
		    "%s, which has no VMFUNC", model);
	else
		say(MISSING, "cpu", "EPK wants VMFUNC, which Intel's CPUs have", "%s, not of Intel", model);
}

static bool is_virtual(void)
{
	return cpuid(1, 0).ecx & CPUID_HYPERVISOR;
}

static void check_vmx(void)
{
	uint64_t control;

	has_vmx = false;
	if (!(cpuid(1, 0).ecx & CPUID_VMX))
		say(MISSING, "VT-x", is_virtual() ?
		    "have its host pass it on: for KVM, kvm_intel's nested=1 and the CPU model \"host\"" :
		    "another CPU; without, the emulated testbed runs all of it: make demo", "the CPU has none");
	else if (msr(FEATURE_CONTROL, &control) && control & FEATURE_LOCKED && !(control & FEATURE_VMX))
		say(MISSING, "VT-x", "switch on \"virtualisation\" or \"VT-x\" in the firmware's setup, then power off and on",
		    "switched off by the firmware, and locked");
	else if (!cpuinfo_has("flags", "vmx"))
		say(MISSING, "VT-x", "is it switched on in the firmware's setup?  dmesg says \"VMX disabled\" if not",
		    "the CPU has it, but the kernel does not use it");
	else
		has_vmx = true;
	if (has_vmx)
		say(OK, "VT-x", NULL, "on");
}

static void check_ept(void)
{
	static const uint64_t needed = VMX_EPT_4_LEVELS | VMX_EPT_WB | VMX_EPT_INVEPT_ALL;
	uint64_t controls, cap;

	if (!has_vmx)
		say(MISSING, "EPT", "see VT-x", "not without VT-x");
	else if (!msr(VMX_PROCBASED2, &controls) && cpuinfo_has("vmx flags", "ept"))
		say(OK, "EPT", NULL, "there");
	else if (!(controls & VMX_ALLOWED_EPT))
		say(MISSING, "EPT", "another CPU, or of a virtual one the host has to pass it on", "the CPU has none");
	else if (!msr(VMX_EPT_CAP, &cap) || (cap & needed) != needed)
		say(MISSING, "EPT", "another CPU", "without%s%s%s", cap & VMX_EPT_4_LEVELS ? "" : " four levels",
		    cap & VMX_EPT_WB ? "" : " write-back", cap & VMX_EPT_INVEPT_ALL ? "" : " global INVEPT");
	else
		say(OK, "EPT", NULL, "four levels, write-back, global INVEPT");
}

static void check_vmfunc(void)
{
	uint64_t controls, functions;
	char words[MAX_LINE];

	if (!has_vmx)
		say(MISSING, "VMFUNC", "see VT-x", "not without VT-x");
	else if (msr(VMX_PROCBASED2, &controls) ? controls & VMX_ALLOWED_VMFUNC && msr(VMX_VMFUNC, &functions) &&
		 functions & VMFUNC_EPTP_SWITCHING : cpuinfo_has("vmx flags", "eptp_switching"))
		say(OK, "VMFUNC", NULL, "switches EPTs");
	else if (!controls && !value_of(on_machine("/proc/cpuinfo"), "vmx flags", words, sizeof(words)))
		say(LESS, "VMFUNC", as_root, "the kernel does not say");
	else
		say(MISSING, "VMFUNC", is_virtual() ? "have its host pass it on, if that has it" :
		    "a Xeon of Skylake-SP or later, or a Core of the 11th generation or later, has it",
		    "the CPU cannot switch EPTs by it");
}

static void check_keys(void)
{
	uint32_t ecx = cpuid(7, 0).ecx;

	if (ecx & CPUID_OSPKE)
		say(OK, "keys", NULL, "protection keys");
	else if (ecx & CPUID_PKU)
		say(MISSING, "keys", "boot without \"nopku\", a kernel with CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS",
		    "protection keys, which the kernel does not use, so that guests have none");
	else
		say(MISSING, "keys", "another CPU, or of a virtual one the host has to pass them on", "no protection keys");
}

static void check_address(void)
{
	unsigned int bits = address_bits(), gib, epts = epts_of(bits, &gib);

	if (!epts)
		say(MISSING, "address bits", "is CPUID read from a CPU of 64 bits?", "%u", bits);
	else
		say(epts < KVM_EPK_MAX_EPTS ? LESS : OK, "address bits", epts < KVM_EPK_MAX_EPTS ?
		    "512 want 40 bits: another CPU, or of a virtual one as many as its host has (QEMU: host-phys-bits=on)" : NULL,
		    "%u: half of that space takes %u EPTs of %u GiB", bits, epts, gib);
}

static void check_nested(void)
{
	struct registers r = cpuid(0x40000000, 0);
	char name[13] = "";

	if (!is_virtual()) {
		say(OK, "nested", NULL, "no");
		return;
	}
	memcpy(name, &r.ebx, 4);
	memcpy(name + 4, &r.ecx, 4);
	memcpy(name + 8, &r.edx, 4);
	if (!strcmp(name, "Microsoft Hv"))
		say(MISSING, "nested", "a host of its own", "in Hyper-V, whose invalidations do not know EPTs of guests");
	else
		say(LESS, "nested", "for fast switches, a host of its own",
		    "this is a virtual machine of \"%s\": each switch of EPTs is an exit to it", name);
}

/* EPK's series is in the KVM that is loaded. */
static bool kvm_is_ours(void)
{
	char value[16];

	return parameter("kvm_intel", "epk", value, sizeof(value));
}

static void check_kernel(void)
{
	char release[128] = "a kernel that does not say its release";

	line_of(on_machine("/proc/sys/kernel/osrelease"), release, sizeof(release));
	if (kvm_is_ours() || kernel_is_known(release))
		say(OK, "kernel", NULL, "%s", release);
	else
		say(MISSING, "kernel", "Linux 6.1 or 6.12, as Debian 12 has them: the KVM series are for these", "%s", release);
}

static void check_secure_boot(void)
{
	static const char *const variable =
		"/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
	FILE *file = open_file(on_machine(variable));
	unsigned char bytes[5] = "";
	bool on = file && fread(bytes, 1, 5, file) == 5 && bytes[4];
	char line[128], *lock, *end;

	if (file)
		fclose(file);
	/* As in "none [integrity] confidentiality". */
	lock = line_of(on_machine("/sys/kernel/security/lockdown"), line, sizeof(line)) ? strchr(line, '[') : NULL;
	end = lock ? strchr(lock, ']') : NULL;
	if (end)
		*end = 0;
	lock = end && strcmp(lock + 1, "none") ? lock + 1 : NULL;
	if (!on && !lock)
		say(OK, "Secure Boot", NULL, "off");
	else
		say(kvm_is_ours() ? OK : LESS, "Secure Boot", kvm_is_ours() ? NULL :
		    "modules by DKMS load once its key is enrolled: mokutil --import /var/lib/dkms/mok.pub",
		    "%s%s%s", on ? "on" : "off", lock ? ", and the kernel locked down: " : "", lock ? lock : "");
}

static void check_modules(void)
{
	char value[16];

	if (module_loaded("kvm_intel")) {
		if (kvm_is_ours())
			say(OK, "modules", NULL, "kvm_intel, with EPK");
		else
			say(MISSING, "modules", "epk-host modules install, or a kernel with the series: docs/install.md",
			    "kvm_intel as the kernel has it, without EPK");
	} else if (module_loaded("kvm_amd")) {
		say(MISSING, "modules", "EPK wants an Intel CPU", "kvm_amd");
	} else {
		say(MISSING, "modules", has_vmx ? "modprobe kvm_intel; if that fails, dmesg says why" : "see VT-x",
		    "%s", module_loaded("kvm") ? "kvm alone, kvm_intel is not loaded" : "none is loaded");
	}
	if (parameter("kvm_intel", "ept", value, sizeof(value)) && strcmp(value, "Y"))
		say(MISSING, "parameter ept", "load kvm_intel without ept=0", "%s", value);
}

/* Since Linux 6.3 it is what kvm was loaded with, and off until kvm_intel has found EPT. */
static const char *tdp_mmu_advice(void)
{
	struct stat st;

	if (!stat(on_machine("/sys/module/kvm/parameters/tdp_mmu"), &st) && st.st_mode & 0222)
		return "echo Y > /sys/module/kvm/parameters/tdp_mmu; VMs from then on have it";
	return module_loaded("kvm_intel") ? "load kvm without tdp_mmu=0, and kvm_intel without ept=0" : "see modules";
}

static void check_parameters(void)
{
	static const char *const set = "echo 'options kvm_intel epk=any' > /etc/modprobe.d/epk-host.conf; "
				       "with no VM running, modprobe -r kvm_intel && modprobe kvm_intel";
	char value[16];

	if (!parameter("kvm_intel", "epk", value, sizeof(value)))
		say(MISSING, "parameter epk", "see modules", "there is none");
	else if (!strcmp(value, "any"))
		say(OK, "parameter epk", NULL, "any: each guest may ask for EPK");
	/* Nothing that places guests knows another VMM. */
	else if (!strcmp(value, "on"))
		say(MISSING, "parameter epk", set, "on: only guests whose VMM asks for EPK, which QEMU does not");
	else
		say(MISSING, "parameter epk", !strcmp(value, "off") && has_vmx ?
		    "if it is to be any, dmesg says why it is not; else: echo 'options kvm_intel epk=any' > "
		    "/etc/modprobe.d/epk-host.conf, and load kvm_intel again" : set, "%s", value);
	if (parameter("kvm", "epk_debug", value, sizeof(value)) && strcmp(value, "N"))
		say(LESS, "epk_debug", "for servers, load kvm without epk_debug", "each entry of a guest is checked");
	if (!parameter("kvm", "tdp_mmu", value, sizeof(value)))
		say(MISSING, "TDP MMU", "see modules", "KVM does not say");
	else if (!strcmp(value, "Y"))
		say(OK, "TDP MMU", NULL, "on");
	else
		say(MISSING, "TDP MMU", tdp_mmu_advice(), "%s", value);
}

static int check_device(void)
{
	struct kvm kvm = kvm_ask();
	const struct group *group;
	char name[64], advice[160];
	struct stat st;

	if (stat(on_machine("/dev/kvm"), &st)) {
		say(MISSING, "/dev/kvm", "it comes with the modules", "%s", strerror(errno));
		kvm.epts = 0;
	} else if (kvm.error) {
		group = getgrgid(st.st_gid);
		snprintf(name, sizeof(name), "%s", group ? group->gr_name : "a group without a name");
		if (kvm.error == EACCES || kvm.error == EPERM)
			snprintf(advice, sizeof(advice), "join its group, and log in again: adduser USER %s", name);
		else
			snprintf(advice, sizeof(advice), "dmesg may say more");
		say(MISSING, "/dev/kvm", advice, "mode %04o, group %s: %s", st.st_mode & 07777, name, strerror(kvm.error));
		kvm.epts = 0;
	} else if (kvm.api != KVM_API) {
		say(MISSING, "/dev/kvm", "is it KVM's?", "speaks version %d, not %d", kvm.api, KVM_API);
		kvm.epts = 0;
	} else {
		say(OK, "/dev/kvm", NULL, "open to you");
	}
	if (kvm.epts > 0)
		say(OK, "KVM_CAP_EPK", NULL, "a guest can have %d EPTs", kvm.epts);
	else
		say(MISSING, "KVM_CAP_EPK", "see what is missing above", "KVM offers none to guests");
	return kvm.epts > 0 ? kvm.epts : 0;
}

static void check_qemu(void)
{
	char *const qemu[] = { QEMU, "--version", NULL }, *const image[] = { "qemu-img", "--version", NULL };
	unsigned int major, minor;
	char line[256];

	if (!program_says(qemu, line, sizeof(line)))
		say(LESS, "QEMU", "apt-get install qemu-system-x86", "none is found");
	else if (sscanf(line, "QEMU emulator version %u.%u", &major, &minor) != 2)
		say(LESS, "QEMU", "7.2 or later is known to work", "%s", line);
	else
		say(major * 100 + minor < LEAST_QEMU ? LESS : OK, "QEMU",
		    major * 100 + minor < LEAST_QEMU ? "7.2 or later is known to work" : NULL, "%u.%u", major, minor);
	if (program_says(image, line, sizeof(line)))
		say(OK, "qemu-img", NULL, "found");
	else
		say(LESS, "qemu-img", "apt-get install qemu-utils", "none is found: epk-host run wants it for disks");
}

static bool answers(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *full = on_machine(path);
	bool ok = false;
	int fd;

	if (strlen(full) >= sizeof(address.sun_path))
		return false;
	strcpy(address.sun_path, full);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		ok = !connect(fd, (struct sockaddr *)&address, sizeof(address));
		close(fd);
	}
	return ok;
}

static void check_libvirt(void)
{
	char *const virsh[] = { "virsh", "--version", NULL };
	char version[64];

	if (!program_says(virsh, version, sizeof(version)))
		say(LESS, "libvirt", "if it is wanted: apt-get install libvirt-daemon-system libvirt-clients", "none is found");
	else if (answers("/run/libvirt/virtqemud-sock") || answers("/run/libvirt/libvirt-sock"))
		say(OK, "libvirt", NULL, "%s, and its daemon answers", version);
	else
		say(LESS, "libvirt", "systemctl start libvirtd; you may have to join the group libvirt",
		    "%s, but no daemon of the system's answers", version);
}

static void check_firmware(void)
{
	static const char *const places[] = {
		"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/ovmf/OVMF.fd",
		"/usr/share/edk2/ovmf/OVMF_CODE.fd",
	};
	size_t i;

	for (i = 0; i < sizeof(places) / sizeof(*places); i++) {
		if (!access(on_machine(places[i]), R_OK)) {
			say(OK, "firmware", NULL, "UEFI: %s", places[i]);
			return;
		}
	}
	say(LESS, "firmware", "for guests that boot by UEFI: apt-get install ovmf", "SeaBIOS alone, as QEMU brings it");
}

struct geometry host_facts(void)
{
	struct geometry here = { .bits = address_bits() };
	unsigned int gib, room = epts_of(here.bits, &gib), epts;

	check_cpu();
	check_vmx();
	check_ept();
	check_vmfunc();
	check_keys();
	check_address();
	check_nested();
	check_kernel();
	check_secure_boot();
	check_modules();
	check_parameters();
	epts = check_device();
	if (!facts_missing)
		here.epts = epts < room ? epts : room;
	return here;
}

/* With QEMU's -cpu host the guest sees the host's address bits, unless there are to be less of them. */
static void check_guest(const struct geometry *guest, const struct geometry *here)
{
	char advice[128];

	snprintf(advice, sizeof(advice), "start QEMU here with -cpu host,host-phys-bits-limit=%u", guest->bits);
	if (guest->epts > here->epts)
		say(MISSING, "guest", here->epts ? "a host that gives as many" : "see what is missing above",
		    "has %u EPTs; there are %u", guest->epts, here->epts);
	else if (guest->bits > here->bits)
		say(MISSING, "guest", "a host that has as many", "has %u address bits; there are %u", guest->bits, here->bits);
	else if (guest->bits && guest->bits < here->bits)
		say(LESS, "guest", advice, "has %u address bits, fewer than there are", guest->bits);
	else if (guest->epts || guest->bits)
		say(OK, "guest", NULL, "has room here");
}

int host_check(const struct geometry *guest)
{
	struct geometry here;

	if (facts_json)
		printf("{\"facts\": [");
	here = host_facts();
	check_guest(guest, &here);
	check_qemu();
	check_libvirt();
	check_firmware();
	if (facts_json)
		printf("\n], \"works\": %s, \"epts\": %u, \"address_bits\": %u}\n", facts_missing ? "false" : "true",
		       facts_missing ? 0 : here.epts, here.bits);
	return facts_missing ? LACKING : DONE;
}
