/* SPDX-License-Identifier: MIT */
#ifndef REHEARSAL_H
#define REHEARSAL_H

#include <openssl/types.h>

/* NULL, or with which group a handshake does not work. */
const char *rehearse(OSSL_LIB_CTX *libctx, const char *properties);

#endif /* REHEARSAL_H */
