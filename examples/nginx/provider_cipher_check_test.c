// SPDX-License-Identifier: MIT
/* What the cipher check lets start, and what not: each time in a new process. */
#define OPENSSL_SUPPRESS_DEPRECATED
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/conf.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/objects.h>
#include <openssl/params.h>

#include "provider_engine.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

/* What libssl is told by the same file. */
static const char *ssl_options = "ServerPreference";

/* The provider's section, and the order and names of all. */
static const char *secrets = "wrapped", *backend = "none";
static const char *providers = "EPK = e\ndefault = d";

/* ---- a provider that has what epk has, first */

static bool rival_has_kdf, rival_has_group;

static void *rival_new(void *provctx)
{
	return provctx;
}

static void rival_nothing(void)
{
}

static const OSSL_DISPATCH rival_kdf[] = {
	{ OSSL_FUNC_KDF_NEWCTX, (void (*)(void))rival_new },
	{ OSSL_FUNC_KDF_FREECTX, rival_nothing },
	{ OSSL_FUNC_KDF_DERIVE, rival_nothing },
	{ 0, NULL }
};

static const OSSL_ALGORITHM rival_kdfs[] = {
	{ "TLS1-PRF", "provider=AAA,epk.domain=yes", rival_kdf, "elsewhere" },
	{ NULL, NULL, NULL, NULL }
};

static const OSSL_ALGORITHM *rival_query(void *provctx, int operation, int *no_cache)
{
	(void)provctx;
	*no_cache = 0;
	return operation == OSSL_OP_KDF && rival_has_kdf ? rival_kdfs : NULL;
}

static int rival_capabilities(void *provctx, const char *name, OSSL_CALLBACK *cb, void *arg)
{
	unsigned int id = 0x18;
	OSSL_PARAM params[] = { OSSL_PARAM_construct_uint(OSSL_CAPABILITY_TLS_GROUP_ID, &id),
				OSSL_PARAM_construct_end() };

	(void)provctx;
	return !rival_has_group || strcmp(name, "TLS-GROUP") || cb(params, arg);
}

static const OSSL_DISPATCH rival_functions[] = {
	{ OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))rival_query },
	{ OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))rival_capabilities },
	{ 0, NULL }
};

static int rival_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in,
		      const OSSL_DISPATCH **out, void **provctx)
{
	(void)in;
	*out = rival_functions;
	*provctx = (void *)core;
	return 1;
}

/* ---- what fails at the first handshake */

static bool is_dry;

/* K is drawn before all others. */
__attribute__((visibility("default"))) ssize_t getrandom(void *to, size_t len, unsigned int flags)
{
	static ssize_t (*real)(void *to, size_t len, unsigned int flags);
	static int nr_keys;

	if (!real)
		real = (ssize_t (*)(void *, size_t, unsigned int))dlsym(RTLD_NEXT, "getrandom");
	if (is_dry && len == 32 && nr_keys++) {
		errno = EIO;
		return -1;
	}
	return real(to, len, flags);
}

/* ---- */

static int load(OSSL_LIB_CTX *libctx, const char *allow)
{
	char path[] = "/tmp/epk-cipher-check-test-XXXXXX";
	char *dir = realpath(BUILD_DIR, NULL);
	FILE *f = fdopen(mkstemp(path), "w");
	int ret;

	fprintf(f, "config_diagnostics = 1\nopenssl_conf = o\n[o]\nproviders = p\nalg_section = a\n"
		"epk_cipher_check = g\nssl_conf = s\n[s]\nsystem_default = sd\n[sd]\nx.options = %s\n[p]\n%s\n[d]\nactivate = 1\n"
		"[e]\nmodule = %s/epk.so\nactivate = 1\nbackend = %s\nsecrets = %s\n"
		"[a]\ndefault_properties = epk.domain=yes\n"
		"[g]\npath = %s/epk.so\ndefault_properties = ?epk.domain=yes\nallow = %s\n",
		ssl_options, providers, dir, backend, secrets, dir, allow);
	fclose(f);
	free(dir);
	ret = libctx ? OSSL_LIB_CTX_load_config(libctx, path) :
		       CONF_modules_load_file(path, NULL, 0);
	unlink(path);
	return ret;
}

/*
 * One step of ours, the first with this label, hash or group, gives something else; or each does,
 * so that two ends still agree.
 */
static const char *flipped;
static bool is_flipped_always;

static bool is_flipped(const void *name, size_t len)
{
	return flipped && name && len == strlen(flipped) && !memcmp(name, flipped, len);
}

static void flip(unsigned char *out)
{
	out[0] ^= 1;
	if (!is_flipped_always)
		flipped = NULL;
}

static bool is_named(const OSSL_PARAM params[], const char *name)
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, name);

	return p && is_flipped(p->data, p->data_size);
}

__attribute__((visibility("default")))
int EVP_KDF_derive(EVP_KDF_CTX *ctx, unsigned char *out, size_t len, const OSSL_PARAM params[])
{
	static int (*real)(EVP_KDF_CTX *, unsigned char *, size_t, const OSSL_PARAM *);
	const OSSL_PROVIDER *provider = EVP_KDF_get0_provider(EVP_KDF_CTX_kdf(ctx));
	const OSSL_PARAM *digest = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_DIGEST);
	int ret;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "EVP_KDF_derive");
	ret = real(ctx, out, len, params);
	if (!strcasecmp(OSSL_PROVIDER_get0_name(provider), EPK_NAME) &&
	    (is_named(params, OSSL_KDF_PARAM_LABEL) || is_named(params, OSSL_KDF_PARAM_SEED) ||
	     (digest && is_flipped(digest->data, strlen(digest->data)))))
		flip(out);
	return ret;
}

__attribute__((visibility("default")))
int EVP_PKEY_derive(EVP_PKEY_CTX *ctx, unsigned char *out, size_t *len)
{
	static int (*real)(EVP_PKEY_CTX *, unsigned char *, size_t *);
	const char *name = EVP_PKEY_get0_type_name(EVP_PKEY_CTX_get0_pkey(ctx));
	int ret;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "EVP_PKEY_derive");
	ret = real(ctx, out, len);
	if (ret > 0 && out && is_flipped(name, strlen(name)))
		flip(out);
	return ret;
}

static bool has(OSSL_LIB_CTX *libctx, const char *name, const char *provider)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, name, NULL);
	bool right = cipher &&
		     !strcasecmp(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)),
				 provider);

	EVP_CIPHER_free(cipher);
	return right;
}

/* Is a context for a record of a CBC suite to be had, as libssl asks for one? */
static bool serves_cbc(OSSL_LIB_CTX *libctx)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, "AES-128-CBC", NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	unsigned char key[16] = { 1 }, iv[16] = { 2 };
	int version = 0x303;
	size_t mac = 20;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_CIPHER_PARAM_TLS_VERSION, &version),
		OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_TLS_MAC_SIZE, &mac),
		OSSL_PARAM_construct_end()
	};
	/* For anything else it is, in any case. */
	bool serves = cipher && EVP_EncryptInit_ex2(ctx, cipher, key, iv, NULL) > 0 &&
		      EVP_CIPHER_CTX_set_params(ctx, params) > 0;

	ERR_clear_error();
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return serves;
}

static void choose_providers(const char *what)
{
	if (strstr(what, "keys"))
		secrets = "keys";
	if (strstr(what, "nonsense"))
		secrets = "nonsense";
	if (strstr(what, "backend "))
		backend = strstr(what, "backend ") + 8;
	if (strstr(what, "second"))
		providers = "default = d\nepk = e";
	/* Until something sorts them. */
	if (strstr(what, "by chance"))
		providers = "epk = e\ndefault = d";
	is_dry = strstr(what, "dry");
	if (strstr(what, "flip "))
		flipped = strstr(what, "flip ") + 5;
	is_flipped_always = strstr(what, "always flip ");
	rival_has_kdf = strstr(what, "KDF");
	rival_has_group = strstr(what, "group");
	if (!strstr(what, "rival"))
		return;
	OSSL_PROVIDER_add_builtin(NULL, "AAA", rival_init);
	providers = "AAA = d\nEPK = e\ndefault = d";
}

/* What the cipher check has to say of it. */
static const char *expected_of(const char *what, const char *engine)
{
	return strstr(what, "vmfunc") ? "backend vmfunc: it opens one domain at a time" :
	       strstr(what, "backend ") ? strstr(what, "backend ") :
	       *engine ? "engine elsewhere" : strstr(what, "KTLS") ? "KTLS" :
	       strstr(what, "nonsense") ? "secrets = nonsense" :
	       strstr(what, "KDF") ? "TLS1-PRF comes from provider AAA" :
	       strstr(what, "group") ? "secp384r1 comes from provider AAA" :
	       strstr(what, "EPK-P256") ? "a handshake with EPK-P256 does not work" :
	       strstr(what, "SHA384") || strstr(what, "EPK-P384") ? "a handshake with EPK-P384 does not work" :
	       strstr(what, "dry") || strstr(what, "flip") ? "a handshake with EPK-X25519 does not work" :
	       "x25519 comes from provider default first";
}

/* Exit status: 0 all is served, 1 it was refused, 2 anything else. */
static int start_anew(const char *what, const char *engine, const char *allow)
{
	OSSL_LIB_CTX *libctx = !strcmp(what, "own") ? OSSL_LIB_CTX_new() : NULL;
	const char *data = "";

	if (strstr(what, "KTLS"))
		ssl_options = what;
	choose_providers(what);
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	if (*engine && !set_engine("elsewhere", OBJ_txt2nid(engine)))
		return 2;
	if (load(libctx, allow) <= 0) {
		while (ERR_get_error_all(NULL, NULL, NULL, &data, NULL))
			if (strstr(data, "comes from") || strstr(data, "KTLS") ||
			    strstr(data, "a handshake") || strstr(data, "backend "))
				break;
		print_message("%s\n", data);
		/* Then TLS has no cipher at all. */
		return strstr(data, expected_of(what, engine)) &&
		       !has(libctx, "AES-256-CTR", "default") ? 1 : 2;
	}
	if (serves_cbc(libctx) != !!strstr(allow, "CBC"))
		return 2;
	/* Nobody else's properties are touched. */
	return has(libctx, "AES-128-GCM", EPK_NAME) && has(libctx, "AES-256-CTR", "default") &&
	       (!libctx || has(NULL, "AES-128-GCM", "default")) ? 0 : 2;
}

static int start(const char *what, const char *engine, const char *allow)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		execl("/proc/self/exe", "provider_cipher_check_test", what, engine, allow, NULL);
		_exit(127);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static bool has_pkeys(void)
{
	int key = pkey_alloc(0, 0);

	if (key > 0)
		pkey_free(key);
	return key > 0;
}

/* Each works, or is refused by its name when the provider is loaded. */
static void backends_work_or_are_refused(void **state)
{
	(void)state;
	REQUIRE_EQ(start("default backend vmfunc", "", ""), 1);
	REQUIRE_EQ(start("default keys backend vmfunc", "", ""), 1);
	REQUIRE_EQ(start("default backend nonesuch", "", ""), 1);
	REQUIRE_EQ(start("default backend NONE", "", ""), 1);
	REQUIRE_EQ(start("default backend epk", "", ""), access("/dev/epk", F_OK) ? 1 : 0);
	REQUIRE_EQ(start("default backend auto", "", ""), access("/dev/epk", F_OK) ? 1 : 0);
	REQUIRE_EQ(start("default backend mpk", "", ""), has_pkeys() ? 0 : 1);
	REQUIRE_EQ(start("default backend mprotect", "", ""), 0);
	REQUIRE_EQ(start("default backend auto-insecure", "", ""), 0);
}

static void provider_is_let_through(void **state)
{
	(void)state;
	REQUIRE_EQ(start("default", "", ""), 0);
}

/* libssl and EVP_CipherInit() prefer them to any provider. */
static void engines_ciphers_are_refused(void **state)
{
	(void)state;
	REQUIRE_EQ(start("default", "AES-128-CBC", ""), 1);
	REQUIRE_EQ(start("default", "aes-256-gcm", ""), 1);
	REQUIRE_EQ(start("default", "ChaCha20-Poly1305", ""), 1);
	REQUIRE_EQ(start("default", "SEED-CBC", ""), 1);
	REQUIRE_EQ(start("own", "AES-128-CBC", ""), 1);
	/* Not one of TLS. */
	REQUIRE_EQ(start("default", "AES-128-CFB", ""), 0);
	REQUIRE_EQ(start("default", "SEED-CBC", "RC4, SEED-CBC, CBC"), 0);
}

/* Which the operator has to allow by name. */
static void cbc_suites_are_refused(void **state)
{
	(void)state;
	REQUIRE_EQ(start("default", "", "RC4"), 0);
	REQUIRE_EQ(start("default", "", "CBC"), 0);
	REQUIRE_EQ(start("default keys", "", ""), 0);
	REQUIRE_EQ(start("own", "", "rc4,cbc,CBC"), 0);
}

static void library_context_of_ones_own_is_checked(void **state)
{
	(void)state;
	REQUIRE_EQ(start("own", "", ""), 0);
}

/* The kernel would get the keys. */
static void kernel_tls_is_refused(void **state)
{
	(void)state;
	REQUIRE_EQ(start("KTLS", "", ""), 1);
	REQUIRE_EQ(start("ServerPreference, +KTLS", "", ""), 1);
	REQUIRE_EQ(start("-KTLS,ServerPreference", "", ""), 0);
}

/* With another one's KDF or group in between, nothing that libssl computes is right. */
static void secrets_are_wrapped_by_one_or_none(void **state)
{
	(void)state;
	REQUIRE_EQ(start("default second", "", ""), 1);
	REQUIRE_EQ(start("default by chance", "", ""), 1);
	REQUIRE_EQ(start("default rival", "", ""), 0);
	REQUIRE_EQ(start("default rival KDF", "", ""), 1);
	REQUIRE_EQ(start("default rival group", "", ""), 1);
	/* Then these are nobody's business. */
	REQUIRE_EQ(start("default second keys", "", ""), 0);
	REQUIRE_EQ(start("default rival KDF keys", "", ""), 0);
	REQUIRE_EQ(start("default nonsense", "", ""), 1);
}

/* Not at the first client's. */
static void handshake_is_rehearsed(void **state)
{
	(void)state;
	REQUIRE_EQ(start("default dry", "", ""), 1);
	REQUIRE_EQ(start("default dry keys", "", ""), 0);
}

/* Each step counts, and each hash. */
static void all_of_a_handshake_is_rehearsed(void **state)
{
	static const char *const steps[] = {
		"finished", "key", "exp master", "EXPORTER-rehearsal", "exporter", "res master",
		"resumption", "res binder", "SHA384",
		/* Of TLS 1.2, and of the key exchange. */
		"master secret", "key expansion", "EPK-X25519", "EPK-P256", "EPK-P384",
	};
	char what[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		snprintf(what, sizeof(what), "default flip %s", steps[i]);
		REQUIRE_EQ(start(what, "", ""), 1);
	}
	REQUIRE_EQ(start("default flip no label", "", ""), 0);
}

/* Where two ends agree on what nobody else would. */
static void what_is_exported_is_right(void **state)
{
	(void)state;
	REQUIRE_EQ(start("default always flip exporter", "", ""), 1);
	REQUIRE_EQ(start("default always flip EXPORTER-rehearsal", "", ""), 1);
	REQUIRE_EQ(start("default always flip no label", "", ""), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(provider_is_let_through),
		cmocka_unit_test(backends_work_or_are_refused),
		cmocka_unit_test(engines_ciphers_are_refused),
		cmocka_unit_test(cbc_suites_are_refused),
		cmocka_unit_test(library_context_of_ones_own_is_checked),
		cmocka_unit_test(kernel_tls_is_refused),
		cmocka_unit_test(secrets_are_wrapped_by_one_or_none),
		cmocka_unit_test(handshake_is_rehearsed),
		cmocka_unit_test(all_of_a_handshake_is_rehearsed),
		cmocka_unit_test(what_is_exported_is_right),
	};

	if (argc == 4)
		return start_anew(argv[1], argv[2], argv[3]);

	return cmocka_run_group_tests_name("provider_cipher_check", tests, NULL, NULL);
}
