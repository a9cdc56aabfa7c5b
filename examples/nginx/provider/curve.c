// SPDX-License-Identifier: MIT
/*
 * The arithmetic of key exchanges, in constant time.
 *
 * For the NIST curves it is libcrypto's.  That keeps the scalar on its heap and stack while it
 * computes, and wipes what it has allocated, but for one thing, see flush_heap(); the stack
 * is the caller's to wipe.
 */
#include <string.h>
#include <sys/random.h>

#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>

#include "curve.h"
#include "epk_provider.h"

static bool draw(uint8_t *to, size_t len)
{
	int cancels = epkp_cancel_later();
	bool ok = getrandom(to, len, 0) == (ssize_t)len;

	epkp_cancel_as(cancels);
	return ok;
}

/*
 * libcrypto's code frees a copy of the scalar as it is: of 33 bytes for P-256, and from
 * OpenSSL 3.2 on of 48 for P-384.  The allocator gives it out again among the next that are
 * as long: of glibc's the seven that a thread keeps at hand, and then the last one freed.
 * That holds for as long as nothing else is freed in between.
 */
#define NR_FLUSHED	16

static void flush_chunks(size_t len)
{
	void *chunks[NR_FLUSHED];
	int i;

	for (i = 0; i < NR_FLUSHED; i++) {
		chunks[i] = OPENSSL_malloc(len);
		if (chunks[i])
			OPENSSL_cleanse(chunks[i], len);
	}
	while (i-- > 0)
		OPENSSL_free(chunks[i]);
}

static void flush_heap(void)
{
	flush_chunks(33);
	flush_chunks(48);
}

/* ---- the NIST curves */

/* Made once, and only read. */
static EC_GROUP *p256, *p384;

bool epkp_curves_start(void)
{
	if (!p256)
		p256 = EC_GROUP_new_by_curve_name_ex(epkp_inner_libctx, NULL, NID_X9_62_prime256v1);
	if (!p384)
		p384 = EC_GROUP_new_by_curve_name_ex(epkp_inner_libctx, NULL, NID_secp384r1);
	return p256 && p384;
}

static const EC_GROUP *group_of(const struct curve *c)
{
	return c->nid == NID_secp384r1 ? p384 : p256;
}

/* What a computation needs; all of it is wiped. */
struct numbers {
	const EC_GROUP *group;
	BN_CTX *ctx;
	BIGNUM *scalar, *x;
	EC_POINT *point, *peer;
};

static bool numbers_get(struct numbers *n, const struct curve *c)
{
	n->group = group_of(c);
	n->ctx = BN_CTX_new_ex(epkp_inner_libctx);
	n->scalar = BN_new();
	n->x = BN_new();
	n->point = EC_POINT_new(n->group);
	n->peer = EC_POINT_new(n->group);
	return n->ctx && n->scalar && n->x && n->point && n->peer;
}

static void numbers_put(struct numbers *n)
{
	EC_POINT_clear_free(n->point);
	EC_POINT_free(n->peer);
	BN_clear_free(n->scalar);
	BN_clear_free(n->x);
	BN_CTX_free(n->ctx);
}

/* @peer or, without one, the base point. */
static bool multiply(struct numbers *n, const EC_POINT *peer)
{
	const BIGNUM *of_base = peer ? NULL : n->scalar, *of_peer = peer ? n->scalar : NULL;
	bool ok = EC_POINT_mul(n->group, n->point, of_base, peer, of_peer, n->ctx);

	flush_heap();
	return ok;
}

/* From 1 to the order less 1, each as likely. */
static bool draw_scalar(struct numbers *n, const struct curve *c, uint8_t *private_key)
{
	do {
		if (!draw(private_key, c->private_len) ||
		    !BN_bin2bn(private_key, c->private_len, n->scalar))
			return false;
		BN_set_flags(n->scalar, BN_FLG_CONSTTIME);
	} while (BN_is_zero(n->scalar) || BN_cmp(n->scalar, EC_GROUP_get0_order(n->group)) >= 0);
	return true;
}

static bool multiply_base(const struct curve *c, struct curve_work *w, uint8_t *public_key)
{
	struct numbers n;
	bool ok = numbers_get(&n, c) && draw_scalar(&n, c, w->private_key) &&
		  multiply(&n, NULL) &&
		  EC_POINT_point2oct(n.group, n.point, POINT_CONVERSION_UNCOMPRESSED, public_key,
				     c->public_len, n.ctx) == c->public_len;

	numbers_put(&n);
	return ok;
}

static bool multiply_peer(const struct curve *c, struct curve_work *w, const uint8_t *peer)
{
	struct numbers n;
	bool ok = numbers_get(&n, c) && BN_bin2bn(w->private_key, c->private_len, n.scalar) &&
		  EC_POINT_oct2point(n.group, n.peer, peer, c->public_len, n.ctx);

	if (ok)
		BN_set_flags(n.scalar, BN_FLG_CONSTTIME);
	ok = ok && multiply(&n, n.peer) &&
	     EC_POINT_get_affine_coordinates(n.group, n.point, n.x, NULL, n.ctx) &&
	     BN_bn2binpad(n.x, w->shared, c->private_len) == (int)c->private_len;
	numbers_put(&n);
	return ok;
}

/* ---- */

bool epkp_curve_generate(const struct curve *c, struct curve_work *w, uint8_t *public_key)
{
	static const uint8_t base[X25519_LEN] = { 9 };

	if (c->nid != NID_X25519)
		return multiply_base(c, w, public_key);
	return draw(w->private_key, X25519_LEN) &&
	       epkp_x25519(&w->x25519, public_key, w->private_key, base);
}

/* Of x25519, what agrees on nothing is refused, as RFC 8446, 7.4.2, wants it. */
bool epkp_curve_agree(const struct curve *c, struct curve_work *w, const uint8_t *peer)
{
	return c->nid == NID_X25519 ? epkp_x25519(&w->x25519, w->shared, w->private_key, peer) :
				      multiply_peer(c, w, peer);
}

/* Each 32 bytes are a point of x25519; of the others, TLS has uncompressed ones alone. */
bool epkp_curve_has(const struct curve *c, const uint8_t *public_key)
{
	EC_POINT *point;
	bool has;

	if (c->nid == NID_X25519)
		return true;
	if (public_key[0] != POINT_CONVERSION_UNCOMPRESSED)
		return false;
	point = EC_POINT_new(group_of(c));
	has = point && EC_POINT_oct2point(group_of(c), point, public_key, c->public_len, NULL);
	EC_POINT_free(point);
	return has;
}
