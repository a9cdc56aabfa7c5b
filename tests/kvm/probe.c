// SPDX-License-Identifier: MIT
/* Modules that have KVM leave something out, or wait in the middle: omit/. */
#include <fcntl.h>
#include <sys/klog.h>
#include <sys/syscall.h>

#include "vmm.h"

#define OMIT	"epk_omit"
#define HOLD	"epk_hold"

static void load(const char *name, const char *parameters)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/epk/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	/* A case that was killed has left it. */
	syscall(SYS_delete_module, name, 0);
	if (syscall(SYS_finit_module, fd, parameters, 0))
		die("%s does not load with %s: %s", path, parameters, strerror(errno));
	close(fd);
}

static void unload(const char *name)
{
	REQUIRE(!syscall(SYS_delete_module, name, 0));
}

void leave_out(enum invalidation why)
{
	char parameters[16];

	snprintf(parameters, sizeof(parameters), "why=%d", why);
	load(OMIT, parameters);
}

void leave_nothing_out(void)
{
	unload(OMIT);
}

void hold_at(const char *function, const char *skip)
{
	char parameters[128];

	snprintf(parameters, sizeof(parameters), "hold=%s skip=%s", function, skip);
	load(HOLD, parameters);
}

void hold_wait(void)
{
	char held = 0;
	int fd = open("/sys/module/" HOLD "/parameters/held", O_RDONLY);

	REQUIRE(fd >= 0);
	while (pread(fd, &held, 1, 0) == 1 && held != 'Y')
		usleep(1000);
	close(fd);
}

void hold_release(void)
{
	int fd = open("/sys/module/" HOLD "/parameters/released", O_WRONLY);

	REQUIRE(fd >= 0 && write(fd, "Y", 1) == 1);
	close(fd);
}

void hold_end(void)
{
	unload(HOLD);
}

int kernel_warnings(void)
{
	const char *at;
	char *log;
	int size = klogctl(10, NULL, 0), n = 0;

	REQUIRE(size > 0);
	log = calloc(1, size + 1);
	REQUIRE(log && klogctl(3, log, size) >= 0);
	for (at = log; (at = strstr(at, "WARNING: ")); at++)
		n++;
	free(log);
	return n;
}
