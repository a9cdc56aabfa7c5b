// SPDX-License-Identifier: MIT
/* How secrets are wrapped, and what is refused rather than taken for another thing. */
#define _GNU_SOURCE
#define OPENSSL_SUPPRESS_DEPRECATED
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "provider/curve.h"
#include "provider/hash.c"
#include "provider/wrap.c"
#include "provider/x25519.c"
#include "provider_scan.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

/* ---- HMAC */

static void compare_hmacs(const char *digest)
{
	static struct hmac hmac;
	uint8_t key[200], message[400], out[HASH_MAX], expected[EVP_MAX_MD_SIZE];
	const struct hash *hash = epkp_hash_find(digest);
	size_t key_len, len, half, got;

	RAND_bytes(key, sizeof(key));
	RAND_bytes(message, sizeof(message));
	for (key_len = 1; key_len <= sizeof(key); key_len++) {
		epkp_hmac_key(&hmac, hash, key, key_len);
		for (len = 0; len <= sizeof(message); len++) {
			half = len * key_len / 256 % (len + 1);
			epkp_hmac_begin(&hmac);
			epkp_hmac_add(&hmac, message, half);
			epkp_hmac_add(&hmac, message + half, len - half);
			epkp_hmac_end(&hmac, out);
			if (key_len % 64 && len % 7)
				continue;
			REQUIRE(EVP_Q_mac(plain, "HMAC", NULL, digest, NULL, key, key_len,
					  message, len, expected, sizeof(expected), &got));
			REQUIRE_EQ(got, hash->len);
			REQUIRE_MEM_EQ(out, expected, got);
		}
	}
}

static void hmac_equals_openssls(void **state)
{
	const bool has = has_sha_ni;

	(void)state;
	compare_hmacs("SHA256");
	compare_hmacs("SHA384");
	has_sha_ni = !has;
	if (!has_sha_ni)
		compare_hmacs("SHA256");
	has_sha_ni = has;
}

/* ---- the permutation */

static void permutation_is_one(void **state)
{
	static const size_t lengths[] = { 32, 48 };
	static struct vault vault;
	static struct work work;
	struct opened o = { .vault = &vault, .work = &work };
	uint8_t secret[48], wrapped[48], other[48], back[48];
	size_t i, n, same;
	int kind, round;

	(void)state;
	RAND_bytes((uint8_t *)vault.key, sizeof(vault.key));
	for (round = 0; round < 1000; round++) {
		for (i = 0; i < 2; i++) {
			kind = 1 + round % SECRET_PRIVATE;
			RAND_bytes(secret, sizeof(secret));
			epkp_wrap(&o, kind, wrapped, secret, lengths[i]);
			epkp_unwrap(&o, kind, back, wrapped, lengths[i]);
			REQUIRE_MEM_EQ(back, secret, lengths[i]);
			/* One bit, and another kind: each changes all of it. */
			secret[round % lengths[i]] ^= 1 << round % 8;
			epkp_wrap(&o, kind, other, secret, lengths[i]);
			for (n = same = 0; n < lengths[i]; n++)
				same += other[n] == wrapped[n];
			REQUIRE(same < 6);
			epkp_wrap(&o, kind + 1, wrapped, secret, lengths[i]);
			for (n = same = 0; n < lengths[i]; n++)
				same += other[n] == wrapped[n];
			REQUIRE(same < 6);
		}
	}
}

/* ---- x25519 against OpenSSL's */

static bool theirs(uint8_t out[32], const uint8_t *scalar, const uint8_t *point)
{
	EVP_PKEY *mine = EVP_PKEY_new_raw_private_key_ex(plain, "X25519", NULL, scalar, 32);
	EVP_PKEY *peer = EVP_PKEY_new_raw_public_key_ex(plain, "X25519", NULL, point, 32);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(plain, mine, NULL);
	size_t len = 32;
	bool ok = EVP_PKEY_derive_init(ctx) > 0 && EVP_PKEY_derive_set_peer(ctx, peer) > 0 &&
		  EVP_PKEY_derive(ctx, out, &len) > 0;

	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(mine);
	EVP_PKEY_free(peer);
	return ok;
}

/* Random ones, those of few bits, and those around the prime, which are not reduced. */
static void choose_point(uint8_t point[32], int round)
{
	RAND_bytes(point, 32);
	if (round % 4 == 1) {
		memset(point, 0, 32);
		point[0] = round / 4;
	} else if (round % 4 == 2) {
		memset(point, 0xff, 32);
		point[0] = 0xe0 + round / 4 % 32;
		point[31] = round % 8 < 4 ? 0x7f : 0xff;
	}
}

static void x25519_equals_openssls(void **state)
{
	/* RFC 7748, 5.2 */
	static const uint8_t after_1000[32] = {
		0x68, 0x4c, 0xf5, 0x9b, 0xa8, 0x33, 0x09, 0x55, 0x28, 0x00, 0xef, 0x56, 0x6f, 0x2f,
		0x4d, 0x3c, 0x1c, 0x38, 0x87, 0xc4, 0x93, 0x60, 0xe3, 0x87, 0x5f, 0x2e, 0xb9, 0x4d,
		0x99, 0x53, 0x2c, 0x51,
	};
	uint8_t k[32] = { 9 }, u[32] = { 9 }, out[32], expected[32] = { 0 };
	struct x25519_work w;
	int round;

	(void)state;
	for (round = 0; round < 1000; round++) {
		REQUIRE(epkp_x25519(&w, out, k, u));
		memcpy(u, k, 32);
		memcpy(k, out, 32);
	}
	REQUIRE_MEM_EQ(k, after_1000, 32);
	for (round = 0; round < 3000; round++) {
		RAND_bytes(k, 32);
		choose_point(u, round);
		if (theirs(expected, k, u)) {
			REQUIRE(epkp_x25519(&w, out, k, u));
			REQUIRE_MEM_EQ(out, expected, 32);
		} else {
			REQUIRE(!epkp_x25519(&w, out, k, u));
		}
	}
	ERR_clear_error();
}

/* ---- the KDFs */

struct call {
	const char *label;
	uint8_t *key, *data;
	size_t key_len, data_len;
	int mode;
	const char *digest;
};

static int derive13(OSSL_LIB_CTX *libctx, const struct call *c, uint8_t *out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS13-KDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	int mode = c->mode ? c->mode : EVP_KDF_HKDF_MODE_EXPAND_ONLY, ret;
	OSSL_PARAM params[8], *p = params;

	*p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST,
						(char *)(c->digest ? c->digest : "SHA256"), 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, c->key, c->key_len);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (char *)c->label,
						 strlen(c->label));
	if (c->data)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_DATA, c->data, c->data_len);
	*p = OSSL_PARAM_construct_end();
	ret = EVP_KDF_derive(ctx, out, len, params);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ret;
}

static uint8_t secret[32] = { 42 };

static int expand(const char *label, uint8_t *out, size_t len)
{
	struct call c = { .label = label, .key = secret, .key_len = sizeof(secret) };

	return derive13(with_epk, &c, out, len);
}

static void require_refused(int ret, enum epk_reason reason)
{
	REQUIRE(ret <= 0);
	REQUIRE_EQ(ERR_GET_REASON(ERR_peek_error()), reason);
	ERR_clear_error();
}

static void what_cannot_be_is_refused(void **state)
{
	uint8_t out[64], psk[20] = { 1 };
	struct call external = { .label = "derived", .key = psk, .key_len = sizeof(psk),
				 .mode = EVP_KDF_HKDF_MODE_EXTRACT_ONLY };
	struct call md5 = { .label = "iv", .key = secret, .key_len = 32, .digest = "MD5-SHA1" };
	struct call mode = { .label = "iv", .key = secret, .key_len = 32, .mode = 77 };
	struct call shorter = { .label = "iv", .key = secret, .key_len = 31 };

	size_t i, len;

	(void)state;
	/* Those that have no room for a handle: nothing is written out of bounds. */
	for (len = 0; len < 16; len++) {
		memset(out, 7, sizeof(out));
		require_refused(expand("key", out + 16, len), EPK_R_DERIVATION);
		for (i = 0; i < sizeof(out); i++)
			REQUIRE_EQ(out[i], 7);
	}
	require_refused(expand("key", out, 49), EPK_R_DERIVATION);
	require_ossl(expand("key", out, 16));
	require_ossl(expand("key", out, 48));
	require_refused(expand("ext binder", out, 32), EPK_R_EXTERNAL_PSK);
	require_refused(derive13(with_epk, &external, out, 32), EPK_R_EXTERNAL_PSK);
	require_refused(expand("quic key", out, 16), EPK_R_DERIVATION);
	require_refused(expand("quic hp", out, 32), EPK_R_DERIVATION);
	require_refused(expand("s ap traffic", out, 31), EPK_R_DERIVATION);
	require_refused(expand("key", out, 64), EPK_R_DERIVATION);
	require_refused(derive13(with_epk, &md5, out, 12), EPK_R_DIGEST);
	require_refused(derive13(with_epk, &mode, out, 12), EPK_R_DERIVATION);
	require_refused(derive13(with_epk, &shorter, out, 12), EPK_R_DERIVATION);
}

/* @seeds as libssl has them, or one, as others do. */
static int prf(OSSL_LIB_CTX *libctx, int seeds, const char *digest, size_t secret_len,
	       const char *label, uint8_t *out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS1-PRF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	static uint8_t random[32] = { 7 }, bytes[64] = { 1, 2 };
	OSSL_PARAM params[10], *p = params;
	int i, ret;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, bytes, secret_len);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, (char *)label,
						 strlen(label));
	for (i = 1; i < seeds; i++)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, random,
							 i < 3 ? sizeof(random) : 0);
	*p = OSSL_PARAM_construct_end();
	ret = EVP_KDF_derive(ctx, out, len, params);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ret;
}

/* A secret that RSA, ffdhe2048 or a curve of others has agreed on. */
static void foreign_key_exchange_is_refused(void **state)
{
	uint8_t out[48];

	(void)state;
	require_refused(prf(with_epk, 5, "SHA256", 48, "master secret", out, 48),
			EPK_R_KEY_EXCHANGE);
	require_refused(prf(with_epk, 5, "MD5-SHA1", 48, "key expansion", out, 40), EPK_R_DIGEST);
}

static void applications_own_secrets_are_theirs(void **state)
{
	uint8_t out[100], expected[100], key[32] = { 3 };
	OSSL_LIB_CTX *libctx[2] = { with_epk, plain };
	uint8_t *to[2] = { out, expected };
	size_t n, len;
	int i;

	(void)state;
	for (i = 0; i < 2; i++)
		require_ossl(prf(libctx[i], 1, "SHA256", 20, "my own", to[i], 100));
	REQUIRE_MEM_EQ(out, expected, 100);
	for (len = 0; len <= 32; len += 16) {
		for (i = 0; i < 2; i++)
			REQUIRE(EVP_Q_mac(libctx[i], "HMAC", NULL, "SHA256", NULL, key, len,
					  key, 32, to[i], 100, &n));
		REQUIRE_MEM_EQ(out, expected, 32);
	}
	/* Zeros are remembered by nobody. */
	memset(key, 0, sizeof(key));
	for (i = 0; i < 2; i++)
		REQUIRE(EVP_Q_mac(libctx[i], "HMAC", NULL, "SHA256", NULL, key, 32, expected,
				  100, to[i], 100, &n));
	REQUIRE_EQ(n, 32);
}

/* None is dropped without a word. */
static void more_parameters_than_there_is_room_for(void **state)
{
	EVP_MAC *mac = EVP_MAC_fetch(with_epk, "HMAC", NULL);
	EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);
	OSSL_PARAM params[17];
	int i;

	(void)state;
	for (i = 0; i < 16; i++)
		params[i] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
							     "SHA256", 0);
	params[16] = OSSL_PARAM_construct_end();
	require_refused(EVP_MAC_CTX_set_params(ctx, params), EPK_R_DERIVATION);
	require_ossl(EVP_MAC_CTX_set_params(ctx, params + 1));
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(mac);
}

/* ---- handles */

static int key_cipher(const uint8_t *key)
{
	EVP_CIPHER *cipher = fetch(with_epk, "AES-256-GCM");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int ret = EVP_EncryptInit_ex2(ctx, cipher, key, NULL, NULL);

	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return ret;
}

static void key_is_taken_once(void **state)
{
	uint8_t handle[32], other[32];

	(void)state;
	require_ossl(expand("key", handle, 32));
	require_ossl(expand("key", other, 32));
	REQUIRE_MEM_NE(handle, other, 32);
	require_ossl(key_cipher(handle));
	require_refused(key_cipher(handle), EPK_R_KEY_GONE);
	/* No handle, but what an application has for a key. */
	other[31] ^= 1;
	require_ossl(key_cipher(other));
	other[31] ^= 1;
	require_ossl(key_cipher(other));
}

/* Handshakes that wait for their clients' next message. */
static void thousands_of_keys_may_wait(void **state)
{
	static uint8_t handles[4000][32];
	int i;

	(void)state;
	for (i = 0; i < 4000; i++)
		require_ossl(expand("key", handles[i], 32));
	for (i = 0; i < 4000; i++)
		require_ossl(key_cipher(handles[i]));
}

static void key_that_waits_too_long_is_gone(void **state)
{
	uint8_t first[32], last[32];
	int i;

	(void)state;
	require_ossl(expand("key", first, 32));
	for (i = 0; i < NR_KEPT; i++)
		require_ossl(expand("key", last, 32));
	require_refused(key_cipher(first), EPK_R_KEY_GONE);
	require_ossl(key_cipher(last));
	/* Those that were asked for do not count. */
	require_ossl(expand("key", first, 32));
	for (i = 0; i < NR_KEPT + 100; i++) {
		require_ossl(expand("key", last, 32));
		require_ossl(key_cipher(last));
	}
	require_ossl(key_cipher(first));
}

/* ---- K in other processes */

static int in_child(int (*child)(const uint8_t *iv), const uint8_t *iv)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid)
		_exit(child(iv));
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static int has_key(const uint8_t *iv)
{
	uint8_t here[12];

	return expand("iv", here, 12) <= 0 || memcmp(here, iv, 12);
}

static int forks_again(const uint8_t *iv)
{
	return has_key(iv) || in_child(has_key, iv);
}

static int has_none(const uint8_t *iv)
{
	uint8_t here[12];

	(void)iv;
	return expand("iv", here, 12) > 0 || ERR_GET_REASON(ERR_peek_error()) != EPK_R_NO_KEY;
}

static int handle_is_gone(const uint8_t *handle)
{
	return key_cipher(handle) > 0 || ERR_GET_REASON(ERR_peek_error()) != EPK_R_KEY_GONE;
}

static void children_have_the_key(void **state)
{
	uint8_t iv[12], handle[32];
	struct rlimit few = { .rlim_cur = 0 }, limit;
	int status;
	pid_t pid;

	(void)state;
	require_ossl(expand("iv", iv, 12));
	REQUIRE_EQ(in_child(has_key, iv), 0);
	REQUIRE_EQ(in_child(forks_again, iv), 0);
	require_ossl(expand("key", handle, 32));
	REQUIRE_EQ(in_child(handle_is_gone, handle), 0);
	require_ossl(key_cipher(handle));
	/* No descriptors for a pipe: no key, and no other one in its place. */
	REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few.rlim_max = limit.rlim_max;
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
	pid = fork();
	if (!pid)
		_exit(has_none(iv));
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	REQUIRE_EQ(has_key(iv), 0);
}

/* A process that has not been forked from this one has another. */
static void other_processes_have_another_key(void **state)
{
	uint8_t iv[12], theirs_is[12];
	int fds[2], status;
	pid_t pid;

	(void)state;
	require_ossl(expand("iv", iv, 12));
	REQUIRE_EQ(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		dup2(fds[1], 10);
		execl("/proc/self/exe", "provider_wrap_test", "iv", NULL);
		_exit(127);
	}
	close(fds[1]);
	REQUIRE_EQ(read(fds[0], theirs_is, 12), 12);
	close(fds[0]);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	REQUIRE_MEM_NE(iv, theirs_is, 12);
}

static int tell_iv(void)
{
	uint8_t iv[12];

	with_epk = make_libctx(1);
	return expand("iv", iv, 12) <= 0 || write(10, iv, 12) != 12;
}

/* ---- what one operation leaves */

/* Of the child, for its parent; keys inverted. */
static struct told {
	uint8_t inverted[48], public_key[PUBLIC_MAX];
	size_t len, public_len, nr_domains;
	struct range domains[256];
} *told;

static bool is_watched;

__attribute__((visibility("default"))) ssize_t getrandom(void *to, size_t len, unsigned int flags)
{
	static ssize_t (*real)(void *to, size_t len, unsigned int flags);
	const volatile uint8_t *bytes = to;
	ssize_t ret;
	size_t i;

	if (!real)
		real = (ssize_t (*)(void *, size_t, unsigned int))dlsym(RTLD_NEXT, "getrandom");
	ret = real(to, len, flags);
	if (!is_watched || (len != 32 && len != 48))
		return ret;
	for (i = 0; i < len; i++)
		*(volatile uint8_t *)&told->inverted[i] = ~bytes[i];
	told->len = len;
	is_watched = false;
	return ret;
}

static int tell_domain(int dom, void *addr, size_t len, void *arg)
{
	(void)dom;
	(void)arg;
	told->domains[told->nr_domains++] = (struct range){ (uintptr_t)addr, (uintptr_t)addr + len };
	return 0;
}

/* EPK-..., or OpenSSL's own. */
static bool is_ours(const char *algorithm)
{
	return !strncmp(algorithm, "EPK-", 4);
}

static EVP_PKEY *generate(const char *algorithm)
{
	bool is_curve = !strncmp(algorithm, "P-", 2);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(is_ours(algorithm) ? with_epk : plain,
						       is_curve ? "EC" : algorithm, NULL);
	EVP_PKEY *pkey = NULL;

	REQUIRE(ctx);
	require_ossl(EVP_PKEY_keygen_init(ctx));
	if (is_curve)
		require_ossl(EVP_PKEY_CTX_set_group_name(ctx, algorithm));
	require_ossl(EVP_PKEY_keygen(ctx, &pkey));
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

/* Of OpenSSL's own. */
static void tell_private(EVP_PKEY *pkey)
{
	BIGNUM *number = NULL;
	size_t i, len = 32;

	if (EVP_PKEY_is_a(pkey, "X25519")) {
		EVP_PKEY_get_raw_private_key(pkey, told->inverted, &len);
	} else {
		EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &number);
		len = EVP_PKEY_get_bits(pkey) / 8;
		BN_bn2binpad(number, told->inverted, len);
		BN_clear_free(number);
	}
	for (i = 0; i < len; i++)
		told->inverted[i] ^= 0xff;
	told->len = len;
}

static void tell_public(EVP_PKEY *pkey)
{
	uint8_t *point;

	told->public_len = EVP_PKEY_get1_encoded_public_key(pkey, &point);
	memcpy(told->public_key, point, told->public_len);
	OPENSSL_free(point);
}

/* Is it that key which has been drawn? */
static bool is_private_key(const uint8_t *key)
{
	static const uint8_t base[32] = { 9 };
	uint8_t point[PUBLIC_MAX];
	EC_GROUP *group;
	EC_POINT *p;
	BIGNUM *n;

	if (told->public_len == 32)
		return theirs(point, key, base) && !memcmp(point, told->public_key, 32);
	group = EC_GROUP_new_by_curve_name(told->len == 48 ? NID_secp384r1 : NID_X9_62_prime256v1);
	p = EC_POINT_new(group);
	n = BN_bin2bn(key, told->len, NULL);
	require_ossl(EC_POINT_mul(group, p, n, NULL, NULL, NULL));
	REQUIRE_EQ(EC_POINT_point2oct(group, p, POINT_CONVERSION_UNCOMPRESSED, point,
				      sizeof(point), NULL), told->public_len);
	BN_free(n);
	EC_POINT_free(p);
	EC_GROUP_free(group);
	return !memcmp(point, told->public_key, told->public_len);
}

/* Stops right after it has generated a key, or used one. */
static void exchange(const char *algorithm, bool derives)
{
	EVP_PKEY *peer = generate(algorithm), *mine;
	EVP_PKEY_CTX *ctx;
	uint8_t handle[48];
	size_t len = sizeof(handle);

	epk_for_each_mapping(tell_domain, NULL);
	is_watched = is_ours(algorithm);
	mine = generate(algorithm);
	tell_public(mine);
	if (!is_ours(algorithm))
		tell_private(mine);
	if (derives) {
		ctx = EVP_PKEY_CTX_new_from_pkey(is_ours(algorithm) ? with_epk : plain, mine, NULL);
		EVP_PKEY_derive_init(ctx);
		EVP_PKEY_derive_set_peer(ctx, peer);
		if (EVP_PKEY_derive(ctx, handle, &len) <= 0)
			_exit(1);
	}
	syscall(SYS_kill, getpid(), SIGSTOP);
	_exit(0);
}

static size_t left_by(const char *algorithm, bool derives)
{
	static struct image image;
	size_t i, found;
	int status;
	pid_t pid;

	memset(told, 0, sizeof(*told));
	pid = fork();
	if (!pid)
		exchange(algorithm, derives);
	REQUIRE_EQ(waitpid(pid, &status, WUNTRACED), pid);
	REQUIRE(WIFSTOPPED(status));
	REQUIRE(told->len == 32 || told->len == 48);
	for (i = 0; i < told->len; i++)
		told->inverted[i] ^= 0xff;
	REQUIRE(is_private_key(told->inverted));
	nr_needles = 0;
	add_needle(algorithm, told->inverted, told->len, false);
	memset(told->inverted, 0, sizeof(told->inverted));
	REQUIRE(take_image(&image, pid, told->domains, told->nr_domains));
	scan_image(&image);
	drop_image(&image);
	found = needles[0].found;
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (found && is_ours(algorithm))
		printf("%s, %s: %zu times\n", algorithm, derives ? "derive" : "generate", found);
	return found;
}

static bool takes_point(const char *algorithm, const uint8_t *point, size_t len)
{
	EVP_PKEY *mine = generate(algorithm), *peer = EVP_PKEY_new();
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(with_epk, mine, NULL);
	uint8_t handle[48];
	size_t size = sizeof(handle);
	bool taken;

	require_ossl(EVP_PKEY_copy_parameters(peer, mine));
	taken = EVP_PKEY_set1_encoded_public_key(peer, point, len) > 0 &&
		EVP_PKEY_derive_init(ctx) > 0 && EVP_PKEY_derive_set_peer(ctx, peer) > 0 &&
		EVP_PKEY_derive(ctx, handle, &size) > 0;
	if (!taken)
		REQUIRE_EQ(ERR_GET_REASON(ERR_peek_last_error()), EPK_R_PUBLIC_KEY);
	ERR_clear_error();
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(mine);
	EVP_PKEY_free(peer);
	return taken;
}

static void wrong_points_are_refused(void **state)
{
	uint8_t *point, other[200] = { 0 };
	EVP_PKEY *pkey;
	size_t len;

	(void)state;
	/* Nothing can be agreed on with zero, and with one of order 8. */
	REQUIRE(!takes_point("EPK-X25519", other, 32));
	other[0] = 1;
	REQUIRE(!takes_point("EPK-X25519", other, 32));
	other[0] = 9;
	REQUIRE(takes_point("EPK-X25519", other, 32));
	REQUIRE(!takes_point("EPK-X25519", other, 31));
	REQUIRE(!takes_point("EPK-X25519", other, 33));

	pkey = generate("EPK-P256");
	len = EVP_PKEY_get1_encoded_public_key(pkey, &point);
	REQUIRE_EQ(len, 65);
	REQUIRE(takes_point("EPK-P256", point, len));
	REQUIRE(!takes_point("EPK-P256", point, len - 1));
	REQUIRE(!takes_point("EPK-P384", point, len));
	point[64] ^= 1;
	REQUIRE(!takes_point("EPK-P256", point, len));
	/* Compressed: TLS 1.3 has none. */
	point[0] = 2;
	REQUIRE(!takes_point("EPK-P256", point, 33));
	/* None at all. */
	memset(other, 0, sizeof(other));
	REQUIRE(!takes_point("EPK-P256", other, 1));
	REQUIRE(!takes_point("EPK-P256", other, 65));
	OPENSSL_free(point);
	EVP_PKEY_free(pkey);
}

static void private_keys_leave_nothing(void **state)
{
	static const char *const algorithms[] = { "EPK-X25519", "EPK-P256", "EPK-P384" };
	static const char *const stock[] = { "X25519", "P-256", "P-384" };
	size_t i, found = 0;

	(void)state;
	told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE_NE(told, MAP_FAILED);
	for (i = 0; i < 3; i++) {
		found += left_by(algorithms[i], false);
		found += left_by(algorithms[i], true);
		/* Who looks finds it, where it is. */
		REQUIRE(left_by(stock[i], false) > 0);
		REQUIRE(left_by(stock[i], true) > 0);
	}
	REQUIRE_EQ(found, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hmac_equals_openssls),
		cmocka_unit_test(permutation_is_one),
		cmocka_unit_test(x25519_equals_openssls),
		cmocka_unit_test(what_cannot_be_is_refused),
		cmocka_unit_test(foreign_key_exchange_is_refused),
		cmocka_unit_test(applications_own_secrets_are_theirs),
		cmocka_unit_test(more_parameters_than_there_is_room_for),
		cmocka_unit_test(key_is_taken_once),
		cmocka_unit_test(thousands_of_keys_may_wait),
		cmocka_unit_test(key_that_waits_too_long_is_gone),
		cmocka_unit_test(children_have_the_key),
		cmocka_unit_test(other_processes_have_another_key),
		cmocka_unit_test(wrong_points_are_refused),
		cmocka_unit_test(private_keys_leave_nothing),
	};

	if (argc == 2 && !strcmp(argv[1], "iv"))
		return tell_iv();
	return cmocka_run_group_tests_name("provider_wrap", tests, make_both, NULL);
}
