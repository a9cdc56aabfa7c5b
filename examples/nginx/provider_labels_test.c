// SPDX-License-Identifier: MIT
/*
 * What goes out as it is: nothing that libssl derives keys from, or as keys, whoever chooses the
 * label.  And that the keys of others, which HMAC looks up among wrapped ones, decide nothing
 * that can be seen from outside.
 *
 * Two ends know the same secrets, of which one is the provider's: what that gives out is
 * compared with what it stands for.
 */
#define _GNU_SOURCE
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "provider/hash.c"
#include "provider/mac.c"
#include "provider/wrap.c"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

#define SECRET_LEN	32
#define OUT_MAX		128

/* ---- of mac.c: no vault is needed to look a key up */

OSSL_LIB_CTX *inner_libctx;

bool vault_open(struct provider *prov, struct opened *o)
{
	static struct vault vault;

	(void)prov;
	RAND_bytes((uint8_t *)vault.key, sizeof(vault.key));
	*o = (struct opened){ .vault = &vault, .work = vault.works };
	return true;
}

bool vault_close(struct provider *prov, struct opened *o)
{
	(void)prov;
	(void)o;
	return true;
}

bool raise_error(struct provider *prov, const char *file, int line, const char *func,
		 enum epk_reason reason, const char *fmt, ...)
{
	(void)prov;
	(void)file;
	(void)line;
	(void)func;
	(void)reason;
	(void)fmt;
	return false;
}

#define TRIES	4096

/* Keys that have all but one byte in common: how many of them share a set with the one before? */
static size_t same_sets(size_t len, size_t changed)
{
	uint8_t key[48] = { 1, 2, 3 };
	size_t i, set, before = NR_SETS, same = 0;
	uint64_t what;

	for (i = 0; i < 256; i++) {
		key[changed] = i;
		set_of(key, len, &what, &set);
		same += set == before;
		before = set;
	}
	return same;
}

static void index_tells_nothing_of_a_key(void **state)
{
	uint8_t key[48];
	size_t i, set, other, same = 0;
	uint64_t what;

	(void)state;
	assert_true(mac_start(NULL));
	for (i = 0; i < 32; i++)
		assert_true(same_sets(32, i) < 8);
	for (i = 0; i < 48; i++)
		assert_true(same_sets(48, i) < 8);
	/* One that is not told depends on a number that nobody knows. */
	for (i = 0; i < TRIES; i++) {
		RAND_bytes(key, sizeof(key));
		set_of(key, 48, &what, &set);
		assert_true(mac_start(NULL));
		set_of(key, 48, &what, &other);
		same += set == other;
	}
	assert_true(same < 16);
	/* It finds what it has been told, and nothing else. */
	mac_remember(key, 48);
	assert_true(is_remembered(key, 48));
	assert_false(is_remembered(key, 32));
	key[47] ^= 1;
	assert_false(is_remembered(key, 48));
}

/* ---- TLS 1.3 */

struct call {
	int mode;
	const uint8_t *salt, *key, *data;
	const char *prefix, *label;
	size_t prefix_len;
};

static bool derive13(OSSL_LIB_CTX *libctx, const struct call *c, uint8_t *out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS13-KDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[8], *p = params;
	int mode = c->mode;
	bool ok;

	*p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, (char *)c->prefix,
						 c->prefix_len);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (char *)c->label,
						 strlen(c->label));
	if (c->key)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)c->key,
							 SECRET_LEN);
	if (c->salt)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)c->salt,
							 SECRET_LEN);
	if (c->data)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_DATA, (void *)c->data,
							 SECRET_LEN);
	*p = OSSL_PARAM_construct_end();
	ok = EVP_KDF_derive(ctx, out, len, params) > 0;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	ERR_clear_error();
	return ok;
}

/* Of a key exchange that we know. */
static void handshake_secret(OSSL_LIB_CTX *libctx, uint8_t out[SECRET_LEN])
{
	static const uint8_t shared[SECRET_LEN] = "of a key exchange that we know";
	uint8_t early[SECRET_LEN];
	struct call c = { .mode = EVP_KDF_HKDF_MODE_EXTRACT_ONLY, .prefix = "tls13 ",
			  .prefix_len = 6, .label = "derived" };

	assert_true(derive13(libctx, &c, early, SECRET_LEN));
	c.salt = early;
	c.key = shared;
	assert_true(derive13(libctx, &c, out, SECRET_LEN));
}

/* RFC 8446, 7.1 to 7.5; 4.6.1. */
static const char *const labels13[] = {
	"ext binder", "res binder", "c e traffic", "e exp master", "derived", "c hs traffic",
	"s hs traffic", "c ap traffic", "s ap traffic", "exp master", "res master", "traffic upd",
	"finished", "resumption", "key", "iv", "exporter", "quic key", "quic iv", "quic hp", "quic ku",
};

static bool is_to_be_real(const struct call *c)
{
	return c->prefix_len == 6 &&
	       (!strcmp(c->label, "exporter") || (!strcmp(c->label, "iv") && !c->data));
}

/* With the label's first bytes as the end of the prefix, which changes nothing of what is hashed. */
static size_t real_ones(const char *label, const uint8_t *mine, const uint8_t *theirs,
			const uint8_t *data, size_t len)
{
	uint8_t out[OUT_MAX], real[OUT_MAX];
	char whole[64];
	struct call c = { .mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY, .prefix = whole, .data = data };
	size_t split, same = 0;

	snprintf(whole, sizeof(whole), "tls13 %s", label);
	for (split = 0; split + 1 < strlen(whole); split++) {
		c.prefix_len = split;
		c.label = whole + split;
		memset(out, 0, len);
		c.key = theirs;
		assert_true(derive13(plain, &c, real, len));
		c.key = mine;
		if (!derive13(with_epk, &c, out, len) || memcmp(out, real, len))
			continue;
		same++;
		if (!is_to_be_real(&c)) {
			printf("\"%.*s\" + \"%s\" gives what it is\n", (int)split, whole, c.label);
			same += 1000;
		}
	}
	return same;
}

static void labels_of_tls13_give_no_key(void **state)
{
	static const uint8_t data[SECRET_LEN] = { 7 };
	static const size_t lengths[] = { 12, 16, 32 };
	uint8_t mine[SECRET_LEN], theirs[SECRET_LEN];
	size_t i, n, real = 0;

	(void)state;
	handshake_secret(plain, theirs);
	handshake_secret(with_epk, mine);
	assert_memory_not_equal(mine, theirs, SECRET_LEN);
	for (i = 0; i < sizeof(labels13) / sizeof(labels13[0]); i++)
		for (n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++) {
			real += real_ones(labels13[i], mine, theirs, NULL, lengths[n]);
			real += real_ones(labels13[i], mine, theirs, data, lengths[n]);
		}
	/* An IV, and what is exported with and without a context. */
	assert_int_equal(real, 3 * 3);
}

/* ---- TLS 1.2 */

static bool prf(OSSL_LIB_CTX *libctx, const uint8_t *secret, const char *label, size_t split,
		uint8_t *out, size_t len)
{
	static uint8_t randoms[64] = { 9, 8, 7 };
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS1-PRF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[8], *p = params;
	bool ok;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, (void *)secret, MASTER_LEN);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, (char *)label, split);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, (char *)label + split,
						 strlen(label) - split);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, randoms, sizeof(randoms));
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, "", 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, "", 0);
	*p = OSSL_PARAM_construct_end();
	ok = EVP_KDF_derive(ctx, out, len, params) > 0;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	ERR_clear_error();
	return ok;
}

/* Of the block's two keys, each as long as half of what is asked for at least, is any there? */
static bool has_keys(const uint8_t *out, const uint8_t *real, size_t len)
{
	size_t at;

	for (at = 0; at + 8 <= len && at < 64; at += 8)
		if (!memcmp(out + at, real + at, 8))
			return true;
	return false;
}

/* However long it is asked to be. */
static void key_block_is_not_given_out(void **state)
{
	static const uint8_t premaster[MASTER_LEN] = "of another key exchange";
	uint8_t mine[MASTER_LEN], theirs[MASTER_LEN], out[OUT_MAX], real[OUT_MAX];
	static const char label[] = "key expansion";
	size_t len, split;
	bool ok;

	(void)state;
	OSSL_PROVIDER_do_all(with_epk, allow_cbc, &(bool){ false });
	assert_true(prf(plain, premaster, "master secret", 13, theirs, MASTER_LEN));
	assert_true(prf(with_epk, premaster, "master secret", 13, mine, MASTER_LEN));
	assert_memory_not_equal(mine, theirs, MASTER_LEN);
	for (split = 0; split <= strlen(label); split++)
		for (len = 8; len <= OUT_MAX; len++) {
			assert_true(prf(plain, theirs, label, split, real, OUT_MAX));
			memset(out, 0, sizeof(out));
			ok = prf(with_epk, mine, label, split, out, len);
			/* The IVs, which come last, are what they are. */
			if (ok && has_keys(out, real, len == 40 ? 32 : len > 64 ? 64 : len))
				fail_msg("%zu bytes of \"%.*s\" + \"%s\"", len, (int)split, label,
					 label + split);
			assert_int_equal(ok, split == strlen(label) &&
					     (len == 40 || len == 72 || len == 88));
		}
	for (split = 0; split < 13; split++)
		assert_false(prf(with_epk, mine, "master secret", split, out, MASTER_LEN));
	for (split = 0; split < 22; split++)
		assert_false(prf(with_epk, mine, "extended master secret", split, out, MASTER_LEN));
	/* What is the application's, and verify_data. */
	assert_true(prf(plain, theirs, "EXPORTER-mine", 13, real, 40));
	assert_true(prf(with_epk, mine, "EXPORTER-mine", 13, out, 40));
	assert_memory_equal(out, real, 40);
	assert_true(prf(with_epk, mine, "client finished", 15, out, 12));
	OSSL_PROVIDER_do_all(with_epk, allow_cbc, &(bool){ true });
}

static int setup(void **state)
{
	(void)state;
	plain = make_libctx(0);
	with_epk = OSSL_LIB_CTX_new();
	load_providers(with_epk, "key_exchange = any\n");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(index_tells_nothing_of_a_key),
		cmocka_unit_test(labels_of_tls13_give_no_key),
		cmocka_unit_test(key_block_is_not_given_out),
	};

	return cmocka_run_group_tests_name("provider_labels", tests, setup, NULL);
}
