// SPDX-License-Identifier: GPL-2.0
/*
 * What all files count in, and their tracepoints.
 */
#include "module.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

struct epk_counters epk_counters;
