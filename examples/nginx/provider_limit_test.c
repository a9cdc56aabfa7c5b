// SPDX-License-Identifier: MIT
/*
 * What a hostile peer makes of domains: at the limit of them a connection goes on, whatever keys
 * it changes; and a server that has two clients agree with each other has them share none.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>

#include <openssl/ssl.h>

#include "provider_carry.h"
#include "provider_certificate.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

static bool no_more;

int alloc_domains(int nr, int *domains)
{
	static __typeof__(&alloc_domains) real;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "alloc_domains");
	return no_more ? -ENOMEM : real(nr, domains);
}

static SSL *make_end(SSL_CTX *ctx, bool serves)
{
	SSL *ssl = SSL_new(ctx);

	REQUIRE(ssl);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	if (serves)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	return ssl;
}

/* ---- the limit */

struct link {
	SSL *server, *client;
	int here, there;
};

static void step(struct link *l)
{
	l->there = SSL_do_handshake(l->client);
	carry(l->client, l->server);
	l->here = SSL_do_handshake(l->server);
	carry(l->server, l->client);
}

static void pass(SSL *from, SSL *to)
{
	char got[8];

	REQUIRE_EQ(SSL_write(from, "a word", 7), 7);
	carry(from, to);
	require_ossl(SSL_read(to, got, sizeof(got)));
	REQUIRE_STR_EQ(got, "a word");
	carry(to, from);
}

static SSL_CTX *make_server(void)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(with_epk, NULL, TLS_server_method());

	use_certificate(ctx);
	/* Which take a domain, for a while. */
	SSL_CTX_set_num_tickets(ctx, 0);
	return ctx;
}

#define SPARE	64

/* All that waited. */
static unsigned int use_up(EVP_CIPHER_CTX *spare[SPARE])
{
	EVP_CIPHER *cipher = fetch(with_epk, "AES-128-GCM");
	static const uint8_t key[16] = { 1 };
	unsigned int nr;

	no_more = true;
	for (nr = 0; nr < SPARE; nr++) {
		spare[nr] = EVP_CIPHER_CTX_new();
		if (EVP_EncryptInit_ex(spare[nr], cipher, NULL, key, key) <= 0)
			break;
	}
	REQUIRE(nr < SPARE);
	EVP_CIPHER_CTX_free(spare[nr]);
	ERR_clear_error();
	EVP_CIPHER_free(cipher);
	return nr;
}

static void connections_go_on_at_the_limit(void **state)
{
	SSL_CTX *server = make_server(), *client = SSL_CTX_new_ex(plain, NULL, TLS_client_method());
	struct link l[2], late = { .server = make_end(server, true) };
	EVP_CIPHER_CTX *spare[SPARE];
	unsigned int i, nr;

	(void)state;
	late.client = make_end(client, false);
	for (i = 0; i < 2; i++)
		l[i] = (struct link){ make_end(server, true), make_end(client, false), 0, 0 };
	for (i = 0; i < 3; i++)
		step(&l[0]);
	/* The other one is between ServerHello and Finished. */
	step(&l[1]);
	REQUIRE(l[0].here == 1 && l[1].here != 1);
	nr = use_up(spare);
	for (i = 0; i < 3; i++) {
		require_ossl(SSL_key_update(l[0].client, SSL_KEY_UPDATE_REQUESTED));
		pass(l[0].client, l[0].server);
		pass(l[0].server, l[0].client);
	}
	step(&l[1]);
	step(&l[1]);
	REQUIRE(l[1].here == 1 && l[1].there == 1);
	pass(l[1].client, l[1].server);
	pass(l[1].server, l[1].client);
	/* A new one does not begin. */
	step(&late);
	REQUIRE_EQ(SSL_get_error(late.server, late.here), SSL_ERROR_SSL);
	ERR_clear_error();
	no_more = false;
	while (nr)
		EVP_CIPHER_CTX_free(spare[--nr]);
	for (i = 0; i < 2; i++) {
		SSL_free(l[i].server);
		SSL_free(l[i].client);
	}
	SSL_free(late.server);
	SSL_free(late.client);
	SSL_CTX_free(server);
	SSL_CTX_free(client);
	REQUIRE_EQ(keyed_domains(), 0);
}

/* ---- key updates of one, which fill no table that others need */

#define OTHERS	8
#define UPDATES	40000

static void update(struct link *l)
{
	char got;

	require_ossl(SSL_key_update(l->client, SSL_KEY_UPDATE_NOT_REQUESTED));
	require_ossl(SSL_do_handshake(l->client));
	carry(l->client, l->server);
	REQUIRE_EQ(SSL_get_error(l->server, SSL_read(l->server, &got, 1)), SSL_ERROR_WANT_READ);
}

static void updates_of_one_take_nothing_from_others(void **state)
{
	SSL_CTX *server = make_server(), *client = SSL_CTX_new_ex(plain, NULL, TLS_client_method());
	struct link l[1 + OTHERS];
	unsigned int i, round;

	(void)state;
	for (i = 0; i < 1 + OTHERS; i++) {
		l[i] = (struct link){ make_end(server, true), make_end(client, false), 0, 0 };
		for (round = 0; round < (i ? 1 : 3); round++)
			step(&l[i]);
	}
	for (i = 0; i < UPDATES; i++)
		update(&l[0]);
	for (i = 1; i < 1 + OTHERS; i++) {
		step(&l[i]);
		step(&l[i]);
		REQUIRE(l[i].here == 1 && l[i].there == 1);
	}
	REQUIRE_EQ(keyed_domains(), 1 + OTHERS);
	for (i = 0; i < 1 + OTHERS; i++) {
		SSL_free(l[i].server);
		SSL_free(l[i].client);
	}
	SSL_CTX_free(server);
	SSL_CTX_free(client);
}

/* ---- the server that has two clients agree with each other */

#define SHARE_LEN	32
#define X25519		0x1d

struct hello {
	uint8_t session[32], share[SHARE_LEN];
};

static unsigned int word(const uint8_t *bytes)
{
	return bytes[0] << 8 | bytes[1];
}

static void read_hello(SSL *client, struct hello *h)
{
	/* After the headers of record and message, the version and the random bytes. */
	long len, at = 5 + 4 + 2 + 32;
	uint8_t *b;
	bool found = false;

	len = BIO_get_mem_data(SSL_get_wbio(client), (char **)&b);
	REQUIRE(len > at + 33 && b[at] == 32);
	memcpy(h->session, b + at + 1, 32);
	at += 33;
	at += 2 + word(b + at);
	at += 1 + b[at];
	for (at += 2; at + 4 < len; at += 4 + word(b + at + 2)) {
		if (word(b + at) != 0x33)
			continue;
		REQUIRE_EQ(word(b + at + 6), X25519);
		memcpy(h->share, b + at + 10, SHARE_LEN);
		found = true;
	}
	REQUIRE(found);
}

static uint8_t *put(uint8_t *to, const void *bytes, size_t len)
{
	return (uint8_t *)memcpy(to, bytes, len) + len;
}

static void answer(SSL *client, const struct hello *h, const uint8_t share[SHARE_LEN])
{
	static const uint8_t start[] = { 0x16, 3, 3, 0, 0, 2, 0, 0, 0, 3, 3 };
	static const uint8_t suite[] = { 0x13, 2, 0 };
	static const uint8_t extensions[] = { 0, 46, 0, 0x2b, 0, 2, 3, 4,
					      0, 0x33, 0, 36, 0, X25519, 0, SHARE_LEN };
	uint8_t m[160], *to = put(m, start, sizeof(start));

	to = put(to, h->session, 32);
	*to++ = 32;
	to = put(to, h->session, 32);
	to = put(to, suite, sizeof(suite));
	to = put(to, extensions, sizeof(extensions));
	to = put(to, share, SHARE_LEN);
	m[4] = to - m - 5;
	m[8] = to - m - 9;
	REQUIRE_EQ(BIO_write(SSL_get_rbio(client), m, to - m), to - m);
	REQUIRE_EQ(SSL_get_error(client, SSL_do_handshake(client)), SSL_ERROR_WANT_READ);
}

static void clients_of_one_secret_have_two_domains(void **state)
{
	static const uint8_t others[SHARE_LEN] = { 9 };
	SSL_CTX *ctx = SSL_CTX_new_ex(with_epk, NULL, TLS_client_method());
	struct hello h[2];
	SSL *client[2];
	int i, reflects;

	(void)state;
	require_ossl(SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION));
	require_ossl(SSL_CTX_set1_groups_list(ctx, "X25519"));
	for (reflects = 0; reflects < 2; reflects++) {
		for (i = 0; i < 2; i++) {
			client[i] = make_end(ctx, false);
			SSL_do_handshake(client[i]);
			read_hello(client[i], &h[i]);
		}
		for (i = 0; i < 2; i++) {
			answer(client[i], &h[i], reflects ? h[!i].share : others);
			/* Each has a key to read with. */
			REQUIRE_EQ(keyed_domains(), i + 1);
		}
		for (i = 0; i < 2; i++)
			SSL_free(client[i]);
		REQUIRE_EQ(keyed_domains(), 0);
	}
	SSL_CTX_free(ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connections_go_on_at_the_limit),
		cmocka_unit_test(updates_of_one_take_nothing_from_others),
		cmocka_unit_test(clients_of_one_secret_have_two_domains),
	};

	return cmocka_run_group_tests_name("provider_limit", tests, make_both, NULL);
}
