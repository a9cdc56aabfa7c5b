// SPDX-License-Identifier: MIT
/*
 * What can be seen of a process from outside: whose code is mapped, and what the provider
 * publishes in it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "look.h"

/**
 * struct mapping - a line of /proc/PID/maps
 */
struct mapping {
	uint64_t start, end;
	char perms[8];
	unsigned int major, minor;
	uint64_t inode;
	char path[PATH_MAX];
};

const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- what is in a file */

enum { HAS_TLS = 1, HAS_PROVIDER = 2 };

/* Of each file once, however many processes have it mapped. */
struct known_file {
	dev_t dev;
	ino_t inode;
	int what;
};

static struct known_file *known_files;
static size_t nr_known_files;

static bool holds(const void *bytes, size_t len, char first, const char *rest)
{
	char label[32];

	/* Not as one string in this program, which does no TLS. */
	snprintf(label, sizeof(label), "%c%s", first, rest);
	return memmem(bytes, len, label, strlen(label));
}

/*
 * Whoever does TLS has the names that its key schedule hashes: RFC 8446, 7.1, for 1.3, and
 * RFC 5246, 7.4.9, for what came before.
 */
static int examine(const void *bytes, size_t len)
{
	int what = 0;

	if ((holds(bytes, len, 'c', " ap traffic") && holds(bytes, len, 's', " ap traffic")) ||
	    (holds(bytes, len, 'c', "lient finished") && holds(bytes, len, 's', "erver finished")))
		what |= HAS_TLS;
	if (holds(bytes, len, PUBLISHED_MAGIC[0], PUBLISHED_MAGIC + 1))
		what |= HAS_PROVIDER;
	return what;
}

static int examine_fd(int fd, const struct stat *st)
{
	void *bytes = mmap(NULL, st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	int what;

	if (bytes == MAP_FAILED)
		return -errno;
	what = examine(bytes, st->st_size);
	munmap(bytes, st->st_size);
	return what;
}

/* The file that is mapped, even if there is another of its name, or none. */
static int open_mapped(pid_t pid, const struct mapping *m)
{
	char path[PATH_MAX + 64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid, m->start,
		 m->end);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		return fd;
	snprintf(path, sizeof(path), "/proc/%d/root%s", (int)pid, m->path);
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

/* By bits; negative: it cannot be read. */
static int what_is_in(pid_t pid, const struct mapping *m)
{
	int fd = open_mapped(pid, m), what = -ENOENT;
	struct known_file *more;
	struct stat st;
	size_t i;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		goto out;
	for (i = 0; i < nr_known_files; i++)
		if (known_files[i].dev == st.st_dev && known_files[i].inode == st.st_ino) {
			what = known_files[i].what;
			goto out;
		}
	what = S_ISREG(st.st_mode) && st.st_size ? examine_fd(fd, &st) : 0;
	more = reallocarray(known_files, nr_known_files + 1, sizeof(*more));
	if (!more)
		goto out;
	known_files = more;
	known_files[nr_known_files++] = (struct known_file){ st.st_dev, st.st_ino, what };
out:
	close(fd);
	return what;
}

/* ---- what is in the process */

static ssize_t read_from(pid_t pid, void *to, uint64_t from, size_t len)
{
	struct iovec local = { to, len }, remote = { (void *)(uintptr_t)from, len };

	return process_vm_readv(pid, &local, 1, &remote, 1, 0);
}

static bool is_published(const struct published *found, uint64_t at)
{
	return !memcmp(found->magic, PUBLISHED_MAGIC, sizeof(found->magic)) &&
	       found->self == at && found->version == PUBLISHED_VERSION;
}

/* In what is mapped writable from a file that has the magic. */
static int find_published(struct process *p, const struct mapping *m)
{
	size_t len = m->end - m->start, at;
	uint8_t *bytes = malloc(len);
	ssize_t got;

	if (!bytes)
		return -ENOMEM;
	got = read_from(p->pid, bytes, m->start, len);
	if (got < 0) {
		got = -errno;
		free(bytes);
		return got;
	}
	for (at = 0; !p->known && at + sizeof(p->published) <= (size_t)got; at += 8) {
		memcpy(&p->published, bytes + at, sizeof(p->published));
		p->known = is_published(&p->published, m->start + at);
	}
	free(bytes);
	p->published.backend[sizeof(p->published.backend) - 1] = 0;
	return 0;
}

static bool is_library(const char *path, const char *name)
{
	const char *base = base_name(path);

	/* "libssl.so.3", not NSS's "libssl3.so". */
	return !strncmp(base, name, strlen(name)) && !strncmp(base + strlen(name), ".so", 3);
}

static void note_object(struct process *p, const struct mapping *m, bool is_tls)
{
	struct object *o;
	size_t i;

	for (i = 0; i < p->nr_objects; i++)
		if (!strcmp(p->objects[i].path, m->path))
			return;
	if (p->nr_objects == OBJECTS_MAX) {
		p->more = true;
		return;
	}
	o = &p->objects[p->nr_objects++];
	strcpy(o->path, m->path);
	o->is_tls = is_tls;
}

/* With the code of a file comes its data, later in the list. */
static int look_at_mapping(struct process *p, const struct mapping *m)
{
	bool is_code = strchr(m->perms, 'x');
	int what;

	if (!m->inode || m->path[0] != '/' || (!is_code && !strchr(m->perms, 'w')))
		return 0;
	/* A process's own data that it has mapped is neither code nor the provider's. */
	if (!is_code && !strstr(m->path, ".so"))
		return 0;
	what = what_is_in(p->pid, m);
	if (what < 0)
		return what;
	if (is_code && (what & HAS_PROVIDER)) {
		if (!p->providers++)
			snprintf(p->provider, sizeof(p->provider), "%s", m->path);
		return 0;
	}
	if (is_code && (what || is_library(m->path, "libssl") || is_library(m->path, "libcrypto")))
		note_object(p, m, what & HAS_TLS);
	return !is_code && (what & HAS_PROVIDER) && !p->known ? find_published(p, m) : 0;
}

static bool parse_mapping(const char *line, struct mapping *m)
{
	uint64_t offset;

	m->path[0] = 0;
	return sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %x:%x %" SCNu64 " %4095[^\n]",
		      &m->start, &m->end, m->perms, &offset, &m->major, &m->minor, &m->inode,
		      m->path) >= 7;
}

static int look_at_mappings(struct process *p, FILE *maps)
{
	static char line[PATH_MAX + 128];
	static struct mapping m;
	int err = 0, one;

	/* All of them, so that what can be seen is told. */
	while (fgets(line, sizeof(line), maps)) {
		if (!parse_mapping(line, &m))
			continue;
		one = look_at_mapping(p, &m);
		if (one && !err)
			err = one;
	}
	return err;
}

static void read_name(struct process *p)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)p->pid);
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(p->comm, sizeof(p->comm), f))
		p->comm[strcspn(p->comm, "\n")] = 0;
	fclose(f);
}

static bool is_gone(pid_t pid)
{
	char path[64], exe[8];

	/* The kernel's own have none. */
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	return readlink(path, exe, sizeof(exe)) < 0 && (errno == ENOENT || errno == ESRCH);
}

int look_at(struct process *p, pid_t pid)
{
	char path[64];
	FILE *maps;
	int err;

	memset(p, 0, sizeof(*p));
	p->pid = pid;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "re");
	if (!maps)
		return errno == ENOENT ? -ESRCH : -errno;
	read_name(p);
	err = look_at_mappings(p, maps);
	fclose(maps);
	return is_gone(pid) ? -ESRCH : err;
}
