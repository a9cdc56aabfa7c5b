// SPDX-License-Identifier: MIT
/*
 * Whether private keys go where they have to, before a program reads one.
 */
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/provider.h>

#include "key.h"
#include "rehearsal.h"

static bool is_ours(const OSSL_PROVIDER *provider)
{
	return provider && OSSL_PROVIDER_get0_dispatch(provider) == epkp_provider_functions;
}

static bool refuse(const char *what, const char *name)
{
	ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL, what, name);
	return false;
}

/* Those that programs make, and the public halves of certificates, are not for us. */
static bool leaves_keys(OSSL_LIB_CTX *libctx, const char *properties, const char *name)
{
	EVP_KEYMGMT *keymgmt = EVP_KEYMGMT_fetch(libctx, name, properties);
	bool ours = keymgmt && is_ours(EVP_KEYMGMT_get0_provider(keymgmt));

	EVP_KEYMGMT_free(keymgmt);
	return !ours || refuse("all keys of %s would be epk's", name);
}

/*
 * OpenSSL finds what it has looked for in one provider when it looks in all of them, unless it
 * has looked in all of them before.
 */
bool epkp_keys_stay_with_others(OSSL_LIB_CTX *libctx)
{
	size_t i;

	for (i = 0; i < NR_KEYMGMTS; i++)
		if (!leaves_keys(libctx, NULL, epkp_key_names[i]))
			return false;
	return true;
}

/* If others had them, they would sign with keys that are in no domain. */
static bool has_signature(OSSL_LIB_CTX *libctx, const char *properties, const char *name)
{
	EVP_SIGNATURE *signature = EVP_SIGNATURE_fetch(libctx, name, properties);
	bool ours = signature && is_ours(EVP_SIGNATURE_get0_provider(signature));

	EVP_SIGNATURE_free(signature);
	return ours || refuse("signatures of %s do not come from epk", name);
}

static bool has_decryption(OSSL_LIB_CTX *libctx, const char *properties)
{
	EVP_ASYM_CIPHER *cipher = EVP_ASYM_CIPHER_fetch(libctx, "RSA", properties);
	bool ours = cipher && is_ours(EVP_ASYM_CIPHER_get0_provider(cipher));

	EVP_ASYM_CIPHER_free(cipher);
	return ours || refuse("decryption of %s does not come from epk", "RSA");
}

/* A file with a key that is nobody's. */
static BIO *make_file(void)
{
	EVP_PKEY *pkey = EVP_PKEY_Q_keygen(epkp_inner_libctx, NULL, "EC", "P-256");
	BIO *bio = BIO_new(BIO_s_mem());
	bool ok = pkey && bio && PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL);

	EVP_PKEY_free(pkey);
	if (ok)
		return bio;
	BIO_free(bio);
	return NULL;
}

static bool signs(OSSL_LIB_CTX *libctx, const char *properties, EVP_PKEY *pkey)
{
	EVP_MD_CTX *sign = EVP_MD_CTX_new(), *check = EVP_MD_CTX_new();
	static const uint8_t message[] = "a transcript's";
	uint8_t signature[128];
	size_t len = sizeof(signature);
	bool ok = sign && check &&
		  EVP_DigestSignInit_ex(sign, NULL, "SHA256", libctx, properties, pkey, NULL) > 0 &&
		  EVP_DigestSign(sign, signature, &len, message, sizeof(message)) > 0 &&
		  EVP_DigestVerifyInit_ex(check, NULL, "SHA256", libctx, properties, pkey,
					  NULL) > 0 &&
		  EVP_DigestVerify(check, signature, len, message, sizeof(message)) > 0;

	EVP_MD_CTX_free(sign);
	EVP_MD_CTX_free(check);
	return ok;
}

static bool reads_and_signs(OSSL_LIB_CTX *libctx, const char *properties)
{
	BIO *bio = make_file();
	EVP_PKEY *pkey = bio ? PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, libctx,
							  properties) : NULL;
	bool ours = pkey && is_ours(EVP_PKEY_get0_provider(pkey));
	bool ok = ours && signs(libctx, properties, pkey);

	EVP_PKEY_free(pkey);
	BIO_free(bio);
	return ok || refuse(ours ? "the key of a %s file does not sign" :
			    "the key of a %s file does not go to a domain", "PEM");
}

bool epkp_keys_go_to_epk(OSSL_LIB_CTX *libctx, const char *properties)
{
	static const char *const signatures[] = { "RSA", "ECDSA", "ED25519", "ED448", "DSA" };
	size_t i;

	for (i = 0; i < NR_KEYMGMTS; i++)
		if (!leaves_keys(libctx, properties, epkp_key_names[i]))
			return false;
	for (i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++)
		if (!has_signature(libctx, properties, signatures[i]))
			return false;
	return has_decryption(libctx, properties) && reads_and_signs(libctx, properties);
}
