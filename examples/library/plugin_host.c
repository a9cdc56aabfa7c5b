// SPDX-License-Identifier: MIT
/*
 * A plug-in host: each plug-in has a domain for its own data and runs with that
 * domain alone.  A plug-in that reads its neighbour's data is stopped, and the
 * host goes on.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <epk.h>

#define PLUGINS	3

/* What a plug-in is given: its own data, and (for the rogue) a stolen pointer. */
struct plugin {
	const char *name;
	long (*run)(struct plugin *plugin);
	int domain;
	long *data;
	long *stolen;
};

static sigjmp_buf stopped;

static void on_fault(int signo, siginfo_t *info, void *context)
{
	/* The library's own business comes first. */
	if (epk_handle_fault(signo, info, context))
		return;
	siglongjmp(stopped, 1);
}

static long count(struct plugin *plugin)
{
	return ++plugin->data[0];
}

static long twice(struct plugin *plugin)
{
	plugin->data[0] += 2;
	return plugin->data[0];
}

static long rogue(struct plugin *plugin)
{
	return *(volatile long *)plugin->stolen;
}

static int load(struct plugin *plugin)
{
	int err = alloc_domains(1, &plugin->domain);

	if (err)
		return err;
	plugin->data = epk_calloc(plugin->domain, 16, sizeof(*plugin->data));
	return plugin->data ? 0 : -errno;
}

/* 0, or -EFAULT if the plug-in touched what is not its own. */
static int run(struct plugin *plugin, long *result)
{
	int err = domain_begin(plugin->domain, PROT_READ | PROT_WRITE);

	if (err)
		return err;
	if (sigsetjmp(stopped, 1))
		err = -EFAULT;
	else
		*result = plugin->run(plugin);
	/* After siglongjmp() the right is gone under "epk" alone: elsewhere the domain stays held. */
	domain_end(plugin->domain);
	return err;
}

int main(void)
{
	struct plugin plugins[PLUGINS] = {
		{ .name = "count", .run = count },
		{ .name = "twice", .run = twice },
		{ .name = "rogue", .run = rogue },
	};
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	int i, round, err, wrong = 0;
	long result = 0;

	for (i = 0; i < PLUGINS; i++) {
		err = load(&plugins[i]);
		if (err) {
			fprintf(stderr, "plugin_host: %s: %s\n", plugins[i].name,
				epk_strerror(err));
			return 1;
		}
	}
	plugins[2].stolen = plugins[0].data;
	sigaction(SIGSEGV, &action, NULL);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < PLUGINS; i++) {
			err = run(&plugins[i], &result);
			printf("backend %s: %s: ", epk_backend(), plugins[i].name);
			if (err)
				printf("stopped\n");
			else
				printf("%ld\n", result);
			/* Nothing protects under "none". */
			if (strcmp(epk_backend(), "none"))
				wrong |= (i == 2) != (err == -EFAULT);
		}
	}
	return wrong;
}
