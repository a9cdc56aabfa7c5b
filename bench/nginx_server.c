// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nginx_server.h"

#define PATH		256
#define PATIENCE	400	/* times 50 ms */
#define PROVIDER	"/usr/lib/x86_64-linux-gnu/ossl-modules/epk.so"
#define SHOWN		5	/* lines of a log */

struct served_file served_files[NR_FILES] = {
	{ "1.bin", 1 << 10, NULL }, { "16.bin", 16 << 10, NULL }, { "128.bin", 128 << 10, NULL },
};

static bool fail(const char *what, const char *name)
{
	fprintf(stderr, "nginx_bench: %s: ", name);
	perror(what);
	return false;
}

static char *read_text(const char *dir, const char *name)
{
	char path[PATH], *text = NULL;
	size_t size = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	if (!f || getdelim(&text, &size, 0, f) < 0) {
		fail("read", path);
		free(text);
		text = NULL;
	}
	if (f)
		fclose(f);
	return text;
}

static bool write_file(const char *dir, const char *name, const char *bytes, size_t len)
{
	char path[PATH];
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (!f)
		return fail("fopen", path);
	ok = fwrite(bytes, 1, len, f) == len;
	return !fclose(f) && ok ? true : fail("write", path);
}

/* @text with the first @old replaced, or NULL: it has to be there.  Frees @text. */
static char *replaced(char *text, const char *old, const char *new)
{
	char *at = text ? strstr(text, old) : NULL, *whole = NULL;

	if (!at || asprintf(&whole, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old)) < 0)
		whole = NULL;
	if (text && !at)
		fprintf(stderr, "nginx_bench: no \"%s\" in a configuration\n", old);
	free(text);
	return whole;
}

static bool copied(const char *home, const struct server *server, const char *name)
{
	char *text = read_text(home, name);
	bool ok = text && write_file(server->dir, name, text, strlen(text));

	free(text);
	return ok;
}

static bool write_conf(const char *home, const struct server *server)
{
	char port[16], *text = read_text(home, "nginx.conf");
	bool ok;

	snprintf(port, sizeof(port), ":%d ", server->port);
	text = replaced(text, ":4433 ", port);
	ok = text && write_file(server->dir, "nginx.conf", text, strlen(text));
	free(text);
	return ok;
}

/* The example's own, in its build folder; else as it is installed. */
static bool write_openssl_conf(const char *home, const struct server *server)
{
	char path[PATH], line[64], *text, *old;
	const char *at;
	bool built, ok;

	if (!server->backend)
		return write_file(server->dir, "openssl.cnf", "", 0);
	snprintf(path, sizeof(path), "%s/epk.so", home);
	built = !access(path, R_OK);
	text = read_text(built ? home : "/etc/ssl", built ? "openssl.cnf" : "openssl-epk.cnf");
	/* For the provider and for its cipher check. */
	if (built) {
		text = replaced(text, PROVIDER, path);
		text = replaced(text, PROVIDER, path);
	}
	/* Whichever it names. */
	snprintf(line, sizeof(line), "\nbackend = %s", server->backend);
	at = text ? strstr(text, "\nbackend = ") : NULL;
	old = at ? strndup(at, 1 + strcspn(at + 1, "\n")) : NULL;
	text = replaced(text, old ? old : "\nbackend = ", line);
	free(old);
	ok = text && write_file(server->dir, "openssl.cnf", text, strlen(text));
	free(text);
	return ok;
}

static bool write_files(const struct server *server)
{
	char docs[PATH];
	uint64_t state = 1;
	size_t i, at;

	snprintf(docs, sizeof(docs), "%s/docs", server->dir);
	for (i = 0; i < NR_FILES; i++) {
		struct served_file *file = &served_files[i];

		if (!file->bytes) {
			file->bytes = malloc(file->len);
			for (at = 0; file->bytes && at < file->len; at++) {
				state = state * 6364136223846793005u + 1442695040888963407u;
				file->bytes[at] = state >> 56;
			}
		}
		if (!file->bytes || !write_file(docs, file->name, file->bytes, file->len))
			return false;
	}
	return true;
}

static bool make_folders(struct server *server)
{
	static const char *const names[] = { "run", "docs" };
	char path[PATH];
	size_t i;

	strcpy(server->dir, "/tmp/nginx-bench-XXXXXX");
	if (!mkdtemp(server->dir))
		return fail("mkdtemp", server->dir);
	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "%s/%s", server->dir, names[i]);
		if (mkdir(path, 0755))
			return fail("mkdir", path);
	}
	return true;
}

static void exec_nginx(const struct server *server)
{
	const char *nginx = getenv("NGINX_BIN") ?: "/usr/sbin/nginx";
	char conf[PATH], openssl[PATH], log[PATH];
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	snprintf(conf, sizeof(conf), "%s/nginx.conf", server->dir);
	snprintf(openssl, sizeof(openssl), "%s/openssl.cnf", server->dir);
	snprintf(log, sizeof(log), "%s/log", server->dir);
	fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	dup2(fd, STDERR_FILENO);
	setenv("OPENSSL_CONF", openssl, 1);
	execl(nginx, nginx, "-p", server->dir, "-c", conf, "-e", "stderr", NULL);
	perror(nginx);
	_exit(1);
}

static pid_t parent_of(const char *pid)
{
	char path[PATH], stat[512] = "", *end;
	int fd, parent = 0;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, stat, sizeof(stat) - 1) <= 0)
		*stat = 0;
	close(fd);
	end = strrchr(stat, ')');
	return end && sscanf(end, ") %*c %d", &parent) == 1 ? parent : 0;
}

static pid_t child_of(pid_t parent)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	pid_t child = 0;

	while (proc && !child && (entry = readdir(proc)))
		if (*entry->d_name > '0' && *entry->d_name <= '9' &&
		    parent_of(entry->d_name) == parent)
			child = atoi(entry->d_name);
	if (proc)
		closedir(proc);
	return child;
}

static bool listens(int port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool yes = !connect(fd, (struct sockaddr *)&addr, sizeof(addr));

	close(fd);
	return yes;
}

bool server_start(struct server *server, const char *home, const char *backend, int port)
{
	int tries;

	*server = (struct server) { .backend = backend, .port = port };
	if (!make_folders(server) || !copied(home, server, "cert.pem") ||
	    !copied(home, server, "key.pem") || !write_conf(home, server) ||
	    !write_openssl_conf(home, server) || !write_files(server))
		return false;
	fflush(NULL);
	server->master = fork();
	if (!server->master)
		exec_nginx(server);
	for (tries = 0; tries < PATIENCE; tries++) {
		if (waitpid(server->master, NULL, WNOHANG))
			break;
		server->worker = child_of(server->master);
		if (server->worker && listens(port))
			return true;
		usleep(50000);
	}
	return false;
}

static bool is_trouble(const char *line)
{
	return strstr(line, "[crit]") || strstr(line, "[emerg]") || strstr(line, "[alert]") ||
	       strstr(line, "[error]") || strstr(line, "epk");
}

static int complaints(const struct server *server, bool print)
{
	char path[PATH], *line = NULL;
	size_t size = 0;
	int nr = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/log", server->dir);
	f = fopen(path, "r");
	while (f && getline(&line, &size, f) > 0)
		if (is_trouble(line) && nr++ < SHOWN && print)
			fprintf(stderr, "\t%s", line);
	free(line);
	if (f)
		fclose(f);
	return nr;
}

void server_complaints(const struct server *server)
{
	complaints(server, true);
}

static void remove_folder(const char *path)
{
	char inside[PATH + NAME_MAX];
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(inside, sizeof(inside), "%s/%s", path, entry->d_name);
		if (unlink(inside))
			remove_folder(inside);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

bool server_stop(struct server *server)
{
	int status = 0;
	bool ok;

	kill(server->master, SIGTERM);
	ok = waitpid(server->master, &status, 0) == server->master && !status;
	remove_folder(server->dir);
	return ok;
}

uint64_t server_worked(const struct server *server)
{
	struct timespec time = { 0 };
	clockid_t clock;

	if (clock_getcpuclockid(server->worker, &clock) || clock_gettime(clock, &time)) {
		fprintf(stderr, "nginx_bench: the worker has ended\n");
		exit(1);
	}
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

unsigned long server_faults(const struct server *server)
{
	unsigned long minor = 0, major = 0;
	char path[PATH], stat[512] = "", *end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", server->worker);
	f = fopen(path, "r");
	if (!f || !fgets(stat, sizeof(stat), f))
		*stat = 0;
	if (f)
		fclose(f);
	end = strrchr(stat, ')');
	if (end)
		sscanf(end, ") %*c %*d %*d %*d %*d %*d %*u %lu %*u %lu", &minor, &major);
	return minor + major;
}
