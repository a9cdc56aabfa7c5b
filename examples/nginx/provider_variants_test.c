// SPDX-License-Identifier: MIT
/*
 * No secret of a session is in ordinary memory, whatever it has besides full handshakes and
 * tickets (provider_secrets_test.c), at either end, and where it comes to nothing.  With TLS 1.2
 * a certificate that is missed or refused ends a handshake before there is a secret.
 *
 * One end is this program, with OpenSSL's own provider: it notes what it derives and looks for
 * all of it in the other, a process of its own with the epk provider.  That closes domains by
 * mprotect(), so that nobody has to be told where they are.  Without the provider there has to
 * be something to find.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "provider_kept.h"
#include "provider_notes.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

/* Those of the end that is looked at. */
#define TLS_FD		10
#define CONTROL_FD	11
#define SECONDS		60

static bool is_looked_at;

/* ---- what the attacker learns */

/* What an application exports is its own. */
static bool is_exported(const OSSL_PARAM params[])
{
	char label[64];

	label_of(OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_LABEL), label, sizeof(label));
	if (*label)
		return !strcmp(label, "exporter");
	label_of(OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_SEED), label, sizeof(label));
	return !strncmp(label, "EXPORTER", 8);
}

/* In place of libcrypto's, for libssl. */
__attribute__((visibility("default")))
int EVP_KDF_derive(EVP_KDF_CTX *ctx, unsigned char *out, size_t len, const OSSL_PARAM params[])
{
	static int (*real)(EVP_KDF_CTX *, unsigned char *, size_t, const OSSL_PARAM[]);
	int ret;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "EVP_KDF_derive");
	ret = real(ctx, out, len, params);
	if (!is_looked_at && ret > 0 && !is_exported(params))
		note_derived(params, out, len);
	return ret;
}

/* ---- both ends */

#define CLIENT_CERT	0x001
#define NO_CLIENT_CERT	0x002	/* and it is asked for */
#define WRONG_CERT	0x004	/* which the client does not take */
#define AFTERWARDS	0x008	/* the client's certificate */
#define EARLY		0x010
#define EXPORT		0x020
#define RENEGOTIATE	0x040
#define NO_TICKET	0x080
#define OLD_MASTER	0x100
#define RETRY		0x200
#define NO_DHE		0x800	/* a session is resumed without a key exchange */
#define STATIC_RSA	0x400	/* which the provider does as a server alone */
#define FAILS		(NO_CLIENT_CERT | WRONG_CERT)

static const struct variant {
	const char *name, *suite;
	int version;
	unsigned int with;
} variants[] = {
	{ "TLS 1.3", "TLS_AES_256_GCM_SHA384", TLS1_3_VERSION, 0 },
	{ "CCM", "TLS_AES_128_CCM_SHA256", TLS1_3_VERSION, EXPORT },
	{ "client's certificate", "TLS_AES_128_GCM_SHA256", TLS1_3_VERSION, CLIENT_CERT },
	{ "certificate afterwards", "TLS_AES_256_GCM_SHA384", TLS1_3_VERSION, AFTERWARDS },
	{ "early data", "TLS_CHACHA20_POLY1305_SHA256", TLS1_3_VERSION, EARLY },
	{ "no tickets, retried", "TLS_AES_256_GCM_SHA384", TLS1_3_VERSION, NO_TICKET | RETRY },
	{ "no key exchange", "TLS_AES_128_GCM_SHA256", TLS1_3_VERSION, NO_DHE },
	{ "no client's certificate", "TLS_AES_256_GCM_SHA384", TLS1_3_VERSION, NO_CLIENT_CERT },
	{ "wrong certificate", "TLS_AES_256_GCM_SHA384", TLS1_3_VERSION, WRONG_CERT },
	{ "TLS 1.2", "ECDHE-RSA-AES256-GCM-SHA384", TLS1_2_VERSION, EXPORT },
	{ "CCM", "AES256-CCM", TLS1_2_VERSION, STATIC_RSA | NO_TICKET },
	{ "static RSA", "AES128-GCM-SHA256", TLS1_2_VERSION, STATIC_RSA | OLD_MASTER },
	{ "ARIA", "ECDHE-ARIA128-GCM-SHA256", TLS1_2_VERSION, 0 },
	{ "client's certificate", "ECDHE-RSA-CHACHA20-POLY1305", TLS1_2_VERSION, CLIENT_CERT },
	{ "renegotiated", "ECDHE-RSA-AES128-GCM-SHA256", TLS1_2_VERSION, RENEGOTIATE },
	{ "older master secret", "ECDHE-RSA-AES256-GCM-SHA384", TLS1_2_VERSION, OLD_MASTER },
};

#define NR_VARIANTS	(sizeof(variants) / sizeof(variants[0]))

struct end {
	const struct variant *v;
	bool serves;
	int fd;
	SSL_CTX *ctx;
	SSL *ssl;
};

static int any_certificate(int ok, X509_STORE_CTX *store)
{
	(void)ok;
	(void)store;
	return 1;
}

/* With a key of RSA's, that there be static RSA. */
static char key_file[] = "/tmp/epk-variants-XXXXXX";

static void use_certificate(SSL_CTX *ctx)
{
	require_ossl(SSL_CTX_use_certificate_file(ctx, key_file, SSL_FILETYPE_PEM));
	require_ossl(SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM));
}

static void make_server(struct end *e)
{
	use_certificate(e->ctx);
	require_ossl(SSL_CTX_set_session_id_context(e->ctx, (const uint8_t *)"v", 1));
	if (e->v->with & RETRY)
		require_ossl(SSL_CTX_set1_groups_list(e->ctx, "P-384"));
	if (e->v->with & (CLIENT_CERT | NO_CLIENT_CERT))
		SSL_CTX_set_verify(e->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
				   any_certificate);
	if (e->v->with & EARLY)
		require_ossl(SSL_CTX_set_max_early_data(e->ctx, 1000));
	if (e->v->with & NO_TICKET)
		SSL_CTX_set_options(e->ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_options(e->ctx, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
}

static void make_client(struct end *e)
{
	if (e->v->with & (CLIENT_CERT | AFTERWARDS))
		use_certificate(e->ctx);
	if (e->v->with & WRONG_CERT)
		SSL_CTX_set_verify(e->ctx, SSL_VERIFY_PEER, NULL);
	if (e->v->with & OLD_MASTER)
		SSL_CTX_set_options(e->ctx, SSL_OP_NO_EXTENDED_MASTER_SECRET);
	SSL_CTX_set_post_handshake_auth(e->ctx, !!(e->v->with & AFTERWARDS));
	/* See groups_agree() of provider_features_test.c: one of OpenSSL's own besides. */
	require_ossl(SSL_CTX_set1_groups_list(e->ctx, e->v->version == TLS1_2_VERSION ?
					      "X25519:P-256:P-521" : "X25519:P-384"));
	SSL_CTX_set_session_cache_mode(e->ctx, SSL_SESS_CACHE_CLIENT |
					       SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(e->ctx, keep_session);
}

static void make_end(struct end *e, OSSL_LIB_CTX *libctx)
{
	e->ctx = SSL_CTX_new_ex(libctx, NULL, e->serves ? TLS_server_method() : TLS_client_method());
	require_ossl(SSL_CTX_set_min_proto_version(e->ctx, e->v->version));
	require_ossl(SSL_CTX_set_max_proto_version(e->ctx, e->v->version));
	if (e->v->version == TLS1_3_VERSION)
		require_ossl(SSL_CTX_set_ciphersuites(e->ctx, e->v->suite));
	else
		require_ossl(SSL_CTX_set_cipher_list(e->ctx, e->v->suite));
	if (e->serves)
		make_server(e);
	else
		make_client(e);
}

static void say(struct end *e)
{
	REQUIRE_EQ(SSL_write(e->ssl, "some bytes", 10), 10);
}

static void hear(struct end *e)
{
	char got[10];

	REQUIRE_EQ(SSL_read(e->ssl, got, sizeof(got)), sizeof(got));
}

/* The client first. */
static void talk(struct end *e)
{
	if (!e->serves)
		say(e);
	hear(e);
	if (e->serves)
		say(e);
}

static void shake_hands(struct end *e)
{
	uint8_t early[16];
	size_t n;

	if (e->serves && e->v->with & EARLY)
		while (SSL_read_early_data(e->ssl, early, sizeof(early), &n) ==
		       SSL_READ_EARLY_DATA_SUCCESS)
			;
	else if (!e->serves && e->v->with & EARLY && session)
		require_ossl(SSL_write_early_data(e->ssl, "early", 5, &n));
	require_ossl(SSL_do_handshake(e->ssl));
}

static void after_handshake(struct end *e)
{
	uint8_t exported[40];

	if (e->v->with & AFTERWARDS && e->serves) {
		SSL_set_verify(e->ssl, SSL_VERIFY_PEER, any_certificate);
		require_ossl(SSL_verify_client_post_handshake(e->ssl));
		require_ossl(SSL_do_handshake(e->ssl));
	}
	if (e->v->with & EXPORT)
		require_ossl(SSL_export_keying_material(e->ssl, exported, sizeof(exported),
							"EXPORTER-test", 13, NULL, 0, 0));
	if (e->v->with & RENEGOTIATE && !e->serves) {
		require_ossl(SSL_renegotiate(e->ssl));
		require_ossl(SSL_do_handshake(e->ssl));
	}
	if (e->v->version == TLS1_3_VERSION)
		require_ossl(SSL_key_update(e->ssl, SSL_KEY_UPDATE_REQUESTED));
	talk(e);
	talk(e);
}

typedef void (*pause_fn)(struct end *e, const char *stage);

/* As both ends go through it; in "pause" the one looks at the other. */
static void go_through(struct end *e, pause_fn pause)
{
	int round;

	for (round = 0; round < 2; round++) {
		e->ssl = SSL_new(e->ctx);
		SSL_set_fd(e->ssl, e->fd);
		if (e->serves)
			SSL_set_accept_state(e->ssl);
		else
			SSL_set_connect_state(e->ssl);
		SSL_set_session(e->ssl, session);
		if (e->v->with & NO_DHE) {
			SSL_set_options(e->ssl, SSL_OP_ALLOW_NO_DHE_KEX);
			require_ossl(SSL_set1_groups_list(e->ssl, e->serves && round ? "P-384" : "X25519"));
		}
		if (e->v->with & FAILS) {
			/* With TLS 1.3 the client may not know yet. */
			if (SSL_do_handshake(e->ssl) > 0)
				REQUIRE(!e->serves && SSL_read(e->ssl, &(char){ 0 }, 1) <= 0);
			pause(e, "failed");
		} else {
			shake_hands(e);
			talk(e);
			REQUIRE_EQ(SSL_session_reused(e->ssl), round);
			after_handshake(e);
			if (e->v->version == TLS1_2_VERSION && !e->serves && !round)
				keep_session(e->ssl, SSL_get1_session(e->ssl));
			pause(e, round ? "resumed, live" : "live");
			SSL_shutdown(e->ssl);
		}
		SSL_free(e->ssl);
		pause(e, round ? "closed again" : "closed");
		if (e->v->with & FAILS)
			return;
		/* What the other said at its end. */
		while (recv(e->fd, (char[4096]){ 0 }, 4096, MSG_DONTWAIT) > 0)
			;
		pause(e, NULL);
	}
}

/* ---- the end that is looked at */

static void be_looked_at(struct end *e, const char *stage)
{
	char byte = 'p';

	(void)e;
	(void)stage;
	if (write(CONTROL_FD, &byte, 1) != 1 || read(CONTROL_FD, &byte, 1) != 1)
		_exit(9);
}

static int run_other(char **argv)
{
	struct end e = { .v = &variants[atoi(argv[3])], .serves = !strcmp(argv[2], "serves"),
			 .fd = TLS_FD };

	is_looked_at = true;
	memcpy(key_file, argv[4], sizeof(key_file));
	alarm(SECONDS);
	make_end(&e, make_libctx(!strcmp(argv[1], "epk")));
	go_through(&e, be_looked_at);
	return 0;
}

/* ---- the attacker */

static struct {
	pid_t pid;
	int control;
	bool ours;
	size_t ever;
} at;

static void start_other(struct end *e, bool ours)
{
	int tls[2], control[2];
	char number[8];

	snprintf(number, sizeof(number), "%zu", (size_t)(e->v - variants));
	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, tls), 0);
	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control), 0);
	at.pid = fork();
	REQUIRE(at.pid >= 0);
	if (!at.pid) {
		dup2(tls[1], TLS_FD);
		dup2(control[1], CONTROL_FD);
		setenv("EPK_BACKEND", "mprotect", 1);
		execl("/proc/self/exe", "provider_variants_test", ours ? "epk" : "stock",
		      e->serves ? "connects" : "serves", number, key_file, NULL);
		_exit(127);
	}
	close(tls[1]);
	close(control[1]);
	at.control = control[0];
	at.ours = ours;
	at.ever = 0;
	e->fd = tls[0];
}

static void print_found(const struct end *e, const char *stage)
{
	size_t i;

	for (i = 0; i < nr_needles; i++)
		if (needles[i].found && !needles[i].allowed)
			printf("%s, %s, %s: %s\n", e->v->name, e->serves ? "client" : "server", stage,
			       needles[i].name);
}

static void look(struct end *e, const char *stage)
{
	static struct image image;
	size_t i;
	char byte;

	REQUIRE_EQ(read(at.control, &byte, 1), 1);
	if (stage) {
		REQUIRE(take_image(&image, at.pid, NULL, 0));
		scan_image(&image);
		drop_image(&image);
		for (i = 0; i < nr_needles; i++)
			at.ever += needles[i].found && !needles[i].allowed;
		if (at.ours)
			print_found(e, stage);
	}
	REQUIRE_EQ(write(at.control, &byte, 1), 1);
}

static void try_variant(const struct variant *v, bool other_serves, bool ours)
{
	struct end e = { .v = v, .serves = !other_serves };
	int status;

	printf("%s: %s, %s\n", ours ? "epk" : "stock", v->name, other_serves ? "server" : "client");
	fflush(stdout);
	nr_needles = 0;
	start_other(&e, ours);
	make_end(&e, plain);
	go_through(&e, look);
	SSL_CTX_free(e.ctx);
	drop_session();
	ERR_clear_error();
	REQUIRE_EQ(waitpid(at.pid, &status, 0), at.pid);
	REQUIRE_EQ(status, 0);
	close(at.control);
	close(e.fd);
	REQUIRE(nr_needles > 0);
	if (ours)
		REQUIRE_EQ(at.ever, 0);
	else
		REQUIRE(at.ever > 0);
}

static void try_all(bool ours)
{
	size_t i;

	alarm(4 * SECONDS);
	for (i = 0; i < NR_VARIANTS; i++) {
		try_variant(&variants[i], true, ours);
		if (!(variants[i].with & STATIC_RSA))
			try_variant(&variants[i], false, ours);
	}
	alarm(0);
}

static void stock_ends_have_secrets(void **state)
{
	(void)state;
	try_all(false);
}

static void no_end_has_a_secret_outside(void **state)
{
	(void)state;
	try_all(true);
}

static int setup(void **state)
{
	EVP_PKEY *key;
	X509 *cert = X509_new();
	FILE *f;

	(void)state;
	plain = make_libctx(0);
	key = EVP_PKEY_Q_keygen(plain, NULL, "RSA", (size_t)2048);
	X509_set_version(cert, X509_VERSION_3);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
	X509_set_pubkey(cert, key);
	require_ossl(X509_sign(cert, key, EVP_sha256()));
	f = fdopen(mkstemp(key_file), "w");
	REQUIRE(f);
	require_ossl(PEM_write_X509(f, cert));
	require_ossl(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
	fclose(f);
	X509_free(cert);
	EVP_PKEY_free(key);
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(key_file);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stock_ends_have_secrets),
		cmocka_unit_test(no_end_has_a_secret_outside),
	};

	if (argc == 5)
		return run_other(argv);
	return cmocka_run_group_tests_name("provider_variants", tests, setup, teardown);
}
