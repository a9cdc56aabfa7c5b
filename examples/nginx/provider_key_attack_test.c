// SPDX-License-Identifier: MIT
/*
 * What an attacker tries against private keys in domains: another thread that reads while they
 * are used, and files and sources of text that are to end up with OpenSSL's own code.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <openssl/bn.h>
#include <openssl/buffer.h>
#include <openssl/core_names.h>
#include <openssl/ssl.h>

#include "provider_keys.h"

OSSL_LIB_CTX *with_epk, *plain;

/* ---- looking while keys are used: by a process that has nothing else of the key */

#define NEEDLE	32
#define MASK	0x5a	/* so that what is looked for is nowhere */
#define SECONDS	3

static struct {
	uint8_t masked[NEEDLE];
	const volatile uint8_t *start, *end;
	int stop;
	unsigned long found, rounds;
} watch_for;

static void find_heap(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char line[512];

	REQUIRE(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "[heap]") || sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		watch_for.start = (const uint8_t *)start;
		watch_for.end = (const uint8_t *)end;
	}
	fclose(maps);
	REQUIRE(watch_for.start);
}

static unsigned int look_once(void)
{
	const volatile uint8_t *at;
	unsigned int found = 0;
	size_t i;

	for (at = watch_for.start; at + NEEDLE <= watch_for.end; at++) {
		for (i = 0; i < NEEDLE && (at[i] ^ MASK) == watch_for.masked[i]; i++)
			;
		found += i == NEEDLE;
		/* Backwards: as hashes get a number. */
		for (i = 0; i < NEEDLE && (at[i] ^ MASK) == watch_for.masked[NEEDLE - 1 - i]; i++)
			;
		found += i == NEEDLE;
	}
	return found;
}

static void *look_on(void *arg)
{
	for (; !__atomic_load_n(&watch_for.stop, __ATOMIC_RELAXED); watch_for.rounds++)
		watch_for.found += look_once();
	return arg;
}

static int sign_watched(const char *file, const char *masked)
{
	const struct way way = { NULL, 0, 0 }, hashed = { "SHA256", 0, 0 };
	uint8_t signature[1024];
	time_t end;
	pthread_t thread;
	EVP_PKEY *pkey;
	BIO *bio;
	int fd = open(masked, O_RDONLY | O_CLOEXEC);

	REQUIRE_EQ(read(fd, watch_for.masked, NEEDLE), NEEDLE);
	close(fd);
	with_epk = make_libctx(1);
	bio = BIO_new_file(file, "r");
	pkey = read_from(bio);
	BIO_free(bio);
	require_ossl(pkey != NULL);
	REQUIRE_STR_EQ(provider_of(pkey), EPK_NAME);
	find_heap();
	REQUIRE_EQ(look_once(), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, look_on, NULL), 0);
	for (end = time(NULL) + SECONDS; time(NULL) < end;)
		sign_with(with_epk, pkey, EVP_PKEY_is_a(pkey, "RSA") || EVP_PKEY_is_a(pkey, "EC") ?
					  &hashed : &way, signature);
	__atomic_store_n(&watch_for.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	printf("%s: found %lu times, looked %lu times\n", EVP_PKEY_get0_type_name(pkey),
	       watch_for.found, watch_for.rounds);
	REQUIRE(watch_for.rounds > 0);
	REQUIRE_EQ(look_once(), 0);
	return watch_for.found != 0;
}

/* As it lies in memory, the lowest byte of a number first. */
static void needle_of(EVP_PKEY *pkey, uint8_t *needle)
{
	BIGNUM *number = NULL;
	uint8_t bytes[1024];
	size_t len = sizeof(bytes), i;

	if (EVP_PKEY_is_a(pkey, "RSA")) {
		require_ossl(EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_FACTOR1, &number));
		BN_bn2lebinpad(number, bytes, sizeof(bytes));
	} else if (EVP_PKEY_is_a(pkey, "EC")) {
		require_ossl(EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &number));
		BN_bn2lebinpad(number, bytes, sizeof(bytes));
	} else {
		require_ossl(EVP_PKEY_get_raw_private_key(pkey, bytes, &len));
	}
	BN_free(number);
	for (i = 0; i < NEEDLE; i++)
		needle[i] = bytes[i] ^ MASK;
}

static void no_thread_sees_a_key_in_use(void **state)
{
	static const size_t which[] = { 5, 8, 9, 1 };
	char masked[] = "/tmp/epk-key-needle-XXXXXX";
	uint8_t needle[NEEDLE];
	int fd = mkstemp(masked), status;
	size_t i;
	pid_t pid;

	(void)state;
	for (i = 0; i < sizeof(which) / sizeof(which[0]); i++) {
		BIO_free(file_of_key(made[which[i]], false));
		needle_of(made[which[i]], needle);
		REQUIRE_EQ(pwrite(fd, needle, NEEDLE, 0), NEEDLE);
		pid = fork();
		if (!pid) {
			execl("/proc/self/exe", "provider_key_attack_test", path, masked, NULL);
			_exit(127);
		}
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		unlink(path);
		REQUIRE_EQ(status, 0);
	}
	close(fd);
	unlink(masked);
}

/* ---- a libcrypto that does not say whose memory it allocates */

/* To @dir; if @spoiled, one file has no name there. */
static void copy_libcrypto(const char *dir, bool spoiled)
{
	static const char name[] = "../crypto/bn/bn_lib.c";
	const union { void (*fn)(void *, size_t); const void *address; } code = { OPENSSL_cleanse };
	char to[128], *at, *bytes;
	Dl_info info;
	size_t len;
	FILE *f;

	REQUIRE(dladdr(code.address, &info));
	f = fopen(info.dli_fname, "re");
	REQUIRE(f);
	REQUIRE_EQ(fseek(f, 0, SEEK_END), 0);
	len = ftell(f);
	rewind(f);
	bytes = malloc(len);
	REQUIRE_EQ(fread(bytes, 1, len, f), len);
	fclose(f);
	at = memmem(bytes, len, name, sizeof(name));
	REQUIRE(at);
	if (spoiled)
		memset(at, 0, sizeof(name));
	snprintf(to, sizeof(to), "%s/libcrypto.so.3", dir);
	f = fopen(to, "we");
	REQUIRE_EQ(fwrite(bytes, 1, len, f), len);
	fclose(f);
	free(bytes);
}

static int does_start(void)
{
	OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();

	/* OpenSSL ignores providers that do not. */
	require_ossl(try_providers(libctx, ""));
	return OSSL_PROVIDER_available(libctx, EPK_NAME);
}

static void no_start_without_names(void **state)
{
	char dir[] = "/tmp/epk-key-libcrypto-XXXXXX", libs[4096];
	int status, spoiled;
	pid_t pid;

	(void)state;
	REQUIRE(mkdtemp(dir));
	for (spoiled = 0; spoiled < 2; spoiled++) {
		copy_libcrypto(dir, spoiled);
		pid = fork();
		if (!pid) {
			snprintf(libs, sizeof(libs), "%s:%s", dir, getenv("LD_LIBRARY_PATH"));
			setenv("LD_LIBRARY_PATH", libs, 1);
			execl("/proc/self/exe", "provider_key_attack_test", "start", NULL);
			_exit(127);
		}
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		REQUIRE(WIFEXITED(status));
		REQUIRE_EQ(WEXITSTATUS(status), !spoiled);
	}
	snprintf(libs, sizeof(libs), "%s/libcrypto.so.3", dir);
	unlink(libs);
	rmdir(dir);
}

/* ---- texts that are to be read by somebody else */

static char text[4 * 65536];
static size_t text_len;

static void begin_text(void)
{
	text_len = 0;
}

static void add(const char *bytes, size_t len)
{
	REQUIRE(text_len + len <= sizeof(text));
	memcpy(text + text_len, bytes, len);
	text_len += len;
}

static void add_line(const char *line)
{
	add(line, strlen(line));
}

static void add_key(size_t i, const EVP_CIPHER *cipher)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes;
	long len;

	require_ossl(PEM_write_bio_PKCS8PrivateKey(bio, made[i], cipher, NULL, 0, NULL,
						   (void *)"password"));
	len = BIO_get_mem_data(bio, &bytes);
	add(bytes, len);
	BIO_free(bio);
}

static void add_certificate(void)
{
	char cert_path[4096], bytes[8192];
	BIO *bio;

	snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", BUILD_DIR);
	bio = BIO_new_file(cert_path, "r");
	add(bytes, BIO_read(bio, bytes, sizeof(bytes)));
	BIO_free(bio);
}

static int say_password(char *to, int size, int writing, void *arg)
{
	(void)writing;
	(void)arg;
	return snprintf(to, size, "password");
}

static EVP_PKEY *read_at(BIO *bio)
{
	return PEM_read_bio_PrivateKey_ex(bio, NULL, say_password, NULL, with_epk, NULL);
}

/* By whoever: not with what OpenSSL's older code makes of it. */
static bool is_in_domain(BIO *bio)
{
	EVP_PKEY *pkey = read_at(bio);
	bool is = pkey;

	if (pkey)
		REQUIRE_STR_EQ(provider_of(pkey), EPK_NAME);
	EVP_PKEY_free(pkey);
	return is;
}

static bool is_taken(void)
{
	BIO *file = file_of(text, text_len), *memory = BIO_new_mem_buf(text, text_len);
	bool taken = is_in_domain(file);

	REQUIRE_EQ(is_in_domain(memory), taken);
	BIO_free(file);
	BIO_free(memory);
	unlink(path);
	return taken;
}

static void first_lines_are_openssls(void **state)
{
	char line[300];
	int i, len;

	(void)state;
	/* It is no first line. */
	begin_text();
	add_line("-----BEGIN of the key of example.org----- (2026)\n");
	add_key(5, NULL);
	REQUIRE(is_taken());
	/* It is one, as it is not of the same line; and not with another length. */
	for (len = 250; len < 258; len++) {
		memset(line, 'x', len);
		line[len] = 0;
		begin_text();
		add_line(line);
		add_key(5, NULL);
		REQUIRE_EQ(is_taken(), len == 254);
		ERR_clear_error();
	}
	/* Nor is what is behind so much a key of nobody's. */
	begin_text();
	while (text_len < 70000)
		add_line("# comment\n");
	add_key(5, NULL);
	REQUIRE(!is_taken());
	REQUIRE(is_told("whole block"));
	begin_text();
	add_line("-----BEGIN X-----\n");
	while (text_len < 70000)
		add_line("AAAA\n");
	add_line("-----END X-----\n");
	add_key(5, NULL);
	REQUIRE(!is_taken());
	/* Zeros end a line of a file, and none in memory. */
	begin_text();
	add("\0\n", 2);
	add_key(5, NULL);
	REQUIRE(!is_taken());
	/* As "openssl ecparam -genkey" has it. */
	begin_text();
	add_line("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n");
	add_key(5, NULL);
	REQUIRE(is_taken());
	for (i = 0; i < 2; i++) {
		begin_text();
		add_line(i ? "-----BEGIN X-----\n-----END Y-----\n" : "-----BEGIN X-----\n");
		add_key(5, NULL);
		REQUIRE(!is_taken());
	}
	ERR_clear_error();
}

/* What is changed at its lines, or is before them, makes no key that is in no domain. */
static void changed_lines_are_harmless(void **state)
{
	static const char *const pieces[] = { "-----BEGIN ", "-----END ", "-----", "PRIVATE KEY",
		"EC ", "X", "\n", "\r\n", " ", "\n\n", ":", "\xef\xbb\xbf", "\t", "\x80", "-",
		"Proc-Type: 4,ENCRYPTED\n", "-----BEGIN PRIVATE KEY-----\n",
		"-----END PRIVATE KEY-----\n", "-----BEGIN X-----\n", "-----END X-----\n" };
	int round, n, taken = 0;
	size_t at, len;
	const char *piece;

	(void)state;
	srand(2);
	for (round = 0; round < 4000; round++) {
		begin_text();
		for (n = rand() % 5; n; n--)
			add_line(pieces[rand() % (sizeof(pieces) / sizeof(pieces[0]))]);
		if (round % 3 == 0) {
			for (n = rand() % 260; n; n--)
				add_line("-");
		}
		add_key(5, NULL);
		for (n = rand() % 3; n; n--) {
			piece = pieces[rand() % (sizeof(pieces) / sizeof(pieces[0]))];
			len = strlen(piece);
			at = rand() % 40;
			if (rand() % 2)
				at = text_len - at;
			memmove(text + at + len, text + at, text_len - at);
			memcpy(text + at, piece, len);
			text_len += len;
		}
		taken += is_taken();
		ERR_clear_error();
	}
	REQUIRE_IN(taken, 100, 3900);
}

static void add_encrypted(size_t i, bool traditional)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes;
	long len;

	if (!traditional) {
		add_key(i, EVP_aes_128_cbc());
	} else {
		require_ossl(PEM_write_bio_PrivateKey_traditional(bio, made[i], EVP_aes_128_cbc(),
								  NULL, 0, NULL,
								  (void *)"password"));
		len = BIO_get_mem_data(bio, &bytes);
		add(bytes, len);
	}
	BIO_free(bio);
}

/* In whatever order, of a file that is read by one or more. */
static void certificates_may_be_in_the_file(void **state)
{
	EVP_PKEY *pkey;
	X509 *cert;
	BIO *bio;
	int way, i;

	(void)state;
	for (way = 0; way < 3; way++) {
		begin_text();
		if (way != 1)
			add_certificate();
		add_key(5, NULL);
		if (way)
			add_certificate();
		REQUIRE(is_taken());
		bio = file_of(text, text_len);
		for (i = 0; i < 3; i++) {
			if (way != 1) {
				cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
				require_ossl(cert != NULL);
				X509_free(cert);
			}
			pkey = read_at(bio);
			require_ossl(pkey != NULL);
			REQUIRE_EQ(EVP_PKEY_eq(pkey, made[5]), 1);
			EVP_PKEY_free(pkey);
			cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
			REQUIRE_EQ(!cert, !way);
			X509_free(cert);
			ERR_clear_error();
			REQUIRE_EQ(BIO_reset(bio), 0);
		}
		BIO_free(bio);
		unlink(path);
	}
}

static void encrypted_ones_are_refused_there_too(void **state)
{
	X509 *cert;
	BIO *bio;
	int way;

	(void)state;
	for (way = 0; way < 4; way++) {
		begin_text();
		if (way % 2)
			add_certificate();
		add_encrypted(1, way / 2);
		if (!(way % 2))
			add_certificate();
		bio = file_of(text, text_len);
		cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
		require_ossl(cert != NULL);
		X509_free(cert);
		REQUIRE_EQ(BIO_reset(bio), 0);
		REQUIRE(!read_at(bio));
		REQUIRE(is_told("it is encrypted"));
		BIO_free(bio);
		unlink(path);
	}
}

/* ---- where they come from */

/* From what cannot be shut OpenSSL has something, and nothing in it. */
static void is_useless(EVP_PKEY *pkey)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t signature[512];
	size_t len = sizeof(signature);
	SSL_CTX *server = SSL_CTX_new_ex(with_epk, NULL, TLS_server_method());
	char cert_path[4096];

	ERR_clear_error();
	REQUIRE_STR_EQ(provider_of(pkey), EPK_NAME);
	REQUIRE(EVP_DigestSignInit_ex(ctx, NULL, "SHA256", with_epk, NULL, pkey, NULL) <= 0 ||
		EVP_DigestSign(ctx, signature, &len, message, sizeof(message)) <= 0);
	REQUIRE(is_told("pipes"));
	REQUIRE_NE(EVP_PKEY_eq(pkey, made[5]), 1);
	snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", BUILD_DIR);
	require_ossl(SSL_CTX_use_certificate_chain_file(server, cert_path));
	REQUIRE(SSL_CTX_use_PrivateKey(server, pkey) <= 0 ||
		SSL_CTX_check_private_key(server) <= 0);
	REQUIRE(is_told("pipes"));
	ERR_clear_error();
	SSL_CTX_free(server);
	EVP_MD_CTX_free(ctx);
}

static void pipes_are_refused(void **state)
{
	EVP_PKEY *pkey;
	int form, fds[2];
	BIO *bio, *over;
	FILE *file;

	(void)state;
	for (form = 0; form < 2; form++) {
		begin_text();
		add_key(5, form ? EVP_aes_128_cbc() : NULL);
		/* Nothing of it is read. */
		REQUIRE_EQ(pipe(fds), 0);
		REQUIRE_EQ(write(fds[1], text, text_len), text_len);
		close(fds[1]);
		file = fdopen(fds[0], "r");
		bio = BIO_new_fp(file, BIO_CLOSE);
		pkey = read_at(bio);
		if (pkey)
			is_useless(pkey);
		REQUIRE_EQ(fread(text, 1, 1, file), 1);
		EVP_PKEY_free(pkey);
		BIO_free(bio);

		begin_text();
		add_key(5, form ? EVP_aes_128_cbc() : NULL);
		BIO_free(file_of(text, text_len));
		bio = BIO_new_fd(open(path, O_RDONLY | O_CLOEXEC), BIO_CLOSE);
		REQUIRE(!read_at(bio));
		REQUIRE(is_told("pipes"));
		BIO_free(bio);

		/* A buffer with some of it. */
		bio = BIO_new_file(path, "r");
		over = BIO_push(BIO_new(BIO_f_buffer()), bio);
		REQUIRE_EQ(BIO_read(over, text, 1), 1);
		pkey = read_at(over);
		if (pkey)
			is_useless(pkey);
		EVP_PKEY_free(pkey);
		BIO_free_all(over);
		unlink(path);
	}
	ERR_clear_error();
}

/* Its owner goes on using it. */
static void memory_is_emptied_where_it_lies(void **state)
{
	BIO *bio = BIO_new(BIO_s_mem());
	BUF_MEM *before, *after;

	(void)state;
	begin_text();
	add_key(5, EVP_aes_128_cbc());
	BIO_write(bio, text, text_len);
	BIO_get_mem_ptr(bio, &before);
	REQUIRE(!read_at(bio));
	BIO_get_mem_ptr(bio, &after);
	REQUIRE_EQ(before, after);
	REQUIRE_EQ(after->length, 0);
	REQUIRE(!read_at(bio));
	REQUIRE_EQ(BIO_write(bio, text, text_len), text_len);
	REQUIRE_EQ(before->length, text_len);
	BIO_free(bio);
	/* And where there is nothing. */
	bio = BIO_new(BIO_s_mem());
	REQUIRE(!read_at(bio));
	BIO_free(bio);
	ERR_clear_error();
}

static void no_descriptor_is_needed(void **state)
{
	struct rlimit before, none;
	EVP_PKEY *pkey;
	BIO *file;

	(void)state;
	begin_text();
	add_key(5, EVP_aes_128_cbc());
	file = file_of(text, text_len);
	REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	pkey = read_at(file);
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	REQUIRE(!pkey);
	REQUIRE(is_told("encrypted"));
	BIO_free(file);
	unlink(path);
}

/* ---- rooms */

static size_t pages_of_process(void)
{
	FILE *statm = fopen("/proc/self/statm", "re");
	size_t pages = 0;

	REQUIRE_EQ(fscanf(statm, "%zu", &pages), 1);
	fclose(statm);
	return pages;
}

/* Of 40 keys each is used after all others, with no memory for one more. */
static void idle_rooms_make_room(void **state)
{
	enum { NR = 40 };
	const struct way way = { "SHA256", 0, 0 };
	struct rlimit before, none;
	EVP_PKEY *mine[NR];
	uint8_t signature[512];
	uint64_t domains = live_contexts();
	size_t i;

	(void)state;
	for (i = 0; i < NR; i++)
		mine[i] = read_key(made[1], false);
	for (i = 0; i < NR / 2; i++)
		sign_with(with_epk, mine[i], &way, signature);
	REQUIRE_EQ(live_contexts(), domains + NR / 2);
	REQUIRE_EQ(getrlimit(RLIMIT_AS, &before), 0);
	none = before;
	none.rlim_cur = pages_of_process() * 4096;
	REQUIRE_EQ(setrlimit(RLIMIT_AS, &none), 0);
	for (i = NR / 2; i < NR; i++)
		sign_with(with_epk, mine[i], &way, signature);
	REQUIRE_EQ(setrlimit(RLIMIT_AS, &before), 0);
	REQUIRE_IN(live_contexts(), domains + 1, domains + NR / 2);
	REQUIRE_EQ(ERR_peek_error(), 0);
	for (i = 0; i < NR; i++)
		EVP_PKEY_free(mine[i]);
	REQUIRE_EQ(live_contexts(), domains);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_thread_sees_a_key_in_use),
		cmocka_unit_test(no_start_without_names),
		cmocka_unit_test(first_lines_are_openssls),
		cmocka_unit_test(changed_lines_are_harmless),
		cmocka_unit_test(certificates_may_be_in_the_file),
		cmocka_unit_test(encrypted_ones_are_refused_there_too),
		cmocka_unit_test(pipes_are_refused),
		cmocka_unit_test(memory_is_emptied_where_it_lies),
		cmocka_unit_test(no_descriptor_is_needed),
		cmocka_unit_test(idle_rooms_make_room),
	};

	if (argc == 3)
		return sign_watched(argv[1], argv[2]);
	if (argc == 2)
		return does_start();
	return cmocka_run_group_tests_name("provider_key_attack", tests, make_both_and_keys, NULL);
}
