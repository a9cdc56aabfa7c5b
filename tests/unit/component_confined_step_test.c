// SPDX-License-Identifier: MIT
/* The same where one of the components, or both, are confined. */
#define CONFINED
#include "component_step_test.c"
