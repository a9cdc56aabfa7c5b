// SPDX-License-Identifier: MIT
/*
 * leak_agent.so: the attacker inside the worker process.
 *
 * Preloaded into an unmodified server.  Each process that the server forks
 * gets a thread that answers on the socket named by EPK_AGENT_SOCKET, with its
 * process's number at the end if that ends with a dot:
 *
 *	counts	what libepk counts in this process
 *	keyed	how many domains hold a key
 *	leak	the leak test (report.c)
 *	where	its process, and where domains' memory is
 *	stops	to stop where libssl has secrets (stops.c); this connection goes on
 *
 * The over-reads themselves run in the server's own thread, in the handler of
 * a signal that interrupts it: where a bug in the server would be.  Ask for
 * them while the server is idle, so that it holds no domain.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <epk.h>

#include "report.h"
#include "stops.h"

#define LEAK_SIGNAL	(SIGRTMAX - 1)

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static pthread_t server_thread;
static struct leak_result result;
static sem_t leak_done;

static void on_leak_signal(int sig)
{
	int saved_errno = errno;

	(void)sig;
	leak_run(&result);
	sem_post(&leak_done);
	errno = saved_errno;
}

static void leak(FILE *to)
{
	struct sigaction action = { .sa_handler = on_leak_signal };

	memset(&result, 0, sizeof(result));
	if (!leak_collect(&result))
		goto out;
	result.error = sigaction(LEAK_SIGNAL, &action, NULL) ? -errno :
		       -pthread_kill(server_thread, LEAK_SIGNAL);
	if (result.error)
		goto out;
	while (sem_wait(&leak_done))
		;
out:
	leak_print(&result, to);
	free(result.targets);
}

static int print_range(int dom, void *addr, size_t len, void *to)
{
	(void)dom;
	fprintf(to, "domain=%lx-%lx\n", (unsigned long)addr, (unsigned long)addr + len);
	return 0;
}

static void where(FILE *to)
{
	fprintf(to, "pid=%d\n", (int)getpid());
	if (epk_for_each_mapping(print_range, to))
		fprintf(to, "fail: not all domains\n");
	else
		fprintf(to, "ok\n");
}

/* Commands are short and come in one piece. */
static void answer(int fd)
{
	char command[32] = "";
	FILE *to;

	if (read(fd, command, sizeof(command) - 1) <= 0)
		goto close_fd;
	if (!strcmp(command, "stops\n")) {
		stops_begin(fd);
		return;
	}
	to = fdopen(fd, "w");
	if (!to)
		goto close_fd;
	if (!strcmp(command, "counts\n"))
		counts_print(to);
	else if (!strcmp(command, "keyed\n"))
		keyed_print(to);
	else if (!strcmp(command, "leak\n"))
		leak(to);
	else if (!strcmp(command, "where\n"))
		where(to);
	else
		fprintf(to, "fail: unknown command\n");
	fclose(to);
	return;

close_fd:
	close(fd);
}

static void *serve(void *arg)
{
	int sock, fd;

	(void)arg;
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(address.sun_path);
	if (sock < 0 || bind(sock, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(sock, 4)) {
		perror("leak_agent: socket");
		return NULL;
	}
	for (;;) {
		fd = accept4(sock, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			answer(fd);
	}
}

/* The new thread must take no signal that is meant for the server. */
static void in_child(void)
{
	pthread_attr_t small;
	sigset_t all, old;
	pthread_t thread;
	size_t len = strlen(address.sun_path);
	int err;

	server_thread = pthread_self();
	if (len && address.sun_path[len - 1] == '.')
		snprintf(address.sun_path + len, sizeof(address.sun_path) - len, "%d", (int)getpid());
	sem_init(&leak_done, 0, 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* All of it is looked through. */
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	err = pthread_create(&thread, &small, serve, NULL);
	pthread_attr_destroy(&small);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		fprintf(stderr, "leak_agent: pthread_create: %s\n", strerror(err));
	else
		pthread_detach(thread);
}

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("EPK_AGENT_SOCKET");

	if (!path)
		return;
	if (strlen(path) >= sizeof(address.sun_path)) {
		fprintf(stderr, "leak_agent: EPK_AGENT_SOCKET is too long\n");
		return;
	}
	strcpy(address.sun_path, path);
	if (pthread_atfork(NULL, NULL, in_child))
		fprintf(stderr, "leak_agent: pthread_atfork failed\n");
}
