// SPDX-License-Identifier: MIT
/* Initialisation happens once in a process, so that each case is a child. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>

#include "state_page.h"
#include "unit.h"

/* How often the library's state can still be made read-only; -1: always. */
static int seals = -1;

/* In place of the C library's. */
int mprotect(void *addr, size_t len, int prot)
{
	if (addr == &epk_state_page && prot == PROT_READ && seals >= 0) {
		if (!seals) {
			errno = ENOMEM;
			return -1;
		}
		seals--;
	}
	return syscall(SYS_mprotect, addr, len, prot);
}

static struct epk_options options_for(const char *backend)
{
	return (struct epk_options){ .size = sizeof(struct epk_options), .backend = backend };
}

/* A refused init leaves nothing behind. */
static void require_nothing_left(const struct epk_options *options, int error)
{
	int files = count_files(), pkeys = count_free_pkeys();
	int mappings;

	REQUIRE(epk_init(options) == error);
	mappings = count_mappings();
	for (int i = 0; i < ERROR_REPEATS; i++)
		REQUIRE(epk_init(options) == error);
	REQUIRE(count_mappings() == mappings);
	REQUIRE(count_files() == files);
	REQUIRE(count_free_pkeys() == pkeys);
	REQUIRE(!epk_backend());
}

/* Nor does it keep the next one from working. */
static void require_refused(const struct epk_options *options, int error)
{
	struct epk_options good = options_for(unit_backend());

	require_nothing_left(options, error);
	REQUIRE(!epk_init(&good));
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
}

static void unknown_backend(void)
{
	struct epk_options options = options_for("nonsense");

	require_refused(&options, -EINVAL);
}

static void size_zero(void)
{
	struct epk_options options = { .backend = "none" };

	require_refused(&options, -EINVAL);
}

static void reserved_not_zero(void)
{
	struct epk_options options = options_for(unit_backend());

	options.reserved = 1;
	require_refused(&options, -EINVAL);
}

static void size_of_later_version(void)
{
	struct {
		struct epk_options options;
		long later;
	} options = { { .size = sizeof(options), .backend = unit_backend() }, 1 };

	require_refused(&options.options, -E2BIG);
}

static void size_of_later_version_unused(void)
{
	struct {
		struct epk_options options;
		long later;
	} options = { { .size = sizeof(options), .backend = unit_backend() }, 0 };

	REQUIRE(!epk_init(&options.options));
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
}

static void size_without_backend(void)
{
	struct epk_options options = { .size = sizeof(options.size), .backend = "nonsense" };

	REQUIRE(!epk_init(&options));
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
}

/* No member counts that is not there, or only in part. */
static void size_of_earlier_version(void)
{
	struct epk_options options = options_for("nonsense");
	size_t size;

	options.flags = options.reserved = ~0u;
	for (size = 0; size <= sizeof(options); size++) {
		options.size = size;
		if (size != sizeof(options.size))
			REQUIRE(epk_init(&options) == -EINVAL && !epk_backend());
	}
	options.backend = unit_backend();
	options.size = offsetof(struct epk_options, flags);
	REQUIRE(!epk_init(&options));
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
}

/* What was not filled in is not read. */
static void size_of_nothing(void)
{
	struct epk_options *options = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(options != MAP_FAILED && !munmap((char *)options + PAGE, PAGE));
	options->size = ~0ul;
	require_refused(options, -E2BIG);
}

static void size_of_a_page(void)
{
	struct epk_options *options = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(options != MAP_FAILED);
	options->backend = unit_backend();
	options->size = PAGE + 1;
	REQUIRE(epk_init(options) == -E2BIG);
	options->size = PAGE;
	REQUIRE(!epk_init(options));
}

static void environment_unknown(void)
{
	int id = 77;

	setenv("EPK_BACKEND", "nonsense", 1);
	REQUIRE(epk_init(NULL) == -EINVAL);
	REQUIRE(alloc_domains(1, &id) == -EINVAL);
	REQUIRE(id == 77 && !epk_backend());
}

static void environment_chooses(void)
{
	setenv("EPK_BACKEND", unit_backend(), 1);
	REQUIRE(!epk_init(NULL));
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
}

static void option_beats_environment(void)
{
	struct epk_options options = options_for(unit_backend());

	setenv("EPK_BACKEND", "nonsense", 1);
	REQUIRE(!epk_init(&options));
	REQUIRE(!strcmp(epk_backend(), options.backend));
}

/* The best that works: at least as good as the one under test. */
static void probe_finds_best(void)
{
	static const char *const order[] = { "epk", "mpk", "none" };
	int i;

	unsetenv("EPK_BACKEND");
	REQUIRE(!epk_init(NULL));
	for (i = 0; strcmp(order[i], epk_backend()); i++)
		REQUIRE(strcmp(order[i], unit_backend()));
}

/* What the library says on stderr under EPK_DEBUG=1 when it is initialised. */
static int init_and_listen(const struct epk_options *options, char said[2048])
{
	int pipes[2], saved = dup(STDERR_FILENO), err;
	ssize_t got;

	setenv("EPK_DEBUG", "1", 1);
	REQUIRE(saved >= 0 && !pipe(pipes));
	REQUIRE(dup2(pipes[1], STDERR_FILENO) == STDERR_FILENO);
	close(pipes[1]);
	err = epk_init(options);
	REQUIRE(dup2(saved, STDERR_FILENO) == STDERR_FILENO);
	close(saved);
	got = read(pipes[0], said, 2047);
	REQUIRE(got >= 0);
	close(pipes[0]);
	said[got] = 0;
	return err;
}

/* Each backend that is passed over says why, and the last one what it is worth. */
static void probe_tells_why(void)
{
	char said[2048];
	bool none;

	unsetenv("EPK_BACKEND");
	REQUIRE(!init_and_listen(NULL, said));
	none = !strcmp(epk_backend(), "none");
	REQUIRE(!strstr(said, "backend epk: E") == !strcmp(epk_backend(), "epk"));
	REQUIRE(!strstr(said, "backend mpk: E") == !none);
	REQUIRE(!strstr(said, "no protection keys") == !none);
	REQUIRE(!strstr(said, "nothing is protected") == !none);
}

static void unknown_tells_names(void)
{
	struct epk_options options = options_for("nonsense");
	char said[2048];

	REQUIRE(init_and_listen(&options, said) == -EINVAL);
	REQUIRE(strstr(said, "epk, mpk, vmfunc, mprotect and none"));
	REQUIRE(strstr(said, "backend nonsense: EINVAL") && strstr(said, "epk_init(0): EINVAL"));
}

static void options_tell_why(void)
{
	struct epk_options options = options_for(unit_backend());
	char said[2048];

	options.size--;
	REQUIRE(init_and_listen(&options, said) == -EINVAL && strstr(said, "options.size"));
	options.size = 2 * PAGE;
	REQUIRE(init_and_listen(&options, said) == -E2BIG && strstr(said, "E2BIG"));
	options = options_for(unit_backend());
	options.flags = 0x80;
	REQUIRE(init_and_listen(&options, said) == -EINVAL && strstr(said, "options is unknown"));
}

/* Without keys that are free there is no protection: this is no reason to do without. */
static void probe_without_keys(void)
{
	char said[2048];
	bool any = false;

	unsetenv("EPK_BACKEND");
	while (pkey_alloc(0, 0) > 0)
		any = true;
	if (!any)
		return;
	REQUIRE(init_and_listen(NULL, said) == -ENOSPC && !epk_backend());
	REQUIRE(strstr(said, "no protection key is free"));
}

static void probe_on_empty_environment(void)
{
	setenv("EPK_BACKEND", "", 1);
	REQUIRE(!epk_init(NULL));
	REQUIRE(epk_backend());
}

/* However often, and whatever for. */
static void twice(void)
{
	struct epk_options options = options_for("nonsense");
	char said[2048];
	int i;

	REQUIRE(!init_and_listen(NULL, said));
	for (i = 0; i < 3; i++) {
		REQUIRE(init_and_listen(i ? NULL : &options, said) == -EALREADY);
		REQUIRE(strstr(said, "epk_init(0): EALREADY") && strstr(said, "once"));
	}
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
}

static void by_first_alloc(void)
{
	int id;

	REQUIRE(!epk_backend());
	REQUIRE(!alloc_domains(1, &id));
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
	REQUIRE(epk_init(NULL) == -EALREADY);
}

/* Every call before initialisation is an error, or has nothing to say. */
static void calls_before(void)
{
	struct epk_counts counts = { .size = sizeof(counts), .domains = 1, .vm_exits = 1 };
	int id = 1 << 17 | 1, nr = 0;

	REQUIRE(free_domains(1, &id) == -ENOENT);
	REQUIRE(domain_begin(id, PROT_READ) == -ENOENT);
	REQUIRE(domain_end(id) == -ENOENT);
	REQUIRE(epk_domain_place(id, NULL, NULL) == -ENOENT);
	REQUIRE(domain_munmap((void *)PAGE, PAGE) == -EINVAL);
	errno = 0;
	REQUIRE(domain_mmap(id, NULL, PAGE, RW, 0) == MAP_FAILED && errno == ENOENT);
	REQUIRE(!epk_counts(&counts) && !counts.domains && !counts.vm_exits);
	REQUIRE(!epk_for_each_mapping(count_one, &nr) && !nr);
	REQUIRE(!epk_backend());
}

static void errno_untouched(void)
{
	struct epk_options absent = options_for("nonsense");

	errno = 12345;
	epk_init(&absent);
	epk_init(NULL);
	REQUIRE(errno == 12345);
}

static void no_pkeys_left(void)
{
	int files = count_files();

	if (!backend_takes_pkeys())
		return;
	while (pkey_alloc(0, 0) > 0)
		;
	REQUIRE(epk_init(NULL) == -ENOSPC);
	REQUIRE(count_files() == files);
	REQUIRE(!epk_backend());
}

static long entry_of_one(void *arg)
{
	return (long)arg;
}

/* Under "mpk" one is the library's own. */
static void one_pkey_left(void)
{
	long (*const entry)(void *) = entry_of_one;
	int files = count_files(), last = 0, pkey, id;

	if (!backend_takes_pkeys())
		return;
	while ((pkey = pkey_alloc(0, 0)) > 0)
		last = pkey;
	REQUIRE(last && !pkey_free(last));
	if (backend_is("mpk")) {
		REQUIRE(epk_init(NULL) == -ENOSPC);
		REQUIRE(count_files() == files && count_free_pkeys() == 1);
	} else {
		REQUIRE(!epk_init(NULL));
	}
	/* Where a component is open, no closed key shows that the module has something in its record. */
	if (backend_is("epk")) {
		REQUIRE(!alloc_domains(1, &id));
		REQUIRE(epk_component_create(id, &entry, 1, NULL) == -EOPNOTSUPP);
	}
}

static void some_pkeys_taken(void)
{
	int id, pkey, own;

	if (!backend_takes_pkeys())
		return;
	own = pkey_alloc(0, 0);
	REQUIRE(own > 0);
	REQUIRE(!alloc_domains(1, &id));
	REQUIRE(!domain_begin(id, RW));
	REQUIRE(!epk_domain_place(id, NULL, &pkey));
	REQUIRE(pkey > 0 && pkey != own);
	REQUIRE(!pkey_free(own));
}

/* Room for a part of what it needs, and then for more, until there is enough. */
static void no_room_for_all(void)
{
	struct epk_options options = options_for(unit_backend());
	unsigned long pages = 0, more;
	struct rlimit limit, none;
	int err = -ENOMEM;
	FILE *statm;

	if (!backend_is("mpk"))
		return;
	statm = fopen("/proc/self/statm", "re");
	REQUIRE(statm && fscanf(statm, "%lu", &pages) == 1);
	fclose(statm);
	REQUIRE(!getrlimit(RLIMIT_AS, &none));
	for (more = 1; more < 64; more++) {
		limit = (struct rlimit){ (pages * PAGE) + (more << 20), none.rlim_max };
		REQUIRE(!setrlimit(RLIMIT_AS, &limit));
		err = epk_init(&options);
		REQUIRE(!setrlimit(RLIMIT_AS, &none));
		if (!err)
			break;
		REQUIRE(!setrlimit(RLIMIT_AS, &limit));
		require_nothing_left(&options, -ENOMEM);
		REQUIRE(!setrlimit(RLIMIT_AS, &none));
	}
	REQUIRE(more > 1 && !err && !strcmp(epk_backend(), unit_backend()));
}

static void *init_when_cancelled(void *arg)
{
	pthread_cancel(pthread_self());
	*(int *)arg = epk_init(NULL);
	return NULL;
}

/* The thread ends behind the call, and leaves the library to others. */
static void init_cancelled(void)
{
	pthread_t thread;
	int err = 1, id;

	unsetenv("EPK_BACKEND");
	alarm(10);
	REQUIRE(!pthread_create(&thread, NULL, init_when_cancelled, &err));
	REQUIRE(!pthread_join(thread, NULL));
	REQUIRE(!err && epk_backend());
	REQUIRE(!alloc_domains(1, &id));
}

/* The table is no file to those who set the limit. */
static void no_files_written(void)
{
	const struct rlimit limit = { 0, 0 };

	REQUIRE(!setrlimit(RLIMIT_FSIZE, &limit));
	REQUIRE(!epk_init(NULL));
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
}

static void state_cannot_be_sealed(void)
{
	struct epk_options options = options_for(unit_backend());

	seals = 0;
	require_nothing_left(&options, -ENOMEM);
	seals = -1;
	REQUIRE(!epk_init(&options));
}

static void init_seals_once(void)
{
	seals = 1;
	epk_init(NULL);
}

/* Later there is nobody to tell, and nothing to go on with. */
static void init_state_stays_open(void **state)
{
	int status = status_of_child(init_seals_once);

	(void)state;
	REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

#define CHILD_CASES(X)								\
	X(unknown_backend) X(size_zero) X(reserved_not_zero)			\
	X(size_of_later_version)						\
	X(size_of_later_version_unused) X(size_without_backend)			\
	X(size_of_earlier_version) X(size_of_nothing) X(size_of_a_page)	\
	X(environment_unknown) X(environment_chooses)				\
	X(option_beats_environment) X(probe_finds_best) X(probe_tells_why)	\
	X(unknown_tells_names) X(options_tell_why) X(probe_without_keys)	\
	X(probe_on_empty_environment) X(twice) X(by_first_alloc)		\
	X(calls_before) X(errno_untouched) X(no_pkeys_left) X(one_pkey_left)	\
	X(some_pkeys_taken) X(no_room_for_all)				\
	X(no_files_written) X(init_cancelled) X(state_cannot_be_sealed)

#define ENTRY(name)	cmocka_unit_test(in_child_##name),

CHILD_CASES(IN_CHILD)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHILD_CASES(ENTRY)
		cmocka_unit_test(init_state_stays_open),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
