/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef EPK_RAW_H
#define EPK_RAW_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct epk_raw - one hypercall, with arguments that no module would pass
 * @nr: hypercall number
 * @args: a0 to a3
 * @result: out: what the host returned
 */
struct epk_raw {
	__u64 nr;
	__u64 args[4];
	__s64 result;
};

#define EPK_RAW_DEVICE	"/dev/epk-raw"
#define EPK_RAW_CALL	_IOWR('E', 0xf0, struct epk_raw)

#endif /* EPK_RAW_H */
