// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <epk.h>

#include "sqlite_storage.h"

#define RW		(PROT_READ | PROT_WRITE)
#define PAGE		4096
/* Of a frame: SQLite's structure, what SQLite keeps beside the page, the page. */
#define AT_EXTRA	16
#define AT_PAGE		512
#define BUFFER		(64 << 10)

/* Read only after the start: components go by it, and trust nothing else that is ordinary memory. */
static union {
	struct {
		enum storage_way way;
		struct storage_domains domains;
		void *files, *cache;
		char *frames;
		bool one_at_a_time;
		int socket;
	};
	char page[PAGE];
} here __attribute__((aligned(PAGE)));

/* The call that is under way, and its data if that does not lie in a page of the cache. */
static struct part_request call;
static char buffer[BUFFER];

static void need(bool well, const char *what)
{
	if (well)
		return;
	fprintf(stderr, "sqlite: %s: %s\n", what, strerror(errno));
	_exit(1);
}

/* The parts' side. */

static bool lies_in(const void *data, long len, const char *memory, size_t bytes)
{
	size_t at = (const char *)data - memory;

	return len >= 0 && at <= bytes && (size_t)len <= bytes - at;
}

/* Is a request's data what a part may touch for anybody? */
static bool may_touch(const struct part_request *request)
{
	return !request->data || lies_in(request->data, request->len, buffer, BUFFER) ||
	       lies_in(request->data, request->len, here.frames, CACHE_SLOTS * STORAGE_FRAME);
}

/* What others write to meanwhile is read once. */
static struct part_request read_call(void)
{
	struct part_request request = call;

	asm volatile("" : : : "memory");
	return request;
}

static long files_entry(void *arg)
{
	struct part_request request = read_call();
	bool in_frames = request.data && !lies_in(request.data, request.len, buffer, BUFFER);
	long reply;

	(void)arg;
	if (!may_touch(&request) || request.op >= CACHE_CREATE)
		return -1;
	if (in_frames && domain_begin(here.domains.pages, RW))
		return -1;
	reply = files_serve(here.files, &request);
	if (in_frames && domain_end(here.domains.pages))
		abort();
	return reply;
}

static long cache_entry(void *arg)
{
	struct part_request request = read_call();

	(void)arg;
	return cache_serve(here.cache, &request);
}

static long serve(const struct part_request *request)
{
	return request->op < CACHE_CREATE ? files_serve(here.files, request) :
					    cache_serve(here.cache, request);
}

/* A server, to which a request is a message, with the data that goes there. */

static bool data_goes(int op)
{
	return op == FILE_OPEN || op == FILE_WRITE || op == FILE_REMOVE || op == FILE_EXISTS;
}

static void server(int fd)
{
	static char data[BUFFER];
	struct part_request request;
	struct iovec there[] = { { &request, sizeof(request) }, { data, BUFFER } };
	long reply;
	struct iovec back[] = { { &reply, sizeof(reply) }, { data, 0 } };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (readv(fd, there, 2) > 0) {
		request.data = data;
		reply = serve(&request);
		back[1].iov_len = request.op == FILE_READ && reply > 0 ? reply : 0;
		need(writev(fd, back, 2) > 0, "the server's reply");
	}
	_exit(0);
}

static long ask_server(const struct part_request *request)
{
	long reply = -1;
	struct iovec there[] = {
		{ (void *)request, sizeof(*request) },
		{ request->data, data_goes(request->op) ? request->len : 0 },
	};
	struct iovec back[] = {
		{ &reply, sizeof(reply) },
		{ request->data, request->op == FILE_READ ? request->len : 0 },
	};

	need(request->len <= BUFFER, "a message of that length");
	need(writev(here.socket, there, 2) > 0, "a message");
	need(readv(here.socket, back, 2) > 0, "a reply");
	return reply;
}

/* SQLite's side. */

static int part_of(const struct part_request *request)
{
	return request->op < CACHE_CREATE ? here.domains.files : here.domains.cache;
}

static long call_held(const struct part_request *request)
{
	int domain = part_of(request);
	long reply;

	if (domain_begin(domain, RW))
		abort();
	reply = serve(request);
	if (domain_end(domain))
		abort();
	return reply;
}

/* What is held would be put aside for the call, which takes longer. */
static long call_gate(const struct part_request *request)
{
	long reply = -1;

	call = *request;
	if (domain_end(here.domains.pages))
		abort();
	if (epk_gate_call(part_of(request), 0, NULL, &reply))
		abort();
	if (domain_begin(here.domains.pages, RW))
		abort();
	return reply;
}

/* Through the buffer, where the part cannot or must not reach the data. */
static long call_by_buffer(const struct part_request *request)
{
	struct part_request copy = *request;
	long reply;

	need(request->len <= BUFFER, "data of that length");
	copy.data = buffer;
	if (data_goes(request->op))
		memcpy(buffer, request->data, request->len);
	reply = here.way == STORAGE_GATES ? call_gate(&copy) : call_held(&copy);
	if (request->op == FILE_READ && reply > 0)
		memcpy(request->data, buffer, reply);
	return reply;
}

long storage_send(const struct part_request *request)
{
	return here.way == STORAGE_GATES ? call_gate(request) : call_held(request);
}

static long storage_call(const struct part_request *request)
{
	switch (here.way) {
	case STORAGE_CALLS:
		return serve(request);
	case STORAGE_SOCKET:
		return ask_server(request);
	case STORAGE_HELD:
		return here.one_at_a_time && request->data ? call_by_buffer(request) :
							     call_held(request);
	default:
		return may_touch(request) ? call_gate(request) : call_by_buffer(request);
	}
}

static bool opens_pages(void)
{
	return here.way == STORAGE_HELD || here.way == STORAGE_GATES;
}

void storage_enter(void)
{
	if (opens_pages() && domain_begin(here.domains.pages, RW))
		abort();
}

void storage_leave(void)
{
	if (opens_pages() && domain_end(here.domains.pages))
		abort();
}

/* The file system, as SQLite wants one. */

struct open_file {
	struct sqlite3_file base;
	int handle;
	bool temporary;
	char name[FILE_NAME];
};

static long ask(sqlite3_file *base, int op, long a)
{
	struct open_file *file = (struct open_file *)base;
	struct part_request request = { .op = op, .handle = file->handle, .a = a };

	return storage_call(&request);
}

static long ask_by_name(int op, const char *name, long a)
{
	struct part_request request = {
		.op = op, .a = a, .len = strlen(name), .data = (void *)name,
	};

	return storage_call(&request);
}

static int vfs_close(sqlite3_file *base)
{
	struct open_file *file = (struct open_file *)base;

	if (file->temporary)
		ask_by_name(FILE_REMOVE, file->name, 0);
	return SQLITE_OK;
}

static int vfs_read(sqlite3_file *base, void *to, int len, sqlite3_int64 at)
{
	struct open_file *file = (struct open_file *)base;
	struct part_request request = {
		.op = FILE_READ, .handle = file->handle, .a = at, .len = len, .data = to,
	};
	long got = storage_call(&request);

	if (got < 0)
		return SQLITE_IOERR_READ;
	if (got == len)
		return SQLITE_OK;
	memset((char *)to + got, 0, len - got);
	return SQLITE_IOERR_SHORT_READ;
}

static int vfs_write(sqlite3_file *base, const void *from, int len, sqlite3_int64 at)
{
	struct open_file *file = (struct open_file *)base;
	struct part_request request = {
		.op = FILE_WRITE, .handle = file->handle, .a = at, .len = len, .data = (void *)from,
	};

	return storage_call(&request) ? SQLITE_FULL : SQLITE_OK;
}

static int vfs_truncate(sqlite3_file *base, sqlite3_int64 size)
{
	return ask(base, FILE_TRUNCATE, size) ? SQLITE_IOERR_TRUNCATE : SQLITE_OK;
}

static int vfs_sync(sqlite3_file *base, int flags)
{
	(void)flags;
	return ask(base, FILE_SYNC, 0) ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int vfs_size(sqlite3_file *base, sqlite3_int64 *size)
{
	*size = ask(base, FILE_SIZE, 0);
	return *size < 0 ? SQLITE_IOERR_FSTAT : SQLITE_OK;
}

static int vfs_lock(sqlite3_file *base, int level)
{
	return ask(base, FILE_LOCK, level) ? SQLITE_IOERR_LOCK : SQLITE_OK;
}

static int vfs_locked(sqlite3_file *base, int *locked)
{
	*locked = ask(base, FILE_LOCKED, 0) > 0;
	return SQLITE_OK;
}

static int vfs_control(sqlite3_file *base, int op, void *arg)
{
	(void)base;
	(void)op;
	(void)arg;
	return SQLITE_NOTFOUND;
}

static int vfs_sector(sqlite3_file *base)
{
	(void)base;
	return PAGE;
}

/* As SQLite's own says of most file systems. */
static int vfs_traits(sqlite3_file *base)
{
	(void)base;
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = vfs_close, .xRead = vfs_read, .xWrite = vfs_write, .xTruncate = vfs_truncate,
	.xSync = vfs_sync, .xFileSize = vfs_size, .xLock = vfs_lock, .xUnlock = vfs_lock,
	.xCheckReservedLock = vfs_locked, .xFileControl = vfs_control, .xSectorSize = vfs_sector,
	.xDeviceCharacteristics = vfs_traits,
};

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out)
{
	struct open_file *file = (struct open_file *)base;
	static int nr;

	(void)vfs;
	memset(file, 0, sizeof(*file));
	if (name && strlen(name) >= FILE_NAME)
		return SQLITE_CANTOPEN;
	if (name)
		strcpy(file->name, name);
	else
		sprintf(file->name, "temporary-%d", nr++);
	file->temporary = !name || flags & SQLITE_OPEN_DELETEONCLOSE;
	file->handle = ask_by_name(FILE_OPEN, file->name, flags & SQLITE_OPEN_CREATE);
	if (file->handle < 0)
		return SQLITE_CANTOPEN;
	file->base.pMethods = &methods;
	if (out)
		*out = flags;
	return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	(void)vfs;
	(void)sync;
	return ask_by_name(FILE_REMOVE, name, 0) > 0 ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
	(void)vfs;
	(void)flags;
	*result = ask_by_name(FILE_EXISTS, name, 0) > 0;
	return SQLITE_OK;
}

static int vfs_path(sqlite3_vfs *vfs, const char *name, int len, char *out)
{
	(void)vfs;
	return snprintf(out, len, "%s", name) < len ? SQLITE_OK : SQLITE_CANTOPEN;
}

/* The page cache, as SQLite wants one. */

struct page_cache {
	int handle;
	int extra;
};

static long ask_cache(sqlite3_pcache *of, int op, long a, long b)
{
	struct page_cache *cache = (struct page_cache *)of;
	struct part_request request = { .op = op, .handle = cache->handle, .a = a, .b = b };

	return storage_call(&request);
}

static int cache_up(void *arg)
{
	(void)arg;
	return SQLITE_OK;
}

static void cache_down(void *arg)
{
	(void)arg;
}

static sqlite3_pcache *cache_new(int page, int extra, int may_drop)
{
	struct part_request request = { .op = CACHE_CREATE, .a = may_drop };
	struct page_cache *cache = malloc(sizeof(*cache));

	need(cache && page <= STORAGE_FRAME - AT_PAGE && extra <= AT_PAGE - AT_EXTRA, "a page cache");
	*cache = (struct page_cache) { .handle = storage_call(&request), .extra = extra };
	need(cache->handle >= 0, "one more page cache");
	return (sqlite3_pcache *)cache;
}

static void cache_size(sqlite3_pcache *of, int pages)
{
	ask_cache(of, CACHE_LIMIT, pages, 0);
}

static int cache_pages(sqlite3_pcache *of)
{
	return ask_cache(of, CACHE_COUNT, 0, 0);
}

static sqlite3_pcache_page *cache_fetch(sqlite3_pcache *of, unsigned int key, int create)
{
	long reply = ask_cache(of, CACHE_FETCH, key, create);
	sqlite3_pcache_page *page;
	char *frame;

	if (reply < 0)
		return NULL;
	frame = here.frames + reply / 2 * STORAGE_FRAME;
	page = (sqlite3_pcache_page *)frame;
	if (reply % 2) {
		page->pBuf = frame + AT_PAGE;
		page->pExtra = frame + AT_EXTRA;
		memset(page->pExtra, 0, ((struct page_cache *)of)->extra);
	}
	return page;
}

static long slot_of(const sqlite3_pcache_page *page)
{
	return ((const char *)page - here.frames) / STORAGE_FRAME;
}

static void cache_unpin(sqlite3_pcache *of, sqlite3_pcache_page *page, int drop)
{
	ask_cache(of, CACHE_UNPIN, slot_of(page), drop);
}

static void cache_rekey(sqlite3_pcache *of, sqlite3_pcache_page *page, unsigned int old,
			unsigned int key)
{
	(void)old;
	ask_cache(of, CACHE_REKEY, slot_of(page), key);
}

static void cache_truncate(sqlite3_pcache *of, unsigned int from)
{
	ask_cache(of, CACHE_TRUNCATE, from, 0);
}

static void cache_shrink(sqlite3_pcache *of)
{
	ask_cache(of, CACHE_SHRINK, 0, 0);
}

static void cache_destroy(sqlite3_pcache *of)
{
	ask_cache(of, CACHE_DESTROY, 0, 0);
	free(of);
}

/* The start. */

static void *memory(int domain, size_t bytes)
{
	void *mem;

	if (domain)
		mem = domain_mmap(domain, NULL, bytes, RW, 0);
	else
		mem = mmap(NULL, bytes, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(mem != MAP_FAILED, "memory");
	return mem;
}

static void become_components(void)
{
	static long (*const files[])(void *arg) = { files_entry };
	static long (*const cache[])(void *arg) = { cache_entry };

	need(!epk_component_create(here.domains.files, files, 1, NULL), "epk_component_create");
	need(!epk_component_create(here.domains.cache, cache, 1, NULL), "epk_component_create");
}

int storage_fork(void (*serve)(int fd))
{
	int ends[2], pid;

	need(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), "socketpair");
	pid = fork();
	need(pid >= 0, "fork");
	if (!pid) {
		close(ends[0]);
		serve(ends[1]);
	}
	close(ends[1]);
	return ends[0];
}

static void register_with_sqlite(void)
{
	static sqlite3_vfs vfs;
	sqlite3_pcache_methods2 cache = {
		.iVersion = 1,
		.xInit = cache_up, .xShutdown = cache_down, .xCreate = cache_new,
		.xCachesize = cache_size, .xPagecount = cache_pages, .xFetch = cache_fetch,
		.xUnpin = cache_unpin, .xRekey = cache_rekey, .xTruncate = cache_truncate,
		.xDestroy = cache_destroy, .xShrink = cache_shrink,
	};

	need(!sqlite3_config(SQLITE_CONFIG_PCACHE2, &cache) && !sqlite3_initialize(), "SQLite");
	/* Time and chance are the machine's. */
	vfs = *sqlite3_vfs_find(NULL);
	vfs.zName = "parts";
	vfs.szOsFile = sizeof(struct open_file);
	vfs.xOpen = vfs_open;
	vfs.xDelete = vfs_delete;
	vfs.xAccess = vfs_access;
	vfs.xFullPathname = vfs_path;
	need(!sqlite3_vfs_register(&vfs, 1), "sqlite3_vfs_register");
}

void storage_start(enum storage_way way, const struct storage_domains *domains)
{
	here.way = way;
	if (way == STORAGE_HELD || way == STORAGE_GATES) {
		here.domains = *domains;
		here.one_at_a_time = !strcmp(epk_backend(), "vmfunc");
	}
	here.frames = memory(here.domains.pages, CACHE_SLOTS * STORAGE_FRAME);
	here.files = memory(here.domains.files, files_bytes());
	here.cache = memory(here.domains.cache, cache_bytes());
	need(!here.domains.cache || !domain_begin(here.domains.cache, RW), "domain_begin");
	cache_init(here.cache);
	need(!here.domains.cache || !domain_end(here.domains.cache), "domain_end");
	if (way == STORAGE_GATES)
		become_components();
	if (way == STORAGE_SOCKET)
		here.socket = storage_fork(server);
	need(!mprotect(&here, sizeof(here), PROT_READ), "mprotect");
	register_with_sqlite();
}

char *storage_pages(void)
{
	return here.frames;
}

char *storage_cache(void)
{
	return here.cache;
}

char *storage_files(void)
{
	return here.files;
}
