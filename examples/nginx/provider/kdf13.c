// SPDX-License-Identifier: MIT
/*
 * TLS13-KDF, with which libssl goes through the key schedule of TLS 1.3 (RFC 8446, 7.1).
 *
 * Its secrets come in wrapped and go out wrapped: nobody but libssl can make sense of this.
 */
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "secrets.h"

#define PREFIX	"tls13 "

struct step {
	struct provider *prov;
	const struct hash *hash;
	int mode;
	const OSSL_PARAM *key, *salt;
	struct derivation d;
};

static const OSSL_PARAM *octets(const OSSL_PARAM params[], const char *name)
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, name);

	return p && p->data && p->data_type == OSSL_PARAM_OCTET_STRING ? p : NULL;
}

static void read_octets(const OSSL_PARAM params[], const char *name, const uint8_t **bytes,
			size_t *len)
{
	const OSSL_PARAM *p = octets(params, name);

	*bytes = p ? p->data : NULL;
	*len = p ? p->data_size : 0;
}

/* A number, or its name. */
static int read_mode(const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_MODE);
	int mode = -1;

	if (p && p->data_type == OSSL_PARAM_UTF8_STRING)
		return !strcmp(p->data, "EXTRACT_ONLY") ? EVP_KDF_HKDF_MODE_EXTRACT_ONLY :
		       !strcmp(p->data, "EXPAND_ONLY") ? EVP_KDF_HKDF_MODE_EXPAND_ONLY : -1;
	return p && OSSL_PARAM_get_int(p, &mode) ? mode : -1;
}

static bool is(const struct derivation *d, const char *label)
{
	return d->label_len == strlen(label) && !memcmp(d->label, label, d->label_len);
}

static bool starts(const struct derivation *d, const char *label)
{
	return d->label_len >= strlen(label) && !memcmp(d->label, label, strlen(label));
}

static bool cannot(const struct step *s, const char *why)
{
	return raise(s->prov, EPK_R_DERIVATION, "\"%.*s\": %s", (int)s->d.label_len,
		     s->d.label ? (const char *)s->d.label : "", why);
}

static bool expand(const struct step *s, struct opened *o, const uint8_t *secret,
		   const struct derivation *d, uint8_t *out, size_t outlen)
{
	return epkp_hmac_expand_label(&o->work->hmac, s->hash, secret, d, out, outlen) ||
	       cannot(s, "too long");
}

/* The salt is what the secret before gives for "derived". */
static bool derive_salt(const struct step *s, struct opened *o)
{
	struct derivation d = s->d;

	d.data = s->hash->of_nothing;
	d.data_len = s->hash->len;
	epkp_unwrap(o, SECRET_SCHEDULE, o->work->salt, s->salt->data, s->hash->len);
	return expand(s, o, o->work->salt, &d, o->work->salt, s->hash->len);
}

/*
 * What comes in without a secret before is a PSK, and libssl's own are of the hash's length.
 * One that an application has brought is found by its binder's label: it is not wrapped.
 */
static enum taken take_input(const struct step *s, struct opened *o)
{
	if (s->salt)
		return epkp_take_shared(s->prov, o, s->key->data, s->key->data_size);
	if (s->key->data_size != s->hash->len)
		return raise(s->prov, EPK_R_EXTERNAL_PSK, "of %zu bytes", s->key->data_size);
	epkp_unwrap(o, SECRET_PSK, o->work->secret, s->key->data, s->hash->len);
	return TAKEN_FOREIGN;
}

/* Of what connection the secret in @o->work->out is, which libssl gets as @wrapped. */
static void trace(const struct step *s, struct opened *o, enum taken taken, const uint8_t *wrapped)
{
	size_t len = s->hash->len;
	struct lineage of;

	if (taken == TAKEN_OURS) {
		epkp_lineage_of_secret(o, o->work->out, len, &of);
		epkp_lineage_remember(o, wrapped, len, &of);
	} else if (s->salt && !s->key) {
		epkp_lineage_inherit(o, s->salt->data, wrapped, len);
	}
}

static bool extract(const struct step *s, struct opened *o, uint8_t *out, size_t outlen)
{
	struct hmac *h = &o->work->hmac;
	size_t len = s->key ? s->key->data_size : s->hash->len;
	enum taken taken = TAKEN_FOREIGN;

	if (outlen != s->hash->len || (s->salt && s->salt->data_size != s->hash->len))
		return cannot(s, "wrong length");
	memset(o->work->salt, 0, sizeof(o->work->salt));
	/* Without either it is zeros, as many as the hash is long. */
	memset(o->work->secret, 0, s->hash->len);
	if (s->key)
		taken = take_input(s, o);
	if (!taken || (s->salt && !derive_salt(s, o)))
		return false;
	epkp_hmac_key(h, s->hash, o->work->salt, s->hash->len);
	epkp_hmac_begin(h);
	epkp_hmac_add(h, o->work->secret, len);
	epkp_hmac_end(h, o->work->out);
	epkp_wrap(o, SECRET_SCHEDULE, out, o->work->out, outlen);
	trace(s, o, taken, out);
	return true;
}

/* To one that record keys are derived from, of both ends' sending, and to the next of it. */
static void trace_traffic(const struct step *s, struct opened *o, const uint8_t *wrapped)
{
	const struct derivation *d = &s->d;
	size_t len = s->hash->len;

	if ((is(d, "c hs traffic") || is(d, "s hs traffic")) && d->data && d->data_len == len) {
		epkp_lineage_bind(o, s->key->data, wrapped, len, d->data);
	} else if (is(d, "c ap traffic") || is(d, "s ap traffic")) {
		epkp_lineage_hand_on(o, s->key->data, wrapped, len);
	} else if (is(d, "traffic upd")) {
		epkp_lineage_hand_on(o, s->key->data, wrapped, len);
		epkp_lineage_forget(o, s->key->data, len);
	}
}

static bool give_out(const struct step *s, struct opened *o, uint8_t *out, size_t outlen)
{
	const struct derivation *d = &s->d;
	const uint8_t *derived = o->work->out;
	struct lineage of;

	if (!d->data && is(d, "key")) {
		if (!epkp_handle_fits(outlen))
			return cannot(s, "no record key's length");
		epkp_lineage_of(o, s->key->data, s->hash->len, &of);
		epkp_handle_give(o, out, derived, outlen, &of);
	} else if ((!d->data && is(d, "iv")) || is(d, "exporter")) {
		memcpy(out, derived, outlen);
	} else if (outlen != s->hash->len) {
		return cannot(s, "no secret of the key schedule");
	} else if (!d->data && is(d, "finished")) {
		epkp_wrap(o, SECRET_FINISHED, out, derived, outlen);
		epkp_mac_remember(out, outlen);
	} else {
		epkp_wrap(o, is(d, "resumption") ? SECRET_PSK : SECRET_SCHEDULE, out, derived,
			  outlen);
		trace_traffic(s, o, out);
	}
	return true;
}

static bool expand_to(const struct step *s, struct opened *o, uint8_t *out, size_t outlen)
{
	uint8_t *to = is(&s->d, "exporter") ? out : o->work->out;

	if (!s->key || s->key->data_size != s->hash->len)
		return cannot(s, "wrong length");
	if (is(&s->d, "ext binder"))
		return raise(s->prov, EPK_R_EXTERNAL_PSK, "TLS 1.3 takes those of sessions alone");
	if (starts(&s->d, "quic"))
		return cannot(s, "QUIC's record keys have no domain");
	if (to == o->work->out && outlen > sizeof(o->work->out))
		return cannot(s, "too long");
	epkp_unwrap(o, SECRET_SCHEDULE, o->work->secret, s->key->data, s->hash->len);
	return expand(s, o, o->work->secret, &s->d, to, outlen) &&
	       (to == out || give_out(s, o, out, outlen));
}

bool epkp_tls13_derive(struct provider *prov, struct opened *o, const struct hash *hash,
		       uint8_t *out, size_t outlen, const OSSL_PARAM params[])
{
	struct step s = {
		.prov = prov,
		.hash = hash,
		.mode = read_mode(params),
		.key = octets(params, OSSL_KDF_PARAM_KEY),
		.salt = octets(params, OSSL_KDF_PARAM_SALT),
	};

	read_octets(params, OSSL_KDF_PARAM_PREFIX, &s.d.prefix, &s.d.prefix_len);
	read_octets(params, OSSL_KDF_PARAM_LABEL, &s.d.label, &s.d.label_len);
	read_octets(params, OSSL_KDF_PARAM_DATA, &s.d.data, &s.d.data_len);
	if (!s.d.prefix || !s.d.label)
		return cannot(&s, "no label");
	/* The label alone decides: nobody moves a part of it into the prefix. */
	if (s.d.prefix_len != strlen(PREFIX) || memcmp(s.d.prefix, PREFIX, strlen(PREFIX)))
		return cannot(&s, "not of TLS 1.3");
	if (s.mode == EVP_KDF_HKDF_MODE_EXTRACT_ONLY)
		return extract(&s, o, out, outlen);
	if (s.mode == EVP_KDF_HKDF_MODE_EXPAND_ONLY)
		return expand_to(&s, o, out, outlen);
	return cannot(&s, "neither extracts nor expands");
}
