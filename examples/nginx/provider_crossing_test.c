// SPDX-License-Identifier: MIT
/*
 * What happens while the vault is open, instruction by instruction.
 *
 * A record key on its way from there to its cipher's box is in no ordinary memory, where a
 * neighbour thread could read it: the test knows the key, steps through the call that takes it,
 * and looks for it on the stack after each instruction.  And nobody waits meanwhile, for a lock
 * or for the kernel.
 */
#define _GNU_SOURCE
#define OPENSSL_SUPPRESS_DEPRECATED
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <ucontext.h>

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/sha.h>

#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

#define STACK_BYTES	(256 * 1024)
#define RED_ZONE	128
#define SECRET_LEN	32

/* ---- two ends that know the same secret, of which one is the provider's */

static bool derive(OSSL_LIB_CTX *libctx, int mode, const uint8_t *salt, const uint8_t *key,
		   const char *label, uint8_t *out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(libctx, "TLS13-KDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM params[7], *p = params;
	bool ok;

	*p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (char *)label,
						 strlen(label));
	if (key)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key,
							 SECRET_LEN);
	if (salt)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt,
							 SECRET_LEN);
	*p = OSSL_PARAM_construct_end();
	ok = EVP_KDF_derive(ctx, out, len, params) > 0;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

/* The key; or, of the provider, what stands for it. */
static void derive_key(OSSL_LIB_CTX *libctx, uint8_t *out, size_t len)
{
	static const uint8_t shared[SECRET_LEN] = "of a key exchange that we know";
	uint8_t early[SECRET_LEN], handshake[SECRET_LEN];

	assert_true(derive(libctx, EVP_KDF_HKDF_MODE_EXTRACT_ONLY, NULL, NULL, "derived", early,
			   SECRET_LEN));
	assert_true(derive(libctx, EVP_KDF_HKDF_MODE_EXTRACT_ONLY, early, shared, "derived",
			   handshake, SECRET_LEN));
	assert_true(derive(libctx, EVP_KDF_HKDF_MODE_EXPAND_ONLY, NULL, handshake, "key", out, len));
}

/* ---- what is looked for, inverted lest it be found here */

static uint64_t inverted[2];
static volatile size_t nr_steps, nr_found;
static uint8_t *stack;

/* ---- is the vault open? */

static int vault;
static __thread volatile bool is_open;
static volatile bool is_slow;
static size_t nr_openings, nr_waits;

static int note_vault(int dom, void *addr, size_t len, void *arg)
{
	(void)addr;
	(void)arg;
	if (len != BOX_LEN)
		vault = dom;
	return 0;
}

#define REAL(fn)									\
	static __typeof__(&fn) real;							\
											\
	if (!real)									\
		real = (__typeof__(&fn))dlsym(RTLD_NEXT, #fn)

#define EXPORT	__attribute__((visibility("default")))

#undef domain_begin

/* In place of libepk's, for the provider. */
EXPORT int epk_begin_write(int dom)
{
	int err;

	REAL(epk_begin_write);
	err = real(dom);
	if (!err && dom == vault) {
		is_open = true;
		__atomic_fetch_add(&nr_openings, 1, __ATOMIC_RELAXED);
	}
	return err;
}

EXPORT int domain_end(int dom)
{
	REAL(domain_end);
	if (dom == vault)
		is_open = false;
	return real(dom);
}

/* Of what wraps and unwraps.  While this thread sleeps others want a place to work in. */
EXPORT void SHA256_Transform(SHA256_CTX *ctx, const unsigned char *block)
{
	REAL(SHA256_Transform);
	if (is_slow && is_open)
		usleep(1000);
	real(ctx, block);
}

EXPORT int sched_yield(void)
{
	REAL(sched_yield);
	if (is_open)
		__atomic_fetch_add(&nr_waits, 1, __ATOMIC_RELAXED);
	return real();
}

extern void *__libc_malloc(size_t len);

/* A thread's first use of what is its own allocates that. */
EXPORT void *malloc(size_t len)
{
	if (is_open)
		__atomic_fetch_add(&nr_waits, 1, __ATOMIC_RELAXED);
	return __libc_malloc(len);
}

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
	uint64_t words[2];

	(void)sig;
	(void)info;
	nr_steps++;
	if (is_open && may_wait((uint8_t *)regs[REG_RIP]))
		nr_waits++;
	for (; at >= stack && at + 16 <= stack + STACK_BYTES; at += 4) {
		memcpy(words, at, sizeof(words));
		nr_found += words[0] == ~inverted[0] && words[1] == ~inverted[1];
	}
}

static void set_trap(bool on)
{
	if (on)
		__asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" : : : "memory", "cc");
	else
		__asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" : : : "memory", "cc");
}

/* ---- the call, on a stack that nothing else has used */

static ucontext_t main_stack, work_stack;

static struct {
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *ctx;
	uint8_t key[SECRET_LEN];
	bool puts_it_there, derives;
	int ret;
} work;

static __attribute__((noinline)) void key_cipher(void)
{
	volatile uint8_t copy[SECRET_LEN] = { 0 };
	size_t i;

	set_trap(true);
	work.ret = work.derives ?
		   derive(with_epk, EVP_KDF_HKDF_MODE_EXPAND_ONLY, NULL, work.key, "key", work.key,
			  SECRET_LEN) :
		   EVP_EncryptInit_ex2(work.ctx, work.cipher, work.key, NULL, NULL);
	for (i = 0; work.puts_it_there && i < 16; i++)
		copy[i] = ~((uint8_t *)inverted)[i];
	set_trap(false);
	(void)copy[0];
}

static void run(void)
{
	static uint8_t handler_stack[65536];
	const stack_t other = { .ss_sp = handler_stack, .ss_size = sizeof(handler_stack) };
	struct sigaction action = { .sa_sigaction = step, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	nr_steps = nr_found = 0;
	assert_int_equal(sigaltstack(&other, NULL), 0);
	assert_int_equal(sigaction(SIGTRAP, &action, NULL), 0);
	memset(stack, 0, STACK_BYTES);
	assert_int_equal(getcontext(&work_stack), 0);
	work_stack.uc_stack.ss_sp = stack;
	work_stack.uc_stack.ss_size = STACK_BYTES;
	work_stack.uc_link = &main_stack;
	makecontext(&work_stack, key_cipher, 0);
	assert_int_equal(swapcontext(&main_stack, &work_stack), 0);
}

static void note_key(uint8_t key[SECRET_LEN])
{
	memcpy(inverted, key, sizeof(inverted));
	inverted[0] = ~inverted[0];
	inverted[1] = ~inverted[1];
	explicit_bzero(key, SECRET_LEN);
}

/* Both ends have to seal the same. */
static void seal(EVP_CIPHER_CTX *ctx, uint8_t out[48])
{
	static const uint8_t iv[IV_LEN] = { 1 }, in[32] = "a record";
	int len;

	assert_ossl(EVP_EncryptInit_ex2(ctx, NULL, NULL, iv, NULL));
	assert_ossl(EVP_EncryptUpdate(ctx, out, &len, in, sizeof(in)));
	assert_ossl(EVP_EncryptFinal_ex(ctx, out + len, &len));
	assert_ossl(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, out + 32));
}

static void try_cipher(const char *name, size_t len, bool puts_it_there)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(plain, name, NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t key[SECRET_LEN], expected[48], out[48];

	derive_key(plain, key, len);
	assert_ossl(EVP_EncryptInit_ex2(ctx, cipher, key, NULL, NULL));
	seal(ctx, expected);
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	note_key(key);

	memset(&work, 0, sizeof(work));
	work.cipher = fetch(with_epk, name);
	work.ctx = EVP_CIPHER_CTX_new();
	work.puts_it_there = puts_it_there;
	derive_key(with_epk, work.key, len);
	run();
	assert_ossl(work.ret);
	seal(work.ctx, out);
	assert_memory_equal(out, expected, sizeof(out));
	EVP_CIPHER_CTX_free(work.ctx);
	EVP_CIPHER_free(work.cipher);
	printf("%s: at %zu of %zu instructions the key is on the stack\n", name, nr_found, nr_steps);
	assert_in_range(nr_steps, 1000, 10000000);
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
	size_t i, found = 0;

	(void)state;
	for (i = 0; i < sizeof(ciphers_tried) / sizeof(ciphers_tried[0]); i++) {
		try_cipher(ciphers_tried[i].name, ciphers_tried[i].len, false);
		found += nr_found;
	}
	assert_int_equal(found, 0);
}

/* Or the test sees nothing. */
static void key_on_the_stack_is_seen(void **state)
{
	(void)state;
	try_cipher("AES-256-GCM", 32, true);
	assert_true(nr_found > 0);
}

/* ---- who waits */

static void use_up(void)
{
	nr_openings = nr_waits = 0;
	run();
	printf("%zu steps, vault opened %zu times, %zu waits\n", nr_steps, nr_openings, nr_waits);
	assert_true(nr_openings > 0);
	assert_int_equal(nr_waits, 0);
}

static void nothing_waits_with_the_vault_open(void **state)
{
	(void)state;
	/* There each opening is a system call, that of the box too. */
	if (!strcmp(epk_backend(), "mprotect"))
		skip();
	memset(&work, 0, sizeof(work));
	work.derives = true;
	use_up();
	assert_int_equal(work.ret, 1);
	work.derives = false;
	work.cipher = fetch(with_epk, "AES-256-GCM");
	work.ctx = EVP_CIPHER_CTX_new();
	use_up();
	assert_ossl(work.ret);
	/* Again: it is gone, and OpenSSL is told so. */
	use_up();
	assert_int_equal(work.ret, 0);
	assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()), EPK_R_KEY_GONE);
	ERR_clear_error();
	EVP_CIPHER_CTX_free(work.ctx);
	EVP_CIPHER_free(work.cipher);
}

#define NR_THREADS	24	/* more than the vault has places to work in */

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
		assert_int_equal(pthread_create(&threads[i], NULL, derive_some, state), 0);
	for (i = 0; i < NR_THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &right), 0);
		assert_ptr_equal(right, state);
	}
	is_slow = false;
	assert_int_equal(nr_waits, 0);
}

static int setup(void **state)
{
	(void)state;
	plain = make_libctx(0);
	with_epk = OSSL_LIB_CTX_new();
	load_providers(with_epk, "key_exchange = any\n");
	assert_int_equal(epk_for_each_mapping(note_vault, NULL), 0);
	stack = aligned_alloc(64, STACK_BYTES);
	return !stack;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(key_is_never_on_the_stack),
		cmocka_unit_test(key_on_the_stack_is_seen),
		cmocka_unit_test(nothing_waits_with_the_vault_open),
		cmocka_unit_test(threads_wait_before_they_open),
	};

	return cmocka_run_group_tests_name("provider_crossing", tests, setup, NULL);
}
