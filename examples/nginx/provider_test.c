// SPDX-License-Identifier: MIT
/*
 * The epk provider's ciphers against published vectors and against OpenSSL's
 * own provider.
 */
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/rand.h>

#include "provider_test.h"
#include "provider/epk_provider.h"

#define DATA_MAX	20000
#define AAD_MAX		300
#define ROUNDS		150

static OSSL_LIB_CTX *with_epk, *plain;

static const char *const names[] = { "AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305" };

static size_t below(size_t limit)
{
	uint32_t r;

	assert_int_equal(RAND_bytes((void *)&r, sizeof(r)), 1);
	return r % limit;
}

static EVP_CIPHER *fetch(OSSL_LIB_CTX *libctx, const char *name)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, name, NULL);
	const char *provider;

	assert_ossl(cipher != NULL);
	provider = OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher));
	assert_string_equal(provider, libctx == with_epk ? "epk" : "default");
	return cipher;
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
		assert_ossl(EVP_CipherUpdate(ctx, out, &outl, in, n));
		assert_int_equal(outl, n);
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

	assert_ossl(EVP_CipherInit_ex2(ctx, cipher, NULL, NULL, sealing, NULL));
	assert_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, m->iv_len, NULL));
	assert_ossl(EVP_CipherInit_ex2(ctx, NULL, m->key, m->iv, sealing, NULL));
	pieces(ctx, NULL, m->aad, m->aad_len, whole);
	pieces(ctx, out, in, m->len, whole);
	if (!sealing)
		assert_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, m->tag));
	ret = EVP_CipherFinal_ex(ctx, end, &outl);
	assert_int_equal(outl, 0);
	if (sealing)
		assert_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, m->tag));
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return ret;
}

static size_t unhex(uint8_t *out, const char *hex)
{
	size_t n;

	for (n = 0; hex[2 * n]; n++)
		assert_int_equal(sscanf(hex + 2 * n, "%2hhx", &out[n]), 1);
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
		assert_ossl(run_message(with_epk, &m, m.in, m.out, 1, 1));
		assert_memory_equal(m.out, out, m.len);
		assert_memory_equal(m.tag, tag, TAG_LEN);
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
	assert_ossl(run_message(plain, &a, a.in, a.out, 1, 1));
	/* in place */
	memcpy(b.out, b.in, b.len);
	assert_ossl(run_message(with_epk, &b, b.out, b.out, 1, below(2)));
	assert_memory_equal(a.out, b.out, a.len);
	assert_memory_equal(a.tag, b.tag, TAG_LEN);

	memset(b.in, 0, sizeof(b.in));
	assert_ossl(run_message(with_epk, &b, a.out, b.in, 0, below(2)));
	assert_memory_equal(a.in, b.in, a.len);

	b.tag[below(TAG_LEN)] ^= 1 << below(8);
	assert_int_equal(run_message(with_epk, &b, a.out, b.in, 0, 1), 0);
	if (a.len) {
		bit = below(a.len * 8);
		b = a;
		b.out[bit / 8] ^= 1 << bit % 8;
		assert_int_equal(run_message(with_epk, &b, b.out, b.in, 0, 1), 0);
	}
	if (a.aad_len) {
		b = a;
		b.aad[below(a.aad_len)] ^= 1 << below(8);
		assert_int_equal(run_message(with_epk, &b, b.out, b.in, 0, 1), 0);
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

		assert_int_equal(EVP_CIPHER_get_key_length(a), EVP_CIPHER_get_key_length(b));
		assert_int_equal(EVP_CIPHER_get_iv_length(a), EVP_CIPHER_get_iv_length(b));
		assert_int_equal(EVP_CIPHER_get_block_size(a), EVP_CIPHER_get_block_size(b));
		assert_int_equal(EVP_CIPHER_get_mode(a), EVP_CIPHER_get_mode(b));
		assert_int_equal(EVP_CIPHER_get_flags(a), EVP_CIPHER_get_flags(b));
		assert_int_equal(EVP_CIPHER_get_nid(a), EVP_CIPHER_get_nid(b));
		EVP_CIPHER_free(a);
		EVP_CIPHER_free(b);
	}
}

/* One context set up to seal with AES-128-GCM, or to open. */
static EVP_CIPHER_CTX *ready(int sealing)
{
	static const uint8_t key[16] = { 1 }, iv[IV_LEN] = { 2 };
	EVP_CIPHER *cipher = fetch(with_epk, "AES-128-GCM");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	assert_ossl(EVP_CipherInit_ex2(ctx, cipher, key, iv, sealing, NULL));
	EVP_CIPHER_free(cipher);
	return ctx;
}

static void expect_refusal(int ret, int reason)
{
	unsigned long err = ERR_peek_error();

	assert_true(ret <= 0);
	assert_int_equal(ERR_GET_REASON(err), reason);
	assert_non_null(ERR_reason_error_string(err));
	ERR_clear_error();
}

static void update_after_final_is_refused(void **state)
{
	EVP_CIPHER_CTX *ctx = ready(1);
	uint8_t buf[16] = { 0 };
	int outl;

	(void)state;
	assert_ossl(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)));
	assert_ossl(EVP_CipherFinal_ex(ctx, buf, &outl));
	expect_refusal(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)), EPK_R_NO_IV);
	expect_refusal(EVP_CipherFinal_ex(ctx, buf, &outl), EPK_R_NO_IV);
	EVP_CIPHER_CTX_free(ctx);
}

static void aad_after_data_is_refused(void **state)
{
	EVP_CIPHER_CTX *ctx = ready(1);
	uint8_t buf[16] = { 0 };
	int outl;

	(void)state;
	assert_ossl(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)));
	expect_refusal(EVP_CipherUpdate(ctx, NULL, &outl, buf, sizeof(buf)), EPK_R_AAD_AFTER_DATA);
	EVP_CIPHER_CTX_free(ctx);
}

static void missing_key_iv_and_tag_are_refused(void **state)
{
	static const uint8_t key[16];
	EVP_CIPHER *cipher = fetch(with_epk, "AES-128-GCM");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t buf[16] = { 0 };
	int outl;

	(void)state;
	assert_ossl(EVP_CipherInit_ex2(ctx, cipher, NULL, NULL, 1, NULL));
	expect_refusal(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)), EPK_R_NO_KEY);
	assert_ossl(EVP_CipherInit_ex2(ctx, NULL, key, NULL, 1, NULL));
	expect_refusal(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)), EPK_R_NO_IV);
	expect_refusal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, buf), EPK_R_NO_TAG);
	expect_refusal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, buf),
		       EPK_R_TAG_WHEN_SEALING);
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);

	ctx = ready(0);
	assert_ossl(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)));
	expect_refusal(EVP_CipherFinal_ex(ctx, buf, &outl), EPK_R_NO_TAG);
	EVP_CIPHER_CTX_free(ctx);
}

static int set_param(EVP_CIPHER_CTX *ctx, const char *name, void *bytes, size_t len)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(name, bytes, len),
		OSSL_PARAM_construct_end()
	};

	return EVP_CIPHER_CTX_set_params(ctx, params);
}

static void wrong_lengths_are_refused(void **state)
{
	EVP_CIPHER_CTX *ctx = ready(0);
	size_t len = 17;
	OSSL_PARAM keylen[] = {
		OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_KEYLEN, &len),
		OSSL_PARAM_construct_end()
	};
	uint8_t buf[IV_MAX + 1] = { 0 };

	(void)state;
	expect_refusal(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TAG, buf, TAG_LEN + 1),
		       EPK_R_TAG_LENGTH);
	expect_refusal(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TAG, buf, 0), EPK_R_TAG_LENGTH);
	expect_refusal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, IV_MAX + 1, NULL),
		       EPK_R_IV_LENGTH);
	expect_refusal(EVP_CIPHER_CTX_set_params(ctx, keylen), EPK_R_KEY_LENGTH);
	expect_refusal(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, buf, 12), EPK_R_TLS_AAD);
	/* A header that announces 0 bytes has no room for IV and tag. */
	expect_refusal(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, buf, 13), EPK_R_TLS_AAD);
	expect_refusal(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, buf, 5), EPK_R_TLS_IV);
	EVP_CIPHER_CTX_free(ctx);
}

static void record_of_another_length_is_refused(void **state)
{
	EVP_CIPHER_CTX *ctx = ready(0);
	uint8_t aad[TLS_AAD_LEN] = { [12] = 100 }, buf[101] = { 0 };
	int outl;

	(void)state;
	assert_ossl(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, buf, 4));
	assert_ossl(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, aad, sizeof(aad)));
	expect_refusal(EVP_CipherUpdate(ctx, buf, &outl, buf, 101), EPK_R_TLS_RECORD);
	assert_ossl(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, aad, sizeof(aad)));
	memset(buf, 0xff, sizeof(buf));
	expect_refusal(EVP_CipherUpdate(ctx, buf, &outl, buf, 100), EPK_R_BAD_TAG);
	/* what was opened is wiped */
	assert_int_equal(buf[8], 0);
	assert_memory_equal(buf + 8, buf + 9, 100 - 8 - TAG_LEN - 1);
	EVP_CIPHER_CTX_free(ctx);
}

static uint64_t explicit_iv_of_next_record(EVP_CIPHER_CTX *ctx)
{
	/* 9 bytes of payload and the explicit IV */
	uint8_t aad[TLS_AAD_LEN] = { [12] = 17 }, buf[17 + TAG_LEN] = { 0 };
	uint64_t iv = 0;
	int outl, i;

	assert_ossl(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, aad, sizeof(aad)));
	assert_ossl(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)));
	assert_int_equal(outl, sizeof(buf));
	for (i = 0; i < 8; i++)
		iv = iv << 8 | buf[i];
	return iv;
}

static void explicit_iv_counts_up(void **state)
{
	EVP_CIPHER_CTX *ctx = ready(1);
	uint8_t fixed[4] = { 0 };
	uint64_t iv;
	int i;

	(void)state;
	assert_ossl(set_param(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, fixed, sizeof(fixed)));
	iv = explicit_iv_of_next_record(ctx);
	for (i = 1; i < 600; i++)
		assert_int_equal(explicit_iv_of_next_record(ctx), iv + i);
	EVP_CIPHER_CTX_free(ctx);
}

#define STACK_BYTES	16384

/*
 * Is @needle on the stack below, where calls that have returned left it?
 * @needle is inverted, so that it is not itself what is found.
 */
static __attribute__((noinline)) bool left_on_stack(const uint8_t *needle, size_t len)
{
	const volatile uint8_t *stack = (uint8_t *)__builtin_frame_address(0) - STACK_BYTES;
	size_t at, i;

	for (at = 0; at < STACK_BYTES - len; at++) {
		for (i = 0; i < len && (stack[at + i] ^ needle[i]) == 0xff; i++)
			;
		if (i == len)
			return true;
	}
	return false;
}

/* The one-time Poly1305 key, which nettle makes on the stack (RFC 8439, 2.6). */
static void one_time_key(const uint8_t *key, const uint8_t *iv, uint8_t *inverted)
{
	EVP_CIPHER *chacha = EVP_CIPHER_fetch(plain, "ChaCha20", NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t counter_and_iv[16] = { 0 }, zeros[32] = { 0 };
	int outl, i;

	memcpy(counter_and_iv + 4, iv, IV_LEN);
	assert_ossl(EVP_EncryptInit_ex2(ctx, chacha, key, counter_and_iv, NULL));
	assert_ossl(EVP_EncryptUpdate(ctx, inverted, &outl, zeros, sizeof(zeros)));
	for (i = 0; i < 32; i++)
		inverted[i] = ~inverted[i];
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(chacha);
}

static __attribute__((noinline)) void clear_stack(void)
{
	char bytes[STACK_BYTES];

	explicit_bzero(bytes, sizeof(bytes));
}

static void stack_holds_no_key_after_use(void **state)
{
	static const uint8_t key[32] = { 3, 1, 4 }, iv[IV_LEN] = { 2, 7, 1 };
	static uint8_t inverted[32], text[1000];
	EVP_CIPHER *cipher = fetch(with_epk, "ChaCha20-Poly1305");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int outl, i;

	(void)state;
	one_time_key(key, iv, inverted);
	assert_ossl(EVP_EncryptInit_ex2(ctx, cipher, key, iv, NULL));
	clear_stack();
	/* starts the message, and little happens after that */
	assert_ossl(EVP_EncryptUpdate(ctx, NULL, &outl, text, 1));
	assert_false(left_on_stack(inverted, 16));
	assert_ossl(EVP_EncryptUpdate(ctx, text, &outl, text, sizeof(text)));
	assert_false(left_on_stack(inverted, 16));
	for (i = 0; i < 32; i++)
		inverted[i] = ~key[i];
	assert_false(left_on_stack(inverted, 16));
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
}

static void copy_goes_on_by_itself(void **state)
{
	EVP_CIPHER_CTX *a = ready(1), *b = EVP_CIPHER_CTX_new();
	uint8_t in[50] = "some text", out_a[50], out_b[50], tag_a[TAG_LEN], tag_b[TAG_LEN];
	int outl;

	(void)state;
	assert_ossl(EVP_CipherUpdate(a, out_a, &outl, in, 21));
	assert_ossl(EVP_CIPHER_CTX_copy(b, a));
	memcpy(out_b, out_a, 21);
	assert_ossl(EVP_CipherUpdate(b, out_b + 21, &outl, in + 21, 29));
	assert_ossl(EVP_CipherFinal_ex(b, in, &outl));
	EVP_CIPHER_CTX_ctrl(b, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag_b);
	EVP_CIPHER_CTX_free(b);
	assert_ossl(EVP_CipherUpdate(a, out_a + 21, &outl, in + 21, 29));
	assert_ossl(EVP_CipherFinal_ex(a, in, &outl));
	EVP_CIPHER_CTX_ctrl(a, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag_a);
	EVP_CIPHER_CTX_free(a);
	assert_memory_equal(out_a, out_b, 50);
	assert_memory_equal(tag_a, tag_b, TAG_LEN);
}

static void each_context_has_one_domain(void **state)
{
	EVP_CIPHER_CTX *ctx[64];
	uint64_t before = live_domains();
	int i;

	(void)state;
	for (i = 0; i < 64; i++)
		ctx[i] = ready(i % 2);
	assert_int_equal(live_domains(), before + 64);
	for (i = 0; i < 64; i++)
		EVP_CIPHER_CTX_free(ctx[i]);
	assert_int_equal(live_domains(), before);
}

/* Runs @child in a forked process; it returns true if all was well. */
static void in_child(int (*child)(void *), void *arg)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		_exit(child(arg) ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int use_after_fork(void *arg)
{
	uint8_t buf[16] = { 0 };
	int outl;

	if (EVP_CipherUpdate(arg, buf, &outl, buf, sizeof(buf)) > 0 ||
	    ERR_GET_REASON(ERR_peek_error()) != EPK_R_FORKED)
		return 0;
	EVP_CIPHER_CTX_free(arg);
	EVP_CIPHER_CTX_free(ready(1));
	return 1;
}

static void context_does_not_cross_fork(void **state)
{
	EVP_CIPHER_CTX *ctx = ready(1);
	uint8_t buf[16] = { 0 };
	int outl;

	(void)state;
	in_child(use_after_fork, ctx);
	assert_ossl(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)));
	EVP_CIPHER_CTX_free(ctx);
}

static int use_unknown_backend(void *arg)
{
	static const uint8_t key[16], iv[IV_LEN];
	OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
	char path[] = "/tmp/epk-provider-test-XXXXXX";
	char *dir = realpath(BUILD_DIR, NULL);
	FILE *f = fdopen(mkstemp(path), "w");
	EVP_CIPHER *cipher;
	int ret;

	(void)arg;
	fprintf(f, "openssl_conf = o\n[o]\nproviders = p\n[p]\nepk = e\n"
		"[e]\nmodule = %s/epk.so\nactivate = 1\nbackend = nonsense\n", dir);
	fclose(f);
	free(dir);
	ret = OSSL_LIB_CTX_load_config(libctx, path);
	unlink(path);
	if (!ret)
		return 0;
	cipher = EVP_CIPHER_fetch(libctx, "AES-128-GCM", NULL);
	if (!cipher)
		return 0;
	if (EVP_EncryptInit_ex2(EVP_CIPHER_CTX_new(), cipher, key, iv, NULL) > 0)
		return 0;
	return ERR_GET_REASON(ERR_peek_error()) == EPK_R_NO_DOMAIN;
}

static void context_without_domain_is_refused(void **state)
{
	(void)state;
	in_child(use_unknown_backend, NULL);
}

static int setup(void **state)
{
	(void)state;
	plain = make_libctx(0);
	with_epk = make_libctx(1);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* first: this process must not have chosen a backend yet */
		cmocka_unit_test(context_without_domain_is_refused),
		cmocka_unit_test(seal_vectors),
		cmocka_unit_test(output_equals_default_provider),
		cmocka_unit_test(lengths_equal_default_provider),
		cmocka_unit_test(update_after_final_is_refused),
		cmocka_unit_test(aad_after_data_is_refused),
		cmocka_unit_test(missing_key_iv_and_tag_are_refused),
		cmocka_unit_test(wrong_lengths_are_refused),
		cmocka_unit_test(record_of_another_length_is_refused),
		cmocka_unit_test(explicit_iv_counts_up),
		cmocka_unit_test(stack_holds_no_key_after_use),
		cmocka_unit_test(copy_goes_on_by_itself),
		cmocka_unit_test(each_context_has_one_domain),
		cmocka_unit_test(context_does_not_cross_fork),
	};

	return cmocka_run_group_tests_name("provider", tests, setup, NULL);
}
