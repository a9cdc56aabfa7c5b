// SPDX-License-Identifier: MIT
/*
 * No part of a private key is in ordinary memory.
 *
 * A process of its own reads a key from a file, signs with it, forks, and frees it, and as a server
 * that has been at work reads it again when it is asked for a name, with the epk provider or without.  An attacker who knows the key, and so everything that follows from
 * it and from a signature, looks after each of these for all of it in that process's memory
 * outside domains.  Where there is no epk provider it has to be found, or this shows nothing.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>

#include "provider_key_scan.h"
#include "provider_link.h"

OSSL_LIB_CTX *with_epk, *plain;

#define CONTROL_FD	10
#define MESSAGE		"what is signed"
#define NR_SIGNATURES	40	/* blinding factors are made anew after 32 */

/* ---- who has the key */

struct stage {
	pid_t pid;
	char name[32];
	size_t len;
	uint8_t signature[1024];
};

static bool is_ours, has_own_heap;

static int tell_range(int dom, void *addr, size_t len, void *arg)
{
	struct range range = { (uintptr_t)addr, (uintptr_t)addr + len };

	(void)dom;
	(void)arg;
	return write(CONTROL_FD, &range, sizeof(range)) != sizeof(range);
}

/* Nothing is done until the attacker has looked. */
static __attribute__((noinline)) void let_look(struct stage *stage, const char *name)
{
	struct range end = { 0, 0 };

	stage->pid = getpid();
	snprintf(stage->name, sizeof(stage->name), "%s", name);
	if (write(CONTROL_FD, stage, sizeof(*stage)) != sizeof(*stage))
		_exit(9);
	if (is_ours)
		epk_for_each_mapping(tell_range, NULL);
	if (write(CONTROL_FD, &end, sizeof(end)) != sizeof(end) ||
	    read(CONTROL_FD, &(char){ 0 }, 1) != 1)
		_exit(9);
	stage->len = 0;
}

static EVP_PKEY *read_from(OSSL_LIB_CTX *libctx, BIO *bio)
{
	EVP_PKEY *pkey = PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, libctx, NULL);

	require_ossl(pkey != NULL);
	return pkey;
}

static __attribute__((noinline)) EVP_PKEY *read_key(OSSL_LIB_CTX *libctx, const char *path,
						    struct stage *stage)
{
	BIO *bio = BIO_new_file(path, "r");
	EVP_PKEY *pkey = read_from(libctx, bio);

	let_look(stage, "file still open");
	(void)BIO_reset(bio);
	EVP_PKEY_free(PEM_read_bio_PUBKEY_ex(bio, NULL, NULL, NULL, libctx, NULL));
	ERR_clear_error();
	BIO_free(bio);
	return pkey;
}

/* All certificates that are there, and more that a server may look for in the file. */
static void read_others(OSSL_LIB_CTX *libctx, BIO *bio)
{
	X509 *cert;

	while ((cert = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL)))
		X509_free(cert);
	(void)BIO_reset(bio);
	EVP_PKEY_free(PEM_read_bio_Parameters_ex(bio, NULL, libctx, NULL));
	(void)BIO_reset(bio);
	EVP_PKEY_free(PEM_read_bio_PUBKEY_ex(bio, NULL, NULL, NULL, libctx, NULL));
	(void)BIO_reset(bio);
}

static void read_by_buffer(const char *path)
{
	BIO *bio = BIO_push(BIO_new(BIO_f_buffer()), BIO_new_file(path, "r"));

	X509_free(PEM_read_bio_X509(bio, NULL, NULL, NULL));
	BIO_free_all(bio);
}

/* Of CAs, by each way that OpenSSL has. */
static void read_lists(OSSL_LIB_CTX *libctx, SSL_CTX *ctx, const char *path, struct stage *stage)
{
	BIO *bio = BIO_new_file(path, "r");

	SSL_CTX_load_verify_file(ctx, path);
	let_look(stage, "file to verify by");
	SSL_CTX_load_verify_store(ctx, path);
	let_look(stage, "store to verify by");
	sk_X509_NAME_pop_free(SSL_load_client_CA_file(path), X509_NAME_free);
	let_look(stage, "names of CAs");
	sk_X509_INFO_pop_free(PEM_X509_INFO_read_bio_ex(bio, NULL, NULL, NULL, libctx, NULL),
			      X509_INFO_free);
	BIO_free(bio);
	let_look(stage, "all that is in it");
}

/* As a server does that is told of a file once and a file twice, in one go, and by stdio. */
static __attribute__((noinline)) void read_certificates(OSSL_LIB_CTX *libctx, const char *path,
						      struct stage *stage)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(libctx, NULL, TLS_server_method());
	BIO *bio = BIO_new_file(path, "r");
	FILE *file = fopen(path, "re");

	read_others(libctx, bio);
	EVP_PKEY_free(read_from(libctx, bio));
	read_others(libctx, bio);
	/* Which gives up the file that it had. */
	require_ossl(BIO_read_filename(bio, "/dev/null"));
	let_look(stage, "another file");
	BIO_free(bio);
	SSL_CTX_use_certificate_chain_file(ctx, path);
	let_look(stage, "chain");
	/* Take private keys for what they are, and leave what they were in such a heap. */
	if (!has_own_heap)
		read_lists(libctx, ctx, path, stage);
	SSL_CTX_free(ctx);
	/* Such a heap has buffers' as well. */
	if (!has_own_heap) {
		/* The second time it is known which file frees the buffer. */
		read_by_buffer(path);
		read_by_buffer(path);
		let_look(stage, "buffer freed");
	}

	REQUIRE(file);
	X509_free(PEM_read_X509(file, NULL, NULL, NULL));
	let_look(stage, "by stdio");
	rewind(file);
	EVP_PKEY_free(PEM_read_PrivateKey_ex(file, NULL, NULL, NULL, libctx, NULL));
	rewind(file);
	X509_free(PEM_read_X509(file, NULL, NULL, NULL));
	fclose(file);
	ERR_clear_error();
}

static __attribute__((noinline)) void sign(OSSL_LIB_CTX *libctx, EVP_PKEY *pkey, struct stage *s,
					   bool pss)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx;

	require_ossl(EVP_DigestSignInit_ex(ctx, &pctx, EVP_PKEY_is_a(pkey, "ED25519") ? NULL :
					   "SHA256", libctx, NULL, pkey, NULL));
	if (pss)
		require_ossl(EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING));
	s->len = sizeof(s->signature);
	require_ossl(EVP_DigestSign(ctx, s->signature, &s->len, (const uint8_t *)MESSAGE,
				    strlen(MESSAGE)));
	EVP_MD_CTX_free(ctx);
}

/* What a client of TLS 1.2 has sent; the attacker has sent it. */
static __attribute__((noinline)) void decrypt(OSSL_LIB_CTX *libctx, EVP_PKEY *pkey,
					      struct stage *stage)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(libctx, pkey, NULL);
	unsigned int version = TLS1_2_VERSION;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_uint(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION, &version),
		OSSL_PARAM_construct_end()
	};
	uint8_t sent[512], secret[48];
	size_t len = sizeof(secret), sent_len;

	REQUIRE(read(CONTROL_FD, &sent_len, sizeof(sent_len)) == sizeof(sent_len) &&
		sent_len <= sizeof(sent));
	REQUIRE_EQ(read(CONTROL_FD, sent, sent_len), sent_len);
	require_ossl(EVP_PKEY_decrypt_init(ctx));
	require_ossl(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_WITH_TLS_PADDING));
	require_ossl(EVP_PKEY_CTX_set_params(ctx, params));
	require_ossl(EVP_PKEY_decrypt(ctx, secret, &len, sent, sent_len));
	EVP_PKEY_CTX_free(ctx);
	/* As libssl has it, until it has wiped it. */
	let_look(stage, "decrypted");
	OPENSSL_cleanse(secret, sizeof(secret));
}

static void sign_often(OSSL_LIB_CTX *libctx, EVP_PKEY *pkey, struct stage *stage)
{
	bool is_rsa = EVP_PKEY_is_a(pkey, "RSA");
	int i;

	for (i = 0; i < NR_SIGNATURES; i++) {
		sign(libctx, pkey, stage, is_rsa && i % 2);
		if (i < 3 || i > NR_SIGNATURES - 3)
			let_look(stage, is_rsa && i % 2 ? "signed, PSS" : "signed");
	}
}

static void work_in_child(OSSL_LIB_CTX *libctx, EVP_PKEY *pkey, struct stage *stage)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		let_look(stage, "forked");
		sign_often(libctx, pkey, stage);
		EVP_PKEY_free(pkey);
		let_look(stage, "freed by the child");
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
}

/* ---- a server of TLS, which reads the file when it is asked for a name */

struct late {
	OSSL_LIB_CTX *libctx;
	const char *path;
	struct stage *stage;
	bool asked;
};

static int read_when_asked(SSL *ssl, int *alert, void *arg)
{
	struct late *late = arg;
	EVP_PKEY *pkey;

	(void)alert;
	if (!SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name))
		return SSL_TLSEXT_ERR_OK;
	late->asked = true;
	read_certificates(late->libctx, late->path, late->stage);
	pkey = read_key(late->libctx, late->path, late->stage);
	sign(late->libctx, pkey, late->stage, false);
	let_look(late->stage, "asked, signed");
	EVP_PKEY_free(pkey);
	let_look(late->stage, "asked, freed");
	return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *make_server(struct late *late)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(late->libctx, NULL, TLS_server_method());
	char path[4096];

	snprintf(path, sizeof(path), "%s/cert.pem", BUILD_DIR);
	require_ossl(SSL_CTX_use_certificate_chain_file(ctx, path));
	snprintf(path, sizeof(path), "%s/key.pem", BUILD_DIR);
	require_ossl(SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM));
	SSL_CTX_set_tlsext_servername_callback(ctx, read_when_asked);
	SSL_CTX_set_tlsext_servername_arg(ctx, late);
	return ctx;
}

static void serve(SSL_CTX *server_ctx, SSL_CTX *client_ctx, const char *name)
{
	SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
	char bytes[16];
	int turn, done = 0;

	link_ends(server, client);
	if (name)
		SSL_set_tlsext_host_name(client, name);
	for (turn = 0; turn < 20 && done != 3; turn++) {
		done = SSL_do_handshake(client) == 1;
		done |= (SSL_do_handshake(server) == 1) << 1;
	}
	REQUIRE_EQ(done, 3);
	REQUIRE_EQ(SSL_write(server, "sixteen bytes...", 16), 16);
	REQUIRE_EQ(SSL_read(client, bytes, 16), 16);
	SSL_free(server);
	SSL_free(client);
}

static void work_as_server(OSSL_LIB_CTX *libctx, const char *path, struct stage *stage)
{
	struct late late = { libctx, path, stage, false };
	SSL_CTX *server = make_server(&late);
	SSL_CTX *client = SSL_CTX_new_ex(make_libctx(0), NULL, TLS_client_method());
	int i;

	for (i = 0; i < 3; i++)
		serve(server, client, NULL);
	REQUIRE(!(late.asked));
	serve(server, client, "a.name");
	REQUIRE(late.asked);
	let_look(stage, "asked, served");
	SSL_CTX_free(server);
	SSL_CTX_free(client);
}

/* A heap of the program's own, which says nothing of its blocks and wipes none. */
#define HEAD	16

static void *own_malloc(size_t size, const char *file, int line)
{
	char *ptr = malloc(size + HEAD);

	(void)file;
	(void)line;
	return ptr ? ptr + HEAD : NULL;
}

static void own_free(void *ptr, const char *file, int line)
{
	(void)file;
	(void)line;
	if (ptr)
		free((char *)ptr - HEAD);
}

static void *own_realloc(void *ptr, size_t size, const char *file, int line)
{
	char *to;

	if (ptr && !size) {
		own_free(ptr, file, line);
		return NULL;
	}
	to = realloc(ptr ? (char *)ptr - HEAD : NULL, size + HEAD);
	return to ? to + HEAD : NULL;
}

static int have_key(bool ours, const char *path)
{
	OSSL_LIB_CTX *libctx = make_libctx(ours);
	struct stage stage = { .len = 0 };
	EVP_PKEY *pkey;

	is_ours = ours;
	read_certificates(libctx, path, &stage);
	let_look(&stage, "certificates read");
	pkey = read_key(libctx, path, &stage);
	let_look(&stage, "read");
	sign_often(libctx, pkey, &stage);
	if (EVP_PKEY_is_a(pkey, "RSA")) {
		let_look(&stage, "wants to decrypt");
		decrypt(libctx, pkey, &stage);
	}
	work_in_child(libctx, pkey, &stage);
	EVP_PKEY_free(pkey);
	let_look(&stage, "freed");
	work_as_server(libctx, path, &stage);
	stage.pid = 0;
	return write(CONTROL_FD, &stage, sizeof(stage)) != sizeof(stage);
}

/* ---- the attacker */

/* In the key's file. */
enum certificate { NONE, BEFORE, AFTER };

static struct {
	pid_t pid;
	int control;
	bool ours;
	EVP_PKEY *pkey;
	char path[64];
	BIGNUM *d, *order;
	bool ever[NEEDLES_MAX];
} at;

static void read_all(int fd, void *to, size_t len)
{
	ssize_t got;

	for (; len; to = (char *)to + got, len -= got) {
		got = read(fd, to, len);
		REQUIRE(got > 0);
	}
}

static void add_ec(const char *curve)
{
	EC_GROUP *group = EC_GROUP_new_by_curve_name(OBJ_txt2nid(curve));

	at.d = get_number(at.pkey, OSSL_PKEY_PARAM_PRIV_KEY);
	at.order = BN_dup(EC_GROUP_get0_order(group));
	EC_GROUP_free(group);
	add_number("scalar", at.d);
}

/* The seed, the scalar and what nonces are made from; and the nonce (RFC 8032, 5.1.6). */
static void add_ed(void)
{
	uint8_t seed[32], hash[64], nonce[64];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t len = sizeof(seed);

	require_ossl(EVP_PKEY_get_raw_private_key(at.pkey, seed, &len));
	require_ossl(EVP_Digest(seed, sizeof(seed), hash, NULL, EVP_sha512(), NULL));
	add_bytes("seed", seed, sizeof(seed));
	add_bytes(SEED_HASH, hash, 32);
	add_bytes(SEED_HASH, hash + 32, 32);
	require_ossl(EVP_DigestInit_ex(ctx, EVP_sha512(), NULL));
	EVP_DigestUpdate(ctx, hash + 32, 32);
	EVP_DigestUpdate(ctx, MESSAGE, strlen(MESSAGE));
	require_ossl(EVP_DigestFinal_ex(ctx, nonce, NULL));
	add_bytes(NONCE, nonce, sizeof(nonce));
	EVP_MD_CTX_free(ctx);
}

/* k = (h + r d) / s, or what is left of it: 1 / k. */
static void add_nonce(const struct stage *stage)
{
	const uint8_t *der = stage->signature;
	BIGNUM *k = BN_new(), *h = BN_new(), *s = BN_new();
	BN_CTX *ctx = BN_CTX_new();
	ECDSA_SIG *sig;
	uint8_t hash[32];

	if (!at.d || !stage->len)
		return;
	sig = d2i_ECDSA_SIG(NULL, &der, stage->len);
	REQUIRE(sig);
	require_ossl(EVP_Digest(MESSAGE, strlen(MESSAGE), hash, NULL, EVP_sha256(), NULL));
	BN_bin2bn(hash, sizeof(hash), h);
	BN_mod_mul(k, ECDSA_SIG_get0_r(sig), at.d, at.order, ctx);
	BN_mod_add(k, k, h, at.order, ctx);
	BN_mod_inverse(s, ECDSA_SIG_get0_s(sig), at.order, ctx);
	BN_mod_mul(k, k, s, at.order, ctx);
	add_number(NONCE, k);
	BN_mod_inverse(k, k, at.order, ctx);
	add_number(NONCE, k);
	BN_free(k);
	BN_free(h);
	BN_free(s);
	BN_CTX_free(ctx);
	ECDSA_SIG_free(sig);
}

static void write_certificate(int fd)
{
	char path[4096], bytes[8192];
	BIO *bio;
	int len;

	snprintf(path, sizeof(path), "%s/cert.pem", BUILD_DIR);
	bio = BIO_new_file(path, "r");
	len = BIO_read(bio, bytes, sizeof(bytes));
	BIO_free(bio);
	REQUIRE(len > 0);
	REQUIRE_EQ(write(fd, bytes, len), len);
}

/* The file's text, and what it encodes. */
static void make_file(bool traditional, enum certificate certificate)
{
	int fd;

	strcpy(at.path, "/tmp/epk-key-scan-XXXXXX");
	fd = mkstemp(at.path);
	REQUIRE(fd >= 0);
	if (certificate == BEFORE)
		write_certificate(fd);
	add_file(at.pkey, fd, traditional);
	if (certificate == AFTER)
		write_certificate(fd);
	close(fd);
}

static struct range domains[4096];
static size_t nr_domains;

static int by_start(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

/* Where nobody can read them without having begun them, nobody has to be told of them. */
static bool closes_for_all(void)
{
	const char *backend = getenv("EPK_BACKEND");

	return backend && !strcmp(backend, "mprotect");
}

static void read_domains(void)
{
	struct range range;

	nr_domains = 0;
	for (read_all(at.control, &range, sizeof(range)); range.end;
	     read_all(at.control, &range, sizeof(range))) {
		REQUIRE(nr_domains < 4096);
		domains[nr_domains++] = range;
	}
	qsort(domains, nr_domains, sizeof(domains[0]), by_start);
	if (closes_for_all())
		nr_domains = 0;
}

static void look(const struct stage *stage)
{
	static struct image image;
	size_t i, len, found = 0;

	REQUIRE(take_image(&image, stage->pid, domains, nr_domains));
	len = scan_image(&image);
	drop_image(&image);
	printf("%s, %-18s", at.ours ? "epk" : "stock", stage->name);
	for (i = 0; i < nr_needles; i++) {
		if (!needles[i].found)
			continue;
		found++;
		at.ever[i] = true;
		if (!i || strcmp(needles[i].name, needles[i - 1].name))
			printf(" %s,", needles[i].name);
	}
	printf(" %zu of %zu in %zu KiB\n", found, nr_needles, len / 1024);
	fflush(stdout);
	if (at.ours)
		REQUIRE_EQ(found, 0);
}

static void send_premaster(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(plain, at.pkey, NULL);
	uint8_t secret[48] = { 3, 3 }, sent[512];
	size_t len = sizeof(sent), i;

	for (i = 2; i < sizeof(secret); i++)
		secret[i] = 7 * i + at.pid;
	require_ossl(EVP_PKEY_encrypt_init(ctx));
	require_ossl(EVP_PKEY_encrypt(ctx, sent, &len, secret, sizeof(secret)));
	EVP_PKEY_CTX_free(ctx);
	add_needle("premaster", secret, sizeof(secret), false);
	REQUIRE_EQ(write(at.control, &len, sizeof(len)), sizeof(len));
	REQUIRE_EQ(write(at.control, sent, len), len);
}

static void attack(void)
{
	struct stage stage;
	int status;

	for (;;) {
		read_all(at.control, &stage, sizeof(stage));
		if (!stage.pid)
			break;
		read_domains();
		add_nonce(&stage);
		look(&stage);
		REQUIRE_EQ(write(at.control, "g", 1), 1);
		if (!strcmp(stage.name, "wants to decrypt"))
			send_premaster();
	}
	REQUIRE_EQ(waitpid(at.pid, &status, 0), at.pid);
	REQUIRE_EQ(status, 0);
	close(at.control);
}

static void start(bool ours, bool own_heap)
{
	int control[2];

	at.ours = ours;
	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control), 0);
	at.pid = fork();
	REQUIRE(at.pid >= 0);
	if (!at.pid) {
		dup2(control[1], CONTROL_FD);
		execl("/proc/self/exe", "provider_key_scan_test", ours ? "epk" : "stock", at.path,
		      own_heap ? "own" : NULL, NULL);
		_exit(127);
	}
	close(control[1]);
	at.control = control[0];
}

static const struct {
	const char *type, *curve;
	unsigned int bits;
	bool traditional;
	enum certificate certificate;
	bool own_heap;
} keys[] = {
	{ "RSA", NULL, 2048, false, NONE, false },
	{ "RSA", NULL, 2048, true, NONE, false },
	{ "RSA", NULL, 2048, false, BEFORE, false },
	{ "RSA", NULL, 2048, true, AFTER, false },
	{ "RSA", NULL, 1024, false, NONE, false },
	{ "RSA", NULL, 3072, false, NONE, false },
	{ "RSA", NULL, 4096, false, NONE, false },
	{ "EC", "prime256v1", 0, false, NONE, false },
	{ "EC", "prime256v1", 0, true, NONE, false },
	{ "EC", "prime256v1", 0, true, BEFORE, false },
	{ "EC", "secp384r1", 0, false, AFTER, false },
	{ "ED25519", NULL, 0, false, NONE, false },
	{ "ED25519", NULL, 0, false, BEFORE, false },
	{ "RSA", NULL, 2048, false, BEFORE, true },
	{ "EC", "prime256v1", 0, true, AFTER, true },
};

#define NR_KEYS	(sizeof(keys) / sizeof(keys[0]))

static void try_key(size_t i, bool ours)
{
	nr_needles = 0;
	memset(&at, 0, sizeof(at));
	if (!strcmp(keys[i].type, "RSA"))
		at.pkey = EVP_PKEY_Q_keygen(plain, NULL, "RSA", (size_t)keys[i].bits);
	else
		at.pkey = EVP_PKEY_Q_keygen(plain, NULL, keys[i].type, keys[i].curve);
	require_ossl(at.pkey != NULL);
	printf("%s %s%u\n", keys[i].type, keys[i].curve ? keys[i].curve : "", keys[i].bits);
	make_file(keys[i].traditional, keys[i].certificate);
	if (!strcmp(keys[i].type, "RSA"))
		add_rsa(at.pkey);
	else if (keys[i].curve)
		add_ec(keys[i].curve);
	else
		add_ed();
	start(ours, keys[i].own_heap);
	attack();
	unlink(at.path);
	EVP_PKEY_free(at.pkey);
	BN_free(at.d);
	BN_free(at.order);
}

static void no_part_of_a_key_is_outside(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < NR_KEYS; i++)
		try_key(i, true);
}

/* All but what it wipes, and of a text at least a line. */
static void stock_has_it(void **state)
{
	size_t i, n, texts, lines;

	(void)state;
	for (i = 0; i < NR_KEYS; i++) {
		try_key(i, false);
		for (n = texts = lines = 0; n < nr_needles; n++) {
			if (!strcmp(needles[n].name, TEXT)) {
				texts++;
				lines += at.ever[n];
			} else if (!is_transient(&needles[n])) {
				REQUIRE(at.ever[n]);
			}
		}
		REQUIRE_EQ(!texts, !lines);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stock_has_it),
		cmocka_unit_test(no_part_of_a_key_is_outside),
	};

	has_own_heap = argc == 4;
	if (has_own_heap)
		require_ossl(CRYPTO_set_mem_functions(own_malloc, own_realloc, own_free));
	if (argc >= 3)
		return have_key(!strcmp(argv[1], "epk"), argv[2]);
	return cmocka_run_group_tests_name("provider_key_scan", tests, make_plain, NULL);
}
