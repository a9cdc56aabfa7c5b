/* SPDX-License-Identifier: MIT */
/*
 * What the library knows once it is initialised, on a page that is read-only
 * from then on: no stray write can point it at another table or backend.
 */
#ifndef EPK_STATE_PAGE_H
#define EPK_STATE_PAGE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <asm/kvm_epk.h>
#include <linux/epk.h>

#include "causes.h"
#include "epk.h"
#include "gate.h"
#include "lock.h"

#define EPK_PAGE_SIZE	4096ul
/* No structure of a caller's is larger; one that says so was not filled in. */
#define EPK_SIZE_MAX	EPK_PAGE_SIZE

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

struct epk_backend;
struct soft_table;

/**
 * struct epk_state - set by init, constant until a fork
 * @gate_table: @table for the gates of "epk", else one with no domain.  The gates know the
 *	offsets of this and the next
 * @access: the PKRU bits that deny access to all of @pkeys
 * @index_mask: with which the gates find an entry of @gate_table
 * @begin: what domain_begin() and
 * @end: domain_end() go on with
 * @pin_table: @table for the gates of "mpk", likewise
 * @closed: @access, and the bits that deny writing
 * @held_bits: those alone
 * @nothing: which of @closed are set in a thread that holds nothing
 * @xfeatures: registers that there are, as bits of XCR0, but PKRU
 * @fd: /dev/epk, or -1
 * @tls_below: bytes of thread-local variables below the FS base
 * @begin_slow: what cannot be done without C: a begin,
 * @end_slow: an end,
 * @call_slow: and a call of a component
 * @close: with which epk_call() ends what is held
 * @release: what a thread that ends leaves components with
 * @table: the domain table, an entry for each index; the kernel module's under
 *	"epk".  Never NULL.  gate.h says what lies before it
 * @pkeys: bit k set: pkey k is the library's
 * @ops: the backend; NULL while the library is not initialised
 * @gates: threads use the gates of "mpk"
 * @debug: errors are explained, whoever listens
 * @strict: what the module would refuse is refused without it, too
 * @code: where memory that can be run is written, see code.c; NULL: none can
 * @pid: the process whose threads use it
 * @soft: where the table is written, if it is the library's own
 * @table_pkey: its key there, or 0
 */
struct epk_state {
	const struct epk_entry *gate_table;
	uint32_t access;
	uint32_t index_mask;
	int (*begin)(int id, int prot);
	int (*end)(int id);
	const struct epk_entry *pin_table;
	uint32_t closed;
	uint32_t held_bits;
	uint32_t nothing;
	uint32_t xfeatures;
	int fd;
	uint32_t tls_below;
	int (*begin_slow)(int id, int prot);
	int (*end_slow)(int id);
	int (*call_slow)(int id, unsigned int entry, void *arg, long *result);
	int (*close)(void);
	void (*release)(void);
	const struct epk_entry *table;
	uint32_t pkeys;
	const struct epk_backend *ops;
	bool gates;
	bool debug;
	bool strict;
	char *code;
	int pid;
	struct soft_table *soft;
	uint8_t table_pkey;
};
#define EPK_STATE_AT(member, offset) \
	_Static_assert(offsetof(struct epk_state, member) == (offset), "as in gate.h")
EPK_STATE_AT(gate_table, EPK_STATE_GATE_TABLE);
EPK_STATE_AT(access, EPK_STATE_ACCESS);
EPK_STATE_AT(index_mask, EPK_STATE_INDEX_MASK);
EPK_STATE_AT(begin, EPK_STATE_BEGIN);
EPK_STATE_AT(end, EPK_STATE_END);
EPK_STATE_AT(pin_table, EPK_STATE_PIN_TABLE);
_Static_assert(offsetof(struct epk_word, switches) == EPK_WORD_SWITCHES &&
	       offsetof(struct epk_word, follows) == EPK_WORD_FOLLOWS &&
	       offsetof(struct epk_word, slot) == EPK_WORD_SLOT &&
	       offsetof(struct epk_word, component) == EPK_WORD_COMPONENT &&
	       offsetof(struct epk_word, comp_slot) == EPK_WORD_COMP_SLOT &&
	       offsetof(struct epk_word, outside) == EPK_WORD_OUTSIDE &&
	       offsetof(struct epk_word, moves) == EPK_WORD_MOVES &&
	       offsetof(struct epk_word, confined) == EPK_WORD_CONFINED &&
	       offsetof(struct epk_slot, pins) == EPK_SLOT_PINS &&
	       sizeof(struct epk_slot) == EPK_SLOT_BYTES, "as in gate.h");
EPK_STATE_AT(closed, EPK_STATE_CLOSED);
EPK_STATE_AT(held_bits, EPK_STATE_HELD_BITS);
EPK_STATE_AT(nothing, EPK_STATE_NOTHING);
EPK_STATE_AT(xfeatures, EPK_STATE_XFEATURES);
EPK_STATE_AT(fd, EPK_STATE_FD);
EPK_STATE_AT(tls_below, EPK_STATE_TLS_BELOW);
EPK_STATE_AT(begin_slow, EPK_STATE_BEGIN_SLOW);
EPK_STATE_AT(end_slow, EPK_STATE_END_SLOW);
EPK_STATE_AT(call_slow, EPK_STATE_CALL_SLOW);

union epk_state_page {
	struct epk_state state;
	char page[EPK_PAGE_SIZE];
};

extern union epk_state_page epk_state_page;

/* To whom there is something to say, or NULL: on a page of its own, since it can be set at any time. */
union epk_print_page {
	epk_print_fn print;
	char page[EPK_PAGE_SIZE];
};

extern union epk_print_page epk_print_page;
int epk_print_write(epk_print_fn print);

static inline epk_print_fn epk_printing(void)
{
	return __atomic_load_n(&epk_print_page.print, __ATOMIC_ACQUIRE);
}
#define epk_now (epk_state_page.state)

void epk_state_page_write(const struct epk_state *new_state);
void epk_state_page_clear(void);
int epk_state_page_seal(void);

static inline const struct epk_backend *epk_ops(void)
{
	return __atomic_load_n(&epk_now.ops, __ATOMIC_ACQUIRE);
}

/*
 * Of the thread: the number of the cause that the call has noted which goes on, and of that of the last one that
 * failed.  No pointers: anybody could change these.
 */
extern __thread unsigned char epk_cause_pending, epk_cause_last;

/*
 * error.c: what @call did with @arg ends with @err, which it returns; says so under EPK_DEBUG=1.  What
 * epk_because() noted before is the reason.
 */
int epk_explain(const char *call, long arg, int err);
/* The same of a call that has no line for it, since it may be asked often. */
int epk_fails(int err);
/* The same of a backend that cannot be used. */
int epk_explain_backend(const char *name, int err);
/* Whatever EPK_DEBUG says: a line for people. */
void epk_say(enum epk_level level, const char *text);

/* init.c */
int epk_ensure_init(void);

/* fault.c: faults that nobody handles are told before the program dies of them. */
void epk_fault_explain(void);
void epk_fault_caught(const struct epk_fault *what);

/* options.c */
int epk_options_copy(void *known, size_t known_size, const void *options, size_t size);

/* table_area.c: the domain table and what belongs beside it */
#define EPK_INDICES		(1u << EPK_ID_INDEX_BITS)
#define EPK_TABLE_ROOM		(EPK_INDICES * sizeof(struct epk_entry))
_Static_assert(EPK_TABLE_ROOM == EPK_GATE_NOTES, "as in gate.h");
/* Behind it, for each index the domain's note. */
#define EPK_NOTES_ROOM		(EPK_INDICES * sizeof(uint64_t))
_Static_assert(EPK_GATE_INDEX_MASK == EPK_INDICES - 1, "as in gate.h");

extern const struct epk_entry epk_no_table[];
const struct epk_entry *epk_table_area_reserve(void);
bool epk_table_area_clear(const struct epk_entry *table);
void epk_table_area_forget(const struct epk_state *old);
void epk_table_area_release(const struct epk_entry *table);

/* fork.c */
int epk_fork_setup(void);
/* 0, or -EPERM: the process is not the one that has this memory for its own. */
int epk_fork_check(void);

/* registry.c: did a parent have @id when it forked? */
bool epk_id_inherited(int id);

/* An entry is 8 bytes, written as one store and read as one load. */
typedef uint64_t epk_raw_entry __attribute__((may_alias));
_Static_assert(sizeof(struct epk_entry) == sizeof(epk_raw_entry), "one load an entry");

static inline struct epk_entry epk_entry_load(uint32_t index)
{
	union {
		epk_raw_entry raw;
		struct epk_entry entry;
	} u;

	u.raw = __atomic_load_n((const epk_raw_entry *)&epk_now.table[index],
				__ATOMIC_ACQUIRE);
	return u.entry;
}

/*
 * Of a domain that the thread holds: where its heap lies, or 0.  Nobody can write it but who has
 * seen to it that it is memory of the domain, once in the domain's life.
 */
static inline uint64_t epk_note(int id)
{
	const char *notes = (const char *)epk_now.table + EPK_TABLE_ROOM;

	return __atomic_load_n((const uint64_t *)notes + EPK_ID_INDEX(id), __ATOMIC_ACQUIRE);
}

/* Is it private, so that its note has its place, too?  See component.h. */
static inline bool epk_note_is_private(int id)
{
	return epk_note(id) & ~EPK_NOTE_ADDR(~0ull);
}

/* In which EPT the thread is: 0 unless the backend knows of several. */
static inline uint32_t epk_current_ept(void)
{
	const char *identity = (const char *)epk_now.table - EPK_GATE_IDENTITY;

	return ((const volatile struct kvm_epk_identity *)identity)->ept;
}

static inline bool epk_entry_find(int id, struct epk_entry *entry)
{
	uint32_t index = EPK_ID_INDEX(id);

	if (unlikely(id <= 0))
		return false;
	*entry = epk_entry_load(index);
	return likely(entry->id == id);
}

/* The live domain @id, or why there is none. */
static inline int epk_lookup(int id, struct epk_entry *entry)
{
	if (likely(epk_entry_find(id, entry)))
		return 0;
	if (unlikely(id <= 0)) {
		epk_because(EPK_CAUSE_ID);
		return -EINVAL;
	}
	return epk_id_inherited(id) ? -EPERM : -ENOENT;
}

#endif /* EPK_STATE_PAGE_H */
