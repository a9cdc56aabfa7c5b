/* SPDX-License-Identifier: MIT */
/*
 * Events that a CPU does not count: a tracer, the parent, has its child stop at each instruction
 * and system call that counts, between two marks.
 */
#ifndef BENCH_EVENTS_H
#define BENCH_EVENTS_H

#include "figure.h"

/**
 * bench_traced() - run @body in a child whose events can be counted
 *
 * Return: 0, or what the child ended with.
 */
int bench_traced(void (*body)(void));

/* In such a child, right behind a batch: events of @run(nr) to @run(2 * nr - 1), for each. */
void bench_count(void (*run)(int i), int nr, struct bench_events *events);

#endif /* BENCH_EVENTS_H */
