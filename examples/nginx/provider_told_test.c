// SPDX-License-Identifier: MIT
/*
 * What libssl tells a program of a session with wrapped secrets is of no use: key logs, sessions in
 * each form, messages that a callback sees, the private key of the exchange.
 *
 * The other end has OpenSSL's own provider, and tells what the secrets are.
 */
#define _GNU_SOURCE
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "provider_certificate.h"
#include "provider_link.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

#define SECRETS_MAX	16
#define ENOUGH		16	/* bytes of one */

static struct secret {
	char label[64];
	uint8_t bytes[64];
	size_t len;
} secrets[SECRETS_MAX];

static size_t nr_secrets;

/* Of the end that is looked at. */
static SSL *watched;
static unsigned int nr_logged;

static struct {
	uint8_t bytes[1 << 17];
	size_t len;
} told;

static void tell(const void *bytes, size_t len)
{
	REQUIRE(len <= sizeof(told.bytes) - told.len);
	memcpy(told.bytes + told.len, bytes, len);
	told.len += len;
}

static void add_secret(const char *label, const uint8_t *bytes, size_t len)
{
	struct secret *s = &secrets[nr_secrets++];

	REQUIRE(nr_secrets <= SECRETS_MAX && len >= ENOUGH && len <= sizeof(s->bytes));
	snprintf(s->label, sizeof(s->label), "%s", label);
	memcpy(s->bytes, bytes, len);
	s->len = len;
}

/* A label, the client's random bytes, and the secret. */
static void log_line(const SSL *ssl, const char *line)
{
	const char *hex = strrchr(line, ' ') + 1;
	char label[64];
	uint8_t *bytes;
	long len;

	if (ssl == watched) {
		tell(line, strlen(line));
		nr_logged++;
		return;
	}
	snprintf(label, sizeof(label), "%.*s", (int)strcspn(line, " "), line);
	bytes = OPENSSL_hexstr2buf(hex, &len);
	require_ossl(bytes != NULL);
	add_secret(label, bytes, len);
	OPENSSL_free(bytes);
}

static void see_message(int writes, int version, int type, const void *bytes, size_t len, SSL *ssl,
			void *arg)
{
	(void)writes, (void)version, (void)type, (void)ssl, (void)arg;
	tell(bytes, len);
}

static void tell_session(const SSL_SESSION *session)
{
	uint8_t der[8192], *end = der, key[64];
	BIO *text = BIO_new(BIO_s_mem());
	char *at;
	long len;

	tell(key, SSL_SESSION_get_master_key(session, key, sizeof(key)));
	REQUIRE_IN(i2d_SSL_SESSION((SSL_SESSION *)session, NULL), 1, (int)sizeof(der));
	i2d_SSL_SESSION((SSL_SESSION *)session, &end);
	tell(der, end - der);
	require_ossl(SSL_SESSION_print(text, session));
	require_ossl(PEM_write_bio_SSL_SESSION(text, (SSL_SESSION *)session));
	len = BIO_get_mem_data(text, &at);
	tell(at, len);
	BIO_free(text);
}

static int see_session(SSL *ssl, SSL_SESSION *session)
{
	uint8_t key[64];
	size_t len;

	if (ssl == watched) {
		tell_session(session);
	} else if (SSL_version(ssl) == TLS1_3_VERSION) {
		len = SSL_SESSION_get_master_key(session, key, sizeof(key));
		add_secret("PSK", key, len);
	}
	return 0;
}

static bool is_told(const struct secret *s)
{
	char lower[2 * ENOUGH + 1], upper[2 * ENOUGH + 1];
	int i;

	for (i = 0; i < ENOUGH; i++) {
		sprintf(lower + 2 * i, "%02x", s->bytes[i]);
		sprintf(upper + 2 * i, "%02X", s->bytes[i]);
	}
	return memmem(told.bytes, told.len, s->bytes, ENOUGH) ||
	       memmem(told.bytes, told.len, lower, 2 * ENOUGH) ||
	       memmem(told.bytes, told.len, upper, 2 * ENOUGH);
}

/* Is what is told of the private key that of this public one? */
static bool private_key_is_told(void)
{
	uint8_t scalar[32], *public[2];
	EVP_PKEY *pkey = NULL, *made;
	size_t len = sizeof(scalar);
	bool same;

	/* TLS 1.2 has it no longer. */
	if (!SSL_get_tmp_key(watched, &pkey))
		return false;
	if (EVP_PKEY_get_raw_private_key(pkey, scalar, &len) <= 0) {
		EVP_PKEY_free(pkey);
		ERR_clear_error();
		return false;
	}
	made = EVP_PKEY_new_raw_private_key_ex(plain, "X25519", NULL, scalar, len);
	REQUIRE_EQ(EVP_PKEY_get1_encoded_public_key(pkey, &public[0]), 32);
	REQUIRE_EQ(EVP_PKEY_get1_encoded_public_key(made, &public[1]), 32);
	same = !memcmp(public[0], public[1], 32);
	OPENSSL_free(public[0]);
	OPENSSL_free(public[1]);
	EVP_PKEY_free(made);
	EVP_PKEY_free(pkey);
	return same;
}

static SSL_CTX *make_ctx(OSSL_LIB_CTX *libctx, int version, bool serves)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(libctx, NULL, serves ? TLS_server_method() :
							     TLS_client_method());

	require_ossl(ctx != NULL);
	require_ossl(SSL_CTX_set_min_proto_version(ctx, version));
	require_ossl(SSL_CTX_set_max_proto_version(ctx, version));
	SSL_CTX_set_keylog_callback(ctx, log_line);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_BOTH | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, see_session);
	if (serves) {
		use_certificate(ctx);
		require_ossl(SSL_CTX_set_num_tickets(ctx, 1));
	}
	return ctx;
}

static bool shake_hands(SSL *server, SSL *client)
{
	int c = 0, s = 0, rounds = 0;

	ERR_clear_error();
	while ((c != 1 || s != 1) && rounds++ < 10) {
		c = SSL_do_handshake(client);
		if (c != 1 && SSL_get_error(client, c) != SSL_ERROR_WANT_READ)
			return false;
		s = SSL_do_handshake(server);
		if (s != 1 && SSL_get_error(server, s) != SSL_ERROR_WANT_READ)
			return false;
	}
	return c == 1 && s == 1;
}

struct seen {
	size_t of, found;
	bool private_key;
};

/* The server is looked at, or the client, whose libctx is @libctx. */
static struct seen look_at(OSSL_LIB_CTX *libctx, int version, bool serves)
{
	SSL_CTX *server_ctx = make_ctx(serves ? libctx : plain, version, true);
	SSL_CTX *client_ctx = make_ctx(serves ? plain : libctx, version, false);
	SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
	struct seen seen = { 0 };
	char byte;
	size_t i;

	nr_secrets = nr_logged = told.len = 0;
	watched = serves ? server : client;
	SSL_set_msg_callback(watched, see_message);
	link_ends(server, client);
	REQUIRE(shake_hands(server, client));
	/* With it come tickets. */
	REQUIRE_EQ(SSL_write(server, "x", 1), 1);
	REQUIRE_EQ(SSL_read(client, &byte, 1), 1);
	tell_session(SSL_get_session(watched));
	/* One line for each secret of a log. */
	REQUIRE_EQ(nr_logged, version == TLS1_3_VERSION ? 5 : 1);
	for (i = 0; i < nr_secrets; i++)
		seen.found += is_told(&secrets[i]);
	seen.of = nr_secrets;
	seen.private_key = serves && private_key_is_told();
	SSL_free(server);
	SSL_free(client);
	SSL_CTX_free(server_ctx);
	SSL_CTX_free(client_ctx);
	ERR_clear_error();
	return seen;
}

static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

/* Or what follows would show nothing. */
static void stock_ends_tell_all(void **state)
{
	struct seen seen;
	int v, serves;

	(void)state;
	for (v = 0; v < 2; v++) {
		for (serves = 0; serves < 2; serves++) {
			seen = look_at(plain, versions[v], serves);
			REQUIRE_EQ(seen.of, v ? 6 : 1);
			REQUIRE_EQ(seen.found, seen.of);
			REQUIRE_EQ(seen.private_key, v && serves);
		}
	}
}

static void no_end_tells_a_secret(void **state)
{
	struct seen seen;
	int v, serves;

	(void)state;
	for (v = 0; v < 2; v++) {
		for (serves = 0; serves < 2; serves++) {
			seen = look_at(with_epk, versions[v], serves);
			REQUIRE_EQ(seen.of, v ? 6 : 1);
			REQUIRE_EQ(seen.found, 0);
			REQUIRE(!seen.private_key);
		}
	}
}

/* ---- a secret that a program brings, which is in ordinary memory as it is */

static int bring_secret(SSL *ssl, void *secret, int *len, STACK_OF(SSL_CIPHER) *ciphers,
			const SSL_CIPHER **cipher, void *arg)
{
	int i;

	(void)ssl, (void)arg;
	memset(secret, 0x42, 48);
	*len = 48;
	/* The server has looked at no certificate yet, by which it would choose. */
	for (i = 0; i < sk_SSL_CIPHER_num(ciphers); i++)
		if (!strcmp(SSL_CIPHER_get_name(sk_SSL_CIPHER_value(ciphers, i)),
			    "ECDHE-ECDSA-AES256-GCM-SHA384"))
			*cipher = sk_SSL_CIPHER_value(ciphers, i);
	return 1;
}

/* As EAP-FAST has it. */
static bool shakes_hands_with_it(OSSL_LIB_CTX *server_libctx, OSSL_LIB_CTX *client_libctx)
{
	SSL_CTX *server_ctx = make_ctx(server_libctx, TLS1_2_VERSION, true);
	SSL_CTX *client_ctx = make_ctx(client_libctx, TLS1_2_VERSION, false);
	SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
	bool ok;

	nr_secrets = told.len = 0;
	watched = server;
	link_ends(server, client);
	require_ossl(SSL_set_session_secret_cb(server, bring_secret, NULL));
	require_ossl(SSL_set_session_secret_cb(client, bring_secret, NULL));
	require_ossl(SSL_set_session_ticket_ext(client, "pac", 3));
	ok = shake_hands(server, client);
	/* Or it was a full handshake, without that secret. */
	REQUIRE(!ok || SSL_session_reused(server));
	SSL_free(server);
	SSL_free(client);
	SSL_CTX_free(server_ctx);
	SSL_CTX_free(client_ctx);
	ERR_clear_error();
	return ok;
}

static void secret_of_a_program_is_an_error(void **state)
{
	(void)state;
	REQUIRE(shakes_hands_with_it(plain, plain));
	REQUIRE(!shakes_hands_with_it(with_epk, plain));
	REQUIRE(!shakes_hands_with_it(plain, with_epk));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stock_ends_tell_all),
		cmocka_unit_test(no_end_tells_a_secret),
		cmocka_unit_test(secret_of_a_program_is_an_error),
	};

	return cmocka_run_group_tests_name("provider_told", tests, make_both, NULL);
}
