// SPDX-License-Identifier: MIT
/*
 * The epk provider's ciphers against published vectors and against OpenSSL's
 * own provider.
 */
#include <openssl/rand.h>

#include "provider_test.h"
#include "provider/epk_provider.h"

#define DATA_MAX	20000
#define AAD_MAX		300
#define ROUNDS		150

OSSL_LIB_CTX *with_epk, *plain;

static const char *const names[] = { "AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305" };

static size_t below(size_t limit)
{
	uint32_t r;

	REQUIRE_EQ(RAND_bytes((void *)&r, sizeof(r)), 1);
	return r % limit;
}

struct message {
	const char *name;
	uint8_t key[32], iv[64], tag[TAG_LEN];
	size_t iv_len, aad_len, len;
	uint8_t aad[AAD_MAX], in[DATA_MAX], out[DATA_MAX];
};

/* Feeds @len bytes in pieces, so that pieces end anywhere in a block. */
static void pieces(EVP_CIPHER_CTX *ctx, uint8_t *out, const uint8_t *in, size_t len, int whole)
{
	size_t n;
	int outl;

	while (len) {
		n = whole || len < 4 ? len : 1 + below(below(4) ? 100 : len);
		if (n > len)
			n = len;
		require_ossl(EVP_CipherUpdate(ctx, out, &outl, in, n));
		REQUIRE_EQ(outl, n);
		in += n;
		len -= n;
		if (out)
			out += n;
	}
}

/* Returns what EVP_CipherFinal_ex() does. */
static int run_message(OSSL_LIB_CTX *libctx, struct message *m, const uint8_t *in, uint8_t *out,
		 int sealing, int whole)
{
	EVP_CIPHER *cipher = fetch(libctx, m->name);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t end[TAG_LEN];
	int outl, ret;

	require_ossl(EVP_CipherInit_ex2(ctx, cipher, NULL, NULL, sealing, NULL));
	require_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, m->iv_len, NULL));
	require_ossl(EVP_CipherInit_ex2(ctx, NULL, m->key, m->iv, sealing, NULL));
	pieces(ctx, NULL, m->aad, m->aad_len, whole);
	pieces(ctx, out, in, m->len, whole);
	if (!sealing)
		require_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, m->tag));
	ret = EVP_CipherFinal_ex(ctx, end, &outl);
	REQUIRE_EQ(outl, 0);
	if (sealing)
		require_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, m->tag));
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return ret;
}

static size_t unhex(uint8_t *out, const char *hex)
{
	size_t n;

	for (n = 0; hex[2 * n]; n++)
		REQUIRE_EQ(sscanf(hex + 2 * n, "%2hhx", &out[n]), 1);
	return n;
}

/* GCM specification (McGrew, Viega), cases 4 and 16; RFC 8439, 2.8.2 */
static const struct vector {
	const char *name, *key, *iv, *aad, *in, *out, *tag;
} vectors[] = {
	{
		"AES-128-GCM", "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
		"feedfacedeadbeeffeedfacedeadbeefabaddad2",
		"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
		"1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
		"42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
		"21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
		"5bc94fbc3221a5db94fae95ae7121a47",
	}, {
		"AES-256-GCM", "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
		"cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
		"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
		"1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
		"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
		"8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
		"76fc6ece0f4e1768cddf8853bb2d551b",
	}, {
		"ChaCha20-Poly1305",
		"808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
		"070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
		"4c616469657320616e642047656e746c656d656e206f662074686520636c6173"
		"73206f66202739393a204966204920636f756c64206f6666657220796f75206f"
		"6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
		"637265656e20776f756c642062652069742e",
		"d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
		"3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
		"92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
		"3ff4def08e4b7a9de576d26586cec64b6116",
		"1ae10b594f09e26a7e902ecbd0600691",
	},
};

static void seal_vectors(void **state)
{
	static struct message m;
	uint8_t out[256], tag[TAG_LEN];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		const struct vector *v = &vectors[i];

		m.name = v->name;
		unhex(m.key, v->key);
		m.iv_len = unhex(m.iv, v->iv);
		m.aad_len = unhex(m.aad, v->aad);
		m.len = unhex(m.in, v->in);
		unhex(out, v->out);
		unhex(tag, v->tag);
		require_ossl(run_message(with_epk, &m, m.in, m.out, 1, 1));
		REQUIRE_MEM_EQ(m.out, out, m.len);
		REQUIRE_MEM_EQ(m.tag, tag, TAG_LEN);
	}
}

static void randomize(struct message *m, const char *name, size_t iv_len)
{
	m->name = name;
	m->iv_len = iv_len;
	m->aad_len = below(4) ? below(AAD_MAX + 1) : 0;
	m->len = below(below(3) ? 200 : DATA_MAX + 1);
	RAND_bytes(m->key, sizeof(m->key));
	RAND_bytes(m->iv, sizeof(m->iv));
	RAND_bytes(m->aad, sizeof(m->aad));
	RAND_bytes(m->in, sizeof(m->in));
}

static void compare_once(const char *name, size_t iv_len)
{
	static struct message a, b;
	size_t bit;

	randomize(&a, name, iv_len);
	b = a;
	require_ossl(run_message(plain, &a, a.in, a.out, 1, 1));
	/* in place */
	memcpy(b.out, b.in, b.len);
	require_ossl(run_message(with_epk, &b, b.out, b.out, 1, below(2)));
	REQUIRE_MEM_EQ(a.out, b.out, a.len);
	REQUIRE_MEM_EQ(a.tag, b.tag, TAG_LEN);

	memset(b.in, 0, sizeof(b.in));
	require_ossl(run_message(with_epk, &b, a.out, b.in, 0, below(2)));
	REQUIRE_MEM_EQ(a.in, b.in, a.len);

	b.tag[below(TAG_LEN)] ^= 1 << below(8);
	REQUIRE_EQ(run_message(with_epk, &b, a.out, b.in, 0, 1), 0);
	if (a.len) {
		bit = below(a.len * 8);
		b = a;
		b.out[bit / 8] ^= 1 << bit % 8;
		REQUIRE_EQ(run_message(with_epk, &b, b.out, b.in, 0, 1), 0);
	}
	if (a.aad_len) {
		b = a;
		b.aad[below(a.aad_len)] ^= 1 << below(8);
		REQUIRE_EQ(run_message(with_epk, &b, b.out, b.in, 0, 1), 0);
	}
	ERR_clear_error();
}

static void output_equals_default_provider(void **state)
{
	size_t i;
	int round;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		for (round = 0; round < ROUNDS; round++)
			compare_once(names[i], IV_LEN);
	/* GCM alone takes other IVs. */
	for (round = 1; round <= 64; round++)
		compare_once(names[round % 2], round);
}

static void lengths_equal_default_provider(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		EVP_CIPHER *a = fetch(with_epk, names[i]), *b = fetch(plain, names[i]);

		REQUIRE_EQ(EVP_CIPHER_get_key_length(a), EVP_CIPHER_get_key_length(b));
		REQUIRE_EQ(EVP_CIPHER_get_iv_length(a), EVP_CIPHER_get_iv_length(b));
		REQUIRE_EQ(EVP_CIPHER_get_block_size(a), EVP_CIPHER_get_block_size(b));
		REQUIRE_EQ(EVP_CIPHER_get_mode(a), EVP_CIPHER_get_mode(b));
		REQUIRE_EQ(EVP_CIPHER_get_flags(a), EVP_CIPHER_get_flags(b));
		REQUIRE_EQ(EVP_CIPHER_get_nid(a), EVP_CIPHER_get_nid(b));
		EVP_CIPHER_free(a);
		EVP_CIPHER_free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seal_vectors),
		cmocka_unit_test(output_equals_default_provider),
		cmocka_unit_test(lengths_equal_default_provider),
	};

	return cmocka_run_group_tests_name("provider", tests, make_both, NULL);
}
