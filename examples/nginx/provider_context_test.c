// SPDX-License-Identifier: MIT
/* Cipher contexts of the epk provider: where they live, and what a fork does to them. */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

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
	int i, round;

	(void)state;
	for (round = 0; round < 2; round++) {
		for (i = 0; i < 64; i++)
			ctx[i] = ready(i % 2);
		assert_int_equal(keyed_domains(), 64);
		for (i = 0; i < 64; i++)
			EVP_CIPHER_CTX_free(ctx[i]);
		/* They wait for the next ones, wiped. */
		assert_int_equal(keyed_domains(), 0);
		assert_int_equal(live_domains(), 64);
	}
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
		cmocka_unit_test(copy_goes_on_by_itself),
		cmocka_unit_test(each_context_has_one_domain),
		cmocka_unit_test(context_does_not_cross_fork),
	};

	return cmocka_run_group_tests_name("provider_context", tests, setup, NULL);
}
