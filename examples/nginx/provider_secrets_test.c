// SPDX-License-Identifier: MIT
/*
 * No secret of a TLS session is in the server's ordinary memory.
 *
 * A server in a process of its own, with the epk provider or without, and an attacker: a
 * client with OpenSSL's own provider that notes each secret it derives, and looks for all of
 * them in the server's memory outside domains: in the middle of the handshake, while the
 * connection lives and when it is closed.  Where the server has no epk provider, the
 * attacker has to find them, or this shows nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>

#include "provider_interposed.h"
#include "provider_certificate.h"
#include "provider_notes.h"
#include "provider_scan.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

/* The server's ends. */
#define TLS_FD		10
#define CONTROL_FD	11
#define STOP_FD		12

static bool is_server, is_stopping;

/* ---- what the attacker learns, and where the server stops */

static bool is_in(const void *code, const char *library)
{
	Dl_info info;

	return dladdr(code, &info) && strstr(info.dli_fname, library);
}

/* The server has done something with a secret for libssl: let the attacker look. */
static void stop(const void *caller)
{
	char byte = 's';

	if (is_server && is_stopping && is_in(caller, "libssl") &&
	    (write(STOP_FD, &byte, 1) != 1 || read(STOP_FD, &byte, 1) != 1))
		_exit(9);
}

/* In place of libcrypto's, for libssl. */
EXPORT int EVP_KDF_derive(EVP_KDF_CTX *ctx, unsigned char *out, size_t len, const OSSL_PARAM params[])
{
	int ret;

	REAL(EVP_KDF_derive);
	ret = real(ctx, out, len, params);
	if (is_server)
		stop(__builtin_return_address(0));
	else if (ret > 0)
		note_derived(params, out, len);
	return ret;
}

/* ---- the server */

#define DRAWN_MAX	64

/* What the provider has drawn: K and private keys.  Inverted, lest it be found here. */
static struct {
	uint8_t inverted[NEEDLE_MAX];
	size_t len;
} drawn[DRAWN_MAX];

static volatile size_t nr_drawn;

EXPORT ssize_t getrandom(void *to, size_t len, unsigned int flags)
{
	const volatile uint8_t *bytes = to;
	ssize_t ret;
	size_t i;

	REAL(getrandom);
	ret = real(to, len, flags);
	if (is_server && ret > 0 && len <= NEEDLE_MAX && nr_drawn < DRAWN_MAX &&
	    is_in(__builtin_return_address(0), "epk.so")) {
		for (i = 0; i < len; i++)
			*(volatile uint8_t *)&drawn[nr_drawn].inverted[i] = ~bytes[i];
		drawn[nr_drawn].len = len;
		nr_drawn++;
	}
	return ret;
}

static SSL *serving;

/* OpenSSL's own private key, inverted as soon as it is there. */
static void note_own_key(void)
{
	EVP_PKEY *pkey = NULL;
	BIGNUM *number = NULL;
	uint8_t *to = drawn[0].inverted;
	size_t i, len = 32;

	if (!serving || !SSL_get_tmp_key(serving, &pkey))
		return;
	if (EVP_PKEY_is_a(pkey, "X25519")) {
		EVP_PKEY_get_raw_private_key(pkey, to, &len);
	} else {
		EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &number);
		len = EVP_PKEY_get_bits(pkey) / 8;
		BN_bn2binpad(number, to, len);
		BN_clear_free(number);
	}
	for (i = 0; i < len; i++)
		to[i] = ~to[i];
	drawn[0].len = len;
	nr_drawn = 1;
	EVP_PKEY_free(pkey);
}

static int tell_range(int dom, void *addr, size_t len, void *arg)
{
	struct range range = { (uintptr_t)addr, (uintptr_t)addr + len };

	(void)dom;
	(void)arg;
	return write(CONTROL_FD, &range, sizeof(range)) != sizeof(range);
}

/* While the server itself waits for its client. */
static void *answer(void *with_domains)
{
	struct range end = { 0, 0 };
	char command;
	size_t n;

	while (read(CONTROL_FD, &command, 1) == 1) {
		if (command == 'd') {
			if (with_domains)
				epk_for_each_mapping(tell_range, NULL);
			n = write(CONTROL_FD, &end, sizeof(end));
		} else {
			if (!with_domains)
				note_own_key();
			n = nr_drawn;
			n = write(CONTROL_FD, &n, sizeof(n));
			n = write(CONTROL_FD, drawn, sizeof(drawn));
		}
		(void)n;
	}
	return NULL;
}

static void serve_one(SSL_CTX *ctx)
{
	char bytes[256];
	int len;

	serving = SSL_new(ctx);
	SSL_set_fd(serving, TLS_FD);
	if (SSL_accept(serving) == 1)
		while ((len = SSL_read(serving, bytes, sizeof(bytes))) > 0)
			SSL_write(serving, bytes, len);
	if (SSL_get_error(serving, 0) == SSL_ERROR_SSL)
		ERR_print_errors_fp(stderr);
	SSL_shutdown(serving);
	SSL_free(serving);
	serving = NULL;
}

static SSL_CTX *make_server(OSSL_LIB_CTX *libctx)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(libctx, NULL, TLS_server_method());

	require_ossl(ctx != NULL);
	use_certificate(ctx);
	return ctx;
}

static int serve(bool ours, bool stops)
{
	OSSL_LIB_CTX *libctx;
	pthread_attr_t small;
	pthread_t thread;
	SSL_CTX *ctx;

	is_server = true;
	libctx = make_libctx(ours);
	ctx = make_server(libctx);
	/* All of it is looked through. */
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	if (pthread_create(&thread, &small, answer, ours ? libctx : NULL))
		return 1;
	is_stopping = stops;
	for (;;) {
		serve_one(ctx);
		/* The attacker says so when there is another, and hangs up at the end. */
		if (write(STOP_FD, "e", 1) != 1 || read(STOP_FD, &(char){ 0 }, 1) != 1)
			return 0;
	}
}

/* ---- the attacker */

static struct {
	pid_t pid;
	int tls, control, stop;
	bool ours;
	SSL_CTX *ctx;
	SSL *ssl;
	SSL_SESSION *session;
	struct range domains[4096];
	size_t nr_domains;
} at;

static int by_start(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static void read_all(int fd, void *to, size_t len)
{
	ssize_t got;

	for (; len; to = (char *)to + got, len -= got) {
		got = read(fd, to, len);
		REQUIRE(got > 0);
	}
}

/*
 * Where domains are closed by mprotect() nobody has to be told where they are: then the
 * attacker reads all that the server could.
 */
static bool closes_for_all(void)
{
	const char *backend = getenv("EPK_BACKEND");

	return backend && !strcmp(backend, "mprotect");
}

static void ask_domains(void)
{
	struct range range;

	at.nr_domains = 0;
	if (closes_for_all())
		return;
	REQUIRE_EQ(write(at.control, "d", 1), 1);
	for (read_all(at.control, &range, sizeof(range)); range.end;
	     read_all(at.control, &range, sizeof(range))) {
		REQUIRE(at.nr_domains < 4096);
		at.domains[at.nr_domains++] = range;
	}
	qsort(at.domains, at.nr_domains, sizeof(range), by_start);
}

static void ask_drawn(void)
{
	size_t nr, i, j;

	REQUIRE_EQ(write(at.control, "p", 1), 1);
	read_all(at.control, &nr, sizeof(nr));
	read_all(at.control, drawn, sizeof(drawn));
	REQUIRE(nr > 0);
	for (i = 0; i < nr; i++) {
		for (j = 0; j < drawn[i].len; j++)
			drawn[i].inverted[j] ^= 0xff;
		add_needle(at.ours && !i ? "K" : "ephemeral private key", drawn[i].inverted,
			   drawn[i].len, false);
	}
}

static void start_server(bool ours, bool stops)
{
	int tls[2], control[2], stop_at[2];

	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, tls), 0);
	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control), 0);
	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stop_at), 0);
	nr_needles = 0;
	at.ours = ours;
	at.pid = fork();
	REQUIRE(at.pid >= 0);
	if (!at.pid) {
		dup2(tls[1], TLS_FD);
		dup2(control[1], CONTROL_FD);
		dup2(stop_at[1], STOP_FD);
		execl("/proc/self/exe", "provider_secrets_test", ours ? "epk" : "stock",
		      stops ? "stops" : "runs", NULL);
		_exit(127);
	}
	close(tls[1]);
	close(control[1]);
	close(stop_at[1]);
	at.tls = tls[0];
	at.control = control[0];
	at.stop = stop_at[0];
}

static void end_server(void)
{
	int status;

	SSL_SESSION_free(at.session);
	at.session = NULL;
	SSL_CTX_free(at.ctx);
	close(at.tls);
	close(at.stop);
	REQUIRE_EQ(waitpid(at.pid, &status, 0), at.pid);
	REQUIRE_EQ(status, 0);
	close(at.control);
}

/* ---- what is found */

struct tally {
	size_t secrets, found;
	bool ever[NEEDLES_MAX];
};

static struct tally tally;

static void tally_found(void)
{
	size_t i;

	tally.secrets = tally.found = 0;
	for (i = 0; i < nr_needles; i++) {
		tally.secrets += !needles[i].allowed;
		if (!needles[i].found || needles[i].allowed)
			continue;
		tally.found++;
		tally.ever[i] = true;
	}
}

static void print_found(const char *stage, size_t len)
{
	size_t i;

	printf("%-24s %zu of %zu secrets in %zu KiB:", stage, tally.found, tally.secrets, len / 1024);
	for (i = 0; i < nr_needles; i++)
		if (needles[i].found)
			printf(" %s%s,", needles[i].name, needles[i].allowed ? " (real)" : "");
	printf("\n");
	fflush(stdout);
}

static void look(const char *stage)
{
	static struct image image;
	char what[64];
	size_t len;

	snprintf(what, sizeof(what), "%s, %s", at.ours ? "epk" : "stock", stage);
	ask_domains();
	REQUIRE(take_image(&image, at.pid, at.domains, at.nr_domains));
	len = scan_image(&image);
	drop_image(&image);
	tally_found();
	print_found(what, len);
	if (at.ours)
		REQUIRE_EQ(tally.found, 0);
}

/* ---- the attacker's connections */

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
	(void)ssl;
	SSL_SESSION_free(at.session);
	at.session = session;
	return 1;
}

static void make_client(int version, const char *group, const char *suite)
{
	at.ctx = SSL_CTX_new_ex(plain, NULL, TLS_client_method());
	require_ossl(SSL_CTX_set_min_proto_version(at.ctx, version));
	require_ossl(SSL_CTX_set_max_proto_version(at.ctx, version));
	require_ossl(SSL_CTX_set1_groups_list(at.ctx, group));
	if (version == TLS1_3_VERSION)
		require_ossl(SSL_CTX_set_ciphersuites(at.ctx, suite));
	else
		require_ossl(SSL_CTX_set_cipher_list(at.ctx, suite));
	SSL_CTX_set_session_cache_mode(at.ctx, SSL_SESS_CACHE_CLIENT |
					       SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(at.ctx, keep_session);
}

/* At most so many records: the rest stays where it is. */
static void send_records(size_t max)
{
	uint8_t *bytes;
	long len = BIO_get_mem_data(SSL_get_wbio(at.ssl), &bytes);
	size_t n = 0, here = 0;

	while (here + 5 <= (size_t)len && n++ < max)
		here += 5 + (bytes[here + 3] << 8 | bytes[here + 4]);
	REQUIRE_EQ(write(at.tls, bytes, here), here);
	bytes = malloc(here + 1);
	REQUIRE_EQ(BIO_read(SSL_get_wbio(at.ssl), bytes, here), here);
	free(bytes);
}

#define STOPS_MAX	192

static struct image *stops[STOPS_MAX];
static size_t nr_stops;

/* What is there to be found is not known yet.  False: the connection has ended. */
static bool keep_stop(void)
{
	char byte;

	read_all(at.stop, &byte, 1);
	if (byte == 'e')
		return false;
	ask_domains();
	REQUIRE(nr_stops < STOPS_MAX);
	stops[nr_stops] = malloc(sizeof(*stops[0]));
	REQUIRE(take_image(stops[nr_stops++], at.pid, at.domains, at.nr_domains));
	REQUIRE_EQ(write(at.stop, &byte, 1), 1);
	return true;
}

static void await_server(void)
{
	struct pollfd fds[2] = { { at.tls, POLLIN, 0 }, { at.stop, POLLIN, 0 } };
	uint8_t bytes[20000];
	ssize_t len;

	for (;;) {
		REQUIRE(poll(fds, 2, 20000) > 0);
		if (fds[1].revents & POLLIN) {
			REQUIRE(keep_stop());
			continue;
		}
		len = read(at.tls, bytes, sizeof(bytes));
		REQUIRE(len > 0);
		REQUIRE_EQ(BIO_write(SSL_get_rbio(at.ssl), bytes, len), len);
		return;
	}
}

/* Until the server waits for what is held back. */
static void settle_down(void)
{
	struct pollfd fd = { at.stop, POLLIN, 0 };

	while (poll(&fd, 1, 200) > 0)
		REQUIRE(keep_stop());
}

static bool has_more(void)
{
	return BIO_pending(SSL_get_wbio(at.ssl)) > 0;
}

/* While what the client has to say is held back. */
static void look_between(int version, const char *stage)
{
	settle_down();
	ask_drawn();
	look(stage);
	if (version != TLS1_2_VERSION || SSL_session_reused(at.ssl))
		return;
	/* Of TLS 1.2, the server gets the key exchange alone. */
	send_records(1);
	settle_down();
	look("key exchange");
}

static void shake_hands(int version, const char *stage)
{
	bool held = false, answered = false;
	int done;

	at.ssl = SSL_new(at.ctx);
	SSL_set_bio(at.ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(at.ssl);
	SSL_set_session(at.ssl, at.session);
	for (;;) {
		done = SSL_do_handshake(at.ssl);
		if (done != 1 && SSL_get_error(at.ssl, done) != SSL_ERROR_WANT_READ)
			require_ossl(done);
		/* All but the hello. */
		if (!held && has_more() && answered) {
			held = true;
			look_between(version, stage);
		}
		if (has_more())
			send_records(-1);
		if (done == 1)
			return;
		await_server();
		answered = true;
	}
}

static void pass_bytes(void)
{
	char bytes[] = "some bytes that come back", got[sizeof(bytes)];
	int len;

	REQUIRE_EQ(SSL_write(at.ssl, bytes, sizeof(bytes)), sizeof(bytes));
	send_records(-1);
	while ((len = SSL_read(at.ssl, got, sizeof(got))) <= 0) {
		REQUIRE_EQ(SSL_get_error(at.ssl, len), SSL_ERROR_WANT_READ);
		await_server();
	}
	REQUIRE_MEM_EQ(got, bytes, sizeof(bytes));
	if (has_more())
		send_records(-1);
}

static void hang_up(void)
{
	char rest[4096];

	SSL_shutdown(at.ssl);
	send_records(-1);
	while (keep_stop())
		;
	while (recv(at.tls, rest, sizeof(rest), MSG_DONTWAIT) > 0)
		;
	SSL_free(at.ssl);
}

/* A full handshake, a resumption, an update of the keys where there are such. */
static void connect_twice(int version)
{
	char stage[64];
	int round;

	for (round = 0; round < 2; round++) {
		snprintf(stage, sizeof(stage), "%s handshake", round ? "resumed" : "full");
		shake_hands(version, stage);
		REQUIRE_EQ(SSL_session_reused(at.ssl), round);
		pass_bytes();
		if (version == TLS1_3_VERSION) {
			require_ossl(SSL_key_update(at.ssl, SSL_KEY_UPDATE_REQUESTED));
			pass_bytes();
			pass_bytes();
		}
		if (version == TLS1_2_VERSION && !round)
			at.session = SSL_get1_session(at.ssl);
		look(round ? "resumed, live" : "live");
		hang_up();
		look(round ? "resumed, closed" : "closed");
		if (!round)
			REQUIRE_EQ(write(at.stop, "n", 1), 1);
	}
}

static const struct suite {
	int version;
	const char *group, *name;
} suites[] = {
	{ TLS1_3_VERSION, "X25519", "TLS_AES_256_GCM_SHA384" },
	{ TLS1_3_VERSION, "P-256", "TLS_AES_128_GCM_SHA256" },
	{ TLS1_3_VERSION, "P-384", "TLS_CHACHA20_POLY1305_SHA256" },
	{ TLS1_2_VERSION, "X25519:P-256", "ECDHE-ECDSA-AES256-GCM-SHA384" },
	{ TLS1_2_VERSION, "P-256", "ECDHE-ECDSA-AES128-GCM-SHA256" },
	{ TLS1_2_VERSION, "P-384:P-256", "ECDHE-ECDSA-CHACHA20-POLY1305" },
};

#define NR_SUITES	(sizeof(suites) / sizeof(suites[0]))

/* What is looked for in the stock server. */
static size_t stock_secrets[NR_SUITES];

/* With the provider there is K, and nothing less than without. */
static void count_secrets(const struct suite *suite)
{
	size_t *stock = &stock_secrets[suite - suites];

	if (!at.ours)
		*stock = tally.secrets;
	else
		REQUIRE_EQ(tally.secrets, *stock + 1);
}

static void use_server(const struct suite *suite, bool ours)
{
	memset(&tally, 0, sizeof(tally));
	printf("%s, %s\n", suite->name, suite->group);
	start_server(ours, false);
	make_client(suite->version, suite->group, suite->name);
	connect_twice(suite->version);
	end_server();
	count_secrets(suite);
}

static void no_secret_is_outside_domains(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < NR_SUITES; i++)
		use_server(&suites[i], true);
}

/* ---- between any two operations of the server's */

static void scan_stops(void)
{
	size_t i, hit = 0;

	for (i = 0; i < nr_stops; i++) {
		scan_image(stops[i]);
		tally_found();
		hit += tally.found > 0;
		if (at.ours && tally.found)
			print_found("stop", 0);
		drop_image(stops[i]);
		free(stops[i]);
	}
	printf("%s: secrets at %zu of %zu stops\n", at.ours ? "epk" : "stock", hit, nr_stops);
	REQUIRE(nr_stops > 5);
	nr_stops = 0;
	if (at.ours)
		REQUIRE_EQ(hit, 0);
}

static void stop_server(const struct suite *suite, bool ours)
{
	memset(&tally, 0, sizeof(tally));
	start_server(ours, true);
	make_client(suite->version, suite->group, suite->name);
	connect_twice(suite->version);
	end_server();
	scan_stops();
	count_secrets(suite);
}

static void no_secret_is_outside_between(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < NR_SUITES; i++)
		stop_server(&suites[i], true);
}

/* The same attacker. */
static void stock_server_keeps_them_all(void **state)
{
	size_t i, n, ever;

	(void)state;
	for (i = 0; i < NR_SUITES; i++) {
		stop_server(&suites[i], false);
		for (n = ever = 0; n < nr_needles; n++) {
			ever += tally.ever[n];
			if (!tally.ever[n] && !needles[n].allowed)
				printf("never found: %s\n", needles[n].name);
		}
		printf("stock: %zu of %zu secrets\n", ever, tally.secrets);
		REQUIRE_EQ(ever, tally.secrets);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stock_server_keeps_them_all),
		cmocka_unit_test(no_secret_is_outside_domains),
		cmocka_unit_test(no_secret_is_outside_between),
	};

	if (argc == 3)
		return serve(!strcmp(argv[1], "epk"), !strcmp(argv[2], "stops"));
	return cmocka_run_group_tests_name("provider_secrets", tests, make_plain, NULL);
}
