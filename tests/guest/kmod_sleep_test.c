// SPDX-License-Identifier: MIT
/*
 * The guest sleeps and wakes up while threads hold domains in several EPTs.  EPK_RAW_SLEEPS
 * plays the firmware: freezing, devices, unplugging and the last steps on the boot CPU are the
 * kernel's own, and the CPU comes back reset.  Hibernation is refused.
 */
#include "epk_test.h"

#include <sched.h>
#include <sys/wait.h>

#include "raw/epk_raw.h"

#define CHILDREN	3

static struct epk_device dev;
static volatile int *shared;	/* [0] tells all to end, [1 + n] that child n runs */

static bool has(const char *path, const char *word)
{
	char text[256] = "";
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	close(fd);
	return n > 0 && strstr(text, word);
}

/* A domain of this process with a page that holds @value, entered. */
static volatile int *hold(unsigned int ept, int value)
{
	volatile int *p;
	int id;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	REQUIRE(epk_device_move(&dev, id, ept) == 0);
	p = epk_device_map(&dev, id, 4096);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	*p = value;
	return p;
}

/* Look all the time, in user mode. */
static int child(int number)
{
	volatile int *p = hold(10 + number, number);
	uint32_t pkru = epk_rdpkru();

	shared[1 + number] = 1;
	while (!shared[0])
		if (dev.identity->ept != (uint32_t)(10 + number) || epk_rdpkru() != pkru ||
		    *p != number)
			return 1;
	return epk_failures != 0;
}

static void sleep_and_look(const char *state, volatile int *p, int value)
{
	uint32_t ept = dev.identity->ept, pkru = epk_rdpkru();
	bool ok = put("/sys/power/state", state);
	/* At once: what a reset leaves open is open until somebody closes it. */
	uint32_t pkru_after = epk_rdpkru(), ept_after = dev.identity->ept;

	if (!CHECK(ok))
		perror(state);
	CHECK_EQ(ept_after, ept);
	CHECK_EQ(pkru_after, pkru);
	CHECK_EQ(EPK_TRY(ok = *p == value), 0);
	CHECK(ok);
}

static void deep(volatile int *p, int raw)
{
	int before = ioctl(raw, EPK_RAW_SLEEPS), i;

	REQUIRE(has("/sys/power/mem_sleep", "deep"));
	REQUIRE(put("/sys/power/mem_sleep", "deep"));
	for (i = 1; i <= 3; i++) {
		sleep_and_look("mem", p, 42);
		CHECK_EQ(ioctl(raw, EPK_RAW_SLEEPS), before + i);
	}
}

/* Suspend to idle would wait for a device that wakes the machine: stop just before. */
static void idle(volatile int *p)
{
	if (access("/sys/power/pm_test", W_OK))
		return;
	REQUIRE(put("/sys/module/suspend/parameters/pm_test_delay", "0"));
	REQUIRE(put("/sys/power/pm_test", "platform"));
	sleep_and_look("freeze", p, 42);
	CHECK(put("/sys/power/pm_test", "none"));
}

static void hibernation(void)
{
	if (!has("/sys/power/state", "disk"))
		return;
	CHECK(!put("/sys/power/state", "disk") && errno == EBUSY);
}

int main(void)
{
	volatile int *p;
	pid_t pids[CHILDREN];
	int raw, i, status;

	raw = open(EPK_RAW_DEVICE, O_RDWR);
	REQUIRE(raw >= 0);
	if (ioctl(raw, EPK_RAW_SLEEPS) < 0)
		EPK_SKIP("this kernel cannot suspend");
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	for (i = 0; i < CHILDREN; i++) {
		pids[i] = fork();
		if (!pids[i])
			_exit(child(i));
		while (!shared[1 + i] && !waitpid(pids[i], &status, WNOHANG))
			sched_yield();
		REQUIRE(shared[1 + i]);
	}

	p = hold(7, 42);
	deep(p, raw);
	idle(p);
	hibernation();

	epk_device_enter(&dev, 0);
	shared[0] = 1;
	for (i = 0; i < CHILDREN; i++) {
		CHECK_EQ(waitpid(pids[i], &status, 0), pids[i]);
		CHECK_EQ(status, 0);
	}
	return epk_test_result();
}
