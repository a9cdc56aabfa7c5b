/* SPDX-License-Identifier: MIT */
/* What epk-check and epk-host share: a line for each fact, for people and for programs. */
#ifndef EPK_FACTS_H
#define EPK_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* MISSING: something does not work without.  LESS: it works, with less than there could be. */
enum state { OK, LESS, MISSING, NR_STATES };

/* As JSON; only what is MISSING, to standard error; something was MISSING. */
extern bool facts_json, facts_quiet, facts_missing;

/* @advice, what to do about it, may be NULL. */
void __attribute__((format(printf, 4, 5)))
say(enum state state, const char *fact, const char *advice, const char *format, ...);

/*
 * Text of anybody's: as a JSON string, all ASCII; and as a terminal takes it without harm, all
 * that is not printable ASCII as \xNN.  The latter returns how many columns it has printed.
 */
void put_json(const char *text);
int put_text(FILE *to, const char *text);

/* Is it of a Linux that there are a module and a KVM series for? */
bool kernel_is_known(const char *release);

/* To read.  What is no file, such as a pipe that nobody writes to, does not keep us. */
FILE *open_file(const char *path);

/* The first line of a file, or as much of it as fits; false if there is none. */
bool line_of(const char *path, char *line, size_t size);

/* The flags of a CPU take 2 KiB; of what is longer there is no part of a word. */
#define MAX_LINE	16384

/* The value of a line of a file in the manner of /proc/cpuinfo: the first of that name. */
bool value_of(const char *path, const char *name, char *value, size_t size);

/* Is a word among them? */
bool has_word(const char *words, const char *word);

#endif
