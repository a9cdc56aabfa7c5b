// SPDX-License-Identifier: MIT
/*
 * Any calls in any order: the epk provider answers each as OpenSSL's default provider
 * does, with the same output and the same errors, though its inner contexts see some of
 * them later.
 *
 *	provider_random_test [seed]
 */
#include <time.h>

#include <openssl/core_names.h>

#include "provider_test.h"
#include "provider/epk_provider.h"

#define CALLS		400	/* and up to 45 times that */
#define CONTEXTS	60
#define DATA_MAX	700

OSSL_LIB_CTX *with_epk, *plain;

static uint64_t seed;

static size_t below(size_t limit)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (seed >> 33) % limit;
}

static void fill(uint8_t *bytes, size_t len)
{
	while (len--)
		bytes[len] = below(256);
}

/* One context of each provider, and what is the same for both. */
struct pair {
	EVP_CIPHER *cipher[2];
	EVP_CIPHER_CTX *ctx[2], *copied[46 * CALLS][2];
	size_t nr_copied[2];
	int sealing;
	size_t payload;	/* that the header told of */
	bool told;	/* a header of a record of TLS 1.2 may wait for its record, which is read, at NULL too */
	uint8_t key[64], iv[64], in[DATA_MAX + 64], tag[TAG_LEN];
	uint8_t out[2][DATA_MAX + 128];
	int outl[2];
};

enum call { KEY, IV, KEY_AND_IV, DIRECTION, HEADER, RECORD_HEADER, DATA, PAYLOAD, FINAL, GET_TAG,
	    SET_TAG, SET_WHOLE_TAG, IV_LENGTH, GET_IV_LENGTH, GET_IV, FIXED_IV, NEXT_IV, PEER_IV,
	    RECORD12, RECORD12_HEADER, ONESHOT, COPY, NR_CALLS };

static int param_of(EVP_CIPHER_CTX *ctx, const char *name, void *bytes, size_t len, int get)
{
	OSSL_PARAM params[] = { OSSL_PARAM_construct_octet_string(name, bytes, len),
				OSSL_PARAM_construct_end() };

	return get ? EVP_CIPHER_CTX_get_params(ctx, params) :
		     EVP_CIPHER_CTX_set_params(ctx, params);
}

static int final_and_remember(struct pair *p, int i)
{
	int ret = EVP_CipherFinal_ex(p->ctx[i], p->out[i], &p->outl[i]);

	if (ret > 0 && p->sealing)
		EVP_CIPHER_CTX_ctrl(p->ctx[i], EVP_CTRL_AEAD_GET_TAG, TAG_LEN, p->tag);
	return ret;
}

static int record12_header(struct pair *p, int i, size_t told)
{
	uint8_t header[TLS_AAD_LEN] = { [8] = 23, [9] = 3, [10] = 3, [11] = told >> 8, [12] = told };

	p->told = true;
	return EVP_CIPHER_CTX_ctrl(p->ctx[i], EVP_CTRL_AEAD_TLS1_AAD, sizeof(header), header);
}

static int record12(struct pair *p, int i, size_t len, size_t explicit_iv)
{
	int ret = record12_header(p, i, len + explicit_iv + (p->sealing ? 0 : TAG_LEN));

	if (ret <= 0)
		return ret;
	memcpy(p->out[i], p->in, DATA_MAX);
	return EVP_CipherUpdate(p->ctx[i], p->out[i], &p->outl[i], p->out[i],
				len + explicit_iv + TAG_LEN);
}

/* The original stays, as the default provider's copy may point to it. */
static int copy(struct pair *p, int i)
{
	EVP_CIPHER_CTX *to = EVP_CIPHER_CTX_new();
	int ret = EVP_CIPHER_CTX_copy(to, p->ctx[i]);

	if (ret > 0) {
		p->copied[p->nr_copied[i]++][i] = p->ctx[i];
		p->ctx[i] = to;
	} else {
		EVP_CIPHER_CTX_free(to);
	}
	return ret;
}

static int do_call(struct pair *p, int i, enum call call, size_t n, size_t m)
{
	EVP_CIPHER_CTX *ctx = p->ctx[i];
	bool gcm = EVP_CIPHER_get_mode(p->cipher[i]) == EVP_CIPH_GCM_MODE;
	uint8_t header[5] = { 23, 3, 3, (p->payload + TAG_LEN) >> 8, p->payload + TAG_LEN };

	switch (call) {
	case KEY:
		return EVP_CipherInit_ex(ctx, NULL, NULL, p->key, NULL, p->sealing);
	case IV:
		return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, p->iv, p->sealing);
	case KEY_AND_IV:
		return EVP_CipherInit_ex(ctx, NULL, NULL, p->key, p->iv, p->sealing);
	case DIRECTION:
		return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, NULL, p->sealing);
	case HEADER:
		return EVP_CipherUpdate(ctx, NULL, &p->outl[i], p->in, n % 40);
	case RECORD_HEADER:
		return EVP_CipherUpdate(ctx, NULL, &p->outl[i], header, sizeof(header));
	case DATA:
		return EVP_CipherUpdate(ctx, p->out[i], &p->outl[i], p->in, n);
	case PAYLOAD:
		return EVP_CipherUpdate(ctx, p->out[i], &p->outl[i], p->in, p->payload);
	case FINAL:
		return final_and_remember(p, i);
	case GET_TAG:
		return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, m % 18, p->out[i]);
	case SET_TAG:
		return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, m % 4 ? TAG_LEN : m % 18,
					   m % 7 ? p->tag : NULL);
	case SET_WHOLE_TAG:
		return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, p->tag);
	case IV_LENGTH:
		/* With less than 8, OpenSSL counts up what is before the IV. */
		return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN,
					   m % 3 ? IV_LEN : 8 + n % 10, NULL);
	case GET_IV_LENGTH:
		return EVP_CIPHER_CTX_get_iv_length(ctx);
	case GET_IV:
		return EVP_CIPHER_CTX_get_updated_iv(ctx, p->out[i], 64);
	case FIXED_IV:
		/* All of it: what is left would be drawn at random. */
		return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IV_FIXED, gcm ? -1 : IV_LEN, p->iv);
	case NEXT_IV:
		return param_of(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_GET_IV_GEN, p->out[i], 8, 1);
	case PEER_IV:
		return param_of(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV, p->in, 8, 0);
	case RECORD12:
		return record12(p, i, n, gcm ? 8 : 0);
	case RECORD12_HEADER:
		return record12_header(p, i, n);
	case ONESHOT:
		return EVP_Cipher(ctx, p->out[i], m % 5 || p->told ? p->in : NULL, n);
	case COPY:
		return copy(p, i);
	default:
		return 0;
	}
}

static int compare_call(struct pair *p, enum call call)
{
	bool is_aead = EVP_CIPHER_get_flags(p->cipher[0]) & EVP_CIPH_FLAG_AEAD_CIPHER;
	unsigned long first[2], last[2];
	size_t n = below(4) ? below(DATA_MAX + 1) : below(40), m = below(1000);
	int ret[2], i;

	/* Others read and write at NULL. */
	if (!is_aead && (call == HEADER || call == RECORD_HEADER || call == ONESHOT))
		return 0;
	for (i = 0; i < 2; i++) {
		memset(p->out[i], 0, sizeof(p->out[i]));
		p->outl[i] = 0;
		ERR_clear_error();
		ret[i] = do_call(p, i, call, n, m);
		first[i] = ERR_GET_REASON(ERR_peek_error());
		last[i] = ERR_GET_REASON(ERR_peek_last_error());
	}
	if (ret[0] != ret[1] || first[0] != first[1] || last[0] != last[1] ||
	    (ret[0] > 0 && (p->outl[0] != p->outl[1] ||
			    memcmp(p->out[0], p->out[1], sizeof(p->out[0])))))
		FAIL("%s: call %d (%zu, %zu): %d and %d, %d and %d bytes, errors %lu to %lu "
		     "and %lu to %lu", EVP_CIPHER_get0_name(p->cipher[0]), call, n, m, ret[0],
		     ret[1], p->outl[0], p->outl[1], first[0], last[0], first[1], last[1]);
	return ret[0];
}

/* As libssl does it, more or less. */
static void likely_calls(struct pair *p)
{
	static const enum call likely[] = { IV, RECORD_HEADER, PAYLOAD, FINAL, GET_TAG };
	size_t i;

	p->payload = below(DATA_MAX - 30);
	for (i = 0; i < sizeof(likely) / sizeof(likely[0]); i++) {
		if (i == 1 && !p->sealing)
			compare_call(p, SET_TAG);
		compare_call(p, below(12) ? likely[i] : below(NR_CALLS));
	}
}

static unsigned int nr_opened;

/*
 * What was sealed is opened, one message after the other, as only then it is seen whether the right
 * tag was looked for.
 */
static void seal_and_open(struct pair *p)
{
	static struct message {
		uint8_t iv[sizeof(((struct pair *)0)->iv)], in[DATA_MAX], tag[TAG_LEN];
		size_t payload;
	} messages[4];
	const size_t nr = sizeof(messages) / sizeof(messages[0]);
	struct message *m;

	p->sealing = 1;
	for (m = messages; m < messages + nr; m++) {
		fill(p->iv, sizeof(p->iv));
		p->payload = 1 + below(DATA_MAX - 30);
		compare_call(p, IV);
		compare_call(p, RECORD_HEADER);
		compare_call(p, PAYLOAD);
		memcpy(m->in, p->out[0], p->payload);
		compare_call(p, FINAL);
		memcpy(m->iv, p->iv, sizeof(m->iv));
		memcpy(m->tag, p->tag, sizeof(m->tag));
		m->payload = p->payload;
	}
	p->sealing = 0;
	for (m = messages; m < messages + nr; m++) {
		memcpy(p->iv, m->iv, sizeof(m->iv));
		memcpy(p->tag, m->tag, sizeof(m->tag));
		memcpy(p->in, m->in, m->payload);
		p->payload = m->payload;
		compare_call(p, IV);
		if (!below(3))
			compare_call(p, SET_TAG);
		if (!below(4))
			compare_call(p, below(NR_CALLS));
		/* Wrong where a shorter one would be right. */
		if (!below(6))
			p->tag[TAG_LEN - 1] ^= 1;
		if (below(4))
			compare_call(p, SET_WHOLE_TAG);
		compare_call(p, RECORD_HEADER);
		compare_call(p, PAYLOAD);
		nr_opened += compare_call(p, FINAL) > 0;
	}
}

static void compare_contexts(const char *name)
{
	static struct pair p;
	int i, n;

	memset(&p, 0, sizeof(p));
	p.cipher[0] = fetch(plain, name);
	p.cipher[1] = fetch(with_epk, name);
	p.sealing = below(2);
	fill(p.key, sizeof(p.key));
	fill(p.in, sizeof(p.in));
	fill(p.iv, sizeof(p.iv));
	for (i = 0; i < 2; i++) {
		p.ctx[i] = EVP_CIPHER_CTX_new();
		/* An IV, as one that is missing is drawn at random when sealing. */
		require_ossl(EVP_CipherInit_ex(p.ctx[i], p.cipher[i], NULL, p.key, p.iv,
					       p.sealing));
	}
	for (n = 0; n < CALLS; n++) {
		if (!below(6))
			fill(p.iv, IV_LEN);
		if (!below(40))
			p.sealing ^= 1;
		if (!below(8))
			seal_and_open(&p);
		else if (below(3))
			likely_calls(&p);
		else
			compare_call(&p, below(NR_CALLS));
	}
	for (i = 0; i < 2; i++) {
		while (p.nr_copied[i])
			EVP_CIPHER_CTX_free(p.copied[--p.nr_copied[i]][i]);
		EVP_CIPHER_CTX_free(p.ctx[i]);
		EVP_CIPHER_free(p.cipher[i]);
	}
}

static void answers_equal_default_provider(void **state)
{
	static const char *const names[] = {
		"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305", "ARIA-128-GCM", "AES-128-CCM",
		"AES-256-CBC", "CAMELLIA-128-CBC", "DES-EDE3-CBC",
	};
	size_t i;
	int n;

	(void)state;
	print_message("seed %#lx\n", (unsigned long)seed);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		nr_opened = 0;
		for (n = 0; n < CONTEXTS; n++)
			compare_contexts(names[i]);
		REQUIRE(nr_opened > CONTEXTS || strstr(names[i], "CBC"));
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_equal_default_provider),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
	return cmocka_run_group_tests_name("provider_random", tests, make_both, NULL);
}
