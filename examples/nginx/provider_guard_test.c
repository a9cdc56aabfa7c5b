// SPDX-License-Identifier: MIT
/* What the guard lets start, and what not: each time in a new process. */
#define OPENSSL_SUPPRESS_DEPRECATED
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/conf.h>
#include <openssl/engine.h>
#include <openssl/objects.h>

#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

/* What libssl is told by the same file. */
static const char *ssl_options = "ServerPreference";

static int load(OSSL_LIB_CTX *libctx, const char *allow)
{
	char path[] = "/tmp/epk-guard-test-XXXXXX";
	char *dir = realpath(BUILD_DIR, NULL);
	FILE *f = fdopen(mkstemp(path), "w");
	int ret;

	fprintf(f, "config_diagnostics = 1\nopenssl_conf = o\n[o]\nproviders = p\nalg_section = a\n"
		"epk_guard = g\nssl_conf = s\n[s]\nsystem_default = sd\n[sd]\nx.options = %s\n[p]\nEPK = e\ndefault = d\n[d]\nactivate = 1\n"
		"[e]\nmodule = %s/epk.so\nactivate = 1\nbackend = none\n"
		"[a]\ndefault_properties = epk.domain=yes\n"
		"[g]\npath = %s/epk.so\ndefault_properties = ?epk.domain=yes\nallow = %s\n",
		ssl_options, dir, dir, allow);
	fclose(f);
	free(dir);
	ret = libctx ? OSSL_LIB_CTX_load_config(libctx, path) :
		       CONF_modules_load_file(path, NULL, 0);
	unlink(path);
	return ret;
}

static bool has(OSSL_LIB_CTX *libctx, const char *name, const char *provider)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, name, NULL);
	bool right = cipher && !strcmp(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)),
				       provider);

	EVP_CIPHER_free(cipher);
	return right;
}

/* As the default provider's, but from an engine, and so in ordinary memory. */
static int engine_nids[] = { 0 };

static int engine_ciphers(ENGINE *engine, const EVP_CIPHER **cipher, const int **nids, int nid)
{
	(void)engine;
	if (cipher) {
		*cipher = EVP_get_cipherbynid(nid);
		return 1;
	}
	*nids = engine_nids;
	return 1;
}

static int start_engine(ENGINE *engine)
{
	(void)engine;
	return 1;
}

static bool make_engine(const char *name)
{
	ENGINE *engine = ENGINE_new();

	engine_nids[0] = OBJ_txt2nid(name);
	return engine && engine_nids[0] && ENGINE_set_id(engine, "elsewhere") &&
	       ENGINE_set_name(engine, "elsewhere") &&
	       ENGINE_set_init_function(engine, start_engine) &&
	       ENGINE_set_ciphers(engine, engine_ciphers) && ENGINE_add(engine) &&
	       ENGINE_set_default_ciphers(engine);
}

/* Exit status: 0 all is served, 1 it was refused, 2 anything else. */
static int start_anew(const char *what, const char *engine, const char *allow)
{
	OSSL_LIB_CTX *libctx = !strcmp(what, "own") ? OSSL_LIB_CTX_new() : NULL;
	const char *data = "";

	if (strstr(what, "KTLS"))
		ssl_options = what;
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	if (*engine && !make_engine(engine))
		return 2;
	if (load(libctx, allow) <= 0) {
		while (ERR_get_error_all(NULL, NULL, NULL, &data, NULL))
			if (strstr(data, "comes from") || strstr(data, "KTLS"))
				break;
		print_message("%s\n", data);
		/* Then TLS has no cipher at all. */
		return strstr(data, *engine ? "engine elsewhere" : "KTLS") &&
		       !has(libctx, "AES-256-CTR", "default") ? 1 : 2;
	}
	/* Nobody else's properties are touched. */
	return has(libctx, "AES-128-GCM", EPK_NAME) && has(libctx, "AES-256-CTR", "default") &&
	       (!libctx || has(NULL, "AES-128-GCM", "default")) ? 0 : 2;
}

static int start(const char *what, const char *engine, const char *allow)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		execl("/proc/self/exe", "provider_guard_test", what, engine, allow, NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void provider_is_let_through(void **state)
{
	(void)state;
	assert_int_equal(start("default", "", ""), 0);
}

/* libssl and EVP_CipherInit() prefer them to any provider. */
static void engines_ciphers_are_refused(void **state)
{
	(void)state;
	assert_int_equal(start("default", "AES-128-CBC", ""), 1);
	assert_int_equal(start("default", "aes-256-gcm", ""), 1);
	assert_int_equal(start("default", "ChaCha20-Poly1305", ""), 1);
	assert_int_equal(start("default", "SEED-CBC", ""), 1);
	assert_int_equal(start("own", "AES-128-CBC", ""), 1);
	/* Not one of TLS. */
	assert_int_equal(start("default", "AES-128-CFB", ""), 0);
	assert_int_equal(start("default", "SEED-CBC", "RC4, SEED-CBC"), 0);
}

static void library_context_of_ones_own_is_guarded(void **state)
{
	(void)state;
	assert_int_equal(start("own", "", ""), 0);
}

/* The kernel would get the keys. */
static void kernel_tls_is_refused(void **state)
{
	(void)state;
	assert_int_equal(start("KTLS", "", ""), 1);
	assert_int_equal(start("ServerPreference, +KTLS", "", ""), 1);
	assert_int_equal(start("-KTLS,ServerPreference", "", ""), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(provider_is_let_through),
		cmocka_unit_test(engines_ciphers_are_refused),
		cmocka_unit_test(library_context_of_ones_own_is_guarded),
		cmocka_unit_test(kernel_tls_is_refused),
	};

	if (argc == 4)
		return start_anew(argv[1], argv[2], argv[3]);

	return cmocka_run_group_tests_name("provider_guard", tests, NULL, NULL);
}
