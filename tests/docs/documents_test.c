// SPDX-License-Identifier: MIT
/*
 * The programs of the documents, one after the other, for the backend that the argument names.  Each is a
 * process of its own and has to succeed, or to die where it says so; under "epk" it prints what its document
 * says of it.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Seconds; emulated ones are slow. */
#define LIMIT	300

#define PROGRAM(name, dies, shown) int name(int argc, char **argv);
#include "programs.h"
#undef PROGRAM

static const struct program {
	const char *name;
	int (*run)(int argc, char **argv);
	int dies;
	const char *shown;
} programs[] = {
#define PROGRAM(name, dies, shown) { #name, name, dies, shown },
#include "programs.h"
};

/* What it printed, and its end. */
static int run(const struct program *program, char *said, size_t room)
{
	char *argv[] = { (char *)program->name, NULL };
	int ends[2], status;
	size_t used = 0;
	ssize_t got;
	pid_t child;

	if (pipe(ends))
		abort();
	fflush(stdout);
	child = fork();
	if (!child) {
		dup2(ends[1], STDOUT_FILENO);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		alarm(LIMIT);
		exit(program->run(1, argv));
	}
	close(ends[1]);
	while (used < room - 1 && (got = read(ends[0], said + used, room - 1 - used)) > 0)
		used += got;
	said[used] = '\0';
	close(ends[0]);
	if (child < 0 || waitpid(child, &status, 0) != child)
		abort();
	return status;
}

int main(int argc, char **argv)
{
	size_t i, nr = sizeof(programs) / sizeof(programs[0]);
	char said[4096];
	int failed = 0;

	if (argc != 2)
		return 2;
	setenv("EPK_BACKEND", argv[1], 1);
	for (i = 0; i < nr; i++) {
		const struct program *program = &programs[i];
		int status = run(program, said, sizeof(said));
		int well = !status;

		if (program->dies && strcmp(argv[1], "none"))
			well = WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
		if (!strcmp(argv[1], "epk") && program->shown && strcmp(said, program->shown))
			well = 0;
		if (well)
			continue;
		printf("%s: status %#x, prints:\n%s", program->name, status, said);
		failed++;
	}
	printf("%zu programs, %d failed\n", nr, failed);
	return nr < 30 || failed;
}
