// SPDX-License-Identifier: MIT
/*
 * What is left of a PEM file in ordinary memory when somebody has read it.
 *
 * Whoever reads a certificate from a file that has its key besides reads the key's text as well:
 * it goes through stdio's buffer, and OpenSSL's code for PEM decodes each text on its way, in
 * memory that it frees as it is.  The provider is not asked for any of that.  But libcrypto's
 * memory comes from heap.c, which is told the name of the file that allocates it, and says
 * here what has to be wiped when it is freed.  And a BIO of a file, of libcrypto's own kind,
 * gets two functions before those that it has, which wipe stdio's buffer as it is given up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/bio.h>

#include "leftovers.h"

/* ---- memory to wipe, of which there are a few for each thread that reads PEM */

#define NR_SETS	512
#define NR_WAYS	16

struct noted {
	uintptr_t ptr;
	size_t size;
};

/* What a program keeps has further tables, which stay. */
struct table {
	struct noted sets[NR_SETS][NR_WAYS];
	struct table *next;
};

static struct table first_table;
unsigned int epkp_leftovers_noted;

static struct noted *set_of(struct table *table, const void *ptr)
{
	uintptr_t bits = (uintptr_t)ptr >> 4;

	return table->sets[(bits ^ bits >> 9 ^ bits >> 18) % NR_SETS];
}

static struct table *next_of(struct table *table)
{
	return __atomic_load_n(&table->next, __ATOMIC_ACQUIRE);
}

static struct table *add_table(struct table *last)
{
	struct table *next = NULL, *added = mmap(NULL, sizeof(*added), PROT_READ | PROT_WRITE,
						 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (added == MAP_FAILED)
		return NULL;
	if (__atomic_compare_exchange_n(&last->next, &next, added, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return added;
	munmap(added, sizeof(*added));
	return next;
}

static bool note_in(struct noted *set, const void *ptr, size_t size)
{
	uintptr_t none;
	int i;

	for (i = 0; i < NR_WAYS; i++) {
		none = 0;
		if (!__atomic_compare_exchange_n(&set[i].ptr, &none, (uintptr_t)ptr, false,
						 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			continue;
		set[i].size = size;
		__atomic_fetch_add(&epkp_leftovers_noted, 1, __ATOMIC_RELAXED);
		return true;
	}
	return false;
}

/* Nobody else has this: nobody waits for anybody, and a child of a fork finds no lock. */
bool epkp_leftover_note(const void *ptr, size_t size)
{
	struct table *table = &first_table, *next;

	while (!note_in(set_of(table, ptr), ptr, size)) {
		next = next_of(table);
		table = next ? next : add_table(table);
		if (!table)
			return false;
	}
	return true;
}

static struct noted *find(const void *ptr)
{
	struct table *table = &first_table;
	struct noted *set;
	int i;

	if (leftovers_none() || !ptr)
		return NULL;
	for (; table; table = next_of(table)) {
		set = set_of(table, ptr);
		for (i = 0; i < NR_WAYS; i++)
			if (__atomic_load_n(&set[i].ptr, __ATOMIC_RELAXED) == (uintptr_t)ptr)
				return &set[i];
	}
	return NULL;
}

size_t epkp_leftover_size(const void *ptr)
{
	const struct noted *n = find(ptr);

	return n ? n->size : 0;
}

void epkp_leftover_forget(const void *ptr)
{
	struct noted *n;

	while ((n = find(ptr))) {
		__atomic_fetch_sub(&epkp_leftovers_noted, 1, __ATOMIC_RELAXED);
		__atomic_store_n(&n->ptr, 0, __ATOMIC_RELEASE);
	}
}

/* ---- stdio's buffers */

#define UNBUFFERED	0x2	/* glibc's, of _flags */
#define WRITING		0x800
#define MAPPED		0x1	/* of _flags2: its buffer is the file, see fopen(3)'s "m" */

static bool has_read(const FILE *file)
{
	return file->_IO_buf_base && !(file->_flags & (UNBUFFERED | WRITING)) &&
	       !(file->_flags2 & MAPPED);
}

static void wipe_buffer(FILE *file)
{
	flockfile(file);
	if (has_read(file))
		explicit_bzero(file->_IO_buf_base, file->_IO_buf_end - file->_IO_buf_base);
	funlockfile(file);
}

/* Where there is no way back, as in a pipe, what has been read ahead has to stay. */
static void forget_locked(FILE *file)
{
	int before = errno;

	if (has_read(file) && !fflush(file) && file->_IO_read_ptr == file->_IO_read_end) {
		explicit_bzero(file->_IO_buf_base, file->_IO_buf_end - file->_IO_buf_base);
		/* Nor does it find its way within the buffer. */
		file->_IO_read_base = file->_IO_read_ptr = file->_IO_read_end = file->_IO_buf_base;
	}
	errno = before;
}

void epkp_forget_buffer(FILE *file)
{
	flockfile(file);
	forget_locked(file);
	funlockfile(file);
}

/* glibc's, of all that are open. */
extern FILE *_IO_list_all;
void _IO_list_lock(void);
void _IO_list_unlock(void);

/*
 * Its program may have closed it: who has it locked while it is in the list, has it open until he
 * unlocks it.  Nobody is waited for with the list locked: who has it is about to read more of it.
 */
static void forget_if_open(FILE *file)
{
	const FILE *f;
	bool locked;

	_IO_list_lock();
	for (f = _IO_list_all; f && f != file; f = f->_chain)
		;
	locked = f && !ftrylockfile(file);
	_IO_list_unlock();
	if (!locked)
		return;
	forget_locked(file);
	funlockfile(file);
}

/* ---- BIOs of files */

static int (*destroy_before)(BIO *bio);
static long (*ctrl_before)(BIO *bio, int cmd, long num, void *ptr);

static void give_up_file(BIO *bio)
{
	FILE *file = NULL;

	if (!BIO_get_init(bio) || BIO_get_fp(bio, &file) <= 0 || !file)
		return;
	if (BIO_get_close(bio))
		wipe_buffer(file);
	else
		forget_if_open(file);
}

static int destroy(BIO *bio)
{
	if (bio)
		give_up_file(bio);
	return destroy_before(bio);
}

static long ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	if (cmd == BIO_C_SET_FILENAME || cmd == BIO_C_SET_FILE_PTR)
		give_up_file(bio);
	return ctrl_before(bio, cmd, num, ptr);
}

/* Where the kind of BIO lies: what the linker makes read-only, or nothing. */
struct fixed {
	uintptr_t at, start, end;
};

static int look_for_fixed(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct fixed *fixed = arg;
	uintptr_t start;
	int i;

	(void)size;
	for (i = 0; i < info->dlpi_phnum; i++) {
		start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
		if (info->dlpi_phdr[i].p_type != PT_GNU_RELRO ||
		    fixed->at - start >= info->dlpi_phdr[i].p_memsz)
			continue;
		fixed->start = start;
		fixed->end = start + info->dlpi_phdr[i].p_memsz;
		return 1;
	}
	return 0;
}

/* As the dynamic linker does: its last page may have more. */
static bool protect(const struct fixed *fixed, int prot)
{
	uintptr_t page = sysconf(_SC_PAGESIZE), start = fixed->start & -page;

	return !fixed->start || !mprotect((void *)start, (fixed->end & -page) - start, prot);
}

static bool is_ours(const BIO_METHOD *file)
{
	return BIO_meth_get_destroy(file) == destroy && BIO_meth_get_ctrl(file) == ctrl;
}

bool epkp_leftovers_start(const char **why)
{
	BIO_METHOD *file = (BIO_METHOD *)BIO_s_file();
	struct fixed fixed = { .at = (uintptr_t)file };

	if (is_ours(file))
		return true;
	dl_iterate_phdr(look_for_fixed, &fixed);
	destroy_before = BIO_meth_get_destroy(file);
	ctrl_before = BIO_meth_get_ctrl(file);
	if (destroy_before && ctrl_before && protect(&fixed, PROT_READ | PROT_WRITE)) {
		BIO_meth_set_destroy(file, destroy);
		BIO_meth_set_ctrl(file, ctrl);
		if (protect(&fixed, PROT_READ) && is_ours(file))
			return true;
	}
	*why = "libcrypto's BIOs of files cannot be watched";
	return false;
}
