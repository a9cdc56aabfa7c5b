/* SPDX-License-Identifier: MIT */
#ifndef REHEARSAL_H
#define REHEARSAL_H

#include <stdbool.h>

#include <openssl/types.h>

/* NULL, or with which group a handshake does not work. */
const char *epkp_rehearse(OSSL_LIB_CTX *libctx, const char *properties);

/* cipher_check_keys.c: if not, an error says why; and with the properties that are set. */
bool epkp_keys_go_to_epk(OSSL_LIB_CTX *libctx, const char *properties);
bool epkp_keys_stay_with_others(OSSL_LIB_CTX *libctx);

#endif /* REHEARSAL_H */
