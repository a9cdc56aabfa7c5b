// SPDX-License-Identifier: MIT
/*
 * What can be seen of a process from outside: whose code is mapped, and what the provider
 * publishes in it.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "look.h"

/**
 * struct mapping - a line of /proc/PID/maps
 */
struct mapping {
	uint64_t start, end, offset;
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

/* In a piece of a file: each what only both of two names say. */
enum { CLIENT_13 = 1, SERVER_13 = 2, CLIENT_12 = 4, SERVER_12 = 8, MAGIC = 16 };

/*
 * Whoever does TLS has the names that its key schedule hashes: RFC 8446, 7.1, for 1.3, and
 * RFC 5246, 7.4.9, for what came before.
 */
static int examine(const void *bytes, size_t len)
{
	return (holds(bytes, len, 'c', " ap traffic") ? CLIENT_13 : 0) |
	       (holds(bytes, len, 's', " ap traffic") ? SERVER_13 : 0) |
	       (holds(bytes, len, 'c', "lient finished") ? CLIENT_12 : 0) |
	       (holds(bytes, len, 's', "erver finished") ? SERVER_12 : 0) |
	       (holds(bytes, len, PUBLISHED_MAGIC[0], PUBLISHED_MAGIC + 1) ? MAGIC : 0);
}

static bool has_both(int seen, int both)
{
	return (seen & both) == both;
}

#define PIECE		(1 << 20)
/* What a piece may have of a name that goes on in the next. */
#define OVERLAP		31
/* Of a file, and of what is mapped writable of one: more has no library. */
#define FILE_MAX	(1LL << 30)
#define DATA_MAX	(64UL << 20)

/*
 * Read, not mapped: the process may truncate its file meanwhile, and what is not there of a
 * sparse one would take memory.
 */
static int examine_fd(int fd)
{
	static uint8_t piece[OVERLAP + PIECE];
	size_t kept = 0, len;
	int seen = 0;
	off_t at = 0;
	ssize_t got;

	while ((got = pread(fd, piece + kept, PIECE, at)) > 0) {
		at += got;
		if (at > FILE_MAX)
			return -EFBIG;
		len = kept + got;
		seen |= examine(piece, len);
		kept = len < OVERLAP ? len : OVERLAP;
		memmove(piece, piece + len - kept, kept);
	}
	if (got < 0)
		return -errno;
	return (has_both(seen, CLIENT_13 | SERVER_13) || has_both(seen, CLIENT_12 | SERVER_12) ?
		HAS_TLS : 0) | (seen & MAGIC ? HAS_PROVIDER : 0);
}

static int open_beneath(int root, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};

	return syscall(SYS_openat2, root, path, &how, sizeof(how));
}

static bool is_mapped_file(int fd, const struct mapping *m)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_ino == m->inode &&
	       st.st_dev == makedev(m->major, m->minor);
}

/* By its name, in the process's root: whose links lead nowhere else, and only what is mapped. */
static int find_by_name(const struct process *p, const struct mapping *m)
{
	char path[64];
	int root, fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/root", (int)p->pid, (int)p->tid);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return -errno;
	fd = open_beneath(root, m->path);
	if (fd < 0)
		fd = -errno;
	close(root);
	if (fd >= 0 && !is_mapped_file(fd, m)) {
		close(fd);
		return -ESTALE;
	}
	return fd;
}

/* Found, and not opened: opening what is no file, a FIFO or a device, does something. */
static int find_mapped(const struct process *p, const struct mapping *m)
{
	char path[128];
	int fd;

	/* The file that is mapped, even if there is another of its name, or none. */
	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)p->tid,
		 m->start, m->end);
	fd = open(path, O_PATH | O_CLOEXEC);
	return fd >= 0 ? fd : find_by_name(p, m);
}

/* A descriptor; -EISDIR: it is no file with code. */
static int open_mapped(const struct process *p, const struct mapping *m, struct stat *st)
{
	int found = find_mapped(p, m), fd;
	char path[64];

	if (found < 0)
		return found;
	if (fstat(found, st)) {
		fd = -errno;
	} else if (!S_ISREG(st->st_mode)) {
		fd = -EISDIR;
	} else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", found);
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			fd = -errno;
	}
	close(found);
	return fd;
}

/* By bits; negative: it cannot be read. */
static int what_is_in(const struct process *p, const struct mapping *m)
{
	struct known_file *more;
	struct stat st;
	int fd, what;
	size_t i;

	fd = open_mapped(p, m, &st);
	if (fd < 0)
		return fd == -EISDIR ? 0 : fd;
	for (i = 0; i < nr_known_files; i++)
		if (known_files[i].dev == st.st_dev && known_files[i].inode == st.st_ino) {
			what = known_files[i].what;
			goto out;
		}
	what = examine_fd(fd);
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
	uint8_t *bytes;
	ssize_t got;

	if (len > DATA_MAX)
		return -EFBIG;
	bytes = malloc(len);
	if (!bytes)
		return -ENOMEM;
	got = read_from(p->tid, bytes, m->start, len);
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
		if (!strcmp(p->objects[i].path, m->path)) {
			/* Its code in parts has each once: dlmopen() has it all once more. */
			p->objects[i].copies += p->objects[i].offset == m->offset;
			return;
		}
	if (p->nr_objects == OBJECTS_MAX) {
		p->more = true;
		return;
	}
	o = &p->objects[p->nr_objects++];
	strcpy(o->path, m->path);
	o->is_tls = is_tls;
	o->offset = m->offset;
	o->copies = 1;
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
	what = what_is_in(p, m);
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

/* Line by line, however long one is: who is looked at has chosen the paths. */
static int parse_mapping(const char *line, struct mapping *m)
{
	int path = 0;
	size_t len;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %x:%x %" SCNu64 " %n",
		   &m->start, &m->end, m->perms, &m->offset, &m->major, &m->minor, &m->inode,
		   &path) != 7 || !path)
		return -EPROTO;
	len = strcspn(line + path, "\n");
	if (len >= sizeof(m->path))
		return -ENAMETOOLONG;
	memcpy(m->path, line + path, len);
	m->path[len] = 0;
	return 0;
}

/* -EAGAIN: the list is empty, as that of a thread that has ended. */
static int look_at_mappings(struct process *p, FILE *maps)
{
	static struct mapping m;
	int err = -EAGAIN, one;
	char *line = NULL;
	size_t room = 0;

	/* All of them, so that what can be seen is told. */
	while (getline(&line, &room, maps) > 0) {
		if (err == -EAGAIN)
			err = 0;
		one = parse_mapping(line, &m);
		if (!one)
			one = look_at_mapping(p, &m);
		if (one && !err)
			err = one == -EAGAIN ? -EIO : one;
	}
	if (!feof(maps) && (!err || err == -EAGAIN))
		err = -EIO;
	free(line);
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

static FILE *open_maps(pid_t pid, pid_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/maps", (int)pid, (int)tid);
	return fopen(path, "re");
}

/* Not one that ended while its list was read, which then ends early. */
static bool has_memory(pid_t pid, pid_t tid)
{
	FILE *maps = open_maps(pid, tid);
	bool has = maps && fgetc(maps) != EOF;

	if (maps)
		fclose(maps);
	return has;
}

static int look_at_thread(struct process *p, pid_t pid, pid_t tid)
{
	FILE *maps = open_maps(pid, tid);
	int err;

	if (!maps)
		return errno == ENOENT || errno == ESRCH ? -EAGAIN : -errno;
	memset(p, 0, sizeof(*p));
	p->pid = pid;
	p->tid = tid;
	read_name(p);
	err = look_at_mappings(p, maps);
	fclose(maps);
	return has_memory(pid, tid) ? err : -EAGAIN;
}

/**
 * struct life - of a process or thread, by its "stat"
 */
struct life {
	char state;
	unsigned int flags;
	unsigned long long start;
};

/* The kernel's PF_KTHREAD: it has no memory of its own. */
#define IS_THE_KERNELS	0x00200000

static int read_life(const char *path, struct life *life)
{
	FILE *f = fopen(path, "re");
	char line[1024], *end;
	int err = 0;

	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	if (!fgets(line, sizeof(line), f))
		err = -ESRCH;
	fclose(f);
	if (err)
		return err;
	/* Its name, which may be anything, is in parentheses. */
	end = strrchr(line, ')');
	if (!end || sscanf(end + 1, " %c %*d %*d %*d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d"
			   " %*d %*d %*d %*d %llu", &life->state, &life->flags,
			   &life->start) != 3)
		return -EPROTO;
	return 0;
}

static int life_of(pid_t pid, struct life *life)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	return read_life(path, life);
}

static bool is_dead(pid_t pid, const char *tid)
{
	struct life life;
	char path[320];
	int err;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", (int)pid, tid);
	err = read_life(path, &life);
	return err == -ESRCH || (!err && (life.state == 'Z' || life.state == 'X'));
}

/*
 * By whichever of its threads has the memory: the first may have ended before the others.
 * -EAGAIN: none has; -ESRCH: all have ended.
 */
static int look_at_threads(struct process *p, pid_t pid)
{
	struct dirent *entry;
	int err = -ESRCH;
	char path[64];
	DIR *threads;
	int one;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	threads = opendir(path);
	if (!threads)
		return errno == ENOENT ? -ESRCH : -errno;
	while ((entry = readdir(threads))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		one = look_at_thread(p, pid, atoi(entry->d_name));
		if (one != -EAGAIN) {
			err = one;
			break;
		}
		if (!is_dead(pid, entry->d_name))
			err = -EAGAIN;
	}
	closedir(threads);
	return err;
}

#define TRIES		20
#define PAUSE_US	10000

int look_at(struct process *p, pid_t pid)
{
	struct life before, after;
	int err, tries;

	err = life_of(pid, &before);
	if (err)
		return err;
	if (before.flags & IS_THE_KERNELS)
		return -ESRCH;
	for (tries = 0; tries < TRIES; tries++) {
		err = look_at_threads(p, pid);
		/* The same, and not another that has its number now. */
		if (life_of(pid, &after) || after.start != before.start)
			return -ESRCH;
		if (err != -EAGAIN)
			return err;
		usleep(PAUSE_US);
	}
	/* There, and with nothing mapped: nobody has seen what it is. */
	return -EIO;
}
