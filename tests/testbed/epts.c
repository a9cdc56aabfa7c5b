// SPDX-License-Identifier: MIT
/*
 * Preloaded into QEMU, plays a VMM that asks for fewer EPTs than there can be, so that each
 * window has more slots: EPK_EPTS is how many.  QEMU itself does not know KVM_CAP_EPK.
 */
#define _GNU_SOURCE
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <asm/kvm_epk.h>

static void limit_epts(int vm, const char *epts)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_EPK,
		.args = { strtoul(epts, NULL, 10) },
	};

	if (syscall(SYS_ioctl, vm, KVM_ENABLE_CAP, &cap)) {
		perror("KVM_CAP_EPK");
		exit(1);
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	const char *epts = getenv("EPK_EPTS");
	va_list args;
	void *arg;
	int ret;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	ret = syscall(SYS_ioctl, fd, request, arg);
	if (ret >= 0 && request == KVM_CREATE_VM && epts)
		limit_epts(ret, epts);
	return ret;
}
