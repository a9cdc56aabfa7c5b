/* SPDX-License-Identifier: MIT */
#ifndef WHOSE_H
#define WHOSE_H

#include <stdbool.h>

bool is_of_our_libcrypto(const void *code);
bool note_exempt(const char *list);
bool is_exempt(void);

#endif /* WHOSE_H */
