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

#define SECRET_MAX	48
#define OUT_MAX		200
#define WINDOW		8	/* as many bytes of a key are too many */

/* Of which hash, and how long its secrets are. */
static const char *digest = "SHA256";
static size_t digest_len = 32;

static void use_hash(const char *name, size_t len)
{
	digest = name;
	digest_len = len;
}

/* Is any part of the one in the other, wherever? */
static bool have_part_in_common(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	size_t i;

	for (i = 0; i + WINDOW <= a_len; i++)
		if (memmem(b, b_len, a + i, WINDOW))
			return true;
	return false;
}

/* ---- of mac.c: no vault is needed to look a key up */

OSSL_LIB_CTX *epkp_inner_libctx;

bool epkp_vault_open(struct provider *prov, struct opened *o)
{
	static struct vault vault;

	(void)prov;
	RAND_bytes((uint8_t *)vault.key, sizeof(vault.key));
	*o = (struct opened){ .vault = &vault, .work = vault.works };
	return true;
}

bool epkp_vault_close(struct provider *prov, struct opened *o)
{
	(void)prov;
	(void)o;
	return true;
}

bool epkp_raise_error(struct provider *prov, const char *file, int line, const char *func,
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
	REQUIRE(epkp_mac_start(NULL));
	for (i = 0; i < 32; i++)
		REQUIRE(same_sets(32, i) < 8);
	for (i = 0; i < 48; i++)
		REQUIRE(same_sets(48, i) < 8);
	/* One that is not told depends on a number that nobody knows. */
	for (i = 0; i < TRIES; i++) {
		RAND_bytes(key, sizeof(key));
		set_of(key, 48, &what, &set);
		REQUIRE(epkp_mac_start(NULL));
		set_of(key, 48, &what, &other);
		same += set == other;
	}
	REQUIRE(same < 16);
	/* It finds what it has been told, and nothing else. */
	epkp_mac_remember(key, 48);
	REQUIRE(is_remembered(key, 48));
	REQUIRE(!is_remembered(key, 32));
	key[47] ^= 1;
	REQUIRE(!is_remembered(key, 48));
}

/* ---- TLS 1.3 */

struct call {
	int mode;
	const uint8_t *salt, *key, *data;
	const char *prefix, *label;
	size_t prefix_len, data_len;
};

static bool derive13(OSSL_LIB_CTX *libctx, const struct call *c, uint8_t *out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS13-KDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[8], *p = params;
	int mode = c->mode;
	bool ok;

	*p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, (char *)c->prefix,
						 c->prefix_len);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (char *)c->label,
						 strlen(c->label));
	if (c->key)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)c->key,
							 digest_len);
	if (c->salt)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)c->salt,
							 digest_len);
	if (c->data)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_DATA, (void *)c->data,
							 c->data_len);
	*p = OSSL_PARAM_construct_end();
	ok = EVP_KDF_derive(ctx, out, len, params) > 0;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	ERR_clear_error();
	return ok;
}

/* Of a key exchange that we know. */
static void handshake_secret(OSSL_LIB_CTX *libctx, uint8_t out[SECRET_MAX])
{
	static const uint8_t shared[SECRET_MAX] = "of a key exchange that we know";
	uint8_t early[SECRET_MAX];
	struct call c = { .mode = EVP_KDF_HKDF_MODE_EXTRACT_ONLY, .prefix = "tls13 ",
			  .prefix_len = 6, .label = "derived" };

	REQUIRE(derive13(libctx, &c, early, digest_len));
	c.salt = early;
	c.key = shared;
	REQUIRE(derive13(libctx, &c, out, digest_len));
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
			const struct call *data, size_t len)
{
	uint8_t out[OUT_MAX], real[OUT_MAX];
	char whole[64];
	struct call c = *data;
	size_t split, same = 0;

	snprintf(whole, sizeof(whole), "tls13 %s", label);
	c.mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	c.prefix = whole;
	for (split = 0; split + 1 < strlen(whole); split++) {
		c.prefix_len = split;
		c.label = whole + split;
		memset(out, 0, len);
		c.key = theirs;
		REQUIRE(derive13(plain, &c, real, len));
		c.key = mine;
		if (!derive13(with_epk, &c, out, len) || !have_part_in_common(out, len, real, len))
			continue;
		same++;
		if (!is_to_be_real(&c)) {
			printf("%zu bytes of \"%.*s\" + \"%s\" give what it is\n", len, (int)split,
			       whole, c.label);
			same += 1000;
		}
	}
	return same;
}

static void labels_of_tls13_give_no_key(void **state)
{
	static const uint8_t data[SECRET_MAX] = { 7 };
	static const size_t lengths[] = { WINDOW, 12, 16, 32, 48 };
	const size_t nr_lengths = sizeof(lengths) / sizeof(lengths[0]);
	const struct call with[] = { { .data = NULL }, { .data = data },
				     { .data = data, .data_len = digest_len } };
	uint8_t mine[SECRET_MAX], theirs[SECRET_MAX];
	size_t i, n, d, real = 0;

	(void)state;
	handshake_secret(plain, theirs);
	handshake_secret(with_epk, mine);
	REQUIRE_MEM_NE(mine, theirs, digest_len);
	for (i = 0; i < sizeof(labels13) / sizeof(labels13[0]); i++)
		for (n = 0; n < nr_lengths; n++)
			for (d = 0; d < 3; d++)
				real += real_ones(labels13[i], mine, theirs, &with[d], lengths[n]);
	/* An IV, and what is exported with and without a context. */
	REQUIRE_EQ(real, nr_lengths * 4);
}

static void labels_of_tls13_give_no_longer_key(void **state)
{
	use_hash("SHA384", 48);
	labels_of_tls13_give_no_key(state);
	use_hash("SHA256", 32);
}

/* ---- TLS 1.2 */

static uint32_t session;

static bool prf(OSSL_LIB_CTX *libctx, const uint8_t *secret, const char *label, size_t split,
		uint8_t *out, size_t len)
{
	uint8_t randoms[64] = { 9, 8, 7, session, session >> 8, session >> 16 };
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS1-PRF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[8], *p = params;
	bool ok;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0);
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

/* Of one end and of the other. */
static uint8_t mine12[MASTER_LEN], theirs12[MASTER_LEN];

static void agree12(void)
{
	static const uint8_t premaster[MASTER_LEN] = "of another key exchange";

	REQUIRE(prf(plain, premaster, "master secret", 13, theirs12, MASTER_LEN));
	REQUIRE(prf(with_epk, premaster, "master secret", 13, mine12, MASTER_LEN));
	REQUIRE_MEM_NE(mine12, theirs12, MASTER_LEN);
}

#define KEY_EXPANSION	"key expansion"

/* Where keys end of which a part would be known then. */
static size_t keys_in_key_block(size_t len)
{
	return len == 40 ? 32 : 64;
}

/* A key block of a session, as it is asked for there or again; its first @keys bytes are keys. */
static bool key_block_is_given(size_t len, size_t keys)
{
	uint8_t out[OUT_MAX], real[OUT_MAX];

	REQUIRE(prf(plain, theirs12, KEY_EXPANSION, strlen(KEY_EXPANSION), real, OUT_MAX));
	memset(out, 0, sizeof(out));
	if (!prf(with_epk, mine12, KEY_EXPANSION, strlen(KEY_EXPANSION), out, len))
		return false;
	if (have_part_in_common(out, len, real, keys))
		FAIL("%zu bytes of a key block with %zu bytes of keys", len, keys);
	/* The IVs, which come last, are what they are. */
	REQUIRE_MEM_EQ(out + keys, real + keys, len - keys);
	return true;
}

static bool is_len(size_t len, const size_t *lengths)
{
	for (; *lengths; lengths++)
		if (len == *lengths)
			return true;
	return false;
}

static const size_t aeads256[] = { 40, 72, 88, 0 }, aeads384[] = { 72, 0 };
static const size_t cbcs256[] = { 40, 72, 88, 104, 128, 136, 160, 0 }, cbcs384[] = { 72, 192, 0 };

/* However long it is asked to be, each time of a new session. */
static void try_lengths(const size_t *lengths)
{
	static const char label[] = KEY_EXPANSION;
	uint8_t out[OUT_MAX];
	size_t len, split;

	for (split = 0; split < strlen(label); split++)
		for (len = 8; len <= OUT_MAX; len++)
			REQUIRE(!prf(with_epk, mine12, label, split, out, len));
	for (len = 8; len <= OUT_MAX; len++) {
		session++;
		REQUIRE_EQ(key_block_is_given(len, keys_in_key_block(len)),
			   is_len(len, lengths));
	}
}

/* And of one session: as libssl has asked first, and then never otherwise. */
static void try_second_lengths(const size_t *lengths)
{
	size_t first, len;

	for (first = 0; lengths[first]; first++) {
		session++;
		REQUIRE(key_block_is_given(lengths[first], keys_in_key_block(lengths[first])));
		for (len = 8; len <= OUT_MAX; len++)
			REQUIRE_EQ(key_block_is_given(len, keys_in_key_block(lengths[first])),
				   len == lengths[first]);
	}
}

static void key_block_is_not_given_out(void **state)
{
	uint8_t out[OUT_MAX], real[OUT_MAX];
	size_t split;

	(void)state;
	OSSL_PROVIDER_do_all(with_epk, allow_cbc, &(bool){ false });
	agree12();
	try_lengths(aeads256);
	try_second_lengths(aeads256);
	for (split = 0; split < 13; split++)
		REQUIRE(!prf(with_epk, mine12, "master secret", split, out, MASTER_LEN));
	for (split = 0; split < 22; split++)
		REQUIRE(!prf(with_epk, mine12, "extended master secret", split, out,
			     MASTER_LEN));
	/* What is the application's, and verify_data. */
	REQUIRE(prf(plain, theirs12, "EXPORTER-mine", 13, real, 40));
	REQUIRE(prf(with_epk, mine12, "EXPORTER-mine", 13, out, 40));
	REQUIRE_MEM_EQ(out, real, 40);
	REQUIRE(prf(with_epk, mine12, "client finished", 15, out, 12));
	use_hash("SHA384", 48);
	agree12();
	try_lengths(aeads384);
	try_second_lengths(aeads384);
	use_hash("SHA256", 32);
	OSSL_PROVIDER_do_all(with_epk, allow_cbc, &(bool){ true });
}

/* Those of CBC suites are, but of no session that has another. */
static void key_block_is_given_for_cbc_alone(void **state)
{
	static const size_t *const lengths[] = { cbcs256, cbcs384 };
	uint8_t out[OUT_MAX];
	size_t i, n, len;

	(void)state;
	for (i = 0; i < 2; i++) {
		use_hash(i ? "SHA384" : "SHA256", i ? 48 : 32);
		agree12();
		for (len = 8; len <= OUT_MAX; len++) {
			session++;
			REQUIRE_EQ(prf(with_epk, mine12, KEY_EXPANSION, 13, out, len),
				   is_len(len, lengths[i]));
		}
		for (n = 0; lengths[i][n] && lengths[i][n] <= 88; n++) {
			session++;
			REQUIRE(key_block_is_given(lengths[i][n],
						   keys_in_key_block(lengths[i][n])));
			for (len = 8; len <= OUT_MAX; len++)
				REQUIRE_EQ(prf(with_epk, mine12, KEY_EXPANSION, 13, out, len),
					   len == lengths[i][n]);
		}
	}
	use_hash("SHA256", 32);
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
		cmocka_unit_test(labels_of_tls13_give_no_longer_key),
		cmocka_unit_test(key_block_is_not_given_out),
		cmocka_unit_test(key_block_is_given_for_cbc_alone),
	};

	return cmocka_run_group_tests_name("provider_labels", tests, setup, NULL);
}
