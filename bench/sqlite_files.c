// SPDX-License-Identifier: MIT
/* Files in memory, each with all the room that it may need. */
#include <string.h>

#include "sqlite_parts.h"

struct files {
	struct file {
		char name[FILE_NAME];
		long size;
		int lock;
		bool there;
	} files[FILES];
	char content[FILES][FILE_MOST];
};

size_t files_bytes(void)
{
	return sizeof(struct files);
}

/* Names are the caller's, and may change while they are read. */
static bool copy_name(char *name, const struct part_request *request)
{
	if (!request->data || request->len < 1 || request->len >= FILE_NAME)
		return false;
	memset(name, 0, FILE_NAME);
	memcpy(name, request->data, request->len);
	return true;
}

static int find(const struct files *files, const char *name)
{
	int i;

	for (i = 0; i < FILES; i++)
		if (files->files[i].there && !strcmp(files->files[i].name, name))
			return i;
	return -1;
}

static long open_file(struct files *files, const char *name, bool create)
{
	int i = find(files, name);

	if (i >= 0 || !create)
		return i;
	for (i = 0; i < FILES && files->files[i].there; i++)
		;
	if (i == FILES)
		return -1;
	files->files[i] = (struct file) { .there = true };
	strcpy(files->files[i].name, name);
	return i;
}

static long by_name(struct files *files, const struct part_request *request)
{
	char name[FILE_NAME];
	int i;

	if (!copy_name(name, request))
		return -1;
	if (request->op == FILE_OPEN)
		return open_file(files, name, request->a);
	i = find(files, name);
	if (request->op == FILE_REMOVE && i >= 0)
		files->files[i].there = false;
	return i >= 0;
}

static long read_file(struct files *files, const struct part_request *request)
{
	long size = files->files[request->handle].size, len = request->len;

	if (request->a >= size)
		return 0;
	if (len > size - request->a)
		len = size - request->a;
	memcpy(request->data, files->content[request->handle] + request->a, len);
	return len;
}

/* What a file grows by is zero, whatever was there. */
static void resize(struct files *files, int handle, long size)
{
	struct file *file = &files->files[handle];

	if (size > file->size)
		memset(files->content[handle] + file->size, 0, size - file->size);
	file->size = size;
}

static long write_file(struct files *files, const struct part_request *request)
{
	if (request->a > files->files[request->handle].size)
		resize(files, request->handle, request->a);
	memcpy(files->content[request->handle] + request->a, request->data, request->len);
	if (request->a + request->len > files->files[request->handle].size)
		files->files[request->handle].size = request->a + request->len;
	return 0;
}

static bool sane(const struct files *files, const struct part_request *request)
{
	return request->handle >= 0 && request->handle < FILES &&
	       files->files[request->handle].there && request->a >= 0 && request->a <= FILE_MOST &&
	       request->len >= 0 && request->len <= FILE_MOST - request->a &&
	       (request->data || !request->len);
}

long files_serve(void *mem, const struct part_request *request)
{
	struct files *files = mem;
	struct file *file;

	if (request->op == FILE_OPEN || request->op == FILE_REMOVE || request->op == FILE_EXISTS)
		return by_name(files, request);
	if (!sane(files, request))
		return -1;
	file = &files->files[request->handle];
	switch (request->op) {
	case FILE_READ:
		return read_file(files, request);
	case FILE_WRITE:
		return write_file(files, request);
	case FILE_TRUNCATE:
		resize(files, request->handle, request->a);
		return 0;
	case FILE_SYNC:
		return 0;
	case FILE_SIZE:
		return file->size;
	case FILE_LOCK:
		file->lock = request->a;
		return 0;
	case FILE_LOCKED:
		return file->lock > 1;
	default:
		return -1;
	}
}
