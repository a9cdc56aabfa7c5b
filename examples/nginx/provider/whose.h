/* SPDX-License-Identifier: MIT */
#ifndef WHOSE_H
#define WHOSE_H

#include <stdbool.h>

bool epkp_is_of_our_libcrypto(const void *code);
bool epkp_note_exempt(const char *list);
bool epkp_is_exempt(void);

#endif /* WHOSE_H */
