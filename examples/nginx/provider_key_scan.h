/* SPDX-License-Identifier: MIT */
/* What an attacker looks for who knows a private key, and the file that it is read from. */
#ifndef PROVIDER_KEY_SCAN_H
#define PROVIDER_KEY_SCAN_H

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/pem.h>

#include "provider_scan.h"
#include "provider_test.h"

/* Each 64 bytes of it; the last may overlap. */
static inline void add_bytes(const char *name, const uint8_t *bytes, size_t len)
{
	size_t at_byte, take;

	for (at_byte = 0; at_byte < len; at_byte += NEEDLE_MAX) {
		take = len - at_byte < NEEDLE_MAX ? len - at_byte : NEEDLE_MAX;
		if (take < 32 && at_byte)
			at_byte -= 32 - take, take = 32;
		add_needle(name, bytes + at_byte, take, false);
	}
}

#define TEXT		"text"
#define DIGITS		"digits"
#define NONCE		"nonce"
#define SEED_HASH	"seed's hash"

/* OpenSSL itself may wipe these. */
static inline bool is_transient(const struct needle *n)
{
	return !strcmp(n->name, DIGITS) || !strcmp(n->name, NONCE) || !strcmp(n->name, SEED_HASH);
}

/* As code for wide vectors has a number: 52 of its bits in each word. */
static inline void add_digits(const BIGNUM *number)
{
	BIGNUM *rest = BN_dup(number), *digit = BN_new();
	uint8_t words[NEEDLE_MAX];
	size_t i;

	for (i = 0; i < NEEDLE_MAX / 8; i++) {
		BN_copy(digit, rest);
		BN_mask_bits(digit, 52);
		BN_bn2lebinpad(digit, words + 8 * i, 8);
		BN_rshift(rest, rest, 52);
	}
	add_needle(DIGITS, words, sizeof(words), false);
	BN_free(rest);
	BN_free(digit);
}

static inline void add_number(const char *name, const BIGNUM *number)
{
	uint8_t bytes[1024];
	int len = (BN_num_bytes(number) + 7) & ~7;

	REQUIRE_EQ(BN_bn2binpad(number, bytes, len), len);
	add_bytes(name, bytes, len);
	if (len >= NEEDLE_MAX)
		add_digits(number);
}

static inline BIGNUM *get_number(EVP_PKEY *pkey, const char *param)
{
	BIGNUM *number = NULL;

	require_ossl(EVP_PKEY_get_bn_param(pkey, param, &number));
	return number;
}

static inline void add_rsa(EVP_PKEY *pkey)
{
	static const char *const params[] = {
		OSSL_PKEY_PARAM_RSA_D, OSSL_PKEY_PARAM_RSA_FACTOR1, OSSL_PKEY_PARAM_RSA_FACTOR2,
		OSSL_PKEY_PARAM_RSA_EXPONENT1, OSSL_PKEY_PARAM_RSA_EXPONENT2,
		OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
	};
	BIGNUM *number;
	size_t i;

	for (i = 0; i < sizeof(params) / sizeof(params[0]); i++) {
		number = get_number(pkey, params[i]);
		add_number(params[i], number);
		BN_free(number);
	}
}

/* The text, but for its first line, which begins as that of many keys; and what it encodes. */
static inline void add_file(EVP_PKEY *pkey, int fd, bool traditional)
{
	BIO *bio = BIO_new(BIO_s_mem());
	uint8_t *der = NULL, *text;
	long len, line;

	require_ossl(traditional ? PEM_write_bio_PrivateKey_traditional(bio, pkey, NULL, NULL, 0,
								      NULL, NULL) :
				  PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL,
								NULL));
	len = BIO_get_mem_data(bio, &text);
	REQUIRE_EQ(write(fd, text, len), len);
	for (line = 28 + 32; line + 64 < len - 32; line += 65)
		add_needle(TEXT, text + line, 60, false);
	BIO_free(bio);
	len = i2d_PrivateKey(pkey, &der);
	REQUIRE(len > 0);
	/* The modulus comes first. */
	if (EVP_PKEY_is_a(pkey, "RSA"))
		add_bytes("DER", der + EVP_PKEY_get_size(pkey) + 40, 64);
	OPENSSL_free(der);
}

#endif /* PROVIDER_KEY_SCAN_H */
