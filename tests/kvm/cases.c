// SPDX-License-Identifier: MIT
/* Run the cases of a topic, each in a process of its own. */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/wait.h>

#include "vmm.h"

/* Emulated seconds; see tests/tests.list. */
#define CASE_SECONDS	3

static int failures;

void check_failed(const char *file, int line, const char *what, long a, long b)
{
	printf("%s:%d: not %s: %#lx, %#lx\n", file, line, what, a, b);
	failures++;
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	/* Other threads may run vCPUs. */
	_exit(1);
}

void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

pid_t fork_case(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	return pid;
}

static bool run_case(const struct test_case *test)
{
	uint64_t start = rdtsc();
	pid_t pid = fork_case();
	int status;

	if (!pid) {
		alarm(CASE_SECONDS);
		test->run();
		fflush(stdout);
		_exit(failures != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	printf("%s %s, %u million instructions", status ? "FAIL" : "ok", test->name,
	       (unsigned int)((rdtsc() - start) / 1000000));
	if (WIFSIGNALED(status))
		printf(", signal %d", WTERMSIG(status));
	printf("\n");
	return !status;
}

int run_cases(const struct test_case *cases, int nr, int argc, char **argv)
{
	int i, run = 0, failed = 0;
	char parameters[KVM_PARAMETERS];

	kvm_parameters(parameters);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; i < nr; i++) {
		if (argc > 1 && strcmp(argv[1], cases[i].name))
			continue;
		run++;
		failed += !run_case(&cases[i]);
		kvm_restore(parameters);
	}
	if (!run)
		printf("no such case\n");
	return failed || !run;
}
