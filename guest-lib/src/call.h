/* SPDX-License-Identifier: MIT */
#ifndef EPK_CALL_H
#define EPK_CALL_H

/* At the end of a thread: it has no stack for epk_call() any more. */
void epk_call_stack_free(void);

#endif /* EPK_CALL_H */
