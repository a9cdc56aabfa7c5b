/* SPDX-License-Identifier: MIT */
/*
 * SQLite, as Debian has it, on a file system and a page cache that are parts of their own.
 *
 * Each call that SQLite makes of these is one request, which goes to them in one of several ways.  The
 * pages themselves lie in a domain that is open while SQLite works, as it follows pointers into them;
 * what the cache knows of them, and the files, are open to none but their own code.
 */
#ifndef SQLITE_STORAGE_H
#define SQLITE_STORAGE_H

#include <sqlite3.h>

#include "sqlite_parts.h"

#define STORAGE_FRAME	4608	/* a page, and what SQLite keeps beside it */

/* How requests get there. */
enum storage_way {
	STORAGE_CALLS,	/* function calls: nothing is protected */
	STORAGE_HELD,	/* the part's domain is held meanwhile */
	STORAGE_GATES,	/* the parts are components */
	STORAGE_SOCKET,	/* a process has both, behind a Unix socket */
};

/**
 * struct storage_domains - where things lie, unless the way is by function calls or a socket
 * @pages: the pages of the cache
 * @cache: what it knows of them
 * @files: the files
 */
struct storage_domains {
	int pages, cache, files;
};

/* Once, before anything of SQLite's is called; ends the program if it fails. */
void storage_start(enum storage_way way, const struct storage_domains *domains);

/* A process that does what it reads: @serve does not return.  Return: the end of the socket to send to. */
int storage_fork(void (*serve)(int fd));

/* Around all calls of SQLite's. */
void storage_enter(void);
void storage_leave(void);

/* For tests: a request, of whatever sort, to the part that it is for, between these two. */
long storage_send(const struct part_request *request);

/* Likewise: where the pages, the cache's books and the files are; CACHE_SLOTS frames, and bytes. */
char *storage_pages(void);
char *storage_cache(void);
char *storage_files(void);

#endif /* SQLITE_STORAGE_H */
