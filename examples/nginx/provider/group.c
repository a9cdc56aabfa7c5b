// SPDX-License-Identifier: MIT
/*
 * The provider's own TLS groups.
 *
 * libssl asks each provider for its groups, takes of those with one number the first, and
 * fetches the algorithms by the names that the provider tells.  These names are nobody
 * else's: so the keys are libssl's alone, and an application's own X25519 and EC keys stay
 * with the default provider.  Private keys are wrapped, and unwrapped in a box; what is
 * agreed on becomes a handle, for the KDFs.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/obj_mac.h>
#include <openssl/params.h>
#include <openssl/prov_ssl.h>

#include "curve.h"
#include "key.h"
#include "secrets.h"

/* Twice what libcrypto's arithmetic was seen to use, with its generator's start. */
#define STACK_BYTES	8192

struct group {
	struct curve curve;
	const char *algorithm;
	const char *tls_names[2];
	unsigned int id;
	int bits, security_bits;
};

static const struct group groups[NR_GROUPS] = {
	{
		.curve = { "X25519", NID_X25519, 32, 32 },
		.algorithm = "EPK-X25519",
		.tls_names = { "x25519" },
		.id = 0x1d,
		.bits = 253,
		.security_bits = 128,
	}, {
		.curve = { "prime256v1", NID_X9_62_prime256v1, 65, 32 },
		.algorithm = "EPK-P256",
		.tls_names = { "secp256r1", "P-256" },
		.id = 0x17,
		.bits = 256,
		.security_bits = 128,
	}, {
		.curve = { "secp384r1", NID_secp384r1, 97, 48 },
		.algorithm = "EPK-P384",
		.tls_names = { "secp384r1", "P-384" },
		.id = 0x18,
		.bits = 384,
		.security_bits = 192,
	},
};

const char *epkp_group_algorithm(size_t i)
{
	return groups[i].algorithm;
}

/* Of a private key, and of what is agreed on. */
size_t epkp_group_secret_len(size_t i)
{
	return groups[i].curve.private_len;
}

/* A key, or half of one.  Nothing in it is secret. */
struct group_key {
	struct provider *prov;
	const struct group *group;
	bool has_public, has_private;
	uint8_t public_key[PUBLIC_MAX];
	uint8_t wrapped[PRIVATE_MAX];
};

/* ---- computations in a box */

/* What is done in an open box: a private key is generated, or two agree. */
struct task {
	const struct group_key *key;
	struct group_key *generated;
	const uint8_t *peer;
	uint8_t *handle;
};

static void take_private(struct opened *o, struct curve_work *w, const struct task *t)
{
	epkp_unwrap(o, SECRET_PRIVATE, w->private_key, t->key->wrapped,
		    t->key->group->curve.private_len);
}

static bool compute(struct provider *prov, struct curve_work *w, const struct task *t)
{
	const struct group *g = (t->generated ? t->generated : t->key)->group;

	if (t->generated)
		return epkp_curve_generate(&g->curve, w, t->generated->public_key) ||
		       raise(prov, EPK_R_RANDOM, "%s", g->algorithm);
	return epkp_curve_agree(&g->curve, w, t->peer) ||
	       raise(prov, EPK_R_PUBLIC_KEY, "%s agrees on nothing", g->algorithm);
}

static void give(struct opened *o, struct curve_work *w, const struct task *t)
{
	if (t->generated)
		epkp_wrap(o, SECRET_PRIVATE, t->generated->wrapped, w->private_key,
			  t->generated->group->curve.private_len);
	else
		epkp_handle_give(o, t->handle, w->shared, t->key->group->curve.private_len, NULL);
}

/* What opens a box and what closes it, of one frame: see epkp_scrub(). */
#define INLINED	static inline __attribute__((always_inline))

/* The box, opened, and a slot of the vault for what is to come. */
struct opened_box {
	struct box *box;
	char *low;
	struct opened o;
};

INLINED bool open_box(struct provider *prov, struct opened_box *b)
{
	if (!epkp_box_open(prov, b->box))
		return false;
	b->low = epkp_watch(STACK_BYTES);
	return true;
}

INLINED bool close_box(struct provider *prov, struct opened_box *b)
{
	epkp_scrub(b->low);
	return epkp_box_close(prov, b->box);
}

static bool in_vault(struct provider *prov, struct opened_box *b, const struct task *t,
		     void (*fn)(struct opened *, struct curve_work *, const struct task *))
{
	if (!epkp_vault_enter(prov, &b->o, b->low))
		return false;
	fn(&b->o, (struct curve_work *)b->box->mem, t);
	return epkp_vault_close(prov, &b->o);
}

/* A slot there; with an error the box is closed. */
INLINED bool wait_for_vault(struct provider *prov, struct opened_box *b)
{
	if (epkp_vault_try_reserve(&b->o))
		return true;
	if (!close_box(prov, b))
		return false;
	epkp_vault_reserve(&b->o);
	if (open_box(prov, b))
		return true;
	epkp_vault_leave(&b->o);
	return false;
}

/* Nobody waits while the box is open: not for the vault, nor to tell of an error. */
static bool go_through(struct provider *prov, struct opened_box *b, const struct task *t)
{
	struct curve_work *w = (struct curve_work *)b->box->mem;
	bool ok;

	if (!t->generated)
		epkp_vault_reserve(&b->o);
	if (!open_box(prov, b)) {
		if (!t->generated)
			epkp_vault_leave(&b->o);
		return false;
	}
	ok = (t->generated || in_vault(prov, b, t, take_private)) && compute(prov, w, t);
	if (ok && !wait_for_vault(prov, b))
		return false;
	ok = ok && in_vault(prov, b, t, give);
	return close_box(prov, b) && ok;
}

static bool in_box(struct provider *prov, const struct task *t)
{
	struct opened_box b = { .box = epkp_stack_suffices(prov, STACK_BYTES) ? epkp_box_get(prov) : NULL };
	bool ok;

	if (!b.box)
		return false;
	epkp_errors_hold_back();
	ok = go_through(prov, &b, t);
	epkp_errors_tell(prov);
	epkp_box_put(prov, b.box, 0, sizeof(struct curve_work));
	return ok;
}

/* ---- keys */

static void *key_new(void *prov, const struct group *group)
{
	struct group_key *key = calloc(1, sizeof(*key));

	if (!key) {
		raise((struct provider *)prov, EPK_R_MEMORY, "%zu bytes", sizeof(*key));
		return NULL;
	}
	key->prov = prov;
	key->group = group;
	return key;
}

static void key_free(void *key)
{
	free(key);
}

static int key_has(const void *vkey, int selection)
{
	const struct group_key *key = vkey;

	return key && (!(selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) || key->has_public) &&
	       (!(selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) || key->has_private);
}

/* By the public half. */
static int key_match(const void *va, const void *vb, int selection)
{
	const struct group_key *a = va, *b = vb;

	if (a->group != b->group)
		return 0;
	return !(selection & OSSL_KEYMGMT_SELECT_KEYPAIR) ||
	       (a->has_public && b->has_public &&
		!memcmp(a->public_key, b->public_key, a->group->curve.public_len));
}

static bool set_int(OSSL_PARAM params[], const char *name, int value)
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, name);

	return !p || OSSL_PARAM_set_int(p, value);
}

static int key_get(void *vkey, OSSL_PARAM params[])
{
	const struct group_key *key = vkey;
	const struct group *g = key->group;
	OSSL_PARAM *name = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_GROUP_NAME);
	OSSL_PARAM *point = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY);

	return set_int(params, OSSL_PKEY_PARAM_BITS, g->bits) &&
	       set_int(params, OSSL_PKEY_PARAM_SECURITY_BITS, g->security_bits) &&
	       set_int(params, OSSL_PKEY_PARAM_MAX_SIZE, g->curve.private_len) &&
	       (!name || OSSL_PARAM_set_utf8_string(name, g->curve.name)) &&
	       (!point || (key->has_public &&
			   OSSL_PARAM_set_octet_string(point, key->public_key,
						       g->curve.public_len)));
}

static const OSSL_PARAM *key_gettable(void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
		OSSL_PARAM_END
	};

	(void)prov;
	return known;
}

/* The peer's half, as it came. */
static int key_set(void *vkey, const OSSL_PARAM params[])
{
	struct group_key *key = vkey;
	const struct curve *c = &key->group->curve;
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY);

	if (!p)
		return 1;
	key->has_private = key->has_public = false;
	if (!p->data || p->data_type != OSSL_PARAM_OCTET_STRING ||
	    p->data_size != c->public_len || !epkp_curve_has(c, p->data))
		return raise(key->prov, EPK_R_PUBLIC_KEY, "no point of %s", key->group->algorithm);
	memcpy(key->public_key, p->data, c->public_len);
	key->has_public = true;
	return 1;
}

static const OSSL_PARAM *key_settable(void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
		OSSL_PARAM_END
	};

	(void)prov;
	return known;
}

static void *key_dup(const void *vkey, int selection)
{
	const struct group_key *key = vkey;
	struct group_key *copy = key_new(key->prov, key->group);

	if (!copy)
		return NULL;
	if ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) && key->has_public) {
		memcpy(copy->public_key, key->public_key, sizeof(key->public_key));
		copy->has_public = true;
	}
	if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) && key->has_private) {
		memcpy(copy->wrapped, key->wrapped, sizeof(key->wrapped));
		copy->has_private = true;
	}
	return copy;
}

/* ---- generation; of parameters too, which are the group and nothing else */

struct generation {
	struct provider *prov;
	const struct group *group;
	int selection;
};

static void *gen_init(void *prov, const struct group *group, int selection)
{
	struct generation *gen = calloc(1, sizeof(*gen));

	if (gen)
		*gen = (struct generation){ .prov = prov, .group = group, .selection = selection };
	return gen;
}

static int gen_set(void *vgen, const OSSL_PARAM params[])
{
	const struct generation *gen = vgen;
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_GROUP_NAME);

	return !p || (p->data_type == OSSL_PARAM_UTF8_STRING &&
		      !strcasecmp(p->data, gen->group->curve.name));
}

static const OSSL_PARAM *gen_settable(void *gen, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_END
	};

	(void)gen;
	(void)prov;
	return known;
}

static void *gen_run(void *vgen, OSSL_CALLBACK *cb, void *arg)
{
	const struct generation *gen = vgen;
	struct group_key *key = key_new(gen->prov, gen->group);
	struct task task = { .generated = key };

	(void)cb;
	(void)arg;
	if (!key || !(gen->selection & OSSL_KEYMGMT_SELECT_KEYPAIR))
		return key;
	if (!in_box(gen->prov, &task)) {
		free(key);
		return NULL;
	}
	key->has_public = key->has_private = true;
	return key;
}

static void gen_cleanup(void *gen)
{
	free(gen);
}

/* ---- exchanges */

/* Copies of the keys, which may be gone before. */
struct exchange {
	struct provider *prov;
	struct group_key mine, theirs;
};

static void *exchange_new(void *prov)
{
	struct exchange *ex = calloc(1, sizeof(*ex));

	if (ex)
		ex->prov = prov;
	return ex;
}

static void exchange_free(void *ex)
{
	free(ex);
}

static void *exchange_dup(void *vex)
{
	struct exchange *copy = exchange_new(NULL);

	if (copy)
		*copy = *(struct exchange *)vex;
	return copy;
}

static int exchange_init(void *vex, void *vkey, const OSSL_PARAM params[])
{
	struct exchange *ex = vex;
	struct group_key *key = vkey;

	(void)params;
	ex->mine = *key;
	return key->has_private;
}

static int exchange_peer(void *vex, void *vkey)
{
	struct exchange *ex = vex;
	struct group_key *key = vkey;

	ex->theirs = *key;
	return key->has_public && key->group == ex->mine.group;
}

static int exchange_derive(void *vex, unsigned char *out, size_t *len, size_t size)
{
	struct exchange *ex = vex;
	struct task task = { .key = &ex->mine, .peer = ex->theirs.public_key, .handle = out };

	if (!ex->mine.has_private || !ex->theirs.has_public || ex->mine.group != ex->theirs.group)
		return raise(ex->prov, EPK_R_PUBLIC_KEY, "there is none");
	*len = ex->mine.group->curve.private_len;
	return !out || (size >= *len && in_box(ex->prov, &task));
}

/* ---- what OpenSSL is told */

#define KM(id, f)	{ OSSL_FUNC_KEYMGMT_##id, (void (*)(void))(f) }
#define KX(id, f)	{ OSSL_FUNC_KEYEXCH_##id, (void (*)(void))(f) }

/* OpenSSL tells a function of an algorithm not which it is. */
#define GROUP(i)									\
	static void *new_##i(void *prov)						\
	{										\
		return key_new(prov, &groups[i]);					\
	}										\
	static void *gen_init_##i(void *prov, int selection, const OSSL_PARAM params[])	\
	{										\
		(void)params;								\
		return gen_init(prov, &groups[i], selection);				\
	}										\
	static const char *name_##i(int operation)					\
	{										\
		(void)operation;							\
		return groups[i].algorithm;						\
	}

#define FUNCTIONS(i)									\
	{										\
		KM(NEW, new_##i),							\
		KM(FREE, key_free),							\
		KM(GEN_INIT, gen_init_##i),						\
		KM(GEN_SET_PARAMS, gen_set),						\
		KM(GEN_SETTABLE_PARAMS, gen_settable),					\
		KM(GEN, gen_run),							\
		KM(GEN_CLEANUP, gen_cleanup),						\
		KM(HAS, key_has),							\
		KM(MATCH, key_match),							\
		KM(GET_PARAMS, key_get),						\
		KM(GETTABLE_PARAMS, key_gettable),					\
		KM(SET_PARAMS, key_set),						\
		KM(SETTABLE_PARAMS, key_settable),					\
		KM(DUP, key_dup),							\
		KM(QUERY_OPERATION_NAME, name_##i),					\
		{ 0, NULL }								\
	}

GROUP(0) GROUP(1) GROUP(2)

const OSSL_DISPATCH epkp_group_keymgmt_functions[NR_GROUPS][16] = {
	FUNCTIONS(0), FUNCTIONS(1), FUNCTIONS(2),
};

const OSSL_DISPATCH epkp_group_keyexch_functions[] = {
	KX(NEWCTX, exchange_new),
	KX(INIT, exchange_init),
	KX(SET_PEER, exchange_peer),
	KX(DERIVE, exchange_derive),
	KX(FREECTX, exchange_free),
	KX(DUPCTX, exchange_dup),
	{ 0, NULL }
};

static int offer(const struct group *g, const char *name, OSSL_CALLBACK *cb, void *arg)
{
	unsigned int id = g->id, security_bits = g->security_bits, is_kem = 0;
	/* The PRF of earlier versions is not the provider's. */
	int min_tls = TLS1_2_VERSION, min_dtls = DTLS1_2_VERSION, no_max = 0;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_CAPABILITY_TLS_GROUP_NAME, (char *)name, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_CAPABILITY_TLS_GROUP_NAME_INTERNAL,
						 (char *)g->curve.name, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_CAPABILITY_TLS_GROUP_ALG,
						 (char *)g->algorithm, 0),
		OSSL_PARAM_construct_uint(OSSL_CAPABILITY_TLS_GROUP_ID, &id),
		OSSL_PARAM_construct_uint(OSSL_CAPABILITY_TLS_GROUP_SECURITY_BITS, &security_bits),
		OSSL_PARAM_construct_uint(OSSL_CAPABILITY_TLS_GROUP_IS_KEM, &is_kem),
		OSSL_PARAM_construct_int(OSSL_CAPABILITY_TLS_GROUP_MIN_TLS, &min_tls),
		OSSL_PARAM_construct_int(OSSL_CAPABILITY_TLS_GROUP_MAX_TLS, &no_max),
		OSSL_PARAM_construct_int(OSSL_CAPABILITY_TLS_GROUP_MIN_DTLS, &min_dtls),
		OSSL_PARAM_construct_int(OSSL_CAPABILITY_TLS_GROUP_MAX_DTLS, &no_max),
		OSSL_PARAM_construct_end()
	};

	return cb(params, arg);
}

int epkp_group_capabilities(void *vprov, const char *capability, OSSL_CALLBACK *cb, void *arg)
{
	const struct provider *prov = vprov;
	size_t i, n;

	if (strcmp(capability, "TLS-GROUP"))
		return 1;
	if (cb != epkp_cipher_check_sees_group)
		epkp_libssl_is_there();
	if (!prov->wraps)
		return 1;
	for (i = 0; i < NR_GROUPS; i++)
		for (n = 0; n < 2 && groups[i].tls_names[n]; n++)
			if (!offer(&groups[i], groups[i].tls_names[n], cb, arg))
				return 0;
	return 1;
}
