// SPDX-License-Identifier: MIT
/*
 * What a libvirt domain's XML says of EPK: that the guest uses it, and its geometry.
 *
 * It may come from another host, with what an operator or a program there has written among its
 * metadata, so it is anything.  Expat reads it; no document type, and so no entity, is taken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <expat.h>

#include <asm/kvm_epk.h>

#include "host.h"

/* libvirt takes no longer strings than 4 MiB from its clients. */
#define MAX_BYTES	(16u << 20)
/* Between a namespace and a name: no character that XML allows. */
#define SEPARATOR	'\1'
#define MARK		DOMAIN_NAMESPACE "\1guest"

struct reader {
	XML_Parser parser;
	struct domain *domain;
	unsigned int depth;
	enum { ELSEWHERE, IN_METADATA, IN_CPU } where;
	const char *wrong;
};

static void refuse(struct reader *r, const char *wrong)
{
	if (!r->wrong)
		r->wrong = wrong;
	XML_StopParser(r->parser, XML_FALSE);
}

/* Digits alone; 0 is for what is none, or beyond @most. */
static unsigned int number(const char *text, unsigned int most)
{
	size_t length = strspn(text, "0123456789");
	unsigned long value;

	if (!length || text[length] || length > 4)
		return 0;
	value = strtoul(text, NULL, 10);
	return value <= most ? value : 0;
}

static void take_mark(struct reader *r, const char **attributes)
{
	struct domain *domain = r->domain;

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
		} else {
			refuse(r, "it has epts and address-bits, and nothing else");
		}
	}
}

static void take_width(struct reader *r, const char **attributes)
{
	const char *mode = "", *bits = "", *limit = NULL;
	struct domain *domain = r->domain;

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
	for (; *attributes; attributes += 2) {
		if (!strcmp(attributes[0], "mode"))
			r->domain->host_cpu = !strcmp(attributes[1], "host-passthrough") || !strcmp(attributes[1], "maximum");
	}
}

static void start(void *data, const char *name, const char **attributes)
{
	struct reader *r = data;

	r->depth++;
	if (r->depth == 1 && strcmp(name, "domain")) {
		refuse(r, "the XML is not of a domain");
	} else if (r->depth == 2) {
		r->where = !strcmp(name, "metadata") ? IN_METADATA : !strcmp(name, "cpu") ? IN_CPU : ELSEWHERE;
		if (r->where == IN_CPU)
			take_cpu(r, attributes);
	} else if (r->depth == 3 && r->where == IN_METADATA && !strcmp(name, MARK)) {
		take_mark(r, attributes);
	} else if (r->depth == 3 && r->where == IN_CPU && !strcmp(name, "maxphysaddr")) {
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

/* All of it, or as much as is taken, which is told by more than MAX_BYTES. */
static size_t read_all(int fd, char *text)
{
	size_t length = 0;
	ssize_t got;

	while (length <= MAX_BYTES) {
		got = read(fd, text + length, MAX_BYTES + 1 - length);
		if (got > 0)
			length += got;
		else if (!got || errno != EINTR)
			break;
	}
	return length;
}

const char *domain_read(int fd, struct domain *domain)
{
	struct reader r = { .domain = domain };
	char *text = malloc(MAX_BYTES + 1);
	size_t length;

	memset(domain, 0, sizeof(*domain));
	r.parser = XML_ParserCreateNS(NULL, SEPARATOR);
	if (!text || !r.parser)
		exit(fail(WRONG, "%s", strerror(ENOMEM)));
	length = read_all(fd, text);
	XML_SetUserData(r.parser, &r);
	XML_SetElementHandler(r.parser, start, end);
	XML_SetStartDoctypeDeclHandler(r.parser, document_type);
	if (length > MAX_BYTES)
		r.wrong = "the XML is longer than 16 MiB";
	else if (XML_Parse(r.parser, text, length, XML_TRUE) != XML_STATUS_OK && !r.wrong)
		r.wrong = XML_ErrorString(XML_GetErrorCode(r.parser));
	/* What cannot be read speaks of EPK if its bytes do. */
	if (r.wrong)
		domain->uses_epk |= !!memmem(text, length, DOMAIN_NAMESPACE, strlen(DOMAIN_NAMESPACE));
	XML_ParserFree(r.parser);
	free(text);
	return r.wrong;
}
