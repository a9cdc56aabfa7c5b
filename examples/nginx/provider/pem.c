// SPDX-License-Identifier: MIT
/*
 * PEM, and as much of DER as private keys need (RFC 7468, 5208, 8017, 5915, 8410).
 *
 * OpenSSL's own code for this has a file's text, what it decodes to and the numbers in it on
 * the heap, and leaves them there.
 */
#define _GNU_SOURCE
#include <string.h>

#include <openssl/obj_mac.h>

#include "pem.h"

/* ---- DER */

/* What @from begins with, if it has this tag; @from goes on behind it. */
static bool take(struct part *from, uint8_t tag, struct part *value)
{
	const uint8_t *at = from->at;
	size_t left = from->len, len, octets;

	if (left < 2 || at[0] != tag)
		return false;
	len = at[1];
	at += 2;
	left -= 2;
	if (len & 0x80) {
		octets = len & 0x7f;
		if (octets < 1 || octets > 3 || octets > left)
			return false;
		for (len = 0; octets; octets--, left--)
			len = len << 8 | *at++;
	}
	if (len > left)
		return false;
	*value = (struct part){ at, len };
	*from = (struct part){ at + len, left - len };
	return true;
}

#define INTEGER		0x02
#define OCTETS		0x04
#define OID		0x06
#define SEQUENCE	0x30
#define TAGGED(n)	(0xa0 | (n))

/* Not negative; without zeros in front. */
static bool take_number(struct part *from, struct part *number)
{
	if (!take(from, INTEGER, number) || !number->len || number->at[0] & 0x80)
		return false;
	while (number->len && !number->at[0]) {
		number->at++;
		number->len--;
	}
	return true;
}

static bool take_version(struct part *from, uint8_t highest)
{
	struct part version;

	return take_number(from, &version) &&
	       (!version.len || (version.len == 1 && version.at[0] <= highest));
}

bool epkp_pem_rsa_numbers(struct part key, struct part numbers[NR_RSA_NUMBERS])
{
	struct part in;
	int i;

	/* Version 1 has more than two primes. */
	if (!take(&key, SEQUENCE, &in) || !take_version(&in, 0))
		return false;
	for (i = 0; i < NR_RSA_NUMBERS; i++)
		if (!take_number(&in, &numbers[i]) || !numbers[i].len)
			return false;
	return !in.len;
}

/* ---- what the keys are */

struct oid {
	uint8_t len, bytes[10];
};

static bool is_oid(struct part part, const struct oid *oid)
{
	return part.len == oid->len && !memcmp(part.at, oid->bytes, oid->len);
}

static const struct curve_oid {
	struct oid oid;
	int nid;
	size_t len;
} curves[] = {
	{ { 8, { 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7 } }, NID_X9_62_prime256v1, 32 },
	{ { 5, { 0x2b, 0x81, 0x04, 0, 0x22 } }, NID_secp384r1, 48 },
	{ { 5, { 0x2b, 0x81, 0x04, 0, 0x23 } }, NID_secp521r1, 66 },
};

static enum pem_verdict refuse(struct pem *pem, const char *why)
{
	pem->why = why;
	return PEM_REFUSED;
}

static enum pem_verdict rsa_key(struct part der, struct pem *pem)
{
	struct part numbers[NR_RSA_NUMBERS];

	if (!epkp_pem_rsa_numbers(der, numbers))
		return refuse(pem, "it is no RSA key of two primes");
	pem->type = PEM_RSA;
	pem->secret = der;
	return PEM_KEY;
}

/* @curve: where the algorithm has it, or nothing. */
static enum pem_verdict ec_key(struct part der, struct part curve, struct pem *pem)
{
	const struct curve_oid *known = NULL;
	struct part in, scalar, tagged;
	size_t i;

	if (!take(&der, SEQUENCE, &in) || !take_version(&in, 1) || !take(&in, OCTETS, &scalar))
		return refuse(pem, "it is no EC key");
	if (!curve.len && (!take(&in, TAGGED(0), &tagged) || !take(&tagged, OID, &curve)))
		return refuse(pem, "its curve has no name");
	for (i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (is_oid(curve, &curves[i].oid))
			known = &curves[i];
	if (!known)
		return refuse(pem, "only P-256, P-384 and P-521 of the curves are supported");
	if (!scalar.len || scalar.len > known->len)
		return refuse(pem, "it is no number of its curve");
	pem->type = PEM_EC;
	pem->curve = known->nid;
	pem->secret = scalar;
	return PEM_KEY;
}

static enum pem_verdict ed_key(struct part der, enum pem_type type, size_t len, struct pem *pem)
{
	pem->type = type;
	if (!take(&der, OCTETS, &pem->secret) || pem->secret.len != len)
		return refuse(pem, "it is no EdDSA key");
	return PEM_KEY;
}

static enum pem_verdict pkcs8_key(struct part der, struct pem *pem)
{
	static const struct oid rsa = { 9, { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1 } };
	static const struct oid pss = { 9, { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10 } };
	static const struct oid ec = { 7, { 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1 } };
	static const struct oid dsa = { 7, { 0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1 } };
	static const struct oid ed25519 = { 3, { 0x2b, 0x65, 0x70 } };
	static const struct oid ed448 = { 3, { 0x2b, 0x65, 0x71 } };
	struct part in, algorithm, name, key, curve = { NULL, 0 };

	if (!take(&der, SEQUENCE, &in) || !take_version(&in, 1) ||
	    !take(&in, SEQUENCE, &algorithm) || !take(&algorithm, OID, &name) ||
	    !take(&in, OCTETS, &key))
		return refuse(pem, "it is no PKCS#8 structure");
	if (is_oid(name, &rsa))
		return rsa_key(key, pem);
	if (is_oid(name, &ec) && !take(&algorithm, OID, &curve))
		return refuse(pem, "its curve has no name");
	if (is_oid(name, &ec))
		return ec_key(key, curve, pem);
	if (is_oid(name, &ed25519))
		return ed_key(key, PEM_ED25519, 32, pem);
	if (is_oid(name, &ed448))
		return ed_key(key, PEM_ED448, 57, pem);
	if (is_oid(name, &pss) || is_oid(name, &dsa))
		return refuse(pem, "keys of RSA-PSS alone and of DSA are not supported");
	return PEM_OTHER;
}

/* ---- PEM */

/* Of a character, or -1; in the same time for each. */
static int value_of(int c)
{
	int value = -1;

	value += (((0x40 - c) & (c - 0x5b)) >> 8) & (c - 64);
	value += (((0x60 - c) & (c - 0x7b)) >> 8) & (c - 70);
	value += (((0x2f - c) & (c - 0x3a)) >> 8) & (c + 5);
	value += (((0x2a - c) & (c - 0x2c)) >> 8) & 63;
	value += (((0x2e - c) & (c - 0x30)) >> 8) & 64;
	return value;
}

static bool is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* In place: four characters are three bytes. */
static bool decode(uint8_t *text, size_t len, struct part *out)
{
	size_t i, digits = 0, padding = 0, done = 0;
	uint32_t bits = 0;
	int value;

	for (i = 0; i < len; i++) {
		if (is_space(text[i]))
			continue;
		if (text[i] == '=') {
			padding++;
			continue;
		}
		value = value_of(text[i]);
		if (value < 0 || padding)
			return false;
		bits = bits << 6 | value;
		if (++digits % 4)
			continue;
		text[done++] = bits >> 16;
		text[done++] = bits >> 8;
		text[done++] = bits;
	}
	if (digits % 4 == 3) {
		text[done++] = bits >> 10;
		text[done++] = bits >> 2;
	} else if (digits % 4 == 2) {
		text[done++] = bits >> 4;
	}
	*out = (struct part){ text, done };
	return digits % 4 != 1 && (digits + padding) % 4 == 0 && padding < 3;
}

static const uint8_t *find(const uint8_t *text, size_t len, const char *what)
{
	return memmem(text, len, what, strlen(what));
}

static bool is_label(struct part label, const char *name)
{
	return label.len == strlen(name) && !memcmp(label.at, name, label.len);
}

#define BEGIN	"-----BEGIN "
#define END	"-----END "
#define DASHES	"-----"
#define PRIVATE	"PRIVATE KEY"

static bool begins_with(struct part part, const char *what)
{
	return part.len >= strlen(what) && !memcmp(part.at, what, strlen(what));
}

static bool ends_with(struct part part, const char *what)
{
	size_t len = strlen(what);

	return part.len >= len && !memcmp(part.at + part.len - len, what, len);
}

/*
 * What OpenSSL takes for a line: as much as its buffer holds, and without what it takes for
 * space at the end.  Where this is not exact, there are texts whose key only OpenSSL finds.
 */
static bool take_line(struct part *from, struct part *line)
{
	size_t len = from->len < 254 ? from->len : 254;
	const uint8_t *end;

	if (!len)
		return false;
	end = memchr(from->at, '\n', len);
	if (end)
		len = end + 1 - from->at;
	*line = (struct part){ from->at, len };
	*from = (struct part){ from->at + len, from->len - len };
	while (line->len && (int8_t)line->at[line->len - 1] <= ' ')
		line->len--;
	return true;
}

/* @rest: the text, and then what is behind the line. */
static bool find_begin(struct part *rest, struct part *label)
{
	static const char mark[] = "\xef\xbb\xbf";
	struct part line;

	/* On the first line of each PEM block alone. */
	if (rest->len > strlen(mark) && begins_with(*rest, mark)) {
		rest->at += strlen(mark);
		rest->len -= strlen(mark);
	}
	while (take_line(rest, &line)) {
		if (!begins_with(line, BEGIN) || !ends_with(line, DASHES))
			continue;
		label->at = line.at + strlen(BEGIN);
		label->len = line.len > strlen(BEGIN DASHES) ?
			     line.len - strlen(BEGIN DASHES) : 0;
		return true;
	}
	return false;
}

/* From behind the first line up to the last, behind which @rest is then. */
static bool find_body(struct part *rest, struct part label, struct part *body)
{
	struct part line;

	body->at = rest->at;
	while (take_line(rest, &line)) {
		if (!begins_with(line, END))
			continue;
		body->len = line.at - body->at;
		return line.len == strlen(END) + label.len + strlen(DASHES) &&
		       !memcmp(line.at + strlen(END), label.at, label.len) &&
		       ends_with(line, DASHES);
	}
	return false;
}

bool epkp_pem_is_key(const uint8_t *text, size_t len, size_t *end)
{
	struct part rest = { text, len }, label, body;

	if (!find_begin(&rest, &label) || !ends_with(label, PRIVATE))
		return false;
	*end = find_body(&rest, label, &body) ? (size_t)(rest.at - text) : len;
	return true;
}

bool epkp_pem_is_other(const uint8_t telling[PEM_TELLING])
{
	static const char *const names[] = { "PUBLIC KEY-", "RSA PUBLIC ", "CERTIFICATE",
					     "TRUSTED CER", "DH PARAMETE", "EC PARAMETE" };
	struct part part = { telling, PEM_TELLING };
	size_t i;

	if (!begins_with(part, BEGIN))
		return false;
	part.at += strlen(BEGIN);
	part.len -= strlen(BEGIN);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (begins_with(part, names[i]))
			return true;
	return false;
}

static enum pem_verdict read_pem_block(struct part label, struct part body, struct pem *pem)
{
	struct part der;
	bool is_rsa, is_ec, is_pkcs8;

	if (is_label(label, "ENCRYPTED " PRIVATE) || find(body.at, body.len, "ENCRYPTED"))
		return refuse(pem, "it is encrypted");
	/* What is overwritten then. */
	is_rsa = is_label(label, "RSA " PRIVATE);
	is_ec = is_label(label, "EC " PRIVATE);
	is_pkcs8 = is_label(label, PRIVATE);
	if (is_label(label, "DSA " PRIVATE))
		return refuse(pem, "keys of DSA are not supported");
	if (!is_rsa && !is_ec && !is_pkcs8)
		return refuse(pem, "such keys are not supported");
	if (!decode((uint8_t *)body.at, body.len, &der))
		return refuse(pem, "it is not base64");
	if (is_rsa)
		return rsa_key(der, pem);
	return is_ec ? ec_key(der, (struct part){ NULL, 0 }, pem) : pkcs8_key(der, pem);
}

enum pem_verdict epkp_pem_read(uint8_t *text, size_t len, bool is_all, struct pem *pem)
{
	struct part rest = { text, len }, label, body;
	bool has_key = find(text, len, PRIVATE DASHES), found, whole;

	memset(pem, 0, sizeof(*pem));
	/* Where a line ends then is another matter from memory than from a file. */
	if (has_key && memchr(text, 0, len))
		return refuse(pem, "its text has zeros");
	/* What is before a key OpenSSL would skip, too: parameters, certificates. */
	do {
		found = find_begin(&rest, &label);
		whole = found && find_body(&rest, label, &body);
	} while (whole && !ends_with(label, PRIVATE));
	if (!whole && !is_all)
		return refuse(pem, "there is no whole block of it where its file begins");
	if (!whole && (has_key || (found && ends_with(label, PRIVATE))))
		return refuse(pem, found ? "its end is missing" : "its first line is no such line");
	if (!whole)
		return PEM_OTHER;
	pem->end = rest.at - text;
	return read_pem_block(label, body, pem);
}
