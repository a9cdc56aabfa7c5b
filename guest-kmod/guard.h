/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guards on what the kernel does for a process and knows nothing of domains.  Each file
 * has one kind of them, and adds its hooks.
 */
#ifndef EPK_GUARD_H
#define EPK_GUARD_H

#include <linux/types.h>

struct epk_trap;
struct mm_struct;
struct pt_regs;

/* guard_key.c */
int epk_guard_key_init(void);
int epk_guard_key_settle(struct mm_struct *mm);
void epk_guard_key_decided(struct mm_struct *mm);

/* signal.c */
int epk_guard_signal_init(void);

/* guard_memory.c */
int epk_guard_memory_init(void);

/* guard_fault.c */
int epk_guard_fault_init(void);

/* guard_trap.c */
int epk_guard_trap_init(void);
unsigned int epk_trap_prot(unsigned long error_code);
bool epk_trap_leave(struct pt_regs *regs, const struct epk_trap *trap);

/* guard_confined.c */
int epk_guard_confined_init(void);
int epk_guard_confined_arm(void);

/* guard_trace.c */
int epk_guard_trace_init(void);

/* guard_uprobe.c */
int epk_guard_uprobe_init(void);

#endif /* EPK_GUARD_H */
