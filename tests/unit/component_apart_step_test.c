// SPDX-License-Identifier: MIT
/* The same between components in two EPTs. */
#define APART
#include "component_step_test.c"
