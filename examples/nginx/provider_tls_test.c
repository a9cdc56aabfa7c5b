// SPDX-License-Identifier: MIT
/*
 * Whole TLS connections in memory between the epk provider at one end and
 * OpenSSL's own at the other.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>

#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "provider_certificate.h"
#include "provider_test.h"

#define MESSAGE_MAX	70000

/* In place of the library's, which the provider calls. */
static unsigned int nr_begun;

int epk_begin_write(int dom)
{
	static int (*begin)(int dom);

	if (!begin)
		begin = (int (*)(int))dlsym(RTLD_NEXT, "epk_begin_write");
	nr_begun++;
	return begin(dom);
}

OSSL_LIB_CTX *with_epk, *plain;

struct suite {
	int version;
	const char *name;
	uint64_t options;
};

#define TLS12(name)	{ TLS1_2_VERSION, name, 0 }
#define TLS13(name)	{ TLS1_3_VERSION, name, 0 }
/* As it was: the MAC before the padding, which the cipher has to take off again. */
#define MAC_FIRST(name)	{ TLS1_2_VERSION, name, SSL_OP_NO_ENCRYPT_THEN_MAC }

static const struct suite suites[] = {
	TLS12("ECDHE-ECDSA-AES128-GCM-SHA256"),
	TLS12("ECDHE-ECDSA-AES256-GCM-SHA384"),
	TLS12("ECDHE-ECDSA-CHACHA20-POLY1305"),
	TLS12("ECDHE-ECDSA-AES128-CCM"),
	TLS12("ECDHE-ECDSA-AES256-CCM8"),
	TLS12("ECDHE-ECDSA-ARIA128-GCM-SHA256"),
	TLS12("ECDHE-ECDSA-ARIA256-GCM-SHA384"),
	TLS12("ECDHE-ECDSA-AES128-SHA"),
	TLS12("ECDHE-ECDSA-AES256-SHA"),
	TLS12("ECDHE-ECDSA-AES128-SHA256"),
	TLS12("ECDHE-ECDSA-AES256-SHA384"),
	TLS12("ECDHE-ECDSA-CAMELLIA128-SHA256"),
	TLS12("ECDHE-ECDSA-CAMELLIA256-SHA384"),
	MAC_FIRST("ECDHE-ECDSA-AES128-SHA"),
	MAC_FIRST("ECDHE-ECDSA-AES256-SHA"),
	MAC_FIRST("ECDHE-ECDSA-AES128-SHA256"),
	MAC_FIRST("ECDHE-ECDSA-AES256-SHA384"),
	MAC_FIRST("ECDHE-ECDSA-CAMELLIA128-SHA256"),
	MAC_FIRST("ECDHE-ECDSA-CAMELLIA256-SHA384"),
	TLS13("TLS_AES_128_GCM_SHA256"),
	TLS13("TLS_AES_256_GCM_SHA384"),
	TLS13("TLS_CHACHA20_POLY1305_SHA256"),
	TLS13("TLS_AES_128_CCM_SHA256"),
	TLS13("TLS_AES_128_CCM_8_SHA256"),
};

#define NR_SUITES	(sizeof(suites) / sizeof(suites[0]))

/* Of libssl's own list. */
static const SSL_CIPHER *cipher_of(const struct suite *suite)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(plain, NULL, TLS_method());
	const SSL_CIPHER *cipher;

	require_ossl(SSL_CTX_set_cipher_list(ctx, suite->name));
	cipher = sk_SSL_CIPHER_value(SSL_CTX_get_ciphers(ctx),
				     sk_SSL_CIPHER_num(SSL_CTX_get_ciphers(ctx)) - 1);
	SSL_CTX_free(ctx);
	return cipher;
}

struct link {
	SSL_CTX *server_ctx, *client_ctx;
	SSL *server, *client;
};

static SSL_CTX *make_ctx(OSSL_LIB_CTX *libctx, const struct suite *suite, int is_server)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(libctx, NULL, is_server ? TLS_server_method() :
						    TLS_client_method());

	require_ossl(ctx != NULL);
	SSL_CTX_set_options(ctx, suite->options);
	require_ossl(SSL_CTX_set_min_proto_version(ctx, suite->version));
	require_ossl(SSL_CTX_set_max_proto_version(ctx, suite->version));
	if (suite->version == TLS1_3_VERSION)
		require_ossl(SSL_CTX_set_ciphersuites(ctx, suite->name));
	else
		require_ossl(SSL_CTX_set_cipher_list(ctx, suite->name));
	if (!is_server)
		return ctx;
	use_certificate(ctx);
	return ctx;
}

static SSL *make_end(SSL_CTX *ctx)
{
	SSL *ssl = SSL_new(ctx);

	REQUIRE(ssl);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	return ssl;
}

/* Carries what @from has written to @to; flips one bit of byte @flip if >= 0. */
static size_t carry_flipped(SSL *from, SSL *to, int flip)
{
	char *bytes;
	long len = BIO_get_mem_data(SSL_get_wbio(from), &bytes);

	if (len <= 0)
		return 0;
	if (flip >= 0) {
		REQUIRE(flip < len);
		bytes[flip] ^= 4;
	}
	REQUIRE_EQ(BIO_write(SSL_get_rbio(to), bytes, len), len);
	BIO_reset(SSL_get_wbio(from));
	return len;
}

static size_t carry(SSL *from, SSL *to)
{
	return carry_flipped(from, to, -1);
}

/* 1: done, 0: not yet, -1: never, and the error says why. */
static int go_on(SSL *ssl)
{
	int ret = SSL_do_handshake(ssl);

	return ret == 1 ? 1 : SSL_get_error(ssl, ret) == SSL_ERROR_SSL ? -1 : 0;
}

static bool shake_hands(struct link *l, const struct suite *suite, OSSL_LIB_CTX *server,
			OSSL_LIB_CTX *client)
{
	int done_s = 0, done_c = 0, rounds = 0;

	l->server_ctx = make_ctx(server, suite, 1);
	l->client_ctx = make_ctx(client, suite, 0);
	l->server = make_end(l->server_ctx);
	l->client = make_end(l->client_ctx);
	SSL_set_accept_state(l->server);
	SSL_set_connect_state(l->client);
	while (done_c >= 0 && done_s >= 0 && (!done_s || !done_c) && rounds++ <= 10) {
		done_c = go_on(l->client);
		carry(l->client, l->server);
		if (done_c < 0)
			break;
		done_s = go_on(l->server);
		carry(l->server, l->client);
	}
	return done_c == 1 && done_s == 1;
}

static void connect_libctxs(struct link *l, const struct suite *suite, OSSL_LIB_CTX *server,
			    OSSL_LIB_CTX *client)
{
	char byte;

	require_ossl(shake_hands(l, suite, server, client));
	REQUIRE_STR_EQ(SSL_CIPHER_get_name(SSL_get_current_cipher(l->client)), suite->name);
	/* takes the session tickets */
	REQUIRE(SSL_read(l->client, &byte, 1) < 0);
	ERR_clear_error();
}

static void connect_ends(struct link *l, const struct suite *suite, int epk_serves)
{
	connect_libctxs(l, suite, epk_serves ? with_epk : plain, epk_serves ? plain : with_epk);
}

static void disconnect(struct link *l)
{
	SSL_free(l->server);
	SSL_free(l->client);
	SSL_CTX_free(l->server_ctx);
	SSL_CTX_free(l->client_ctx);
}

static void pass(SSL *from, SSL *to, const uint8_t *bytes, size_t len)
{
	static uint8_t got[MESSAGE_MAX];
	size_t n, at = 0;

	require_ossl(SSL_write_ex(from, bytes, len, &n));
	REQUIRE_EQ(n, len);
	carry(from, to);
	while (at < len) {
		require_ossl(SSL_read_ex(to, got + at, sizeof(got) - at, &n));
		at += n;
	}
	REQUIRE_EQ(at, len);
	REQUIRE_MEM_EQ(got, bytes, len);
}

static void pass_all_sizes(struct link *l)
{
	static const size_t sizes[] = { 1, 2, 15, 16, 17, 63, 64, 65, 1000, 4096, 16383, 16384,
					16385, 40000, MESSAGE_MAX };
	static uint8_t bytes[MESSAGE_MAX];
	size_t i;

	RAND_bytes(bytes, sizeof(bytes));
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		pass(l->client, l->server, bytes, sizes[i]);
		pass(l->server, l->client, bytes + 1, sizes[i] - 1 ? sizes[i] - 1 : 1);
	}
	for (i = 1; i < 300; i++)
		pass(l->server, l->client, bytes + i, i);
}

/* Of a connection: one, or with keys that libssl has in ordinary memory one for each direction. */
static unsigned int domains_of(const struct suite *suite)
{
	return suite->version == TLS1_3_VERSION || SSL_CIPHER_is_aead(cipher_of(suite)) ? 1 : 2;
}

static void records_pass_both_ways(void **state)
{
	struct link l;
	size_t i;
	int epk_serves;

	(void)state;
	for (i = 0; i < NR_SUITES; i++) {
		for (epk_serves = 0; epk_serves < 2; epk_serves++) {
			connect_ends(&l, &suites[i], epk_serves);
			/* at the end that has the provider */
			REQUIRE_EQ(keyed_domains(), domains_of(&suites[i]));
			pass_all_sizes(&l);
			REQUIRE_EQ(keyed_domains(), domains_of(&suites[i]));
			disconnect(&l);
			REQUIRE_EQ(keyed_domains(), 0);
			/* and the most at a time: a ticket's, and that of key exchanges */
			REQUIRE_IN(live_contexts(), 1, 3);
		}
	}
}

/* Their MAC keys would be in ordinary memory, and nobody has said that they may. */
static void cbc_suites_are_refused_by_default(void **state)
{
	const char *data = "";
	struct link l;
	size_t i;
	int serves;

	(void)state;
	OSSL_PROVIDER_do_all(with_epk, allow_cbc, &(bool){ false });
	for (i = 0; i < NR_SUITES; i++) {
		for (serves = 0; serves < 2; serves++) {
			if (suites[i].version != TLS1_2_VERSION ||
			    SSL_CIPHER_is_aead(cipher_of(&suites[i]))) {
				connect_ends(&l, &suites[i], serves);
			} else {
				REQUIRE(!shake_hands(&l, &suites[i], serves ? with_epk : plain,
						     serves ? plain : with_epk));
				REQUIRE_EQ(ERR_GET_REASON(ERR_peek_error_data(&data, NULL)),
					   EPK_R_REFUSED);
				REQUIRE(strstr(data, "-CBC"));
				REQUIRE(strstr(data, "\"allow = CBC\""));
				ERR_clear_error();
			}
			disconnect(&l);
		}
	}
	OSSL_PROVIDER_do_all(with_epk, allow_cbc, &(bool){ true });
}

static void use_and_disconnect(const struct suite *suite, int times)
{
	static const uint8_t bytes[1000] = { 1 };
	struct link l;

	while (times--) {
		connect_ends(&l, suite, times % 2);
		pass(l.client, l.server, bytes, sizeof(bytes));
		pass(l.server, l.client, bytes, sizeof(bytes));
		disconnect(&l);
	}
}

/* What libssl calls six times a record, or three, opens the domain once. */
static void record_opens_its_domain_once(void **state)
{
	static const uint8_t bytes[1000] = { 1 };
	unsigned int before;
	struct link l;
	size_t i;
	int n;

	(void)state;
	for (i = 0; i < NR_SUITES; i++) {
		connect_ends(&l, &suites[i], 1);
		pass(l.client, l.server, bytes, sizeof(bytes));
		pass(l.server, l.client, bytes, sizeof(bytes));
		before = nr_begun;
		for (n = 0; n < 10; n++)
			pass(l.client, l.server, bytes, sizeof(bytes));
		for (n = 0; n < 10; n++)
			pass(l.server, l.client, bytes, sizeof(bytes));
		print_message("%s%s: %.1f\n", suites[i].name, suites[i].options ? ", MAC first" : "",
			      (nr_begun - before) / 20.0);
		if (strstr(suites[i].name, "GCM") || strstr(suites[i].name, "CHACHA"))
			REQUIRE_EQ(nr_begun - before, 20);
		disconnect(&l);
	}
}

static size_t left_by(const struct suite *suite)
{
	size_t before = mallinfo2().uordblks, after;

	use_and_disconnect(suite, 100);
	after = mallinfo2().uordblks;
	return after > before ? after - before : 0;
}

/* The ciphers' own copies of the last MACs go with them. */
static void connections_leave_no_memory(void **state)
{
	size_t i, left;
	int tries;

	(void)state;
	/* OpenSSL fills what it keeps for itself, now and then later, too; each time only who loses some. */
	for (i = 0; i < NR_SUITES; i++)
		use_and_disconnect(&suites[i], 120);
	for (i = 0; i < NR_SUITES; i++) {
		use_and_disconnect(&suites[i], 20);
		left = left_by(&suites[i]);
		for (tries = 1; left > 100 * 24 && tries < 3; tries++)
			left = left_by(&suites[i]);
		REQUIRE_IN(left, 0, 100 * 24);
	}
}

static void key_update_keeps_the_link(void **state)
{
	static const uint8_t bytes[1000] = { 42 };
	struct link l;
	size_t i;

	(void)state;
	for (i = 0; i < NR_SUITES; i++) {
		if (suites[i].version != TLS1_3_VERSION)
			continue;
		connect_ends(&l, &suites[i], 1);
		pass(l.client, l.server, bytes, sizeof(bytes));
		require_ossl(SSL_key_update(l.server, SSL_KEY_UPDATE_REQUESTED));
		pass(l.server, l.client, bytes, sizeof(bytes));
		pass(l.client, l.server, bytes, sizeof(bytes));
		pass(l.server, l.client, bytes, sizeof(bytes));
		disconnect(&l);
	}
}

/*
 * A flipped bit anywhere in a record: rejected, and the peer is told why.  Returns the
 * reason of the first error, by which nginx knows that it is none of its own.
 */
static int flip_once(const struct suite *suite, OSSL_LIB_CTX *ours, int serves, int flip)
{
	static const uint8_t bytes[100] = { 7 };
	uint8_t got[200];
	SSL *good, *bad;
	struct link l;
	size_t n;
	int first;

	connect_libctxs(&l, suite, serves ? ours : plain, serves ? plain : ours);
	good = serves ? l.client : l.server;
	bad = serves ? l.server : l.client;
	require_ossl(SSL_write_ex(good, bytes, sizeof(bytes), &n));
	carry_flipped(good, bad, flip);
	ERR_clear_error();
	REQUIRE_EQ(SSL_read_ex(bad, got, sizeof(got), &n), 0);
	REQUIRE_EQ(SSL_get_error(bad, 0), SSL_ERROR_SSL);
	first = ERR_GET_REASON(ERR_peek_error());
	REQUIRE_EQ(ERR_GET_REASON(ERR_peek_last_error()),
		   SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC);
	REQUIRE(carry(bad, good) > 0);
	ERR_clear_error();
	REQUIRE_EQ(SSL_read_ex(good, got, sizeof(got), &n), 0);
	REQUIRE_EQ(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
	disconnect(&l);
	return first;
}

static void flipped_record_is_rejected(void **state)
{
	/* first byte after the header, inside the payload, first of the tag */
	static const int flips[] = { 5, 50, 5 + 100 + 1 };
	size_t i, f;
	int serves;

	(void)state;
	for (i = 0; i < NR_SUITES; i++)
		for (f = 0; f < sizeof(flips) / sizeof(flips[0]); f++)
			for (serves = 0; serves < 2; serves++)
				REQUIRE_EQ(flip_once(&suites[i], with_epk, serves, flips[f]),
					   flip_once(&suites[i], plain, serves, flips[f]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_pass_both_ways),
		cmocka_unit_test(cbc_suites_are_refused_by_default),
		cmocka_unit_test(record_opens_its_domain_once),
		cmocka_unit_test(connections_leave_no_memory),
		cmocka_unit_test(key_update_keeps_the_link),
		cmocka_unit_test(flipped_record_is_rejected),
	};

	return cmocka_run_group_tests_name("provider_tls", tests, make_both, NULL);
}
