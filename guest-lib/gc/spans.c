// SPDX-License-Identifier: MIT
#include "gc.h"

#define MOST	512

static struct gc_span spans[MOST];
static unsigned int nr;

void gc_span_add(uintptr_t start, uintptr_t end)
{
	unsigned int i = 0;

	while (i < nr) {
		if (spans[i].end < start || end < spans[i].start) {
			i++;
			continue;
		}
		start = start < spans[i].start ? start : spans[i].start;
		end = end > spans[i].end ? end : spans[i].end;
		spans[i] = spans[--nr];
		/* It may touch one of before. */
		i = 0;
	}
	if (nr < MOST)
		spans[nr++] = (struct gc_span){ start, end };
}

unsigned int gc_spans(const struct gc_span **list)
{
	*list = spans;
	return nr;
}
