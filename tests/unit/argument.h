/* SPDX-License-Identifier: MIT */
/* A program's first argument names the backend; without one, EPK_BACKEND does. */
#ifndef EPK_UNIT_ARGUMENT_H
#define EPK_UNIT_ARGUMENT_H

#include <stdlib.h>

static void unit_argument(int argc, char **argv)
{
	if (argc > 1)
		setenv("EPK_BACKEND", argv[1], 1);
}

/* No constructor: with -flto gcc makes one function of several, and that gets no arguments. */
static void (*unit_at_start)(int argc, char **argv)
	__attribute__((section(".init_array"), used)) = unit_argument;

#endif /* EPK_UNIT_ARGUMENT_H */
