/* SPDX-License-Identifier: MIT */
/* What other systems' evaluations do with domains, in terms of one set of calls for all means. */
#ifndef PEERS_H
#define PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

#define RW		(PROT_READ | PROT_WRITE)
#define PEERS_PAGE	4096

/* Pages that are opened and closed together: the library's domain, libmpk's group, or ordinary memory. */
struct peers_group {
	int id;
	char *mem;
	size_t len;
};

/* Groups in the order in which they were made; one that is made can be reached until it is closed. */
#define MOST_GROUPS	1100
extern struct peers_group peers_groups[MOST_GROUPS];
extern int peers_nr;

/* By which means: "no protection", "libmpk", or a backend; before any is chosen a key is made for all. */
extern const char *peers_how;
extern bool peers_bare, peers_libmpk;
void peers_choose(const char *how);

/* Ends the program if it fails; false if the backend has no place for so many. */
bool peers_make(size_t len);

/* The same for what is open beside each of many others. */
bool peers_make_everywhere(size_t len);

void peers_open(int group, int prot);
void peers_close(int group);

/* A failure that is nobody's measure. */
void peers_need(bool well, const char *what);

/* Patterns.  Each is made for so many groups once, and then for more. */

/* VDom: each private key of OpenSSL's in a domain; @bytes of a file after each handshake, or 0: a signature alone. */
void keys_init(void);
bool keys_make(int nr);
void keys_sign(int i);
void keys_serve(int i);
extern long keys_bytes;

/* VDom: a database in one domain, the stack of each thread that serves a client in another. */
bool sql_make(int threads);
void sql_transaction(int i);

/* VDom: strings in persistent objects; looked for and replaced. */
bool objects_make(int nr);
void objects_replace(int i);

/* libmpk: code that a compiler writes, each page by itself. */
bool code_make(int nr);
void code_write(int i);

#endif /* PEERS_H */
