// SPDX-License-Identifier: MIT
/*
 * Private keys from files.
 *
 * A program that reads one by OpenSSL's functions for PEM comes here before OpenSSL's own
 * decoders have seen a byte: what is called "PEM" and takes PEM, OpenSSL asks first.  The
 * text is read into a room, and what libc or OpenSSL would keep of it does not come to be.
 *
 * What is no private key is left to the others.  A private key that the provider does not
 * take is an error, and nobody's: OpenSSL would try it with code of before there were
 * providers.  So the file is closed to it.  Where that cannot be done, as with the buffer that
 * OpenSSL puts before a pipe, OpenSSL gets a key in place of it, with which nothing can be done.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/buffer.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>

#include "key.h"
#include "leftovers.h"

/* Of what is read at a time: a key has at most some 7 KiB. */
#define TEXT_MAX	65536
/* And what libcrypto needs to look at the key. */
#define ROOM_SIZE	(TEXT_MAX + 65536)

static OSSL_FUNC_BIO_read_ex_fn *core_read;
static OSSL_FUNC_BIO_ctrl_fn *core_ctrl;

void epkp_decoder_start(const OSSL_DISPATCH *in)
{
	for (; in->function_id; in++) {
		if (in->function_id == OSSL_FUNC_BIO_READ_EX)
			core_read = OSSL_FUNC_BIO_read_ex(in);
		else if (in->function_id == OSSL_FUNC_BIO_CTRL)
			core_ctrl = OSSL_FUNC_BIO_ctrl(in);
	}
}

/* ---- where the text comes from */

enum source { FROM_FILE, FROM_MEMORY, FROM_ELSEWHERE };

static bool is_nowhere(OSSL_CORE_BIO *bio)
{
	int fd = -1;

	core_ctrl(bio, BIO_C_GET_FD, 0, &fd);
	return fd < 0 && core_ctrl(bio, BIO_CTRL_EOF, 0, NULL) > 0;
}

/* Buffers pass on who they read from, but not what there is, and may have some of it. */
static enum source source_of(OSSL_CORE_BIO *bio, FILE **file)
{
	uint8_t *data = NULL;
	long pending = core_ctrl(bio, BIO_CTRL_PENDING, 0, NULL);

	*file = NULL;
	if (pending <= 0 && core_ctrl(bio, BIO_C_GET_FILE_PTR, 0, file) > 0 && *file &&
	    core_ctrl(bio, BIO_C_FILE_TELL, 0, NULL) >= 0)
		return FROM_FILE;
	*file = NULL;
	if (core_ctrl(bio, BIO_CTRL_INFO, 0, &data) == pending && data)
		return FROM_MEMORY;
	return pending <= 0 && is_nowhere(bio) ? FROM_MEMORY : FROM_ELSEWHERE;
}

static long position(OSSL_CORE_BIO *bio)
{
	return core_ctrl(bio, BIO_C_FILE_TELL, 0, NULL);
}

static void go_to(OSSL_CORE_BIO *bio, long position)
{
	core_ctrl(bio, BIO_C_FILE_SEEK, position, NULL);
}

/* Not by way of stdio's buffer. */
static size_t read_file(FILE *file, uint8_t *text, size_t size)
{
	int fd = fileno(file);
	long at = ftell(file);
	size_t len = 0;
	ssize_t got;

	if (fd < 0 || at < 0) {
		len = fread(text, 1, size, file);
		epkp_forget_buffer(file);
		return len;
	}
	do {
		got = pread(fd, text + len, size - len, at + len);
		len += got > 0 ? got : 0;
	} while ((got > 0 && len < size) || (got < 0 && errno == EINTR));
	return len;
}

static size_t read_text(OSSL_CORE_BIO *bio, FILE *file, uint8_t *text, size_t size)
{
	size_t len = 0, got = 0;

	if (file)
		return read_file(file, text, size);
	while (len < size && core_read(bio, text + len, size - len, &got) > 0 && got)
		len += got;
	return len;
}

static bool has_nothing(OSSL_CORE_BIO *bio, long from)
{
	uint8_t byte;
	size_t got = 0;
	bool nothing;

	go_to(bio, from);
	nothing = core_read(bio, &byte, 1, &got) <= 0 || !got;
	OPENSSL_cleanse(&byte, 1);
	return nothing;
}

static ssize_t read_nothing(void *cookie, char *to, size_t size)
{
	(void)cookie;
	(void)to;
	(void)size;
	return 0;
}

/* In place of the file, one that needs no descriptor. */
static void shut_file(OSSL_CORE_BIO *bio)
{
	FILE *file = fopencookie(NULL, "r", (cookie_io_functions_t){ .read = read_nothing });

	if (file && core_ctrl(bio, BIO_C_SET_FILE_PTR, BIO_CLOSE, file) <= 0)
		fclose(file);
}

/*
 * What has been read to its end is empty from then on, where it lies: whose it is may go on
 * using it.  But what may not be written to can be read again; that is in nobody's buffer.
 */
static void shut_memory(OSSL_CORE_BIO *bio, long start)
{
	BUF_MEM *buf = NULL;

	if (core_ctrl(bio, BIO_C_GET_BUF_MEM_PTR, 0, &buf) <= 0 || has_nothing(bio, start))
		return;
	buf = BUF_MEM_new();
	if (buf && core_ctrl(bio, BIO_C_SET_BUF_MEM, BIO_CLOSE, buf) <= 0)
		BUF_MEM_free(buf);
}

/* Whether whoever reads on has nothing there. */
static bool shut(OSSL_CORE_BIO *bio, enum source source, long start)
{
	int none = -1;

	if (source == FROM_FILE)
		shut_file(bio);
	else if (source == FROM_MEMORY)
		shut_memory(bio, start);
	else if (core_ctrl(bio, BIO_C_SET_FD, BIO_NOCLOSE, &none) <= 0)
		return false;
	return has_nothing(bio, start) && has_nothing(bio, 0);
}

/* ---- */

struct decoder {
	struct provider *prov;
};

static void *decoder_new(void *prov)
{
	struct decoder *d = calloc(1, sizeof(*d));

	if (d)
		d->prov = prov;
	return d;
}

static void decoder_free(void *d)
{
	free(d);
}

/* Not what is looked for without saying what: OpenSSL's store has no use for keys of others. */
static int takes_selection(void *prov, int selection)
{
	(void)prov;
	return selection;
}

/**
 * struct reading - of one text
 * @start: where it begins
 */
struct reading {
	struct provider *prov;
	OSSL_CORE_BIO *bio;
	enum source source;
	FILE *file;
	long start;
	struct pem pem;
	enum pem_verdict verdict;
	struct private_key *key;
};

static bool read_in_room(struct reading *r, struct room *room)
{
	uint8_t *text = epkp_arena_get(room->arena, TEXT_MAX);
	size_t len;

	if (!text)
		return false;
	len = read_text(r->bio, r->file, text, TEXT_MAX);
	r->verdict = epkp_pem_read(text, len, len < TEXT_MAX, &r->pem);
	if (r->verdict != PEM_KEY)
		return true;
	r->key = epkp_key_make(r->prov, epkp_key_kinds[r->pem.type].name);
	return r->key && epkp_key_take(r->key, &r->pem);
}

static bool in_room(struct reading *r, bool (*read)(struct reading *r, struct room *room))
{
	struct room *room = epkp_room_make(r->prov, ROOM_SIZE);
	struct inside in;
	bool ok;

	if (!room)
		return false;
	ok = epkp_room_enter(room, &in, epkp_key_kinds[PEM_RSA].stack);
	if (ok) {
		ok = read(r, room);
		ok = epkp_room_leave(&in) && ok;
		if (!ok)
			raise(r->prov, EPK_R_KEY_FILE, "%s", r->key ? r->key->type :
			      "no room for it");
	}
	epkp_room_free(room);
	return ok;
}

/* Going there, stdio reads the file's page from its start, and so what is before. */
static void leave_at(const struct reading *r, long position)
{
	go_to(r->bio, position);
	if (r->file)
		epkp_forget_buffer(r->file);
}

/* ---- what is looked for is something else, where a key may be in the way */

static bool look_in_room(struct reading *r, struct room *room)
{
	uint8_t *text = epkp_arena_get(room->arena, TEXT_MAX);

	if (text && epkp_pem_is_key(text, read_text(r->bio, r->file, text, TEXT_MAX), &r->pem.end))
		r->verdict = PEM_KEY;
	return text;
}

static bool begins_as_other(const struct reading *r)
{
	uint8_t telling[PEM_TELLING];
	bool other = read_text(r->bio, r->file, telling, sizeof(telling)) == sizeof(telling) &&
		     epkp_pem_is_other(telling);

	OPENSSL_cleanse(telling, sizeof(telling));
	go_to(r->bio, r->start);
	return other;
}

/*
 * OpenSSL's decoder, which is next, would leave what the key's text encodes on the heap.  Who
 * asks goes on behind it then.
 */
static int skip_key(struct reading *r)
{
	r->source = source_of(r->bio, &r->file);
	r->start = position(r->bio);
	if (r->source == FROM_ELSEWHERE || begins_as_other(r))
		return 1;
	if (!in_room(r, look_in_room))
		return 0;
	leave_at(r, r->start + (r->verdict == PEM_KEY ? r->pem.end : 0));
	return r->verdict != PEM_KEY;
}

/* ---- */

static bool read_key(struct reading *r)
{
	size_t i;

	/* RSA draws nothing here, and has nothing to draw from while the cipher check works. */
	for (i = 0; i < NR_KINDS; i++)
		if (i != PEM_RSA && !epkp_key_get_ready(r->prov, &epkp_key_kinds[i]))
			return false;
	return in_room(r, read_in_room) && (r->verdict != PEM_KEY || epkp_key_make_public(r->key));
}

static int hand_over(const struct private_key *key, OSSL_CALLBACK *cb, void *arg)
{
	struct key_reference reference = { KEY_REFERENCE, (struct private_key *)key, 0 };
	int type = OSSL_OBJECT_PKEY;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &type),
		OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE, (char *)key->type, 0),
		OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &reference,
						  sizeof(reference)),
		OSSL_PARAM_construct_end()
	};

	return cb(params, arg);
}

static int refuse_file(const struct reading *r, OSSL_CALLBACK *cb, void *arg)
{
	struct private_key *nothing;
	int done = 0;

	if (r->verdict == PEM_REFUSED)
		raise(r->prov, EPK_R_KEY_FILE, "%s; \"private_keys = any\" leaves it to others",
		      r->pem.why);
	if (shut(r->bio, r->source, r->start))
		return 0;
	nothing = epkp_key_make(r->prov, epkp_key_kinds[PEM_EC].name);
	if (nothing) {
		nothing->refused = r->pem.why ? r->pem.why : "it cannot be read";
		done = hand_over(nothing, cb, arg);
	}
	epkp_key_drop(nothing);
	return done;
}

static bool is_readable(struct reading *r)
{
	r->source = source_of(r->bio, &r->file);
	r->start = position(r->bio);
	if (r->source != FROM_ELSEWHERE)
		return true;
	/* A buffer before it would keep the text. */
	r->verdict = PEM_REFUSED;
	r->pem.why = "it is neither in a file nor in memory: pipes are not supported";
	return false;
}

static int decoder_decode(void *d, OSSL_CORE_BIO *bio, int selection, OSSL_CALLBACK *cb,
			  void *arg, OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
	struct reading r = { .prov = ((struct decoder *)d)->prov, .bio = bio };
	int done = 1;

	(void)ask;
	(void)ask_arg;
	if (!(selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY))
		return selection ? skip_key(&r) : 1;
	if (is_readable(&r) && r.file)
		epkp_forget_buffer(r.file);
	if (r.verdict == PEM_REFUSED || !read_key(&r) || r.verdict == PEM_REFUSED) {
		done = refuse_file(&r, cb, arg);
	} else if (r.verdict == PEM_KEY) {
		leave_at(&r, r.start + r.pem.end);
		done = hand_over(r.key, cb, arg);
		if (!done)
			done = refuse_file(&r, cb, arg);
	}
	epkp_key_drop(r.key);
	return done;
}

#define FN(id, f)	{ OSSL_FUNC_DECODER_##id, (void (*)(void))(f) }

const OSSL_DISPATCH epkp_pem_decoder_functions[] = {
	FN(NEWCTX, decoder_new),
	FN(FREECTX, decoder_free),
	FN(DOES_SELECTION, takes_selection),
	FN(DECODE, decoder_decode),
	{ 0, NULL }
};
