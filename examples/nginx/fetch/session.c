// SPDX-License-Identifier: MIT
/*
 * One connection, as a state machine that goes on whenever its socket can.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

#include "fetch.h"

#define BODY_CHUNK	65536
/* The first few say it all. */
#define ERRORS_SHOWN	5

__attribute__((format(printf, 2, 3)))
static void fail(struct session *s, const char *fmt, ...)
{
	unsigned long err = ERR_get_error();
	va_list args;

	ERR_clear_error();
	s->stage = FAILED;
	if (s->totals->errors++ >= ERRORS_SHOWN)
		return;
	fprintf(stderr, "tls_fetch: session %u, %s: ", s->id, s->file ? s->file->name : "-");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "%s%s\n", err ? ": " : "", err ? ERR_reason_error_string(err) : "");
}

/* After an SSL call that returned @ret <= 0: false if there is just more to wait for. */
static bool is_over(struct session *s, int ret)
{
	switch (SSL_get_error(s->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		s->want_write = false;
		return false;
	case SSL_ERROR_WANT_WRITE:
		s->want_write = true;
		return false;
	default:
		return true;
	}
}

bool session_open(struct session *s, SSL_CTX *ctx, const struct sockaddr *addr, socklen_t len)
{
	s->fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0 || (connect(s->fd, addr, len) && errno != EINPROGRESS)) {
		fail(s, "connect: %s", strerror(errno));
		return false;
	}
	s->ssl = SSL_new(ctx);
	if (!s->ssl || !SSL_set_fd(s->ssl, s->fd) || !SSL_set1_host(s->ssl, "localhost")) {
		fail(s, "no TLS session");
		return false;
	}
	SSL_set_connect_state(s->ssl);
	s->stage = CONNECTING;
	s->want_write = true;
	return true;
}

static void compose_request(struct session *s)
{
	if (!s->todo) {
		s->stage = IDLE;
		s->want_write = false;
		return;
	}
	s->todo--;
	s->file = &s->options->files[s->next];
	s->next = (s->next + 1) % s->options->nr_files;
	s->buf_len = snprintf(s->buf, sizeof(s->buf),
			      "GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n", s->file->name);
	s->stage = SENDING;
}

static bool connected(struct session *s)
{
	socklen_t len = sizeof(int);
	int err = 0;

	getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err)
		fail(s, "connect: %s", strerror(err));
	else
		s->stage = HANDSHAKE;
	return !err;
}

/* To a session that is idle or not connected yet; session_run() does the work. */
void session_order(struct session *s, bool all)
{
	unsigned int nr_files = s->options->nr_files;

	/* Each connection starts its round at another file. */
	s->next = all ? s->id % nr_files : 0;
	s->todo = all ? nr_files * s->options->rounds : 1;
	if (s->stage == IDLE)
		compose_request(s);
}

static bool shake_hands(struct session *s)
{
	int ret = SSL_do_handshake(s->ssl);
	const char *cipher;

	if (ret <= 0) {
		if (is_over(s, ret))
			fail(s, "handshake");
		return false;
	}
	cipher = SSL_get_cipher_name(s->ssl);
	if (SSL_version(s->ssl) != s->options->version ||
	    (s->options->cipher && strcmp(cipher, s->options->cipher))) {
		fail(s, "got %s %s", SSL_get_version(s->ssl), cipher);
		return false;
	}
	compose_request(s);
	return true;
}

/* In place of the request; the handshake's last bytes are out, so nothing is in between. */
static bool send_corrupt_record(struct session *s)
{
	char record[5 + 64] = { 23, 3, 3, 0, 64 };

	if (write(s->fd, record, sizeof(record)) != sizeof(record))
		fail(s, "write: %s", strerror(errno));
	s->stage = s->stage == FAILED ? FAILED : HEADER;
	return s->stage != FAILED;
}

/* The server says so, and no more can come. */
static bool is_refused(struct session *s)
{
	if (!s->options->corrupt ||
	    ERR_GET_REASON(ERR_peek_error()) != SSL_R_SSLV3_ALERT_BAD_RECORD_MAC)
		return false;
	ERR_clear_error();
	s->totals->requests++;
	s->stage = REFUSED;
	return true;
}

static bool send_request(struct session *s)
{
	int ret;

	if (s->options->corrupt)
		return send_corrupt_record(s);
	ret = SSL_write(s->ssl, s->buf, s->buf_len);

	if (ret <= 0) {
		if (is_over(s, ret))
			fail(s, "write");
		return false;
	}
	s->stage = HEADER;
	s->buf_len = 0;
	s->body_at = 0;
	return true;
}

/* Compares what came of the body; true when the answer is complete. */
static bool take_body(struct session *s, const char *bytes, size_t len)
{
	size_t i;

	if (len > s->file->len - s->body_at) {
		fail(s, "%zu bytes too many", len - (s->file->len - s->body_at));
		return false;
	}
	if (memcmp(bytes, s->file->bytes + s->body_at, len))
		for (i = 0; i < len; i++)
			s->totals->mismatches += bytes[i] != s->file->bytes[s->body_at + i];
	s->body_at += len;
	s->totals->bytes += len;
	return s->body_at == s->file->len;
}

/* Checks the status line and the length; returns the header's size or 0. */
static size_t check_header(struct session *s)
{
	char *end = memmem(s->buf, s->buf_len, "\r\n\r\n", 4);
	char *length;

	if (!end) {
		if (s->buf_len == sizeof(s->buf))
			fail(s, "header too long");
		return 0;
	}
	*end = 0;
	if (strncmp(s->buf, "HTTP/1.1 200 ", 13)) {
		fail(s, "answer \"%.*s\"", (int)strcspn(s->buf, "\r"), s->buf);
		return 0;
	}
	length = strcasestr(s->buf, "\r\nContent-Length:");
	if (!length || strtoull(length + 17, NULL, 10) != s->file->len) {
		fail(s, "no Content-Length of %zu", s->file->len);
		return 0;
	}
	return end + 4 - s->buf;
}

static void finish_request(struct session *s)
{
	s->totals->requests++;
	compose_request(s);
}

static bool read_header(struct session *s)
{
	int ret = SSL_read(s->ssl, s->buf + s->buf_len, sizeof(s->buf) - s->buf_len);
	size_t header;

	if (ret <= 0) {
		if (is_over(s, ret) && !is_refused(s))
			fail(s, "read of the header");
		return false;
	}
	s->buf_len += ret;
	header = check_header(s);
	if (!header)
		return s->stage != FAILED;
	s->stage = BODY;
	if (take_body(s, s->buf + header, s->buf_len - header))
		finish_request(s);
	return s->stage != FAILED;
}

static bool read_body(struct session *s)
{
	static char chunk[BODY_CHUNK];
	int ret = SSL_read(s->ssl, chunk, sizeof(chunk));

	if (ret <= 0) {
		if (is_over(s, ret))
			fail(s, "read at %zu of %zu", s->body_at, s->file->len);
		return false;
	}
	if (take_body(s, chunk, ret))
		finish_request(s);
	return s->stage != FAILED;
}

/* Nothing should come, but a session ticket may. */
static bool stay_idle(struct session *s)
{
	char byte;
	int ret = SSL_read(s->ssl, &byte, 1);

	if (ret > 0)
		fail(s, "data that was not asked for");
	else if (is_over(s, ret))
		fail(s, "connection lost while idle");
	return false;
}

void session_run(struct session *s)
{
	static bool (*const steps[])(struct session *s) = {
		[CONNECTING] = connected,
		[HANDSHAKE] = shake_hands,
		[SENDING] = send_request,
		[HEADER] = read_header,
		[BODY] = read_body,
		[IDLE] = stay_idle,
	};

	while (s->stage < REFUSED && steps[s->stage](s))
		;
}

void session_close(struct session *s)
{
	if (s->ssl && s->stage == IDLE)
		SSL_shutdown(s->ssl);
	SSL_free(s->ssl);
	if (s->fd >= 0)
		close(s->fd);
}
