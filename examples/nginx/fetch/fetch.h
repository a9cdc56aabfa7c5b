/* SPDX-License-Identifier: MIT */
/*
 * tls_fetch: many keep-alive HTTPS connections at once, every byte compared
 * with the file that it came from.
 */
#ifndef FETCH_H
#define FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

struct file {
	const char *name;
	char *bytes;
	size_t len;
};

struct options {
	unsigned int connections;
	unsigned int rounds;
	unsigned int timeout_s;
	int port;
	const char *host;
	const char *dir;
	const char *ca;
	const char *cipher;
	int version;
	bool hold;
	bool corrupt;
	struct file *files;
	unsigned int nr_files;
};

bool options_parse(struct options *o, int argc, char **argv);

struct totals {
	uint64_t requests;
	uint64_t bytes;
	uint64_t mismatches;
	uint64_t errors;
};

enum stage {
	CONNECTING,
	HANDSHAKE,
	SENDING,
	HEADER,
	BODY,
	IDLE,
	REFUSED,
	FAILED,
};

#define HEADER_MAX	4096

/**
 * struct session - one connection
 * @todo: requests that it has still to make
 * @next: which file comes next
 * @want_write: what the socket must become before it can go on
 */
struct session {
	const struct options *options;
	struct totals *totals;
	SSL *ssl;
	int fd;
	unsigned int id;
	enum stage stage;
	bool want_write;
	unsigned int todo;
	unsigned int next;
	const struct file *file;
	char buf[HEADER_MAX];
	size_t buf_len;
	size_t body_at;
};

bool session_open(struct session *s, SSL_CTX *ctx, const struct sockaddr *addr, socklen_t len);
void session_order(struct session *s, bool all);
void session_run(struct session *s);
void session_close(struct session *s);

/* True once nothing more will happen by itself. */
static inline bool session_settled(const struct session *s)
{
	return s->stage >= IDLE;
}

#endif /* FETCH_H */
