/* SPDX-License-Identifier: MIT */
/*
 * What the provider publishes of a process for epk-tls-check, which finds it by @magic in
 * the written data of epk.so and reads it from outside.  Numbers and names, nothing secret,
 * and nothing that the provider itself goes by.
 */
#ifndef PUBLISHED_H
#define PUBLISHED_H

#include <stdint.h>

#define PUBLISHED_MAGIC		"epk.so publishes"	/* 16 bytes, without the zero */
#define PUBLISHED_VERSION	1

/* Of libssl's objects: with the provider's ciphers, and without. */
enum { SERVED, UNSERVED };

/**
 * struct published - of one process
 * @self: its own address, which a copy of it has not
 * @pid: whose it is: a forked child's is its own as soon as it runs
 * @started: the library works, in this process
 * @checked: library contexts that the cipher check has let through: 1, the default one; 2, others
 * @secrets: they are wrapped
 * @key_lost: a fork did not hand on the key that wraps secrets
 * @any_key_exchange: those that are not in domains are taken
 * @watched: libssl's objects are counted below
 * @unserved_allowed: what is not served is let through all the same
 * @exempt: the configuration makes this program an exception
 * @contexts: live cipher contexts with a key, each in a domain
 * @records: of these, with a key of a record layer from the vault
 * @cbc_contexts: of these, of CBC suites, whose MAC keys libssl has
 * @no_domain: contexts that got no domain, ever; their handshakes failed
 * @ssl_contexts: live SSL_CTX
 * @sessions: live SSL
 * @refused: SSL without the provider, ever; unless allowed they can negotiate nothing
 */
struct published {
	char magic[16];
	uint64_t self;
	uint32_t version;
	uint32_t pid;
	char backend[16];
	uint32_t started;
	uint32_t checked;
	uint32_t secrets;
	uint32_t key_lost;
	uint32_t any_key_exchange;
	uint32_t watched;
	uint32_t unserved_allowed;
	uint32_t exempt;
	uint64_t contexts;
	uint64_t records;
	uint64_t cbc_contexts;
	uint64_t no_domain;
	uint64_t ssl_contexts[2];
	uint64_t sessions[2];
	uint64_t refused;
};

#endif /* PUBLISHED_H */
