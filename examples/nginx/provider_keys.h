/* SPDX-License-Identifier: MIT */
/* Private keys of each kind, in files, and signatures with them. */
#ifndef PROVIDER_KEYS_H
#define PROVIDER_KEYS_H

#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "provider_test.h"

static const uint8_t message[] = "what is signed";

static const struct key {
	const char *type, *curve;
	size_t bits;
} keys[] = {
	{ "RSA", NULL, 1024 }, { "RSA", NULL, 2048 }, { "RSA", NULL, 2056 }, { "RSA", NULL, 3072 },
	{ "RSA", NULL, 4096 }, { "EC", "P-256", 0 }, { "EC", "P-384", 0 }, { "EC", "P-521", 0 },
	{ "ED25519", NULL, 0 }, { "ED448", NULL, 0 },
};

#define NR_KEYS	(sizeof(keys) / sizeof(keys[0]))

/* OpenSSL's own. */
static EVP_PKEY *made[NR_KEYS];

static inline bool is(size_t i, const char *type)
{
	return !strcmp(keys[i].type, type);
}

static inline void make_keys(void)
{
	size_t i;

	for (i = 0; i < NR_KEYS; i++) {
		made[i] = is(i, "RSA") ? EVP_PKEY_Q_keygen(plain, NULL, "RSA", keys[i].bits) :
			  EVP_PKEY_Q_keygen(plain, NULL, keys[i].type, keys[i].curve);
		require_ossl(made[i] != NULL);
	}
}

static inline int make_both_and_keys(void **state)
{
	make_both(state);
	make_keys();
	return 0;
}

static inline EVP_PKEY *make_pss_key(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(plain, "RSA-PSS", NULL);
	EVP_PKEY *pkey = NULL;

	require_ossl(EVP_PKEY_keygen_init(ctx));
	require_ossl(EVP_PKEY_keygen(ctx, &pkey));
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

/* ---- files */

static inline BIO *text_of(EVP_PKEY *pkey, bool traditional)
{
	BIO *bio = BIO_new(BIO_s_mem());

	require_ossl(traditional ? PEM_write_bio_PrivateKey_traditional(bio, pkey, NULL, NULL, 0, NULL,
								      NULL) :
		     PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL));
	return bio;
}

static char path[64];

static inline BIO *file_of(const void *text, size_t len)
{
	int fd;

	strcpy(path, "/tmp/epk-key-test-XXXXXX");
	fd = mkstemp(path);
	REQUIRE(fd >= 0);
	REQUIRE_EQ(write(fd, text, len), len);
	close(fd);
	return BIO_new_file(path, "r");
}

static inline BIO *file_of_key(EVP_PKEY *pkey, bool traditional)
{
	BIO *bio = text_of(pkey, traditional), *file;
	uint8_t *text;
	long len = BIO_get_mem_data(bio, &text);

	file = file_of(text, len);
	BIO_free(bio);
	return file;
}

static const char *provider_of(const EVP_PKEY *pkey)
{
	const OSSL_PROVIDER *provider = EVP_PKEY_get0_provider(pkey);

	return provider ? OSSL_PROVIDER_get0_name(provider) : "none";
}

static inline EVP_PKEY *read_from(BIO *bio)
{
	return PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, with_epk, NULL);
}

static inline EVP_PKEY *read_key(EVP_PKEY *pkey, bool traditional)
{
	BIO *file = file_of_key(pkey, traditional);
	EVP_PKEY *read = read_from(file);

	require_ossl(read != NULL);
	REQUIRE_STR_EQ(provider_of(read), EPK_NAME);
	/* An error that is left there is the next handshake's. */
	REQUIRE_EQ(ERR_peek_error(), 0);
	BIO_free(file);
	unlink(path);
	return read;
}

/* ---- signatures */

struct way {
	const char *digest;
	int padding, salt_len;
};

static inline size_t sign_with(OSSL_LIB_CTX *libctx, EVP_PKEY *pkey, const struct way *way,
			uint8_t *signature)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx;
	size_t len = 0, wanted;

	require_ossl(EVP_DigestSignInit_ex(ctx, &pctx, way->digest, libctx, NULL, pkey, NULL));
	if (way->padding) {
		require_ossl(EVP_PKEY_CTX_set_rsa_padding(pctx, way->padding));
		if (way->padding == RSA_PKCS1_PSS_PADDING)
			require_ossl(EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, way->salt_len));
	}
	require_ossl(EVP_DigestSign(ctx, NULL, &len, message, sizeof(message)));
	wanted = len;
	require_ossl(EVP_DigestSign(ctx, signature, &len, message, sizeof(message)));
	REQUIRE(len <= wanted);
	EVP_MD_CTX_free(ctx);
	return len;
}

static inline int check_with(OSSL_LIB_CTX *libctx, EVP_PKEY *pkey, const struct way *way,
		      const uint8_t *signature, size_t len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx;
	int ok;

	require_ossl(EVP_DigestVerifyInit_ex(ctx, &pctx, way->digest, libctx, NULL, pkey, NULL));
	if (way->padding) {
		require_ossl(EVP_PKEY_CTX_set_rsa_padding(pctx, way->padding));
		if (way->padding == RSA_PKCS1_PSS_PADDING)
			require_ossl(EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, way->salt_len));
	}
	ok = EVP_DigestVerify(ctx, signature, len, message, sizeof(message));
	EVP_MD_CTX_free(ctx);
	return ok;
}

static inline bool is_told(const char *what)
{
	const char *data;
	int flags;
	bool told = false;

	while (ERR_get_error_all(NULL, NULL, NULL, &data, &flags))
		told |= flags & ERR_TXT_STRING && strstr(data, what);
	return told;
}

#endif /* PROVIDER_KEYS_H */
