// SPDX-License-Identifier: MIT
/*
 * What a libvirt domain's XML says of EPK: that the guest uses it, and its geometry.
 *
 * It may come from another host, with what an operator or a program there has written among its
 * metadata, so it is anything.  Expat reads it, in a process of its own with little memory and
 * little time; no document type, and so no entity, is taken.  Expat's own namespaces cost time and
 * memory for each attribute by the length of what its prefix stands for, so they are resolved here,
 * for the few names that are asked for.
 *
 * XML that cannot be read to its end is of a guest that uses EPK if its bytes have the namespace:
 * so nothing that is ours gets through, and no other domain is hindered.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <expat.h>

#include <asm/kvm_epk.h>

#include "host.h"

/* libvirt takes no longer strings than 4 MiB from its clients. */
#define MAX_BYTES	(16u << 20)
/* libxml2, which libvirt has, takes half of that. */
#define MAX_DEPTH	512
#define MAX_MEMORY	(256ul << 20)
#define MAX_SECONDS	5
/* What is asked for is third, within the domain and its metadata or cpu: these bind prefixes, too. */
#define OUTER		2
#define MAX_PREFIXES	64
#define MAX_PREFIX	64

enum space { NONE, OURS, ANOTHER, UNBOUND };

struct scope {
	unsigned int count;
	struct {
		char prefix[MAX_PREFIX];
		enum space space;
	} bound[MAX_PREFIXES];
};

/* Shared by the process that reads and the one that waits. */
struct result {
	struct domain domain;
	const char *wrong;
};

struct reader {
	XML_Parser parser;
	struct result *result;
	unsigned int depth;
	enum { ELSEWHERE, IN_METADATA, IN_CPU } where;
	struct scope scopes[OUTER];
	const char *wrong;
};

static char text[MAX_BYTES + 1];

static void refuse(struct reader *r, const char *wrong)
{
	if (!r->wrong)
		r->wrong = wrong;
	XML_StopParser(r->parser, XML_FALSE);
}

/* The prefix that an attribute binds, "" for none at all; NULL if it binds nothing. */
static const char *prefix_of(const char *attribute)
{
	if (strncmp(attribute, "xmlns", 5))
		return NULL;
	return !attribute[5] ? "" : attribute[5] == ':' ? attribute + 6 : NULL;
}

static enum space space_of(const char *name)
{
	return !*name ? NONE : !strcmp(name, DOMAIN_NAMESPACE) ? OURS : ANOTHER;
}

/* What an element binds for those within it. */
static void bind_prefixes(struct reader *r, struct scope *scope, const char **attributes)
{
	const char *prefix;

	scope->count = 0;
	for (; *attributes; attributes += 2) {
		prefix = prefix_of(attributes[0]);
		if (!prefix)
			continue;
		if (scope->count == MAX_PREFIXES || strlen(prefix) >= MAX_PREFIX) {
			refuse(r, "too many or too long prefixes");
			return;
		}
		strcpy(scope->bound[scope->count].prefix, prefix);
		scope->bound[scope->count++].space = space_of(attributes[1]);
	}
}

/* What @prefix, of @length bytes, stands for in an element with these attributes. */
static enum space resolve(const struct reader *r, const char **attributes, const char *prefix, size_t length)
{
	const struct scope *scope;
	const char *bound;
	unsigned int i;

	for (; *attributes; attributes += 2) {
		bound = prefix_of(attributes[0]);
		if (bound && strlen(bound) == length && !memcmp(bound, prefix, length))
			return space_of(attributes[1]);
	}
	for (scope = &r->scopes[OUTER]; scope-- > r->scopes; ) {
		for (i = 0; i < scope->count; i++) {
			bound = scope->bound[i].prefix;
			if (strlen(bound) == length && !memcmp(bound, prefix, length))
				return scope->bound[i].space;
		}
	}
	return length ? UNBOUND : NONE;
}

/* Is an element called @wanted, in no namespace? */
static bool is_plain(const struct reader *r, const char *name, const char **attributes, const char *wanted)
{
	return !strcmp(name, wanted) && resolve(r, attributes, "", 0) == NONE;
}

static bool is_ours(struct reader *r, const char *name, const char **attributes)
{
	const char *colon = strchr(name, ':');
	enum space space;

	if (strcmp(colon ? colon + 1 : name, "guest"))
		return false;
	space = resolve(r, attributes, name, colon ? colon - name : 0);
	if (space == UNBOUND)
		refuse(r, "unbound prefix");
	return space == OURS;
}

/* Digits alone; 0 is for what is none, or beyond @most. */
static unsigned int number(const char *digits, unsigned int most)
{
	size_t length = strspn(digits, "0123456789");
	unsigned long value;

	if (!length || digits[length] || length > 4)
		return 0;
	value = strtoul(digits, NULL, 10);
	return value <= most ? value : 0;
}

static void take_ours(struct reader *r, const char **attributes)
{
	struct domain *domain = &r->result->domain;

	if (domain->uses_epk)
		refuse(r, "it is there twice");
	domain->uses_epk = true;
	for (; *attributes; attributes += 2) {
		if (!strcmp(attributes[0], "epts")) {
			domain->has.epts = number(attributes[1], KVM_EPK_MAX_EPTS);
			if (!domain->has.epts)
				refuse(r, "epts is a number from 1 to 512");
		} else if (!strcmp(attributes[0], "address-bits")) {
			domain->has.bits = number(attributes[1], 64);
			if (!domain->has.bits)
				refuse(r, "address-bits is a number up to 64");
		} else if (!prefix_of(attributes[0])) {
			refuse(r, "it has epts and address-bits, and nothing else");
		}
	}
}

static void take_width(struct reader *r, const char **attributes)
{
	const char *mode = "", *bits = "", *limit = NULL;
	struct domain *domain = &r->result->domain;

	for (; *attributes; attributes += 2) {
		if (!strcmp(attributes[0], "mode"))
			mode = attributes[1];
		else if (!strcmp(attributes[0], "bits"))
			bits = attributes[1];
		else if (!strcmp(attributes[0], "limit"))
			limit = attributes[1];
	}
	if (!strcmp(mode, "emulate")) {
		domain->fixed_bits = number(bits, 64);
		if (!domain->fixed_bits)
			refuse(r, "maxphysaddr has bits that are no number");
	} else if (limit) {
		domain->most_bits = number(limit, 64);
		if (!domain->most_bits)
			refuse(r, "maxphysaddr has a limit that is no number");
	}
}

static void take_cpu(struct reader *r, const char **attributes)
{
	struct domain *domain = &r->result->domain;

	for (; *attributes; attributes += 2) {
		if (!strcmp(attributes[0], "mode"))
			domain->host_cpu = !strcmp(attributes[1], "host-passthrough") || !strcmp(attributes[1], "maximum");
	}
}

static void start(void *data, const char *name, const char **attributes)
{
	struct reader *r = data;

	if (++r->depth > MAX_DEPTH)
		refuse(r, "elements within more than 512 others");
	if (r->depth <= OUTER)
		r->scopes[r->depth - 1].count = r->scopes[OUTER - 1].count = 0;
	if (r->depth == 1) {
		if (!is_plain(r, name, attributes, "domain"))
			refuse(r, "the XML is not of a domain");
		bind_prefixes(r, &r->scopes[0], attributes);
	} else if (r->depth == 2) {
		r->where = is_plain(r, name, attributes, "metadata") ? IN_METADATA :
			   is_plain(r, name, attributes, "cpu") ? IN_CPU : ELSEWHERE;
		if (r->where == IN_CPU)
			take_cpu(r, attributes);
		if (r->where != ELSEWHERE)
			bind_prefixes(r, &r->scopes[1], attributes);
	} else if (r->depth == 3 && r->where == IN_METADATA && is_ours(r, name, attributes)) {
		take_ours(r, attributes);
	} else if (r->depth == 3 && r->where == IN_CPU && is_plain(r, name, attributes, "maxphysaddr")) {
		take_width(r, attributes);
	}
}

static void end(void *data, const char *name)
{
	struct reader *r = data;

	(void)name;
	r->depth--;
}

static void document_type(void *data, const char *name, const char *system, const char *public, int internal)
{
	(void)name;
	(void)system;
	(void)public;
	(void)internal;
	refuse(data, "the XML has a document type");
}

/* Returns what is wrong with the XML, or NULL: a string that is there in the other process, too. */
static const char *parse(struct result *result, size_t length)
{
	struct reader r = { .result = result };

	r.parser = XML_ParserCreate(NULL);
	if (!r.parser)
		return "no memory";
	XML_SetUserData(r.parser, &r);
	XML_SetElementHandler(r.parser, start, end);
	XML_SetStartDoctypeDeclHandler(r.parser, document_type);
	/* In one piece: expat looks again at the beginning of what comes in several. */
	if (XML_Parse(r.parser, text, length, XML_TRUE) != XML_STATUS_OK && !r.wrong)
		r.wrong = XML_ErrorString(XML_GetErrorCode(r.parser)) ?: "it cannot be read";
	return r.wrong;
}

/* To @most, or what this process may have if that is less. */
static bool limit(int resource, rlim_t most)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit))
		return false;
	limit.rlim_max = limit.rlim_max < most ? limit.rlim_max : most;
	limit.rlim_cur = limit.rlim_max;
	return !setrlimit(resource, &limit);
}

/* Whatever becomes of the process that reads, @result says so; its time ends by a signal that cannot be ignored. */
static void read_apart(struct result *result, size_t length)
{
	pid_t pid;

	result->wrong = "to read it takes too much time or memory";
	pid = fork();
	if (!pid) {
		if (limit(RLIMIT_AS, MAX_MEMORY) && limit(RLIMIT_CPU, MAX_SECONDS))
			result->wrong = parse(result, length);
		_exit(0);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static bool speaks(size_t length)
{
	return memmem(text, length, DOMAIN_NAMESPACE, strlen(DOMAIN_NAMESPACE));
}

/*
 * All of it, or of what is longer than MAX_BYTES the end, which is told by more than that; *@spoke
 * if what is no longer there has the namespace.
 */
static size_t read_all(int fd, bool *spoke)
{
	const size_t kept = strlen(DOMAIN_NAMESPACE) - 1;
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	bool longer = false;
	size_t length = 0;
	ssize_t got;

	for (;;) {
		if (length == sizeof(text)) {
			*spoke |= speaks(length);
			memmove(text, text + length - kept, kept);
			length = kept;
			longer = true;
		}
		got = read(fd, text + length, sizeof(text) - length);
		if (got > 0)
			length += got;
		else if (!got)
			break;
		else if (errno == EAGAIN)
			poll(&ready, 1, -1);
		else if (errno != EINTR)
			exit(fail(WRONG, "standard input: %s", strerror(errno)));
	}
	*spoke |= longer && speaks(length);
	return longer ? sizeof(text) : length;
}

const char *domain_read(int fd, struct domain *domain)
{
	struct result *result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool spoke = false;
	const char *wrong;
	size_t length;

	if (result == MAP_FAILED)
		exit(fail(WRONG, "%s", strerror(errno)));
	length = read_all(fd, &spoke);
	if (length > MAX_BYTES)
		result->wrong = "the XML is longer than 16 MiB";
	else
		read_apart(result, length);
	wrong = result->wrong;
	if (wrong)
		result->domain.uses_epk |= spoke || (length <= MAX_BYTES && speaks(length));
	*domain = result->domain;
	munmap(result, sizeof(*result));
	return wrong;
}
