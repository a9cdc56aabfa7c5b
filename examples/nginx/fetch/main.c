// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>

#include "fetch.h"

#define EVENTS	64
/* A prime above the highest number of connections, so that each is met once. */
#define STRIDE	100003

struct run {
	struct options options;
	struct totals totals;
	struct session *sessions;
	unsigned int settled;
	int epoll;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static SSL_CTX *make_ctx(const struct options *o)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	int ok = ctx && SSL_CTX_set_min_proto_version(ctx, o->version) &&
		 SSL_CTX_set_max_proto_version(ctx, o->version) &&
		 SSL_CTX_load_verify_locations(ctx, o->ca, NULL);

	if (ok && o->cipher)
		ok = o->version == TLS1_3_VERSION ? SSL_CTX_set_ciphersuites(ctx, o->cipher) :
						    SSL_CTX_set_cipher_list(ctx, o->cipher);
	if (!ok) {
		fprintf(stderr, "tls_fetch: cannot set up TLS:\n");
		ERR_print_errors_fp(stderr);
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(ctx, SSL_MODE_AUTO_RETRY);
	return ctx;
}

static void arm(struct run *r, struct session *s, int op)
{
	struct epoll_event event = {
		.events = s->want_write ? EPOLLOUT : EPOLLIN,
		.data.ptr = s,
	};

	if (s->stage == FAILED || s->stage == REFUSED)
		op = EPOLL_CTL_DEL;
	if (epoll_ctl(r->epoll, op, s->fd, &event) && op != EPOLL_CTL_DEL) {
		perror("tls_fetch: epoll_ctl");
		exit(1);
	}
}

static void step(struct run *r, struct session *s)
{
	bool was_settled = session_settled(s);

	session_run(s);
	r->settled += session_settled(s) - was_settled;
	arm(r, s, EPOLL_CTL_MOD);
}

static bool open_all(struct run *r, SSL_CTX *ctx)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(r->options.port) };
	unsigned int i;

	if (inet_pton(AF_INET, r->options.host, &addr.sin_addr) != 1) {
		fprintf(stderr, "tls_fetch: \"%s\" is no IPv4 address\n", r->options.host);
		return false;
	}
	r->sessions = calloc(r->options.connections, sizeof(*r->sessions));
	if (!r->sessions)
		return false;
	for (i = 0; i < r->options.connections; i++) {
		struct session *s = &r->sessions[i];

		s->options = &r->options;
		s->totals = &r->totals;
		s->id = i;
		if (!session_open(s, ctx, (struct sockaddr *)&addr, sizeof(addr)))
			return false;
		session_order(s, !r->options.hold);
		arm(r, s, EPOLL_CTL_ADD);
	}
	return true;
}

/* Serves the sessions until all are settled; false if that takes too long. */
static bool run_all(struct run *r)
{
	int64_t deadline = now_ms() + r->options.timeout_s * 1000ll;
	struct epoll_event events[EVENTS];
	int64_t left;
	int i, nr;

	while (r->settled < r->options.connections) {
		left = deadline - now_ms();
		nr = left > 0 ? epoll_wait(r->epoll, events, EVENTS, left) : 0;
		if (nr < 0 && errno != EINTR) {
			perror("tls_fetch: epoll_wait");
			return false;
		}
		if (!nr) {
			fprintf(stderr, "tls_fetch: %u of %u sessions unfinished after %u s\n",
				r->options.connections - r->settled, r->options.connections,
				r->options.timeout_s);
			return false;
		}
		for (i = 0; i < nr; i++)
			step(r, events[i].data.ptr);
	}
	return true;
}

/*
 * Waits for a line of standard input while the sessions stay open; false at its
 * end.  A session that is lost meanwhile counts as an error.
 */
static bool hold(struct run *r, char *line, size_t size)
{
	struct epoll_event event = { .events = EPOLLIN }, events[EVENTS];
	bool has_input = false;
	ssize_t len;
	int i, nr;

	printf("holding %u sessions\n", r->options.connections);
	fflush(stdout);
	/* A regular file cannot be waited for, and is always ready. */
	if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event))
		has_input = true;
	while (!has_input) {
		nr = epoll_wait(r->epoll, events, EVENTS, -1);
		for (i = 0; i < nr; i++) {
			if (events[i].data.ptr)
				step(r, events[i].data.ptr);
			else
				has_input = true;
		}
	}
	epoll_ctl(r->epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
	len = read(STDIN_FILENO, line, size - 1);
	line[len > 0 ? len : 0] = 0;
	return len > 0;
}

/*
 * Not in the order of connecting: clients do not ask in turn, and a server that
 * gave neighbours the same EPT would hardly ever have to change it.
 */
static bool order_all(struct run *r, bool all)
{
	unsigned int i, nr = r->options.connections;

	for (i = 0; i < nr; i++) {
		struct session *s = &r->sessions[(uint64_t)i * STRIDE % nr];

		if (s->stage != IDLE)
			continue;
		session_order(s, all);
		r->settled--;
		step(r, s);
	}
	return run_all(r);
}

/* What comes on standard input, and a last request on each session. */
static bool obey(struct run *r)
{
	char line[64];

	while (hold(r, line, sizeof(line))) {
		if (strcmp(line, "fetch\n")) {
			fprintf(stderr, "tls_fetch: unknown command \"%s\"\n", line);
			return false;
		}
		if (!order_all(r, true))
			return false;
	}
	return order_all(r, false);
}

int main(int argc, char **argv)
{
	struct run r = {
		.options = {
			.connections = 64, .rounds = 1, .timeout_s = 300, .port = 4433,
			.host = "127.0.0.1", .dir = "docs", .ca = "cert.pem",
			.version = TLS1_3_VERSION,
		},
	};
	SSL_CTX *ctx;
	unsigned int i;
	bool ok;

	if (!options_parse(&r.options, argc, argv))
		return 2;
	signal(SIGPIPE, SIG_IGN);
	/* This end uses OpenSSL's own ciphers, whatever the server does. */
	OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	ctx = make_ctx(&r.options);
	r.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!ctx || r.epoll < 0)
		return 1;
	ok = open_all(&r, ctx) && run_all(&r);
	if (ok && r.options.hold && !r.totals.errors)
		ok = obey(&r);
	printf("sessions %u  requests %" PRIu64 "  bytes %" PRIu64 "  mismatches %" PRIu64
	       "  errors %" PRIu64 "\n", r.options.connections, r.totals.requests,
	       r.totals.bytes, r.totals.mismatches, r.totals.errors);
	for (i = 0; r.sessions && i < r.options.connections; i++)
		session_close(&r.sessions[i]);
	SSL_CTX_free(ctx);
	return ok && !r.totals.mismatches && !r.totals.errors ? 0 : 1;
}
