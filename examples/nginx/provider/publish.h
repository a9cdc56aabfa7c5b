/* SPDX-License-Identifier: MIT */
#ifndef PUBLISH_H
#define PUBLISH_H

#include <stdbool.h>

#include "published.h"

extern struct published epkp_published;

void epkp_publish_add(uint64_t *count, int64_t n);
void epkp_publish_started(const char *name);
bool epkp_publish_exempt(void);
void epkp_publish_in_child(bool started);

#endif /* PUBLISH_H */
