/* SPDX-License-Identifier: MIT */
#ifndef SESSIONS_H
#define SESSIONS_H

#include <stdbool.h>

#include <openssl/types.h>

bool epkp_sessions_watch(OSSL_LIB_CTX *libctx, const char *properties, bool allow_unserved);
void epkp_sessions_forget(const void *provctx);

#endif /* SESSIONS_H */
