// SPDX-License-Identifier: MIT
/*
 * What a cipher context leaves outside of its domain: nothing that depends on its key.
 *
 * The test takes all that its domain holds after each call for a secret, unless it is
 * the same with another key or is public (the tag, the output), and looks for each piece
 * of 16 bytes in the registers, on the stack and in all other memory of the process.
 * What it looks for it keeps inverted, lest it find that.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/rand.h>

#include "provider_known_stack.h"
#include "provider_test.h"
#include "provider/epk_provider.h"

#define STACK_BYTES	(256 * 1024)
#define PIECE		16
#define PIECES_MAX	(BOX_LEN / 8)
#define DATA_LEN	3000

OSSL_LIB_CTX *with_epk, *plain;

/* ---- what is looked for */

static uint64_t pieces[PIECES_MAX][2];
static size_t offsets[PIECES_MAX];	/* in the box */
static size_t last_found;
static size_t nr_pieces;
static uint8_t maybe[65536];

static void want(const uint8_t *inverted, size_t offset)
{
	uint64_t first;

	REQUIRE(nr_pieces < PIECES_MAX);
	memcpy(pieces[nr_pieces], inverted, PIECE);
	offsets[nr_pieces] = offset;
	first = ~pieces[nr_pieces][0];
	maybe[first & 0xffff] = 1;
	nr_pieces++;
}

static bool is_wanted(const uint8_t *at)
{
	uint64_t words[2];
	size_t i;

	memcpy(words, at, sizeof(words));
	if (!maybe[words[0] & 0xffff])
		return false;
	for (i = 0; i < nr_pieces; i++) {
		if (words[0] == ~pieces[i][0] && words[1] == ~pieces[i][1]) {
			last_found = offsets[i];
			return true;
		}
	}
	return false;
}

static size_t count_in(const uint8_t *from, size_t len)
{
	size_t at, found = 0;

	for (at = 0; at + PIECE <= len; at += 4)
		found += is_wanted(from + at);
	return found;
}

/* ---- where */

struct domains {
	struct {
		uintptr_t start, end;
	} at[64];
	size_t nr;
};

static int note_domain(int dom, void *addr, size_t len, void *arg)
{
	struct domains *d = arg;

	(void)dom;
	REQUIRE(d->nr < 64);
	d->at[d->nr].start = (uintptr_t)addr;
	d->at[d->nr++].end = (uintptr_t)addr + len;
	return 0;
}

static bool in_domain(const struct domains *d, uintptr_t at)
{
	size_t i;

	for (i = 0; i < d->nr; i++)
		if (at >= d->at[i].start && at < d->at[i].end)
			return true;
	return false;
}

static size_t count_in_range(const struct domains *d, uintptr_t start, uintptr_t end)
{
	size_t found = 0;

	for (; start < end; start += 4096)
		if (!in_domain(d, start))
			found += count_in((uint8_t *)start, 4096);
	return found;
}

/* Also reads what is beyond each page's end, where that is mapped: no piece lies across. */
static size_t count_in_memory(const char *what)
{
	static char maps[1 << 18];
	struct domains d = { .nr = 0 };
	unsigned long start, end;
	char prot[5], name[128];
	size_t len = 0, found = 0, n;
	ssize_t got;
	char *line, *next;
	int fd = open("/proc/self/maps", O_RDONLY);

	REQUIRE(fd >= 0);
	while ((got = read(fd, maps + len, sizeof(maps) - 1 - len)) > 0)
		len += got;
	close(fd);
	maps[len] = 0;
	REQUIRE_EQ(epk_for_each_mapping(note_domain, &d), 0);
	for (line = maps; *line; line = next) {
		next = strchr(line, '\n') + 1;
		name[0] = 0;
		REQUIRE(sscanf(line, "%lx-%lx %4s %*s %*s %*s %127s", &start, &end, prot,
			       name) >= 3);
		if (prot[0] != 'r' || !strncmp(name, "[v", 2) || !strncmp(name, "/dev/", 5))
			continue;
		n = count_in_range(&d, start, end);
		if (n) {
			printf("%s: %zu pieces in %lx-%lx %s, the last is of bytes from %zu\n", what, n,
			       start, end, name, last_found);
		}
		found += n;
	}
	return found;
}

/* ---- registers */

static uint8_t registers[32 * 64] __attribute__((aligned(64)));

#define STORE(n)	"vmovdqa64 %%zmm" #n ", 64*" #n "(%0)\n\t"
#define STORE_YMM(n)	"vmovdqa %%ymm" #n ", 64*" #n "(%0)\n\t"

static __attribute__((always_inline)) inline void store_registers(void)
{
	if (__builtin_cpu_supports("avx512f"))
		__asm__ volatile(STORE(0) STORE(1) STORE(2) STORE(3) STORE(4) STORE(5) STORE(6)
				 STORE(7) STORE(8) STORE(9) STORE(10) STORE(11) STORE(12)
				 STORE(13) STORE(14) STORE(15) STORE(16) STORE(17) STORE(18)
				 STORE(19) STORE(20) STORE(21) STORE(22) STORE(23) STORE(24)
				 STORE(25) STORE(26) STORE(27) STORE(28) STORE(29) STORE(30)
				 STORE(31) : : "r"(registers) : "memory");
	else if (__builtin_cpu_supports("avx"))
		__asm__ volatile(STORE_YMM(0) STORE_YMM(1) STORE_YMM(2) STORE_YMM(3)
				 STORE_YMM(4) STORE_YMM(5) STORE_YMM(6) STORE_YMM(7)
				 STORE_YMM(8) STORE_YMM(9) STORE_YMM(10) STORE_YMM(11)
				 STORE_YMM(12) STORE_YMM(13) STORE_YMM(14) STORE_YMM(15)
				 : : "r"(registers) : "memory");
}

/* ---- what is done meanwhile, on a stack that nothing else uses */

static const struct step {
	const char *what;
	enum { KEY, IV, HEADER, PART, REST, FINAL, MAC_KEY, RECORD13, RECORD12, COPY } step;
} steps[] = {
	{ "key", KEY }, { "IV", IV }, { "header", HEADER }, { "part", PART }, { "rest", REST },
	{ "final", FINAL }, { "MAC key", MAC_KEY }, { "record of TLS 1.3", RECORD13 },
	{ "record of TLS 1.2", RECORD12 }, { "copy", COPY },
};

static struct {
	const char *name;
	int sealing;
	const struct step *step;
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *ctx, *copy;
	uint8_t key[64], iv[16], in[DATA_LEN];
	/* public */
	uint8_t out[4][DATA_LEN + 64], tag[TAG_LEN];
} work;

static ucontext_t main_stack, work_stack;

/* Up to the payload, when what follows is known already. */
static void do_record13(void)
{
	uint8_t header[] = { 23, 3, 3, (1000 + TAG_LEN) >> 8, (uint8_t)(1000 + TAG_LEN) };
	int outl;

	EVP_CipherInit_ex(work.ctx, NULL, NULL, NULL, work.iv, work.sealing);
	if (!work.sealing)
		EVP_CIPHER_CTX_ctrl(work.ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, work.tag);
	EVP_CipherUpdate(work.ctx, NULL, &outl, header, sizeof(header));
	EVP_CipherUpdate(work.ctx, work.out[0], &outl, work.in, 1000);
	store_registers();
	EVP_CipherFinal_ex(work.ctx, work.out[3], &outl);
	if (work.sealing)
		EVP_CIPHER_CTX_ctrl(work.ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, work.tag);
}

static void do_record12(void)
{
	bool is_cbc = EVP_CIPHER_get_mode(work.cipher) == EVP_CIPH_CBC_MODE;
	uint8_t header[TLS_AAD_LEN] = { [8] = 23, [9] = 3, [10] = 3 };
	size_t len = is_cbc ? 1024 : 1000;
	int outl;

	header[11] = len >> 8;
	header[12] = len;
	if (!is_cbc)
		EVP_CIPHER_CTX_ctrl(work.ctx, EVP_CTRL_AEAD_SET_IV_FIXED,
				    EVP_CIPHER_get_mode(work.cipher) ? 4 : IV_LEN, work.iv);
	EVP_CIPHER_CTX_ctrl(work.ctx, EVP_CTRL_AEAD_TLS1_AAD, sizeof(header), header);
	EVP_CipherUpdate(work.ctx, work.out[2], &outl, work.out[2], len + 16);
}

static void do_step(void)
{
	bool is_ccm = EVP_CIPHER_get_mode(work.cipher) == EVP_CIPH_CCM_MODE;
	bool is_aead = EVP_CIPHER_get_flags(work.cipher) & EVP_CIPH_FLAG_AEAD_CIPHER;
	int outl;

	switch (work.step->step) {
	case KEY:
		EVP_CipherInit_ex(work.ctx, work.cipher, NULL, work.key, NULL, work.sealing);
		break;
	case IV:
		EVP_CipherInit_ex(work.ctx, NULL, NULL, NULL, work.iv, work.sealing);
		if (!work.sealing && is_aead)
			EVP_CIPHER_CTX_ctrl(work.ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, work.tag);
		break;
	case HEADER:
		if (is_ccm)
			EVP_CipherUpdate(work.ctx, NULL, &outl, NULL, DATA_LEN);
		if (is_aead)
			EVP_CipherUpdate(work.ctx, NULL, &outl, work.in, 5);
		break;
	case PART:
		EVP_CipherUpdate(work.ctx, work.out[0], &outl, work.in, is_ccm ? DATA_LEN : 1337);
		break;
	case REST:
		if (!is_ccm)
			EVP_CipherUpdate(work.ctx, work.out[1], &outl, work.in, DATA_LEN - 1337);
		break;
	case FINAL:
		EVP_CipherFinal_ex(work.ctx, work.out[3], &outl);
		store_registers();
		if (work.sealing && is_aead)
			EVP_CIPHER_CTX_ctrl(work.ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, work.tag);
		return;
	case MAC_KEY:
		if (!is_aead)
			EVP_CIPHER_CTX_ctrl(work.ctx, EVP_CTRL_AEAD_SET_MAC_KEY, 20, work.key + 32);
		break;
	case RECORD13:
		if (is_aead && !is_ccm)
			do_record13();
		return;
	case RECORD12:
		do_record12();
		break;
	case COPY:
		EVP_CIPHER_CTX_copy(work.copy, work.ctx);
		break;
	}
	store_registers();
}

static void work_loop(void)
{
	for (;;) {
		do_step();
		swapcontext(&work_stack, &main_stack);
	}
}

static void run_step(const struct step *step)
{
	work.step = step;
	swapcontext(&main_stack, &work_stack);
	ERR_clear_error();
}

/* ---- */

static int copy_inverted(int dom, void *addr, size_t len, void *arg)
{
	uint8_t *to = arg;
	size_t i;

	/* The vault: what is in it is of no cipher context. */
	if (len != BOX_LEN)
		return 0;
	REQUIRE_EQ(domain_begin(dom, PROT_READ), 0);
	for (i = 0; i < len && !((uint8_t *)addr)[i]; i++)
		;
	/* One that waits is all zeros. */
	if (i < len)
		for (i = 0; i < len; i++)
			to[i] = ~((uint8_t *)addr)[i];
	REQUIRE_EQ(domain_end(dom), 0);
	return 0;
}

/* Is any of the piece's halves in what is public? */
static bool is_public(const uint8_t *inverted)
{
	const uint8_t *at, *end = work.tag + sizeof(work.tag);
	size_t i, half;

	for (half = 0; half < PIECE; half += PIECE / 2) {
		for (at = (uint8_t *)work.out; at + PIECE / 2 <= end; at++) {
			for (i = 0; i < PIECE / 2 && (at[i] ^ inverted[half + i]) == 0xff; i++)
				;
			if (i == PIECE / 2)
				return true;
		}
	}
	return false;
}

/* The pieces of @box that differ from @other, which had another key. */
static void choose(const uint8_t *box, const uint8_t *other)
{
	size_t at;

	for (at = 0; at + PIECE <= BOX_LEN && nr_pieces < PIECES_MAX; at += 8)
		if (memcmp(box + at, other + at, 8) && memcmp(box + at + 8, other + at + 8, 8) &&
		    !is_public(box + at))
			want(box + at, at);
}

static void forget(void)
{
	nr_pieces = 0;
	memset(maybe, 0, sizeof(maybe));
}

static void start(const char *name, int sealing)
{
	static uint8_t stack[STACK_BYTES] __attribute__((aligned(64)));

	memset(stack, 0, sizeof(stack));
	known_stack = stack;
	known_stack_len = sizeof(stack);
	memset(&work, 0, sizeof(work));
	work.name = name;
	work.sealing = sealing;
	work.cipher = EVP_CIPHER_fetch(with_epk, name, NULL);
	work.ctx = EVP_CIPHER_CTX_new();
	work.copy = EVP_CIPHER_CTX_new();
	REQUIRE_EQ(getcontext(&work_stack), 0);
	work_stack.uc_stack.ss_sp = stack;
	work_stack.uc_stack.ss_size = sizeof(stack);
	makecontext(&work_stack, work_loop, 0);
}

static void stop(void)
{
	EVP_CIPHER_CTX_free(work.ctx);
	EVP_CIPHER_CTX_free(work.copy);
	EVP_CIPHER_free(work.cipher);
	REQUIRE_EQ(keyed_domains(), 0);
}

#define NR_STEPS	(sizeof(steps) / sizeof(steps[0]))

static size_t leaks(const char *name, int sealing)
{
	static uint8_t other[NR_STEPS][BOX_LEN], box[BOX_LEN];
	size_t i, n, found = 0, looked_for = 0;
	char what[128];

	start(name, sealing);
	RAND_bytes(work.key, sizeof(work.key));
	for (i = 0; i < NR_STEPS - 1; i++) {
		run_step(&steps[i]);
		epk_for_each_mapping(copy_inverted, other[i]);
	}
	stop();

	start(name, sealing);
	RAND_bytes(work.key, sizeof(work.key));
	forget();
	for (i = 0; i < NR_STEPS; i++) {
		run_step(&steps[i]);
		if (steps[i].step == MAC_KEY)
			explicit_bzero(work.key, sizeof(work.key));
		/* libssl wipes it at once. */
		explicit_bzero(work.key, 32);
		if (steps[i].step != COPY) {
			forget();
			epk_for_each_mapping(copy_inverted, box);
			choose(box, other[i]);
		}
		snprintf(what, sizeof(what), "%s, %s, %s", name, sealing ? "sealing" : "opening",
			 steps[i].what);
		n = count_in(registers, sizeof(registers));
		if (n)
			printf("%s: %zu pieces in registers\n", what, n);
		explicit_bzero(registers, sizeof(registers));
		found += n + count_in_memory(what);
		looked_for += nr_pieces;
	}
	stop();
	found += count_in_memory("afterwards");
	/* A key schedule at least, and the key in each step. */
	REQUIRE(looked_for > 10 * NR_STEPS);
	return found;
}

static const char *const names[] = {
	"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305", "AES-128-CCM", "AES-256-CCM",
	"ARIA-128-GCM", "ARIA-256-GCM", "AES-128-CBC", "AES-256-CBC", "CAMELLIA-128-CBC",
	"CAMELLIA-256-CBC", "DES-EDE3-CBC", "AES-128-CBC-HMAC-SHA1", "AES-256-CBC-HMAC-SHA1",
	"AES-128-CBC-HMAC-SHA256", "AES-256-CBC-HMAC-SHA256",
};

static void nothing_is_left_outside(void **state)
{
	size_t i, found = 0;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		found += leaks(names[i], 1);
		found += leaks(names[i], 0);
	}
	REQUIRE_EQ(found, 0);
}

/* ---- what the kernel puts on the stack when a signal comes in between */

#define INTERRUPTED	40

static volatile unsigned int nr_signals;

static void on_signal(int sig)
{
	(void)sig;
	nr_signals++;
}

static void seal_until_interrupted(void)
{
	const struct itimerval soon = { .it_value.tv_usec = 50 }, never = { .it_value.tv_usec = 0 };
	unsigned int before = nr_signals;
	int outl;

	REQUIRE_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
	while (nr_signals == before)
		EVP_CipherUpdate(work.ctx, work.out[0], &outl, work.in, DATA_LEN);
	setitimer(ITIMER_REAL, &never, NULL);
}

static void interrupted_loop(void)
{
	for (;;) {
		seal_until_interrupted();
		swapcontext(&work_stack, &main_stack);
	}
}

static void interrupted_code_leaves_nothing(void **state)
{
	static uint8_t box[BOX_LEN], other[BOX_LEN];
	struct sigaction action = { .sa_handler = on_signal };
	size_t found = 0;
	int i;

	(void)state;
	REQUIRE_EQ(sigaction(SIGALRM, &action, NULL), 0);
	start("AES-256-GCM", 1);
	RAND_bytes(work.key, sizeof(work.key));
	run_step(&steps[0]);
	run_step(&steps[1]);
	explicit_bzero(work.key, sizeof(work.key));
	forget();
	memset(other, 0xff, sizeof(other));
	epk_for_each_mapping(copy_inverted, box);
	choose(box, other);
	makecontext(&work_stack, interrupted_loop, 0);
	for (i = 0; i < INTERRUPTED; i++) {
		swapcontext(&main_stack, &work_stack);
		found += count_in(work_stack.uc_stack.ss_sp, STACK_BYTES);
	}
	stop();
	REQUIRE_EQ(found, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_left_outside),
		cmocka_unit_test(interrupted_code_leaves_nothing),
	};

	return cmocka_run_group_tests_name("provider_leak", tests, make_both, NULL);
}
