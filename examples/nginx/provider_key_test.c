// SPDX-License-Identifier: MIT
/* What private keys in domains do, against OpenSSL's own, and what they refuse. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>

#include <openssl/bn.h>
#include <openssl/buffer.h>
#include <openssl/core_names.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "provider_keys.h"

OSSL_LIB_CTX *with_epk, *plain;

static void sign_and_check(size_t i, EVP_PKEY *mine, const struct way *way)
{
	uint8_t signature[1024], theirs[1024];
	size_t len = sign_with(with_epk, mine, way, signature);

	REQUIRE_EQ(check_with(plain, made[i], way, signature, len), 1);
	REQUIRE_EQ(check_with(with_epk, mine, way, signature, len), 1);
	/* What leaves nothing to chance is the same. */
	if (way->padding == RSA_PKCS1_PADDING || !way->digest) {
		REQUIRE_EQ(sign_with(plain, made[i], way, theirs), len);
		REQUIRE_MEM_EQ(signature, theirs, len);
	}
	signature[len / 2] ^= 1;
	REQUIRE_NE(check_with(with_epk, mine, way, signature, len), 1);
	ERR_clear_error();
}

static void sign_in_all_ways(size_t i, EVP_PKEY *mine)
{
	static const char *const digests[] = { "SHA1", "SHA224", "SHA256", "SHA384", "SHA512" };
	static const int salt_lens[] = { RSA_PSS_SALTLEN_DIGEST, RSA_PSS_SALTLEN_MAX,
					 RSA_PSS_SALTLEN_AUTO, 0, 20 };
	size_t d, s;

	if (!is(i, "RSA") && !is(i, "EC")) {
		sign_and_check(i, mine, &(struct way){ NULL, 0, 0 });
		return;
	}
	for (d = 0; d < sizeof(digests) / sizeof(digests[0]); d++) {
		sign_and_check(i, mine, &(struct way){ digests[d], is(i, "RSA") ?
						       RSA_PKCS1_PADDING : 0, 0 });
		/* With 1,024 bits there is no room for SHA-512 and as much salt. */
		for (s = 0; is(i, "RSA") && s < 5 && (keys[i].bits > 1024 || d < 4); s++)
			sign_and_check(i, mine, &(struct way){ digests[d], RSA_PKCS1_PSS_PADDING,
							       salt_lens[s] });
	}
}

static void signatures_are_right(void **state)
{
	EVP_PKEY *mine;
	size_t i;
	int form;

	(void)state;
	for (i = 0; i < NR_KEYS; i++) {
		for (form = 0; form < 1 + (is(i, "RSA") || is(i, "EC")); form++) {
			mine = read_key(made[i], form);
			REQUIRE_EQ(EVP_PKEY_eq(made[i], mine), 1);
			REQUIRE_EQ(EVP_PKEY_eq(mine, made[i]), 1);
			REQUIRE_EQ(EVP_PKEY_get_size(mine), EVP_PKEY_get_size(made[i]));
			REQUIRE_EQ(EVP_PKEY_get_bits(mine), EVP_PKEY_get_bits(made[i]));
			sign_in_all_ways(i, mine);
			EVP_PKEY_free(mine);
		}
	}
}

/* What a program has hashed itself, and what it hands over in pieces. */
static void other_ways_to_sign_work(void **state)
{
	uint8_t digest[32] = { 7 }, signature[512];
	EVP_PKEY *mine = read_key(made[1], false);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(with_epk, mine, NULL);
	EVP_MD_CTX *pieces = EVP_MD_CTX_new(), *copy = EVP_MD_CTX_new();
	size_t len = sizeof(signature);

	(void)state;
	require_ossl(EVP_PKEY_sign_init(ctx));
	require_ossl(EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()));
	require_ossl(EVP_PKEY_sign(ctx, signature, &len, digest, sizeof(digest)));
	REQUIRE(EVP_PKEY_sign(ctx, signature, &len, digest, sizeof(digest) - 1) <= 0);
	EVP_PKEY_CTX_free(ctx);
	ctx = EVP_PKEY_CTX_new_from_pkey(plain, made[1], NULL);
	require_ossl(EVP_PKEY_verify_init(ctx));
	require_ossl(EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()));
	REQUIRE_EQ(EVP_PKEY_verify(ctx, signature, len, digest, sizeof(digest)), 1);
	EVP_PKEY_CTX_free(ctx);

	require_ossl(EVP_DigestSignInit_ex(pieces, NULL, "SHA256", with_epk, NULL, mine, NULL));
	require_ossl(EVP_DigestSignUpdate(pieces, message, 5));
	require_ossl(EVP_MD_CTX_copy_ex(copy, pieces));
	require_ossl(EVP_DigestSignUpdate(copy, message + 5, sizeof(message) - 5));
	len = sizeof(signature);
	require_ossl(EVP_DigestSignFinal(copy, signature, &len));
	REQUIRE_EQ(check_with(plain, made[1], &(struct way){ "SHA256", 0, 0 }, signature, len),
		   1);
	/* A signature that there is no room for. */
	len = 255;
	REQUIRE(EVP_DigestSignFinal(pieces, signature, &len) <= 0);
	EVP_MD_CTX_free(pieces);
	EVP_MD_CTX_free(copy);
	EVP_PKEY_free(mine);
	ERR_clear_error();
}

/* A request for a certificate needs the algorithm's name besides. */
static void requests_can_be_signed(void **state)
{
	EVP_PKEY *mine;
	X509_REQ *req;
	size_t i;

	(void)state;
	for (i = 0; i < NR_KEYS; i++) {
		mine = read_key(made[i], false);
		req = X509_REQ_new_ex(with_epk, NULL);
		require_ossl(X509_REQ_set_pubkey(req, made[i]));
		require_ossl(X509_REQ_sign(req, mine, is(i, "RSA") || is(i, "EC") ? EVP_sha256() : NULL));
		REQUIRE_EQ(X509_REQ_verify_ex(req, made[i], plain, NULL), 1);
		X509_REQ_free(req);
		EVP_PKEY_free(mine);
	}
}

/* ---- decryption */

static size_t encrypt_for(EVP_PKEY *pkey, int padding, const uint8_t *in, size_t len, uint8_t *out)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(plain, pkey, NULL);
	size_t out_len = 512;

	require_ossl(EVP_PKEY_encrypt_init(ctx));
	require_ossl(EVP_PKEY_CTX_set_rsa_padding(ctx, padding));
	require_ossl(EVP_PKEY_encrypt(ctx, out, &out_len, in, len));
	EVP_PKEY_CTX_free(ctx);
	return out_len;
}

static int decrypt_with(OSSL_LIB_CTX *libctx, EVP_PKEY *pkey, int padding, const uint8_t *in,
			size_t in_len, uint8_t *out, size_t *out_len)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(libctx, pkey, NULL);
	unsigned int version = TLS1_2_VERSION;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_uint(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION, &version),
		OSSL_PARAM_construct_end()
	};
	int ok;

	require_ossl(EVP_PKEY_decrypt_init(ctx));
	require_ossl(EVP_PKEY_CTX_set_rsa_padding(ctx, padding));
	if (padding == RSA_PKCS1_WITH_TLS_PADDING)
		require_ossl(EVP_PKEY_CTX_set_params(ctx, params));
	ok = EVP_PKEY_decrypt(ctx, out, out_len, in, in_len);
	EVP_PKEY_CTX_free(ctx);
	return ok;
}

static void decryption_is_right(void **state)
{
	static const int paddings[] = { RSA_PKCS1_PADDING, RSA_PKCS1_OAEP_PADDING };
	uint8_t sent[512], got[512];
	EVP_PKEY *mine = read_key(made[1], false);
	size_t i, len, got_len;

	(void)state;
	for (i = 0; i < 2; i++) {
		len = encrypt_for(made[1], paddings[i], message, sizeof(message), sent);
		got_len = sizeof(got);
		require_ossl(decrypt_with(with_epk, mine, paddings[i], sent, len, got, &got_len));
		REQUIRE_EQ(got_len, sizeof(message));
		REQUIRE_MEM_EQ(got, message, got_len);
	}
	sent[3] ^= 1;
	got_len = sizeof(got);
	REQUIRE(decrypt_with(with_epk, mine, RSA_PKCS1_OAEP_PADDING, sent, len, got, &got_len) <=
		0);
	EVP_PKEY_free(mine);
	ERR_clear_error();
}

/* With record keys alone in domains libssl gets it as it is, and so it can be compared. */
static void premaster_secrets_are_right_or_drawn(void **state)
{
	static const struct {
		uint8_t version[2];
		int padding;
		size_t len;
		bool right;
	} sent[] = {
		{ { 3, 3 }, RSA_PKCS1_PADDING, 48, true },
		{ { 3, 2 }, RSA_PKCS1_PADDING, 48, false },
		{ { 2, 3 }, RSA_PKCS1_PADDING, 48, false },
		{ { 3, 3 }, RSA_PKCS1_PADDING, 47, false },
		{ { 3, 3 }, RSA_PKCS1_PADDING, 49, false },
		{ { 3, 3 }, RSA_PKCS1_OAEP_PADDING, 48, false },
	};
	OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
	uint8_t secret[49], in[512], out[48], again[48];
	EVP_PKEY *mine;
	BIO *file = file_of_key(made[1], false);
	size_t i, len, out_len;

	(void)state;
	load_providers(libctx, "secrets = keys");
	mine = PEM_read_bio_PrivateKey_ex(file, NULL, NULL, NULL, libctx, NULL);
	require_ossl(mine != NULL);
	BIO_free(file);
	unlink(path);
	for (i = 0; i < sizeof(sent) / sizeof(sent[0]); i++) {
		memset(secret, 0x5a, sizeof(secret));
		memcpy(secret, sent[i].version, 2);
		len = encrypt_for(made[1], sent[i].padding, secret, sent[i].len, in);
		out_len = sizeof(out);
		require_ossl(decrypt_with(libctx, mine, RSA_PKCS1_WITH_TLS_PADDING, in, len, out,
					  &out_len));
		REQUIRE_EQ(out_len, 48);
		require_ossl(decrypt_with(libctx, mine, RSA_PKCS1_WITH_TLS_PADDING, in, len, again,
					  &out_len));
		REQUIRE_EQ(!memcmp(out, secret, 48), sent[i].right);
		REQUIRE_EQ(!memcmp(out, again, 48), sent[i].right);
	}
	EVP_PKEY_free(mine);
	OSSL_LIB_CTX_free(libctx);
}

/* ---- what there is no way to */

static void keys_do_not_come_out(void **state)
{
	EVP_PKEY *mine;
	BIGNUM *number = NULL;
	uint8_t *der = NULL, raw[64];
	size_t i, len = sizeof(raw);
	BIO *bio = BIO_new(BIO_s_mem());

	(void)state;
	for (i = 0; i < NR_KEYS; i++) {
		mine = read_key(made[i], false);
		REQUIRE(EVP_PKEY_get_bn_param(mine, OSSL_PKEY_PARAM_RSA_D, &number) <= 0);
		REQUIRE(EVP_PKEY_get_bn_param(mine, OSSL_PKEY_PARAM_RSA_FACTOR1, &number) <= 0);
		REQUIRE(EVP_PKEY_get_bn_param(mine, OSSL_PKEY_PARAM_PRIV_KEY, &number) <= 0);
		REQUIRE(EVP_PKEY_get_raw_private_key(mine, raw, &len) <= 0);
		REQUIRE(i2d_PrivateKey(mine, &der) <= 0);
		REQUIRE(PEM_write_bio_PrivateKey(bio, mine, NULL, NULL, 0, NULL, NULL) <= 0);
		/* The public half does. */
		require_ossl(PEM_write_bio_PUBKEY(bio, mine));
		EVP_PKEY_free(mine);
		ERR_clear_error();
	}
	BIO_free(bio);
}

/* ---- files that are no good */

static void refused(const char *text, size_t len, const char *why)
{
	BIO *file = file_of(text, len), *memory = BIO_new_mem_buf(text, len);
	const char *data = "", *more;
	int flags;

	REQUIRE(!read_from(file));
	if (why) {
		while (ERR_get_error_all(NULL, NULL, NULL, &more, &flags))
			if (flags & ERR_TXT_STRING && strstr(more, why))
				data = why;
		REQUIRE_STR_EQ(data, why);
	}
	/* Nor is it there for anyone else. */
	REQUIRE(!read_from(memory));
	REQUIRE_NE(ERR_peek_error(), 0);
	ERR_clear_error();
	BIO_free(file);
	BIO_free(memory);
	unlink(path);
}

static void refused_key(EVP_PKEY *pkey, const EVP_CIPHER *cipher, bool traditional, const char *why)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text;
	long len;

	require_ossl(traditional ? PEM_write_bio_PrivateKey_traditional(bio, pkey, cipher, NULL, 0, NULL,
								      (void *)"password") :
		     PEM_write_bio_PKCS8PrivateKey(bio, pkey, cipher, NULL, 0, NULL,
						   (void *)"password"));
	len = BIO_get_mem_data(bio, &text);
	refused(text, len, why);
	BIO_free(bio);
}

static void other_keys_are_refused_by_name(void **state)
{
	EVP_PKEY *pss = make_pss_key();
	EVP_PKEY *curve = EVP_PKEY_Q_keygen(plain, NULL, "EC", "secp256k1");
	EVP_PKEY *small = EVP_PKEY_Q_keygen(plain, NULL, "RSA", (size_t)512);
	BIO *bio;
	char *text;
	long len;

	(void)state;
	refused_key(made[1], EVP_aes_128_cbc(), false, "it is encrypted");
	refused_key(made[1], EVP_aes_128_cbc(), true, "it is encrypted");
	refused_key(curve, NULL, false, "of the curves");
	refused_key(small, NULL, false, "RSA");
	refused_key(pss, NULL, false, "RSA-PSS");
	EVP_PKEY_free(curve);
	EVP_PKEY_free(small);
	EVP_PKEY_free(pss);

	bio = text_of(made[1], false);
	len = BIO_get_mem_data(bio, &text);
	refused(text, len / 2, "its end is missing");
	text[200] = '!';
	refused(text, len, "base64");
	text[200] = '\n';
	refused(text, len, NULL);
	BIO_free(bio);
	refused("nothing", 7, NULL);
	refused("", 0, NULL);
}

/* Whatever is wrong with a file, nothing worse happens than that it is refused. */
static void broken_files_are_refused(void **state)
{
	BIO *text = text_of(made[0], false), *file;
	char *bytes, copy[4096];
	long len = BIO_get_mem_data(text, &bytes);
	EVP_PKEY *pkey;
	int round;

	(void)state;
	srand(1);
	for (round = 0; round < 600; round++) {
		memcpy(copy, bytes, len);
		copy[28 + rand() % (len - 60)] = "AQgw/+=\n-!"[rand() % 10];
		file = BIO_new_mem_buf(copy, round % 2 ? len : 30 + rand() % (len - 30));
		pkey = read_from(file);
		if (pkey)
			REQUIRE_STR_EQ(provider_of(pkey), EPK_NAME);
		EVP_PKEY_free(pkey);
		BIO_free(file);
		ERR_clear_error();
	}
	BIO_free(text);
}

/* ---- what is others' stays theirs */

static void others_keys_work(void **state)
{
	const struct way way = { "SHA256", 0, 0 };
	EVP_PKEY *own = EVP_PKEY_Q_keygen(with_epk, NULL, "EC", "P-256");
	EVP_PKEY *rsa = EVP_PKEY_Q_keygen(with_epk, NULL, "RSA", (size_t)2048);
	uint8_t signature[512], secret[64], secret_too[512];
	EVP_PKEY_CTX *ctx;
	size_t len;

	(void)state;
	require_ossl(own && rsa);
	len = sign_with(with_epk, own, &way, signature);
	REQUIRE_EQ(check_with(with_epk, own, &way, signature, len), 1);
	len = sign_with(with_epk, rsa, &way, signature);
	REQUIRE_EQ(check_with(with_epk, rsa, &way, signature, len), 1);
	/* A public key alone. */
	len = sign_with(plain, made[1], &way, signature);
	REQUIRE_EQ(check_with(with_epk, made[1], &way, signature, len), 1);
	/* Key exchanges of programs are not signatures. */
	ctx = EVP_PKEY_CTX_new_from_pkey(with_epk, own, NULL);
	require_ossl(EVP_PKEY_derive_init(ctx));
	require_ossl(EVP_PKEY_derive_set_peer(ctx, own));
	len = sizeof(secret);
	require_ossl(EVP_PKEY_derive(ctx, secret, &len));
	REQUIRE_EQ(len, 32);
	EVP_PKEY_CTX_free(ctx);
	len = encrypt_for(rsa, RSA_PKCS1_PADDING, message, sizeof(message), signature);
	require_ossl(decrypt_with(with_epk, rsa, RSA_PKCS1_PADDING, signature, len, secret_too,
				  &(size_t){ sizeof(secret_too) }));
	REQUIRE_MEM_EQ(secret_too, message, sizeof(message));
	EVP_PKEY_free(own);
	EVP_PKEY_free(rsa);
}

/* ---- threads, forks, and programs that are not as expected */

static EVP_PKEY *shared;

static void *sign_many(void *way)
{
	uint8_t signature[512];
	size_t len;
	int i;

	for (i = 0; i < 100; i++) {
		len = sign_with(with_epk, shared, way, signature);
		REQUIRE_EQ(check_with(with_epk, shared, way, signature, len), 1);
		/* Whatever the thread has of OpenSSL's is made anew then. */
		if (i % 30 == 7)
			OPENSSL_thread_stop();
	}
	return NULL;
}

static void threads_sign_with_one_key(void **state)
{
	static const size_t which[] = { 1, 5, 8 };
	pthread_t threads[8];
	size_t i, t;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct way way = { which[i] == 8 ? NULL : "SHA256", 0, 0 };

		shared = read_key(made[which[i]], false);
		for (t = 0; t < 8; t++)
			REQUIRE_EQ(pthread_create(&threads[t], NULL, sign_many, &way), 0);
		for (t = 0; t < 8; t++)
			pthread_join(threads[t], NULL);
		EVP_PKEY_free(shared);
	}
}

/* As a server's workers do, whose master has not signed, and has. */
static void children_sign(void **state)
{
	const struct way way = { "SHA256", 0, 0 };
	uint8_t signature[512];
	EVP_PKEY *mine = read_key(made[1], false);
	size_t len;
	int round, status;
	pid_t pid;

	(void)state;
	for (round = 0; round < 3; round++) {
		pid = fork();
		if (!pid) {
			len = sign_with(with_epk, mine, &way, signature);
			_exit(check_with(plain, made[1], &way, signature, len) == 1 ? 0 : 1);
		}
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		REQUIRE_EQ(status, 0);
		len = sign_with(with_epk, mine, &way, signature);
		REQUIRE_EQ(check_with(plain, made[1], &way, signature, len), 1);
	}
	EVP_PKEY_free(mine);
}

/* Numbers that libcrypto thinks secret would go there. */
static void no_key_with_a_secure_heap(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		BIO *text = text_of(made[5], false);

		if (CRYPTO_secure_malloc_init(65536, 16) <= 0)
			_exit(2);
		if (read_from(text))
			_exit(3);
		_exit(is_told("secure heap") ? 0 : 4);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
}

/* Rooms are used again, and given back with the key. */
static void domains_are_given_back(void **state)
{
	const struct way way = { "SHA256", 0, 0 };
	uint64_t before = live_contexts();
	uint8_t signature[512];
	EVP_PKEY *mine;
	int i;

	(void)state;
	mine = read_key(made[1], false);
	REQUIRE_EQ(live_contexts(), before);
	for (i = 0; i < 50; i++)
		sign_with(with_epk, mine, &way, signature);
	REQUIRE_EQ(live_contexts(), before + 1);
	EVP_PKEY_free(mine);
	REQUIRE_EQ(live_contexts(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signatures_are_right),
		cmocka_unit_test(other_ways_to_sign_work),
		cmocka_unit_test(requests_can_be_signed),
		cmocka_unit_test(decryption_is_right),
		cmocka_unit_test(premaster_secrets_are_right_or_drawn),
		cmocka_unit_test(keys_do_not_come_out),
		cmocka_unit_test(other_keys_are_refused_by_name),
		cmocka_unit_test(broken_files_are_refused),
		cmocka_unit_test(others_keys_work),
		cmocka_unit_test(threads_sign_with_one_key),
		cmocka_unit_test(children_sign),
		cmocka_unit_test(no_key_with_a_secure_heap),
		cmocka_unit_test(domains_are_given_back),
	};

	return cmocka_run_group_tests_name("provider_key", tests, make_both_and_keys, NULL);
}
