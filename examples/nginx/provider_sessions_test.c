// SPDX-License-Identifier: MIT
/*
 * Which TLS has the provider's ciphers, and what becomes of TLS that has not; as
 * epk-tls-check sees it from outside.  Each start of OpenSSL in a process of its own.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <openssl/conf.h>
#include <openssl/ssl.h>

#include "provider_engine.h"
#include "provider_test.h"

static char report[4096];

/* What the tool says of this process; its exit status. */
static int check_self(const char *options)
{
	char command[256];
	size_t len;
	FILE *f;

	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	snprintf(command, sizeof(command), "%s/epk-tls-check --json %s %d", BUILD_DIR, options,
		 (int)getpid());
	f = popen(command, "r");
	if (!f)
		return -1;
	len = fread(report, 1, sizeof(report) - 1, f);
	report[len] = 0;
	return WEXITSTATUS(pclose(f));
}

static bool says(const char *name, unsigned long count)
{
	char text[64];

	snprintf(text, sizeof(text), "\"%s\": %lu,", name, count);
	return strstr(report, text);
}

static const char *allow = "";
/* "domain": libcrypto's memory functions are the provider's, and so an SSL_CTX can be refused. */
static const char *private_keys = "any";

static int load(void)
{
	char path[] = "/tmp/epk-sessions-test-XXXXXX";
	char *dir = realpath(BUILD_DIR, NULL);
	FILE *f = fdopen(mkstemp(path), "w");
	int ret;

	fprintf(f, "config_diagnostics = 1\nopenssl_conf = o\n[o]\nproviders = p\nalg_section = a\n"
		"epk_cipher_check = g\n[p]\n" EPK_NAME " = e\ndefault = d\n[d]\nactivate = 1\n"
		/* Who asks for the default provider gets its keys, too, which are not what is tested here. */
		"[e]\nmodule = %s/epk.so\nactivate = 1\nbackend = none\nprivate_keys = %s\n"
		"[a]\ndefault_properties = epk.domain=yes\n"
		"[g]\npath = %s/epk.so\ndefault_properties = ?epk.domain=yes\nallow = %s\n",
		dir, private_keys, dir, allow);
	fclose(f);
	free(dir);
	ret = CONF_modules_load_file(path, NULL, 0);
	unlink(path);
	return ret;
}

/* A program's own policy, which takes the place of the provider's. */
static bool has_policy, has_versions, has_options;

static int permit(const SSL *ssl, const SSL_CTX *ctx, int op, int bits, int nid, void *other,
		  void *arg)
{
	(void)ssl, (void)ctx, (void)op, (void)bits, (void)nid, (void)other, (void)arg;
	return 1;
}

static SSL *new_end(OSSL_LIB_CTX *libctx, const char *properties, bool server)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(libctx, properties, TLS_method());
	char path[256];
	SSL *ssl;

	if (!ctx)
		return NULL;
	SSL_CTX_set_options(ctx, SSL_OP_ENABLE_KTLS);
	SSL_CTX_set_mode(ctx, SSL_MODE_ASYNC);
	if (has_policy)
		SSL_CTX_set_security_callback(ctx, permit);
	snprintf(path, sizeof(path), "%s/cert.pem", BUILD_DIR);
	if (server && SSL_CTX_use_certificate_file(ctx, path, SSL_FILETYPE_PEM) <= 0)
		return NULL;
	snprintf(path, sizeof(path), "%s/key.pem", BUILD_DIR);
	if (server && SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM) <= 0)
		return NULL;
	ssl = SSL_new(ctx);
	if (has_versions && (SSL_set_min_proto_version(ssl, TLS1_2_VERSION) <= 0 ||
			     SSL_set_max_proto_version(ssl, TLS1_3_VERSION) <= 0))
		return NULL;
	if (has_options)
		SSL_clear_options(ssl, SSL_OP_NO_SSL_MASK);
	/* Its SSLs keep it. */
	SSL_CTX_free(ctx);
	return ssl;
}

static bool shake_hands(SSL *client, SSL *server)
{
	BIO *one, *other;
	int i;

	if (BIO_new_bio_pair(&one, 0, &other, 0) <= 0)
		return false;
	SSL_set_bio(client, one, one);
	SSL_set_bio(server, other, other);
	SSL_set_connect_state(client);
	SSL_set_accept_state(server);
	for (i = 0; i < 10 && (SSL_in_init(client) || SSL_in_init(server)); i++) {
		SSL_do_handshake(client);
		SSL_do_handshake(server);
	}
	return !SSL_in_init(client) && !SSL_in_init(server);
}

enum { SERVED_ALL, NONE_MADE, AT_ONCE, REFUSED, LET_THROUGH, OTHERWISE };

static bool is_told_why(void)
{
	const char *data = "";

	while (ERR_get_error_all(NULL, NULL, NULL, &data, NULL))
		if (strstr(data, "allow = CONTEXTS"))
			return true;
	return false;
}

static bool served_is_made(void)
{
	SSL_CTX *served = SSL_CTX_new_ex(NULL, "?epk.domain=yes," NOT_OUR_KEYS, TLS_method());

	SSL_CTX_free(served);
	return served;
}

/* It was said why; a context that is served comes to be all the same, but for an engine. */
static bool only_that_is_refused(bool has_engine)
{
	bool told = is_told_why() && says("sessions_elsewhere", 0) &&
		    says("ssl_contexts_elsewhere", 0);

	return told && served_is_made() != has_engine;
}

static void ask_for_memory(void *parent, void *ptr, CRYPTO_EX_DATA *data, int idx, long argl,
			   void *argp)
{
	(void)parent, (void)ptr, (void)data, (void)idx, (void)argl, (void)argp;
	OPENSSL_free(OPENSSL_malloc(16));
}

/* What the program has, or does, before its first context. */
static bool prepare(const char *what, OSSL_LIB_CTX **libctx, const char **properties)
{
	has_policy = strstr(what, "policy");
	has_versions = strstr(what, "versions");
	has_options = strstr(what, "options");
	if (strstr(what, "keys in domains"))
		private_keys = "domain";
	if (strstr(what, "allowed"))
		allow = "CONTEXTS";
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	if (!strstr(what, "no configuration") && load() <= 0)
		return false;
	if (strstr(what, "secure heap") && CRYPTO_secure_malloc_init(64 * 1024, 16) <= 0)
		return false;
	if (strstr(what, "callback"))
		CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, ask_for_memory, NULL,
					NULL);
	*libctx = strstr(what, "library context") ? OSSL_LIB_CTX_new() : NULL;
	*properties = strstr(what, "properties asked for") ? "provider=default" : NULL;
	if (strstr(what, "default properties") &&
	    EVP_set_default_properties(NULL, "provider=default") <= 0)
		return false;
	return !strstr(what, "engine") || set_engine("later", NID_aes_256_gcm);
}

/* What has become of two ends, which it frees if they are served. */
static int connect_both(SSL *client, SSL *server)
{
	bool works = shake_hands(client, server);
	int status = check_self("--accept backend-none");

	if (works && !status && says("sessions", 2) && says("record_keys", 4) &&
	    says("ssl_contexts", 2) && says("sessions_elsewhere", 0)) {
		SSL_free(client);
		SSL_free(server);
		return !check_self("--accept backend-none") && says("sessions", 0) &&
		       says("record_keys", 0) && says("ssl_contexts", 0) ? SERVED_ALL : OTHERWISE;
	}
	if (status != 1 || !says("sessions", 0) || !says("ssl_contexts_elsewhere", 2) ||
	    !says("record_keys", 0) || !says("sessions_elsewhere", 2))
		return OTHERWISE;
	if (works && has_options)
		return strstr(report, "\"refused\"") && says("sessions_refused", 2) ?
		       LET_THROUGH : OTHERWISE;
	if (works)
		return strstr(report, "\"unserved\"") && says("sessions_refused", 0) ?
		       LET_THROUGH : OTHERWISE;
	return strstr(report, "\"refused\"") && says("sessions_refused", 2) ? REFUSED : OTHERWISE;
}

/* How a program gets its libssl what it should not have. */
static int start_anew(const char *what)
{
	OSSL_LIB_CTX *libctx;
	const char *properties;
	SSL *client, *server;
	int status;

	if (!prepare(what, &libctx, &properties))
		return OTHERWISE;
	/* Each has a context, so that they are two. */
	client = new_end(libctx, properties, false);
	ERR_clear_error();
	server = new_end(libctx, properties, true);
	if (!client && !server) {
		status = check_self("--accept backend-none");
		return status == 0 && only_that_is_refused(strstr(what, "engine")) ? NONE_MADE :
										      OTHERWISE;
	}
	/* That has nothing but its context: no certificate is good enough for it. */
	if (client && !server)
		return check_self("--accept backend-none") == 1 && says("sessions", 0) &&
		       says("ssl_contexts_elsewhere", 2) && says("sessions_elsewhere", 1) &&
		       says("sessions_refused", 1) && is_told_why() && served_is_made() ?
		       AT_ONCE : OTHERWISE;
	if (!client || !server || SSL_get_options(client) & SSL_OP_ENABLE_KTLS ||
	    SSL_get_mode(client) & SSL_MODE_ASYNC)
		return strstr(what, "no configuration") ? LET_THROUGH : OTHERWISE;
	return connect_both(client, server);
}

static SSL_CTX *elsewhere;

static int go_elsewhere(SSL *ssl, int *alert, void *arg)
{
	(void)alert, (void)arg;
	return SSL_set_SSL_CTX(ssl, elsewhere) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* A server whose clients go on with another context by the name that they ask for. */
static int switch_contexts(const char *what)
{
	SSL *client, *server;
	bool works;

	if (strstr(what, "keys in domains"))
		private_keys = "domain";
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	if (load() <= 0)
		return OTHERWISE;
	client = new_end(NULL, NULL, false);
	server = new_end(NULL, NULL, true);
	elsewhere = SSL_CTX_new_ex(strstr(what, "own") ? OSSL_LIB_CTX_new() : NULL, NULL,
				   TLS_method());
	if (client && server && !elsewhere)
		return NONE_MADE;
	if (!client || !server || !elsewhere)
		return OTHERWISE;
	if (strstr(what, "policy"))
		SSL_CTX_set_security_callback(elsewhere, permit);
	SSL_CTX_set_tlsext_servername_callback(SSL_get_SSL_CTX(server), go_elsewhere);
	SSL_set_tlsext_host_name(client, "other");
	if (strstr(what, "TLS 1.2"))
		SSL_set_max_proto_version(client, TLS1_2_VERSION);
	SSL_CTX_use_certificate(elsewhere, SSL_get_certificate(server));
	SSL_CTX_use_PrivateKey(elsewhere, SSL_get_privatekey(server));
	works = shake_hands(client, server);
	if (!works)
		return REFUSED;
	return check_self("--accept backend-none") ? LET_THROUGH : SERVED_ALL;
}

static int start(const char *what)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		execl("/proc/self/exe", "provider_sessions_test", what, NULL);
		_exit(127);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void sessions_with_the_provider_are_told(void **state)
{
	(void)state;
	REQUIRE_EQ(start("default"), SERVED_ALL);
	REQUIRE_EQ(start("default allowed"), SERVED_ALL);
}

static void contexts_with_ciphers_from_elsewhere_are_not_made(void **state)
{
	(void)state;
	REQUIRE_EQ(start("keys in domains"), SERVED_ALL);
	REQUIRE_EQ(start("a library context of its own, keys in domains"), NONE_MADE);
	REQUIRE_EQ(start("properties asked for, keys in domains"), NONE_MADE);
	REQUIRE_EQ(start("an engine set later, keys in domains, policy, versions, options"),
		   NONE_MADE);
	REQUIRE_EQ(start("properties asked for, keys in domains, policy, versions, options"),
		   NONE_MADE);
	REQUIRE_EQ(start("switch to another, keys in domains, TLS 1.2"), SERVED_ALL);
	REQUIRE_EQ(start("switch to one of a library context of its own, keys in domains, "
			 "policy, TLS 1.2"), NONE_MADE);
}

/* What libssl asks for next is not for the provider to refuse, and nothing after it is. */
static void nothing_else_is_refused(void **state)
{
	(void)state;
	REQUIRE_EQ(start("properties asked for, keys in domains, secure heap"), AT_ONCE);
	REQUIRE_EQ(start("a library context of its own, keys in domains, secure heap"), AT_ONCE);
	REQUIRE_EQ(start("properties asked for, keys in domains, callback"), AT_ONCE);
}

/* Where libcrypto's memory functions are not the provider's. */
static void ciphers_from_elsewhere_negotiate_nothing(void **state)
{
	(void)state;
	REQUIRE_EQ(start("a library context of its own"), AT_ONCE);
	REQUIRE_EQ(start("properties asked for"), AT_ONCE);
	REQUIRE_EQ(start("default properties set later"), AT_ONCE);
	REQUIRE_EQ(start("an engine set later"), AT_ONCE);
	REQUIRE_EQ(start("a library context of its own, policy"), REFUSED);
	REQUIRE_EQ(start("properties asked for, policy"), REFUSED);
	REQUIRE_EQ(start("a library context of its own, policy, versions"), REFUSED);
	REQUIRE_EQ(start("properties asked for, policy, versions"), REFUSED);
	REQUIRE_EQ(start("policy, versions"), SERVED_ALL);
	REQUIRE_EQ(start("properties asked for, policy, versions, options"), LET_THROUGH);
}

static void nor_does_a_session_that_goes_there(void **state)
{
	(void)state;
	REQUIRE_EQ(start("switch to another"), SERVED_ALL);
	REQUIRE_EQ(start("switch to another, TLS 1.2"), SERVED_ALL);
	REQUIRE_EQ(start("switch to one of a library context of its own"), REFUSED);
	/* What has begun with wrapped secrets does not go on with others' ciphers; but nothing has here. */
	REQUIRE_EQ(start("switch to one of a library context of its own, policy"), REFUSED);
	REQUIRE_EQ(start("switch to one of a library context of its own, policy, TLS 1.2"),
		   LET_THROUGH);
}

static void they_are_told_where_they_are_allowed(void **state)
{
	(void)state;
	REQUIRE_EQ(start("a library context of its own, allowed"), LET_THROUGH);
	REQUIRE_EQ(start("properties asked for, allowed"), LET_THROUGH);
}

/* Nobody is there to refuse anything, but the tool sees it. */
static void no_provider_is_told(void **state)
{
	(void)state;
	REQUIRE_EQ(check_self(""), 1);
	REQUIRE(strstr(report, "\"no-provider\""));
	REQUIRE_EQ(check_self("--accept no-provider"), 0);
	/* A part of a word is none. */
	REQUIRE_EQ(check_self("--accept a-no-provider,no-providers"), 1);
}

static void backend_is_told(void **state)
{
	(void)state;
	require_ossl(load());
	REQUIRE_EQ(check_self(""), 1);
	REQUIRE(strstr(report, "\"backend-none\""));
	REQUIRE_EQ(check_self("--accept backend-none"), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sessions_with_the_provider_are_told),
		cmocka_unit_test(contexts_with_ciphers_from_elsewhere_are_not_made),
		cmocka_unit_test(nothing_else_is_refused),
		cmocka_unit_test(ciphers_from_elsewhere_negotiate_nothing),
		cmocka_unit_test(nor_does_a_session_that_goes_there),
		cmocka_unit_test(they_are_told_where_they_are_allowed),
		cmocka_unit_test(no_provider_is_told),
		cmocka_unit_test(backend_is_told),
	};

	if (argc == 2)
		return strstr(argv[1], "switch") ? switch_contexts(argv[1]) : start_anew(argv[1]);

	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	return cmocka_run_group_tests_name("provider_sessions", tests, NULL, NULL);
}
