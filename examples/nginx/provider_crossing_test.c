// SPDX-License-Identifier: MIT
/*
 * What happens while the vault is open, instruction by instruction.
 *
 * A secret that is derived from, and a record key on its way to its cipher's box, are in no
 * ordinary memory, where a neighbour thread could read them: the test knows them, steps through
 * the call, and looks for each 8 bytes of them, in the forms in which code keeps them, on the
 * stack after each instruction, and on the heap and in what is the thread's own now and then.
 * And nobody waits meanwhile, for a lock or for the kernel.
 *
 * It starts itself anew with OPENSSL_ia32cap, for libcrypto's other code.
 *
 *	provider_crossing_test [epk FOLDER]
 *
 * "epk": that backend, with the provider in FOLDER, and of the tests those of a key on its way,
 * as a guest that is emulated takes long for a step.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <ucontext.h>

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "provider/hash.c"
#include "provider_gates.h"
#include "provider_known_stack.h"
#include "provider_needles.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

#define STACK_BYTES	(256 * 1024)
#define RED_ZONE	128
#define SECRET_LEN	32
#define SECRET_MAX	48

/* ---- two ends that know the same secret, of which one is the provider's */

/* Of which hash, and how long its secrets are. */
static const char *digest = "SHA256";
static size_t digest_len = SECRET_LEN;

static bool derive(OSSL_LIB_CTX *libctx, int mode, const uint8_t *salt, const uint8_t *key,
		   const char *label, uint8_t *out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS13-KDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[7], *p = params;
	bool ok;

	*p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (char *)label,
						 strlen(label));
	if (key)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key,
							 digest_len);
	if (salt)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt,
							 digest_len);
	*p = OSSL_PARAM_construct_end();
	ok = EVP_KDF_derive(ctx, out, len, params) > 0;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

static void extract(OSSL_LIB_CTX *libctx, const uint8_t *salt, const uint8_t *key, uint8_t *out)
{
	REQUIRE(derive(libctx, EVP_KDF_HKDF_MODE_EXTRACT_ONLY, salt, key, "derived", out,
		       digest_len));
}

static bool expand(OSSL_LIB_CTX *libctx, const uint8_t *secret, const char *label, uint8_t *out,
		   size_t len)
{
	return derive(libctx, EVP_KDF_HKDF_MODE_EXPAND_ONLY, NULL, secret, label, out, len);
}

static const uint8_t shared[SECRET_MAX] = "of a key exchange that we know";

/* What it is; or, of the provider, what stands for it. */
static void derive_secrets(OSSL_LIB_CTX *libctx, uint8_t early[SECRET_MAX],
			   uint8_t handshake[SECRET_MAX])
{
	extract(libctx, NULL, NULL, early);
	extract(libctx, early, shared, handshake);
}

static void derive_key(OSSL_LIB_CTX *libctx, uint8_t *out, size_t len)
{
	uint8_t early[SECRET_MAX], handshake[SECRET_MAX];

	derive_secrets(libctx, early, handshake);
	REQUIRE(expand(libctx, handshake, "key", out, len));
}

#define MASTER_LEN	48

/* As libssl calls it. */
static bool prf(OSSL_LIB_CTX *libctx, const uint8_t *secret, const char *label, uint8_t *out,
		size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS1-PRF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[8], *p = params;
	bool ok;
	int i;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, (void *)secret, MASTER_LEN);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, (char *)label, strlen(label));
	for (i = 0; i < 4; i++)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, "random", i ? 0 : 6);
	*p = OSSL_PARAM_construct_end();
	ok = EVP_KDF_derive(ctx, out, len, params) > 0;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

/* ---- what is found, and where */

static volatile size_t nr_steps, nr_found, nr_elsewhere;
static uint8_t *stack;

/* The heap, and what is the thread's own. */
static struct {
	const uint8_t *from, *to;
} elsewhere[2];

static size_t look_elsewhere(void)
{
	size_t i, found = 0;

	for (i = 0; i < 2; i++)
		found += needles_in(elsewhere[i].from, elsewhere[i].to);
	return found;
}

static void find_elsewhere(void)
{
	const uint8_t *own = (const uint8_t *)pthread_self();
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	char line[512];

	REQUIRE(f);
	while (fgets(line, sizeof(line), f)) {
		REQUIRE_EQ(sscanf(line, "%lx-%lx", &from, &to), 2);
		if (strstr(line, "[heap]") || (own >= (uint8_t *)from && own < (uint8_t *)to)) {
			elsewhere[!strstr(line, "[heap]")].from = (uint8_t *)from;
			elsewhere[!strstr(line, "[heap]")].to = (uint8_t *)to;
		}
	}
	fclose(f);
	REQUIRE(elsewhere[0].from && elsewhere[1].from);
}

/* ---- each instruction */

static size_t before_elsewhere;

/* Is this the beginning of what may wait? */
static bool may_wait(const uint8_t *ip)
{
	static const void *waiting[3];

	if (!waiting[0]) {
		waiting[0] = __libc_malloc;
		waiting[1] = dlsym(RTLD_DEFAULT, "free");
		waiting[2] = dlsym(RTLD_DEFAULT, "pthread_mutex_lock");
	}
	return ip == waiting[0] || ip == waiting[1] || ip == waiting[2] ||
	       (ip[0] == 0x0f && ip[1] == 0x05);
}

/* On a stack of its own. */
static void step(int sig, siginfo_t *info, void *ucontext)
{
	const greg_t *regs = ((ucontext_t *)ucontext)->uc_mcontext.gregs;
	const uint8_t *at = (uint8_t *)((regs[REG_RSP] - RED_ZONE) & ~(greg_t)7);

	(void)sig;
	(void)info;
	nr_steps++;
	if (nr_open && may_wait((uint8_t *)regs[REG_RIP]))
		nr_waits++;
	nr_found += at >= stack && needles_in(at, stack + STACK_BYTES);
	if (nr_steps % 256 == 0)
		nr_elsewhere += look_elsewhere() > before_elsewhere;
}

/* ---- the call, on a stack that nothing else has used */

static ucontext_t main_stack, work_stack;

static struct {
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *ctx;
	uint8_t key[MASTER_LEN], salt[SECRET_MAX], out[128];
	bool puts_it_there, puts_it_elsewhere;
	int (*fn)(void);
	int ret;
} work;

static int key_cipher(void)
{
	return EVP_EncryptInit_ex2(work.ctx, work.cipher, work.key, NULL, NULL);
}

static int derive_handle(void)
{
	return expand(with_epk, work.key, "key", work.key, SECRET_LEN);
}

static uint8_t *on_heap;

static __attribute__((noinline)) void call(void)
{
	volatile uint8_t copy[8] = { 0 };
	size_t i;

	is_stepping = true;
	set_trap(true);
	work.ret = work.fn();
	for (i = 0; work.puts_it_there && i < 8; i++)
		copy[i] = needle_byte(i);
	for (i = 0; work.puts_it_elsewhere && i < 8; i++)
		on_heap[i] = needle_byte(i);
	for (i = 0; work.puts_it_elsewhere && i < 256; i++)
		__asm__ volatile("nop");
	set_trap(false);
	is_stepping = false;
	(void)copy[0];
}

static void run(void)
{
	static uint8_t handler_stack[65536];
	const stack_t other = { .ss_sp = handler_stack, .ss_size = sizeof(handler_stack) };
	struct sigaction action = { .sa_sigaction = step, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	nr_steps = nr_found = nr_elsewhere = 0;
	find_elsewhere();
	before_elsewhere = look_elsewhere();
	REQUIRE_EQ(sigaltstack(&other, NULL), 0);
	REQUIRE_EQ(sigaction(SIGTRAP, &action, NULL), 0);
	memset(stack, 0, STACK_BYTES);
	REQUIRE_EQ(getcontext(&work_stack), 0);
	work_stack.uc_stack.ss_sp = stack;
	work_stack.uc_stack.ss_size = STACK_BYTES;
	work_stack.uc_link = &main_stack;
	makecontext(&work_stack, call, 0);
	REQUIRE_EQ(swapcontext(&main_stack, &work_stack), 0);
}

/* Both ends have to seal the same. */
static void seal(EVP_CIPHER_CTX *ctx, uint8_t out[48])
{
	static const uint8_t iv[IV_LEN] = { 1 }, in[32] = "a record";
	int len;

	require_ossl(EVP_EncryptInit_ex2(ctx, NULL, NULL, iv, NULL));
	require_ossl(EVP_EncryptUpdate(ctx, out, &len, in, sizeof(in)));
	require_ossl(EVP_EncryptFinal_ex(ctx, out + len, &len));
	require_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, out + 32));
}

static bool is_emulated;

/*
 * With its box, in an emulator: it is made by system calls, and the trap of an instruction that is
 * one an emulated CPU has in the kernel.
 */
static void have_context(void)
{
	work.ctx = EVP_CIPHER_CTX_new();
	if (is_emulated)
		require_ossl(EVP_EncryptInit_ex2(work.ctx, work.cipher, NULL, NULL, NULL));
}

static void try_cipher(const char *name, size_t len, bool puts_it_there)
{
	/* libcrypto's code for ARIA has the key's words there while it makes round keys of them. */
	const bool has_words = !strncmp(name, "ARIA", 4);
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(plain, name, NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t key[SECRET_LEN], expected[48], out[48];

	derive_key(plain, key, len);
	require_ossl(EVP_EncryptInit_ex2(ctx, cipher, key, NULL, NULL));
	seal(ctx, expected);
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	needles_forget();
	(has_words ? needles_add_bytes : needles_add)(key, len);
	explicit_bzero(key, sizeof(key));

	memset(&work, 0, sizeof(work));
	work.fn = key_cipher;
	work.cipher = fetch(with_epk, name);
	have_context();
	work.puts_it_there = puts_it_there;
	derive_key(with_epk, work.key, len);
	run();
	require_ossl(work.ret);
	seal(work.ctx, out);
	REQUIRE_MEM_EQ(out, expected, sizeof(out));
	EVP_CIPHER_CTX_free(work.ctx);
	EVP_CIPHER_free(work.cipher);
	printf("%s: at %zu of %zu instructions the key is on the stack\n", name, nr_found, nr_steps);
	REQUIRE_IN(nr_steps, 1000, 10000000);
}

static const struct {
	const char *name;
	size_t len;
} ciphers_tried[] = {
	{ "AES-128-GCM", 16 },
	{ "AES-256-GCM", 32 },
	{ "ChaCha20-Poly1305", 32 },
	{ "ARIA-256-GCM", 32 },
};

static void key_is_never_on_the_stack(void **state)
{
	size_t i, nr = sizeof(ciphers_tried) / sizeof(ciphers_tried[0]), found = 0;

	(void)state;
	for (i = 0; i < (is_emulated ? 1 : nr); i++) {
		try_cipher(ciphers_tried[i].name, ciphers_tried[i].len, false);
		found += nr_found + nr_elsewhere;
	}
	REQUIRE_EQ(found, 0);
}

/* Or the test sees nothing. */
static void key_on_the_stack_is_seen(void **state)
{
	(void)state;
	try_cipher("AES-256-GCM", 32, true);
	REQUIRE(nr_found > 0);
}

static void key_on_the_heap_is_seen(void **state)
{
	(void)state;
	on_heap = malloc(8);
	memset(&work, 0, sizeof(work));
	work.fn = derive_handle;
	work.puts_it_elsewhere = true;
	derive_key(with_epk, work.key, SECRET_LEN);
	needles_forget();
	needles_add(shared, 8);
	run();
	REQUIRE(nr_elsewhere > 0);
	free(on_heap);
}

/* As many domains as several EPTs have places for. */
#define FAR_AWAY	48

/* A new box is in another EPT than the thread, and the vault is there, too. */
static void key_goes_to_another_ept(void **state)
{
	static const uint8_t key[SECRET_LEN] = { 1 };
	EVP_CIPHER *cipher = fetch(with_epk, "AES-256-GCM");
	EVP_CIPHER_CTX *between[FAR_AWAY];
	size_t i;

	(void)state;
	if (strcmp(epk_backend(), "epk"))
		skip();
	for (i = 0; i < FAR_AWAY; i++) {
		between[i] = EVP_CIPHER_CTX_new();
		require_ossl(EVP_EncryptInit_ex2(between[i], cipher, key, NULL, NULL));
	}
	vaults_ept = besides_ept = -1;
	try_cipher("AES-256-GCM", 32, false);
	REQUIRE_EQ(nr_found + nr_elsewhere, 0);
	REQUIRE_EQ(vaults_ept, EPK_EVERYWHERE);
	for (i = 0; i < FAR_AWAY; i++)
		EVP_CIPHER_CTX_free(between[i]);
	EVP_CIPHER_free(cipher);
	/* Where there is but one, nothing has been shown. */
	if (besides_ept <= 0)
		skip();
}

/* ---- what is derived from */

static int step_extract(void)
{
	return derive(with_epk, EVP_KDF_HKDF_MODE_EXTRACT_ONLY, work.salt, NULL, "derived", work.out,
		      digest_len);
}

static int step_traffic(void)
{
	return expand(with_epk, work.key, "s ap traffic", work.out, digest_len);
}

static int step_key(void)
{
	return expand(with_epk, work.key, "key", work.out, SECRET_LEN);
}

static int step_finished(void)
{
	return expand(with_epk, work.key, "finished", work.out, digest_len);
}

static int step_mac(void)
{
	size_t len;

	return !!EVP_Q_mac(with_epk, "HMAC", NULL, digest, NULL, work.key, digest_len,
			   (const uint8_t *)"a transcript's", 14, work.out, digest_len, &len);
}

static int step_key_block(void)
{
	return prf(with_epk, work.key, "key expansion", work.out, 72);
}

static int step_verify_data(void)
{
	return prf(with_epk, work.key, "server finished", work.out, 12);
}

static void step_through(const char *what, int (*fn)(void))
{
	work.fn = fn;
	/* What libcrypto does the first time is not stepped through. */
	REQUIRE_EQ(fn(), 1);
	run();
	REQUIRE_EQ(work.ret, 1);
	printf("%s, %s: something is on the stack at %zu of %zu instructions, elsewhere at %zu of "
	       "%zu looks\n", digest, what, nr_found, nr_steps, nr_elsewhere, nr_steps / 256);
	REQUIRE_IN(nr_steps, 1000, 10000000);
}

#define STEP(fn)								\
	do {									\
		step_through(#fn, fn);						\
		found += nr_found + nr_elsewhere;				\
	} while (0)

static size_t step_through_13(void)
{
	uint8_t early[SECRET_MAX], handshake[SECRET_MAX], next[SECRET_MAX];
	size_t found = 0;

	needles_forget();
	derive_secrets(plain, early, handshake);
	needles_add_words(early, digest_len);
	needles_add_words(handshake, digest_len);
	extract(plain, handshake, NULL, next);
	needles_add_words(next, digest_len);
	REQUIRE(expand(plain, handshake, "key", next, SECRET_LEN));
	needles_add(next, SECRET_LEN);
	REQUIRE(expand(plain, handshake, "s ap traffic", next, digest_len));
	needles_add_words(next, digest_len);
	REQUIRE(expand(plain, handshake, "finished", next, digest_len));
	needles_add_words(next, digest_len);
	explicit_bzero(early, sizeof(early));
	explicit_bzero(handshake, sizeof(handshake));
	explicit_bzero(next, sizeof(next));

	derive_secrets(with_epk, work.salt, work.key);
	memcpy(work.salt, work.key, digest_len);
	STEP(step_extract);
	STEP(step_traffic);
	STEP(step_key);
	STEP(step_finished);
	memcpy(work.key, work.out, digest_len);
	STEP(step_mac);
	return found;
}

static size_t step_through_12(void)
{
	uint8_t master[MASTER_LEN], key_block[64];
	size_t found = 0;

	needles_forget();
	REQUIRE(prf(plain, shared, "master secret", master, MASTER_LEN));
	needles_add_words(master, MASTER_LEN);
	REQUIRE(prf(plain, master, "key expansion", key_block, sizeof(key_block)));
	needles_add(key_block, sizeof(key_block));
	explicit_bzero(master, sizeof(master));
	explicit_bzero(key_block, sizeof(key_block));

	REQUIRE(prf(with_epk, shared, "master secret", work.key, MASTER_LEN));
	STEP(step_key_block);
	STEP(step_verify_data);
	return found;
}

static void secrets_are_never_on_the_stack(void **state)
{
	static const char *const digests[] = { "SHA256", "SHA384" };
	size_t i, found = 0;

	(void)state;
	memset(&work, 0, sizeof(work));
	for (i = 0; i < 2; i++) {
		digest = digests[i];
		digest_len = i ? 48 : 32;
		found += step_through_13();
		found += step_through_12();
	}
	digest = digests[0];
	digest_len = SECRET_LEN;
	REQUIRE_EQ(found, 0);
}

/* The code for CPUs that have no instructions for it, whatever this one has. */
static int step_plain(void)
{
	static struct hmac hmac;

	epkp_hmac_key(&hmac, epkp_hash_find(digest), work.key, digest_len);
	epkp_hmac_begin(&hmac);
	epkp_hmac_add(&hmac, work.key, digest_len);
	epkp_hmac_end(&hmac, hmac.chain);
	explicit_bzero(&hmac, sizeof(hmac));
	return 1;
}

static void plain_code_leaves_nothing_there(void **state)
{
	const bool has = has_sha_ni;
	size_t found = 0;

	(void)state;
	has_sha_ni = false;
	memset(&work, 0, sizeof(work));
	memcpy(work.key, shared, SECRET_LEN);
	needles_forget();
	needles_add_words(work.key, SECRET_LEN);
	STEP(step_plain);
	has_sha_ni = has;
	REQUIRE_EQ(found, 0);
}

/* ---- who waits */

static void use_up(void)
{
	nr_openings = nr_waits = 0;
	run();
	printf("%zu steps, vault opened %zu times, %zu waits\n", nr_steps, nr_openings, nr_waits);
	REQUIRE(nr_openings > 0);
	REQUIRE_EQ(nr_waits, 0);
}

static void nothing_waits_with_the_vault_open(void **state)
{
	(void)state;
	/* There each opening is a system call, that of the box too. */
	if (!strcmp(epk_backend(), "mprotect"))
		skip();
	memset(&work, 0, sizeof(work));
	derive_key(with_epk, work.key, SECRET_LEN);
	work.fn = derive_handle;
	use_up();
	REQUIRE_EQ(work.ret, 1);
	work.fn = key_cipher;
	work.cipher = fetch(with_epk, "AES-256-GCM");
	have_context();
	use_up();
	require_ossl(work.ret);
	/* Again: it is gone, and OpenSSL is told so. */
	use_up();
	REQUIRE_EQ(work.ret, 0);
	REQUIRE_EQ(ERR_GET_REASON(ERR_peek_last_error()), EPK_R_KEY_GONE);
	ERR_clear_error();
	EVP_CIPHER_CTX_free(work.ctx);
	EVP_CIPHER_free(work.cipher);
}

static size_t steps_of_a_handle(void)
{
	derive_key(with_epk, work.key, SECRET_LEN);
	run();
	REQUIRE_EQ(work.ret, 1);
	return nr_steps;
}

/* As after thousands of clients that went away in the middle. */
static void keys_that_nobody_takes_cost_nothing(void **state)
{
	size_t before, after;
	uint8_t key[SECRET_LEN];
	int i;

	(void)state;
	memset(&work, 0, sizeof(work));
	work.fn = derive_handle;
	before = steps_of_a_handle();
	for (i = 0; i < 5000; i++)
		derive_key(with_epk, key, SECRET_LEN);
	after = steps_of_a_handle();
	printf("%zu steps, and %zu then\n", before, after);
	REQUIRE(after < before + 1000);
}

#define NR_THREADS	24	/* more than the vault has slots to work in */

static void *derive_some(void *arg)
{
	uint8_t key[SECRET_LEN] = { 1 };
	int i;

	for (i = 0; i < 20; i++)
		if (!derive(with_epk, EVP_KDF_HKDF_MODE_EXPAND_ONLY, NULL, key, "s ap traffic",
			    key, SECRET_LEN))
			return NULL;
	return arg;
}

static void threads_wait_before_they_open(void **state)
{
	pthread_t threads[NR_THREADS];
	void *right;
	int i;

	nr_waits = 0;
	is_slow = true;
	for (i = 0; i < NR_THREADS; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, derive_some, state), 0);
	for (i = 0; i < NR_THREADS; i++) {
		REQUIRE_EQ(pthread_join(threads[i], &right), 0);
		REQUIRE_EQ(right, state);
	}
	is_slow = false;
	REQUIRE_EQ(nr_waits, 0);
}

static int setup(void **state)
{
	(void)state;
	plain = make_libctx(0);
	with_epk = OSSL_LIB_CTX_new();
	load_providers(with_epk, "key_exchange = any\n");
	REQUIRE_EQ(epk_for_each_mapping(note_vault, NULL), 0);
	stack = known_stack = aligned_alloc(64, STACK_BYTES);
	known_stack_len = STACK_BYTES;
	return !stack;
}

/* Where libcrypto has other code, on a CPU without SHA's instructions, and without AVX and BMI. */
static const char *const cpus[] = { ":~0x20000000", "~0x1000020000000000:~0x20000128" };

static void another_cpu_changes_nothing(void **state)
{
	size_t i;
	int status;
	pid_t pid;

	(void)state;
	if (getenv("OPENSSL_ia32cap") || strcmp(epk_backend(), "none"))
		skip();
	for (i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++) {
		fflush(stdout);
		pid = fork();
		REQUIRE(pid >= 0);
		if (!pid) {
			setenv("OPENSSL_ia32cap", cpus[i], 1);
			execl("/proc/self/exe", "provider_crossing_test", NULL);
			_exit(127);
		}
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		REQUIRE_EQ(status, 0);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest crossings[] = {
		cmocka_unit_test(key_is_never_on_the_stack),
		cmocka_unit_test(key_on_the_stack_is_seen),
		cmocka_unit_test(key_goes_to_another_ept),
		cmocka_unit_test(nothing_waits_with_the_vault_open),
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(key_is_never_on_the_stack),
		cmocka_unit_test(key_on_the_stack_is_seen),
		cmocka_unit_test(key_on_the_heap_is_seen),
		cmocka_unit_test(secrets_are_never_on_the_stack),
		cmocka_unit_test(plain_code_leaves_nothing_there),
		cmocka_unit_test(nothing_waits_with_the_vault_open),
		cmocka_unit_test(keys_that_nobody_takes_cost_nothing),
		cmocka_unit_test(threads_wait_before_they_open),
		cmocka_unit_test(another_cpu_changes_nothing),
	};

	if (argc == 3) {
		is_emulated = true;
		setenv("EPK_BACKEND", argv[1], 1);
		setenv("BUILD_DIR", argv[2], 1);
		return cmocka_run_group_tests_name("provider_crossing", crossings, setup, NULL);
	}
	return cmocka_run_group_tests_name("provider_crossing", tests, setup, NULL);
}
