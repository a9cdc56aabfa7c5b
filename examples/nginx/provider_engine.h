/* SPDX-License-Identifier: MIT */
#ifndef PROVIDER_ENGINE_H
#define PROVIDER_ENGINE_H

/*
 * An engine that has a cipher of libcrypto's, and so in ordinary memory, as a program may set one.
 * Who includes this has OPENSSL_SUPPRESS_DEPRECATED.
 */
#include <stdbool.h>

#include <openssl/engine.h>

static int engine_nids[1];

static int engine_ciphers(ENGINE *engine, const EVP_CIPHER **cipher, const int **nids, int nid)
{
	(void)engine;
	if (cipher) {
		*cipher = EVP_get_cipherbynid(nid);
		return 1;
	}
	*nids = engine_nids;
	return 1;
}

static int start_engine(ENGINE *engine)
{
	(void)engine;
	return 1;
}

static bool set_engine(const char *id, int nid)
{
	ENGINE *engine = ENGINE_new();

	engine_nids[0] = nid;
	return engine && nid && ENGINE_set_id(engine, id) && ENGINE_set_name(engine, id) &&
	       ENGINE_set_init_function(engine, start_engine) &&
	       ENGINE_set_ciphers(engine, engine_ciphers) && ENGINE_add(engine) &&
	       ENGINE_set_default_ciphers(engine);
}

#endif /* PROVIDER_ENGINE_H */
