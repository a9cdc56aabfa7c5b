// SPDX-License-Identifier: MIT
/*
 * Cipher contexts of the epk provider: what they refuse, where they live, and
 * what they leave behind.
 */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/core_names.h>

#include "provider_test.h"
#include "provider/epk_provider.h"

OSSL_LIB_CTX *with_epk, *plain;

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

	return cmocka_run_group_tests_name("provider_context", tests, setup, NULL);
}
