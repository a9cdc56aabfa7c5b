// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "nginx_client.h"

#define HEADER_MAX	1024

static SSL_CTX *ctx;
static char received[HEADER_MAX + (128 << 10) + 1];

static bool fail(const char *what)
{
	fprintf(stderr, "nginx_bench: client: %s\n", what);
	ERR_print_errors_fp(stderr);
	return false;
}

bool clients_init(void)
{
	OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	ctx = SSL_CTX_new(TLS_client_method());
	if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION))
		return fail("no context");
	SSL_CTX_set_mode(ctx, SSL_MODE_AUTO_RETRY);
	return true;
}

static void close_client(struct client *client)
{
	SSL_free(client->ssl);
	close(client->fd);
	*client = (struct client) { .fd = -1 };
}

static bool open_client(const struct clients *clients, struct client *client, bool resume)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_port = htons(clients->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	/* A connection that ends without a word takes its session with it. */
	SSL_SESSION *session = resume ? SSL_SESSION_dup(clients->session) : NULL;
	int one = 1;

	client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	client->ssl = SSL_new(ctx);
	if (connect(client->fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    !client->ssl || !SSL_set_fd(client->ssl, client->fd) ||
	    (resume && !SSL_set_session(client->ssl, session)) ||
	    SSL_connect(client->ssl) != 1 || SSL_session_reused(client->ssl) != resume) {
		close_client(client);
		SSL_SESSION_free(session);
		return fail("no connection");
	}
	SSL_SESSION_free(session);
	return true;
}

void clients_close(struct clients *clients)
{
	while (clients->nr)
		close_client(&clients->client[--clients->nr]);
	SSL_SESSION_free(clients->session);
	clients->session = NULL;
}

static bool ask(struct client *client, const struct served_file *file, const char *how)
{
	char request[256];
	int len = snprintf(request, sizeof(request),
			   "GET /%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", file->name, how);

	return SSL_write(client->ssl, request, len) == len || fail("no request");
}

/* A whole answer, which has to be right. */
static bool take(struct client *client, const struct served_file *file)
{
	size_t len = 0, whole = 0;
	char *body = NULL;
	int got;

	while (!whole || len < whole) {
		got = SSL_read(client->ssl, received + len, sizeof(received) - 1 - len);
		if (got <= 0)
			return fail("an answer is not whole");
		len += got;
		if (!whole && (body = memmem(received, len, "\r\n\r\n", 4))) {
			body += 4;
			whole = body - received + file->len;
		}
	}
	if (strncmp(received, "HTTP/1.1 200 ", 13) || len != whole ||
	    memcmp(body, file->bytes, file->len))
		return fail("a wrong answer");
	return true;
}

bool client_fetch(struct client *client, const struct served_file *file)
{
	return ask(client, file, "") && take(client, file);
}

/* All but the first resume its session, which takes half as long; nobody measures it. */
bool clients_open(struct clients *clients, int nr)
{
	for (; clients->nr < nr; clients->nr++) {
		if (!open_client(clients, &clients->client[clients->nr], clients->nr))
			return false;
		/* With its answer the session comes. */
		if (clients->nr)
			continue;
		if (!client_fetch(&clients->client[0], &served_files[0]))
			return false;
		clients->session = SSL_SESSION_dup(SSL_get0_session(clients->client[0].ssl));
	}
	return true;
}

bool client_fetch_anew(struct clients *clients, struct client *client,
		       const struct served_file *file)
{
	char byte;

	if (!ask(client, file, "Connection: close\r\n") || !take(client, file))
		return false;
	if (SSL_read(client->ssl, &byte, 1) != 0)
		return fail("the server does not end a connection");
	close_client(client);
	return open_client(clients, client, false);
}
