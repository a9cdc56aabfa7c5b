// SPDX-License-Identifier: MIT
/*
 * What TLS has besides full handshakes, with wrapped secrets at one end and OpenSSL's own
 * provider at the other.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "provider_certificate.h"
#include "provider_kept.h"
#include "provider_link.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

struct ends {
	SSL_CTX *server_ctx, *client_ctx;
	SSL *server, *client;
};

static SSL_CTX *make_ctx(OSSL_LIB_CTX *libctx, int version, bool serves)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(libctx, NULL, serves ? TLS_server_method() :
							     TLS_client_method());

	require_ossl(ctx != NULL);
	require_ossl(SSL_CTX_set_min_proto_version(ctx, version));
	require_ossl(SSL_CTX_set_max_proto_version(ctx, version));
	if (serves) {
		use_certificate(ctx);
		require_ossl(SSL_CTX_set_session_id_context(ctx, (const uint8_t *)"t", 1));
	} else {
		SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT |
						    SSL_SESS_CACHE_NO_INTERNAL_STORE);
		SSL_CTX_sess_set_new_cb(ctx, keep_session);
	}
	return ctx;
}

static void make_ctxs(struct ends *e, int version, bool epk_serves)
{
	memset(e, 0, sizeof(*e));
	e->server_ctx = make_ctx(epk_serves ? with_epk : plain, version, true);
	e->client_ctx = make_ctx(epk_serves ? plain : with_epk, version, false);
}

static void make_ends(struct ends *e)
{
	e->server = SSL_new(e->server_ctx);
	e->client = SSL_new(e->client_ctx);
	link_ends(e->server, e->client);
	SSL_set_session(e->client, session);
}

/* False if it fails, as one end says. */
static bool shake_hands(struct ends *e)
{
	int c = 0, s = 0, rounds = 0;

	ERR_clear_error();
	while ((c != 1 || s != 1) && rounds++ < 10) {
		c = SSL_do_handshake(e->client);
		if (c != 1 && SSL_get_error(e->client, c) != SSL_ERROR_WANT_READ)
			return false;
		s = SSL_do_handshake(e->server);
		if (s != 1 && SSL_get_error(e->server, s) != SSL_ERROR_WANT_READ)
			return false;
	}
	/* One that stays makes nginx drop the connection. */
	REQUIRE_EQ(ERR_peek_error(), 0);
	return c == 1 && s == 1;
}

static void pass(SSL *from, SSL *to)
{
	char bytes[] = "what is said", got[sizeof(bytes)];

	REQUIRE_EQ(SSL_write(from, bytes, sizeof(bytes)), sizeof(bytes));
	REQUIRE_EQ(SSL_read(to, got, sizeof(got)), sizeof(bytes));
	REQUIRE_MEM_EQ(got, bytes, sizeof(bytes));
}

static void join_ends(struct ends *e)
{
	make_ends(e);
	REQUIRE(shake_hands(e));
}

static void pass_both_ways(struct ends *e)
{
	pass(e->client, e->server);
	pass(e->server, e->client);
	REQUIRE_EQ(ERR_peek_error(), 0);
}

static void drop_ends(struct ends *e)
{
	if (!e->client)
		return;
	SSL_shutdown(e->client);
	SSL_shutdown(e->server);
	SSL_free(e->server);
	SSL_free(e->client);
	e->server = e->client = NULL;
}

static void drop_all(struct ends *e)
{
	drop_ends(e);
	SSL_CTX_free(e->server_ctx);
	SSL_CTX_free(e->client_ctx);
	drop_session();
	ERR_clear_error();
}

/* Each feature in both roles. */
#define FOR_BOTH(role)	for (role = 0; role < 2; role++)

static void sessions_resume(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct ends e;
	int i, role, ticket, round;

	(void)state;
	for (i = 0; i < 2; i++)
		for (ticket = 0; ticket < 2; ticket++)
			FOR_BOTH(role) {
				make_ctxs(&e, versions[i], role);
				if (!ticket)
					SSL_CTX_set_options(e.server_ctx, SSL_OP_NO_TICKET);
				for (round = 0; round < 3; round++) {
					join_ends(&e);
					pass_both_ways(&e);
					REQUIRE_EQ(SSL_session_reused(e.server), round > 0);
					REQUIRE_EQ(SSL_session_reused(e.client), round > 0);
					drop_ends(&e);
				}
				drop_all(&e);
			}
}

/* What an operator's job does with ssl_session_ticket_key now and then. */
static void ticket_keys_are_rotated(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	uint8_t keys[80];
	struct ends e;
	int i, role, round;

	(void)state;
	for (i = 0; i < 2; i++)
		FOR_BOTH(role) {
			make_ctxs(&e, versions[i], role);
			SSL_CTX_set_session_cache_mode(e.server_ctx, SSL_SESS_CACHE_OFF);
			for (round = 0; round < 6; round++) {
				memset(keys, 'a' + round / 2, sizeof(keys));
				require_ossl(SSL_CTX_set_tlsext_ticket_keys(e.server_ctx, keys,
									    sizeof(keys)));
				join_ends(&e);
				pass_both_ways(&e);
				REQUIRE_EQ(SSL_session_reused(e.server), round % 2);
				drop_ends(&e);
			}
			drop_all(&e);
		}
}

static void sessions_are_renegotiated(void **state)
{
	struct ends e;
	uint8_t byte;
	int role, round, turn;

	(void)state;
	FOR_BOTH(role) {
		make_ctxs(&e, TLS1_2_VERSION, role);
		SSL_CTX_set_options(e.server_ctx, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
		join_ends(&e);
		for (round = 1; round < 4; round++) {
			/* Full, and with the session. */
			require_ossl(round % 2 ? SSL_renegotiate(e.client) :
						SSL_renegotiate_abbreviated(e.client));
			SSL_do_handshake(e.client);
			for (turn = 0; turn < 6; turn++) {
				REQUIRE(SSL_read(e.server, &byte, 1) <= 0);
				REQUIRE(SSL_read(e.client, &byte, 1) <= 0);
			}
			ERR_clear_error();
			REQUIRE_EQ(SSL_num_renegotiations(e.client), round);
			REQUIRE(!SSL_renegotiate_pending(e.client));
			REQUIRE(SSL_is_init_finished(e.client) && SSL_is_init_finished(e.server));
			pass_both_ways(&e);
		}
		drop_all(&e);
	}
}

/* Peers that do not know the extended one (RFC 7627). */
static void older_master_secret_is_derived(void **state)
{
	struct ends e;
	int role, round;

	(void)state;
	FOR_BOTH(role) {
		make_ctxs(&e, TLS1_2_VERSION, role);
		SSL_CTX_set_options(e.client_ctx, SSL_OP_NO_EXTENDED_MASTER_SECRET);
		for (round = 0; round < 2; round++) {
			join_ends(&e);
			REQUIRE_EQ(SSL_session_reused(e.server), round);
			REQUIRE_EQ(SSL_get_extms_support(e.server), 0);
			pass_both_ways(&e);
			drop_ends(&e);
		}
		drop_all(&e);
	}
}

static void groups_agree(void **state)
{
	/*
	 * The certificate's is P-256.  A client of TLS 1.2 alone believes that it has no curve
	 * if OpenSSL's own provider has none in its list.
	 */
	static const char *const groups[] = {
		"X25519:P-256:P-521", "P-256:P-521", "P-384:P-256:P-521",
	};
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct ends e;
	size_t i;
	int role, v;

	(void)state;
	for (i = 0; i < 3; i++)
		for (v = 0; v < 2; v++)
			FOR_BOTH(role) {
				make_ctxs(&e, versions[v], role);
				require_ossl(SSL_CTX_set1_groups_list(e.client_ctx, groups[i]));
				join_ends(&e);
				pass_both_ways(&e);
				drop_all(&e);
			}
}

/* The client's guess is not the server's choice. */
static void hello_is_retried(void **state)
{
	struct ends e;
	int role;

	(void)state;
	FOR_BOTH(role) {
		make_ctxs(&e, TLS1_3_VERSION, role);
		require_ossl(SSL_CTX_set1_groups_list(e.client_ctx, "X25519:P-384"));
		require_ossl(SSL_CTX_set1_groups_list(e.server_ctx, "P-384"));
		join_ends(&e);
		pass_both_ways(&e);
		drop_all(&e);
	}
}

static void keys_are_updated(void **state)
{
	struct ends e;
	int role, i;

	(void)state;
	FOR_BOTH(role) {
		make_ctxs(&e, TLS1_3_VERSION, role);
		join_ends(&e);
		for (i = 0; i < 5; i++) {
			require_ossl(SSL_key_update(i % 2 ? e.server : e.client,
						    SSL_KEY_UPDATE_REQUESTED));
			pass_both_ways(&e);
			pass_both_ways(&e);
		}
		drop_all(&e);
	}
}

static int any_certificate(int ok, X509_STORE_CTX *store)
{
	(void)ok;
	(void)store;
	return 1;
}

static void clients_have_certificates(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	X509 *cert;
	struct ends e;
	int role, v;

	(void)state;
	for (v = 0; v < 2; v++)
		FOR_BOTH(role) {
			make_ctxs(&e, versions[v], role);
			use_certificate(e.client_ctx);
			SSL_CTX_set_verify(e.server_ctx, SSL_VERIFY_PEER |
					   SSL_VERIFY_FAIL_IF_NO_PEER_CERT, any_certificate);
			join_ends(&e);
			cert = SSL_get1_peer_certificate(e.server);
			REQUIRE(cert);
			X509_free(cert);
			pass_both_ways(&e);
			drop_all(&e);
		}
}

static void clients_authenticate_afterwards(void **state)
{
	struct ends e;
	X509 *cert;
	int role;

	(void)state;
	FOR_BOTH(role) {
		make_ctxs(&e, TLS1_3_VERSION, role);
		use_certificate(e.client_ctx);
		SSL_CTX_set_post_handshake_auth(e.client_ctx, 1);
		join_ends(&e);
		pass_both_ways(&e);
		SSL_set_verify(e.server, SSL_VERIFY_PEER, any_certificate);
		require_ossl(SSL_verify_client_post_handshake(e.server));
		SSL_do_handshake(e.server);
		pass_both_ways(&e);
		pass_both_ways(&e);
		cert = SSL_get1_peer_certificate(e.server);
		REQUIRE(cert);
		X509_free(cert);
		drop_all(&e);
	}
}

static void early_data_is_read(void **state)
{
	char got[16];
	struct ends e;
	size_t n;
	int role;

	(void)state;
	FOR_BOTH(role) {
		make_ctxs(&e, TLS1_3_VERSION, role);
		require_ossl(SSL_CTX_set_max_early_data(e.server_ctx, 1000));
		join_ends(&e);
		pass_both_ways(&e);
		drop_ends(&e);
		make_ends(&e);
		require_ossl(SSL_write_early_data(e.client, "early", 6, &n));
		REQUIRE_EQ(SSL_read_early_data(e.server, got, sizeof(got), &n),
			   SSL_READ_EARLY_DATA_SUCCESS);
		REQUIRE_STR_EQ(got, "early");
		SSL_do_handshake(e.client);
		REQUIRE_EQ(SSL_read_early_data(e.server, got, sizeof(got), &n),
			   SSL_READ_EARLY_DATA_FINISH);
		REQUIRE(shake_hands(&e));
		REQUIRE_EQ(SSL_get_early_data_status(e.server), SSL_EARLY_DATA_ACCEPTED);
		pass_both_ways(&e);
		drop_all(&e);
	}
}

/* What is exported is what the other end gets, and so no wrapped secret. */
static void exporters_agree(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	uint8_t here[200], there[200];
	struct ends e;
	int role, v, context;
	size_t len;

	(void)state;
	for (v = 0; v < 2; v++)
		FOR_BOTH(role) {
			make_ctxs(&e, versions[v], role);
			join_ends(&e);
			for (len = 12; len <= sizeof(here); len += 47)
				for (context = 0; context < 2; context++) {
					require_ossl(SSL_export_keying_material(e.server, here, len,
						"EXPORTER-test", 13, (const uint8_t *)"c", 1,
						context));
					require_ossl(SSL_export_keying_material(e.client, there,
										len,
						"EXPORTER-test", 13, (const uint8_t *)"c", 1,
						context));
					REQUIRE_MEM_EQ(here, there, len);
				}
			drop_all(&e);
		}
}

/* ---- threads */

#define NR_THREADS	24	/* more than the vault has slots to work in */

static void *shake_many_hands(void *arg)
{
	struct ends *shared = arg, e = *shared;
	int i;

	for (i = 0; i < 30; i++) {
		e.server = e.client = NULL;
		make_ends(&e);
		if (!shake_hands(&e))
			return NULL;
		pass_both_ways(&e);
		drop_ends(&e);
	}
	return arg;
}

static void threads_shake_hands(void **state)
{
	pthread_t threads[NR_THREADS];
	struct ends e;
	void *right;
	int i;

	(void)state;
	make_ctxs(&e, TLS1_3_VERSION, true);
	/* No session: there is one variable for it. */
	SSL_CTX_sess_set_new_cb(e.client_ctx, NULL);
	for (i = 0; i < NR_THREADS; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, shake_many_hands, &e), 0);
	for (i = 0; i < NR_THREADS; i++) {
		REQUIRE_EQ(pthread_join(threads[i], &right), 0);
		REQUIRE(right);
	}
	drop_all(&e);
}

/* ---- what is not wrapped */

static OSSL_LIB_CTX *libctx_with(const char *setting)
{
	OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();

	load_providers(libctx, setting);
	return libctx;
}

/* Does a full handshake work, with P-521, which is no group of ours? */
static bool takes_p521(const char *setting, int version)
{
	OSSL_LIB_CTX *libctx = libctx_with(setting);
	struct ends e = {
		.server_ctx = make_ctx(libctx, version, true),
		.client_ctx = make_ctx(plain, version, false),
	};
	bool works;

	require_ossl(SSL_CTX_set1_groups_list(e.client_ctx, "P-521:P-256"));
	require_ossl(SSL_CTX_set1_groups_list(e.server_ctx, "P-521:P-256"));
	make_ends(&e);
	works = shake_hands(&e);
	if (works)
		pass_both_ways(&e);
	else
		REQUIRE_EQ(ERR_GET_REASON(ERR_peek_error()), EPK_R_KEY_EXCHANGE);
	drop_all(&e);
	OSSL_LIB_CTX_free(libctx);
	return works;
}

static void others_groups_are_refused(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	int v;

	(void)state;
	for (v = 0; v < 2; v++) {
		REQUIRE(!takes_p521("", versions[v]));
		REQUIRE(!takes_p521("secrets = wrapped", versions[v]));
		REQUIRE(takes_p521("key_exchange = any", versions[v]));
		REQUIRE(takes_p521("secrets = keys", versions[v]));
	}
}

/* A job's stack is from the heap, and too small for all that is wiped. */
static void jobs_are_refused(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct ends e;
	int v, role;

	(void)state;
	for (v = 0; v < 2; v++)
		FOR_BOTH(role) {
			make_ctxs(&e, versions[v], role);
			SSL_CTX_set_mode(role ? e.server_ctx : e.client_ctx, SSL_MODE_ASYNC);
			make_ends(&e);
			REQUIRE(!shake_hands(&e));
			REQUIRE_EQ(ERR_GET_REASON(ERR_peek_error()), EPK_R_STACK);
			drop_all(&e);
		}
}

static size_t psk_len;

static int find_psk(SSL *ssl, const uint8_t *id, size_t id_len, SSL_SESSION **found)
{
	static const uint8_t psk[48] = { 1, 2, 3 }, aes_128_sha256[] = { 0x13, 0x01 };

	(void)id_len;
	*found = NULL;
	if (id && memcmp(id, "ours", 4))
		return 1;
	*found = SSL_SESSION_new();
	SSL_SESSION_set1_master_key(*found, psk, psk_len);
	SSL_SESSION_set_cipher(*found, SSL_CIPHER_find(ssl, aes_128_sha256));
	return SSL_SESSION_set_protocol_version(*found, TLS1_3_VERSION);
}

static int use_psk(SSL *ssl, const EVP_MD *md, const uint8_t **id, size_t *id_len,
		   SSL_SESSION **found)
{
	(void)md;
	*id = (const uint8_t *)"ours";
	*id_len = 4;
	return find_psk(ssl, *id, 4, found);
}

/* Of the hash's length, libssl's own look the same. */
static void external_psks_are_refused(void **state)
{
	static const size_t lengths[] = { 16, 32, 48 };
	struct ends e;
	size_t i;
	int role;

	(void)state;
	for (i = 0; i < 3; i++)
		FOR_BOTH(role) {
			make_ctxs(&e, TLS1_3_VERSION, role);
			require_ossl(SSL_CTX_set_ciphersuites(e.client_ctx,
							      "TLS_AES_128_GCM_SHA256"));
			psk_len = lengths[i];
			SSL_CTX_set_psk_find_session_callback(e.server_ctx, find_psk);
			SSL_CTX_set_psk_use_session_callback(e.client_ctx, use_psk);
			make_ends(&e);
			REQUIRE(!shake_hands(&e));
			REQUIRE_EQ(ERR_GET_REASON(ERR_peek_error()), EPK_R_EXTERNAL_PSK);
			drop_all(&e);
		}
}

static unsigned int give_psk(uint8_t *psk, unsigned int max)
{
	memset(psk, 'p', max < 32 ? max : 32);
	return max < 32 ? max : 32;
}

static unsigned int servers_psk(SSL *ssl, const char *id, uint8_t *psk, unsigned int max)
{
	(void)ssl, (void)id;
	return give_psk(psk, max);
}

static unsigned int clients_psk(SSL *ssl, const char *hint, char *id, unsigned int max_id,
				uint8_t *psk, unsigned int max)
{
	(void)ssl, (void)hint;
	snprintf(id, max_id, "ours");
	return give_psk(psk, max);
}

/* What is agreed on with TLS 1.2's is put together in ordinary memory. */
static void psk_suites_are_refused(void **state)
{
	static const char *const suites[] = {
		"PSK-AES128-GCM-SHA256", "DHE-PSK-AES128-GCM-SHA256",
		"ECDHE-PSK-CHACHA20-POLY1305",
	};
	struct ends e;
	size_t i;
	int role;

	(void)state;
	for (i = 0; i < 3; i++)
		FOR_BOTH(role) {
			make_ctxs(&e, TLS1_2_VERSION, role);
			require_ossl(SSL_CTX_set_cipher_list(e.server_ctx, suites[i]));
			require_ossl(SSL_CTX_set_cipher_list(e.client_ctx, suites[i]));
			require_ossl(SSL_CTX_set_dh_auto(e.server_ctx, 1));
			require_ossl(SSL_CTX_set1_groups_list(e.client_ctx, "X25519:P-521"));
			SSL_CTX_set_psk_server_callback(e.server_ctx, servers_psk);
			SSL_CTX_set_psk_client_callback(e.client_ctx, clients_psk);
			make_ends(&e);
			REQUIRE(!shake_hands(&e));
			REQUIRE_EQ(ERR_GET_REASON(ERR_peek_error()), EPK_R_KEY_EXCHANGE);
			drop_all(&e);
		}
}

/* ---- processes */

static bool resumes_in_worker(struct ends *e, bool expected)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		make_ends(e);
		if (!shake_hands(e) || SSL_session_reused(e->server) != expected)
			_exit(1);
		pass_both_ways(e);
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return !status;
}

/* nginx's tickets, whose keys all workers have. */
static void tickets_are_good_in_all_workers(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct ends e;
	int v, i;

	(void)state;
	for (v = 0; v < 2; v++) {
		make_ctxs(&e, versions[v], true);
		join_ends(&e);
		pass_both_ways(&e);
		drop_ends(&e);
		for (i = 0; i < 3; i++)
			REQUIRE(resumes_in_worker(&e, true));
		drop_all(&e);
	}
}

/* The server is one process; its ticket comes from another with the same ticket keys. */
static void have_foreign_session(struct ends *e, int version)
{
	uint8_t keys[80] = { 1 };

	make_ctxs(e, version, true);
	SSL_CTX_free(e->server_ctx);
	/* OpenSSL's own: its sessions are not wrapped under this K, nor under any. */
	e->server_ctx = make_ctx(plain, version, true);
	require_ossl(SSL_CTX_set_tlsext_ticket_keys(e->server_ctx, keys, sizeof(keys)));
	join_ends(e);
	pass_both_ways(e);
	drop_ends(e);
	SSL_CTX_free(e->server_ctx);
	e->server_ctx = make_ctx(with_epk, version, true);
	require_ossl(SSL_CTX_set_tlsext_ticket_keys(e->server_ctx, keys, sizeof(keys)));
	REQUIRE(session);
}

/* An error, not keys that one end alone has. */
static void session_of_another_key_is_an_error(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct ends e;
	int v;

	(void)state;
	for (v = 0; v < 2; v++) {
		have_foreign_session(&e, versions[v]);
		make_ends(&e);
		REQUIRE(!shake_hands(&e));
		ERR_clear_error();
		drop_ends(&e);
		/* Without it, all is well. */
		drop_session();
		join_ends(&e);
		drop_all(&e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sessions_resume),
		cmocka_unit_test(ticket_keys_are_rotated),
		cmocka_unit_test(sessions_are_renegotiated),
		cmocka_unit_test(older_master_secret_is_derived),
		cmocka_unit_test(groups_agree),
		cmocka_unit_test(hello_is_retried),
		cmocka_unit_test(keys_are_updated),
		cmocka_unit_test(clients_have_certificates),
		cmocka_unit_test(clients_authenticate_afterwards),
		cmocka_unit_test(early_data_is_read),
		cmocka_unit_test(exporters_agree),
		cmocka_unit_test(threads_shake_hands),
		cmocka_unit_test(others_groups_are_refused),
		cmocka_unit_test(jobs_are_refused),
		cmocka_unit_test(external_psks_are_refused),
		cmocka_unit_test(psk_suites_are_refused),
		cmocka_unit_test(tickets_are_good_in_all_workers),
		cmocka_unit_test(session_of_another_key_is_an_error),
	};

	return cmocka_run_group_tests_name("provider_features", tests, make_both, NULL);
}
