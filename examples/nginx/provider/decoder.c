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
 * providers.  So the file is closed to it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/buffer.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>

#include "key.h"

/* Of what is read at a time: a key has at most some 7 KiB. */
#define TEXT_MAX	65536
/* And what libcrypto needs to look at the key. */
#define ROOM_SIZE	(TEXT_MAX + 65536)

static OSSL_FUNC_BIO_read_ex_fn *core_read;
static OSSL_FUNC_BIO_ctrl_fn *core_ctrl;

void decoder_start(const OSSL_DISPATCH *in)
{
	for (; in->function_id; in++) {
		if (in->function_id == OSSL_FUNC_BIO_READ_EX)
			core_read = OSSL_FUNC_BIO_read_ex(in);
		else if (in->function_id == OSSL_FUNC_BIO_CTRL)
			core_ctrl = OSSL_FUNC_BIO_ctrl(in);
	}
}

/* ---- where the text comes from */

static FILE *file_of(OSSL_CORE_BIO *bio)
{
	FILE *file = NULL;

	return core_ctrl(bio, BIO_C_GET_FILE_PTR, 0, &file) > 0 ? file : NULL;
}

static long position(OSSL_CORE_BIO *bio)
{
	return core_ctrl(bio, BIO_C_FILE_TELL, 0, NULL);
}

static void go_to(OSSL_CORE_BIO *bio, long position)
{
	core_ctrl(bio, BIO_C_FILE_SEEK, position, NULL);
}

/*
 * From here on, stdio has no more of the file at a time than it is asked for, and what it had
 * is gone.
 */
static void stop_buffering(FILE *file)
{
	flockfile(file);
	/* Where it goes on reading is a pointer's matter. */
	if (file->_IO_buf_base && !(file->_flags & 2 /* unbuffered */))
		explicit_bzero(file->_IO_buf_base, file->_IO_buf_end - file->_IO_buf_base);
	setvbuf(file, NULL, _IONBF, 0);
	funlockfile(file);
}

static size_t read_text(OSSL_CORE_BIO *bio, FILE *file, uint8_t *text, size_t size)
{
	size_t len = 0, got = 0;

	if (file)
		return fread(text, 1, size, file);
	while (len < size && core_read(bio, text + len, size - len, &got) > 0 && got)
		len += got;
	return len;
}

/* Whoever reads on has nothing there. */
static void shut(OSSL_CORE_BIO *bio, FILE *file)
{
	FILE *nothing;

	if (file) {
		nothing = fopen("/dev/null", "re");
		if (nothing && core_ctrl(bio, BIO_C_SET_FILE_PTR, BIO_CLOSE, nothing) <= 0)
			fclose(nothing);
	} else {
		/* Of memory: an empty one in its place. */
		BUF_MEM *empty = BUF_MEM_new();

		if (empty && core_ctrl(bio, BIO_C_SET_BUF_MEM, BIO_CLOSE, empty) <= 0)
			BUF_MEM_free(empty);
	}
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
	return selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY;
}

/**
 * struct reading - of one text
 * @start: where it begins
 */
struct reading {
	struct provider *prov;
	OSSL_CORE_BIO *bio;
	FILE *file;
	long start;
	struct pem pem;
	enum pem_verdict verdict;
	struct private_key *key;
};

static bool read_in_room(struct reading *r, struct room *room)
{
	uint8_t *text = arena_get(room->arena, TEXT_MAX);
	size_t len;

	if (!text)
		return false;
	len = read_text(r->bio, r->file, text, TEXT_MAX);
	r->verdict = pem_read(text, len, &r->pem);
	if (r->verdict != PEM_KEY)
		return true;
	r->key = key_make(r->prov, key_kinds[r->pem.type].name);
	return r->key && key_take(r->key, &r->pem);
}

static bool read_key(struct reading *r)
{
	struct room *room;
	struct inside in;
	size_t i;
	bool ok;

	/* RSA draws nothing here, and has nothing to draw from while the guard works. */
	for (i = 0; i < NR_KINDS; i++)
		if (i != PEM_RSA && !key_get_ready(r->prov, &key_kinds[i]))
			return false;
	room = room_make(r->prov, ROOM_SIZE);
	if (!room)
		return false;
	ok = room_enter(room, &in, key_kinds[PEM_RSA].stack);
	if (ok) {
		ok = read_in_room(r, room);
		ok = room_leave(&in) && ok;
		if (!ok)
			raise(r->prov, EPK_R_KEY_FILE, "%s", r->key ? r->key->type :
			      "no room for it");
	}
	room_free(room);
	return ok && (r->verdict != PEM_KEY || key_make_public(r->key));
}

static int hand_over(struct reading *r, OSSL_CALLBACK *cb, void *arg)
{
	struct key_reference reference = { KEY_REFERENCE, r->key, 0 };
	int type = OSSL_OBJECT_PKEY;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &type),
		OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE,
						 (char *)r->key->type, 0),
		OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &reference,
						  sizeof(reference)),
		OSSL_PARAM_construct_end()
	};

	go_to(r->bio, r->start + r->pem.end);
	return cb(params, arg);
}

static int refuse_file(const struct reading *r)
{
	if (r->verdict == PEM_REFUSED)
		raise(r->prov, EPK_R_KEY_FILE, "%s; \"private_keys = any\" leaves it to others",
		      r->pem.why);
	shut(r->bio, r->file);
	return 0;
}

static int decoder_decode(void *d, OSSL_CORE_BIO *bio, int selection, OSSL_CALLBACK *cb,
			  void *arg, OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
	struct reading r = { .prov = ((struct decoder *)d)->prov, .bio = bio };
	int done = 1;

	(void)ask;
	(void)ask_arg;
	if (!takes_selection(NULL, selection))
		return 1;
	r.file = file_of(bio);
	r.start = position(bio);
	if (r.file)
		stop_buffering(r.file);
	if (!read_key(&r) || r.verdict == PEM_REFUSED)
		done = refuse_file(&r);
	else if (r.verdict == PEM_KEY)
		done = hand_over(&r, cb, arg);
	key_drop(r.key);
	return done;
}

#define FN(id, f)	{ OSSL_FUNC_DECODER_##id, (void (*)(void))(f) }

const OSSL_DISPATCH pem_decoder_functions[] = {
	FN(NEWCTX, decoder_new),
	FN(FREECTX, decoder_free),
	FN(DOES_SELECTION, takes_selection),
	FN(DECODE, decoder_decode),
	{ 0, NULL }
};
