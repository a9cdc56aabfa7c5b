// SPDX-License-Identifier: MIT
/*
 * Two small programs: VDom's string replacement in persistent memory objects, of which each is in a
 * domain, opened to be read while a string is looked for and to be written while it is replaced;
 * and libmpk's just-in-time compiler, which opens a page of code to write to it.  The library's
 * domains are not executable, so that here the code is not run.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>

#include "peers.h"

#define STEP		17
#define OBJECT_BYTES	(2l << 20)
#define STRING_BYTES	512
#define WORD_BYTES	8

static int nr_objects;
static const char word[WORD_BYTES + 1] = "seekfind", other[WORD_BYTES + 1] = "findseek";

/* Each string has the word in its middle, once. */
static void fill(char *mem)
{
	char string[STRING_BYTES];
	long at;

	for (at = 0; at < STRING_BYTES; at++)
		string[at] = 'a' + at % 17;
	memcpy(string + STRING_BYTES / 2, word, WORD_BYTES);
	for (at = 0; at < OBJECT_BYTES; at += STRING_BYTES)
		memcpy(mem + at, string, STRING_BYTES);
}

bool objects_make(int nr)
{
	for (; nr_objects < nr; nr_objects++) {
		if (!peers_make(OBJECT_BYTES))
			return false;
		fill(peers_groups[peers_nr - 1].mem);
		peers_close(peers_nr - 1);
	}
	return true;
}

/* All of a string is looked through; a word that is replaced is found again as the other. */
void objects_replace(int i)
{
	int object = (long)i * STEP % nr_objects;
	char *string = peers_groups[object].mem +
		       (uint64_t)i * 2654435761u % (OBJECT_BYTES / STRING_BYTES) * STRING_BYTES;
	int at;

	peers_open(object, PROT_READ);
	for (at = 0; at <= STRING_BYTES - WORD_BYTES; at++) {
		if (memcmp(string + at, word, WORD_BYTES) && memcmp(string + at, other, WORD_BYTES))
			continue;
		peers_close(object);
		peers_open(object, RW);
		memcpy(string + at, string[at] == *word ? other : word, WORD_BYTES);
		peers_close(object);
		peers_open(object, PROT_READ);
		at += WORD_BYTES - 1;
	}
	peers_close(object);
}

/* What is written at a time: a function, then the addresses in it. */
#define FUNCTION_BYTES	1024
#define ADDRESSES	32

static int nr_pages;

bool code_make(int nr)
{
	for (; nr_pages < nr; nr_pages++) {
		if (!peers_make(PEERS_PAGE))
			return false;
		peers_close(peers_nr - 1);
	}
	return true;
}

void code_write(int i)
{
	static const char function[FUNCTION_BYTES];
	int page = (long)i * STEP % nr_pages, at;
	char *code = peers_groups[page].mem + i % 4 * FUNCTION_BYTES;
	uint64_t address;

	peers_open(page, RW);
	memcpy(code, function, FUNCTION_BYTES);
	for (at = 0; at < ADDRESSES; at++) {
		address = (uintptr_t)code + i * 16 + at;
		memcpy(code + at * (FUNCTION_BYTES / ADDRESSES), &address, sizeof(address));
	}
	peers_close(page);
}
