// SPDX-License-Identifier: MIT
/* TLS with private keys in domains, as a server's and as a client's, and with no others. */
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "provider_keys.h"
#include "provider_link.h"

OSSL_LIB_CTX *with_epk, *plain;

static X509 *certify(EVP_PKEY *pkey)
{
	X509 *cert = X509_new_ex(plain, NULL);
	X509_NAME *name = X509_get_subject_name(cert);

	X509_set_version(cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"localhost", -1, -1, 0);
	X509_set_issuer_name(cert, name);
	require_ossl(X509_set_pubkey(cert, pkey));
	require_ossl(X509_sign(cert, pkey, EVP_PKEY_is_a(pkey, "RSA") || EVP_PKEY_is_a(pkey, "EC") ?
			       EVP_sha256() : NULL));
	return cert;
}

static SSL_CTX *make_end(OSSL_LIB_CTX *libctx, bool server, int version, X509 *cert,
			 EVP_PKEY *pkey)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(libctx, NULL, server ? TLS_server_method() :
						    TLS_client_method());

	require_ossl(SSL_CTX_set_min_proto_version(ctx, version));
	require_ossl(SSL_CTX_set_max_proto_version(ctx, version));
	SSL_CTX_set_security_level(ctx, 0);
	if (cert) {
		require_ossl(SSL_CTX_use_certificate(ctx, cert));
		require_ossl(SSL_CTX_use_PrivateKey(ctx, pkey));
		require_ossl(SSL_CTX_check_private_key(ctx));
	}
	return ctx;
}

static bool fails(SSL *ssl)
{
	return SSL_get_error(ssl, 0) == SSL_ERROR_SSL;
}

static const char *name_asked_for;

/* Whether both got through, and bytes too.  Whoever fails first says why. */
static bool connect_ends(SSL_CTX *server_ctx, SSL_CTX *client_ctx)
{
	SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
	char bytes[16];
	int turn, done = 0;

	link_ends(server, client);
	if (name_asked_for)
		SSL_set_tlsext_host_name(client, name_asked_for);
	for (turn = 0; turn < 20 && done != 3; turn++) {
		done = SSL_do_handshake(client) == 1;
		if (fails(client))
			break;
		done |= (SSL_do_handshake(server) == 1) << 1;
		if (fails(server))
			break;
	}
	done = done == 3 && SSL_write(server, "sixteen bytes...", 16) == 16 &&
	       SSL_read(client, bytes, 16) == 16 && SSL_write(client, bytes, 16) == 16 &&
	       SSL_read(server, bytes, 16) == 16;
	SSL_free(server);
	SSL_free(client);
	return done;
}

static void handshakes_with_each_key(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	SSL_CTX *server, *client;
	EVP_PKEY *mine;
	X509 *cert;
	size_t i, v;

	(void)state;
	for (i = 0; i < NR_KEYS; i++) {
		mine = read_key(made[i], false);
		cert = certify(made[i]);
		for (v = 0; v < 2; v++) {
			server = make_end(with_epk, true, versions[v], cert, mine);
			client = make_end(plain, false, versions[v], NULL, NULL);
			SSL_CTX_set1_sigalgs_list(client, is(i, "ED448") ? "ed448" :
				"RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:"
				"ed25519");
			X509_STORE_add_cert(SSL_CTX_get_cert_store(client), cert);
			SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
			require_ossl(connect_ends(server, client));
			REQUIRE_EQ(ERR_peek_error(), 0);
			SSL_CTX_free(server);
			SSL_CTX_free(client);

			/* And as a client's. */
			server = make_end(plain, true, versions[v], cert, made[i]);
			client = make_end(with_epk, false, versions[v], cert, mine);
			X509_STORE_add_cert(SSL_CTX_get_cert_store(server), cert);
			SSL_CTX_set_verify(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
					   NULL);
			require_ossl(connect_ends(server, client));
			SSL_CTX_free(server);
			SSL_CTX_free(client);
		}
		X509_free(cert);
		EVP_PKEY_free(mine);
	}
	ERR_clear_error();
}

/* A key exchange without a group: what it agrees on is in the domain all the same. */
static SSL_CTX *behind[2];

static int choose(SSL *ssl, int *alert, void *arg)
{
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	(void)alert;
	(void)arg;
	if (!name || !SSL_set_SSL_CTX(ssl, behind[!strcmp(name, "other")]))
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	return SSL_TLSEXT_ERR_OK;
}

/* As one server for several names, each with a key of its own. */
static void names_have_keys(void **state)
{
	static const size_t which[] = { 1, 5 };
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	static const char *const names[] = { "one", "other" };
	SSL_CTX *front, *client;
	EVP_PKEY *mine[2];
	X509 *certs[2];
	size_t i, v;

	(void)state;
	for (i = 0; i < 2; i++) {
		mine[i] = read_key(made[which[i]], false);
		certs[i] = certify(made[which[i]]);
	}
	for (v = 0; v < 2; v++) {
		for (i = 0; i < 2; i++)
			behind[i] = make_end(with_epk, true, versions[v], certs[i], mine[i]);
		front = make_end(with_epk, true, versions[v], certs[0], mine[0]);
		SSL_CTX_set_tlsext_servername_callback(front, choose);
		for (i = 0; i < 4; i++) {
			client = make_end(plain, false, versions[v], NULL, NULL);
			X509_STORE_add_cert(SSL_CTX_get_cert_store(client), certs[i % 2]);
			SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
			name_asked_for = names[i % 2];
			require_ossl(connect_ends(front, client));
			SSL_CTX_free(client);
		}
		name_asked_for = NULL;
		SSL_CTX_free(front);
		for (i = 0; i < 2; i++)
			SSL_CTX_free(behind[i]);
	}
	for (i = 0; i < 2; i++) {
		EVP_PKEY_free(mine[i]);
		X509_free(certs[i]);
	}
}

static void static_rsa_works(void **state)
{
	EVP_PKEY *mine = read_key(made[1], false);
	X509 *cert = certify(made[1]);
	SSL_CTX *server = make_end(with_epk, true, TLS1_2_VERSION, cert, mine);
	SSL_CTX *client = make_end(plain, false, TLS1_2_VERSION, NULL, NULL);

	(void)state;
	require_ossl(SSL_CTX_set_cipher_list(client, "AES128-GCM-SHA256"));
	require_ossl(connect_ends(server, client));
	SSL_CTX_free(server);
	SSL_CTX_free(client);
	X509_free(cert);
	EVP_PKEY_free(mine);
}

/* A key of the default provider's, of each kind, as a server's and as a client's. */
static void tls_takes_no_other_keys(void **state)
{
	EVP_PKEY *pss = make_pss_key();
	EVP_PKEY *key;
	SSL_CTX *server, *client;
	X509 *cert;
	size_t i;

	(void)state;
	for (i = 0; i <= NR_KEYS; i++) {
		key = i < NR_KEYS ? made[i] : pss;
		cert = certify(key);
		server = make_end(with_epk, true, TLS1_3_VERSION, cert, key);
		client = make_end(plain, false, TLS1_3_VERSION, NULL, NULL);
		REQUIRE(!connect_ends(server, client));
		REQUIRE(is_told("private_keys = any"));
		SSL_CTX_free(server);
		SSL_CTX_free(client);
		if (i < NR_KEYS) {
			server = make_end(plain, true, TLS1_2_VERSION, cert, key);
			client = make_end(with_epk, false, TLS1_2_VERSION, cert, key);
			SSL_CTX_set_verify(server, SSL_VERIFY_PEER, NULL);
			REQUIRE(!connect_ends(server, client));
			REQUIRE(is_told("private_keys = any"));
			SSL_CTX_free(server);
			SSL_CTX_free(client);
		}
		X509_free(cert);
	}
	/* Nor to decrypt with. */
	cert = certify(made[1]);
	server = make_end(with_epk, true, TLS1_2_VERSION, cert, made[1]);
	client = make_end(plain, false, TLS1_2_VERSION, NULL, NULL);
	require_ossl(SSL_CTX_set_cipher_list(client, "AES128-GCM-SHA256"));
	REQUIRE(!connect_ends(server, client));
	REQUIRE(is_told("private_keys = any"));
	SSL_CTX_free(server);
	SSL_CTX_free(client);
	X509_free(cert);
	EVP_PKEY_free(pss);
	ERR_clear_error();
}

static void others_keys_are_taken_if_told(void **state)
{
	OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
	X509 *cert = certify(made[5]);
	BIO *text = text_of(made[5], false);
	SSL_CTX *server, *client;
	EVP_PKEY *read;

	(void)state;
	load_providers(libctx, "private_keys = any");
	read = PEM_read_bio_PrivateKey_ex(text, NULL, NULL, NULL, libctx, NULL);
	REQUIRE_STR_EQ(provider_of(read), "default");
	server = make_end(libctx, true, TLS1_3_VERSION, cert, read);
	client = make_end(plain, false, TLS1_3_VERSION, NULL, NULL);
	require_ossl(connect_ends(server, client));
	SSL_CTX_free(server);
	SSL_CTX_free(client);
	X509_free(cert);
	EVP_PKEY_free(read);
	BIO_free(text);
	OSSL_LIB_CTX_free(libctx);
	libctx = OSSL_LIB_CTX_new();
	REQUIRE(try_providers(libctx, "private_keys = nonsense") <= 0 ||
		!OSSL_PROVIDER_available(libctx, EPK_NAME));
	OSSL_LIB_CTX_free(libctx);
	ERR_clear_error();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(handshakes_with_each_key),
		cmocka_unit_test(names_have_keys),
		cmocka_unit_test(static_rsa_works),
		cmocka_unit_test(tls_takes_no_other_keys),
		cmocka_unit_test(others_keys_are_taken_if_told),
	};

	return cmocka_run_group_tests_name("provider_key_tls", tests, make_both_and_keys, NULL);
}
