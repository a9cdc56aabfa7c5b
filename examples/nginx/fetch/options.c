// SPDX-License-Identifier: MIT
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fetch.h"

static const char help[] =
	"usage: tls_fetch [OPTION]... FILE...\n"
	"Opens many HTTPS connections at once, fetches each FILE over each of them,\n"
	"in an order that differs, and compares every byte with DIR/FILE.\n"
	"\n"
	"  --connections N   how many at once (64)\n"
	"  --rounds N        fetch all files so many times (1)\n"
	"  --host ADDRESS    IPv4 address (127.0.0.1); the certificate must be for\n"
	"                    localhost\n"
	"  --port N          (4433)\n"
	"  --dir DIR         where the files lie here (docs)\n"
	"  --ca FILE         certificate to trust (cert.pem)\n"
	"  --tls 1.2|1.3     insist on this version (1.3)\n"
	"  --cipher NAME     insist on this cipher suite, by OpenSSL's name\n"
	"  --hold            fetch only the first FILE over each, say \"holding\" and keep\n"
	"                    all connections open; for each line \"fetch\" on standard\n"
	"                    input fetch all files and say \"holding\" again; at the end\n"
	"                    of input fetch the first FILE once more and close\n"
	"  --corrupt         send a record that nobody sealed in place of each session's first\n"
	"                    request; the server has to refuse it\n"
	"  --timeout N       give up after N seconds; not counted while holding (300)\n"
	"\n"
	"Exit status: 0 if every byte of every answer was right, 1 if not, 2 for a\n"
	"wrong option.\n";

/* Reads DIR/NAME into memory; prints why not and returns false. */
static bool file_read(struct file *file, const char *dir, const char *name)
{
	char path[4096];
	struct stat st;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	if (!f || fstat(fileno(f), &st))
		goto fail;
	file->name = name;
	file->len = st.st_size;
	file->bytes = malloc(file->len ? file->len : 1);
	if (!file->bytes || fread(file->bytes, 1, file->len, f) != file->len)
		goto fail;
	fclose(f);
	return true;

fail:
	fprintf(stderr, "tls_fetch: %s: %s\n", path, strerror(errno));
	if (f)
		fclose(f);
	return false;
}

static bool read_number(const char *what, const char *text, long max, unsigned int *number)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < 1 || value > max) {
		fprintf(stderr, "tls_fetch: %s must be a number from 1 to %ld, not \"%s\"\n", what,
			max, text);
		return false;
	}
	*number = value;
	return true;
}

static bool read_version(const char *text, int *version)
{
	if (!strcmp(text, "1.2"))
		*version = TLS1_2_VERSION;
	else if (!strcmp(text, "1.3"))
		*version = TLS1_3_VERSION;
	else
		fprintf(stderr, "tls_fetch: --tls must be 1.2 or 1.3, not \"%s\"\n", text);
	return !strcmp(text, "1.2") || !strcmp(text, "1.3");
}

static bool read_option(struct options *o, int option)
{
	unsigned int port;

	switch (option) {
	case 'n':
		return read_number("--connections", optarg, 100000, &o->connections);
	case 'r':
		return read_number("--rounds", optarg, 1000000, &o->rounds);
	case 'o':
		return read_number("--timeout", optarg, 1000000, &o->timeout_s);
	case 'p':
		if (!read_number("--port", optarg, 65535, &port))
			return false;
		o->port = port;
		return true;
	case 't':
		return read_version(optarg, &o->version);
	case 'a':
		o->host = optarg;
		return true;
	case 'd':
		o->dir = optarg;
		return true;
	case 'k':
		o->ca = optarg;
		return true;
	case 'c':
		o->cipher = optarg;
		return true;
	case 'H':
		o->hold = true;
		return true;
	case 'x':
		o->corrupt = true;
		return true;
	case 'h':
		fputs(help, stdout);
		exit(0);
	}
	return false;
}

bool options_parse(struct options *o, int argc, char **argv)
{
	static const struct option known[] = {
		{ "connections", required_argument, NULL, 'n' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "host", required_argument, NULL, 'a' },
		{ "port", required_argument, NULL, 'p' },
		{ "dir", required_argument, NULL, 'd' },
		{ "ca", required_argument, NULL, 'k' },
		{ "tls", required_argument, NULL, 't' },
		{ "cipher", required_argument, NULL, 'c' },
		{ "timeout", required_argument, NULL, 'o' },
		{ "hold", no_argument, NULL, 'H' },
		{ "corrupt", no_argument, NULL, 'x' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
		if (!read_option(o, option))
			return false;
	if (optind == argc) {
		fprintf(stderr, "tls_fetch: no FILE; see --help\n");
		return false;
	}
	o->nr_files = argc - optind;
	o->files = calloc(o->nr_files, sizeof(*o->files));
	for (; o->files && optind < argc; optind++)
		if (!file_read(&o->files[optind - (argc - o->nr_files)], o->dir, argv[optind]))
			return false;
	return o->files;
}
