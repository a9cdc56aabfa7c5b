// SPDX-License-Identifier: MIT
/*
 * Where libcrypto's memory comes from while it computes with a private key.
 *
 * Its big numbers, the tables of its exponentiations, blinding factors and nonces come from
 * OPENSSL_malloc(), for which a program can set functions of its own, but only before the
 * first allocation, and a provider comes too late for that.  So the three pointers that hold
 * them are looked for in libcrypto's own data, and replaced there.  What
 * CRYPTO_get_mem_functions() says before tells them from all else, and what it says
 * afterwards that these were they; if it is otherwise, the provider does not start.
 *
 * Nothing changes for anyone but a thread that has entered an arena: what it allocates comes
 * from there.  What it frees goes where it came from.
 */
#define _GNU_SOURCE
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "epk_provider.h"
#include "heap.h"
#include "leftovers.h"

/* ---- arenas: pieces of a few sizes, each free one in the list of its size */

#define ALIGN		16
#define NR_SIZES	64

struct piece {
	size_t size;
	struct piece *next;
};

struct arena {
	size_t size, used;
	struct piece *free[NR_SIZES];
};

_Static_assert(sizeof(struct piece) == ALIGN, "what is behind it is aligned");

struct arena *epkp_arena_make(void *mem, size_t size)
{
	struct arena *a = mem;

	a->size = size;
	a->used = (sizeof(*a) + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	return a;
}

/* Four sizes for each power of two, from 64 on: which, and how large that is. */
static unsigned int size_class(size_t *size)
{
	size_t wanted = *size < 64 ? 64 : *size, step;
	unsigned int power = 63 - __builtin_clzl(wanted);

	step = (size_t)1 << (power - 2);
	*size = (wanted + step - 1) & ~(step - 1);
	power = 63 - __builtin_clzl(*size);
	return (power - 6) * 4 + (*size >> (power - 2) & 3);
}

void *epkp_arena_get(struct arena *a, size_t size)
{
	size_t whole = size + sizeof(struct piece);
	struct piece *b;
	unsigned int class;

	if (whole < size || whole > a->size)
		return NULL;
	class = size_class(&whole);
	if (class >= NR_SIZES)
		return NULL;
	b = a->free[class];
	if (b) {
		a->free[class] = b->next;
	} else {
		if (whole > a->size - a->used)
			return NULL;
		b = (struct piece *)((uint8_t *)a + a->used);
		a->used += whole;
		b->size = whole;
	}
	return b + 1;
}

void epkp_arena_put(struct arena *a, void *ptr)
{
	struct piece *b = (struct piece *)ptr - 1;
	size_t size = b->size;
	unsigned int class = size_class(&size);

	b->next = a->free[class];
	a->free[class] = b;
}

size_t epkp_arena_used(const struct arena *a)
{
	return a->used;
}

static bool is_in(const struct arena *a, const void *ptr)
{
	return (uintptr_t)ptr - (uintptr_t)a < a->size;
}

/* ---- what libcrypto calls */

static __thread struct arena *entered __attribute__((tls_model("initial-exec")));

static CRYPTO_malloc_fn malloc_before;
static CRYPTO_realloc_fn realloc_before;
static CRYPTO_free_fn free_before;

/*
 * Those whose frees are looked at come last, and of these the one whose pieces are noted; those of
 * strings of ASN.1 while anything is noted.
 */
enum use { USE_OTHER, USE_OUTLIVES, USE_ASN1, USE_DER, USE_PEM };
#define USE_BITS	3

/*
 * What was found lately of files, by their names' addresses: each file has its name once.  As
 * many as a page has words: a library's files that share one are few.
 */
#define NR_LATELY	512
static uintptr_t lately[NR_LATELY];

static inline uintptr_t *latest_of(const char *file)
{
	return &lately[(uintptr_t)file >> 3 & (NR_LATELY - 1)];
}

/*
 * What outlives the computation, as others use it, too: the thread's errors, and what
 * OpenSSL remembers of threads and of algorithms.  None of it is of a key.  And what reads files
 * that may have keys.
 */
static __attribute__((noinline)) enum use find_use(const char *file)
{
	static const struct {
		const char *part;
		enum use use;
	} parts[] = {
		{ "/err/", USE_OUTLIVES }, { "initthread.c", USE_OUTLIVES },
		{ "/property/", USE_OUTLIVES }, { "/rand/", USE_OUTLIVES },
		{ "core_", USE_OUTLIVES }, { "ex_data.c", USE_OUTLIVES },
		{ "crypto/provider.c", USE_OUTLIVES }, { "crypto/provider_", USE_OUTLIVES },
		{ "implementations/rands/", USE_OUTLIVES },
		{ "crypto/pem/", USE_PEM }, { "crypto/evp/encode.c", USE_PEM },
		{ "/decode_der2key.c", USE_DER }, { "/bf_buff.c", USE_DER },
		{ "/asn1_lib.c", USE_ASN1 },
	};
	enum use use = USE_OTHER;
	size_t i;

	for (i = 0; i < sizeof(parts) / sizeof(parts[0]) && use == USE_OTHER; i++)
		if (strstr(file, parts[i].part))
			use = parts[i].use;
	__atomic_store_n(latest_of(file), (uintptr_t)file << USE_BITS | use, __ATOMIC_RELAXED);
	return use;
}

static inline enum use use_of(const char *file)
{
	uintptr_t latest = __atomic_load_n(latest_of(file), __ATOMIC_RELAXED);

	if (!file)
		return USE_OTHER;
	return (uintptr_t)file == latest >> USE_BITS ? latest & ((1 << USE_BITS) - 1) : find_use(file);
}

static bool outlives(const char *file)
{
	return use_of(file) == USE_OUTLIVES;
}

/* libcrypto can be built so that it does not say: then nothing tells what outlives. */
static bool is_named(const char *file)
{
	return file && strstr(file, ".c");
}

/* What epkp_heap_start() tries out: whether all was named, and none of it was taken for others'. */
static __thread struct naming {
	bool on, unnamed, outside;
} naming __attribute__((tls_model("initial-exec")));

static __thread const char *refused_in __attribute__((tls_model("initial-exec")));

/*
 * What each piece of the process asks, whether it is allocated or freed: is there any of the
 * three above in this thread, or a heap of the program's?
 */
static __thread bool special __attribute__((tls_model("initial-exec")));
static bool is_programs;

static void note_special(void)
{
	special = entered || refused_in || naming.on;
}

/*
 * Then, if no piece is noted and the file's use is known, and comes before @wiped, there is nothing to
 * do but what the C library does.  That is asked each time, as a key may be read at any.  Who has
 * given somebody a noted piece has noted it before: none is missed when it is freed.
 */
static inline bool is_ordinary(const char *file, enum use wiped)
{
	uintptr_t latest = __atomic_load_n(latest_of(file), __ATOMIC_RELAXED);

	return !special && !is_programs && leftovers_none() &&
	       ((uintptr_t)file << USE_BITS ^ latest) < wiped;
}

void epkp_heap_refuse_next(const char *file)
{
	refused_in = file;
	note_special();
}

/* Whoever asks first: what asks for nothing more where it was to be refused is not followed by another. */
static bool is_refused(const char *file)
{
	bool refused = file && strstr(file, refused_in);

	epkp_heap_refuse_next(NULL);
	return refused;
}

static void give_back(void *ptr, const char *file, int line)
{
	if (free_before != CRYPTO_free)
		free_before(ptr, file, line);
	else
		free(ptr);
}

static void *get_outside(size_t size, bool noted, const char *file, int line)
{
	void *ptr = NULL;

	if (malloc_before != CRYPTO_malloc)
		ptr = malloc_before(size, file, line);
	else if (size)
		ptr = malloc(size);
	/* What was noted there a program has given back by itself, to where it came from. */
	if (!leftovers_none())
		epkp_leftover_forget(ptr);
	if (!ptr || !noted || epkp_leftover_note(ptr, size))
		return ptr;
	give_back(ptr, file, line);
	return NULL;
}

static __attribute__((noinline)) void *get(size_t size, const char *file, int line)
{
	if (naming.on) {
		naming.unnamed |= !is_named(file);
		naming.outside |= is_named(file) && outlives(file);
	}
	if (refused_in && is_refused(file))
		return NULL;
	if (entered && !outlives(file))
		return size ? epkp_arena_get(entered, size) : NULL;
	return get_outside(size, use_of(file) == USE_PEM, file, line);
}

/*
 * A piece that another thread notes, and gives back by itself, between the question and malloc() may
 * be this one, and stays noted: then it is wiped when it is freed, though it has nothing.
 */
static void *heap_malloc(size_t size, const char *file, int line)
{
	return size && is_ordinary(file, USE_PEM) ? malloc(size) : get(size, file, line);
}

/*
 * What has copied it left parts of it in vector registers, which the dynamic linker puts on the
 * stack when it looks for a function: in as much as a signal's frame has, which is added.
 */
#define STACK_BELOW	4096

static __attribute__((noinline)) void wipe_all_of(void *ptr, size_t size)
{
	explicit_bzero(ptr, size);
	epkp_scrub_unwatched(STACK_BELOW, epkp_stack_end());
}

/*
 * A string of ASN.1, which is a key's only while a piece is noted that it is decoded from: so nobody
 * asks while there is none, and with that piece the stack is wiped.
 */
static void wipe_part(void *ptr)
{
	explicit_bzero(ptr, malloc_usable_size(ptr));
}

/* All of it: a piece that a program has from elsewhere may lie where one was noted. */
static size_t noted_size(void *ptr)
{
	size_t size = leftovers_none() ? 0 : epkp_leftover_size(ptr);

	return size && free_before == CRYPTO_free ? malloc_usable_size(ptr) : size;
}

static __attribute__((noinline)) void put_back(void *ptr, const char *file, int line)
{
	size_t size;

	if (entered && is_in(entered, ptr)) {
		epkp_arena_put(entered, ptr);
		return;
	}
	size = noted_size(ptr);
	/* What comes from a BIO's memory into a decoder; its buffer.  A program's heap does not say. */
	if (!size && free_before == CRYPTO_free && use_of(file) == USE_DER)
		size = malloc_usable_size(ptr);
	if (size)
		wipe_all_of(ptr, size);
	else if (free_before == CRYPTO_free && use_of(file) == USE_ASN1)
		wipe_part(ptr);
	if (!leftovers_none())
		epkp_leftover_forget(ptr);
	give_back(ptr, file, line);
}

/*
 * Nothing is what is freed most: all that the thread's errors may have, before each of libssl's
 * operations.  No heap has anything to do then.
 */
static void heap_free(void *ptr, const char *file, int line)
{
	if (!ptr)
		return;
	if (is_ordinary(file, USE_DER))
		free(ptr);
	else
		put_back(ptr, file, line);
}

static void *move_within(struct arena *a, void *ptr, size_t size)
{
	size_t old = ((struct piece *)ptr - 1)->size - sizeof(struct piece);
	void *to;

	if (size && size <= old)
		return ptr;
	to = size ? epkp_arena_get(a, size) : NULL;
	if (to)
		memcpy(to, ptr, old);
	if (to || !size) {
		explicit_bzero(ptr, old);
		epkp_arena_put(a, ptr);
	}
	return to;
}

static void *move_noted(void *ptr, size_t old, size_t size, const char *file, int line)
{
	void *to = size ? get_outside(size, true, file, line) : NULL;

	if (to)
		memcpy(to, ptr, old < size ? old : size);
	if (to || !size)
		heap_free(ptr, file, line);
	return to;
}

static void *heap_realloc(void *ptr, size_t size, const char *file, int line)
{
	size_t old;
	void *to;

	if (!ptr)
		return heap_malloc(size, file, line);
	epkp_heap_refuse_next(NULL);
	if (entered && is_in(entered, ptr))
		return move_within(entered, ptr, size);
	old = noted_size(ptr);
	if (old)
		return move_noted(ptr, old, size, file, line);
	if (realloc_before != CRYPTO_realloc) {
		to = realloc_before(ptr, size, file, line);
	} else if (size) {
		to = realloc(ptr, size);
	} else {
		free(ptr);
		return NULL;
	}
	epkp_leftover_forget(to);
	return to;
}

void epkp_heap_enter(struct arena *arena)
{
	if (entered)
		abort();
	entered = arena;
	note_special();
}

void epkp_heap_leave(void)
{
	entered = NULL;
	note_special();
}

/* ---- how it comes to call these */

union function {
	CRYPTO_malloc_fn malloc;
	CRYPTO_realloc_fn realloc;
	CRYPTO_free_fn free;
	void *address;
};

/* The three, next to each other, in some order. */
struct pointers {
	void **malloc, **realloc, **free;
	unsigned int times;
};

static void look_at(void **words, struct pointers *found)
{
	const union function m = { .malloc = malloc_before }, r = { .realloc = realloc_before };
	const union function f = { .free = free_before };
	struct pointers here = { .times = found->times + 1 };
	int i;

	for (i = 0; i < 3; i++) {
		if (words[i] == m.address)
			here.malloc = &words[i];
		else if (words[i] == r.address)
			here.realloc = &words[i];
		else if (words[i] == f.address)
			here.free = &words[i];
	}
	if (here.malloc && here.realloc && here.free)
		*found = here;
}

static bool is_part(const struct dl_phdr_info *info, const ElfW(Phdr) *part, uintptr_t at)
{
	return at - (info->dlpi_addr + part->p_vaddr) < part->p_memsz;
}

/* What can be written to, but for what the linker makes read-only. */
static void look_through(const struct dl_phdr_info *info, const ElfW(Phdr) *part,
			 const ElfW(Phdr) *fixed, struct pointers *found)
{
	uintptr_t start = info->dlpi_addr + part->p_vaddr, end = start + part->p_memsz;
	uintptr_t at = (start + sizeof(void *) - 1) & ~(sizeof(void *) - 1);

	for (; at + 3 * sizeof(void *) <= end; at += sizeof(void *))
		if (!fixed || !is_part(info, fixed, at))
			look_at((void **)at, found);
}

static int look_in_object(struct dl_phdr_info *info, size_t size, void *found)
{
	const union { void (*fn)(CRYPTO_malloc_fn *, CRYPTO_realloc_fn *, CRYPTO_free_fn *);
		      uintptr_t address; } code = { CRYPTO_get_mem_functions };
	const ElfW(Phdr) *fixed = NULL, *part = info->dlpi_phdr;
	const ElfW(Phdr) *end = part + info->dlpi_phnum;
	bool is_libcrypto = false;

	(void)size;
	for (; part < end; part++) {
		is_libcrypto |= part->p_type == PT_LOAD && is_part(info, part, code.address);
		if (part->p_type == PT_GNU_RELRO)
			fixed = part;
	}
	for (part = info->dlpi_phdr; is_libcrypto && part < end; part++)
		if (part->p_type == PT_LOAD && part->p_flags & PF_W)
			look_through(info, part, fixed, found);
	return is_libcrypto;
}

static void put(void **where, union function fn)
{
	__atomic_store_n(where, fn.address, __ATOMIC_RELEASE);
}

/* Freeing first: from then on what others gave out goes to them. */
static void put_all(const struct pointers *p, CRYPTO_malloc_fn m, CRYPTO_realloc_fn r,
		    CRYPTO_free_fn f)
{
	put(p->free, (union function){ .free = f });
	put(p->realloc, (union function){ .realloc = r });
	put(p->malloc, (union function){ .malloc = m });
}

static bool are_ours(void)
{
	CRYPTO_malloc_fn m;
	CRYPTO_realloc_fn r;
	CRYPTO_free_fn f;

	CRYPTO_get_mem_functions(&m, &r, &f);
	return m == heap_malloc && r == heap_realloc && f == heap_free;
}

static const char *lead_here(void)
{
	struct pointers found = { .times = 0 };

	if (are_ours())
		return NULL;
	CRYPTO_get_mem_functions(&malloc_before, &realloc_before, &free_before);
	is_programs = free_before != CRYPTO_free || malloc_before != CRYPTO_malloc;
	dl_iterate_phdr(look_in_object, &found);
	if (found.times != 1)
		return found.times ? "libcrypto's memory functions are in several places" :
				     "libcrypto's memory functions are not to be found";
	put_all(&found, heap_malloc, heap_realloc, heap_free);
	if (are_ours())
		return NULL;
	put_all(&found, malloc_before, realloc_before, free_before);
	return "libcrypto's memory functions cannot be replaced";
}

/* A number and the state of a hash, as signing has them, are none of others'. */
static const char *try_names(const EVP_MD *md)
{
	struct naming seen;
	EVP_MD_CTX *ctx;
	BIGNUM *number;
	bool ok;

	naming = (struct naming){ .on = true };
	note_special();
	number = BN_new();
	ctx = EVP_MD_CTX_new();
	ok = number && ctx && EVP_DigestInit_ex2(ctx, md, NULL);
	seen = naming;
	naming.on = false;
	note_special();
	EVP_MD_CTX_free(ctx);
	BN_free(number);
	if (!ok)
		return "libcrypto does not hash";
	if (seen.unnamed)
		return "libcrypto does not say which of its files allocates memory";
	return seen.outside ? "libcrypto's files are not named as expected" : NULL;
}

static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;

bool epkp_heap_start(const EVP_MD *md, const char **why)
{
	pthread_mutex_lock(&start_lock);
	*why = lead_here();
	if (!*why)
		*why = md ? try_names(md) : "there is no SHA-512";
	if (!*why)
		epkp_leftovers_start(why);
	pthread_mutex_unlock(&start_lock);
	return !*why;
}

bool epkp_heap_is_programs(void)
{
	CRYPTO_malloc_fn fn;

	CRYPTO_get_mem_functions(&fn, NULL, NULL);
	return (fn == heap_malloc ? malloc_before : fn) != CRYPTO_malloc;
}
