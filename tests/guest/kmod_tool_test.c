// SPDX-License-Identifier: MIT
/*
 * kmod_tool_test EPK-CHECK: what epk-check says where all is there, and where one thing is not.
 */
#include "epk_test.h"
#include "../said.h"

#include <grp.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MODULE		"/epk/epk.ko"
#define NOBODY		65534
#define MEMBERS		123

static const char *tool;
static char said[1 << 14];
/* What the kernel tells the tool of itself: UNAME26 makes another version of it. */
static unsigned long persona;

/* Run the tool as a user, in a group, with a limit of locked memory; its exit status. */
static int run(uid_t uid, gid_t gid, rlim_t limit)
{
	struct rlimit memlock = { limit, limit };
	int out[2], status;
	pid_t pid;

	REQUIRE(pipe(out) == 0);
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		if (personality(persona) < 0 || setrlimit(RLIMIT_MEMLOCK, &memlock) || setgroups(0, NULL) ||
		    setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
			_exit(100);
		execl(tool, tool, NULL);
		_exit(101);
	}
	close(out[1]);
	status = said_by(pid, out[0], said, sizeof(said));
	REQUIRE(status >= 0);
	return status;
}

static void expect_said(int line, const char *what)
{
	if (!epk_check(strstr(said, what), __FILE__, line, what, ""))
		printf("it says:\n%s", said);
}
#define SAYS(what) expect_said(__LINE__, what)

/* In a child, since an open device keeps the module. */
static bool is_alone(void)
{
	struct epk_device dev;
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		epk_device_open(&dev);
		_exit(epk_device_is_alone(&dev));
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

/*
 * Each is one of the kernel's, with ftrace at it; and as many as were said.  A system call's function has
 * several names.
 */
static void hooks_are_named(void)
{
	static char armed[1 << 16];
	char names[4096], *name, *rest = names, *at, line[80];
	int nr = 0, lines, fd = open("/sys/module/epk/parameters/hooks", O_RDWR);
	ssize_t n = 0, got;

	CHECK(fd < 0);
	fd = open("/sys/module/epk/parameters/hooks", O_RDONLY);
	got = read(fd, names, sizeof(names) - 1);
	close(fd);
	REQUIRE(got > 1);
	names[got - 1] = 0;
	fd = open("/sys/kernel/debug/tracing/enabled_functions", O_RDONLY);
	REQUIRE(fd >= 0);
	while ((got = read(fd, armed + n, sizeof(armed) - 1 - n)) > 0)
		n += got;
	close(fd);
	armed[n] = 0;
	while ((name = strsep(&rest, ","))) {
		nr++;
		if (strstr(name, "_sys_"))
			continue;
		snprintf(line, sizeof(line), "%s (", name);
		at = strstr(armed, line);
		while (at && at != armed && at[-1] != '\n')
			at = strstr(at + 1, line);
		if (!epk_check(at, __FILE__, __LINE__, name, " is not hooked"))
			break;
	}
	for (at = armed, lines = 0; (at = strchr(at, '\n')); at++)
		lines++;
	CHECK_EQ(lines, nr);
	snprintf(line, sizeof(line), "hooks          at %d functions", nr);
	SAYS(line);
}

static void all_is_there(void)
{
	char places[64];

	CHECK_EQ(run(0, 0, RLIM_INFINITY), 0);
	SAYS("ok       cpu ");
	SAYS("ok       kernel ");
	SAYS("ok       module ");
	SAYS("ok       hooks          at ");
	SAYS(" functions of the kernel, which /sys/module/epk/parameters/hooks names");
	hooks_are_named();
	SAYS("ok       device         /dev/epk, mode 0600");
	SAYS("ok       locked memory  no limit");
	SAYS("ok       user           has 262144 domains in ");
	SAYS("ok       program        takes the backend epk: nobody says otherwise");
	SAYS("ok       backend epk    works");
	SAYS("ok       backend mpk    works");
	if (!is_alone()) {
		SAYS("ok       domains ");
		SAYS(" EPTs\n");
	} else {
		snprintf(places, sizeof(places), "less     domains        %d have a place", 15);
		SAYS(places);
		SAYS("kvm_intel");
	}
}

static void others(void)
{
	CHECK_EQ(run(NOBODY, NOBODY, 8 << 20), 1);
	SAYS("missing  device ");
	SAYS("-> have udev give it to a group");
	SAYS("missing  backend epk ");
	SAYS("ok       backend mpk    works");
	SAYS("ok       locked memory  8192 KiB, which is 2048 domains of a page; of TLS at least 960 sessions");

	REQUIRE(chown(EPK_DEVICE, 0, MEMBERS) == 0 && chmod(EPK_DEVICE, 0660) == 0);
	CHECK_EQ(run(NOBODY, NOBODY, 8 << 20), 1);
	SAYS("group 123: Permission denied");
	SAYS("-> join its group");
	CHECK_EQ(run(NOBODY, MEMBERS, 64 << 10), 0);
	SAYS("ok       backend epk    works");
	SAYS("less     locked memory  64 KiB, which is 16 domains of a page; of TLS at least 0 sessions");
	SAYS("LimitMEMLOCK");
	REQUIRE(chown(EPK_DEVICE, 0, 0) == 0 && chmod(EPK_DEVICE, 0600) == 0);
}

static void without_module(void)
{
	int fd = open(MODULE, O_RDONLY);

	REQUIRE(fd >= 0 && syscall(SYS_delete_module, "epk", O_NONBLOCK) == 0);
	CHECK_EQ(run(0, 0, RLIM_INFINITY), 1);
	SAYS("ok       kernel ");
	SAYS("missing  module         none is installed");
	SAYS("less     program        takes the backend mpk: nobody says otherwise");
	SAYS("-> install epk-dkms");
	SAYS("missing  device         /dev/epk: No such file");
	SAYS("ok       backend mpk    works");
	persona = UNAME26;
	CHECK_EQ(run(0, 0, RLIM_INFINITY), 1);
	SAYS("missing  kernel         2.6.");
	SAYS("-> Linux 6.1 or 6.12");
	persona = 0;
	REQUIRE(put("/proc/sys/kernel/ftrace_enabled", "0"));
	CHECK_EQ(run(0, 0, RLIM_INFINITY), 1);
	SAYS("missing  kernel ");
	SAYS("-> sysctl kernel.ftrace_enabled=1");
	REQUIRE(put("/proc/sys/kernel/ftrace_enabled", "1"));
	REQUIRE(syscall(SYS_finit_module, fd, "", 0) == 0);
	close(fd);
	CHECK_EQ(run(0, 0, RLIM_INFINITY), 0);
}

int main(int argc, char **argv)
{
	REQUIRE(argc == 2);
	tool = argv[1];
	if (access(MODULE, R_OK))
		EPK_SKIP("no " MODULE);
	all_is_there();
	others();
	without_module();
	return epk_test_result();
}
