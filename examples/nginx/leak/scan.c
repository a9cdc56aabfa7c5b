// SPDX-License-Identifier: MIT
/*
 * tls_scan: an attacker who knows all secrets of a session, as its client, and looks for each of
 * them in all memory that the worker at the other end may read with no domain held: after each of
 * libssl's operations on a secret, while the session lives, and when it is closed; the same again
 * for one that is resumed with a ticket.
 *
 *	tls_scan AGENT-SOCKET PORT FILE
 *
 * What has changed since the last look is kept, and all of it searched at the end, when all
 * secrets are known.  Prints NAME=VALUE lines.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "../provider_notes.h"
#include "../provider_scan.h"

#define PAGE		4096ul
#define DOMAINS_MAX	8192
#define LOOKS_MAX	400
#define PATIENCE_MS	60000

static void __attribute__((noreturn, format(printf, 1, 2))) give_up(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "tls_scan: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	ERR_print_errors_fp(stderr);
	exit(1);
}

/* ---- what is known */

static bool is_noting;

/* In place of libcrypto's, for libssl. */
__attribute__((visibility("default")))
int EVP_KDF_derive(EVP_KDF_CTX *ctx, unsigned char *out, size_t len, const OSSL_PARAM params[])
{
	static __typeof__(&EVP_KDF_derive) real;
	int ret;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "EVP_KDF_derive");
	ret = real(ctx, out, len, params);
	if (ret > 0 && is_noting)
		note_derived(params, out, len);
	return ret;
}

/* ---- the worker's agent */

static const char *agent;

static int dial(const char *command)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(agent) >= sizeof(address.sun_path))
		give_up("%s is too long", agent);
	strcpy(address.sun_path, agent);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    write(fd, command, strlen(command)) != (ssize_t)strlen(command))
		give_up("%s: %s", agent, strerror(errno));
	return fd;
}

static struct range domains[DOMAINS_MAX];
static size_t nr_domains;
static int worker;

static int by_start(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static void ask_where(void)
{
	FILE *answer = fdopen(dial("where\n"), "r");
	char line[128] = "";
	unsigned long start, end;

	nr_domains = 0;
	while (answer && fgets(line, sizeof(line), answer)) {
		if (sscanf(line, "domain=%lx-%lx", &start, &end) == 2) {
			if (nr_domains == DOMAINS_MAX)
				give_up("more domains than %d", DOMAINS_MAX);
			domains[nr_domains++] = (struct range){ start, end };
		} else {
			sscanf(line, "pid=%d", &worker);
		}
	}
	if (!answer || strcmp(line, "ok\n") || !worker)
		give_up("the agent says: %s", line);
	fclose(answer);
	qsort(domains, nr_domains, sizeof(domains[0]), by_start);
}

/* ---- looks at its memory, of which pages are kept that have changed */

enum stage { HANDSHAKE, LIVE, CLOSED, RESUMED_HANDSHAKE, RESUMED_LIVE, RESUMED_CLOSED, NR_STAGES };

static const char *const stage_names[] = { "handshake", "live", "closed", "resumed_handshake",
					   "resumed_live", "resumed_closed" };

/**
 * struct version - what a page was
 * @first: the first look at which it was that
 * @last: and the last
 * @older: what was there before
 */
struct version {
	uintptr_t at;
	int first, last;
	struct version *older, *next;
	uint8_t bytes[PAGE];
};

#define BUCKETS	16384

static struct version *buckets[BUCKETS];
static enum stage stage_of[LOOKS_MAX];
static int nr_looks;
static size_t nr_versions, bytes_seen;

static struct version **versions_of(uintptr_t at)
{
	struct version **v = &buckets[at / PAGE % BUCKETS];

	while (*v && (*v)->at != at)
		v = &(*v)->next;
	return v;
}

static void keep_page(uintptr_t at, const uint8_t *bytes)
{
	static const uint8_t zeros[PAGE];
	struct version **page, *new;

	bytes_seen += PAGE;
	if (!memcmp(bytes, zeros, PAGE))
		return;
	page = versions_of(at);
	if (*page && (*page)->last == nr_looks - 1 && !memcmp((*page)->bytes, bytes, PAGE)) {
		(*page)->last = nr_looks;
		return;
	}
	new = malloc(sizeof(*new));
	if (!new)
		give_up("no memory");
	new->at = at;
	new->first = new->last = nr_looks;
	new->older = *page;
	new->next = *page ? (*page)->next : NULL;
	memcpy(new->bytes, bytes, PAGE);
	*page = new;
	nr_versions++;
}

#define CHUNK		64ul	/* pages */

/* An entry of /proc/PID/pagemap: there is a page. */
#define PRESENT		(3ull << 62)

static int pagemap = -1;

/* Of a run of pages that are there; what is not was never written to. */
static void look_at_pages(uintptr_t start, size_t pages)
{
	static uint8_t bytes[CHUNK * PAGE];
	struct iovec to = { bytes, pages * PAGE }, from = { (void *)start, pages * PAGE };
	size_t i;

	if (process_vm_readv(worker, &to, 1, &from, 1, 0) != (ssize_t)(pages * PAGE))
		give_up("%lx of the worker's cannot be read", (unsigned long)start);
	for (i = 0; i < pages; i++)
		keep_page(start + i * PAGE, bytes + i * PAGE);
}

static void look_at_part(void *arg, pid_t pid, uintptr_t start, uintptr_t end, bool shared)
{
	uint64_t entries[CHUNK];
	size_t i, run, nr;

	(void)arg;
	(void)pid;
	for (; start < end; start += nr * PAGE) {
		nr = (end - start) / PAGE < CHUNK ? (end - start) / PAGE : CHUNK;
		if (pread(pagemap, entries, nr * sizeof(entries[0]),
			  start / PAGE * sizeof(entries[0])) != (ssize_t)(nr * sizeof(entries[0])))
			give_up("the worker's pages cannot be told");
		for (i = 0; i < nr; i += run + !run) {
			for (run = 0; i + run < nr && (shared || entries[i + run] & PRESENT); run++)
				;
			if (run)
				look_at_pages(start + i * PAGE, run);
		}
	}
}

static void look(enum stage stage)
{
	char path[64];

	if (nr_looks == LOOKS_MAX)
		give_up("more looks than %d", LOOKS_MAX);
	stage_of[nr_looks] = stage;
	ask_where();
	snprintf(path, sizeof(path), "/proc/%d/pagemap", worker);
	if (pagemap < 0)
		pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0 || !for_each_part(worker, domains, nr_domains, look_at_part, NULL))
		give_up("the worker's memory cannot be read");
	nr_looks++;
}

/* ---- a connection, of which the server stops again and again */

static int tls_fd, stop_fd;
static SSL_CTX *client_ctx;
static SSL *ssl;
static SSL_SESSION *session;
static int port;

static int keep_session(SSL *of, SSL_SESSION *new)
{
	(void)of;
	SSL_SESSION_free(session);
	session = new;
	return 1;
}

static void flush_client(void)
{
	char bytes[4096];
	int len;

	while ((len = BIO_read(SSL_get_wbio(ssl), bytes, sizeof(bytes))) > 0)
		if (write(tls_fd, bytes, len) != len)
			give_up("write: %s", strerror(errno));
}

/* Until there is something of the server's; false at the end. */
static bool await_server(enum stage stage)
{
	struct pollfd fds[2] = { { tls_fd, POLLIN, 0 }, { stop_fd, POLLIN, 0 } };
	char bytes[20000];
	ssize_t len;

	for (;;) {
		if (poll(fds, 2, PATIENCE_MS) <= 0)
			give_up("the server says nothing");
		if (fds[1].revents) {
			if (read(stop_fd, bytes, 1) != 1)
				give_up("the server has gone");
			look(stage);
			if (write(stop_fd, bytes, 1) != 1)
				give_up("the server has gone");
			continue;
		}
		len = read(tls_fd, bytes, sizeof(bytes));
		if (len <= 0)
			return false;
		BIO_write(SSL_get_rbio(ssl), bytes, len);
		return true;
	}
}

static void shake_hands(enum stage stage)
{
	int done;

	while ((done = SSL_do_handshake(ssl)) != 1) {
		if (SSL_get_error(ssl, done) != SSL_ERROR_WANT_READ)
			give_up("the handshake");
		flush_client();
		if (!await_server(stage))
			give_up("the server has hung up");
	}
	flush_client();
}

/* A file of 1 KiB: its header and all of it. */
static void get(const char *file, enum stage stage)
{
	char request[256], bytes[2048];
	size_t got = 0;
	int len;

	snprintf(request, sizeof(request), "GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n", file);
	if (SSL_write(ssl, request, strlen(request)) <= 0)
		give_up("the request");
	flush_client();
	while (got < 1024) {
		len = SSL_read(ssl, bytes, sizeof(bytes));
		if (len > 0)
			got += len;
		else if (SSL_get_error(ssl, len) != SSL_ERROR_WANT_READ || !await_server(stage))
			give_up("no answer");
	}
}

static void hang_up(enum stage stage)
{
	SSL_shutdown(ssl);
	flush_client();
	/* It has freed everything when it closes the connection. */
	shutdown(tls_fd, SHUT_WR);
	while (await_server(stage))
		;
	close(tls_fd);
	close(stop_fd);
	SSL_free(ssl);
}

static void connect_once(const char *file, enum stage handshake, enum stage live, enum stage closed)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	stop_fd = dial("stops\n");
	tls_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (tls_fd < 0 || connect(tls_fd, (struct sockaddr *)&address, sizeof(address)))
		give_up("port %d: %s", port, strerror(errno));
	ssl = SSL_new(client_ctx);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(ssl);
	if (session)
		SSL_set_session(ssl, session);
	is_noting = true;
	shake_hands(handshake);
	get(file, handshake);
	is_noting = false;
	look(live);
	hang_up(closed);
	look(closed);
}

/* ---- what is found */

static bool present[NEEDLES_MAX][LOOKS_MAX];

static void search(const struct version *v)
{
	size_t i;
	int at;

	for (i = 0; i < nr_needles; i++)
		needles[i].found = 0;
	scan_bytes(v->bytes, PAGE);
	for (i = 0; i < nr_needles; i++)
		for (at = v->first; needles[i].found && at <= v->last; at++)
			present[i][at] = true;
}

static void search_all(void)
{
	const struct version *v, *old;
	size_t i;

	cut_needles();
	for (i = 0; i < BUCKETS; i++)
		for (v = buckets[i]; v; v = v->next)
			for (old = v; old; old = old->older)
				search(old);
}

static void tell(void)
{
	size_t i, secrets = 0, found = 0, live[NR_STAGES] = { 0 };
	int at, hit = 0, stops = 0;
	enum stage stage;
	bool ever, in[NR_STAGES], any;

	for (i = 0; i < nr_needles; i++) {
		memset(in, 0, sizeof(in));
		for (at = 0, ever = false; at < nr_looks; at++) {
			ever |= present[i][at];
			in[stage_of[at]] |= present[i][at];
		}
		if (needles[i].allowed)
			continue;
		secrets++;
		found += ever;
		printf("%s=%s\n", ever ? "seen" : "unseen", needles[i].name);
		for (stage = 0; stage < NR_STAGES; stage++)
			live[stage] += in[stage];
	}
	for (at = 0; at < nr_looks; at++) {
		if (stage_of[at] % 3)
			continue;
		stops++;
		for (i = 0, any = false; i < nr_needles; i++)
			any |= present[i][at] && !needles[i].allowed;
		hit += any;
	}
	printf("secrets=%zu\nfound=%zu\nstops=%d\nhit=%d\n", secrets, found, stops, hit);
	for (stage = 0; stage < NR_STAGES; stage++)
		printf("%s=%zu\n", stage_names[stage], live[stage]);
	printf("looks=%d\nkib=%zu\n", nr_looks, bytes_seen / 1024 / nr_looks);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: tls_scan AGENT-SOCKET PORT FILE\n");
		return 2;
	}
	agent = argv[1];
	port = atoi(argv[2]);
	client_ctx = SSL_CTX_new(TLS_client_method());
	if (!client_ctx || SSL_CTX_set_min_proto_version(client_ctx, TLS1_3_VERSION) <= 0)
		give_up("no context");
	SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT |
						   SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(client_ctx, keep_session);
	connect_once(argv[3], HANDSHAKE, LIVE, CLOSED);
	if (!session)
		give_up("no ticket");
	connect_once(argv[3], RESUMED_HANDSHAKE, RESUMED_LIVE, RESUMED_CLOSED);
	search_all();
	tell();
	return 0;
}
