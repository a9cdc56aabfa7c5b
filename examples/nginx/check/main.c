// SPDX-License-Identifier: MIT
/*
 * epk-tls-check: whether the keys of a process's TLS are in memory domains.
 *
 * It tells of processes that mean well: one that wants to seem protected can publish
 * whatever it likes.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "look.h"

enum { EXIT_PROTECTED, EXIT_UNPROTECTED, EXIT_UNKNOWN };

static const char usage[] =
	"usage: epk-tls-check [--json] [--accept FINDING[,FINDING]...] PID... | --all\n";

/* What speaks against it, each a word and a sentence. */
#define FINDINGS_MAX	32

struct findings {
	struct finding {
		char word[64];
		char sentence[192];
	} list[FINDINGS_MAX];
	size_t nr;
};

static const char *accepted = "";

static bool is_accepted(const char *word)
{
	size_t len = strlen(word);
	const char *at;

	for (at = accepted; (at = strstr(at, word)); at += len)
		if ((at == accepted || at[-1] == ',') && (!at[len] || at[len] == ','))
			return true;
	return false;
}

static void found(struct findings *f, const char *word, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void found(struct findings *f, const char *word, const char *fmt, ...)
{
	struct finding *one;
	va_list args;

	if (is_accepted(word) || f->nr == FINDINGS_MAX)
		return;
	one = &f->list[f->nr++];
	snprintf(one->word, sizeof(one->word), "%s", word);
	va_start(args, fmt);
	vsnprintf(one->sentence, sizeof(one->sentence), fmt, args);
	va_end(args);
}

/* ---- */

/* The one that the provider serves: whatever else does TLS has keys of its own. */
static const struct object *served_libssl(const struct process *p)
{
	size_t i;

	for (i = 0; i < p->nr_objects; i++)
		if (!strncmp(base_name(p->objects[i].path), "libssl.so.3", 11))
			return &p->objects[i];
	return NULL;
}

static size_t nr_libcryptos(const struct process *p)
{
	size_t i, nr = 0;

	for (i = 0; i < p->nr_objects; i++)
		nr += !strncmp(base_name(p->objects[i].path), "libcrypto.so", 12);
	return nr;
}

/* As a program is linked to it: "libgnutls.so.30" of "libgnutls.so.30.34.3". */
static int soname_len(const char *base)
{
	const char *so = strstr(base, ".so.");

	return so ? (int)(so + 4 + strcspn(so + 4, ". ") - base) : (int)strlen(base);
}

static void judge_others(const struct process *p, struct findings *f)
{
	const struct object *libssl = served_libssl(p);
	const char *base;
	char word[64];
	size_t i;

	for (i = 0; i < p->nr_objects; i++) {
		base = base_name(p->objects[i].path);
		if (p->objects[i].is_tls && p->objects[i].copies > 1)
			found(f, "several-copies", "%.150s is loaded %zu times",
			      p->objects[i].path, p->objects[i].copies);
		if (!p->objects[i].is_tls || &p->objects[i] == libssl)
			continue;
		snprintf(word, sizeof(word), "other:%.*s", soname_len(base), base);
		found(f, word, "%.160s has TLS of its own", p->objects[i].path);
	}
	if (nr_libcryptos(p) > 1)
		found(f, "several-libcryptos", "there is more than one libcrypto");
	if (p->more)
		found(f, "too-many", "there are more libraries than could be looked at");
}

static void judge_backend(const struct published *s, struct findings *f)
{
	char word[32];

	if (!strcmp(s->backend, "epk"))
		return;
	snprintf(word, sizeof(word), "backend-%s", s->backend);
	found(f, word, "backend %s protects %s", s->backend,
	      strcmp(s->backend, "none") ? "less than epk" : "nothing");
}

static void judge_sessions(const struct published *s, struct findings *f)
{
	if (s->ssl_contexts[UNSERVED] && !s->unserved_allowed)
		found(f, "refused", "%" PRIu64 " of libssl's contexts have ciphers from elsewhere, "
		      "and are refused by a policy", s->ssl_contexts[UNSERVED]);
	else if (s->ssl_contexts[UNSERVED])
		found(f, "unserved", "%" PRIu64 " sessions, and %" PRIu64 " of libssl's contexts, "
		      "have ciphers from elsewhere", s->sessions[UNSERVED],
		      s->ssl_contexts[UNSERVED]);
	if (s->cbc_contexts)
		found(f, "cbc", "%" PRIu64 " cipher contexts are of CBC suites, whose MAC keys "
		      "libssl has", s->cbc_contexts);
	if (!s->secrets)
		found(f, "secrets-keys", "secrets that keys are derived from are in ordinary memory");
	if (s->secrets && s->any_key_exchange)
		found(f, "key-exchange-any", "secrets of some key exchanges are in ordinary memory");
}

static void judge_provider(const struct process *p, struct findings *f)
{
	const struct published *s = &p->published;

	if (p->providers > 1)
		found(f, "several-providers", "the provider is loaded more than once");
	if (!p->known) {
		found(f, "not-started", "the provider has not started, and TLS cannot");
		return;
	}
	if (s->exempt) {
		found(f, "exempt", "the configuration makes this program an exception");
		return;
	}
	if (!s->started)
		found(f, "not-started", "memory domains do not work since a fork; handshakes fail");
	if (s->key_lost)
		found(f, "key-lost", "a fork has not handed on the key for secrets; handshakes fail");
	if (!(s->checked & 1))
		found(f, "not-checked", "the cipher check has not let the provider through for the default "
		      "library context");
	if (!s->watched)
		found(f, "not-watched", "what libssl uses is not known");
	judge_backend(s, f);
	judge_sessions(s, f);
	if (!served_libssl(p) && s->ssl_contexts[SERVED] + s->ssl_contexts[UNSERVED])
		found(f, "no-libssl", "the libssl that is in use is not libssl.so.3");
}

static bool has_tls(const struct process *p)
{
	size_t i;

	for (i = 0; i < p->nr_objects; i++)
		if (p->objects[i].is_tls)
			return true;
	/* Its code may be elsewhere than in a file. */
	return p->known && p->published.ssl_contexts[SERVED] + p->published.ssl_contexts[UNSERVED];
}

static void judge(const struct process *p, struct findings *f)
{
	f->nr = 0;
	if (!has_tls(p))
		return;
	if (!p->providers && served_libssl(p))
		found(f, "no-provider", "libssl is here, and the provider is not");
	if (p->providers)
		judge_provider(p, f);
	judge_others(p, f);
}

/* ---- */

static void print_quoted(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if ((unsigned char)*text < ' ' || (unsigned char)*text > '~')
			printf("\\u%04x", (unsigned char)*text);
		else
			putchar(*text);
	}
	putchar('"');
}

static void print_name(const char *name)
{
	printf(", ");
	print_quoted(name);
	printf(": ");
}

static void print_count(const char *name, uint64_t count)
{
	print_name(name);
	printf("%" PRIu64, count);
}

static const char *verdict(const struct process *p, const struct findings *f)
{
	return f->nr ? "unprotected" : has_tls(p) ? "protected" : "no-tls";
}

static void print_json(const struct process *p, const struct findings *f)
{
	const struct published *s = &p->published;
	size_t i;

	printf("{\"pid\": %d", (int)p->pid);
	print_name("program");
	print_quoted(p->comm);
	print_name("verdict");
	print_quoted(verdict(p, f));
	print_name("findings");
	putchar('[');
	for (i = 0; i < f->nr; i++) {
		printf("%s", i ? ", " : "");
		print_quoted(f->list[i].word);
	}
	putchar(']');
	print_name("libraries");
	putchar('[');
	for (i = 0; i < p->nr_objects; i++) {
		printf("%s", i ? ", " : "");
		print_quoted(p->objects[i].path);
	}
	putchar(']');
	if (p->providers) {
		print_name("provider");
		print_quoted(p->provider);
	}
	if (p->known) {
		print_name("backend");
		print_quoted(s->backend);
		print_count("ssl_contexts", s->ssl_contexts[SERVED]);
		print_count("ssl_contexts_elsewhere", s->ssl_contexts[UNSERVED]);
		print_count("sessions", s->sessions[SERVED]);
		print_count("sessions_elsewhere", s->sessions[UNSERVED]);
		print_count("sessions_refused", s->refused);
		print_count("cipher_contexts", s->contexts);
		print_count("record_keys", s->records);
		print_count("without_domain", s->no_domain);
	}
	putchar('}');
}

/* For a terminal, of which who is looked at may want something. */
static void print_plain(const char *text)
{
	for (; *text; text++) {
		if (*text < ' ' || *text > '~' || *text == '\\')
			printf("\\x%02x", (unsigned char)*text);
		else
			putchar(*text);
	}
}

static void print_line(const char *text)
{
	putchar('\t');
	print_plain(text);
	putchar('\n');
}

static void print_text(const struct process *p, const struct findings *f)
{
	const struct published *s = &p->published;
	size_t i;

	printf("%d ", (int)p->pid);
	print_plain(p->comm);
	printf(": %s", f->nr ? "UNPROTECTED" : verdict(p, f));
	if (p->known) {
		printf("; backend ");
		print_plain(s->backend);
		printf(", %" PRIu64 " sessions, %" PRIu64 " cipher contexts in domains, "
		       "%" PRIu64 " of them with record keys", s->sessions[SERVED], s->contexts,
		       s->records);
	}
	if (p->known && s->no_domain)
		printf("; %" PRIu64 " got no domain, and their handshakes failed", s->no_domain);
	putchar('\n');
	for (i = 0; i < f->nr; i++) {
		putchar('\t');
		print_plain(f->list[i].word);
		printf(": ");
		print_plain(f->list[i].sentence);
		putchar('\n');
	}
	if (!has_tls(p))
		return;
	for (i = 0; i < p->nr_objects; i++)
		print_line(p->objects[i].path);
	if (p->providers)
		print_line(p->provider);
}

/* ---- */

static bool as_json, is_first = true;

static int worse(int a, int b)
{
	/* What is known to be unprotected says more than what is not known. */
	return a == EXIT_UNPROTECTED || b == EXIT_UNPROTECTED ? EXIT_UNPROTECTED : a > b ? a : b;
}

static int check(pid_t pid, bool is_asked_for)
{
	static struct process p;
	static struct findings f;
	int err = look_at(&p, pid);

	if (err == -ESRCH && !is_asked_for)
		return EXIT_PROTECTED;
	if (err) {
		fprintf(stderr, "epk-tls-check: process %d: %s\n", (int)pid, strerror(-err));
		return EXIT_UNKNOWN;
	}
	judge(&p, &f);
	if (!is_asked_for && !has_tls(&p))
		return EXIT_PROTECTED;
	if (as_json) {
		printf("%s", is_first ? "" : ",\n ");
		print_json(&p, &f);
	} else {
		print_text(&p, &f);
	}
	is_first = false;
	return f.nr ? EXIT_UNPROTECTED : EXIT_PROTECTED;
}

static int check_all(void)
{
	int status = EXIT_PROTECTED;
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	if (!proc) {
		perror("epk-tls-check: /proc");
		return EXIT_UNKNOWN;
	}
	while ((entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]))
			status = worse(status, check(atoi(entry->d_name), false));
	closedir(proc);
	return status;
}

static int refuse_usage(void)
{
	fputs(usage, stderr);
	return EXIT_UNKNOWN;
}

static int check_each(char **pids)
{
	int status = EXIT_PROTECTED;
	char *end;
	long pid;

	for (; *pids; pids++) {
		pid = strtol(*pids, &end, 10);
		if (*end || pid <= 0 || pid > INT_MAX)
			return refuse_usage();
		status = worse(status, check(pid, true));
	}
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "all", no_argument, NULL, 'a' },
		{ "accept", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 }
	};
	bool all = false;
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (option) {
		case 'j':
			as_json = true;
			break;
		case 'a':
			all = true;
			break;
		case 'c':
			accepted = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			return refuse_usage();
		}
	}
	if (all == (optind < argc))
		return refuse_usage();
	if (as_json)
		printf("[");
	status = all ? check_all() : check_each(argv + optind);
	if (as_json)
		printf("]\n");
	return fflush(stdout) ? EXIT_UNKNOWN : status;
}
