/* SPDX-License-Identifier: MIT */
#ifndef REHEARSAL_H
#define REHEARSAL_H

#include <stdbool.h>

#include <openssl/types.h>

/* NULL, or with which group a handshake does not work. */
const char *rehearse(OSSL_LIB_CTX *libctx, const char *properties);

/* cipher_check_keys.c: if not, an error says why; and with the properties that are set. */
bool keys_go_to_epk(OSSL_LIB_CTX *libctx, const char *properties);
bool keys_stay_with_others(OSSL_LIB_CTX *libctx);

#endif /* REHEARSAL_H */
