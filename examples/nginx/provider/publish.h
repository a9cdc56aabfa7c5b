/* SPDX-License-Identifier: MIT */
#ifndef PUBLISH_H
#define PUBLISH_H

#include <stdbool.h>

#include "published.h"

extern struct published published;

void publish_add(uint64_t *count, int64_t n);
void publish_started(const char *name);
bool publish_exempt(void);
void publish_in_child(bool started);

#endif /* PUBLISH_H */
