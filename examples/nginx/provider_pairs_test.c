// SPDX-License-Identifier: MIT
/*
 * The two record keys of a connection are in one domain, and in none with another connection's:
 * with keys of blocks that are asked for as libssl does, and in whole connections.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>

#include "provider_carry.h"
#include "provider_certificate.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

/* ---- what a thread does while it has a domain open */

static __thread unsigned int nr_open, nr_opened, nr_waits;

int epk_begin_write(int dom)
{
	static __typeof__(&epk_begin_write) real;
	int err;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "epk_begin_write");
	err = real(dom);
	nr_open += !err;
	nr_opened += !err;
	return err;
}

int (domain_end)(int dom)
{
	static __typeof__(&domain_end) real;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "domain_end");
	if (nr_open)
		nr_open--;
	return real(dom);
}

__attribute__((visibility("default"))) int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	static __typeof__(&pthread_mutex_lock) real;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "pthread_mutex_lock");
	nr_waits += !!nr_open;
	return real(mutex);
}

/* ---- by hand */

static const struct kind {
	const char *cipher, *digest;
	size_t key_len, block_len;
} kinds[] = {
	{ "AES-128-GCM", "SHA256", 16, 40 },
	{ "AES-256-GCM", "SHA384", 32, 72 },
	{ "ChaCha20-Poly1305", "SHA256", 32, 88 },
	{ "AES-128-CCM", "SHA256", 16, 40 },
	{ "ARIA-256-GCM", "SHA384", 32, 72 },
};

#define NR_KINDS	(sizeof(kinds) / sizeof(kinds[0]))

/* What stands for the two keys of a connection of this number. */
struct handles {
	const struct kind *kind;
	uint8_t block[88];
};

static bool get_handles(struct handles *h, const struct kind *kind, uint32_t connection)
{
	EVP_KDF *kdf = EVP_KDF_fetch(with_epk, "TLS1-PRF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	uint8_t master[48] = "is taken for a wrapped one, whatever it is", none = 0;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)kind->digest, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master, sizeof(master)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, "key expansion", 13),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, &connection,
						  sizeof(connection)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, &none, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, &none, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, &none, 0),
		OSSL_PARAM_construct_end(),
	};
	bool ok = EVP_KDF_derive(ctx, h->block, kind->block_len, params) > 0;

	h->kind = kind;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

static const uint8_t iv[IV_LEN] = { 2 };

/* As libssl does with TLS 1.3: something is set before there is a key. */
static bool set_key(EVP_CIPHER_CTX *ctx, const struct kind *kind, const uint8_t *key)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(with_epk, kind->cipher, NULL);
	bool ok = EVP_CipherInit_ex(ctx, cipher, NULL, NULL, NULL, 1) > 0 &&
		  EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, IV_LEN, NULL) > 0 &&
		  (!strstr(kind->cipher, "CCM") ||
		   EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, NULL) > 0) &&
		  EVP_CipherInit_ex(ctx, NULL, NULL, key, iv, -1) > 0;

	EVP_CIPHER_free(cipher);
	return ok;
}

/* With the one key of a connection or the other. */
static EVP_CIPHER_CTX *keyed(const struct handles *h, int which)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	require_ossl(set_key(ctx, h->kind, h->block + which * h->kind->key_len));
	return ctx;
}

/* Which key it has shows by what it seals. */
static bool seal(EVP_CIPHER_CTX *ctx, uint8_t sealed[16])
{
	uint8_t tag[TAG_LEN];
	int outl;

	memset(sealed, 0, 16);
	return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, -1) > 0 &&
	       EVP_CipherUpdate(ctx, sealed, &outl, sealed, 16) > 0 &&
	       EVP_CipherFinal_ex(ctx, tag, &outl) > 0 &&
	       EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag) > 0;
}

static void require_seals(EVP_CIPHER_CTX *ctx, const uint8_t expected[16])
{
	uint8_t sealed[16];

	require_ossl(seal(ctx, sealed));
	REQUIRE_MEM_EQ(sealed, expected, 16);
}

static uint32_t connection;

static void two_keys_of_a_block_have_one_domain(void **state)
{
	uint8_t sealed[2][16];
	EVP_CIPHER_CTX *ctx[2];
	struct handles h;
	size_t i;
	int first;

	(void)state;
	for (i = 0; i < NR_KINDS; i++) {
		for (first = 0; first < 2; first++) {
			require_ossl(get_handles(&h, &kinds[i], ++connection));
			ctx[first] = keyed(&h, first);
			require_ossl(seal(ctx[first], sealed[first]));
			ctx[!first] = keyed(&h, !first);
			require_ossl(seal(ctx[!first], sealed[!first]));
			REQUIRE_EQ(keyed_domains(), 1);
			REQUIRE_MEM_NE(sealed[0], sealed[1], 16);
			require_seals(ctx[first], sealed[first]);
			EVP_CIPHER_CTX_free(ctx[0]);
			REQUIRE_EQ(keyed_domains(), 1);
			require_seals(ctx[1], sealed[1]);
			EVP_CIPHER_CTX_free(ctx[1]);
			REQUIRE_EQ(keyed_domains(), 0);
		}
	}
}

static int count_halves(int dom, void *addr, size_t len, void *arg)
{
	unsigned int *nr = arg;
	size_t i, half;

	if (len != BOX_LEN)
		return 0;
	REQUIRE_EQ(domain_begin(dom, PROT_READ), 0);
	for (half = 0; half < len; half += HALF_LEN) {
		for (i = 0; i < HALF_LEN && !((uint8_t *)addr)[half + i]; i++)
			;
		*nr += i < HALF_LEN;
	}
	REQUIRE_EQ(domain_end(dom), 0);
	return 0;
}

static unsigned int keyed_halves(void)
{
	unsigned int nr = 0;

	REQUIRE_EQ(epk_for_each_mapping(count_halves, &nr), 0);
	return nr;
}

/* While the other is in use; and who comes with a third key of the connection gets it. */
static void half_is_wiped_and_used_again(void **state)
{
	struct handles h, again;
	EVP_CIPHER_CTX *ctx[3];
	uint8_t sealed[16];

	(void)state;
	require_ossl(get_handles(&h, &kinds[0], ++connection));
	require_ossl(get_handles(&again, &kinds[0], connection));
	ctx[0] = keyed(&h, 0);
	ctx[1] = keyed(&h, 1);
	REQUIRE_EQ(keyed_halves(), 2);
	require_ossl(seal(ctx[1], sealed));
	EVP_CIPHER_CTX_free(ctx[0]);
	REQUIRE_EQ(keyed_halves(), 1);
	ctx[0] = keyed(&again, 0);
	REQUIRE_EQ(keyed_domains(), 1);
	/* There is no place for this one. */
	ctx[2] = keyed(&again, 1);
	REQUIRE_EQ(keyed_domains(), 2);
	require_seals(ctx[1], sealed);
	require_seals(ctx[2], sealed);
	EVP_CIPHER_CTX_free(ctx[1]);
	EVP_CIPHER_CTX_free(ctx[0]);
	REQUIRE_EQ(keyed_domains(), 1);
	EVP_CIPHER_CTX_free(ctx[2]);
	REQUIRE_EQ(keyed_domains(), 0);
}

/* As OpenSSL does from 3.2 on: an old key goes when the new one is there. */
static void new_keys_come_before_old_ones_go(void **state)
{
	EVP_CIPHER_CTX *old[2], *new[2];
	struct handles h;
	int round;

	(void)state;
	require_ossl(get_handles(&h, &kinds[0], ++connection));
	old[0] = keyed(&h, 0);
	old[1] = keyed(&h, 1);
	for (round = 0; round < 3; round++) {
		REQUIRE_EQ(keyed_domains(), 1);
		require_ossl(get_handles(&h, &kinds[0], connection));
		new[0] = keyed(&h, 0);
		EVP_CIPHER_CTX_free(old[0]);
		REQUIRE_EQ(keyed_domains(), 2);
		new[1] = keyed(&h, 1);
		EVP_CIPHER_CTX_free(old[1]);
		memcpy(old, new, sizeof(old));
	}
	REQUIRE_EQ(keyed_domains(), 1);
	EVP_CIPHER_CTX_free(old[0]);
	EVP_CIPHER_CTX_free(old[1]);
	REQUIRE_EQ(keyed_domains(), 0);
}

/* Who waits is not there while others do what they like. */
static void nobody_waits_with_a_domain_open(void **state)
{
	EVP_CIPHER_CTX *ctx[2];
	uint8_t sealed[16];
	struct handles h;

	(void)state;
	nr_open = nr_opened = nr_waits = 0;
	require_ossl(get_handles(&h, &kinds[0], ++connection));
	ctx[0] = keyed(&h, 0);
	ctx[1] = keyed(&h, 1);
	require_ossl(seal(ctx[0], sealed));
	require_ossl(seal(ctx[1], sealed));
	EVP_CIPHER_CTX_free(ctx[0]);
	EVP_CIPHER_CTX_free(ctx[1]);
	/* The vault and the box for each key, the box for each record, and to wipe it. */
	REQUIRE(nr_opened >= 8);
	REQUIRE_EQ(nr_open, 0);
	/* There each begin and end takes the library's lock. */
	if (strcmp(epk_backend(), "mprotect"))
		REQUIRE_EQ(nr_waits, 0);
}

/* So that some are looked for at one place. */
#define MANY	512

static void no_two_connections_share_a_domain(void **state)
{
	EVP_CIPHER_CTX *ctx[MANY][2];
	struct handles h[MANY];
	int i, which;

	(void)state;
	for (i = 0; i < MANY; i++)
		require_ossl(get_handles(&h[i], &kinds[i % NR_KINDS], ++connection));
	for (which = 0; which < 2; which++)
		for (i = 0; i < MANY; i++)
			ctx[i][which] = keyed(&h[i], (which + i) % 2);
	REQUIRE_EQ(keyed_domains(), MANY);
	for (i = 0; i < MANY; i++) {
		EVP_CIPHER_CTX_free(ctx[i][0]);
		EVP_CIPHER_CTX_free(ctx[i][1]);
		REQUIRE_EQ(keyed_domains(), MANY - 1 - i);
	}
}

static void require_apart(EVP_CIPHER_CTX *one, EVP_CIPHER_CTX *other)
{
	REQUIRE_EQ(keyed_domains(), 2);
	EVP_CIPHER_CTX_free(one);
	REQUIRE_EQ(keyed_domains(), 1);
	EVP_CIPHER_CTX_free(other);
	REQUIRE_EQ(keyed_domains(), 0);
}

/* A key of anybody's, or of another connection, does not come to where a connection's is. */
static void context_with_another_key_leaves(void **state)
{
	static const uint8_t key[16] = { 1 };
	EVP_CIPHER_CTX *a, *b, *c;
	struct handles h, other;

	(void)state;
	require_ossl(get_handles(&h, &kinds[0], ++connection));
	a = keyed(&h, 0);
	b = keyed(&h, 1);
	require_ossl(EVP_CipherInit_ex(b, NULL, NULL, key, iv, -1));
	require_apart(a, b);

	require_ossl(get_handles(&h, &kinds[0], ++connection));
	require_ossl(get_handles(&other, &kinds[0], ++connection));
	a = keyed(&h, 0);
	b = keyed(&h, 1);
	c = keyed(&other, 0);
	require_ossl(EVP_CipherInit_ex(b, NULL, NULL, other.block + 16, iv, -1));
	/* It has had another key: not even with that connection's. */
	REQUIRE_EQ(keyed_domains(), 3);
	EVP_CIPHER_CTX_free(c);
	require_apart(a, b);

	/* Nor does who has had a key get to others. */
	require_ossl(get_handles(&h, &kinds[0], ++connection));
	a = keyed(&h, 0);
	b = EVP_CIPHER_CTX_new();
	require_ossl(set_key(b, &kinds[0], key));
	require_ossl(EVP_CipherInit_ex(b, NULL, NULL, h.block + 16, iv, -1));
	require_apart(a, b);

	/* Nor others to it. */
	require_ossl(get_handles(&h, &kinds[0], ++connection));
	a = EVP_CIPHER_CTX_new();
	require_ossl(set_key(a, &kinds[0], key));
	require_ossl(EVP_CipherInit_ex(a, NULL, NULL, h.block, iv, -1));
	b = keyed(&h, 1);
	require_apart(a, b);

	require_ossl(get_handles(&h, &kinds[0], ++connection));
	a = keyed(&h, 0);
	b = EVP_CIPHER_CTX_new();
	require_ossl(EVP_CIPHER_CTX_copy(b, a));
	require_apart(a, b);
}

/* What begins as a handle is somebody's key, and one that is used up is none. */
static void no_handle_opens_no_domain(void **state)
{
	EVP_CIPHER_CTX *a, *b = EVP_CIPHER_CTX_new(), *c;
	uint8_t sealed[2][16], forged[16];
	struct handles h;

	(void)state;
	require_ossl(get_handles(&h, &kinds[0], ++connection));
	memcpy(forged, h.block + 16, sizeof(forged));
	forged[15] ^= 1;
	a = keyed(&h, 0);
	require_ossl(set_key(b, &kinds[0], forged));
	REQUIRE_EQ(keyed_domains(), 2);
	c = keyed(&h, 1);
	REQUIRE_EQ(keyed_domains(), 2);
	require_ossl(seal(a, sealed[0]));
	require_ossl(seal(c, sealed[1]));
	EVP_CIPHER_CTX_free(c);
	require_apart(a, b);

	require_ossl(get_handles(&h, &kinds[0], ++connection));
	a = keyed(&h, 0);
	b = keyed(&h, 1);
	c = EVP_CIPHER_CTX_new();
	ERR_clear_error();
	REQUIRE(!set_key(c, &kinds[0], h.block));
	REQUIRE_EQ(ERR_GET_REASON(ERR_peek_error()), EPK_R_KEY_GONE);
	ERR_clear_error();
	EVP_CIPHER_CTX_free(c);
	REQUIRE_EQ(keyed_domains(), 1);
	EVP_CIPHER_CTX_free(a);
	EVP_CIPHER_CTX_free(b);
}

static bool frees_and_goes_on(EVP_CIPHER_CTX *ctx[2], const struct handles *h)
{
	uint8_t sealed[16];
	struct handles own;
	bool ok;

	ERR_clear_error();
	ok = !seal(ctx[0], sealed) && ERR_GET_REASON(ERR_peek_error()) == EPK_R_FORKED;
	ERR_clear_error();
	EVP_CIPHER_CTX_free(ctx[0]);
	/* Another of the same connection is with nobody's of before. */
	if (!get_handles(&own, h->kind, connection))
		return false;
	ctx[0] = keyed(&own, 0);
	ok &= seal(ctx[0], sealed) && keyed_domains() == 1;
	EVP_CIPHER_CTX_free(ctx[1]);
	ok &= seal(ctx[0], sealed);
	ctx[1] = keyed(&own, 1);
	ok &= seal(ctx[1], sealed) && keyed_domains() == 1;
	EVP_CIPHER_CTX_free(ctx[0]);
	EVP_CIPHER_CTX_free(ctx[1]);
	return ok && !keyed_domains() && !ERR_peek_error();
}

static void child_has_boxes_of_its_own(void **state)
{
	EVP_CIPHER_CTX *ctx[2];
	struct handles h;
	uint8_t sealed[16];
	int status, both;
	pid_t pid;

	(void)state;
	for (both = 0; both < 2; both++) {
		require_ossl(get_handles(&h, &kinds[0], ++connection));
		ctx[0] = keyed(&h, 0);
		ctx[1] = both ? keyed(&h, 1) : NULL;
		pid = fork();
		REQUIRE(pid >= 0);
		if (!pid)
			_exit(!frees_and_goes_on(ctx, &h));
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		REQUIRE_EQ(status, 0);
		if (!both)
			ctx[1] = keyed(&h, 1);
		REQUIRE_EQ(keyed_domains(), 1);
		require_ossl(seal(ctx[0], sealed));
		EVP_CIPHER_CTX_free(ctx[0]);
		EVP_CIPHER_CTX_free(ctx[1]);
	}
}

/* ---- threads: each direction of a connection in one of its own */

#define PAIRS	3
#define ROUNDS	3000

static struct pair {
	pthread_barrier_t barrier;
	struct handles h;
	bool right;
} pairs[PAIRS];

static bool one_round(struct pair *p, int which, uint32_t round)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t sealed[2][16];
	bool ok = true;
	int i;

	if (!which)
		ok = get_handles(&p->h, &kinds[round % NR_KINDS],
				 1u << 31 | (uint32_t)(p - pairs) << 24 | round);
	pthread_barrier_wait(&p->barrier);
	ok &= set_key(ctx, p->h.kind, p->h.block + which * p->h.kind->key_len) &&
	      seal(ctx, sealed[0]);
	for (i = 0; ok && i < 4; i++)
		ok = seal(ctx, sealed[1]) && !memcmp(sealed[0], sealed[1], 16);
	EVP_CIPHER_CTX_free(ctx);
	pthread_barrier_wait(&p->barrier);
	return ok;
}

static void *reads(void *arg)
{
	uint32_t round;

	for (round = 0; round < ROUNDS; round++)
		if (!one_round(arg, 1, round))
			((struct pair *)arg)->right = false;
	return NULL;
}

static void *writes(void *arg)
{
	pthread_t other;
	uint32_t round;

	if (pthread_create(&other, NULL, reads, arg))
		abort();
	for (round = 0; round < ROUNDS; round++)
		if (!one_round(arg, 0, round))
			((struct pair *)arg)->right = false;
	pthread_join(other, NULL);
	return NULL;
}

static void threads_have_a_half_each(void **state)
{
	pthread_t thread[PAIRS];
	int i;

	(void)state;
	for (i = 0; i < PAIRS; i++) {
		pthread_barrier_init(&pairs[i].barrier, NULL, 2);
		pairs[i].right = true;
		REQUIRE_EQ(pthread_create(&thread[i], NULL, writes, &pairs[i]), 0);
	}
	for (i = 0; i < PAIRS; i++) {
		pthread_join(thread[i], NULL);
		REQUIRE(pairs[i].right);
	}
	REQUIRE_EQ(keyed_domains(), 0);
}

/* ---- whole connections */

#define LINKS	8

struct link {
	SSL *server, *client;
	int here, there;
};

static SSL_CTX *server_ctx, *client_ctx;

static SSL *make_end(SSL_CTX *ctx, SSL_SESSION *session)
{
	SSL *ssl = SSL_new(ctx);

	REQUIRE(ssl);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	if (ctx == server_ctx)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	SSL_set_options(ssl, SSL_OP_ALLOW_NO_DHE_KEX);
	if (session)
		require_ossl(SSL_set_session(ssl, session));
	return ssl;
}

static void pass(SSL *from, SSL *to)
{
	char got[8];

	REQUIRE_EQ(SSL_write(from, "a word", 7), 7);
	carry(from, to);
	REQUIRE_EQ(SSL_read(to, got, sizeof(got)), 7);
	REQUIRE_STR_EQ(got, "a word");
	/* Tickets, and what a key update is answered with. */
	carry(to, from);
}

static void make_ctxs(OSSL_LIB_CTX *server, OSSL_LIB_CTX *client, int version)
{

	server_ctx = SSL_CTX_new_ex(server, NULL, TLS_server_method());
	client_ctx = SSL_CTX_new_ex(client, NULL, TLS_client_method());
	require_ossl(SSL_CTX_set_max_proto_version(server_ctx, version));
	use_certificate(server_ctx);
}

static void step(struct link *l)
{
	l->there = SSL_do_handshake(l->client);
	carry(l->client, l->server);
	l->here = SSL_do_handshake(l->server);
	carry(l->server, l->client);
}

/* All at a time, step by step, and never with more than this many domains each. */
static void connect_all(struct link *links, SSL_SESSION *session, unsigned int each)
{
	int i, round;

	for (i = 0; i < LINKS; i++) {
		links[i].server = make_end(server_ctx, NULL);
		links[i].client = make_end(client_ctx, session);
	}
	for (round = 0; round < 4; round++)
		for (i = 0; i < LINKS; i++) {
			step(&links[(i * 3 + round) % LINKS]);
			REQUIRE_IN(keyed_domains(), 0, each * LINKS);
		}
	for (i = 0; i < LINKS; i++) {
		REQUIRE(links[i].here == 1 && links[i].there == 1);
		pass(links[i].client, links[i].server);
		pass(links[i].server, links[i].client);
	}
}

static void update_keys(struct link *l)
{
	require_ossl(SSL_key_update(l->server, SSL_KEY_UPDATE_REQUESTED));
	pass(l->server, l->client);
	pass(l->client, l->server);
	require_ossl(SSL_key_update(l->client, SSL_KEY_UPDATE_NOT_REQUESTED));
	pass(l->client, l->server);
	pass(l->server, l->client);
}

/* If two were in one domain, that would not be empty with the first of them. */
static void close_one_by_one(struct link *links, unsigned int each)
{
	int i;

	for (i = 0; i < LINKS; i++) {
		REQUIRE_EQ(keyed_domains(), (LINKS - i) * each);
		/* Or the session would be resumed by nobody. */
		SSL_set_shutdown(links[i].server, SSL_SENT_SHUTDOWN);
		SSL_set_shutdown(links[i].client, SSL_SENT_SHUTDOWN);
		SSL_free(links[i].server);
		SSL_free(links[i].client);
	}
	REQUIRE_EQ(keyed_domains(), 0);
}

static SSL_SESSION *session_of(SSL *client)
{
	SSL_SESSION *session = SSL_get1_session(client);

	REQUIRE(session);
	return session;
}

static void drop_ctxs(void)
{
	SSL_CTX_free(server_ctx);
	SSL_CTX_free(client_ctx);
}

static void try_connections(int version, bool serves)
{
	struct link links[LINKS];
	SSL_SESSION *session;
	int i;

	make_ctxs(serves ? with_epk : plain, serves ? plain : with_epk, version);
	connect_all(links, NULL, 1);
	for (i = 0; i < LINKS && version == TLS1_3_VERSION; i++)
		update_keys(&links[i]);
	session = session_of(links[0].client);
	close_one_by_one(links, 1);
	/* All from one session. */
	connect_all(links, session, 1);
	for (i = 0; i < LINKS; i++)
		REQUIRE(SSL_session_reused(links[i].server));
	close_one_by_one(links, 1);
	SSL_SESSION_free(session);
	drop_ctxs();
}

static void connection_has_one_domain(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	int i, serves;

	(void)state;
	for (i = 0; i < 2; i++)
		for (serves = 0; serves < 2; serves++)
			try_connections(versions[i], serves);
}

/* Without a key exchange, all have the same secret to begin with. */
static void connections_of_one_psk_have_none_in_common(void **state)
{
	struct link links[LINKS];
	SSL_SESSION *session;
	int i;

	(void)state;
	make_ctxs(with_epk, plain, TLS1_3_VERSION);
	connect_all(links, NULL, 1);
	session = session_of(links[0].client);
	close_one_by_one(links, 1);
	require_ossl(SSL_CTX_set1_groups_list(server_ctx, "P-384"));
	require_ossl(SSL_CTX_set1_groups_list(client_ctx, "X25519"));
	connect_all(links, session, 2);
	for (i = 0; i < LINKS; i++)
		REQUIRE(SSL_session_reused(links[i].server));
	close_one_by_one(links, 2);
	SSL_SESSION_free(session);
	drop_ctxs();
}

/* A connection of the process with itself: both ends have the same keys, and two domains. */
static void both_ends_in_a_process(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct link links[LINKS];
	int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		make_ctxs(with_epk, with_epk, versions[i]);
		/* OpenSSL 3.0 asks for no curve of ours where a client has TLS 1.2 alone. */
		connect_all(links, NULL, 3);
		close_one_by_one(links, 2);
		drop_ctxs();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_keys_of_a_block_have_one_domain),
		cmocka_unit_test(half_is_wiped_and_used_again),
		cmocka_unit_test(new_keys_come_before_old_ones_go),
		cmocka_unit_test(nobody_waits_with_a_domain_open),
		cmocka_unit_test(no_two_connections_share_a_domain),
		cmocka_unit_test(context_with_another_key_leaves),
		cmocka_unit_test(no_handle_opens_no_domain),
		cmocka_unit_test(child_has_boxes_of_its_own),
		cmocka_unit_test(threads_have_a_half_each),
		cmocka_unit_test(connection_has_one_domain),
		cmocka_unit_test(connections_of_one_psk_have_none_in_common),
		cmocka_unit_test(both_ends_in_a_process),
	};

	return cmocka_run_group_tests_name("provider_pairs", tests, make_both, NULL);
}
