// SPDX-License-Identifier: MIT
/* tool_test EPK-HOST [CASE]: what the host's tool says on a host, and of a VM. */
#include <ctype.h>
#include <fcntl.h>
#include <sys/wait.h>

#include "vmm.h"
#include "../said.h"

#define DATA	0x5000ull
#define LAST	3

static char *tool;
static char said[1 << 15];

/* Run it; its exit status.  What it writes is in said[]. */
static int run_tool(const char *command)
{
	int out[2], status;
	pid_t pid;

	REQUIRE(pipe2(out, O_CLOEXEC) == 0);
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		execl(tool, tool, command, "--json", NULL);
		_exit(101);
	}
	close(out[1]);
	status = said_by(pid, out[0], said, sizeof(said));
	REQUIRE(status >= 0);
	return status;
}

/* What comes after a value of JSON and spaces, or NULL if it is none. */
static const char *json_value(const char *at);

static const char *json_space(const char *at)
{
	while (at && isspace((unsigned char)*at))
		at++;
	return at;
}

static const char *json_string(const char *at)
{
	if (*at++ != '"')
		return NULL;
	for (; *at != '"'; at++) {
		if (*at < ' ' || *at > '~')
			return NULL;
		if (*at == '\\' && *++at == 'u') {
			if (strspn(at + 1, "0123456789abcdefABCDEF") < 4)
				return NULL;
		} else if (at[-1] == '\\' && !strchr("\"\\/bfnrt", *at)) {
			return NULL;
		}
	}
	return json_space(at + 1);
}

/* An object or an array, from behind its bracket. */
static const char *json_list(const char *at, char end)
{
	at = json_space(at);
	if (*at == end)
		return json_space(at + 1);
	for (;; at++) {
		at = json_space(at);
		if (end == '}') {
			at = json_string(at);
			if (!at || *at++ != ':')
				return NULL;
			at = json_space(at);
		}
		at = json_value(at);
		if (!at || (*at != ',' && *at != end))
			return NULL;
		if (*at == end)
			return json_space(at + 1);
	}
}

static const char *json_value(const char *at)
{
	static const char * const words[] = { "true", "false", "null" };
	unsigned int i;
	char *end;

	if (*at == '{' || *at == '[')
		return json_list(at + 1, *at == '{' ? '}' : ']');
	if (*at == '"')
		return json_string(at);
	for (i = 0; i < 3; i++) {
		if (!strncmp(at, words[i], strlen(words[i])))
			return json_space(at + strlen(words[i]));
	}
	strtoul(at, &end, 10);
	return isdigit((unsigned char)*at) ? json_space(end) : NULL;
}

static void expect_json(int line)
{
	const char *end = json_value(said);

	if (!end || *end) {
		check_failed(__FILE__, line, "JSON", 0, end ? *end : -1);
		printf("%s\n", said);
	}
}

static void expect_said(int line, const char *what)
{
	if (!strstr(said, what)) {
		check_failed(__FILE__, line, what, 0, 0);
		printf("%s\n", said);
	}
}
#define SAYS(what) expect_said(__LINE__, what)
#define IS_JSON() expect_json(__LINE__)

/* What is this JSON that the checks go by? */
static void json(void)
{
	static const char * const good[] = {
		"{}", "[ ]", " {\"a\": [1, null, true, {\"b\\u00ff\\\"\": \"\"}]}\n" + 1,
	};
	static const char * const bad[] = {
		"", "{", "{\"a\"}", "{\"a\": }", "[1,]", "[1 2]", "{\"a\": \"\n\"}", "\"\\x\"", "\"\\u12\"", "[] x", "\"a", "{,}",
	};
	unsigned int i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++)
		CHECK(json_value(good[i]) && !*json_value(good[i]));
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK(!json_value(bad[i]) || *json_value(bad[i]));
}

static void check(void)
{
	CHECK_EQ(run_tool("check"), 0);
	IS_JSON();
	SAYS("{\"fact\": \"VT-x\", \"state\": \"ok\"");
	/* By the registers. */
	SAYS("{\"fact\": \"EPT\", \"state\": \"ok\", \"value\": \"four levels, write-back, global INVEPT\"");
	SAYS("{\"fact\": \"VMFUNC\", \"state\": \"ok\"");
	SAYS("{\"fact\": \"keys\", \"state\": \"ok\"");
	SAYS("{\"fact\": \"address bits\", \"state\": \"ok\", \"value\": \"40: half of that space takes 512 EPTs of 1 GiB\"");
	SAYS("{\"fact\": \"nested\", \"state\": \"ok\"");
	SAYS("{\"fact\": \"modules\", \"state\": \"ok\"");
	SAYS("{\"fact\": \"parameter epk\", \"state\": \"ok\"");
	SAYS("{\"fact\": \"epk_debug\", \"state\": \"less\"");
	SAYS("{\"fact\": \"TDP MMU\", \"state\": \"ok\"");
	SAYS("{\"fact\": \"/dev/kvm\", \"state\": \"ok\"");
	SAYS("{\"fact\": \"KVM_CAP_EPK\", \"state\": \"ok\", \"value\": \"a guest can have 512 EPTs\"");
	SAYS("\"works\": true, \"epts\": 512, \"address_bits\": 40}");
}

static void off(void)
{
	kvm_reload("epk=off");
	CHECK_EQ(run_tool("check"), 1);
	IS_JSON();
	SAYS("{\"fact\": \"VMFUNC\", \"state\": \"ok\"");
	SAYS("{\"fact\": \"parameter epk\", \"state\": \"missing\", \"value\": \"off\"");
	SAYS("{\"fact\": \"KVM_CAP_EPK\", \"state\": \"missing\"");
	SAYS("\"works\": false, \"epts\": 0, ");
	kvm_reload("epk=on");
	CHECK_EQ(run_tool("check"), 1);
	SAYS("{\"fact\": \"parameter epk\", \"state\": \"missing\", \"value\": \"on: ");
	SAYS("{\"fact\": \"KVM_CAP_EPK\", \"state\": \"ok\"");
}

static void guest_busy(void)
{
	epk_set_up(LAST);
	vmfunc(1);
	write64(alias(1, DATA), 1);
	GUEST_EQ(try_read(alias(2, DATA)), DOMAIN_FAULT(0));
	try_vmfunc(0, LAST + 1);
	guest_sync(1);
}

static void status(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu;
	char line[256];

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu = vcpu_add(vm, guest_busy);
	CHECK_EQ(run_tool("status"), 0);
	IS_JSON();
	snprintf(line, sizeof(line), "{\"pid\": %d, \"name\": \"\", \"epts\": 0, \"links\": 0, ", getpid());
	SAYS(line);
	vcpu_run_sync(vcpu, 1);
	CHECK_EQ(run_tool("status"), 0);
	IS_JSON();
	CHECK_EQ(vm_stat(vm, "epk_views"), LAST + 1);
	CHECK(vcpu_stat(vcpu, "epk_links"));
	snprintf(line, sizeof(line), "{\"pid\": %d, \"name\": \"\", \"epts\": %d, \"links\": %lu, \"domain_faults\": 1, "
		 "\"refused_vmfuncs\": 1}", getpid(), LAST + 1, vcpu_stat(vcpu, "epk_links"));
	SAYS(line);
	SAYS("\"complete\": true}");
	vm_destroy(vm);
	CHECK_EQ(run_tool("status"), 0);
	SAYS("{\"vms\": [\n], \"complete\": true}");
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "json", json },
		{ "check", check },
		{ "off", off },
		{ "status", status },
	};

	if (argc < 2)
		die("tool_test EPK-HOST [CASE]");
	tool = argv[1];
	return RUN_CASES(cases, argc - 1, argv + 1);
}
