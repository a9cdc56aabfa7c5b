/* SPDX-License-Identifier: MIT */
/* A server's clients, one request at a time: each has a TLS connection, which stays. */
#ifndef NGINX_CLIENT_H
#define NGINX_CLIENT_H

#include <stdbool.h>

#include "nginx_server.h"

#define MOST_CLIENTS	300

/* TLS by OpenSSL's own code, whatever the server does. */
bool clients_init(void);

struct clients {
	int port;
	int nr;
	void *session;
	struct client {
		int fd;
		void *ssl;
	} client[MOST_CLIENTS];
};

/* Until there are @nr; false if a connection cannot be had. */
bool clients_open(struct clients *clients, int nr);
void clients_close(struct clients *clients);

/* Fetches a file and compares it; false with a message if it is not that. */
bool client_fetch(struct client *client, const struct served_file *file);

/* The same, after which the server ends the connection, and another takes its place. */
bool client_fetch_anew(struct clients *clients, struct client *client,
		       const struct served_file *file);

#endif /* NGINX_CLIENT_H */
