// SPDX-License-Identifier: MIT
/*
 * Asks the leak agent of a running worker, and prints what it says.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int usage(FILE *to, int status)
{
	fprintf(to, "usage: worker_ask SOCKET counts|keyed|leak|where\n"
		    "Exit status: 0 if the agent's answer ends in \"ok\".\n");
	return status;
}

static FILE *dial(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return NULL;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return NULL;
	}
	return fdopen(fd, "r+");
}

int main(int argc, char **argv)
{
	char line[256] = "";
	FILE *agent;
	int ok = 0;

	if (argc == 2 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if (argc != 3)
		return usage(stderr, 2);
	agent = dial(argv[1]);
	if (!agent) {
		fprintf(stderr, "worker_ask: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	fprintf(agent, "%s\n", argv[2]);
	fflush(agent);
	while (fgets(line, sizeof(line), agent)) {
		ok = !strcmp(line, "ok\n");
		if (!ok)
			fputs(line, stdout);
	}
	if (ferror(agent))
		ok = 0;
	fclose(agent);
	if (!ok && strncmp(line, "fail", 4))
		fprintf(stderr, "worker_ask: the worker broke off\n");
	return ok ? 0 : 1;
}
