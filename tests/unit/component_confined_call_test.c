// SPDX-License-Identifier: MIT
/* A confined call of any function: a component that calls what it is told, as epk_call(3) has it. */
#define _GNU_SOURCE
#include "component.h"
#include "unit.h"

/* With a domain that its caller can read. */
struct job {
	int dom;
	long (*fn)(void *arg);
	void *arg;
};

static long run_job(void *arg)
{
	const struct job *job = arg;
	int err = domain_begin(job->dom, RW);

	return err ? err : job->fn(job->arg);
}

static int other;
static long *found;
static long data_word[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

static long finds(void *arg)
{
	if (epk_held_prot(other) || epk_held(NULL, 0) != 2)
		return -1;
	found[0] = 17;
	if (arg)
		*(volatile long *)arg = 1;
	return 5;
}

static void confined_calls(void)
{
	long (*const entries[])(void *arg) = { run_job };
	const struct epk_component_options options = {
		.size = sizeof(options), .flags = EPK_COMPONENT_CONFINED,
	};
	int runner = new_domain(), dom = new_domain(), i;
	struct job job = { dom, finds, NULL };
	long result;

	found = (long *)new_pages(dom, 1);
	other = new_domain();
	REQUIRE(!epk_component_create(runner, entries, 1, &options));
	for (i = 0; i < 8; i++) {
		if (i & 1)
			REQUIRE(!domain_begin(other, RW));
		job.arg = i & 2 ? data_word : NULL;
		data_word[0] = 1;
		result = 0;
		if (i & 2) {
			REQUIRE(epk_gate_call(runner, 0, &job, &result) == -EFAULT);
			REQUIRE(data_word[0] == 1);
		} else {
			REQUIRE(!epk_gate_call(runner, 0, &job, &result));
			REQUIRE(result == 5);
		}
		REQUIRE(epk_held(NULL, 0) == (i & 1));
		if (i & 1)
			REQUIRE(!domain_end(other));
		REQUIRE(!domain_begin(dom, RW));
		REQUIRE(found[0] == 17);
		found[0] = 0;
		REQUIRE(!domain_end(dom));
	}
	REQUIRE(!free_domains(1, &runner));
	REQUIRE(!free_domains(1, &dom));
}

IN_CHILD(confined_calls)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_child_confined_calls),
	};

	skip_if(!backend_is("epk"), "has no components");
	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
