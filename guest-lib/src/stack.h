/* SPDX-License-Identifier: MIT */
/* Stacks for functions that epk_call() runs: ordinary memory with nothing below it. */
#ifndef EPK_STACK_H
#define EPK_STACK_H

#define EPK_STACK_BYTES		(128ul * 1024)

char *epk_stack_map(void);
void epk_stack_unmap(char *low);
void epk_stack_wipe(char *low, char *top);

#endif /* EPK_STACK_H */
