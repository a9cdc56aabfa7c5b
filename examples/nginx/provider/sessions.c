// SPDX-License-Identifier: MIT
/*
 * Which of libssl's objects have the provider's ciphers, and no handshake for those that
 * have not.
 *
 * The cipher check sees what is there when the configuration is read.  A program can get itself
 * other ciphers later: by a library context of its own, by properties that it asks for, by
 * an engine.  But an SSL_CTX fetches all its ciphers when it is made, and libcrypto tells of
 * each that is made, of whatever library context, and of each SSL (CRYPTO_get_ex_new_index()).
 * So the words of a new SSL_CTX are looked at: those that are to be the provider's ciphers
 * are there, or it has others.  No place in it is presumed.
 *
 * What libcrypto tells it by cannot fail.  But what libssl asks for next to make such an SSL_CTX
 * is memory, and that it does not get where that is led to heap.c: so there is none.  Elsewhere, where
 * the program has given OpenSSL a secure heap or something else has asked for memory in between, or
 * should a libssl ask for nothing, it has a security policy that forbids everything, certificates
 * too, which a server finds when it starts; and its SSLs have no version of TLS to negotiate,
 * should the program have a policy of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>

#include "epk_provider.h"
#include "heap.h"
#include "publish.h"
#include "sessions.h"

/* Where libssl makes an SSL_CTX. */
#define MAKES_CTX	"ssl/ssl_lib.c"

/* Longer than an SSL_CTX, for who does not say how long one is. */
#define SSL_CTX_MAX	2048

/**
 * struct served - a library context that the cipher check has let through
 * @provctx: of its provider; NULL when that is gone
 * @ciphers: the provider's, as libssl gets them
 *
 * One is never freed, so that the list needs no lock, which a fork could leave held.
 */
struct served {
	const void *provctx;
	const EVP_CIPHER *ciphers[NR_CIPHERS];
	size_t nr_ciphers;
	struct served *next;
};

static struct served *served_list;

static int ctx_index = -1, ssl_index = -1;
/* The default library context has the provider, and no other is to be used. */
static bool refuses;

/* Of the libssl that is in this process: nothing here is linked to it. */
static struct {
	SSL_CTX *(*get_ctx)(const SSL *ssl);
	void *(*get_ctx_data)(const SSL_CTX *ctx, int idx);
	long (*ctrl)(SSL *ssl, int cmd, long arg, void *parg);
	uint64_t (*clear_options)(SSL *ssl, uint64_t options), (*set_options)(SSL *ssl, uint64_t options);
	int (*is_dtls)(const SSL *ssl);
	void (*set_policy)(SSL_CTX *ctx, int (*cb)(const SSL *ssl, const SSL_CTX *ctx, int op,
						   int bits, int nid, void *other, void *arg));
} libssl;

static pthread_once_t libssl_found = PTHREAD_ONCE_INIT;

/* It is there, since it has made an object. */
static void find_libssl(void)
{
	void *lib = dlopen("libssl.so.3", RTLD_LAZY | RTLD_NOLOAD);

	/* In a program that brings its own. */
	if (!lib)
		lib = RTLD_DEFAULT;
	*(void **)&libssl.get_ctx = dlsym(lib, "SSL_get_SSL_CTX");
	*(void **)&libssl.get_ctx_data = dlsym(lib, "SSL_CTX_get_ex_data");
	*(void **)&libssl.ctrl = dlsym(lib, "SSL_ctrl");
	*(void **)&libssl.clear_options = dlsym(lib, "SSL_clear_options");
	*(void **)&libssl.set_options = dlsym(lib, "SSL_set_options");
	*(void **)&libssl.is_dtls = dlsym(lib, "SSL_is_dtls");
	*(void **)&libssl.set_policy = dlsym(lib, "SSL_CTX_set_security_callback");
}

static bool have_libssl(void)
{
	pthread_once(&libssl_found, find_libssl);
	return libssl.get_ctx && libssl.get_ctx_data && libssl.ctrl && libssl.clear_options &&
	       libssl.set_options && libssl.is_dtls && libssl.set_policy;
}

static bool is_among(const void *what, void *const *words, size_t nr_words)
{
	size_t i;

	for (i = 0; i < nr_words; i++)
		if (words[i] == what)
			return true;
	return false;
}

static bool has_all(const struct served *s, void *const *words, size_t nr_words)
{
	size_t i;

	if (!__atomic_load_n(&s->provctx, __ATOMIC_RELAXED))
		return false;
	for (i = 0; i < s->nr_ciphers; i++)
		if (!is_among(s->ciphers[i], words, nr_words))
			return false;
	return true;
}

static bool is_served(void *const *words, size_t nr_words)
{
	const struct served *s = __atomic_load_n(&served_list, __ATOMIC_ACQUIRE);

	while (s && !has_all(s, words, nr_words))
		s = s->next;
	return s;
}

/* Of an SSL_CTX; where the program has a heap of its own, and what comes behind it. */
static bool ctx_is_served(void *ctx)
{
	CRYPTO_malloc_fn malloc_fn;
	void *words[SSL_CTX_MAX / sizeof(void *)];
	struct iovec local = { words, 0 }, remote = { ctx, 0 };
	ssize_t got = 0;
	size_t len;
	bool served;

	CRYPTO_get_mem_functions(&malloc_fn, NULL, NULL);
	if (malloc_fn == CRYPTO_malloc)
		return is_served(ctx, malloc_usable_size(ctx) / sizeof(void *));
	for (len = sizeof(words); got <= 0 && len; len -= 64) {
		local.iov_len = remote.iov_len = len;
		got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	}
	served = got > 0 && is_served(words, got / sizeof(void *));
	explicit_bzero(words, sizeof(words));
	return served;
}

/* What there is no other way to tell who runs the program. */
static void say_unserved(void)
{
	static int said;
	char line[256];
	int len;

	if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED))
		return;
	len = snprintf(line, sizeof(line),
		       "epk provider: process %d has TLS with ciphers from elsewhere, by a library "
		       "context, properties or an engine of its own: %s\n", (int)getpid(),
		       refuses ? "refused" : "allowed");
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

static void raise_refused(void)
{
	ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL,
		       "TLS with ciphers that are not from epk is refused: \"allow = CONTEXTS\" "
		       "would take it");
}

static int forbid(const SSL *ssl, const SSL_CTX *ctx, int op, int bits, int nid, void *other,
		  void *arg)
{
	(void)ssl, (void)ctx, (void)op, (void)bits, (void)nid, (void)other, (void)arg;
	raise_refused();
	return 0;
}

/* What is kept with an object: these, or NULL, which is neither. */
static char tokens[2];

static void *token_of(bool served)
{
	return &tokens[served ? SERVED : UNSERVED];
}

static bool says_served(const void *token)
{
	return token == &tokens[SERVED];
}

static void ctx_made(void *parent, void *ptr, CRYPTO_EX_DATA *data, int idx, long argl,
		     void *argp)
{
	bool served = ctx_is_served(parent);

	(void)ptr, (void)argl, (void)argp;
	epkp_heap_refuse_next(NULL);
	/* Where that fails it has none, which is as UNSERVED. */
	CRYPTO_set_ex_data(data, idx, token_of(served));
	epkp_publish_add(&epkp_published.ssl_contexts[served ? SERVED : UNSERVED], 1);
	if (served)
		return;
	say_unserved();
	if (!refuses)
		return;
	raise_refused();
	if (have_libssl())
		libssl.set_policy(parent, forbid);
	/* A secure heap is asked instead. */
	if (!CRYPTO_secure_malloc_initialized())
		epkp_heap_refuse_next(MAKES_CTX);
}

static void ctx_freed(void *parent, void *ptr, CRYPTO_EX_DATA *data, int idx, long argl,
		      void *argp)
{
	(void)parent, (void)data, (void)idx, (void)argl, (void)argp;
	if (ptr)
		epkp_publish_add(&epkp_published.ssl_contexts[says_served(ptr) ? SERVED : UNSERVED],
				 -1);
}

/* From more than to; and none of them, should the program say from where to where itself. */
static void take_versions(SSL *ssl)
{
	bool dtls = libssl.is_dtls(ssl);

	libssl.set_options(ssl, SSL_OP_NO_SSL_MASK | SSL_OP_NO_DTLS_MASK);
	libssl.ctrl(ssl, SSL_CTRL_SET_MIN_PROTO_VERSION, dtls ? DTLS1_2_VERSION : TLS1_3_VERSION,
		    NULL);
	libssl.ctrl(ssl, SSL_CTRL_SET_MAX_PROTO_VERSION, dtls ? DTLS1_VERSION : TLS1_2_VERSION,
		    NULL);
}

/* Later libssls tell of an SSL before it is one. */
static bool can_touch(void)
{
	return have_libssl() && OpenSSL_version_num() < 0x30200000;
}

static void ssl_made(void *parent, void *ptr, CRYPTO_EX_DATA *data, int idx, long argl,
		     void *argp)
{
	/* None yet, in later libssls. */
	const SSL_CTX *ctx = have_libssl() ? libssl.get_ctx(parent) : NULL;
	bool served = ctx && says_served(libssl.get_ctx_data(ctx, ctx_index));

	(void)ptr, (void)argl, (void)argp;
	CRYPTO_set_ex_data(data, idx, token_of(served));
	epkp_publish_add(&epkp_published.sessions[served ? SERVED : UNSERVED], 1);
	if (!can_touch())
		return;
	/* The kernel would get the keys. */
	libssl.clear_options(parent, SSL_OP_ENABLE_KTLS);
	/* It is for engines, which there are not, and has stacks on which no secret can be wiped. */
	libssl.ctrl(parent, SSL_CTRL_CLEAR_MODE, SSL_MODE_ASYNC, NULL);
	if (served || !refuses)
		return;
	epkp_publish_add(&epkp_published.refused, 1);
	take_versions(parent);
	raise_refused();
}

static void ssl_freed(void *parent, void *ptr, CRYPTO_EX_DATA *data, int idx, long argl,
		      void *argp)
{
	(void)parent, (void)data, (void)idx, (void)argl, (void)argp;
	if (ptr)
		epkp_publish_add(&epkp_published.sessions[says_served(ptr) ? SERVED : UNSERVED],
				 -1);
}

static pthread_once_t watched = PTHREAD_ONCE_INIT;

static void watch_libssl(void)
{
	ctx_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, ctx_made, NULL,
					    ctx_freed);
	ssl_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, ssl_made, NULL,
					    ssl_freed);
	epkp_published.watched = ctx_index >= 0 && ssl_index >= 0;
}

/* The others are fetched when a handshake comes to them. */
static bool is_fetched_at_once(const struct cipher *c)
{
	return c->names && c->kind != KIND_CBC_HMAC;
}

static void note_ciphers(struct served *s, OSSL_LIB_CTX *libctx, const char *properties)
{
	EVP_CIPHER *cipher;
	size_t i;

	for (i = 0; i < NR_CIPHERS; i++) {
		if (!is_fetched_at_once(&epkp_ciphers[i]))
			continue;
		cipher = EVP_CIPHER_fetch(libctx, epkp_ciphers[i].name, properties);
		if (!cipher)
			continue;
		s->ciphers[s->nr_ciphers++] = cipher;
		s->provctx = OSSL_PROVIDER_get0_provider_ctx(EVP_CIPHER_get0_provider(cipher));
		/* The library context keeps it. */
		EVP_CIPHER_free(cipher);
	}
}

/*
 * For a library context that the cipher check is content with: only what has all of these ciphers
 * is served.  Whatever the properties are that it asks with, they are the same objects.
 */
bool epkp_sessions_watch(OSSL_LIB_CTX *libctx, const char *properties, bool allow_unserved)
{
	struct served *s = calloc(1, sizeof(*s));

	if (s)
		note_ciphers(s, libctx, properties);
	pthread_once(&watched, watch_libssl);
	if (!s || !s->nr_ciphers || !epkp_published.watched) {
		free(s);
		ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL, "libssl cannot be watched");
		return false;
	}
	s->next = __atomic_load_n(&served_list, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&served_list, &s->next, s, false, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
	if (!libctx || libctx == OSSL_LIB_CTX_get0_global_default()) {
		refuses = !allow_unserved;
		epkp_published.checked |= 1;
		epkp_published.unserved_allowed = allow_unserved;
	} else {
		epkp_published.checked |= 2;
	}
	return true;
}

/* Its ciphers' places may become anything. */
void epkp_sessions_forget(const void *provctx)
{
	struct served *s;

	for (s = __atomic_load_n(&served_list, __ATOMIC_ACQUIRE); s; s = s->next)
		if (s->provctx == provctx)
			__atomic_store_n(&s->provctx, NULL, __ATOMIC_RELAXED);
}
