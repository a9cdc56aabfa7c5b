// SPDX-License-Identifier: MIT
/* Each error number of the interface has words of its own, and no other. */
#define _GNU_SOURCE
#include "unit.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static const int known[] = {
	0, EINVAL, ENOENT, EPERM, EBUSY, EALREADY, EACCES, EMFILE, ENFILE, EAGAIN, EDEADLK,
	ENOSPC, ENOMEM, ENODEV, EOVERFLOW, EEXIST, E2BIG, EIO, EBADF, EOPNOTSUPP, EDQUOT, EFAULT, EINTR,
	ENOBUFS,
};

#define NR_KNOWN	(sizeof(known) / sizeof(known[0]))

static bool is_known(int error)
{
	size_t i;

	for (i = 0; i < NR_KNOWN && known[i] != error; i++)
		;
	return i < NR_KNOWN;
}

static void strerror_known(void **state)
{
	size_t i, j;

	(void)state;
	for (i = 0; i < NR_KNOWN; i++) {
		REQUIRE_STR_NE(epk_strerror(-known[i]), "unknown error");
		if (known[i] != EFAULT)
			REQUIRE_EQ(epk_strerror(known[i]), epk_strerror(-known[i]));
		for (j = 0; j < i; j++)
			REQUIRE_STR_NE(epk_strerror(known[i]), epk_strerror(known[j]));
	}
}

static long faults(void *arg)
{
	return *(volatile char *)arg;
}

/* In errno it is a system call's; the library's is a function's, of a component or not. */
static void three_kinds_of_efault(void **state)
{
	int id = new_domain();

	(void)state;
	REQUIRE(strstr(epk_strerror(EFAULT), "does not hold"));
	REQUIRE(strstr(epk_strerror(-EFAULT), "the component's function"));
	/* Another number says that it was not entered. */
	REQUIRE(!strstr(epk_strerror(-EFAULT), "stack"));
	REQUIRE(strstr(epk_strerror(-ENOBUFS), "stack_bytes"));
	if (backend_is("epk")) {
		REQUIRE_EQ(epk_call_caught(id, faults, NULL, NULL), -EFAULT);
		REQUIRE(strstr(epk_strerror(-EFAULT), "was left there"));
		REQUIRE(strstr(epk_strerror(EFAULT), "does not hold"));
	}
	free_domain(id);
}

/* The library's own words, or the C library's. */
static void strerror_unknown(void **state)
{
	int error;

	(void)state;
	for (error = 1; error < 134; error++) {
		/* Numbers that Linux does not have. */
		if (error == 41 || error == 58)
			continue;
		REQUIRE_EQ(!strcmp(epk_strerror(-error), strerror(error)), !is_known(error));
	}
	REQUIRE(epk_strerror(123456));
	REQUIRE(epk_strerror(-123456));
	REQUIRE_STR_EQ(epk_strerror(INT32_MIN), "unknown error");
}

static int dom, other;
static char *mem;

static int negative(void *got)
{
	return got == MAP_FAILED || !got ? -errno : 0;
}

static int sealed_file(void)
{
	int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	REQUIRE(fd >= 0 && !ftruncate(fd, PAGE) && !fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	return fd;
}

static long nothing(void *arg)
{
	return (long)arg;
}

static int read_only(int (*call)(void))
{
	int err;

	REQUIRE_EQ(domain_begin(dom, PROT_READ), 0);
	err = call();
	REQUIRE_EQ(domain_end(dom), 0);
	return err;
}

static int call_it(void)
{
	return epk_call(dom, nothing, NULL, NULL);
}

static int allocate(void)
{
	return negative(epk_malloc(dom, 1));
}

static int begin_again(void)
{
	return domain_begin(dom, PROT_READ);
}

/* A heap's file that is sealed, when it has one already or before. */
static int heap_in_sealed(int seal, bool made)
{
	int fd = memfd_create("heap", MFD_CLOEXEC | MFD_ALLOW_SEALING), id = new_domain(), err;
	void **root;

	if (made) {
		REQUIRE_EQ(epk_heap_open(id, fd, PAGE, &root), 1);
		free_domain(id);
		id = new_domain();
	}
	REQUIRE_EQ(fcntl(fd, F_ADD_SEALS, seal), 0);
	err = epk_heap_open(id, fd, PAGE, &root);
	close(fd);
	free_domain(id);
	return err;
}

/* Where the module, or EPK_STRICT as main() has it, looks at the limit: its index is domain memory. */
static int heap_beyond_limit(void)
{
	int fd = memfd_create("heap", MFD_CLOEXEC), id = new_domain(), err;
	struct rlimit none, old;
	void **root;

	REQUIRE_EQ(getrlimit(RLIMIT_MEMLOCK, &old), 0);
	none = (struct rlimit){ 0, old.rlim_max };
	/* Without root's rights, but for its own files of /proc. */
	REQUIRE_EQ(setrlimit(RLIMIT_MEMLOCK, &none) | seteuid(65534) | prctl(PR_SET_DUMPABLE, 1),
		   0);
	err = epk_heap_open(id, fd, PAGE, &root);
	REQUIRE_EQ(seteuid(getuid()) | setrlimit(RLIMIT_MEMLOCK, &old), 0);
	close(fd);
	free_domain(id);
	return err;
}

/* Each fails, for a reason that its number alone does not tell. */
static int goes_wrong(int n, const char **why)
{
	struct epk_options options = { .size = sizeof(options) };
	int twice[2] = { dom, dom }, fd;

	switch (n) {
	case 0: *why = "num is not positive"; return alloc_domains(-1, twice);
	case 1: *why = "num is not positive"; return free_domains(0, twice);
	case 2: *why = "stands twice"; return free_domains(2, twice);
	case 3: *why = "an ID of a domain"; return epk_alloc_beside(1, twice, 0);
	case 4: *why = "can be run"; return negative(domain_mmap(dom, NULL, 1, PROT_EXEC, 0));
	case 5: *why = "can be run"; return domain_begin(dom, PROT_EXEC);
	case 6: *why = "MAP_FIXED is for"; return negative(domain_mmap(dom, mem, 1, RW, MAP_GROWSDOWN));
	case 7: *why = "len is 0"; return negative(domain_mmap(dom, NULL, 0, RW, 0));
	case 8: *why = "multiple of 4096";
		return negative(domain_mmap(dom, mem + 1, 1, RW, MAP_FIXED_NOREPLACE));
	case 9: *why = "multiple of 4096"; return domain_munmap(mem + 1, 1);
	case 10: *why = "no domain's memory"; return domain_munmap(mem, 2 * PAGE);
	case 11: *why = "power of two"; return negative(epk_memalign(dom, 3, 1));
	case 12: *why = "no allocation of this"; return epk_free(dom, mem);
	case 13: *why = "no allocation of this"; return negative(epk_realloc(dom, mem, 10));
	case 14: *why = "no function to call"; return epk_call(dom, NULL, NULL, NULL);
	case 15: *why = "sizeof(struct epk_counts)"; return epk_counts(NULL);
	case 16: *why = "to visit with"; return epk_for_each_mapping(NULL, NULL);
	case 17: *why = "epk_init() comes before"; return epk_init(&options);
	case 18: *why = "widens that"; return read_only(call_it);
	case 19: *why = "widens that"; return read_only(allocate);
	case 20: *why = "a seal of"; fd = sealed_file();
		twice[0] = negative(epk_mmap_file(dom, NULL, PAGE, RW, 0, fd, 0));
		close(fd);
		return twice[0];
	case 21: *why = "not open for reading"; fd = open("/dev/null", O_WRONLY);
		twice[0] = negative(epk_mmap_file(dom, NULL, PAGE, RW, 0, fd, 0));
		close(fd);
		return twice[0];
	case 22: *why = "EPK_WITH() can stand"; return read_only(begin_again);
	case 23: *why = "does not hold"; return domain_end(dom);
	case 24: *why = "never allocated"; return domain_end(other);
	case 25: *why = "1 to 64 entries"; return epk_component_create(dom, NULL, 0, NULL);
	case 26: *why = backend_is("epk") ? "no error" : "cannot tell a fault";
		return epk_call_caught(dom, nothing, NULL, NULL);
	case 27: *why = "no allocation of this"; return epk_usable_size(dom, mem) ? 0 : -errno;
	case 28: *why = "a seal of"; return heap_in_sealed(F_SEAL_WRITE, false);
	case 29: *why = "a seal of"; return heap_in_sealed(F_SEAL_GROW, false);
	case 30: *why = "a seal of"; return heap_in_sealed(F_SEAL_WRITE, true);
	case 31: *why = "RLIMIT_MEMLOCK is"; return heap_beyond_limit();
	case 32: *why = "alloc_domains() returned"; return domain_begin(0, RW);
	case 33: *why = "alloc_domains() returned"; return domain_begin(-5, PROT_READ);
	case 34: *why = "alloc_domains() returned"; return domain_end(-1);
	case 35: *why = "alloc_domains() returned"; return negative(epk_malloc(0, 1));
	case 36: *why = "alloc_domains() returned"; return negative(domain_mmap(0, NULL, 1, RW, 0));
	case 37: *why = "alloc_domains() returned"; return epk_call(-1, nothing, NULL, NULL);
	case 38: *why = "alloc_domains() returned"; return free_domains(1, &(int){ 0 });
	case 39: *why = "alloc_domains() returned"; return epk_free(-2, mem);
	case 40: *why = "its descriptor"; return negative(epk_mmap_file(dom, NULL, PAGE, RW, 0, -1, 0));
	default: return 1;
	}
}

static void prepare(void)
{
	dom = new_domain();
	other = new_domain();
	free_domain(other);
	mem = new_pages(dom, 1);
}

static void causes_are_told(void **state)
{
	const char *why = NULL;
	int n, err;

	(void)state;
	prepare();
	for (n = 0; (err = goes_wrong(n, &why)) <= 0; n++) {
		if (strstr(epk_strerror(err), why) && strstr(epk_strerror(-err), why))
			continue;
		FAIL("case %d, error %d: \"%s\" is not in \"%s\"", n, -err, why, epk_strerror(err));
	}
	REQUIRE_EQ(n, 41);
	free_domain(dom);
}

static void *asks(void *arg)
{
	return strcmp(epk_strerror(EINVAL), arg) ? "the other thread's" : NULL;
}

/* A cause is of the thread's last failure, and of no other number. */
static void causes_do_not_stay(void **state)
{
	void *plain = (void *)epk_strerror(EINVAL);
	const char *why;
	int n, err;

	(void)state;
	prepare();
	/* One whose number has no cause in it. */
	REQUIRE_EQ(domain_end(dom), -EACCES);
	plain = (void *)epk_strerror(EINVAL);
	for (n = 0; (err = goes_wrong(n, &why)) <= 0; n++) {
		if (err == -EINVAL)
			REQUIRE_STR_NE(epk_strerror(EINVAL), plain);
		else
			REQUIRE_STR_EQ(epk_strerror(EINVAL), plain);
		run_threads(asks, &plain, 1);
		/* The same number, for what is known of it. */
		REQUIRE_EQ(epk_held(NULL, 5), -EINVAL);
		REQUIRE_STR_EQ(epk_strerror(EINVAL), plain);
	}
	free_domain(dom);
}

static int bad_place(void)
{
	return epk_domain_place(-1, NULL, NULL);
}

static int bad_held(void)
{
	return epk_held(NULL, 5);
}

static int bad_prot(void)
{
	return epk_held_prot(-1);
}

static int not_held(void)
{
	return epk_may_access(mem, 1, PROT_READ);
}

/* Calls that have no line of their own do not have the last one's words, either. */
static void causes_do_not_stay_for_others(void **state)
{
	int (*const calls[])(void) = { bad_place, bad_held, bad_prot, not_held };
	const char *plain;
	unsigned int i;
	int err;

	(void)state;
	prepare();
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		err = calls[i]();
		REQUIRE(err < 0);
		plain = epk_strerror(err);
		/* One of the same number that has a cause. */
		REQUIRE_EQ(err == -EINVAL ? alloc_domains(0, NULL) : read_only(call_it), err);
		REQUIRE_NE(epk_strerror(err), plain);
		REQUIRE_EQ(calls[i](), err);
		REQUIRE_EQ(epk_strerror(err), plain);
	}
	free_domain(dom);
}

/* What failed on the way to a success is no cause of what fails later. */
static void causes_on_the_way_are_forgotten(void)
{
	int pipes[2], id;

	unsetenv("EPK_BACKEND");
	id = new_domain();
	REQUIRE(!pipe(pipes));
	REQUIRE(epk_mmap_file(id, NULL, PAGE, PROT_READ, 0, pipes[0], 0) == MAP_FAILED);
	REQUIRE(!strstr(epk_strerror(errno), "/dev/epk") && !strstr(epk_strerror(errno), "ospke"));
}

IN_CHILD(causes_on_the_way_are_forgotten)

/* Where it is not refused before. */
static void a_file_that_cannot_be_mapped(void)
{
	int pipes[2], id;

	unsetenv("EPK_STRICT");
	id = new_domain();
	REQUIRE(!pipe(pipes));
	REQUIRE(epk_mmap_file(id, NULL, PAGE, PROT_READ, 0, pipes[0], 0) == MAP_FAILED);
	REQUIRE(errno == (backend_is("epk") ? EOPNOTSUPP : ENODEV));
	REQUIRE(!strstr(epk_strerror(errno), "the machine lacks"));
	REQUIRE(backend_is("epk") || strstr(epk_strerror(errno), "as a pipe"));
}

IN_CHILD(a_file_that_cannot_be_mapped)

/* Before there is any domain. */
static void no_id_at_first(void)
{
	REQUIRE(domain_begin(0, RW) == -EINVAL && strstr(epk_strerror(EINVAL), "alloc_domains() returned"));
	REQUIRE(domain_begin(1, PROT_EXEC) == -EINVAL &&
		strstr(epk_strerror(EINVAL), "can be run"));
	REQUIRE(domain_end(-1) == -EINVAL && strstr(epk_strerror(EINVAL), "alloc_domains() returned"));
}

IN_CHILD(no_id_at_first)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strerror_known),
		cmocka_unit_test(strerror_unknown),
		cmocka_unit_test(three_kinds_of_efault),
		cmocka_unit_test(causes_are_told),
		cmocka_unit_test(in_child_causes_on_the_way_are_forgotten),
		cmocka_unit_test(in_child_a_file_that_cannot_be_mapped),
		cmocka_unit_test(in_child_no_id_at_first),
		cmocka_unit_test(causes_do_not_stay),
		cmocka_unit_test(causes_do_not_stay_for_others),
	};

	need_backend();
	setenv("EPK_STRICT", "1", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
