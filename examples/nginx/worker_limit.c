// SPDX-License-Identifier: MIT
/*
 * How many sessions a worker without rights has at a time: as many as it is told to, or, under
 * a limit of locked memory, as many as the provider's message says.
 *
 *	worker_limit limit|none CERTIFICATE KEY [EPK-CHECK]
 *
 * "none" if nothing counts against the limit.  With OPENSSL_CONF, as root.  Exit status: 0 if all was as it was told.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>

#include "provider_link.h"

#define NOBODY		65534
#define USUAL		(8ul << 20)
#define MANY		10000
#define MESSAGE_MAX	1024
/* What epk-check, which knows nothing of a process, may say less. */
#define CAUTION		64

static const char *certificate, *key;

static int fail(const char *what)
{
	fprintf(stderr, "worker_limit: %s\n", what);
	ERR_print_errors_fp(stderr);
	return 1;
}

/* ---- sessions: the server's end by the provider, the client's by OpenSSL alone */

struct ends {
	SSL_CTX *server_ctx, *client_ctx;
	SSL_SESSION *session;
};

static bool make_ctxs(struct ends *e)
{
	OSSL_LIB_CTX *plain = OSSL_LIB_CTX_new();

	e->session = NULL;
	e->server_ctx = SSL_CTX_new(TLS_server_method());
	e->client_ctx = plain && OSSL_PROVIDER_load(plain, "default") ?
			SSL_CTX_new_ex(plain, NULL, TLS_client_method()) : NULL;
	if (!e->server_ctx || !e->client_ctx ||
	    SSL_CTX_use_certificate_file(e->server_ctx, certificate, SSL_FILETYPE_PEM) <= 0 ||
	    SSL_CTX_use_PrivateKey_file(e->server_ctx, key, SSL_FILETYPE_PEM) <= 0)
		return false;
	SSL_CTX_set_mode(e->server_ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_mode(e->client_ctx, SSL_MODE_RELEASE_BUFFERS);
	return SSL_CTX_set_max_proto_version(e->client_ctx, TLS1_2_VERSION) > 0;
}

struct link {
	SSL *server, *client;
};

static bool shake_hands(struct ends *e, struct link *l)
{
	int i, here = 0, there = 0;

	l->server = SSL_new(e->server_ctx);
	l->client = SSL_new(e->client_ctx);
	link_ends(l->server, l->client);
	if (e->session)
		SSL_set_session(l->client, e->session);
	for (i = 0; i < 4 && (here != 1 || there != 1); i++) {
		there = SSL_do_handshake(l->client);
		here = SSL_do_handshake(l->server);
		/* The next call would forget why. */
		if (here != 1 && SSL_get_error(l->server, here) == SSL_ERROR_SSL)
			return false;
	}
	return here == 1 && there == 1;
}

static bool is_alive(const struct link *l)
{
	char got[8] = "";

	return SSL_write(l->client, "to", 3) == 3 && SSL_read(l->server, got, sizeof(got)) == 3 &&
	       SSL_write(l->server, "fro", 4) == 4 && SSL_read(l->client, got, sizeof(got)) == 4 &&
	       !strcmp(got, "fro");
}

static void drop(struct link *l)
{
	SSL_free(l->server);
	SSL_free(l->client);
}

/* ---- a worker */

/* What it found, in its words. */
struct report {
	unsigned int opened;
	char refused[MESSAGE_MAX];
};

/* A full handshake takes long in an emulator: the first one is, and what it needs is there. */
static bool resume_from_now_on(struct ends *e, const struct link *l)
{
	e->session = SSL_get1_session(l->client);
	return e->session;
}

static int open_all(struct ends *e, unsigned int wanted, struct report *r)
{
	struct link *links = calloc(wanted, sizeof(*links));
	const char *data;
	unsigned int i;

	if (!links)
		return fail("no memory");
	for (r->opened = 0; r->opened < wanted; r->opened++) {
		if (!shake_hands(e, &links[r->opened]))
			break;
		if (!r->opened && !resume_from_now_on(e, &links[0]))
			return fail("no session to be resumed");
	}
	if (r->opened < wanted) {
		while (ERR_get_error_all(NULL, NULL, NULL, &data, NULL))
			if (strstr(data, "MEMLOCK") || !*r->refused)
				snprintf(r->refused, sizeof(r->refused), "%s", data);
		drop(&links[r->opened]);
	}
	if (!r->opened)
		return fail("not one session");
	/* Whoever came before is served as ever, and a place that is left is taken. */
	for (i = 0; i < r->opened; i++)
		if (!is_alive(&links[i]))
			return fail("a session has died");
	/* While its ticket is sealed it takes another page than its own. */
	if (r->opened < 2)
		return fail("not two sessions");
	drop(&links[0]);
	drop(&links[1]);
	if (!shake_hands(e, &links[0]) || !is_alive(&links[0]))
		return fail("no new session in the place of two others");
	return 0;
}

static int work(unsigned long limit, unsigned int wanted, int to)
{
	const struct rlimit memlock = { limit, limit };
	struct report report = { 0 };
	struct ends e;
	int ret;

	/* While the key may be read. */
	if (!make_ctxs(&e))
		return fail("no context");
	if (setrlimit(RLIMIT_MEMLOCK, &memlock) || setgroups(0, NULL) || setgid(NOBODY) ||
	    setuid(NOBODY)) {
		perror("worker_limit");
		return 1;
	}
	ret = open_all(&e, wanted, &report);
	return write(to, &report, sizeof(report)) != sizeof(report) || ret;
}

static bool try(unsigned long limit, unsigned int wanted, struct report *report)
{
	int fds[2], status;
	pid_t pid;

	if (pipe(fds))
		return false;
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(work(limit, wanted, fds[1]));
	close(fds[1]);
	memset(report, 0, sizeof(*report));
	if (pid < 0 || read(fds[0], report, sizeof(*report)) != sizeof(*report))
		report->opened = 0;
	close(fds[0]);
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

/* ---- */

/* The number after some words of a text. */
static unsigned long number_after(const char *text, const char *words)
{
	const char *at = strstr(text, words);

	return at ? strtoul(at + strlen(words), NULL, 10) : 0;
}

/* What a user without rights is told with this limit. */
static unsigned long told_by(const char *tool, unsigned long limit)
{
	char command[256], line[512];
	unsigned long told = 0;
	FILE *said;

	snprintf(command, sizeof(command), "ulimit -l %lu && exec %s", limit / 1024, tool);
	fflush(stdout);
	said = popen(command, "r");
	while (said && fgets(line, sizeof(line), said))
		if (strstr(line, "locked memory"))
			told = number_after(line, "of TLS at least ");
	if (said)
		pclose(said);
	return told;
}

static int as_nobody(const char *tool, unsigned long limit)
{
	if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		return 0;
	return told_by(tool, limit) / 8;
}

static unsigned long check_says(const char *tool, unsigned long limit)
{
	int status = 0;
	pid_t pid = fork();

	/* The number fits an exit status by eighths. */
	if (!pid)
		_exit(as_nobody(tool, limit));
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) * 8ul : 0;
}

/* All that was said has to be so.  The limit that many sessions want, or 0. */
static unsigned long meet_limit(const char *tool)
{
	struct report report;
	unsigned long told, check;

	if (!try(USUAL, MANY, &report))
		return fail("the worker failed"), 0;
	printf("limit of %lu KiB: %u sessions, then: %s\n", USUAL / 1024, report.opened,
	       report.refused);
	/* At least: of two pages each, of which these sessions take one, and one page for the next. */
	told = number_after(report.refused, "has room for at least ");
	if (!strstr(report.refused, "RLIMIT_MEMLOCK, 8192 KiB") || !report.opened ||
	    told > report.opened / 2 || told + 1 < report.opened / 2)
		return fail("the message is not what happened"), 0;
	if (tool) {
		check = check_says(tool, USUAL);
		printf("epk-check says at least %lu\n", check);
		if (check > told || check + CAUTION + 8 < told)
			return fail("epk-check says something else"), 0;
	}
	return number_after(report.refused, "for 10000 make it ") * 1024;
}

static int have_many(unsigned long limit)
{
	struct report report;

	if (!try(limit, MANY, &report) || report.opened != MANY) {
		printf("%u sessions: %s\n", report.opened, report.refused);
		return fail("not all sessions could be had");
	}
	printf("limit of %lu KiB: %d sessions at a time of a worker without rights\n", limit / 1024,
	       MANY);
	return 0;
}

int main(int argc, char **argv)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	unsigned long limit = USUAL;
	bool counts;

	if (argc < 4 || argc > 5) {
		fprintf(stderr, "usage: worker_limit limit|none CERTIFICATE KEY [EPK-CHECK]\n");
		return 2;
	}
	counts = !strcmp(argv[1], "limit");
	certificate = argv[2];
	key = argv[3];
	if (!cipher || strcmp(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)), "EPK"))
		return fail("the cipher is not the epk provider's");
	EVP_CIPHER_free(cipher);
	if (counts)
		limit = meet_limit(argc > 4 ? argv[4] : NULL);
	return !limit || have_many(limit);
}
