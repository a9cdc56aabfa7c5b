/* SPDX-License-Identifier: MIT */
/* Debian's nginx with one worker, of which each TLS session's keys are as a backend keeps them. */
#ifndef NGINX_SERVER_H
#define NGINX_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NR_FILES	3

/* What there is to fetch: the same random bytes in each run. */
struct served_file {
	const char *name;
	size_t len;
	char *bytes;
};

extern struct served_file served_files[NR_FILES];

/**
 * struct server - a running nginx
 * @backend: of the provider, or NULL: OpenSSL's own code and no domain
 * @port: where it listens, at 127.0.0.1
 * @master: its first process
 * @worker: the one that serves
 * @dir: its files and its log, all of which go with it
 */
struct server {
	const char *backend;
	int port;
	pid_t master;
	pid_t worker;
	char dir[32];
};

/* @home: the nginx example's build folder, or where the guest has it.  False if it does not start. */
bool server_start(struct server *server, const char *home, const char *backend, int port);

/* Waits for its end; false if it was not well until then. */
bool server_stop(struct server *server);

/* The first lines of its log that tell of trouble, to standard error. */
void server_complaints(const struct server *server);

/* Nanoseconds of CPU time that the worker has had, in user mode and in the kernel. */
uint64_t server_worked(const struct server *server);

/* Page faults of the worker so far. */
unsigned long server_faults(const struct server *server);

#endif /* NGINX_SERVER_H */
