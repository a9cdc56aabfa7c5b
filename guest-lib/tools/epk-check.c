// SPDX-License-Identifier: MIT
/*
 * epk-check: what this machine gives a program that uses domains, a line for each fact, and what to
 * do about what is missing.  What can only be tried is tried in a child.  As epk-info it says the same, and
 * its exit status does not judge.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <epk.h>
#include <linux/epk.h>

#include "facts.h"

#define NR_PKEYS	16
/* Debian's default, in which 2,000 domains of a page have room. */
#define MEMLOCK_USUAL	(8ul << 20)
/* Of the provider for OpenSSL: what a process has, rounded up, and what each session has. */
#define TLS_FIXED	(512ul << 10)
#define TLS_SESSION	(8ul << 10)

/* Is a word among the flags of the first CPU? */
static bool cpu_has(const char *flag)
{
	char flags[MAX_LINE];

	return value_of("/proc/cpuinfo", "flags", flags, sizeof(flags)) && has_word(flags, flag);
}

static void check_cpu(void)
{
	if (cpu_has("ospke"))
		say(OK, "cpu", NULL, "protection keys");
	else if (cpu_has("pku"))
		say(MISSING, "cpu", "boot without \"nopku\", a kernel with CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS",
		    "protection keys, which the kernel does not use");
	else
		say(MISSING, "cpu", "a guest wants the CPU model \"host\", and the host a CPU that has them",
		    "no protection keys");
}

static bool module_is_there(void)
{
	return !access("/sys/module/epk", F_OK);
}

/* The module keeps tracing as it is. */
static void check_kernel(void)
{
	struct utsname name;
	char line[16] = "";

	uname(&name);
	if (module_is_there())
		say(OK, "kernel", NULL, "%s", name.release);
	else if (!kernel_is_known(name.release))
		say(MISSING, "kernel", "Linux 6.1 or 6.12, as Debian 12 has them: the module is for these", "%s", name.release);
	else if (!line_of("/proc/sys/kernel/ftrace_enabled", line, sizeof(line)))
		say(MISSING, "kernel", "boot a kernel with CONFIG_DYNAMIC_FTRACE, as distributions' are",
		    "%s, without function tracing, by which the module guards", name.release);
	else if (strcmp(line, "1"))
		say(MISSING, "kernel", "sysctl kernel.ftrace_enabled=1",
		    "%s, with function tracing off, by which the module guards", name.release);
	else
		say(OK, "kernel", NULL, "%s, with function tracing", name.release);
}

static bool module_is_installed(void)
{
	struct utsname name;
	char line[4096], path[512];
	bool is = false;
	FILE *file;

	uname(&name);
	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", name.release);
	file = fopen(path, "re");
	while (file && !is && fgets(line, sizeof(line), file))
		is = strstr(line, "/epk.ko");
	if (file)
		fclose(file);
	return is;
}

static void check_module(void)
{
	if (module_is_there())
		say(OK, "module", NULL, "loaded, with all its guards");
	else if (module_is_installed())
		say(MISSING, "module", "modprobe epk; if that fails, dmesg says why", "not loaded");
	else
		say(MISSING, "module", "install epk-dkms and the kernel's headers, or make -C guest-kmod install; "
		    "then modprobe epk", "none is installed for this kernel");
}

/* Of the module: it has none while it is not loaded. */
static void check_hooks(void)
{
	static const char path[] = "/sys/module/epk/parameters/hooks";
	unsigned int nr = 1;
	char line[4096];
	const char *at;

	if (!module_is_there())
		return;
	if (!line_of(path, line, sizeof(line)))
		say(LESS, "hooks", "install module and tools of one version", "%s: %s", path, strerror(errno));
	else if (!*line)
		say(MISSING, "hooks", "reboot: the kernel's tracing is broken, dmesg says how",
		    "they have no effect any more, and there are no new domains");
	else {
		for (at = line; (at = strchr(at, ',')); at++)
			nr++;
		say(OK, "hooks", NULL, "at %u functions of the kernel, which %s names", nr, path);
	}
}

/* Open for who asks? */
static bool check_device(void)
{
	char name[32], advice[300];
	const struct group *group;
	struct stat st;
	int fd, error;

	if (stat(EPK_DEVICE, &st)) {
		say(MISSING, "device", module_is_there() ? "is devtmpfs mounted, and /dev the machine's own?" :
		    "it comes with the module", "%s: %s", EPK_DEVICE, strerror(errno));
		return false;
	}
	group = getgrgid(st.st_gid);
	if (group)
		snprintf(name, sizeof(name), "%s", group->gr_name);
	else
		snprintf(name, sizeof(name), "%u", st.st_gid);
	fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);
	error = errno;
	if (fd >= 0) {
		close(fd);
		say(OK, "device", NULL, "%s, mode %04o, group %s", EPK_DEVICE, st.st_mode & 07777, name);
		return true;
	}
	if (error == EACCES && st.st_gid && st.st_mode & 060)
		snprintf(advice, sizeof(advice), "join its group, and log in again: adduser USER %s", name);
	else if (error == EACCES)
		snprintf(advice, sizeof(advice), "have udev give it to a group: make -C guest-kmod install-config");
	else if (error == EDQUOT)
		snprintf(advice, sizeof(advice), "raise the module's parameter max_user_contexts");
	else
		snprintf(advice, sizeof(advice), "dmesg may say more");
	say(MISSING, "device", advice, "%s, mode %04o, group %s: %s", EPK_DEVICE, st.st_mode & 07777, name,
	    strerror(error));
	return false;
}

/* What a child finds out, in memory that is shared with it. */
struct found {
	int error;
	unsigned int keys, epts;
	char backend[16], why[200];
};

/* Keys are the process's, and a context is for good: so it is a child's. */
static void try_device(struct found *found, const char *unused)
{
	struct epk_init init = { .version = EPK_ABI_VERSION };
	int fd, key;

	(void)unused;
	while ((key = pkey_alloc(0, 0)) > 0) {
		init.pkeys |= 1u << key;
		found->keys++;
	}
	fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);
	found->error = fd < 0 || ioctl(fd, EPK_IOC_INIT, &init) ? errno : 0;
	found->epts = init.nr_epts;
}

static void keep_quiet(enum epk_level level, const char *line)
{
	(void)level;
	(void)line;
}

/* With "" what a program takes. */
static void try_backend(struct found *found, const char *name)
{
	struct epk_options options = { .size = sizeof(options), .backend = *name ? name : NULL };
	int id, ret;

	epk_set_print(keep_quiet);
	ret = epk_init(&options);
	if (!ret)
		ret = alloc_domains(1, &id);
	if (!ret)
		snprintf(found->backend, sizeof(found->backend), "%s", epk_backend());
	snprintf(found->why, sizeof(found->why), "%s", epk_strerror(ret));
	found->error = ret;
}

/* Why it is not known what a child finds out. */
struct untried {
	const char *why, *advice;
};

/* Returns NULL where it is. */
static const struct untried *try(void (*child)(struct found *found, const char *arg), const char *arg, struct found *found)
{
	static const struct untried no_child = {
		"no child to try it in", "more processes and memory for the user: ulimit -u, cgroups"
	}, ended = { "the child that tried it was ended", "dmesg may say why" };
	struct found *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = -1;
	pid_t pid;

	if (shared == MAP_FAILED)
		return &no_child;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		child(shared, arg);
		_exit(0);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	*found = *shared;
	munmap(shared, sizeof(*shared));
	if (pid < 0)
		return &no_child;
	return status ? &ended : NULL;
}

static void check_epts(void)
{
	struct found found;
	const struct untried *untried = try(try_device, NULL, &found);

	if (untried)
		say(MISSING, "domains", untried->advice, "%s", untried->why);
	else if (found.error == EINVAL)
		say(MISSING, "domains", "install module and tools of one version",
		    "the module has another version of the interface than %u", EPK_ABI_VERSION);
	else if (found.error)
		say(MISSING, "domains", "dmesg may say why", "no context: %s", strerror(found.error));
	else if (found.epts > 1)
		say(OK, "domains", NULL, "%u have a place at a time: %u keys in each of %u EPTs",
		    found.keys * found.epts, found.keys, found.epts);
	else
		say(LESS, "domains", "for more: on the host, KVM with EPK and kvm_intel's parameter epk=any; the "
		    "module without alone=1", "%u have a place at a time: the host offers no EPTs", found.keys);
}

/*
 * In a child.  What may be locked where nothing may: it takes CAP_IPC_LOCK in the machine's own user
 * namespace, and /proc tells of the one that the process is in.
 */
static void try_lock(struct found *found, const char *unused)
{
	const struct rlimit none = { 0, 0 };

	(void)unused;
	found->error = setrlimit(RLIMIT_MEMLOCK, &none) || mlock(found, sizeof(*found)) ? errno : 0;
}

static bool may_lock(void)
{
	struct found found;

	return !try(try_lock, NULL, &found) && !found.error;
}

static void check_limit(void)
{
	unsigned long kib, sessions;
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return;
	kib = limit.rlim_cur >> 10;
	sessions = limit.rlim_cur > TLS_FIXED ? (limit.rlim_cur - TLS_FIXED) / TLS_SESSION : 0;
	if (limit.rlim_cur == RLIM_INFINITY || may_lock())
		say(OK, "locked memory", NULL, "no limit");
	else
		say(limit.rlim_cur < MEMLOCK_USUAL ? LESS : OK, "locked memory",
		    limit.rlim_cur < MEMLOCK_USUAL ?
		    "raise RLIMIT_MEMLOCK: ulimit -l, /etc/security/limits.conf, systemd's LimitMEMLOCK=" : NULL,
		    "%lu KiB, which is %lu domains of a page; of TLS at least %lu sessions a process", kib,
		    kib / 4, sessions);
}

/* Each mapping of a domain is one of the process's, at least. */
static void check_mappings(void)
{
	char line[32];

	if (line_of("/proc/sys/vm/max_map_count", line, sizeof(line)))
		say(OK, "mappings", NULL, "%s a process, as many domains with memory at most", line);
}

/* A parameter of the module's, as text: what one user's processes may have. */
static const char *parameter(const char *name, char *value, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/epk/parameters/%s", name);
	if (!line_of(path, value, size))
		return "?";
	return strcmp(value, "0") ? value : "any number of";
}

static void check_user(void)
{
	char domains[32], epts[32], contexts[32];

	if (module_is_there())
		say(OK, "user", NULL, "has %s domains in %s EPTs, and %s processes with domains",
		    parameter("max_user_domains", domains, sizeof(domains)),
		    parameter("max_user_epts", epts, sizeof(epts)),
		    parameter("max_user_contexts", contexts, sizeof(contexts)));
}

/* Which backend it is that a program gets here, and by whose word. */
static void check_program(void)
{
	const char *wanted = getenv("EPK_BACKEND");
	const struct untried *untried;
	struct found found;

	wanted = wanted && *wanted ? "EPK_BACKEND says so" : "nobody says otherwise";
	untried = try(try_backend, "", &found);
	if (untried)
		say(LESS, "program", untried->advice, "%s", untried->why);
	else if (found.error)
		say(LESS, "program", "EPK_BACKEND names what works: see below", "gets no domain: %s",
		    found.why);
	else if (!strcmp(found.backend, "epk"))
		say(OK, "program", NULL, "takes the backend epk: %s", wanted);
	else
		say(LESS, "program", strcmp(found.backend, "none") ? "see why not epk below" :
		    "nothing is protected by that: see below", "takes the backend %s: %s",
		    found.backend, wanted);
}

static void check_backends(void)
{
	static const struct {
		const char *name, *without;
	} backends[] = {
		{ "epk", "see what is missing above" },
		{ "mpk", "it needs protection keys" },
		{ "vmfunc", "it needs a host with EPK: for comparison, nothing is lost without" },
		{ "mprotect", NULL },
	};
	const struct untried *untried;
	struct found found;
	unsigned int i;
	char fact[32];

	for (i = 0; i < sizeof(backends) / sizeof(*backends); i++) {
		snprintf(fact, sizeof(fact), "backend %s", backends[i].name);
		untried = try(try_backend, backends[i].name, &found);
		if (untried)
			say(i ? LESS : MISSING, fact, untried->advice, "%s", untried->why);
		else if (found.error)
			say(i ? LESS : MISSING, fact, backends[i].without, "%s", found.why);
		else
			say(OK, fact, NULL, "works");
	}
}

static const char *program(bool info)
{
	return info ? "epk-info" : "epk-check";
}

static void usage(FILE *to, bool info)
{
	fprintf(to, "usage: %s [--json]\n"
		    "Say what this machine gives a program that uses memory domains (libepk), and what to do about\n"
		    "what is missing.  A user who is not root sees what that user's programs have.\n"
		    "  -h, --help  show this\n"
		    "  --json      as JSON, for programs\n"
		    "Exit status: %s.\n", program(info),
		info ? "0, or 2 wrong arguments" :
		       "0 backend \"epk\" works, 1 something that it needs is missing, 2 wrong arguments");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' }, { "json", no_argument, NULL, 'j' }, { }
	};
	const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
	bool info = argc > 0 && !strcmp(name ? name + 1 : argv[0], "epk-info");
	int opt;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt != 'j') {
			usage(opt == 'h' ? stdout : stderr, info);
			return opt == 'h' ? 0 : 2;
		}
		facts_json = true;
	}
	if (optind < argc) {
		usage(stderr, info);
		return 2;
	}
	if (facts_json)
		printf("{\"facts\": [");
	check_cpu();
	check_kernel();
	check_module();
	check_hooks();
	if (check_device())
		check_epts();
	check_limit();
	check_mappings();
	check_user();
	say(OK, "library", NULL, "%u.%u, interface %u of the module", epk_version() >> 16,
	    epk_version() & 0xffff, EPK_ABI_VERSION);
	check_program();
	check_backends();
	if (facts_json)
		printf("\n], \"works\": %s}\n", facts_missing ? "false" : "true");
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "%s: standard output: %s\n", program(info), strerror(errno));
		return 2;
	}
	return facts_missing && !info;
}
