// SPDX-License-Identifier: MIT
/*
 * console SECONDS COMMAND... -- [EXPECT [TYPE EXPECT]...]: run a command that wants a terminal, as virsh console does,
 * on one; wait for a text, type a line, and so on; then leave it by Ctrl-].  Until the first text is there, an
 * empty line is typed each second, as nobody knows what was there before.  What the other side says is written out.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char said[1 << 18];
static size_t seen, length;

static void type(int terminal, const char *text)
{
	if (write(terminal, text, strlen(text)) < 0)
		err(1, "cannot type");
}

/* Read what is there within a second; false at the end of it all. */
static int hear(int terminal)
{
	struct pollfd wait = { .fd = terminal, .events = POLLIN };
	ssize_t got;

	if (poll(&wait, 1, 1000) <= 0)
		return 1;
	if (length > sizeof(said) - 4096)
		errx(1, "too much is said");
	got = read(terminal, said + length, 2048);
	if (got <= 0)
		return 0;
	for (ssize_t i = 0; i < got; i++) {
		char c = said[length + i];

		if (c && c != '\r')
			putchar(c);
	}
	fflush(stdout);
	length += got;
	return 1;
}

/* Wait for a text behind what was waited for before. */
static void expect(int terminal, const char *text, time_t end, int nudge)
{
	time_t last = time(NULL);
	char *at;

	while (!(at = memmem(said + seen, length - seen, text, strlen(text)))) {
		if (time(NULL) > end)
			errx(1, "no \"%s\"", text);
		if (nudge && time(NULL) > last) {
			type(terminal, "\r");
			last = time(NULL);
		}
		if (!hear(terminal))
			errx(1, "the end, and no \"%s\"", text);
	}
	seen = at + strlen(text) - said;
}

/* posix_openpt(): where the C library's forkpty() is another library, of older systems. */
static pid_t start(char **command, int *terminal)
{
	char name[64];
	pid_t pid;

	*terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*terminal < 0 || grantpt(*terminal) || unlockpt(*terminal) ||
	    ptsname_r(*terminal, name, sizeof(name)))
		err(1, "no terminal");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		int fd;

		setsid();
		fd = open(name, O_RDWR);
		for (int i = 0; i < 3; i++)
			dup2(fd, i);
		execvp(command[0], command);
		err(127, "%s", command[0]);
	}
	return pid;
}

int main(int argc, char **argv)
{
	int terminal, status, at, first = 1;
	time_t end;
	pid_t pid;

	for (at = 2; at < argc && strcmp(argv[at], "--"); at++)
		;
	if (at == 2 || at >= argc)
		errx(2, "usage: console SECONDS COMMAND... -- [EXPECT [TYPE EXPECT]...]");
	argv[at] = NULL;
	end = time(NULL) + atoi(argv[1]);
	pid = start(argv + 2, &terminal);
	while (++at < argc) {
		expect(terminal, argv[at], end, first);
		first = 0;
		if (++at < argc) {
			type(terminal, argv[at]);
			type(terminal, "\r");
		}
	}
	type(terminal, "\035");
	while (hear(terminal) && waitpid(pid, &status, WNOHANG) == 0)
		if (time(NULL) > end) {
			kill(pid, SIGKILL);
			errx(1, "it does not end");
		}
	putchar('\n');
	return 0;
}
