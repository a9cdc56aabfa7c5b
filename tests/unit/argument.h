/* SPDX-License-Identifier: MIT */
/* A program's first argument names the backend; without one, EPK_BACKEND does. */
#ifndef EPK_UNIT_ARGUMENT_H
#define EPK_UNIT_ARGUMENT_H

#include <stdlib.h>

__attribute__((constructor)) static void unit_argument(int argc, char **argv)
{
	if (argc > 1)
		setenv("EPK_BACKEND", argv[1], 1);
}

#endif /* EPK_UNIT_ARGUMENT_H */
