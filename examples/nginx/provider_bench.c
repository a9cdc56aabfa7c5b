// SPDX-License-Identifier: MIT
/*
 * What the domains cost: the epk provider against OpenSSL's default provider, doing the
 * same in turns in one process.  Prints the median of the ratios of the pairs, and
 * between which values half of them lie.
 *
 *	EPK_BACKEND=none provider_bench [pairs [limits]]
 *
 * Exit status: 0, or, with "limits", 1 if a median is over its own.
 */
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>

#include "provider_certificate.h"
#include "provider_link.h"
#include "provider_test.h"
#include "provider/epk_provider.h"

#define PAIRS_MAX	10000
#define TURN_NS		300000
#define RECORD_MAX	16384

OSSL_LIB_CTX *with_epk, *plain;

static uint8_t record[RECORD_MAX + 256];

struct work {
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *ctx;
	size_t len;
	uint64_t number;
};

static const uint8_t key[32] = { 1 };

/* As libssl 3.0 seals and opens a record of TLS 1.3. */
static void tls13_record(struct work *w, int sealing)
{
	uint8_t header[5] = { 23, 3, 3, (w->len + TAG_LEN) >> 8, w->len + TAG_LEN };
	uint8_t iv[IV_LEN] = { 2 }, tag[TAG_LEN] = { 0 };
	int outl, end;

	memcpy(iv + 4, &w->number, sizeof(w->number));
	w->number++;
	EVP_CipherInit_ex(w->ctx, NULL, NULL, NULL, iv, sealing);
	if (!sealing)
		EVP_CIPHER_CTX_ctrl(w->ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, tag);
	EVP_CipherUpdate(w->ctx, NULL, &outl, header, sizeof(header));
	REQUIRE(EVP_CipherUpdate(w->ctx, record, &outl, record, w->len) > 0);
	/* Opening what nobody sealed costs the same, and is refused at the end. */
	EVP_CipherFinal_ex(w->ctx, record + outl, &end);
	if (sealing)
		EVP_CIPHER_CTX_ctrl(w->ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag);
}

static void seal13(struct work *w)
{
	tls13_record(w, 1);
}

static void open13(struct work *w)
{
	tls13_record(w, 0);
}

/* As libssl 3.0 seals a record of TLS 1.2. */
static void seal12(struct work *w)
{
	size_t iv = EVP_CIPHER_get_mode(w->cipher) == EVP_CIPH_GCM_MODE ? 8 : 0;
	size_t len = w->len + iv;
	uint8_t header[TLS_AAD_LEN] = { [8] = 23, [9] = 3, [10] = 3, [11] = len >> 8, [12] = len };
	int outl;

	EVP_CIPHER_CTX_ctrl(w->ctx, EVP_CTRL_AEAD_TLS1_AAD, sizeof(header), header);
	REQUIRE(EVP_CipherUpdate(w->ctx, record, &outl, record, len + TAG_LEN) > 0);
}

static void update_only(struct work *w)
{
	int outl;

	REQUIRE(EVP_CipherUpdate(w->ctx, record, &outl, record, w->len) > 0);
}

static void key_and_free(struct work *w)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	EVP_CipherInit_ex(ctx, w->cipher, NULL, key, NULL, 1);
	EVP_CIPHER_CTX_free(ctx);
}

static void get_ready(struct work *w, OSSL_LIB_CTX *libctx, const char *name, int sealing)
{
	static uint8_t iv[16] = { 3 };

	w->cipher = fetch(libctx, name);
	w->ctx = EVP_CIPHER_CTX_new();
	require_ossl(EVP_CipherInit_ex(w->ctx, w->cipher, NULL, key, iv, sealing));
	if (EVP_CIPHER_get_mode(w->cipher) == EVP_CIPH_CBC_MODE)
		EVP_CIPHER_CTX_set_padding(w->ctx, 0);
	else if (EVP_CIPHER_get_mode(w->cipher) == EVP_CIPH_GCM_MODE)
		EVP_CIPHER_CTX_ctrl(w->ctx, EVP_CTRL_AEAD_SET_IV_FIXED, 4, iv);
	else
		EVP_CIPHER_CTX_ctrl(w->ctx, EVP_CTRL_AEAD_SET_IV_FIXED, IV_LEN, iv);
	ERR_clear_error();
}

static void done(struct work *w)
{
	EVP_CIPHER_CTX_free(w->ctx);
	EVP_CIPHER_free(w->cipher);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

typedef void (*work_fn)(struct work *w);

static double turn(work_fn fn, struct work *w, unsigned int times)
{
	uint64_t start = now();
	unsigned int i;

	for (i = 0; i < times; i++)
		fn(w);
	return (double)(now() - start) / times;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* What a median may be at most: more than is measured, as other work of the machine moves it. */
static const struct limit {
	const char *name, *what;
	size_t len;
	double most;
} limits[] = {
	{ "AES-128-GCM", "seal, TLS 1.3", 1024, 1.10 },
	{ "AES-128-GCM", "open, TLS 1.3", 1024, 1.10 },
	{ "AES-128-GCM", "seal, TLS 1.2", 1024, 1.15 },
	{ "AES-256-GCM", "seal, TLS 1.3", 1024, 1.10 },
	{ "AES-256-GCM", "open, TLS 1.3", 1024, 1.10 },
	{ "AES-256-GCM", "seal, TLS 1.2", 1024, 1.15 },
	{ "AES-128-GCM", "seal, TLS 1.3", RECORD_MAX, 1.03 },
	{ "AES-128-GCM", "open, TLS 1.3", RECORD_MAX, 1.03 },
	{ "AES-128-GCM", "seal, TLS 1.2", RECORD_MAX, 1.03 },
	{ "AES-256-GCM", "seal, TLS 1.3", RECORD_MAX, 1.03 },
	{ "AES-256-GCM", "open, TLS 1.3", RECORD_MAX, 1.03 },
	{ "AES-256-GCM", "seal, TLS 1.2", RECORD_MAX, 1.03 },
	{ "ChaCha20-Poly1305", "seal, TLS 1.3", 1024, 0.85 },
	{ "ChaCha20-Poly1305", "open, TLS 1.3", 1024, 0.85 },
	{ "ChaCha20-Poly1305", "seal, TLS 1.2", 1024, 1.15 },
	{ "ChaCha20-Poly1305", "seal, TLS 1.3", RECORD_MAX, 1.00 },
	{ "ChaCha20-Poly1305", "open, TLS 1.3", RECORD_MAX, 1.00 },
	{ "ChaCha20-Poly1305", "seal, TLS 1.2", RECORD_MAX, 1.03 },
	{ "TLS 1.3", "full handshake", 0, 1.17 },
	{ "TLS 1.2", "full handshake", 0, 1.17 },
	{ "TLS 1.3", "first handshakes", 0, 1.25 },
	{ "TLS 1.2", "first handshakes", 0, 1.25 },
	{ "RSA-2048, PKCS#1", "signature", 0, 1.05 },
	{ "RSA-2048, PSS", "signature", 0, 1.05 },
	{ "P-256", "signature", 0, 1.05 },
	{ "P-384", "signature", 0, 1.05 },
	{ "Ed25519", "signature", 0, 1.10 },
};

#define NR_LIMITS	(sizeof(limits) / sizeof(limits[0]))

static bool is_met[NR_LIMITS];
static unsigned int nr_over;

static bool is_over(const char *name, const char *what, size_t len, double ratio)
{
	bool over = false;
	size_t i;

	for (i = 0; i < NR_LIMITS; i++) {
		if (strcmp(name, limits[i].name) || strcmp(what, limits[i].what) ||
		    len != limits[i].len)
			continue;
		is_met[i] = true;
		over |= ratio > limits[i].most;
	}
	return over;
}

/* A limit of what is not measured would never fail. */
static bool are_met(void)
{
	size_t i;
	bool all = true;

	for (i = 0; i < NR_LIMITS; i++) {
		if (!is_met[i])
			fprintf(stderr, "nothing is measured of %s, %s, %zu bytes\n",
				limits[i].name, limits[i].what, limits[i].len);
		all &= is_met[i];
	}
	return all;
}

static void print_pairs(const char *name, const char *what, size_t len, double *ratio,
			double *base, unsigned int pairs)
{
	bool over;

	qsort(ratio, pairs, sizeof(*ratio), by_value);
	qsort(base, pairs, sizeof(*base), by_value);
	over = is_over(name, what, len, ratio[pairs / 2]);
	nr_over += over;
	printf("%-22s %-16s %5zu bytes: %.3f (%.3f to %.3f), default %.0f ns%s\n", name, what, len,
	       ratio[pairs / 2], ratio[pairs / 4], ratio[pairs * 3 / 4], base[pairs / 2],
	       over ? ": over its limit" : "");
	fflush(stdout);
}

static double ratio[PAIRS_MAX], base[PAIRS_MAX];

static void compare(const char *name, const char *what, work_fn fn, int sealing, size_t len,
		    unsigned int pairs)
{
	struct work ours = { .len = len }, theirs = { .len = len };
	unsigned int i, times = 1;
	double a, b;

	get_ready(&ours, with_epk, name, sealing);
	get_ready(&theirs, plain, name, sealing);
	while (turn(fn, &theirs, times) * times < TURN_NS)
		times *= 2;
	turn(fn, &ours, times);
	for (i = 0; i < pairs; i++) {
		/* Neither is always the first. */
		if (i % 2) {
			a = turn(fn, &ours, times);
			b = turn(fn, &theirs, times);
		} else {
			b = turn(fn, &theirs, times);
			a = turn(fn, &ours, times);
		}
		ratio[i] = a / b;
		base[i] = b;
	}
	print_pairs(name, what, len, ratio, base, pairs);
	done(&ours);
	done(&theirs);
}

/* ---- handshakes: what the server's half takes */

static SSL_CTX *make_ssl_ctx(OSSL_LIB_CTX *libctx, int version, int is_server)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(libctx, NULL, is_server ? TLS_server_method() :
						    TLS_client_method());

	require_ossl(SSL_CTX_set_min_proto_version(ctx, version));
	require_ossl(SSL_CTX_set_max_proto_version(ctx, version));
	if (!is_server)
		return ctx;
	use_certificate(ctx);
	return ctx;
}

static double handshake(SSL_CTX *server_ctx, SSL_CTX *client_ctx)
{
	SSL *server, *client = SSL_new(client_ctx);
	uint64_t spent = 0, start = now();
	int is_over[2] = { 0, 0 };

	server = SSL_new(server_ctx);
	spent += now() - start;
	link_ends(server, client);
	while (!is_over[0] || !is_over[1]) {
		is_over[0] = SSL_do_handshake(client) == 1;
		start = now();
		is_over[1] = SSL_do_handshake(server) == 1;
		spent += now() - start;
	}
	start = now();
	SSL_free(server);
	spent += now() - start;
	SSL_free(client);
	ERR_clear_error();
	return spent;
}

static void compare_handshakes(const char *name, int version, unsigned int pairs)
{
	SSL_CTX *client = make_ssl_ctx(plain, version, 0);
	SSL_CTX *ours = make_ssl_ctx(with_epk, version, 1);
	SSL_CTX *theirs = make_ssl_ctx(plain, version, 1);
	unsigned int i;

	for (i = 0; i < pairs; i++) {
		ratio[i] = i % 2 ? handshake(ours, client) : 0;
		base[i] = handshake(theirs, client);
		ratio[i] = (i % 2 ? ratio[i] : handshake(ours, client)) / base[i];
	}
	print_pairs(name, "full handshake", 0, ratio, base, pairs);
	SSL_CTX_free(client);
	SSL_CTX_free(ours);
	SSL_CTX_free(theirs);
}

/* A worker begins without memory for domains, and for what is remembered. */
#define FIRST	200

static double first_handshakes(SSL_CTX *server, SSL_CTX *client)
{
	double spent = 0;
	int fds[2], i, status;
	pid_t worker;

	REQUIRE_EQ(pipe(fds), 0);
	worker = fork();
	if (!worker) {
		for (i = 0; i < FIRST; i++)
			spent += handshake(server, client);
		_exit(write(fds[1], &spent, sizeof(spent)) != sizeof(spent));
	}
	REQUIRE(worker > 0 && waitpid(worker, &status, 0) == worker && !status);
	REQUIRE_EQ(read(fds[0], &spent, sizeof(spent)), sizeof(spent));
	close(fds[0]);
	close(fds[1]);
	return spent / FIRST;
}

static void compare_workers(const char *name, int version, unsigned int pairs)
{
	SSL_CTX *client = make_ssl_ctx(plain, version, 0);
	SSL_CTX *ours = make_ssl_ctx(with_epk, version, 1);
	SSL_CTX *theirs = make_ssl_ctx(plain, version, 1);
	unsigned int i;

	for (i = 0; i < pairs; i++) {
		ratio[i] = i % 2 ? first_handshakes(ours, client) : 0;
		base[i] = first_handshakes(theirs, client);
		ratio[i] = (i % 2 ? ratio[i] : first_handshakes(ours, client)) / base[i];
	}
	print_pairs(name, "first handshakes", 0, ratio, base, pairs);
	SSL_CTX_free(client);
	SSL_CTX_free(ours);
	SSL_CTX_free(theirs);
}

/* ---- signatures, as libssl has them made, with keys that are read from a file */

struct signer {
	OSSL_LIB_CTX *libctx;
	EVP_PKEY *pkey;
	const char *digest;
	int padding;
};

static EVP_PKEY *read_key(OSSL_LIB_CTX *libctx, EVP_PKEY *made)
{
	BIO *bio = BIO_new(BIO_s_mem());
	EVP_PKEY *pkey;

	require_ossl(PEM_write_bio_PKCS8PrivateKey(bio, made, NULL, NULL, 0, NULL, NULL));
	pkey = PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, libctx, NULL);
	require_ossl(pkey != NULL);
	BIO_free(bio);
	return pkey;
}

static double signatures(const struct signer *s, unsigned int times)
{
	uint8_t signature[512], message[130] = { 1 };
	uint64_t start = now();
	EVP_PKEY_CTX *pctx;
	EVP_MD_CTX *ctx;
	unsigned int i;
	size_t len;

	for (i = 0; i < times; i++) {
		len = sizeof(signature);
		ctx = EVP_MD_CTX_new();
		REQUIRE(EVP_DigestSignInit_ex(ctx, &pctx, s->digest, s->libctx, NULL, s->pkey,
						  NULL) > 0);
		if (s->padding)
			EVP_PKEY_CTX_set_rsa_padding(pctx, s->padding);
		REQUIRE(EVP_DigestSign(ctx, signature, &len, message, sizeof(message)) > 0);
		EVP_MD_CTX_free(ctx);
	}
	return (double)(now() - start) / times;
}

static void compare_signatures(const char *name, EVP_PKEY *made, const char *digest, int padding,
			       unsigned int pairs)
{
	struct signer ours = { with_epk, read_key(with_epk, made), digest, padding };
	struct signer theirs = { plain, read_key(plain, made), digest, padding };
	unsigned int i, times = 1;
	double a, b;

	while (signatures(&theirs, times) * times < TURN_NS)
		times *= 2;
	signatures(&ours, times);
	for (i = 0; i < pairs; i++) {
		if (i % 2)
			a = signatures(&ours, times);
		b = signatures(&theirs, times);
		if (!(i % 2))
			a = signatures(&ours, times);
		ratio[i] = a / b;
		base[i] = b;
	}
	print_pairs(name, "signature", 0, ratio, base, pairs);
	EVP_PKEY_free(ours.pkey);
	EVP_PKEY_free(theirs.pkey);
	EVP_PKEY_free(made);
}

static void compare_keys(unsigned int pairs)
{
	EVP_PKEY *rsa = EVP_PKEY_Q_keygen(plain, NULL, "RSA", (size_t)2048);

	EVP_PKEY_up_ref(rsa);
	compare_signatures("RSA-2048, PKCS#1", rsa, "SHA256", RSA_PKCS1_PADDING, pairs);
	compare_signatures("RSA-2048, PSS", rsa, "SHA256", RSA_PKCS1_PSS_PADDING, pairs);
	compare_signatures("P-256", EVP_PKEY_Q_keygen(plain, NULL, "EC", "P-256"), "SHA256", 0,
			   pairs);
	compare_signatures("P-384", EVP_PKEY_Q_keygen(plain, NULL, "EC", "P-384"), "SHA384", 0,
			   pairs);
	compare_signatures("Ed25519", EVP_PKEY_Q_keygen(plain, NULL, "ED25519"), NULL, 0, pairs);
}

int main(int argc, char **argv)
{
	static const char *const aeads[] = { "AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305" };
	static const char *const cbcs[] = { "AES-256-CBC", "CAMELLIA-256-CBC" };
	static const size_t sizes[] = { 64, 1024, RECORD_MAX };
	unsigned int pairs = argc > 1 ? strtoul(argv[1], NULL, 0) : 301;
	size_t i, s;

	if (!pairs || pairs > PAIRS_MAX || argc > 3 || (argc == 3 && strcmp(argv[2], "limits"))) {
		fprintf(stderr, "usage: provider_bench [pairs, up to %d [limits]]\n", PAIRS_MAX);
		return 2;
	}
	plain = make_libctx(0);
	with_epk = make_libctx(1);
	compare_keys(pairs);
	compare_handshakes("TLS 1.3", TLS1_3_VERSION, pairs);
	compare_handshakes("TLS 1.2", TLS1_2_VERSION, pairs);
	/* Each is of many. */
	compare_workers("TLS 1.3", TLS1_3_VERSION, pairs / 20 + 1);
	compare_workers("TLS 1.2", TLS1_2_VERSION, pairs / 20 + 1);
	for (i = 0; i < sizeof(aeads) / sizeof(aeads[0]); i++) {
		for (s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
			compare(aeads[i], "seal, TLS 1.3", seal13, 1, sizes[s], pairs);
			compare(aeads[i], "open, TLS 1.3", open13, 0, sizes[s], pairs);
			compare(aeads[i], "seal, TLS 1.2", seal12, 1, sizes[s], pairs);
		}
		compare(aeads[i], "key and free", key_and_free, 1, 0, pairs);
	}
	for (i = 0; i < sizeof(cbcs) / sizeof(cbcs[0]); i++)
		for (s = 1; s < sizeof(sizes) / sizeof(sizes[0]); s++)
			compare(cbcs[i], "update", update_only, 1, sizes[s], pairs);
	return !are_met() || (argc == 3 && nr_over);
}
