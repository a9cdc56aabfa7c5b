// SPDX-License-Identifier: MIT
/* Cipher contexts of the epk provider: where they live, and what a fork does to them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/params.h>

#include "provider_test.h"
#include "provider/epk_provider.h"

OSSL_LIB_CTX *with_epk, *plain;

/* In place of the library's: what it has to say to epk and mpk, if not 0. */
static int init_error[2];

int epk_init(const struct epk_options *options)
{
	static int (*init)(const struct epk_options *options);
	bool is_mpk = !strcmp(options->backend, "mpk");

	if (!init)
		init = (int (*)(const struct epk_options *))dlsym(RTLD_NEXT, "epk_init");
	if (init_error[is_mpk] && (is_mpk || !strcmp(options->backend, "epk")))
		return init_error[is_mpk];
	return init(options);
}

static int alloc_error;

int alloc_domains(int num, int *dom_ids)
{
	static int (*alloc)(int num, int *dom_ids);

	if (!alloc)
		alloc = (int (*)(int, int *))dlsym(RTLD_NEXT, "alloc_domains");
	return alloc_error ? alloc_error : alloc(num, dom_ids);
}

/* One context set up to seal with AES-128-GCM, or to open. */
static EVP_CIPHER_CTX *ready(int sealing)
{
	static const uint8_t key[16] = { 1 }, iv[IV_LEN] = { 2 };
	EVP_CIPHER *cipher = fetch(with_epk, "AES-128-GCM");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	require_ossl(EVP_CipherInit_ex2(ctx, cipher, key, iv, sealing, NULL));
	EVP_CIPHER_free(cipher);
	return ctx;
}

static void copy_goes_on_by_itself(void **state)
{
	EVP_CIPHER_CTX *a = ready(1), *b = EVP_CIPHER_CTX_new();
	uint8_t in[50] = "some text", out_a[50], out_b[50], tag_a[TAG_LEN], tag_b[TAG_LEN];
	int outl;

	(void)state;
	require_ossl(EVP_CipherUpdate(a, out_a, &outl, in, 21));
	require_ossl(EVP_CIPHER_CTX_copy(b, a));
	memcpy(out_b, out_a, 21);
	require_ossl(EVP_CipherUpdate(b, out_b + 21, &outl, in + 21, 29));
	require_ossl(EVP_CipherFinal_ex(b, in, &outl));
	EVP_CIPHER_CTX_ctrl(b, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag_b);
	EVP_CIPHER_CTX_free(b);
	require_ossl(EVP_CipherUpdate(a, out_a + 21, &outl, in + 21, 29));
	require_ossl(EVP_CipherFinal_ex(a, in, &outl));
	EVP_CIPHER_CTX_ctrl(a, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag_a);
	EVP_CIPHER_CTX_free(a);
	REQUIRE_MEM_EQ(out_a, out_b, 50);
	REQUIRE_MEM_EQ(tag_a, tag_b, TAG_LEN);
}

/* A record that is longer than its header says, when all seemed to be there already. */
static void seal_long_record(OSSL_LIB_CTX *libctx, const char *name, uint8_t sealed[40])
{
	static const uint8_t key[32] = { 1 }, iv[IV_LEN] = { 2 }, text[40] = { 3 };
	static const uint8_t header[] = { 23, 3, 3, 0, 20 + TAG_LEN };
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new(), *copy = EVP_CIPHER_CTX_new();
	EVP_CIPHER *cipher = fetch(libctx, name);
	int outl;

	require_ossl(EVP_CipherInit_ex2(ctx, cipher, key, iv, 1, NULL));
	require_ossl(EVP_CipherInit_ex2(ctx, NULL, NULL, iv, 1, NULL));
	require_ossl(EVP_CipherUpdate(ctx, NULL, &outl, header, sizeof(header)));
	require_ossl(EVP_CipherUpdate(ctx, sealed, &outl, text, 20));
	if (libctx == with_epk) {
		require_ossl(EVP_CIPHER_CTX_copy(copy, ctx));
		/* All that it was is zeros. */
		EVP_CIPHER_CTX_free(ctx);
		ctx = copy;
	} else {
		EVP_CIPHER_CTX_free(copy);
	}
	require_ossl(EVP_CipherUpdate(ctx, sealed + 20, &outl, text + 20, 20));
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
}

static void copy_has_what_is_kept(void **state)
{
	static const char *const names[] = { "AES-256-GCM", "ARIA-256-GCM", "ChaCha20-Poly1305" };
	uint8_t sealed[40], expected[40];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		seal_long_record(with_epk, names[i], sealed);
		seal_long_record(plain, names[i], expected);
		REQUIRE_MEM_EQ(sealed, expected, sizeof(sealed));
	}
}

static void each_context_has_one_domain(void **state)
{
	EVP_CIPHER_CTX *ctx[64];
	int i, round;

	(void)state;
	for (round = 0; round < 2; round++) {
		for (i = 0; i < 64; i++)
			ctx[i] = ready(i % 2);
		REQUIRE_EQ(keyed_domains(), 64);
		for (i = 0; i < 64; i++)
			EVP_CIPHER_CTX_free(ctx[i]);
		/* They wait for the next ones, wiped. */
		REQUIRE_EQ(keyed_domains(), 0);
		REQUIRE_EQ(live_contexts(), 64);
	}
}

static void error_tells_what_is_used_up(void **state)
{
	EVP_CIPHER *cipher = fetch(with_epk, "AES-128-GCM");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new(), *copy = EVP_CIPHER_CTX_new(), *others[65];
	static const uint8_t key[16] = { 1 }, long_iv[16] = { 2 };
	const char *data = "";
	int i;

	(void)state;
	/* All that waited. */
	for (i = 0; i < 65; i++)
		others[i] = ready(1);
	alloc_error = -ENOMEM;
	ERR_clear_error();
	/* There is nothing to protect yet. */
	require_ossl(EVP_CipherInit_ex2(ctx, cipher, NULL, NULL, 1, NULL));
	require_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, sizeof(long_iv), NULL));
	require_ossl(EVP_CIPHER_CTX_copy(copy, ctx));
	REQUIRE(!EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, 0, NULL));
	ERR_clear_error();
	REQUIRE_EQ(EVP_CipherInit_ex2(ctx, NULL, key, long_iv, 1, NULL), 0);
	alloc_error = 0;
	ERR_peek_error_all(NULL, NULL, NULL, &data, NULL);
	REQUIRE(strstr(data, "65 in use"));
	/* But not this one: worker_limit has that. */
	REQUIRE(!strstr(data, "has room for"));
	ERR_clear_error();
	REQUIRE_EQ(keyed_domains(), 65);
	for (i = 0; i < 65; i++)
		EVP_CIPHER_CTX_free(others[i]);
	/* It goes on as it was, and so does a copy. */
	require_ossl(EVP_CipherInit_ex2(ctx, NULL, key, long_iv, 1, NULL));
	require_ossl(EVP_CipherInit_ex2(copy, NULL, key, long_iv, 1, NULL));
	REQUIRE_EQ(keyed_domains(), 2);
	REQUIRE_EQ(EVP_CIPHER_CTX_get_iv_length(ctx), (int)sizeof(long_iv));
	REQUIRE_EQ(EVP_CIPHER_CTX_get_iv_length(copy), (int)sizeof(long_iv));
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_CTX_free(copy);
	EVP_CIPHER_free(cipher);
}

/* Runs @child in a forked process; it returns true if all was well. */
static void in_child(int (*child)(void *), void *arg)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid)
		_exit(child(arg) ? 0 : 1);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
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

/* As libssl opens records of CBC suites, MAC first: the context keeps the MAC. */
static EVP_CIPHER_CTX *with_mac(void)
{
	static const uint8_t key[16] = { 1 }, iv[16] = { 2 };
	unsigned int version = 0x303;
	size_t mac_len = 20;
	OSSL_PARAM params[] = { OSSL_PARAM_construct_uint(OSSL_CIPHER_PARAM_TLS_VERSION, &version),
				OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_TLS_MAC_SIZE, &mac_len),
				OSSL_PARAM_construct_end() };
	EVP_CIPHER *cipher = fetch(with_epk, "AES-128-CBC");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t record[160] = { 0 };
	int outl;

	require_ossl(EVP_CipherInit_ex2(ctx, cipher, key, iv, 0, params));
	EVP_CIPHER_free(cipher);
	EVP_CipherUpdate(ctx, record, &outl, record, sizeof(record));
	ERR_clear_error();
	return ctx;
}

/* An error that is left would be that of the next session's. */
static int free_after_fork(void *arg)
{
	EVP_CIPHER_CTX_free(arg);
	return !ERR_peek_error();
}

static void child_frees_contexts_quietly(void **state)
{
	EVP_CIPHER_CTX *ctx = with_mac(), *other = ready(1);

	(void)state;
	in_child(free_after_fork, ctx);
	in_child(free_after_fork, other);
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_CTX_free(other);
}

static void context_does_not_cross_fork(void **state)
{
	EVP_CIPHER_CTX *ctx = ready(1);
	uint8_t buf[16] = { 0 };
	int outl;

	(void)state;
	in_child(use_after_fork, ctx);
	require_ossl(EVP_CipherUpdate(ctx, buf, &outl, buf, sizeof(buf)));
	EVP_CIPHER_CTX_free(ctx);
}

#define THREADS		4
#define THREAD_ROUNDS	20000

/* Boxes go from thread to thread. */
static void *seal_and_free(void *arg)
{
	uint8_t text[20] = { 3 }, sealed[20], tag[TAG_LEN];
	EVP_CIPHER_CTX *ctx[2];
	int i, round, outl;
	bool *right = arg;

	for (round = 0; round < THREAD_ROUNDS && *right; round++) {
		for (i = 1; i >= 0; i--) {
			ctx[i] = ready(i);
			if (i)
				*right &= EVP_CipherUpdate(ctx[i], sealed, &outl, text, 20) > 0;
			else
				*right &= EVP_CipherUpdate(ctx[i], sealed, &outl, sealed, 20) > 0 &&
					  EVP_CIPHER_CTX_ctrl(ctx[i], EVP_CTRL_AEAD_SET_TAG,
							      TAG_LEN, tag) > 0;
			*right &= EVP_CipherFinal_ex(ctx[i], tag, &outl) > 0;
			if (i)
				*right &= EVP_CIPHER_CTX_ctrl(ctx[i], EVP_CTRL_AEAD_GET_TAG,
							      TAG_LEN, tag) > 0;
		}
		*right &= !memcmp(sealed, text, sizeof(text));
		for (i = 0; i < 2; i++)
			EVP_CIPHER_CTX_free(ctx[i]);
	}
	return NULL;
}

static void threads_share_the_boxes(void **state)
{
	pthread_t thread[THREADS];
	bool right[THREADS];
	int i;

	(void)state;
	for (i = 0; i < THREADS; i++) {
		right[i] = true;
		REQUIRE_EQ(pthread_create(&thread[i], NULL, seal_and_free, &right[i]), 0);
	}
	for (i = 0; i < THREADS; i++) {
		REQUIRE_EQ(pthread_join(thread[i], NULL), 0);
		REQUIRE(right[i]);
	}
	REQUIRE_EQ(keyed_domains(), 0);
}

/* What does not change a context may be done by several threads at a time. */
static EVP_CIPHER_CTX *template;
static uint8_t from_template[20];

static bool query(EVP_CIPHER_CTX *ctx)
{
	uint8_t iv[IV_LEN] = { 0 }, expected[IV_LEN];

	memset(expected, 5, sizeof(expected));
	return EVP_CIPHER_CTX_get_updated_iv(ctx, iv, sizeof(iv)) > 0 &&
	       !memcmp(iv, expected, sizeof(iv));
}

static bool seal_some(EVP_CIPHER_CTX *ctx, uint8_t sealed[20])
{
	static const uint8_t text[20] = { 3 };
	int outl;

	return EVP_CipherUpdate(ctx, sealed, &outl, text, sizeof(text)) > 0;
}

static void *copy_and_query(void *arg)
{
	uint8_t sealed[20];
	EVP_CIPHER_CTX *ctx;
	bool *right = arg;
	int round;

	for (round = 0; round < THREAD_ROUNDS && *right; round++) {
		ctx = EVP_CIPHER_CTX_new();
		*right = query(template) && EVP_CIPHER_CTX_copy(ctx, template) > 0 &&
			 seal_some(ctx, sealed) &&
			 !memcmp(sealed, from_template, sizeof(sealed));
		EVP_CIPHER_CTX_free(ctx);
	}
	return NULL;
}

static void threads_copy_one_template(void **state)
{
	uint8_t iv[IV_LEN];
	pthread_t thread[THREADS];
	bool right[THREADS];
	int i;

	(void)state;
	template = ready(1);
	memset(iv, 5, sizeof(iv));
	require_ossl(EVP_CipherInit_ex2(template, NULL, NULL, iv, 1, NULL));
	REQUIRE(seal_some(template, from_template));
	/* Which the inner context is not told before there is a payload. */
	require_ossl(EVP_CipherInit_ex2(template, NULL, NULL, iv, 1, NULL));
	for (i = 0; i < THREADS; i++) {
		right[i] = true;
		REQUIRE_EQ(pthread_create(&thread[i], NULL, copy_and_query, &right[i]), 0);
	}
	for (i = 0; i < THREADS; i++) {
		REQUIRE_EQ(pthread_join(thread[i], NULL), 0);
		REQUIRE(right[i]);
	}
	EVP_CIPHER_CTX_free(template);
}

/* ---- how it starts, each time in a new process: this one has started */

static int is_served(OSSL_LIB_CTX *libctx)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, "AES-128-GCM", NULL);
	int served = cipher && !strcmp(EPK_NAME, OSSL_PROVIDER_get0_name(
						EVP_CIPHER_get0_provider(cipher)));

	EVP_CIPHER_free(cipher);
	return served;
}

static int load_with_backend(OSSL_LIB_CTX *libctx, const char *backend)
{
	char line[64];

	snprintf(line, sizeof(line), "backend = %s", backend);
	return try_providers(libctx, line) > 0 && is_served(libctx);
}

static int has_backend(void *arg)
{
	(void)arg;
	return epk_backend() != NULL;
}

static int child_status(int (*child)(void *), void *arg)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid)
		_exit(child(arg) ? 0 : 1);
	return waitpid(pid, &status, 0) == pid ? status : -1;
}

/* As stunnel's: what it hands out is not where malloc()'s memory begins. */
#define OWN_HEADER	48

static void *own_malloc(size_t len, const char *file, int line)
{
	char *block = malloc(len + OWN_HEADER);

	(void)file;
	(void)line;
	if (!block)
		return NULL;
	memset(block, line, OWN_HEADER);
	return block + OWN_HEADER;
}

static void own_free(void *old, const char *file, int line)
{
	(void)file;
	(void)line;
	if (old)
		free((char *)old - OWN_HEADER);
}

static void *own_realloc(void *old, size_t len, const char *file, int line)
{
	char *block;

	(void)file;
	(void)line;
	block = realloc(old ? (char *)old - OWN_HEADER : NULL, len + OWN_HEADER);
	return block ? block + OWN_HEADER : NULL;
}

/* Uses the ciphers' own random generator, and ends when the provider is gone. */
static pthread_barrier_t used, gone;

static void *draw_and_wait(void *arg)
{
	static const uint8_t key[16] = { 1 };
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(arg, "AES-128-GCM", NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t fixed[4] = { 2 };
	bool right = EVP_CipherInit_ex2(ctx, cipher, key, NULL, 1, NULL) > 0 &&
		     EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_IV_FIXED, 4, fixed) > 0;

	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	pthread_barrier_wait(&used);
	pthread_barrier_wait(&gone);
	return right ? arg : NULL;
}

static bool outlived_by_thread(OSSL_LIB_CTX *libctx)
{
	pthread_t thread;
	void *right;

	pthread_barrier_init(&used, NULL, 2);
	pthread_barrier_init(&gone, NULL, 2);
	if (pthread_create(&thread, NULL, draw_and_wait, libctx))
		return false;
	pthread_barrier_wait(&used);
	OSSL_LIB_CTX_free(libctx);
	pthread_barrier_wait(&gone);
	return !pthread_join(thread, &right) && right;
}

/* Exit status: 0 the provider serves, 1 it refused, 2 anything else. */
static int start_anew(const char *how)
{
	OSSL_LIB_CTX *libctx;

	if (!strcmp(how, "auto-insecure keys")) {
		how = "auto-insecure";
		init_error[0] = -ENODEV;
		init_error[1] = -ENOSPC;
	}
	if (!strcmp(how, "own-heap") &&
	    !CRYPTO_set_mem_functions(own_malloc, own_realloc, own_free))
		return 2;
	libctx = OSSL_LIB_CTX_new();
	if (!load_with_backend(libctx, strcmp(how, "own-heap") ? how : "none"))
		return 1;
	/* Not at the first context: by then there may be no way to /dev/epk. */
	if (!epk_backend() || child_status(has_backend, NULL))
		return 2;
	/* And again, when nobody uses it any more. */
	if (!outlived_by_thread(libctx))
		return 2;
	/* There is one in a process. */
	setenv("EPK_BACKEND", epk_backend(), 1);
	plain = make_libctx(0);
	with_epk = make_libctx(1);
	copy_goes_on_by_itself(NULL);
	return 0;
}

/* What "auto-insecure" comes to without the module. */
static const char *second_best(void)
{
	int pkey = pkey_alloc(0, 0);

	if (pkey < 0)
		return "none";
	pkey_free(pkey);
	return "mpk";
}

static int start_again(const char *how)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		/* What the file says counts, here; and what is loaded later asks for what that came to. */
		setenv("EPK_BACKEND", how[0] == 'a' && access("/dev/epk", F_OK) ? second_best() :
				      strcmp(how, "own-heap") ? how : "none", 1);
		/* Whatever is freed becomes something else. */
		setenv("MALLOC_PERTURB_", "165", 1);
		execl("/proc/self/exe", "provider_context_test", "start", how, NULL);
		_exit(127);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void wrong_backend_is_refused_at_load(void **state)
{
	(void)state;
	REQUIRE_EQ(start_again("none"), 0);
	REQUIRE_EQ(start_again("nonsense"), 1);
	if (access("/dev/epk", F_OK))
		REQUIRE_EQ(start_again("epk"), 1);
}

static void auto_is_epk_or_nothing(void **state)
{
	(void)state;
	REQUIRE_EQ(start_again("auto"), access("/dev/epk", F_OK) ? 1 : 0);
	REQUIRE_EQ(start_again("auto-insecure"), 0);
	/* Not where there are protection keys, and others have taken them. */
	REQUIRE_EQ(start_again("auto-insecure keys"), 1);
}

static void programs_may_have_their_own_heap(void **state)
{
	(void)state;
	REQUIRE_EQ(start_again("own-heap"), 0);
}

/* Their property replaces "provider=epk"; what the configuration asks for stays. */
static void programs_may_have_their_own_query(void **state)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(with_epk, "AES-128-GCM", "provider!=fips");

	(void)state;
	REQUIRE(cipher);
	REQUIRE_STR_EQ(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)), EPK_NAME);
	EVP_CIPHER_free(cipher);
}

/* Which is how libssl gets at suites that encrypt nothing. */
static void cipher_without_domain_is_refused(void **state)
{
	EVP_CIPHER *cipher = fetch(with_epk, "NULL");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	(void)state;
	ERR_clear_error();
	REQUIRE_EQ(EVP_EncryptInit_ex2(ctx, cipher, NULL, NULL, NULL), 0);
	REQUIRE_EQ(ERR_GET_REASON(ERR_peek_error()), EPK_R_REFUSED);
	ERR_clear_error();
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
}

/* OpenSSH asks for the IV of each packet, and the peer's has to be right as well. */
static void opening_context_tells_its_next_iv(void **state)
{
	EVP_CIPHER_CTX *ctx[2] = { ready(0), ready(1) };
	uint8_t iv[IV_LEN], next[IV_LEN], text[32] = "a packet", tag[TAG_LEN];
	int i, round, outl;

	(void)state;
	memset(iv, 7, sizeof(iv));
	for (i = 0; i < 2; i++)
		require_ossl(EVP_CIPHER_CTX_ctrl(ctx[i], EVP_CTRL_GCM_SET_IV_FIXED, -1, iv));
	for (round = 0; round < 3; round++) {
		for (i = 1; i >= 0; i--) {
			require_ossl(EVP_CIPHER_CTX_ctrl(ctx[i], EVP_CTRL_GCM_IV_GEN, IV_LEN,
							 next));
			REQUIRE_EQ(next[IV_LEN - 1], 7 + round);
			if (!i)
				require_ossl(EVP_CIPHER_CTX_ctrl(ctx[i], EVP_CTRL_AEAD_SET_TAG,
								 TAG_LEN, tag));
			require_ossl(EVP_CipherUpdate(ctx[i], NULL, &outl, iv, 4));
			REQUIRE(EVP_Cipher(ctx[i], text, text, sizeof(text)) >= 0);
			REQUIRE(EVP_Cipher(ctx[i], NULL, NULL, 0) >= 0);
			if (i)
				require_ossl(EVP_CIPHER_CTX_ctrl(ctx[i], EVP_CTRL_AEAD_GET_TAG,
								 TAG_LEN, tag));
		}
		REQUIRE_STR_EQ((char *)text, "a packet");
	}
	for (i = 0; i < 2; i++)
		EVP_CIPHER_CTX_free(ctx[i]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copy_goes_on_by_itself),
		cmocka_unit_test(copy_has_what_is_kept),
		cmocka_unit_test(each_context_has_one_domain),
		cmocka_unit_test(error_tells_what_is_used_up),
		cmocka_unit_test(context_does_not_cross_fork),
		cmocka_unit_test(child_frees_contexts_quietly),
		cmocka_unit_test(threads_share_the_boxes),
		cmocka_unit_test(threads_copy_one_template),
		cmocka_unit_test(wrong_backend_is_refused_at_load),
		cmocka_unit_test(auto_is_epk_or_nothing),
		cmocka_unit_test(programs_may_have_their_own_heap),
		cmocka_unit_test(programs_may_have_their_own_query),
		cmocka_unit_test(cipher_without_domain_is_refused),
		cmocka_unit_test(opening_context_tells_its_next_iv),
	};

	if (argc == 3 && !strcmp(argv[1], "start"))
		return start_anew(argv[2]);

	return cmocka_run_group_tests_name("provider_context", tests, make_both, NULL);
}
